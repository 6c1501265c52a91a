from __future__ import annotations

import base64
import string
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.errors import (
    ConflictError,
    InvalidCursorError,
    InvalidIdError,
    InvalidJobError,
    InvalidLimitError,
    InvalidTransitionError,
)
from jobhistory.job import MAX_COUNT, SyncJob
from jobhistory.repository import (
    MAX_LIMIT,
    Before,
    Change,
    Cursor,
    Position,
    SourceConnection,
    check_active_statuses,
    check_before,
    check_limit,
    check_name,
    check_statuses,
    check_token,
    newest_first,
    position_of,
    refusal,
)
from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, TRANSITIONS, JobStatus
from jobhistory.testing.strategies import bad_limits, ids, limits, status_filters, timestamps

PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED = JobStatus

ID = UUID("770e8400-e29b-41d4-a716-446655440002")
CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
# Version 1 for ever: a token that a client kept must be read by every later release.
UNFILTERED = "AVUOhADim0HUpxZEZlVEAAAAAAYTsb9OkAB3DoQA4ptB1KcWRGZVRAACuiKM0g=="
FILTERED = "AVUOhADim0HUpxZEZlVEAABIAAYTsb9OkAB3DoQA4ptB1KcWRGZVRAACLQSEnA=="
CHARACTERS = string.ascii_letters + string.digits + "-_=+/ \n.~é"


class Number(IntEnum):
    ONE = 1


class Name(StrEnum):
    GITHUB = "github"


class OtherStatus(StrEnum):
    FAILED = "FAILED"


def job_in(status: JobStatus, /, **fields: Any) -> SyncJob:  # noqa: ANN401  any field's value
    needed: dict[str, Any] = {"id": ID, "source_connection_id": CONNECTION, "status": status, "created_at": NOON}
    if status is not PENDING:
        needed["started_at"] = NOON
    if status in TERMINAL_STATUSES:
        needed["completed_at"] = NOON
    return SyncJob(**{**needed, **fields})


def cursor_at(microseconds: int = 0, bits: int = 0, version: int = 1) -> str:
    """A token whose checksum is right, whatever it holds."""
    data = struct.pack(">B16sBq16s", version, CONNECTION.bytes, bits, microseconds, ID.bytes)
    return base64.urlsafe_b64encode(data + struct.pack(">I", zlib.crc32(data))).decode()


# The order.


BORN = st.builds(partial(job_in, PENDING), created_at=timestamps(), id=ids())


@given(st.lists(BORN))
def test_newest_first_is_by_birth_and_then_by_id_descending(history: list[SyncJob]) -> None:
    ordered = newest_first(iter(history))

    assert sorted(((job.created_at, job.id.bytes) for job in history), reverse=True) == [
        (job.created_at, job.id.bytes) for job in ordered
    ]
    assert ordered == newest_first(reversed(history))


def test_jobs_born_at_once_are_ordered_by_id() -> None:
    one, two = (job_in(status, id=UUID(int=i)) for i, status in enumerate([COMPLETED, PENDING]))

    assert [two, one] == newest_first([one, two]) == newest_first([two, one])


@given(BORN, BORN)
def test_positions_are_ordered_as_the_jobs_are(one: SyncJob, other: SyncJob) -> None:
    first, second = newest_first([one, other])

    assert Position.of(first) >= Position.of(second)
    assert Position.of(one) == Position(one.created_at, one.id)


def test_a_position_is_a_moment_in_utc_and_an_id() -> None:
    position = Position(NOON.astimezone(timezone(timedelta(hours=2))), ID)

    assert (NOON, UTC, ID) == (position.created_at, position.created_at.tzinfo, position.id)
    assert {position} == {Position(NOON, ID)}
    with pytest.raises(InvalidJobError, match="created_at must have a time zone"):
        Position(datetime(2024, 3, 15), ID)  # noqa: DTZ001
    text: Any = str(ID)
    with pytest.raises(InvalidIdError):
        Position(NOON, text)


def test_the_values_of_the_port_cannot_be_changed() -> None:
    values: list[Any] = [
        Position(NOON, ID),
        Cursor(CONNECTION, Position(NOON, ID)),
        Change("1", job_in(PENDING)),
        SourceConnection(CONNECTION),
    ]
    for value in values:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            value.id = value.job = None

    assert SourceConnection(CONNECTION, None) == SourceConnection(CONNECTION)


