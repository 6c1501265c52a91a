"""SQLite's connections and transactions: one connection a thread, none of them carried over a fork."""

from __future__ import annotations

import contextlib
import math
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from jobhistory.errors import StorageError, UnknownOutcomeError

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_WAYS_OUT = {  # by the extended result code, else by the primary one
    sqlite3.SQLITE_BUSY: "other processes held the lock all the time: try again, or raise timeout",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists, its permissions and the file's",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: restore a backup (https://www.sqlite.org/recovery.html)",
    sqlite3.SQLITE_FULL: "the disk is full: make room and try again",
    sqlite3.SQLITE_IOERR: "the disk failed: see the system's log",
    sqlite3.SQLITE_IOERR_SHORT_READ: (
        "the file or its log is shorter than it was: if its -wal was taken away, close the history everywhere, "
        "which saves what that held"
    ),
    sqlite3.SQLITE_IOERR_SHMSIZE: "no room for its index, of 32 KiB: the disk is full, make room and try again",
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database: give another path",
    sqlite3.SQLITE_PERM: "check the file's permissions",
    sqlite3.SQLITE_PROTOCOL: "locks do not work here: use a local disk",
    sqlite3.SQLITE_READONLY: "the file, or its folder, cannot be written to: check permissions",
}

_IN_PLACE_FOR = 0.01
"""Seconds for which a file that was seen in its place counts as there, where to look again would cost much."""
_FORKED = "this thread forked, or closed the history, in the midst of this: do it again"


