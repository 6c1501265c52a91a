"""A primary that dies, and a standby that takes over or is gone: real servers, with writers at work."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from uuid import UUID

import attrs
import psycopg
import pytest

from jobhistory import JobStatus, StorageError, SyncJob, UnknownOutcomeError
from jobhistory.storage import postgres as backend
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.testing.rules.base import CONNECTION, at, job, jobs
from tests.postgres import Server, private_folder

PATIENCE = 120
"""Seconds after which a test is given up."""


@attrs.define
class Pair:
    """A primary, and a standby that confirms each commit."""

    primary: Server
    standby: Server

    @property
    def url(self) -> str:
        """Both, whichever may be written to."""
        hosts = [
            server.url().removeprefix("postgresql://postgres@").split("/")[0] for server in (self.primary, self.standby)
        ]
        return f"postgresql://postgres@{','.join(hosts)}/postgres?target_session_attrs=read-write"


@pytest.fixture(scope="module")
def new_cluster() -> Iterator[Path]:
    """A cluster that never ran, to be copied: faster than to make one."""
    with private_folder() as home:
        server = Server(home / "new", {})
        server.make()
        yield home


@contextmanager
def pair_of(new_cluster: Path) -> Iterator[Pair]:
    with private_folder() as home, ExitStack() as stopped:
        shutil.copytree(new_cluster, home, dirs_exist_ok=True, symlinks=True)
        _give(new_cluster, home)
        confirmed = {"synchronous_standby_names": "*", "synchronous_commit": "remote_apply"}
        primary, standby = Server(home / "new", confirmed), Server(home / "standby", {})
        for server in (primary, standby):
            stopped.callback(server.stop)
        primary.start()
        standby.make_standby_of(primary)
        standby.start()
        yield Pair(primary, standby)


def _give(pattern: Path, copied: Path) -> None:
    """Give the copies the owners of what they were copied from."""
    for each in pattern.rglob("*"):
        owner = each.lstat()
        shutil.chown(copied / each.relative_to(pattern), owner.st_uid, owner.st_gid)


@pytest.fixture(scope="module")
def pair(new_cluster: Path) -> Iterator[Pair]:
    """A pair that both stay in."""
    with pair_of(new_cluster) as pair:
        yield pair


@pytest.fixture
def repository(pair: Pair) -> Iterator[PostgresJobRepository]:
    """An empty one on the pair's primary."""
    pair.primary.execute("DROP SCHEMA IF EXISTS jobhistory CASCADE")
    with closing(PostgresJobRepository(pair.primary.url(), read_url=pair.standby.url())) as repository:
        repository.register(CONNECTION)
        yield repository


# ---- The primary dies


@attrs.define
class Writer:
    """Adds jobs and takes each through its life, and knows what was acknowledged."""

    number: int
    acknowledged: dict[UUID, SyncJob] = attrs.field(factory=dict)
    unknown: int = 0
    longest: float = 0.0
    writes: int = 0

    def work(self, repository: PostgresJobRepository, stop: threading.Event) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            pending = job(self.number * 10**6 + number)
            running = pending.start(at=at(10**8), worker=f"here:{self.number}:a")
            reported = running.report(at=at(10**8 + 1), inserted=number)
            done = reported.complete(at=at(10**8 + 2))
            self._acknowledge(pending, repository.add)
            for each in (running, reported, done):
                self._acknowledge(each, repository.replace)

    def _acknowledge(self, version: SyncJob, write: Callable[[SyncJob], None]) -> None:
        begun = time.monotonic()
        while True:
            try:
                write(version)
            except UnknownOutcomeError:
                self.unknown += 1  # replaying is safe
            else:
                break
        self.longest = max(self.longest, time.monotonic() - begun)
        self.acknowledged[version.id] = version
        self.writes += 1


def fail_over(pair: Pair, size: int, each_writes: int) -> list[Writer]:
    """Let writers work, kill the primary, promote the standby, let them work on: what they say of it."""
    writers = [Writer(number) for number in range(size)]
    stop = threading.Event()
    with ExitStack() as closed, ThreadPoolExecutor(size) as threads:
        repositories = [closed.enter_context(closing(PostgresJobRepository(pair.url))) for _ in writers]
        repositories[0].register(CONNECTION)
        working = [threads.submit(w.work, r, stop) for w, r in zip(writers, repositories, strict=True)]
        try:
            _until(lambda: all(w.writes >= each_writes or f.done() for w, f in zip(writers, working, strict=True)))
            pair.primary.kill()
            pair.standby.promote()
            before = [w.writes for w in writers]
            _until(
                lambda: all(
                    w.writes >= b + each_writes or f.done() for w, b, f in zip(writers, before, working, strict=True)
                )
            )
        finally:
            stop.set()
        for each in working:
            each.result()
    return writers


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    turn = threading.Event()
    while not reached():
        assert time.monotonic() < deadline
        turn.wait(0.005)


