"""Which jobs go, and their going: equal to a naive oracle on every backend, also while others write."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobhistory import (
    InvalidJobError,
    JobHistory,
    JobHistoryError,
    JobRepository,
    JobStatus,
    Retention,
    SourceConnectionNotFoundError,
    StorageError,
    SyncJob,
)
from jobhistory import pruning as pruning_module
from jobhistory.abilities import ReclaimsSpace
from jobhistory.retention import doomed
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from tests.workers import CONNECTION, START, Time, Troubled

OTHER = UUID(int=2)
DAY = 86400
FINISHED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
_numbers = count(1)


def job(
    status: JobStatus = JobStatus.COMPLETED, age: float = 0, connection: UUID = CONNECTION, salt: int = 0
) -> SyncJob:
    """A job that was created so many seconds before START; `salt` stirs the order of those created together."""
    created = START - timedelta(seconds=age)
    return SyncJob(
        id=UUID(int=salt << 64 | next(_numbers)),
        source_connection_id=connection,
        status=status,
        created_at=created,
        started_at=None if status is JobStatus.PENDING else created,
        completed_at=created if status is JobStatus.COMPLETED else None,
    )


def fill(history: JobHistory, *ages: float, status: JobStatus = JobStatus.COMPLETED) -> list[SyncJob]:
    jobs = [job(status, age) for age in ages]
    history.add_many(jobs)
    return jobs


def kept(history: JobHistory, connection: UUID = CONNECTION) -> list[SyncJob]:
    return list(history.iter_jobs(connection))


def oracle(jobs: Iterable[SyncJob], rule: Retention) -> list[SyncJob]:
    """What stays of one connection's jobs at START, newest first: by what the words say, and nothing else."""
    jobs = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
    stay = [each for each in jobs if each.status not in FINISHED]
    stay += jobs[:1]
    stay += [each for each in jobs if each.status == "COMPLETED"][:1]
    if rule.keep_last is not None:
        stay += jobs[: rule.keep_last]
    ages = {each.id: (START - each.created_at).total_seconds() for each in jobs}
    if rule.older_than is not None:
        stay += [each for each in jobs if ages[each.id] <= rule.older_than]
    if rule.keep_failed_for is not None:
        stay += [each for each in jobs if each.status == "FAILED" and ages[each.id] <= rule.keep_failed_for]
    return [each for each in jobs if each in stay]


# ---- What a rule is


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "older_than or keep_last must be given"),
        ({"keep_failed_for": 5}, "older_than or keep_last must be given"),
        ({"keep_last": 0}, "keep_last must be an int from 1"),
        ({"keep_last": True}, "keep_last must be an int from 1"),
        ({"keep_last": 2.0}, "keep_last must be an int from 1"),
        ({"older_than": -1}, "older_than or keep_failed_for must be seconds"),
        ({"older_than": "90d"}, "'90d'"),
        ({"keep_last": 1, "keep_failed_for": float("nan")}, "must be seconds"),
        ({"older_than": 60, "keep_failed_for": 59}, r"must not be less than older_than \(60 s\)"),
    ],
)
def test_a_rule_that_means_nothing_is_refused_by_name_and_value(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidJobError, match=said):
        Retention(**options)


def test_durations_are_seconds_or_timedeltas() -> None:
    assert Retention(older_than=DAY, keep_failed_for=2 * DAY) == Retention(
        older_than=timedelta(days=1), keep_failed_for=timedelta(days=2)
    )


def test_a_rule_of_another_kind_is_refused(memory: JobHistory) -> None:
    with pytest.raises(InvalidJobError, match="must be a Retention"):
        memory.prune({"older_than": 3})  # type: ignore[arg-type]


# ---- What goes


