"""The history in PostgreSQL (14 or later): for workers on more than one machine.

`pip install 'jobhistory[postgres]'`; a worker changes nothing but its URL:

    jobhistory.open("postgresql://sync@db1,db2/history?target_session_attrs=read-write&schema=jobhistory&timeout=30")

All but `schema`, `read_url`, `min_size`, `max_size` and `timeout` is libpq's:
https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING. The rest of this page is for who runs
the server.

**Tables.** One schema, `jobhistory` by default, made at the first opening by whoever may create it; its tables may
be read by anyone who is granted it, and are written by this library alone. The encoding must be UTF8. Time zone,
isolation level and formats are whatever the server likes.

**Upgrades.** Migrations run at opening, under an advisory lock, each once and whole or not at all. A migration says
which releases can go on beside it: the rule is that it only adds (tables, indexes, columns that may be left out),
so that old and new workers share a history through a rolling upgrade, in any order. One that must break this rule
does so two releases later, when nothing old is left: older releases then refuse to open, and say so.

**What is acknowledged** is on the primary's disk (synchronous_commit, as the server has it), and on a standby's only
where one is synchronous. Set `synchronous_standby_names`, with two standbys or more, if a failover must lose
nothing: `ANY 1 (a, b)`. Where none is left, a commit waits, and when `timeout` is over UnknownOutcomeError says that
no standby confirmed it; replaying the write confirms it once a standby is back.

**Failover.** Name all hosts and `target_session_attrs=read-write`. A call that meets a dead primary finds the new one
within a fraction of a second of its promotion, as long as its `timeout` lasts: reads are read again, writes replayed.
A write whose connection was lost while it committed is replayed too: it succeeds, or is an UnknownOutcomeError
where it may have been refused for what it wrote itself, or (delete_many) cannot be counted twice. Whoever promotes must
fence the old primary first: two primaries are two histories, and nothing here can join them. After a failover to a
standby that was not synchronous, or a restore to an earlier point, start followers of `changes` anew: numbers are
given again. A dump restored elsewhere needs no care: at the next opening the feed goes on above the numbers it has.

**Patroni** does promotion and fencing by itself: `synchronous_mode: true`, and `synchronous_mode_strict: true` where
nothing may be lost though only one node is left. Its leader lease (`ttl`, 30 s by default) is most of an outage; let
`timeout` be longer than it.

**pgbouncer** works in every mode, transaction pooling included: statements are prepared only where a session is one
server process's (a pooler is told by the process number it gives out), and the one setting of a session, TimeZone,
is one that pgbouncer carries along. Notifications do not come through it: who waits for changes looks
every half second instead. It hides a failover: point it at the primary as your failover does.

**Managed services** work as far as they are PostgreSQL: no extension, no superuser, no replication slot is used.
A proxy in front must pass plain transactions through; 'committed locally' warnings reach only who is not behind one
that swallows them.

**Readers.** `read_url` names a standby for list_jobs, active_jobs and newest_jobs. It may miss the last moments: a job
that was just added, the newest beat. get, changes and all writes stay with the primary. A reaper that reads old
beats ends nobody: its write names the version it saw.

**The feed.** A change is announced by its transaction's number, taken before anything is written, and read up to the
oldest transaction under way here, at times a moment after it was acknowledged; transactions of others do not hold it
back on the primary. A transaction that
writes to these tables by hand and stays open holds it back, and loses nothing. Rows that are written by hand are not
announced.

**Housekeeping.** Beats are HOT updates, and autovacuum's defaults do. What `prune` deletes is room for new jobs
once autovacuum has been there; only VACUUM FULL, which locks everybody out, gives it back to the disk. Until it has
looked at a large import, within a minute or so, pages may be sorted where an index would do: `ANALYZE
jobhistory.jobs` is sooner.

Tested, on each change: the contract, the machine, the interleavings, forks, on PostgreSQL 18 (at times on 15);
each lost answer of each write; a primary killed under its writers with a synchronous standby; a lost standby; reading
from a standby; pgbouncer 1.18 with transaction pooling. Tested at times: three nodes under Patroni with etcd, whose
leader is killed. Not tested: managed services, proxies other than pgbouncer, TLS, logical replication, network
partitions (a primary that is cut off but lives).
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Self
from urllib.parse import unquote
from uuid import UUID

try:
    import psycopg  # noqa: F401  to name the extra where it is missing
    import psycopg_pool  # noqa: F401  as above
except ImportError as error:
    message = "PostgreSQL needs psycopg and its pool: pip install 'jobhistory[postgres]'"
    raise ImportError(message) from error

from jobhistory.errors import (
    ActiveJobExistsError,
    DuplicateJobError,
    InvalidCursorError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
)
from jobhistory.ids import check_id
from jobhistory.job import COLUMNS, MAX_COUNT, SyncJob
from jobhistory.repository import (
    Change,
    Position,
    SourceConnection,
    check_active_statuses,
    check_before,
    check_limit,
    check_name,
    check_statuses,
    newest_first,
    refusal,
)
from jobhistory.status import ACTIVE_STATUSES, TRANSITIONS, JobStatus
from jobhistory.storable import JSONText
from jobhistory.storage.postgres_connection import Connection, Dangling, Taken
from jobhistory.storage.postgres_connections import Connections
from jobhistory.storage.rows import DraftJob
from jobhistory.times import seconds, utc

# ---- Schema and migrations

_FIRST_SCHEMA = f"""
CREATE TABLE SCHEMA.source_connections (
    id uuid PRIMARY KEY,
    name text COLLATE "C",
    EXCLUDE USING hash (name WITH =) -- unique, of any length: a b-tree holds 2,704 bytes
);

