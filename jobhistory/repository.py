"""JobRepository: the port every backend fills, and the rules they share."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self
from uuid import UUID

import attrs

from jobhistory.errors import (
    ConflictError,
    InvalidCursorError,
    InvalidJobError,
    InvalidLimitError,
    InvalidTransitionError,
    JobHistoryError,
    JobNotFoundError,
)
from jobhistory.ids import check_id
from jobhistory.job import MAX_COUNT, SyncJob
from jobhistory.status import ACTIVE_STATUSES, TRANSITIONS, JobStatus
from jobhistory.storable import canonical, check_text
from jobhistory.times import utc

MAX_LIMIT = 1000
"""The most records one page holds."""


@attrs.frozen
class SourceConnection:
    """A source whose syncs are recorded; the name is unique, or None."""

    id: UUID
    name: str | None = None


@attrs.frozen
class Change:
    """A job as it stands now, and the opaque token of its place in the feed."""

    token: str
    job: SyncJob


def _created_at(value: object) -> datetime:
    return utc("created_at", value)


@attrs.frozen(order=True)
class Position:
    """A place in the order of jobs: (created_at, id). It need not be a job's that still exists."""

    created_at: datetime = attrs.field(converter=_created_at)
    id: UUID = attrs.field(converter=check_id)

    @classmethod
    def of(cls, job: SyncJob) -> Self:
        """Where the job stands."""
        return cls(job.created_at, job.id)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STATUSES = tuple(JobStatus)


@attrs.frozen
class Cursor:
    """Where a page of one connection's history ended: the next page starts behind it.

    `str()` gives an opaque token, which `parse` reads. It is bound to its connection and filter, and it
    outlives the job it points at.
    """

    source_connection_id: UUID
    position: Position
    statuses: frozenset[JobStatus] | None = None

    # version 1: the connection, the filter as bits (0: none), microseconds since 1970, the id
    _FORMAT = struct.Struct(">B16sBq16s")
    _VERSION = 1

    @classmethod
    def after(cls, job: SyncJob, statuses: Iterable[JobStatus] | None = None) -> Self:
        """The cursor behind `job` in its connection's history, filtered by `statuses`."""
        return cls(job.source_connection_id, Position.of(job), check_statuses(statuses))

    @classmethod
    def parse(cls, token: str) -> Self:
        """The cursor whose `str()` is `token`; raises InvalidCursorError for any other text."""
        try:
            data = base64.urlsafe_b64decode(token)
            version, connection, bits, microseconds, job = cls._FORMAT.unpack(data[:-4])
            position = Position(_EPOCH + microseconds * _MICROSECOND, UUID(bytes=job))
            cursor = cls(UUID(bytes=connection), position, _statuses_of(bits))
        except (ValueError, TypeError, AttributeError, struct.error, OverflowError):
            raise InvalidCursorError(token, "is no cursor: pass what str(cursor) gave") from None
        if version != cls._VERSION:
            raise InvalidCursorError(token, f"has version {version}, which this release does not know")
        # Encoding again is the one check of everything: checksum, padding, alphabet.
        if str(cursor) != token:
            raise InvalidCursorError(token, "is damaged: pass what str(cursor) gave")
        return cursor

    def __str__(self) -> str:
        microseconds = (self.position.created_at - _EPOCH) // _MICROSECOND
        data = self._FORMAT.pack(
            self._VERSION,
            self.source_connection_id.bytes,
            _bits_of(self.statuses),
            microseconds,
            self.position.id.bytes,
        )
        return base64.urlsafe_b64encode(data + zlib.crc32(data).to_bytes(4, "big")).decode()


Before = SyncJob | Cursor | Position | None
"""Where a page starts: behind this job, cursor or position; None: at the newest."""


def _bits_of(statuses: frozenset[JobStatus] | None) -> int:
    """The filter as bits, one a status; the seventh says that there is one, which may be empty."""
    if statuses is None:
        return 0
    return 1 << len(_STATUSES) | sum(1 << _STATUSES.index(status) for status in statuses)


def _statuses_of(bits: int) -> frozenset[JobStatus] | None:
    return frozenset(s for i, s in enumerate(_STATUSES) if bits >> i & 1) if bits else None