def test_by_age_and_number_and_failure_what_nothing_keeps_goes(history: JobHistory) -> None:
    history.add_many([job(age=age) for age in (1, 2, 3, 11)])
    old_failed = fill(history, 15, status=JobStatus.FAILED)
    older = fill(history, 12, 25)
    pruned = history.prune(Retention(older_than=10, keep_last=4, keep_failed_for=20))

    assert 2 == pruned.deleted == pruned.jobs
    assert [1, 2, 3, 11, 15] == [(START - each.created_at).total_seconds() for each in kept(history)]
    assert old_failed[0] in kept(history)
    share = pruned.planned[CONNECTION]
    assert (2, older[1].created_at, older[0].created_at) == (share.jobs, share.oldest, share.newest)


def test_a_job_stays_while_it_is_as_old_as_older_than_to_the_microsecond(history: JobHistory) -> None:
    fill(history, 0, 9.999999, 10, 10.000001)
    history.prune(Retention(older_than=10))
    assert [0, 9.999999, 10] == [(START - each.created_at).total_seconds() for each in kept(history)]


def test_however_old_what_runs_the_newest_and_the_last_success_stay(history: JobHistory) -> None:
    running = fill(history, 5 * DAY, status=JobStatus.RUNNING)
    newest = fill(history, 2 * DAY, status=JobStatus.FAILED)
    fill(history, 3 * DAY, status=JobStatus.CANCELLED)
    success = fill(history, 4 * DAY)
    fill(history, 6 * DAY, 7 * DAY)
    assert 3 == history.prune(Retention(older_than=0)).deleted
    assert [*newest, *success, *running] == kept(history)
    assert 0 == history.prune(Retention(older_than=0, keep_last=1)).deleted


def test_a_rule_longer_than_time_lets_nothing_go(history: JobHistory) -> None:
    fill(history, 0, 700 * 365 * DAY)
    assert 0 == history.prune(Retention(older_than=1e300)).deleted


def test_more_than_there_can_be_may_be_kept(memory: JobHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning_module, "MAX_LIMIT", 2)
    jobs = fill(memory, 0, 1, 2)
    assert 0 == memory.prune(Retention(keep_last=10**20)).deleted
    assert jobs == kept(memory)


def test_only_the_connections_asked_for_lose_jobs_each_once(history: JobHistory) -> None:
    history.register(OTHER)
    history.add_many([job(age=age, connection=id) for id in (CONNECTION, OTHER) for age in range(5)])
    pruned = history.prune(Retention(keep_last=2), [str(CONNECTION), CONNECTION])
    assert ([CONNECTION], 3) == (list(pruned.planned), pruned.deleted)
    assert [2, 5] == [len(kept(history, id)) for id in (CONNECTION, OTHER)]


def test_an_unknown_connection_among_them_is_an_error_and_nothing_goes(history: JobHistory) -> None:
    jobs = fill(history, 0, 1, 2)
    with pytest.raises(SourceConnectionNotFoundError):
        history.prune(Retention(keep_last=1), [CONNECTION, UUID(int=9)])
    assert jobs == kept(history)


def test_a_connection_that_is_forgotten_meanwhile_is_left_out(history: JobHistory) -> None:
    history.register(OTHER)
    history.add_many([job(age=age, connection=id) for id in (CONNECTION, OTHER) for age in range(3)])

    def forget(step: str, done: int, _: int) -> None:
        if (step, done) == ("planning", 1):
            history.forget(OTHER)

    assert 2 == history.prune(Retention(keep_last=1), progress=forget).deleted


def test_a_dry_run_says_what_would_go_and_changes_nothing(history: JobHistory) -> None:
    jobs = fill(history, *range(5))
    plan = history.prune(Retention(keep_last=2), dry_run=True)
    assert (3, 0) == (plan.jobs, plan.deleted)
    assert jobs == kept(history)
    assert attrs.evolve(plan, deleted=3, bytes_after=None) == attrs.evolve(
        history.prune(Retention(keep_last=2)), bytes_after=None
    )


# ---- Equal to the oracle

AGES = [0, 1, 9.999999, 10, 10.000001, 11, 30, 100, -5]
SPECS = st.lists(
    st.tuples(st.sampled_from(JobStatus), st.sampled_from(AGES), st.integers(0, 2**32)),
    max_size=14,
)


