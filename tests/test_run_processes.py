"""Workers that are killed or stopped in the midst of their work, and what is left of it."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO

import attrs
import pytest

from jobhistory import JobHistory, JobRepository, JobStatus, LostJobError, StorageError, SyncJob
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.times import utc_now
from tests.postgres import Database
from tests.workers import CONNECTION, MULTITHREADED_FORK, Time

pytestmark = MULTITHREADED_FORK

# Whoever looks an hour ahead suspects everybody.
AN_HOUR_AHEAD = timedelta(hours=1)


def ahead() -> datetime:
    return utc_now() + AN_HOUR_AHEAD


@attrs.frozen
class Worker:
    """A forked process; lines of text go to and fro."""

    pid: int
    to: IO[str]
    fro: IO[str]

    @classmethod
    def start(cls, work: Callable[[Worker], None]) -> Worker:
        """Fork; the child holds the other ends."""
        childs_in, parents_out = os.pipe()
        parents_in, childs_out = os.pipe()
        pid = os.fork()
        ends = (parents_out, parents_in) if pid else (childs_out, childs_in)
        for end in {childs_in, parents_out, parents_in, childs_out} - set(ends):
            os.close(end)
        worker = cls(pid, os.fdopen(ends[0], "w", buffering=1), os.fdopen(ends[1]))
        if pid:
            return worker
        try:
            work(worker)
        except BaseException:  # noqa: BLE001  a child must not run its parent's test
            worker.say(traceback.format_exc())
        os._exit(0)

    def say(self, line: str) -> None:
        self.to.write(f"{line}\n")

    def hear(self) -> str:
        return self.fro.readline().removesuffix("\n")

    def kill(self) -> list[str]:
        """Kill it with -9; what it said last."""
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self) -> list[str]:
        os.waitpid(self.pid, 0)
        with self.to, self.fro:
            return self.fro.read().splitlines()

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


Place = Callable[..., JobRepository]
"""Opens the one repository of a test anew, with a timeout where one is given."""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        SQLiteJobRepository(tmp_path / "history.db").close()
        yield partial(SQLiteJobRepository, tmp_path / "history.db", durability="relaxed")
        return
    postgres: Database = request.getfixturevalue("postgres")
    with contextlib.closing(postgres.empty()) as first:
        yield partial(PostgresJobRepository, postgres.url, schema=first._db.schema)


@pytest.fixture
def patience() -> float:
    """Seconds for which the reaper waits for others' writes."""
    return 60


@pytest.fixture
def history(place: Place, patience: float) -> Iterator[JobHistory]:
    """Of a reaper whose clock goes an hour ahead, and who need not wait."""
    time = Time()
    repository = place(timeout=patience)
    with JobHistory(repository, clock=ahead, monotonic=time.monotonic, sleep=time.sleep) as history:
        history.register(CONNECTION)
        yield history


def opened(place: Place) -> JobHistory:
    return JobHistory(place())


def check_evidence(job: SyncJob, pid: int) -> None:
    """That the job tells of a worker that vanished, and nothing else."""
    details = job.error_details or {}
    assert JobStatus.FAILED is job.status
    assert job.completed_at is None
    assert job.duration_seconds is None
    assert f"its worker vanished: {job.worker} was silent" in (job.error or "")
    assert (job.worker, platform.node(), pid) == (details["worker"], details["host"], details["pid"])
    assert {"last_heartbeat_at", "counts_moved_at", "found_at", "reaped_by"} <= details.keys()
    assert (300.0, 30.0) == (details["silent_for"], details["confirmed_for"])


def test_the_job_of_a_worker_that_was_killed_is_failed_with_the_evidence(place: Place, history: JobHistory) -> None:
    def work(parent: Worker) -> None:
        with opened(place).track(CONNECTION, flush_interval=0.01) as run:
            while True:
                run.report(inserted=1)
                run.flush()
                parent.say(str(run.job.id))

    worker = Worker.start(work)
    job_id = worker.hear()
    worker.kill()
    alive = history.get(job_id)
    assert JobStatus.RUNNING is alive.status
    (job,) = history.reap()
    check_evidence(job, worker.pid)
    assert job == history.get(job_id)
    assert alive.entities_inserted == job.entities_inserted >= 1
    details = job.error_details or {}
    assert details["process_exists"] is False
    assert alive.to_dict(bookkeeping=True)["heartbeat_at"] == details["last_heartbeat_at"]
    assert details["counts_moved_at"] is not None


# ---- Killed


def sync_for_ever(place: Place, parent: Worker) -> None:
    """Job after job, of which every third fails; each is told of when it has begun, and when it has ended."""
    history = opened(place)
    for number in count(1):
        run = history.track(CONNECTION, flush_interval=0.01, heartbeat_interval=0.02)
        with contextlib.suppress(ZeroDivisionError), run:
            parent.say(f"BEGUN {run.job.id}")
            for _ in range(5):
                run.report(inserted=1)
                run.flush()
                parent.say("STEP")
            if not number % 3:
                raise ZeroDivisionError
        parent.say(f"{run.job.status} {run.job.id}")


