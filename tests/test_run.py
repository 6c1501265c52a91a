"""Run: counts, signs of life, cancels, fencing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

from jobhistory import (
    InvalidJobError,
    InvalidTransitionError,
    JobCancelled,
    JobHistory,
    JobNotFoundError,
    JobRepository,
    JobStatus,
    LostJobError,
    StorageError,
    SyncJob,
)
from jobhistory.claim import Claim
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from tests.workers import CONNECTION, MULTITHREADED_FORK, START, SteppedRun, Time, Troubled, counts, forked, stepped

# ---- Counts


def test_reports_add_up(history: JobHistory) -> None:
    with stepped(history) as run:
        run.report(inserted=1)
        run.report(inserted=2, updated=3)
        run.report(deleted=4, failed=5)
        run.report()
    assert (3, 3, 4, 5) == counts(run.job)
    assert run.job == history.get(run.job.id)


def test_reports_of_many_threads_add_up(memory: JobHistory) -> None:
    def work() -> None:
        for _ in range(2_000):
            run.report(inserted=1, failed=2)

    with stepped(memory) as run:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (8_000, 0, 0, 16_000) == counts(run.job)


def test_a_hundred_thousand_reports_are_few_writes(memory: JobHistory) -> None:
    with stepped(memory) as run:
        for number in range(100_000):
            run.report(inserted=1)
            if number % 50_000 == 0:
                run.tick()
    assert (100_000, 0, 0, 0) == counts(run.job)
    assert 5 == run.job.version


@pytest.mark.parametrize("count", [-1, True, 1.0, "1", None])
def test_what_is_no_count_is_refused_and_nothing_of_the_call_is_counted(memory: JobHistory, count: Any) -> None:  # noqa: ANN401
    with stepped(memory) as run:
        run.report(inserted=1)
        with pytest.raises(InvalidJobError, match="a count must be an int, not negative"):
            run.report(inserted=1, failed=count)
    assert (1, 0, 0, 0) == counts(run.job)


def test_counts_stay_below_the_greatest_a_job_can_hold(memory: JobHistory) -> None:
    with stepped(memory) as run:
        run.report(updated=2**63 - 1)
        with pytest.raises(InvalidJobError, match="less than 2"):
            run.report(inserted=1, updated=1)
    assert (0, 2**63 - 1, 0, 0) == counts(run.job)
    assert JobStatus.COMPLETED is run.job.status


def test_flush_writes_the_counts_now(history: JobHistory, time: Time) -> None:
    with stepped(history) as run:
        run.report(inserted=7)
        assert (0, 0, 0, 0) == counts(history.get(run.job.id))
        time.seconds = 3
        run.flush()
        assert (7, 0, 0, 0) == counts(history.get(run.job.id))
        assert START + timedelta(seconds=3) == run.job.progress_at


def test_a_flush_of_nothing_writes_nothing(history: JobHistory) -> None:
    with stepped(history) as run:
        claimed = history.get(run.job.id)
        run.flush()
        assert claimed == history.get(run.job.id)


def test_a_flush_that_fails_says_so_and_the_counts_are_kept(repository: JobRepository, time: Time) -> None:
    troubled = Troubled(repository)
    with stepped(time.history(troubled)) as run:
        run.report(inserted=1)
        troubled.words["replace"].append("down")
        with pytest.raises(StorageError, match="is down"):
            run.flush()
    assert (1, 0, 0, 0) == counts(run.job)


# ---- What the writer writes, and when


def test_counts_are_written_every_flush_interval(repository: JobRepository, time: Time) -> None:
    troubled = Troubled(repository)
    with stepped(time.history(troubled)) as run:
        run.live(time, 21, (1, lambda: run.report(inserted=1)), (7, lambda: run.report(inserted=1)))
        written = [(job.entities_inserted, job.progress_at) for job in troubled.landed if job.progress_at]
    assert [(1, START + timedelta(seconds=5)), (2, START + timedelta(seconds=10))] == written


@pytest.mark.parametrize("flush_interval", [1, 4, 5, 15, 3600])
def test_a_run_beats_every_heartbeat_interval_while_its_counts_stand_still(
    repository: JobRepository, time: Time, flush_interval: int
) -> None:
    troubled = Troubled(repository)
    with stepped(time.history(troubled), flush_interval=flush_interval) as run:
        run.live(time, 3600)
        beats = [(job.heartbeat_at - START).total_seconds() for job in troubled.landed if job.heartbeat_at]
    assert list(range(15, 3601, 15)) == beats


def test_what_is_written_in_between_is_a_sign_of_life_but_a_flush_of_nothing_is_none(
    repository: JobRepository, time: Time
) -> None:
    troubled = Troubled(repository)
    with stepped(time.history(troubled), flush_interval=100) as run:

        def report() -> None:
            run.report(inserted=1)
            run.flush()

        run.live(time, 60, (14, report), (28, run.flush))
        signs = [(job.heartbeat_at - START).total_seconds() for job in troubled.landed if job.heartbeat_at]
    assert [14, 29, 44, 59] == signs


def test_a_heartbeat_is_due_an_interval_after_the_last_one_was_begun_however_long_that_took(
    repository: JobRepository, time: Time
) -> None:
    class Slow(Troubled):
        def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
            self._repository.replace(job, quiet=quiet)
            self.landed.append(job)
            time.seconds += 2

    troubled = Slow(repository)
    run = stepped(time.history(troubled), flush_interval=100)
    with run:
        claimed = time.seconds
        run.live(time, 60)
        signs = [(job.heartbeat_at - START).total_seconds() for job in troubled.landed if job.heartbeat_at]
    assert [claimed + 15, claimed + 30, claimed + 45] == signs


def test_a_heartbeat_tells_of_life_and_not_of_progress(history: JobHistory, time: Time) -> None:
    with stepped(history) as run:
        run.live(time, 50, (1, lambda: run.report(updated=1)))
        stored = history.get(run.job.id)
    assert START + timedelta(seconds=5) == stored.progress_at
    assert START + timedelta(seconds=50) == stored.heartbeat_at


def test_heartbeats_are_kept_out_of_the_feed_and_away_from_hooks(repository: JobRepository, time: Time) -> None:
    told: list[SyncJob] = []
    history = time.history(repository, hooks=[told.append])
    with stepped(history) as run:
        told.clear()
        token = history.changes()[-1].token
        run.live(time, 100)
        assert 8 == run.job.version
        assert [] == told
        assert [] == history.changes(token)
    assert [run.job] == told == [change.job for change in history.changes(token)]


def test_what_fails_is_tried_again_at_every_flush_interval_and_the_sync_goes_on(
    repository: JobRepository, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    troubled = Troubled(repository)
    with stepped(time.history(troubled)) as run:
        # Two looks, three beats, two flushes.
        troubled.words["get"].extend(["down", "down"])
        troubled.words["replace"].extend(["down"] * 3 + ["fine"] + ["down"] * 2)
        run.live(time, 48, (31, lambda: run.report(inserted=9)))
        signs = [(job.heartbeat_at - START).total_seconds() for job in troubled.landed if job.heartbeat_at]
    assert [30, 45] == signs
    assert ["a write failed; it is tried again"] * 7 == [r.getMessage().partition(": ")[2] for r in caplog.records]
    assert all(r.levelno == logging.WARNING and r.exc_info for r in caplog.records)
    assert (9, 0, 0, 0) == counts(run.job)
    assert JobStatus.COMPLETED is run.job.status


def test_whatever_a_hook_raises_the_writer_writes_on(memory: JobHistory, time: Time) -> None:
    def hook(job: SyncJob) -> None:
        if job.progress_at and not job.is_terminal:
            raise SystemExit(job.version)

    with stepped(time.history(memory.repository, hooks=[hook])) as run:
        run.live(time, 100, (1, lambda: run.report(inserted=1)))
        assert START + timedelta(seconds=90) == run.job.heartbeat_at


def test_a_run_has_a_thread_of_its_own_that_writes_while_one_batch_takes_long(repository: JobRepository) -> None:
    beats = threading.Semaphore(0)

    class Watched(Troubled):
        def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
            self._repository.replace(job, quiet=quiet)
            if quiet:
                beats.release()

    with JobHistory(Watched(repository)).track(CONNECTION, heartbeat_interval=0.01) as run:
        # This is the batch.
        for _ in range(3):
            assert beats.acquire(timeout=60)
    assert JobStatus.COMPLETED is repository.get(run.job.id).status


def test_a_runs_thread_writes_counts_and_sees_a_cancel(repository: JobRepository) -> None:
    written = threading.Event()
    history = JobHistory(repository, hooks=[lambda job: written.set() if job.entities_inserted else None])
    with history.track(CONNECTION, flush_interval=timedelta(milliseconds=10)) as run:
        run.report(inserted=1)
        assert written.wait(60)
        history.cancel(run.job.id)
        for _ in range(10_000_000):
            run.report()
        raise AssertionError
    assert JobStatus.CANCELLED is run.job.status


def test_a_run_leaves_no_thread_behind(memory: JobHistory) -> None:
    before = threading.active_count()
    with memory.track(CONNECTION):
        assert before + 1 == threading.active_count()
    assert before == threading.active_count()


@pytest.mark.parametrize("interval", [0, 1e-9, 1e300, timedelta.max, 10**300])
def test_any_interval_that_is_a_duration_will_do(interval: Any) -> None:  # noqa: ANN401
    written = threading.Event()
    history = JobHistory(InMemoryJobRepository(), hooks=[lambda job: written.set() if job.entities_inserted else None])
    with history.track(CONNECTION, flush_interval=interval, heartbeat_interval=0) as run:
        run.report(inserted=1)
        assert written.wait(60)
    with history.track(CONNECTION, flush_interval=interval, heartbeat_interval=interval) as run:
        pass
    assert JobStatus.COMPLETED is run.job.status


@pytest.mark.parametrize("option", ["flush_interval", "heartbeat_interval"])
@pytest.mark.parametrize("interval", [-1, float("nan"), "5", None])
def test_an_interval_that_is_no_duration_is_refused(memory: JobHistory, option: Any, interval: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidJobError, match=f"{option} must be seconds"):
        memory.track(CONNECTION, **{option: interval})
    assert [] == memory.connections()


# ---- Others write the same job


def test_counts_are_written_on_top_of_what_another_wrote(history: JobHistory) -> None:
    with stepped(history) as run:
        run.report(inserted=2)
        history.beat(run.job.id)
        run.tick()
        assert (2, 0, 0, 0) == counts(history.get(run.job.id))
        run.report(inserted=1)
        history.beat(run.job.id)
    assert (3, 0, 0, 0) == counts(history.get(run.job.id))
    assert JobStatus.COMPLETED is history.get(run.job.id).status


def test_counts_that_another_wrote_and_are_greater_stay(history: JobHistory) -> None:
    with stepped(history) as run:
        history.report(run.job.id, inserted=10, failed=1)
        run.report(inserted=2, failed=2)
        run.tick()
        assert (10, 0, 0, 2) == counts(run.job)
        version = run.job.version
        run.tick()
        assert version == run.job.version, "what does not move is not written"
    assert (10, 0, 0, 2) == counts(history.get(run.job.id))


def test_threads_that_flush_beside_the_writer_do_each_other_no_harm(repository: JobRepository) -> None:
    troubled = Troubled(repository)

    def work() -> None:
        for _ in range(25):
            run.report(inserted=1)
            run.flush()

    with JobHistory(troubled).track(CONNECTION, flush_interval=0, heartbeat_interval=0) as run:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (100, 0, 0, 0) == counts(run.job)
    assert run.job == repository.get(run.job.id)


def test_a_read_that_comes_late_does_not_take_the_job_back(memory: JobHistory) -> None:
    with stepped(memory) as run:
        late = run.job
        run.report(inserted=1)
        run.flush()
        newer = run.job
        run._claim._take_up(late)
        assert newer == run.job


def test_a_hook_may_flush_the_run_whose_write_it_is_told_of(repository: JobRepository, time: Time) -> None:
    def hook(job: SyncJob) -> None:
        if job.entities_inserted == 1 and not job.is_terminal:
            run.report(inserted=1)
            run.flush()

    with stepped(time.history(repository, hooks=[hook])) as run:
        run.report(inserted=1)
        run.flush()
        assert (2, 0, 0, 0) == counts(repository.get(run.job.id))
    assert run.job == repository.get(run.job.id)


# ---- Cancels


def test_a_cancel_is_seen_within_a_flush_interval(history: JobHistory, time: Time) -> None:
    seen: list[float] = []

    def ask() -> None:
        assert not run.cancelled
        run.raise_if_cancelled()
        history.cancel(run.job.id)

    def look() -> None:
        if run.cancelled:
            seen.append(time.seconds)

    with stepped(history) as run:
        run.live(time, 20, (6, ask), *((7 + i / 2, look) for i in range(26)))
        with pytest.raises(JobCancelled, match=f"job {run.job.id} was asked to stop"):
            run.raise_if_cancelled()
    assert 10.5 == seen[0], "the first look behind the write at 10"
    # The task that goes on all the same has done its work.
    assert JobStatus.COMPLETED is history.get(run.job.id).status


def test_a_cancel_is_seen_by_the_write_that_it_refused(history: JobHistory) -> None:
    with stepped(history) as run:
        run.report(inserted=1)
        history.cancel(run.job.id)
        run.tick()
        assert JobStatus.CANCELLING is run.job.status
        run.report(inserted=1)
        raise AssertionError
    assert JobStatus.CANCELLED is history.get(run.job.id).status
    assert (2, 0, 0, 0) == counts(history.get(run.job.id)), "the report that raised was counted"


def test_a_cancelled_job_has_no_error_and_took_its_time(history: JobHistory, time: Time) -> None:
    with stepped(history) as run:
        time.seconds = 12.5
        history.cancel(run.job.id)
        run.tick()
        run.raise_if_cancelled()
    stored = history.get(run.job.id)
    assert stored.error is None
    assert stored.error_details is None
    assert 12.5 == stored.duration_seconds
    assert START + timedelta(seconds=12.5) == stored.completed_at == stored.cancel_requested_at


def test_a_cancel_seen_late_is_kept_beside_a_success(history: JobHistory) -> None:
    with stepped(history) as run:
        history.cancel(run.job.id)
    stored = history.get(run.job.id)
    assert JobStatus.COMPLETED is stored.status
    assert stored.cancel_requested_at is not None


def test_a_worker_may_stop_by_itself(history: JobHistory) -> None:
    with stepped(history) as run:
        raise JobCancelled(run.job.id, "the source is in maintenance, password=Xy12secret99")
    stored = history.get(run.job.id)
    assert JobStatus.CANCELLED is stored.status
    assert "the source is in maintenance, password=[redacted]" == stored.error
    assert run.cancelled


def test_a_cancel_passes_a_run_that_it_is_not_meant_for(history: JobHistory) -> None:
    with stepped(history) as outer:
        with stepped(history) as inner:
            history.cancel(outer.job.id)
            outer.tick()
            outer.report()
        raise AssertionError
    assert JobStatus.CANCELLED is history.get(outer.job.id).status
    stored = history.get(inner.job.id)
    assert JobStatus.CANCELLED is stored.status
    assert f"JobCancelled: job {outer.job.id} was asked to stop" == stored.error


def test_a_run_that_is_asked_to_stop_in_its_own_process_says_so_in_the_record(history: JobHistory, time: Time) -> None:
    with stepped(history) as run:
        run.live(time, 6, (1, lambda: run.request_cancel("a key was pressed")))
        assert JobStatus.CANCELLING is history.get(run.job.id).status
        run.tick()
        with pytest.raises(JobCancelled) as caught:
            run.report()
        raise caught.value
    stored = history.get(run.job.id)
    assert JobStatus.CANCELLED is stored.status
    assert "a key was pressed" == stored.error
    assert START + timedelta(seconds=5) == stored.cancel_requested_at


# ---- Whose job it is


def test_of_two_workers_one_gets_the_job(history: JobHistory) -> None:
    job = history.enqueue(CONNECTION)
    with SteppedRun(history, lambda: job.id) as winner:
        second = SteppedRun(history, lambda: job.id)
        with pytest.raises(InvalidTransitionError, match="is RUNNING: cannot start"), second:
            raise AssertionError
        with pytest.raises(RuntimeError, match="the job is claimed by `with`"):
            _ = second.job
    assert winner.worker == history.get(job.id).worker
    assert JobStatus.COMPLETED is history.get(job.id).status


def test_a_job_cancelled_before_its_claim_is_not_run(history: JobHistory) -> None:
    job = history.enqueue(CONNECTION)
    cancelled = history.cancel(job.id)
    with pytest.raises(InvalidTransitionError), history.run(job.id):
        raise AssertionError
    assert cancelled == history.get(job.id)


def test_a_job_that_is_missing_is_not_run_and_the_error_names_track(history: JobHistory) -> None:
    with pytest.raises(JobNotFoundError, match=r"history\.track") as caught, history.run(CONNECTION):
        raise AssertionError
    assert caught.value.__suppress_context__


LOSSES: dict[str, Callable[[JobHistory, SyncJob], object]] = {
    "reaped": lambda history, job: history.replace(job.lost(at=job.created_at, error="vanished")),
    "completed": lambda history, job: history.complete(job.id),
    "failed": lambda history, job: history.fail(job.id, error="an operator's"),
    "cancelled": lambda history, job: (history.cancel(job.id), history.finish_cancel(job.id)),
    "deleted": lambda history, job: (history.complete(job.id), history.repository.delete_many([job.id])),
    "deleted and claimed anew": lambda history, job: (
        history.complete(job.id),
        history.repository.delete_many([job.id]),
        history.enqueue(CONNECTION, job_id=job.id),
        history.start(job.id),
    ),
}


def stored_or_none(history: JobHistory, job: SyncJob) -> SyncJob | None:
    try:
        return history.get(job.id)
    except JobNotFoundError:
        return None


def raised_by(use: Callable[[], object]) -> type[BaseException] | None:
    try:
        use()
    except BaseException as error:  # noqa: BLE001  whatever it is
        return type(error)
    return None


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("how", ["look", "beat", "flush", "leave"])
def test_a_worker_that_lost_its_job_learns_it_and_changes_nothing(
    repository: JobRepository, time: Time, loss: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    history = time.history(repository)
    run = stepped(history)
    left_by_others: list[SyncJob | None] = []
    learnt: list[type[BaseException] | None] = []

    def sync() -> None:
        with run:
            time.seconds = 1
            LOSSES[loss](history, run.job)
            left_by_others.append(stored_or_none(history, run.job))
            time.seconds = 2
            if how == "look":
                assert not run.tick()
            elif how == "beat":
                time.seconds = 20
                assert not run.tick()
            elif how == "flush":
                run.report(inserted=1)
                learnt.append(raised_by(run.flush))
            if how != "leave":
                assert run.cancelled
                learnt.extend(raised_by(use) for use in (run.flush, run.raise_if_cancelled, run.report))

    with pytest.raises(LostJobError) as caught:
        sync()
    assert [LostJobError] * {"leave": 0, "flush": 4}.get(how, 3) == learnt
    assert run.job.id == caught.value.job_id
    assert left_by_others == [caught.value.job]
    assert left_by_others == [stored_or_none(history, run.job)]
    assert (how in ("look", "beat")) == ("is not this worker's any more" in caplog.text)


def test_the_writer_of_a_lost_job_stops(repository: JobRepository, time: Time) -> None:
    troubled = Troubled(repository)
    history = time.history(troubled)
    run = stepped(history)
    with pytest.raises(LostJobError), run:
        run.live(time, 3600, (6, lambda: repository.replace(history.get(run.job.id).complete(at=START))))
    assert 15 > time.seconds - 3600 + 15  # it did not live on
    assert [] == [job for job in troubled.landed if job.heartbeat_at]


def test_a_lost_job_does_not_hide_the_workers_own_error(history: JobHistory, caplog: pytest.LogCaptureFixture) -> None:
    run = stepped(history)

    def sync() -> None:
        with run:
            history.fail(run.job.id, error="an operator's")
            run.tick()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        sync()
    assert "its end could not be recorded" in caplog.text
    assert "an operator's" == history.get(run.job.id).error


def test_a_cancel_does_not_hide_that_the_job_is_lost(history: JobHistory) -> None:
    run = stepped(history)

    def sync() -> None:
        with run:
            history.cancel(run.job.id)
            run.tick()
            history.finish_cancel(run.job.id, reason="an operator's")
            run.report()

    with pytest.raises(LostJobError):
        sync()


def test_that_another_job_is_lost_is_an_error_of_this_one(history: JobHistory) -> None:
    other = history.enqueue(CONNECTION)
    run = stepped(history)
    with pytest.raises(LostJobError), run:
        raise LostJobError(other.id, other)
    stored = history.get(run.job.id)
    assert JobStatus.FAILED is stored.status
    assert (stored.error or "").startswith("LostJobError: ")


# ---- Entering and leaving


def test_a_worker_is_named_by_host_pid_and_a_tag(memory: JobHistory) -> None:
    with memory.track(CONNECTION, worker="nightly") as run:
        pass
    host, pid, tag = (run.job.worker or "").split(":")
    assert ("nightly", str(os.getpid()), 8) == (host, pid, len(tag))
    assert run.worker == run.job.worker
    assert run.worker != memory.track(CONNECTION, worker="nightly").worker


def test_a_workers_name_is_redacted_and_its_job_stays_its_own(memory: JobHistory) -> None:
    with memory.track(CONNECTION, worker="amqp://sync:hunter2-and-more@queue") as run:
        run.report(inserted=1)
        run.flush()
    assert (run.worker, 1) == (run.job.worker, run.job.entities_inserted)
    assert run.worker.startswith("amqp://sync:[redacted]@queue:")


@pytest.mark.parametrize("worker", ["\0", "\ud800", "x" * 20_000])
def test_a_worker_whose_name_cannot_be_stored_is_refused_before_anything_is(memory: JobHistory, worker: str) -> None:
    with pytest.raises(InvalidJobError, match="worker"):
        memory.track(CONNECTION, worker=worker)
    assert [] == memory.connections()


def test_a_thread_that_cannot_start_claims_nothing(memory: JobHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    job = memory.enqueue(CONNECTION)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        run, track = memory.run(job.id), memory.track(CONNECTION)
        for each in (run, track):
            with pytest.raises(RuntimeError, match="can't start new thread"), each:
                raise AssertionError
    assert [job] == memory.list_jobs(CONNECTION)
    with run, track:
        pass
    assert JobStatus.COMPLETED is memory.get(job.id).status


def test_a_run_is_of_no_use_before_its_with(memory: JobHistory) -> None:
    run = memory.track(CONNECTION)
    for use in (lambda: run.job, run.flush, run.report):
        with pytest.raises(RuntimeError, match="the job is claimed by `with`"):
            use()
    assert not run.cancelled
    assert [] == memory.connections()


def test_a_run_is_of_no_use_behind_its_with_but_tells_how_it_ended(memory: JobHistory) -> None:
    with memory.track(CONNECTION) as run:
        run.report(inserted=1)
    for use in (run.flush, lambda: run.report(inserted=1)):
        with pytest.raises(RuntimeError, match=f"job {run.job.id} has ended"):
            use()
    run.raise_if_cancelled()
    assert (1, 0, 0, 0) == counts(run.job)
    assert run.job == memory.get(run.job.id)


def test_a_report_is_counted_or_refused_never_lost(memory: JobHistory) -> None:
    with stepped(memory) as run:
        run._require_held = lambda: None  # type: ignore[method-assign]  # it was held when this was asked
    with pytest.raises(RuntimeError, match="has ended"):
        run.report(inserted=1)


def test_a_run_is_entered_once(history: JobHistory) -> None:
    with history.track(CONNECTION) as run:
        with pytest.raises(RuntimeError, match="a Run is entered once"), run:
            raise AssertionError
        run.report(inserted=1)
    with pytest.raises(RuntimeError, match="a Run is entered once"), run:
        raise AssertionError
    assert (1, 0, 0, 0) == counts(history.get(run.job.id))
    assert [run.job] == history.list_jobs(CONNECTION)


def test_leaving_twice_changes_nothing(history: JobHistory) -> None:
    run = stepped(history)
    with run:
        pass
    assert not run.__exit__(None, None, None)
    assert run.job == history.get(run.job.id)


def test_what_interrupts_entering_behind_the_claim_ends_the_job(repository: JobRepository, time: Time) -> None:
    class Interrupted(Claim):
        def _know(self, job: SyncJob) -> None:
            super()._know(job)
            if job.status is JobStatus.RUNNING:
                raise KeyboardInterrupt

    history = time.history(repository)
    job = history.enqueue(CONNECTION)
    run = SteppedRun(history, lambda: job.id)
    run._claim = Interrupted(history, run.worker)
    with pytest.raises(KeyboardInterrupt), run:
        raise AssertionError
    assert JobStatus.CANCELLED is history.get(job.id).status
    assert "KeyboardInterrupt" == history.get(job.id).error


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["Ctrl-C"], JobStatus.PENDING),
        (["late Ctrl-C"], JobStatus.CANCELLED),
        (["late Ctrl-C", "down"], JobStatus.CANCELLED),
        (["landed", "Ctrl-C"], JobStatus.CANCELLED),
    ],
    ids=str,
)
def test_a_ctrl_c_that_comes_behind_the_write_of_the_claim_ends_the_job(
    repository: JobRepository, time: Time, words: list[str], status: JobStatus
) -> None:
    job = time.history(repository).enqueue(CONNECTION)
    history = time.history(Troubled(repository, replace=words))
    time.seconds = 3
    with pytest.raises(KeyboardInterrupt), SteppedRun(history, lambda: job.id):
        raise AssertionError
    stored = repository.get(job.id)
    assert status is stored.status
    assert (0 if stored.is_terminal else None) == stored.duration_seconds


@pytest.mark.parametrize("word", ["down", "Ctrl-C"])
def test_a_ctrl_c_behind_a_claim_that_cannot_be_looked_for_comes_out(
    repository: JobRepository, time: Time, word: str
) -> None:
    job = time.history(repository).enqueue(CONNECTION)
    troubled = Troubled(repository, replace=["late Ctrl-C"], get=["fine", word])
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), time.history(troubled).run(job.id):
        raise AssertionError
    assert JobStatus.RUNNING is repository.get(job.id).status, "reaping ends it"
    assert before == threading.active_count()


def test_a_second_ctrl_c_while_leaving_comes_out(memory: JobHistory) -> None:
    class Impatient(SteppedRun):
        def _leave(self) -> None:
            super()._leave()
            raise KeyboardInterrupt

    job = memory.enqueue(CONNECTION)
    with pytest.raises(KeyboardInterrupt), Impatient(memory, lambda: job.id):
        pass
    assert JobStatus.RUNNING is memory.get(job.id).status, "reaping ends it"


# ---- Forks


@MULTITHREADED_FORK
def test_a_forked_child_does_not_hold_the_job(repository: JobRepository) -> None:
    history = JobHistory(repository)
    said: list[str] = []

    def child() -> str:
        errors = []
        uses: list[Callable[[], None]] = [lambda: run.report(inserted=5), run.flush, run.raise_if_cancelled]
        for use in uses:
            try:
                use()
            except RuntimeError as error:
                errors.append(str(error))
        return f"{len(errors)} {errors[0]} {run.__exit__(None, None, None)}"

    with history.track(CONNECTION) as run:
        run.report(inserted=1)
        said.append(forked(child))
        said.append(forked(lambda: run.__exit__(ValueError, ValueError("the child's"), None)))
        with run._setting, run._claim._setting:  # threads that report and write hold them at the fork
            said.append(forked(child))
        assert JobStatus.RUNNING is history.get(run.job.id).status
        run.report(inserted=1)
    whose = f"3 this Run belongs to process {os.getpid()}, of which this is a fork: report there False"
    assert [whose, "False", whose] == said
    assert (2, 0, 0, 0) == counts(history.get(run.job.id))
    assert JobStatus.COMPLETED is history.get(run.job.id).status


@MULTITHREADED_FORK
def test_a_run_made_before_a_fork_is_not_entered_in_the_child(repository: JobRepository) -> None:
    history = JobHistory(repository)
    run = history.track(CONNECTION)

    def child() -> None:
        with run:
            raise AssertionError

    assert "RuntimeError: this Run belongs to process" in forked(child)
    assert [] == history.list_jobs(CONNECTION)


@MULTITHREADED_FORK
def test_a_forked_child_runs_jobs_of_its_own(tmp_path: Path) -> None:
    with JobHistory(SQLiteJobRepository(tmp_path / "history.db", durability="relaxed")) as history:

        def child() -> str:
            with history.track(CONNECTION) as own:
                own.report(inserted=1)
            return str(own.job.id)

        with history.track(CONNECTION) as run:
            theirs = forked(child)
        assert JobStatus.COMPLETED is history.get(theirs).status
        assert JobStatus.COMPLETED is history.get(run.job.id).status
