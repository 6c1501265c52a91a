"""Writers are killed, thousands a minute, at random moments: what they acknowledged is there, and nothing by half."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import UUID

import attrs
import pytest

from jobhistory import JobStatus, SyncJob
from jobhistory.storage import sqlite
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, at, job, jobs
from tests.faults.campaign import sizes
from tests.faults.processes import call
from tests.faults.state import state_in
from tests.faults.upgrade import UPGRADED

CREW = 3
KILLS_A_FILE = 60
LONGEST = 0.01
"""Seconds until the next one is killed, at most."""

# ---- What a writer does: each act is one write, of which its owner knows what it leaves

Jobs = dict[int, int]
"""The versions of a writer's jobs, by their numbers."""


@attrs.frozen
class Act:
    """One write, as a line of text: `add 7 1`, `start 7 1`, `complete 7 1`, `add 8 40`, `delete 8 40`."""

    name: str
    first: int
    count: int

    @classmethod
    def parse(cls, line: str) -> Act:
        name, first, count = line.split()
        return cls(name, int(first), int(count))

    def __str__(self) -> str:
        return f"{self.name} {self.first} {self.count}"

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    def do(self, repository: SQLiteJobRepository) -> None:
        stored = jobs(*self.numbers) if self.count == 1 else jobs(*self.numbers, status=JobStatus.COMPLETED)
        match self.name:
            case "add" if self.count == 1:
                repository.add(stored[0])
            case "add":
                repository.add_many(stored)
            case "start":
                repository.replace(started(self.first))
            case "complete":
                repository.replace(started(self.first).complete(at=at(self.first + 2)))
            case _:
                repository.delete_many(each.id for each in stored)

    def leave(self, known: Jobs) -> Jobs:
        if self.name == "delete":
            return {number: version for number, version in known.items() if number not in self.numbers}
        version = {"add": 1, "start": 2, "complete": 3}[self.name]
        return known | dict.fromkeys(self.numbers, version)


def started(number: int) -> SyncJob:
    return job(number).start(at=at(number + 1))


def acts(first: int, chance: random.Random) -> Iterator[Act]:
    """A life without end, on numbers of its own from the first one on."""
    while True:
        yield Act("add", first, 1)
        yield Act("start", first, 1)
        yield Act("complete", first, 1)
        many = chance.randint(2, 20)
        yield Act("add", first + 1, many)
        if chance.random() < 0.5:
            yield Act("delete", first + 1, many)
        first += 1 + many


# ---- Writers

Make = Callable[..., SQLiteJobRepository]


class Writer:
    """A forked process that opens the history and writes until it is killed; it says what it will do, and did."""

    def __init__(self, number: int, path: Path, make: Make, chance: random.Random) -> None:
        self._first = number * 100_000
        self._heard = b""
        self.pipe, mouth = os.pipe()
        seed = chance.getrandbits(32)
        self.pid = os.fork()
        if not self.pid:
            self._live(path, make, random.Random(seed), mouth)
        os.close(mouth)

    def _live(self, path: Path, make: Make, chance: random.Random, mouth: int) -> None:
        def say(line: object) -> None:
            os.write(mouth, f"{line}\n".encode())

        try:
            signal.alarm(60)
            repository = make(path)
            vars(repository)["acknowledge"] = lambda: say("done")  # for one that cannot wait
            repository.register(CONNECTION)
            for act in acts(self._first, chance):
                say(act)
                act.do(repository)
                say("done")
        except BaseException:  # noqa: BLE001  a child must not go on as its parent
            say(f"failed\n{traceback.format_exc()}")
        finally:
            os._exit(1)

    def listen(self) -> bool:
        said = os.read(self.pipe, 1 << 16)
        self._heard += said
        return bool(said)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        while self.listen():
            pass
        os.close(self.pipe)

    @property
    def acts(self) -> int:
        """How many it acknowledged."""
        return self._heard.count(b"done\n")

    def left(self) -> tuple[Jobs, Jobs]:
        """What it must have left: without the act that it was killed at, or with it."""
        assert b"failed\n" not in self._heard, self._heard[-5000:].decode()
        known: Jobs = {}
        following: Jobs = {}
        for line in self._heard.decode().splitlines():
            if line == "done":
                known = following
            else:
                following = Act.parse(line).leave(known)
        return known, following


def work(crew: list[Writer], duration: float) -> None:
    """Let the crew work for so many seconds."""
    until = time.monotonic() + duration
    while (left := until - time.monotonic()) > 0:
        heard, _, _ = select.select([writer.pipe for writer in crew], [], [], left)
        for writer in crew:
            if writer.pipe in heard:
                writer.listen()


