"""Steps: what a job can be told by its id, each a lost race read again and decided anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobhistory.ids import parse_id, worker_name
from jobhistory.job import SyncJob
from jobhistory.recorder import Recorder
from jobhistory.sanitizer import Sanitizer
from jobhistory.status import JobStatus
from jobhistory.storable import TEXT_BYTES, check_text


class Steps:
    """Cancelling for everybody; the other steps for workers that cannot hold a Run."""

    clock: Callable[[], datetime]
    _sanitizer: Sanitizer
    _recorder: Recorder

    def cancel(self, job_id: UUID | str, *, reason: str | None = None) -> SyncJob:
        """Stop a job: PENDING becomes CANCELLED, RUNNING CANCELLING; its worker sees it and stops.

        One that is CANCELLING or CANCELLED is left alone; COMPLETED and FAILED raise InvalidTransitionError.
        `reason` is kept where the job ends at once.
        """
        text = None if reason is None else self.redacted_text(reason)

        def step(job: SyncJob) -> SyncJob:
            if job.status in (JobStatus.CANCELLING, JobStatus.CANCELLED):
                return job
            if job.status is JobStatus.PENDING:
                return job.cancel(at=self.clock(), reason=text)
            return job.request_cancel(at=self.clock())

        return self._recorder.update(parse_id(job_id), step)

    def start(self, job_id: UUID | str, *, worker: str | None = None) -> SyncJob:
        """Claim a PENDING job: of many that try, one succeeds, the others get InvalidTransitionError.

        Safe to replay with the same `worker`, which must be its own; host, pid and a random tag if left out.
        One that holds a secret is stored without it and with a pid and a tag, so it cannot be replayed.
        """
        given = check_text("worker", worker or worker_name())
        clean = self._sanitizer.worker(given)
        # Without its secret it may be another worker's name too, and would claim what that one holds.
        name = given if clean == given else worker_name(clean)

        def step(job: SyncJob) -> SyncJob:
            if job.worker == name and job.status in (JobStatus.RUNNING, JobStatus.CANCELLING):
                return job
            return job.start(at=self.clock(), worker=name)

        return self._recorder.update(parse_id(job_id), step)

    def report(
        self,
        job_id: UUID | str,
        *,
        inserted: int | None = None,
        updated: int | None = None,
        deleted: int | None = None,
        failed: int | None = None,
    ) -> SyncJob:
        """Set a running job's totals so far (Run.report adds up instead)."""
        return self._recorder.update(
            parse_id(job_id),
            lambda job: job.report(at=self.clock(), inserted=inserted, updated=updated, deleted=deleted, failed=failed),
        )

    def beat(self, job_id: UUID | str) -> SyncJob:
        """Say that the worker lives."""
        return self._recorder.update(parse_id(job_id), lambda job: job.beat(at=self.clock()), quiet=True)

    def complete(self, job_id: UUID | str, *, duration_seconds: float | timedelta | None = None) -> SyncJob:
        """Finish a job successfully; one that is COMPLETED already is left alone."""
        return self._recorder.update(
            parse_id(job_id),
            lambda job: (
                job
                if job.status is JobStatus.COMPLETED
                else job.complete(at=self.clock(), duration_seconds=duration_seconds)
            ),
        )

    def fail(
        self,
        job_id: UUID | str,
        *,
        error: str,
        error_details: Mapping[str, Any] | None = None,
        duration_seconds: float | timedelta | None = None,
    ) -> SyncJob:
        """Finish a job with an error, made storable and redacted; the same failure again is left alone."""
        text = self.redacted_text(error)
        details = None if error_details is None else self.redacted(error_details)

        def step(job: SyncJob) -> SyncJob:
            if job.status is JobStatus.FAILED and job.error == text:
                return job
            return job.fail(at=self.clock(), error=text, error_details=details, duration_seconds=duration_seconds)

        return self._recorder.update(parse_id(job_id), step)

    def finish_cancel(self, job_id: UUID | str, *, reason: str | None = None) -> SyncJob:
        """The worker has stopped: CANCELLING (or PENDING) becomes CANCELLED, which is left alone."""
        text = None if reason is None else self.redacted_text(reason)
        return self._recorder.update(
            parse_id(job_id),
            lambda job: job if job.status is JobStatus.CANCELLED else job.cancel(at=self.clock(), reason=text),
        )

    def redacted_text(self, text: str, limit: int = TEXT_BYTES) -> str:
        """The text as it is stored: without secrets, and storable, in at most `limit` bytes of UTF-8.

        A redactor that fails costs the text only.
        """
        return self._sanitizer.text(text, limit)

    def redacted(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object as it is stored: likewise, also without what stands under keys that look secret."""
        return self._sanitizer.json(value)

    def without_secrets(self, text: str) -> str:
        """The text without secrets, as long as it is: for what is cut afterwards."""
        return self._sanitizer.without_secrets(text)
