from __future__ import annotations

import ast
import itertools
import logging
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, cast
from uuid import UUID, uuid5

import attrs
import pytest

import jobhistory
from jobhistory import (
    ActiveJobExistsError,
    ConflictError,
    Cursor,
    DuplicateJobError,
    InvalidCursorError,
    InvalidIdError,
    InvalidJobError,
    InvalidLimitError,
    InvalidTransitionError,
    JobHistory,
    JobNotFoundError,
    JobRepository,
    JobStatus,
    NameTakenError,
    Position,
    Redactor,
    SourceConnection,
    SourceConnectionNotFoundError,
    StorageError,
    SyncJob,
    UnknownOutcomeError,
)
from jobhistory.abilities import WaitsForChanges
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, NOON, OTHER, UNKNOWN, at, job, jobs

SECRET = "postgresql://admin:hunter2-and-more@db.example.com/prod"  # noqa: S105  it is there to be redacted
HIDDEN = "postgresql://admin:[redacted]@db.example.com/prod"
Step = Callable[[JobHistory, UUID], SyncJob]


class Clock:
    """A second passes with each look at it, from noon on."""

    def __init__(self) -> None:
        self.looks = itertools.count()

    def __call__(self) -> datetime:
        return at(next(self.looks))


def numbered_ids() -> Callable[[], UUID]:
    numbers = itertools.count(1)
    return lambda: UUID(int=next(numbers))


