"""Moments and durations: aware UTC datetimes to the microsecond, and seconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from jobhistory.errors import InvalidJobError

# RFC 3339 as the contract writes it; fromisoformat alone also takes week dates and cuts long fractions.
_WIRE = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
"""Seconds, and what a person calls so many."""


def utc_now() -> datetime:
    """The wall clock, as an aware UTC datetime: the default clock."""
    return datetime.now(UTC)


def utc(field: str, value: object) -> datetime:
    """An aware datetime as UTC; `field` names it in the InvalidJobError for anything else."""
    if not isinstance(value, datetime):
        raise InvalidJobError(field, "must be an aware datetime", value)
    if type(value) is datetime and value.tzinfo is UTC:
        return value.replace(fold=0) if value.fold else value
    if value.utcoffset() is None:
        raise InvalidJobError(field, "must have a time zone (datetime.now(UTC), not utcnow())", value)
    try:
        moved = value.astimezone(UTC)
    except OverflowError:
        raise InvalidJobError(field, "must lie in the years 1 to 9999 of UTC", value) from None
    # A subclass (freezegun's, pandas') would not survive storage as itself.
    return datetime.combine(moved.date(), moved.time(), UTC)


def to_wire(moment: datetime) -> str:
    """`2024-03-15T12:00:00Z`, with a fraction only where there is one."""
    return moment.isoformat()[:-6] + "Z"


def from_wire(field: str, value: object) -> datetime:
    """The moment written as RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339), up to microseconds.

    Raises InvalidJobError naming `field` for any other text, and where the zone is missing.
    """
    if isinstance(value, str) and _WIRE.fullmatch(value):
        try:
            return utc(field, datetime.fromisoformat(value))
        except ValueError:
            pass  # the thirtieth of February: said below
    raise InvalidJobError(field, "must be a time such as 2024-03-15T12:00:00Z", value)


def seconds(field: str, value: object) -> float:
    """A duration in seconds, from an int, a float or a timedelta: finite and not negative.

    Raises InvalidJobError naming `field` for anything else.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            duration = float(value)
        except OverflowError:
            duration = math.inf
        if math.isfinite(duration) and duration >= 0:
            return duration + 0.0  # -0.0 becomes 0.0
    raise InvalidJobError(field, "must be seconds (int, float or timedelta), finite and not negative", value)


def earlier(moment: datetime, duration: float) -> datetime:
    """So many seconds before the moment that a clock told, or the beginning of time, in UTC: no hour is put forward.

    Raises InvalidJobError where the clock told no aware datetime.
    """
    now = utc("the clock's time", moment)
    try:
        return now - timedelta(seconds=duration)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def span(seconds: float) -> str:
    """A duration for a person: 312ms, 5.3s, 5m 32s, 2h 5m, 3d 4h."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{int(seconds * 10) / 10:g}s"
    if seconds >= 10**9:  # thirty years: no sync took so long, but a record may say so
        return f"{seconds:.3g}s"
    at = next(i for i, (size, _) in enumerate(UNITS) if seconds >= size)
    (size, unit), (smaller, part) = UNITS[at : at + 2]
    whole, rest = divmod(int(seconds), size)
    return f"{whole}{unit}" + (f" {rest // smaller}{part}" if rest >= smaller else "")
