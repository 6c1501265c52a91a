"""The rules of changes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from jobhistory.abilities import WaitsForChanges
from jobhistory.errors import (
    ConflictError,
    DuplicateJobError,
    InvalidCursorError,
    InvalidTransitionError,
    SourceConnectionNotFoundError,
    StorageError,
)
from jobhistory.repository import Change, JobRepository
from jobhistory.status import JobStatus
from jobhistory.testing.rules.base import (
    CONNECTION,
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
)
from jobhistory.testing.stateful import answer

_ROUNDS = 5
_PATIENCE = 60


class FeedRules(Rules):
    """Whoever follows the changes misses none: where nothing is concurrent, each job stands at its last one."""

    def test_changes_stand_in_the_order_of_their_commits(self, repository: JobRepository) -> None:
        """Changes gives the jobs in the order in which they were written, a batch in its own order."""
        written = add(repository, *jobs(5, 1, 9))
        batch = jobs(8, 2, 7, 3, source_connection_id=OTHER)
        repository.add_many(batch)
        repository.add(job(4, JobStatus.FAILED), exclusive=False)
        assert [*written, *batch, job(4, JobStatus.FAILED)] == announced(repository)

    def test_a_changed_job_moves_to_the_end(self, repository: JobRepository) -> None:
        """A job stands once, as it is now, where it last changed."""
        first, second, third = add(repository, *jobs(1, 2, 3))
        running = first.start(at=at(5))
        repository.replace(running)
        assert [second, third, running] == announced(repository)
        repository.replace(running.report(at=at(6), inserted=1))
        repository.replace(second.start(at=at(7)))
        assert [third, running.report(at=at(6), inserted=1), second.start(at=at(7))] == announced(repository)

    def test_a_token_leads_to_what_came_after_it(self, repository: JobRepository) -> None:
        """The changes after a token are those committed since it was given, down to none."""
        first, second, third = add(repository, *jobs(1, 2, 3))
        tokens = [change.token for change in repository.changes()]
        assert [str] * 3 == [type(token) for token in tokens]
        assert [[second, third], [third], []] == [announced(repository, token) for token in tokens]
        repository.replace(second.start(at=at(5)))
        assert [[third, second.start(at=at(5))]] * 2 == [announced(repository, token) for token in tokens[:2]]
        assert [second.start(at=at(5))] == announced(repository, tokens[2])
        assert first == repository.changes(limit=1)[0].job

    def test_the_feed_is_read_in_pages(self, repository: JobRepository) -> None:
        """A page holds the next `limit` changes, 1000 where none is given; pages by token join to the whole."""
        many = jobs(*range(1001))
        repository.add_many(many)
        assert many[:1000] == announced(repository)
        for limit in (1, 2, 999, 1000):
            assert many[:limit] == [change.job for change in repository.changes(limit=limit)]
        read: list[Change] = []
        for _ in range(5):
            read += repository.changes(read[-1].token if read else None, limit=301)
        assert many == [change.job for change in read]

    def test_a_quiet_replace_is_stored_and_not_announced(self, repository: JobRepository) -> None:
        """A quiet replace changes the job and its version, not its place in the feed."""
        first, second = add(repository, job(1, JobStatus.RUNNING), job(2))
        token = latest_token(repository)
        beaten = first.beat(at=at(5))
        repository.replace(beaten, quiet=True)
        assert beaten == repository.get(first.id)
        assert [] == repository.changes(token)
        assert [beaten, second] == announced(repository)
        repository.replace(beaten.beat(at=at(6)))
        assert [beaten.beat(at=at(6))] == announced(repository, token)

    def test_what_is_refused_is_not_announced(self, repository: JobRepository) -> None:
        """A write that raises, and a replay, leave the feed as it was."""
        stored, done = add(repository, job(1), job(2, JobStatus.COMPLETED))
        token = latest_token(repository)
        answers = [
            answer(repository.add, following(stored)),
            answer(repository.add, job(3, source_connection_id=UNKNOWN)),
            answer(repository.add_many, [job(3), following(done)]),
            answer(repository.replace, following(stored, version=9)),
            answer(repository.replace, following(stored, JobStatus.COMPLETED)),
            answer(repository.replace, following(done)),
        ]
        repository.add(stored)
        repository.add_many([stored, done])
        repository.replace(done)
        expected = [DuplicateJobError, SourceConnectionNotFoundError, DuplicateJobError, ConflictError]
        assert [*expected, InvalidTransitionError, ConflictError] == answers
        assert [] == repository.changes(token)

    def test_deletions_are_not_announced(self, repository: JobRepository) -> None:
        """delete_many and forget take jobs out of the feed, and put nothing in."""
        done, kept = add(repository, job(1, JobStatus.COMPLETED), job(2, source_connection_id=OTHER))
        add(repository, job(3, JobStatus.FAILED))
        token = latest_token(repository)
        repository.delete_many([done.id])
        repository.forget(CONNECTION)
        assert [] == repository.changes(token)
        assert [kept] == announced(repository)

    def test_a_token_is_never_given_twice(self, repository: JobRepository) -> None:
        """After the latest change was deleted, the next one still gets a new token, and its reader sees it."""
        tokens: list[str] = []
        for number in range(4):
            first, latest = add(repository, job(number, JobStatus.COMPLETED), job(number + 10, JobStatus.FAILED))
            tokens += [change.token for change in repository.changes()]
            if number % 2:
                repository.forget(CONNECTION)
                repository.register(CONNECTION)
            else:
                repository.delete_many([latest.id])
                repository.delete_many([first.id])
            late = add(repository, job(number + 20, JobStatus.FAILED))
            assert [late] * len(tokens) == [announced(repository, token) for token in tokens]
            tokens += [change.token for change in repository.changes()]
            repository.delete_many([late[0].id])
        assert len(tokens) == len(set(tokens))

    def test_a_token_is_one_that_was_given(self, repository: JobRepository) -> None:
        """Anything else as a token raises InvalidCursorError: tokens are opaque."""
        add(repository, *jobs(1, 2))
        token = repository.changes(limit=1)[0].token
        bad: list[Any] = ["", "no such token", "\0", "\u0661", "1.5", "-1", f" {token}", f"{token}\n", "9" * 30]
        bad += [token.encode(), 0, 1, 1.0, True, repository.changes()[0]]
        answers = {repr(after): answer(repository.changes, after) for after in bad}
        assert dict.fromkeys(answers, InvalidCursorError) == answers


class WaitRules(Rules):
    """Whoever waits for changes is woken by them; what cannot wait (see WaitsForChanges) passes."""

    def test_a_change_ends_the_wait(self, repository: JobRepository) -> None:
        """A wait is over, with True, once there is a change after the token, however long its timeout is."""
        if isinstance(repository, WaitsForChanges):
            answers: list[object] = []
            with ThreadPoolExecutor(1) as elsewhere:
                for number in range(_ROUNDS):
                    waiting = elsewhere.submit(repository.wait_for_changes, latest_token(repository), 1e10)
                    add(repository, job(number))
                    answers.append(_end(waiting))
                repository.close()  # what still waits is let go
            assert [True] * _ROUNDS == answers

    def test_a_wait_without_a_change_ends_with_its_time(self, repository: JobRepository) -> None:
        """Where nothing is written, a wait gives False after its timeout."""
        if isinstance(repository, WaitsForChanges):
            assert [False] * 2 == [repository.wait_for_changes(None, timeout) for timeout in (0, 0.05)]
            add(repository, job(1))
            token = latest_token(repository)
            assert [False] * 2 == [repository.wait_for_changes(token, timeout) for timeout in (0, 0.05)]

    def test_a_wait_takes_a_token_that_was_given(self, repository: JobRepository) -> None:
        """Anything else as a token raises InvalidCursorError, as it does from changes."""
        if isinstance(repository, WaitsForChanges):
            add(repository, job(1))
            assert InvalidCursorError is answer(repository.wait_for_changes, "no such token", 0)

    def test_closing_ends_the_wait(self, repository: JobRepository) -> None:
        """Closing lets go of who waits; to wait after it raises StorageError."""
        if isinstance(repository, WaitsForChanges):
            with ThreadPoolExecutor(1) as elsewhere:
                # Beyond our patience, but not for ever: where nobody lets go of it, its end is waited for here.
                waiting = elsewhere.submit(answer, repository.wait_for_changes, None, 2 * _PATIENCE)
                repository.close()
                assert _end(waiting) in (True, False, StorageError)
            assert StorageError is answer(repository.wait_for_changes, None, 0)


def _end(waiting: Future[Any]) -> object:
    """What came of a wait: its answer, its error, or that it goes on all the same."""
    ended, _ = wait([waiting], _PATIENCE)
    return (waiting.exception() or waiting.result()) if ended else "still waiting"
