"""The rules of add, add_many, get, replace and delete_many."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from uuid import UUID, uuid5

import attrs
import pytest

from jobhistory.errors import (
    ActiveJobExistsError,
    ConflictError,
    DuplicateJobError,
    InvalidTransitionError,
    JobNotFoundError,
    SourceConnectionNotFoundError,
)
from jobhistory.job import SyncJob
from jobhistory.repository import JobRepository
from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, TRANSITIONS, JobStatus
from jobhistory.testing.rules.base import (
    CONNECTION,
    MICROSECOND,
    OTHER,
    UNKNOWN,
    Rules,
    add,
    announced,
    at,
    following,
    job,
    jobs,
    latest_token,
    snapshot,
)
from jobhistory.testing.stateful import answer


class AddRules(Rules):
    """A job is added once, whole, and under an id of its own."""

    def test_an_added_job_is_there(self, repository: JobRepository) -> None:
        """Each added job, in any status and at any version, is given back by get under its own id."""
        added = add(repository, *(job(number, status, version=number + 1) for number, status in enumerate(JobStatus)))
        assert added == [repository.get(each.id) for each in added]
        assert added[::-1] == repository.list_jobs(CONNECTION)

    def test_adding_needs_a_known_connection(self, repository: JobRepository) -> None:
        """A job of an unknown connection raises SourceConnectionNotFoundError, and nothing is stored."""
        before = snapshot(repository)
        new = job(1, source_connection_id=UNKNOWN)
        with pytest.raises(SourceConnectionNotFoundError) as refused:
            repository.add(new)
        assert UNKNOWN == refused.value.source_connection_id
        assert SourceConnectionNotFoundError is answer(repository.add_many, [new])
        assert JobNotFoundError is answer(repository.get, new.id)
        assert before == snapshot(repository)

    def test_adding_a_stored_job_again_changes_nothing(self, repository: JobRepository) -> None:
        """An equal job that is stored already is a success, so that an add can be replayed; it is not announced."""
        stored = add(repository, job(1, metadata={"a": 1, "b": 2}), job(2, JobStatus.FAILED, error="gone"))
        before = snapshot(repository)
        for each in stored:
            repository.add(each)
            repository.add(each, exclusive=True)
        repository.add(attrs.evolve(stored[0], metadata={"b": 2, "a": 1}))
        repository.add_many(stored)
        assert before == snapshot(repository)

    def test_an_id_is_given_once(self, repository: JobRepository) -> None:
        """Another job under a stored id raises DuplicateJobError, which names it, and the stored one stays."""
        [stored] = add(repository, job(1, JobStatus.RUNNING, metadata={"on": 1}))
        before = snapshot(repository)
        others = [
            following(stored),
            following(stored, JobStatus.FAILED),
            attrs.evolve(stored, created_at=at(0)),
            attrs.evolve(stored, heartbeat_at=at(1) + MICROSECOND),
            attrs.evolve(stored, metadata={"on": True}),
            attrs.evolve(stored, metadata=None),
            attrs.evolve(stored, worker=""),
            attrs.evolve(stored, entities_failed=1),
            attrs.evolve(stored, source_connection_id=OTHER),
        ]
        for other in others:
            with pytest.raises(DuplicateJobError) as refused:
                repository.add(other)
            assert stored.id == refused.value.job_id
            assert DuplicateJobError is answer(repository.add, other, exclusive=True)
            assert DuplicateJobError is answer(repository.add_many, [other])
            with pytest.raises(DuplicateJobError) as refused:
                repository.add_many([job(2), attrs.evolve(other, id=job(2).id)])
            assert job(2).id == refused.value.job_id
        assert before == snapshot(repository)

    def test_an_exclusive_add_is_refused_while_a_job_is_active(self, repository: JobRepository) -> None:
        """An exclusive add beside an active job raises ActiveJobExistsError, which names it; nothing is stored."""
        for number, status in enumerate(sorted(ACTIVE_STATUSES)):
            [active] = add(repository, job(number, status))
            before = snapshot(repository)
            for new in (job(100), job(-100), job(100, JobStatus.COMPLETED)):
                with pytest.raises(ActiveJobExistsError) as refused:
                    repository.add(new, exclusive=True)
                assert (CONNECTION, active.id) == (refused.value.source_connection_id, refused.value.job_id)
            assert before == snapshot(repository)
            repository.replace(active.fail(at=at(200), error="ended"))

    def test_an_exclusive_add_passes_by_finished_jobs_and_other_connections(self, repository: JobRepository) -> None:
        """Only an active job of the same connection stands in the way of an exclusive add."""
        add(repository, *(job(number, status) for number, status in enumerate(sorted(TERMINAL_STATUSES))))
        add(repository, job(10, JobStatus.RUNNING, source_connection_id=OTHER))
        repository.add(job(20), exclusive=True)
        assert job(20) == repository.get(job(20).id)

    def test_many_jobs_are_added_at_once(self, repository: JobRepository) -> None:
        """add_many stores any number of jobs from any iterable, of several connections and none at all."""
        many = [job(number, source_connection_id=(CONNECTION, OTHER)[number % 2]) for number in range(2500)]
        repository.add_many(iter(many))
        repository.add_many([])
        assert many[::-1][:2000:2] == repository.list_jobs(OTHER, limit=1000)
        assert many[::-1][1:2001:2] == repository.list_jobs(CONNECTION, limit=1000)
        assert many[0] == repository.get(many[0].id)

    def test_a_batch_is_stored_whole_or_not_at_all(self, repository: JobRepository) -> None:
        """Where one job of a batch is refused, or the iterable itself raises, nothing of it is stored."""
        [stored] = add(repository, job(0))
        before = snapshot(repository)
        good = jobs(*range(1, 1501))
        refusals = {
            "an unknown connection": job(-1, source_connection_id=UNKNOWN),
            "another job under a stored id": following(stored),
            "another job under an id of the batch": following(good[3]),
        }
        expected = [SourceConnectionNotFoundError, DuplicateJobError, DuplicateJobError]
        assert expected == [answer(repository.add_many, [*good, bad]) for bad in refusals.values()]
        assert expected == [answer(repository.add_many, [good[3], bad, *good]) for bad in refusals.values()]

        def breaking() -> Iterator[SyncJob]:
            yield from good
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            repository.add_many(breaking())
        assert before == snapshot(repository)

    def test_an_unknown_connection_is_told_first(self, repository: JobRepository) -> None:
        """Where a connection is unknown and an id taken, the connection is told, wherever it stands in a batch."""
        [stored] = add(repository, job(1))
        moved = attrs.evolve(stored, source_connection_id=UNKNOWN)
        assert SourceConnectionNotFoundError is answer(repository.add, moved)
        assert SourceConnectionNotFoundError is answer(repository.add, moved, exclusive=True)
        assert SourceConnectionNotFoundError is answer(repository.add_many, [following(stored), moved])

    def test_a_batch_may_repeat_equal_jobs(self, repository: JobRepository) -> None:
        """An equal job, stored already or twice in a batch, is stored once and announced once."""
        first, second, third = jobs(1, 2, 3)
        repository.add(first)
        repository.add_many([second, third, first, second])
        assert [third, second, first] == repository.list_jobs(CONNECTION)
        assert [first, second, third] == announced(repository)

    def test_getting_needs_a_stored_job(self, repository: JobRepository) -> None:
        """The id of no job raises JobNotFoundError, which names it; so does a connection's id."""
        add(repository, job(1))
        for id in (job(2).id, CONNECTION):
            with pytest.raises(JobNotFoundError) as refused:
                repository.get(id)
            assert id == refused.value.job_id


