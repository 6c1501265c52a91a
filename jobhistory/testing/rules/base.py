"""What every rule starts from: a repository with two connections, jobs by number, errors as answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any
from uuid import UUID, uuid5

import attrs
import pytest

from jobhistory.job import SyncJob
from jobhistory.repository import JobRepository
from jobhistory.status import JobStatus

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
OTHER = UUID("0e8400e2-9b41-4d4a-8716-446655440000")
UNKNOWN = UUID("990e8400-e29b-41d4-a716-446655440000")

_TIMES = {
    JobStatus.PENDING: (),
    JobStatus.RUNNING: ("started_at",),
    JobStatus.CANCELLING: ("started_at",),
    JobStatus.COMPLETED: ("started_at", "completed_at"),
    JobStatus.FAILED: ("started_at", "completed_at"),
    JobStatus.CANCELLED: (),
}


class Rules:
    """A part of the contract: tests whose failures say the rule they hold, which is their docstring."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, test in list(vars(cls).items()):
            if name.startswith("test_"):
                setattr(cls, name, _saying_its_rule(test))

    def make_repository(self) -> JobRepository:
        """A new, empty repository: the one thing that a backend's test supplies. The tests close it."""
        raise NotImplementedError

    @contextmanager
    def opened(self) -> Iterator[JobRepository]:
        """A repository of its own for one example of a property, knowing CONNECTION and OTHER."""
        with closing(self.make_repository()) as repository:
            repository.register(CONNECTION)
            repository.register(OTHER)
            yield repository

    @pytest.fixture
    def repository(self) -> Iterator[JobRepository]:
        """A repository that knows CONNECTION and OTHER, both nameless and without jobs."""
        with self.opened() as repository:
            yield repository


def _saying_its_rule(test: Callable[..., None]) -> Callable[..., None]:
    @wraps(test)
    def telling(*args: object, **kwargs: object) -> None:
        __tracebackhide__ = True
        try:
            test(*args, **kwargs)
        except BaseException as error:
            error.add_note(f"The rule: {test.__doc__}")
            raise

    return telling


def at(seconds: float) -> datetime:
    """That many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def job(number: int, status: JobStatus = JobStatus.PENDING, **values: Any) -> SyncJob:  # noqa: ANN401  any field
    """Job `number`: CONNECTION's, created that many seconds after noon, under an id of no particular order."""
    created_at = values.get("created_at", at(number))
    known = {"id": uuid5(CONNECTION, str(number)), "source_connection_id": CONNECTION, "created_at": created_at}
    times = dict.fromkeys(_TIMES[status], created_at)
    return SyncJob(**{"status": status, **known, **times, **values})


def jobs(*numbers: int, **values: Any) -> list[SyncJob]:  # noqa: ANN401  any field
    """The jobs of these numbers, in this order."""
    return [job(number, **values) for number in numbers]


def following(stored: SyncJob, status: JobStatus | None = None, **values: Any) -> SyncJob:  # noqa: ANN401  any field
    """The next version of a job, in `status` (None: the same) with what such a job must have, and `values`."""
    if status is None:
        return attrs.evolve(stored, **{"version": stored.version + 1, **values})
    born = {"id": stored.id, "source_connection_id": stored.source_connection_id, "created_at": stored.created_at}
    return job(0, status, **{**born, "metadata": stored.metadata, "version": stored.version + 1, **values})


def add(repository: JobRepository, *new: SyncJob) -> list[SyncJob]:
    """Add the jobs one by one, and give them back."""
    for each in new:
        repository.add(each)
    return list(new)


def announced(repository: JobRepository, after: str | None = None) -> list[SyncJob]:
    """The jobs in the feed since the token."""
    return [change.job for change in repository.changes(after)]


def latest_token(repository: JobRepository) -> str | None:
    """The token of the last change, or None where nothing has changed yet."""
    changes = repository.changes()
    return changes[-1].token if changes else None


def snapshot(repository: JobRepository) -> object:
    """All that can be seen of CONNECTION, OTHER and the feed: equal before and after what changes nothing."""
    seen = repository.connections(), repository.newest_jobs(per_connection=1000), repository.changes()
    return repr((seen, repository.active_jobs(limit=1000)))
