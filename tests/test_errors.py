from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import UUID

import pytest

from jobhistory import errors
from jobhistory.errors import (
    ActiveJobExistsError,
    ConflictError,
    DuplicateJobError,
    InvalidCursorError,
    InvalidIdError,
    InvalidJobError,
    InvalidLimitError,
    InvalidTransitionError,
    JobCancelled,
    JobHistoryError,
    JobNotFoundError,
    LostJobError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
    UnknownOutcomeError,
)
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus

ID = UUID("770e8400-e29b-41d4-a716-446655440002")
CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
JOB = SyncJob(id=ID, source_connection_id=CONNECTION, created_at=datetime(2024, 3, 15, 12, tzinfo=UTC))
RUNNING = JOB.start(at=JOB.created_at, worker="host:7:ab")

ERRORS: list[tuple[BaseException, type[Exception] | None, str]] = [
    (
        InvalidTransitionError(ID, JobStatus.COMPLETED, "start"),
        ValueError,
        f"job {ID} is COMPLETED: cannot start",
    ),
    (
        InvalidLimitError("10", 1000),
        ValueError,
        "limit must be an int from 1 to 1000, not '10'",
    ),
    (
        InvalidCursorError("abc", "is damaged"),
        ValueError,
        "cursor 'abc' is damaged",
    ),
    (
        InvalidIdError(7),
        ValueError,
        "not an id: 7 (wanted a UUID, or its text as 550e8400-e29b-41d4-a716-446655440000)",
    ),
    (
        InvalidJobError("version", "must be an int", 1.5),
        ValueError,
        "version must be an int, not 1.5",
    ),
    (
        InvalidJobError("created_at", "must be given"),
        ValueError,
        "created_at must be given, not None",
    ),
    (
        JobNotFoundError(ID),
        LookupError,
        f"no job {ID}",
    ),
    (
        JobNotFoundError(ID, "enqueue it first"),
        LookupError,
        f"no job {ID}: enqueue it first",
    ),
    (
        SourceConnectionNotFoundError(CONNECTION),
        LookupError,
        f"no source connection {CONNECTION}: register it first",
    ),
    (
        DuplicateJobError(ID),
        None,
        f"another job {ID} is already stored: use a new id",
    ),
    (
        NameTakenError("github", CONNECTION),
        None,
        f"the name 'github' belongs to source connection {CONNECTION}",
    ),
    (
        ActiveJobExistsError(CONNECTION, ID),
        None,
        f"source connection {CONNECTION} has an active job {ID}: let it finish or cancel it first",
    ),
    (
        ConflictError(RUNNING, JOB),
        None,
        f"job {ID} is RUNNING at version 2; refused: PENDING at version 1 (read it again)",
    ),
    (
        LostJobError(ID, RUNNING),
        None,
        f"job {ID} is no longer this worker's: it is RUNNING with worker host:7:ab: stop working on it",
    ),
    (
        LostJobError(ID, None),
        None,
        f"job {ID} was deleted while this worker ran it: stop working on it",
    ),
    (
        StorageError("history.db", "disk full"),
        OSError,
        "history.db: disk full",
    ),
    (
        UnknownOutcomeError("history.db", "the server went away"),
        OSError,
        "history.db: the server went away (the write may have landed; replaying it is safe)",
    ),
    (
        JobCancelled(ID),
        None,
        f"job {ID} was asked to stop",
    ),
    (
        JobCancelled(ID, "shutdown"),
        None,
        f"job {ID} was asked to stop: shutdown",
    ),
]

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301
    "the oldest pickle": lambda error: pickle.loads(pickle.dumps(error, 0)),  # noqa: S301
}
ABOUT: dict[str, Callable[[object], JobHistoryError]] = {
    "limit": lambda value: InvalidLimitError(value, 1000),
    "cursor": lambda value: InvalidCursorError(value, "is bad"),
    "id": InvalidIdError,
    "job": lambda value: InvalidJobError("error", "is bad", value),
}


