"""How a Run ends: what is recorded, and what becomes of a last write that fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn

import pytest
import trio

from jobhistory import (
    JobCancelled,
    JobHistory,
    JobRepository,
    JobStatus,
    StorageError,
    SyncJob,
    UnknownOutcomeError,
)
from jobhistory.run import FINISH_WITHIN, Run
from tests.workers import CONNECTION, START, SteppedRun, Time, Troubled, counts, stepped

# ---- Endings


def raised(run: Run, error: BaseException) -> NoReturn:
    run.report(inserted=1, failed=2)
    # One that was raised before, for another backend, brings a traceback with it.
    raise error.with_traceback(None)


def ended_by(history: JobHistory, error: BaseException, time: Time | None = None) -> SyncJob:
    """The job of a Run out of which the error came, unchanged."""
    run = stepped(history)

    def sync() -> None:
        with run:
            if time:
                time.seconds = 7
            raised(run, error)

    with pytest.raises(type(error)) as caught:
        sync()
    assert error is caught.value
    assert ["ended_by", "sync", "raised"] == [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert caught.value.__context__ is None
    stored = history.get(run.job.id)
    assert (1, 0, 0, 2) == counts(stored), "what was not written yet is kept"
    return stored


def trio_cancelled() -> BaseException:
    """trio's own: it lets nobody else make one."""

    async def main() -> BaseException:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                return cancelled.with_traceback(None)
        raise AssertionError

    return trio.run(main)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(), "SystemExit"),
        (SystemExit(0), "SystemExit: 0"),
        (asyncio.CancelledError(), "CancelledError"),
        (asyncio.CancelledError("deadline"), "CancelledError: deadline"),
        (trio_cancelled(), "Cancelled: "),
        (BaseExceptionGroup("two", [KeyboardInterrupt(), asyncio.CancelledError()]), "KeyboardInterrupt"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_means_stop_ends_in_cancelled_with_the_reason_and_goes_on(
    history: JobHistory, time: Time, error: BaseException, reason: str
) -> None:
    stored = ended_by(history, error, time)
    assert JobStatus.CANCELLED is stored.status
    assert reason == (stored.error or "")[: len(reason)]
    assert stored.error_details is None
    assert START + timedelta(seconds=7) == stored.completed_at == stored.cancel_requested_at
    assert 7 == stored.duration_seconds


@pytest.mark.parametrize(
    ("error", "said", "kind"),
    [
        (ValueError("no such field"), "ValueError: no such field", "builtins.ValueError"),
        (ValueError(), "ValueError", "builtins.ValueError"),
        (KeyError("x"), "KeyError: 'x'", "builtins.KeyError"),
        (SystemExit(1), "SystemExit: 1", "builtins.SystemExit"),
        (SystemExit("bad"), "SystemExit: bad", "builtins.SystemExit"),
        (GeneratorExit(), "GeneratorExit", "builtins.GeneratorExit"),
        (MemoryError(), "MemoryError", "builtins.MemoryError"),
        (trio.TooSlowError("late"), "TooSlowError: late", "trio.TooSlowError"),
        (
            BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError("one")]),
            "BaseExceptionGroup: two (2 sub-exceptions)",
            "builtins.BaseExceptionGroup",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_any_other_exception_ends_in_failed_with_what_it_says_and_goes_on(
    history: JobHistory, time: Time, error: BaseException, said: str, kind: str
) -> None:
    stored = ended_by(history, error, time)
    details = stored.error_details or {}
    assert JobStatus.FAILED is stored.status
    assert said == stored.error
    assert ["type", "message", "traceback"] == list(details)
    assert kind == details["type"]
    assert said == f"{type(error).__name__}: {details['message']}".removesuffix(": ")
    assert "in raised\n" in details["traceback"]
    assert START + timedelta(seconds=7) == stored.completed_at
    assert 7 == stored.duration_seconds


def test_the_traceback_has_causes_notes_and_groups(memory: JobHistory) -> None:
    error = ExceptionGroup("a batch", [ValueError("row 3"), OSError("row 5")])
    error.__cause__ = LookupError("the first cause")
    error.add_note("while loading invoices")
    details = ended_by(memory, error).error_details or {}
    for part in ("the first cause", "a batch", "row 3", "row 5", "while loading invoices"):
        assert part in details["traceback"]


def deep_group() -> BaseException:
    error: Exception = ValueError("the innermost")
    for _ in range(5_000):
        error = ExceptionGroup("deeper", [error])
    return error


class MuteError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class SurrogateError(Exception):
    def __str__(self) -> str:
        return "\ud800\0"


def test_an_error_that_cannot_be_shown_is_reported_all_the_same(memory: JobHistory) -> None:
    stored = ended_by(memory, MuteError())
    assert JobStatus.FAILED is stored.status
    assert "MuteError: (cannot be shown)" == stored.error
    assert "in raised" in (stored.error_details or {})["traceback"]


def test_a_group_too_deep_to_be_shown_is_reported_all_the_same(memory: JobHistory) -> None:
    stored = ended_by(memory, deep_group())
    assert JobStatus.FAILED is stored.status
    assert "ExceptionGroup: deeper (1 sub-exception)" == stored.error


def test_a_text_that_cannot_be_stored_is_reported_all_the_same(memory: JobHistory) -> None:
    assert r"SurrogateError: \ud800\x00" == ended_by(memory, SurrogateError()).error


def test_a_huge_message_is_cut(memory: JobHistory) -> None:
    stored = ended_by(memory, ValueError("x" * 10_000_000))
    details = stored.error_details or {}
    for text in (stored.error or "", details["message"], details["traceback"]):
        assert 16 * 1024 == len(text)
        assert "bytes in all]" == text[-13:]
    assert "in raised" in details["traceback"]


def test_a_long_traceback_keeps_its_innermost_frames(memory: JobHistory) -> None:
    def dig(depth: int) -> NoReturn:
        if depth:
            dig(depth - 1)
        raise ValueError(depth)

    run = stepped(memory)
    with contextlib.suppress(ValueError), run:
        dig(200)
    trace = (run.job.error_details or {})["traceback"]
    assert "in dig" in trace
    assert 40 >= trace.count("\n  File ")


def test_secrets_are_taken_out_of_everything_that_is_stored(memory: JobHistory) -> None:
    error = ValueError("cannot log in with password=Xy12secret99")
    error.add_note("tried postgresql://me:Xy12secret99@db/x")
    stored = ended_by(memory, error)
    assert "ValueError: cannot log in with password=[redacted]" == stored.error
    assert "Xy12secret99" not in str(stored.to_dict(bookkeeping=True))


@pytest.mark.parametrize("before", [*range(7_000, 9_000, 100), 64 * 1024 - 700])
def test_no_secret_is_cut_in_two_before_it_is_known(memory: JobHistory, before: int) -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 2] * 20)
    stored = ended_by(memory, ValueError("." * before + key + "\n-----END PRIVATE KEY-----" + "." * 3_000))
    assert "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" not in str(stored.to_dict(bookkeeping=True))


