"""A primary that dies, and a standby that takes over or is gone: real servers, with writers at work."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

import attrs
import psycopg
import pytest

from jobhistory import JobStatus, StorageError, SyncJob, UnknownOutcomeError
from jobhistory.storage import postgres as backend
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.testing.rules.base import CONNECTION, at, job, jobs
from tests.postgres import USER, Server, end_tree, private_folder, programs
from tests.workers import needed

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

    def lose_primary(self) -> None:
        self.primary.kill()
        self.standby.promote()


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


def fail_over(url: str, die: Callable[[], object], size: int, each_writes: int) -> list[Writer]:
    """Let writers work, let the primary die, let them work on under its successor: what they say of it."""
    writers = [Writer(number) for number in range(size)]
    stop = threading.Event()
    with ExitStack() as closed, ThreadPoolExecutor(size) as threads:
        repositories = [closed.enter_context(closing(PostgresJobRepository(url, timeout=60))) for _ in writers]
        repositories[0].register(CONNECTION)
        working = [threads.submit(w.work, r, stop) for w, r in zip(writers, repositories, strict=True)]

        def all_wrote(more: list[int]) -> bool:
            each = zip(writers, more, working, strict=True)
            return all(writer.writes >= wanted or ended.done() for writer, wanted, ended in each)

        try:
            _until(lambda: all_wrote([each_writes] * size))
            die()
            more = [writer.writes + each_writes for writer in writers]
            _until(lambda: all_wrote(more))
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


def check(url: str, writers: list[Writer]) -> None:
    """Nothing acknowledged is lost, and nothing was done twice: each job is at the version that was written last."""
    acknowledged = {id: version for writer in writers for id, version in writer.acknowledged.items()}
    with closing(PostgresJobRepository(url)) as later:
        stored = {id: later.get(id) for id in acknowledged}
        counted = later._db.read("SELECT count(*) FROM SCHEMA.jobs")
    assert acknowledged == stored
    assert [(len(acknowledged),)] == counted
    assert {JobStatus.COMPLETED} == {each.status for each in stored.values()}


def tell(turn: int, writers: list[Writer]) -> None:
    writes, unknown = sum(writer.writes for writer in writers), sum(writer.unknown for writer in writers)
    longest = max(writer.longest for writer in writers)
    print(f"\n{turn}: {writes} writes, 0 lost, 0 doubled, {unknown} unknown, longest call {longest:.2f} s")  # noqa: T201


def test_nothing_acknowledged_is_lost_or_done_twice_when_the_primary_dies(new_cluster: Path) -> None:
    with pair_of(new_cluster) as doomed:
        check(doomed.url, fail_over(doomed.url, doomed.lose_primary, size=4, each_writes=20))


@pytest.mark.slow
def test_twenty_primaries_die_under_eight_writers_each_and_nothing_is_lost_or_done_twice(
    new_cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for turn in range(20):
        with pair_of(new_cluster) as pair:
            writers = fail_over(pair.url, pair.lose_primary, size=8, each_writes=100)
            check(pair.url, writers)
        with capsys.disabled():
            tell(turn, writers)


# ---- The standby is gone


def test_what_no_standby_confirmed_is_an_unknown_outcome_until_one_does(
    pair: Pair, repository: PostgresJobRepository
) -> None:
    repository.add(job(1))
    with closing(PostgresJobRepository(pair.url)) as hasty:
        assert [job(1)] == hasty.list_jobs(CONNECTION)
        hasty._db.timeout = 1.5
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
            write(repository)


# ---- Reading from a standby


def test_a_standby_answers_readers_and_refuses_writers(pair: Pair, repository: PostgresJobRepository) -> None:
    with closing(PostgresJobRepository(pair.standby.url())) as standby:
        repository.add_many(jobs(1, 2))
        assert jobs(2, 1) == repository.list_jobs(CONNECTION) == standby.list_jobs(CONNECTION)
        assert jobs(1, 2) == [change.job for change in standby.changes()]
        assert repository.changes() == standby.changes()
        standby._db.timeout = 0.5
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


# ---- Nobody at hand: Patroni elects the next primary


_NODE = """
scope: history
name: {name}
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
etcd3: {{hosts: "127.0.0.1:{etcd}"}}
bootstrap:
  dcs: {{ttl: 20, loop_wait: 5, retry_timeout: 5, synchronous_mode: true}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}, {{auth: trust}}]
