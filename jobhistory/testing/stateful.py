"""A state machine that drives a repository and an oracle through the same calls, and holds them equal.

    run_machine(MyRepository, max_examples=1000, stateful_step_count=50)

The oracle is the dumbest thing that can be right: a list of jobs, a list of what was announced, and `sorted`.
It shares no code with any repository.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import DrawFn

from jobhistory.errors import (
    ActiveJobExistsError,
    ConflictError,
    DuplicateJobError,
    InvalidTransitionError,
    JobHistoryError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
)
from jobhistory.job import MAX_COUNT, SyncJob
from jobhistory.repository import JobRepository, Position, SourceConnection
from jobhistory.status import TRANSITIONS, JobStatus
from jobhistory.testing import strategies

_FINISHED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Oracle:
    """What a repository must answer, from a list of jobs in the order they came."""

    def __init__(self) -> None:
        self.names: dict[UUID, str | None] = {}
        self.jobs: list[SyncJob] = []
        self.announced: list[UUID] = []
        """The id of every job written, in order, quiet writes left out."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        for other in self.names:
            if name is not None and self.names[other] == name and other != source_connection_id:
                raise NameTakenError(name, other)
        self.names[source_connection_id] = name or self.names.get(source_connection_id)
        return SourceConnection(source_connection_id, self.names[source_connection_id])

    def connections(self) -> list[SourceConnection]:
        return [SourceConnection(id, self.names[id]) for id in sorted(self.names)]

    def forget(self, source_connection_id: UUID) -> None:
        for job in self._of(source_connection_id):
            if job.status not in _FINISHED:
                raise ActiveJobExistsError(source_connection_id, job.id)
        self.jobs = [job for job in self.jobs if job.source_connection_id != source_connection_id]
        del self.names[source_connection_id]

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        mine = self._of(job.source_connection_id)
        for stored in self.jobs:
            if stored.id == job.id:
                if stored != job:
                    raise DuplicateJobError(job.id)
                return
        for stored in mine:
            if exclusive and stored.status not in _FINISHED:
                raise ActiveJobExistsError(stored.source_connection_id, stored.id)
        self.jobs.append(job)
        self.announced.append(job.id)

    def add_many(self, jobs: list[SyncJob]) -> None:
        for job in jobs:
            self._of(job.source_connection_id)
        before = list(self.jobs), list(self.announced)
        try:
            for job in jobs:
                self.add(job)
        except JobHistoryError:
            self.jobs, self.announced = before
            raise

    def get(self, job_id: UUID) -> SyncJob:
        for job in self.jobs:
            if job.id == job_id:
                return job
        raise JobNotFoundError(job_id)

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        stored = self.get(job.id)
        if stored == job:
            return
        if stored.status in _FINISHED or job.version - stored.version != 1 or _born(stored) != _born(job):
            raise ConflictError(stored, job)
        if job.status not in {stored.status, *TRANSITIONS[stored.status]}:
            raise InvalidTransitionError(job.id, stored.status, job.status)
        self.jobs = [job if each.id == job.id else each for each in self.jobs]
        if not quiet:
            self.announced.append(job.id)

    def list_jobs(self, source_connection_id: UUID, **page: Any) -> list[SyncJob]:  # noqa: ANN401  as _page has them
        return _page(self._of(source_connection_id), **page)

    def active_jobs(self, *, silent_since: datetime | None, **page: Any) -> list[SyncJob]:  # noqa: ANN401  as above
        active = [job for job in self.jobs if job.status not in _FINISHED]
        if silent_since is not None:
            for sign in ("created_at", "started_at", "heartbeat_at"):
                active = [job for job in active if getattr(job, sign) is None or getattr(job, sign) < silent_since]
        return _page(active, **page)

    def newest_jobs(self, ids: list[UUID] | None, *, per_connection: int) -> dict[UUID, list[SyncJob]]:
        return {id: _page(self._of(id), limit=per_connection) for id in (sorted(self.names) if ids is None else ids)}

    def delete_many(self, job_ids: list[UUID]) -> int:
        kept = [job for job in self.jobs if job.id not in job_ids or job.status not in _FINISHED]
        deleted, self.jobs = len(self.jobs) - len(kept), kept
        return deleted

    def changes(self, after: int, *, limit: int) -> list[tuple[int, SyncJob]]:
        """The number of each job's last announcement, and the job."""
        last = {id: number for number, id in enumerate(self.announced, start=1)}
        news = sorted((last[job.id], i) for i, job in enumerate(self.jobs) if last[job.id] > after)
        return [(number, self.jobs[i]) for number, i in news[:limit]]

    def _of(self, connection: UUID) -> list[SyncJob]:
        if connection not in self.names:
            raise SourceConnectionNotFoundError(connection)
        return [job for job in self.jobs if job.source_connection_id == connection]


