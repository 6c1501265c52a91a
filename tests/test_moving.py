"""A history moves house: nothing is lost or changed, whatever is written meanwhile, and whenever it is interrupted."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobhistory
from jobhistory import JobHistory, JobRepository, JobStatus, SyncJob, refusal
from jobhistory.cli.transfer import exported
from jobhistory.comparison import Comparison
from jobhistory.ledger import Ledger, entry
from jobhistory.moving import Move
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.successor import steps, successor
from jobhistory.testing import strategies
from jobhistory.testing.rules.base import CONNECTION, OTHER, at, job, jobs
from tests.crew import Crew
from tests.postgres import Database
from tests.workers import Time

# ---- One job


Way = Callable[[SyncJob, datetime], SyncJob]
WAYS: list[Way] = [
    lambda now, then: now.start(at=then, worker="here:1:a"),
    lambda now, then: now.start(at=then, worker="there:2:b"),
    lambda now, then: now.report(at=then, inserted=now.entities_inserted + 1),
    lambda now, then: now.beat(at=then),
    lambda now, then: now.request_cancel(at=then),
    lambda now, then: now.complete(at=then),
    lambda now, then: now.cancel(at=then, reason="asked"),
    lambda now, then: now.fail(at=then, error="broken", error_details={"of": 2}),
    lambda now, then: now.lost(at=then, error="vanished"),
]


def stories(first: SyncJob) -> st.SearchStrategy[list[SyncJob]]:
    """The versions of a job from this one on."""
    moments = st.integers(10, 99).map(at)
    return st.lists(st.tuples(st.sampled_from(WAYS), moments), max_size=12).map(lambda plan: _told(first, plan))


def _told(first: SyncJob, plan: list[tuple[Way, datetime]]) -> list[SyncJob]:
    story = [first]
    for way, moment in plan:
        with suppress(jobhistory.InvalidTransitionError):
            story.append(way(story[-1], moment))
    return story


BORN = job(1, metadata={"of": 1})


@settings(max_examples=60)
@given(stories(BORN), st.data())
def test_a_job_is_brought_on_by_steps_each_of_which_may_follow_the_one_before(
    story: list[SyncJob], data: st.DataObject
) -> None:
    first, last = sorted(data.draw(st.integers(0, len(story) - 1)) for _ in range(2))
    stored, found = story[first], story[last]

    assert (found if last > first else None) == successor(stored, found)
    versions = list(steps(stored, found)) if last > first else []
    assert [] == [(before, after) for before, after in pairwise([stored, *versions]) if refusal(before, after)]
    assert found == [stored, *versions][-1]
    assert None is successor(found, stored), "nothing goes back"


@settings(max_examples=60)
@given(stories(BORN), st.data())
def test_where_both_sides_went_on_every_step_is_allowed_and_there_is_an_end_of_them(
    common: list[SyncJob], data: st.DataObject
) -> None:
    stored, found = (data.draw(stories(common[-1]))[-1] for _ in range(2))
    target = successor(stored, found)
    if target is None:
        return
    versions = [stored, *steps(stored, target)]
    assert [] == [(before, after) for before, after in pairwise(versions) if refusal(before, after)]
    assert target == versions[-1]
    assert None is successor(target, found)
    assert not stored.is_terminal
    assert stored.status is JobStatus.PENDING or stored.worker == target.worker


PENDING = job(1)
MINE = PENDING.start(at=at(5), worker="here:1:a")
THEIRS = PENDING.start(at=at(6), worker="there:2:b")
DONE = MINE.report(at=at(7), inserted=3).complete(at=at(8))


def test_what_another_worker_took_or_anyone_finished_stays() -> None:
    assert None is successor(THEIRS, DONE)
    assert None is successor(THEIRS, MINE.report(at=at(9), inserted=1))
    assert None is successor(MINE.fail(at=at(9), error="reaped"), DONE)
    assert None is successor(PENDING.cancel(at=at(9)), DONE)
    assert None is successor(PENDING, attrs.evolve(DONE, metadata={"another": "job"}))


def test_who_was_asked_to_stop_in_dest_alone_moves_on_and_ends_as_the_worker_says() -> None:
    asked = MINE.request_cancel(at=at(7))
    moved = MINE.report(at=at(8), inserted=3)

    on = successor(asked, moved)
    assert attrs.evolve(moved, status=JobStatus.CANCELLING, cancel_requested_at=at(7), version=asked.version + 1) == on
    assert on is not None
    assert None is successor(on, moved), "once is enough"
    assert moved.complete(at=at(9)) == successor(asked, moved.complete(at=at(9)))
    assert None is successor(asked, MINE), "nothing new"


# ---- Whole histories

Make = Callable[[], JobHistory]


@pytest.fixture
def make(tmp_path: Path, postgres: Database) -> Iterator[Callable[[str], JobHistory]]:
    """Makes empty histories of a backend."""
    made: list[JobHistory] = []

    def make(backend: str) -> JobHistory:
        repository: JobRepository
        match backend:
            case "memory":
                repository = InMemoryJobRepository()
            case "sqlite":
                repository = SQLiteJobRepository(tmp_path / f"{len(made)}.db", durability="relaxed")
            case _:
                repository = postgres.empty()
        made.append(JobHistory(repository))
        return made[-1]

    yield make
    for history in made:
        history.close()


@pytest.fixture
def source() -> JobHistory:
    return JobHistory(InMemoryJobRepository())


@pytest.fixture
def dest() -> JobHistory:
    return JobHistory(InMemoryJobRepository())


def contents(history: JobHistory) -> dict[UUID, list[SyncJob]]:
    return {connection.id: list(history.iter_jobs(connection.id)) for connection in history.connections()}


def ledger() -> Ledger:
    return Ledger(io.BytesIO())


def move(source: JobHistory, dest: JobHistory) -> list[Comparison]:
    moving = Move(source, dest, ledger())
    moving.copy()
    return moving.finish()


def fill(history: JobHistory) -> None:
    """Two connections, one of which has a name; jobs of every status, more than a page."""
    history.repository.register(CONNECTION, "docs")
    history.repository.register(OTHER)
    history.repository.add_many(job(number, status) for number, status in enumerate(JobStatus))
    more = (job(number, JobStatus.COMPLETED, source_connection_id=OTHER) for number in range(100, 1250))
    history.repository.add_many(more)
    history.repository.add(job(99, JobStatus.FAILED, error="token ghp_0123456789abcdefghijABCDEFGHIJ012345", version=7))


@pytest.mark.parametrize(("here", "there"), [("memory", "sqlite"), ("sqlite", "postgres"), ("postgres", "memory")])
def test_all_is_there_as_it_was_in_the_same_order(make: Callable[[str], JobHistory], here: str, there: str) -> None:
    source, dest = make(here), make(there)
    fill(source)
    results = move(source, dest)

    assert contents(source) == contents(dest)
    assert source.connections() == dest.connections() == [result.connection for result in results]
    assert [len(contents(source)[result.connection.id]) for result in results] == [r.jobs for r in results]
    for result in results:
        _, *lines = exported(source, [result.connection])
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        assert (digest, digest) == result.digests
        assert (True, 0, {}, []) == (result.is_equal, result.gone_on, result.own, result.apart)


@settings(max_examples=10)
@given(strategies.histories(), strategies.histories())
def test_any_history_arrives_as_it_is(one: list[SyncJob], other: list[SyncJob]) -> None:
    source, dest = JobHistory(InMemoryJobRepository()), JobHistory(InMemoryJobRepository())
    ids = [each.id for each in one]
    for each in (*one, *(each for each in other if each.id not in ids)):
        source.repository.register(each.source_connection_id)
        source.repository.add(each)
    results = move(source, dest)

    assert contents(source) == contents(dest)
    assert all(result.is_equal for result in results)


def test_a_digest_tells_apart_what_equality_does_not(source: JobHistory, dest: JobHistory) -> None:
    for history, details in ((source, {"a": 1, "b": 2}), (dest, {"b": 2, "a": 1})):
        history.repository.register(CONNECTION)
        history.repository.add(job(1, JobStatus.FAILED, error_details=details))
    [result] = move(source, dest)
    assert not result.is_equal


def test_again_it_writes_nothing(source: JobHistory, dest: JobHistory) -> None:
    fill(source)
    move(source, dest)
    token = dest.latest_change()
    assert all(result.is_equal for result in move(source, dest))
    assert token == dest.latest_change()


# ---- Kept up with


class Following:
    """A move that has copied, and is told when to take over what was written since."""

    def __init__(self, source: JobHistory, dest: JobHistory, kept: Ledger | None = None) -> None:
        self.move = Move(source, dest, kept or ledger())
        self.move.copy()

    def keep_up(self, times: int = 1) -> None:
        turns = iter([*[False] * times, True])
        self.move.keep_up(lambda: next(turns))


def test_what_is_written_is_brought_over_while_it_keeps_up(source: JobHistory, dest: JobHistory) -> None:
    source.register(CONNECTION, "docs")
    waiting, begun = (source.enqueue(CONNECTION) for _ in range(2))
    source.start(begun.id, worker="here")
    following_it = Following(source, dest)
    assert contents(source) == contents(dest)

    source.register(CONNECTION, "papers")
    source.start(waiting.id, worker="here")
    for inserted in range(5):
        source.report(begun.id, inserted=inserted)
    source.complete(begun.id)
    source.complete(source.start(source.enqueue(OTHER).id).id)
    following_it.keep_up()
    assert contents(source) == contents(dest)
    assert [result.is_equal for result in following_it.move.finish()] == [True, True]
    assert source.connections() == dest.connections()


class Polled(InMemoryJobRepository):
    wait_for_changes = None  # type: ignore[assignment]  # so that its user sleeps, by the test's clock


def test_beats_are_brought_over_though_the_feed_is_silent_about_them(time: Time, dest: JobHistory) -> None:
    source = time.history(Polled())
    running, reaped = (source.start(source.enqueue(CONNECTION).id, worker="here") for _ in range(2))
    following_it = Following(source, dest)
    dest.fail(reaped.id, error="reaped")
    source.report(reaped.id, inserted=1)
    time.seconds += 5
    beat = source.beat(running.id)
    following_it.keep_up()
    assert running == dest.get(running.id)
    following_it.keep_up(times=12)
    assert beat == dest.get(running.id)


def test_what_is_claimed_in_dest_is_its_and_is_told_of_where_both_have_it(source: JobHistory, dest: JobHistory) -> None:
    fine, both, cancelled = (source.enqueue(CONNECTION) for _ in range(3))
    following_it = Following(source, dest)
    taken = [dest.start(each.id, worker="there:2:b") for each in (fine, both)]
    dest.cancel(cancelled.id)
    source.complete(source.start(both.id, worker="here:1:a").id)
    source.start(cancelled.id, worker="here:1:a")
    following_it.keep_up()
    [result] = following_it.move.finish()

    assert taken == [dest.get(fine.id), dest.get(both.id)]
    assert JobStatus.CANCELLED is dest.get(cancelled.id).status
    assert {both.id: "COMPLETED RUNNING", cancelled.id: "RUNNING CANCELLED"} == {
        here.id: f"{here.status} {there.status}" for here, there in result.apart
    }
    assert (3, 1, 1, True) == (result.jobs, result.gone_on, result.running, result.is_equal)


def test_a_job_asked_to_stop_in_dest_ends_as_its_worker_in_source_says(source: JobHistory, dest: JobHistory) -> None:
    running = source.start(source.enqueue(CONNECTION).id, worker="here:1:a")
    following_it = Following(source, dest)
    dest.cancel(running.id)
    source.report(running.id, inserted=3)
    following_it.keep_up()
    assert (JobStatus.CANCELLING, 3) == (dest.get(running.id).status, dest.get(running.id).entities_inserted)
    source.complete(running.id)
    [result] = following_it.move.finish()
    assert JobStatus.COMPLETED is dest.get(running.id).status
    assert [] == result.apart


# ---- What is in DEST alone


def test_what_was_deleted_meanwhile_is_removed_and_what_dest_got_itself_stays(
    source: JobHistory, dest: JobHistory
) -> None:
    dest.register(OTHER, "its own")
    dest.repository.add(own := job(500, JobStatus.COMPLETED, source_connection_id=OTHER))
    source.register(CONNECTION, "docs")
    source.repository.add_many([*(job(number, JobStatus.COMPLETED) for number in range(1, 1500))])
    following_it = Following(source, dest)
    dest.repository.add(switched := job(5000, JobStatus.COMPLETED))
    source.repository.delete_many(each.id for each in jobs(*range(1, 1450)))
    [result] = following_it.move.finish()

    left = [job(number, JobStatus.COMPLETED) for number in range(1499, 1449, -1)]
    assert {CONNECTION: [switched, *left], OTHER: [own]} == contents(dest)
    assert {switched.id} == result.own.keys()
    assert (50, True) == (result.jobs, result.is_equal)


def test_a_connection_that_was_forgotten_is_forgotten_and_its_name_is_free(
    source: JobHistory, dest: JobHistory
) -> None:
    source.register(CONNECTION, "docs")
    source.repository.add(job(1, JobStatus.COMPLETED))
    following_it = Following(source, dest)
    source.forget(CONNECTION)
    source.register(OTHER, "docs")
    source.enqueue(OTHER)
    following_it.keep_up()
    assert {OTHER} == following_it.move.nameless.keys()
    assert [True] == [result.is_equal for result in following_it.move.finish()]
    assert source.connections() == dest.connections()
    assert {} == following_it.move.nameless


def test_so_is_one_that_dest_knew_before(source: JobHistory, dest: JobHistory) -> None:
    for history in (source, dest):
        history.register(CONNECTION)
        history.register(OTHER)
    source.repository.add(job(1, JobStatus.COMPLETED))
    following_it = Following(source, dest)
    source.forget(CONNECTION)
    following_it.move.finish()
    assert contents(source) == contents(dest)


def test_so_is_one_that_was_forgotten_while_the_move_was_interrupted(source: JobHistory, dest: JobHistory) -> None:
    source.repository.register(CONNECTION)
    source.repository.add(job(1, JobStatus.COMPLETED))
    source.enqueue(OTHER)
    kept = ledger()
    Following(source, dest, kept)
    source.forget(CONNECTION)
    Following(source, dest, kept).move.finish()
    assert contents(source) == contents(dest)


def test_a_forgotten_connection_that_dest_forgets_too_is_no_error(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id in (CONNECTION, OTHER):
        source.repository.register(id)
    following_it = Following(source, dest)
    source.forget(CONNECTION)
    forget = dest.repository.forget
    monkeypatch.setattr(dest.repository, "forget", lambda each: (forget(each), forget(each)))
    following_it.move.finish()
    assert contents(source) == contents(dest)


def test_a_forgotten_connection_that_is_written_to_in_dest_stays(source: JobHistory, dest: JobHistory) -> None:
    for id in (CONNECTION, OTHER):
        source.repository.register(id)
    following_it = Following(source, dest)
    source.forget(CONNECTION)
    dest.repository.add(job(1))
    assert [OTHER] == [result.connection.id for result in following_it.move.finish()]
    assert {CONNECTION: [job(1)], OTHER: []} == contents(dest)


def test_a_connection_that_somebody_enqueues_to_at_that_moment_is_not_forgotten(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id in (CONNECTION, OTHER):
        source.repository.register(id)
    following_it = Following(source, dest)
    source.forget(CONNECTION)
    forget = dest.repository.forget

    def late(id: UUID) -> None:
        dest.repository.add(job(1))
        forget(id)

    monkeypatch.setattr(dest.repository, "forget", late)
    assert [OTHER] == [result.connection.id for result in following_it.move.finish()]
    assert {CONNECTION: [job(1)], OTHER: []} == contents(dest)


def test_a_job_that_ended_and_was_deleted_before_anyone_looked_is_removed(source: JobHistory, dest: JobHistory) -> None:
    waiting, running = (source.enqueue(CONNECTION) for _ in range(2))
    source.start(running.id)
    following_it = Following(source, dest)
    source.cancel(waiting.id)
    source.complete(running.id)
    source.repository.delete_many([waiting.id, running.id])
    [result] = following_it.move.finish()
    assert ({CONNECTION: []}, True) == (contents(dest), result.is_equal)


def test_but_not_where_a_worker_has_taken_it_there(source: JobHistory, dest: JobHistory) -> None:
    waiting = source.enqueue(CONNECTION)
    following_it = Following(source, dest)
    taken = dest.start(waiting.id, worker="there")
    source.cancel(waiting.id)
    source.repository.delete_many([waiting.id])
    [result] = following_it.move.finish()
    assert ({CONNECTION: [taken]}, {taken.id}) == (contents(dest), set(result.own))


def test_nor_where_it_was_ended_there(source: JobHistory, dest: JobHistory) -> None:
    waiting, cancelled, other = (source.enqueue(CONNECTION) for _ in range(3))
    following_it = Following(source, dest)
    done = dest.complete(dest.start(waiting.id, worker="there").id)
    source.cancel(waiting.id)
    dest.cancel(cancelled.id)
    dest.repository.delete_many([cancelled.id])
    for each in (waiting, cancelled, other):
        source.cancel(each.id)
        source.repository.delete_many([each.id])
    [result] = following_it.move.finish()
    assert ({CONNECTION: [done]}, {done.id}) == (contents(dest), set(result.own))


def test_nor_where_a_worker_takes_and_ends_it_there_at_that_moment(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = source.enqueue(CONNECTION)
    following_it = Following(source, dest)
    source.cancel(waiting.id)
    source.repository.delete_many([waiting.id])
    get = source.repository.get

    def slowly(id: UUID) -> SyncJob:
        dest.complete(dest.start(id, worker="there").id)
        return get(id)

    monkeypatch.setattr(source.repository, "get", slowly)
    following_it.move.finish()
    assert JobStatus.COMPLETED is dest.get(waiting.id).status


def test_what_was_imported_anew_in_source_is_not_taken_for_deleted(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.repository.register(CONNECTION)
    source.repository.add_many(done := [job(1, JobStatus.COMPLETED), job(2, JobStatus.COMPLETED)])
    following_it = Following(source, dest)
    list_jobs = source.repository.list_jobs

    def meanwhile(*args: Any, **options: Any) -> list[SyncJob]:  # noqa: ANN401  as it is
        source.repository.delete_many([done[0].id])
        page = list_jobs(*args, **options)
        source.repository.add_many(done)
        return page

    monkeypatch.setattr(source.repository, "list_jobs", meanwhile)
    monkeypatch.setattr(dest.repository, "delete_many", None)
    following_it.move.finish()
    assert {CONNECTION: done[::-1]} == contents(dest)


def test_so_it_is_where_the_move_was_interrupted_before(source: JobHistory, dest: JobHistory) -> None:
    waiting, running, taken, ended = (source.enqueue(CONNECTION) for _ in range(4))
    last = source.enqueue(OTHER)
    source.start(running.id, worker="here")
    kept = ledger()
    Following(source, dest, kept)
    theirs = [dest.start(taken.id, worker="there"), dest.complete(dest.start(ended.id, worker="there").id)]
    for each in (waiting, taken, ended):
        source.cancel(each.id)
    source.complete(running.id)
    source.repository.delete_many(each.id for each in (waiting, running, taken, ended))
    results = {result.connection.id: result for result in Following(source, dest, kept).move.finish()}
    assert {CONNECTION: theirs[::-1], OTHER: [last]} == contents(dest)
    assert {each.id for each in theirs} == set(results[CONNECTION].own)


def test_a_job_of_a_connection_that_was_forgotten_since_is_left_out(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    following_it = Following(source, dest)
    gone = JobHistory(InMemoryJobRepository())
    gone.enqueue(CONNECTION)
    monkeypatch.setattr(source.repository, "wait_for_changes", lambda *_: True)
    monkeypatch.setattr(source.repository, "changes", gone.repository.changes)
    following_it.keep_up()
    assert {} == contents(dest)


def test_what_dest_deletes_before_the_end_comes_back(source: JobHistory, dest: JobHistory) -> None:
    running = source.start(source.enqueue(CONNECTION).id)
    following_it = Following(source, dest)
    dest.fail(running.id, error="reaped")
    dest.repository.delete_many([running.id])
    done = source.complete(running.id)
    following_it.keep_up()
    assert done == dest.get(running.id)


# ---- Names and ids that are taken


def test_names_that_were_exchanged_arrive(source: JobHistory, dest: JobHistory) -> None:
    third = UUID(int=3)
    for id, name in ((CONNECTION, "a"), (OTHER, "b"), (third, "c")):
        source.register(id, name)
    following_it = Following(source, dest)
    for id, name in ((CONNECTION, "x"), (OTHER, "a"), (third, "b"), (CONNECTION, "c")):
        source.register(id, name)
    following_it.move.finish()
    assert source.connections() == dest.connections()


def test_a_name_that_is_dests_own_is_not_taken_away(source: JobHistory, dest: JobHistory) -> None:
    dest.register(OTHER, "docs")
    source.register(CONNECTION, "docs")
    following_it = Following(source, dest)
    following_it.move.finish()
    assert [None, "docs"] == [known.name for known in dest.connections()][::-1]
    assert {CONNECTION: OTHER} == {id: taken.source_connection_id for id, taken in following_it.move.nameless.items()}


def test_an_id_that_is_another_jobs_in_dest_is_told_of_and_the_rest_arrives(
    source: JobHistory, dest: JobHistory
) -> None:
    source.repository.register(CONNECTION)
    dest.repository.register(CONNECTION)
    dest.repository.add(other := job(1, JobStatus.COMPLETED, created_at=at(77)))
    source.repository.add_many(jobs(1, 2, 3))
    [result] = move(source, dest)
    assert [(job(1), other)] == result.apart
    assert {CONNECTION: [other, *jobs(3, 2)]} == contents(dest)
    assert (3, {other.id}, True) == (result.jobs, set(result.own), result.is_equal)


# ---- Interrupted


class Interruption(BaseException):
    pass


class Doomed:
    """A repository whose user is killed at a certain write: before it, or when it was done."""

    def __init__(self, repository: JobRepository, left: int, *, done: bool) -> None:
        self._repository = repository
        self._left = left
        self._done = done

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the port has
        method = getattr(self._repository, name)
        if name not in ("register", "add", "add_many", "replace", "delete_many", "forget"):
            return method

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  as above
            self._left -= 1
            if not self._left and not self._done:
                raise Interruption
            result = method(*args, **options)
            if not self._left:
                raise Interruption
            return result

        return call


def attempt(source: JobHistory, dest: JobHistory, path: Path) -> list[Comparison]:
    """A move, in the midst of which jobs end and are deleted."""
    with path.open("a+b") as file:
        moving = Move(source, dest, Ledger(file))
        moving.copy()
        with suppress(jobhistory.InvalidTransitionError, jobhistory.JobNotFoundError):
            for each in jobs(1, 2):
                source.complete(source.start(each.id).id)
            source.repository.delete_many(each.id for each in jobs(1, 4, 5))
        return moving.finish()


@pytest.mark.parametrize("fate", ["before it", "when it was done"])
def test_interrupted_at_any_write_it_is_begun_again_and_ends_the_same(tmp_path: Path, fate: str) -> None:
    for after in count(1):
        source, dest = JobHistory(InMemoryJobRepository()), JobHistory(InMemoryJobRepository())
        source.register(CONNECTION, "docs")
        source.repository.add_many([*jobs(1, 2, 3), *(job(n, JobStatus.COMPLETED) for n in range(4, 8))])
        dest.repository.register(OTHER)
        dest.repository.add(own := job(99, JobStatus.COMPLETED, source_connection_id=OTHER))
        doomed = JobHistory(Doomed(dest.repository, after, done=fate == "when it was done"))
        try:
            attempt(source, doomed, tmp_path / str(after))
        except Interruption:
            interrupted = True
        else:
            interrupted = False
        [result] = attempt(source, dest, tmp_path / str(after))
        assert {CONNECTION: contents(source)[CONNECTION], OTHER: [own]} == contents(dest)
        assert (4, True) == (result.jobs, result.is_equal)
        if not interrupted:
            break
    assert after > 6


def test_without_its_ledger_nothing_is_removed_that_may_be_dests_own(source: JobHistory, dest: JobHistory) -> None:
    fill(source)
    Following(source, dest)
    gone = job(99, JobStatus.FAILED)
    source.repository.delete_many([gone.id])
    results = {result.connection.id: result for result in move(source, dest)}
    assert {gone.id} == results[CONNECTION].own.keys()
    assert gone.id == dest.get(gone.id).id


def test_what_both_had_before_is_known_to_come_from_source(source: JobHistory, dest: JobHistory) -> None:
    for history in (source, dest):
        fill(history)
    following_it = Following(source, dest)
    source.repository.delete_many([job(99).id])
    following_it.move.finish()
    assert contents(source) == contents(dest)


def test_what_is_written_while_both_are_compared_is_brought_over(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.repository.register(CONNECTION)
    following_it = Following(source, dest)
    list_jobs, late = source.repository.list_jobs, iter([job(1)])

    def listing(*args: Any, **options: Any) -> list[SyncJob]:  # noqa: ANN401  as it is
        page = list_jobs(*args, **options)
        source.repository.add_many(late)
        return page

    monkeypatch.setattr(source.repository, "list_jobs", listing)
    assert [1] == [result.jobs for result in following_it.move.finish()]
    assert {CONNECTION: [job(1)]} == contents(dest)


@pytest.mark.parametrize("has_begun", [False, True])
def test_another_history_in_the_place_of_source_is_refused_and_nothing_removed(
    source: JobHistory, dest: JobHistory, *, has_begun: bool
) -> None:
    fill(source)
    kept = ledger()
    Following(source, dest, kept)
    before = contents(dest)
    other = JobHistory(InMemoryJobRepository())
    if has_begun:
        other.enqueue(CONNECTION)
    for _ in range(2):
        with pytest.raises(jobhistory.StorageError, match="jobs that are not in SOURCE, which is another history now"):
            Move(other, dest, kept).copy()
        assert before == contents(dest)


def test_a_move_that_was_interrupted_before_the_first_job_is_begun_again(source: JobHistory, dest: JobHistory) -> None:
    source.register(CONNECTION)
    kept = ledger()
    Following(source, dest, kept)
    assert [True] == [result.is_equal for result in Following(source, dest, kept).move.finish()]


def test_a_source_whose_connections_are_all_forgotten_removes_nothing(source: JobHistory, dest: JobHistory) -> None:
    source.register(CONNECTION)
    source.repository.add(done := job(1, JobStatus.COMPLETED))
    following_it = Following(source, dest)
    source.forget(CONNECTION)
    assert [] == following_it.move.finish()
    assert {CONNECTION: [done]} == contents(dest)


def test_a_ledger_that_was_cut_short_is_read_up_to_there() -> None:
    brought: list[UUID | SyncJob] = [CONNECTION, job(1), MINE, DONE, OTHER]
    file = io.BytesIO()
    Ledger(file).note(brought[:3])
    file.write(b"torn")
    again = Ledger(file)
    again.note(brought[3:4])
    assert set(map(entry, brought[:4])) == again.among(map(entry, brought))
    assert [job(1).id, MINE.id, DONE.id] == list(again.jobs())
    assert set() == again.among([])


def test_an_entry_tells_apart_what_two_sides_write_as_the_same_version() -> None:
    ways = [MINE, THEIRS, PENDING.start(at=at(7), worker="here:1:a"), PENDING.cancel(at=at(5)), PENDING]
    ways += [MINE.beat(at=at(7)), MINE.beat(at=at(8)), MINE.complete(at=at(7)), MINE.complete(at=at(8))]
    assert len(ways) == len({entry(each) for each in ways})


def test_a_file_that_is_no_ledger_is_left_as_it_is() -> None:
    for held in (b"SQLite format 3\0 and so on", b"note"):
        file = io.BytesIO(held)
        with pytest.raises(jobhistory.StorageError, match="is no ledger of a copy: give another file"):
            Ledger(file)
        assert held == file.getvalue()


def test_a_ledger_that_finds_no_room_says_so() -> None:
    class Full(io.BytesIO):
        name = "there.ids"

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(jobhistory.StorageError, match=r"there\.ids: cannot be written: No space left .*: make room"):
        Ledger(Full())


@pytest.mark.parametrize("torn", [b"", b"jobhi", b"jobhistory copy, ledger\n", b"jobhistory copy, ledger\nof a"])
def test_a_ledger_whose_first_write_was_torn_is_a_ledger(torn: bytes) -> None:
    file = io.BytesIO(torn)
    Ledger(file).note([job(7)])
    assert [job(7).id] == list(Ledger(file).jobs())


def test_a_source_that_never_rests_is_told_of(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = source.start(source.enqueue(CONNECTION).id)
    following_it = Following(source, dest)
    list_jobs = source.repository.list_jobs

    def restless(*args: Any, **options: Any) -> list[SyncJob]:  # noqa: ANN401  as it is
        source.beat(running.id)
        return list_jobs(*args, **options)

    monkeypatch.setattr(source.repository, "list_jobs", restless)
    [result] = following_it.move.finish()
    assert (False, 1) == (result.is_equal, result.running)


def test_so_is_one_that_writes_after_each_look(
    source: JobHistory, dest: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.repository.register(OTHER)
    running = source.start(source.enqueue(CONNECTION).id)
    following_it = Following(source, dest)
    list_jobs, inserted = source.repository.list_jobs, count()

    def restless(*args: Any, **options: Any) -> list[SyncJob]:  # noqa: ANN401  as it is
        page = list_jobs(*args, **options)
        source.report(running.id, inserted=next(inserted))
        return page

    monkeypatch.setattr(source.repository, "list_jobs", restless)
    results = {result.connection.id: result for result in following_it.move.finish()}
    assert source.get(running.id) != dest.get(running.id)
    assert (False, True) == (results[CONNECTION].is_equal, results[OTHER].is_equal)


# ---- Writers at work throughout


WRITING = """
import select
import sys
import jobhistory