class ReplaceRules(Rules):
    """A job moves from version to version by compare-and-set, along the edges of the state machine."""

    def test_a_replaced_job_is_seen_everywhere(self, repository: JobRepository) -> None:
        """After replace every method shows the job as it is now, and no other job has changed."""
        first, other = add(repository, job(1), job(2))
        running = first.start(at=at(5), worker="here:1:a")
        repository.replace(running)
        assert running == repository.get(first.id)
        assert [other, running] == repository.list_jobs(CONNECTION)
        assert [running] == repository.list_jobs(CONNECTION, statuses={JobStatus.RUNNING})
        assert [other, running] == repository.active_jobs()
        assert [other, running] == repository.newest_jobs(per_connection=2)[CONNECTION]
        assert [other, running] == announced(repository)
        done = running.complete(at=at(9))
        repository.replace(done)
        assert [other, done] == repository.list_jobs(CONNECTION)
        assert [] == repository.list_jobs(CONNECTION, statuses={JobStatus.RUNNING})
        assert [other] == repository.active_jobs()

    def test_replacing_needs_a_stored_job(self, repository: JobRepository) -> None:
        """Replacing a job that is not stored raises JobNotFoundError, which names it, and stores nothing."""
        before = snapshot(repository)
        for new in (job(1), following(job(1)), job(1, source_connection_id=UNKNOWN)):
            with pytest.raises(JobNotFoundError) as refused:
                repository.replace(new)
            assert new.id == refused.value.job_id
        assert before == snapshot(repository)

    def test_replacing_with_the_stored_version_again_changes_nothing(self, repository: JobRepository) -> None:
        """The stored version again is a success, even of a finished job, so that a replace can be replayed."""
        [stored] = add(repository, job(1))
        for step in (stored.start(at=at(2)), stored.start(at=at(2)).complete(at=at(3))):
            repository.replace(step)
            before = snapshot(repository)
            repository.replace(step)
            repository.replace(step, quiet=True)
            assert before == snapshot(repository)

    def test_only_the_next_version_replaces(self, repository: JobRepository) -> None:
        """Any version but the next raises ConflictError with both jobs: what was read is stale. Nothing changes."""
        [stored] = add(repository, job(1, JobStatus.RUNNING, version=5))
        before = snapshot(repository)
        for version in (1, 4, 5, 7, 100):
            stale = attrs.evolve(stored, entities_inserted=7, version=version)
            with pytest.raises(ConflictError) as refused:
                repository.replace(stale)
            assert (stored, stale) == (refused.value.stored, refused.value.refused)
        assert before == snapshot(repository)
        repository.replace(following(stored, entities_inserted=7))
        assert following(stored, entities_inserted=7) == repository.get(stored.id)

    def test_a_finished_job_never_changes(self, repository: JobRepository) -> None:
        """A COMPLETED, FAILED or CANCELLED job is immutable: ConflictError, whatever is asked, quietly or not."""
        finished = add(repository, *(job(number, status) for number, status in enumerate(sorted(TERMINAL_STATUSES))))
        before = snapshot(repository)
        tries = [*product(finished, JobStatus, (False, True))]
        answers = {
            (stored.status, status, quiet): answer(repository.replace, following(stored, status), quiet=quiet)
            for stored, status, quiet in tries
        }
        assert dict.fromkeys(answers, ConflictError) == answers
        assert before == snapshot(repository)

    def test_identity_never_changes(self, repository: JobRepository) -> None:
        """The connection, created_at and metadata of a job stay as they were born: else ConflictError."""
        [stored] = add(repository, job(1, metadata={"on": 1}))
        [bare] = add(repository, job(2))
        before = snapshot(repository)
        others = [
            following(stored, source_connection_id=OTHER),
            following(stored, source_connection_id=UNKNOWN),
            following(stored, created_at=at(1) + MICROSECOND),
            following(stored, created_at=at(0)),
            following(stored, metadata={"on": 2}),
            following(stored, metadata={"on": True}),
            following(stored, metadata={"on": 1.0}),
            following(stored, metadata=None),
            following(bare, metadata={}),
        ]
        assert [ConflictError] * len(others) == [answer(repository.replace, other) for other in others]
        assert before == snapshot(repository)

    def test_the_order_of_metadata_keys_is_no_identity(self, repository: JobRepository) -> None:
        """Metadata whose keys stand in another order is the same metadata."""
        [stored] = add(repository, job(1, metadata={"a": 1, "b": 2}))
        again = following(stored, JobStatus.RUNNING, metadata={"b": 2, "a": 1})
        repository.replace(again)
        assert again == repository.get(stored.id)

    def test_only_the_edges_of_the_state_machine_are_written(self, repository: JobRepository) -> None:
        """Only a status that TRANSITIONS allows, or the same one, replaces: else InvalidTransitionError."""
        for number, (old, new) in enumerate(product(sorted(ACTIVE_STATUSES), JobStatus)):
            [stored] = add(repository, job(number, old))
            after = following(stored, new)
            if new is old or new in TRANSITIONS[old]:
                repository.replace(after)
                assert after == repository.get(stored.id)
            else:
                with pytest.raises(InvalidTransitionError) as refused:
                    repository.replace(after)
                assert (stored.id, old) == (refused.value.job_id, refused.value.status)
                assert stored == repository.get(stored.id)

    def test_a_conflict_is_told_before_a_wrong_edge(self, repository: JobRepository) -> None:
        """A stale job that asks for a wrong edge gets ConflictError: it must be read again first."""
        [stored] = add(repository, job(1, version=5))
        assert ConflictError is answer(repository.replace, following(stored, JobStatus.COMPLETED, version=5))


