"""Hooks in the background."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import attrs
import pytest

import jobhistory
from jobhistory import InvalidJobError, JobHistory, JobStatus, SyncJob, background
from jobhistory.hooks import Background
from jobhistory.storage.memory import InMemoryJobRepository
from tests.workers import CONNECTION, MULTITHREADED_FORK, START, forked

PATIENCE = 120


class Slow:
    """A hook that tells nothing until it is let go, and then all."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.told: list[int] = []

    def __call__(self, job: SyncJob) -> None:
        self.entered.set()
        assert self.leave.wait(PATIENCE)
        self.told.append(job.entities_inserted)


def patient(hook: Callable[[SyncJob], object], queue: int = 1000) -> Background:
    """In the background, with time enough on any machine."""
    return background(hook, queue, within=PATIENCE)


@pytest.fixture
def slow() -> Slow:
    return Slow()


def reporting(hook: Callable[[SyncJob], object], reports: int) -> JobHistory:
    """A history whose one job was enqueued, started, and reported so often: reports + 2 changes."""
    history = JobHistory(InMemoryJobRepository(), hooks=[hook])
    job = history.enqueue(CONNECTION)
    history.start(job.id)
    for number in range(reports):
        history.report(job.id, inserted=number + 1)
    return history


def test_a_slow_hook_in_the_background_is_told_all_in_order_and_holds_up_nobody(slow: Slow) -> None:
    hook = patient(slow)

    reporting(hook, 50)  # comes back, though nothing is told
    assert [] == slow.told
    slow.leave.set()

    assert hook.flush()
    assert [0, 0, *range(1, 51)] == slow.told
    assert 0 == hook.dropped