CREATE TABLE SCHEMA.jobs (
    id uuid PRIMARY KEY,
    source_connection_id uuid NOT NULL REFERENCES SCHEMA.source_connections,
    status text COLLATE "C" NOT NULL CHECK (status IN ({", ".join(f"'{status}'" for status in JobStatus)})),
    started_at timestamptz,
    completed_at timestamptz,
    duration_seconds double precision CHECK (duration_seconds >= 0),
    entities_inserted bigint NOT NULL CHECK (entities_inserted >= 0),
    entities_updated bigint NOT NULL CHECK (entities_updated >= 0),
    entities_deleted bigint NOT NULL CHECK (entities_deleted >= 0),
    entities_failed bigint NOT NULL CHECK (entities_failed >= 0),
    error text,
    error_details_json text, -- jsonb would rewrite numbers and reorder keys
    created_at timestamptz NOT NULL,
    cancel_requested_at timestamptz,
    heartbeat_at timestamptz, -- in no index, as progress_at and version: beats are HOT updates
    progress_at timestamptz,
    worker text,
    metadata_json text,
    version bigint NOT NULL CHECK (version >= 1),
    change bigint NOT NULL CHECK (change >= 1), -- its place in the feed: see feed
    part integer NOT NULL CHECK (part >= 0), -- among those of one transaction
    UNIQUE (source_connection_id, created_at, id)
) WITH (fillfactor = 90); -- room for HOT updates

-- Filters by status and what is active stay flat in finished jobs.
CREATE INDEX jobs_by_status ON SCHEMA.jobs (source_connection_id, status, created_at, id) WHERE status <> 'COMPLETED';
CREATE INDEX jobs_active ON SCHEMA.jobs (status, created_at, id) WHERE status IN ('PENDING', 'RUNNING', 'CANCELLING');
CREATE UNIQUE INDEX jobs_by_change ON SCHEMA.jobs (change, part);

-- A change is the number of the transaction that made it, and this: so that it goes on growing in a server that
-- counts its transactions from an earlier number, as after a restored dump.
CREATE TABLE SCHEMA.feed (only_one boolean PRIMARY KEY CHECK (only_one), base bigint NOT NULL);
INSERT INTO SCHEMA.feed VALUES (true, 0);
"""

_SCHEMAS = (("first", 1, _FIRST_SCHEMA),)
"""Every migration, in order: its name, the oldest schema whose releases can go on beside it, its statements."""

_MIGRATIONS = """
CREATE TABLE SCHEMA.jobhistory_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    oldest integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
# Not to_regclass: it would answer from a cache which another process's migration does not reach in time.
_MIGRATES = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'jobhistory_migrations'"
_STATE = "SELECT max(version), max(oldest) FROM SCHEMA.jobhistory_migrations"
_MIGRATED = "INSERT INTO SCHEMA.jobhistory_migrations (version, name, oldest) VALUES (%s, %s, %s)"
_MIGRATING = "SELECT pg_advisory_xact_lock(hashtextextended('jobhistory migrations', 0))"
_BEYOND = """
SELECT (SELECT max(change) FROM SCHEMA.jobs) - base - pg_snapshot_xmax(pg_current_snapshot())::text::bigint
FROM SCHEMA.feed
"""
_REBASE = "UPDATE SCHEMA.feed SET base = base + %s"

