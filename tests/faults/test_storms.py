"""Threads, forks and pickles, all at once: whoever writes finds all of it again."""

from __future__ import annotations

import os
import pickle
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest

import jobhistory
from jobhistory import JobHistory, JobRepository, StorageError, SyncJob, storage
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, job, jobs
from tests.faults.campaign import sizes
from tests.faults.state import state_in, state_of
from tests.postgres import Database

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

if TYPE_CHECKING:
    from _typeshed import TraceFunction

STORAGE = str(Path(storage.__file__).parent)
THREADS = 4
JOBS = 5


@pytest.fixture
def path(folder: Path) -> Iterator[Path]:
    path = folder / "history.db"
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)
    yield path
    print(f"{len(state_in(path).feed)} jobs")


def numbers(storm: int, writer: int) -> range:
    first = (storm * 100 + writer) * JOBS
    return range(first, first + JOBS)


def write(repository: JobRepository, storm: int, writer: int) -> None:
    for each in jobs(*numbers(storm, writer)):
        repository.add(each)


def forked(act: Callable[[], object]) -> int:
    """The id of a new child that does this, and nothing else."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        signal.alarm(60)
        act()
        code = 0
    except BaseException:  # noqa: BLE001  the child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


def ended_well(*pids: int) -> bool:
    return [0] * len(pids) == [os.waitpid(pid, 0)[1] for pid in pids]


def stored(path: Path) -> set[object]:
    return {facts[0] for _, facts in state_in(path).feed}


def expected(storms: int, *writers: int) -> set[object]:
    return {job(number).id for storm in range(storms) for writer in writers for number in numbers(storm, writer)}


@pytest.mark.parametrize("where", ["memory", "file"])
@sizes(10, 500)
def test_threads_that_write_read_open_and_close_lose_nothing(path: Path, size: int, where: str) -> None:
    repository: JobRepository = SQLiteJobRepository(path) if where == "file" else InMemoryJobRepository()
    repository.register(CONNECTION)

    def open_and_close() -> None:
        with closing(SQLiteJobRepository(path)) as other:
            other.list_jobs(CONNECTION, limit=5)

    with closing(repository):
        for storm in range(size):
            with ThreadPoolExecutor(THREADS + 1) as threads:
                acts = [threads.submit(write, repository, storm, writer) for writer in range(THREADS)]
                acts.append(threads.submit(open_and_close))
                for act in acts:
                    act.result()
        found = {facts[0] for _, facts in state_of(repository).feed}

    assert expected(size, *range(THREADS)) == found


@sizes(10, 500)
def test_forks_while_threads_write_lose_nothing(path: Path, size: int) -> None:
    with closing(SQLiteJobRepository(path)) as repository:
        for storm in range(size):
            with ThreadPoolExecutor(2) as threads:
                acts = [threads.submit(write, repository, storm, writer) for writer in range(2)]
                children = [forked(partial(write, repository, storm, writer)) for writer in (2, 3)]
                for act in acts:
                    act.result()
            assert ended_well(*children)

    assert expected(size, 0, 1, 2, 3) == stored(path)


@sizes(5, 500)
def test_signal_handlers_that_fork_in_the_midst_of_a_write_lose_nothing(path: Path, size: int, seed: int) -> None:
    """Parent and child both go on where they were: what the fork undid raises StorageError, and is done again."""
    chance = random.Random(seed)
    undone = 0
    with closing(SQLiteJobRepository(path)) as repository:
        for storm in range(size):
            with forking(after(chance.uniform(20e-6, 1e-3))) as children:
                for each in jobs(*numbers(storm, 0)):
                    undone += insist(partial(repository.add, each))
                if children == [0]:
                    write(repository, storm, 1)
            assert ended_well(*children)
    print(f"{undone} writes were undone by a fork")

    assert expected(size, 0, 1) == stored(path)


def insist(act: Callable[[], object]) -> int:
    """Do it until it succeeds, and say how often it did not."""
    failed = 0
    while True:
        try:
            act()
        except StorageError:
            failed += 1
        else:
            return failed


@contextmanager
def forking(when: AbstractContextManager[object]) -> Iterator[list[int]]:
    """Within, a signal handler forks, and the child ends with it. Gives [pid], or [0]."""
    children: list[int] = []
    outer = signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
    code = 1
    try:
        with when:
            yield children
        if not children:  # all was done before
            children.append(os.fork())
        code = 0
    except BaseException:
        if children != [0]:
            raise
        traceback.print_exc()
    finally:
        if children == [0]:
            os._exit(code)
        signal.signal(signal.SIGALRM, outer)


@contextmanager
def after(seconds: float) -> Iterator[None]:
    """The signal comes when so much time is over."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


