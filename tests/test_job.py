from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from itertools import product
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.errors import InvalidJobError, InvalidTransitionError
from jobhistory.job import COLUMNS, FIELDS, MAX_COUNT, WIRE_FIELDS, SyncJob
from jobhistory.status import TRANSITIONS, JobStatus
from jobhistory.testing.strategies import counts, jobs, timestamps

PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED = JobStatus

EXAMPLE = """[
  {
    "id": "770e8400-e29b-41d4-a716-446655440002",
    "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "COMPLETED",
    "started_at": "2024-03-15T12:00:00Z",
    "completed_at": "2024-03-15T12:05:32Z",
    "duration_seconds": 332.5,
    "entities_inserted": 45,
    "entities_updated": 12,
    "entities_deleted": 3,
    "entities_failed": 0,
    "error": null,
    "error_details": null
  },
  {
    "id": "660e8400-e29b-41d4-a716-446655440001",
    "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "FAILED",
    "started_at": "2024-03-14T08:00:15Z",
    "completed_at": null,
    "duration_seconds": null,
    "entities_inserted": 0,
    "entities_updated": 0,
    "entities_deleted": 0,
    "entities_failed": 0,
    "error": "Authentication failed: GitHub personal access token is invalid or expired",
    "error_details": null
  }
]"""

WIRE = [
    "id",
    "source_connection_id",
    "status",
    "started_at",
    "completed_at",
    "duration_seconds",
    "entities_inserted",
    "entities_updated",
    "entities_deleted",
    "entities_failed",
    "error",
    "error_details",
]
KEPT = ["created_at", "cancel_requested_at", "heartbeat_at", "progress_at", "worker", "metadata", "version"]
COUNTS = WIRE[6:10]

ID = UUID("770e8400-e29b-41d4-a716-446655440002")
CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LATER = NOON + timedelta(hours=1)


class Number(IntEnum):
    ONE = 1


def job_in(status: JobStatus, /, **fields: Any) -> SyncJob:  # noqa: ANN401  any field's value
    """A job of this status that was created at noon, started a second later and ended a second after that."""
    needed: dict[str, Any] = {"id": ID, "source_connection_id": CONNECTION, "status": status, "created_at": NOON}
    if status is not PENDING:
        needed["started_at"] = NOON + SECOND
    if status in (COMPLETED, FAILED, CANCELLED):
        needed |= {"completed_at": NOON + 2 * SECOND, "duration_seconds": 1.25}
    return SyncJob(**{**needed, **fields})


def changed(job: SyncJob, **changes: Any) -> SyncJob:  # noqa: ANN401  as above
    return attrs.evolve(job, **changes)


def test_the_two_jobs_of_the_contract_go_in_and_come_out_equal() -> None:
    example = json.loads(EXAMPLE)
    made = [SyncJob.from_dict(job) for job in example]

    assert EXAMPLE == json.dumps([job.to_dict() for job in made], indent=2)
    assert [job.started_at for job in made] == [job.created_at for job in made]
    assert [COMPLETED, FAILED] == [job.status for job in made]


def test_the_keys_stand_in_the_order_of_the_contract_and_the_kept_ones_after_them() -> None:
    job = job_in(COMPLETED)
    columns = [f"{name}_json" if name in ("error_details", "metadata") else name for name in WIRE + KEPT]

    assert WIRE == list(job.to_dict())
    assert WIRE + KEPT == list(job.to_dict(bookkeeping=True))
    assert WIRE == list(WIRE_FIELDS)
    assert WIRE + KEPT == list(FIELDS)
    assert columns == list(COLUMNS)


