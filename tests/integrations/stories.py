"""Jobs for hooks to be told of, each a story that its history lives through."""

from __future__ import annotations

from collections.abc import Callable

from jobhistory import JobHistory, SyncJob
from jobhistory.storage.memory import InMemoryJobRepository
from tests.workers import CONNECTION, Time

STACK = "Traceback (most recent call last): ..."


def told(hook: Callable[[SyncJob], object], time: Time | None = None) -> tuple[JobHistory, Time]:
    """A history that tells the hook, and its time."""
    time = time or Time()
    return time.history(InMemoryJobRepository(), hooks=[hook]), time


def completed(history: JobHistory, time: Time) -> SyncJob:
    """Waits 10 s, runs 90 s, and does a little of everything; it was triggered by a schedule."""
    job = history.enqueue(CONNECTION, metadata={"trigger": "schedule"})
    time.seconds += 10
    history.start(job.id, worker="host:7:tag")
    time.seconds += 60
    history.report(job.id, inserted=45, updated=12)
    time.seconds += 30
    history.report(job.id, deleted=3, failed=1)
    return history.complete(job.id, duration_seconds=89.5)


def failed(history: JobHistory, time: Time) -> SyncJob:
    job = history.enqueue(CONNECTION)
    history.start(job.id, worker="host:7:tag")
    time.seconds += 5
    details = {"type": "github.BadTokenError", "message": "expired", "traceback": STACK}
    return history.fail(job.id, error="BadTokenError: expired", error_details=details)


def cancelled(history: JobHistory, time: Time) -> SyncJob:
    job = history.enqueue(CONNECTION)
    history.start(job.id, worker="host:7:tag")
    time.seconds += 5
    history.cancel(job.id)
    time.seconds += 1
    return history.finish_cancel(job.id, reason="asked to")


def never_started(history: JobHistory, time: Time) -> SyncJob:
    job = history.enqueue(CONNECTION)
    time.seconds += 5
    return history.cancel(job.id)


def vanished(history: JobHistory, time: Time) -> SyncJob:
    """Its worker beat after 15 s, and never again."""
    job = history.enqueue(CONNECTION)
    history.start(job.id, worker="host:7:tag")
    time.seconds += 15
    history.beat(job.id)
    time.seconds += 1000
    [job] = history.reap()
    return job
