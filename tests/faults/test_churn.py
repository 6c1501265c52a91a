"""A long history is paged through while others insert, delete and finish jobs in it, with clocks an hour apart.

What stood all the while is met once, in order; and who follows the feed learns all that was committed.
"""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from itertools import count, cycle, islice
from pathlib import Path
from uuid import UUID

import attrs
import pytest

import jobhistory
from jobhistory import ConflictError, Cursor, JobHistory, JobNotFoundError, JobStatus, Position, SyncJob
from jobhistory.storage import sqlite
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, at, job
from tests.faults.campaign import sizes

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CHURNERS = 3
HOUR = 3600.0
Make = Callable[..., SQLiteJobRepository]


def id_of(number: int) -> UUID:
    """Nothing to do with the job's time."""
    return UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128))


def made(number: int, status: JobStatus, seconds: float) -> SyncJob:
    times = {JobStatus.PENDING: (), JobStatus.COMPLETED: ("started_at", "completed_at")}[status]
    return job(
        0,
        id=id_of(number),
        status=status,
        created_at=at(seconds),
        **dict.fromkeys(times, at(seconds)),
    )


def old(number: int, size: int) -> SyncJob:
    """The jobs that were there before, two a second, and a tenth of them at the same moment."""
    middle = size // 2
    same = middle <= number < middle + size // 10
    return made(number, JobStatus.COMPLETED if number % 100 else JobStatus.PENDING, (middle if same else number) / 2)


def stays(number: int) -> bool:
    """Of a hundred old jobs one waits, nine may be deleted, and the others stand."""
    return number % 10 > 0


@pytest.fixture
def path(folder: Path, size: int) -> Path:
    path = folder / "history.db"
    with closing(SQLiteJobRepository(path, durability="relaxed")) as repository:
        repository.register(CONNECTION)
        numbers = iter(range(size))
        while several := list(islice(numbers, 10_000)):
            repository.add_many(old(number, size) for number in several)
    return path


# ---- Those who churn


def churn(repository: SQLiteJobRepository, churner: int, size: int, chance: random.Random) -> None:
    """Insert all over the history, delete old jobs and end waiting ones, for ever; its clock is an hour off, or not."""
    off = (churner - 1) * HOUR
    mine = range(churner * 10, size, CHURNERS * 10)
    for number in count(size + churner, CHURNERS):
        new = made(number, JobStatus.PENDING, chance.uniform(0, size / 2) + off)
        repository.add(new)
        repository.replace(running := new.start(at=new.created_at))
        repository.add_many(made((k << 40) + number, JobStatus.COMPLETED, size / 4) for k in range(1, 6))
        repository.replace(running.complete(at=new.created_at + timedelta(seconds=1)))
        for each in chance.sample(mine, min(5, len(mine))):
            with suppress(JobNotFoundError, ConflictError):
                repository.delete_many([id_of(each)])
                repository.replace(repository.get(id_of(each)).cancel(at=at(size + off)))


@contextmanager
def churning(path: Path, size: int, seed: int, make: Make) -> Iterator[None]:
    """Others are at work, in processes of their own, until the end of the block, when they are killed."""
    pids = [pid for churner in range(CHURNERS) if (pid := _churner(path, churner, size, seed + churner, make))]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert [-signal.SIGKILL] * CHURNERS == codes


def _churner(path: Path, churner: int, size: int, seed: int, make: Make) -> int:
    if pid := os.fork():
        return pid
    try:
        churn(make(path, durability="relaxed"), churner, size, random.Random(seed))
    except BaseException:  # noqa: BLE001  a child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(1)


# ---- Those who read meanwhile

Pages = Callable[[JobHistory, int], Iterator[SyncJob]]


def one_by_one(history: JobHistory, _: int) -> Iterator[SyncJob]:
    return history.iter_jobs(CONNECTION)


