"""Health: the figures and signals of many connections, each from its newest jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from jobhistory.errors import SourceConnectionNotFoundError
from jobhistory.job import SyncJob
from jobhistory.repository import JobRepository
from jobhistory.signals import Signal, signals
from jobhistory.stats import Stats
from jobhistory.status import JobStatus

WINDOW = 50
"""So many of a connection's newest jobs are looked at."""
AT_ONCE = 5
"""The jobs of so many connections are held in memory at the same time: 250.

Of more, Python's garbage collector would look through each of them, since it starts with the 700th new object
(https://docs.python.org/3/library/gc.html#gc.set_threshold): the jobs of 500 took twice the time.
"""


@attrs.frozen(kw_only=True)
class Health:
    """How a connection does: the figures of its newest jobs, and what is unusual in them."""

    stats: Stats
    signals: Sequence[Signal]

    def to_dict(self) -> dict[str, Any]:
        """The figures under their names, and the signals, as JSON types."""
        return {**self.stats.to_dict(), "signals": [signal.to_dict() for signal in self.signals]}


def stats_of(repository: JobRepository, source_connection_ids: Sequence[UUID] | None) -> dict[UUID, Stats]:
    """The figures of each connection asked for (None: of all). Raises SourceConnectionNotFoundError."""
    newest = _newest_of(repository, source_connection_ids)
    return {id: _reaching_back(repository, id, Stats.of(jobs)) for id, jobs in newest}


def health_of(
    repository: JobRepository, source_connection_ids: Sequence[UUID] | None, now: datetime
) -> dict[UUID, Health]:
    """The figures and signals of each connection asked for (None: of all). Raises SourceConnectionNotFoundError."""
    return {id: health for id, health, _ in looked_at(repository, source_connection_ids, now)}


def looked_at(
    repository: JobRepository, source_connection_ids: Sequence[UUID] | None, now: datetime
) -> Iterator[tuple[UUID, Health, list[SyncJob]]]:
    """The same, one by one, each with the newest jobs that it is drawn from, newest first."""
    for id, jobs in _newest_of(repository, source_connection_ids):
        yield id, Health(stats=_reaching_back(repository, id, Stats.of(jobs)), signals=signals(jobs, now)), jobs


def _newest_of(
    repository: JobRepository, source_connection_ids: Sequence[UUID] | None
) -> Iterator[tuple[UUID, list[SyncJob]]]:
    """Each connection with its newest jobs; where all are asked for, one that is forgotten meanwhile is left out."""
    if source_connection_ids is None:
        ids = [connection.id for connection in repository.connections()]
    else:
        ids = list(source_connection_ids)
    while ids:
        try:
            newest = repository.newest_jobs(ids[:AT_ONCE], per_connection=WINDOW)
        except SourceConnectionNotFoundError as error:
            if source_connection_ids is not None:
                raise
            ids.remove(error.source_connection_id)
        else:
            del ids[:AT_ONCE]
            yield from newest.items()


def _reaching_back(repository: JobRepository, id: UUID, stats: Stats) -> Stats:
    """The figures, with the last success also where it lies further back than the jobs they are drawn from."""
    if stats.last_success is not None or stats.jobs < WINDOW:
        return stats
    try:
        found = repository.list_jobs(id, statuses={JobStatus.COMPLETED}, limit=1)
    except SourceConnectionNotFoundError:
        return stats  # forgotten meanwhile
    return attrs.evolve(stats, last_success=found[0]) if found else stats