def _page(
    jobs: list[SyncJob],
    *,
    limit: int,
    before: Position | None = None,
    statuses: frozenset[JobStatus] | None = None,
) -> list[SyncJob]:
    page = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
    if before is not None:
        page = [job for job in page if (job.created_at, job.id) < (before.created_at, before.id)]
    if statuses is not None:
        page = [job for job in page if job.status in statuses]
    return page[:limit]


def _born(job: SyncJob) -> SyncJob:
    """The job as it was born, which is what never changes."""
    return SyncJob(
        id=job.id,
        source_connection_id=job.source_connection_id,
        created_at=job.created_at,
        metadata=job.metadata,
    )


# Few of each, so that ties, clashes and replays are likely; far apart, so that a wrong order shows.
_NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
_SOON = _NOON + timedelta(microseconds=1)
_LATER = _NOON + timedelta(seconds=1)
_TIMES = st.sampled_from([_NOON, _SOON, _LATER])
_IDS = st.sampled_from([UUID(int=n) for n in (0, 1, 256, 1 << 64, 1 << 96, 1 << 120, 1 << 127, (1 << 128) - 1)])
_KNOWN = [UUID(int=number) for number in (7, 7 << 120, 7 << 60)]
_CONNECTIONS = st.sampled_from(_KNOWN)
_STATUSES = st.sampled_from([*JobStatus, JobStatus.PENDING, JobStatus.RUNNING, JobStatus.CANCELLING])
_NAMES = st.sampled_from([None, "crm", "Crm", "shop"])
_HOSTILE = {"worker": "\x1b[2J'", "metadata": {"z": 1, "a": True}, "progress_at": _LATER, "version": MAX_COUNT - 1}


@st.composite
def _jobs(draw: DrawFn) -> SyncJob:
    """A job of any status, made of few draws, so that stories may be long."""
    id, connection, status = draw(_IDS), draw(_CONNECTIONS), draw(_STATUSES)
    created_at, other = draw(_TIMES), draw(_TIMES)
    values: dict[str, Any] = draw(st.sampled_from([{}, {"heartbeat_at": _LATER}, _HOSTILE]))
    if status is not JobStatus.PENDING:
        values = {**values, "started_at": min(created_at, other), "entities_failed": 2**53 + 1}
    if status in _FINISHED:
        values = {**values, "completed_at": max(created_at, other), "error_details": {"b": "\U0001f680", "a": 0.1}}
    return SyncJob(id=id, source_connection_id=connection, status=status, created_at=created_at, **values)


_JOBS = _jobs()
_IDENTITY = ("source_connection_id", "created_at", "metadata")
_BATCHES = st.lists(_JOBS, min_size=1, max_size=5, unique_by=lambda job: job.id)
_PLACES = st.none() | st.builds(Position, _TIMES, _IDS)
_LIMITS = st.integers(1, 3) | st.just(1000)
_ACTIVE = st.none() | st.frozensets(st.sampled_from([status for status in JobStatus if status not in _FINISHED]))


