from __future__ import annotations

import json
from typing import Any

import pytest

from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, TRANSITIONS, JobStatus

PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED = JobStatus


def test_the_statuses_are_the_six_words_of_the_contract() -> None:
    words = ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLING", "CANCELLED"]

    assert words == [status.value for status in JobStatus]
    assert words == [f"{status}" for status in JobStatus]
    assert words == json.loads(json.dumps(list(JobStatus)))


def test_the_table_holds_these_edges_and_no_others() -> None:
    edges = {
        (PENDING, RUNNING),
        (PENDING, CANCELLED),
        (PENDING, FAILED),
        (RUNNING, COMPLETED),
        (RUNNING, FAILED),
        (RUNNING, CANCELLING),
        (CANCELLING, CANCELLED),
        (CANCELLING, FAILED),
        (CANCELLING, COMPLETED),
    }

    assert edges == {(before, after) for before, following in TRANSITIONS.items() for after in following}
    assert set(JobStatus) == set(TRANSITIONS)


def test_a_status_is_either_active_or_terminal() -> None:
    assert frozenset({PENDING, RUNNING, CANCELLING}) == ACTIVE_STATUSES
    assert frozenset({COMPLETED, FAILED, CANCELLED}) == TERMINAL_STATUSES


def test_no_status_is_entered_twice() -> None:
    def walk(path: tuple[JobStatus, ...]) -> None:
        assert len(set(path)) == len(path)
        for following in TRANSITIONS[path[-1]]:
            walk((*path, following))

    walk((PENDING,))


def test_the_table_cannot_be_changed() -> None:
    table: Any = TRANSITIONS

    with pytest.raises(TypeError):
        table[COMPLETED] = frozenset({RUNNING})
    assert {frozenset} == {type(following) for following in TRANSITIONS.values()}