class Fleet:
    """Four workers, and the last that was heard of each job."""

    def __init__(self, place: Place) -> None:
        self._work = lambda parent: sync_for_ever(place, parent)
        self._workers = [Worker.start(self._work) for _ in range(4)]
        self._heard: dict[str, str] = {}

    def kill_one(self, rng: random.Random) -> None:
        """Somewhere in the midst of a job, or between two; another takes its place."""
        worker = self._workers.pop(rng.randrange(4))
        for _ in range(rng.randrange(1, 30)):
            self._note(worker.hear())
        self._kill(worker)
        self._workers.append(Worker.start(self._work))

    def kill_all(self) -> None:
        while self._workers:
            self._kill(self._workers.pop())

    def holds(self, job: SyncJob) -> bool:
        return any(f":{worker.pid}:" in (job.worker or "") for worker in self._workers)

    def wait_for_signs_of_life(self, history: JobHistory) -> None:
        """Until every job of one that lives has moved: so much shorter than `confirm_for` may be here."""
        jobs = [job for job in history.active_jobs(limit=1000) if self.holds(job)]
        while jobs:
            history.wait_for_changes(history.changes()[-1].token, timeout=0.01)
            jobs = [job for job in jobs if job == history.get(job.id)]

    def check(self, job: SyncJob, *, reaped: bool) -> str:
        """That the job's outcome is what its worker knows; and which one it is."""
        heard = self._heard.pop(str(job.id), None)
        if reaped:
            assert heard in ("BEGUN", None), "what its worker saw ended was not reaped"
            if job.worker is None:
                assert "no worker took it" in (job.error or "")
                return "never taken"
            check_evidence(job, int(job.worker.split(":")[1]))
            assert job.entities_inserted <= 5
            return "vanished"
        assert job.completed_at is not None
        assert (JobStatus.COMPLETED if job.error is None else JobStatus.FAILED) is job.status
        assert job.error in (None, "ZeroDivisionError")
        assert 5 == job.entities_inserted
        assert heard in (job.status, "BEGUN"), "killed behind the last write, at worst"
        return str(job.status)

    def check_all_were_checked(self) -> None:
        assert {} == self._heard

    def _kill(self, worker: Worker) -> None:
        for line in worker.kill():
            self._note(line)

    def _note(self, line: str) -> None:
        word, _, job_id = line.partition(" ")
        assert word in ("BEGUN", "STEP", "COMPLETED", "FAILED"), line
        if job_id:
            self._heard[job_id] = word


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_across_four_workers_leave_no_job_active_and_no_wrong_outcome(
    place: Place, history: JobHistory, kills: int
) -> None:
    rng = random.Random(kills)  # noqa: S311  no secret
    fleet = Fleet(place)
    skip = history.sleep

    def sleep(duration: float) -> None:
        fleet.wait_for_signs_of_life(history)
        skip(duration)

    history.sleep = sleep
    reaped: set[SyncJob] = set()
    for kill in range(kills):
        fleet.kill_one(rng)
        if kill % 4 == 3:
            found = history.reap()
            assert [] == [job for job in found if fleet.holds(job)], "no live one is reaped"
            reaped |= set(found)
    fleet.kill_all()
    reaped |= set(history.reap(pending_for=300))

    assert [] == history.active_jobs()
    outcomes = Counter(fleet.check(job, reaped=job in reaped) for job in history.iter_jobs(CONNECTION))
    fleet.check_all_were_checked()
    assert outcomes["vanished"] + outcomes["never taken"] == len(reaped) <= kills + 4
    print(f"{kills} kills: {outcomes.total()} jobs, {dict(outcomes)}")  # noqa: T201  the figures


# ---- Stopped


def sync_until_lost(place: Place, parent: Worker) -> None:
    """A job each time it is told to, until that is lost."""
    history = opened(place)
    pause = threading.Event()
    while parent.hear():
        run = history.track(CONNECTION, flush_interval=0.02, heartbeat_interval=0.05)
        with contextlib.suppress(LostJobError), run:
            parent.say(str(run.job.id))
            while True:
                run.report(inserted=1)
                pause.wait(0.001)
        lost = run._claim.lost
        parent.say(f"LOST {lost.job_id} {lost.job == history.get(lost.job_id)}" if lost else "KEPT")


@pytest.mark.parametrize("patience", [1])
@pytest.mark.parametrize(("processes", "rounds"), [(2, 3), pytest.param(40, 25, marks=pytest.mark.slow)])
def test_stopped_workers_that_were_reaped_and_go_on_learn_it_and_write_nothing(
    place: Place, history: JobHistory, processes: int, rounds: int
) -> None:
    workers = [Worker.start(lambda parent: sync_until_lost(place, parent)) for _ in range(processes)]
    reaped: dict[str, SyncJob] = {}
    for _ in range(rounds):
        for worker in workers:
            worker.say("go")
        job_ids = [worker.hear() for worker in workers]
        # Again where one was stopped while it held a lock: then nobody can write.
        while history.active_jobs():
            for worker in workers:
                worker.stop()
            with contextlib.suppress(StorageError):
                history.reap()
            reaped |= {id: history.get(id) for id in job_ids}
            for worker in workers:
                worker.resume()
        assert [f"LOST {id} True" for id in job_ids] == [worker.hear() for worker in workers]
    for worker in workers:
        worker.say("")
        assert [] == worker.end()

    stored = {str(job.id): job for job in history.iter_jobs(CONNECTION)}
    assert processes * rounds == len(stored)
    assert reaped == stored, "nothing was written any more"
    for job in stored.values():
        check_evidence(job, int((job.worker or "").split(":")[1]))
        assert (job.error_details or {})["process_exists"] is True
    print(f"{len(stored)} runs stopped, reaped and resumed: each learnt it")  # noqa: T201  the figures
