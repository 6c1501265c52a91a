"""Which of some jobs a history holds already, for `import` to say so."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from jobhistory.errors import JobNotFoundError, SourceConnectionNotFoundError
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import Position

_LAST_ID = UUID(int=2**128 - 1)


def stored_ids(history: JobHistory, jobs: Iterable[SyncJob]) -> set[UUID]:
    """The ids of those that are stored.

    Jobs are asked for one by one only where their connection has some among them: mostly it has none, since rows
    come in order and are older, or newer, than what is there.
    """
    by_connection: dict[UUID, list[SyncJob]] = {}
    for job in jobs:
        by_connection.setdefault(job.source_connection_id, []).append(job)
    return {
        job.id
        for connection_id, some in by_connection.items()
        if _has_jobs_among(history, connection_id, some)
        for job in some
        if _is_stored(history, job.id)
    }


def _has_jobs_among(history: JobHistory, connection_id: UUID, jobs: list[SyncJob]) -> bool:
    times = [job.created_at for job in jobs]
    try:
        below = history.list_jobs(connection_id, limit=1, before=Position(max(times), _LAST_ID))
    except SourceConnectionNotFoundError:
        return False
    return any(job.created_at >= min(times) for job in below)


def _is_stored(history: JobHistory, job_id: UUID) -> bool:
    try:
        history.get(job_id)
    except JobNotFoundError:
        return False
    return True
