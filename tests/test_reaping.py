"""Ending the jobs of vanished workers: the two looks, what is kept of it, and the thread that does it."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import count
from operator import itemgetter
from typing import Any, NoReturn
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import (
    InvalidJobError,
    JobCancelled,
    JobHistory,
    JobRepository,
    JobStatus,
    StorageError,
    SyncJob,
    reaping,
)
from jobhistory.reaping import Reaping, end, look, reap
from jobhistory.repository import MAX_LIMIT
from jobhistory.storage.memory import InMemoryJobRepository
from tests.workers import CONNECTION, MULTITHREADED_FORK, START, Event, Time, Troubled, forked, stepped


def started(history: JobHistory, worker: str | None = "elsewhere:17:tag") -> SyncJob:
    return history.start(history.enqueue(CONNECTION).id, worker=worker)


# ---- The two looks


def test_a_job_whose_worker_vanished_is_failed_and_nobody_says_when_it_ended(history: JobHistory, time: Time) -> None:
    job = started(history)
    time.seconds = 301
    reaped = history.reap()
    stored = history.get(job.id)
    assert [stored] == reaped
    assert JobStatus.FAILED is stored.status
    assert stored.completed_at is None
    assert stored.duration_seconds is None
    assert "its worker vanished: elsewhere:17:tag was silent for 331 s" == stored.error
    assert job.version + 1 == stored.version


def test_a_job_that_was_asked_to_stop_when_its_worker_vanished_is_cancelled(history: JobHistory, time: Time) -> None:
    job = started(history)
    history.cancel(job.id)
    time.seconds = 301
    (reaped,) = history.reap()
    assert JobStatus.CANCELLED is reaped.status
    assert reaped.completed_at is None
    assert "its worker vanished" in (reaped.error or "")
    assert reaped == history.get(job.id)


def test_the_counts_of_a_vanished_worker_stay(history: JobHistory, time: Time) -> None:
    job = started(history)
    history.report(job.id, inserted=5, failed=1)
    time.seconds = 301
    (reaped,) = history.reap()
    assert (5, 1) == (reaped.entities_inserted, reaped.entities_failed)


@pytest.mark.parametrize(("silent", "reaped"), [(299, 0), (300, 0), (300.000001, 1), (86400, 1)])
def test_a_worker_is_looked_at_after_silent_for(history: JobHistory, time: Time, silent: float, reaped: int) -> None:
    started(history)
    time.seconds = silent
    assert reaped == len(history.reap())
    assert [30.0] * reaped == time.slept


def test_where_nobody_is_silent_nobody_waits(history: JobHistory, time: Time) -> None:
    started(history)
    history.enqueue(CONNECTION)
    assert [] == history.reap()
    assert [] == time.slept


def test_a_job_that_waits_is_reaped_only_if_that_is_asked_for(history: JobHistory, time: Time) -> None:
    job = history.enqueue(CONNECTION)
    time.seconds = 3601
    assert [] == history.reap()
    assert [] == history.reap(pending_for=3601)
    (reaped,) = history.reap(pending_for=timedelta(hours=1))
    assert job.id == reaped.id
    assert JobStatus.FAILED is reaped.status
    assert "no worker took it within 3631 s" == reaped.error
    assert {"worker": None, "silent_for": 3600.0, "confirmed_for": 30.0}.items() <= (reaped.error_details or {}).items()


def test_a_job_that_moves_between_the_looks_lives(repository: JobRepository, time: Time) -> None:
    history = time.history(repository)
    moves: dict[str, Callable[[SyncJob], object]] = {
        "beats": lambda job: history.beat(job.id),
        "reports": lambda job: history.report(job.id, inserted=1),
        "is asked to stop": lambda job: history.cancel(job.id),
        "completes": lambda job: history.complete(job.id),
        "fails": lambda job: history.fail(job.id, error="own"),
        "is deleted": lambda job: (history.complete(job.id), repository.delete_many([job.id])),
    }
    jobs = {move: started(history) for move in (*moves, "stands still")}
    time.seconds = 301

    def sleep(duration: float) -> None:
        time.sleep(duration)
        for move, act in moves.items():
            act(jobs[move])

    history.sleep = sleep
    assert [jobs["stands still"].id] == [job.id for job in history.reap()]
    assert ["FAILED", "COMPLETED", "CANCELLING", "RUNNING", "RUNNING"] == [
        job.status
        for move, job in ((move, history.get(jobs[move].id)) for move in reversed(moves) if move != "is deleted")
    ]


def test_a_waiting_job_that_is_taken_between_the_looks_lives(history: JobHistory, time: Time) -> None:
    job = history.enqueue(CONNECTION)
    time.seconds = 3601

    def sleep(duration: float) -> None:
        time.sleep(duration)
        history.start(job.id)

    history.sleep = sleep
    assert [] == history.reap(pending_for=3600)
    assert JobStatus.RUNNING is history.get(job.id).status


def test_confirm_for_is_waited_out_by_the_monotonic_clock_however_short_the_sleep(
    repository: JobRepository, time: Time
) -> None:
    history = time.history(repository)
    started(history)
    time.seconds = 301
    naps: list[float] = []

    def nap(duration: float) -> bool:
        naps.append(duration)
        time.seconds += 8
        time.offset += 3600
        return True  # what a sleep gives says nothing

    history.sleep = nap
    assert 1 == len(history.reap())
    assert [30.0, 22.0, 14.0, 6.0] == naps


def test_reaping_that_is_given_up_ends_nothing(history: JobHistory, time: Time) -> None:
    job = started(history)
    time.seconds = 301
    assert [] == reap(history, Reaping(), lambda _: True)
    assert job == history.get(job.id)


@pytest.mark.parametrize("page", [10, pytest.param(MAX_LIMIT, marks=pytest.mark.slow)])
@pytest.mark.parametrize("more", [0, 1])
def test_more_suspects_than_a_page_holds_are_read_page_by_page(
    repository: JobRepository, time: Time, monkeypatch: pytest.MonkeyPatch, page: int, more: int
) -> None:
    monkeypatch.setattr(reaping, "MAX_LIMIT", page)
    history = time.history(repository)
    ids = [UUID(int=i) for i in range(1, page + more + 1)]
    history.add_many(
        SyncJob(id=id, source_connection_id=CONNECTION, created_at=START, status=JobStatus.RUNNING, started_at=START)
        for id in ids
    )
    time.seconds = 301
    assert ids == sorted(job.id for job in look(history, Reaping()))
    assert len(ids) == len(history.reap())
    assert [] == history.active_jobs()


def test_what_is_reaped_is_announced(repository: JobRepository, time: Time) -> None:
    told: list[SyncJob] = []
    history = time.history(repository, hooks=[told.append])
    started(history)
    token = history.changes()[-1].token
    told.clear()
    time.seconds = 301
    reaped = history.reap()
    assert reaped == told == [change.job for change in history.changes(token)]


def test_a_storage_that_fails_says_so_and_the_next_reaping_goes_on(repository: JobRepository, time: Time) -> None:
    troubled = Troubled(repository)
    history = time.history(troubled)
    for _ in range(3):
        started(history)
    time.seconds = 301
    troubled.words["replace"].extend(["fine", "down"])
    with pytest.raises(StorageError):
        history.reap()
    assert 2 == len(history.reap())


@pytest.mark.parametrize("pattern", [("landed",), ("lost",), ("landed", "landed", "fine"), ("lost", "lost", "fine")])
def test_an_unknown_outcome_reaps_a_job_once(repository: JobRepository, time: Time, pattern: tuple[str, ...]) -> None:
    troubled = Troubled(repository)
    history = time.history(troubled)
    job = started(history)
    time.seconds = 301
    troubled.words["replace"].extend(pattern)
    try:
        history.reap()
    except StorageError:
        history.reap()
    assert JobStatus.FAILED is history.get(job.id).status
    assert job.version + 1 == history.get(job.id).version


# ---- Wrong clocks

HOUR = 3600.0
STEPS = st.lists(
    st.tuples(st.floats(0, 3000), st.one_of(st.sampled_from([-HOUR, 0.0, HOUR]), st.floats(-2 * HOUR, 2 * HOUR))),
    max_size=6,
)
"""At which second a machine's clock is set wrong by how much."""


