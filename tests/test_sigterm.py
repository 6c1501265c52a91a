"""SIGTERM as a request to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobhistory import (
    JobHistory,
    JobNotFoundError,
    JobStatus,
)
from jobhistory.sigterm import Tell, sigterm
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from tests.workers import CONNECTION, MULTITHREADED_FORK, START, Time, counts, forked, stepped


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_sigterm_is_a_request_to_stop(history: JobHistory, outer: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stepped(history, handle_sigterm=True) as run:
        run.report(inserted=1)
        terminate()
        assert run.cancelled
        run.report(inserted=1)
        raise AssertionError
    stored = history.get(run.job.id)
    assert JobStatus.CANCELLED is stored.status
    assert "SIGTERM" == stored.error
    assert (2, 0, 0, 0) == counts(stored)
    assert run.cancelled, "what comes next can see it"
    assert [] == outer
    assert before is signal.getsignal(signal.SIGTERM)


def test_sigterm_is_written_down_while_the_worker_does_not_look(history: JobHistory, time: Time) -> None:
    with stepped(history, handle_sigterm=True) as run:
        run.live(time, 6, (2, terminate))
        stored = history.get(run.job.id)
        assert JobStatus.CANCELLING is stored.status
        assert START + timedelta(seconds=5) == stored.cancel_requested_at
        run.live(time, 30)
        assert stored.version + 1 == history.get(run.job.id).version, "asked once, and a heartbeat"
    assert JobStatus.COMPLETED is run.job.status


def test_sigterm_means_what_it_meant_before_where_no_run_handles_it(memory: JobHistory, outer: list[int]) -> None:
    with stepped(memory) as run:
        terminate()
        run.report(inserted=1)
    assert [signal.SIGTERM] == outer


def test_sigterm_reaches_every_run_there_is(memory: JobHistory, outer: list[int]) -> None:
    with stepped(memory, handle_sigterm=True) as first:
        with stepped(memory, handle_sigterm=True) as second, stepped(memory) as other:
            terminate()
            assert [True, True, False] == [first.cancelled, second.cancelled, other.cancelled]
        first.raise_if_cancelled()
        raise AssertionError
    terminate()
    assert [signal.SIGTERM] == outer


def test_runs_that_handle_sigterm_may_end_in_any_order(memory: JobHistory, outer: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    first, second = (stepped(memory, handle_sigterm=True) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    terminate()
    assert [False, True] == [first.cancelled, second.cancelled]
    second.__exit__(None, None, None)
    assert before is signal.getsignal(signal.SIGTERM)
    assert [] == outer


def test_a_handler_installed_inside_is_left_alone(memory: JobHistory, outer: list[int]) -> None:
    inner: list[int] = []
    with stepped(memory, handle_sigterm=True) as run:
        signal.signal(signal.SIGTERM, lambda number, _: inner.append(number))
        terminate()
        assert not run.cancelled
    terminate()
    assert [[signal.SIGTERM] * 2, []] == [inner, outer]


def test_a_handler_that_hands_on_to_ours_stays_and_reaches_what_was_before(
    memory: JobHistory, outer: list[int]
) -> None:
    inner: list[int] = []
    with stepped(memory, handle_sigterm=True) as run:
        ours: Any = signal.getsignal(signal.SIGTERM)

        def hand_on(number: int, frame: object) -> None:
            inner.append(number)
            ours(number, frame)

        signal.signal(signal.SIGTERM, hand_on)
        terminate()
        assert run.cancelled
    terminate()
    terminate()
    assert [[signal.SIGTERM] * 3, [signal.SIGTERM] * 2] == [inner, outer]


def test_sigterm_that_was_ignored_is_ignored_again(memory: JobHistory, outer: list[int]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with stepped(memory, handle_sigterm=True):
        pass
    terminate()
    assert signal.SIG_IGN is signal.getsignal(signal.SIGTERM)
    assert [] == outer


@pytest.mark.parametrize("ignored", [False, True])
def test_a_run_that_is_left_in_another_thread_gives_sigterm_back_when_it_comes(
    memory: JobHistory, outer: list[int], *, ignored: bool
) -> None:
    if ignored:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run = stepped(memory, handle_sigterm=True)
    run.__enter__()
    thread = threading.Thread(target=run.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert JobStatus.COMPLETED is run.job.status
    terminate()
    terminate()
    assert [signal.SIGTERM] * (0 if ignored else 2) == outer


def test_sigterm_is_handled_in_the_main_thread_only(memory: JobHistory, outer: list[int]) -> None:
    said: list[str] = []

    def work() -> None:
        try:
            with memory.track(CONNECTION, handle_sigterm=True):
                raise AssertionError
        except ValueError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ["handle_sigterm=True works in the main thread only: Python handles signals there"] == said
    assert [] == memory.connections()
    terminate()
    assert [signal.SIGTERM] == outer


def test_a_run_that_could_not_be_entered_gives_sigterm_back(memory: JobHistory, outer: list[int]) -> None:
    with pytest.raises(JobNotFoundError), memory.run(CONNECTION, handle_sigterm=True):
        raise AssertionError
    terminate()
    assert [signal.SIGTERM] == outer


def test_a_ctrl_c_while_a_run_begins_to_watch_gives_sigterm_back(
    memory: JobHistory, outer: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = sigterm.watch

    def interrupted(tell: Tell) -> None:
        watch(tell)
        raise KeyboardInterrupt

    monkeypatch.setattr(sigterm, "watch", interrupted)
    with pytest.raises(KeyboardInterrupt), memory.track(CONNECTION, handle_sigterm=True):
        raise AssertionError
    terminate()
    assert [signal.SIGTERM] == outer


@MULTITHREADED_FORK
def test_sigterm_means_in_a_forked_child_what_it_meant_before(memory: JobHistory, outer: list[int]) -> None:
    def child() -> str:
        terminate()
        own = JobHistory(InMemoryJobRepository())
        with own.track(CONNECTION, handle_sigterm=True) as theirs:
            terminate()
            theirs.raise_if_cancelled()
        terminate()
        return f"{outer} {run.cancelled} {theirs.job.status}"

    with memory.track(CONNECTION, handle_sigterm=True) as run:
        said = forked(child)
        run.report(inserted=1)
    assert "[15, 15] False CANCELLED" == said
    assert [] == outer


TERMINATED = r"""
import multiprocessing, os, signal, sys, time
from uuid import UUID
import jobhistory

def sleep_long(_):
    os.write(1, b"child\n")
    time.sleep(600)

history = jobhistory.open(sys.argv[1])
with history.track(UUID(int=1), handle_sigterm=True) as run:
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map_async(sleep_long, range(2))
    print("ready", flush=True)
    try:
        while True:
            run.report(inserted=1)
            time.sleep(0.001)
    finally:
        pool.terminate()
        pool.join()
        print("pool ended", flush=True)
print("behind", run.cancelled, run.job.status, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(600)
"""


def test_a_process_that_gets_sigterm_ends_its_job_and_its_pool_and_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "history.db")
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", TERMINATED, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = sorted(process.stdout.readline() for _ in range(3))
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        code = process.wait()
    assert ["child\n", "child\n", "ready\n"] == first
    assert "pool ended\nbehind True CANCELLED\n" == rest
    assert -signal.SIGTERM == code, "behind the `with` it means what it meant before"
    with JobHistory(SQLiteJobRepository(path)) as history:
        (job,) = history.list_jobs(CONNECTION)
    assert JobStatus.CANCELLED is job.status
    assert "SIGTERM" == job.error
    assert job.entities_inserted >= 1