def test_every_field_is_written_as_json_has_it() -> None:
    job = job_in(
        FAILED,
        completed_at=NOON + timedelta(seconds=1.5),
        duration_seconds=0.25,
        entities_inserted=1,
        entities_updated=2,
        entities_deleted=3,
        entities_failed=4,
        error="why",
        error_details={"b": [1, {"a": None}]},
        cancel_requested_at=NOON + 2 * SECOND,
        heartbeat_at=NOON + 3 * SECOND,
        progress_at=NOON + 4 * SECOND,
        worker="host:7:ab",
        metadata={"cursor": "é"},
        version=9,
    )

    assert {
        "id": "770e8400-e29b-41d4-a716-446655440002",
        "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
        "status": "FAILED",
        "started_at": "2024-03-15T12:00:01Z",
        "completed_at": "2024-03-15T12:00:01.500000Z",
        "duration_seconds": 0.25,
        "entities_inserted": 1,
        "entities_updated": 2,
        "entities_deleted": 3,
        "entities_failed": 4,
        "error": "why",
        "error_details": {"b": [1, {"a": None}]},
        "created_at": "2024-03-15T12:00:00Z",
        "cancel_requested_at": "2024-03-15T12:00:02Z",
        "heartbeat_at": "2024-03-15T12:00:03Z",
        "progress_at": "2024-03-15T12:00:04Z",
        "worker": "host:7:ab",
        "metadata": {"cursor": "é"},
        "version": 9,
    } == job.to_dict(bookkeeping=True)
    assert {str, int, float, dict} == {type(value) for value in job.to_dict(bookkeeping=True).values()}


@given(jobs())
def test_a_job_comes_back_from_json_with_all_its_bookkeeping(job: SyncJob) -> None:
    text = json.dumps(job.to_dict(bookkeeping=True), allow_nan=False)
    read = SyncJob.from_dict(json.loads(text))

    assert job == read
    assert text == json.dumps(read.to_dict(bookkeeping=True))


@given(jobs())
def test_a_job_comes_back_from_the_wire_with_all_that_the_wire_carries(job: SyncJob) -> None:
    kept = dict.fromkeys(KEPT) | {"created_at": job.created_at, "version": 1}
    read = SyncJob.from_dict(json.loads(json.dumps(job.to_dict())), created_at=job.created_at)

    assert changed(job, **kept) == read
    assert job.to_dict() == read.to_dict()


def test_a_job_is_ordered_by_the_time_given_then_its_own_then_its_start() -> None:
    wire = job_in(RUNNING).to_dict()
    full = wire | {"created_at": "2024-03-15T11:00:00Z"}

    assert LATER == SyncJob.from_dict(full, created_at=LATER).created_at
    assert NOON - timedelta(hours=1) == SyncJob.from_dict(full).created_at
    assert NOON + SECOND == SyncJob.from_dict(wire).created_at
    assert NOON + SECOND == SyncJob.from_dict(wire | {"created_at": None}).created_at


@pytest.mark.parametrize("absent", [{}, {"created_at": None, "started_at": None}], ids=["missing", "null"])
def test_a_job_without_any_time_to_order_by_is_refused(absent: Mapping[str, None]) -> None:
    wire = {"id": str(ID), "source_connection_id": str(CONNECTION), "status": "PENDING", **absent}

    with pytest.raises(InvalidJobError, match="created_at or started_at must be given, to order the job by"):
        SyncJob.from_dict(wire)
    assert job_in(PENDING) == SyncJob.from_dict(wire, created_at=NOON)


@pytest.mark.parametrize("name", ["id", "source_connection_id", "status"])
def test_a_job_says_what_it_is_and_where_it_stands(name: str) -> None:
    data = job_in(RUNNING).to_dict()
    for absent in (data | {name: None}, {key: value for key, value in data.items() if key != name}):
        with pytest.raises(InvalidJobError, match=f"{name} must be given") as caught:
            SyncJob.from_dict(absent)
        assert (name, None) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize("key", ["progress", "error_details_json", "metadata_json", "Status", "", 7, ("id",)], ids=repr)
def test_a_key_that_no_job_has_is_refused_and_named(key: object) -> None:
    data: dict[Any, Any] = job_in(RUNNING).to_dict() | {key: None}

    with pytest.raises(InvalidJobError, match=r"must have no keys but id, source_connection_id, .*version") as caught:
        SyncJob.from_dict(data)
    assert ("job", key) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize("data", [None, "{}", [], [("id", str(ID))], job_in(PENDING)], ids=range(5))
def test_a_job_is_made_from_an_object_only(data: Any) -> None:  # noqa: ANN401  what a caller may give
    with pytest.raises(InvalidJobError, match="job must be a JSON object") as caught:
        SyncJob.from_dict(data)
    assert data is caught.value.value