def test_a_full_queue_drops_what_comes_counts_it_and_says_so_once(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    hook = patient(slow, queue=3)
    history = JobHistory(InMemoryJobRepository(), hooks=[hook])
    job = history.enqueue(CONNECTION)
    assert slow.entered.wait(PATIENCE)  # this one waits no more
    history.start(job.id)
    for number in range(10):
        history.report(job.id, inserted=number + 1)

    assert 8 == hook.dropped
    slow.leave.set()
    assert hook.flush()

    assert [0, 0, 1, 2] == slow.told
    [said] = caplog.messages
    assert said.endswith(f"changes are dropped, now one of job {job.id}")


def test_it_says_again_that_it_drops_once_all_was_told(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    hook = patient(slow, queue=1)
    for _ in range(2):
        slow.leave.clear()
        slow.entered.clear()
        history = JobHistory(InMemoryJobRepository(), hooks=[hook])
        history.enqueue(CONNECTION)
        assert slow.entered.wait(PATIENCE)
        history.enqueue(CONNECTION)
        history.enqueue(CONNECTION)
        slow.leave.set()
        assert hook.flush()

    assert 2 == hook.dropped
    assert 2 == len(caplog.messages)


def test_closing_the_history_waits_until_all_is_told() -> None:
    told: list[int] = []
    known, never = threading.Event(), threading.Event()

    def read(job: SyncJob) -> None:
        assert known.wait(PATIENCE)
        never.wait(0.01)
        told.append(history.get(job.id).entities_inserted)  # it can be read still

    history = reporting(patient(read), 20)
    known.set()
    history.close()

    assert 22 == len(told)


def test_a_hook_that_hangs_holds_up_the_closing_for_its_time_alone(
    slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    hook = background(slow, within=timedelta(milliseconds=10))
    history = reporting(hook, 1)
    assert slow.entered.wait(PATIENCE)

    history.close()

    assert [] == slow.told
    [said] = caplog.messages
    assert said.endswith("is too slow: 3 changes are not told after 0.01 s")
    slow.leave.set()
    while not hook.flush():
        pass


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_a_hook_in_the_background_raises_is_logged_and_the_next_is_told(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[SyncJob] = []

    def failing(job: SyncJob) -> None:
        told.append(job)
        raise error

    hook = patient(failing)
    reporting(hook, 1)

    assert hook.flush()
    assert 3 == len(told)
    assert [error] * 3 == [record.exc_info[0] for record in caplog.records if record.exc_info]


def test_a_hook_is_not_told_again_of_what_an_import_finds_stored() -> None:
    told: list[SyncJob] = []
    history = JobHistory(InMemoryJobRepository(), hooks=[told.append])
    old, new = (SyncJob(id=UUID(int=number), source_connection_id=CONNECTION, created_at=START) for number in (1, 2))

    history.add_many([old])
    history.add_many([old, new])
    history.add_many([old, new])

    assert [old, new] == told


def test_what_is_forgotten_while_an_import_looks_for_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = InMemoryJobRepository()
    history = JobHistory(repository, hooks=[lambda _: None])
    done = SyncJob(id=UUID(int=1), source_connection_id=CONNECTION, created_at=START, status=JobStatus.CANCELLED)
    history.add_many([done])
    get = repository.get

    def forgotten_meanwhile(job_id: UUID) -> SyncJob:
        job = get(job_id)
        repository.forget(CONNECTION)
        return job

    with monkeypatch.context() as looking:
        looking.setattr(repository, "get", forgotten_meanwhile)
        history.add_many([done])

    assert [done] == history.list_jobs(CONNECTION)


def test_a_hook_is_named_without_what_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    threads = set()

    @attrs.frozen
    class Post:
        token: str

        def __call__(self, _: SyncJob) -> None:
            threads.add(threading.current_thread().name)
            raise ConnectionError

    post = Post("hunter2")
    hooks: list[Callable[[SyncJob], object]] = [post, post.__call__, partial(Post.__call__, post)]
    with JobHistory(InMemoryJobRepository(), hooks=[*hooks, *(patient(hook) for hook in hooks)]) as history:
        job = history.enqueue(CONNECTION)

    names = {Post.__qualname__, Post.__call__.__qualname__}
    assert {f"hook {name} failed for job {job.id}" for name in names} == set(caplog.messages)
    assert {f"jobhistory hook {name}" for name in names} == threads - {threading.main_thread().name}


def test_a_hook_in_the_background_may_write_and_flush() -> None:
    told: list[tuple[str, bool]] = []

    def finishing(job: SyncJob) -> None:
        if job.is_active:
            history.cancel(job.id)
        told.append((job.status.value, hook.flush()))  # no waiting for oneself

    hook = patient(finishing)
    history = JobHistory(InMemoryJobRepository(), hooks=[hook])
    history.enqueue(CONNECTION)

    while len(told) < 2:
        hook.flush()
    assert [("PENDING", True), ("CANCELLED", True)] == told


def test_no_thread_is_left_where_nothing_is_to_be_told() -> None:
    hook = patient(lambda _: None)

    for _ in range(3):
        reporting(hook, 1)
        assert hook.flush()

    own = [thread for thread in threading.enumerate() if repr(hook._hook) in thread.name]
    for thread in own:
        thread.join(PATIENCE)
    assert [] == [thread for thread in own if thread.is_alive()]


def test_what_cannot_be_told_for_want_of_a_thread_is_told_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[SyncJob] = []
    hook = patient(told.append)
    history = JobHistory(InMemoryJobRepository(), hooks=[hook])

    def cannot(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        first = history.enqueue(CONNECTION)
    second = history.enqueue(CONNECTION)

    assert hook.flush()
    assert [first, second] == told


@MULTITHREADED_FORK
def test_a_forked_child_tells_its_own_changes_and_not_its_parents(slow: Slow) -> None:
    hook = patient(slow)
    history = reporting(hook, 1)
    assert slow.entered.wait(PATIENCE)

    def child() -> object:
        slow.leave.set()
        job = history.enqueue(CONNECTION)
        history.start(job.id)
        history.report(job.id, inserted=7)
        return hook.flush(), slow.told

    assert "(True, [0, 0, 7])" == forked(child)
    slow.leave.set()
    assert hook.flush()
    assert [0, 0, 1] == slow.told


def test_what_waits_at_the_end_of_the_process_is_told_within_its_time() -> None:
    program = """
import atexit, sys, threading
import jobhistory

def slow(job):
    threading.Event().wait(0.05)
    print(job.status.value, flush=True)

def stuck(job):
    threading.Event().wait()

atexit.register(print, "what the hook tells is shut down")
hooks = [jobhistory.background(slow, within=120), jobhistory.background(stuck, within=0.01)]
history = jobhistory.open("memory:", hooks=hooks)
with history.track("550e8400-e29b-41d4-a716-446655440000"):
    pass
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE
    )

    assert ["PENDING", "RUNNING", "COMPLETED", "what the hook tells is shut down"] == ended.stdout.splitlines()
    assert "is too slow: 3 changes are not told after 0.01 s" in ended.stderr


def test_a_history_with_a_hook_in_the_background_can_be_pickled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with jobhistory.open(tmp_path / "history.db", hooks=[background(print, 5, within=PATIENCE)]) as history:
        copied = pickle.loads(pickle.dumps(history))  # noqa: S301  our own
    with copied:
        job = copied.enqueue(CONNECTION)

    assert f"{job}\n" == capsys.readouterr().out


@pytest.mark.parametrize("queue", [0, -1, True, 1.0, "10"])
def test_a_queue_is_an_int_of_at_least_one(queue: int) -> None:
    with pytest.raises(ValueError, match=f"queue must be an int of at least 1, not {queue!r}"):
        background(print, queue)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="within must be seconds"):
        background(print, within=-1)


def test_its_changes_keep_their_order_from_many_threads() -> None:
    told: list[SyncJob] = []
    hook = patient(told.append, queue=10_000)
    history = JobHistory(InMemoryJobRepository(), hooks=[hook])

    def work() -> None:
        for _ in range(20):
            job = history.enqueue(CONNECTION)
            history.start(job.id)
            history.complete(job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert hook.flush()
    assert [change.job.id for change in history.changes()] == [job.id for job in told if job.is_terminal]
    assert 240 == len(told)
