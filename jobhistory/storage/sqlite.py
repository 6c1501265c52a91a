"""The history in one SQLite file: the embedded default, shared by the processes of one machine.

One clustered table holds the jobs in the order in which they are listed, so the newest page is one
contiguous read, whatever the size. https://www.sqlite.org/withoutrowid.html
"""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import sqlite3
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID, SafeUUID

from jobhistory.abilities import Finding, JSONPage
from jobhistory.errors import (
    ActiveJobExistsError,
    DuplicateJobError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
)
from jobhistory.ids import check_id
from jobhistory.job import COLUMNS, WIRE_FIELDS, SyncJob
from jobhistory.private_files import create
from jobhistory.repository import (
    Change,
    Position,
    SourceConnection,
    check_active_statuses,
    check_before,
    check_limit,
    check_name,
    check_statuses,
    check_token,
    newest_first,
    refusal,
)
from jobhistory.status import JobStatus
from jobhistory.storable import JSONText
from jobhistory.storage.filesystem import SHARED_BY_MACHINES, filesystem_of
from jobhistory.storage.rows import DraftJob
from jobhistory.storage.sqlite_backup import backup
from jobhistory.storage.sqlite_check import check, set_aside, unreadable, unreadable_connection
from jobhistory.storage.sqlite_connections import Connections, primary_code, storage_error
from jobhistory.times import seconds, utc

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x6A6F6268
"""`jobh`: marks a file as a history (https://www.sqlite.org/pragma.html#pragma_application_id)."""


# ---- Schema and migrations


def _time(column: str) -> str:
    digits = ("[0-9]" * count for count in (4, 2, 2, 2, 2, 2, 6))
    return f"CHECK ({column} GLOB '{'{}-{}-{}T{}:{}:{}.{}Z'.format(*digits)}')"


def _uuid(column: str) -> str:
    parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    return " || '-' || ".join(f"substr(lower(hex({column})), {start}, {length})" for start, length in parts)


_FIRST_SCHEMA = f"""
CREATE TABLE source_connections (
    number INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, so that it may be remembered
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    name TEXT UNIQUE
) STRICT;

CREATE TABLE jobs (
    connection INTEGER NOT NULL REFERENCES source_connections (number),
    created_at TEXT NOT NULL {_time("created_at")},
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    status TEXT NOT NULL CHECK (status IN ({", ".join(f"'{status}'" for status in JobStatus)})),
    started_at TEXT {_time("started_at")},
    completed_at TEXT {_time("completed_at")},
    duration_seconds REAL CHECK (duration_seconds >= 0),
    entities_inserted INTEGER NOT NULL CHECK (entities_inserted >= 0),
    entities_updated INTEGER NOT NULL CHECK (entities_updated >= 0),
    entities_deleted INTEGER NOT NULL CHECK (entities_deleted >= 0),
    entities_failed INTEGER NOT NULL CHECK (entities_failed >= 0),
    error TEXT,
    error_details_json TEXT,
    cancel_requested_at TEXT {_time("cancel_requested_at")},
    heartbeat_at TEXT {_time("heartbeat_at")},
    progress_at TEXT {_time("progress_at")},
    worker TEXT,
    metadata_json TEXT,
    version INTEGER NOT NULL CHECK (version >= 1),
    change INTEGER NOT NULL UNIQUE CHECK (change >= 1), -- its place in the feed
    PRIMARY KEY (connection, created_at, id)
) STRICT, WITHOUT ROWID;

-- Filters by status and what is active stay flat in finished jobs; a query must repeat the condition.
CREATE INDEX jobs_by_status ON jobs (connection, status, created_at, id) WHERE status <> 'COMPLETED';
CREATE INDEX jobs_active ON jobs (status, created_at, id) WHERE status IN ('PENDING', 'RUNNING', 'CANCELLING');

-- The greatest place in the feed that a deleted job had: it is not given again.
CREATE TABLE feed (only INTEGER PRIMARY KEY CHECK (only = 1), floor INTEGER NOT NULL) STRICT;
INSERT INTO feed VALUES (1, 0);

CREATE VIEW sync_jobs AS
SELECT
    {_uuid("j.id")} AS id,
    {_uuid("c.id")} AS source_connection_id,
    c.name AS source_connection,
    j.status, j.created_at, j.started_at, j.completed_at, j.duration_seconds,
    j.entities_inserted, j.entities_updated, j.entities_deleted, j.entities_failed,
    j.error, j.error_details_json AS error_details, j.cancel_requested_at, j.heartbeat_at, j.progress_at,
    j.worker, j.metadata_json AS metadata, j.version
FROM jobs AS j JOIN source_connections AS c ON c.number = j.connection;
"""

