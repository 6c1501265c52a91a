"""Clients work side by side, and some are killed: what they saw could have been seen by one after the other."""

from __future__ import annotations

import io
import os
import pickle
import random
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import attrs
import pytest

from jobhistory import JobHistoryError, JobRepository, JobStatus, SyncJob, UnknownOutcomeError, refusal
from jobhistory.storage import sqlite
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import at
from tests.faults.campaign import sizes
from tests.faults.linearizability import Operation, is_linearizable, overlapping
from tests.postgres import Database

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CLIENTS = 4
CALLS = 8
NUMBERS = range(3)

# ---- The model: three jobs of one connection, in the order of their latest change


@attrs.frozen
class Known:
    """All of a job that differs: who wrote it, at which version, and in which status it then is."""

    number: int
    version: int
    status: JobStatus
    writer: int

    @property
    def is_active(self) -> bool:
        return self.status in ("PENDING", "RUNNING")


EDGES = {("PENDING", "RUNNING"), ("RUNNING", "RUNNING"), ("RUNNING", "COMPLETED"), ("PENDING", "CANCELLED")}
Jobs = tuple[Known, ...]
NONE: Jobs = ()


def model(jobs: Jobs, call: tuple[Any, ...]) -> tuple[Jobs, object]:  # noqa: C901  a case a method
    by_number = {job.number: job for job in jobs}
    newest = tuple(sorted(jobs, key=lambda job: -job.number))
    match call:
        case ("add", job, exclusive):
            if job.number in by_number:
                return jobs, None if by_number[job.number] == job else "DuplicateJobError"
            if exclusive and any(each.is_active for each in jobs):
                return jobs, "ActiveJobExistsError"
            return (*jobs, job), None
        case ("replace", job):
            if job.number not in by_number:
                return jobs, "JobNotFoundError"
            stored = by_number[job.number]
            if stored == job:
                return jobs, None
            if not stored.is_active or stored.version != job.version - 1:
                return jobs, "ConflictError"
            if (stored.status, job.status) not in EDGES:
                return jobs, "InvalidTransitionError"
            return (*(each for each in jobs if each != stored), job), None
        case ("delete", number):
            gone = [job for job in jobs if job.number == number and not job.is_active]
            return tuple(job for job in jobs if job not in gone), len(gone)
        case ("get", number):
            return jobs, by_number.get(number, "JobNotFoundError")
        case ("list", limit):
            return jobs, newest[:limit]
        case ("active",):
            return jobs, tuple(job for job in newest if job.is_active)
        case ("newest",):
            return jobs, newest[:1]
        case _:
            return jobs, jobs  # the feed


# ---- The same calls, on a repository


@attrs.frozen
class Client:
    """Asks a repository about one connection's jobs, in the model's words."""

    repository: JobRepository
    connection: UUID
    since: str | None
    """Where the feed stood when it all began."""

    def created_at(self, number: int) -> datetime:
        """After all the jobs of earlier connections: lists over all connections begin with these."""
        return at((self.connection.int >> 64) * len(NUMBERS) + number)

    def job(self, known: Known) -> SyncJob:
        created_at = self.created_at(known.number)
        ended = {"completed_at": created_at, "duration_seconds": 0.0} if known.status == "COMPLETED" else {}
        began = {} if known.status in ("PENDING", "CANCELLED") else {"started_at": created_at, **ended}
        return SyncJob(
            id=UUID(int=self.connection.int + 1 + known.number),
            source_connection_id=self.connection,
            status=known.status,
            created_at=created_at,
            worker=f"{known.writer}",
            version=known.version,
            **cast("dict[str, Any]", began),
        )

    def known(self, job: SyncJob) -> Known:
        number = round((job.created_at - self.created_at(0)) / timedelta(seconds=1))
        known = Known(number, job.version, job.status, int(job.worker or ""))
        assert self.job(known) == job
        return known

    def all_known(self, jobs: list[SyncJob]) -> Jobs:
        return tuple(self.known(job) for job in jobs if job.source_connection_id == self.connection)

    def ask(self, call: tuple[Any, ...]) -> object:
        repository, connection = self.repository, self.connection
        match call:
            case ("add", known, exclusive):
                repository.add(self.job(known), exclusive=exclusive)
                return None
            case ("replace", known):
                repository.replace(self.job(known))
                return None
            case ("delete", number):
                return repository.delete_many([UUID(int=connection.int + 1 + number)])
            case ("get", number):
                return self.known(repository.get(UUID(int=connection.int + 1 + number)))
            case ("list", limit):
                return self.all_known(repository.list_jobs(connection, limit=limit))
            case ("active",):
                return self.all_known(repository.active_jobs(limit=len(NUMBERS)))
            case ("newest",):
                return self.all_known(repository.newest_jobs([connection])[connection])
            case _:
                return self.all_known([change.job for change in repository.changes(self.since)])

    def work(self, number: int, seed: int, tell: Callable[[Operation], object]) -> None:
        """Ask what it likes, and tell of each call before and after."""
        chance = random.Random(seed)
        seen: dict[int, Known] = {}
        for _ in range(CALLS):
            call = chosen(number, seen, chance)
            asked = Operation(number, call, time.monotonic_ns())
            tell(asked)
            try:
                answer = self.ask(call)
            except UnknownOutcomeError:
                continue
            except JobHistoryError as error:
                answer = type(error).__name__
            tell(attrs.evolve(asked, ended=time.monotonic_ns(), answer=answer))
            learnt = answer if isinstance(answer, tuple) else (answer,)
            seen |= {known.number: known for known in learnt if isinstance(known, Known)}
            if call[0] in ("add", "replace") and answer is None:
                seen[call[1].number] = call[1]


