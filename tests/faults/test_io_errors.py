"""The k-th operation on the files fails, once or from then on, for every k: the answer is true, and nothing is harmed.

What returned is there. What raised StorageError is not there, not even after a crash, and UnknownOutcomeError
says that nobody knows. Then the disk works again, and so does the repository.
"""

from __future__ import annotations

import errno
import functools
import itertools
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from jobhistory import JobStatus, SourceConnectionNotFoundError, StorageError, UnknownOutcomeError
from jobhistory.storage import sqlite
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.storage.sqlite_connections import Connections
from jobhistory.testing.rules.base import CONNECTION, OTHER, at, job, jobs
from tests.faults import shim
from tests.faults.campaign import sizes
from tests.faults.shim import Kind
from tests.faults.state import State, state_in, state_of
from tests.faults.upgrade import UPGRADED

ERRORS = {
    Kind.OPEN: (errno.EMFILE, errno.EACCES),
    Kind.READ: (errno.EIO,),
    Kind.WRITE: (errno.EIO, errno.ENOSPC),
    Kind.TRUNCATE: (errno.EIO,),
    Kind.SYNC: (errno.EIO,),
    Kind.UNLINK: (errno.EIO,),
    Kind.LOCK: (errno.EIO, errno.ENOLCK),
    Kind.MAP: (errno.ENOMEM,),
}
DONE = job(1, JobStatus.COMPLETED)