@attrs.frozen(kw_only=True)
class Case:
    """What happens at which second; the worker vanishes at one."""

    worker_steps: list[tuple[float, float]]
    reaper_steps: list[tuple[float, float]]
    reports: list[float]
    looks: list[float]
    vanishes: float
    heartbeat_interval: float
    flush_interval: float
    cancelled: bool


CASES = st.builds(
    Case,
    worker_steps=STEPS,
    reaper_steps=STEPS,
    reports=st.lists(st.floats(0, 3000), max_size=6),
    looks=st.lists(st.floats(0, 6000), min_size=1, max_size=8),
    vanishes=st.floats(100, 3000),
    heartbeat_interval=st.floats(1, 29),
    flush_interval=st.floats(1, 100),
    cancelled=st.booleans(),
)


@given(CASES)
def test_no_clock_ends_a_live_job_and_every_vanished_one_is_ended_once_it_is_silent(case: Case) -> None:
    time, reapers_time = Time(), Time()
    repository = InMemoryJobRepository()
    history, reaping = time.history(repository), reapers_time.history(repository)
    rule = Reaping(silent_for=300, confirm_for=30)
    run = stepped(history, heartbeat_interval=case.heartbeat_interval, flush_interval=case.flush_interval)
    run.__enter__()
    if case.cancelled:
        history.cancel(run.job.id)

    def stored() -> SyncJob:
        return repository.get(run.job.id)

    def report() -> None:
        with contextlib.suppress(JobCancelled):
            run.report(inserted=1)

    suspects: dict[float, list[SyncJob]] = {}

    def first_look(at: float) -> None:
        reapers_time.seconds = time.seconds
        silent = reaping.clock() - stored().last_sign_at > timedelta(seconds=300)
        suspects[at] = look(reaping, rule)
        assert (silent and stored().is_active) == bool(suspects[at])

    def second_look(at: float) -> None:
        before = stored()
        ended = end(reaping, rule, suspects[at])
        if at + 30 < case.vanishes:
            assert [] == ended, "it lives"
        elif at > case.vanishes:
            assert (before.is_active and bool(suspects[at])) == bool(ended), "it vanished"

    events: list[Event] = [
        *((at, partial(setattr, time, "offset", offset)) for at, offset in case.worker_steps),
        *((at, partial(setattr, reapers_time, "offset", offset)) for at, offset in case.reaper_steps),
        *((at, report) for at in case.reports),
        *((at, partial(first_look, at)) for at in case.looks),
        *((at + 30, partial(second_look, at)) for at in case.looks),
    ]
    run.live(time, case.vanishes, *(event for event in events if event[0] < case.vanishes))
    later = sorted((event for event in events if event[0] >= case.vanishes), key=itemgetter(0))
    for time.seconds, act in later:
        act()

    time.seconds, reapers_time.offset = 20_000, 0
    first_look(time.seconds)
    second_look(time.seconds)
    assert (JobStatus.CANCELLED if case.cancelled else JobStatus.FAILED) is stored().status
    assert stored().completed_at is None
    assert run.job.version + 1 == stored().version, "it was ended once"


