"""Retention: which finished jobs may go, and what their going tells. `doomed` is the rule, a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import attrs

from jobhistory.errors import InvalidJobError
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from jobhistory.times import earlier, seconds

# ---- The rule


def _duration(value: float | timedelta) -> float:
    return seconds("older_than or keep_failed_for", value)


def _count(value: int | None) -> int | None:
    if value is None or (type(value) is int and value >= 1):
        return value
    raise InvalidJobError("keep_last", "must be an int from 1 (a connection's newest job always stays)", value)


@attrs.frozen(kw_only=True)
class Retention:
    """How long finished jobs stay, in each connection: one goes only where nothing here keeps it.

    Durations are seconds or timedeltas, counted from created_at. Raises InvalidJobError, also where neither
    older_than nor keep_last is given, and where keep_failed_for is the shorter one.

    Args:
        older_than: younger jobs stay.
        keep_last: so many of the newest stay, however old.
        keep_failed_for: FAILED jobs stay for so long instead of older_than.

    Whatever is asked: an active job stays, and so do a connection's newest job and its newest COMPLETED one.
    """

    older_than: float | None = attrs.field(default=None, converter=attrs.converters.optional(_duration))
    keep_last: int | None = attrs.field(default=None, converter=_count)
    keep_failed_for: float | None = attrs.field(default=None, converter=attrs.converters.optional(_duration))

    def __attrs_post_init__(self) -> None:
        if self.older_than is None and self.keep_last is None:
            raise InvalidJobError("older_than", "or keep_last must be given, to say what may go", None)
        if self.older_than is not None and self.keep_failed_for is not None and self.keep_failed_for < self.older_than:
            reason = f"must not be less than older_than ({self.older_than:g} s), for which every job stays"
            raise InvalidJobError("keep_failed_for", reason, self.keep_failed_for)

    def stays_from(self, now: datetime, status: JobStatus = JobStatus.COMPLETED) -> datetime | None:
        """Since when finished jobs with this status are too young to go; None where age keeps none."""
        failed = status is JobStatus.FAILED and self.keep_failed_for is not None
        age = self.keep_failed_for if failed else self.older_than
        return None if age is None else earlier(now, age)


def doomed(jobs: Iterable[SyncJob], rule: Retention, now: datetime) -> Iterator[SyncJob]:
    """Those that may go, of one connection's jobs, which come newest first."""
    since = {status: rule.stays_from(now, status) for status in JobStatus}
    completed = False
    for rank, job in enumerate(jobs):
        last_completed = job.status is JobStatus.COMPLETED and not completed
        completed = completed or last_completed
        young = (moment := since[job.status]) is not None and job.created_at >= moment
        if rank >= (rule.keep_last or 1) and job.is_terminal and not last_completed and not young:
            yield job


# ---- What it tells


@attrs.frozen
class Share:
    """What goes of one connection: how many jobs, and when the oldest and the newest of them were created."""

    jobs: int
    oldest: datetime
    newest: datetime


@attrs.frozen(kw_only=True)
class Pruned:
    """What was to go, by connection, and what went.

    The bytes are those that the history took before and takes now; None where its backend does not say.
    """

    planned: Mapping[UUID, Share]
    deleted: int = 0
    bytes_before: int | None = None
    bytes_after: int | None = None

    @property
    def jobs(self) -> int:
        """How many jobs were to go, of all connections together."""
        return sum(share.jobs for share in self.planned.values())


Step = Literal["planning", "deleting", "reclaiming"]
Progress = Callable[[Step, int, int], object]
"""Told how much of a step is done, and of how much: connections, jobs, bytes."""
