"""A history moves while both sides are written to between any two of its calls, and is killed at any of them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

from jobhistory import JobHistory, JobHistoryError, JobNotFoundError, JobRepository, JobStatus, SyncJob
from jobhistory.comparison import Comparison
from jobhistory.ledger import Ledger
from jobhistory.moving import Move
from jobhistory.storage.memory import InMemoryJobRepository

CONNECTIONS = [UUID(int=number) for number in (1, 2, 3)]
KEPT = UUID(int=0)
"""Has a job that stays: where all are deleted, SOURCE seems to be another history."""
KILLS = 3

STEPS: list[Callable[[JobHistory, SyncJob], object]] = [
    START := lambda history, job: history.start(job.id, worker="here"),
    lambda history, job: history.report(job.id, inserted=job.entities_inserted + 1),
    lambda history, job: history.beat(job.id),
    lambda history, job: history.complete(job.id),
    lambda history, job: history.fail(job.id, error="broken"),
    lambda history, job: history.cancel(job.id),
]


class Killed(BaseException):
    pass


class Watched:
    """A repository between whose calls something happens."""

    def __init__(self, repository: JobRepository, happens: Callable[[], None]) -> None:
        self._repository = repository
        self._happens = happens

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the port has
        method = getattr(self._repository, name)

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  as above
            self._happens()
            result = method(*args, **options)
            self._happens()
            return result

        return (lambda *_: True) if name == "wait_for_changes" else call


class Storm:
    """Two histories, whose writers keep to one rule: nobody takes in SOURCE what is taken in DEST."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311  no secret
        self.source = JobHistory(InMemoryJobRepository())
        self.source.enqueue(KEPT)
        self.dest = JobHistory(InMemoryJobRepository())
        self.dests: set[UUID] = set()
        """The jobs that are DEST's: made or taken there."""
        self._switched = False
        self._left: int | None = None

    def run(self) -> tuple[Move, list[Comparison]]:
        """Move, killed a few times; in the end all writers have switched."""
        for _ in range(self.draw.randrange(60)):
            self._write_to_source()
        ledger = io.BytesIO()
        for _ in range(KILLS):
            self._left = self.draw.randrange(150)
            with suppress(Killed):
                self._move(ledger)
        self._left = None
        return self._move(ledger)

    def _move(self, ledger: io.BytesIO) -> tuple[Move, list[Comparison]]:
        source, dest = (JobHistory(Watched(each.repository, self._happens)) for each in (self.source, self.dest))
        move = Move(source, dest, Ledger(ledger))
        move.copy()
        turns = iter([*[False] * self.draw.randrange(4), True])
        move.keep_up(lambda: next(turns))
        self._switched = self._left is None
        return move, move.finish()

    def _happens(self) -> None:
        while not self._switched and self.draw.random() < 0.35:
            self._write_to_source()
        if self.draw.random() < 0.15:
            self._write_to_dest()
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def _write_to_source(self) -> None:
        with suppress(JobHistoryError):
            self.draw.choice([self._enqueue, self._enqueue, *[self._take_a_step] * 6, self._delete, self._rename])()

    def _enqueue(self) -> None:
        self.source.enqueue(self.draw.choice(CONNECTIONS))

    def _take_a_step(self) -> None:
        job, step = self._any(self.source.active_jobs(limit=1000)), self.draw.choice(STEPS)
        if job and not (step is START and job.id in self.dests):
            step(self.source, job)

    def _delete(self) -> None:
        jobs = [job for job in every(self.source) if job.is_terminal and job.source_connection_id in CONNECTIONS]
        self.source.repository.delete_many(each.id for each in [self._any(jobs)] if each)
        if self.draw.random() < 0.1:
            self.source.forget(self.draw.choice(CONNECTIONS))

    def _rename(self) -> None:
        self.source.register(self.draw.choice(CONNECTIONS), self.draw.choice("abcd"))

    def _write_to_dest(self) -> None:
        history = self.dest
        active = history.active_jobs(limit=1000)
        mine = self._any([each for each in active if each.id in self.dests and each.status is not JobStatus.PENDING])
        waiting = self._any([each for each in active if each.status is JobStatus.PENDING and self._is_free(each)])
        match self.draw.randrange(4):
            case 0:
                self.dests.add(history.enqueue(self.draw.choice(CONNECTIONS)).id)
            case 1 if waiting:
                history.start(waiting.id, worker="there")
                self.dests.add(waiting.id)
            case 2 if mine:
                history.report(mine.id, inserted=mine.entities_inserted + 1)
            case 3 if mine:
                history.complete(mine.id)

    def _is_free(self, job: SyncJob) -> bool:
        try:
            return self.source.get(job.id).status is JobStatus.PENDING
        except JobNotFoundError:
            return job.id in self.dests

    def _any(self, jobs: list[SyncJob]) -> SyncJob | None:
        return self.draw.choice(jobs) if jobs else None


def every(history: JobHistory) -> list[SyncJob]:
    return [job for jobs in history.newest_jobs(per_connection=1000).values() for job in jobs]


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 2000), marks=pytest.mark.slow)])
def test_whatever_is_written_on_both_sides_each_has_its_own_in_the_end(seeds: range) -> None:
    for seed in seeds:
        storm = Storm(seed)
        move, results = storm.run()
        here, there = ({job.id: job for job in every(history)} for history in (storm.source, storm.dest))
        apart = {one.id for result in results for one, _ in result.apart}
        assert apart <= storm.dests
        assert {} == {id: job for id, job in here.items() if id not in storm.dests and there.get(id) != job}
        assert set() == there.keys() - here.keys() - storm.dests, "deleted in SOURCE"
        assert set() == storm.dests - there.keys(), "DEST's own"
        assert all(result.is_equal for result in results)
        names = {known.id: known.name for known in storm.dest.connections()}
        for known in storm.source.connections():
            assert known.id in move.nameless or known.name in (None, names[known.id])
