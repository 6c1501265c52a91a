"""Run: what a worker holds while it syncs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, TypeGuard, TypeVar
from uuid import UUID

import attrs

from jobhistory.claim import Claim
from jobhistory.errors import InvalidJobError, JobCancelled, LostJobError, StorageError, UnknownOutcomeError
from jobhistory.failure import alone, causes_of, described, details_of, means_stop
from jobhistory.ids import worker_name
from jobhistory.job import MAX_COUNT, SyncJob
from jobhistory.recorder import Step
from jobhistory.sigterm import sigterm
from jobhistory.status import JobStatus
from jobhistory.storable import check_text
from jobhistory.times import seconds

if TYPE_CHECKING:
    from jobhistory.history import JobHistory

FLUSH_INTERVAL = 5.0
"""Seconds between two writes of a Run's counts, and between two looks for a cancel."""
HEARTBEAT_INTERVAL = 15.0
"""Seconds between two signs of life of a Run that has nothing else to write."""
FINISH_WITHIN = 60.0
"""Seconds for which a Run tries to write how its job ended while the storage fails."""

_SHORTEST_INTERVAL = 0.01
_PAUSES = (0.1, 5.0)
_log = logging.getLogger("jobhistory")

_Own = TypeVar("_Own", JobCancelled, LostJobError)


class _Process:
    """This one, as of the last fork: to ask the system costs a report a quarter of its time."""

    pid = os.getpid()

    @classmethod
    def begin_in_child(cls) -> None:
        cls.pid = os.getpid()


os.register_at_fork(after_in_child=_Process.begin_in_child)


