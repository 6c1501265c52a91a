from __future__ import annotations

import gc
import os
import signal
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jobhistory.errors import StorageError
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.storage.sqlite_connections import Connections, _after_fork, _before_fork
from jobhistory.testing.rules.base import CONNECTION, OTHER, job, jobs
from tests.crew import Crew, work_together

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def repository(path: Path) -> Iterator[SQLiteJobRepository]:
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)
        repository.register(OTHER)
        yield repository


# ---- Processes of their own


OPENING = """
import sys
from uuid import UUID
from jobhistory.storage.sqlite import SQLiteJobRepository

print("ready", flush=True)
for line in sys.stdin:
    repository = SQLiteJobRepository(line.strip())
    repository.register(UUID(int=int(sys.argv[1])))
    repository.close()
    print("done", flush=True)
"""


@pytest.mark.parametrize(("processes", "files"), [(4, 8), pytest.param(8, 200, marks=pytest.mark.slow)])
def test_a_new_file_is_opened_by_several_processes_at_once(tmp_path: Path, processes: int, files: int) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(files)]
    with Crew.at_work(processes, OPENING) as crew:
        assert ["ready"] * processes == crew.answers()
        for path in paths:
            crew.tell(str(path))
            assert ["done"] * processes == crew.answers()
        assert ([], [0] * processes) == (crew.last_words(), crew.codes())

    for path in paths:
        with closing(SQLiteJobRepository(path)) as repository:
            assert [UUID(int=number) for number in range(processes)] == [known.id for known in repository.connections()]
        with closing(sqlite3.connect(path)) as other:
            assert [("ok",)] == other.execute("PRAGMA integrity_check").fetchall()
            assert [(1,)] == other.execute("SELECT count(*) FROM _sqlite_migrations").fetchall()
    assert {path.name for path in paths} == {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize(("processes", "rounds"), [(4, 25), pytest.param(8, 200, marks=pytest.mark.slow)])
def test_processes_that_work_on_one_file_lose_nothing(path: Path, processes: int, rounds: int) -> None:
    work_together(processes, str(path), rounds)


DYING = """
import itertools
import sys
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import job

with open(0):
    repository = SQLiteJobRepository(sys.argv[2], durability=sys.argv[3])
    for number in itertools.count():
        repository.add(job(number))
        print(number, flush=True)
"""


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_what_a_killed_process_acknowledged_is_there(
    repository: SQLiteJobRepository, path: Path, durability: str
) -> None:
    with Crew.at_work(1, DYING, path, durability) as crew:
        for number in range(30):
            assert [str(number)] == crew.answers()
        crew.members[0].kill()
        acknowledged = 30 + len(crew.last_words())
        assert [-signal.SIGKILL] == crew.codes()

    stored = repository.list_jobs(CONNECTION, limit=1000)[::-1]
    assert jobs(*range(acknowledged)) == stored[:acknowledged]
    assert len(stored) <= acknowledged + 1


# ---- Forks


def forked(child: Callable[[], object]) -> int:
    """The id of a new child that does this, and nothing else; one that hangs is ended."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        signal.alarm(60)
        child()
        code = 0
    except BaseException:  # noqa: BLE001  the child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def ended_well(pid: int) -> bool:
    _, status = os.waitpid(pid, 0)
    return status == 0


class Signal:
    """Something one process waits for and another one gives."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()

    def give(self) -> None:
        os.write(self._writing, b"!")

    def wait(self) -> None:
        os.read(self._reading, 1)

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


@pytest.fixture
def ready() -> Iterator[Signal]:
    with closing(Signal()) as ready:
        yield ready


def add_one_by_one(repository: SQLiteJobRepository, numbers: range) -> None:
    for number in numbers:
        repository.add(job(number))


def numbers_in(path: Path) -> list[float]:
    """Which jobs a process that comes later finds."""
    with closing(SQLiteJobRepository(path)) as later:
        return [(each.created_at - job(0).created_at).total_seconds() for each in later.list_jobs(CONNECTION)][::-1]


def test_a_child_loses_nothing_when_its_parent_closes(
    repository: SQLiteJobRepository, path: Path, ready: Signal
) -> None:
    repository.add(job(0))

    def child() -> None:
        ready.wait()
        add_one_by_one(repository, range(40, 60))

    pid = forked(child)
    add_one_by_one(repository, range(1, 40))
    repository.close()
    ready.give()

    assert ended_well(pid)
    assert [*range(60)] == numbers_in(path)


def test_a_parent_loses_nothing_when_its_child_closes(
    repository: SQLiteJobRepository, path: Path, ready: Signal
) -> None:
    repository.add(job(0))

    def child() -> None:
        add_one_by_one(repository, range(1, 20))
        repository.close()
        with suppress(StorageError):
            repository.add(job(99))
        ready.give()

    pid = forked(child)
    ready.wait()
    add_one_by_one(repository, range(20, 40))

    assert ended_well(pid)
    repository.close()
    assert [*range(40)] == numbers_in(path)


def test_parent_and_children_of_children_write_side_by_side(repository: SQLiteJobRepository, path: Path) -> None:
    def child() -> None:
        grandchild = forked(lambda: add_one_by_one(repository, range(20, 40)))
        add_one_by_one(repository, range(20))
        assert ended_well(grandchild)

    repository.add(job(99))
    pid = forked(child)
    add_one_by_one(repository, range(40, 60))

    assert ended_well(pid)
    repository.close()
    assert [*range(60), 99] == numbers_in(path)


def test_no_connection_is_open_during_a_fork(repository: SQLiteJobRepository, path: Path) -> None:
    assert 2 == len(repository.connections())
    assert descriptors(path)
    pid = forked(lambda: equal([], descriptors(path)))

    assert ended_well(pid)
    assert [] == descriptors(path)
    assert 2 == len(repository.connections())


def test_a_connection_that_a_fork_met_while_it_was_opened_is_used_by_neither(
    repository: SQLiteJobRepository, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = repository._db._connect

    def met_by_a_fork() -> sqlite3.Connection:
        connection = connect()
        assert ended_well(forked(lambda: None))
        return connection

    with repository._db.quiet():  # closes this thread's
        monkeypatch.setattr(repository._db, "_connect", met_by_a_fork)
    with pytest.raises(StorageError, match="this thread forked"):
        repository.add(job(1))
    assert [] == descriptors(path)
    monkeypatch.undo()
    repository.add(job(1))
    assert [job(1)] == repository.list_jobs(CONNECTION)


def test_a_wait_for_changes_misses_none_at_a_fork(repository: SQLiteJobRepository, path: Path) -> None:
    looks = 0
    read = repository._db.read

    def look(sql: str, parameters: Any = ()) -> list[Any]:  # noqa: ANN401  as read has them
        nonlocal looks
        looks += 1
        if looks == 5:  # it waits by now
            with closing(SQLiteJobRepository(path)) as other:
                other.add(job(0))
            assert ended_well(forked(lambda: None))
        return read(sql, parameters)

    vars(repository._db)["read"] = look

    assert repository.wait_for_changes(None, 60)
    assert looks > 4


def equal(expected: object, actual: object) -> None:
    assert expected == actual


def test_a_fork_while_other_threads_write_loses_nothing(repository: SQLiteJobRepository, path: Path) -> None:
    def work(thread: int) -> None:
        add_one_by_one(repository, range(100 * thread, 100 * thread + 40))

    def child(number: int) -> Callable[[], None]:
        return lambda: add_one_by_one(repository, range(1000 + 10 * number, 1000 + 10 * number + 3))

    with ThreadPoolExecutor(3) as threads:
        working = [threads.submit(work, thread) for thread in range(3)]
        children = [forked(child(number)) for number in range(8)]
        for each in working:
            each.result()

    assert [True] * 8 == [ended_well(pid) for pid in children]
    repository.close()
    expected = {100 * thread + number for thread in range(3) for number in range(40)}
    expected |= {1000 + 10 * number + step for number in range(8) for step in range(3)}
    with closing(SQLiteJobRepository(path)) as later:
        found = later.list_jobs(CONNECTION, limit=1000)
    assert expected == {int((each.created_at - job(0).created_at).total_seconds()) for each in found}


def test_a_fork_while_other_threads_open_files_leaves_the_child_free_to_open_some(tmp_path: Path) -> None:
    stop = threading.Event()

    def work(thread: int) -> None:
        while not stop.is_set():
            SQLiteJobRepository(tmp_path / f"{thread}.db").close()

    def child() -> None:
        with closing(SQLiteJobRepository(tmp_path / "0.db")) as opened:
            opened.register(CONNECTION)

    SQLiteJobRepository(tmp_path / "0.db").close()
    with ThreadPoolExecutor(3) as threads:
        working = [threads.submit(work, thread) for thread in range(3)]
        try:
            outcomes = [ended_well(forked(child)) for _ in range(4)]
        finally:
            stop.set()
        for each in working:
            each.result()

    assert [True] * 4 == outcomes


def test_a_repository_that_is_opened_during_a_fork_waits_for_its_end(tmp_path: Path) -> None:
    opening = threading.Thread(target=lambda: SQLiteJobRepository(tmp_path / "history.db").close())
    _before_fork()
    opening.start()
    opening.join(timeout=0.3)
    waited = opening.is_alive()
    _after_fork()
    opening.join()

    assert waited


# ---- Threads


def descriptors(path: Path) -> list[str]:
    """The history's files that this process has open, one entry a descriptor."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own descriptor
            found.append(str(entry.readlink()))
    return sorted(name for name in found if name.startswith(str(path)))


def test_threads_share_a_repository(repository: SQLiteJobRepository) -> None:
    def work(thread: int) -> None:
        add_one_by_one(repository, range(100 * thread, 100 * thread + 25))
        assert len(repository.list_jobs(CONNECTION, limit=1000)) >= 25

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, thread) for thread in range(8)]:
            done.result()

    expected = [job(100 * thread + number) for thread in range(8) for number in range(25)]
    assert expected[::-1] == repository.list_jobs(CONNECTION, limit=1000)


def test_a_thread_that_ends_closes_its_connection(repository: SQLiteJobRepository, path: Path) -> None:
    def connections_open() -> int:
        # The log: SQLite keeps a descriptor of the file itself for the next one, as closing it would drop locks.
        assert 2 == len(repository.connections())
        return descriptors(path).count(f"{path}-wal")

    counted = [connections_open()]
    for _ in range(5):
        with ThreadPoolExecutor(1) as thread:
            counted.append(thread.submit(connections_open).result())
    counted.append(connections_open())

    assert [1, 2, 2, 2, 2, 2, 1] == counted
    assert len(descriptors(path)) <= 4


def test_closing_closes_the_connections_of_all_threads(repository: SQLiteJobRepository, path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        assert 2 == len(threads.submit(repository.connections).result())
        assert 2 == len(repository.connections())
        repository.close()
        assert [] == descriptors(path)
        for ask in (repository.connections, lambda: threads.submit(repository.connections).result()):
            with pytest.raises(StorageError, match="is closed: open it anew"):
                ask()
    assert [path] == list(path.parent.iterdir())


def test_closing_in_one_thread_waits_for_a_write_in_another(repository: SQLiteJobRepository) -> None:
    entered, leave = threading.Event(), threading.Event()

    def write() -> None:
        with repository._db.write() as db:
            db.execute("UPDATE source_connections SET name = 'waited for' WHERE id = ?", (CONNECTION.bytes,))
            entered.set()
            leave.wait()

    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(write)
        entered.wait()
        closed = threads.submit(repository.close)
        assert not closed.done()
        leave.set()
        writing.result()
        closed.result()

    with closing(SQLiteJobRepository(repository.path)) as later:
        assert "waited for" == later.register(CONNECTION).name


def test_a_repository_that_is_dropped_closes_its_file(path: Path) -> None:
    repository = SQLiteJobRepository(path)
    repository.register(CONNECTION)
    assert descriptors(path)
    del repository
    gc.collect()

    assert [] == descriptors(path)


def test_holding_still_waits_for_a_connection_that_is_being_closed(path: Path) -> None:
    closing_it, close_it = threading.Event(), threading.Event()

    class Slow(sqlite3.Connection):
        def close(self) -> None:
            if not closing_it.is_set():
                closing_it.set()
                close_it.wait()
            super().close()

    connections = Connections(
        str(path), lambda: sqlite3.connect(path, check_same_thread=False, factory=Slow), timeout=1
    )
    reader = threading.Thread(target=connections.read, args=("SELECT 1",))
    reader.start()
    closing_it.wait()
    stiller = threading.Thread(target=connections.close)
    stiller.start()
    stiller.join(timeout=0.3)
    waited = stiller.is_alive()
    close_it.set()
    stiller.join()
    reader.join()

    assert waited
    assert [] == descriptors(path)
