"""Faults of replace and delete_many."""

# ruff: noqa: ANN401  what a fault does not touch it hands on as it came

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Any
from uuid import UUID

import attrs

from jobhistory.errors import ConflictError, DuplicateJobError, InvalidTransitionError, JobHistoryError
from jobhistory.job import SyncJob
from jobhistory.repository import Change, Position, refusal
from jobhistory.status import TRANSITIONS
from jobhistory.storage.memory import InMemoryJobRepository
from tests.broken.base import Gap, OwnRefusal, caught_by


@caught_by("test_only_the_next_version_replaces", "test_one_claim_wins")
class ReplaceWithoutVersion(OwnRefusal):
    """The last write wins, from whatever version it was made."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        return refusal(stored, attrs.evolve(job, version=stored.version + 1))


@caught_by("test_only_the_next_version_replaces")
class ReplaceWithAnyNewer(OwnRefusal):
    """Any greater version replaces, not the next alone."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        newer = job.version > stored.version
        return refusal(stored, attrs.evolve(job, version=stored.version + 1) if newer else job)


@caught_by("test_only_the_next_version_replaces", story=False)
class ConflictsNameTheWrongJob(OwnRefusal):
    """ConflictError has the refused job for the stored one."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        error = refusal(stored, job)
        return ConflictError(job, job) if isinstance(error, ConflictError) else error


@caught_by("test_one_claim_wins", story=False)
class ClaimsRacing(OwnRefusal):
    """replace looks at the version, then writes: not one step."""

    def __init__(self) -> None:
        super().__init__()
        self.gap = Gap()

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        stored = self.get(job.id)
        if stored != job and (error := refusal(stored, job)):
            raise error
        self.gap()
        stored = self.get(job.id)
        super().replace(attrs.evolve(job, version=stored.version + 1), quiet=quiet)


@caught_by("test_a_finished_job_never_changes", "test_what_is_refused_is_not_announced")
class FinishedJobsChange(OwnRefusal):
    """A finished job may be written again with its own status."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        return None if stored.status is job.status else refusal(stored, job)


@caught_by("test_a_finished_job_never_changes")
class FinishedJobsChangeQuietly(OwnRefusal):
    """A quiet replace is written unseen."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        with self._open():
            if quiet:
                self.overwrite(job)
            else:
                super().replace(job)


@caught_by("test_identity_never_changes")
class ReplaceMovesInTime(OwnRefusal):
    """created_at is a column like others."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        return refusal(attrs.evolve(stored, created_at=job.created_at), job)


@caught_by("test_identity_never_changes", story=False)
class ReplaceComparesMetadataLoosely(OwnRefusal):
    """Metadata is compared as Python does it: True is 1, and 1 is 1.0."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        same = stored.metadata == job.metadata
        return refusal(attrs.evolve(stored, metadata=job.metadata) if same else stored, job)


@caught_by("test_the_order_of_metadata_keys_is_no_identity", story=False)
class ReplaceComparesMetadataAsText(OwnRefusal):
    """Metadata is compared as text."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        same = stored.metadata_json == job.metadata_json
        return refusal(stored, job) if same else ConflictError(stored, job)


@caught_by("test_only_the_edges_of_the_state_machine_are_written", "test_what_is_refused_is_not_announced")
class EdgesUnchecked(OwnRefusal):
    """Any status may follow any active one."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        error = refusal(stored, job)
        return None if isinstance(error, InvalidTransitionError) else error


@caught_by("test_only_the_edges_of_the_state_machine_are_written")
class StatusMustMove(OwnRefusal):
    """A replace that leaves the status, as a report does, is refused."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        if stored.status is job.status and not refusal(stored, job):
            return InvalidTransitionError(stored.id, stored.status, "stay")
        return refusal(stored, job)


@caught_by("test_a_conflict_is_told_before_a_wrong_edge")
class EdgesBeforeVersions(OwnRefusal):
    """The edge is checked first, on what may be stale."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        if job.status not in {stored.status, *TRANSITIONS[stored.status]}:
            return InvalidTransitionError(stored.id, stored.status, job.status)
        return refusal(stored, job)


@caught_by("test_replacing_with_the_stored_version_again_changes_nothing", "test_what_is_refused_is_not_announced")
class ReplaceReplayRefused(OwnRefusal):
    """A replace that is replayed conflicts with itself."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        if error := self.refused(self.get(job.id), job):
            raise error
        super().replace(job, quiet=quiet)


@caught_by("test_replacing_with_the_stored_version_again_changes_nothing")
class ReplaceReplayAnnounced(OwnRefusal):
    """A replayed replace is announced once more."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        replayed = self._jobs.get(job.id) == job
        super().replace(job, quiet=quiet)
        if replayed:
            self._feed.announce(job.id)


@caught_by("test_replacing_needs_a_stored_job")
class ReplaceInserts(OwnRefusal):
    """An upsert: replacing a job that is not there adds it."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        if job.id not in self._jobs:
            self.add(job)
        super().replace(job, quiet=quiet)


