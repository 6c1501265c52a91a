"""The statuses of a job, and the one table that says which may follow which."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobStatus(StrEnum):
    """Where a job stands. The values are the words on the wire."""

    PENDING = "PENDING"
    """Queued, waiting for a worker."""
    RUNNING = "RUNNING"
    """A worker is pulling and processing data."""
    COMPLETED = "COMPLETED"
    """Finished successfully."""
    FAILED = "FAILED"
    """Ended by an error, or its worker vanished."""
    CANCELLING = "CANCELLING"
    """Asked to stop; its worker is stopping."""
    CANCELLED = "CANCELLED"
    """Stopped on request."""


TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED, JobStatus.FAILED}),
        JobStatus.RUNNING: frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLING}),
        # A request is a request: work that finished first did finish.
        JobStatus.CANCELLING: frozenset({JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.COMPLETED}),
        JobStatus.COMPLETED: frozenset(),
        JobStatus.FAILED: frozenset(),
        JobStatus.CANCELLED: frozenset(),
    }
)
"""From each status, the statuses a job may enter next."""

TERMINAL_STATUSES: frozenset[JobStatus] = frozenset(s for s, following in TRANSITIONS.items() if not following)
"""A job in one of these is finished and never changes again."""

ACTIVE_STATUSES: frozenset[JobStatus] = frozenset(TRANSITIONS) - TERMINAL_STATUSES
"""A job in one of these is not finished yet."""
