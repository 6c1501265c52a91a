"""PostgreSQL's connections: a pool for each process, a time limit for each call, and what a lost connection means.

A connection can be lost at any moment, as at a failover. What was read is read again. A write whose commit
was not under way yet is written again, and so is one that the server rolled back to resolve a deadlock. Where
the commit was under way nobody knows whether it landed: the write is replayed, which is safe, and what cannot
be settled so is an UnknownOutcomeError.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict

from jobhistory.errors import JobHistoryError, StorageError, UnknownOutcomeError
from jobhistory.storage.postgres_connection import Connection, Parameters

_T = TypeVar("_T")

_RESOLVED = ("40001", "40P01")
"""Serialization failure and deadlock: rolled back so that others may go on. Appendix A of PostgreSQL's manual."""
_ELSEWHERE = ("57P03", "25006")
"""It starts or stops, or became a standby: nothing was done here."""
_LOST = ("08", "57P01", "57P02", "40003")
"""How the codes begin of a connection that ends, or of a statement of which nobody knows."""
_AGAIN_AFTER = 0.1
"""Seconds between attempts to connect while someone waits."""
_WAKE_EVERY = 0.1
"""Seconds between two wake-ups."""


class _FailedError(Exception):
    """An attempt failed: by the driver's error; whether that may pass; whether it may have landed all the same."""

    def __init__(self, error: psycopg.Error, *, passing: bool = False, landing: bool = False) -> None:
        self.error = error
        self.passing = passing
        self.landing = landing