class JobRepositoryMachine(RuleBasedStateMachine):
    """Calls a repository in any order, and holds each answer to the oracle's; errors are compared by class.

    Subclass it and supply make_repository, or use `run_machine`. Old versions of jobs are held and written
    again, which is what a race between workers comes to.
    """

    held: Bundle[SyncJob] = Bundle("held")
    """Every version of a job that was ever written, refused or read."""

    def __init__(self) -> None:
        super().__init__()
        self.repository = self.make_repository()
        self.oracle = Oracle()
        self.numbers: dict[str | None, int] = {None: 0}
        """The oracle's number of each token that was given."""

    def make_repository(self) -> JobRepository:
        """A new, empty repository; the machine closes it."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.repository.close()

    def both(self, method: str, *args: object, **kwargs: object) -> object:
        """What the repository answers, which must be what the oracle answers."""
        expected = answer(getattr(self.oracle, method), *args, **kwargs)
        actual = answer(getattr(self.repository, method), *args, **kwargs)
        assert expected == actual, f"{method} answers otherwise than the oracle"
        # Equality ignores the order of JSON keys; repr does not, and shows types and the last bit.
        assert repr(expected) == repr(actual), f"{method} answers otherwise than the oracle"
        return actual

    @initialize(target=held, new=_BATCHES, random=st.randoms())
    def begin(self, new: list[SyncJob], random: Random) -> MultipleResults[SyncJob]:
        self.random = random
        for connection in _KNOWN:
            self.both("register", connection)
        self.both("add_many", new)
        return multiple(*new)

    @rule(connection=_CONNECTIONS, name=_NAMES)
    def register(self, connection: UUID, name: str | None) -> None:
        self.both("register", connection, name)
        self.both("connections")

    @rule(connection=_CONNECTIONS, returning=st.booleans())
    def forget(self, connection: UUID, *, returning: bool) -> None:
        self.both("forget", connection)
        if returning:
            self.both("register", connection)
        self.both("connections")

    @rule(target=held, job=_JOBS, exclusive=st.booleans())
    def add(self, job: SyncJob, *, exclusive: bool) -> MultipleResults[SyncJob]:
        return multiple(job) if self.both("add", job, exclusive=exclusive) is None else multiple()

    @rule(job=held, exclusive=st.booleans())
    def add_again(self, job: SyncJob, *, exclusive: bool) -> None:
        self.both("add", job, exclusive=exclusive)

    @rule(target=held, old=st.lists(held, max_size=1), new=_BATCHES, again=st.integers(0, 1))
    def add_many(self, old: list[SyncJob], new: list[SyncJob], again: int) -> MultipleResults[SyncJob]:
        batch = [*new[:1], *old, *new[1:], *new[:again]]
        return multiple(*new) if self.both("add_many", batch) is None else multiple()

    @rule(target=held, job_id=_IDS)
    def get(self, job_id: UUID) -> MultipleResults[SyncJob]:
        found = self.both("get", job_id)
        return multiple(found) if isinstance(found, SyncJob) else multiple()

    @precondition(lambda self: self.oracle.jobs)
    @rule(target=held, which=st.integers(0, 5), new=_JOBS, quiet=st.booleans())
    def replace(self, which: int, new: SyncJob, *, quiet: bool) -> SyncJob:
        """The next version of a job, which may ask for any status."""
        return self.write_version(self.oracle.jobs[which % len(self.oracle.jobs)], new, 1, quiet=quiet)

    @rule(target=held, old=held, new=_JOBS, gap=st.sampled_from([1, 1, 0, 2]), quiet=st.booleans())
    def replace_from_what_was_read(self, old: SyncJob, new: SyncJob, gap: int, *, quiet: bool) -> SyncJob:
        """A version that follows an old one, or does not follow: what a worker writes that lost a race."""
        return self.write_version(old, new, gap, quiet=quiet)

    @precondition(lambda self: self.oracle.jobs)
    @rule(which=st.integers(0, 5), new=_JOBS, changed=st.sampled_from(_IDENTITY), quiet=st.booleans())
    def replace_with_another(self, which: int, new: SyncJob, changed: str, *, quiet: bool) -> None:
        """The next version, but with another connection, created_at or metadata, unless by chance."""
        self.write_version(self.oracle.jobs[which % len(self.oracle.jobs)], new, 1, quiet=quiet, but=changed)

    @rule(job=held, quiet=st.booleans())
    def replace_again(self, job: SyncJob, *, quiet: bool) -> None:
        self.both("replace", job, quiet=quiet)

    def write_version(self, old: SyncJob, new: SyncJob, gap: int, *, quiet: bool, but: str = "") -> SyncJob:
        """Replace with `new` under the identity of `old`, but for one field, `gap` versions later; gives that job."""
        identity: dict[str, Any] = {name: getattr(old, name) for name in _IDENTITY if name != but}
        job = attrs.evolve(new, id=old.id, version=min(old.version + gap, MAX_COUNT), **identity)
        self.both("replace", job, quiet=quiet)
        return job

    @rule(limit=_LIMITS, before=_PLACES, statuses=strategies.status_filters())
    def list_jobs(self, **page: Any) -> None:  # noqa: ANN401  as drawn
        for connection in _KNOWN:
            self.both("list_jobs", connection, **page)

    @rule(statuses=_ACTIVE, before=_PLACES, limit=_LIMITS)
    def active_jobs(self, **page: Any) -> None:  # noqa: ANN401  as drawn
        for silent_since in (None, _NOON, _SOON, _LATER):
            self.both("active_jobs", silent_since=silent_since, **page)

    @rule(connections=st.permutations(_KNOWN), per_connection=_LIMITS)
    def newest_jobs(self, connections: list[UUID], per_connection: int) -> None:
        self.both("newest_jobs", connections, per_connection=per_connection)
        self.both("newest_jobs", connections[:2], per_connection=per_connection)
        self.both("newest_jobs", connections[:1] * 2, per_connection=per_connection)

    @rule(job_ids=st.lists(_IDS, max_size=3))
    def delete_many(self, job_ids: list[UUID]) -> None:
        self.both("delete_many", job_ids)

    @invariant()
    def the_histories_are_the_same(self) -> None:
        """Whatever was done, all jobs of all connections stand as the oracle has them."""
        self.both("newest_jobs", None, per_connection=1000)

    @invariant()
    def the_feed_misses_nothing(self) -> None:
        """Whatever token a reader stopped at, it is told of each job that changed since, and no token comes twice."""
        token, limit = self.random.choice([*self.numbers]), self.random.choice([1, 2, 1000])
        expected = self.oracle.changes(self.numbers[token], limit=limit)
        actual = self.repository.changes(token, limit=limit)
        assert [job for _, job in expected] == [change.job for change in actual]
        for (number, _), change in zip(expected, actual, strict=True):
            assert number == self.numbers.setdefault(change.token, number), f"token {change.token} was given twice"


def run_machine(
    make_repository: Callable[[], JobRepository],
    *,
    max_examples: int | None = None,
    stateful_step_count: int | None = None,
) -> None:
    """Run the machine on the repositories that `make_repository` gives, a new one for each run.

    `max_examples` runs of `stateful_step_count` steps, each by default as the active Hypothesis profile has
    it. Raises AssertionError, with the shortest story found, where a repository answers otherwise.
    """

    class Machine(JobRepositoryMachine):
        def make_repository(self) -> JobRepository:
            return make_repository()

    run_state_machine_as_test(
        Machine,
        settings=patient(max_examples=max_examples, stateful_step_count=stateful_step_count),
    )


def patient(*, max_examples: int | None = None, stateful_step_count: int | None = None) -> settings:
    """The active Hypothesis profile, but that no example is judged by its time or size: storage may be slow."""
    active = settings()
    return settings(
        active,
        max_examples=max_examples or active.max_examples,
        stateful_step_count=stateful_step_count or active.stateful_step_count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


def answer(call: Callable[..., object], *args: object, **kwargs: object) -> object:
    """What the call gives, or the class of the documented error that it raises."""
    try:
        return call(*args, **kwargs)
    except JobHistoryError as error:
        return type(error)