class JobRepository(Protocol):
    """Stores jobs. Every backend gives the same answers, the same order and the same errors.

    The order is (created_at, id) descending everywhere but in `changes`. Ids are UUIDs (else
    InvalidIdError), a `limit` is an int from 1 to 1000 (else InvalidLimitError), `statuses` are JobStatus
    values (else InvalidJobError). A write that returned is durable; one that raises changed nothing, but
    for UnknownOutcomeError. Every write may be replayed. Any method may raise StorageError.
    """

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        """Make the connection known; idempotent. None keeps its name, another renames it.

        Raises NameTakenError, and InvalidJobError for a name that cannot be stored or is empty.
        """
        ...

    def connections(self) -> list[SourceConnection]:
        """All source connections, in the order of their ids."""
        ...

    def forget(self, source_connection_id: UUID) -> None:
        """Drop the connection and its jobs.

        Raises SourceConnectionNotFoundError, and ActiveJobExistsError while one of its jobs is active.
        """
        ...

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        """Store a new job; one that is stored and equal already is a success.

        Raises SourceConnectionNotFoundError; DuplicateJobError where another job has its id; exclusive:
        ActiveJobExistsError where its connection has an active job, atomically.
        """
        ...

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        """Store many new jobs, all or none, with the errors of `add`; an unknown connection is told first."""
        ...

    def get(self, job_id: UUID) -> SyncJob:
        """The job. Raises JobNotFoundError."""
        ...

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        """Store the next version of a job, by compare-and-set; the same version again is a success.

        `quiet` (heartbeats) leaves the change out of `changes`. Raises JobNotFoundError, and what
        `refusal` gives: ConflictError or InvalidTransitionError.
        """
        ...

    def list_jobs(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> list[SyncJob]:
        """The connection's newest jobs, those behind `before`, those in `statuses`; [] where it has none.

        Raises SourceConnectionNotFoundError.
        """
        ...

    def active_jobs(
        self,
        *,
        statuses: Iterable[JobStatus] | None = None,
        silent_since: datetime | None = None,
        before: Position | None = None,
        limit: int = 100,
    ) -> list[SyncJob]:
        """The newest unfinished jobs of all connections: what runs now, what waits, what went silent.

        `statuses` must be active ones. `silent_since` keeps jobs last heard of before it (`last_sign_at`).
        """
        ...

    def newest_jobs(
        self, source_connection_ids: Iterable[UUID] | None = None, *, per_connection: int = 1
    ) -> dict[UUID, list[SyncJob]]:
        """The newest jobs of each connection asked for (None: of all), in one query; [] where it has none.

        The keys stand in the order asked for, else by id. Raises SourceConnectionNotFoundError.
        """
        ...

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        """Delete finished jobs and say how many; active and unknown ones are skipped."""
        ...

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        """The jobs written since the token `after` (None: all), each as it stands now, in commit order.

        At least once; deletions are not announced. Raises InvalidCursorError for a bad token.
        """
        ...

    def close(self) -> None:
        """Let go of what it opened, at once and for all threads; every other method then raises StorageError."""
        ...


def newest_first(jobs: Iterable[SyncJob]) -> list[SyncJob]:
    """The jobs in the one order there is: (created_at, id) descending."""
    return sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)


def is_stored(repository: JobRepository, job_id: UUID) -> bool:
    """Whether there is a job with this id."""
    try:
        repository.get(job_id)
    except JobNotFoundError:
        return False
    return True


def check_limit(limit: object) -> int:
    """The limit, an int from 1 to 1000; raises InvalidLimitError (True, 10.0 and '10' are no ints)."""
    if type(limit) is int and 1 <= limit <= MAX_LIMIT:
        return limit
    raise InvalidLimitError(limit, MAX_LIMIT)


def check_statuses(
    statuses: object, allowed: frozenset[JobStatus] = frozenset(JobStatus)
) -> frozenset[JobStatus] | None:
    """The filter as a set, None for no filter; raises InvalidJobError for what is not among `allowed`."""
    if statuses is None:
        return None
    if isinstance(statuses, str) or not isinstance(statuses, Iterable):
        raise InvalidJobError("statuses", "must be several, in a set or list", statuses)
    checked = set()
    for status in statuses:
        if not isinstance(status, JobStatus) or status not in allowed:
            raise InvalidJobError("statuses", f"must be among {', '.join(sorted(allowed))}", status)
        checked.add(status)
    return frozenset(checked)


def check_active_statuses(statuses: Iterable[JobStatus] | None) -> frozenset[JobStatus]:
    """The filter of `active_jobs` as a set, all active statuses for None; raises InvalidJobError."""
    checked = check_statuses(statuses, ACTIVE_STATUSES)
    return ACTIVE_STATUSES if checked is None else checked


def check_before(before: object) -> Position | None:
    """The position, or None; raises InvalidCursorError for anything else."""
    if before is None or isinstance(before, Position):
        return before
    raise InvalidCursorError(before, "is no Position(created_at, id)")


def position_of(
    before: Before, connection: UUID | None = None, statuses: frozenset[JobStatus] | None = None
) -> Position | None:
    """The place a page starts behind; InvalidCursorError where it belongs to another list."""
    match before:
        case None | Position():
            return before
        case Cursor(source_connection_id=owner, statuses=bound, position=position):
            if owner != connection:
                raise InvalidCursorError(str(before), f"belongs to source connection {owner}")
            if bound != statuses:
                raise InvalidCursorError(str(before), "belongs to another filter by status")
            return position
        case SyncJob(source_connection_id=owner):
            if connection not in (None, owner):
                raise InvalidCursorError(before.id, f"is a job of source connection {owner}")
            return Position.of(before)
        case _:
            raise InvalidCursorError(before, "is no SyncJob, Cursor or Position (Cursor.parse reads a token)")


def check_token(token: object) -> int:
    """The number in a token that `changes` gave, 0 for None; raises InvalidCursorError.

    For backends that number their changes; to users a token stays opaque.
    """
    if token is None:
        return 0
    if isinstance(token, str) and re.fullmatch("[1-9][0-9]{0,18}", token) and int(token) <= MAX_COUNT:
        return int(token)
    raise InvalidCursorError(token, "is no change token: pass what Change.token gave, or None")


def check_name(name: str | None) -> str | None:
    """A connection's name, or None for none; raises InvalidJobError where it is empty or cannot be stored."""
    if name is None:
        return None
    text = check_text("name", name)
    if text and text.isprintable():
        return text
    raise InvalidJobError("name", "must be printable text and not empty", name)


def refusal(stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
    """Why `job` may not replace `stored`, or None where it may."""
    same = identity(stored) == identity(job)
    if not same or stored.is_terminal or stored.version != job.version - 1:
        return ConflictError(stored, job)
    if job.status is not stored.status and job.status not in TRANSITIONS[stored.status]:
        return InvalidTransitionError(stored.id, stored.status, f"become {job.status}")
    return None


def identity(job: SyncJob) -> tuple[object, ...]:
    """What of a job no write changes."""
    return job.id, job.source_connection_id, job.created_at, canonical(job.metadata_json)