class Connections:
    """Lends connections out of a pool, and holds calls to their time limit; a forked child has a pool of its own.

    Args:
        dsn: PostgreSQL's URL or connection string.
        schema: stands for `SCHEMA` in every statement, and names the channel that its listeners are woken by.
        min_size, max_size: how many connections are kept open, and may be.
        connect_timeout: seconds for each attempt to connect, to each host.
        timeout: seconds for each call, all that is tried again included.
    """

    def __init__(
        self, dsn: str, *, schema: str, min_size: int, max_size: int, connect_timeout: float, timeout: float
    ) -> None:
        self._closed = threading.Event()
        self._begin_anew()
        try:
            parts = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            # Not chained: what libpq says repeats parts of it, and it may hold a password.
            message = "dsn is no PostgreSQL URL or connection string, such as postgresql://user@host:5432/database"
            raise ValueError(message) from None
        self.where = f"postgresql://{_hosts(parts)}/{parts.get('dbname', '')}"
        self.timeout = timeout
        self._dsn = dsn
        self.schema = schema
        self._sizes = {"min_size": min_size, "max_size": max_size}
        self._options: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": None,
            "connect_timeout": parts.get("connect_timeout", max(2, round(connect_timeout))),  # libpq's least
            "client_encoding": "utf8",
            "fallback_application_name": "jobhistory",
            "told": self._told,
            "schema": schema,
        }
        with _fork_lock:
            _ALL.add(self)

    def _begin_anew(self) -> None:
        """With nothing open, as in a child, where another thread's locks stay locked."""
        closed, self._closed = self._closed.is_set(), threading.Event()
        if closed:
            self._closed.set()
        self._lock = threading.Lock()
        self._pool: _Pool | None = None
        self._listening: list[Connection] = []
        self._waiting = 0
        self._failure: Exception | None = None
        self._woken_at = -math.inf

    def read(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """All rows of one SELECT."""
        return self._call(lambda db: db.run(sql, parameters).fetchall())

    def write(self, work: Callable[[Connection], _T], *, replays: bool = True, wakes: bool = False) -> _T:
        """What the work gives, which writes by `alone` or `together`; it is called again where that is safe.

        Args:
            work: writes, and raises what refuses to.
            replays: whether work that landed answers the same when it is done again.
            wakes: whether who listens is woken.
        """
        return self._call(work, replays=replays, wakes=wakes)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Callable[[float], None]]:
        """Gives a function that waits until a write wakes it, for so many seconds at most.

        It also returns where its connection was lost; whether there is another is for who looks then to find out.
        """
        with self._lock:
            self._check_open()
            db = self._listening.pop() if self._listening else None
        db = db or self._listener()

        def wait(seconds: float) -> None:
            nonlocal db
            if db is None:
                self._closed.wait(seconds)
                db = self._listener()
                return
            try:
                for _ in db.notifies(timeout=seconds, stop_after=1):
                    pass
            except psycopg.Error:
                db.close()
                db = self._listener()

        try:
            yield wait
            with self._lock:
                if db is not None and not self._closed.is_set():
                    self._listening.append(db)
                    db = None
        finally:
            if db is not None:
                db.close()

    def _listener(self) -> Connection | None:
        """A connection that listens, None where there is none to be had."""
        try:
            db = self._connect()
        except psycopg.Error:
            return None
        try:
            db.execute(f'LISTEN "{self.schema}"')
        except psycopg.Error:
            db.close()
            return None
        return db

    @contextlib.contextmanager
    def opened(self) -> Iterator[Connection]:
        """A connection beside the pool, whose failure to connect is told as it is."""
        with self._translated(), contextlib.closing(self._connect()) as db:
            db.deadline = time.monotonic() + self.timeout
            yield db

    def _connect(self) -> Connection:
        return Connection.connect(self._dsn, **self._options)

    def close(self) -> None:
        """Close all connections, each once it finished what it does."""
        with self._lock:
            self._closed.set()
            pool, self._pool = self._pool, None
            listening, self._listening = self._listening, []
        if pool is not None:
            pool.close()
        for db in listening:
            db.close()

    __del__ = close

    def _call(self, work: Callable[[Connection], _T], *, replays: bool = True, wakes: bool = False) -> _T:
        deadline = time.monotonic() + self.timeout
        doubt: Exception | None = None
        elsewhere: psycopg.Error | None = None
        while True:
            try:
                return self._attempt(work, deadline, wakes=wakes)
            except JobHistoryError as refused:
                if doubt is None:
                    raise
                # Perhaps for what it wrote itself.
                raise UnknownOutcomeError(self.where, f"{_said(doubt)}; replayed: {refused}") from doubt
            except _FailedError as failed:
                late = time.monotonic() >= deadline
                doubt = failed.error if failed.landing else doubt
                elsewhere = failed.error if failed.error.sqlstate in _ELSEWHERE else elsewhere
                if late or not failed.passing or (doubt and not replays):
                    if doubt:
                        raise UnknownOutcomeError(self.where, _said(doubt)) from doubt
                    # That there is no other connection says less than why one was sought.
                    error = elsewhere or failed.error
                    raise self._storage_error(error, late=late) from error
            time.sleep(random.uniform(0.001, 0.02))  # noqa: S311  no secret

    def _attempt(self, work: Callable[[Connection], _T], deadline: float, *, wakes: bool) -> _T:
        try:
            with self._lent(deadline) as db:
                try:
                    result = work(db)
                except psycopg.Error as error:
                    lost = db.closed or (error.sqlstate or "").startswith(_LOST)
                    landing = lost and db.landing
                    if lost := lost or error.sqlstate in _ELSEWHERE:
                        db.close()
                    passing = lost or error.sqlstate in _RESOLVED
                    raise _FailedError(error, passing=passing, landing=landing) from None
                if db.unconfirmed:
                    raise UnknownOutcomeError(self.where, "committed on the primary, but no standby confirmed it")
                if wakes:
                    self._wake(db)
                return result
        except psycopg.Error as error:
            raise _FailedError(error) from None

    def _wake(self, db: Connection) -> None:
        """Wake who listens; often enough, not always, and after the write.

        Commits that notify wait for each other over the whole server (PreCommit_Notify holds one lock until
        the log is on disk), so the write itself must not.
        """
        now = time.monotonic()
        if now >= self._woken_at + _WAKE_EVERY:
            self._woken_at = now
            with contextlib.suppress(psycopg.Error):
                db.execute("SELECT pg_notify(%s, '')", (self.schema,))

    @contextlib.contextmanager
    def _lent(self, deadline: float) -> Iterator[Connection]:
        pool = self._opened()
        with self._lock:
            self._waiting += 1
        try:
            db = pool.getconn(timeout=max(deadline - time.monotonic(), 0.001))
        except psycopg_pool.PoolClosed as error:
            raise self._closed_error() from error
        finally:
            with self._lock:
                self._waiting -= 1
        db.deadline = deadline
        db.landing = db.unconfirmed = False
        try:
            yield db
        finally:
            if db.closed:
                # Its fellows have likely gone with it.
                pool.drain()
            elif db.suspect:
                db.close()
            pool.putconn(db)

    def _opened(self) -> _Pool:
        pool = self._pool
        if pool is None:
            with self._lock:
                self._check_open()
                pool = self._pool = self._pool or _Pool(
                    self._dsn,
                    connection_class=Connection,
                    kwargs=self._options,
                    check=self._check,
                    open=True,
                    name=_NAME,
                    # An attempt or two; who waits asks for more.
                    reconnect_timeout=0,
                    reconnect_failed=self._try_again,
                    num_workers=1,
                    **self._sizes,
                )
        return pool

    def _check(self, db: Connection) -> None:
        try:
            db.check()
        except psycopg.Error:
            # The next would be found ended too, after a longer and longer while.
            self._opened().drain()
            raise

    def _try_again(self, pool: psycopg_pool.ConnectionPool[Any]) -> None:
        if self._waiting and not self._closed.wait(_AGAIN_AFTER):
            pool.check()  # grows an empty pool

    def _told(self, failure: Exception | None) -> None:
        self._failure = failure

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise self._closed_error()

    def _closed_error(self) -> StorageError:
        return StorageError(self.where, "is closed: open it anew")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: psycopg.Error, *, late: bool = False) -> StorageError:
        """The driver's error as ours, with the way out."""
        match error:
            case psycopg_pool.PoolTimeout() if self._failure is not None:
                reason = f"cannot be reached: {_said(self._failure)} (check the URL, and that the server runs)"
            case psycopg_pool.PoolTimeout():
                reason = f"all {self._sizes['max_size']} connections were busy all the time: raise max_size or timeout"
            case psycopg.errors.QueryCanceled() if late:
                reason = f"took longer than {self.timeout:g} s: {_said(error)} (try again, or raise timeout)"
            case psycopg.errors.InsufficientPrivilege() | psycopg.errors.ReadOnlySqlTransaction():
                reason = f"{_said(error)} (grant it, or connect to the primary: target_session_attrs=read-write)"
            case _:
                reason = _said(error)
        return StorageError(self.where, reason)


