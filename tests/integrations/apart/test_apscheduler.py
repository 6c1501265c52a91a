"""The recipe for APScheduler, as it stands in the documentation, in a real scheduler."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from jobhistory import JobHistory, JobStatus, SyncJob
from tests.integrations.apart.engines import CONNECTION, PATIENCE, newest, recipe, wait_until


class Source:
    """Two batches; the second when it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def __call__(self, _: str) -> Iterator[list[str]]:
        yield ["a", "b"]
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if self.error:
            raise self.error
        yield ["c"]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def names(url: str, source: Source) -> dict[str, Any]:
    """What the recipe defines, given what it takes."""
    names: dict[str, Any] = {"URL": url, "CONNECTION": CONNECTION, "batches_of": source}
    exec(recipe("apscheduler"), names)  # noqa: S102  our own
    return names


@contextmanager
def running(names: dict[str, Any]) -> Iterator[None]:
    """Its scheduler, whose time has come."""
    scheduler = names["scheduler"]
    for job in scheduler.get_jobs():
        job.modify(next_run_time=datetime.now(UTC))
    thread = threading.Thread(target=scheduler.start)
    thread.start()
    try:
        yield
    finally:
        scheduler.shutdown()
        thread.join()
        names["history"].close()


def test_the_schedule_tracks_and_starts_no_second_while_one_runs(
    history: JobHistory, names: dict[str, Any], source: Source
) -> None:
    with running(names):
        assert source.begun.wait(PATIENCE)
        names["sync"](CONNECTION)  # another machine's schedule
        assert 1 == len(history.list_jobs(CONNECTION))
        source.go.set()
        job = wait_until(history, lambda job: job.is_terminal)

    assert ("COMPLETED", {"inserted": 3}) == newest(history)
    assert {"trigger": "schedule"} == job.metadata


def test_a_sync_that_fails_is_a_failed_job(history: JobHistory, names: dict[str, Any], source: Source) -> None:
    source.error = PermissionError("expired")
    source.go.set()

    with running(names):
        job = wait_until(history, lambda job: job.is_terminal)

    assert ("FAILED", {"inserted": 2}) == newest(history)
    assert "PermissionError: expired" == job.error


def test_what_a_crash_left_behind_is_ended(history: JobHistory, names: dict[str, Any], source: Source) -> None:
    source.go.set()
    ago = datetime.now(UTC) - timedelta(hours=1)
    left = SyncJob(
        id=UUID(int=7),
        source_connection_id=UUID(CONNECTION),
        status=JobStatus.RUNNING,
        created_at=ago,
        started_at=ago,
        worker="gone:1:tag",
    )
    waiting = SyncJob(id=UUID(int=8), source_connection_id=left.source_connection_id, created_at=ago)
    history.add_many([left, waiting])
    passed = [0.0]
    names["history"].monotonic = lambda: passed[0]
    names["history"].sleep = lambda seconds: passed.append(passed.pop() + seconds)

    with running(names):
        ended = wait_until(history, lambda job: job.id == left.id and job.is_terminal)
        unclaimed = wait_until(history, lambda job: job.id == waiting.id and job.is_terminal)

    assert ["FAILED", "FAILED"] == [ended.status.value, unclaimed.status.value]
    assert (ended.error or "").startswith("its worker vanished")