_SCHEMAS = (("first", _FIRST_SCHEMA),)
"""Every migration, in order: its name and its statements. user_version is how many a file has."""
_MARKS = "SELECT * FROM pragma_application_id, pragma_user_version"


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema, inside the transaction under way."""
    # 50 ms to import, and not needed once a file is up to date.
    from sqlite_utils import Database, Migrations

    migrations = Migrations("jobhistory")
    for name, schema in _SCHEMAS:
        migrations(name=name)(lambda db, schema=schema: _execute_all(schema, db))
    # The marks come first: a part of this that reaches the disk alone, and is taken back, is known as a history's.
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(_SCHEMAS)}")
    migrations.apply(Database(connection, execute_plugins=False, recursive_triggers=False))


def _execute_all(schema: str, db: Database) -> None:
    """One statement after the other; executescript would commit the transaction first."""
    statement = ""
    for line in schema.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.conn.execute(statement)
            statement = ""


# ---- Rows in and out

_KEY = ("id", "source_connection_id", "created_at")
_CHANGING = tuple(name for name in COLUMNS if name not in _KEY)
_values_of = operator.attrgetter(*_CHANGING)
# A row leads with its connection's id; the rest stands in the record's order.
_ROW = ", ".join(f"j.{name}" for name in COLUMNS if name != "source_connection_id")
_JOBS = f"""
SELECT c.id AS source_connection_id, {_ROW} FROM jobs AS j JOIN source_connections AS c ON c.number = j.connection
"""
_JOB = f"{_JOBS} WHERE j.id = ?"
# After every time there is, whose text begins with a digit.
_NEVER = "~"


@functools.lru_cache(maxsize=16)  # the times of one job are often the same one, and most of what storing it costs
def _text(moment: datetime) -> str:
    """Fixed width, so that text sorts as time: `2024-03-15T12:00:00.000000Z`."""
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def _changing(job: SyncJob) -> list[Any]:
    """The values of _CHANGING."""
    return [_text(value) if isinstance(value, datetime) else value for value in _values_of(job)]


class _DraftUUID(UUID):
    """A UUID that can be filled in, as a DraftJob can."""

    __slots__ = ()
    __init__ = object.__init__
    __delattr__ = object.__delattr__
    __setattr__ = object.__setattr__  # type: ignore[assignment]  # UUID's own always raises


class _Ids(dict[bytes | None, UUID]):
    """The ids of connections by their bytes: each is made once."""

    def __missing__(self, data: bytes) -> UUID:
        self[data] = id = UUID(bytes=data)
        return id


def _jobs(rows: Iterable[Sequence[Any]], ids: dict[bytes | None, UUID]) -> list[SyncJob]:
    """The records in the rows, with nothing checked again: every row was checked when it was written.

    This is the hot path of every list: a draft is filled in, and becomes a SyncJob at the end.

    `ids` gives the ids of connections by what leads their rows.
    """
    moment, integer, unknown = datetime.fromisoformat, int.from_bytes, SafeUUID.unknown
    jobs = []
    for (
        connection, id, status, started_at, completed_at, duration_seconds,
        inserted, updated, deleted, failed, error, error_details_json,
        created_at, cancel_requested_at, heartbeat_at, progress_at, worker, metadata_json, version,
    ) in rows:  # fmt: skip
        job, uuid = DraftJob(), _DraftUUID()
        uuid.int = integer(id)
        uuid.is_safe = unknown
        uuid.__class__ = UUID
        job.id = uuid
        job.source_connection_id = ids[connection]
        job.status = _STATUS[status]
        job.started_at = moment(started_at) if started_at else None
        job.completed_at = end = moment(completed_at) if completed_at else None
        job.duration_seconds = duration_seconds
        job.entities_inserted = inserted
        job.entities_updated = updated
        job.entities_deleted = deleted
        job.entities_failed = failed
        job.error = error
        job.error_details_json = JSONText(error_details_json) if error_details_json else None
        job.created_at = moment(created_at)
        job.cancel_requested_at = moment(cancel_requested_at) if cancel_requested_at else None
        # The end is often the last heartbeat, and that the last progress: to read a time is a tenth of all this.
        beat = end if heartbeat_at == completed_at else moment(heartbeat_at) if heartbeat_at else None
        job.heartbeat_at = beat
        job.progress_at = beat if progress_at == heartbeat_at else moment(progress_at) if progress_at else None
        job.worker = worker
        job.metadata_json = JSONText(metadata_json) if metadata_json else None
        job.version = version
        job.__class__ = SyncJob
        jobs.append(job)
    return jobs


_STATUS = {status.value: status for status in JobStatus}


# ---- Statements

_NEXT_CHANGE = "(SELECT max((SELECT floor FROM feed), ifnull((SELECT max(change) FROM jobs), 0)) + 1)"
_INSERT = f"""
INSERT INTO jobs (connection, created_at, id, {", ".join(_CHANGING)}, change)
VALUES (?, ?, ?, {", ".join("?" * len(_CHANGING))}, {{change}})
"""
_ADD = _INSERT.format(change=_NEXT_CHANGE)
_ADD_MANY = _INSERT.format(change="?") + "ON CONFLICT (id) DO NOTHING"
_REPLACE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in _CHANGING)}{{change}} WHERE id = ?"
_REPLACE_LOUDLY = _REPLACE.format(change=f", change = {_NEXT_CHANGE}")
_REPLACE_QUIETLY = _REPLACE.format(change="")
_RAISE_FLOOR = "UPDATE feed SET floor = max(floor, ifnull((SELECT max(change) FROM jobs), 0))"

_TERMINAL = "status IN ('COMPLETED', 'FAILED', 'CANCELLED')"
_ACTIVE = "status IN ('PENDING', 'RUNNING', 'CANCELLING')"
_ACTIVE_OF_CONNECTION = f"SELECT id FROM jobs WHERE connection = ? AND {_ACTIVE} AND status <> 'COMPLETED' LIMIT 1"

_ORDER = "ORDER BY created_at DESC, id DESC LIMIT :limit"
_BEHIND = "AND (j.created_at, j.id) < (:created_at, :id)"
_PAGE = f"""
SELECT {{columns}} FROM jobs AS j
WHERE connection = :connection {{filter}} {_ORDER}
"""
_RECORDS = f"NULL AS source_connection_id, {_ROW}"
_ACTIVE_PAGE = f"""
{_JOBS}
WHERE j.{_ACTIVE} AND j.status = '{{status}}' {_BEHIND}
    AND max(j.created_at, ifnull(j.started_at, ''), ifnull(j.heartbeat_at, '')) < :silent_since