TIMES = ["started_at", "completed_at", "created_at", "cancel_requested_at", "heartbeat_at", "progress_at"]
ODD_VALUES: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(
        ("id", "source_connection_id"),
        (str(ID).replace("-", ""), f"{{{ID}}}", "770e8400", ID.int, ID.bytes, True, [], {}),
    ),
    "status": ("running", "DONE", "", 1, True, ["RUNNING"], {}),
    **dict.fromkeys(TIMES, ("2024-03-15T12:00:00", "2024-03-15", "", 1710504000, 1710504000.0, True, NOON, [], {})),
    "duration_seconds": ("1", -0.5, math.nan, math.inf, 10**400, True, [], {}),
    **dict.fromkeys(COUNTS, ("1", 1.0, -1, 2**63, True, False, Number.ONE, [], {})),
    "version": ("1", 1.0, 0, -1, 2**63, True, Number.ONE, [], {}),
    **dict.fromkeys(("error", "worker"), ("a\0b", "\ud800", "é" * 8193, b"why", 7, True, ["why"], {})),
    **dict.fromkeys(
        ("error_details", "metadata"),
        ("{}", [], 7, True, {"a": math.nan}, {"a": "b\0"}, {"a": b""}, {"a": "x" * 65_536}, {"a": {1: 2}}),
    ),
}
ODD_PAIRS = [(name, value) for name, values in ODD_VALUES.items() for value in values]


def test_every_field_is_seen_refusing_odd_values() -> None:
    assert set(WIRE + KEPT) == set(ODD_VALUES)


@pytest.mark.parametrize(("name", "value"), ODD_PAIRS, ids=range(len(ODD_PAIRS)))
def test_a_value_of_the_wrong_kind_is_refused_on_the_way_in(name: str, value: object) -> None:
    data = job_in(FAILED).to_dict(bookkeeping=True)

    with pytest.raises(InvalidJobError) as caught:
        SyncJob.from_dict({**data, name: value})
    assert name == caught.value.field.partition(":")[0]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(pair for pair in ODD_PAIRS if not isinstance(pair[1], datetime)),
        *((name, str(ID)) for name in ("id", "source_connection_id")),
        *((name, None) for name in ("id", "source_connection_id", "status", "created_at", "version", *COUNTS)),
        *((name, "2024-03-15T12:00:00Z") for name in TIMES),
        *((name, datetime(2024, 3, 15)) for name in TIMES),  # noqa: DTZ001
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, str) else None,
)
def test_a_value_of_the_wrong_kind_is_refused_by_the_constructor(name: str, value: object) -> None:
    with pytest.raises(InvalidJobError) as caught:
        job_in(FAILED, **{name: value})
    assert name == caught.value.field.partition(":")[0]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("id", "7", "id must be a UUID, not '7'"),
        ("status", "DONE", "status must be one of PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED"),
        ("entities_failed", -1, "entities_failed must be an int from 0 to 2**63-1, not -1"),
        ("version", 0, "version must be an int from 1 to 2**63-1, not 0"),
        ("started_at", "now", "started_at must be an aware datetime, not 'now'"),
        ("metadata", 7, "metadata must be a JSON object (a dict), not 7"),
    ],
)
def test_a_refusal_says_what_is_wanted_and_what_was_given(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        job_in(FAILED, **{name: value})
    assert message in str(caught.value)
    assert caught.value.value == value


def test_an_id_on_the_wire_is_the_canonical_form() -> None:
    with pytest.raises(InvalidJobError) as caught:
        SyncJob.from_dict(job_in(RUNNING).to_dict() | {"id": ID.hex})
    assert f"id must be a UUID in its canonical form, not '{ID.hex}'" == str(caught.value)


@given(st.data())
def test_a_job_read_from_any_json_is_made_or_refused(data: st.DataObject) -> None:
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    )
    given_job = job_in(data.draw(st.sampled_from(JobStatus)), metadata={"a": 1}).to_dict(bookkeeping=True)
    for name in data.draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        given_job[name] = data.draw(anything | st.sampled_from([given_job[other] for other in FIELDS]))
    try:
        job = SyncJob.from_dict(given_job)
    except InvalidJobError:
        return

    assert job == SyncJob.from_dict(json.loads(json.dumps(job.to_dict(bookkeeping=True))))


