"""Processes that run one program, and what they must leave behind when they work on one history."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import IO
from uuid import UUID

import jobhistory
from jobhistory import JobStatus
from jobhistory.status import TERMINAL_STATUSES, TRANSITIONS


class Crew:
    """Processes that run one program, and are told and answer by the line."""

    def __init__(self, size: int, program: str, *arguments: object) -> None:
        self.members = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(number), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(size)
        ]

    @property
    def mouths(self) -> list[IO[str]]:
        return [member.stdout for member in self.members if member.stdout is not None]

    @property
    def ears(self) -> list[IO[str]]:
        return [member.stdin for member in self.members if member.stdin is not None]

    def tell(self, line: str) -> None:
        """Tell all, as good as at once."""
        for ear in self.ears:
            ear.write(f"{line}\n")
            ear.flush()

    def answers(self) -> list[str]:
        """The next line of each."""
        return [mouth.readline().strip() for mouth in self.mouths]

    def last_words(self) -> list[str]:
        """All that they still say before their end, for which nothing more is told."""
        for ear in self.ears:
            ear.close()
        return [line for mouth in self.mouths for line in mouth.read().splitlines()]

    def codes(self) -> list[int]:
        """How they ended."""
        return [member.wait() for member in self.members]

    @classmethod
    @contextmanager
    def at_work(cls, size: int, program: str, *arguments: object) -> Iterator[Crew]:
        crew = cls(size, program, *arguments)
        try:
            yield crew
        finally:
            for member in crew.members:
                member.kill()
                member.wait()
            for stream in crew.ears + crew.mouths:
                stream.close()


WORKING = """
import random
import sys
from uuid import UUID
import jobhistory
from jobhistory import ActiveJobExistsError, InvalidTransitionError

number, path, rounds, *connections = sys.argv[1:]
chance = random.Random(number)

def wrote(job):
    print(job.id, job.version, job.status, flush=True)

with jobhistory.open(path, hooks=[wrote]) as history:
    print("ready", flush=True)
    sys.stdin.readline()
    added = 0
    while added < int(rounds):
        connection = chance.choice(connections)
        try:
            job = history.enqueue(connection, exclusive=True)
            added += 1
        except ActiveJobExistsError as error:
            job = history.get(error.job_id)
        active = [each for each in history.active_jobs(limit=1000) if str(each.source_connection_id) == connection]
        assert len(active) <= 1, active
        steps = [
            lambda: history.start(job.id),
            lambda: history.report(job.id, inserted=chance.randrange(100)),
            lambda: history.beat(job.id),
            lambda: history.complete(job.id),
            lambda: history.fail(job.id, error="failed by " + number),
            lambda: history.cancel(job.id),
            lambda: history.finish_cancel(job.id),
        ]
        for step in [steps[0], *chance.choices(steps, k=3), chance.choice(steps[3:])]:
            try:
                step()
            except InvalidTransitionError:
                pass
"""


def work_together(processes: int, url: str, rounds: int) -> None:
    """Let the processes add and step the same jobs; no write of theirs is lost, and none is beside the story."""
    connections = [UUID(int=number) for number in range(5)]
    written: dict[UUID, dict[int, JobStatus]] = defaultdict(dict)
    with Crew.at_work(processes, WORKING, url, rounds, *connections) as crew:
        assert ["ready"] * processes == crew.answers()
        crew.tell("go")
        for line in crew.last_words():
            text, version, status = line.split()
            id = UUID(text)
            assert int(version) not in written[id], "two processes wrote the same version"
            written[id][int(version)] = JobStatus(status)
        assert [0] * processes == crew.codes()

    with jobhistory.open(url) as history:
        stored = {job.id: job for connection in history.connections() for job in history.iter_jobs(connection.id)}
    assert processes * rounds == len(stored)
    assert written.keys() == stored.keys()
    for id, versions in written.items():
        statuses = [versions[version] for version in sorted(versions)]
        assert JobStatus.PENDING is statuses[0]
        assert (max(versions), statuses[-1]) == (stored[id].version, stored[id].status) or stored[id].is_active
        assert [] == [
            (before, after)
            for before, after in pairwise(statuses)
            if after is not before and after not in TRANSITIONS[before]
        ]
        assert len([status for status in statuses if status in TERMINAL_STATUSES]) == stored[id].is_terminal
    left = [job for job in stored.values() if job.is_active]
    assert len(left) <= len(connections)