class DeleteRules(Rules):
    """Finished jobs are deleted for good, unannounced; active ones never."""

    def test_finished_jobs_are_deleted_everywhere(self, repository: JobRepository) -> None:
        """delete_many deletes the finished jobs, says how many, and no method shows them any more."""
        finished = add(repository, *(job(number, status) for number, status in enumerate(sorted(TERMINAL_STATUSES))))
        [kept] = add(repository, job(10, JobStatus.COMPLETED, source_connection_id=OTHER))
        assert len(finished) == repository.delete_many(each.id for each in finished)
        assert [JobNotFoundError] * len(finished) == [answer(repository.get, each.id) for each in finished]
        assert {OTHER: [kept], CONNECTION: []} == repository.newest_jobs(per_connection=9)
        assert [kept] == announced(repository)
        assert JobNotFoundError is answer(repository.replace, following(finished[0]))

    def test_active_and_unknown_jobs_are_skipped(self, repository: JobRepository) -> None:
        """Active and unknown ids, and repeated ones, are not counted and not deleted; the others are."""
        active = add(repository, *(job(number, status) for number, status in enumerate(sorted(ACTIVE_STATUSES))))
        [finished] = add(repository, job(10, JobStatus.COMPLETED))
        ids = [active[0].id, finished.id, CONNECTION, active[1].id, finished.id, job(99).id, active[2].id]
        assert 1 == repository.delete_many(ids)
        assert 0 == repository.delete_many(ids)
        assert 0 == repository.delete_many([])
        assert active[::-1] == repository.list_jobs(CONNECTION)

    def test_any_number_of_jobs_is_deleted(self, repository: JobRepository) -> None:
        """delete_many takes as many ids as there are, known and unknown."""
        finished = jobs(*range(1200), status=JobStatus.COMPLETED)
        repository.add_many(finished)
        unknown = [uuid5(OTHER, str(number)) for number in range(40_000)]
        assert len(finished) == repository.delete_many([*unknown, *(each.id for each in finished)])
        assert [] == repository.list_jobs(CONNECTION)

    def test_a_deleted_id_may_be_given_again(self, repository: JobRepository) -> None:
        """Once deleted, a job's id is free: any job may have it, and it is announced as new."""
        [finished] = add(repository, job(1, JobStatus.COMPLETED))
        token = latest_token(repository)
        repository.delete_many([finished.id])
        again = add(repository, job(1, JobStatus.RUNNING, source_connection_id=OTHER))
        assert again == repository.list_jobs(OTHER)
        assert again == announced(repository, token)

    def test_arguments_may_be_lazy_and_use_the_repository(self, repository: JobRepository) -> None:
        """Iterables may be generators that read the repository while it takes them."""
        add(repository, *jobs(1, 2, status=JobStatus.COMPLETED))
        ids: list[UUID] = [job(1).id, job(2).id]
        repository.add_many(following(repository.get(id), id=uuid5(id, "copy")) for id in ids)
        found = repository.newest_jobs(repository.get(id).source_connection_id for id in ids)
        assert [CONNECTION] == list(found)
        statuses = (repository.get(id).status for id in ids)
        assert [*jobs(2, 1, status=JobStatus.COMPLETED)] == [
            each for each in repository.list_jobs(CONNECTION, statuses=statuses) if each.id in ids
        ]
        assert 2 == repository.delete_many(repository.get(id).id for id in ids)
