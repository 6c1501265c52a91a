from __future__ import annotations

import json
import math
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from itertools import count
from typing import Any, NamedTuple, NoReturn
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.errors import InvalidJobError
from jobhistory.storable import (
    JSON_BYTES,
    JSON_LEVELS,
    TEXT_BYTES,
    JSONText,
    canonical,
    check_json,
    check_text,
    load_json,
    mend_json,
    mend_text,
)
from jobhistory.testing.strategies import hostile_text, json_objects

ANY_TEXT = st.text(st.characters()) | st.sampled_from(["\0", "\ud800", "a\udfffb\0c"])


def fail(*_: object) -> NoReturn:
    raise RuntimeError


class Word(StrEnum):
    FULL = "full"


class Kind(str, Enum):  # noqa: UP042  which shows itself as Kind.FULL, unlike a StrEnum
    FULL = "full"


class Number(IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


class Overriding(str):
    """A str that has its own idea of what might be asked of it."""

    __slots__ = ()
    __str__ = __contains__ = encode = replace = fail  # type: ignore[assignment]


class Unshown:
    __str__ = __repr__ = fail


class ShownAs:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class ShownAsNoText:
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307


class Nameless(type):
    __name__ = property(fail)


class OfNoName(metaclass=Nameless):
    __str__ = __repr__ = fail


class OfNoClass:
    __class__ = property(fail)
    __str__ = fail


class Lying(dict[str, object]):
    """A dict that shows other members than it holds."""

    def items(self) -> Any:  # noqa: ANN401  not what a dict gives
        return [("a\0", "\ud800")]


class Unread(Mapping[str, object]):
    def __len__(self) -> int:
        return 1

    __iter__ = __getitem__ = fail


class Endless(list[object]):
    def __iter__(self) -> Iterator[object]:
        return count()


class Growing(dict[int, object]):
    """A dict that changes while its members are read, as another thread may change it."""

    def __init__(self) -> None:
        super().__init__({0: self.Member(self), 1: 1})

    class Member:
        def __init__(self, whole: Growing) -> None:
            self.whole = whole

        def __str__(self) -> str:
            self.whole[len(self.whole)] = 1
            return "member"


class HugeInside(int):
    bit_length = __int__ = __index__ = fail


class NotFiniteInside(float):
    __float__ = fail


def holding_itself() -> list[Any]:
    held: list[Any] = []
    held.extend([held, held])
    return held


def nested(levels: int, leaf: object = 1, *, in_lists: bool = False) -> dict[str, Any]:
    """An object of so many levels, the leaf in the last."""
    value: Any = leaf
    for _ in range(levels - 1):
        value = [value] if in_lists else {"a": value}
    return {"a": value}


def sized(size: int, character: str = "x") -> dict[str, str]:
    """An object that has `size` bytes as JSON."""
    return {"a": character * ((size - 8) // len(character.encode()))}


def as_json(value: object) -> str:
    """Equal only for equal values of equal types, their keys in the same order."""
    return json.dumps(value)


ODD: dict[str, object] = {
    "not a number": math.nan,
    "infinity": -math.inf,
    "an int too long to be read": 10**4300,
    "an int that hides how long it is": HugeInside(10**5000),
    "a float that hides what it is": NotFiniteInside(math.nan),
    "NUL": "a\0b",
    "a lone surrogate": "\ud800",
    "a str that overrides": Overriding("a\0"),
    "bytes": b"bytes",
    "a set": {1, 2},
    "a frozenset": frozenset({"\0"}),
    "a datetime": datetime(2024, 3, 15, tzinfo=UTC),
    "a Decimal": Decimal("1.10"),
    "a range": range(3),
    "a class": int,
    "an exception": ValueError("why"),
    "what cannot be shown": Unshown(),
    "what has no name": OfNoName(),
    "what is shown as odd text": ShownAs("\0\ud800"),
    "what is shown as a str that overrides": ShownAs(Overriding("\0")),
    "what is shown as no text": ShownAsNoText(),
    "a mapping that cannot be read": Unread(),
    "a dict that lies": Lying(a=1),
    "a dict that changes": Growing(),
    "another mapping": UserDict(a=1),
    "keys that are no text": {1: 2, None: 1, ("a", 1): [1], Unshown(): 1},
    "keys of odd text": {"a\0": 1, "\ud800": 2, Overriding("\0"): 1},
    "many levels": nested(JSON_LEVELS),
    "many levels of lists": nested(5000, in_lists=True),
    "a list that holds itself twice": holding_itself(),
    "a list without end": Endless(),
    "a long text": "x" * 100_000,
    "long texts that need escapes": ["\x01" * 20_000] * 5,
    "many texts": {str(i): "é" * 1000 for i in range(300)},
    "many items": list(range(100_000)),
    "many items in many": [[[[0] * 300] * 300] * 300] * 300,
    "long texts in many": [["x" * 1_000_000] * 1000] * 1000,
    "long ints": [10**4299] * 1000,
    "long keys": {f"{i}{'k' * 20_000}": i for i in range(20)},
}
MOCKS = {f"a Mock of {kind.__name__}": Mock(spec=kind) for kind in (str, int, bool, float, list, dict, datetime)}
HOSTILE = st.recursive(
    st.sampled_from(sorted(ODD)).map(lambda name: ODD[name])
    | ANY_TEXT
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner) | st.tuples(inner),
    max_leaves=5,
)


@given(hostile_text())
def test_text_is_held_as_it_is(text: str) -> None:
    assert text == check_text("error", text)


@pytest.mark.parametrize("text", ["x" * TEXT_BYTES, "é" * (TEXT_BYTES // 2), "\U0001f680" * (TEXT_BYTES // 4)])
def test_text_of_16_kib_is_held_and_one_character_more_is_refused(text: str) -> None:
    longer = text + "x"

    assert text == check_text("error", text)
    with pytest.raises(InvalidJobError, match="must have at most 16,384 bytes of UTF-8") as caught:
        check_text("error", longer)
    assert ("error", longer) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a\0b", "must not contain NUL"),
        ("\0", "must not contain NUL"),
        ("\ud800", "must not contain lone surrogates"),
        ("a\udfffb", "must not contain lone surrogates"),
        (b"bytes", "must be a str"),
        (7, "must be a str"),
        (None, "must be a str"),
        (["a"], "must be a str"),
    ],
)
def test_text_that_some_database_refuses_is_refused_by_name_and_value(value: object, reason: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        check_text("worker", value)

    assert ("worker", reason) == (caught.value.field, caught.value.reason)
    assert caught.value.value == value


@pytest.mark.parametrize("kind", [Word, Overriding])
def test_text_of_a_subclass_is_checked_and_held_as_a_plain_str(kind: type[str]) -> None:
    held = check_text("error", kind("full"))

    assert (str, "full") == (type(held), held)
    assert "full" == mend_text(kind("full"))
    with pytest.raises(InvalidJobError, match="NUL"):
        check_text("error", Overriding("\0"))


@given(json_objects())
def test_a_json_object_comes_back_as_it_was_with_its_keys_in_their_order(value: dict[str, Any]) -> None:
    held = check_json("metadata", value)

    assert JSONText is type(held)
    assert as_json(value) == as_json(load_json(held))


def test_a_json_object_is_held_as_compact_text_that_a_person_can_read() -> None:
    value = {"b": [1, 2.5, None, True, "é"], "a": {"x": "\u2028\x01"}}

    assert '{"b":[1,2.5,null,true,"é"],"a":{"x":"\u2028\\u0001"}}' == check_json("metadata", value)


def test_text_that_was_checked_is_not_checked_again() -> None:
    held = check_json("metadata", {"a": 1})

    assert held is check_json("metadata", held)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": (1, 2)}, '{"a":[1,2]}'),
        ({"a": Point(1, 2)}, '{"a":[1,2]}'),
        ({"a": Number.ONE, "b": Word.FULL}, '{"a":1,"b":"full"}'),
        ({Word.FULL: 1, Overriding("b"): Overriding("c")}, '{"full":1,"b":"c"}'),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        (defaultdict(list, a=[1]), '{"a":[1]}'),
        ({}, "{}"),
    ],
)
def test_what_json_writes_as_its_own_types_is_held_as_those(value: object, text: str) -> None:
    assert text == check_json("metadata", value)


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        *((value, "metadata", "must be a JSON object (a dict)") for value in (None, "{}", [1], 7, UserDict(a=1))),
        *(
            ({"a": [leaf]}, "metadata: a value", "must be of a JSON type")
            for leaf in (b"", {1}, object(), 1j, Decimal(1))
        ),
        *(({"a": ({"b": leaf},)}, "metadata: a float", "must be finite") for leaf in (math.nan, math.inf, -math.inf)),
        *(({"a": {key: 1}}, "metadata: a key", "must be a str") for key in (1, None, True, ("a",))),
        ({"a": "b\0"}, "metadata: a text", "must not contain NUL"),
        ({"a": ["\ud800"]}, "metadata: a text", "must not contain lone surrogates"),
        ({"a": {"b\0": 1}}, "metadata: a key", "must not contain NUL"),
        ({"\udfff": 1}, "metadata: a key", "must not contain lone surrogates"),
        (Lying(a=1), "metadata: a key", "must not contain NUL"),
        ({"a": 2**14_284}, "metadata: an int", "must have at most 4,300 digits"),
        ({"a": -(2**14_284)}, "metadata: an int", "must have at most 4,300 digits"),
        ({"a": HugeInside(10**5000)}, "metadata: an int", "must have at most 4,300 digits"),
        (nested(JSON_LEVELS + 1), "metadata", "must have at most 64 levels"),
        (nested(JSON_LEVELS + 1, in_lists=True), "metadata", "must have at most 64 levels"),
        (nested(JSON_LEVELS, ()), "metadata", "must have at most 64 levels"),
        (nested(5000, in_lists=True), "metadata", "must have at most 64 levels"),
        (sized(JSON_BYTES + 1), "metadata", "must have at most 65,536 bytes as JSON"),
        (sized(JSON_BYTES + 2, "é"), "metadata", "must have at most 65,536 bytes as JSON"),
        ({"a": '"' * 40_000}, "metadata", "must have at most 65,536 bytes as JSON"),
        ({"a": [0] * 70_000}, "metadata", "must have at most 65,536 bytes as JSON"),
        ({"k" * 70_000: 1}, "metadata", "must have at most 65,536 bytes as JSON"),
        ({"a": [["x" * 10_000] * 10_000] * 10_000}, "metadata", "must have at most 65,536 bytes as JSON"),
        ({"a": [10**4299] * 10_000}, "metadata", "must have at most 65,536 bytes as JSON"),
        ({"a": holding_itself()}, "metadata", "must have at most 64 levels"),
        ({"a": Endless()}, "metadata", "must have at most 65,536 bytes as JSON"),
    ],
)
def test_what_json_or_a_database_would_change_or_refuse_is_refused(value: object, field: str, reason: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        check_json("metadata", value)

    assert (field, reason) == (caught.value.field, caught.value.reason)
    assert field != "metadata" or caught.value.value is value


@pytest.mark.parametrize(
    "value",
    [
        nested(JSON_LEVELS),
        nested(JSON_LEVELS, "text"),
        nested(JSON_LEVELS, in_lists=True),
        nested(JSON_LEVELS - 1, {}),
        sized(JSON_BYTES),
        sized(JSON_BYTES, "é"),
        {"a": [0] * 32_764},
        {"a": 2**14_284 - 1, "b": 1 - 2**14_284},
        {"a": [math.ulp(0.0), 1.7976931348623157e308, -0.0]},
    ],
)
def test_what_is_just_within_the_limits_is_held_and_read_back(value: dict[str, Any]) -> None:
    assert as_json(value) == as_json(load_json(check_json("metadata", value)))
    assert as_json(value) == as_json(mend_json(value))


@given(HOSTILE | st.dictionaries(ANY_TEXT, HOSTILE))
def test_what_is_accepted_can_be_read_back_and_stored_again(value: object) -> None:
    try:
        held = check_json("metadata", value)
    except InvalidJobError:
        return

    assert held == check_json("metadata", load_json(held))


def test_each_reading_gives_an_object_of_its_own() -> None:
    held = check_json("metadata", {"a": []})
    load_json(held)["a"].append(1)

    assert {"a": []} == load_json(held)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}, True),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"c": 2, "b": 1}]}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": False}, {"a": 0}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": None}, {}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": "é"}, {"a": "e\u0301"}, False),
    ],
)
def test_objects_are_equal_whatever_the_order_of_their_keys(
    one: dict[str, Any], other: dict[str, Any], *, equal: bool
) -> None:
    assert equal == (canonical(check_json("metadata", one)) == canonical(check_json("metadata", other)))