class Lines:
    """The signal comes before the storage's code runs this line, of all that it runs."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.run = 0

    def __enter__(self) -> None:
        self.outer = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.outer)

    def trace(self, frame: FrameType, event: str, _: object) -> TraceFunction | None:
        if not frame.f_code.co_filename.startswith(STORAGE):
            return None
        if event == "line":
            if self.run == self.number:
                signal.raise_signal(signal.SIGALRM)
            self.run += 1
        return self.trace


ACTS: dict[str, Callable[[JobRepository, SyncJob], object]] = {
    "add": lambda repository, new: repository.add(new),
    "list_jobs": lambda repository, _: repository.list_jobs(CONNECTION, limit=1),
}


def forked_at_lines(
    opened: Callable[[], AbstractContextManager[JobRepository]], act: str, step: int, seed: int
) -> set[object]:
    """The jobs added by parents and children, who were forked at each line, or each of so many, that a call runs."""
    added: set[object] = set()
    for number in count(seed % step, step):
        lines = Lines(number)
        mine, childs = jobs(2 * number, 2 * number + 1)
        with opened() as repository:
            with forking(lines) as children:
                insist(partial(ACTS[act], repository, mine))
                if children == [0]:
                    insist(partial(repository.add, childs))
            assert ended_well(*children)
            insist(partial(repository.add, mine))
        added.add(mine.id)
        if lines.run <= number:
            break
        added.add(childs.id)
    print(f"{lines.run} lines")
    return added


@pytest.mark.parametrize("act", ACTS)
@sizes(8, 1)
def test_a_signal_handler_that_forks_at_any_line_of_the_storage_loses_nothing(
    path: Path, act: str, size: int, seed: int
) -> None:
    @contextmanager
    def opened() -> Iterator[JobRepository]:
        with closing(SQLiteJobRepository(path)) as repository:
            with repository._db.quiet():  # the call opens a connection, too
                pass
            yield repository

    assert forked_at_lines(opened, act, size, seed) == stored(path)


@pytest.mark.slow  # a child once stood still for ever: it may go on with its parent's pool, and wait for a lock in that
@pytest.mark.parametrize("act", ACTS)
@sizes(30, 1)
def test_a_signal_handler_that_forks_at_any_line_of_postgres_loses_nothing(
    postgres: Database, act: str, size: int, seed: int
) -> None:
    with closing(postgres.empty()) as later:
        later.register(CONNECTION)

        def opened() -> closing[PostgresJobRepository]:
            # A child that was about to wait for its parent's pool does so for as long.
            return closing(PostgresJobRepository(postgres.url, schema=later._db.schema, timeout=2))

        added = forked_at_lines(opened, act, size, seed)
        assert added == {change.job.id for change in later.changes()}


def load_and_write(packed: bytes, storm: int, writer: int) -> None:
    with pickle.loads(packed) as loaded:  # noqa: S301  our own bytes
        assert isinstance(loaded, JobHistory)
        write(loaded.repository, storm, writer)


@sizes(3, 500)
def test_whoever_loads_a_pickled_history_writes_to_the_same_file(path: Path, size: int) -> None:
    with jobhistory.open(path) as history:
        for storm in range(size):
            packed = pickle.dumps(history)
            child = forked(partial(load_and_write, packed, storm, 0))
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(partial(load_and_write, packed, storm), (1, 2)))
            assert ended_well(child)
            write(history.repository, storm, 3)

    assert expected(size, 0, 1, 2, 3) == stored(path)
