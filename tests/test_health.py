"""Figures, drawn from a connection's newest jobs, and the signals with them, for any number of connections."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobhistory import JobHistory, JobRepository, JobStatus, SourceConnectionNotFoundError, SyncJob, health
from jobhistory.health import WINDOW
from jobhistory.repository import newest_first
from jobhistory.signals import SignalKind
from jobhistory.stats import Stats, heights, quantile, took
from jobhistory.status import ACTIVE_STATUSES
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import strategies
from tests.workers import CONNECTION, START, Time

OTHERS = [UUID(int=n) for n in range(2, 9)]


def job(n: int, status: JobStatus = JobStatus.COMPLETED, connection: UUID = CONNECTION, seconds: float = 60) -> SyncJob:
    """The n-th job of a connection: one an hour."""
    at = START + timedelta(hours=n)
    ended = None if status in ACTIVE_STATUSES else at + timedelta(seconds=seconds)
    return SyncJob(
        id=UUID(int=(connection.int << 64) + n),
        source_connection_id=connection,
        status=status,
        created_at=at,
        started_at=None if status is JobStatus.PENDING else at,
        completed_at=ended,
        duration_seconds=None if ended is None else seconds,
    )


COMPLETED, FAILED, CANCELLED, RUNNING = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.RUNNING


def of(*statuses: JobStatus) -> Stats:
    """The figures of jobs that ended so, the newest first."""
    return Stats.of([job(len(statuses) - n, status) for n, status in enumerate(statuses)])


# ---- Figures


def test_the_figures_of_no_jobs_are_empty() -> None:
    assert Stats(
        jobs=0,
        running=0,
        newest=None,
        last_success=None,
        failure_streak=0,
        success_rate=None,
        p50_seconds=None,
        p95_seconds=None,
    ) == Stats.of([])


@pytest.mark.parametrize(
    ("statuses", "streak"),
    [
        ([COMPLETED, FAILED], 0),
        ([FAILED, FAILED, COMPLETED, FAILED], 2),
        ([RUNNING, FAILED, CANCELLED, FAILED], 2),
        ([FAILED] * 3, 3),
    ],
)
def test_a_streak_is_of_failures_since_the_last_success(statuses: Sequence[JobStatus], streak: int) -> None:
    assert streak == of(*statuses).failure_streak


def test_the_success_rate_leaves_out_what_was_cancelled_or_goes_on() -> None:
    assert 0.75 == of(COMPLETED, FAILED, COMPLETED, COMPLETED, CANCELLED, RUNNING, JobStatus.PENDING).success_rate
    assert None is of(CANCELLED, RUNNING).success_rate


def test_what_is_being_cancelled_still_runs() -> None:
    assert 2 == of(RUNNING, JobStatus.CANCELLING, JobStatus.PENDING, COMPLETED).running


def test_durations_are_those_of_completed_jobs() -> None:
    stats = Stats.of([job(9, FAILED, seconds=9999), *(job(n, seconds=n) for n in range(5))])
    assert (2, 3.8) == (stats.p50_seconds, stats.p95_seconds)
    assert (None, None) == (of(FAILED).p50_seconds, of(FAILED).p95_seconds)


@given(values=st.lists(st.floats(0, 1e6), min_size=2), n=st.integers(2, 100), data=st.data())
def test_a_quantile_is_that_of_the_standard_library(values: list[float], n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    expected = statistics.quantiles(values, n=n, method="inclusive")[k - 1]
    assert expected == pytest.approx(quantile(sorted(values), k / n), rel=1e-9, abs=1e-6)


def test_the_quantile_of_one_value_is_that_value() -> None:
    assert [7, 7, 7] == [quantile([7], part) for part in (0, 0.5, 1)]


@settings(max_examples=20)
@given(jobs=st.lists(strategies.jobs(), max_size=4))
def test_any_jobs_have_figures_and_they_are_json(jobs: list[SyncJob]) -> None:
    told = json.loads(json.dumps(Stats.of(newest_first(jobs)).to_dict()))
    assert [field.name for field in attrs.fields(Stats)] == list(told)
    assert told["jobs"] == len(jobs)


def test_a_job_takes_as_long_as_it_runs() -> None:
    assert 90 == took(job(1, RUNNING), START + timedelta(hours=1, seconds=90))
    assert 0 == took(job(1, RUNNING), START)  # by a clock that is behind
    assert 60 == took(job(1), START)
    assert None is took(job(1, JobStatus.PENDING), START)


def test_bars_stand_as_high_as_durations_are_long_and_what_is_unknown_is_seen() -> None:
    assert [1, 1, 4, 8] == heights([None, 0, 30, 60], 8, 1)
    assert [1, 1] == heights([None, 0], 8, 1)
    assert [] == heights([], 8, 1)


# ---- Many connections


def test_each_connection_has_its_figures_in_the_order_asked_for(history: JobHistory) -> None:
    history.add_many([job(1), job(2, FAILED), job(1, COMPLETED, OTHERS[0])])
    history.register(OTHERS[1])

    asked = history.stats([OTHERS[1], str(CONNECTION), OTHERS[0]])

    assert [(OTHERS[1], 0), (CONNECTION, 2), (OTHERS[0], 1)] == [(id, stats.jobs) for id, stats in asked.items()]
    assert (job(2, FAILED), job(1), 1) == (
        asked[CONNECTION].newest,
        asked[CONNECTION].last_success,
        asked[CONNECTION].failure_streak,
    )
    assert asked == history.stats()
    assert asked == {id: each.stats for id, each in history.health().items()}


def test_an_unknown_connection_is_told(history: JobHistory) -> None:
    for read in (history.stats, history.health):
        with pytest.raises(SourceConnectionNotFoundError):
            read([CONNECTION, OTHERS[0]])


def test_only_the_newest_jobs_count_but_the_last_success_may_lie_further_back(history: JobHistory) -> None:
    history.add_many([job(0), *(job(n, FAILED) for n in range(1, WINDOW + 2))])
    history.add_many([job(n, FAILED, OTHERS[0]) for n in range(WINDOW)])

    stats = history.stats()

    assert (WINDOW, WINDOW, 0) == (
        stats[CONNECTION].jobs,
        stats[CONNECTION].failure_streak,
        stats[CONNECTION].success_rate,
    )
    assert job(0) == stats[CONNECTION].last_success
    assert None is stats[OTHERS[0]].last_success


def test_signals_come_with_the_figures_by_the_historys_own_clock(memory: JobHistory, time: Time) -> None:
    memory.add_many([job(n) for n in range(20)])
    time.seconds = 19.5 * 3600
    assert [] == memory.health()[CONNECTION].signals
    time.seconds = 21 * 3600

    health = memory.health()[CONNECTION]

    assert [SignalKind.OVERDUE] == [signal.kind for signal in health.signals]
    told = json.loads(json.dumps(health.to_dict()))
    assert (20, "has not run for 2h, though it always runs, usually every 1h") == (
        told["jobs"],
        told["signals"][0]["says"],
    )


class Forgetful(InMemoryJobRepository):
    """Forgets a connection just before a method looks at it."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.asked: list[int] = []

    def newest_jobs(self, source_connection_ids: Any = None, *, per_connection: int = 1) -> dict[UUID, list[SyncJob]]:  # noqa: ANN401
        ids = list(source_connection_ids)
        self.asked.append(len(ids))
        self._forget("newest_jobs")
        return super().newest_jobs(ids, per_connection=per_connection)

    def list_jobs(self, source_connection_id: UUID, **options: Any) -> list[SyncJob]:  # noqa: ANN401
        self._forget("list_jobs")
        return super().list_jobs(source_connection_id, **options)

    def _forget(self, method: str) -> None:
        if method == self.method and CONNECTION in {connection.id for connection in self.connections()}:
            self.forget(CONNECTION)