def test_no_object_is_equal_only_to_no_object() -> None:
    assert canonical(None) is None
    assert canonical("{}") is not None


@given(ANY_TEXT | hostile_text())
def test_text_that_can_be_stored_is_left_alone_and_any_other_is_made_so(text: str) -> None:
    mended = mend_text(text)

    assert mended == check_text("error", mended)
    assert (mended == text) == (text == text.replace("\0", "").encode(errors="ignore").decode())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\0b\0", r"a\x00b\x00"),
        ("a\ud800b\udfff", r"a\ud800b\udfff"),
        ("", ""),
        (Kind.FULL, "full"),
        (ValueError("why"), "why"),
        (b"bytes", "b'bytes'"),
        (None, "None"),
        (ShownAs("a\0"), r"a\x00"),
        (ShownAs(Overriding("a\0")), r"a\x00"),
    ],
)
def test_what_some_database_refuses_is_written_as_an_escape(value: object, text: str) -> None:
    mended = mend_text(value)

    assert text == mended
    assert str is type(mended)


@pytest.mark.parametrize("broken", [Unshown, OfNoName, OfNoClass, ShownAsNoText], ids=range(4))
def test_what_cannot_be_shown_is_reported_all_the_same(broken: Callable[[], object]) -> None:
    value = broken()
    said = f"{object.__repr__(value)}, which cannot be shown"

    assert said == mend_text(value)
    assert {"value": said} == mend_json(value)
    assert {"a": [said]} == mend_json({"a": [value]})