ORDER BY j.created_at DESC, j.id DESC LIMIT :limit
"""
_LAST = "SELECT {key} FROM jobs WHERE connection = number ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET :skipped"
_NEWEST = f"""
SELECT c.id, {_ROW} FROM {{connections}}
LEFT JOIN jobs AS j ON j.connection = number AND (j.created_at, j.id) = ({_LAST.format(key="created_at, id")})
"""
# Where more than one is wanted, from each connection's last one on; where it has fewer, from before all there are.
# These places come first, in a table: SQLite would find a connection's anew for each job that it compares with it.
_NEWEST_FEW = f"""
WITH c AS MATERIALIZED (
    SELECT number, c.id,
        ifnull(({_LAST.format(key="created_at")}), '') AS created_at, ifnull(({_LAST.format(key="id")}), x'') AS last
    FROM {{connections}}
)
SELECT c.id, {_ROW} FROM c
LEFT JOIN jobs AS j ON j.connection = c.number AND (j.created_at, j.id) >= (c.created_at, c.last)
"""
_CHANGES = f"SELECT j.change, {_JOBS.strip().removeprefix('SELECT ')} WHERE j.change > ? ORDER BY j.change LIMIT ?"
# A connection's data_version would cost less to look at, but one that is opened anew, after a fork, may repeat it.
_CHANGED = "SELECT 1 FROM jobs WHERE change > ? LIMIT 1"

_SPACE = "SELECT * FROM pragma_page_size, pragma_page_count, pragma_freelist_count"


@functools.cache
def _page(statuses: frozenset[JobStatus] | None, first: bool, columns: str = _RECORDS) -> str:  # noqa: FBT001  keywords cost a cache more
    """One connection's page. COMPLETED jobs are the bulk, found by reading past the others."""
    if statuses is None:
        # The page that everybody reads: to compare each row with a place costs a twentieth.
        return _PAGE.format(columns=columns, filter="" if first else _BEHIND)
    if not statuses or JobStatus.COMPLETED in statuses:
        among = f"{_BEHIND} AND status IN ({', '.join(map(repr, map(str, sorted(statuses))))})"
        return _PAGE.format(columns=columns, filter=among)
    each = (f"{_BEHIND} AND status = '{status}' AND status <> 'COMPLETED'" for status in sorted(statuses))
    return _merged(_PAGE.format(columns=columns, filter=one) for one in each)