def test_a_connection_that_is_forgotten_meanwhile_is_left_out() -> None:
    repository = Forgetful("newest_jobs")
    history = JobHistory(repository)
    history.add_many([job(1), job(1, COMPLETED, OTHERS[0])])

    assert [OTHERS[0]] == list(history.health())


def test_one_that_is_forgotten_before_its_last_success_is_looked_for_has_none() -> None:
    history = JobHistory(Forgetful("list_jobs"))
    history.add_many([job(n, FAILED) for n in range(WINDOW)])

    assert None is history.stats()[CONNECTION].last_success


def test_the_jobs_of_so_many_connections_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "AT_ONCE", 3)
    repository = Forgetful("")
    history = JobHistory(repository)
    for id in OTHERS:
        history.register(id)

    assert OTHERS == list(history.health())
    assert [3, 3, 1] == repository.asked


def test_every_backend_gives_the_same(repository: JobRepository, time: Time) -> None:
    model = InMemoryJobRepository()
    for each in (repository, model):
        each.register(CONNECTION)
        each.add_many([job(n, [COMPLETED, COMPLETED, FAILED][n % 3], seconds=60 + n % 7) for n in range(70)])
    time.seconds = 100 * 3600

    assert time.history(model).health() == time.history(repository).health()
    assert time.history(model).failures() == time.history(repository).failures()
