"""Hypothesis strategies for what a history holds, extremes included: jobs, histories, filters, limits, text.

Everything they make is legal, and what is called bad is refused: each job can be constructed and stored.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from jobhistory.job import MAX_COUNT, SyncJob
from jobhistory.repository import MAX_LIMIT
from jobhistory.status import JobStatus

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)


def ids() -> SearchStrategy[UUID]:
    """Any UUID of any version, the first and the last among them."""
    # The middle ones sort otherwise where bytes are swapped, signed, or compared as little-endian numbers.
    extremes = [0, 1, 1 << 64, 1 << 96, (1 << 127) - 1, 1 << 127, (1 << 128) - 1]
    return st.sampled_from([UUID(int=number) for number in extremes]) | st.uuids()


def timestamps() -> SearchStrategy[datetime]:
    """Aware UTC datetimes of the years 1 to 9999, to the microsecond; some a microsecond or less apart."""
    edges = [_FIRST, _NOON, _NOON + timedelta(microseconds=1), _NOON + timedelta(seconds=1), _LAST]
    return st.sampled_from(edges) | st.datetimes(timezones=st.just(UTC))


def statuses() -> SearchStrategy[JobStatus]:
    """Any status."""
    return st.sampled_from(JobStatus)


def status_filters() -> SearchStrategy[frozenset[JobStatus] | None]:
    """Any filter by status: None, the empty set, one, several, all."""
    return st.none() | st.frozensets(statuses())


def limits() -> SearchStrategy[int]:
    """Legal limits, 1 to 1000, mostly small or at the edge."""
    return st.integers(1, 5) | st.sampled_from([99, 100, 101, MAX_LIMIT - 1, MAX_LIMIT]) | st.integers(1, MAX_LIMIT)


def bad_limits() -> SearchStrategy[Any]:
    """What is no limit, though some of it looks like one."""
    return st.sampled_from([0, -1, MAX_LIMIT + 1, 2**63, True, 10.0, "10", b"10", None, [10]]) | st.integers(
        max_value=0
    )


def hostile_text(*, max_size: int = 40) -> SearchStrategy[str]:
    """Text that can be stored, and does harm where it is not quoted, escaped or counted right."""
    harmful = [
        "",
        " ",
        "'; DROP TABLE jobs; --",
        '"quoted" and \\escaped\\',
        "%s %(name)s {0} ? :id $1",
        "null",
        "\x1b[2J\x1b]0;title\x07",
        "line\r\nline\u2028line\x85",
        "\u202eright to left\u202c",
        "e\u0301 is not \xe9",
        "\U0001f9d1\u200d\U0001f680",
        "\ufeff\ufffe\uffff\U0010ffff",
        "\x01\x7f\x9f",
    ]
    characters = st.characters(codec="utf-8", exclude_characters="\0")
    return st.sampled_from([text for text in harmful if len(text) <= max_size]) | st.text(characters, max_size=max_size)


def json_objects(*, max_leaves: int = 8) -> SearchStrategy[dict[str, Any]]:
    """JSON objects that can be stored: hostile keys and texts, ints of any size, finite floats, nesting."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.sampled_from([2**53 + 1, 2**64, -(2**63) - 1, 10**300])
        | st.floats(allow_nan=False, allow_infinity=False)
        | hostile_text()
    )
    keys = hostile_text(max_size=12)
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=max_leaves,
    )
    return st.dictionaries(keys, values, max_size=4)


def counts() -> SearchStrategy[int]:
    """Entity counts, 0 to 2**63-1, the edges of narrower columns among them."""
    return st.sampled_from([0, 1, 2**31, 2**32, 2**53 + 1, MAX_COUNT]) | st.integers(0, MAX_COUNT)


def durations() -> SearchStrategy[float]:
    """Seconds: finite, not negative, down to the last bit."""
    return st.floats(min_value=0, allow_nan=False, allow_infinity=False)


# Made once: to make a strategy anew at each draw takes longer than the draw.
_IDS, _STATUSES, _TIMESTAMPS, _COUNTS = ids(), statuses(), timestamps(), counts()
_DURATION, _TEXT, _JSON = st.none() | durations(), st.none() | hostile_text(), st.none() | json_objects()
_VERSIONS = st.integers(1, 5) | st.integers(1, MAX_COUNT)


@st.composite
def jobs(
    draw: DrawFn,
    *,
    ids: SearchStrategy[UUID] = _IDS,
    source_connection_ids: SearchStrategy[UUID] = _IDS,
    statuses: SearchStrategy[JobStatus] = _STATUSES,
    at: SearchStrategy[datetime] = _TIMESTAMPS,
) -> SyncJob:
    """Any job that can be constructed: every status, every optional field there and not there.

    `at` makes all its times; few different ones make ties likely.
    """
    status, maybe = draw(statuses), st.none() | at
    ended = status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
    unsure = status in (JobStatus.FAILED, JobStatus.CANCELLED)
    first, last = sorted((draw(at), draw(at)))
    started_at = None if status is JobStatus.PENDING or (unsure and draw(st.booleans())) else first
    completed_at = None if not ended or (unsure and draw(st.booleans())) else last
    timed = started_at is not None and completed_at is not None
    entities = [0] * 4 if status is JobStatus.PENDING else [draw(_COUNTS) for _ in range(4)]
    return SyncJob(
        id=draw(ids),
        source_connection_id=draw(source_connection_ids),
        status=status,
        started_at=started_at,
        completed_at=completed_at,
        duration_seconds=draw(_DURATION) if timed else None,
        entities_inserted=entities[0],
        entities_updated=entities[1],
        entities_deleted=entities[2],
        entities_failed=entities[3],
        error=draw(_TEXT) if unsure else None,
        error_details=draw(_JSON) if ended else None,
        created_at=draw(at),
        cancel_requested_at=draw(maybe),
        heartbeat_at=draw(maybe),
        progress_at=draw(maybe),
        worker=draw(_TEXT),
        metadata=draw(_JSON),
        version=draw(_VERSIONS),
    )


@st.composite
def histories(
    draw: DrawFn,
    *,
    at: SearchStrategy[datetime] = _TIMESTAMPS,
    min_size: int = 0,
    max_size: int = 12,
) -> list[SyncJob]:
    """The jobs of one connection, in no order, their ids distinct and ties on created_at likely."""
    moments = st.sampled_from(draw(st.lists(at, min_size=1, max_size=3)))
    history = jobs(source_connection_ids=st.just(draw(_IDS)), at=moments)
    return draw(st.lists(history, min_size=min_size, max_size=max_size, unique_by=lambda job: job.id))