@caught_by("test_a_replaced_job_is_seen_everywhere", "test_finished_jobs_are_deleted_everywhere")
class ListsAreStale(OwnRefusal):
    """Lists come from a copy that no replace or delete reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[UUID, dict[UUID, SyncJob]] = defaultdict(dict)

    def _insert(self, job: SyncJob) -> None:
        super()._insert(job)
        self.first[job.source_connection_id].setdefault(job.id, job)

    def newest_jobs(self, *args: Any, **kwargs: Any) -> dict[UUID, list[SyncJob]]:
        newest = super().newest_jobs(*args, **kwargs)
        for id, first in self.first.items():
            if id in newest:
                newest[id] = sorted(first.values(), key=Position.of, reverse=True)[: kwargs.get("per_connection", 1)]
        return newest


@caught_by("test_a_replaced_job_is_seen_everywhere", "test_active_jobs_are_those_not_finished")
class ActiveForEver(InMemoryJobRepository):
    """A job that was once active stays among the active ones."""

    def __init__(self) -> None:
        super().__init__()
        self.once: set[UUID] = set()

    def active_jobs(self, *, limit: int = 100, **page: Any) -> list[SyncJob]:
        self.once |= {job.id for job in super().active_jobs(limit=limit, **page)}
        return sorted((self._jobs[id] for id in self.once), key=Position.of, reverse=True)[:limit]


@caught_by("test_a_replaced_job_is_seen_everywhere")
class UpdateForgetsAColumn(OwnRefusal):
    """The UPDATE does not set the worker."""

    def overwrite(self, job: SyncJob) -> None:
        super().overwrite(attrs.evolve(job, worker=self._jobs[job.id].worker))


@caught_by("test_active_and_unknown_jobs_are_skipped")
class DeleteTakesActiveJobs(InMemoryJobRepository):
    """delete_many deletes whatever it is given."""

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = {id for id in job_ids if id in self._jobs}
        self._active = [key for key in self._active if key[1] not in ids]
        return self._delete(ids)


@caught_by("test_active_and_unknown_jobs_are_skipped")
class DeleteCountsWhatWasAsked(InMemoryJobRepository):
    """delete_many says how many ids it was given."""

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = list(job_ids)
        super().delete_many(ids)
        return len(ids)


@caught_by("test_active_and_unknown_jobs_are_skipped", "test_any_number_of_jobs_is_deleted")
class DeleteRefusesUnknown(InMemoryJobRepository):
    """delete_many raises at the first id it does not know."""

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = list(job_ids)
        for id in ids:
            self.get(id)
        return super().delete_many(ids)


@caught_by("test_finished_jobs_are_deleted_everywhere", "test_deletions_are_not_announced")
class DeletedJobsStayInTheFeed(InMemoryJobRepository):
    """The feed tells of jobs that are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[SyncJob] = []

    def _delete(self, ids: Iterable[UUID]) -> int:
        ids = list(ids)
        self.gone += [self._jobs[id] for id in ids]
        return super()._delete(ids)

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        return [Change("1", job) for job in self.gone] + super().changes(after, limit=limit)


@caught_by("test_deletions_are_not_announced")
class DeletionsAnnounced(InMemoryJobRepository):
    """A deletion announces the jobs beside the deleted one anew."""

    def _delete(self, ids: Iterable[UUID]) -> int:
        deleted = super()._delete(ids)
        for id in self._jobs:
            self._feed.announce(id)
        return deleted


@caught_by("test_any_number_of_jobs_is_deleted", story=False)
class DeleteLimited(InMemoryJobRepository):
    """delete_many deletes at most 1,000 jobs at a time."""

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        return super().delete_many(islice((id for id in job_ids if id in self._jobs), 1000))


@caught_by("test_a_deleted_id_may_be_given_again")
class DeletedIdsAreRemembered(InMemoryJobRepository):
    """The id of a deleted job is never free again."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: set[UUID] = set()

    def _delete(self, ids: Iterable[UUID]) -> int:
        ids = list(ids)
        self.gone.update(ids)
        return super()._delete(ids)

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        if job.id in self.gone:
            raise DuplicateJobError(job.id)
        super().add(job, exclusive=exclusive)


@caught_by("test_arguments_may_be_lazy_and_use_the_repository", "test_each_connection_asked_for_is_a_key", story=False)
class ArgumentsReadTwice(InMemoryJobRepository):
    """newest_jobs and delete_many go through their argument twice; a generator is empty by then."""

    def newest_jobs(self, source_connection_ids: Iterable[UUID] | None = None, **kwargs: Any) -> Any:
        for id in source_connection_ids or []:
            self._history(id)
        return super().newest_jobs(source_connection_ids, **kwargs)

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        return super().delete_many(job_ids) if any(id in self._jobs for id in job_ids) else 0
