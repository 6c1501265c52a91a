"""The cases: what the library does, beside the least SQL that does the same.

Floor A is hand-written sqlite3 on the least table that could do, giving plain tuples (data.LEAST_TABLE).
Floor B is the library's own statements on its own tables, run by hand: what is left is the library itself.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import attrs

from benchmarks.data import Histories, connection_ids, jobs, open_least
from jobhistory import JobHistory, JobStatus, SyncJob
from jobhistory.health import WINDOW
from jobhistory.storage import sqlite
from jobhistory.storage.sqlite import SQLiteJobRepository

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FEW = 100
Durability = Literal["full", "relaxed"]
LEAST_PAGE = "SELECT * FROM jobs WHERE source_connection_id = ? ORDER BY created_at DESC LIMIT ?"
_LEAST_GET = "SELECT * FROM jobs WHERE id = ?"
_LEAST_NEWEST = """
SELECT jobs.* FROM json_each(?) AS c CROSS JOIN jobs
WHERE jobs.rowid = (
    SELECT rowid FROM jobs WHERE source_connection_id = c.value ORDER BY created_at DESC LIMIT 1
)
"""
_LEAST_WINDOWS = """
SELECT jobs.* FROM json_each(?) AS c CROSS JOIN jobs
WHERE jobs.rowid IN (
    SELECT rowid FROM jobs WHERE source_connection_id = c.value ORDER BY created_at DESC LIMIT ?
)
"""


@attrs.frozen
class Figure:
    """One figure that is no ratio of times."""

    name: str
    unit: str
    target: float
    """At most so much."""
    value: float


@attrs.frozen
class Case:
    """One figure: the library's call over its floor's, and the ratio it is meant to keep to."""

    name: str
    target: float
    ours: Callable[[], object]
    floor: Callable[[], object]
    before: Callable[[], object] = bool
    """Called before each call, and not timed."""


def reading(histories: Histories) -> Iterator[Case]:
    """Pages, single jobs and filters on a finished history, over floor A."""
    repository = SQLiteJobRepository(histories.library)
    history = JobHistory(repository)
    least = open_least(histories.least)
    connection = connection_ids(histories.connections)[3]
    text = str(connection)

    for limit, target in ((10, 1.4), (100, 1.35), (1000, 1.3)):
        yield Case(
            f"list {limit}",
            target,
            lambda limit=limit: history.list_jobs(connection, limit=limit),  # type: ignore[misc]
            lambda limit=limit: least.execute(LEAST_PAGE, (text, limit)).fetchall(),  # type: ignore[misc]
        )
    some = [job.id for job in history.list_jobs(connection, limit=50)]
    names = [str(id) for id in some]
    yield Case(
        "get, 50 times",
        1.3,
        lambda: [history.get(id) for id in some],
        lambda: [least.execute(_LEAST_GET, (name,)).fetchall() for name in names],
    )
    whole = list(history.iter_jobs(connection))
    middle = whole[len(whole) * 3 // 4]
    yield Case(
        "list 100 far down, by cursor, over the first page",
        1.1,
        lambda: history.list_jobs(connection, limit=100, before=middle),
        lambda: history.list_jobs(connection, limit=100),
    )
    failed = len(history.list_jobs(connection, limit=100, statuses={JobStatus.FAILED}))
    yield Case(
        f"list {failed} by status FAILED, over unfiltered",
        1.5,
        lambda: history.list_jobs(connection, limit=failed, statuses={JobStatus.FAILED}),
        lambda: history.list_jobs(connection, limit=failed),
    )


def newest(histories: Histories) -> Iterator[Case]:
    """The newest job of each of many connections, in one query."""
    history = JobHistory(SQLiteJobRepository(histories.library))
    least = open_least(histories.least)
    names = json.dumps([str(id) for id in connection_ids(histories.connections)])
    yield Case(
        f"newest of {histories.connections:,} connections",
        1.3,
        history.newest_jobs,
        lambda: least.execute(_LEAST_NEWEST, (names,)).fetchall(),
    )


def health(histories: Histories) -> Iterator[Case]:
    """Figures and signals of many connections, over reading the rows that they are drawn from, a row at a time."""
    repository = SQLiteJobRepository(histories.library)
    newest = max(job.created_at for [job] in repository.newest_jobs().values())
    history = JobHistory(repository, clock=lambda: newest)
    least = open_least(histories.least)
    names = json.dumps([str(id) for id in connection_ids(histories.connections)])
    yield Case(
        f"health of {histories.connections:,} connections",
        2,
        history.health,
        lambda: deque(least.execute(_LEAST_WINDOWS, (names, WINDOW)), maxlen=0),
    )


def waiting(histories: Histories, count: int) -> Iterator[Case]:
    """What waits among what is finished; the jobs that wait are taken out again."""
    repository = SQLiteJobRepository(histories.library, durability="relaxed")
    history = JobHistory(repository)
    [connection, *_] = ids = connection_ids(histories.connections)
    queue = [SyncJob(id=uuid4(), source_connection_id=ids[n % len(ids)], created_at=NOW) for n in range(count)]
    repository.add_many(queue)
    yield Case(
        f"active_jobs 100 of {count:,} waiting, over list 100",
        3,
        lambda: history.active_jobs(limit=100),
        lambda: history.list_jobs(connection, limit=100),
    )
    repository.add_many([])
    with sqlite3.connect(histories.library) as raw:
        raw.execute("DELETE FROM jobs WHERE status = 'PENDING'")
    raw.close()


def writing(durability: Durability, target_enqueue: float, target_start: float, enough: int) -> Iterator[Case]:
    """Adding and moving on single jobs, over floor B, in at most so many turns."""
    with tempfile.TemporaryDirectory() as folder:
        ours, floor = (SQLiteJobRepository(Path(folder) / name, durability=durability) for name in ("ours", "floor"))
        history, by_hand = JobHistory(ours), ByHand(floor)
        [connection] = connection_ids(1)
        for repository in (ours, floor):
            repository.register(connection)

        fresh = iter([by_hand.prepare_add(pending(connection)) for _ in range(enough)])
        yield Case(
            f"enqueue, {durability}, over B",
            target_enqueue,
            lambda: history.enqueue(connection),
            lambda: by_hand.add(next(fresh)),
        )
        for repository in (ours, floor):
            repository.add_many(queue := [pending(connection) for _ in range(enough)])
            if repository is ours:
                mine = iter([job.id for job in queue])
            else:
                theirs = iter([by_hand.prepare_start(job) for job in queue])
        yield Case(
            f"start, {durability}, over B",
            target_start,
            lambda: history.start(next(mine)),
            lambda: by_hand.start(next(theirs)),
        )


class ByHand:
    """Floor B: the statements of one add and one start, with every value ready."""

    def __init__(self, repository: SQLiteJobRepository) -> None:
        self._db = repository._connect()
        self._get = f"{sqlite._JOBS} WHERE j.id = ?"

    def prepare_add(self, job: SyncJob) -> tuple[bytes, bytes, list[Any]]:
        row = [sqlite._text(job.created_at), job.id.bytes, *sqlite._changing(job)]
        return job.source_connection_id.bytes, job.id.bytes, row

    def add(self, prepared: tuple[bytes, bytes, list[Any]]) -> None:
        connection, id, row = prepared
        self._db.execute("BEGIN IMMEDIATE")
        [(number,)] = self._db.execute("SELECT number FROM source_connections WHERE id = ?", (connection,)).fetchall()
        self._db.execute(self._get, (id,)).fetchall()
        self._db.execute(sqlite._ADD, [number, *row])
        self._db.execute("COMMIT")

    def prepare_start(self, job: SyncJob) -> list[Any]:
        return [*sqlite._changing(job.start(at=NOW, worker="worker")), job.id.bytes]

    def start(self, row: list[Any]) -> None:
        self._db.execute(self._get, row[-1:]).fetchall()
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(self._get, row[-1:]).fetchall()
        self._db.execute(sqlite._REPLACE_LOUDLY, row)
        self._db.execute("COMMIT")


def pending(connection: UUID) -> SyncJob:
    """A job that waits, with an id of its own."""
    return SyncJob(id=uuid4(), source_connection_id=connection, created_at=NOW)


def importing(count: int) -> Iterator[Case]:
    """Many ready records at once, over floor B: the same rows, ready as tuples."""
    ready = list(jobs(count, FEW))
    with tempfile.TemporaryDirectory() as folder:
        ours, floor = (SQLiteJobRepository(Path(folder) / name, durability="relaxed") for name in ("ours", "floor"))
        for repository in (ours, floor):
            for id in connection_ids(FEW):
                repository.register(id)
        db = floor._connect()
        numbers = dict(db.execute("SELECT id, number FROM source_connections").fetchall())
        rows = [
            (
                numbers[job.source_connection_id.bytes],
                sqlite._text(job.created_at),
                job.id.bytes,
                *sqlite._changing(job),
                n,
            )
            for n, job in enumerate(ready, 1)
        ]

        def by_hand() -> None:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(sqlite._ADD_MANY, rows)
            db.execute("COMMIT")

        def emptied() -> None:
            db.execute("DELETE FROM jobs")
            mine.execute("DELETE FROM jobs")

        mine = ours._connect()
        yield Case(f"add_many of {count:,} ready records, over B", 1.85, lambda: ours.add_many(ready), by_hand, emptied)