@pytest.mark.parametrize(
    ("text", "limit", "mended"),
    [
        ("x" * TEXT_BYTES, TEXT_BYTES, "x" * TEXT_BYTES),
        ("x" * 100, 100, "x" * 100),
        ("x" * 101, 100, "x" * 76 + " [cut: 101 bytes in all]"),
        ("é" * 51, 100, "é" * 38 + " [cut: 102 bytes in all]"),
        ("x" + "é" * 50 + "y", 100, "x" + "é" * 37 + " [cut: 102 bytes in all]"),
        ("\0" * 26, 100, r"\x00" * 19 + " [cut: 104 bytes in all]"),
        ("x" * 1_234_567, 100, "x" * 70 + " [cut: 1,234,567 bytes in all]"),
    ],
)
def test_text_that_is_too_long_is_cut_between_characters_and_says_so(text: str, limit: int, mended: str) -> None:
    assert mended == mend_text(text, limit)


def test_an_error_text_is_cut_at_16_kib() -> None:
    assert TEXT_BYTES == len(mend_text("x" * (TEXT_BYTES + 1)))


@given(json_objects(max_leaves=30))
def test_an_object_that_can_be_stored_is_left_alone(value: dict[str, Any]) -> None:
    mended = mend_json(value)

    assert as_json(value) == as_json(mended)
    assert mended is not value