def fail() -> NoReturn:
    raise RuntimeError


class Broken:
    def __repr__(self) -> str:
        fail()


class BrokenType(type):
    __name__ = property(lambda _: fail())


class BrokenThroughout(metaclass=BrokenType):
    def __repr__(self) -> str:
        fail()


def holding_itself_twice(levels: int) -> list[Any]:
    held: list[Any] = []
    for _ in range(levels):
        held = [held, held]
    return held


HOSTILE: dict[str, object] = {
    "a long text": "x" * 10_000_000,
    "a long list": ["x" * 100] * 1000,
    "a wide object": {str(i): "x" * 100 for i in range(1000)},
    "an object of 2**60 parts": {"a": holding_itself_twice(60)},
    "an int that Python refuses to show": 10**5000,
    "an object that cannot be shown": Broken(),
    "an object whose type cannot be shown": BrokenThroughout(),
    "a list of such": [Broken(), BrokenThroughout()],
}


@pytest.mark.parametrize(("error", "_", "message"), ERRORS)
def test_the_message_is_built_from_the_attributes(error: BaseException, _: object, message: str) -> None:
    assert message == str(error)


@pytest.mark.parametrize(("error", "builtin", "_"), ERRORS)
def test_an_error_is_also_the_builtin_that_fits(
    error: BaseException, builtin: type[Exception] | None, _: object
) -> None:
    builtins = (ValueError, LookupError, OSError)

    assert [builtin] * (builtin is not None) == [known for known in builtins if isinstance(error, known)]


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize(("error", "_", "message"), ERRORS)
def test_a_copied_or_pickled_error_keeps_its_attributes_and_message(
    error: BaseException, _: object, message: str, duplicate: Callable[[Any], Any]
) -> None:
    copied = duplicate(error)

    assert type(error) is type(copied)
    assert (error.args, vars(error)) == (copied.args, vars(copied))
    assert message == str(copied)


def test_every_error_is_seen_here_and_only_a_cancel_stands_outside_of_the_tree() -> None:
    classes = {known for _, known in inspect.getmembers(errors, inspect.isclass) if issubclass(known, BaseException)}

    assert classes - {JobHistoryError, errors._Error} == {type(error) for error, _, _ in ERRORS}
    assert {JobCancelled, errors._Error} == {known for known in classes if not issubclass(known, JobHistoryError)}


def test_except_exception_does_not_swallow_a_cancel() -> None:
    assert not issubclass(JobCancelled, Exception)


def test_an_unknown_outcome_is_caught_with_the_storage_errors() -> None:
    assert issubclass(UnknownOutcomeError, StorageError)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("error_about", ABOUT.values(), ids=ABOUT.keys())
def test_a_hostile_value_neither_fills_nor_breaks_the_message(
    error_about: Callable[[object], JobHistoryError], value: object
) -> None:
    error = error_about(value)

    assert len(str(error)) < 250
    assert len(repr(error)) < 250
    assert type(error).__name__ in repr(error)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 118, f"'{'x' * 118}'"),
        ("x" * 119, f"'{'x' * 57}...{'x' * 58}'"),
        (["x" * 56, "y" * 56], f"['{'x' * 56}', '{'y' * 56}']"),
        (["x" * 56, "y" * 57], f"['{'x' * 56}', '{'y' * 57}'..."),
        (10**119, f"1{'0' * 119}"),
        (b"x" * 117, f"b'{'x' * 117}'"),
        ({"a": {"b": {"c": 1}}}, "{'a': {'b': {'c': 1}}}"),
        ({"a": {"b": {"c": {}}}}, "{'a': {'b': {'c': {}}}}"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {...}}}}"),
    ],
)
def test_a_value_of_up_to_120_characters_and_three_levels_is_shown_whole(value: object, shown: str) -> None:
    assert f"cursor {shown} is bad" == str(InvalidCursorError(value, "is bad"))
