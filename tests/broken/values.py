"""Faults of what is stored, and of close."""

# ruff: noqa: ANN401  what a fault does not touch it hands on as it came

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from jobhistory.errors import StorageError
from jobhistory.ids import parse_id
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from tests.broken.base import caught_by


class Altered(InMemoryJobRepository):
    """Stores each job as `altered` gives it."""

    def altered(self, job: SyncJob) -> SyncJob:
        raise NotImplementedError

    def _insert(self, job: SyncJob) -> None:
        super()._insert(self.altered(job))

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        super().replace(job, quiet=quiet)
        self._jobs[job.id] = self.altered(job)


@caught_by("test_counts_are_exact", "test_any_job_is_kept_as_it_is", story=False)
class CountsCut(Altered):
    """A count is a 32-bit column."""

    def altered(self, job: SyncJob) -> SyncJob:
        return attrs.evolve(job, entities_inserted=job.entities_inserted & 0xFFFF_FFFF)


@caught_by("test_counts_are_exact", story=False)
class CountsAreFloats(Altered):
    """A count goes through a float."""

    def altered(self, job: SyncJob) -> SyncJob:
        return attrs.evolve(job, entities_updated=min(2**63 - 1, int(float(job.entities_updated))))


@caught_by("test_times_are_exact", story=False)
class MicrosecondsCut(Altered):
    """Times are kept to the millisecond."""

    def altered(self, job: SyncJob) -> SyncJob:
        if job.heartbeat_at is None:
            return job
        beat = job.heartbeat_at
        return attrs.evolve(job, heartbeat_at=beat.replace(microsecond=beat.microsecond // 1000 * 1000))


@caught_by("test_times_are_exact", story=False)
class TimesAreFloats(Altered):
    """Times are kept as seconds since 1970, in a float."""

    def altered(self, job: SyncJob) -> SyncJob:
        if job.progress_at is None:
            return job
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        since = (job.progress_at - epoch).total_seconds()
        return attrs.evolve(job, progress_at=epoch + timedelta(seconds=since))


@caught_by("test_durations_are_exact", story=False)
class DurationsRounded(Altered):
    """A duration is kept to the millisecond."""

    def altered(self, job: SyncJob) -> SyncJob:
        duration = job.duration_seconds
        return attrs.evolve(job, duration_seconds=None if duration is None else round(duration, 3))


@caught_by("test_durations_are_exact", "test_nothing_is_not_empty")
class DurationsDerived(Altered):
    """A duration is the difference of the timestamps."""

    def altered(self, job: SyncJob) -> SyncJob:
        if not job.started_at or not job.completed_at:
            return job
        return attrs.evolve(job, duration_seconds=(job.completed_at - job.started_at).total_seconds())


@caught_by("test_text_is_exact", story=False)
class TextCut(Altered):
    """VARCHAR(4000)."""

    def altered(self, job: SyncJob) -> SyncJob:
        return attrs.evolve(job, error=job.error and job.error[:4000])


@caught_by("test_text_is_exact", story=False)
class TextStripped(Altered):
    """Blanks around a text are taken off."""

    def altered(self, job: SyncJob) -> SyncJob:
        return attrs.evolve(job, worker=job.worker and job.worker.strip(" "))


@caught_by("test_text_is_exact", "test_json_is_exact")
class TextWithoutRockets(Altered):
    """MySQL's utf8: no character of four bytes."""

    def altered(self, job: SyncJob) -> SyncJob:
        def without(value: Any) -> Any:
            return value.replace("\U0001f680", "?") if isinstance(value, str) else value

        return attrs.evolve(job, error=without(job.error), error_details=_deep(without, job.error_details))


@caught_by("test_json_is_exact")
class JSONKeysSorted(Altered):
    """jsonb: keys come back in an order of its own."""

    def altered(self, job: SyncJob) -> SyncJob:
        details = job.error_details
        return attrs.evolve(job, error_details=None if details is None else dict(sorted(details.items())))


@caught_by("test_json_is_exact", story=False)
class JSONNumbersAreFloats(Altered):
    """Each number in JSON is a double."""

    def altered(self, job: SyncJob) -> SyncJob:
        def double(value: Any) -> Any:
            return float(value) if type(value) is int and abs(value) < 10**300 else value

        return attrs.evolve(job, error_details=_deep(double, job.error_details))


@caught_by("test_nothing_is_not_empty", "test_any_job_is_kept_as_it_is", story=False)
class EmptyIsNull(Altered):
    """Oracle: the empty text is null."""

    def altered(self, job: SyncJob) -> SyncJob:
        return attrs.evolve(job, error=job.error or None, worker=job.worker or None)


@caught_by("test_nothing_is_not_empty")
class NullIsEmpty(Altered):
    """JSON columns are NOT NULL DEFAULT '{}'."""

    def altered(self, job: SyncJob) -> SyncJob:
        return attrs.evolve(job, metadata=job.metadata or {})


@caught_by("test_any_job_is_kept_as_it_is", story=False)
class RequestsForgotten(Altered):
    """cancel_requested_at is kept only while the job is CANCELLING."""

    def altered(self, job: SyncJob) -> SyncJob:
        cancelling = job.status is JobStatus.CANCELLING
        return attrs.evolve(job, cancel_requested_at=job.cancel_requested_at if cancelling else None)


@caught_by("test_an_id_is_a_uuid", story=False)
class IdsFromText(InMemoryJobRepository):
    """The canonical text of an id is taken for the id."""

    def get(self, job_id: UUID) -> SyncJob:
        return super().get(parse_id(job_id))

    def list_jobs(self, source_connection_id: UUID, **page: Any) -> list[SyncJob]:
        return super().list_jobs(parse_id(source_connection_id), **page)


@caught_by("test_a_closed_repository_raises_storage_error", story=False)
class CloseDoesNothing(InMemoryJobRepository):
    """A closed repository goes on."""

    def close(self) -> None:
        pass


@caught_by("test_a_closed_repository_raises_storage_error", story=False)
class CloseForOneThread(InMemoryJobRepository):
    """close closes the connection of the thread that calls it."""

    def close(self) -> None:
        self.closer = threading.get_ident()

    def _open(self) -> Any:
        self._closed = getattr(self, "closer", None) == threading.get_ident()
        return super()._open()


@caught_by("test_a_closed_repository_raises_storage_error", story=False)
class CloseOnlyOnce(InMemoryJobRepository):
    """Closing again raises."""

    def close(self) -> None:
        if self._closed:
            raise StorageError("memory:", "is closed")
        super().close()


@caught_by("test_a_closed_repository_raises_storage_error", story=False)
class ReplaysAfterClose(InMemoryJobRepository):
    """A replay is recognised before anyone looks whether the repository is closed."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        if self._jobs.get(job.id) != job:
            super().replace(job, quiet=quiet)


def _deep(change: Callable[[Any], Any], value: Any) -> Any:
    """The JSON value with each leaf changed."""
    if isinstance(value, dict):
        return {key: _deep(change, child) for key, child in value.items()}
    if isinstance(value, list):
        return [_deep(change, child) for child in value]
    return change(value)