def test_a_new_job_is_pending_at_version_1_and_has_counted_nothing() -> None:
    job = SyncJob(id=ID, source_connection_id=CONNECTION, created_at=NOON)
    nothing = dict.fromkeys(WIRE + KEPT) | dict.fromkeys(COUNTS, 0)
    given_ones = {
        "id": str(ID),
        "source_connection_id": str(CONNECTION),
        "created_at": "2024-03-15T12:00:00Z",
    }

    assert nothing | {"status": "PENDING", "version": 1} | given_ones == job.to_dict(bookkeeping=True)


def test_values_become_the_types_they_are_held_in() -> None:
    there = timezone(timedelta(hours=2))
    job = job_in(
        FAILED,
        status="FAILED",
        created_at=NOON.astimezone(there),
        heartbeat_at=NOON.astimezone(there),
        duration_seconds=timedelta(seconds=2),
        error_details={"a": (1,)},
    )

    assert FAILED is job.status
    assert (NOON, UTC) == (job.created_at, job.created_at.tzinfo)
    assert (NOON, UTC) == (job.heartbeat_at, job.heartbeat_at and job.heartbeat_at.tzinfo)
    assert (2.0, float) == (job.duration_seconds, type(job.duration_seconds))
    assert {"a": [1]} == job.error_details
    assert '{"a":[1]}' == job.error_details_json


def test_the_greatest_counts_and_version_are_held() -> None:
    job = job_in(RUNNING, version=2**63 - 1, **dict.fromkeys(COUNTS, 2**63 - 1))

    assert MAX_COUNT == 2**63 - 1
    assert {MAX_COUNT} == {getattr(job, name) for name in [*COUNTS, "version"]}


def test_a_job_cannot_be_changed() -> None:
    job: Any = job_in(RUNNING)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job.status = COMPLETED
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del job.status
    with pytest.raises(AttributeError):
        job.progress = 7
    assert not hasattr(job, "__dict__")


def test_json_is_never_shared() -> None:
    details: dict[str, Any] = {"tried": [1]}
    job = job_in(FAILED, error_details=details, metadata=details)
    details["tried"].append(2)
    for held in (job.error_details, job.metadata, job.to_dict()["error_details"]):
        (held or {})["tried"].append(3)

    assert {"tried": [1]} == job.error_details == job.metadata
    assert {"tried": [1]} == job.to_dict()["error_details"]


def test_json_keeps_the_order_of_its_keys() -> None:
    job = job_in(FAILED, error_details={"b": 1, "a": 2}, metadata={"d": 3, "c": 4})

    assert ["b", "a"] == list(job.error_details or {})
    assert ["d", "c"] == list(job.metadata or {})


CHANGED: dict[str, object] = {
    "id": CONNECTION,
    "source_connection_id": ID,
    "status": CANCELLED,
    "started_at": NOON,
    "completed_at": LATER,
    "duration_seconds": 7.0,
    **dict.fromkeys(COUNTS, 7),
    "error": "why",
    "error_details": {"a": True},
    "created_at": LATER,
    "cancel_requested_at": LATER,
    "heartbeat_at": LATER,
    "progress_at": LATER,
    "worker": "host:7:ab",
    "metadata": {"a": True},
    "version": 7,
}


@pytest.mark.parametrize("name", WIRE + KEPT)
def test_jobs_are_equal_if_all_their_fields_are(name: str) -> None:
    job = job_in(FAILED, error_details={"a": 1}, metadata={"a": 1})

    assert job == changed(job)
    assert job != changed(job, **{name: CHANGED[name]})


def test_jobs_are_equal_whatever_the_order_of_their_json_keys() -> None:
    for name in ("error_details", "metadata"):
        one = job_in(FAILED, **{name: {"a": 1, "b": 2}})
        other = job_in(FAILED, **{name: {"b": 2, "a": 1}})

        assert one == other
        assert one != job_in(FAILED)


def test_a_job_is_hashed_by_its_id_at_every_version() -> None:
    job = job_in(PENDING)
    started = job.start(at=LATER)

    assert hash(ID) == hash(job) == hash(started)
    assert 2 == len({job, started, changed(job)})


def test_a_job_is_equal_to_nothing_but_a_job() -> None:
    others: list[object] = [job_in(PENDING).to_dict(bookkeeping=True), ID, None]

    assert not any(job_in(PENDING) == other for other in others)


