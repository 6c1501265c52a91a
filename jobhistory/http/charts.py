"""Durations as bars, coloured by status: SVG for the page, made here, so that nothing draws in the browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby

import attrs
from markupsafe import Markup

from jobhistory.job import SyncJob
from jobhistory.stats import heights, longest_of, took
from jobhistory.times import span

_SPARK_BARS, _SPARK_STEP, _SPARK_HEIGHT = 30, 4, 24
_HEIGHT, _STEP, _LEAST_BARS = 160, 10, 24  # a bar's width, 8, stands in the style sheet
_STUB = 3
"""How high a bar is that has no duration: that there was a job must be seen."""
_TOPS = (
    0.02,
    0.1,
    0.4,
    1,
    2,
    4,
    10,
    20,
    60,
    120,
    240,
    600,
    900,
    1200,
    1800,
    3600,
    7200,
    14400,
    28800,
    43200,
    86400,
    172800,
)
"""Seconds that a chart may reach up to, half of each a round number too."""
_DAY = 86400


def spark(jobs: Sequence[SyncJob], now: datetime) -> Markup:
    """The newest jobs' durations in a line of text, the oldest on the left. `jobs` stand newest first."""
    shown = jobs[:_SPARK_BARS]
    durations = [took(job, now) for job in shown]
    longest = longest_of(durations)
    drawn = sorted(
        (job.status.lower(), f"M{_SPARK_BARS * _SPARK_STEP - 2 - n * _SPARK_STEP} {_SPARK_HEIGHT}v-{height}")
        for n, (job, height) in enumerate(zip(shown, heights(durations, _SPARK_HEIGHT, _STUB), strict=True))
    )
    paths = Markup().join(
        Markup('<path class="{}" d="{}"/>').format(status, "".join(d for _, d in several))
        for status, several in groupby(drawn, key=lambda bar: bar[0])
    )
    label = f"Durations of the last {len(shown)} jobs, up to {span(longest)}" if shown else "No jobs yet"
    return Markup('<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _SPARK_BARS * _SPARK_STEP, _SPARK_HEIGHT, label, paths
    )


@attrs.frozen
class Chart:
    """Bars, and the labels of what they stand before: the top, the middle, and the first and last job's time."""

    bars: Markup
    top: str
    middle: str
    first: datetime
    last: datetime


def chart(jobs: Sequence[SyncJob], now: datetime, url_of: Callable[[SyncJob], str]) -> Chart | None:
    """The jobs' durations, the oldest on the left, each bar a link; None where there is no job. Newest first."""
    if not jobs:
        return None
    durations = [took(job, now) for job in jobs]
    top = _top(max((seconds for seconds in durations if seconds is not None), default=0))
    slots = max(_LEAST_BARS, len(jobs))
    bars = Markup().join(
        Markup('<a href="{}" tabindex="-1"><rect class="{}" x="{}" y="{}" height="{}"/>{}</a>').format(
            url_of(job),
            job.status.lower(),
            (slots - 1 - n) * _STEP + 1,
            _HEIGHT - height,
            height,
            Markup("<title>{} {}</title>").format(job.status, "" if seconds is None else span(seconds)),
        )
        for n, (job, seconds) in enumerate(zip(jobs, durations, strict=True))
        for height in [_STUB if seconds is None else max(_STUB, round(seconds / top * _HEIGHT, 1))]
    )
    svg = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>').format(
        slots * _STEP,
        _HEIGHT,
        f"Durations of the {len(jobs)} jobs in the table, the oldest first, on a scale up to {span(top)}",
        bars,
    )
    return Chart(svg, span(top), span(top / 2), jobs[-1].created_at, jobs[0].created_at)


def _top(longest: float) -> float:
    """The least round number of seconds that is not below."""
    return next((top for top in _TOPS if top >= longest), -(-longest // (2 * _DAY)) * 2 * _DAY)
