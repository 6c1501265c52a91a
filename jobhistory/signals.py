"""Signals: what is unlike the connection's usual course, with the numbers behind it.

A signal speaks where the observed is beyond a bound that is drawn from the connection's own earlier jobs, ten at
least. The methods are robust: a few odd jobs among the earlier ones move a median, and the median of the distances
from it (MAD), hardly at all (Hampel, "The Influence Curve and its Role in Robust Estimation", Journal of the American
Statistical Association 69 (1974), 383-393).

- What is usual follows the days of the week: it is the median of the jobs of the same weekday (UTC) where there are
  four, else of all. To take a group's median from its values is how Tukey takes two-way tables apart (Exploratory Data
  Analysis, 1977, chapter 10, "median polish").
- Durations and counts are skewed, and compared as ratios: as logarithms. Unusual is a modified z-score,
  0.6745 * (x - median) / MAD, beyond 3.5 (Iglewicz & Hoaglin, How to Detect and Handle Outliers, 1993, chapter 3).
- Where jobs hardly vary, that alone would cry for seconds. So the difference must also matter, and
- it must be news: a quarter beyond all but one of the earlier jobs. What was seen twice, such as the full sync that
  runs once a day among hourly ones, is the connection's way.

What no earlier job tells, nobody knows: an hourly sync that rests at weekends is called overdue on Saturday, for its
newest fifty jobs are two days.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any

import attrs

from jobhistory.job import SyncJob
from jobhistory.reaping import SILENT_FOR
from jobhistory.stats import RUNNING_STATUSES, quantile, took
from jobhistory.status import JobStatus
from jobhistory.times import span

ENOUGH = 10
"""So many earlier jobs, or gaps between them, before a signal speaks."""
SLOWER, FEWER = 2.0, 0.25
"""What matters: twice the usual duration, a quarter of the usual count."""
COUNTABLE = 20
"""Where fewer are usual, less says nothing."""
QUIET = 300.0
"""Seconds for which the counters of any job may stand still, and any connection be without a run."""

_UNUSUAL = 3.5
_NORMAL = 0.6745  # the MAD of a normal distribution with a standard deviation of 1
_NEWS = math.log(1.25)
_NEARLY_ALL = 0.95
_LONGER = 1.25
_REGULAR = 0.25
_BREAK = 1.5
_OF_A_WEEKDAY = 4
_WEEKS = 3
_THREE_WEEKS = timedelta(weeks=_WEEKS)


class SignalKind(StrEnum):
    """What a signal says."""

    SLOW = "SLOW"
    """A run takes, or the one that ended last took, much longer than usual."""
    FEW = "FEW"
    """The run that ended last inserted much less than usual."""
    OVERDUE = "OVERDUE"
    """It has not run, though it always runs regularly."""
    STALLED = "STALLED"
    """A run's counters stopped moving while its heart beats."""


@attrs.frozen(kw_only=True)
class Signal:
    """Something unusual, and the numbers behind it: seconds, or for FEW entities. `str()` says it in words."""

    kind: SignalKind
    job: SyncJob
    """The job that is unusual; where it is OVERDUE, the last one that ran."""
    observed: float
    usual: float
    """The median of the earlier ones."""
    bound: float
    """The observed is beyond it: above it, or for FEW below."""
    drawn_from: int
    """How many earlier jobs, or gaps between them, usual and bound are drawn from."""

    def __str__(self) -> str:
        if self.kind is SignalKind.FEW:
            less = 1 - self.observed / self.usual
            return f"inserted {less:.0%} less than usual: {self.observed:,.0f}, usually {self.usual:,.0f}"
        observed, usual = span(self.observed), span(self.usual)
        match self.kind:
            case SignalKind.SLOW:
                did = "has been running for" if self.job.is_active else "took"
                return f"{did} {self.observed / self.usual:.1f} times its usual: {observed}, usually {usual}"
            case SignalKind.OVERDUE:
                return f"has not run for {observed}, though it always runs, usually every {usual}"
            case _:
                return (
                    f"counters have not moved for {observed}, though its heart beats; whole runs usually take {usual}"
                )

    def to_dict(self) -> dict[str, Any]:
        """The signal as JSON types: the job by its id, and the words under `says`."""
        values = attrs.asdict(self, recurse=False)
        return values | {"kind": self.kind.value, "job": str(self.job.id), "says": str(self)}


def signals(jobs: Sequence[SyncJob], now: datetime) -> list[Signal]:
    """What is unusual in one connection's newest jobs, which stand newest first."""
    completed = [job for job in jobs if job.status is JobStatus.COMPLETED and job.duration_seconds is not None]
    running = [job for job in jobs if job.status in RUNNING_STATUSES]
    # What ended last is news until the next run ends.
    ended = next((job for job in jobs if job.is_terminal), None)
    newest = completed[:1] if completed and ended is completed[0] else []
    found = [_slow(job, completed, now) for job in (*running, *newest)]
    found += [_few(job, completed) for job in newest]
    found += [_stalled(job, completed, now) for job in running] or [_overdue(jobs, now)]
    return [signal for signal in found if signal is not None]


