"""The rules of sharing a repository between threads, and of closing it."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import attrs

from jobhistory.errors import (
    ActiveJobExistsError,
    ConflictError,
    DuplicateJobError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
)
from jobhistory.job import SyncJob
from jobhistory.repository import Change, JobRepository
from jobhistory.status import JobStatus
from jobhistory.testing.rules.base import CONNECTION, OTHER, UNKNOWN, Rules, add, announced, at, job, jobs
from jobhistory.testing.stateful import answer

_THREADS = 4
_ROUNDS = 10


class RaceRules(Rules):
    """Of threads that want the same thing at the same moment, exactly one gets it."""

    def test_one_exclusive_add_wins(self, repository: JobRepository) -> None:
        """Of exclusive adds to one connection at once exactly one succeeds, the others raise ActiveJobExistsError."""
        for number in range(_ROUNDS):
            rivals = jobs(*range(number * _THREADS, (number + 1) * _THREADS))
            answers = _race([partial(repository.add, rival, exclusive=True) for rival in rivals])
            assert {None: 1, ActiveJobExistsError: _THREADS - 1} == Counter(answers)
            winner = rivals[answers.index(None)]
            assert [winner] == repository.active_jobs()
            repository.replace(winner.cancel(at=at(1000)))

    def test_one_claim_wins(self, repository: JobRepository) -> None:
        """Of workers that claim one job at once exactly one has it, the others raise ConflictError."""
        for number in range(_ROUNDS):
            [pending] = add(repository, job(number))
            claims = [pending.start(at=at(1000), worker=f"here:{rival}:a") for rival in range(_THREADS)]
            answers = _race([partial(repository.replace, claim) for claim in claims])
            assert {None: 1, ConflictError: _THREADS - 1} == Counter(answers)
            assert claims[answers.index(None)] == repository.get(pending.id)

    def test_one_job_gets_an_id(self, repository: JobRepository) -> None:
        """Of different jobs added under one id at once exactly one is stored, the others raise DuplicateJobError."""
        for number in range(_ROUNDS):
            rivals = [attrs.evolve(job(number), worker=f"here:{rival}:a") for rival in range(_THREADS)]
            answers = _race([partial(repository.add, rival) for rival in rivals])
            assert {None: 1, DuplicateJobError: _THREADS - 1} == Counter(answers)
            assert rivals[answers.index(None)] == repository.get(job(number).id)

    def test_one_connection_gets_a_name(self, repository: JobRepository) -> None:
        """Of connections registered under one name at once exactly one has it, the others raise NameTakenError."""
        for number in range(_ROUNDS):
            name = f"crm {number}"
            ids = [job(rival + number * _THREADS).id for rival in range(_THREADS)]
            answers = _race([partial(repository.register, id, name) for id in ids])
            named = [connection for connection in repository.connections() if connection.name == name]
            assert 1 == len(named)
            assert [named[0] if id == named[0].id else NameTakenError for id in ids] == answers

    def test_no_job_outlives_its_connection(self, repository: JobRepository) -> None:
        """Of an add and a forget at once exactly one succeeds: no job is left without its connection."""
        for number in range(_ROUNDS):
            new = job(number)
            added, forgotten = _race([partial(repository.add, new), partial(repository.forget, CONNECTION)])
            if added is None:
                assert ActiveJobExistsError is forgotten
                assert [new] == repository.list_jobs(CONNECTION, limit=1)
                repository.replace(new.cancel(at=at(1000)))
            else:
                assert (SourceConnectionNotFoundError, None) == (added, forgotten)
                assert JobNotFoundError is answer(repository.get, new.id)
            repository.register(CONNECTION)

    def test_a_reader_misses_no_change(self, repository: JobRepository) -> None:
        """Who follows the feed while others write is told of every write at least once, under growing tokens."""
        everything = jobs(*range(40 * _THREADS))
        writing = threading.Semaphore(0)
        told: list[SyncJob] = []

        def write(mine: Sequence[SyncJob]) -> None:
            try:
                for each in mine:
                    repository.add(each)
                    repository.replace(each.start(at=at(1000)))
            finally:
                writing.release()

        def follow() -> None:
            page: list[Change] = []
            token, finished = None, 0
            while (page or finished < _THREADS) and len(told) < 100 * len(everything):
                # Looked at before the feed is read: what was written by then must be told. Who is told of nothing
                # leaves the processor to the writers for a moment.
                finished += writing.acquire(timeout=0 if page else 0.0005)
                page = repository.changes(token, limit=7)
                told.extend(change.job for change in page)
                token = page[-1].token if page else token

        writers = [partial(write, everything[i::_THREADS]) for i in range(_THREADS)]
        assert [None] * (_THREADS + 1) == _race([*writers, follow])
        last: dict[UUID, SyncJob] = {}
        for each in told:
            last.pop(each.id, None)
            last[each.id] = each
        assert {each.id: each.start(at=at(1000)) for each in everything} == last
        assert announced(repository) == list(last.values())


class CloseRules(Rules):
    """A closed repository says so, to everyone."""

    def test_a_closed_repository_raises_storage_error(self) -> None:
        """After close every method raises StorageError, in every thread; closing again does no harm."""
        [done] = jobs(1, status=JobStatus.COMPLETED)
        with self.opened() as repository, ThreadPoolExecutor(1) as elsewhere:
            repository.add(done)
            calls: dict[str, Callable[[], object]] = {
                "register": partial(repository.register, UNKNOWN),
                "register again": partial(repository.register, CONNECTION, "crm"),
                "connections": repository.connections,
                "forget": partial(repository.forget, OTHER),
                "add": partial(repository.add, job(2)),
                "add again": partial(repository.add, done),
                "add_many": partial(repository.add_many, jobs(3)),
                "get": partial(repository.get, done.id),
                "replace": partial(repository.replace, done),
                "list_jobs": partial(repository.list_jobs, CONNECTION),
                "active_jobs": repository.active_jobs,
                "newest_jobs": repository.newest_jobs,
                "delete_many": partial(repository.delete_many, [done.id]),
                "changes": repository.changes,
            }
            assert [done] == elsewhere.submit(repository.list_jobs, CONNECTION).result()
            repository.close()
            repository.close()
            answers = {name: answer(call) for name, call in calls.items()}
            assert dict.fromkeys(calls, StorageError) == answers
            answers = {name: elsewhere.submit(answer, call).result() for name, call in calls.items()}
            assert dict.fromkeys(calls, StorageError) == answers


def _race(calls: Sequence[Callable[[], object]]) -> list[object]:
    """What each call answers, all started at the same moment, each in a thread of its own."""
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        ready.wait()
        return answer(call)

    with _restless_threads(), ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


@contextmanager
def _restless_threads() -> Iterator[None]:
    """Let threads take turns every few instructions, so that a gap between check and act is found."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