# ---- Rows in and out

_ROW = ", ".join(f"j.{name}" for name in COLUMNS)
_JOBS = f"SELECT {_ROW} FROM SCHEMA.jobs AS j"


def _values(job: SyncJob) -> dict[str, Any]:
    """The values of COLUMNS."""
    return {name: getattr(job, name) for name in COLUMNS}


def _jobs(rows: Iterable[Sequence[Any]]) -> list[SyncJob]:
    """The records in the rows, with nothing checked again: every row was checked when it was written.

    This is the hot path of every list: a draft is filled in, and becomes a SyncJob at the end.
    """
    jobs = []
    for (
        id, source_connection_id, status, started_at, completed_at, duration_seconds,
        inserted, updated, deleted, failed, error, error_details_json,
        created_at, cancel_requested_at, heartbeat_at, progress_at, worker, metadata_json, version,
    ) in rows:  # fmt: skip
        job = DraftJob()
        job.id = id
        job.source_connection_id = source_connection_id
        job.status = _STATUS[status]
        job.started_at = started_at
        job.completed_at = completed_at
        job.duration_seconds = duration_seconds
        job.entities_inserted = inserted
        job.entities_updated = updated
        job.entities_deleted = deleted
        job.entities_failed = failed
        job.error = error
        job.error_details_json = JSONText(error_details_json) if error_details_json else None
        job.created_at = created_at
        job.cancel_requested_at = cancel_requested_at
        job.heartbeat_at = heartbeat_at
        job.progress_at = progress_at
        job.worker = worker
        job.metadata_json = JSONText(metadata_json) if metadata_json else None
        job.version = version
        job.__class__ = SyncJob
        jobs.append(job)
    return jobs


_STATUS = {status.value: status for status in JobStatus}


# ---- Statements

_KNOWN = "SELECT id, name FROM SCHEMA.source_connections"
_HOLD = f"{_KNOWN} WHERE id = %s FOR KEY SHARE"
_HOLD_ALONE = f"{_KNOWN} WHERE id = %s FOR UPDATE"
_REGISTER = "INSERT INTO SCHEMA.source_connections (id) VALUES (%s) ON CONFLICT DO NOTHING"
_NAME = """
INSERT INTO SCHEMA.source_connections (id, name) VALUES (%s, %s)
ON CONFLICT (id) DO UPDATE SET name = excluded.name WHERE source_connections.name IS DISTINCT FROM excluded.name
"""
_HOLD_NAME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

_THIS_CHANGE = "(SELECT base FROM SCHEMA.feed) + pg_current_xact_id()::text::bigint"
_ADD = f"""
INSERT INTO SCHEMA.jobs ({", ".join(COLUMNS)}, change, part)
VALUES ({", ".join(f"%({name})s" for name in COLUMNS)}, {_THIS_CHANGE}, 0)
ON CONFLICT DO NOTHING
"""
_HOLD_MANY = f"SELECT id, {_THIS_CHANGE} FROM SCHEMA.source_connections WHERE id = ANY(%s) FOR KEY SHARE"
_ADD_MANY = f"COPY SCHEMA.jobs ({', '.join(COLUMNS)}, change, part) FROM STDIN (FORMAT binary)"
_ADDED_TYPES = [
    "uuid", "uuid", "text", "timestamptz", "timestamptz", "float8", "int8", "int8", "int8", "int8", "text", "text",
    "timestamptz", "timestamptz", "timestamptz", "timestamptz", "text", "text", "int8", "int8", "int4",
]  # fmt: skip
_STORED = f"{_JOBS} WHERE j.id = ANY(%s) FOR UPDATE"

