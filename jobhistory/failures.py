"""Failures: which errors there were, grouped by what they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from jobhistory.errors import SourceConnectionNotFoundError
from jobhistory.fingerprint import fingerprint, pattern
from jobhistory.job import SyncJob
from jobhistory.repository import MAX_LIMIT, JobRepository, Position
from jobhistory.status import JobStatus
from jobhistory.times import to_wire, utc

_FIRST_PAGE = 20
"""Most connections failed less often than that."""


@attrs.frozen(kw_only=True)
class Failure:
    """Errors with the same fingerprint."""

    fingerprint: str
    pattern: str
    """What they have in common, with placeholders in place of what changes; "" where no error was given."""
    count: int
    """How many jobs failed so."""
    first_at: datetime
    """When the first of them failed, or, its worker having vanished, was last heard of."""
    last_at: datetime
    connections: Mapping[UUID, int]
    """How many of them each source connection has, the most first."""
    latest: SyncJob
    """The newest of the jobs, in the order of created_at."""

    def to_dict(self) -> dict[str, Any]:
        """The group as JSON types; the latest job in the contract's form."""
        return {
            "fingerprint": self.fingerprint,
            "pattern": self.pattern,
            "count": self.count,
            "first_at": to_wire(self.first_at),
            "last_at": to_wire(self.last_at),
            "connections": {str(id): count for id, count in self.connections.items()},
            "latest": self.latest.to_dict(),
        }


def failures_of(
    repository: JobRepository, source_connection_ids: Sequence[UUID] | None, since: datetime | None, limit: int
) -> list[Failure]:
    """The failures of the connections asked for (None: of all), of jobs created at `since` or later.

    The most frequent first, then those that came last; `limit` at most. Raises SourceConnectionNotFoundError,
    and InvalidJobError where `since` is no aware datetime.
    """
    since = None if since is None else utc("since", since)
    groups: dict[str, _Group] = {}
    for job in _failed_jobs(repository, source_connection_ids, since):
        key = fingerprint(job.error or "")
        if key in groups:
            groups[key].add(job)
        else:
            groups[key] = _Group(job)
    first = sorted(groups.items(), key=lambda item: item[1].weight, reverse=True)[:limit]
    return [group.failure(key) for key, group in first]


def _failed_jobs(
    repository: JobRepository, source_connection_ids: Sequence[UUID] | None, since: datetime | None
) -> Iterator[SyncJob]:
    """The failed jobs; where all connections are asked for, one that is forgotten meanwhile is left out."""
    if source_connection_ids is not None:
        for id in dict.fromkeys(source_connection_ids):
            yield from _failed_jobs_of(repository, id, since)
        return
    for connection in repository.connections():
        try:
            yield from _failed_jobs_of(repository, connection.id, since)
        except SourceConnectionNotFoundError:
            continue


def _failed_jobs_of(repository: JobRepository, id: UUID, since: datetime | None) -> Iterator[SyncJob]:
    before, limit = None, _FIRST_PAGE
    while page := repository.list_jobs(id, statuses={JobStatus.FAILED}, limit=limit, before=before):
        for job in page:
            if since is not None and job.created_at < since:
                return
            yield job
        before, limit = Position.of(page[-1]), MAX_LIMIT


class _Group:
    """A group that grows, a job at a time."""

    def __init__(self, job: SyncJob) -> None:
        self._latest = job
        self._first_at = self._last_at = _failed_at(job)
        self._connections = Counter([job.source_connection_id])

    def add(self, job: SyncJob) -> None:
        self._connections[job.source_connection_id] += 1
        at = _failed_at(job)
        self._first_at, self._last_at = min(self._first_at, at), max(self._last_at, at)
        self._latest = max(self._latest, job, key=Position.of)

    @property
    def weight(self) -> tuple[int, datetime]:
        """What the groups are ordered by."""
        return self._connections.total(), self._last_at

    def failure(self, fingerprint: str) -> Failure:
        return Failure(
            fingerprint=fingerprint,
            pattern=pattern(self._latest.error or ""),
            count=self._connections.total(),
            first_at=self._first_at,
            last_at=self._last_at,
            connections=dict(self._connections.most_common()),
            latest=self._latest,
        )


def _failed_at(job: SyncJob) -> datetime:
    return job.completed_at or job.last_sign_at