@functools.cache
def _newest(few: bool, asked: bool) -> str:  # noqa: FBT001  as above
    connections = "source_connections AS c"
    if asked:
        # CROSS keeps the planner from reading all that was asked for anew for each connection there is.
        connections = f"json_each(:asked) AS asked CROSS JOIN {connections} ON number = asked.value"
    return (_NEWEST_FEW if few else _NEWEST).format(connections=connections)


@functools.cache
def _active_page(statuses: frozenset[JobStatus]) -> str:
    return _merged(_ACTIVE_PAGE.format(status=status) for status in sorted(statuses))


# A page as one row: its JSON, how many jobs it has, where the last one stands, and whether it is exact.
#
# Each row of a result lets other threads take Python's lock, and waits for it: where many are served, that costs
# more than reading it. Here a page is one row, and its text is made without the lock. SQLite writes what json.dumps
# writes, but for floats, of which it writes 15 digits: so it is exact where each duration is one of whole
# microseconds, as a Run's are, and neither so small nor so large that it has an exponent or more digits.
# A subquery with a limit keeps its order when it is aggregated. A time that another program spoilt, digits in their
# places, is told as it stands: to have each one parsed costs a tenth more, and `jobhistory check` finds it.
_AS_JSON = """
SELECT
    '[' || group_concat(printf('{{{members}}}', {values}), ',') || ']',
    count(*),
    min(created_at || digits),
    total(NOT (duration_seconds = 0 OR duration_seconds BETWEEN 0.001 AND 10000000
        AND CAST(duration_seconds * 1000000 + 0.5 AS INTEGER) / 1000000.0 = duration_seconds)) = 0
FROM ({page})
"""
_WIRE = ", ".join(
    (
        *(f"j.{name}" for name in COLUMNS[: len(WIRE_FIELDS)] if name != "source_connection_id"),
        "j.created_at",
        "lower(hex(j.id)) AS digits",  # made once, so here
    )
)


def _member(name: str) -> tuple[str, str]:
    """How _AS_JSON writes one key of the wire form: printf's format, and its arguments."""
    match name:
        case "id":
            parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
            return '"%s-%s-%s-%s-%s"', ", ".join(f"substr(digits, {start}, {length})" for start, length in parts)
        case "source_connection_id":
            return '"%s"', ":source_connection_id"
        case "status":
            return '"%s"', name
        case "started_at" | "completed_at":
            return "%s", f"""ifnull('"' || replace({name}, '.000000Z', 'Z') || '"', 'null')"""
        case "duration_seconds":
            return "%s", f"ifnull({name}, 'null')"
        case "error":
            return "%s", f"json_quote({name})"
        case "error_details":
            return "%s", "ifnull(error_details_json, 'null')"
        case _:
            return "%d", name


@functools.cache
def _page_as_json(statuses: frozenset[JobStatus] | None, first: bool) -> str:  # noqa: FBT001  as _page
    formats, values = zip(*map(_member, WIRE_FIELDS), strict=True)
    members = ",".join(f'"{name}":{format}' for name, format in zip(WIRE_FIELDS, formats, strict=True))
    return _AS_JSON.format(members=members, values=", ".join(values), page=_page(statuses, first, _WIRE))


def _merged(pages: Iterable[str]) -> str:
    """One seek a status, merged: an index that leads with status has each in order, but not several."""
    first, *others = pages
    if not others:
        return first
    return f"SELECT * FROM ({' UNION ALL '.join(f'SELECT * FROM ({page})' for page in (first, *others))}) {_ORDER}"


# ---- The repository