class _Pool(psycopg_pool.ConnectionPool[Connection]):
    """A pool that is its process's alone: a child that drops its parent's must not wait for threads it has not."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  psycopg_pool's own
        self._pid = os.getpid()
        super().__init__(*args, **options)

    def __del__(self) -> None:
        if self._pid == os.getpid():
            super().__del__()


def _hosts(parts: Mapping[str, Any]) -> str:
    """Where the servers are, as a URL has it."""
    hosts = str(parts.get("host") or parts.get("hostaddr") or "localhost").split(",")
    ports = str(parts.get("port") or "5432").split(",")
    return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports * len(hosts), strict=False))


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    return f"{text} [{code}]" if code else text


class _Unsaid(logging.Filter):
    """Leaves out what a pool of ours logs of each connection it loses or cannot get: who waits is told by an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = record.args[0] if isinstance(record.args, tuple) and record.args else None
        return not (about == _NAME or isinstance(about, Connection))


_NAME = "jobhistory"
logging.getLogger("psycopg.pool").addFilter(_Unsaid())


# ---- Forks

_ALL: weakref.WeakSet[Connections] = weakref.WeakSet()
_fork_lock = threading.RLock()
_FORSAKEN: list[_Pool | None] = []


def _in_child() -> None:
    """Leave the parent's pools to the parent, as their connections are."""
    _fork_lock.release()
    for connections in list(_ALL):
        _FORSAKEN.append(connections._pool)  # noqa: SLF001  its module's own
        connections._begin_anew()  # noqa: SLF001  as above


os.register_at_fork(before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_in_child)