# Cursors.


@given(BORN, status_filters())
def test_a_cursor_comes_back_from_its_text(job: SyncJob, statuses: frozenset[JobStatus] | None) -> None:
    cursor = Cursor.after(job, statuses)
    token = str(cursor)
    read = Cursor.parse(token)

    assert cursor == read
    assert hash(cursor) == hash(read)
    assert (job.source_connection_id, Position.of(job), statuses) == (
        read.source_connection_id,
        read.position,
        read.statuses,
    )
    assert token == str(read)
    assert set(token) <= set(string.ascii_letters + string.digits + "-_=")


def test_the_filter_of_a_cursor_may_be_any_collection() -> None:
    job = job_in(FAILED)

    assert frozenset({FAILED}) == Cursor.after(job, [FAILED, FAILED]).statuses
    assert Cursor.after(job, iter([FAILED])) == Cursor.after(job, {FAILED})
    with pytest.raises(InvalidJobError, match="statuses"):
        Cursor.after(job, "FAILED")  # type: ignore[arg-type]


def test_a_cursor_is_read_by_every_later_release() -> None:
    assert UNFILTERED == str(Cursor.after(job_in(PENDING)))
    assert FILTERED == str(Cursor.after(job_in(FAILED), {FAILED}))
    assert Cursor(CONNECTION, Position(NOON, ID)) == Cursor.parse(UNFILTERED)
    assert Cursor(CONNECTION, Position(NOON, ID), frozenset({FAILED})) == Cursor.parse(FILTERED)


def test_each_status_and_no_status_and_no_filter_have_cursors_of_their_own() -> None:
    filters = [None, frozenset[JobStatus](), *(frozenset({status}) for status in JobStatus), frozenset(JobStatus)]
    tokens = [str(Cursor.after(job_in(PENDING), statuses)) for statuses in filters]

    assert len(filters) == len(set(tokens))
    assert filters == [Cursor.parse(token).statuses for token in tokens]
    assert [cursor_at(1710504000_000_000, bits) for bits in (0, 64, 65, 66, 68, 72, 80, 96, 127)] == tokens


def test_a_cursor_reaches_from_the_first_to_the_last_moment() -> None:
    for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        cursor = Cursor(CONNECTION, Position(moment, ID))

        assert cursor == Cursor.parse(str(cursor))


def assert_refused(token: Any) -> None:  # noqa: ANN401  what a caller may give
    with pytest.raises(InvalidCursorError) as caught:
        Cursor.parse(token)
    assert token is caught.value.cursor
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("token", [UNFILTERED, FILTERED])
def test_a_token_with_any_one_character_changed_is_refused(token: str) -> None:
    for i, character in product(range(len(token)), CHARACTERS):
        if character != token[i]:
            assert_refused(token[:i] + character + token[i + 1 :])


def test_a_token_with_one_character_more_or_less_is_refused() -> None:
    for i in range(len(UNFILTERED)):
        assert_refused(UNFILTERED[:i] + UNFILTERED[i + 1 :])
    for i, character in product(range(len(UNFILTERED) + 1), CHARACTERS):
        assert_refused(UNFILTERED[:i] + character + UNFILTERED[i:])


@given(BORN, status_filters(), st.data())
def test_a_damaged_token_is_refused(job: SyncJob, statuses: frozenset[JobStatus] | None, data: st.DataObject) -> None:
    token = str(Cursor.after(job, statuses))
    i = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.characters().filter(lambda drawn: drawn != token[i]))

    assert_refused(token[:i] + character + token[i + 1 :])


@pytest.mark.parametrize(
    "token",
    [
        "",
        "=",
        "abc",
        "é",
        "\ud800",
        "A" * 64,
        UNFILTERED + UNFILTERED,
        "A" * 10_000_000,
        UNFILTERED.encode(),
        b"",
        None,
        7,
        [UNFILTERED],
    ],
    ids=range(13),
)
def test_what_is_no_token_at_all_is_refused(token: object) -> None:
    assert_refused(token)