def check(pair: Pair, writers: list[Writer]) -> None:
    """Nothing acknowledged is lost, and nothing was done twice: each job is at the version that was written last."""
    acknowledged = {id: version for writer in writers for id, version in writer.acknowledged.items()}
    with closing(PostgresJobRepository(pair.url)) as later:
        stored = {id: later.get(id) for id in acknowledged}
        counted = later._db.read("SELECT count(*) FROM SCHEMA.jobs")
    assert acknowledged == stored
    assert [(len(acknowledged),)] == counted
    assert {JobStatus.COMPLETED} == {each.status for each in stored.values()}


def test_nothing_acknowledged_is_lost_or_done_twice_when_the_primary_dies(new_cluster: Path) -> None:
    with pair_of(new_cluster) as doomed:
        check(doomed, fail_over(doomed, size=4, each_writes=20))


@pytest.mark.slow
def test_twenty_primaries_die_under_eight_writers_each_and_nothing_is_lost_or_done_twice(
    new_cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for turn in range(20):
        with pair_of(new_cluster) as pair:
            writers = fail_over(pair, size=8, each_writes=100)
            check(pair, writers)
        with capsys.disabled():
            writes, unknown = sum(w.writes for w in writers), sum(w.unknown for w in writers)
            longest = max(w.longest for w in writers)
            print(f"\n{turn}: {writes} writes, 0 lost, 0 doubled, {unknown} unknown, longest call {longest:.2f} s")  # noqa: T201


# ---- The standby is gone


def test_what_no_standby_confirmed_is_an_unknown_outcome_until_one_does(
    pair: Pair, repository: PostgresJobRepository
) -> None:
    repository.add(job(1))
    with closing(PostgresJobRepository(pair.url, timeout=1)) as hasty:
        pair.standby.kill()
        running = job(1).start(at=at(5))
        writes: list[Callable[[PostgresJobRepository], None]] = [
            lambda it: it.add(job(2)),
            lambda it: it.replace(running),
            lambda it: it.add_many(jobs(3, 4)),
        ]
        for write in writes:
            # The first time it is there, but on this server only; the second time it is found, and still only here.
            for _ in range(2):
                with pytest.raises(UnknownOutcomeError, match="committed on the primary, but no standby confirmed it"):
                    write(hasty)
        assert [running, *jobs(2, 3, 4)] == hasty.list_jobs(CONNECTION)[::-1]

        with ThreadPoolExecutor(1) as thread:
            replayed = thread.submit(writes[0], repository)
            pair.standby.start()
            replayed.result()
        for write in writes[1:]:
            write(hasty)


# ---- Reading from a standby


def test_a_standby_answers_readers_and_refuses_writers(pair: Pair, repository: PostgresJobRepository) -> None:
    with closing(PostgresJobRepository(pair.standby.url(), timeout=0.5)) as standby:
        repository.add_many(jobs(1, 2))
        assert jobs(2, 1) == repository.list_jobs(CONNECTION) == standby.list_jobs(CONNECTION)
        assert jobs(1, 2) == [change.job for change in standby.changes()]
        assert repository.changes() == standby.changes()
        with pytest.raises(StorageError, match=r"25006.*connect to the primary"):
            standby.add(job(3))


def test_a_standby_does_not_tell_what_something_may_still_come_before(
    pair: Pair, repository: PostgresJobRepository
) -> None:
    with (
        closing(psycopg.connect(pair.primary.url())) as late,
        closing(PostgresJobRepository(pair.standby.url())) as standby,
    ):
        repository.add(job(1))
        late.execute(backend._ADD.replace("SCHEMA.", "jobhistory.").encode(), backend._values(job(2)))
        repository.add(job(3))
        assert [job(1)] == [change.job for change in standby.changes()]
        late.commit()
        assert jobs(1, 2, 3) == [change.job for change in standby.changes()]
