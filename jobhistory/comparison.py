"""Two histories side by side: a source connection's jobs in both, in listing order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from uuid import UUID

import attrs

from jobhistory.archive import job_line
from jobhistory.errors import SourceConnectionNotFoundError
from jobhistory.job import SyncJob
from jobhistory.repository import MAX_LIMIT, JobRepository, Position, SourceConnection


@attrs.define
class Comparison:
    """A source connection's jobs in SOURCE and in DEST.

    The digests are SHA-256, in listing order, over the lines that `jobhistory export` writes of those jobs that
    are to be the same in both: all in SOURCE but those in `gone_on` and `apart`.
    """

    connection: SourceConnection
    jobs: int = 0
    """How many SOURCE has."""
    running: int = 0
    """How many of them are in the hands of a worker who, it seems, has not switched yet."""
    gone_on: int = 0
    """How many went on in DEST."""
    own: dict[UUID, bytes] = attrs.field(factory=dict)
    """Those that DEST alone has, each with its entry in a Ledger if it was brought there as it stands."""
    apart: list[tuple[SyncJob, SyncJob]] = attrs.field(factory=list)
    """Those that differ, as SOURCE has them and as DEST has them, because they were written in both."""
    mended: int = 0
    """How many had to be written to DEST at the last look."""
    is_settled: bool = True
    """Whether nothing more was written to SOURCE at the last look."""
    _digests: tuple[hashlib._Hash, hashlib._Hash] = attrs.field(factory=lambda: (hashlib.sha256(), hashlib.sha256()))

    def digest(self, here: SyncJob, there: SyncJob) -> None:
        """Take in one job of both."""
        for digest, job in zip(self._digests, (here, there), strict=True):
            digest.update(job_line(job).encode())

    @property
    def digests(self) -> tuple[str, str]:
        """SOURCE's and DEST's, in hex."""
        here, there = self._digests
        return here.hexdigest(), there.hexdigest()

    @property
    def is_equal(self) -> bool:
        """Whether all is in DEST as it is in SOURCE, what went on or apart there excepted."""
        here, there = self.digests
        return here == there and self.is_settled


def jobs_of(repository: JobRepository, connection_id: UUID, told: Callable[[int], object] = bool) -> Iterator[SyncJob]:
    """All the connection's jobs, newest first; none where it is not known."""
    before = None
    with suppress(SourceConnectionNotFoundError):
        while page := repository.list_jobs(connection_id, limit=MAX_LIMIT, before=before):
            told(len(page))
            yield from page
            before = Position.of(page[-1])


def pairs(
    here: Iterable[SyncJob], there: Iterator[SyncJob], alone: Callable[[SyncJob], object]
) -> Iterator[tuple[SyncJob, SyncJob | None]]:
    """Each job `here` with the one in the same place `there`, or None; `alone` is called with those that only it has.

    A page of `there` is read when all before it has been given: what is added meanwhile stands before it.
    """
    other = next(there, None)
    for job in here:
        place = job.created_at, job.id
        while other and (other.created_at, other.id) > place:
            alone(other)
            other = next(there, None)
        if other and (other.created_at, other.id) == place:
            yield job, other
            other = next(there, None)
        else:
            yield job, None
    while other:
        alone(other)
        other = next(there, None)