def with_cursors(history: JobHistory, size: int) -> Iterator[SyncJob]:
    """The finished ones, in pages of changing size, behind cursors that were written down."""
    statuses = {JobStatus.COMPLETED, JobStatus.FAILED}
    limits = cycle((min(1000, size // 10), 1 + size // 100 % 997))
    before = None
    while page := history.list_jobs(CONNECTION, limit=next(limits), before=before, statuses=statuses):
        yield from page
        before = Cursor.parse(str(Cursor.after(page[-1], statuses)))


def by_counting(history: JobHistory, size: int) -> Iterator[SyncJob]:
    """As many do it, and lose: with an offset."""
    assert isinstance(history.repository, SQLiteJobRepository)
    page = size // 20
    order = f"ORDER BY created_at DESC, id DESC LIMIT {page} OFFSET ?"
    for offset in range(0, 2 * size, page):
        rows = history.repository._db.read(f"SELECT NULL, {sqlite._ROW} FROM jobs AS j {order}", (offset,))  # noqa: S608
        yield from sqlite._jobs(rows, {None: CONNECTION})


class Mute(SQLiteJobRepository):
    """Does not announce that a job was finished."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        super().replace(job, quiet=quiet or job.is_terminal)


@attrs.define
class Found:
    """What reading under churn met twice or out of order, did not meet, and was not told of by the feed."""

    met: int = 0
    written: int = 0
    repeated: int = 0
    skipped: int = 0
    missed: int = 0


class Follower:
    """Follows the feed, and remembers the latest version of each job that it was told of."""

    def __init__(self, history: JobHistory) -> None:
        self.versions: dict[UUID, int] = {}
        self.token: str | None = None
        self._history = history

    def follow(self) -> int:
        """Take in the next page of changes, and say how many they were."""
        changes = self._history.changes(self.token)
        for change in changes:
            self.token = change.token
            self.versions[change.job.id] = change.job.version
        return len(changes)

    def catch_up(self) -> None:
        while self.follow():
            pass


def read_under_churn(path: Path, size: int, seed: int, *ways: Pages, make: Make = SQLiteJobRepository) -> Found:
    """Read the whole history in each of these ways, and again until enough was changed meanwhile."""
    found = Found()
    with jobhistory.open(path) as history:
        follower = Follower(history)
        follower.catch_up()
        with churning(path, size, seed, make):
            assert history.wait_for_changes(follower.token, timeout=60)
            changed = 0
            for turn in count():
                if turn >= len(ways) and changed > size // 100:
                    break
                met: set[UUID] = set()
                last = None
                for number, each in enumerate(ways[turn % len(ways)](history, size)):
                    found.repeated += last is not None and Position.of(each) >= last
                    last = Position.of(each)
                    met.add(each.id)
                    if number % 1000 == 0:
                        changed += follower.follow()
                found.met += len(met)
                found.skipped += sum(stays(number) and id_of(number) not in met for number in range(size))
        follower.catch_up()
        for each in history.iter_jobs(CONNECTION):
            found.missed += follower.versions.get(each.id) != each.version
            found.written += each.version > 1
    print(found)
    return found


@sizes(4_000, 1_000_000)
def test_pages_and_feed_lose_nothing_under_churn(path: Path, size: int, seed: int) -> None:
    found = read_under_churn(path, size, seed, one_by_one, with_cursors)

    assert found.written > 0
    assert (0, 0, 0) == (found.repeated, found.skipped, found.missed)


@pytest.mark.parametrize("size", [4_000])
def test_pages_by_offset_are_caught(path: Path, size: int, seed: int) -> None:
    found = read_under_churn(path, size, seed, by_counting)

    assert found.repeated + found.skipped > 0


@pytest.mark.parametrize("size", [4_000])
def test_a_feed_that_is_not_told_of_everything_is_caught(path: Path, size: int, seed: int) -> None:
    assert read_under_churn(path, size, seed, one_by_one, with_cursors, make=Mute).missed > 0
