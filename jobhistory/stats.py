"""Stats: what a connection's newest jobs come to, in figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Self

import attrs

from jobhistory.job import SyncJob
from jobhistory.status import JobStatus

RUNNING_STATUSES = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})
"""A job in one of these has a worker."""


def took(job: SyncJob, now: datetime) -> float | None:
    """The seconds that the job took, or has been running for; None where nobody knows."""
    if job.is_active and job.started_at is not None:
        return max(0.0, (now - job.started_at).total_seconds())
    return job.duration_seconds


def longest_of(durations: Iterable[float | None]) -> float:
    """The longest of the durations that are known, which bars are drawn to; 1 where there is none, or it is 0."""
    return max((seconds for seconds in durations if seconds is not None), default=0) or 1


def heights(durations: Sequence[float | None], full: int, least: int) -> list[int]:
    """How high a bar for each duration is, the longest at `full`.

    One that is unknown, or short, is at `least`: that there was a job must be seen.
    """
    longest = longest_of(durations)
    return [least if seconds is None else max(least, round(seconds / longest * full)) for seconds in durations]


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which a part (0 to 1) of the values lies; they are given in ascending order, one at least.

    Definition 7 of Hyndman & Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50 (1996),
    361-365: what numpy.quantile and statistics.quantiles(method="inclusive") give. Half is the median.
    """
    place = (len(ordered) - 1) * part
    below = int(place)
    lower, upper = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    return lower + (upper - lower) * (place - below)


@attrs.frozen(kw_only=True)
class Stats:
    """Figures of some of a connection's jobs, as a rule its newest; durations are in seconds.

    A job that was cancelled is neither a success nor a failure, and durations are those of completed jobs.
    """

    jobs: int
    """How many they are drawn from."""
    running: int
    """How many of those run now, or are being cancelled."""
    newest: SyncJob | None
    last_success: SyncJob | None
    """The newest COMPLETED job; from `JobHistory.stats` and `.health` also where it lies further back."""
    failure_streak: int
    """How many failed, one after the other, since the last one that completed."""
    success_rate: float | None
    """The part of those that completed among those that completed or failed; None where there are none."""
    p50_seconds: float | None
    p95_seconds: float | None

    @classmethod
    def of(cls, jobs: Sequence[SyncJob]) -> Self:
        """The figures of these jobs, which are one connection's and stand newest first."""
        completed, failed, running, streak = [], 0, 0, 0
        for job in jobs:
            status = job.status
            if status is JobStatus.COMPLETED:
                completed.append(job)
            elif status is JobStatus.FAILED:
                failed += 1
                streak += not completed
            elif status in RUNNING_STATUSES:
                running += 1
        durations = sorted([job.duration_seconds for job in completed if job.duration_seconds is not None])
        return cls(
            jobs=len(jobs),
            running=running,
            newest=jobs[0] if jobs else None,
            last_success=completed[0] if completed else None,
            failure_streak=streak,
            success_rate=len(completed) / (len(completed) + failed) if completed or failed else None,
            p50_seconds=quantile(durations, 0.5) if durations else None,
            p95_seconds=quantile(durations, 0.95) if durations else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures under their names, as JSON types; jobs in the contract's form."""
        return {
            name: value.to_dict() if isinstance(value, SyncJob) else value
            for name, value in attrs.asdict(self, recurse=False).items()
        }
