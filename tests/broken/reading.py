"""Faults of list_jobs, active_jobs and newest_jobs."""

# ruff: noqa: ANN401  what a fault does not touch it hands on as it came

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from jobhistory.abilities import JSONPage
from jobhistory.errors import StorageError
from jobhistory.job import SyncJob
from jobhistory.repository import Change, Position
from jobhistory.status import ACTIVE_STATUSES, JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.times import to_wire
from tests.broken.base import caught_by


class OwnOrder(InMemoryJobRepository):
    """Pages as they should be, but that subclasses say how jobs are ordered, and which stand behind a place."""

    def rank(self, job: SyncJob) -> Any:
        return job.created_at, job.id

    def behind(self, job: SyncJob, place: Position) -> bool:
        return (job.created_at, job.id) < (place.created_at, place.id)

    def _newest(self, keys: Any, before: Position | None = None) -> Iterator[SyncJob]:
        jobs = [self._jobs[id] for id in self._jobs if any(id == key[1] for key in keys)]
        jobs = sorted(jobs, key=self.rank, reverse=True)
        return (job for job in jobs if before is None or self.behind(job, before))


@caught_by(
    "test_the_newest_stands_first",
    "test_the_pages_of_any_history_join_to_the_whole",
    "test_any_story_is_told_as_the_oracle_tells_it",
)
class OldestFirst(InMemoryJobRepository):
    """The order is turned round."""

    def _newest(self, keys: Any, before: Position | None = None) -> Iterator[SyncJob]:
        return reversed([*super()._newest(keys, before)])


@caught_by("test_the_newest_stands_first", story=False)
class OrderBySeconds(OwnOrder):
    """Jobs are ordered by whole seconds."""

    def rank(self, job: SyncJob) -> Any:
        return job.created_at.replace(microsecond=0), job.id


@caught_by("test_the_newest_stands_first")
class OrderByText(OwnOrder):
    """Jobs are ordered by ISO text that leaves out a fraction of zero."""

    def rank(self, job: SyncJob) -> Any:
        return to_wire(job.created_at), job.id


@caught_by("test_ties_stand_by_id", "test_the_pages_of_any_history_join_to_the_whole")
class TieBreakDropped(OwnOrder):
    """Jobs of one created_at stand as they were added."""

    def rank(self, job: SyncJob) -> Any:
        return job.created_at


@caught_by("test_ties_stand_by_id", "test_a_list_holds_one_connection")
class TiesAscending(OwnOrder):
    """Jobs of one created_at stand by id, but ascending."""

    def rank(self, job: SyncJob) -> Any:
        return job.created_at, -job.id.int


@caught_by("test_ties_stand_by_id")
class TiesByMixedBytes(OwnOrder):
    """Ids are compared as Microsoft stores them, with the first fields' bytes swapped."""

    def rank(self, job: SyncJob) -> Any:
        return job.created_at, job.id.bytes_le


@caught_by("test_ties_stand_by_id")
class TiesBySignedNumbers(OwnOrder):
    """Ids are compared as two signed 64-bit numbers, as Java does."""

    def rank(self, job: SyncJob) -> Any:
        halves = job.id.bytes[:8], job.id.bytes[8:]
        return job.created_at, [int.from_bytes(half, signed=True) for half in halves]


@caught_by("test_a_page_holds_at_most_the_limit")
class LimitOffByOne(InMemoryJobRepository):
    """A page holds one job more than the limit."""

    def list_jobs(self, source_connection_id: UUID, *, limit: int = 100, **page: Any) -> list[SyncJob]:
        return super().list_jobs(source_connection_id, limit=min(limit + 1, 1000), **page)


@caught_by("test_a_page_holds_at_most_the_limit", story=False)
class LimitCapped(InMemoryJobRepository):
    """No page holds more than 100 jobs, whatever the limit."""

    def list_jobs(self, source_connection_id: UUID, **page: Any) -> list[SyncJob]:
        return super().list_jobs(source_connection_id, **page)[:100]


@caught_by("test_a_page_holds_at_most_the_limit", story=False)
class DefaultLimitDiffers(InMemoryJobRepository):
    """A page holds 50 jobs where no limit is given."""

    def active_jobs(self, *, limit: int = 50, **page: Any) -> list[SyncJob]:
        return super().active_jobs(limit=limit, **page)


@caught_by("test_a_limit_is_an_int_from_1_to_1000", story=False)
class LimitsConverted(InMemoryJobRepository):
    """A limit is whatever int() makes of it."""

    def list_jobs(self, source_connection_id: UUID, *, limit: Any = 100, **page: Any) -> list[SyncJob]:
        return super().list_jobs(source_connection_id, limit=_as_int(limit), **page)


