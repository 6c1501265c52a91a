"""Faults of add, add_many and get."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from uuid import UUID

import attrs

from jobhistory.errors import ActiveJobExistsError, DuplicateJobError
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from tests.broken.base import Gap, caught_by


@caught_by("test_an_added_job_is_there")
class BornAtVersionOne(InMemoryJobRepository):
    """add sets the version itself."""

    def _insert(self, job: SyncJob) -> None:
        super()._insert(attrs.evolve(job, version=1))


@caught_by("test_adding_needs_a_known_connection")
class AddRegisters(InMemoryJobRepository):
    """A job of an unknown connection registers it."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        self.register(job.source_connection_id)
        super().add(job, exclusive=exclusive)


@caught_by("test_adding_a_stored_job_again_changes_nothing", "test_what_is_refused_is_not_announced")
class AddReplayRefused(InMemoryJobRepository):
    """A job that is stored already is a duplicate, though it is equal."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        if job.id in self._jobs:
            raise DuplicateJobError(job.id)
        super().add(job, exclusive=exclusive)


@caught_by("test_adding_a_stored_job_again_changes_nothing")
class ExclusiveReplayRefused(InMemoryJobRepository):
    """An exclusive add that is replayed finds its own job active."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        if exclusive:
            self._require_none_active(job.source_connection_id)
        super().add(job, exclusive=exclusive)


@caught_by("test_adding_a_stored_job_again_changes_nothing", "test_what_is_refused_is_not_announced")
class AddReplayAnnounced(InMemoryJobRepository):
    """A replayed add is announced once more."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        replayed = job.id in self._jobs
        super().add(job, exclusive=exclusive)
        if replayed:
            self._feed.announce(job.id)


@caught_by("test_an_id_is_given_once", "test_one_job_gets_an_id")
class AddOverwrites(InMemoryJobRepository):
    """INSERT OR REPLACE: another job under a stored id takes its place."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        with self._open():
            if self._jobs.get(job.id, job) != job:
                self._active = [key for key in self._active if key[1] != job.id]
                self._delete([job.id])
            super().add(job, exclusive=exclusive)


@caught_by("test_an_id_is_given_once", "test_one_job_gets_an_id")
class AddIgnoresDuplicates(InMemoryJobRepository):
    """INSERT OR IGNORE: another job under a stored id is dropped in silence."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        if job.id not in self._jobs:
            super().add(job, exclusive=exclusive)


@caught_by("test_an_exclusive_add_is_refused_while_a_job_is_active", "test_one_exclusive_add_wins")
class ExclusiveIgnored(InMemoryJobRepository):
    """exclusive is taken, and forgotten."""

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:  # noqa: ARG002  the fault
        super().add(job)


@caught_by("test_an_exclusive_add_is_refused_while_a_job_is_active")
class ExclusiveIgnoresCancelling(InMemoryJobRepository):
    """A CANCELLING job does not stand in the way of an exclusive add."""

    def _require_none_active(self, source_connection_id: UUID) -> None:
        for job in self.active_jobs(statuses={JobStatus.PENDING, JobStatus.RUNNING}):
            if job.source_connection_id == source_connection_id:
                raise ActiveJobExistsError(source_connection_id, job.id)


@caught_by("test_an_exclusive_add_passes_by_finished_jobs_and_other_connections")
class ExclusiveOverAll(InMemoryJobRepository):
    """An active job of any connection stands in the way of an exclusive add."""

    def _require_none_active(self, source_connection_id: UUID) -> None:
        for _, id in self._active:
            raise ActiveJobExistsError(source_connection_id, id)


@caught_by("test_one_exclusive_add_wins", story=False)
class ExclusiveRacing(InMemoryJobRepository):
    """An exclusive add looks, then adds: not one step."""

    def __init__(self) -> None:
        super().__init__()
        self.gap = Gap()

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        if exclusive and job.id not in self._jobs:
            self._require_none_active(job.source_connection_id)
            self.gap()
        super().add(job)


@caught_by("test_no_job_outlives_its_connection", story=False)
class ForgetRacing(InMemoryJobRepository):
    """add looks for its connection, then adds: it may be forgotten in between."""

    def __init__(self) -> None:
        super().__init__()
        self.gap = Gap()

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        self._history(job.source_connection_id)
        self.gap()
        self.gap()
        self._histories.setdefault(job.source_connection_id, [])
        super().add(job, exclusive=exclusive)

    def forget(self, source_connection_id: UUID) -> None:
        self.gap()
        super().forget(source_connection_id)
        self.gap()


@caught_by("test_many_jobs_are_added_at_once", story=False)
class BatchesReadTwice(InMemoryJobRepository):
    """add_many goes through its argument twice; a generator is empty by then."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        for job in jobs:
            self._is_new(job)
        super().add_many(jobs)


@caught_by("test_many_jobs_are_added_at_once", story=False)
class BatchesCut(InMemoryJobRepository):
    """Of a batch the first 1,000 jobs are stored."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        super().add_many(islice(jobs, 1000))


@caught_by("test_a_batch_is_stored_whole_or_not_at_all", "test_what_is_refused_is_not_announced")
class BatchesPartial(InMemoryJobRepository):
    """add_many adds one after the other, up to the one that is refused."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        for job in jobs:
            self.add(job)


@caught_by("test_a_batch_is_stored_whole_or_not_at_all", story=False)
class BatchesInChunks(InMemoryJobRepository):
    """A batch is committed 1,000 jobs at a time."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        rest = iter(jobs)
        while chunk := list(islice(rest, 1000)):
            super().add_many(chunk)


@caught_by("test_an_unknown_connection_is_told_first")
class BatchesRefusedInOrder(InMemoryJobRepository):
    """Of several reasons to refuse a batch the first is told."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        jobs = list(jobs)
        for job in jobs:
            self._is_new(job)
        super().add_many(jobs)


@caught_by("test_a_batch_may_repeat_equal_jobs")
class BatchesRefuseRepeats(InMemoryJobRepository):
    """The same job twice in a batch is a duplicate."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        seen: set[UUID] = set()
        for job in jobs:
            if job.id in seen:
                raise DuplicateJobError(job.id)
            seen.add(job.id)
            self.add(job)


@caught_by("test_a_batch_may_repeat_equal_jobs", "test_what_is_refused_is_not_announced")
class BatchesAnnounceAll(InMemoryJobRepository):
    """What a batch repeats is announced again."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        jobs = list(jobs)
        super().add_many(jobs)
        for job in jobs:
            self._feed.announce(job.id)


@caught_by("test_getting_needs_a_stored_job", "test_adding_needs_a_known_connection")
class GetGivesNone(InMemoryJobRepository):
    """get gives None where it finds nothing."""

    def get(self, job_id: UUID) -> SyncJob:
        return self._jobs.get(job_id)  # type: ignore[return-value]  # the fault


@caught_by("test_an_added_job_is_there")
class GetGivesTheLatest(InMemoryJobRepository):
    """get gives the latest job there is, whatever was asked for."""

    def get(self, job_id: UUID) -> SyncJob:
        super().get(job_id)
        return next(reversed(self._jobs.values()))