@pytest.fixture(params=["memory", "sqlite"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> JobRepository:
    return (
        InMemoryJobRepository()
        if request.param == "memory"
        else SQLiteJobRepository(tmp_path / "history.db", durability="relaxed")
    )


@pytest.fixture
def history(repository: JobRepository) -> Iterator[JobHistory]:
    with JobHistory(repository, clock=Clock(), new_id=numbered_ids()) as history:
        yield history


def in_status(history: JobHistory, status: JobStatus) -> SyncJob:
    """A job that came to this status by the use cases."""
    created = history.enqueue(CONNECTION)
    ways: dict[JobStatus, tuple[Step, ...]] = {
        JobStatus.PENDING: (),
        JobStatus.RUNNING: (start,),
        JobStatus.CANCELLING: (start, cancel),
        JobStatus.COMPLETED: (start, complete),
        JobStatus.FAILED: (start, fail),
        JobStatus.CANCELLED: (cancel,),
    }
    for step in ways[status]:
        step(history, created.id)
    return history.get(created.id)


def start(history: JobHistory, id: UUID) -> SyncJob:
    return history.start(id, worker="here:1:a")


def report(history: JobHistory, id: UUID) -> SyncJob:
    return history.report(id, inserted=4, failed=1)


def beat(history: JobHistory, id: UUID) -> SyncJob:
    return history.beat(id)


def complete(history: JobHistory, id: UUID) -> SyncJob:
    return history.complete(id)


def fail(history: JobHistory, id: UUID) -> SyncJob:
    return history.fail(id, error="gone")


def cancel(history: JobHistory, id: UUID) -> SyncJob:
    return history.cancel(id)


def finish_cancel(history: JobHistory, id: UUID) -> SyncJob:
    return history.finish_cancel(id)


# ---- Connections


def test_a_connection_is_registered_named_and_forgotten(history: JobHistory) -> None:
    assert SourceConnection(CONNECTION, "github") == history.register(str(CONNECTION), "github")
    assert SourceConnection(OTHER) == history.register(OTHER)
    assert sorted([SourceConnection(CONNECTION, "github"), SourceConnection(OTHER)], key=lambda known: known.id) == (
        history.connections()
    )
    with pytest.raises(NameTakenError):
        history.register(OTHER, "github")

    history.forget(str(OTHER))
    assert [CONNECTION] == [known.id for known in history.connections()]
    with pytest.raises(SourceConnectionNotFoundError):
        history.forget(OTHER)


def test_a_connection_with_an_active_job_is_not_forgotten(history: JobHistory) -> None:
    history.enqueue(CONNECTION)
    with pytest.raises(ActiveJobExistsError):
        history.forget(CONNECTION)


BAD_IDS = ["", "550e8400e29b41d4a716446655440000", "{550e8400-e29b-41d4-a716-446655440000}", 7, None, b"x" * 16]
TAKING_IDS: dict[str, Callable[[JobHistory, Any], object]] = {
    "register": lambda history, given: history.register(given),
    "forget": lambda history, given: history.forget(given),
    "enqueue": lambda history, given: history.enqueue(given),
    "enqueue a job": lambda history, given: history.enqueue(CONNECTION, job_id="" if given is None else given),
    "get": lambda history, given: history.get(given),
    "list_jobs": lambda history, given: history.list_jobs(given),
    "iter_jobs": lambda history, given: list(history.iter_jobs(given)),
    "newest_jobs": lambda history, given: history.newest_jobs([CONNECTION, given]),
    "cancel": lambda history, given: history.cancel(given),
    "start": lambda history, given: history.start(given),
    "report": lambda history, given: history.report(given, inserted=1),
    "beat": lambda history, given: history.beat(given),
    "complete": lambda history, given: history.complete(given),
    "fail": lambda history, given: history.fail(given, error="gone"),
    "finish_cancel": lambda history, given: history.finish_cancel(given),
    "run": lambda history, given: history.run(given),
    "track": lambda history, given: history.track(given),
}


@pytest.mark.parametrize("use_case", TAKING_IDS)
def test_what_is_no_id_is_refused_by_every_use_case(history: JobHistory, use_case: str) -> None:
    history.register(CONNECTION)
    for bad in BAD_IDS:
        with pytest.raises(InvalidIdError) as refused:
            TAKING_IDS[use_case](history, bad)
        assert repr("" if use_case == "enqueue a job" and bad is None else bad) == repr(refused.value.value)

    assert [[], [CONNECTION]] == [history.changes(), [known.id for known in history.connections()]]


def test_an_id_may_be_given_as_its_text_in_either_case(history: JobHistory) -> None:
    created = history.enqueue(str(CONNECTION).upper(), job_id=str(UNKNOWN).upper())
    text = str(UNKNOWN)

    assert (UNKNOWN, CONNECTION) == (created.id, created.source_connection_id)
    assert created == history.get(text) == history.get(text.upper())
    assert {CONNECTION: [created]} == history.newest_jobs([str(CONNECTION)])
    assert JobStatus.RUNNING is history.start(text).status
    assert 3 == history.report(text, inserted=3).entities_inserted
    assert history.beat(text).heartbeat_at
    assert JobStatus.CANCELLING is history.cancel(text).status
    assert JobStatus.CANCELLED is history.finish_cancel(text).status


# ---- Adding


def test_enqueue_adds_a_pending_job_and_registers_its_connection(history: JobHistory) -> None:
    created = history.enqueue(CONNECTION)

    assert SyncJob(id=UUID(int=1), source_connection_id=CONNECTION, created_at=NOON) == created
    assert [created] == history.list_jobs(CONNECTION)
    assert [SourceConnection(CONNECTION)] == history.connections()


def test_enqueue_registers_nothing_where_it_is_told_not_to(history: JobHistory) -> None:
    with pytest.raises(SourceConnectionNotFoundError) as refused:
        history.enqueue(CONNECTION, register=False)
    assert CONNECTION == refused.value.source_connection_id
    assert [] == history.connections()

    history.register(CONNECTION)
    created = history.enqueue(CONNECTION, register=False)
    assert [created] == history.list_jobs(CONNECTION)


def test_enqueue_keeps_the_name_of_a_known_connection(history: JobHistory) -> None:
    history.register(CONNECTION, "github")
    history.enqueue(CONNECTION)

    assert [SourceConnection(CONNECTION, "github")] == history.connections()


@pytest.mark.parametrize("status", JobStatus)
def test_enqueue_can_be_retried_with_its_job_id_whatever_became_of_the_job(
    history: JobHistory, status: JobStatus
) -> None:
    stored = in_status(history, status)
    for exclusive in (False, True):
        again = history.enqueue(CONNECTION, job_id=stored.id, exclusive=exclusive, metadata={"try": 2})
        assert stored == again

    assert [stored] == history.list_jobs(CONNECTION)


def test_the_id_of_another_connections_job_is_refused(history: JobHistory) -> None:
    stored = history.enqueue(CONNECTION)
    with pytest.raises(DuplicateJobError) as refused:
        history.enqueue(OTHER, job_id=stored.id)

    assert stored.id == refused.value.job_id
    assert stored == history.get(stored.id)


def test_a_new_id_that_is_taken_is_no_retry(repository: JobRepository) -> None:
    with JobHistory(repository, clock=Clock(), new_id=lambda: UNKNOWN) as history:
        history.enqueue(CONNECTION)
        with pytest.raises(DuplicateJobError):
            history.enqueue(CONNECTION)


@pytest.mark.parametrize("status", JobStatus)
def test_an_exclusive_job_waits_for_the_end_of_the_one_before(history: JobHistory, status: JobStatus) -> None:
    before = in_status(history, status)
    if before.is_terminal:
        assert JobStatus.PENDING is history.enqueue(CONNECTION, exclusive=True).status
    else:
        with pytest.raises(ActiveJobExistsError) as refused:
            history.enqueue(CONNECTION, exclusive=True)
        assert (CONNECTION, before.id) == (refused.value.source_connection_id, refused.value.job_id)
        assert [before] == history.list_jobs(CONNECTION)
    assert JobStatus.PENDING is history.enqueue(OTHER, exclusive=True).status


def test_metadata_is_redacted_and_what_was_given_stays_as_it_was(history: JobHistory) -> None:
    given = {"from": SECRET, "nested": [{"password": "hunter2", "since": 7}]}
    created = history.enqueue(CONNECTION, metadata=MappingProxyType(given))

    expected = {"from": HIDDEN, "nested": [{"password": "[redacted]", "since": 7}]}
    assert expected == created.metadata == history.get(created.id).metadata
    assert {"from": SECRET, "nested": [{"password": "hunter2", "since": 7}]} == given


DEEP: dict[str, Any] = {}
for _ in range(100_000):
    DEEP = {"deeper": DEEP}


@pytest.mark.parametrize(
    "metadata", ["ab", [("a", 1)], 7, {1: 2}, {"at": NOON}, {"nan": float("nan")}, {"nul": "\0"}, {"x": "x" * 70_000}]
)
def test_metadata_that_cannot_be_stored_is_refused_and_nothing_is_added(history: JobHistory, metadata: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidJobError, match=r"^metadata"):
        history.enqueue(CONNECTION, metadata=metadata)

    assert ([], []) == (history.connections(), history.changes())


def test_metadata_without_end_is_refused(history: JobHistory) -> None:
    endless: dict[str, Any] = {}
    endless["deeper"] = endless
    for metadata in (endless, DEEP):
        with pytest.raises(InvalidJobError, match=r"^metadata must have at most 64 levels"):
            history.enqueue(CONNECTION, metadata=metadata)


def test_ready_made_jobs_are_added_and_their_connections_registered(history: JobHistory) -> None:
    ready = [*jobs(1, 2), job(3, JobStatus.COMPLETED, source_connection_id=OTHER)]
    history.add_many(iter(ready))

    assert ready[1::-1] == history.list_jobs(CONNECTION)
    assert ready[2:] == history.list_jobs(OTHER)


FULL = job(
    1,
    JobStatus.FAILED,
    error=f"cannot reach {SECRET}",
    error_details={"token": SECRET},
    metadata={"from": SECRET},
    worker=f"on {SECRET}",
)
EMPTIED = attrs.evolve(
    FULL,
    error=f"cannot reach {HIDDEN}",
    error_details={"token": "[redacted]"},
    metadata={"from": HIDDEN},
    worker=f"on {HIDDEN}",
)


def test_a_connections_name_is_redacted_and_giving_it_again_changes_nothing(history: JobHistory) -> None:
    for given in (f"from {SECRET}", f"from {SECRET}", f"from {HIDDEN}", None):
        assert SourceConnection(CONNECTION, f"from {HIDDEN}") == history.register(CONNECTION, given)

    assert [SourceConnection(CONNECTION, f"from {HIDDEN}")] == history.connections()


@pytest.mark.parametrize("name", ["", "\0", "two\nlines", 7, "x" * 20_000])
def test_a_name_that_cannot_be_stored_is_refused_and_not_mended(history: JobHistory, name: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidJobError, match=r"^name"):
        history.register(CONNECTION, name)

    assert [] == history.connections()


def test_ready_made_jobs_are_redacted_and_adding_them_again_changes_nothing(history: JobHistory) -> None:
    for given in (FULL, FULL, EMPTIED):
        history.add_many([given, job(2)])

    assert [job(2), EMPTIED] == history.list_jobs(CONNECTION)
    assert 2 == len(history.changes())


def test_what_grows_when_it_is_redacted_is_cut_and_not_refused(repository: JobRepository) -> None:
    with JobHistory(repository, redact=lambda text: text.rjust(40_000)) as history:
        history.add_many([job(1, JobStatus.FAILED, error="e" * 16_000, error_details={"text": "d" * 60_000})])
        stored = history.get(job(1).id)

    assert stored.error is not None
    assert stored.error.endswith("[cut: 40,000 bytes in all]")
    assert "[cut: " in str(stored.error_details)


def test_ready_made_jobs_are_added_all_or_none(history: JobHistory) -> None:
    history.add_many(jobs(1, 2))
    before = history.changes()
    with pytest.raises(DuplicateJobError):
        history.add_many([job(3), job(2, JobStatus.COMPLETED)])

    assert before == history.changes()
    history.add_many([])
    assert before == history.changes()


# ---- Listing


@pytest.fixture
def filled(history: JobHistory) -> JobHistory:
    """Ten jobs, every other FAILED, and two of another connection."""
    failing = {number: (JobStatus.COMPLETED, JobStatus.FAILED)[number % 2] for number in range(10)}
    history.add_many(job(number, status) for number, status in failing.items())
    history.add_many(jobs(20, 21, source_connection_id=OTHER))
    return history


def stored(*numbers: int) -> list[SyncJob]:
    return [job(number, (JobStatus.COMPLETED, JobStatus.FAILED)[number % 2]) for number in numbers]


@pytest.mark.parametrize("kind", ["job", "cursor", "parsed cursor", "position"])
def test_a_page_starts_behind_a_job_a_cursor_or_a_position(filled: JobHistory, kind: str) -> None:
    [last] = stored(6)
    places: dict[str, SyncJob | Cursor | Position] = {
        "job": last,
        "cursor": Cursor.after(last),
        "parsed cursor": Cursor.parse(str(Cursor.after(last))),
        "position": Position.of(last),
    }

    assert stored(5, 4, 3) == filled.list_jobs(str(CONNECTION), limit=3, before=places[kind])
    assert stored(5, 4, 3, 2, 1, 0) == list(filled.iter_jobs(CONNECTION, before=places[kind]))


def test_a_page_is_filtered_by_status_and_so_is_its_cursor(filled: JobHistory) -> None:
    failed = [JobStatus.FAILED]
    first = filled.list_jobs(CONNECTION, limit=2, statuses=failed)
    cursor = Cursor.after(first[-1], failed)

    assert stored(9, 7) == first
    assert stored(5, 3) == filled.list_jobs(CONNECTION, limit=2, before=cursor, statuses=iter(failed))
    assert stored(5, 3, 1) == list(filled.iter_jobs(CONNECTION, before=cursor, statuses=iter(failed)))


FAILED_ONLY = frozenset({JobStatus.FAILED})
FOREIGN: dict[str, tuple[Any, Any, str]] = {
    "another connection's job": (job(20, source_connection_id=OTHER), None, f"is a job of source connection {OTHER}"),
    "another connection's cursor": (
        Cursor.after(job(20, source_connection_id=OTHER)),
        None,
        f"belongs to source connection {OTHER}",
    ),
    "a cursor without the filter": (Cursor.after(job(5)), FAILED_ONLY, "belongs to another filter by status"),
    "a cursor of a filter": (Cursor.after(job(5), FAILED_ONLY), None, "belongs to another filter by status"),
    "a cursor of another filter": (Cursor.after(job(5), FAILED_ONLY), {JobStatus.COMPLETED}, "another filter"),
    "a cursor's text": (str(Cursor.after(job(5))), None, "Cursor.parse reads a token"),
    "an id": (job(5).id, None, "is no SyncJob, Cursor or Position"),
    "a time": (NOON, None, "is no SyncJob, Cursor or Position"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_place_in_another_list_is_refused(filled: JobHistory, name: str) -> None:
    before, statuses, reason = FOREIGN[name]
    with pytest.raises(InvalidCursorError, match=reason):
        filled.list_jobs(CONNECTION, before=before, statuses=statuses)
    with pytest.raises(InvalidCursorError, match=reason):
        list(filled.iter_jobs(CONNECTION, before=before, statuses=statuses))


def test_iterating_reads_page_after_page_and_neither_skips_nor_repeats(history: JobHistory) -> None:
    many = [job(number, JobStatus.COMPLETED, created_at=at(number // 3)) for number in range(2500)]
    history.add_many(many)
    expected = sorted(many, key=lambda each: (each.created_at, each.id), reverse=True)
    seen: list[SyncJob] = []
    for each in history.iter_jobs(CONNECTION):
        if len(seen) in (0, 999, 1000):
            # What happens before the place reached is not seen, and what is deleted leaves no gap.
            history.add_many([job(10_000 + len(seen))])
            history.repository.delete_many([each.id])
        seen.append(each)

    assert expected == seen


def test_iterating_an_unknown_connection_is_an_error(history: JobHistory) -> None:
    with pytest.raises(SourceConnectionNotFoundError):
        list(history.iter_jobs(UNKNOWN))


def test_a_bad_limit_is_refused(filled: JobHistory) -> None:
    for ask in (
        lambda: filled.list_jobs(CONNECTION, limit=0),
        lambda: filled.active_jobs(limit=1001),
        lambda: filled.newest_jobs(per_connection=0),
        lambda: filled.changes(limit=0),
    ):
        with pytest.raises(InvalidLimitError):
            ask()


def test_active_jobs_are_those_of_all_connections(filled: JobHistory) -> None:
    first, second = jobs(20, 21, source_connection_id=OTHER)
    running = filled.start(first.id)

    assert [second, running] == filled.active_jobs()
    assert [running] == filled.active_jobs(statuses={JobStatus.RUNNING})
    assert [running] == filled.active_jobs(before=second)
    assert [running] == filled.active_jobs(before=Position.of(stored(9)[0])) or [] == filled.active_jobs(before=NOON_)
    assert [second] == filled.active_jobs(limit=1)
    assert [second, running] == filled.active_jobs(silent_since=at(10**6))
    assert [] == filled.active_jobs(silent_since=NOON)


NOON_ = Position(NOON, UUID(int=0))


def test_active_jobs_take_no_cursor_which_is_one_connections(filled: JobHistory) -> None:
    with pytest.raises(InvalidCursorError, match=f"belongs to source connection {OTHER}"):
        filled.active_jobs(before=cast("SyncJob", Cursor.after(job(20, source_connection_id=OTHER))))


def test_the_newest_jobs_are_given_for_each_connection(filled: JobHistory) -> None:
    filled.register(UNKNOWN)
    [newest] = jobs(21, source_connection_id=OTHER)

    assert {UNKNOWN: [], OTHER: [newest], CONNECTION: stored(9)} == filled.newest_jobs()
    assert {CONNECTION: stored(9, 8, 7)} == filled.newest_jobs([str(CONNECTION)], per_connection=3)


def test_changes_tell_what_was_written_since_a_token(history: JobHistory) -> None:
    first = history.enqueue(CONNECTION)
    [change] = history.changes()
    running = history.start(first.id)
    history.beat(first.id)

    assert first == change.job
    assert [running.version + 1] == [later.job.version for later in history.changes(change.token)]
    with pytest.raises(InvalidCursorError):
        history.changes("no token")


def test_the_latest_change_is_where_what_is_still_to_come_begins(repository: JobRepository) -> None:
    class Lacking:
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            if name == "latest_change":
                raise AttributeError(name)
            return getattr(repository, name)

    told, reading = JobHistory(repository), JobHistory(cast("JobRepository", Lacking()))
    assert [None, None] == [told.latest_change(), reading.latest_change()]

    first, second = (told.fail(told.enqueue(CONNECTION).id, error="no") for _ in range(2))
    [*_, newest] = told.changes()
    assert [newest.token] * 2 == [told.latest_change(), reading.latest_change()]

    repository.delete_many([second.id])
    token = told.latest_change()
    assert [] == told.changes(token)
    later = told.enqueue(CONNECTION)
    assert [later] == [change.job for change in told.changes(token)]
    assert first == told.get(first.id)


class Waiting:
    """The repository, which says when it is asked to wait, and how often it was."""

    def __init__(self, repository: JobRepository) -> None:
        self._repository = repository
        self.entered = threading.Event()
        self.times = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._repository, name)

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        self.times += 1
        self.entered.set()
        return cast("WaitsForChanges", self._repository).wait_for_changes(after, timeout)


@pytest.fixture
def waiting(repository: JobRepository) -> Waiting:
    return Waiting(repository)


@pytest.fixture
def waited(waiting: Waiting) -> Iterator[JobHistory]:
    with JobHistory(cast("JobRepository", waiting), new_id=numbered_ids()) as history:
        yield history


def test_changes_that_are_there_are_not_waited_for(waited: JobHistory, waiting: Waiting) -> None:
    created = waited.enqueue(CONNECTION)

    assert [created] == [change.job for change in waited.wait_for_changes()]
    assert not waiting.entered.is_set()


def test_a_change_by_another_thread_ends_the_wait(waited: JobHistory, waiting: Waiting) -> None:
    first = waited.enqueue(CONNECTION)
    [change] = waited.changes()
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(waited.wait_for_changes, change.token, timeout=timedelta(minutes=1), limit=1)
        waiting.entered.wait()
        waited.register(OTHER)
        running = waited.start(first.id)

        assert [running] == [later.job for later in found.result()]


def test_a_change_by_another_process_ends_the_wait(tmp_path: Path) -> None:
    waiting = Waiting(SQLiteJobRepository(tmp_path / "history.db"))
    with JobHistory(cast("JobRepository", waiting)) as history, ThreadPoolExecutor(1) as threads:
        found = threads.submit(history.wait_for_changes)
        waiting.entered.wait()
        with jobhistory.open(tmp_path / "history.db") as other:
            created = other.enqueue(CONNECTION)

        assert [created] == [change.job for change in found.result()]


def test_nothing_comes_of_a_wait_without_changes(waited: JobHistory, waiting: Waiting) -> None:
    assert [] == waited.wait_for_changes(timeout=0)
    assert not waiting.entered.is_set()

    deleted = waited.fail(waited.enqueue(CONNECTION).id, error="gone")
    waited.repository.delete_many([deleted.id])
    assert [] == waited.wait_for_changes(timeout=0.1)
    assert waiting.times <= 2, "what was deleted is waited for again and again"


def test_closing_ends_the_wait(waited: JobHistory, waiting: Waiting) -> None:
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(waited.wait_for_changes)
        waiting.entered.wait()
        waited.close()
        with pytest.raises(StorageError, match="is closed"):
            found.result()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "60", None, True])
def test_a_wait_that_is_no_duration_is_refused(history: JobHistory, timeout: Any) -> None:  # noqa: ANN401
    with pytest.raises(InvalidJobError, match="timeout must be seconds"):
        history.wait_for_changes(timeout=timeout)


class Unable:
    """The repository without its ability to wait."""

    def __init__(self, repository: JobRepository) -> None:
        self._repository = repository

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name == "wait_for_changes":
            raise AttributeError(name)
        return getattr(self._repository, name)


def test_a_repository_that_cannot_wait_is_asked_until_the_time_is_over(repository: JobRepository) -> None:
    slept: list[float] = []
    moved: list[float] = []
    history: JobHistory

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3 and not moved:
            history.enqueue(CONNECTION)

    unable = cast("JobRepository", Unable(repository))
    with JobHistory(unable, sleep=sleep, monotonic=lambda: sum(slept)) as history:
        assert 1 == len(history.wait_for_changes())
        [change] = history.changes()
        slept.clear()
        moved.append(1)
        assert [] == history.wait_for_changes(change.token, timeout=1.2)

    assert 1.2 == pytest.approx(sum(slept))
    assert max(slept) < 1


# ---- Steps by id


STEPS: dict[Step, dict[JobStatus, JobStatus | type[InvalidTransitionError]]] = {
    start: {
        JobStatus.PENDING: JobStatus.RUNNING,
        JobStatus.RUNNING: JobStatus.RUNNING,
        JobStatus.CANCELLING: JobStatus.CANCELLING,
    },
    report: {JobStatus.RUNNING: JobStatus.RUNNING, JobStatus.CANCELLING: JobStatus.CANCELLING},
    beat: {JobStatus.RUNNING: JobStatus.RUNNING, JobStatus.CANCELLING: JobStatus.CANCELLING},
    complete: dict.fromkeys((JobStatus.RUNNING, JobStatus.CANCELLING, JobStatus.COMPLETED), JobStatus.COMPLETED),
    fail: dict.fromkeys(
        (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.CANCELLING, JobStatus.FAILED), JobStatus.FAILED
    ),
    cancel: {
        JobStatus.PENDING: JobStatus.CANCELLED,
        JobStatus.RUNNING: JobStatus.CANCELLING,
        JobStatus.CANCELLING: JobStatus.CANCELLING,
        JobStatus.CANCELLED: JobStatus.CANCELLED,
    },
    finish_cancel: dict.fromkeys((JobStatus.PENDING, JobStatus.CANCELLING, JobStatus.CANCELLED), JobStatus.CANCELLED),
}
LEFT_ALONE = {
    (start, JobStatus.RUNNING),
    (start, JobStatus.CANCELLING),
    (complete, JobStatus.COMPLETED),
    (fail, JobStatus.FAILED),
    (cancel, JobStatus.CANCELLING),
    (cancel, JobStatus.CANCELLED),
    (finish_cancel, JobStatus.CANCELLED),
}


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_goes_from_the_statuses_it_may_and_from_no_other(
    history: JobHistory, step: Step, status: JobStatus
) -> None:
    before = in_status(history, status)
    expected = STEPS[step].get(status, InvalidTransitionError)
    if expected is InvalidTransitionError:
        with pytest.raises(InvalidTransitionError) as refused:
            step(history, before.id)
        assert (before.id, status) == (refused.value.job_id, refused.value.status)
        assert before == history.get(before.id)
    else:
        after = step(history, before.id)
        assert expected is after.status
        assert after == history.get(before.id)
        assert before.version + ((step, status) not in LEFT_ALONE) == after.version


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_an_unknown_job_is_an_error(history: JobHistory, step: Step) -> None:
    with pytest.raises(JobNotFoundError) as refused:
        step(history, UNKNOWN)

    assert UNKNOWN == refused.value.job_id


def test_a_started_job_has_a_worker_and_a_time(history: JobHistory) -> None:
    started = start(history, history.enqueue(CONNECTION).id)

    assert ("here:1:a", at(1)) == (started.worker, started.started_at)


def test_only_one_of_many_starts_the_job(history: JobHistory) -> None:
    created = history.enqueue(CONNECTION)
    started = history.start(created.id)
    assert started.worker is not None
    assert str(os.getpid()) == started.worker.split(":")[-2]
    for worker in (None, "", "there:2:b"):
        with pytest.raises(InvalidTransitionError):
            history.start(created.id, worker=worker)

    assert started == history.get(created.id)
    assert started == history.start(created.id, worker=started.worker)


def test_a_worker_whose_name_holds_a_secret_is_stored_without_it_and_stays_unlike_another(history: JobHistory) -> None:
    created = history.enqueue(CONNECTION)
    started = history.start(created.id, worker=f"on {SECRET}")
    assert started == history.get(created.id)
    assert re.fullmatch(rf"on {re.escape(HIDDEN)}:{os.getpid()}:[0-9a-f]{{8}}", started.worker or "")

    for worker in (f"on {SECRET}", f"on {SECRET.replace('hunter2', 'hunter3')}", f"on {HIDDEN}"):
        with pytest.raises(InvalidTransitionError):
            history.start(created.id, worker=worker)
    assert started == history.start(created.id, worker=started.worker)


def test_a_pid_and_a_tag_are_no_secret_whatever_the_host_is_called(history: JobHistory) -> None:
    created = history.enqueue(CONNECTION)

    assert "token:1234:0123abcd" == history.start(created.id, worker="token:1234:0123abcd").worker
    with history.track(CONNECTION, worker="token") as run:
        assert run.worker == history.get(run.job.id).worker


@pytest.mark.parametrize("worker", [7, "\0", "x" * 20_000])
def test_a_worker_that_cannot_be_stored_is_refused_and_not_mended(history: JobHistory, worker: Any) -> None:  # noqa: ANN401
    created = history.enqueue(CONNECTION)
    with pytest.raises(InvalidJobError, match=r"^worker"):
        history.start(created.id, worker=worker)

    assert created == history.get(created.id)


def test_the_next_version_of_a_job_is_redacted(history: JobHistory) -> None:
    created = history.enqueue(CONNECTION, metadata={"from": SECRET})
    claimed = created.start(at=NOON, worker=f"on {SECRET}")
    history.replace(claimed)
    history.replace(claimed.fail(at=NOON, error=f"cannot reach {SECRET}", error_details={"token": SECRET}))

    stored = history.get(created.id)
    assert (f"on {HIDDEN}", f"cannot reach {HIDDEN}") == (stored.worker, stored.error)
    assert ({"token": "[redacted]"}, created.metadata) == (stored.error_details, stored.metadata)


def test_totals_are_set_and_never_shrink(history: JobHistory) -> None:
    id = in_status(history, JobStatus.RUNNING).id
    history.report(id, inserted=5, updated=4, deleted=3, failed=2)
    after = history.report(id, inserted=4, updated=6)

    assert (5, 6, 3, 2) == (
        after.entities_inserted,
        after.entities_updated,
        after.entities_deleted,
        after.entities_failed,
    )
    assert after.progress_at == after.heartbeat_at == at(3)


def test_a_beat_is_quiet(history: JobHistory) -> None:
    id = in_status(history, JobStatus.RUNNING).id
    [change] = history.changes()
    after = history.beat(id)

    assert at(2) == after.heartbeat_at
    assert [] == history.changes(change.token)


@pytest.mark.parametrize(("given", "stored"), [(None, 1.0), (3.25, 3.25), (timedelta(minutes=2), 120.0)])
def test_the_workers_own_duration_counts(history: JobHistory, given: Any, stored: float) -> None:  # noqa: ANN401
    done = history.complete(in_status(history, JobStatus.RUNNING).id, duration_seconds=given)
    failed = history.fail(in_status(history, JobStatus.RUNNING).id, error="gone", duration_seconds=given)

    assert [stored, stored] == [done.duration_seconds, failed.duration_seconds]


def test_a_failure_is_redacted_and_made_storable(history: JobHistory) -> None:
    failed = history.fail(
        in_status(history, JobStatus.RUNNING).id,
        error=f"\0{SECRET}\ud800" + "x" * 20_000,
        error_details=cast("dict[str, Any]", {"password": "hunter2", 1: SECRET, "odd": {NOON}, "tuple": (SECRET,)}),
    )

    assert failed.error is not None
    assert failed.error.startswith(rf"\x00{HIDDEN}\ud800xxx")
    assert "[cut: " in failed.error
    assert {"password": "[redacted]", "1": HIDDEN, "odd": [str(NOON)], "tuple": [HIDDEN]} == failed.error_details


def test_a_failure_that_can_neither_be_shown_nor_compared_is_kept(history: JobHistory) -> None:
    class BrokenError(Exception):
        def _refuse(self, *_: object) -> NoReturn:
            raise RuntimeError

        __str__ = __repr__ = __eq__ = _refuse
        __hash__ = Exception.__hash__

    failed = history.fail(history.enqueue(CONNECTION).id, error=BrokenError())  # type: ignore[arg-type]
    assert failed.error is not None
    assert "BrokenError" in failed.error
    assert "cannot be shown" in failed.error


@pytest.mark.parametrize("limit", [256, 1024, 4096, 16 * 1024, 64 * 1024])
def test_a_secret_in_long_details_is_redacted_before_it_can_be_cut(memory: JobHistory, limit: int) -> None:
    # Wherever a text of this limit is cut, one of these is cut within its secret.
    logs = ["x" * (limit - 80 + pad) + f" {SECRET} " + "y" * 70_000 for pad in range(0, 64, 4)]
    everything: list[dict[str, Any]] = [*({"log": log} for log in logs), {"logs": logs}]
    for details in everything:
        failed = memory.fail(in_status(memory, JobStatus.RUNNING).id, error="gone", error_details=details)
        assert failed.error_details_json is not None
        assert "hunter" not in failed.error_details_json


@pytest.mark.parametrize("details", [None, {}, [1, 2], "text", 7, {"endless": DEEP}])
def test_a_failure_is_recorded_whatever_its_details(history: JobHistory, details: Any) -> None:  # noqa: ANN401
    failed = history.fail(in_status(history, JobStatus.RUNNING).id, error="gone", error_details=details)

    assert JobStatus.FAILED is failed.status
    assert (details is None) == (failed.error_details is None)


def test_an_error_that_is_no_text_is_recorded_as_its_text(history: JobHistory) -> None:
    failed = history.fail(in_status(history, JobStatus.RUNNING).id, error=cast("str", ValueError(SECRET)))

    assert HIDDEN == failed.error


@pytest.mark.parametrize("error", ["gone", f"cannot reach {SECRET}", "x" * 20_000, "\0"])
def test_the_same_failure_again_is_left_alone_and_another_is_refused(history: JobHistory, error: str) -> None:
    id = in_status(history, JobStatus.RUNNING).id
    failed = history.fail(id, error=error)

    assert failed == history.fail(id, error=error, error_details={"more": 1})
    with pytest.raises(InvalidTransitionError):
        history.fail(id, error="something else")
    assert failed == history.get(id)


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.CANCELLING])
def test_why_a_job_was_cancelled_is_redacted_and_kept(history: JobHistory, status: JobStatus) -> None:
    cancelled = history.finish_cancel(in_status(history, status).id, reason=f"moving from {SECRET}")

    assert f"moving from {HIDDEN}" == cancelled.error
    assert cancelled.completed_at is not None


def test_a_pending_job_that_is_cancelled_keeps_the_reason(history: JobHistory) -> None:
    cancelled = history.cancel(history.enqueue(CONNECTION).id, reason=f"moving from {SECRET}")

    assert (JobStatus.CANCELLED, f"moving from {HIDDEN}") == (cancelled.status, cancelled.error)


def test_a_running_job_is_asked_to_stop_once(history: JobHistory) -> None:
    id = in_status(history, JobStatus.RUNNING).id
    asked = history.cancel(id, reason="enough")

    assert (JobStatus.CANCELLING, at(2)) == (asked.status, asked.cancel_requested_at)
    assert asked == history.cancel(id)


# ---- Lost races


class Around:
    """The repository, where something happens before or after a write: once."""

    def __init__(self, repository: JobRepository) -> None:
        self._repository = repository
        self.before: Callable[[], object] = nothing
        self.after: Callable[[], object] = nothing

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        method = getattr(self._repository, name)
        if name not in ("add", "add_many", "replace"):
            return method

        def write(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            self._take("before")()
            method(*args, **kwargs)
            self._take("after")()

        return write

    def _take(self, when: str) -> Callable[[], object]:
        taken: Callable[[], object] = getattr(self, when)
        setattr(self, when, nothing)
        return taken


def nothing() -> None:
    pass


@pytest.fixture
def around(repository: JobRepository) -> Around:
    return Around(repository)


@pytest.fixture
def raced(around: Around) -> Iterator[JobHistory]:
    with JobHistory(cast("JobRepository", around), clock=Clock(), new_id=numbered_ids()) as history:
        yield history


RACES: list[tuple[JobStatus, Step, Step, JobStatus | None]] = [
    (JobStatus.PENDING, start, cancel, None),
    (JobStatus.PENDING, start, lambda history, given: history.start(given, worker="there:2:b"), None),
    (JobStatus.PENDING, cancel, start, JobStatus.CANCELLING),
    (JobStatus.PENDING, cancel, cancel, JobStatus.CANCELLED),
    (JobStatus.PENDING, cancel, fail, None),
    (JobStatus.PENDING, finish_cancel, start, None),
    (JobStatus.RUNNING, cancel, beat, JobStatus.CANCELLING),
    (JobStatus.RUNNING, cancel, complete, None),
    (JobStatus.RUNNING, report, beat, JobStatus.RUNNING),
    (JobStatus.RUNNING, report, cancel, JobStatus.CANCELLING),
    (JobStatus.RUNNING, beat, report, JobStatus.RUNNING),
    (JobStatus.RUNNING, beat, fail, None),
    (JobStatus.RUNNING, complete, beat, JobStatus.COMPLETED),
    (JobStatus.RUNNING, complete, cancel, JobStatus.COMPLETED),
    (JobStatus.RUNNING, complete, complete, JobStatus.COMPLETED),
    (JobStatus.RUNNING, complete, fail, None),
    (JobStatus.RUNNING, fail, fail, JobStatus.FAILED),
    (JobStatus.RUNNING, fail, report, JobStatus.FAILED),
    (JobStatus.CANCELLING, finish_cancel, report, JobStatus.CANCELLED),
    (JobStatus.CANCELLING, finish_cancel, complete, None),
]


@pytest.mark.parametrize(("status", "step", "other", "expected"), RACES)
def test_a_lost_race_is_decided_anew(  # noqa: PLR0917  as parametrised
    raced: JobHistory, around: Around, status: JobStatus, step: Step, other: Step, expected: JobStatus | None
) -> None:
    before = in_status(raced, status)
    faster = JobHistory(around._repository, clock=Clock())
    around.before = lambda: other(faster, before.id)
    if expected is None:
        with pytest.raises(InvalidTransitionError):
            step(raced, before.id)
        assert before.version + 1 == raced.get(before.id).version
    else:
        after = step(raced, before.id)
        assert expected is after.status
        assert after == raced.get(before.id)


def test_a_race_lost_against_deletion_is_an_error_that_names_the_job(raced: JobHistory, around: Around) -> None:
    before = in_status(raced, JobStatus.RUNNING)

    def forget() -> None:
        JobHistory(around._repository).fail(before.id, error="gone")
        around._repository.forget(CONNECTION)

    around.before = forget
    with pytest.raises(JobNotFoundError):
        report(raced, before.id)


def test_users_of_the_port_see_the_conflict(raced: JobHistory, around: Around) -> None:
    before = in_status(raced, JobStatus.RUNNING)
    around.before = lambda: JobHistory(around._repository).beat(before.id)
    with pytest.raises(ConflictError):
        raced.replace(before.report(at=at(9), inserted=1))


# ---- Unknown outcomes


def unknown() -> None:
    raise UnknownOutcomeError("here", "the connection broke")


WRITES: dict[str, Callable[[JobHistory], object]] = {
    "enqueue": lambda history: history.enqueue(CONNECTION),
    "enqueue exclusively": lambda history: history.enqueue(CONNECTION, exclusive=True),
    "add_many": lambda history: history.add_many(jobs(1, 2)),
    **{
        step.__name__: lambda history, step=step, status=status: step(history, in_status(history, status).id)  # type: ignore[misc]
        for step, status in (
            (start, JobStatus.PENDING),
            (report, JobStatus.RUNNING),
            (beat, JobStatus.RUNNING),
            (complete, JobStatus.RUNNING),
            (fail, JobStatus.RUNNING),
            (cancel, JobStatus.RUNNING),
            (finish_cancel, JobStatus.CANCELLING),
        )
    },
}


class Breaking:
    """The repository, whose n-th write (from 0) has an unknown outcome: `times` in a row, landed or not."""

    def __init__(self, repository: JobRepository, number: int, *, times: int, landed: bool) -> None:
        self._repository = repository
        self._breaking = range(number, number + times)
        self._landed = landed
        self.written = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        method = getattr(self._repository, name)
        if name not in ("add", "add_many", "replace"):
            return method

        def write(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            breaks = self.written in self._breaking
            if self._landed or not breaks:
                method(*args, **kwargs)
            self.written += 1
            if breaks:
                unknown()

        return write


def last_write(name: str) -> int:
    """Which write of the use case, counted from 0, is the one that it is about."""
    counting = Breaking(InMemoryJobRepository(), 0, times=0, landed=True)
    counting._repository.register(CONNECTION)
    WRITES[name](JobHistory(cast("JobRepository", counting)))
    return counting.written - 1


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("name", WRITES)
def test_a_write_of_unknown_outcome_is_replayed_and_told_once(
    repository: JobRepository,
    name: str,
    landed: bool,  # noqa: FBT001
) -> None:
    repository.register(CONNECTION)
    breaking = Breaking(repository, last_write(name), times=1, landed=landed)
    told: list[SyncJob] = []
    with JobHistory(cast("JobRepository", breaking), hooks=[told.append]) as history:
        WRITES[name](history)
        written = [change.job for change in history.changes()]

    assert last_write(name) + 2 == breaking.written
    assert {each.id for each in written} == {each.id for each in told}
    assert len(told) == len(set(map(repr, told)))


@pytest.mark.parametrize("name", WRITES)
def test_a_write_whose_outcome_stays_unknown_says_so(repository: JobRepository, name: str) -> None:
    repository.register(CONNECTION)
    breaking = Breaking(repository, last_write(name), times=2, landed=False)
    with JobHistory(cast("JobRepository", breaking)) as history, pytest.raises(UnknownOutcomeError):
        WRITES[name](history)


def test_a_claim_of_unknown_outcome_is_ours_though_a_cancel_came_in_between(raced: JobHistory, around: Around) -> None:
    created = raced.enqueue(CONNECTION)

    def cancelled_then_unknown() -> None:
        JobHistory(around._repository).cancel(created.id)
        unknown()

    around.after = cancelled_then_unknown
    claimed = start(raced, created.id)

    assert (JobStatus.CANCELLING, "here:1:a") == (claimed.status, claimed.worker)
    assert claimed == raced.get(created.id)


# ---- Hooks


def hooked(repository: JobRepository, *hooks: Callable[[SyncJob], object]) -> JobHistory:
    return JobHistory(repository, clock=Clock(), new_id=numbered_ids(), hooks=hooks)


def test_hooks_are_told_of_each_write_after_its_commit_in_order_and_of_no_beat(repository: JobRepository) -> None:
    told: list[tuple[str, SyncJob, SyncJob]] = []
    hooks = [lambda job, name=name: told.append((name, job, repository.get(job.id))) for name in ("first", "second")]
    with hooked(repository, *hooks) as history:
        created = history.enqueue(CONNECTION)
        written = [created, start(history, created.id)]
        beat(history, created.id)
        written += [report(history, created.id), cancel(history, created.id), finish_cancel(history, created.id)]
        written += jobs(1, 2)
        history.add_many(jobs(1, 2))

    assert [(name, each, each) for each in written for name in ("first", "second")] == told


def test_hooks_are_not_told_of_what_changed_nothing_or_was_refused(repository: JobRepository) -> None:
    told: list[SyncJob] = []
    with hooked(repository, told.append) as history:
        done = in_status(history, JobStatus.COMPLETED)
        before = list(told)
        history.complete(done.id)
        history.enqueue(CONNECTION, job_id=done.id)
        for refused in (start, report, fail, cancel):
            with pytest.raises(InvalidTransitionError):
                refused(history, done.id)
        with pytest.raises(DuplicateJobError):
            history.add_many([attrs.evolve(done, worker="another")])
        history.list_jobs(CONNECTION)

    assert before == told


def test_an_error_in_a_hook_is_logged_and_nothing_else(
    repository: JobRepository, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[SyncJob] = []

    def broken(_: SyncJob) -> None:
        raise ZeroDivisionError

    with hooked(repository, broken, told.append) as history, caplog.at_level(logging.ERROR, "jobhistory"):
        created = history.enqueue(CONNECTION)

    assert [created] == told
    [record] = caplog.records
    assert str(created.id) in record.getMessage()
    assert record.exc_info is not None
    assert ZeroDivisionError is record.exc_info[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, jobhistory.JobCancelled(UNKNOWN)])
def test_what_stops_the_program_goes_through_a_hook_and_later_writes_are_told(
    repository: JobRepository, error: BaseException
) -> None:
    told: list[SyncJob] = []
    errors = [error]

    def interrupted(job: SyncJob) -> None:
        told.append(job)
        while errors:
            raise errors.pop()

    with hooked(repository, interrupted) as history:
        with pytest.raises(type(error) if isinstance(error, BaseException) else error):
            history.enqueue(CONNECTION)
        [first] = history.list_jobs(CONNECTION)
        later = [history.enqueue(CONNECTION), history.start(first.id)]

    assert [first, *later] == told


def test_a_hook_may_write_and_all_are_told_in_the_order_of_the_commits(repository: JobRepository) -> None:
    told: list[tuple[str, JobStatus]] = []
    history: JobHistory

    def starting(job: SyncJob) -> None:
        told.append(("first", job.status))
        if job.status is JobStatus.PENDING:
            history.start(job.id)
            history.complete(job.id)

    with hooked(repository, starting, lambda job: told.append(("second", job.status))) as history:
        created = history.enqueue(CONNECTION)
        assert JobStatus.COMPLETED is history.get(created.id).status

    statuses = [JobStatus.PENDING, JobStatus.RUNNING, JobStatus.COMPLETED]
    assert [(name, status) for status in statuses for name in ("first", "second")] == told


def test_hooks_are_told_from_many_threads_in_the_order_of_the_commits(repository: JobRepository) -> None:
    told: list[SyncJob] = []
    with hooked(repository, told.append) as history:
        history.register(CONNECTION)

        def work(_: int) -> None:
            for _ in range(20):
                id = history.enqueue(CONNECTION).id
                history.start(id)
                history.report(id, inserted=1)
                history.complete(id)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        last = {each.id: number for number, each in enumerate(told)}
        changes = [change.job.id for change in history.changes()]

    assert 320 == len(told)
    assert changes == sorted(last, key=last.__getitem__)
    for id in last:
        assert [1, 2, 3, 4] == [each.version for each in told if each.id == id]


def test_a_slow_hook_holds_up_no_other_thread_and_is_told_later_of_what_was_written_meanwhile(
    repository: JobRepository,
) -> None:
    entered, leave = threading.Event(), threading.Event()
    told: list[SyncJob] = []

    def slow(job: SyncJob) -> None:
        told.append(job)
        if job.source_connection_id == OTHER:
            entered.set()
            leave.wait()

    with hooked(repository, slow) as history, ThreadPoolExecutor(2) as threads:
        first = threads.submit(history.enqueue, OTHER)
        entered.wait()
        try:
            created = threads.submit(history.enqueue, CONNECTION).result(60)
            written = [created, *(threads.submit(step, history, created.id).result(60) for step in (start, report))]
            threads.submit(beat, history, created.id).result(60)
            assert 1 == len(told)
        finally:
            leave.set()
        assert [first.result(), *written] == told


def test_a_hook_may_run_a_job_whose_thread_writes(repository: JobRepository) -> None:
    told: list[tuple[UUID, JobStatus, int]] = []
    history: JobHistory

    def syncing(job: SyncJob) -> None:
        told.append((job.source_connection_id, job.status, job.entities_inserted))
        if job.source_connection_id == OTHER:
            with history.track(CONNECTION, flush_interval=0) as run:
                run.report(inserted=1)
                token = None
                while not repository.get(run.job.id).entities_inserted:
                    token = history.wait_for_changes(token)[-1].token

    with hooked(repository, syncing) as history:
        # Where it hangs, it hangs alone.
        thread = threading.Thread(target=history.enqueue, args=(OTHER,), daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()

    story = [(JobStatus.PENDING, 0), (JobStatus.RUNNING, 0), (JobStatus.RUNNING, 1), (JobStatus.COMPLETED, 1)]
    assert [(OTHER, JobStatus.PENDING, 0), *((CONNECTION, *each) for each in story)] == told


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_another_thread_tells_the_hooks_can_write(repository: JobRepository) -> None:
    entered, leave = threading.Event(), threading.Event()
    told: list[UUID] = []

    def slow(job: SyncJob) -> None:
        told.append(job.id)
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            leave.wait()

    with hooked(repository, slow) as history, ThreadPoolExecutor(1) as threads:
        first = threads.submit(history.enqueue, CONNECTION)
        entered.wait()
        pid = os.fork()
        if not pid:
            code = 1
            with suppress(BaseException):
                signal.alarm(30)
                id = uuid5(CONNECTION, "child")
                history.enqueue(CONNECTION, job_id=id)
                code = int(told[1:] != [id])
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        leave.set()
        id = first.result().id
        history.start(id)

    assert 0 == status
    assert [id, id] == told


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_hook_may_fork(repository: JobRepository) -> None:
    children: list[int] = []
    history: JobHistory

    def forking(job: SyncJob) -> None:
        if job.status is not JobStatus.PENDING:
            return
        pid = os.fork()
        if not pid:
            code = 1
            with suppress(BaseException):
                signal.alarm(30)
                history.start(job.id)
                code = 0
            os._exit(code)
        children.append(pid)

    with hooked(repository, forking) as history:
        history.enqueue(CONNECTION)
        assert [0] == [os.waitpid(pid, 0)[1] for pid in children]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_other_threads_read_and_write_can_do_so_too(repository: JobRepository) -> None:
    ended = threading.Event()
    children: list[int] = []
    history: JobHistory

    def work(number: int) -> None:
        while not ended.is_set():
            history.enqueue(CONNECTION, job_id=uuid5(CONNECTION, str(number)))
            history.list_jobs(CONNECTION, limit=1000)

    with JobHistory(repository) as history, ThreadPoolExecutor(3) as threads:
        history.register(CONNECTION)
        history.add_many(jobs(*range(1000)))
        for number in range(3):
            threads.submit(work, number)
        for _ in range(3):
            pid = os.fork()
            if not pid:
                code = 1
                with suppress(BaseException):
                    signal.alarm(30)
                    history.start(history.enqueue(CONNECTION).id)
                    code = 0
                os._exit(code)
            children.append(os.waitpid(pid, 0)[1])
        ended.set()

    assert [0] * 3 == children


# ---- What is injected


def failing(text: str) -> str:
    raise ZeroDivisionError(text)


def test_a_redactor_that_fails_costs_the_text_and_not_the_call(
    repository: JobRepository, caplog: pytest.LogCaptureFixture
) -> None:
    with JobHistory(repository, redact=failing) as history, caplog.at_level(logging.ERROR, "jobhistory"):
        created = history.enqueue(CONNECTION, metadata={"from": SECRET, "number": 7})
        failed = history.fail(created.id, error=SECRET, error_details={"log": SECRET})
        cancelled = history.cancel(history.enqueue(CONNECTION).id, reason=SECRET)
        history.add_many([FULL])
        imported = history.get(FULL.id)

    for each in (failed, cancelled, imported):
        assert "[not stored: the redactor failed]" == each.error
        assert "hunter2" not in repr(each)
    assert failed.metadata is not None
    assert 7 in failed.metadata.values()
    assert caplog.records
    assert "hunter2" not in "".join(record.getMessage() for record in caplog.records)


def test_a_redactor_that_never_settles_is_not_asked_for_ever(repository: JobRepository) -> None:
    asked: list[str] = []

    def restless(text: str) -> str:
        asked.append(text)
        return f"{text}!"

    with JobHistory(repository, redact=restless) as history:
        failed = history.fail(history.enqueue(CONNECTION).id, error="gone")

    assert failed.error is not None
    assert failed.error.startswith("gone!")
    assert len(asked) <= 10


def test_without_a_redactor_all_is_stored_as_it_comes(repository: JobRepository) -> None:
    with JobHistory(repository, redact=None) as history:
        created = history.enqueue(CONNECTION, metadata={"password": SECRET})
        failed = history.fail(created.id, error=SECRET, error_details={"password": SECRET})
        cancelled = history.cancel(history.enqueue(CONNECTION).id, reason=SECRET)
        history.add_many([FULL])

        assert FULL == history.get(FULL.id)
    assert {"password": SECRET} == failed.error_details == failed.metadata
    assert (SECRET, SECRET) == (failed.error, cancelled.error)


def test_a_redactor_of_ones_own_is_used(repository: JobRepository) -> None:
    with JobHistory(repository, redact=Redactor(secrets=["swordfish"])) as history:
        failed = history.fail(history.enqueue(CONNECTION).id, error="the word is swordfish")

    assert "the word is [redacted]" == failed.error


def test_every_time_and_id_is_injected(repository: JobRepository) -> None:
    with JobHistory(repository, clock=Clock(), new_id=numbered_ids()) as history:
        created = history.enqueue(CONNECTION)
        for step in (start, report, beat, cancel, complete):
            step(history, created.id)
        done = history.get(created.id)

    times = done.created_at, done.started_at, done.progress_at, done.heartbeat_at, done.cancel_requested_at
    assert (UUID(int=1), *(at(look) for look in (0, 1, 2, 3, 4))) == (done.id, *times)
    assert (at(5), 4.0) == (done.completed_at, done.duration_seconds)


def test_new_ids_come_from_the_clock_unless_given(repository: JobRepository) -> None:
    with JobHistory(repository, clock=lambda: NOON) as history:
        ids = [history.enqueue(CONNECTION).id for _ in range(3)]

    assert sorted(ids) == ids
    assert [7, 7, 7] == [id.version for id in ids]
    assert {int(NOON.timestamp() * 1000)} == {id.int >> 80 for id in ids}


def test_a_clock_without_zone_is_refused(repository: JobRepository) -> None:
    with (
        JobHistory(repository, clock=lambda: NOON.replace(tzinfo=None), new_id=numbered_ids()) as history,
        pytest.raises(InvalidJobError, match="must have a time zone"),
    ):
        history.enqueue(CONNECTION)


CLOCKS = {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep", "now", "utcnow", "today"}
STATED = {
    # the default clock, monotonic and sleep, which users replace
    ("history.py", "time.monotonic"),
    ("history.py", "time.sleep"),
    ("times.py", "datetime.now"),
    # how tasks wait where a history's sleep is the default one
    ("aio.py", "time.sleep"),
    ("aio.py", "anyio.sleep"),
    # whether a reaper's wait can be cut short, as it can where a history's sleep is the default one
    ("reaping.py", "time.sleep"),
    # how the reader of the feed rests where it failed
    ("http/events.py", "asyncio.sleep"),
    # waiting for locks and commits of other processes, which no record shows
    ("storage/sqlite_connections.py", "time.monotonic"),
    ("storage/sqlite_connections.py", "time.sleep"),
    ("storage/sqlite.py", "time.monotonic"),
    ("storage/sqlite.py", "time.sleep"),
    ("storage/postgres_connection.py", "time.monotonic"),
    ("storage/postgres_connections.py", "time.monotonic"),
    ("storage/postgres_connections.py", "time.sleep"),
    ("storage/postgres.py", "time.monotonic"),
}


def test_nothing_else_reads_a_clock_or_sleeps() -> None:
    package = Path(jobhistory.__file__).parent
    found = set()
    for source in package.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
                found.add((str(source.relative_to(package)), ast.unparse(node)))
            if isinstance(node, ast.ImportFrom) and node.module == "time":
                found.add((str(source.relative_to(package)), "from time import"))
    found = {
        (module, name)
        for module, name in found
        if name.split(".")[0] in ("time", "datetime", "date", "anyio", "asyncio", "trio", "from time import")
    }

    assert STATED == found


# ---- Running, in short, and closing


def test_a_tracked_job_is_recorded(repository: JobRepository) -> None:
    with JobHistory(repository) as history:
        with history.track(CONNECTION, metadata={"why": "cron"}) as run:
            run.report(inserted=3)
        [done] = history.list_jobs(CONNECTION)

    assert (JobStatus.COMPLETED, 3, {"why": "cron"}) == (done.status, done.entities_inserted, done.metadata)


def test_a_queued_job_is_run(repository: JobRepository) -> None:
    with JobHistory(repository) as history:
        created = history.enqueue(CONNECTION)
        with history.run(str(created.id)) as run:
            run.report(deleted=2)

        assert (JobStatus.COMPLETED, 2) == (run.job.status, run.job.entities_deleted)
        assert run.job == history.get(created.id)


def test_leaving_the_history_closes_its_repository(repository: JobRepository) -> None:
    with JobHistory(repository) as history:
        history.register(CONNECTION)

    with pytest.raises(StorageError, match="is closed: open it anew"):
        history.connections()


# ---- Pickling


def test_a_history_in_a_file_is_opened_where_its_pickle_is_loaded(tmp_path: Path) -> None:
    with jobhistory.open(tmp_path / "history.db") as history:
        created = history.enqueue(CONNECTION)
        with pickle.loads(pickle.dumps(history)) as loaded:  # noqa: S301  our own bytes
            assert created == loaded.get(created.id)
            assert created.id < loaded.enqueue(CONNECTION).id
        assert 2 == len(history.list_jobs(CONNECTION))


def test_a_pickled_history_tells_its_own_hooks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with jobhistory.open(tmp_path / "history.db", hooks=[print]) as history:
        packed = pickle.dumps(history)
    with pickle.loads(packed) as loaded:  # noqa: S301  our own bytes
        created = loaded.enqueue(CONNECTION)

    assert f"{created}\n" == capsys.readouterr().out


def test_a_history_in_memory_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="cannot be pickled: it is this process's alone"):
        pickle.dumps(jobhistory.open("memory:"))