@given(st.binary(max_size=60) | st.binary(min_size=46, max_size=46))
def test_no_bytes_but_those_of_a_cursor_make_one(data: bytes) -> None:
    assert_refused(base64.urlsafe_b64encode(data).decode())


def test_a_token_of_another_version_is_refused_by_that_name() -> None:
    for version in (0, 2, 255):
        with pytest.raises(InvalidCursorError, match=f"has version {version}, which this release does not know"):
            Cursor.parse(cursor_at(version=version))
    assert Cursor(CONNECTION, Position(datetime(1970, 1, 1, tzinfo=UTC), ID)) == Cursor.parse(cursor_at())


@pytest.mark.parametrize("bits", [1, 32, 63, 128, 192, 255])
def test_a_token_with_a_filter_that_no_cursor_has_is_refused(bits: int) -> None:
    assert_refused(cursor_at(bits=bits))


@pytest.mark.parametrize("microseconds", [-(2**63), -(10**17), 10**18, 2**63 - 1])
def test_a_token_with_a_time_that_no_job_has_is_refused(microseconds: int) -> None:
    assert_refused(cursor_at(microseconds))


def test_a_refused_token_says_what_to_pass_instead() -> None:
    with pytest.raises(InvalidCursorError, match=r"cursor 'abc' is no cursor: pass what str\(cursor\) gave"):
        Cursor.parse("abc")
    with pytest.raises(InvalidCursorError, match=r"\bis damaged: pass what str\(cursor\) gave\Z"):
        Cursor.parse(UNFILTERED + "\n")


# What comes in.


@given(limits())
def test_a_limit_is_an_int_from_1_to_1000(limit: int) -> None:
    assert limit == check_limit(limit)
    assert (1, MAX_LIMIT) == (check_limit(1), check_limit(1000))


@given(bad_limits() | st.integers(min_value=1001) | st.floats() | st.text())
def test_anything_else_is_no_limit(limit: object) -> None:
    with pytest.raises(InvalidLimitError) as caught:
        check_limit(limit)
    assert (1000, str(limit)) == (caught.value.greatest, str(caught.value.limit))


@pytest.mark.parametrize("limit", [Number.ONE, True, 1.0, 1 + 0j, "1", None, 10**5000], ids=range(7))
def test_what_only_looks_like_a_limit_is_none(limit: object) -> None:
    with pytest.raises(InvalidLimitError, match="limit must be an int from 1 to 1000"):
        check_limit(limit)


def test_a_filter_by_status_is_a_collection_of_statuses_or_none() -> None:
    assert check_statuses(None) is None
    for given_ones in ([FAILED, RUNNING, FAILED], {RUNNING: 1, FAILED: 2}, iter((FAILED, RUNNING))):
        checked = check_statuses(given_ones)
        assert isinstance(checked, frozenset)
        assert {FAILED, RUNNING} == checked
    assert frozenset() == check_statuses([])
    assert frozenset(JobStatus) == check_statuses(JobStatus)