# ---- What is kept of it


def evidence_of(history: JobHistory, time: Time, worker: str | None) -> dict[str, Any]:
    started(history, worker)
    time.seconds = 301
    (reaped,) = history.reap()
    return reaped.error_details or {}


def test_the_evidence_says_who_it_was_and_when_it_was_last_heard_of(history: JobHistory, time: Time) -> None:
    job = started(history, "db-7.example:4242:5f3a9c01")
    time.seconds = 10
    history.report(job.id, inserted=1)
    time.seconds = 25.5
    history.beat(job.id)
    time.seconds = 1000
    (reaped,) = history.reap(silent_for=timedelta(minutes=5), confirm_for=40)
    details = reaped.error_details or {}
    me = f"{platform.node()}:{os.getpid()}:"
    assert me == details.pop("reaped_by")[: len(me)]
    assert [
        ("found_at", "2024-03-15T12:17:20Z"),
        ("worker", "db-7.example:4242:5f3a9c01"),
        ("host", "db-7.example"),
        ("pid", 4242),
        ("process_exists", None),
        ("last_heartbeat_at", "2024-03-15T12:00:25.500000Z"),
        ("counts_moved_at", "2024-03-15T12:00:10Z"),
        ("silent_for", 300.0),
        ("confirmed_for", 40.0),
    ] == list(details.items())


def test_a_worker_that_never_was_heard_of_leaves_none_of_it(history: JobHistory, time: Time) -> None:
    details = evidence_of(history, time, "elsewhere:17:tag")
    assert (None, None) == (details["last_heartbeat_at"], details["counts_moved_at"])


