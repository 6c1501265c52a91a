from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.linearizability import Operation, is_linearizable, overlapping


def register(value: int, call: tuple[Any, ...]) -> tuple[int, object]:
    """The model of a number that is read, set, and set where it is what one thinks."""
    match call:
        case ("read",):
            return value, value
        case ("set", new):
            return new, None
        case ("swap", old, new) if value == old:
            return new, True
        case _:
            return value, False


def op(client: int, began: int, ended: int | None, *call: object, says: object = None) -> Operation:
    return Operation(client, call, began, ended, says)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [op(1, 0, 1, "set", 5), op(2, 2, 3, "read", says=5)],
        [op(1, 0, 9, "set", 5), op(2, 1, 2, "read", says=0), op(2, 3, 4, "read", says=5)],
        [op(1, 0, 9, "set", 5), op(2, 0, 9, "set", 6), op(3, 10, 11, "read", says=5)],
        [op(1, 0, None, "set", 5), op(2, 1, 2, "read", says=0), op(2, 30, 40, "read", says=5)],
        [op(1, 0, None, "set", 5), op(2, 1, 2, "read", says=0)],
        [op(1, 0, 5, "swap", 0, 1, says=True), op(2, 0, 5, "swap", 0, 2, says=False), op(1, 6, 7, "read", says=1)],
        [op(1, 0, 5, "swap", 0, 1, says=True), op(2, 0, 5, "swap", 1, 2, says=True)],
    ],
)
def test_a_history_that_one_client_could_have_seen_passes(history: list[Operation]) -> None:
    assert is_linearizable(history, 0, register)


@pytest.mark.parametrize(
    "history",
    [
        [op(1, 0, 1, "set", 5), op(2, 2, 3, "read", says=0)],
        [op(1, 0, 9, "set", 5), op(2, 1, 2, "read", says=5), op(2, 3, 4, "read", says=0)],
        [op(1, 0, 9, "set", 5), op(2, 1, 2, "read", says=5), op(3, 3, 4, "read", says=0)],
        [op(1, 0, None, "set", 5), op(2, 1, 2, "read", says=5), op(2, 3, 4, "read", says=0)],
        [op(1, 5, None, "set", 5), op(2, 1, 2, "read", says=5)],
        [op(1, 0, 5, "swap", 0, 1, says=True), op(2, 0, 5, "swap", 0, 2, says=True)],
        [op(1, 0, 9, "read", says=7)],
    ],
)
def test_a_history_that_nobody_alone_could_have_seen_is_flagged(history: list[Operation]) -> None:
    assert not is_linearizable(history, 0, register)


def by_trying_all(history: Sequence[Operation]) -> bool:
    """Every order of every choice of those that were never told of: the dumbest thing that can be right."""
    told = [operation for operation in history if operation.ended is not None]
    others = [operation for operation in history if operation.ended is None]
    chosen = itertools.chain.from_iterable(itertools.combinations(others, n) for n in range(len(others) + 1))
    for order in itertools.chain.from_iterable(itertools.permutations([*told, *each]) for each in chosen):
        value = 0
        for place, operation in enumerate(order):
            if any(later.ended is not None and later.ended < operation.began for later in order[place:]):
                break
            value, answer = register(value, operation.call)
            if operation.ended is not None and answer != operation.answer:
                break
        else:
            return True
    return False


numbers = st.integers(0, 2)
calls = st.one_of(
    st.tuples(st.just("read")), st.tuples(st.just("set"), numbers), st.tuples(st.just("swap"), numbers, numbers)
)
operations = st.builds(
    lambda client, call, began, took, says: op(client, began, None if took is None else began + took, *call, says=says),
    numbers,
    calls,
    st.integers(0, 9),
    st.none() | st.integers(1, 9),
    st.none() | st.booleans() | numbers,
)


@given(st.lists(operations, max_size=5))
def test_the_verdict_is_that_of_trying_all_orders(history: list[Operation]) -> None:
    assert by_trying_all(history) == is_linearizable(history, 0, register)


@given(st.lists(st.tuples(calls, st.integers(1, 30), st.integers(1, 30)), max_size=12))
def test_what_happened_one_after_the_other_passes_however_long_each_took(
    steps: list[tuple[tuple[Any, ...], int, int]],
) -> None:
    value, history = 0, []
    for place, (call, before, after) in enumerate(steps):
        value, answer = register(value, call)
        history.append(op(place, 10 * place - before, 10 * place + after, *call, says=answer))

    assert is_linearizable(history, 0, register)


def test_those_that_ran_side_by_side_are_counted() -> None:
    history = [op(1, 0, 10, "read"), op(2, 5, 7, "read"), op(2, 11, 12, "read"), op(1, 13, None, "read")]

    assert 2 == overlapping(history)
    assert 4 == overlapping([*history, op(2, 20, 21, "read")])
