"""Claim: a job in one worker's hands, as it is stored, and whether it is that worker's still."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

from jobhistory.errors import ConflictError, JobNotFoundError, LostJobError
from jobhistory.job import SyncJob
from jobhistory.recorder import Step
from jobhistory.status import JobStatus

if TYPE_CHECKING:
    from jobhistory.history import JobHistory


class Claim:
    """One worker's claim on a job: every read and write of it goes through here, from any thread.

    What another wrote in between is taken up. Where that finished, reaped or deleted the job, the claim is lost: what
    finds it so raises LostJobError, and from then on `require` does.

    Args:
        history: where the job is recorded.
        worker: whose claim it is.
    """

    def __init__(self, history: JobHistory, worker: str) -> None:
        self.worker = worker
        self.stored: SyncJob | None = None
        """The job as this worker last read or wrote it, None before it is claimed."""
        self.lost: LostJobError | None = None
        self.stop = False
        """Whether to stop: the job was asked to, or is lost. Anyone may set it, without a lock."""
        self.written = 0.0
        """When it was last written, by the history's monotonic clock."""
        self._history = history
        self._begun = 0.0
        self._wanted: UUID | None = None
        # Held while `stored` is set, never while anything is waited for.
        self._setting = threading.Lock()

    @property
    def job(self) -> SyncJob:
        """The job as this worker last read or wrote it; raises RuntimeError before it is claimed."""
        if self.stored is None:
            message = "the job is claimed by `with`: write `with history.run(...) as run:`"
            raise RuntimeError(message)
        return self.stored

    def make(self, job_id: Callable[[], UUID]) -> None:
        """Claim the job, as JobHistory.start does."""
        self._begun = self.written = self._history.monotonic()
        self._wanted = wanted = job_id()
        try:
            job = self._history.start(wanted, worker=self.worker)
        except JobNotFoundError:
            hint = "history.track(source_connection_id) enqueues a job and runs it, in one"
            raise JobNotFoundError(wanted, hint) from None
        self._begun = self.written = self._history.monotonic()
        self.stored = job
        self._know(job)

    def lasted(self) -> float:
        """Seconds since the job was claimed."""
        return round(self._history.monotonic() - self._begun, 6)

    def find(self) -> None:
        """Hold the job if it is ours by now, so that leaving ends it; a storage that fails leaves it to reaping."""
        if self.stored is None and self._wanted is not None:
            with suppress(BaseException):  # another Ctrl-C too: the first goes on
                stored = self._history.get(self._wanted)
                if stored.worker == self.worker:
                    self.stored = stored

    def write(self, step: Step, *, quiet: bool = False) -> None:
        """Write the next version; where another wrote in between, take that up if the job is still ours."""
        begun = self._history.monotonic()
        while (following := step(job := self.job)) is not job:
            try:
                self._history.replace(following, quiet=quiet)
            except ConflictError as conflict:
                self._take_up(conflict.stored)
            except JobNotFoundError:
                self._lose(None)
            else:
                self._know(following)
                self.written = begun
                return

    def look(self) -> None:
        """Read what others wrote."""
        try:
            self._take_up(self._history.get(self.job.id))
        except JobNotFoundError:
            self._lose(None)

    def require(self) -> None:
        """Raise LostJobError if it is lost."""
        if self.lost is not None:
            raise LostJobError(self.lost.job_id, self.lost.job) from self.lost

    def _take_up(self, stored: SyncJob) -> None:
        if stored.is_terminal or stored.worker != self.worker:
            self._lose(stored)
        self._know(stored)

    def _know(self, job: SyncJob) -> None:
        """Two threads may come back in another order than that of their writes."""
        with self._setting:
            self.stored = max(self.job, job, key=lambda known: known.version)
        if job.status is JobStatus.CANCELLING:
            self.stop = True

    def _lose(self, stored: SyncJob | None) -> NoReturn:
        self.lost = LostJobError(self.job.id, stored)
        self.stop = True
        raise self.lost