def test_on_its_own_host_the_evidence_says_whether_the_process_is_there(history: JobHistory, time: Time) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    mine = evidence_of(history, time, f"{platform.node()}:{os.getpid()}:tag")
    time.seconds = 0
    gone = evidence_of(history, time, f"{platform.node()}:{child.pid}:tag")
    assert [(os.getpid(), True), (child.pid, False)] == [(d["pid"], d["process_exists"]) for d in (mine, gone)]


def test_a_process_of_another_user_is_there(history: JobHistory, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: int) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert evidence_of(history, time, f"{platform.node()}:1:tag")["process_exists"]


@pytest.mark.parametrize(
    ("worker", "host", "pid"),
    [
        ("a:b:c:17:tag", "a:b:c", 17),
        (":17:tag", "", 17),
        ("two\nlines:17:tag", "two\nlines", 17),
        ("host:17:", "host", 17),
        ("host:9999999999:tag", "host", 9999999999),
        ("host:99999999999:tag", None, None),
        (f"host:{'9' * 5000}:tag", None, None),
        ("host:0:tag", None, None),
        ("host:-1:tag", None, None),
        ("host:1.5:tag", None, None),
        ("host:\u0661:tag", None, None),
        ("host:17", None, None),
        ("a worker", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_the_worker_may_have_any_name(
    history: JobHistory, time: Time, worker: str | None, host: str | None, pid: int | None
) -> None:
    history.add_many(
        [
            SyncJob(
                id=UUID(int=7),
                source_connection_id=CONNECTION,
                created_at=START,
                status=JobStatus.RUNNING,
                started_at=START,
                worker=worker,
            )
        ]
    )
    time.seconds = 301
    (reaped,) = history.reap()
    details = reaped.error_details or {}
    assert (worker, host, pid) == (details["worker"], details["host"], details["pid"])
    assert details["process_exists"] is None
    assert f"its worker vanished: {(worker or 'a worker without a name')[:100]}" in (reaped.error or "")


def test_no_process_has_a_number_that_is_too_great(history: JobHistory, time: Time) -> None:
    assert not evidence_of(history, time, f"{platform.node()}:9999999999:tag")["process_exists"]


# ---- Durations


@pytest.mark.parametrize("option", ["silent_for", "confirm_for", "pending_for"])
@pytest.mark.parametrize("value", [-1, float("nan"), "300", True])
def test_what_is_no_duration_is_refused(history: JobHistory, option: Any, value: Any) -> None:  # noqa: ANN401
    for use in (history.reap, history.reaper):
        with pytest.raises(InvalidJobError, match=f"{option}.* must be seconds"):
            use(**{option: value})
    with pytest.raises(InvalidJobError, match="every must be seconds"):
        history.reaper(every=value)


@pytest.mark.parametrize("silly", [1e15, 1e300, timedelta.max])
def test_nobody_is_silent_for_longer_than_there_is_time(history: JobHistory, time: Time, silly: Any) -> None:  # noqa: ANN401
    started(history)
    time.seconds = 1e9
    assert [] == history.reap(silent_for=silly, pending_for=silly)


@pytest.mark.parametrize("silly", [1e15, 1e300, timedelta.max])
def test_a_wait_longer_than_a_thread_can_wait_is_waited_bit_by_bit(
    history: JobHistory,
    time: Time,
    silly: Any,  # noqa: ANN401
) -> None:
    started(history)
    time.seconds = 301
    waits: list[float] = []

    def wait(duration: float) -> bool:
        waits.append(duration)
        return len(waits) == 3

    assert [] == reap(history, Reaping(confirm_for=silly), wait)
    assert [threading.TIMEOUT_MAX] * 3 == waits


@pytest.mark.parametrize(("confirm_for", "warned"), [(0, True), (15, True), (15.001, False), (30, False)])
def test_a_confirm_for_in_which_a_worker_need_not_beat_is_said(
    history: JobHistory, confirm_for: float, caplog: pytest.LogCaptureFixture, *, warned: bool
) -> None:
    history.reap(confirm_for=confirm_for)
    said = f"confirm_for of {confirm_for:g} s is no longer than a Run's heartbeat_interval of 15 s"
    assert warned == (said in caplog.text)


# ---- Many at once


def test_of_many_reapers_one_ends_each_job(repository: JobRepository, time: Time) -> None:
    history = time.history(repository)
    jobs = {started(history).id for _ in range(50)}
    time.seconds = 301
    barrier = threading.Barrier(4)
    reaped: list[list[UUID]] = []

    def work() -> None:
        mine = time.history(repository)
        mine.sleep = lambda _: barrier.wait(60)  # all have looked
        mine.monotonic = count(0, 29).__next__
        reaped.append([job.id for job in mine.reap()])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4 == len(reaped)
    assert sorted(jobs) == sorted(id for ids in reaped for id in ids)
    assert {3} == {history.get(id).version for id in jobs}


# ---- The thread


class Watched(Troubled):
    """Tells when somebody looks."""

    def __init__(self, repository: JobRepository, **words: list[str]) -> None:
        super().__init__(repository, **words)
        self.looks = threading.Semaphore(0)

    def active_jobs(self, **options: Any) -> list[SyncJob]:  # noqa: ANN401  the port's
        self.looks.release()
        found: list[SyncJob] = self.__getattr__("active_jobs")(**options)
        return found


def long_ago(repository: JobRepository, id: int = 7) -> SyncJob:
    repository.register(CONNECTION)
    job = SyncJob(
        id=UUID(int=id),
        source_connection_id=CONNECTION,
        created_at=START,
        status=JobStatus.RUNNING,
        started_at=START,
    )
    repository.add(job)
    return job


def test_a_reaper_reaps_in_a_thread_again_and_again(repository: JobRepository) -> None:
    ended = threading.Semaphore(0)
    history = JobHistory(repository, hooks=[lambda _: ended.release()])
    with history.reaper(every=0.001, confirm_for=0.001):
        for id in (7, 8):
            job = long_ago(repository, id)
            assert ended.acquire(timeout=60)
            assert JobStatus.FAILED is history.get(job.id).status
    assert "jobhistory reaper" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("options", [{"confirm_for": 3600}, {"confirm_for": timedelta.max}, {"every": timedelta.max}])
def test_a_reaper_stops_in_the_midst_of_its_wait(repository: JobRepository, options: dict[str, Any]) -> None:
    watched = Watched(repository)
    if "confirm_for" in options:
        long_ago(repository)

    def work() -> None:
        with JobHistory(watched).reaper(**options):
            assert watched.looks.acquire(timeout=60)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [] == [job for job in watched.landed if job.is_terminal]


def test_a_reaper_logs_what_goes_wrong_and_goes_on(repository: JobRepository, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    watched = Watched(repository, active_jobs=["down", "down"])
    history = JobHistory(watched, hooks=[lambda _: ended.set()])
    long_ago(repository)
    with history.reaper(every=0.001, confirm_for=0.001):
        assert ended.wait(60)
    failures = [record for record in caplog.records if record.getMessage() == "reaping failed; it is tried again"]
    assert 2 == len(failures)
    assert all(record.levelno == logging.ERROR and record.exc_info for record in failures)


def test_a_bug_in_a_backend_does_not_end_the_reaper(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()

    class Buggy(InMemoryJobRepository):
        def active_jobs(self, **options: Any) -> list[SyncJob]:  # noqa: ANN401  the port's
            if "ZeroDivisionError" not in caplog.text:
                raise ZeroDivisionError
            return super().active_jobs(**options)

    repository = Buggy()
    long_ago(repository)
    with JobHistory(repository, hooks=[lambda _: ended.set()]).reaper(every=0.001, confirm_for=0.001):
        assert ended.wait(60)


@MULTITHREADED_FORK
def test_whatever_a_hook_raises_the_reaper_goes_on(repository: JobRepository) -> None:
    told = threading.Semaphore(0)

    def hook(job: SyncJob) -> None:
        told.release()
        raise SystemExit(str(job.id))

    with JobHistory(repository, hooks=[hook]).reaper(every=0.001, confirm_for=0.001):
        for id in (7, 8):
            long_ago(repository, id)
            assert told.acquire(timeout=10)


def test_a_forked_child_leaves_its_parents_reaper_alone(repository: JobRepository) -> None:
    watched = Watched(repository)
    with JobHistory(watched).reaper(every=0.001) as reaper:
        # Held at the fork, as if the thread were just about to wait.
        with reaper._left._cond:  # type: ignore[attr-defined]
            assert "None" == forked(lambda: reaper.__exit__(None, None, None))
        assert watched.looks.acquire(timeout=60)
        assert watched.looks.acquire(timeout=60)