class Strained(SQLiteJobRepository):
    """Goes to the disk for everything: with hardly a cache, and a checkpoint at nearly every commit."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, timeout=0.1)

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA cache_size = 5")
        connection.execute("PRAGMA wal_autocheckpoint = 8")
        return connection


Call = Callable[[SQLiteJobRepository], Any]
WRITES: dict[str, Call] = {
    "register": lambda r: r.register(OTHER, "renamed"),
    "add": lambda r: r.add(job(1000)),
    "add_many": lambda r: r.add_many(jobs(*range(2000, 2040), metadata={"text": "x" * 3000})),
    "replace": lambda r: r.replace(job(60).start(at=at(61))),
    "delete_many": lambda r: r.delete_many([DONE.id]),
    "forget": lambda r: r.forget(OTHER),
}
READS: dict[str, Call] = {
    "connections": lambda r: r.connections(),
    "get": lambda r: r.get(DONE.id),
    "list_jobs": lambda r: r.list_jobs(CONNECTION),
    "active_jobs": lambda r: r.active_jobs(),
    "newest_jobs": lambda r: r.newest_jobs(),
    "changes": lambda r: r.changes(),
}


ACTS = ["make", "upgrade", "open", *(f"{name} {how}" for name in (*READS, *WRITES) for how in ("cold", "warm"))]
"""Cold: right after the repository was opened. Warm: its connection has read before."""


@attrs.frozen
class Point:
    """What fails: the at-th operation of that kind in the act, with that errno, once or from then on."""

    act: str
    kind: Kind
    at: int
    error: int
    forever: bool


def failing(point: Point) -> AbstractContextManager[shim.Watch]:
    return shim.failing(point.kind, point.at, point.error, forever=point.forever)


@contextmanager
def told_well(path: Path) -> Iterator[None]:
    """An error names the file and the way out, and has its cause."""
    try:
        yield
    except StorageError as error:
        told = str(path) == error.where and re.search(r": |\(.+\)", error.reason)
        if not told or not isinstance(error.__cause__, sqlite3.Error | OSError):
            raise AssertionError(error) from error
        raise


class Bench:
    """Above the shim: a place where a history is made, broken and looked at, again and again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home" / "history.db"
        self._templates = folder / "templates"
        self._crashed = folder / "crashed" / "history.db"
        self._crashed.parent.mkdir()
        self.path.parent.mkdir()
        for name, schemas in (("old", UPGRADED[:-1]), ("new", UPGRADED)):
            sqlite._SCHEMAS = schemas  # type: ignore[assignment]
            with closing(Strained(self.path)) as repository:
                repository.register(CONNECTION)
                repository.register(OTHER)
                repository.add_many([DONE, *jobs(*range(2, 60), metadata={"text": "x" * 200})])
                repository.add(job(60))  # stands in the log alone
                self._copy(self.path, self._templates / name / "history.db")
            self._clear(self.path.parent)
        (self._templates / "none").mkdir()
        self._prepare("new")
        self._before = state_in(self.path)

    def _clear(self, folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()

    def _copy(self, path: Path, to: Path) -> None:
        """What a crash leaves: the file and its logs, without the index that stands in memory."""
        to.parent.mkdir(parents=True, exist_ok=True)
        self._clear(to.parent)
        for suffix in ("", "-wal", "-journal"):
            with suppress(FileNotFoundError):
                shutil.copy(f"{path}{suffix}", f"{to}{suffix}")

    def _prepare(self, template: str) -> None:
        self._clear(self.path.parent)
        self._copy(self._templates / template / "history.db", self.path)

    def _states(self, repository: SQLiteJobRepository) -> list[State]:
        """What is there now, and what would be after a crash."""
        self._copy(self.path, self._crashed)
        return [state_of(repository), state_in(self._crashed)]

    def do(self, point: Point) -> shim.Watch:
        """Meet the fault at this point, and judge what comes of it. Gives how many operations there were."""
        name, _, how = point.act.partition(" ")
        self._prepare({"make": "none", "upgrade": "old"}.get(name, "new"))
        if name in ("make", "upgrade", "open"):
            return self._open(point, State() if name == "make" else self._before)
        with closing(Strained(self.path)) as repository:
            if how == "warm":
                repository.connections()
            if name in READS:
                return self._read(point, repository, READS[name])
            return self._write(point, repository, WRITES[name])

    def _open(self, point: Point, expected: State) -> shim.Watch:
        with suppress(StorageError), told_well(self.path), failing(point) as watch:
            Strained(self.path).close()
        assert expected == state_in(self.path)
        return watch

    def _read(self, point: Point, repository: SQLiteJobRepository, read: Call) -> shim.Watch:
        expected, _ = self._untroubled(read)
        with suppress(StorageError), told_well(self.path), failing(point) as watch:
            assert expected == read(repository)
        assert [self._before] * 2 == self._states(repository)
        assert expected == read(repository)
        return watch

    def _write(self, point: Point, repository: SQLiteJobRepository, write: Call) -> shim.Watch:
        _, after = self._untroubled(write)
        possible = [after]
        try:
            with told_well(self.path), failing(point) as watch:
                write(repository)
        except UnknownOutcomeError:
            possible = [self._before, after]
        except StorageError:
            possible = [self._before]
        assert [state for state in self._states(repository) if state not in possible] == []
        with suppress(SourceConnectionNotFoundError):  # it was forgotten
            write(repository)
        assert [after] * 2 == self._states(repository)
        return watch

    @functools.cache  # noqa: B019  one bench a process
    def _untroubled(self, call: Call) -> tuple[Any, State]:
        """What the call gives and leaves where nothing fails."""
        self._copy(self._templates / "new" / "history.db", self._crashed)
        with closing(Strained(self._crashed)) as repository:
            return call(repository), state_of(repository)


def meet(
    folder: Path, size: int, seed: int, *, acts: list[str], kinds: Kind, connections: type[Connections]
) -> tuple[int, list[str]]:
    """Above the shim: at most so many points of these acts and kinds, and what is wrong at some of them."""
    vars(sqlite)["Connections"] = connections
    bench = Bench(folder)
    chance = random.Random(seed)
    points = []
    for act in acts:
        for kind, count in bench.do(Point(act, Kind(0), 0, 0, forever=False)).items():
            if not kind & kinds:
                continue
            how = itertools.product(range(1, count + 1), ERRORS[kind], (False, True))
            points += [Point(act, kind, *each) for each in how]
    points = chance.sample(points, min(size, len(points)))
    wrong = []
    for point in points:
        try:
            bench.do(point)
        except Exception as error:  # noqa: BLE001  whatever it is, it is told with its point
            wrong.append(f"{point}: {type(error).__name__}: {str(error)[:1000]}")
    return len(points), wrong


@sizes(50, 100_000)
def test_wherever_an_operation_fails_the_answer_is_true_and_nothing_is_harmed(
    folder: Path, size: int, seed: int
) -> None:
    everywhere = partial(meet, acts=ACTS, kinds=~Kind(0), connections=Connections)
    points, wrong = shim.above(folder / "home", everywhere, folder, size, seed)
    print(f"{points} points, {len(wrong)} wrong")

    assert [] == wrong


class Certain(Connections):
    """Says of a commit that failed that it did not land."""

    def _commit(self, connection: sqlite3.Connection) -> None:
        self._patiently(lambda: connection.execute("COMMIT"))


class Hopeful(Connections):
    """Passes over a commit that failed."""

    def _commit(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.Error):
            connection.execute("COMMIT")


@pytest.mark.parametrize("connections", [Certain, Hopeful])
def test_a_library_that_answers_too_soon_is_caught(folder: Path, seed: int, connections: type[Connections]) -> None:
    narrow = partial(meet, acts=["add warm"], kinds=Kind.SYNC, connections=connections)
    _, wrong = shim.above(folder / "home", narrow, folder, 1000, seed)

    assert wrong
