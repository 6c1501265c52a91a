"""Every error the library raises, one tree.

Each error carries what it is about as attributes, and builds its message from them: catch by class and
read the attributes, never the text. Each is also the builtin a caller who knows nothing of this library
would catch (ValueError, LookupError, OSError).
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

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


class _Error(BaseException):
    """Takes its attributes as its arguments, so that it can be copied and pickled, and shows them."""

    def __init__(self, *attributes: object) -> None:
        # OSError's own would take the first two for errno and strerror.
        BaseException.__init__(self, *attributes)

    def __repr__(self) -> str:
        shown = (f"{name}={_shortened(value)}" for name, value in vars(self).items() if name != "__notes__")
        return f"{type(self).__name__}({', '.join(shown)})"


class JobHistoryError(_Error, Exception):
    """The base of every error here. JobCancelled alone stands outside."""


class InvalidTransitionError(JobHistoryError, ValueError):
    """The job's status does not allow what was asked; nothing was written."""

    def __init__(self, job_id: UUID, status: JobStatus, action: str) -> None:
        super().__init__(job_id, status, action)
        self.job_id = job_id
        self.status = status
        self.action = action

    def __str__(self) -> str:
        return f"job {self.job_id} is {self.status}: cannot {self.action}"


class InvalidLimitError(JobHistoryError, ValueError):
    """A limit that is not an int from 1 to the greatest page."""

    def __init__(self, limit: object, greatest: int) -> None:
        super().__init__(limit, greatest)
        self.limit = limit
        self.greatest = greatest

    def __str__(self) -> str:
        return f"limit must be an int from 1 to {self.greatest}, not {_shortened(self.limit)}"


class InvalidCursorError(JobHistoryError, ValueError):
    """A cursor, position or change token that cannot be read, or belongs to another list."""

    def __init__(self, cursor: object, reason: str) -> None:
        super().__init__(cursor, reason)
        self.cursor = cursor
        self.reason = reason

    def __str__(self) -> str:
        return f"cursor {_shortened(self.cursor)} {self.reason}"


class InvalidIdError(JobHistoryError, ValueError):
    """Neither a UUID nor its canonical string."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return (
            f"not an id: {_shortened(self.value)} (wanted a UUID, or its text as 550e8400-e29b-41d4-a716-446655440000)"
        )


class InvalidJobError(JobHistoryError, ValueError):
    """A value, or a combination of values, that no job can hold."""

    def __init__(self, field: str, reason: str, value: object = None) -> None:
        super().__init__(field, reason, value)
        self.field = field
        self.reason = reason
        self.value = value

    def __str__(self) -> str:
        return f"{self.field} {self.reason}, not {_shortened(self.value)}"


class JobNotFoundError(JobHistoryError, LookupError):
    """No job has this id: it was never added, or has been deleted."""

    def __init__(self, job_id: UUID, hint: str = "") -> None:
        super().__init__(job_id, hint)
        self.job_id = job_id
        self.hint = hint

    def __str__(self) -> str:
        return f"no job {self.job_id}{self.hint and f': {self.hint}'}"


class SourceConnectionNotFoundError(JobHistoryError, LookupError):
    """No source connection has this id."""

    def __init__(self, source_connection_id: UUID) -> None:
        super().__init__(source_connection_id)
        self.source_connection_id = source_connection_id

    def __str__(self) -> str:
        return f"no source connection {self.source_connection_id}: register it first"


class DuplicateJobError(JobHistoryError):
    """Another job already has this id."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"another job {self.job_id} is already stored: use a new id"


class NameTakenError(JobHistoryError):
    """Another source connection already has this name."""

    def __init__(self, name: str, source_connection_id: UUID) -> None:
        super().__init__(name, source_connection_id)
        self.name = name
        self.source_connection_id = source_connection_id

    def __str__(self) -> str:
        return f"the name {self.name!r} belongs to source connection {self.source_connection_id}"


class ActiveJobExistsError(JobHistoryError):
    """The connection has a job that is not finished yet: that one must end, or be cancelled, first."""

    def __init__(self, source_connection_id: UUID, job_id: UUID) -> None:
        super().__init__(source_connection_id, job_id)
        self.source_connection_id = source_connection_id
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"source connection {self.source_connection_id} has an active job {self.job_id}: "
            "let it finish or cancel it first"
        )


class ConflictError(JobHistoryError):
    """The stored job has moved on since this one was read: read it again and decide anew."""

    def __init__(self, stored: SyncJob, refused: SyncJob) -> None:
        super().__init__(stored, refused)
        self.stored = stored
        self.refused = refused

    def __str__(self) -> str:
        return (
            f"job {self.stored.id} is {self.stored.status} at version {self.stored.version}; refused: "
            f"{self.refused.status} at version {self.refused.version} (read it again)"
        )


class LostJobError(JobHistoryError):
    """The Run's job was finished, reaped, claimed or deleted elsewhere: what this worker does no longer counts.

    `job` is the stored job, or None where it was deleted.
    """

    def __init__(self, job_id: UUID, job: SyncJob | None) -> None:
        super().__init__(job_id, job)
        self.job_id = job_id
        self.job = job

    def __str__(self) -> str:
        if self.job is None:
            return f"job {self.job_id} was deleted while this worker ran it: stop working on it"
        return (
            f"job {self.job_id} is no longer this worker's: it is {self.job.status} "
            f"with worker {self.job.worker}: stop working on it"
        )


class StorageError(JobHistoryError, OSError):
    """The storage failed, and nothing was written. The driver's exception is the cause."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class UnknownOutcomeError(StorageError):
    """The write may or may not have landed. Replaying the same call is safe."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason} (the write may have landed; replaying it is safe)"


class JobCancelled(_Error):  # noqa: N818  # a request, no error
    """Raised inside a worker whose job was asked to stop; the Run around it records CANCELLED.

    A BaseException, so that `except Exception` around each entity does not swallow it.
    """

    def __init__(self, job_id: UUID, reason: str | None = None) -> None:
        super().__init__(job_id, reason)
        self.job_id = job_id
        self.reason = reason

    def __str__(self) -> str:
        return f"job {self.job_id} was asked to stop" + (f": {self.reason}" if self.reason else "")