@pytest.mark.parametrize("value", [*ODD.values(), *MOCKS.values()], ids=[*ODD, *MOCKS])
@pytest.mark.parametrize("within", [lambda value: value, lambda value: {"a": [value]}], ids=["itself", "inside"])
def test_no_value_is_too_odd_to_be_made_storable(value: object, within: Callable[[object], object]) -> None:
    mended = mend_json(within(value))

    assert as_json(mended) == as_json(load_json(check_json("error_details", mended)))


@given(HOSTILE)
def test_nothing_given_as_details_of_an_error_is_refused(value: object) -> None:
    mended = mend_json(value)

    assert as_json(mended) == as_json(load_json(check_json("error_details", mended)))


@pytest.mark.parametrize(
    ("value", "mended"),
    [
        ({"a": math.nan, "b": math.inf}, {"a": "nan", "b": "inf"}),
        ({"a": (1, {2}), "b": frozenset()}, {"a": [1, [2]], "b": []}),
        ({"a": b"\0", "b": Decimal("1.10")}, {"a": r"b'\x00'", "b": "1.10"}),
        ({"a": datetime(2024, 3, 15, tzinfo=UTC)}, {"a": "2024-03-15 00:00:00+00:00"}),
        ({"a": Number.ONE, "b": Word.FULL, "c": True}, {"a": 1, "b": "full", "c": True}),
        ({"a": NotFiniteInside(1.5)}, {"a": 1.5}),
        ({"a": 2**14_284, "b": 2**14_283}, {"a": "[an int of 14,285 bits]", "b": 2**14_283}),
        ({"a\0": "b\0", "\ud800": "\udfff"}, {r"a\x00": r"b\x00", r"\ud800": r"\udfff"}),
        ({1: 2, None: 3, ("a",): 4}, {"1": 2, "None": 3, "('a',)": 4}),
        (UserDict(a=UserDict(b=1)), {"a": {"b": 1}}),
        (OrderedDict(a=1), {"a": 1}),
        (nested(JSON_LEVELS + 1), nested(JSON_LEVELS, "[cut]")),
        (nested(JSON_LEVELS + 1, in_lists=True), nested(JSON_LEVELS, "[cut]", in_lists=True)),
        (nested(JSON_LEVELS, {1}), nested(JSON_LEVELS, "[cut]")),
        (nested(JSON_LEVELS, UserDict()), nested(JSON_LEVELS, "[cut]")),
        ("why", {"value": "why"}),
        ([1, {"a": 2}], {"value": [1, {"a": 2}]}),
        ((nested(JSON_LEVELS - 1),), {"value": [nested(JSON_LEVELS - 2, "[cut]")]}),
        (None, {"value": None}),
    ],
)
def test_what_is_no_json_becomes_the_nearest_that_is(value: object, mended: object) -> None:
    assert as_json(mended) == as_json(mend_json(value))