@pytest.mark.parametrize("status", JobStatus)
def test_a_copied_or_pickled_job_is_equal(status: JobStatus) -> None:
    job = job_in(status, heartbeat_at=LATER, worker="host:7:ab", metadata={"b": 1, "a": [2]})
    for copied in (copy.copy(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job))):  # noqa: S301
        assert job == copied
        assert job.to_dict(bookkeeping=True) == copied.to_dict(bookkeeping=True)


def test_a_job_is_active_until_it_is_terminal() -> None:
    assert {PENDING, RUNNING, CANCELLING} == {status for status in JobStatus if job_in(status).is_active}
    assert {COMPLETED, FAILED, CANCELLED} == {status for status in JobStatus if job_in(status).is_terminal}


@pytest.mark.parametrize("name", ["created_at", "started_at", "heartbeat_at"])
def test_the_last_sign_is_the_latest_of_birth_start_and_heartbeat(name: str) -> None:
    job = job_in(RUNNING, heartbeat_at=NOON, progress_at=LATER, cancel_requested_at=LATER)

    assert LATER - SECOND == changed(job, **{name: LATER - SECOND}).last_sign_at
    assert NOON == job_in(PENDING).last_sign_at


# What each status allows.

SOME: dict[str, object] = {
    "started_at": NOON,
    "completed_at": LATER,
    "duration_seconds": 7.0,
    "error": "",
    "error_details": {},
    **dict.fromkeys(COUNTS, 1),
}


def is_allowed(status: JobStatus, given_ones: set[str]) -> bool:
    """The design's own words, in its order."""
    if "duration_seconds" in given_ones and not {"started_at", "completed_at"} <= given_ones:
        return False
    if status is PENDING:
        return not given_ones
    if status in (RUNNING, CANCELLING):
        return "started_at" in given_ones and given_ones <= {"started_at", *COUNTS}
    if status is COMPLETED:
        return {"started_at", "completed_at"} <= given_ones and "error" not in given_ones
    return True


@pytest.mark.parametrize("status", JobStatus)
def test_what_a_status_does_not_allow_cannot_be_constructed(status: JobStatus) -> None:
    for chosen in product([False, True], repeat=len(SOME)):
        given_ones = {name for name, taken in zip(SOME, chosen, strict=True) if taken}
        values: dict[str, Any] = {name: SOME[name] for name in given_ones}
        try:
            SyncJob(id=ID, source_connection_id=CONNECTION, created_at=NOON, status=status, **values)
        except InvalidJobError as error:
            assert error.field in SOME  # noqa: PT017
            made = False
        else:
            made = True
        assert is_allowed(status, given_ones) == made, (status, given_ones)