@caught_by("test_a_limit_is_an_int_from_1_to_1000", story=False)
class LimitsClamped(InMemoryJobRepository):
    """A limit that is too great or too small is brought into bounds."""

    def changes(self, after: str | None = None, *, limit: Any = 1000) -> list[Change]:
        return super().changes(after, limit=max(1, min(limit, 1000)) if type(limit) is int else limit)


@caught_by("test_a_page_starts_behind_the_position", "test_the_pages_of_any_history_join_to_the_whole")
class BeforeInclusive(OwnOrder):
    """A page begins with the job that the page before it ended with."""

    def behind(self, job: SyncJob, place: Position) -> bool:
        return (job.created_at, job.id) <= (place.created_at, place.id)


@caught_by("test_a_page_starts_behind_the_position", "test_the_pages_of_any_history_join_to_the_whole")
class BeforeByTimeAlone(OwnOrder):
    """The cursor is created_at alone: ties across a page's end are skipped."""

    def behind(self, job: SyncJob, place: Position) -> bool:
        return job.created_at < place.created_at


@caught_by("test_a_page_starts_behind_the_position")
class BeforeInEachColumn(OwnOrder):
    """Behind is taken for: not later, and of a smaller id."""

    def behind(self, job: SyncJob, place: Position) -> bool:
        return job.created_at <= place.created_at and job.id < place.id


@caught_by("test_a_position_need_not_be_a_jobs", "test_pages_hold_through_inserts_and_deletes")
class BeforeLooksTheJobUp(OwnOrder):
    """A position whose job is gone leads to the first page."""

    def behind(self, job: SyncJob, place: Position) -> bool:
        return place.id not in self._jobs or super().behind(job, place)


@caught_by("test_pages_hold_through_inserts_and_deletes")
class PagesByOffset(InMemoryJobRepository):
    """OFFSET: a page skips as many jobs as stood before the position when it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: dict[Position, int] = {}

    def list_jobs(
        self, source_connection_id: UUID, *, limit: int = 100, before: Position | None = None, **page: Any
    ) -> list[SyncJob]:
        offset = self.offsets.get(before, 0) if before else 0
        jobs = super().list_jobs(source_connection_id, limit=1000, **page)[offset : offset + limit]
        self.offsets |= {Position.of(job): offset + n for n, job in enumerate(jobs, start=1)}
        return jobs


@caught_by("test_a_position_is_a_position", story=False)
class PositionsFromAnything(InMemoryJobRepository):
    """Whatever has a created_at and an id is a position."""

    def _newest(self, keys: Any, before: Any = None) -> Iterator[SyncJob]:
        return super()._newest(keys, Position.of(before) if hasattr(before, "created_at") else before)


@caught_by("test_statuses_filter", "test_the_filter_comes_before_the_limit")
class FilterIgnored(InMemoryJobRepository):
    """statuses is taken, and forgotten."""

    def list_jobs(self, source_connection_id: UUID, *, statuses: Any = None, **page: Any) -> list[SyncJob]:  # noqa: ARG002  the fault
        return super().list_jobs(source_connection_id, **page)


@caught_by("test_the_filter_comes_before_the_limit")
class FilterAfterLimit(InMemoryJobRepository):
    """A page is read, then filtered."""

    def list_jobs(self, source_connection_id: UUID, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        jobs = super().list_jobs(source_connection_id, **page)
        return [job for job in jobs if statuses is None or job.status in statuses]


@caught_by("test_statuses_filter", "test_active_statuses_filter")
class EmptyFilterIsNone(InMemoryJobRepository):
    """An empty set of statuses is taken for no filter."""

    def list_jobs(self, source_connection_id: UUID, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        return super().list_jobs(source_connection_id, statuses=statuses or None, **page)

    def active_jobs(self, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        return super().active_jobs(statuses=statuses or None, **page)


@caught_by("test_a_status_is_a_job_status", story=False)
class StatusesFromWords(InMemoryJobRepository):
    """The words of statuses are taken for statuses."""

    def list_jobs(self, source_connection_id: UUID, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        if isinstance(statuses, list):
            statuses = [JobStatus(status) if status in [*JobStatus] else status for status in statuses]
        return super().list_jobs(source_connection_id, statuses=statuses, **page)


@caught_by("test_an_unknown_connection_is_no_empty_one", "test_forgetting_drops_a_connection_and_its_jobs")
class UnknownIsEmpty(InMemoryJobRepository):
    """An unknown connection has no jobs, that is all."""

    def list_jobs(self, source_connection_id: UUID, **page: Any) -> list[SyncJob]:
        return super().list_jobs(source_connection_id, **page) if source_connection_id in self._names else []


@caught_by("test_an_unknown_connection_is_no_empty_one")
class EmptyIsUnknown(InMemoryJobRepository):
    """A connection without jobs is not known."""

    def list_jobs(self, source_connection_id: UUID, **page: Any) -> list[SyncJob]:
        if not self._histories.get(source_connection_id):
            source_connection_id = UUID(int=0)
        return super().list_jobs(source_connection_id, **page)


@caught_by("test_a_list_holds_one_connection")
class ListsHoldTies(OwnOrder):
    """A precedence slip, `connection = ? AND created_at = ? OR id < ?`: behind a place stand others' jobs too."""

    def list_jobs(self, source_connection_id: UUID, **page: Any) -> list[SyncJob]:
        everything = {key for history in self._histories.values() for key in history}
        self._history(source_connection_id)
        history = self._histories[source_connection_id]
        try:
            if page.get("before"):
                self._histories[source_connection_id] = sorted(everything)
            return super().list_jobs(source_connection_id, **page)
        finally:
            self._histories[source_connection_id] = history


