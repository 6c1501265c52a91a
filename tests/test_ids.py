from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.errors import InvalidIdError
from jobhistory.ids import UUID7, check_id, parse_id
from jobhistory.testing.strategies import ids, timestamps

TEXT = "550e8400-e29b-41d4-a716-446655440000"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
SINCE_THE_EPOCH = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def clock_of(times: list[datetime]) -> Callable[[], datetime]:
    """A clock that shows these times, and the last one from then on."""
    left = iter(times)
    return lambda: next(left, times[-1])


def at(moment: datetime) -> UUID7:
    return UUID7(lambda: moment)


@given(ids())
def test_an_id_is_taken_as_itself_and_as_its_canonical_text_in_either_case(id: UUID) -> None:
    assert id is check_id(id)
    assert id is parse_id(id)
    assert id == parse_id(str(id))
    assert id == parse_id(str(id).upper())


NO_IDS = [
    "",
    "{" + TEXT + "}",
    "urn:uuid:" + TEXT,
    TEXT.replace("-", ""),
    "550e8400e29b-41d4-a716-446655440000-",
    "550e8400e29b41d4a716-446655440000",
    TEXT[:-1],
    TEXT + "0",
    TEXT + "\n",
    " " + TEXT,
    TEXT.replace("e", "g"),
    TEXT.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    TEXT.encode(),
    UUID(TEXT).bytes,
    UUID(TEXT).int,
    None,
    [UUID(TEXT)],
]


@pytest.mark.parametrize("value", NO_IDS, ids=repr)
def test_anything_else_is_no_id(value: object) -> None:
    with pytest.raises(InvalidIdError) as caught:
        parse_id(value)

    assert value is caught.value.value


@pytest.mark.parametrize("value", [*NO_IDS, TEXT], ids=repr)
def test_where_a_uuid_is_wanted_its_text_will_not_do(value: object) -> None:
    with pytest.raises(InvalidIdError) as caught:
        check_id(value)

    assert value is caught.value.value


@pytest.mark.parametrize(
    ("moment", "head"),
    [
        (EPOCH, "00000000-0000-7000"),
        # The moment of RFC 9562's own example (appendix A.6).
        (datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC), "017f22e2-79b0-7000"),
        (datetime(2022, 2, 22, 14, 22, 22, tzinfo=timezone(timedelta(hours=-5))), "017f22e2-79b0-7000"),
        (datetime(2022, 2, 22, 19, 22, 22, 1, tzinfo=UTC), "017f22e2-79b0-7004"),
        (datetime(2022, 2, 22, 19, 22, 22, 500, tzinfo=UTC), "017f22e2-79b0-7800"),
        (datetime(2022, 2, 22, 19, 22, 22, 999, tzinfo=UTC), "017f22e2-79b0-7ffb"),
        (datetime(2022, 2, 22, 19, 22, 22, 1000, tzinfo=UTC), "017f22e2-79b1-7000"),
        (LAST, "e677d21f-dbff-7ffb"),
        (EPOCH - timedelta(microseconds=1), "00000000-0000-7000"),
        (datetime.min.replace(tzinfo=UTC), "00000000-0000-7000"),
    ],
    ids=str,
)
def test_a_new_id_begins_with_the_clock_milliseconds_then_fractions(moment: datetime, head: str) -> None:
    assert head == str(at(moment)())[:18]


@given(st.lists(timestamps(), min_size=1, max_size=5))
def test_a_new_id_is_of_version_7_and_the_rfc_variant(times: list[datetime]) -> None:
    new_id = UUID7(clock_of(times))

    for id in (new_id(), new_id(), new_id()):
        assert (7, RFC_4122) == (id.version, id.variant)


@pytest.mark.parametrize("moment", [NOON, EPOCH - timedelta(microseconds=1)], ids=str)
def test_each_bit_that_is_not_clock_version_or_variant_is_random(moment: datetime) -> None:
    tails = [at(moment)().int & ((1 << 62) - 1) for _ in range(100)]

    for bit in range(62):
        assert {0, 1} == {tail >> bit & 1 for tail in tails}


@given(SINCE_THE_EPOCH, SINCE_THE_EPOCH)
def test_ids_of_two_processes_are_ordered_by_their_clocks(one: datetime, other: datetime) -> None:
    assert one == other or (one < other) == (at(one)() < at(other)())


@given(st.lists(timestamps(), min_size=1))
def test_ids_increase_whatever_the_clock_does(times: list[datetime]) -> None:
    new_id = UUID7(clock_of(times))
    made = [new_id() for _ in range(len(times) + 5)]

    for before, after in pairwise(made):
        assert before < after


def free_bits(id: UUID) -> int:
    """The 122 bits that are neither version nor variant."""
    return id.int >> 80 << 74 | (id.int >> 64 & 0xFFF) << 62 | id.int & ((1 << 62) - 1)


def test_where_the_clock_stands_still_ids_rise_by_small_steps_so_that_they_keep_the_time() -> None:
    new_id = UUID7(clock_of([LAST, EPOCH]))
    made = [free_bits(new_id()) for _ in range(1000)]

    assert all(0 < after - before <= 1 << 32 for before, after in pairwise(made))


@pytest.mark.parametrize("drawn", [bytes, lambda count: b"\xff" * count], ids=["all zeros", "all ones"])
def test_ids_increase_whatever_the_random_bits_are(
    drawn: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.urandom", drawn)
    new_id = at(NOON)
    made = [new_id() for _ in range(10)]

    assert sorted(set(made)) == made
    assert {(7, RFC_4122)} == {(id.version, id.variant) for id in made}


def test_ids_of_many_threads_are_distinct_and_increase_in_each() -> None:
    new_id, ready = UUID7(clock_of([LAST, EPOCH])), threading.Barrier(4)

    def make(_: int) -> list[UUID]:
        ready.wait()
        return [new_id() for _ in range(5000)]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))

    assert 20_000 == len({id for own in made for id in own})
    for own in made:
        assert sorted(own) == own


def in_a_child(make: Callable[[], UUID]) -> UUID:
    """What a forked child makes, which has ten seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(10)
        os.write(writing, make().bytes)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        made = pipe.read()
    assert (child, 0) == os.waitpid(child, 0)
    return UUID(bytes=made)


def test_forked_processes_make_different_ids_though_the_clock_stands_still() -> None:
    new_id = UUID7(clock_of([LAST, EPOCH]))
    last = new_id()
    made = [in_a_child(new_id) for _ in range(3)]

    assert 3 == len(set(made))
    assert min(made) > last


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_makes_an_id_leaves_the_child_able_to() -> None:
    entered = threading.Event()

    class Last(int):
        def __add__(self, step: int) -> int:  # here the lock is held
            entered.set()
            threading.Event().wait(0.2)  # a fork that did not wait for the lock would come meanwhile
            return int(self) + step

    new_id = at(NOON)
    new_id._last = Last(0)
    with ThreadPoolExecutor(1) as pool:
        mine = pool.submit(new_id)
        entered.wait()
        childs = in_a_child(at(NOON))

    assert mine.result() != childs


def test_a_signal_handler_may_fork_in_the_midst_of_making_an_id() -> None:
    made: list[UUID] = []

    class Last(int):
        def __add__(self, step: int) -> int:  # here the lock is held
            made.append(in_a_child(at(NOON)))
            return int(self) + step

    new_id = at(NOON)
    new_id._last = Last(0)
    made.append(new_id())

    assert 2 == len(set(made))