@pytest.mark.parametrize(
    ("texts", "length", "kept"),
    [(1, 65_528, 65_528), (1, 65_529, 16_384), (5, 20_000, 4096), (20, 5_000, 1024), (100, 1_100, 256)],
)
def test_long_texts_are_cut_to_as_much_as_fits(texts: int, length: int, kept: int) -> None:
    mended = mend_json({str(i)[-1:] if texts == 1 else f"{i:03}": "x" * length for i in range(texts)})

    assert texts == len(mended)
    assert {kept} == {len(text) for text in mended.values()}
    assert all(text.endswith(f" [cut: {length:,} bytes in all]") == (length != kept) for text in mended.values())


@pytest.mark.parametrize(("members", "kept"), [(5_000, 5_000), (10_000, 4_096), (300_000, 4_096)])
def test_the_members_and_items_that_are_too_many_are_cut_and_counted(members: int, kept: int) -> None:
    mended = mend_json(dict.fromkeys(range(members), 0))
    items = mend_json({"a": ["number"] * members})["a"]

    assert [str(i) for i in range(kept)] == list(mended)[:kept]
    assert ([f"{members:,} members in all"] if kept < members else []) == list(mended.values())[kept:]
    assert ["number"] * kept == items[:kept]
    assert ([f"[cut: {members:,} items in all]"] if kept < members else []) == items[kept:]


def test_what_is_far_too_large_everywhere_becomes_its_beginning_as_text() -> None:
    mended = mend_json({"first": {str(i): [["y" * 100] * 100] * 100 for i in range(100)}})

    assert ["cut"] == list(mended)
    assert mended["cut"].startswith('{"first":{"0":[["yyy')
    assert mended["cut"].endswith(" bytes in all]")
