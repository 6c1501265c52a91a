"""What is unusual is found, by kind; what is usual is left alone; each threshold is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest

from jobhistory import JobStatus, SyncJob
from jobhistory.signals import ENOUGH, QUIET, Signal, SignalKind, signals
from tests.syncs import BEGUN, DAY, generated
from tests.workers import CONNECTION

HISTORIES = 200
NOW = BEGUN + timedelta(days=20, hours=1)


def run(day: float, seconds: float = 600, inserted: int = 1000, **changes: Any) -> SyncJob:  # noqa: ANN401  a job's fields
    """A run that completed, so many days after BEGUN."""
    at = BEGUN + timedelta(days=day)
    job = SyncJob(
        id=UUID(int=round(day * DAY)),
        source_connection_id=CONNECTION,
        status=JobStatus.COMPLETED,
        created_at=at,
        started_at=at,
        completed_at=at + timedelta(seconds=seconds),
        duration_seconds=seconds,
        entities_inserted=inserted,
        progress_at=at + timedelta(seconds=seconds),
    )
    return attrs.evolve(job, **changes)


def running(day: float, **changes: Any) -> SyncJob:  # noqa: ANN401  a job's fields
    unfinished: dict[str, Any] = {"completed_at": None, "duration_seconds": None, "progress_at": None}
    return run(day, **(unfinished | {"status": JobStatus.RUNNING} | changes))


def daily(count: int = 20) -> list[SyncJob]:
    """As many runs as days, the newest first; seconds and entities vary a little."""
    return [run(day, 600 + day % 3, 1000 + day % 5) for day in reversed(range(count))]


def kinds(jobs: Sequence[SyncJob], now: datetime = NOW) -> list[SignalKind]:
    return [signal.kind for signal in signals(jobs, now)]


@pytest.mark.parametrize("seed", ["1"])
def test_nine_in_ten_planted_anomalies_are_found_and_at_most_one_in_fifty_histories_cries_without_one(
    seed: str,
) -> None:
    planted = [generated(f"{seed}:{n}", [*SignalKind][n % len(SignalKind)]) for n in range(HISTORIES)]
    usual = [generated(f"{seed}:usual:{n}", None) for n in range(HISTORIES)]

    missed = [each.kind for each in planted if each.kind not in kinds(each.jobs, each.now)]
    false = [(each.sync, found) for each in usual if (found := kinds(each.jobs, each.now))]

    assert len(missed) <= HISTORIES / 10, missed
    assert len(false) <= HISTORIES / 50, false


def test_a_usual_history_says_nothing() -> None:
    assert [] == kinds([])
    assert [] == kinds(daily())


# ---- SLOW


def test_a_run_that_took_much_longer_is_slow_with_the_numbers_behind_it() -> None:
    [signal] = signals([run(20, 2400), *daily()], NOW)

    assert (SignalKind.SLOW, 2400, 20) == (signal.kind, signal.observed, signal.drawn_from)
    assert 601 == pytest.approx(signal.usual)
    assert 1202 == pytest.approx(signal.bound, rel=1e-3)
    assert "took 4.0 times its usual: 40m, usually 10m 1s" == str(signal)


def test_a_run_is_slow_while_it_runs() -> None:
    [signal] = signals([running(20), *daily()], NOW)

    assert "has been running for 6.0 times its usual: 1h, usually 10m 1s" == str(signal)


def test_less_than_twice_the_usual_does_not_matter_however_steady_it_was() -> None:
    assert [] == kinds([run(20, 1190), *daily()])


def test_where_durations_vary_more_has_to_happen() -> None:
    varied = [run(day, 600 * 2 ** (day % 3 - 1)) for day in reversed(range(20))]
    assert [] == kinds([run(20, 2400), *varied])
    assert [SignalKind.SLOW] == kinds([run(20, 24000), *varied], NOW + timedelta(hours=7))


def test_what_was_seen_twice_is_no_news_and_what_was_seen_once_is() -> None:
    once = daily()
    once[5] = run(14, 2400)
    twice = [*once]
    twice[6] = run(13, 2400)
    assert [SignalKind.SLOW] == kinds([run(20, 2400), *once])
    assert [] == kinds([run(20, 2400), *twice])


def test_the_days_of_the_week_have_a_usual_of_their_own() -> None:
    # On Mondays a thousand are inserted, and a hundred on other days.
    weeks = [run(day, inserted=1000 if day % 7 == 0 else 100) for day in reversed(range(35))]
    assert [] == kinds([run(35, inserted=1000), *weeks], BEGUN + timedelta(days=35.1))
    assert [SignalKind.FEW] == kinds([run(35, inserted=20), *weeks], BEGUN + timedelta(days=35.1))


def test_durations_below_a_second_are_alike() -> None:
    assert [] == kinds([run(20, 1.5), *(attrs.evolve(job, duration_seconds=0.01) for job in daily())])


# ---- FEW


def test_a_run_that_inserted_much_less_says_how_much() -> None:
    [signal] = signals([run(20, inserted=100), *daily()], NOW)

    assert (SignalKind.FEW, 100, 20) == (signal.kind, signal.observed, signal.drawn_from)
    assert "inserted 90% less than usual: 100, usually 1,002" == str(signal)
    assert 250.5 == pytest.approx(signal.bound, rel=1e-3)


def test_inserting_nothing_is_much_less_and_a_quarter_or_much_more_is_not() -> None:
    assert [SignalKind.FEW] == kinds([run(20, inserted=0), *daily()])
    assert [] == kinds([run(20, inserted=260), *daily()])
    assert [] == kinds([run(20, inserted=10**9), *daily()])


def test_where_few_are_usual_fewer_say_nothing() -> None:
    assert [] == kinds([run(20, inserted=0), *(attrs.evolve(job, entities_inserted=19) for job in daily())])
    assert [SignalKind.FEW] == kinds(
        [run(20, inserted=0), *(attrs.evolve(job, entities_inserted=20) for job in daily())]
    )


@pytest.mark.parametrize("newest", [{"duration_seconds": 6000.0}, {"entities_inserted": 0}])
def test_what_ended_last_is_news_until_another_run_ends(newest: dict[str, Any]) -> None:
    odd = run(19.9, **newest)
    failed = run(20, status=JobStatus.FAILED)

    assert 1 == len(kinds([odd, *daily()]))
    assert 1 == len(kinds([running(20.03), odd, *daily()]))
    assert [] == kinds([failed, odd, *daily()])


# ---- STALLED


def stalled(quiet: float, silent: float = 10, **changes: Any) -> SyncJob:  # noqa: ANN401  a job's fields
    """A run whose counters have not moved for so long, and whose worker has been silent for so long."""
    heard = NOW - timedelta(seconds=silent)
    job = running(20, started_at=NOW - timedelta(minutes=15), heartbeat_at=heard)
    return attrs.evolve(job, **({"progress_at": heard - timedelta(seconds=quiet)} | changes))


def test_counters_that_stand_still_for_longer_than_whole_runs_take_while_the_heart_beats_are_stalled() -> None:
    [signal] = signals([stalled(800), *daily()], NOW)

    assert (SignalKind.STALLED, 800, 601, 20) == (signal.kind, signal.observed, signal.usual, signal.drawn_from)
    assert "counters have not moved for 13m 20s, though its heart beats; whole runs usually take 10m 1s" == str(signal)
    assert [] == kinds([stalled(signal.bound), *daily()])


def test_a_run_that_has_not_counted_yet_stands_still_since_its_start() -> None:
    assert [SignalKind.STALLED] == kinds([stalled(0, progress_at=None), *daily()])


def test_a_heart_that_does_not_beat_is_no_matter_of_counters() -> None:
    assert [] == kinds([stalled(800, silent=301), *daily()])
    assert [] == kinds([stalled(800, heartbeat_at=None), *daily()])


def test_counters_that_never_move_do_not_stop_moving() -> None:
    assert [] == kinds([stalled(800), *(attrs.evolve(job, progress_at=None) for job in daily())])


def test_any_counters_may_stand_still_for_five_minutes() -> None:
    short = [run(day, 60) for day in reversed(range(20))]
    fresh = NOW - timedelta(seconds=110)
    assert [] == kinds([stalled(QUIET, started_at=fresh), *short])
    assert SignalKind.STALLED in kinds([stalled(QUIET + 1, started_at=fresh), *short])


def test_counters_stand_still_also_where_whole_runs_take_no_time() -> None:
    [_, signal] = signals([stalled(800), *(run(day, 0) for day in reversed(range(20)))], NOW)

    assert "counters have not moved for 13m 20s, though its heart beats; whole runs usually take 0ms" == str(signal)


# ---- OVERDUE


def test_what_runs_daily_and_has_not_run_is_overdue() -> None:
    [signal] = signals(daily(), BEGUN + timedelta(days=21))

    assert (SignalKind.OVERDUE, daily()[0], 19) == (signal.kind, signal.job, signal.drawn_from)
    assert (2 * DAY, DAY, 1.5 * DAY) == (signal.observed, signal.usual, signal.bound)
    assert "has not run for 2d, though it always runs, usually every 1d" == str(signal)
    assert [] == kinds(daily(), BEGUN + timedelta(days=20.5))


def test_what_waits_has_not_run_and_what_runs_or_failed_has() -> None:
    late = BEGUN + timedelta(days=21)
    waiting = SyncJob(id=UUID(int=1), source_connection_id=CONNECTION, created_at=late)
    failed = run(20.9, status=JobStatus.FAILED)

    assert [SignalKind.OVERDUE] == kinds([waiting, *daily()], late)
    assert SignalKind.OVERDUE not in kinds([running(20), *daily()], late)
    assert [] == kinds([failed, *daily()], late)


@pytest.mark.parametrize("gap", [0, 0.01, 10])
def test_jobs_that_came_in_one_go_have_no_next_one_that_is_due_within_five_minutes(gap: float) -> None:
    at_once = [run(n * gap / DAY, 5, id=UUID(int=n + 1)) for n in reversed(range(20))]
    last = at_once[0].created_at

    assert [] == kinds(at_once, last + timedelta(seconds=QUIET))
    assert ([SignalKind.OVERDUE] if gap else []) == kinds(at_once, last + timedelta(seconds=QUIET + 1))


def test_what_runs_irregularly_is_never_overdue() -> None:
    days = [0, 0.1, 2, 2.2, 2.3, 5, 5.1, 7, 9, 9.2, 11, 13, 13.1]
    assert [] == kinds([run(day) for day in reversed(days)], BEGUN + timedelta(days=90))


@pytest.mark.parametrize(
    ("weeks", "look_at", "found"),
    [
        (4, 27, []),  # Sunday
        (4, 28.4, []),  # Monday, before half a day is over
        (4, 28.6, [SignalKind.OVERDUE]),
        (3, 27, []),  # nor is it known yet what a weekend is
        (3, 23, []),
    ],
)
def test_a_sync_that_rests_at_weekends_is_not_overdue_before_monday(
    weeks: int, look_at: float, found: list[SignalKind]
) -> None:
    weekdays = [run(day) for day in reversed(range(7 * weeks)) if day % 7 < 5]
    assert found == kinds(weekdays, BEGUN + timedelta(days=look_at))


def test_within_the_week_such_a_sync_is_overdue_the_next_day() -> None:
    weekdays = [run(day) for day in reversed(range(30)) if day % 7 < 5]
    assert [SignalKind.OVERDUE] == kinds(weekdays, BEGUN + timedelta(days=31))


# ---- All


@pytest.mark.parametrize(
    "newest",
    [run(20, 6000), run(20, inserted=0), stalled(800), running(20)],
    ids=["slow", "few", "stalled", "slow while it runs"],
)
def test_no_signal_speaks_before_there_are_ten_earlier_jobs(newest: SyncJob) -> None:
    assert [] == kinds([newest, *daily()[: ENOUGH - 1]])
    assert [] != kinds([newest, *daily()[:ENOUGH]])


def test_nothing_is_overdue_before_there_were_ten_gaps() -> None:
    late = BEGUN + timedelta(days=30)
    assert [] == kinds(daily(ENOUGH), late)
    assert [SignalKind.OVERDUE] == kinds(daily(ENOUGH + 1), late)


def test_a_signal_is_json() -> None:
    job = run(20, inserted=100)
    [signal] = signals([job, *daily()], NOW)

    told = json.loads(json.dumps(signal.to_dict()))

    assert [field.name for field in attrs.fields(Signal)] == [name for name in told if name != "says"]
    assert ("FEW", str(job.id), str(signal)) == (told["kind"], told["job"], told["says"])