@st.composite
def rules(draw: st.DrawFn) -> Retention:
    older_than = draw(st.none() | st.sampled_from([0, 5, 10, 30, 1e300]))
    keep_last = draw(st.integers(1, 8) if older_than is None else st.none() | st.integers(1, 8))
    keep_failed_for = draw(st.none() | st.sampled_from([30, 50, 1e300]).filter(lambda age: age >= (older_than or 0)))
    return Retention(older_than=older_than, keep_last=keep_last, keep_failed_for=keep_failed_for)


@given(SPECS, rules())
def test_of_any_jobs_those_go_that_the_oracle_lets_go(specs: list[Any], rule: Retention) -> None:
    jobs = sorted((job(spec[0], spec[1], salt=spec[2]) for spec in specs), key=lambda each: (each.created_at, each.id))[
        ::-1
    ]
    gone = list(doomed(jobs, rule, START))
    assert oracle(jobs, rule) == [each for each in jobs if each not in gone]


EXAMPLES = {InMemoryJobRepository: 80, SQLiteJobRepository: 25}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and steps so small that a few jobs fill several."""
    for name, number in (("MAX_LIMIT", 3), ("_FIRST_JOBS", 2)):
        monkeypatch.setattr(pruning_module, name, number)
    monkeypatch.setattr(pruning_module._Plan, "_READ", 2)
    monkeypatch.setattr("jobhistory.history.MAX_LIMIT", 3)


@pytest.mark.parametrize("archive", [None, "old.ndjson.gz"])
def test_a_plan_that_finds_no_room_says_where_to_make_some_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: str | None
) -> None:
    history = Time().history(InMemoryJobRepository())
    jobs = fill(history, *range(500))
    monkeypatch.setattr(pruning_module, "_IN_MEMORY", 1)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "r+b"))  # noqa: PTH123, SIM115  as it does

    with pytest.raises(StorageError, match=r"temporary files \(.*\): .*: No space left .* name another in TMPDIR"):
        history.prune(Retention(keep_last=1), archive=archive and tmp_path / archive)
    assert [len(jobs), []] == [len(history.list_jobs(CONNECTION, limit=1000)), list(tmp_path.iterdir())]


@pytest.mark.usefixtures("small")
def test_every_backend_keeps_what_the_oracle_keeps(repository: JobRepository) -> None:
    history = Time().history(repository)

    @settings(max_examples=EXAMPLES.get(type(repository), 15))
    @given(st.lists(SPECS, min_size=1, max_size=3), rules())
    def prune(several: list[list[Any]], rule: Retention) -> None:
        histories = {UUID(int=next(_numbers)): specs for specs in several}
        jobs = {id: [job(spec[0], spec[1], id, spec[2]) for spec in specs] for id, specs in histories.items()}
        for id in jobs:
            history.register(id)
        history.add_many([each for some in jobs.values() for each in some])
        steps: list[tuple[str, int, int]] = []
        pruned = history.prune(rule, jobs, progress=lambda *step: steps.append(step))

        left = {id: oracle(some, rule) for id, some in jobs.items()}
        assert left == {id: kept(history, id) for id in jobs}
        gone = {id: len(some) - len(left[id]) for id, some in jobs.items()}
        assert {id: number for id, number in gone.items() if number} == {
            id: share.jobs for id, share in pruned.planned.items()
        }
        assert sum(gone.values()) == pruned.deleted
        assert [pruned.jobs] == [done for step, done, _ in steps if step == "deleting"][-1:] or [0]
        assert 0 == history.prune(rule, jobs).deleted

    prune()


class Churning:
    """A repository in which others write before each page that is read and each step that deletes."""

    def __init__(self, repository: JobRepository, write: Callable[[], None]) -> None:
        self._repository = repository
        self._write = write

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._repository, name)
        if name not in ("list_jobs", "delete_many"):
            return method

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  whatever the port takes and gives
            self._write()
            return method(*args, **options)

        return call


@pytest.mark.usefixtures("small")
def test_whatever_others_write_meanwhile_nothing_goes_that_should_stay_and_the_next_run_takes_the_rest(
    repository: JobRepository,
) -> None:
    others = Time().history(repository)

    @settings(max_examples=EXAMPLES.get(type(repository), 15))
    @given(SPECS, SPECS, rules(), st.integers())
    def prune(specs: list[Any], coming: list[Any], rule: Retention, seed: int) -> None:
        id, dice = UUID(int=next(_numbers)), random.Random(seed)  # noqa: S311  no secret
        others.register(id)
        ever = {each.id: each for each in (job(spec[0], spec[1], id, spec[2]) for spec in specs)}
        others.add_many(ever.values())
        left = list(coming)

        def write() -> None:
            active = [each for each in ever.values() if each.status in (JobStatus.RUNNING, JobStatus.PENDING)]
            if active and dice.random() < 0.5:
                chosen = dice.choice(active)
                end = others.complete if chosen.status is JobStatus.RUNNING else others.cancel
                ever[chosen.id] = end(chosen.id)
            elif left:
                status, age, salt = left.pop()
                new = job(status, age, id, salt)
                others.add_many([new])
                ever[new.id] = new

        Time().history(Churning(repository, write)).prune(rule, [id])
        stay = oracle(ever.values(), rule)
        remaining = kept(others, id)
        assert [each for each in stay if each not in remaining] == [], "gone that should stay"
        others.prune(rule, [id])
        assert stay == kept(others, id), "left that should go"

    prune()


# ---- In small steps, and again where it was cut short


@attrs.define
class Slow:
    """A repository in which to delete takes so many seconds a job, and so many more of waiting; it tells each step."""

    repository: JobRepository
    time: Time
    seconds: Callable[[int], float]
    waiting: Callable[[int], float] = lambda _: 0
    batches: list[int] = attrs.field(factory=list)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.repository, name)  # type: ignore[no-any-return]

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = list(job_ids)
        self.time.seconds += len(ids) * self.seconds(len(self.batches)) + self.waiting(len(self.batches))
        self.batches.append(len(ids))
        return self.repository.delete_many(ids)


def test_each_step_is_as_big_as_takes_a_fiftieth_of_a_second_with_a_rest_behind_it(memory: JobHistory) -> None:
    fill(memory, *range(4001))
    time = Time()
    # Each third has to wait for a second more; from the tenth on all is slower.
    slow = Slow(memory.repository, time, lambda n: 1e-4 if n < 9 else 2.5e-4, lambda n: n % 3 == 2)
    time.history(slow).prune(Retention(keep_last=1))
    assert [50, 100, 200, 200] == slow.batches[:4]
    assert {200} == set(slow.batches[3:16])
    assert [100, 80] == slow.batches[16:18]
    assert {80} == set(slow.batches[17:-1])
    assert [0.0025, 0.005, *[0.01] * (len(slow.batches) - 3)] == pytest.approx(time.slept[:-1])


def test_where_each_step_has_to_wait_they_do_not_shrink_below_the_first(memory: JobHistory) -> None:
    fill(memory, *range(2001))
    time = Time()
    slow = Slow(memory.repository, time, lambda _: 2e-5, lambda _: 0.03)
    time.history(slow).prune(Retention(keep_last=1))
    assert [50] * 40 == slow.batches


def test_the_oldest_of_all_connections_go_first_so_that_what_is_cut_short_leaves_no_holes(
    repository: JobRepository, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_module, "_FIRST_JOBS", 2)
    troubled = Troubled(repository, delete_many=["fine", "down"])
    history = time.history(troubled)
    history.register(OTHER)
    jobs = [job(age=age, connection=(CONNECTION, OTHER)[age % 2]) for age in range(12)]
    history.add_many(jobs)
    with pytest.raises(StorageError):
        history.prune(Retention(keep_last=1))
    assert jobs[:10] == sorted(kept(history) + kept(history, OTHER), key=lambda each: each.created_at)[::-1]
    assert 8 == history.prune(Retention(keep_last=1)).deleted


def test_a_step_of_unknown_outcome_is_said_and_the_next_run_goes_on(repository: JobRepository, time: Time) -> None:
    history = time.history(Troubled(repository, delete_many=["landed"]))
    fill(history, *range(5))
    with pytest.raises(JobHistoryError, match="replaying it is safe"):
        history.prune(Retention(keep_last=1))
    history.prune(Retention(keep_last=1))
    assert 1 == len(kept(history))


def test_progress_is_told_of_connections_jobs_and_bytes(tmp_path: Path, time: Time) -> None:
    with closing(time.history(SQLiteJobRepository(tmp_path / "history.db", durability="relaxed"))) as history:
        history.register(CONNECTION)
        fill(history, *range(300))
        told: list[tuple[str, int, int]] = []
        history.prune(Retention(keep_last=1), progress=lambda *step: told.append(step))
    assert ("planning", 1, 1) == told[0]
    assert [("deleting", done, 299) for done in (50, 150, 299)] == [each for each in told if each[0] == "deleting"]
    reclaimed = [each for each in told if each[0] == "reclaiming"]
    assert reclaimed[-1][1] == reclaimed[-1][2] > 0


# ---- Room


def test_a_file_shrinks_and_what_it_took_before_and_takes_now_is_told(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with closing(JobHistory(SQLiteJobRepository(path, durability="relaxed"), clock=lambda: START)) as history:
        history.register(CONNECTION)
        history.add_many(
            attrs.evolve(job(JobStatus.FAILED, age), error="E" * 8000, completed_at=START) for age in range(300)
        )
    full = path.stat().st_size
    with closing(JobHistory(SQLiteJobRepository(path, durability="relaxed"), clock=lambda: START)) as history:
        pruned = history.prune(Retention(keep_last=10))
        assert (290, 10) == (pruned.deleted, len(kept(history)))
    assert (full, path.stat().st_size) == (pruned.bytes_before, pruned.bytes_after)
    assert path.stat().st_size < full / 10


def test_room_is_given_back_while_jobs_go_before_much_of_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_module, "_MOST_FREE", 2**16)
    repository = SQLiteJobRepository(tmp_path / "history.db", durability="relaxed")
    with closing(JobHistory(repository, clock=lambda: START, sleep=lambda _: None)) as history:
        history.register(CONNECTION)
        history.add_many(
            attrs.evolve(job(JobStatus.FAILED, age), error="E" * 2000, completed_at=START) for age in range(1000)
        )
        free = []
        history.prune(Retention(keep_last=1), progress=lambda *_: free.append(repository.space()[1]))
    assert max(free) <= 2**16, "the longer the list of what is free, the longer each page's way out of it"


def test_room_is_given_back_in_steps_no_bigger_than_asked(tmp_path: Path) -> None:
    with closing(SQLiteJobRepository(tmp_path / "history.db", durability="relaxed")) as repository:
        history = JobHistory(repository)
        history.register(CONNECTION)
        jobs = fill(history, *range(200))
        repository.delete_many([each.id for each in jobs])
        size, free = repository.space()
        page = repository.reclaim_space(1)
        assert 512 <= page <= 65536
        assert (size - page, free - page) == repository.space()
        assert 3 * page == repository.reclaim_space(4 * page - 1)
        assert free - 4 * page == repository.reclaim_space(2**40)
        assert 0 == repository.reclaim_space(2**40)
        assert (size - free, 0) == repository.space()


def test_only_a_backend_that_can_gives_room_back(repository: JobRepository, time: Time) -> None:
    history = time.history(repository)
    fill(history, 0, 1)
    pruned = history.prune(Retention(keep_last=1))
    can = isinstance(repository, SQLiteJobRepository)
    assert can == isinstance(repository, ReclaimsSpace)
    assert can == (pruned.bytes_before is not None) == (pruned.bytes_after is not None)