@attrs.define
class Losses:
    """How many writers' jobs are not as they said, and of how many jobs the feed did not tell the latest."""

    kills: int = 0
    acts: int = 0
    wrong: int = 0
    missed: int = 0
    begun: float = attrs.field(factory=time.monotonic, repr=False)

    def judge(
        self, path: Path, writers: list[Writer], *, old: Iterable[int] = (), told: dict[UUID, int] | None = None
    ) -> None:
        """Count what is wrong with the file that these writers left beside old jobs, and take it away."""
        found = {facts[0]: facts[-1] for _, facts in state_in(path).feed}
        self.wrong += sum(found.pop(job(number).id, None) != 1 for number in old)
        if told is not None:
            self.missed += sum(told.get(id) != version for id, version in found.items())
        for writer in writers:
            stories = [{job(number).id: version for number, version in left.items()} for left in writer.left()]
            left = {id: found.pop(id) for id in stories[0].keys() | stories[1].keys() if id in found}
            self.wrong += left not in stories
            self.acts += writer.acts
        self.wrong += len(found)
        self.kills += len(writers)
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()

    def tell(self, of: str) -> None:
        rate = 60 * self.kills / (time.monotonic() - self.begun)
        print(f"{of}: {self}, {rate:.0f} kills a minute")


# ---- Writers at work, in a small process of their own: to fork one that ran a thousand tests takes longer than to kill


def crash(path: Path, size: int, seed: int, make: Make) -> Losses:
    """Kill so many writers, one out of a crew at a time, on one file after the other."""
    chance = random.Random(seed)
    losses = Losses()
    while losses.kills < size:
        told: dict[UUID, int] = {}
        token = None
        with closing(make(path)) as follower:
            crew = [Writer(number, path, make, chance) for number in range(CREW)]
            writers = list(crew)
            while crew:
                work(crew, chance.uniform(0, LONGEST))
                crew.pop(chance.randrange(len(crew))).kill()
                if len(writers) < min(KILLS_A_FILE, size):
                    crew.append(Writer(len(writers), path, make, chance))
                    writers.append(crew[-1])
                while changes := follower.changes(token):
                    token = changes[-1].token
                    told |= {change.job.id: change.job.version for change in changes}
        losses.judge(path, writers, told=told)
    return losses


def crash_often(path: Path, tries: int, seed: int, make: Make, seen: str) -> Losses:
    """Kill 20 at a time, until the loss that must be seen was."""
    for each in range(tries):
        losses = crash(path, 20, seed + each, make)
        if getattr(losses, seen):
            break
    return losses


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@sizes(50, 5_000)
def test_killed_writers_lose_nothing_acknowledged(
    folder: Path, size: int, seed: int, durability: Literal["full", "relaxed"]
) -> None:
    losses = call(crash, folder / "history.db", size, seed, partial(SQLiteJobRepository, durability=durability))

    losses.tell(durability)
    assert losses.acts > losses.kills
    assert (0, 0) == (losses.wrong, losses.missed)


class Hasty(SQLiteJobRepository):
    """Acknowledges what it is about to write."""

    acknowledge: Callable[[], object]

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        self.acknowledge()
        super().add_many(jobs)


class Halving(SQLiteJobRepository):
    """Adds many jobs in two writes."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        first, *others = jobs
        super().add_many([first])
        super().add_many(others)


class Mute(SQLiteJobRepository):
    """Does not announce that a job was finished."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        super().replace(job, quiet=quiet or job.is_terminal)


@pytest.mark.parametrize(("make", "seen"), [(Hasty, "wrong"), (Halving, "wrong"), (Mute, "missed")])
def test_a_writer_that_loses_something_is_caught(folder: Path, seed: int, make: Make, seen: str) -> None:
    losses = call(crash_often, folder / "history.db", 30, seed, make, seen)

    losses.tell(make.__name__)
    assert getattr(losses, seen)


# ---- The first opening, and each upgrade

OLD = range(10**7, 10**7 + 300)


@pytest.fixture(params=range(len(UPGRADED)))
def old(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A history that has so many of the migrations; with none, there is no file yet."""
    path = folder / "old.db"
    if request.param:
        monkeypatch.setattr(sqlite, "_SCHEMAS", UPGRADED[: request.param])
        with closing(SQLiteJobRepository(path)) as repository:
            repository.register(CONNECTION)
            repository.add_many(jobs(*OLD, status=JobStatus.COMPLETED))
    return path


def crash_upgraded(path: Path, old: Path, size: int, seed: int) -> Losses:
    """Kill so many writers, a crew at a time, while they open a copy of the old history, or none."""
    sqlite._SCHEMAS = UPGRADED  # type: ignore[assignment]
    chance = random.Random(seed)
    losses = Losses()
    while losses.kills < size:
        if old.exists():
            shutil.copy(old, path)
        crew = [Writer(number, path, SQLiteJobRepository, chance) for number in range(CREW)]
        work(crew, chance.uniform(0, LONGEST))
        for writer in crew:
            writer.kill()
        losses.judge(path, crew, old=OLD if old.exists() else ())
    return losses


@sizes(30, 3_000)
def test_a_history_that_is_made_or_upgraded_by_processes_that_are_killed_is_whole(
    old: Path, folder: Path, size: int, seed: int
) -> None:
    losses = call(crash_upgraded, folder / "history.db", old, size, seed)

    losses.tell("upgraded" if old.exists() else "made")
    assert 0 == losses.wrong