def test_a_redactor_that_fails_costs_the_text_and_not_the_record(
    repository: JobRepository, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    def redact(text: str) -> str:
        raise ZeroDivisionError(text)

    stored = ended_by(time.history(repository, redact=redact), ValueError("secret"))
    assert JobStatus.FAILED is stored.status
    assert "[not stored: the redactor failed]" == stored.error
    assert "secret" not in str(stored.error_details)
    assert "the redactor failed" in caplog.text


def test_an_exception_group_of_cancels_stays_inside(history: JobHistory) -> None:
    with stepped(history) as run:
        own = JobCancelled(run.job.id, "both tasks saw it")
        raise BaseExceptionGroup("tasks", [BaseExceptionGroup("inner", [own]), JobCancelled(run.job.id)])
    assert JobStatus.CANCELLED is run.job.status
    assert "both tasks saw it" == run.job.error


def test_a_cancelled_task_beside_a_cancel_goes_on(history: JobHistory) -> None:
    run = stepped(history)
    with pytest.raises(BaseExceptionGroup), run:
        raise BaseExceptionGroup("tasks", [asyncio.CancelledError(), JobCancelled(run.job.id, "stop")])
    assert JobStatus.CANCELLED is run.job.status
    assert "stop" == run.job.error


def test_a_module_that_only_looks_like_a_library_of_tasks_is_no_harm(
    memory: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    assert JobStatus.FAILED is ended_by(memory, ValueError()).status


def test_an_end_in_peace_has_the_time_it_took_by_the_monotonic_clock(history: JobHistory, time: Time) -> None:
    with stepped(history) as run:
        time.seconds = 332.5
        time.offset = -3600
    stored = history.get(run.job.id)
    assert JobStatus.COMPLETED is stored.status
    assert 332.5 == stored.duration_seconds
    assert stored.started_at == stored.completed_at, "time does not run backwards inside a job"


# ---- The last write


def test_the_last_write_is_tried_again_with_growing_pauses(repository: JobRepository, time: Time) -> None:
    troubled = Troubled(repository)
    with stepped(time.history(troubled)) as run:
        run.report(inserted=3)
        troubled.words["replace"].extend(["down"] * 8)
    assert [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] == [round(pause, 3) for pause in time.slept]
    assert JobStatus.COMPLETED is run.job.status
    assert (3, 0, 0, 0) == counts(repository.get(run.job.id))


def test_the_last_write_is_given_up_after_a_minute_with_the_counts_in_the_message(
    repository: JobRepository, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    troubled = Troubled(repository)
    run = stepped(time.history(troubled))

    def sync() -> None:
        with run:
            run.report(inserted=3, failed=1)
            troubled.words["replace"].extend(["down"] * 1000)

    with pytest.raises(StorageError) as caught:
        sync()
    assert StorageError is type(caught.value)
    assert "there" == caught.value.where
    assert f"job {run.job.id} with inserted=3 updated=0 deleted=0 failed=1" in str(caught.value)
    assert isinstance(caught.value.__cause__, StorageError)
    assert FINISH_WITHIN - 5 < sum(time.slept) <= FINISH_WITHIN
    assert len(time.slept) == len(caplog.records)
    assert JobStatus.RUNNING is repository.get(run.job.id).status


def test_a_cancel_is_given_up_after_the_same_minute_though_it_is_two_writes(
    repository: JobRepository, time: Time
) -> None:
    troubled = Troubled(repository)
    run = stepped(time.history(troubled))

    def sync() -> None:
        with run:
            troubled.words["replace"].extend(["down"] * 12 + ["fine"] + ["down"] * 1000)
            raise JobCancelled(run.job.id)

    with pytest.raises(StorageError):
        sync()
    assert FINISH_WITHIN - 5 < sum(time.slept) <= FINISH_WITHIN
    assert JobStatus.CANCELLING is repository.get(run.job.id).status


def test_an_outcome_that_stays_unknown_is_said_to_be(repository: JobRepository, time: Time) -> None:
    troubled = Troubled(repository)
    run = stepped(time.history(troubled))

    def sync() -> None:
        with run:
            troubled.words["replace"].extend(["lost"] * 1000)

    with pytest.raises(UnknownOutcomeError, match="the write may have landed"):
        sync()


def test_a_backends_own_kind_of_storage_error_is_given_up_on_too(memory: JobHistory) -> None:
    class TheirError(StorageError):
        def __init__(self) -> None:
            super().__init__("their server", "said no")

    run = stepped(memory)

    def fail(*_: object, **__: object) -> NoReturn:
        raise TheirError

    def sync() -> None:
        with run:
            memory.replace = fail  # type: ignore[method-assign]

    with pytest.raises(StorageError, match="their server: said no; gave up after") as caught:
        sync()
    assert isinstance(caught.value.__cause__, TheirError)


def test_the_workers_own_error_comes_out_and_that_of_the_last_write_is_logged(
    repository: JobRepository, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    troubled = Troubled(repository)
    run = stepped(time.history(troubled))
    error = ValueError("mine")

    def sync() -> None:
        with run:
            run.report(inserted=4)
            troubled.words["replace"].extend(["down"] * 1000)
            raise error

    with pytest.raises(ValueError, match="mine") as caught:
        sync()
    assert error is caught.value
    last = caplog.records[-1]
    assert logging.ERROR == last.levelno
    assert f"job {run.job.id}: its end could not be recorded" == last.getMessage()
    assert last.exc_info
    assert "inserted=4" in str(last.exc_info[1])


# ---- Ctrl-C while leaving


def interrupted_leaving(troubled: Troubled, time: Time, story: str, *words: str) -> SteppedRun:
    """The Run whose last writes met with these words, and out of which Ctrl-C came."""
    run = stepped(time.history(troubled))

    def sync() -> None:
        with run:
            run.report(inserted=5)
            troubled.words["replace"].extend(words)
            if story == "fails":
                raise ZeroDivisionError
            if story == "stops":
                raise JobCancelled(run.job.id)

    with pytest.raises(KeyboardInterrupt):
        sync()
    return run


@pytest.mark.parametrize(
    ("story", "words"),
    [(story, words) for story in ("completes", "fails", "stops") for words in ("Ctrl-C", "late Ctrl-C", "down,Ctrl-C")]
    + [("stops", "fine,Ctrl-C"), ("stops", "fine,late Ctrl-C")],
)
def test_a_ctrl_c_while_leaving_goes_on_once_the_end_is_recorded(
    repository: JobRepository, time: Time, story: str, words: str
) -> None:
    troubled = Troubled(repository)
    run = interrupted_leaving(troubled, time, story, *words.split(","))
    stored = repository.get(run.job.id)
    assert STORIES[story] is stored.status
    assert (5, 0, 0, 0) == counts(stored)
    assert stored == run.job == troubled.landed[-1]


def test_a_ctrl_c_while_the_writer_is_waited_for_goes_on_once_the_end_is_recorded(memory: JobHistory) -> None:
    class Writer:
        ident = 1
        joins = iter([KeyboardInterrupt])

        def join(self) -> None:
            for error in self.joins:
                raise error

    run = stepped(memory)

    def sync() -> None:
        with run:
            run.report(inserted=5)
            run._writer = Writer()  # type: ignore[assignment]

    with pytest.raises(KeyboardInterrupt):
        sync()
    assert JobStatus.COMPLETED is memory.get(run.job.id).status
    assert (5, 0, 0, 0) == counts(run.job)


def test_a_storage_that_is_down_does_not_hold_up_a_ctrl_c(
    repository: JobRepository, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    run = interrupted_leaving(Troubled(repository), time, "completes", "Ctrl-C", "down", "down")
    assert [] == time.slept
    assert [f"job {run.job.id}: its end could not be recorded"] == [record.getMessage() for record in caplog.records]
    assert JobStatus.RUNNING is repository.get(run.job.id).status


def test_a_second_ctrl_c_goes_on_at_once(repository: JobRepository, time: Time) -> None:
    run = interrupted_leaving(Troubled(repository), time, "completes", "Ctrl-C", "Ctrl-C")
    assert JobStatus.RUNNING is repository.get(run.job.id).status


# ---- Every write may have an unknown outcome

PATTERNS = [
    ("landed",),
    ("lost",),
    ("landed", "landed"),
    ("lost", "lost"),
    ("lost", "landed"),
    ("landed", "lost", "lost"),
    ("down",),
    ("landed", "down", "landed", "down"),
    ("lost", "down", "landed", "landed", "landed"),
]
STORIES = {
    "completes": JobStatus.COMPLETED,
    "fails": JobStatus.FAILED,
    "stops": JobStatus.CANCELLED,
    "is cancelled": JobStatus.CANCELLED,
}


def live(history: JobHistory, run: SteppedRun, time: Time, story: str) -> None:
    """One of the stories, however often entering must be tried."""
    for _ in range(10):
        with contextlib.suppress(ZeroDivisionError, StorageError), run:
            run.report(inserted=1)
            time.seconds += 5
            run.tick()
            run.report(inserted=1)
            time.seconds += 5
            if story == "fails":
                raise ZeroDivisionError
            if story == "stops":
                raise JobCancelled(run.job.id)
            if story == "is cancelled":
                JobHistory(history.repository._repository, clock=time.clock).cancel(run.job.id)  # type: ignore[attr-defined]
                while not run.cancelled:
                    time.seconds += 5
                    run.tick()
                run.raise_if_cancelled()
        if run._claim.stored is not None:
            return


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("pattern", PATTERNS, ids="-".join)
def test_an_unknown_outcome_at_any_write_leaves_one_right_story(
    repository: JobRepository, time: Time, story: str, pattern: tuple[str, ...]
) -> None:
    for write in range(4):
        troubled = Troubled(repository, replace=["fine"] * write + list(pattern))
        # A clock that moves with each look: a replay that took the time again would not be the same record.
        history = JobHistory(troubled, clock=ticking(time), monotonic=time.monotonic, sleep=time.sleep)
        run = stepped(history)
        live(history, run, time, story)

        stored = repository.get(run.job.id)
        mine = [job for job in troubled.landed if job.id == stored.id]
        assert stored == run.job == mine[-1]
        assert STORIES[story] is stored.status
        assert (2, 0, 0, 0) == counts(stored)
        assert 1 == sum(job.is_terminal for job in mine)
        assert {run.worker} == {job.worker for job in mine if job.worker}
        versions = [job.version for job in mine]
        assert sorted(set(versions)) == versions, "none was written twice"


def ticking(time: Time) -> Callable[[], Any]:
    def clock() -> Any:  # noqa: ANN401  a datetime
        time.offset += 0.001
        return time.clock()

    return clock


@pytest.mark.parametrize("pattern", PATTERNS, ids="-".join)
def test_an_unknown_outcome_of_track_leaves_one_job(
    repository: JobRepository, time: Time, pattern: tuple[str, ...]
) -> None:
    troubled = Troubled(repository, add=pattern)
    run = JobHistory(troubled, clock=ticking(time)).track(CONNECTION, exclusive=True)
    for _ in range(10):
        with contextlib.suppress(StorageError), run:
            pass
        if run._claim.stored is not None:
            break
    assert [run.job] == repository.list_jobs(CONNECTION)
    assert JobStatus.COMPLETED is run.job.status


def test_a_claim_whose_outcome_is_unknown_is_recognised_when_it_is_tried_again(
    repository: JobRepository, time: Time
) -> None:
    history = time.history(Troubled(repository, replace=["landed", "down"]))
    run = stepped(history)
    with pytest.raises(StorageError), run:
        raise AssertionError
    with pytest.raises(RuntimeError, match="the job is claimed by `with`"):
        run.report(inserted=1)
    claimed = run._job_id()
    assert run.worker == repository.get(claimed).worker
    with run:
        run.report(inserted=1)
    assert JobStatus.COMPLETED is repository.get(claimed).status
    assert (1, 0, 0, 0) == counts(run.job)


def test_a_claim_is_recognised_though_the_job_was_asked_to_stop_since(repository: JobRepository, time: Time) -> None:
    history = time.history(Troubled(repository, replace=["landed", "down"]))
    run = stepped(history)
    with pytest.raises(StorageError), run:
        raise AssertionError
    history.cancel(run._job_id())
    with run:
        assert run.cancelled
        run.report(inserted=1)
        raise AssertionError
    assert JobStatus.CANCELLED is run.job.status