_CHANGING = [name for name in COLUMNS if name not in ("id", "source_connection_id", "created_at", "metadata_json")]
_REPLACE_QUIETLY = f"UPDATE SCHEMA.jobs SET {', '.join(f'{name} = %({name})s' for name in _CHANGING)}"
_REPLACE_LOUDLY = f"{_REPLACE_QUIETLY}, change = {_THIS_CHANGE}, part = 0"
# What refusal would find, so that one statement does for nearly all: no other gets a row that this one does not.
_IF_FOLLOWING = """
WHERE id = %(id)s AND version = %(version)s - 1 AND status = ANY(%(previous)s)
    AND source_connection_id = %(source_connection_id)s AND created_at = %(created_at)s
    AND metadata_json IS NOT DISTINCT FROM %(metadata_json)s
"""
_METADATA = ", metadata_json = %(metadata_json)s WHERE id = %(id)s"

_TERMINAL = "status IN ('COMPLETED', 'FAILED', 'CANCELLED')"
_ACTIVE_OF_CONNECTION = """
SELECT id FROM SCHEMA.jobs WHERE source_connection_id = %s AND status IN ('PENDING', 'RUNNING', 'CANCELLING') LIMIT 1
"""
_DELETE = f"DELETE FROM SCHEMA.jobs WHERE id = ANY(%s) AND {_TERMINAL}"

_ORDER = "ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
_PAGE = f"""
{_JOBS} WHERE source_connection_id = %(connection)s AND (created_at, id) < (%(created_at)s, %(id)s) {{filter}} {_ORDER}
"""
_ACTIVE_PAGE = f"""
{_JOBS} WHERE status = '{{status}}' AND (created_at, id) < (%(created_at)s, %(id)s)
    AND greatest(created_at, started_at, heartbeat_at) < %(silent_since)s {_ORDER}
"""
_NEWEST = f"""
SELECT c.id, n.* FROM {{connections}} LEFT JOIN LATERAL (
    {_JOBS} WHERE j.source_connection_id = c.id ORDER BY j.created_at DESC, j.id DESC LIMIT %(limit)s
) AS n ON true
"""
_NEWEST_OF_ALL = _NEWEST.format(connections="SCHEMA.source_connections AS c")
_NEWEST_OF = _NEWEST.format(
    connections="unnest(%(asked)s::uuid[]) AS asked (id) JOIN SCHEMA.source_connections AS c USING (id)"
)
_NEVER = "infinity"
_LAST_ID = UUID(int=0)

# The numbers are of one snapshot, as the jobs are: below its xmin nothing is under way, and xip names the rest.
_CHANGES = f"""
SELECT f.base, pg_is_in_recovery(), pg_current_snapshot()::text, j.change, j.part, {_ROW}
FROM SCHEMA.feed AS f CROSS JOIN SCHEMA.jobs AS j
WHERE (j.change, j.part) > (%s, %s) ORDER BY j.change, j.part LIMIT %s
"""
# The newest that none can come before any more; what is later than it is still to come.
_LATEST = """
SELECT j.change, j.part FROM SCHEMA.feed AS f CROSS JOIN SCHEMA.jobs AS j
WHERE j.change < f.base + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
ORDER BY j.change DESC, j.part DESC LIMIT 1
"""
# Who writes here locks one of the tables before it has a number; vacuum and analyze lock them in other modes. Who ends
# lets go of the tables before its number, and so is told rightly only if it is still under way afterwards.
_UNDER_WAY = """
WITH locks AS MATERIALIZED (SELECT * FROM pg_locks)
SELECT t.transactionid::text::bigint, EXISTS (
    SELECT FROM locks AS r
    WHERE r.virtualtransaction = t.virtualtransaction AND r.locktype = 'relation'
        AND r.mode IN ('RowShareLock', 'RowExclusiveLock')
        AND r.relation IN ('SCHEMA.jobs'::regclass, 'SCHEMA.source_connections'::regclass)
        AND r.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
FROM locks AS t WHERE t.locktype = 'transactionid' AND t.mode = 'ExclusiveLock'
"""
_STILL_UNDER_WAY = "SELECT pg_current_snapshot()::text"


