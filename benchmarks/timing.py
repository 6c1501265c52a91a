"""Two things timed in turn, so that a machine that slows down slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import attrs

from benchmarks.cases import Case


@attrs.frozen
class Measured:
    """Medians in seconds, and the median of the ratios turn by turn."""

    ours: float
    floor: float
    ratio: float


def in_turns(case: Case, *, seconds: float, at_least: int = 15) -> Measured:
    """Time both sides in turn for about so many seconds, after a warm-up."""
    ours, floor = case.ours, case.floor
    # What other cases hold is not theirs to look through at each collection, as it would not be in a process alone.
    gc.collect()
    gc.freeze()
    for call in (ours, floor):
        case.before()
        call()
    pairs: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(pairs) < at_least or time.perf_counter() < until:
        # Who goes first changes, for the second finds warmer caches.
        first, second = (ours, floor) if len(pairs) % 2 else (floor, ours)
        one, other = _timed(case, first), _timed(case, second)
        pairs.append((one, other) if first is ours else (other, one))
    return Measured(
        statistics.median(mine for mine, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(mine / theirs for mine, theirs in pairs),
    )


def _timed(case: Case, call: Callable[[], object]) -> float:
    case.before()
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
