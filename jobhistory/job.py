"""SyncJob: the frozen record of one sync, the rules it obeys and the steps it can take."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Self
from uuid import UUID

import attrs

from jobhistory.errors import InvalidJobError, InvalidTransitionError
from jobhistory.ids import check_id, parse_id
from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, TRANSITIONS, JobStatus
from jobhistory.storable import (
    JSONText,
    canonical,
    check_json,
    check_text,
    load_stored,
    mend_json,
    mend_text,
)
from jobhistory.times import from_wire, seconds, to_wire, utc

MAX_COUNT = 2**63 - 1
"""The greatest entity count and version: what a signed 64-bit column holds."""

_COUNTS = ("entities_inserted", "entities_updated", "entities_deleted", "entities_failed")
_ENDING = ("completed_at", "duration_seconds", "error", "error_details")

_MUST_BE_SET: Mapping[JobStatus, tuple[str, ...]] = {
    JobStatus.PENDING: (),
    JobStatus.RUNNING: ("started_at",),
    JobStatus.CANCELLING: ("started_at",),
    JobStatus.COMPLETED: ("started_at", "completed_at"),
    JobStatus.FAILED: (),
    JobStatus.CANCELLED: (),
}
_MUST_BE_EMPTY: Mapping[JobStatus, tuple[str, ...]] = {
    JobStatus.PENDING: ("started_at", *_ENDING, *_COUNTS),
    JobStatus.RUNNING: _ENDING,
    JobStatus.CANCELLING: _ENDING,
    JobStatus.COMPLETED: ("error",),
    JobStatus.FAILED: (),
    JobStatus.CANCELLED: (),
}


def _id(field: str, value: object) -> UUID:
    try:
        return check_id(value)
    except ValueError:
        raise InvalidJobError(field, "must be a UUID", value) from None


def _status(field: str, value: object) -> JobStatus:
    if type(value) is JobStatus:
        return value
    if isinstance(value, str):
        try:
            return JobStatus(value)
        except ValueError:
            pass  # an unknown word: said below
    raise InvalidJobError(field, f"must be one of {', '.join(JobStatus)}", value)


def _count(field: str, value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    raise InvalidJobError(field, "must be an int from 0 to 2**63-1", value)


def _version(field: str, value: object) -> int:
    if type(value) is int and 1 <= value <= MAX_COUNT:
        return value
    raise InvalidJobError(field, "must be an int from 1 to 2**63-1", value)


Check = Callable[[str, object], object]
"""Gives the value, in its one form, or raises InvalidJobError naming the field."""

# Each with the value that needs no check: most fields of most jobs have it.
_CHECKS: tuple[tuple[str, Check, object], ...] = (
    ("id", _id, attrs.NOTHING),
    ("source_connection_id", _id, attrs.NOTHING),
    ("status", _status, attrs.NOTHING),
    ("started_at", utc, None),
    ("completed_at", utc, None),
    ("duration_seconds", seconds, None),
    *((name, _count, 0) for name in _COUNTS),
    ("error", check_text, None),
    ("created_at", utc, attrs.NOTHING),
    ("cancel_requested_at", utc, None),
    ("heartbeat_at", utc, None),
    ("progress_at", utc, None),
    ("worker", check_text, None),
    ("version", _version, attrs.NOTHING),
)


def _error_details(value: Mapping[str, Any] | None) -> JSONText | None:
    return None if value is None else check_json("error_details", value)


def _metadata(value: Mapping[str, Any] | None) -> JSONText | None:
    return None if value is None else check_json("metadata", value)


@attrs.frozen(kw_only=True, weakref_slot=False)
class SyncJob:
    """One run of a sync, as it stands at one version.

    Frozen, equal by all its fields and hashed by its id. All times are aware UTC datetimes (any aware
    datetime is converted), all counts ints from 0 to 2**63-1. Every value is checked, and so is what the
    status allows: InvalidJobError names the field and the value.

    `error_details` and `metadata` are given as JSON objects (dicts), held as JSON text, and parsed anew at
    each access; `error_details_json` and `metadata_json` are the texts themselves. StorageError where another
    program stored what is no JSON.
    """

    id: UUID
    source_connection_id: UUID
    status: JobStatus = JobStatus.PENDING
    started_at: datetime | None = None
    completed_at: datetime | None = None
    duration_seconds: float | None = None
    """The worker's own measure where there was one: it need not equal the difference of the timestamps."""
    entities_inserted: int = 0
    entities_updated: int = 0
    entities_deleted: int = 0
    entities_failed: int = 0
    error: str | None = None
    error_details_json: JSONText | None = attrs.field(
        default=None, converter=_error_details, alias="error_details", eq=canonical
    )
    created_at: datetime
    """Orders the history."""
    cancel_requested_at: datetime | None = None
    heartbeat_at: datetime | None = None
    """When its worker last said that it lives."""
    progress_at: datetime | None = None
    """When its counts were last reported."""
    worker: str | None = None
    """Who runs it, as `host:pid:tag`; the tag is random and new for each Run."""
    metadata_json: JSONText | None = attrs.field(default=None, converter=_metadata, alias="metadata", eq=canonical)
    version: int = 1
    """1 at birth, and one more with each write: the compare-and-set token."""

    def __attrs_post_init__(self) -> None:
        for name, check, unchecked in _CHECKS:
            value = getattr(self, name)
            if value is not unchecked and (checked := check(name, value)) is not value:
                object.__setattr__(self, name, checked)
        self._check_rules()

    def _check_rules(self) -> None:
        """What the status allows, and what the times say of each other."""
        for name in _MUST_BE_SET[self.status]:
            if getattr(self, name) is None:
                raise InvalidJobError(name, f"must be set in a {self.status} job", None)
        for name in _MUST_BE_EMPTY[self.status]:
            if (value := getattr(self, name)) not in (None, 0):
                raise InvalidJobError(
                    name,
                    f"must be {'0' if name in _COUNTS else 'null'} in a {self.status} job",
                    value,
                )
        if self.started_at is None or self.completed_at is None:
            if self.duration_seconds is not None:
                raise InvalidJobError(
                    "duration_seconds",
                    "must be null where started_at or completed_at is",
                    self.duration_seconds,
                )
        elif self.completed_at < self.started_at:
            raise InvalidJobError(
                "completed_at",
                f"must not be before started_at {self.started_at}",
                self.completed_at,
            )

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def error_details(self) -> dict[str, Any] | None:
        """More about the error, as a JSON object: a new dict at each access."""
        return load_stored(self.id, "error_details", self.error_details_json)

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What was given at enqueue, as a JSON object: a new dict at each access."""
        return load_stored(self.id, "metadata", self.metadata_json)

    @property
    def is_active(self) -> bool:
        """Whether it is not finished yet."""
        return self.status in ACTIVE_STATUSES

    @property
    def is_terminal(self) -> bool:
        """Whether it is finished, and will never change again."""
        return self.status in TERMINAL_STATUSES

    @property
    def last_sign_at(self) -> datetime:
        """When it was last heard of: the latest of heartbeat_at, started_at and created_at."""
        return max(filter(None, (self.heartbeat_at, self.started_at, self.created_at)))

    # The steps. Each takes the time, returns a new record with version + 1, and clamps the time to the
    # latest one already in the job, so that time never runs backwards inside it.

    def start(self, *, at: datetime, worker: str | None = None) -> SyncJob:
        """PENDING to RUNNING: `worker` takes it. Raises InvalidTransitionError."""
        return self._enter(JobStatus.RUNNING, "start", started_at=self._clamped(at), worker=worker)

    def report(
        self,
        *,
        at: datetime,
        inserted: int | None = None,
        updated: int | None = None,
        deleted: int | None = None,
        failed: int | None = None,
    ) -> SyncJob:
        """Set the totals so far; None leaves one alone, and none ever shrinks, so a replay is harmless.

        Raises InvalidTransitionError unless the job is RUNNING or CANCELLING.
        """
        self._require_running("report")
        given = zip(_COUNTS, (inserted, updated, deleted, failed), strict=True)
        totals = {name: max(getattr(self, name), _count(name, total)) for name, total in given if total is not None}
        at = self._clamped(at)
        return self._next(**totals, heartbeat_at=at, progress_at=at)

    def beat(self, *, at: datetime) -> SyncJob:
        """Say that the worker lives. Raises InvalidTransitionError unless the job is RUNNING or CANCELLING."""
        self._require_running("beat")
        return self._next(heartbeat_at=self._clamped(at))

    def request_cancel(self, *, at: datetime) -> SyncJob:
        """RUNNING to CANCELLING: its worker is asked to stop. Raises InvalidTransitionError."""
        return self._enter(JobStatus.CANCELLING, "request_cancel", cancel_requested_at=self._clamped(at))

    def complete(self, *, at: datetime, duration_seconds: float | timedelta | None = None) -> SyncJob:
        """To COMPLETED. Without a duration it is the difference of the timestamps. Raises InvalidTransitionError."""
        return self._enter(JobStatus.COMPLETED, "complete", **self._ending(at, duration_seconds))

    def cancel(
        self,
        *,
        at: datetime,
        reason: str | None = None,
        duration_seconds: float | timedelta | None = None,
    ) -> SyncJob:
        """PENDING or CANCELLING to CANCELLED; the reason becomes the error, made storable.

        Raises InvalidTransitionError; a RUNNING job is asked to stop first (request_cancel).
        """
        error = None if reason is None else mend_text(reason)
        return self._enter(JobStatus.CANCELLED, "cancel", error=error, **self._ending(at, duration_seconds))

    def fail(
        self,
        *,
        at: datetime,
        error: str,
        error_details: Mapping[str, Any] | None = None,
        duration_seconds: float | timedelta | None = None,
    ) -> SyncJob:
        """To FAILED. Error and details are made storable, never refused. Raises InvalidTransitionError."""
        return self._enter(
            JobStatus.FAILED,
            "fail",
            **_failure(error, error_details),
            **self._ending(at, duration_seconds),
        )

    def lost(self, *, at: datetime, error: str, error_details: Mapping[str, Any] | None = None) -> SyncJob:
        """Its worker vanished: RUNNING to FAILED, CANCELLING to CANCELLED, with no completed_at.

        Nobody knows when it ended; `at`, when that was found out, is kept in the details as `found_at`.
        Raises InvalidTransitionError.
        """
        self._require_running("lose the worker")
        target = JobStatus.FAILED if self.status is JobStatus.RUNNING else JobStatus.CANCELLED
        # First, so that it stays where what is too long is cut.
        details = {"found_at": None} | ({} if error_details is None else mend_json(error_details))
        details["found_at"] = to_wire(self._clamped(at))
        return self._enter(target, "lose the worker", **_failure(error, details))

    def to_dict(self, *, bookkeeping: bool = False) -> dict[str, Any]:
        """The twelve keys of the contract, in its order, as JSON types; with bookkeeping, the kept ones after them."""
        names = FIELDS if bookkeeping else WIRE_FIELDS
        return {name: _to_wire(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, created_at: datetime | None = None) -> Self:
        """The job that `to_dict` wrote, in either form.

        created_at is the argument, the key, or started_at, the first that is there. Raises InvalidJobError
        for unknown keys, missing ids or status, no time to order by, and any value a job cannot hold.
        """
        if not isinstance(data, Mapping):
            raise InvalidJobError("job", "must be a JSON object", data)
        for name in data:
            if name not in FIELDS:
                raise InvalidJobError("job", f"must have no keys but {', '.join(FIELDS)}", name)
        for name in ("id", "source_connection_id", "status"):
            if data.get(name) is None:
                raise InvalidJobError(name, "must be given", data.get(name))
        values: dict[str, Any] = {
            name: _FROM_WIRE.get(name, _as_it_is)(name, value) for name, value in data.items() if value is not None
        }
        values["created_at"] = created_at or values.get("created_at") or values.get("started_at")
        if values["created_at"] is None:
            raise InvalidJobError("created_at", "or started_at must be given, to order the job by", None)
        return cls(**values)

    def _require_running(self, action: str) -> None:
        if self.status not in (JobStatus.RUNNING, JobStatus.CANCELLING):
            raise InvalidTransitionError(self.id, self.status, action)

    def _enter(self, status: JobStatus, action: str, **changes: object) -> SyncJob:
        if status not in TRANSITIONS[self.status]:
            raise InvalidTransitionError(self.id, self.status, action)
        return self._next(status=status, **changes)

    def _next(self, **changes: Any) -> SyncJob:  # noqa: ANN401  the constructor checks each
        now = dict(zip(FIELDS, _values_of(self), strict=True))
        return SyncJob(**(now | {"version": self.version + 1} | changes))

    def _clamped(self, at: datetime) -> datetime:
        known = (
            self.created_at,
            self.started_at,
            self.cancel_requested_at,
            self.heartbeat_at,
            self.progress_at,
        )
        return max(filter(None, (utc("at", at), *known)))

    def _ending(self, at: datetime, duration: float | timedelta | None) -> dict[str, Any]:
        """completed_at and duration_seconds; a job that never started took no time."""
        at = self._clamped(at)
        if self.started_at is None:
            return {"completed_at": at}
        if duration is None:
            duration = at - self.started_at
        return {"completed_at": at, "duration_seconds": duration}


def _failure(error: str, details: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "error": mend_text(error),
        "error_details": None if details is None else mend_json(details),
    }


COLUMNS: tuple[str, ...] = tuple(field.name for field in attrs.fields(SyncJob))
"""The names of the nineteen fields, in their order; what a table's columns are made from."""
FIELDS: tuple[str, ...] = tuple(field.alias or field.name for field in attrs.fields(SyncJob))
"""The same as keys: the twelve of the wire, then the bookkeeping."""
_values_of = operator.attrgetter(*COLUMNS)
WIRE_FIELDS: tuple[str, ...] = FIELDS[: FIELDS.index("created_at")]
"""The twelve keys of the contract, in its order."""


def _as_it_is(_: str, value: object) -> object:
    return value


def _id_from_wire(name: str, value: object) -> UUID:
    try:
        return parse_id(value)
    except ValueError:
        raise InvalidJobError(name, "must be a UUID in its canonical form", value) from None


_FROM_WIRE: Mapping[str, Callable[[str, object], object]] = MappingProxyType(
    dict.fromkeys(("id", "source_connection_id"), _id_from_wire)
    | dict.fromkeys((name for name in FIELDS if name.endswith("_at")), from_wire)
)


def _to_wire(value: object) -> object:
    match value:
        case UUID():
            return str(value)
        case datetime():
            return to_wire(value)
        case JobStatus():
            return value.value
        case _:
            return value