postgresql:
  listen: "127.0.0.1:{port}"
  connect_address: "127.0.0.1:{port}"
  bin_dir: {programs}
  data_dir: {folder}/data
  pgpass: {folder}/pgpass
  pg_hba: [local all all trust, host all all 127.0.0.1/32 trust, host replication all 127.0.0.1/32 trust]
  parameters: {{unix_socket_directories: {folder}}}
  authentication: {{superuser: {{username: postgres}}, replication: {{username: replicator}}}}
"""


@attrs.define
class Node:
    """Patroni, and the server under it."""

    folder: Path
    rest: int
    port: int
    process: subprocess.Popen[bytes]

    @property
    def leads(self) -> bool:
        return self._is("primary")

    @property
    def confirms(self) -> bool:
        """Whether the others know that it confirms each commit: only then may it lead, once the leader is gone."""
        return self._is("synchronous")

    def _is(self, role: str) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/{role}", timeout=2) as answer:
            return bool(answer.status == HTTPStatus.OK)
        return False

    def kill(self) -> None:
        """End both at once, as a power loss would."""
        self.process.kill()
        self.process.wait()
        server = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        end_tree(server)


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """Three nodes, one of which leads and one of which confirms each commit."""
    etcd = needed("etcd", "apt-get install etcd-server")
    with private_folder() as home, ExitStack() as ended:
        venv.create(home / "venv", with_pip=True)
        pinned = Path(__file__).with_name("patroni.txt")
        # What CI holds fast is for another environment.
        environment = {name: value for name, value in os.environ.items() if "CONSTRAINT" not in name}
        python = home / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-r", pinned], env=environment, check=True)

        client, peer, *ports = free_ports(8)

        def run(folder: Path, *command: object) -> subprocess.Popen[bytes]:
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [str(word) for word in command],
                    cwd=folder,
                    env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                    user=USER,
                    extra_groups=None if USER is None else [],
                    stdout=log,
                    stderr=log,
                )
            ended.callback(process.wait)
            ended.callback(process.terminate)
            return process

        def room(name: str) -> Path:
            folder = home / name
            folder.mkdir(mode=0o700)
            if USER is not None:
                shutil.chown(folder, USER)
            return folder

        urls = [f"http://127.0.0.1:{port}" for port in (client, peer)]
        arguments = [
            *("--listen-client-urls", urls[0], "--advertise-client-urls", urls[0]),
            *("--listen-peer-urls", urls[1], "--initial-advertise-peer-urls", urls[1]),
            *("--initial-cluster", f"default={urls[1]}"),
        ]
        run(room("etcd"), etcd, *arguments)
        found: list[Node] = []
        for number in range(3):
            folder, rest, port = room(f"node{number}"), *ports[2 * number : 2 * number + 2]
            written = _NODE.format(
                name=folder.name, rest=rest, port=port, folder=folder, etcd=client, programs=programs(home)
            )
            (folder / "patroni.yaml").write_text(written)
            (folder / "patroni.yaml").chmod(0o644)
            process = run(folder, home / "venv" / "bin" / "patroni", folder / "patroni.yaml")
            found.append(Node(folder, rest, port, process))
        _until(lambda: any(node.leads for node in found))
        yield found


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
def test_patroni_elects_the_next_primary_and_nothing_is_lost_or_done_twice(
    nodes: list[Node], turn: int, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts, ports = ",".join("127.0.0.1" for _ in nodes), ",".join(str(node.port) for node in nodes)
    dsn = f"host={hosts} port={ports} user=postgres dbname=postgres target_session_attrs=read-write"
    [leader] = [node for node in nodes if node.leads]
    _until(lambda: any(node.confirms for node in nodes))
    writers = fail_over(dsn, leader.kill, size=8, each_writes=100)
    check(dsn, writers)
    assert not leader.leads
    with capsys.disabled():
        tell(turn, writers)