class SQLiteJobRepository:
    """A JobRepository in one SQLite file (WAL), for the threads and processes of one machine.

    Args:
        path: the file; made, readable by its owner alone, where it is missing. Its folder must exist.
        durability: "full" syncs each write to disk before it returns (synchronous=FULL). "relaxed" leaves
            that to the next checkpoint (NORMAL): faster, but a power loss may take the last writes back.
            Neither loses anything when a process dies. https://www.sqlite.org/pragma.html#pragma_synchronous
        timeout: seconds to wait for other processes' writes.

    Raises StorageError for a file that is no history, comes from a newer release, lies on a network filesystem
    or cannot be used; such a file is left as it is. It can be pickled: where that is loaded, the file is opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "relaxed"] = "full",
        timeout: float | timedelta = 30,
    ) -> None:
        if str(path) in ("", ":memory:") or "\0" in str(path):
            raise StorageError(repr(path), "is no file: give a path, or use InMemoryJobRepository")
        if durability not in _SYNCHRONOUS:
            message = f"durability must be 'full' or 'relaxed', not {durability!r}"
            raise ValueError(message)
        # Whatever becomes of the folder or a link, every thread opens the same file.
        self.path = os.path.realpath(Path(path))
        self._durability = durability
        self._timeout = seconds("timeout", timeout)
        self._db = Connections(self.path, self._connect, self._timeout)
        self._numbers: dict[UUID, int] = {}
        self._ids = _Ids()
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[Callable[[str], SQLiteJobRepository], tuple[str]]:
        """A pickle says where the file is and how it is used: whoever loads it opens the file."""
        return functools.partial(type(self), durability=self._durability, timeout=self._timeout), (self.path,)

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        key = check_id(source_connection_id).bytes
        name = check_name(name)
        with self._db.write() as db:
            if name is not None:
                for (taken_by,) in db.execute("SELECT id FROM source_connections WHERE name = ?", (name,)).fetchall():
                    if taken_by != key:
                        raise NameTakenError(name, UUID(bytes=taken_by))
            db.execute(
                "INSERT INTO source_connections (id, name) VALUES (?, ?)"
                " ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE excluded.name IS NOT NULL",
                (key, name),
            )
            ((name,),) = db.execute("SELECT name FROM source_connections WHERE id = ?", (key,)).fetchall()
        return SourceConnection(source_connection_id, name)

    def connections(self) -> list[SourceConnection]:
        rows = self._db.read("SELECT id, name FROM source_connections ORDER BY id")
        if any(type(name) is bytes for _, name in rows):
            raise unreadable_connection(self.path, self._db)
        return [SourceConnection(self._connection_id(id), name) for id, name in rows]

    def forget(self, source_connection_id: UUID) -> None:
        with self._db.write() as db:
            number = self._number(db, source_connection_id)
            self._require_none_active(db, number, source_connection_id)
            db.execute(_RAISE_FLOOR)
            db.execute("DELETE FROM jobs WHERE connection = ?", (number,))
            db.execute("DELETE FROM source_connections WHERE number = ?", (number,))

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        with self._db.write() as db:
            number = self._number(db, job.source_connection_id)
            if self._is_stored(db, job):
                return
            if exclusive:
                self._require_none_active(db, number, job.source_connection_id)
            db.execute(_ADD, (number, _text(job.created_at), job.id.bytes, *_changing(job)))

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        jobs = list(jobs)
        with self._db.write() as db:
            numbers = {id: self._number(db, id) for id in dict.fromkeys(job.source_connection_id for job in jobs)}
            first = self._following(db.execute(f"SELECT {_NEXT_CHANGE}").fetchall())
            rows = (
                (numbers[job.source_connection_id], _text(job.created_at), job.id.bytes, *_changing(job), change)
                for change, job in enumerate(jobs, first)
            )
            if db.executemany(_ADD_MANY, rows).rowcount < len(jobs):
                for job in jobs:
                    self._is_stored(db, job)

    def get(self, job_id: UUID) -> SyncJob:
        return self._only(self._db.read(_JOB, (check_id(job_id).bytes,)), job_id)

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        with self._db.write() as db:
            stored = self._only(self._stored(db, job.id), job.id)
            if stored == job:
                return
            if error := refusal(stored, job):
                raise error
            db.execute(_REPLACE_QUIETLY if quiet else _REPLACE_LOUDLY, (*_changing(job), job.id.bytes))

    def list_jobs(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> list[SyncJob]:
        parameters = {"limit": check_limit(limit), **_place(before)}
        page = _page(check_statuses(statuses), before is None)
        # A connection that was not looked up yet has no jobs here.
        parameters["connection"] = known = self._numbers.get(check_id(source_connection_id))
        rows = self._db.read(page, parameters)
        if not rows:
            # Nothing there, or not known yet, or forgotten and registered anew by another process.
            parameters["connection"] = number = self._look_up(source_connection_id)
            if number != known:
                rows = self._db.read(page, parameters)
        return self._jobs(rows, {None: source_connection_id})

    def list_jobs_json(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> JSONPage | None:
        parameters = {"limit": check_limit(limit), **_place(before)}
        page = _page_as_json(check_statuses(statuses), before is None)
        # A connection that was not looked up yet has no jobs here.
        parameters["connection"] = self._numbers.get(check_id(source_connection_id))
        parameters["source_connection_id"] = str(source_connection_id)
        ((json, count, last, is_exact),) = self._db.read(page, parameters)
        if not count or not is_exact or type(json) is bytes:  # which is no UTF-8
            return None
        created_at, digits = last[:-_DIGITS], last[-_DIGITS:]
        try:
            return JSONPage(json, count, Position(datetime.fromisoformat(created_at), UUID(digits)))
        except ValueError:  # another program wrote it: the records will say so
            return None

    def active_jobs(
        self,
        *,
        statuses: Iterable[JobStatus] | None = None,
        silent_since: datetime | None = None,
        before: Position | None = None,
        limit: int = 100,
    ) -> list[SyncJob]:
        parameters = {"limit": check_limit(limit), **_place(before)}
        parameters["silent_since"] = _NEVER if silent_since is None else _text(utc("silent_since", silent_since))
        wanted = check_active_statuses(statuses)
        return self._jobs(self._db.read(_active_page(wanted), parameters) if wanted else [], self._ids)

    def newest_jobs(
        self, source_connection_ids: Iterable[UUID] | None = None, *, per_connection: int = 1
    ) -> dict[UUID, list[SyncJob]]:
        check_limit(per_connection)
        if source_connection_ids is None:
            rows = self._db.read(_newest(per_connection > 1, asked=False), {"skipped": per_connection - 1})
            keys = sorted({row[0] for row in rows})
        else:
            ids = [check_id(id) for id in source_connection_ids]
            rows = self._newest_of(ids, per_connection)
            keys = [id.bytes for id in ids]
        newest: dict[bytes, list[SyncJob]] = {key: [] for key in keys}
        rows = [row for row in rows if row[1] is not None]
        for row, job in zip(rows, self._jobs(rows, self._ids), strict=True):
            newest[row[0]].append(job)
        return {self._connection_id(key): newest_first(jobs) if len(jobs) > 1 else jobs for key, jobs in newest.items()}

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        keys = [(check_id(id).bytes,) for id in job_ids]
        with self._db.write() as db:
            db.execute(_RAISE_FLOOR)
            return db.executemany(f"DELETE FROM jobs WHERE id = ? AND {_TERMINAL}", keys).rowcount if keys else 0

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        rows = self._db.read(_CHANGES, (check_token(after), check_limit(limit)))
        jobs = self._jobs([row[1:] for row in rows], self._ids)
        return [Change(str(row[0]), job) for row, job in zip(rows, jobs, strict=True)]

    def close(self) -> None:
        self._db.close()

    def latest_change(self) -> str | None:
        following = self._following(self._db.read(f"SELECT {_NEXT_CHANGE}"))
        return str(following - 1) if following > 1 else None

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        number = check_token(after)
        deadline = time.monotonic() + timeout
        while not self._db.read(_CHANGED, (number,)):
            if (left := deadline - time.monotonic()) <= 0:
                return False
            time.sleep(min(left, _LOOK_EVERY))
        return True

    def backup(self, destination: str | os.PathLike[str]) -> None:
        backup(self.path, self._db, Path(destination))

    def check(self) -> Iterator[Finding]:
        return check(self.path, self._db, _migrate)

    def set_aside(self, file: str | os.PathLike[str]) -> int:
        return set_aside(self._db, _RAISE_FLOOR, Path(file))

    def space(self) -> tuple[int, int]:
        [(page, pages, free)] = self._db.read(_SPACE)
        return page * pages, page * free

    def reclaim_space(self, most: int) -> int:
        with self._db.write() as db:
            [(page, _, free)] = db.execute(_SPACE).fetchall()
            pages = min(free, max(1, most // page))
            # One page at a time: a cursor takes the first step alone of a statement that gives no rows.
            for _ in range(pages):
                db.execute("PRAGMA incremental_vacuum(1)")
            [(_, _, left)] = db.execute(_SPACE).fetchall()
        return int(page * (free - left))

    # ---- Opening the file

    def _connect(self) -> sqlite3.Connection:
        # A file that was taken away is not made anew by whoever comes next.
        uri = f"{Path(self.path).as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[self._durability]}")
            connection.execute("PRAGMA trusted_schema = OFF")
            # Counts only for a file that is empty yet. By itself it would write a first page, which has no mark.
            if connection.execute("PRAGMA page_count").fetchall() == [(0,)]:
                for statement in ("BEGIN", "PRAGMA auto_vacuum = INCREMENTAL", "ROLLBACK"):
                    connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Make, check or upgrade the file; many processes may do so at once."""
        if (kind := filesystem_of(Path(self.path).parent)) in SHARED_BY_MACHINES:
            raise StorageError(self.path, f"lies on a network filesystem ({kind}): use a local disk")
        with _LOOKING:
            self._create()
            self._refuse_foreign()
        if self._db.read(_MARKS) != [(APPLICATION_ID, len(_SCHEMAS))]:
            with self._db.write() as db:
                # Another process may have been faster, or have made it something else.
                if not db.execute("SELECT name FROM sqlite_master").fetchall() or self._schema(db) < len(_SCHEMAS):
                    _migrate(db)
        ((mode,),) = self._db.read("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StorageError(self.path, f"cannot keep a write-ahead log here, but only {mode}: use a local disk")

    def _create(self) -> None:
        """Make the file, readable by its owner alone, where it is missing."""
        try:
            descriptor = create(self.path)
        except FileExistsError:
            return
        except OSError as error:
            match error:
                case FileNotFoundError():
                    reason = "its folder does not exist: make it first"
                case PermissionError():
                    reason = "cannot be made: its folder may not be written to"
                case _:
                    reason = f"cannot be made: {error.strerror}: give another path"
            raise StorageError(self.path, reason) from error
        os.close(descriptor)

    def _refuse_foreign(self) -> None:
        """Refuse a file that is no history, and leave it as it is: even to look for locks may change it."""
        try:
            status = Path(self.path).stat()
        except OSError as error:
            raise StorageError(self.path, f"cannot be used: {error.strerror}: give another path") from error
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(self.path, "is no regular file: give another path")
        if status.st_size == 0:
            return
        # A history has its marks from its first commit on, which is made before it has a log.
        uri = f"{Path(self.path).as_uri()}?mode=ro&immutable=1"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
                # A checkpoint, under way or cut short, leaves a file that is shorter than its first page says:
                # without this, such a file counts as damaged.
                db.execute("PRAGMA writable_schema = ON")
                self._schema(db)
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_NOTADB and self._was_being_made():
                return
            raise storage_error(self.path, error) from error

    def _was_being_made(self) -> bool:
        """Whether power was lost in its first transaction, of which only a part has come to the disk.

        SQLite itself will take that back: the journal says that the file was empty before.
        https://www.sqlite.org/fileformat2.html#the_rollback_journal
        """
        with contextlib.suppress(FileNotFoundError), Path(f"{self.path}-journal").open("rb") as journal:
            magic, pages_before = struct.unpack(">8s8xI", journal.read(20).ljust(20, b"\xff"))
            if magic == _JOURNAL_MAGIC and pages_before == 0:
                with Path(self.path).open("rb") as file:
                    return not any(file.read(16))
        return False

    def _schema(self, db: sqlite3.Connection) -> int:
        """How many migrations the file has; refuses another application's, and a newer one."""
        ((mark,),) = db.execute("PRAGMA application_id").fetchall()
        ((version,),) = db.execute("PRAGMA user_version").fetchall()
        if mark != APPLICATION_ID:
            raise StorageError(self.path, "is no job history, but another application's file: give another path")
        if version > len(_SCHEMAS):
            raise StorageError(self.path, f"has schema {version}, of a newer release: upgrade jobhistory")
        return int(version)

    # ---- Pieces

    def _number(self, db: sqlite3.Connection, source_connection_id: UUID) -> int:
        """The connection's number, as of the transaction under way."""
        key = check_id(source_connection_id).bytes
        rows = db.execute("SELECT number FROM source_connections WHERE id = ?", (key,)).fetchall()
        if not rows:
            raise SourceConnectionNotFoundError(source_connection_id)
        number: int = rows[0][0]
        return number

    def _look_up(self, source_connection_id: UUID) -> int:
        """The connection's number, read anew and remembered."""
        rows = self._db.read("SELECT number FROM source_connections WHERE id = ?", (source_connection_id.bytes,))
        if not rows:
            self._numbers.pop(source_connection_id, None)
            raise SourceConnectionNotFoundError(source_connection_id)
        number: int = rows[0][0]
        self._numbers[source_connection_id] = number
        return number

    def _following(self, rows: list[Any]) -> int:
        """The next place in the feed, as _NEXT_CHANGE has it."""
        ((following,),) = rows
        if type(following) is not int:
            reason = "the floor of the feed is lost (another program wrote it: `jobhistory check` says what to do)"
            raise StorageError(self.path, reason)
        return following

    def _newest_of(self, ids: list[UUID], per_connection: int) -> list[Any]:
        """Rows for the connections asked for; what is remembered of their numbers may be out of date."""
        numbers = self._numbers
        while True:
            asked = {id: numbers.get(id) for id in ids}
            if None not in asked.values():
                parameters = {"asked": json.dumps(list(asked.values())), "skipped": per_connection - 1}
                rows = self._db.read(_newest(per_connection > 1, asked=True), parameters)
                if {row[0] for row in rows} == {id.bytes for id in asked}:
                    return rows
            known = self._db.read("SELECT id, number FROM source_connections")
            numbers = self._numbers = {self._connection_id(id): number for id, number in known}
            for id in asked:
                if id not in numbers:
                    raise SourceConnectionNotFoundError(id)
            if all(numbers[id] == number for id, number in asked.items()):
                raise StorageError(self.path, "has a source connection under two ids: it is damaged, restore a backup")

    def _is_stored(self, db: sqlite3.Connection, job: SyncJob) -> bool:
        """Whether the job is stored as it is; DuplicateJobError where its id is another job's."""
        stored = self._jobs(self._stored(db, job.id), self._ids)
        if stored and stored[0] != job:
            raise DuplicateJobError(job.id)
        return bool(stored)

    def _require_none_active(self, db: sqlite3.Connection, number: int, source_connection_id: UUID) -> None:
        for (active,) in db.execute(_ACTIVE_OF_CONNECTION, (number,)).fetchall():
            raise ActiveJobExistsError(source_connection_id, UUID(bytes=active))

    def _only(self, rows: list[Any], job_id: UUID) -> SyncJob:
        if not rows:
            raise JobNotFoundError(job_id)
        return self._jobs(rows, self._ids)[0]

    def _stored(self, db: sqlite3.Connection, job_id: UUID) -> list[Any]:
        """The job's row, as of the transaction under way; no row where there is none."""
        try:
            return db.execute(_JOB, (job_id.bytes,)).fetchall()
        except sqlite3.OperationalError:
            return self._db.read(_JOB, (job_id.bytes,))  # which gives text that is no UTF-8, too

    # Other programs may write what is no job, or no connection. It is named only once reading it failed.

    def _jobs(self, rows: Sequence[Sequence[Any]], ids: dict[bytes | None, UUID]) -> list[SyncJob]:
        try:
            return _jobs(rows, ids)
        except (ValueError, TypeError, KeyError) as error:
            raise unreadable(self.path, rows, error) from error

    def _connection_id(self, data: bytes) -> UUID:
        try:
            return self._ids[data]
        except ValueError as error:
            raise unreadable_connection(self.path, self._db) from error


_DIGITS = 32
"""Of an id."""
_LOOK_EVERY = 0.02
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_SYNCHRONOUS = {"full": "FULL", "relaxed": "NORMAL"}
# Held while a file is looked at from outside of the connections: one at a time, since closing any descriptor of
# a file drops the locks this process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2), also those of
# another thread; and not during a fork, lest a child inherits it, or SQLite's own mutexes, locked.
_LOOKING = threading.RLock()
os.register_at_fork(before=_LOOKING.acquire, after_in_parent=_LOOKING.release, after_in_child=_LOOKING.release)


def _place(before: Position | None) -> dict[str, Any]:
    """The place a page starts behind, as parameters."""
    if (position := check_before(before)) is None:
        return {"created_at": _NEVER, "id": b""}
    return {"created_at": _text(position.created_at), "id": position.id.bytes}