@pytest.mark.parametrize(
    ("statuses", "value", "reason"),
    [
        (FAILED, FAILED, "must be several, in a set or list"),
        ("FAILED", "FAILED", "must be several, in a set or list"),
        (7, 7, "must be several, in a set or list"),
        *(
            (
                [FAILED, odd],
                odd,
                "must be among CANCELLED, CANCELLING, COMPLETED, FAILED, PENDING, RUNNING",
            )
            for odd in ("FAILED", OtherStatus.FAILED, None, 7, ["FAILED"])
        ),
    ],
    ids=range(8),
)
def test_what_is_no_filter_by_status_is_refused(statuses: object, value: object, reason: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        check_statuses(statuses)
    assert ("statuses", value, reason) == (caught.value.field, caught.value.value, caught.value.reason)


def test_a_filter_of_active_jobs_is_of_active_statuses() -> None:
    assert check_active_statuses(None) == ACTIVE_STATUSES
    assert frozenset() == check_active_statuses([])
    assert frozenset({RUNNING}) == check_active_statuses([RUNNING])
    for status in TERMINAL_STATUSES:
        with pytest.raises(InvalidJobError, match="statuses must be among CANCELLING, PENDING, RUNNING, not") as caught:
            check_active_statuses([PENDING, status])
        assert status is caught.value.value


def test_a_page_begins_behind_a_position_or_at_the_newest() -> None:
    position = Position(NOON, ID)

    assert check_before(None) is None
    assert position is check_before(position)
    for odd in (Cursor(CONNECTION, position), job_in(PENDING), (NOON, ID), UNFILTERED, 0, False):
        with pytest.raises(InvalidCursorError, match=r"\bis no Position\(created_at, id\)\Z") as caught:
            check_before(odd)
        assert odd is caught.value.cursor


FILTER = frozenset({FAILED})


@pytest.mark.parametrize(
    ("before", "connection", "statuses"),
    [
        (None, None, None),
        (None, CONNECTION, FILTER),
        (Position(NOON, ID), CONNECTION, FILTER),
        (job_in(PENDING), None, None),
        (job_in(PENDING), CONNECTION, FILTER),
        (Cursor.after(job_in(PENDING)), CONNECTION, None),
        (Cursor.after(job_in(PENDING), FILTER), CONNECTION, FILTER),
    ],
    ids=range(7),
)
def test_a_page_begins_behind_a_position_a_job_or_a_cursor_of_its_own_list(
    before: Before, connection: UUID | None, statuses: frozenset[JobStatus] | None
) -> None:
    assert (before and Position(NOON, ID)) == position_of(before, connection, statuses)


@pytest.mark.parametrize(
    ("before", "connection", "statuses", "cursor", "reason"),
    [
        (job_in(PENDING), ID, None, ID, f"is a job of source connection {CONNECTION}"),
        (Cursor.after(job_in(PENDING)), ID, None, UNFILTERED, f"belongs to source connection {CONNECTION}"),
        (Cursor.after(job_in(PENDING)), None, None, UNFILTERED, f"belongs to source connection {CONNECTION}"),
        (Cursor.after(job_in(PENDING)), CONNECTION, FILTER, UNFILTERED, "belongs to another filter by status"),
        (Cursor.after(job_in(PENDING), FILTER), CONNECTION, None, FILTERED, "belongs to another filter by status"),
        *(
            (odd, CONNECTION, None, odd, "is no SyncJob, Cursor or Position (Cursor.parse reads a token)")
            for odd in (UNFILTERED, ID, (NOON, ID), 0)
        ),
    ],
    ids=range(9),
)
def test_what_a_page_cannot_begin_behind_is_refused(
    before: Any,  # noqa: ANN401  what a caller may give
    connection: UUID | None,
    statuses: frozenset[JobStatus] | None,
    cursor: object,
    reason: str,
) -> None:
    with pytest.raises(InvalidCursorError) as caught:
        position_of(before, connection, statuses)
    assert (cursor, reason) == (caught.value.cursor, caught.value.reason)


@given(st.integers(1, MAX_COUNT))
def test_a_change_token_is_a_number_from_1_to_the_greatest(number: int) -> None:
    assert number == check_token(str(number))
    assert check_token(None) == 0
    assert (1, MAX_COUNT) == (check_token("1"), check_token(str(2**63 - 1)))


@pytest.mark.parametrize(
    "token",
    [
        *(
            "",
            "0",
            "01",
            "-1",
            "+1",
            " 1",
            "1\n",
            "1_0",
            "1.0",
            "x",
            "\N{FULLWIDTH DIGIT ONE}",
            str(2**63),
            "9" * 10**6,
        ),
        *(1, 0, True, b"1", ["1"]),
    ],
    ids=range(18),
)
def test_anything_else_is_no_change_token(token: object) -> None:
    with pytest.raises(InvalidCursorError, match=r"\bis no change token: pass what .* or None\Z") as caught:
        check_token(token)
    assert token is caught.value.cursor


@pytest.mark.parametrize("name", ["github", "x", "GitHub of the émigrés", "\U0001f680", " ", "a'b\"c%", "x" * 16_384])
def test_a_name_is_printable_text(name: str) -> None:
    assert name == check_name(name)


def test_a_name_is_held_as_a_plain_str_or_not_at_all() -> None:
    assert check_name(None) is None
    assert (str, "github") == (type(check_name(Name.GITHUB)), check_name(Name.GITHUB))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "must be printable text and not empty"),
        ("a\nb", "must be printable text and not empty"),
        ("\x1b[2J", "must be printable text and not empty"),
        ("a\u202eb", "must be printable text and not empty"),
        ("a\0b", "must not contain NUL"),
        ("\ud800", "must not contain lone surrogates"),
        ("x" * 16_385, "must have at most 16,384 bytes of UTF-8"),
        (7, "must be a str"),
        (b"github", "must be a str"),
    ],
    ids=range(9),
)
def test_a_name_that_would_not_be_seen_or_stored_is_refused(name: Any, reason: str) -> None:  # noqa: ANN401  what a caller may give
    with pytest.raises(InvalidJobError) as caught:
        check_name(name)
    assert ("name", name, reason) == (caught.value.field, caught.value.value, caught.value.reason)


