"""The rules of what is stored: every legal value comes back as it was, from every method, however written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid5

import attrs
from hypothesis import given

from jobhistory.errors import InvalidIdError
from jobhistory.job import MAX_COUNT, SyncJob
from jobhistory.repository import JobRepository
from jobhistory.status import JobStatus
from jobhistory.storable import JSON_BYTES, JSON_LEVELS, TEXT_BYTES
from jobhistory.testing.rules.base import CONNECTION, MICROSECOND, NOON, Rules, add, job
from jobhistory.testing.stateful import answer, patient
from jobhistory.testing.strategies import jobs

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_ROCKET = "\U0001f680"
_HARMFUL = ["'; --", '"', "\\", "%s", ":id", "\x01\x1b[2J\x7f\x9f", "\r\n\t", "\u2028\ufeff\uffff\u202e", _ROCKET]
# The status that a job of each status may come from.
_PREVIOUS = {
    JobStatus.PENDING: JobStatus.PENDING,
    JobStatus.RUNNING: JobStatus.PENDING,
    JobStatus.CANCELLING: JobStatus.RUNNING,
    JobStatus.COMPLETED: JobStatus.RUNNING,
    JobStatus.FAILED: JobStatus.PENDING,
    JobStatus.CANCELLED: JobStatus.PENDING,
}


class ValueRules(Rules):
    """What comes out is what went in: the last bit, the last character, the order of the keys."""

    def test_counts_are_exact(self, repository: JobRepository) -> None:
        """Counts and versions are exact from 0 to 2**63-1."""
        counts = ("entities_inserted", "entities_updated", "entities_deleted", "entities_failed")
        for value in (0, 1, 2**31, 2**32 - 1, 2**53 + 1, MAX_COUNT - 3):
            spread = {name: value + i for i, name in enumerate(counts)}
            _keeps(repository, job(0, JobStatus.RUNNING, version=MAX_COUNT, **spread))

    def test_times_are_exact(self, repository: JobRepository) -> None:
        """Times are aware UTC, exact to the microsecond, from the first of year 1 to the last of 9999."""
        names = ("completed_at", "cancel_requested_at", "heartbeat_at", "progress_at", "started_at")
        for time in (
            _FIRST + 4 * MICROSECOND,
            NOON,
            NOON + MICROSECOND,
            datetime(999, 12, 31, 23, 59, 59, 999_999, UTC),
            _LAST,
        ):
            ascending = {name: time - i * MICROSECOND for i, name in enumerate(names)}
            _keeps(repository, job(0, JobStatus.COMPLETED, created_at=time, version=7, **ascending))

    def test_durations_are_exact(self, repository: JobRepository) -> None:
        """A duration is stored, to the last bit, and never derived from the timestamps."""
        for duration in (0.0, 5e-324, 0.1 + 0.2, 1 / 3, 332.5, 2.0**53 + 2, 1.7976931348623157e308):
            _keeps(repository, job(0, JobStatus.COMPLETED, duration_seconds=duration, version=2))

    def test_text_is_exact(self, repository: JobRepository) -> None:
        """Error and worker are kept to the last of 16 KiB, whatever characters they are made of."""
        longest = [_ROCKET * (TEXT_BYTES // 4), "\x01" * TEXT_BYTES, " " * TEXT_BYTES]
        for text in [*_HARMFUL, *longest, " padded ", "e\u0301 is not \xe9"]:
            _keeps(repository, job(0, JobStatus.FAILED, error=text, worker=text, version=2))

    def test_json_is_exact(self, repository: JobRepository) -> None:
        """Details and metadata keep every value, its type, and the order of the keys, to the last of 64 KiB."""
        deep: dict[str, Any] = {}
        for _ in range(JSON_LEVELS - 1):
            deep = {"a": deep}
        objects: list[dict[str, Any]] = [
            {"z": 1, "a": 2, "m": {"y": None, "b": [{"x": 1, "c": 2}]}, "": 3, "A": 4},
            {"numbers": [1, 1.0, True, "1", 0, -0.0, False, None, 1e308, 5e-324, 0.1]},
            {"integers": [2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**4299]},
            {text: [text, {text: text}] for text in _HARMFUL},
            {"empty": [{}, [], "", [[]], {"": {}}]},
            {"longest": _ROCKET * ((JSON_BYTES - len('{"longest":""}')) // 4)},
            deep,
        ]
        for value in objects:
            _keeps(repository, job(0, JobStatus.FAILED, error_details=value, metadata=value, version=2))

    def test_nothing_is_not_empty(self, repository: JobRepository) -> None:
        """None, the empty text, the empty object and zero are told apart."""
        texts: tuple[str | None, str | None] = (None, "")
        objects: tuple[dict[str, Any] | None, dict[str, Any] | None] = (None, {})
        for one in (0, 1):
            for other in (0, 1):
                values = {"error": texts[one], "error_details": objects[other], "duration_seconds": (None, 0.0)[other]}
                kept = {"worker": texts[other], "metadata": objects[one]}
                _keeps(repository, job(0, JobStatus.FAILED, version=2, **values, **kept))

    def test_any_job_is_kept_as_it_is(self) -> None:
        """Whatever job can be constructed is stored and given back, equal in every field and key."""

        @patient(max_examples=40)
        @given(jobs())
        def keeps(any_job: SyncJob) -> None:
            with self.opened() as repository:
                repository.register(any_job.source_connection_id)
                _keeps(repository, any_job)

        keeps()

    def test_an_id_is_a_uuid(self, repository: JobRepository) -> None:
        """Anything else as an id raises InvalidIdError in every method, even the canonical text; nothing changes."""
        [stored] = add(repository, job(1, JobStatus.COMPLETED))
        bad: list[Any] = [str(CONNECTION), CONNECTION.hex, CONNECTION.bytes, CONNECTION.int, None, "", stored]
        calls: dict[str, Callable[[Any], object]] = {
            "register": repository.register,
            "forget": repository.forget,
            "get": repository.get,
            "list_jobs": repository.list_jobs,
            "newest_jobs": lambda bad_id: repository.newest_jobs([CONNECTION, bad_id]),
            "delete_many": lambda bad_id: repository.delete_many([stored.id, bad_id]),
        }
        answers = {(name, repr(id)): answer(call, id) for name, call in calls.items() for id in bad}
        assert dict.fromkeys(answers, InvalidIdError) == answers
        assert stored == repository.get(stored.id)


def _keeps(repository: JobRepository, wanted: SyncJob) -> None:
    """Write the job in every way there is, each under an id of its own, and read it by every method."""
    for way in ("add", "add_many", "replace"):
        written = attrs.evolve(wanted, id=uuid5(wanted.id, repr((wanted, way))))
        if way == "add":
            repository.add(written)
        elif way == "add_many":
            repository.add_many([written])
        elif written.version > 1:
            repository.add(_previous(written))
            repository.replace(written)
        else:
            continue
        for method, read in _read(repository, written).items():
            # Equality ignores the order of keys; repr does not, and shows types and the last bit.
            assert repr(written) == repr(read), f"{method} changes what {way} wrote"


def _previous(written: SyncJob) -> SyncJob:
    return job(
        0,
        _PREVIOUS[written.status],
        id=written.id,
        source_connection_id=written.source_connection_id,
        created_at=written.created_at,
        metadata=written.metadata,
        version=written.version - 1,
    )


def _read(repository: JobRepository, written: SyncJob) -> dict[str, SyncJob | None]:
    """The job as each method gives it; None where it does not."""
    id, connection = written.id, written.source_connection_id
    found = {
        "list_jobs": repository.list_jobs(connection, limit=1000),
        "list_jobs by status": repository.list_jobs(connection, statuses={written.status}, limit=1000),
        "newest_jobs": repository.newest_jobs([connection], per_connection=1000)[connection],
        "active_jobs": repository.active_jobs(limit=1000),
        "changes": [change.job for change in repository.changes()],
    }
    if written.is_terminal:
        del found["active_jobs"]
    return {"get": repository.get(id)} | {
        method: next((each for each in jobs if each.id == id), None) for method, jobs in found.items()
    }
