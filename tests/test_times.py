from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.errors import InvalidJobError
from jobhistory.testing.strategies import durations, timestamps
from jobhistory.times import earlier, from_wire, seconds, to_wire, utc, utc_now

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
BEFORE_ALL = datetime.min.replace(tzinfo=timezone(timedelta(minutes=1)))
AFTER_ALL = datetime.max.replace(tzinfo=timezone(timedelta(minutes=-1)))


class Subclass(datetime):
    pass


class Zoneless(tzinfo):
    """A zone that does not know its offset, as the protocol allows: such a datetime is naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


def test_the_default_clock_is_the_wall_clock_in_utc() -> None:
    before, now, after = datetime.now(UTC), utc_now(), datetime.now(UTC)

    assert UTC is now.tzinfo
    assert sorted([before, now, after]) == [before, now, after]


@given(st.datetimes(timezones=st.timezones()))
def test_an_aware_datetime_of_any_zone_becomes_the_same_moment_in_utc(value: datetime) -> None:
    try:
        moment = utc("created_at", value)
    except InvalidJobError:
        assert value.year in (1, 9999)
        return

    assert timedelta(0) == moment - value
    assert UTC is moment.tzinfo


def test_a_datetime_of_a_subclass_becomes_a_plain_one() -> None:
    for zone in (UTC, timezone(timedelta(hours=2))):
        value = Subclass(2024, 3, 15, 12, 0, 0, 7, tzinfo=zone)
        moment = utc("created_at", value)

        assert datetime is type(moment)
        assert value == moment


def test_a_moment_in_utc_is_taken_as_it_is() -> None:
    assert NOON is utc("created_at", NOON)


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("Europe/Berlin")], ids=str)
def test_a_moment_has_no_fold_which_storage_would_lose(zone: tzinfo) -> None:
    value = datetime(2024, 10, 27, 2, 30, tzinfo=zone, fold=1)
    moment = utc("created_at", value)

    assert timedelta(0) == moment - value
    assert not moment.fold


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (datetime(2024, 3, 15), "time zone"),  # noqa: DTZ001
        pytest.param(datetime(2024, 3, 15, tzinfo=Zoneless()), "time zone", id="a zone that knows no offset"),
        (Subclass(2024, 3, 15), "time zone"),
        (date(2024, 3, 15), "aware datetime"),
        ("2024-03-15T12:00:00Z", "aware datetime"),
        (1710504000, "aware datetime"),
        (None, "aware datetime"),
        (BEFORE_ALL, "years 1 to 9999"),
        (AFTER_ALL, "years 1 to 9999"),
    ],
    ids=repr,
)
def test_what_is_no_moment_is_refused_by_name_and_value(value: object, reason: str) -> None:
    with pytest.raises(InvalidJobError, match=reason) as caught:
        utc("started_at", value)

    assert ("started_at", value) == (caught.value.field, caught.value.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-15T12:00:00Z", NOON),
        ("2024-03-15T12:00:00.000001Z", NOON + timedelta(microseconds=1)),
        ("2024-03-15T12:00:00.500000Z", NOON + timedelta(seconds=0.5)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
)
def test_a_moment_is_written_as_the_contract_has_it(text: str, moment: datetime) -> None:
    assert text == to_wire(moment)


@given(timestamps())
def test_every_moment_comes_back_as_it_was(moment: datetime) -> None:
    read = from_wire("created_at", to_wire(moment))

    assert moment == read
    assert UTC is read.tzinfo


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-15T12:00:00.5Z", NOON + timedelta(seconds=0.5)),
        ("2024-03-15T12:00:00.1234Z", NOON + timedelta(microseconds=123400)),
        ("2024-03-15T14:30:00+02:30", NOON),
        ("2024-03-14T22:00:00.000-14:00", NOON),
        ("2024-03-15T12:00:00-00:00", NOON),
        ("2024-02-29T23:59:59Z", datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("2024-03-15T20:00:00Z", NOON + timedelta(hours=8)),
    ],
)
def test_the_forms_of_rfc_3339_are_read(text: str, moment: datetime) -> None:
    assert moment == from_wire("created_at", text)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "2024-03-15",
        "2024-03-15T12:00:00",
        "2024-03-15T12:00Z",
        "2024-03-15 12:00:00Z",
        "2024-03-15t12:00:00z",
        "20240315T120000Z",
        "2024-W11-5T12:00:00Z",
        "2024-03-15T12:00:00.Z",
        "2024-03-15T12:00:00,5Z",
        "2024-03-15T12:00:00.1234567Z",
        "2024-03-15T12:00:00+0200",
        "2024-03-15T12:00:00+02",
        "2024-03-15T12:00:00+02:00:30",
        "2024-03-15T12:00:00+25:00",
        "2024-03-15T24:00:00Z",
        "2024-03-15T30:00:00Z",
        "2024-03-15T12:60:00Z",
        "2024-03-15T12:00:60Z",
        "2024-02-30T12:00:00Z",
        "2023-02-29T12:00:00Z",
        "0000-03-15T12:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        " 2024-03-15T12:00:00Z",
        "2024-03-15T12:00:00Z\n",
        "2024-03-15T12:00:00Zulu",
        "\N{FULLWIDTH DIGIT TWO}024-03-15T12:00:00Z",
        b"2024-03-15T12:00:00Z",
        1710504000,
        None,
        NOON,
    ],
    ids=repr,
)
def test_any_other_text_is_no_time(value: object) -> None:
    with pytest.raises(InvalidJobError, match="must be a time such as 2024-03-15T12:00:00Z") as caught:
        from_wire("completed_at", value)

    assert ("completed_at", value) == (caught.value.field, caught.value.value)


@given(
    st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,7})?(Z|[+-][0-9]{2}:[0-9]{2})\Z")
)
def test_what_looks_like_a_time_is_read_or_refused(text: str) -> None:
    try:
        moment = from_wire("created_at", text)
    except InvalidJobError:
        return

    assert moment == from_wire("created_at", to_wire(moment))


class Measured(float):
    pass


@pytest.mark.parametrize(
    ("value", "duration"),
    [
        (332.5, 332.5),
        (332, 332.0),
        (0, 0.0),
        (5e-324, 5e-324),
        (2**1023, 2.0**1023),
        (timedelta(minutes=5, milliseconds=500), 300.5),
        (timedelta(0), 0.0),
        (Measured(1.5), 1.5),
    ],
)
def test_a_duration_is_seconds_or_a_timedelta(value: object, duration: float) -> None:
    read = seconds("duration_seconds", value)

    assert duration == read
    assert float is type(read)


@given(durations())
def test_a_finite_duration_is_kept_to_its_last_bit(duration: float) -> None:
    assert duration.hex() == seconds("duration_seconds", duration).hex() or duration == 0


def test_a_duration_of_minus_zero_is_zero() -> None:
    assert math.copysign(1, 1.0) == math.copysign(1, seconds("duration_seconds", -0.0))


@pytest.mark.parametrize(
    "value",
    [-1, -5e-324, math.nan, math.inf, -math.inf, 10**309, True, False, "1", None, Decimal(1), 1j, [1.0]],
    ids=repr,
)
def test_what_is_no_duration_is_refused_by_name_and_value(value: object) -> None:
    with pytest.raises(InvalidJobError, match="must be seconds") as caught:
        seconds("flush_interval", value)

    assert ("flush_interval", value) == (caught.value.field, caught.value.value)


def test_a_negative_timedelta_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="not negative"):
        seconds("duration_seconds", timedelta(microseconds=-1))


def test_earlier_counts_the_seconds_that_passed_also_where_clocks_were_put_forward_meanwhile() -> None:
    noon = datetime(2024, 3, 31, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert datetime(2024, 3, 30, 10, tzinfo=UTC) == earlier(noon, 86400)


@pytest.mark.parametrize("moment", [NOON, datetime(1, 1, 2, tzinfo=timezone(timedelta(hours=14)))], ids=str)
def test_nothing_is_earlier_than_the_beginning_of_time(moment: datetime) -> None:
    assert datetime.min.replace(tzinfo=UTC) == utc("since", earlier(moment, 1e300)) == earlier(moment, 10**11)


def test_what_a_clock_tells_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidJobError, match="the clock's time must have a time zone"):
        earlier(datetime(2024, 3, 15), 1)  # noqa: DTZ001  that is the point
