"""That no case of the benchmarks is far over its target, and that the peers do what is measured."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import jobhistory
from benchmarks.bounds import ratio_within
from benchmarks.cases import Case
from benchmarks.data import jobs
from benchmarks.peers.__main__ import ROUNDS
from benchmarks.peers.child import CLASSES, Turns
from benchmarks.peers.environments import PINS
from benchmarks.peers.library import Library, LibraryQueue
from benchmarks.peers.peer import TITLES, Durability
from benchmarks.peers.process import PeerProcess
from benchmarks.peers.queue_child import QUEUES, QueueTurns
from benchmarks.peers.queues import NAMES, OPERATIONS, check_landed
from benchmarks.peers.sqlite_utils import SQLiteUtils
from jobhistory import SyncJob
from tests.postgres import Database

ROOT = Path(__file__).parent.parent


def test_every_case_at_ten_thousand_jobs_keeps_to_three_times_its_target() -> None:
    # Measuring coverage would slow down the library alone.
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    measured = subprocess.run(
        [sys.executable, "-m", "benchmarks.bounds"],
        cwd=ROOT,
        env=unmeasured,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == measured.returncode, measured.stdout + measured.stderr
    assert "list 100" in measured.stdout


@pytest.mark.slow
def test_a_history_is_pruned_beside_its_workers_and_the_right_jobs_are_gone(tmp_path: Path) -> None:
    measured = subprocess.run(
        [sys.executable, "-m", "benchmarks.pruning", "--jobs", "10000", "--quiet", "0.1", "--folder", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == measured.returncode, measured.stdout + measured.stderr
    assert "gone that should stay: 0; left that should go: 0" in measured.stdout


@pytest.mark.parametrize(("times", "keeps"), [(1, True), (10, False)])
def test_ten_times_the_work_is_noticed_and_the_same_work_is_not(times: int, keeps: bool) -> None:  # noqa: FBT001
    case = Case("", 1, lambda: sum(range(2_000 * times)), lambda: sum(range(2_000)))

    assert keeps == (ratio_within(case, 3) <= 3)


HISTORY = [job.to_dict(bookkeeping=True) for job in jobs(100, 3)]


@pytest.mark.parametrize("peer", [Library, SQLiteUtils])
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_peer_does_all_that_is_measured_as_durably_as_asked(
    peer: type[Library | SQLiteUtils], durability: Durability, tmp_path: Path
) -> None:
    one = peer(tmp_path, durability)
    turns = Turns(one, HISTORY)

    for operation in {operation for each in ROUNDS for operation in each.operations}:
        assert turns.take(operation, 2) > 0
    assert ("wal", {"full": 2, "relaxed": 1}[durability]) == (one.pragma("journal_mode"), one.pragma("synchronous"))


def test_a_peer_that_gives_other_jobs_is_not_measured(tmp_path: Path) -> None:
    class Backwards(Library):
        def newest(self, connection: str, limit: int) -> list[SyncJob]:
            return super().newest(connection, limit)[::-1]

    with pytest.raises(AssertionError, match="Backwards gives other jobs"):
        Turns(Backwards(tmp_path, "full"), HISTORY)


def test_a_peer_in_a_process_answers_in_turn_and_one_that_ended_is_an_error(tmp_path: Path) -> None:
    lines = tmp_path / "jobs.ndjson"
    lines.write_text("".join(f"{json.dumps(job)}\n" for job in HISTORY))

    with PeerProcess("library", tmp_path, tmp_path, "relaxed") as peer:
        assert {"journal_mode": "wal", "synchronous": 1} == peer.ask(jobs=str(lines))
        assert peer.ask(operation="newest 10", calls=3)["seconds"] > 0
        with pytest.raises(ChildProcessError, match="the peer library ended"):
            peer.ask(operation="nothing like it", calls=1)


@pytest.fixture
def empty_database(postgres: Database) -> Iterator[str]:
    name = f"queue_{uuid4().hex}"
    postgres.connection.execute(f"CREATE DATABASE {name}".encode())
    yield postgres.url.replace(postgres.name, name)
    postgres.connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_queue_does_all_that_is_measured_and_others_see_it(empty_database: str, tmp_path: Path) -> None:
    with PeerProcess("library", tmp_path, empty_database, child="benchmarks.peers.queue_child") as peer:
        assert "on" == peer.ask(jobs=20, names=NAMES)["synchronous_commit"]
        for operation in OPERATIONS:
            assert peer.ask(operation=operation, calls=2)["seconds"] > 0
        account = peer.ask(account=True)

    # One call more than asked for is not timed; 50 jobs wait all the time.
    assert {"waiting": 50 + 3 + 3_000, "running": 3, "finished": 20 + 3} == account
    check_landed("library", empty_database, account)


class Forgetful(LibraryQueue):
    async def finish(self, job: SyncJob) -> None:
        pass


class Mistaken(LibraryQueue):
    async def get(self, id: UUID) -> SyncJob:
        return await super().get(max(self._waiting[NAMES[0]], key=lambda other: other != id))


def test_a_queue_that_does_nothing_or_gives_other_jobs_is_noticed(empty_database: str) -> None:
    with closing(jobhistory.open(empty_database)) as history, asyncio.Runner() as runner:
        forgetful = QueueTurns(Forgetful(history), NAMES)
        runner.run(forgetful.prepare(20))
        runner.run(forgetful.take("finish", 2))

        with pytest.raises(AssertionError, match=r"'finished': 23}, and has {.*'running': 3, 'finished': 20}"):
            check_landed("library", empty_database, dict(forgetful.account))
        with pytest.raises(AssertionError, match="Mistaken gives other jobs"):
            runner.run(QueueTurns(Mistaken(history), NAMES).prepare(0))


def test_every_peer_is_named_and_pinned_where_it_has_an_environment_of_its_own() -> None:
    assert set(CLASSES) | set(QUEUES) == set(TITLES)
    assert set(PINS) < set(TITLES)
    assert [] == [pin for pins in PINS.values() for pin in pins if "==" not in pin]
