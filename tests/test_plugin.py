from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

import jobhistory.testing
from jobhistory.errors import InvalidJobError
from jobhistory.history import JobHistory
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository

if TYPE_CHECKING:
    from jobhistory.testing.plugin import FrozenClock

pytest_plugins = ["pytester"]

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
SOURCE = UUID("550e8400-e29b-41d4-a716-446655440000")
RULES = [name for name in dir(jobhistory.testing.JobRepositoryContract) if name.startswith("test_")]

A_CONSUMERS_TEST = """
    from jobhistory import JobStatus

    SOURCE = "550e8400-e29b-41d4-a716-446655440000"

    def my_sync(history):
        with history.track(SOURCE) as run:
            run.report(inserted=3)

    def test_my_sync(job_history):
        my_sync(job_history)
        assert [job.status for job in job_history.list_jobs(SOURCE)] == [JobStatus.COMPLETED]

    def test_each_test_has_a_history_of_its_own(job_history):
        assert job_history.connections() == []
"""

A_THIRD_PARTYS_TEST = """
    from jobhistory.storage.memory import InMemoryJobRepository
    from jobhistory.testing import JobRepositoryContract

    class Forgetful(InMemoryJobRepository):
        def list_jobs(self, source_connection_id, *, limit=100, **page):
            return super().list_jobs(source_connection_id, limit=limit, **page)[:50]

    class TestForgetful(JobRepositoryContract):
        def make_repository(self):
            return Forgetful()
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_history_goes_by_the_frozen_clock(job_history: JobHistory, frozen_clock: FrozenClock) -> None:
    with job_history.track(SOURCE) as run:
        frozen_clock.advance(332.5)
        run.report(inserted=45)

    [job] = job_history.list_jobs(SOURCE)
    assert (JobStatus.COMPLETED, 45, 332.5) == (job.status, job.entities_inserted, job.duration_seconds)
    assert (NOON, NOON + timedelta(seconds=332.5)) == (job.started_at, job.completed_at)


def test_the_clock_stands_until_it_is_moved(frozen_clock: FrozenClock) -> None:
    assert [NOON, NOON] == [frozen_clock(), frozen_clock()]
    assert 0 == frozen_clock.monotonic()

    frozen_clock.advance(timedelta(days=1))
    frozen_clock.advance(0.000_001)
    frozen_clock.sleep(3600)

    assert NOON + timedelta(days=1, hours=1, microseconds=1) == frozen_clock()
    assert 90_000.000_001 == frozen_clock.monotonic()


@pytest.mark.parametrize("duration", [-1, timedelta(seconds=-1), "5", True, float("nan")])
def test_the_clock_is_moved_ahead_or_not_at_all(frozen_clock: FrozenClock, duration: float) -> None:
    with pytest.raises(InvalidJobError):
        frozen_clock.advance(duration)
    assert NOON == frozen_clock()


def test_jobs_of_one_frozen_moment_still_stand_newest_first(job_history: JobHistory) -> None:
    jobs = [job_history.enqueue(SOURCE) for _ in range(10)]

    assert jobs[::-1] == job_history.list_jobs(SOURCE)


def test_where_a_history_would_wait_the_clock_moves(job_history: JobHistory, frozen_clock: FrozenClock) -> None:
    assert [] == job_history.wait_for_changes(timeout=3)
    assert 3 == frozen_clock.monotonic()

    job = job_history.start(job_history.enqueue(SOURCE).id)
    assert [job] == [change.job for change in job_history.wait_for_changes(timeout=3)]
    assert 3 == frozen_clock.monotonic()


def test_a_reaper_waits_by_the_frozen_clock(job_history: JobHistory, frozen_clock: FrozenClock) -> None:
    job = job_history.start(job_history.enqueue(SOURCE).id)
    token = job_history.latest_change()
    frozen_clock.advance(301)
    with job_history.reaper():
        assert isinstance(job_history.repository, InMemoryJobRepository)
        assert InMemoryJobRepository.wait_for_changes(job_history.repository, token, 60), "waited for by the real clock"
    assert JobStatus.FAILED is job_history.get(job.id).status
    assert 331 == frozen_clock.monotonic()


def test_a_consumer_tests_a_sync_in_three_lines(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(A_CONSUMERS_TEST)

    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_third_party_is_told_by_name_and_in_full_which_rule_its_backend_breaks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(A_THIRD_PARTYS_TEST)

    told = pytester.runpytest_subprocess("-k", "limit")

    told.assert_outcomes(passed=3, failed=1, deselected=len(RULES) - 4)
    told.stdout.fnmatch_lines(
        [
            "*TestForgetful.test_a_page_holds_at_most_the_limit*",
            "E*assert*SyncJob*==*SyncJob*",
            "E*Left contains 49 more items*",
            "E*The rule: A page holds the newest `limit` jobs, 1 to 1000*",
        ]
    )


def test_pytest_starts_without_hypothesis_and_without_a_backend() -> None:
    loaded = "import jobhistory.testing.plugin, sys; print({'hypothesis', 'sqlite_utils'} & {*sys.modules})"

    assert "set()\n" == python(loaded).stdout


@pytest.mark.parametrize("name", jobhistory.testing.__all__)
def test_without_hypothesis_the_kit_names_the_extra(name: str) -> None:
    refused = python(f"import sys; sys.modules['hypothesis'] = None; from jobhistory.testing import {name}")

    assert "ImportError" in refused.stderr
    assert "pip install 'jobhistory[testing]'" in refused.stderr.splitlines()[-1]


def test_the_kit_has_what_it_says_and_nothing_else() -> None:
    assert all(hasattr(jobhistory.testing, name) for name in jobhistory.testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        jobhistory.testing.nothing  # noqa: B018