class Connections:
    """Opens a connection for each thread that asks, and holds its transactions.

    No connection is open during a fork: POSIX locks do not survive it, SQLite does not notice, and a child
    that opened its own beside an inherited one would write to a log that the parent may delete
    (https://www.sqlite.org/howtocorrupt.html, 2.6). So all are closed before, and opened again on demand.

    Args:
        path: the file.
        connect: opens a connection to it, in autocommit mode (isolation_level=None) with timeout=0.
        timeout: seconds to wait for other processes' locks.
    """

    def __init__(self, path: str, connect: Callable[[], sqlite3.Connection], timeout: float) -> None:
        self.path = path
        """The file."""
        self._wal = f"{path}-wal"
        self._connect = connect
        self._timeout = timeout
        self._translated = _Translated(path)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._slots: weakref.WeakSet[_Slot] = weakref.WeakSet()
        self._closed = False
        self._file: tuple[int, int] | None = None
        self._file_seen_at = -math.inf
        with _fork_lock:
            _ALL.add(self)

    def read(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        """All rows of one SELECT; where another program wrote text that is no UTF-8, each text is bytes."""
        slot = self._slot()
        with slot.lock:
            if (connection := slot.connection) is not None:
                if not _is_recent(self._file_seen_at):
                    self._require_in_place()
                try:
                    return connection.execute(sql, parameters).fetchall()
                except (sqlite3.Error, UnicodeDecodeError):
                    pass  # tried again with patience, or said, below: which costs, so that what works goes without
            with self._translated:
                connection = self._connection()
                rows: list[Any] = self._patiently(lambda: _rows(connection, sql, parameters))
                return rows

    @contextlib.contextmanager
    def held(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection, outside of a transaction; no fork happens meanwhile."""
        with self._slot().lock, self._translated:
            yield self._connection()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start; committed, or rolled back where it raises."""
        slot = self._slot()
        with slot.lock, self._translated:
            connection = self._connection()
            if connection.in_transaction:  # a signal handler's, or a finalizer's
                raise StorageError(self.path, "this thread is in the midst of a write: write from another thread")
            try:
                self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
                yield connection
                self._commit(connection)
            except BaseException as error:
                # Wherever it was interrupted, no transaction stays open: closing, too, rolls back.
                try:
                    connection.rollback()
                    if isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_FULL:
                        # What the log holds may have a place in the file: copied there, its room is used again.
                        connection.execute("PRAGMA wal_checkpoint").fetchall()
                except sqlite3.Error:
                    slot.close()
                raise

    def close(self) -> None:
        """Close all threads' connections, once they finished what they do."""
        with self.quiet():
            self._closed = True

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Hold everything still with no connection open, as at a fork."""
        with contextlib.ExitStack() as held:
            held.enter_context(self._lock)
            for slot in list(self._slots):
                held.enter_context(slot.lock)
                slot.close()
            yield

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            # Busy while others read a file that has no log yet.
            self._patiently(lambda: connection.execute("COMMIT"))
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_FULL:
                raise  # without its last page, which found no room, a transaction is nothing
            raise UnknownOutcomeError(self.path, f"the commit failed: {_explained(error)}") from error

    def _slot(self) -> _Slot:
        try:
            slot: _Slot = self._local.slot
        except AttributeError:
            slot = self._local.slot = _Slot()
            with self._lock:
                self._slots.add(slot)
        return slot

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise StorageError(self.path, "is closed: open it anew")
        slot: _Slot = self._local.slot
        self._require_in_place()
        if (connection := slot.connection) is None:
            closings, slot.log = slot.closings, None
            connection = slot.connection = self._patiently(self._connect)
            if slot.closings != closings:  # a signal handler forked meanwhile: parent and child both have it
                slot.close()
                raise StorageError(self.path, _FORKED)
        self._require_log(slot)
        return connection

    def _require_in_place(self) -> None:
        """Refuse to go on with a file that has no name any more: what is written to it ends with this process.

        Each write asks; of reads, which it would cost a sixth more, one in a hundredth of a second.
        """
        try:
            status = os.stat(self.path)  # noqa: PTH116  asked before everything: a Path would double its cost
        except OSError as error:
            if self._file is None:
                return  # the driver will say what is wrong
            reason = f"was taken away ({error.strerror}): put it back, or open the history anew"
            raise StorageError(self.path, reason) from error
        file = status.st_dev, status.st_ino
        if self._file is None:
            self._file = file
        elif self._file != file:
            raise StorageError(self.path, "was replaced by another file: open the history anew")
        self._file_seen_at = time.monotonic()

    def _require_log(self, slot: _Slot) -> None:
        """Likewise with a log, before a write: a read would be dearer by a tenth.

        SQLite takes no log away while a connection is open. Who closes the last one copies what the log holds into
        the file, though the log has no name any more; who is killed before loses it.

        To ask which file it is makes the write that follows dearer by a tenth, since Linux then keeps its times to the
        nanosecond (https://docs.kernel.org/filesystems/multigrain-ts.html): whether there is one is asked each time.
        """
        if slot.log is not None and _is_recent(slot.log_seen_at) and os.access(self._wal, os.F_OK):
            return
        log = self._log()
        if slot.log is None:  # as long as the file has none
            slot.log = log
        elif slot.log != log:
            reason = f"lost its log, {self._wal}: close the history everywhere, which saves what that held"
            raise StorageError(self.path, f"{reason}, and open it anew")
        slot.log_seen_at = time.monotonic()

    def _log(self) -> tuple[int, int] | None:
        """Which file the log is, None where there is none."""
        try:
            status = os.stat(self._wal)  # noqa: PTH116  as for the file
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _patiently(self, attempt: Callable[[], Any]) -> Any:  # noqa: ANN401  what the attempt gives
        return patiently(attempt, self._timeout)


class _Translated:
    """Raises the driver's errors as ours; a class, for a generator would cost each write a microsecond."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise storage_error(self._path, error) from error
        if isinstance(error, UnicodeDecodeError):  # the driver's, of a message that quotes a damaged schema
            raise StorageError(self._path, _WAYS_OUT[sqlite3.SQLITE_CORRUPT]) from error


def _is_recent(seen_at: float) -> bool:
    return time.monotonic() - seen_at < _IN_PLACE_FOR


def _rows(
    connection: sqlite3.Connection, sql: str, parameters: Sequence[Any] | Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(sql, parameters).fetchall()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("Could not decode to UTF-8"):
            raise
    connection.text_factory = bytes
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.text_factory = str


class _Slot:
    """A thread's place for its connection, closed with the thread; the lock is held while it is used."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.log: tuple[int, int] | None = None
        """The log that the connection writes to, once there is one."""
        self.log_seen_at = -math.inf
        self.closings = 0

    def close(self) -> None:
        with self.lock:
            self.closings += 1
            if self.connection is not None:
                self.connection.close()
                self.connection = self.log = None

    # Holding the lock: no fork happens while SQLite closes a file, with mutexes of its own held.
    __del__ = close


def patiently(attempt: Callable[[], Any], timeout: float) -> Any:  # noqa: ANN401  what the attempt gives
    """What the attempt gives, tried again while other processes hold the locks.

    SQLite's own busy handler sleeps longer at each try, so that whoever waits longest loses most; short
    random sleeps are fair. Longer ones come where it is no crowd of writers that holds the lock, but one for long.
    """
    begun = time.monotonic()
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - begun
            if primary_code(error) not in _BUSY or waited >= timeout:
                raise
        time.sleep(random.uniform(50e-6, 500e-6) if waited < 1 else random.uniform(1e-3, 10e-3))  # noqa: S311  no secret


def storage_error(path: str, error: sqlite3.Error) -> StorageError:
    """The driver's error as ours, with the way out."""
    return StorageError(path, _explained(error))


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension (https://www.sqlite.org/rescode.html)."""
    return _code(error) & 0xFF


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)


def _explained(error: sqlite3.Error) -> str:
    said = f"{error} [{getattr(error, 'sqlite_errorname', type(error).__name__)}]"
    way_out = _WAYS_OUT.get(_code(error)) or _WAYS_OUT.get(primary_code(error))
    if isinstance(error, sqlite3.ProgrammingError):
        way_out = _FORKED
    return f"{said} ({way_out})" if way_out else said


_ALL: weakref.WeakSet[Connections] = weakref.WeakSet()
_fork_lock = threading.RLock()
_at_fork = contextlib.ExitStack()


def _before_fork() -> None:
    _fork_lock.acquire()
    for connections in list(_ALL):
        _at_fork.enter_context(connections.quiet())


def _after_fork() -> None:
    _at_fork.close()
    _fork_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
