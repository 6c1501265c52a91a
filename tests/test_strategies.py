from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from operator import eq
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from jobhistory.errors import InvalidLimitError
from jobhistory.job import FIELDS, SyncJob
from jobhistory.repository import check_limit
from jobhistory.status import JobStatus
from jobhistory.storable import check_json, check_text
from jobhistory.testing import strategies

ENDED = {"completed_at", "error_details"}
OPTIONAL: dict[JobStatus, set[str]] = {
    JobStatus.PENDING: set(),
    JobStatus.RUNNING: {"started_at"},
    JobStatus.CANCELLING: {"started_at"},
    JobStatus.COMPLETED: {"started_at", "duration_seconds", *ENDED},
    JobStatus.FAILED: {"started_at", "duration_seconds", "error", *ENDED},
    JobStatus.CANCELLED: {"started_at", "duration_seconds", "error", *ENDED},
}
ALWAYS_OPTIONAL = {"cancel_requested_at", "heartbeat_at", "progress_at", "worker", "metadata"}
ALWAYS_SET = {
    JobStatus.RUNNING: {"started_at"},
    JobStatus.CANCELLING: {"started_at"},
    JobStatus.COMPLETED: {"started_at", "completed_at"},
}
T = TypeVar("T")


def missing(strategy: st.SearchStrategy[T], wanted: Mapping[str, Callable[[T], bool]]) -> list[str]:
    """What the strategy does not make of all that is wanted, by name, though it may be in different values."""
    left = dict(wanted)

    def was_the_last(value: T) -> bool:
        for name in [name for name, is_so in left.items() if is_so(value)]:
            del left[name]
        return not left

    steady = settings(database=None, derandomize=True, max_examples=1000, phases=[Phase.generate])
    with suppress(NoSuchExample):
        find(strategy, was_the_last, settings=steady)
    return list(left)


def has(name: str, job: SyncJob) -> bool:
    return getattr(job, name) is not None


def lacks(name: str, job: SyncJob) -> bool:
    return getattr(job, name) is None


@pytest.mark.parametrize("status", JobStatus)
def test_jobs_reach_every_field_that_a_status_allows_there_and_not_there(status: JobStatus) -> None:
    optional = OPTIONAL[status] | ALWAYS_OPTIONAL
    wanted: dict[str, Callable[[SyncJob], bool]] = {
        **{f"{name} there": partial(has, name) for name in optional},
        **{f"{name} not there": partial(lacks, name) for name in optional - ALWAYS_SET.get(status, set())},
    }
    if status is not JobStatus.PENDING:
        wanted["a great count"] = lambda job: job.entities_failed > 2**32

    assert [] == missing(strategies.jobs(statuses=st.just(status)), wanted)


def test_every_field_that_may_be_empty_is_accounted_for() -> None:
    required = {"id", "source_connection_id", "status", "created_at", "version"}
    counts = {name for name in FIELDS if name.startswith("entities_")}

    assert set(FIELDS) - required - counts == ALWAYS_OPTIONAL.union(*OPTIONAL.values())


@given(strategies.histories(min_size=2, max_size=4))
def test_a_history_has_one_connection_and_no_id_twice(history: list[SyncJob]) -> None:
    assert 1 == len({job.source_connection_id for job in history})
    assert len(history) == len({job.id for job in history})
    assert 2 <= len(history) <= 4


def test_histories_have_ties_and_jobs_of_every_status() -> None:
    wanted: dict[str, Callable[[list[SyncJob]], bool]] = {
        "ties": lambda history: len({job.created_at for job in history}) < len(history),
        "no job": lambda history: history == [],
        **{status: partial(includes, status) for status in JobStatus},
    }

    assert [] == missing(strategies.histories(max_size=4), wanted)


def includes(status: JobStatus, history: list[SyncJob]) -> bool:
    return status in {job.status for job in history}


@given(strategies.limits(), strategies.bad_limits())
def test_good_limits_pass_and_bad_ones_are_refused(good: int, bad: object) -> None:
    assert good == check_limit(good)
    with pytest.raises(InvalidLimitError):
        check_limit(bad)


@given(strategies.hostile_text(max_size=8), strategies.json_objects())
def test_hostile_text_and_json_can_be_stored(text: str, value: dict[str, object]) -> None:
    assert text == check_text("error", text)
    assert check_json("metadata", value)
    assert len(text) <= 8


def test_filters_are_none_empty_and_all() -> None:
    assert [] == missing(strategies.status_filters(), equal_to(None, frozenset(), frozenset(JobStatus)))


def test_times_and_ids_reach_their_ends() -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

    assert [] == missing(strategies.timestamps(), equal_to(first, last))
    assert [] == missing(strategies.ids(), equal_to(UUID(int=0), UUID(int=2**128 - 1)))


def equal_to(*values: object) -> dict[str, Callable[[object], bool]]:
    return {repr(value): partial(eq, value) for value in values}
