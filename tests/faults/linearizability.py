"""Whether what clients saw side by side could have been seen by one after the other.

Wing and Gong, Testing and Verifying Concurrent Objects (1993), with the memory of Lowe, Testing for
Linearizability (2017): no state is tried twice for the same operations.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import attrs

State = TypeVar("State", bound=Hashable)


@attrs.frozen
class Operation:
    """What a client asked, when (on one clock for all), and what it was told.

    `ended` is None where it was never told, as its client was killed: it may have been done, or not, or it
    may be done at any time to come.
    """

    client: int
    call: tuple[Any, ...]
    began: int
    ended: int | None = None
    answer: object = None


def is_linearizable(
    history: Sequence[Operation], state: State, step: Callable[[State, tuple[Any, ...]], tuple[State, object]]
) -> bool:
    """Whether an order exists that agrees with the times and, from `state` on, with the answers.

    `step` is the model: it gives the next state and the answer.
    """
    history = sorted(history, key=lambda operation: operation.began)
    told = sum(1 << i for i, operation in enumerate(history) if operation.ended is not None)
    seen = {(0, state)}
    tried = [(0, state)]
    while tried:
        done, state = tried.pop()
        if done & told == told:
            return True
        left = [i for i in range(len(history)) if not done >> i & 1]
        # None that began after another one ended may come before that one.
        first_end = min(ended for i in left if (ended := history[i].ended) is not None)
        for i in left:
            operation = history[i]
            if operation.began > first_end:
                break
            following, answer = step(state, operation.call)
            if operation.ended is not None and answer != operation.answer:
                continue
            reached = (done | 1 << i, following)
            if reached not in seen:
                seen.add(reached)
                tried.append(reached)
    return False


def overlapping(history: Sequence[Operation]) -> int:
    """How many of the operations ran at the same time as another client's."""
    return sum(
        any(
            other.client != operation.client
            and (other.ended is None or other.ended > operation.began)
            and (operation.ended is None or other.began < operation.ended)
            for other in history
        )
        for operation in history
    )