def chosen(client: int, seen: dict[int, Known], chance: random.Random) -> tuple[Any, ...]:
    number = chance.choice(NUMBERS)
    known = seen.get(number)
    if known is not None and known.is_active and chance.random() < 0.6:
        statuses = [after for before, after in sorted(EDGES) if before == known.status]
        return "replace", Known(number, known.version + 1, JobStatus(chance.choice(statuses)), client)
    return chance.choice(
        [
            ("add", Known(number, 1, JobStatus.PENDING, client), chance.random() < 0.3),
            ("delete", number),
            ("get", number),
            ("list", chance.choice((1, 2, 10))),
            ("active",),
            ("newest",),
            ("changes",),
        ]
    )


# ---- Clients side by side

Open = Callable[[], JobRepository]
"""Opens what all the clients share."""


def in_threads(client: Client, chance: random.Random) -> list[Operation]:
    told: list[Operation] = []
    barrier = threading.Barrier(CLIENTS)

    def work(number: int, seed: int) -> None:
        barrier.wait()
        client.work(number, seed, told.append)

    threads = [threading.Thread(target=work, args=(number, chance.getrandbits(32))) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latest(told)


def in_processes(open_it: Open, connection: UUID, since: str | None, chance: random.Random) -> list[Operation]:
    """Each in a process of its own; one of them is killed at some moment."""
    gate, starter = os.pipe()
    pids, mouths = [], []
    for number in range(CLIENTS):
        reading, writing = os.pipe()
        seed = chance.getrandbits(32)
        if not (pid := os.fork()):
            os.close(starter)
            _live(open_it, connection, since, number, seed, gate, writing)
        os.close(writing)
        pids.append(pid)
        mouths.append(reading)
    os.close(starter)
    os.close(gate)
    victim = chance.randrange(CLIENTS)
    select.select([mouths[victim]], [], [])  # it has begun
    select.select([], [], [], chance.uniform(0, 0.002))
    os.kill(pids[victim], signal.SIGKILL)
    told = [operation for mouth in mouths for operation in read(mouth)]
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids} <= {0, -signal.SIGKILL}
    return latest(told)


def _live(  # noqa: PLR0917
    open_it: Open, connection: UUID, since: str | None, number: int, seed: int, gate: int, mouth: int
) -> None:
    code = 1
    try:
        signal.alarm(60)
        client = Client(open_it(), connection, since)
        os.read(gate, 1)  # until it is opened for all
        client.work(number, seed, lambda operation: os.write(mouth, pickle.dumps(operation)))
        code = 0
    except BaseException:  # noqa: BLE001  a child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def read(mouth: int) -> Iterator[Operation]:
    with os.fdopen(mouth, "rb") as pipe:
        said = io.BytesIO(pipe.read())
    while said.tell() < len(said.getvalue()):
        yield pickle.load(said)  # noqa: S301  our own bytes


