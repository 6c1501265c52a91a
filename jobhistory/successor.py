"""What a job that was copied becomes, once the one that it was copied from has gone on; and by which steps."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from jobhistory.job import SyncJob
from jobhistory.repository import identity
from jobhistory.status import TRANSITIONS, JobStatus


def successor(stored: SyncJob, found: SyncJob) -> SyncJob | None:
    """What a job that is `stored` in DEST becomes, given what is `found` in SOURCE; None where it stays as it is."""
    if stored.is_terminal or identity(stored) != identity(found):
        return None
    if stored.status is not JobStatus.PENDING:
        if (stored.worker, stored.started_at) != (found.worker, found.started_at):
            return None  # another worker's
        if found.is_active and found.version < stored.version:
            return None
        if stored.status is JobStatus.CANCELLING and found.status is JobStatus.RUNNING:
            found = attrs.evolve(found, status=stored.status, cancel_requested_at=stored.cancel_requested_at)
        if attrs.evolve(found, version=stored.version) == stored and found.version <= stored.version:
            return None
    elif found.version <= stored.version:
        return None
    least = stored.version + (2 if _between(stored.status, found.status) else 1)
    return attrs.evolve(found, version=max(found.version, least))


def steps(stored: SyncJob, target: SyncJob) -> Iterator[SyncJob]:
    """The versions after `stored` up to `target`, its successor: each may replace the one before."""
    between = _between(stored.status, target.status)
    for version in range(stored.version + 1, target.version - bool(between)):
        yield attrs.evolve(stored, version=version)
    if between:
        yield attrs.evolve(
            target,
            status=between,
            completed_at=None,
            duration_seconds=None,
            error=None,
            error_details=None,
            version=target.version - 1,
        )
    yield target


def _between(before: JobStatus, after: JobStatus) -> JobStatus | None:
    """The status that a job passes through where there is no edge from one to the other."""
    if after is before or after in TRANSITIONS[before]:
        return None
    return next(status for status in TRANSITIONS[before] if after in TRANSITIONS[status])
