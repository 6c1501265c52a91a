"""pytest fixtures, loaded by pytest itself: a history in memory, and the clock it goes by.

def test_my_sync(job_history):
    my_sync(job_history)
    assert job_history.list_jobs(MY_SOURCE)[0].status == "COMPLETED"
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from jobhistory.history import JobHistory

# So that a failure of the kit's own asserts shows the values.
pytest.register_assert_rewrite("jobhistory.testing.rules", "jobhistory.testing.stateful")


class FrozenClock:
    """A clock that stands at 2024-03-15T12:00:00Z until it is moved; threads may share it.

    Called, it gives the time, an aware UTC datetime: a JobHistory takes it as `clock=`, its `monotonic` and
    `sleep` as those.
    """

    def __init__(self) -> None:
        self._start = datetime(2024, 3, 15, 12, tzinfo=UTC)
        self._passed = timedelta()
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """The time, an aware UTC datetime."""
        return self._start + self._passed

    def monotonic(self) -> float:
        """Seconds since the clock was made: as far as it was moved."""
        return self._passed.total_seconds()

    def advance(self, duration: float | timedelta) -> None:
        """Move the clock ahead, by seconds or a timedelta; raises InvalidJobError where it is negative."""
        from jobhistory.times import seconds

        passed = timedelta(seconds=seconds("duration", duration))
        with self._lock:
            self._passed += passed

    def sleep(self, duration: float | timedelta) -> None:
        """Advance, and return at once."""
        self.advance(duration)


@pytest.fixture
def frozen_clock() -> FrozenClock:
    """A clock that moves only when told to: `frozen_clock.advance(90)`."""
    return FrozenClock()


@pytest.fixture
def job_history(frozen_clock: FrozenClock) -> Iterator[JobHistory]:
    """A history in memory, by the frozen clock: nothing in it waits; where it would, the clock moves."""
    from jobhistory.history import JobHistory
    from jobhistory.storage.memory import InMemoryJobRepository

    class Repository(InMemoryJobRepository):
        def wait_for_changes(self, after: str | None, timeout: float) -> bool:
            frozen_clock.sleep(timeout)
            return bool(self.changes(after, limit=1))

    with JobHistory(
        Repository(),
        clock=frozen_clock,
        monotonic=frozen_clock.monotonic,
        sleep=frozen_clock.sleep,
    ) as history:
        yield history