# Refusals.


@pytest.mark.parametrize("after", JobStatus)
@pytest.mark.parametrize("before", JobStatus)
def test_a_job_is_replaced_along_the_edges_of_the_table_and_never_once_it_is_finished(
    before: JobStatus, after: JobStatus
) -> None:
    stored, job = job_in(before, version=3), job_in(after, version=4)
    refused = refusal(stored, job)

    if before in TERMINAL_STATUSES:
        assert isinstance(refused, ConflictError)
        assert (stored, job) == (refused.stored, refused.refused)
    elif after is before or after in TRANSITIONS[before]:
        assert refused is None
    else:
        assert isinstance(refused, InvalidTransitionError)
        assert (ID, before, f"become {after}") == (refused.job_id, refused.status, refused.action)


@pytest.mark.parametrize("version", [1, 2, 3, 5, 6, MAX_COUNT])
@pytest.mark.parametrize("after", [RUNNING, PENDING], ids=["an edge", "no edge"])
def test_a_job_is_replaced_by_its_next_version_only(version: int, after: JobStatus) -> None:
    stored, job = job_in(RUNNING, version=3), job_in(after, version=version)
    refused = refusal(stored, job)

    assert isinstance(refused, ConflictError)
    assert (stored, job) == (refused.stored, refused.refused)


IDENTITY: dict[str, object] = {
    "id": CONNECTION,
    "source_connection_id": ID,
    "created_at": NOON + timedelta(microseconds=1),
    "metadata": {"a": True, "b": 2},
}
STORY: dict[str, object] = {
    "started_at": NOON + timedelta(microseconds=1),
    "entities_inserted": 7,
    "cancel_requested_at": NOON,
    "heartbeat_at": NOON,
    "progress_at": NOON,
    "worker": "host:7:ab",
    "metadata": {"b": 2, "a": 1},
}


@pytest.mark.parametrize("name", IDENTITY)
def test_a_job_that_is_another_is_refused(name: str) -> None:
    running = partial(job_in, RUNNING)
    stored = running(version=3, metadata={"a": 1, "b": 2})
    refused = refusal(stored, running(**{"version": 4, "metadata": {"a": 1, "b": 2}, name: IDENTITY[name]}))

    assert isinstance(refused, ConflictError)


@pytest.mark.parametrize("name", STORY)
def test_a_job_may_change_in_all_that_is_not_its_identity(name: str) -> None:
    stored = job_in(RUNNING, version=3, metadata={"a": 1, "b": 2})
    fields: dict[str, Any] = {"version": 4, "metadata": {"a": 1, "b": 2}, name: STORY[name]}

    assert refusal(stored, job_in(RUNNING, **fields)) is None


@given(st.sampled_from(sorted(ACTIVE_STATUSES)), timestamps())
def test_every_step_of_a_job_may_replace_it(status: JobStatus, at: datetime) -> None:
    job = job_in(status, metadata={"b": 1, "a": 2})
    steps: dict[JobStatus, list[Callable[..., SyncJob]]] = {
        PENDING: [job.start, job.cancel, partial(job.fail, error="why")],
        RUNNING: [job.report, job.beat, job.request_cancel, job.complete, partial(job.lost, error="why")],
        CANCELLING: [job.report, job.beat, job.complete, job.cancel, partial(job.lost, error="why")],
    }
    for step in steps[job.status]:
        after = step(at=at)

        assert refusal(job, after) is None
        assert isinstance(refusal(after, after), ConflictError)