class Run:
    """One job in this worker's hands, as a context manager.

    Entering claims the job: RUNNING here and nowhere else. Leaving records how it ended: COMPLETED; FAILED
    where an exception comes out, which goes on; CANCELLED after JobCancelled, which stays inside, and after
    KeyboardInterrupt, a cancelled task and SystemExit(0 or None), which go on. An exception group counts as
    what all in it are.

    In between a thread of its own writes: the counts when they moved, a heartbeat when one is due; else it
    looks whether the job was asked to stop. What fails there is logged and tried again. Leaving tries for
    60 s; then it raises StorageError with the counts in its message, or logs that, where an exception of the
    worker's is under way. A Ctrl-C that comes while it leaves goes on once the end is recorded, in one more try.

    A worker whose job was finished, reaped or deleted elsewhere gets LostJobError from the next method it
    calls, and at the latest on leaving; nothing of what it does is written any more.

    A child forked inside the `with` does not hold the job: its reports raise RuntimeError, and its leaving
    writes nothing. A Run is entered once; where entering raised, it may be tried again.

    Args:
        history: where the job is recorded.
        job_id: gives the job to claim, when it is entered.
        worker: a name to go by, in place of the host's.
        flush_interval: seconds or a timedelta.
        heartbeat_interval: likewise; shorter than the `confirm_for` of whoever reaps (30 s unless given).
        handle_sigterm: take SIGTERM as a request to stop, in the main thread (else entering raises
            ValueError). The process goes on behind the `with`, where `cancelled` tells of it.
    """

    def __init__(
        self,
        history: JobHistory,
        job_id: Callable[[], UUID],
        *,
        worker: str | None = None,
        flush_interval: float | timedelta = FLUSH_INTERVAL,
        heartbeat_interval: float | timedelta = HEARTBEAT_INTERVAL,
        handle_sigterm: bool = False,
    ) -> None:
        host = worker and history.redacted_text(check_text("worker", worker))
        self.worker = check_text("worker", worker_name(host))
        """Who claims it, as `host:pid:tag`."""
        self._history = history
        self._now = history.clock
        self._job_id = job_id
        self._flush_interval = _interval("flush_interval", flush_interval)
        self._heartbeat_interval = _interval("heartbeat_interval", heartbeat_interval)
        self._handle_sigterm = handle_sigterm
        self._pid = _Process.pid
        self._claim = Claim(history, self.worker)
        self._totals = (0, 0, 0, 0)
        self._over = False
        # Held while one of these two is set, never while anything is waited for.
        self._setting = threading.Lock()
        self._reason: str | None = None
        self._last: Step | None = None
        self._left = threading.Event()
        self._writer: threading.Thread | None = None

    @property
    def job(self) -> SyncJob:
        """The job as this worker last read or wrote it."""
        return self._claim.job

    @property
    def cancelled(self) -> bool:
        """Whether to stop: the job was asked to, or is lost. At most a flush_interval old."""
        return self._claim.stop

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled if the job was asked to stop, LostJobError if it is not this worker's any more."""
        self._require_here()
        self._claim.require()
        if self._claim.stop:
            raise JobCancelled(self.job.id, self._reason)

    def request_cancel(self, reason: str | None = None) -> None:
        """Ask this Run to stop, as JobHistory.cancel does from elsewhere.

        It takes no lock and writes nothing, so that a signal handler may call it; the thread that writes does.
        """
        self._reason = reason
        self._claim.stop = True

    def report(self, *, inserted: int = 0, updated: int = 0, deleted: int = 0, failed: int = 0) -> None:
        """Add to the counts: cheap enough for every entity, written every `flush_interval` and on leaving.

        Raises JobCancelled once the job was asked to stop, LostJobError once it is not this worker's any
        more (the counts are added all the same), InvalidJobError for a count that is no int, is negative or
        adds up to 2**63, RuntimeError outside of the `with`.
        """
        self._require_held()
        for count in (inserted, updated, deleted, failed):
            if type(count) is not int or count < 0:
                raise InvalidJobError("a count", "must be an int, not negative", count)
        with self._setting:
            if self._over:  # since the look above
                self._refuse()
            i, u, d, f = self._totals
            totals = (i + inserted, u + updated, d + deleted, f + failed)
            if max(totals) > MAX_COUNT:
                raise InvalidJobError("a count", "must add up to less than 2**63", max(totals))
            self._totals = totals
        if self._claim.stop:
            self.raise_if_cancelled()

    def flush(self) -> None:
        """Write the counts now. Raises LostJobError, StorageError, RuntimeError outside of the `with`."""
        self._require_held()
        self._claim.require()
        self._claim.write(self._with_totals)

    def __enter__(self) -> Self:
        if self._claim.stored is not None:
            message = f"job {self.job.id} was claimed by this Run already: a Run is entered once"
            raise RuntimeError(message)
        self._require_here()
        self._over = False
        self._left.clear()
        try:
            if self._handle_sigterm:
                sigterm.watch(self.request_cancel)
            self._start()  # first, for it may fail, and then nothing is claimed
            self._claim.make(self._job_id)
        except BaseException as error:
            if not isinstance(error, Exception):  # a Ctrl-C, which may have come behind the write
                self._claim.find()
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if _Process.pid != self._pid or self._over:
            return False
        try:
            return self._end(error)
        except BaseException as raised:
            if not isinstance(raised, Exception):  # a Ctrl-C, or a hook's: the end is recorded all the same
                self._end(error, interrupted=True)
            raise
        finally:
            sigterm.unwatch(self.request_cancel)

    def _end(self, error: BaseException | None, *, interrupted: bool = False) -> bool:
        """Leave, record how it ended, and say whether the error stays inside; once interrupted, be quick."""
        self._leave()
        if self._claim.stored is None:
            return False
        causes = causes_of(error)
        stays_inside = error is not None and all(self._is_own(cause, JobCancelled) for cause in causes)
        if any(self._is_own(cause, LostJobError) for cause in causes):
            return False
        try:
            self._claim.require()
            self._last = self._last or self._ending(error, causes)
            self._write_to_the_end(self._last, 0 if interrupted else FINISH_WITHIN)
        except Exception as failed:
            if (error is None or stays_inside) and not interrupted:
                raise
            _log.error("job %s: its end could not be recorded", self.job.id, exc_info=alone(failed))
        return stays_inside

    def _ending(self, error: BaseException | None, causes: list[BaseException]) -> Step:
        """The step to how it ended; times and texts are taken once, so that a replay is the same record."""
        at = self._now()
        duration = self._claim.lasted()
        stopped = error is not None and all(means_stop(cause) for cause in causes)
        if error is None:
            end = partial(SyncJob.complete, at=at, duration_seconds=duration)
        elif stopped:
            own = [cause.reason for cause in causes if self._is_own(cause, JobCancelled)]
            reason = own[0] if own else described(causes[0])
            text = None if reason is None else self._history.redacted_text(reason)
            end = partial(SyncJob.cancel, at=at, reason=text, duration_seconds=duration)
        else:
            text = self._history.redacted_text(described(error))
            details = {name: self._history.redacted_text(shown) for name, shown in details_of(error).items()}
            end = partial(SyncJob.fail, at=at, error=text, error_details=details, duration_seconds=duration)

        def step(job: SyncJob) -> SyncJob:
            if stopped and job.status is JobStatus.RUNNING:
                return job.request_cancel(at=at)
            return attrs.evolve(end(self._with_totals(job, at)), version=job.version + 1)

        return step

    def _write_to_the_end(self, step: Step, within: float) -> None:
        """Write steps until the job is finished, trying again `within` seconds where the storage fails."""
        begun = self._history.monotonic()
        pause, longest = _PAUSES
        while not self.job.is_terminal:
            try:
                self._claim.write(step)
            except StorageError as error:
                waited = self._history.monotonic() - begun
                if waited + pause > within:
                    raise self._gave_up(error, waited) from error
                _log.warning("job %s: %s; trying again in %.1f s", self.job.id, error, pause)
                self._history.sleep(pause)
                pause = min(2 * pause, longest)

    def _gave_up(self, error: StorageError, waited: float) -> StorageError:
        inserted, updated, deleted, failed = self._totals
        reason = (
            f"{error.reason}; gave up after {waited:.0f} s on the end of job {self.job.id} with "
            f"{inserted=} {updated=} {deleted=} {failed=}"
        )
        kind = UnknownOutcomeError if isinstance(error, UnknownOutcomeError) else StorageError
        return kind(error.where, reason)

    # ---- The writer, a thread

    def _start(self) -> None:
        self._writer = threading.Thread(target=self._write_until_left, name=f"jobhistory {self.worker}", daemon=True)
        self._writer.start()

    def _leave(self) -> None:
        """Close the counts, and let the writer finish what it writes."""
        with self._setting:
            self._over = True
        self._left.set()
        if self._writer is not None and self._writer.ident is not None:
            self._writer.join()

    def _write_until_left(self) -> None:
        """Tick at every flush_interval, and where a heartbeat is due before."""
        pause = usual = min(self._flush_interval, self._heartbeat_interval)
        while not self._left.wait(pause) and self._claim.lost is None:
            pause = usual
            if self._claim.stored is not None and self._tick():
                pause = min(self._flush_interval, max(self._until_due(), 0.0))

    def _tick(self) -> bool:
        """Write the counts where they moved, a heartbeat where one is due, else look for a cancel: did it work?"""
        try:
            if self._claim.stop:
                self._claim.write(self._asked_to_stop)
            if self._moved(self.job):
                self._claim.write(self._with_totals)
            elif self._until_due() <= 0:
                self._claim.write(lambda job: job.beat(at=self._now()), quiet=True)
            else:
                self._claim.look()
        except LostJobError:
            _log.warning("job %s is not this worker's any more", self.job.id)
        except BaseException as error:  # noqa: BLE001  whatever a hook raises, the sync goes on
            _log.warning("job %s: a write failed; it is tried again", self.job.id, exc_info=alone(error))
        else:
            return True
        return False

    def _until_due(self) -> float:
        return self._heartbeat_interval - (self._history.monotonic() - self._claim.written)

    # ---- Its steps, one version of the job to the next

    def _asked_to_stop(self, job: SyncJob) -> SyncJob:
        return job.request_cancel(at=self._now()) if job.status is JobStatus.RUNNING else job

    def _with_totals(self, job: SyncJob, at: datetime | None = None) -> SyncJob:
        if not self._moved(job):
            return job
        inserted, updated, deleted, failed = self._totals
        return job.report(at=at or self._now(), inserted=inserted, updated=updated, deleted=deleted, failed=failed)

    def _moved(self, job: SyncJob) -> bool:
        written = (job.entities_inserted, job.entities_updated, job.entities_deleted, job.entities_failed)
        return any(total > count for total, count in zip(self._totals, written, strict=True))

    # ---- Whose it is

    def _require_here(self) -> None:
        if _Process.pid != self._pid:
            message = f"this Run belongs to process {self._pid}, of which this is a fork: report there"
            raise RuntimeError(message)

    def _require_held(self) -> None:
        if _Process.pid != self._pid or self._over or self._claim.stored is None:
            self._refuse()

    def _refuse(self) -> NoReturn:
        self._require_here()
        message = f"job {self.job.id} has ended: report inside of the `with`"
        raise RuntimeError(message)

    def _is_own(self, error: BaseException, kind: type[_Own]) -> TypeGuard[_Own]:
        return isinstance(error, kind) and error.job_id == self.job.id


def _interval(field: str, value: float | timedelta) -> float:
    return min(max(seconds(field, value), _SHORTEST_INTERVAL), threading.TIMEOUT_MAX)
