"""Every error the library raises, one tree.

Each error carries what it is about as attributes, and builds its message from them: catch by class and
read the attributes, never the text. Each is also the builtin a caller who knows nothing of this library
would catch (ValueError, LookupError, OSError).
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from uuid import UUID

    from jobhistory.job import SyncJob
    from jobhistory.status import JobStatus


_SHOWN = 120
_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = _SHOWN


def _shortened(value: object) -> str:
    """The value's repr, cut so that a hostile value can neither fill a log nor take for ever."""
    try:
        text = _REPR.repr(value)
    except Exception:  # noqa: BLE001  an object whose repr raises still deserves an error that names it
        text = object.__repr__(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


class JobHistoryError(Exception):
    """The base of every error here. JobCancelled alone stands outside."""


@attrs.define(slots=False)
class InvalidTransitionError(JobHistoryError, ValueError):
    """The job's status does not allow what was asked; nothing was written."""

    job_id: UUID
    status: JobStatus
    action: str

    def __str__(self) -> str:
        return f"job {self.job_id} is {self.status}: cannot {self.action}"


@attrs.define(slots=False)
class InvalidLimitError(JobHistoryError, ValueError):
    """A limit that is not an int from 1 to the greatest page."""

    limit: object = attrs.field(repr=_shortened)
    greatest: int

    def __str__(self) -> str:
        return f"limit must be an int from 1 to {self.greatest}, not {_shortened(self.limit)}"


@attrs.define(slots=False)
class InvalidCursorError(JobHistoryError, ValueError):
    """A cursor, position or change token that cannot be read, or belongs to another list."""

    cursor: object = attrs.field(repr=_shortened)
    reason: str

    def __str__(self) -> str:
        return f"cursor {_shortened(self.cursor)} {self.reason}"


@attrs.define(slots=False)
class InvalidIdError(JobHistoryError, ValueError):
    """Neither a UUID nor its canonical string."""

    value: object = attrs.field(repr=_shortened)

    def __str__(self) -> str:
        return (
            f"not an id: {_shortened(self.value)} (wanted a UUID, or its text as 550e8400-e29b-41d4-a716-446655440000)"
        )


@attrs.define(slots=False)
class InvalidJobError(JobHistoryError, ValueError):
    """A value, or a combination of values, that no job can hold."""

    field: str
    reason: str
    value: object = attrs.field(default=None, repr=_shortened)

    def __str__(self) -> str:
        return f"{self.field} {self.reason}, not {_shortened(self.value)}"


@attrs.define(slots=False)
class JobNotFoundError(JobHistoryError, LookupError):
    """No job has this id: it was never added, or has been deleted."""

    job_id: UUID
    hint: str = ""

    def __str__(self) -> str:
        return f"no job {self.job_id}{self.hint and f': {self.hint}'}"


@attrs.define(slots=False)
class SourceConnectionNotFoundError(JobHistoryError, LookupError):
    """No source connection has this id."""

    source_connection_id: UUID

    def __str__(self) -> str:
        return f"no source connection {self.source_connection_id}: register it first"


@attrs.define(slots=False)
class DuplicateJobError(JobHistoryError):
    """Another job already has this id."""

    job_id: UUID

    def __str__(self) -> str:
        return f"another job {self.job_id} is already stored: use a new id"


@attrs.define(slots=False)
class NameTakenError(JobHistoryError):
    """Another source connection already has this name."""

    name: str
    source_connection_id: UUID

    def __str__(self) -> str:
        return f"the name {self.name!r} belongs to source connection {self.source_connection_id}"


@attrs.define(slots=False)
class ActiveJobExistsError(JobHistoryError):
    """The connection has a job that is not finished yet: that one must end, or be cancelled, first."""

    source_connection_id: UUID
    job_id: UUID

    def __str__(self) -> str:
        return (
            f"source connection {self.source_connection_id} has an active job {self.job_id}: "
            "let it finish or cancel it first"
        )


@attrs.define(slots=False)
class ConflictError(JobHistoryError):
    """The stored job has moved on since this one was read: read it again and decide anew."""

    stored: SyncJob
    refused: SyncJob

    def __str__(self) -> str:
        return (
            f"job {self.stored.id} is {self.stored.status} at version {self.stored.version}; refused: "
            f"{self.refused.status} at version {self.refused.version} (read it again)"
        )


@attrs.define(slots=False)
class LostJobError(JobHistoryError):
    """The Run's job was finished, reaped, claimed or deleted elsewhere: what this worker does no longer counts.

    `job` is the stored job, or None where it was deleted.
    """

    job_id: UUID
    job: SyncJob | None

    def __str__(self) -> str:
        if self.job is None:
            return f"job {self.job_id} was deleted while this worker ran it: stop working on it"
        return (
            f"job {self.job_id} is no longer this worker's: it is {self.job.status} "
            f"with worker {self.job.worker}: stop working on it"
        )


@attrs.define(slots=False)
class StorageError(JobHistoryError, OSError):
    """The storage failed, and nothing was written. The driver's exception is the cause."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@attrs.define(slots=False)
class UnknownOutcomeError(StorageError):
    """The write may or may not have landed. Replaying the same call is safe."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason} (the write may have landed; replaying it is safe)"


@attrs.define(slots=False)
class JobCancelled(BaseException):
    """Raised inside a worker whose job was asked to stop; the Run around it records CANCELLED.

    A BaseException, so that `except Exception` around each entity does not swallow it.
    """

    job_id: UUID
    reason: str | None = None

    def __str__(self) -> str:
        return f"job {self.job_id} was asked to stop" + (f": {self.reason}" if self.reason else "")