@functools.cache
def _page(statuses: frozenset[JobStatus] | None) -> str:
    """One connection's page. COMPLETED jobs are the bulk, found by reading past the others."""
    if statuses is None:
        return _PAGE.format(filter="")
    if JobStatus.COMPLETED in statuses:
        return _PAGE.format(filter=f"AND status IN ({', '.join(map(repr, map(str, sorted(statuses))))})")
    return _merged(_PAGE.format(filter=f"AND status = '{status}'") for status in sorted(statuses))


@functools.cache
def _active_page(statuses: frozenset[JobStatus]) -> str:
    return _merged(_ACTIVE_PAGE.format(status=status) for status in sorted(statuses))


def _merged(pages: Iterable[str]) -> str:
    """One seek a status, merged: an index that leads with status has each in order, but not several."""
    first, *others = pages
    if not others:
        return first
    return f"{' UNION ALL '.join(f'({page})' for page in (first, *others))} {_ORDER}"


# ---- The repository


class PostgresJobRepository:
    """A JobRepository in PostgreSQL, for the threads and processes of many machines.

    Args:
        dsn: a URL or connection string as libpq has it, with several hosts where there are standbys
            (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING).
        schema: where the tables are; made where it is missing, and may be created in.
        read_url: a standby, asked by list_jobs, active_jobs and newest_jobs: see above for what it may miss.
        min_size, max_size: how many connections each process keeps open, and opens at most.
        connect_timeout: seconds for each attempt to connect, to each host; 2 at least. The dsn's own goes before.
        timeout: seconds for each call, all that is tried again included.

    Raises StorageError where the server cannot be reached or used, or the schema comes from a newer release;
    ValueError for arguments of another kind.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "jobhistory",
        read_url: str | None = None,
        min_size: int = 0,
        max_size: int = 10,
        connect_timeout: float | timedelta = 5,
        timeout: float | timedelta = 30,
    ) -> None:
        if not isinstance(schema, str) or not re.fullmatch("[a-z_][a-z0-9_]{0,62}", schema):
            message = f"schema must be a name of a-z, 0-9 and _, 63 at most, not {schema!r}"
            raise ValueError(message)
        if not (type(min_size) is type(max_size) is int and 0 <= min_size <= max_size and max_size >= 1):
            message = (
                f"min_size and max_size must be ints, 0 <= min_size <= max_size >= 1, not {min_size!r}, {max_size!r}"
            )
            raise ValueError(message)
        options: dict[str, Any] = {
            "schema": schema,
            "min_size": min_size,
            "max_size": max_size,
            "connect_timeout": seconds("connect_timeout", connect_timeout),
            "timeout": seconds("timeout", timeout),
        }
        self._db = Connections(dsn, **options)
        self._readers = self._db if read_url is None else Connections(read_url, **options)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The repository at a URL that also has our options, as `?schema=…&timeout=5`; the rest is libpq's.

        Raises ValueError for an option that cannot be read, and as the constructor.
        """
        address, _, query = url.partition("?")
        options: dict[str, Any] = {}
        kept = []  # as they stand: to libpq a plus is no space
        for option in query.split("&"):
            name, _, value = option.partition("=")
            match name:
                case "schema" | "read_url":
                    options[name] = unquote(value)
                case "min_size" | "max_size" | "timeout":
                    if not re.fullmatch("[0-9]{1,9}", value):
                        message = f"{name} must be a whole number, not {value!r}"
                        raise ValueError(message)
                    options[name] = int(value)
                case _:
                    kept.append(option)
        return cls(f"{address}?{'&'.join(kept)}", **options)

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        check_id(source_connection_id)
        name = check_name(name)

        def named(db: Connection) -> str | None:
            with db.together():
                db.execute(_HOLD_NAME, (name,))
                for taken_by, _ in db.run(f"{_KNOWN} WHERE name = %s", (name,)):
                    if taken_by != source_connection_id:
                        raise NameTakenError(str(name), taken_by)
                db.run(_NAME, (source_connection_id, name))
            return name

        def nameless(db: Connection) -> str | None:
            while True:
                known = db.run(f"{_KNOWN} WHERE id = %s", (source_connection_id,))
                kept: str | None
                for _, kept in known:
                    return kept
                db.alone(_REGISTER, (source_connection_id,))

        return SourceConnection(source_connection_id, self._db.write(nameless if name is None else named))

    def connections(self) -> list[SourceConnection]:
        return [SourceConnection(*row) for row in self._db.read(f"{_KNOWN} ORDER BY id")]

    def forget(self, source_connection_id: UUID) -> None:
        check_id(source_connection_id)

        def forget(db: Connection) -> None:
            with db.together():
                self._hold(db, _HOLD_ALONE, source_connection_id)
                self._require_none_active(db, source_connection_id)
                db.run("DELETE FROM SCHEMA.jobs WHERE source_connection_id = %s", (source_connection_id,))
                db.run("DELETE FROM SCHEMA.source_connections WHERE id = %s", (source_connection_id,))

        self._db.write(forget)

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        values = _values(job)

        def add(db: Connection) -> None:
            if exclusive or not self._inserted(db.alone, job, values):
                while not added_carefully(db):
                    pass

        def added_carefully(db: Connection) -> bool:
            with db.together():
                self._hold(db, _HOLD_ALONE if exclusive else _HOLD, job.source_connection_id)
                if self._are_stored(db, {job.id: job}):
                    return True
                if exclusive:
                    self._require_none_active(db, job.source_connection_id)
                return self._inserted(db.run, job, values)

        self._db.write(add, wakes=True)

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        jobs = list(jobs)

        def add_many(db: Connection) -> None:
            careful = False
            while True:
                try:
                    with db.together():
                        self._copy(db, jobs, careful=careful)
                except Taken:
                    careful = True
                else:
                    return

        self._db.write(add_many, wakes=True)

    def get(self, job_id: UUID) -> SyncJob:
        for job in _jobs(self._db.read(f"{_JOBS} WHERE j.id = %s", (check_id(job_id),))):
            return job
        raise JobNotFoundError(job_id)

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        values = _values(job)
        values["previous"] = [s for s in ACTIVE_STATUSES if s is job.status or job.status in TRANSITIONS[s]]
        update = _REPLACE_QUIETLY if quiet else _REPLACE_LOUDLY

        def replace(db: Connection) -> None:
            if db.alone(update + _IF_FOLLOWING, values).rowcount:
                return
            with db.together():
                # FOR UPDATE also where it finds the job itself: it writes to the log, and so the commit confirms
                # that a standby has what is acknowledged here.
                rows = db.run(_STORED, ([job.id],)).fetchall()
                if not rows:
                    raise JobNotFoundError(job.id)
                [stored] = _jobs(rows)
                if stored == job:
                    return
                if error := refusal(stored, job):
                    raise error
                db.run(update + _METADATA, values)

        self._db.write(replace, wakes=not quiet)

    def list_jobs(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> list[SyncJob]:
        parameters = {"connection": check_id(source_connection_id), "limit": check_limit(limit), **_place(before)}
        wanted = check_statuses(statuses)
        rows = self._readers.read(_page(wanted), parameters) if wanted != frozenset() else []
        if not rows and not self._readers.read(f"{_KNOWN} WHERE id = %s", (source_connection_id,)):
            raise SourceConnectionNotFoundError(source_connection_id)
        return _jobs(rows)

    def active_jobs(
        self,
        *,
        statuses: Iterable[JobStatus] | None = None,
        silent_since: datetime | None = None,
        before: Position | None = None,
        limit: int = 100,
    ) -> list[SyncJob]:
        parameters = {"limit": check_limit(limit), **_place(before)}
        parameters["silent_since"] = _NEVER if silent_since is None else utc("silent_since", silent_since)
        wanted = check_active_statuses(statuses)
        return _jobs(self._readers.read(_active_page(wanted), parameters) if wanted else [])

    def newest_jobs(
        self, source_connection_ids: Iterable[UUID] | None = None, *, per_connection: int = 1
    ) -> dict[UUID, list[SyncJob]]:
        check_limit(per_connection)
        if source_connection_ids is None:
            rows = self._readers.read(_NEWEST_OF_ALL, {"limit": per_connection})
            ids = sorted({row[0] for row in rows})
        else:
            ids = list(dict.fromkeys(check_id(id) for id in source_connection_ids))
            rows = self._readers.read(_NEWEST_OF, {"limit": per_connection, "asked": ids})
        known = {row[0] for row in rows}
        for id in ids:
            if id not in known:
                raise SourceConnectionNotFoundError(id)
        newest: dict[UUID, list[SyncJob]] = {id: [] for id in ids}
        for job in _jobs(row[1:] for row in rows if row[1] is not None):
            newest[job.source_connection_id].append(job)
        return {id: newest_first(jobs) for id, jobs in newest.items()}

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = [check_id(id) for id in job_ids]
        # Done again it would count nothing.
        return self._db.write(lambda db: db.alone(_DELETE, (ids,)).rowcount, replays=False)

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        parameters = (*_check_token(after), check_limit(limit))
        for _ in range(_LOOKS):
            rows = self._db.read(_CHANGES, parameters)
            settled, ended = self._settled(rows)
            if settled == len(rows) or not ended:
                break
        jobs = _jobs(row[5:] for row in rows[:settled])
        return [Change(f"{row[3]}-{row[4]}", job) for row, job in zip(rows, jobs, strict=False)]

    def close(self) -> None:
        self._db.close()
        self._readers.close()

    def latest_change(self) -> str | None:
        for change, part in self._db.read(_LATEST):
            return f"{change}-{part}"
        return None

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        if self.changes(after, limit=1):
            return True
        with self._db.listening() as wait:
            while True:
                # First: what was written before it listened woke nobody.
                if self.changes(after, limit=1):
                    return True
                if (left := deadline - time.monotonic()) <= 0:
                    return False
                wait(min(left, _LOOK_EVERY))

    # ---- Opening the schema

    def _prepare(self) -> None:
        """Make, check or upgrade the schema; many processes may do so at once."""
        with self._db.opened() as db:
            encoding = db.info.parameter_status("server_encoding")
            if encoding != "UTF8":
                raise StorageError(self._db.where, f"has encoding {encoding}: make a database with encoding 'UTF8'")
            if self._version(db) < len(_SCHEMAS):
                with db.together():
                    db.execute(_MIGRATING)
                    self._migrate(db)
            if self._beyond(db) >= 0:
                with db.together():
                    db.run("LOCK TABLE SCHEMA.jobs IN EXCLUSIVE MODE")
                    db.run(_REBASE, (max(0, self._beyond(db) + 1),))

    def _version(self, db: Connection) -> int:
        """How many migrations the schema has; refuses one that this release cannot work with."""
        if not db.execute(_MIGRATES, (self._db.schema,)).rowcount:
            return 0
        [(version, oldest)] = db.run(_STATE)
        if oldest > len(_SCHEMAS):
            reason = f"has schema {version} in {self._db.schema}, of a newer release: upgrade jobhistory"
            raise StorageError(self._db.where, reason)
        return int(version)

    def _migrate(self, db: Connection) -> None:
        """Bring the schema to the newest version, inside the transaction under way."""
        version = self._version(db)
        if not version:
            if not db.execute("SELECT FROM pg_namespace WHERE nspname = %s", (self._db.schema,)).rowcount:
                db.execute(f'CREATE SCHEMA "{self._db.schema}"')
            db.run(_MIGRATIONS)
        for number, (name, oldest, statements) in enumerate(_SCHEMAS[version:], version + 1):
            db.execute(db.named(statements))
            db.run(_MIGRATED, (number, name, oldest))

    def _beyond(self, db: Connection) -> int:
        """By how much the latest change lies beyond the transactions yet to come; negative where it does not."""
        [(beyond,)] = db.run(_BEYOND)
        return -1 if beyond is None else int(beyond)

    # ---- Pieces

    def _hold(self, db: Connection, statement: str, source_connection_id: UUID) -> None:
        """Keep the connection from being forgotten until the transaction ends."""
        if not db.run(statement, (source_connection_id,)).rowcount:
            raise SourceConnectionNotFoundError(source_connection_id)

    def _require_none_active(self, db: Connection, source_connection_id: UUID) -> None:
        for (active,) in db.run(_ACTIVE_OF_CONNECTION, (source_connection_id,)):
            raise ActiveJobExistsError(source_connection_id, active)

    def _are_stored(self, db: Connection, jobs: dict[UUID, SyncJob]) -> set[UUID]:
        """Which of the jobs are stored as they are; DuplicateJobError where an id is another job's."""
        # FOR UPDATE, for what replace says of it.
        stored = _jobs(db.run(_STORED, (list(jobs),)).fetchall())
        for job in stored:
            if job != jobs[job.id]:
                raise DuplicateJobError(job.id)
        return {job.id for job in stored}

    def _inserted(self, run: Callable[..., Any], job: SyncJob, values: dict[str, Any]) -> bool:
        """Whether the job was inserted; False where its id is taken."""
        try:
            return bool(run(_ADD, values).rowcount)
        except Dangling:
            raise SourceConnectionNotFoundError(job.source_connection_id) from None

    def _copy(self, db: Connection, jobs: list[SyncJob], *, careful: bool) -> None:
        """Insert the jobs, or, careful, those that are not stored yet."""
        asked = list(dict.fromkeys(job.source_connection_id for job in jobs))
        held = dict(db.run(_HOLD_MANY, (asked,)).fetchall())
        for id in asked:
            if id not in held:
                raise SourceConnectionNotFoundError(id)
        new: dict[UUID, SyncJob] = {}
        for job in jobs:
            if new.setdefault(job.id, job) != job:
                raise DuplicateJobError(job.id)
        stored = self._are_stored(db, new) if careful else set()
        with db.cursor() as cursor, cursor.copy(db.named(_ADD_MANY)) as copy:
            copy.set_types(_ADDED_TYPES)
            for part, job in enumerate(new.values()):
                if job.id not in stored:
                    copy.write_row((*_values(job).values(), held[job.source_connection_id], part))

    def _settled(self, rows: list[tuple[Any, ...]]) -> tuple[int, bool]:
        """How many of the changes none can come before any more; and whether there is more to know by now.

        None can come before a change where every transaction with a smaller number has ended. The snapshot
        names those under way; those that do not write here do not count, and what has ended since does, as
        nobody knows what it wrote.
        """
        if not rows:
            return 0, False
        base, is_standby, snapshot = rows[0][:3]
        horizon, ended = base + int(snapshot.partition(":")[0]), False
        if rows[-1][3] >= horizon and not is_standby:  # a standby's snapshot names none
            writes_here: dict[int, bool] = dict(self._db.read(_UNDER_WAY))
            [(now,)] = self._db.read(_STILL_UNDER_WAY)
            numbers, still = _named(snapshot), _named(now)
            known = {
                each: writes_here[each & 0xFFFFFFFF] for each in numbers & still if each & 0xFFFFFFFF in writes_here
            }
            ended = len(known) < len(numbers)
            horizon = base + min((each for each in numbers if known.get(each, True)), default=MAX_COUNT)
        return sum(row[3] < horizon for row in rows), ended


def _named(snapshot: str) -> set[int]:
    """The transactions that were under way, in a snapshot as `xmin:xmax:number,number`."""
    return {int(number) for number in snapshot.rpartition(":")[2].split(",") if number}


_LOOKS = 5
_LOOK_EVERY = 0.5
_TOKEN = re.compile("([1-9][0-9]{0,18})-(0|[1-9][0-9]{0,9})", re.ASCII)


def _check_token(token: object) -> tuple[int, int]:
    """The change and part in a token that `changes` gave, (0, 0) for None; raises InvalidCursorError."""
    if token is None:
        return 0, 0
    if isinstance(token, str) and (read := _TOKEN.fullmatch(token)) and int(read[1]) <= MAX_COUNT:
        return int(read[1]), int(read[2])
    raise InvalidCursorError(token, "is no change token: pass what Change.token gave, or None")


def _place(before: Position | None) -> dict[str, Any]:
    """The place a page starts behind, as parameters."""
    if (position := check_before(before)) is None:
        return {"created_at": _NEVER, "id": _LAST_ID}
    return {"created_at": position.created_at, "id": position.id}
