"""One connection to PostgreSQL: a deadline for every answer, what may have landed, and what a fork leaves of it."""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg

if TYPE_CHECKING:
    from psycopg.abc import PQGen

_T = TypeVar("_T")
Taken = psycopg.errors.UniqueViolation
"""Raised where another row has what may be there once."""
Dangling = psycopg.errors.ForeignKeyViolation
"""Raised where what a row refers to is not there."""
Parameters = Sequence[Any] | Mapping[str, Any]

_PREPARED_AFTER = 3
"""How often a statement is run before it is prepared."""
_GRACE = 2.0
"""Seconds that a server has to answer a cancellation."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every answer is waited for until a deadline, and that knows what may have landed."""

    schema = ""
    deadline = math.inf
    landing = False
    """Whether a commit is under way, or was when the connection was lost."""
    unconfirmed = False
    """Whether a commit returned that its standby did not confirm."""
    suspect = False
    """Whether a cancellation is on its way, which could hit whatever comes next."""

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:  # noqa: ANN401  psycopg's, and two of ours
        """Connect; `told` is told of a failure, or of None; `schema` is what SCHEMA stands for."""
        told, schema = options.pop("told"), options.pop("schema")
        try:
            connection = super().connect(conninfo, **options)
            with _fork_lock:
                _SOCKETS[connection] = connection.fileno()
            connection.schema = schema
            connection.add_notice_handler(connection._note)  # noqa: SLF001  its own
            connection._settle_in()  # noqa: SLF001  its own
        except psycopg.Error as error:
            told(error)
            raise
        told(None)
        return connection

    def _settle_in(self) -> None:
        self.deadline = time.monotonic() + _GRACE
        try:
            # A pooler that hands its connections round for each transaction carries this one setting along.
            if self.info.parameter_status("TimeZone") != "UTC":
                self.execute("SET TimeZone TO 'UTC'")
            # But not what is prepared: it is told by the number it gives out, which is not the server process's.
            [(pid,)] = self.execute("SELECT pg_backend_pid()")
        except BaseException:
            self.close()
            raise
        if pid == self.info.backend_pid:
            self.prepare_threshold = _PREPARED_AFTER
        self.deadline = math.inf

    def check(self) -> None:
        """Raise where this has ended: an idle connection has nothing to say, unless it is that."""
        said = select.poll()
        said.register(self.fileno(), select.POLLIN)
        if said.poll(0):
            self.deadline = time.monotonic() + _GRACE
            self.execute("")

    def named(self, sql: str) -> str:
        """The statement, with the name that SCHEMA stands for."""
        return sql.replace("SCHEMA.", f'"{self.schema}".')

    def run(self, sql: str, parameters: Parameters = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement that writes nothing, or belongs to a transaction."""
        return self.execute(self.named(sql), parameters, binary=True)

    def alone(self, sql: str, parameters: Parameters = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        """Run a statement that is a transaction of its own."""
        self.landing = True
        cursor = self.run(sql, parameters)
        self.landing = False
        return cursor

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A transaction; rolled back where it raises."""
        self.execute("BEGIN ISOLATION LEVEL READ COMMITTED")  # whatever the server's default
        try:
            yield
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                self.execute("ROLLBACK")
            raise
        self.alone("COMMIT")

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """As psycopg's, but at the deadline the server is asked to stop, and soon after that the connection ends.

        A server's own statement_timeout does not end a commit that waits for a standby, nor a server that is gone.
        """
        try:
            return super().wait(_until(self.deadline, gen), interval, timeout)
        except _OverdueError:
            self.suspect = True
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=_GRACE)
        try:
            return super().wait(_until(time.monotonic() + _GRACE, gen, begun=True), interval, timeout)
        except _OverdueError:
            self.pgconn.finish()
            message = "the server does not answer"
            raise psycopg.OperationalError(message) from None

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # A cancelled wait for the standby is told by a warning alone; its words are translated, not its origin.
        if diagnostic.source_function == "SyncRepWaitForLSN":
            self.unconfirmed = True


class _OverdueError(Exception):
    pass


def _until(deadline: float, gen: PQGen[_T], *, begun: bool = False) -> PQGen[_T]:
    """The generator, left standing where it waits beyond the deadline."""
    ready: Any = psycopg.waiting.Ready.NONE if begun else None
    while True:
        try:
            wanted = gen.send(ready)
        except StopIteration as end:
            result: _T = end.value
            return result
        ready = yield wanted
        if not ready and time.monotonic() > deadline:
            raise _OverdueError


# ---- Forks

_SOCKETS: weakref.WeakKeyDictionary[Connection, int] = weakref.WeakKeyDictionary()
_fork_lock = threading.RLock()
_FORSAKEN: list[Connection] = []


def _in_child() -> None:
    """Leave the parent's connections to the parent.

    Nothing is said on them, as closing would; but they are no longer held open either: a server keeps a dead
    parent's transactions, and their locks, for as long as anyone has the socket.
    """
    _fork_lock.release()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection, socket in list(_SOCKETS.items()):
        if not connection.closed:
            os.dup2(nowhere, socket)
    os.close(nowhere)
    _FORSAKEN.extend(_SOCKETS)


os.register_at_fork(before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_in_child)