number, source, dest, connection, each = sys.argv[1:]

def write(history, number):
    job = history.enqueue(connection)
    history.start(job.id)
    for inserted in range(3):
        job = history.report(job.id, inserted=inserted)
    job = history.fail(job.id, error="broken") if number % 3 else history.complete(job.id)
    deleted = not number % 4 and bool(history.repository.delete_many([job.id]))
    print(job.id, job.version, "deleted" if deleted else job.status, flush=True)

with jobhistory.open(source) as history:
    for number in range(int(each)):
        write(history, number)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        write(history, number)
    sys.stdin.readline()
with jobhistory.open(dest) as history:
    for number in range(int(each)):
        write(history, number)
"""


@pytest.mark.parametrize(("size", "each"), [(3, 12), pytest.param(8, 500, marks=pytest.mark.slow)])
def test_writers_who_switch_one_after_the_other_lose_nothing(
    tmp_path: Path, postgres: Database, size: int, each: int
) -> None:
    with closing(JobHistory(postgres.empty())) as dest, jobhistory.open(tmp_path / "history.db") as source:
        source.register(CONNECTION)
        url = f"{postgres.url}?schema={dest.repository._db.schema}"  # type: ignore[attr-defined]
        moving, switched = Move(source, dest, ledger()), threading.Event()
        with Crew.at_work(size, WRITING, tmp_path / "history.db", url, CONNECTION, each) as crew:
            moving.copy()
            told = [line for mouth in crew.mouths for line in iter(mouth.readline, "ready\n")]
            with ThreadPoolExecutor(1) as thread:
                keeping_up = thread.submit(moving.keep_up, switched.is_set)
                for ear in crew.ears:
                    ear.write("switch\n")
                    ear.flush()
                told += crew.last_words()
                switched.set()
                keeping_up.result()
            assert [0] * size == crew.codes()
        [result] = moving.finish()

        written = {}
        for line in told:
            id, version, status = line.split()
            if status != "deleted":
                written[UUID(id)] = int(version), JobStatus(status)
        assert written == {each.id: (each.version, each.status) for each in dest.iter_jobs(CONNECTION)}
        assert (True, [], 0, 0) == (result.is_equal, result.apart, result.gone_on, result.running)
        assert len(written) == result.jobs + len(result.own)
        assert result.own
