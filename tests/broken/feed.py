"""Faults of changes."""

# ruff: noqa: ANN401  what a fault does not touch it hands on as it came

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import count
from typing import Any
from uuid import UUID

from jobhistory.job import SyncJob
from jobhistory.repository import Change, Position
from jobhistory.storage.memory import InMemoryJobRepository
from tests.broken.base import Gap, OwnRefusal, caught_by


@caught_by("test_changes_stand_in_the_order_of_their_commits")
class FeedByCreation(InMemoryJobRepository):
    """The feed stands in the order in which the jobs were created."""

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        return sorted(super().changes(after, limit=limit), key=lambda change: change.job.created_at)


@caught_by("test_changes_stand_in_the_order_of_their_commits", "test_a_batch_may_repeat_equal_jobs")
class BatchesAnnouncedNewestFirst(InMemoryJobRepository):
    """A batch is announced in the order of the table."""

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        super().add_many(sorted(jobs, key=Position.of, reverse=True))


@caught_by("test_a_changed_job_moves_to_the_end")
class FeedInInsertionOrder(OwnRefusal):
    """The feed goes by the number a job got when it was inserted."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:  # noqa: ARG002  the fault
        super().replace(job, quiet=True)


@caught_by("test_a_changed_job_moves_to_the_end", "test_a_quiet_replace_is_stored_and_not_announced")
class FeedOfSnapshots(InMemoryJobRepository):
    """The feed keeps each version it announced."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Change] = []

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        known = {change.token for change in self.log}
        self.log += [change for change in super().changes() if change.token not in known]
        super().changes(after, limit=limit)
        return [change for change in self.log if int(change.token) > int(after or 0)][:limit]


@caught_by("test_a_token_leads_to_what_came_after_it", "test_the_feed_is_read_in_pages")
class AfterInclusive(InMemoryJobRepository):
    """The changes after a token begin with the token's own."""

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        super().changes(after, limit=limit)
        return super().changes(str(int(after) - 1) if after and int(after) > 1 else None, limit=limit)


@caught_by("test_a_token_leads_to_what_came_after_it", story=False)
class TokensAreNumbers(InMemoryJobRepository):
    """A token is an int."""

    def changes(self, after: Any = None, *, limit: int = 1000) -> list[Change]:
        changes = super().changes(None if after is None else str(after), limit=limit)
        return [Change(int(change.token), change.job) for change in changes]  # type: ignore[arg-type]  # the fault


@caught_by("test_the_feed_is_read_in_pages")
class FeedLimitIgnored(InMemoryJobRepository):
    """A page of the feed holds 1,000 changes, whatever the limit."""

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        super().changes(after, limit=limit)
        return super().changes(after)


@caught_by("test_a_quiet_replace_is_stored_and_not_announced")
class QuietIsAnnounced(InMemoryJobRepository):
    """A heartbeat is a change like others."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:  # noqa: ARG002  the fault
        super().replace(job)


@caught_by("test_a_quiet_replace_is_stored_and_not_announced")
class QuietIsNotStored(InMemoryJobRepository):
    """A heartbeat is put off until the next write."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        if not quiet:
            super().replace(job)


@caught_by("test_a_quiet_replace_is_stored_and_not_announced")
class QuietLeavesTheFeed(InMemoryJobRepository):
    """A job that was last written quietly is not in the feed at all."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet: set[UUID] = set()

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        super().replace(job, quiet=quiet)
        (self.quiet.add if quiet else self.quiet.discard)(job.id)

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        return [change for change in super().changes(after, limit=limit) if change.job.id not in self.quiet]


@caught_by("test_what_is_refused_is_not_announced")
class AnnouncedBeforeChecked(InMemoryJobRepository):
    """replace announces first, and is refused then."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        if job.id in self._jobs and not quiet:
            self._feed.announce(job.id)
        super().replace(job, quiet=True)


@caught_by("test_a_token_is_never_given_twice", "test_a_deleted_id_may_be_given_again")
class TokensReused(InMemoryJobRepository):
    """The next token is the highest one stored, plus 1."""

    def _delete(self, ids: Iterable[UUID]) -> int:
        deleted = super()._delete(ids)
        self._feed.last = max(self._feed._number_of.values(), default=0)
        return deleted


@caught_by("test_a_token_is_one_that_was_given", story=False)
class BadTokensStartAnew(InMemoryJobRepository):
    """What is no token leads to the start."""

    def changes(self, after: Any = None, *, limit: int = 1000) -> list[Change]:
        return super().changes(after if isinstance(after, str) and after.isdecimal() else None, limit=limit)


@caught_by("test_a_reader_misses_no_change", story=False)
class NumbersBeforeCommits(InMemoryJobRepository):
    """A sequence: a write takes its place in the feed before it commits, and readers may be past it by then."""

    def __init__(self) -> None:
        super().__init__()
        self.sequence = count(1)
        self.gap = Gap()
        self.numbers: dict[UUID, int] = {}

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        number = next(self.sequence)
        if number % 2:
            self.gap()
        with self._open():
            super().add(job, exclusive=exclusive)
            self.numbers[job.id] = number

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        with self._open():
            placed = sorted((number, id) for id, number in self.numbers.items() if number > int(after or 0))
            return [Change(str(number), self._jobs[id]) for number, id in placed[:limit]]


@caught_by()
class FeedSweptTooFar(InMemoryJobRepository):
    """Jobs whose connection was once forgotten and returned are not announced."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten: set[UUID] = set()

    def forget(self, source_connection_id: UUID) -> None:
        super().forget(source_connection_id)
        self.forgotten.add(source_connection_id)

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        changes = super().changes(after, limit=limit)
        return [change for change in changes if change.job.source_connection_id not in self.forgotten]


@caught_by("test_a_change_ends_the_wait", story=False)
class WaitsForNothing(InMemoryJobRepository):
    """A wait looks once."""

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:  # noqa: ARG002  the fault
        return super().wait_for_changes(after, 0)


@caught_by("test_a_change_ends_the_wait", story=False)
class LongWaitsOverflow(InMemoryJobRepository):
    """A timeout goes to the operating system as it came."""

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        threading.Event().wait(timeout)
        return super().wait_for_changes(after, 0)


@caught_by("test_a_wait_without_a_change_ends_with_its_time", story=False)
class WakesForNothing(InMemoryJobRepository):
    """A wait always says that there may be changes."""

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        return super().wait_for_changes(after, timeout) or True


@caught_by("test_a_wait_takes_a_token_that_was_given", story=False)
class WaitsBehindAnyToken(InMemoryJobRepository):
    """A token that was never given is waited behind."""

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        known = {change.token for change in self.changes()}
        return super().wait_for_changes(after if after in known else None, timeout)


@caught_by("test_closing_ends_the_wait", story=False)
class WaitsThoughItIsClosed(InMemoryJobRepository):
    """Who waits is let go by closing, but who comes later is not told of it."""

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        return not self._closed and super().wait_for_changes(after, timeout)