def latest(told: list[Operation]) -> list[Operation]:
    """Each operation once: as it ended, where it did."""
    return list({(operation.client, operation.began): operation for operation in told}.values())


@attrs.define
class Verdict:
    histories: int = 0
    operations: int = 0
    overlapping: int = 0
    never_told: int = 0
    wrong: list[list[Operation]] = attrs.field(factory=list, repr=lambda wrong: str(len(wrong)))

    def judge(self, history: list[Operation]) -> None:
        self.histories += 1
        self.operations += len(history)
        self.overlapping += overlapping(history)
        self.never_told += sum(operation.ended is None for operation in history)
        if not is_linearizable(history, NONE, model):
            self.wrong.append(sorted(history, key=lambda operation: operation.began))


def compete(open_it: Open, size: int, seed: int, *, processes: bool, feed: bool = True) -> Verdict:
    """So many histories, each on a connection of its own; without what the feed said, if so."""
    chance = random.Random(seed)
    verdict = Verdict()
    with closing(open_it()) as shared:
        since = None
        for number in range(size):
            connection = UUID(int=(number + 1) << 64)
            shared.register(connection)
            while changes := shared.changes(since):
                since = changes[-1].token
            if processes:
                told = in_processes(open_it, connection, since, chance)
            else:
                told = in_threads(Client(shared, connection, since), chance)
            verdict.judge([operation for operation in told if feed or operation.call != ("changes",)])
    print(verdict)
    return verdict


def memory(_: Path) -> JobRepository:
    return InMemoryJobRepository()


def in_sqlite(folder: Path) -> JobRepository:
    return SQLiteJobRepository(folder / "history.db")


@pytest.mark.parametrize("make", [in_sqlite])
@sizes(12, 2_000)
def test_processes_see_one_history(make: Callable[[Path], JobRepository], folder: Path, size: int, seed: int) -> None:
    verdict = compete(partial(make, folder), size, seed, processes=True)

    assert [] == verdict.wrong
    assert verdict.never_told > 0
    assert verdict.overlapping >= verdict.operations / 2


@pytest.fixture
def _restless() -> Iterator[None]:
    """Python lets another thread on as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_restless")
@pytest.mark.parametrize("make", [memory, in_sqlite])
@sizes(60, 2_000)
def test_threads_see_one_history(make: Callable[[Path], JobRepository], folder: Path, size: int, seed: int) -> None:
    verdict = compete(partial(make, folder), size, seed, processes=False)

    assert [] == verdict.wrong
    assert verdict.overlapping > 0


@pytest.fixture
def in_postgres(postgres: Database) -> Iterator[Open]:
    with closing(postgres.empty()) as empty:
        yield partial(PostgresJobRepository, postgres.url, schema=empty._db.schema)


# PostgreSQL's feed tells of a change once none can come before it, at times later than it is acknowledged.


@sizes(6, 500)
def test_processes_see_one_history_in_postgres(in_postgres: Open, size: int, seed: int) -> None:
    verdict = compete(in_postgres, size, seed, processes=True, feed=False)

    assert [] == verdict.wrong
    assert verdict.overlapping >= verdict.operations / 2


@pytest.mark.usefixtures("_restless")
@sizes(15, 2_000)
def test_threads_see_one_history_in_postgres(in_postgres: Open, size: int, seed: int) -> None:
    verdict = compete(in_postgres, size, seed, processes=False, feed=False)

    assert [] == verdict.wrong
    assert verdict.overlapping > 0


class Naive(SQLiteJobRepository):
    """Reads, decides, then writes: not one step."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        stored = self.get(job.id)
        if stored == job:
            return
        if error := refusal(stored, job):
            raise error
        os.sched_yield()
        statement = sqlite._REPLACE_QUIETLY if quiet else sqlite._REPLACE_LOUDLY
        with self._db.write() as db:
            db.execute(statement, (*sqlite._changing(job), job.id.bytes))


def test_a_repository_that_reads_and_then_writes_is_flagged(folder: Path, seed: int) -> None:
    tries = ((partial(Naive, folder / f"{each}.db"), seed + each) for each in range(100))

    assert any(compete(naive, 3, seed, processes=True).wrong for naive, seed in tries)