def _slow(job: SyncJob, completed: Sequence[SyncJob], now: datetime) -> Signal | None:
    """Whether the job, which runs or has completed, takes longer than usual."""
    earlier = [(each.created_at.weekday(), each.duration_seconds or 0) for each in completed if each is not job]
    return _unlike(SignalKind.SLOW, job, took(job, now) or 0, earlier, SLOWER)


def _few(job: SyncJob, completed: Sequence[SyncJob]) -> Signal | None:
    """Whether the job, which has completed, inserted less than usual."""
    earlier = [(each.created_at.weekday(), each.entities_inserted) for each in completed if each is not job]
    signal = _unlike(SignalKind.FEW, job, job.entities_inserted, earlier, FEWER)
    return None if signal is None or signal.usual < COUNTABLE else signal


def _unlike(
    kind: SignalKind, job: SyncJob, observed: float, earlier: Sequence[tuple[int, float]], matters: float
) -> Signal | None:
    """Whether what is observed lies far from the usual course of the earlier jobs: above, or below if `matters` < 1.

    Each earlier value comes with its day of the week.
    """
    if len(earlier) < ENOUGH:
        return None
    usual = _usual_on(job.created_at.weekday(), earlier)
    side = 1 if matters > 1 else -1
    distance, least = side * math.log(max(observed, 1) / usual), side * math.log(matters)
    if distance <= least:
        return None
    days = {day: _usual_on(day, earlier) for day in {day for day, _ in earlier}}
    distances = sorted(side * math.log(max(value, 1) / days[day]) for day, value in earlier)
    mad = quantile(sorted(map(abs, distances)), 0.5)
    bound = max(least, _UNUSUAL * mad / _NORMAL, distances[-2] + _NEWS)
    if distance <= bound:
        return None
    return Signal(
        kind=kind,
        job=job,
        observed=observed,
        usual=usual,
        bound=usual * math.exp(side * bound),
        drawn_from=len(earlier),
    )


def _usual_on(day: int, values: Sequence[tuple[int, float]]) -> float:
    """The median of that day of the week where it has some, else of all; 1 at least, for below it all is alike."""
    same = sorted([value for each, value in values if each == day])
    return max(quantile(same if len(same) >= _OF_A_WEEKDAY else sorted([value for _, value in values]), 0.5), 1)


def _stalled(job: SyncJob, completed: Sequence[SyncJob], now: datetime) -> Signal | None:
    """Whether the counters of the job, which runs, stand still for longer than nearly all whole runs took.

    No part of a run is longer than the run, however it reports: page by page, or once at its end.
    """
    heartbeat, since = job.heartbeat_at, job.progress_at or job.started_at
    counting = sorted(each.duration_seconds or 0 for each in completed if each.progress_at is not None)
    if heartbeat is None or since is None or len(counting) < ENOUGH:
        return None
    observed = (heartbeat - since).total_seconds()
    bound = max(QUIET, quantile(counting, _NEARLY_ALL) * _LONGER)
    # Where the heart does not beat either, who reaps looks at it.
    if observed <= bound or (now - heartbeat).total_seconds() > SILENT_FOR:
        return None
    return Signal(
        kind=SignalKind.STALLED,
        job=job,
        observed=observed,
        usual=quantile(counting, 0.5),
        bound=bound,
        drawn_from=len(counting),
    )


def _overdue(jobs: Sequence[SyncJob], now: datetime) -> Signal | None:
    """Whether the next run should have come, by the gaps between the earlier ones.

    They are regular where their MAD is less than a quarter of their median. The next run then comes within the longest
    of nearly all gaps; where there are breaks, such as weekends, within the longest of nearly all that began on the
    same weekday, once three weeks have shown them. Half a usual gap later it is overdue.
    """
    ran = [job for job in jobs if job.status is not JobStatus.PENDING]
    if len(ran) <= ENOUGH:
        return None
    last, observed = ran[0], (now - ran[0].created_at).total_seconds()
    gaps = [((later.created_at - job.created_at).total_seconds(), job) for later, job in pairwise(ran)]
    ordered = sorted(gap for gap, _ in gaps)
    usual, longest = quantile(ordered, 0.5), quantile(ordered, _NEARLY_ALL)
    if observed <= usual or quantile(sorted(abs(gap - usual) for gap in ordered), 0.5) >= usual * _REGULAR:
        return None
    if longest > usual * _BREAK:
        ordered = sorted(gap for gap, job in gaps if job.created_at.weekday() == last.created_at.weekday())
        if last.created_at - ran[-1].created_at < _THREE_WEEKS or len(ordered) < _WEEKS:
            return None
        longest = quantile(ordered, _NEARLY_ALL)
    bound = max(QUIET, longest + usual / 2)
    if observed <= bound:
        return None
    return Signal(
        kind=SignalKind.OVERDUE, job=last, observed=observed, usual=usual, bound=bound, drawn_from=len(ordered)
    )