@pytest.mark.parametrize(
    ("status", "fields", "message"),
    [
        (RUNNING, {"started_at": None}, "started_at must be set in a RUNNING job, not None"),
        (COMPLETED, {"completed_at": None}, "completed_at must be set in a COMPLETED job, not None"),
        (RUNNING, {"duration_seconds": 7}, "duration_seconds must be null in a RUNNING job, not 7.0"),
        (RUNNING, {"error": "why"}, "error must be null in a RUNNING job, not 'why'"),
        (RUNNING, {"error_details": {"a": 1}}, "error_details must be null in a RUNNING job, not {'a': 1}"),
        (PENDING, {"entities_failed": 7}, "entities_failed must be 0 in a PENDING job, not 7"),
        (FAILED, {"started_at": None}, "duration_seconds must be null where started_at or completed_at is, not 1.25"),
        (FAILED, {"completed_at": None}, "duration_seconds must be null where started_at or completed_at is, not 1.25"),
        (
            FAILED,
            {"started_at": LATER},
            f"completed_at must not be before started_at {LATER}, not {NOON + 2 * SECOND!r}",
        ),
    ],
)
def test_a_broken_rule_is_named(status: JobStatus, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        job_in(status, **fields)
    assert message == str(caught.value)


def test_a_job_may_end_the_moment_it_starts_and_no_sooner() -> None:
    for status in (COMPLETED, FAILED, CANCELLED):
        assert job_in(status, started_at=NOON, completed_at=NOON, duration_seconds=0).completed_at == NOON
        with pytest.raises(InvalidJobError, match="completed_at must not be before started_at"):
            job_in(status, started_at=NOON, completed_at=NOON - timedelta(microseconds=1))


# The steps.

STEPS: dict[str, Callable[[SyncJob], SyncJob]] = {
    "start": lambda job: job.start(at=LATER),
    "report": lambda job: job.report(at=LATER),
    "beat": lambda job: job.beat(at=LATER),
    "request_cancel": lambda job: job.request_cancel(at=LATER),
    "complete": lambda job: job.complete(at=LATER),
    "cancel": lambda job: job.cancel(at=LATER),
    "fail": lambda job: job.fail(at=LATER, error="why"),
    "lose the worker": lambda job: job.lost(at=LATER, error="why"),
}
LEADS_TO = {
    (PENDING, "start"): RUNNING,
    (PENDING, "cancel"): CANCELLED,
    (PENDING, "fail"): FAILED,
    (RUNNING, "report"): RUNNING,
    (RUNNING, "beat"): RUNNING,
    (RUNNING, "request_cancel"): CANCELLING,
    (RUNNING, "complete"): COMPLETED,
    (RUNNING, "fail"): FAILED,
    (RUNNING, "lose the worker"): FAILED,
    (CANCELLING, "report"): CANCELLING,
    (CANCELLING, "beat"): CANCELLING,
    (CANCELLING, "complete"): COMPLETED,
    (CANCELLING, "cancel"): CANCELLED,
    (CANCELLING, "fail"): FAILED,
    (CANCELLING, "lose the worker"): CANCELLED,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", JobStatus)
def test_a_step_leads_where_the_table_says_or_is_refused(status: JobStatus, step: str) -> None:
    job = job_in(status, version=5)

    if (status, step) in LEADS_TO:
        after = STEPS[step](job)
        assert (LEADS_TO[status, step], 6) == (after.status, after.version)
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            STEPS[step](job)
        assert (ID, status, step) == (caught.value.job_id, caught.value.status, caught.value.action)
    assert job_in(status, version=5) == job


def test_the_steps_walk_every_edge_of_the_table_and_no_other() -> None:
    walked = {(before, after) for (before, _), after in LEADS_TO.items() if before is not after}

    assert {(before, after) for before, following in TRANSITIONS.items() for after in following} == walked


def failed(**changes: object) -> dict[str, object]:
    return {"status": FAILED, "completed_at": LATER, "duration_seconds": 3599.0, **changes}


@pytest.mark.parametrize(
    ("before", "step", "arguments", "changes"),
    [
        (
            job_in(PENDING),
            "start",
            {"worker": "host:7:ab"},
            {"status": RUNNING, "started_at": LATER, "worker": "host:7:ab"},
        ),
        (
            job_in(PENDING),
            "start",
            {},
            {"status": RUNNING, "started_at": LATER},
        ),
        (
            job_in(RUNNING, entities_updated=5),
            "report",
            {"inserted": 1, "deleted": 3, "failed": 4},
            {
                "entities_inserted": 1,
                "entities_deleted": 3,
                "entities_failed": 4,
                "heartbeat_at": LATER,
                "progress_at": LATER,
            },
        ),
        (
            job_in(RUNNING, entities_inserted=5),
            "report",
            {"updated": MAX_COUNT},
            {"entities_updated": MAX_COUNT, "heartbeat_at": LATER, "progress_at": LATER},
        ),
        (
            job_in(RUNNING),
            "beat",
            {},
            {"heartbeat_at": LATER},
        ),
        (
            job_in(RUNNING),
            "request_cancel",
            {},
            {"status": CANCELLING, "cancel_requested_at": LATER},
        ),
        (
            job_in(RUNNING),
            "complete",
            {},
            {"status": COMPLETED, "completed_at": LATER, "duration_seconds": 3599.0},
        ),
        (
            job_in(RUNNING),
            "complete",
            {"duration_seconds": 7},
            {"status": COMPLETED, "completed_at": LATER, "duration_seconds": 7.0},
        ),
        (
            job_in(RUNNING),
            "complete",
            {"duration_seconds": 0},
            {"status": COMPLETED, "completed_at": LATER, "duration_seconds": 0.0},
        ),
        (
            job_in(CANCELLING),
            "cancel",
            {"reason": "shutdown\0", "duration_seconds": timedelta(seconds=7)},
            {"status": CANCELLED, "completed_at": LATER, "duration_seconds": 7.0, "error": r"shutdown\x00"},
        ),
        (
            job_in(CANCELLING),
            "cancel",
            {},
            {"status": CANCELLED, "completed_at": LATER, "duration_seconds": 3599.0},
        ),
        (
            job_in(PENDING),
            "cancel",
            {"reason": "", "duration_seconds": 7},
            {"status": CANCELLED, "completed_at": LATER, "error": ""},
        ),
        (
            job_in(RUNNING, entities_inserted=5),
            "fail",
            {"error": "why\0", "error_details": {"a": {1}}},
            failed(error=r"why\x00", error_details={"a": [1]}),
        ),
        (
            job_in(CANCELLING),
            "fail",
            {"error": "", "duration_seconds": 7.5},
            failed(error="", duration_seconds=7.5),
        ),
        (
            job_in(PENDING),
            "fail",
            {"error": "why", "duration_seconds": 7},
            failed(error="why", duration_seconds=None),
        ),
        (
            job_in(RUNNING, heartbeat_at=NOON),
            "lost",
            {"error": "silent\0", "error_details": {"pid": 7}},
            {
                "status": FAILED,
                "error": r"silent\x00",
                "error_details": {"found_at": "2024-03-15T13:00:00Z", "pid": 7},
            },
        ),
        (
            job_in(CANCELLING),
            "lost",
            {"error": "silent"},
            {
                "status": CANCELLED,
                "error": "silent",
                "error_details": {"found_at": "2024-03-15T13:00:00Z"},
            },
        ),
    ],
    ids=range(17),
)
def test_a_step_changes_this_and_nothing_else(
    before: SyncJob, step: str, arguments: dict[str, object], changes: dict[str, object]
) -> None:
    assert changed(before, **changes, version=2) == getattr(before, step)(at=LATER, **arguments)


@pytest.mark.parametrize("name", ["created_at", "started_at", "cancel_requested_at", "heartbeat_at", "progress_at"])
@pytest.mark.parametrize("step", [step for status, step in LEADS_TO if status is RUNNING])
def test_a_step_is_never_earlier_than_any_time_in_the_job(name: str, step: str) -> None:
    latest = LATER + timedelta(days=1)
    after = STEPS[step](job_in(RUNNING, **{name: latest}))
    written = {
        "report": (after.heartbeat_at, after.progress_at),
        "beat": (after.heartbeat_at,),
        "request_cancel": (after.cancel_requested_at,),
        "complete": (after.completed_at,),
        "fail": (after.completed_at,),
        "lose the worker": (datetime.fromisoformat((after.error_details or {}).get("found_at", str(NOON))),),
    }[step]

    assert {latest} == set(written)


def test_a_start_is_never_earlier_than_the_birth() -> None:
    assert NOON == job_in(PENDING).start(at=NOON - SECOND).started_at


@given(
    timestamps(),
    st.lists(
        st.tuples(
            st.sampled_from(["start", "report", "beat", "request_cancel", "complete", "cancel", "fail"]), timestamps()
        )
    ),
    st.lists(counts(), min_size=1),
)
def test_time_never_runs_backwards_inside_a_job_whatever_the_clocks_do(
    born: datetime, walk: list[tuple[str, datetime]], reported: list[int]
) -> None:
    job = SyncJob(id=ID, source_connection_id=CONNECTION, created_at=born)
    latest = born
    for i, (step, at) in enumerate(walk):
        arguments: dict[str, Any] = {"fail": {"error": "why"}, "report": {"inserted": reported[i % len(reported)]}}
        try:
            after = getattr(job, step)(at=at, **arguments.get(step, {}))
        except InvalidTransitionError:
            continue
        changed = {
            moment for name in FIELDS if name.endswith("_at") and (moment := getattr(after, name)) != getattr(job, name)
        }
        latest = max(latest, at)
        assert changed <= {latest}
        assert job.version + 1 == after.version
        assert job.entities_inserted <= after.entities_inserted
        job = after


@pytest.mark.parametrize("step", [step for step in STEPS if step != "start"])
@pytest.mark.parametrize("at", [datetime(2024, 3, 15), "2024-03-15T12:00:00Z", None], ids=repr)  # noqa: DTZ001
def test_a_step_needs_an_aware_time(step: str, at: Any) -> None:  # noqa: ANN401  what a caller may give
    job = job_in(CANCELLING if step == "cancel" else RUNNING)
    method = getattr(job, "lost" if step == "lose the worker" else step)

    with pytest.raises(InvalidJobError) as caught:
        method(at=at, **({"error": "why"} if step in ("fail", "lose the worker") else {}))
    assert ("at", at) == (caught.value.field, caught.value.value)


def test_a_step_takes_the_time_of_any_zone() -> None:
    job = job_in(RUNNING).beat(at=LATER.astimezone(timezone(timedelta(hours=-7))))

    assert (LATER, UTC) == (job.heartbeat_at, job.heartbeat_at and job.heartbeat_at.tzinfo)


@given(
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(["inserted", "updated", "deleted", "failed"], counts())))
)
def test_totals_are_the_greatest_ever_reported(reports: list[dict[str, int]]) -> None:
    job = job_in(RUNNING)
    for report in reports:
        job = job.report(at=LATER, **report)

    for name in ("inserted", "updated", "deleted", "failed"):
        assert max([0, *(report[name] for report in reports if name in report)]) == getattr(job, f"entities_{name}")