@caught_by("test_active_jobs_are_those_not_finished")
class ActiveUntilCompleted(InMemoryJobRepository):
    """Active is what has no completed_at."""

    def active_jobs(self, *, limit: int = 100, **page: Any) -> list[SyncJob]:
        super().active_jobs(limit=limit, **page)
        unfinished = [job for job in self._jobs.values() if job.completed_at is None]
        return sorted(unfinished, key=Position.of, reverse=True)[:limit]


@caught_by("test_active_jobs_are_those_not_finished")
class WaitingIsNotActive(InMemoryJobRepository):
    """A PENDING job is not active yet."""

    def active_jobs(self, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        if statuses is None:
            statuses = {JobStatus.RUNNING, JobStatus.CANCELLING}
        return super().active_jobs(statuses=statuses, **page)


@caught_by("test_active_statuses_filter")
class ActiveFilterKeepsTheFirst(InMemoryJobRepository):
    """Of several statuses one is looked for."""

    def active_jobs(self, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        return super().active_jobs(statuses=None if statuses is None else [*statuses][:1], **page)


@caught_by("test_no_finished_status_is_active", story=False)
class FinishedStatusesPass(InMemoryJobRepository):
    """A terminal status asked of active_jobs finds nothing, and nobody says why."""

    def active_jobs(self, *, statuses: Any = None, **page: Any) -> list[SyncJob]:
        if isinstance(statuses, set):
            statuses &= ACTIVE_STATUSES
        return super().active_jobs(statuses=statuses, **page)


class OwnSilence(InMemoryJobRepository):
    """active_jobs as it should be, but that subclasses say which jobs are silent."""

    def silent(self, job: SyncJob, since: datetime) -> bool:
        return job.last_sign_at < since

    def active_jobs(self, *, limit: int = 100, silent_since: Any = None, **page: Any) -> list[SyncJob]:
        jobs = super().active_jobs(limit=1000, **page)
        return [job for job in jobs if silent_since is None or self.silent(job, silent_since)][:limit]


@caught_by("test_silence_is_measured_from_the_last_sign")
class SilenceInclusive(OwnSilence):
    """Who was heard of at silent_since is silent."""

    def silent(self, job: SyncJob, since: datetime) -> bool:
        return job.last_sign_at <= since


@caught_by("test_silence_is_measured_from_the_last_sign", "test_the_silent_are_chosen_before_the_limit")
class SilenceWithoutHeartbeats(OwnSilence):
    """Nobody looks at heartbeats."""

    def silent(self, job: SyncJob, since: datetime) -> bool:
        return max(job.started_at or job.created_at, job.created_at) < since


@caught_by("test_silence_is_measured_from_the_last_sign")
class SilenceByHeartbeatsAlone(OwnSilence):
    """A job that never beat is silent from the start."""

    def silent(self, job: SyncJob, since: datetime) -> bool:
        return job.heartbeat_at is None or job.heartbeat_at < since


@caught_by("test_silence_is_measured_from_the_last_sign")
class SilenceByProgress(OwnSilence):
    """Progress counts as a sign."""

    def silent(self, job: SyncJob, since: datetime) -> bool:
        return max(job.progress_at or job.created_at, job.last_sign_at) < since


@caught_by("test_the_silent_are_chosen_before_the_limit")
class SilenceAfterLimit(InMemoryJobRepository):
    """A page is read, then the silent are chosen."""

    def active_jobs(self, *, silent_since: Any = None, **page: Any) -> list[SyncJob]:
        jobs = super().active_jobs(**page)
        return [job for job in jobs if silent_since is None or job.last_sign_at < silent_since]


@caught_by("test_silent_since_is_an_aware_datetime", story=False)
class SilenceInLocalTime(InMemoryJobRepository):
    """A naive silent_since is taken for UTC."""

    def active_jobs(self, *, silent_since: Any = None, **page: Any) -> list[SyncJob]:
        if isinstance(silent_since, datetime):
            silent_since = silent_since.replace(tzinfo=silent_since.tzinfo or UTC)
        return super().active_jobs(silent_since=silent_since, **page)


@caught_by("test_each_connection_asked_for_is_a_key", "test_all_connections_stand_by_id_where_none_is_named")
class NewestWithoutTheEmpty(InMemoryJobRepository):
    """An inner join: connections without jobs are no keys."""

    def newest_jobs(self, *args: Any, **kwargs: Any) -> dict[UUID, list[SyncJob]]:
        return {id: jobs for id, jobs in super().newest_jobs(*args, **kwargs).items() if jobs}


@caught_by("test_each_connection_asked_for_is_a_key")
class NewestSorted(InMemoryJobRepository):
    """The keys stand by id, whatever was asked."""

    def newest_jobs(self, *args: Any, **kwargs: Any) -> dict[UUID, list[SyncJob]]:
        return dict(sorted(super().newest_jobs(*args, **kwargs).items()))


@caught_by("test_all_connections_stand_by_id_where_none_is_named")
class NewestAsRegistered(InMemoryJobRepository):
    """Where none is named the connections stand as they were registered."""

    def newest_jobs(self, source_connection_ids: Any = None, **kwargs: Any) -> dict[UUID, list[SyncJob]]:
        return super().newest_jobs([*self._names] if source_connection_ids is None else source_connection_ids, **kwargs)


@caught_by("test_every_connection_asked_for_must_be_known")
class NewestIgnoresUnknown(InMemoryJobRepository):
    """An unknown connection is left out."""

    def newest_jobs(self, source_connection_ids: Any = None, **kwargs: Any) -> dict[UUID, list[SyncJob]]:
        ids = source_connection_ids
        return super().newest_jobs(None if ids is None else [id for id in ids if id in self._names], **kwargs)


@caught_by("test_any_number_of_connections_may_be_asked_for", "test_any_number_of_jobs_is_deleted", story=False)
class TooManyVariables(InMemoryJobRepository):
    """One SQL variable an id: at most 32,766."""

    def newest_jobs(self, source_connection_ids: Any = None, **kwargs: Any) -> dict[UUID, list[SyncJob]]:
        ids = source_connection_ids
        return super().newest_jobs(None if ids is None else _few_enough(ids), **kwargs)

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        return super().delete_many(_few_enough(job_ids))


def _as_int(value: Any) -> Any:
    try:
        return int(value)
    except (TypeError, ValueError):
        return value


def _few_enough(ids: Iterable[UUID]) -> list[UUID]:
    few = list(ids)
    if len(few) > 32_766:
        raise StorageError("memory:", "too many SQL variables")
    return few


class JSONPages(InMemoryJobRepository):
    """Lists as JSON too, but that subclasses say how it is written and what comes back."""

    def written(self, jobs: list[SyncJob]) -> str:
        return json.dumps([job.to_dict() for job in jobs], ensure_ascii=False, separators=(",", ":"))

    def list_jobs_json(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> JSONPage | None:
        jobs = self.list_jobs(source_connection_id, limit=limit, before=before, statuses=statuses)
        return JSONPage(self.written(jobs), len(jobs), Position.of(jobs[-1])) if jobs else None


@caught_by("test_a_page_as_json_is_its_records_as_json", story=False)
class JSONInOtherWords(JSONPages):
    """The same values, but that what is not ASCII is escaped."""

    def written(self, jobs: list[SyncJob]) -> str:
        return json.dumps([job.to_dict() for job in jobs], separators=(",", ":"))


@caught_by("test_a_page_as_json_is_its_records_as_json", story=False)
class JSONOfAllFields(JSONPages):
    """The bookkeeping, too."""

    def written(self, jobs: list[SyncJob]) -> str:
        return json.dumps([job.to_dict(bookkeeping=True) for job in jobs], ensure_ascii=False, separators=(",", ":"))


@caught_by("test_a_page_as_json_is_its_records_as_json", story=False)
class JSONAskedWithAnything(JSONPages):
    """A limit of 0 gives what 1 gives."""

    def list_jobs_json(self, source_connection_id: UUID, *, limit: int = 100, **asked: Any) -> JSONPage | None:
        return super().list_jobs_json(source_connection_id, limit=limit or 1, **asked)
