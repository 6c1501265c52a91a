"""The history in this process's memory: the fake for tests, and the plainest reading of the port."""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from typing import NoReturn, TypeVar
from uuid import UUID

from jobhistory.errors import (
    ActiveJobExistsError,
    DuplicateJobError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
)
from jobhistory.ids import check_id
from jobhistory.job import SyncJob
from jobhistory.repository import (
    Change,
    Position,
    SourceConnection,
    check_active_statuses,
    check_before,
    check_limit,
    check_name,
    check_statuses,
    check_token,
    refusal,
)
from jobhistory.status import JobStatus
from jobhistory.times import utc

_T = TypeVar("_T")
_Key = tuple[datetime, UUID]

_LOCK = threading.RLock()
# A child has no thread that would release a lock which another held: so nobody else holds it at a fork.
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


class InMemoryJobRepository:
    """A JobRepository in memory, for one process: threads may share it, a forked child gets a copy.

    It ends with the process. Every method is atomic.
    """

    def __init__(self) -> None:
        self._written = threading.Condition(_LOCK)
        self._closed = False
        self._names: dict[UUID, str | None] = {}
        self._jobs: dict[UUID, SyncJob] = {}
        # Ascending, so that what is new is appended; a page is read from the end.
        self._histories: dict[UUID, list[_Key]] = {}
        self._active: list[_Key] = []
        self._feed = _Feed()

    def __reduce__(self) -> NoReturn:
        message = "a history in memory cannot be pickled: it is this process's alone (processes can share a file)"
        raise TypeError(message)

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        check_id(source_connection_id)
        name = check_name(name)
        with self._open():
            if name is None:
                name = self._names.get(source_connection_id)
            else:
                for other, taken in self._names.items():
                    if taken == name and other != source_connection_id:
                        raise NameTakenError(name, other)
            self._names[source_connection_id] = name
            self._histories.setdefault(source_connection_id, [])
            return SourceConnection(source_connection_id, name)

    def connections(self) -> list[SourceConnection]:
        with self._open():
            return [SourceConnection(id, name) for id, name in sorted(self._names.items())]

    def forget(self, source_connection_id: UUID) -> None:
        with self._open():
            history = self._history(source_connection_id)
            self._require_none_active(source_connection_id)
            self._delete(id for _, id in list(history))
            del self._names[source_connection_id], self._histories[source_connection_id]

    def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
        with self._open():
            if self._is_new(job):
                if exclusive:
                    self._require_none_active(job.source_connection_id)
                self._insert(job)

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        jobs = list(jobs)
        with self._open():
            for job in jobs:
                self._history(job.source_connection_id)
            new: dict[UUID, SyncJob] = {}
            for job in jobs:
                if self._is_new(job) and new.setdefault(job.id, job) != job:
                    raise DuplicateJobError(job.id)
            for job in new.values():
                self._insert(job)

    def get(self, job_id: UUID) -> SyncJob:
        check_id(job_id)
        with self._open():
            try:
                return self._jobs[job_id]
            except KeyError:
                raise JobNotFoundError(job_id) from None

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        with self._open():
            stored = self.get(job.id)
            if stored == job:
                return
            if error := refusal(stored, job):
                raise error
            self._jobs[job.id] = job
            if job.is_terminal:
                del self._active[bisect_left(self._active, _key(job))]
            if not quiet:
                self._announce(job)

    def list_jobs(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> list[SyncJob]:
        check_limit(limit)
        wanted = check_statuses(statuses)
        with self._open():
            jobs = self._newest(self._history(source_connection_id), before)
            return _take(limit, (job for job in jobs if wanted is None or job.status in wanted))

    def active_jobs(
        self,
        *,
        statuses: Iterable[JobStatus] | None = None,
        silent_since: datetime | None = None,
        before: Position | None = None,
        limit: int = 100,
    ) -> list[SyncJob]:
        check_limit(limit)
        wanted = check_active_statuses(statuses)
        since = None if silent_since is None else utc("silent_since", silent_since)
        with self._open():
            jobs = (job for job in self._newest(self._active, before) if job.status in wanted)
            return _take(limit, (job for job in jobs if since is None or job.last_sign_at < since))

    def newest_jobs(
        self, source_connection_ids: Iterable[UUID] | None = None, *, per_connection: int = 1
    ) -> dict[UUID, list[SyncJob]]:
        check_limit(per_connection)
        with self._open():
            ids = sorted(self._histories) if source_connection_ids is None else source_connection_ids
            return {id: _take(per_connection, self._newest(self._history(id))) for id in ids}

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = {check_id(id) for id in job_ids}
        with self._open():
            return self._delete(id for id in ids if id in self._jobs and self._jobs[id].is_terminal)

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        check_limit(limit)
        with self._open():
            announced = self._feed.since(check_token(after), limit)
            return [Change(str(number), self._jobs[id]) for number, id in announced]

    def close(self) -> None:
        with _LOCK:
            self._closed = True
            self._written.notify_all()

    def latest_change(self) -> str | None:
        with self._open():
            return str(self._feed.last) if self._feed.last else None

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        number = check_token(after)
        longest = min(timeout, threading.TIMEOUT_MAX)
        with self._open():
            return self._written.wait_for(lambda: self._closed or bool(self._feed.since(number, 1)), longest)

    def _open(self) -> AbstractContextManager[bool]:
        """The lock, for as long as something is read or written."""
        if self._closed:
            raise StorageError("memory:", "is closed: open it anew")
        return _LOCK

    def _history(self, source_connection_id: UUID) -> list[_Key]:
        try:
            return self._histories[check_id(source_connection_id)]
        except KeyError:
            raise SourceConnectionNotFoundError(source_connection_id) from None

    def _newest(self, keys: list[_Key], before: Position | None = None) -> Iterator[SyncJob]:
        position = check_before(before)
        end = len(keys) if position is None else bisect_left(keys, (position.created_at, position.id))
        return (self._jobs[keys[i][1]] for i in range(end - 1, -1, -1))

    def _is_new(self, job: SyncJob) -> bool:
        """False where it is stored already, as it is."""
        self._history(job.source_connection_id)
        stored = self._jobs.get(job.id)
        if stored is not None and stored != job:
            raise DuplicateJobError(job.id)
        return stored is None

    def _require_none_active(self, source_connection_id: UUID) -> None:
        for _, id in self._active:
            if self._jobs[id].source_connection_id == source_connection_id:
                raise ActiveJobExistsError(source_connection_id, id)

    def _insert(self, job: SyncJob) -> None:
        self._jobs[job.id] = job
        insort(self._histories[job.source_connection_id], _key(job))
        if job.is_active:
            insort(self._active, _key(job))
        self._announce(job)

    def _announce(self, job: SyncJob) -> None:
        self._feed.announce(job.id)
        self._written.notify_all()

    def _delete(self, ids: Iterable[UUID]) -> int:
        deleted = 0
        for id in ids:
            job = self._jobs.pop(id)
            history = self._histories[job.source_connection_id]
            del history[bisect_left(history, _key(job))]
            self._feed.withdraw(id)
            deleted += 1
        return deleted


class _Feed:
    """The order in which jobs changed: each job stands at the number of its latest change."""

    def __init__(self) -> None:
        self.last = 0
        self._number_of: dict[UUID, int] = {}
        # A job that changes again leaves its old entry behind, to be swept when half of them are old.
        self._numbers = array("q")
        self._ids: list[UUID] = []

    def announce(self, id: UUID) -> None:
        self.last += 1
        self._number_of[id] = self.last
        self._numbers.append(self.last)
        self._ids.append(id)
        self._sweep()

    def withdraw(self, id: UUID) -> None:
        del self._number_of[id]
        self._sweep()

    def since(self, number: int, limit: int) -> list[tuple[int, UUID]]:
        """The next `limit` changes after `number`."""
        start = bisect_right(self._numbers, number)
        return _take(limit, self._entries(start))

    def _entries(self, start: int = 0) -> Iterator[tuple[int, UUID]]:
        for i in range(start, len(self._ids)):
            if self._number_of.get(self._ids[i]) == self._numbers[i]:
                yield self._numbers[i], self._ids[i]

    def _sweep(self) -> None:
        if len(self._ids) > 2 * len(self._number_of) + 100:
            entries = list(self._entries())
            self._numbers = array("q", (number for number, _ in entries))
            self._ids = [id for _, id in entries]


def _key(job: SyncJob) -> _Key:
    return job.created_at, job.id


def _take(limit: int, items: Iterable[_T]) -> list[_T]:
    return list(islice(items, limit))