def test_a_replayed_report_changes_nothing_but_the_version() -> None:
    once = job_in(RUNNING).report(at=LATER, inserted=7, updated=0)
    twice = once.report(at=LATER, inserted=7, updated=0)

    assert changed(once, version=3) == twice


@pytest.mark.parametrize("name", ["inserted", "updated", "deleted", "failed"])
@pytest.mark.parametrize("total", [True, 1.0, "1", -1, 2**63, Number.ONE], ids=repr)
def test_a_total_that_is_no_count_is_refused(name: str, total: Any) -> None:  # noqa: ANN401  what a caller may give
    with pytest.raises(InvalidJobError) as caught:
        job_in(RUNNING, **{f"entities_{name}": 5}).report(at=LATER, **{name: total})
    assert (f"entities_{name}", total) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize("duration", [-1, math.nan, True, "1"], ids=repr)
def test_a_duration_that_is_none_is_refused(duration: Any) -> None:  # noqa: ANN401  what a caller may give
    for step in (job_in(RUNNING).complete, job_in(CANCELLING).cancel):
        with pytest.raises(InvalidJobError, match="duration_seconds must be seconds"):
            step(at=LATER, duration_seconds=duration)


@pytest.mark.parametrize("text", ["a\0", "\ud800", "é" * 10_000, ValueError("why"), None, 7], ids=range(6))
@pytest.mark.parametrize("details", [{"a": b"\0"}, {"a": "x" * 100_000}, [1], "why", 7, {1: {2}}], ids=range(6))
def test_a_worker_that_reports_a_failure_never_fails_at_it(text: Any, details: Any) -> None:  # noqa: ANN401  what a worker may give
    running, cancelling = job_in(RUNNING), job_in(CANCELLING)

    assert FAILED is running.fail(at=LATER, error=text, error_details=details).status
    assert FAILED is running.lost(at=LATER, error=text, error_details=details).status
    assert CANCELLED is cancelling.lost(at=LATER, error=text, error_details=details).status
    assert CANCELLED is cancelling.cancel(at=LATER, reason=text).status


@pytest.mark.parametrize("details", [{"found_at": "mine"}, dict.fromkeys(map(str, range(20_000)), 0)], ids=range(2))
def test_when_a_vanished_worker_was_found_is_kept_whatever_the_details_are(details: dict[str, Any]) -> None:
    kept = job_in(RUNNING).lost(at=LATER, error="silent", error_details=details).error_details or {}

    assert ("found_at", "2024-03-15T13:00:00Z") == next(iter(kept.items()))


def test_the_text_of_an_error_is_cut_with_a_marker() -> None:
    job = job_in(RUNNING).fail(at=LATER, error="x" * 20_000)

    assert (16_384, " [cut: 20,000 bytes in all]") == (len(job.error or ""), (job.error or "")[-27:])


def test_a_worker_that_cannot_be_stored_is_refused_at_the_start() -> None:
    with pytest.raises(InvalidJobError, match="worker must not contain NUL"):
        job_in(PENDING).start(at=LATER, worker="host\0")


def test_a_job_at_its_last_version_takes_no_step() -> None:
    with pytest.raises(InvalidJobError, match=r"version must be an int from 1 to 2\*\*63-1"):
        job_in(RUNNING, version=MAX_COUNT).beat(at=LATER)
