"""Pruning: the going of what a Retention lets go, while others write.

`prune` plans first, then puts what goes into an archive where one is asked for, and then deletes it, the oldest first,
in short transactions with a rest behind each. Where it is interrupted, what is gone was the oldest, and the next run
plans anew.
"""

from __future__ import annotations

import heapq
import os
import struct
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING
from uuid import UUID

from jobhistory.abilities import ReclaimsSpace
from jobhistory.archive import archiving, check_archive
from jobhistory.errors import InvalidJobError, SourceConnectionNotFoundError, StorageError
from jobhistory.ids import parse_id
from jobhistory.job import SyncJob
from jobhistory.private_files import check_new
from jobhistory.repository import MAX_LIMIT, Position, SourceConnection
from jobhistory.retention import Progress, Pruned, Retention, Share, doomed
from jobhistory.status import JobStatus

if TYPE_CHECKING:
    from jobhistory.history import JobHistory


def prune(
    history: JobHistory,
    rule: Retention,
    source_connection_ids: Iterable[UUID | str] | None = None,
    *,
    dry_run: bool = False,
    archive: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """As JobHistory.prune, which says what it does."""
    if not isinstance(rule, Retention):
        raise InvalidJobError("rule", "must be a Retention(older_than=..., keep_last=..., ...)", rule)
    path = None if archive is None else Path(archive)
    if path is not None:
        check_archive(path)
    tell = progress or (lambda *_: None)
    connections = _asked(history, source_connection_ids)
    space = _Space(history)
    before = space.taken
    with _spool() as spool:
        plan = _Plan(spool)
        with archiving(None if dry_run else path) as archived:
            now = history.clock()
            for number, connection in enumerate(connections, 1):
                with suppress(SourceConnectionNotFoundError):  # forgotten meanwhile
                    jobs = doomed(_judged(history, connection.id, rule, now), rule, now)
                    plan.add(connection.id, archived(connection, jobs))
                tell("planning", number, len(connections))
        if dry_run:
            if path and plan.jobs:
                check_new(path)
            return Pruned(planned=plan.shares, bytes_before=before, bytes_after=before)
        # By now all that goes is in the archive, and the archive on disk.
        deleted = _delete(history, plan, space, tell)
    space.give_back(tell)
    return Pruned(planned=plan.shares, deleted=deleted, bytes_before=before, bytes_after=space.taken)


def _asked(history: JobHistory, source_connection_ids: Iterable[UUID | str] | None) -> list[SourceConnection]:
    known = {connection.id: connection for connection in history.connections()}
    asked = known if source_connection_ids is None else dict.fromkeys(map(parse_id, source_connection_ids))
    for id in asked:
        if id not in known:
            raise SourceConnectionNotFoundError(id)
    return [known[id] for id in asked]


def _judged(history: JobHistory, id: UUID, rule: Retention, now: datetime) -> Iterator[SyncJob]:
    """The connection's jobs, newest first, without those that are too young to go and by which no other is judged."""
    completed = False
    place: Position | None = None
    for job in _newest(history, id, rule.keep_last or 1):
        completed = completed or job.status is JobStatus.COMPLETED
        place = Position.of(job)
        yield job
    if place and (since := rule.stays_from(now)) is not None and (old := Position(since, _LEAST_ID)) < place:
        for job in () if completed else history.list_jobs(id, limit=1, statuses={JobStatus.COMPLETED}):
            if Position.of(job) >= old:  # otherwise it comes below
                yield job
        place = old
    yield from history.iter_jobs(id, before=place)


def _newest(history: JobHistory, id: UUID, count: int) -> Iterator[SyncJob]:
    page = history.list_jobs(id, limit=min(count, MAX_LIMIT))
    yield from page
    if count > len(page) == MAX_LIMIT:
        yield from islice(history.iter_jobs(id, before=page[-1]), min(count - MAX_LIMIT, sys.maxsize))


def _delete(history: JobHistory, plan: _Plan, space: _Space, tell: Progress) -> int:
    deleted = done = 0
    pace = _Pace(history, first=_FIRST_JOBS, most=MAX_LIMIT)
    ids = plan.oldest_first()
    while batch := list(islice(ids, pace.size)):
        with pace:
            deleted += history.repository.delete_many(batch)
        if space.free > _MOST_FREE:
            space.give_back()
        done += len(batch)
        tell("deleting", done, plan.jobs)
    return deleted


class _Space:
    """The storage's room on the disk, where it can give it back.

    That is done now and then already while jobs are deleted: SQLite finds each page's place in a list of all that are
    free, and a million of them would take an hour.
    """

    def __init__(self, history: JobHistory) -> None:
        self._repository = history.repository if isinstance(history.repository, ReclaimsSpace) else None
        self._pace = _Pace(history, first=_FIRST_BYTES, most=_MOST_BYTES)

    @property
    def taken(self) -> int | None:
        """Bytes of all there is; None where nobody knows."""
        return self._repository.space()[0] if self._repository else None

    @property
    def free(self) -> int:
        """Bytes of them that hold nothing, and can be given back."""
        return self._repository.space()[1] if self._repository else 0

    def give_back(self, tell: Progress = lambda *_: None) -> None:
        """Give back what is free by now."""
        free, reclaimed, freed = self.free, 0, 1
        while self._repository and freed and reclaimed < free:
            with self._pace:
                freed = self._repository.reclaim_space(self._pace.size)
            reclaimed += freed
            tell("reclaiming", reclaimed, free)


_IN_MEMORY = 2**24
_LEAST_ID = UUID(int=0)
_FIRST_JOBS, _FIRST_BYTES, _MOST_BYTES = 50, 2**17, 2**24
_MOST_FREE = 2**24
_STEP = 0.02
_BIGGEST_CHANGE = 2.0
_REST = 0.5
_REMEMBERED = 8


class _Pace:
    """Steps of about a fiftieth of a second, each with a rest behind it that is half as long, for others to write.

    A step is as big as the fastest of the last few could have been: the others were waits, for the writers' turns
    or the disk, which are no shorter for a smaller step. Where each one waits, as on a disk that takes longer than
    that to sync, they would shrink until they did nothing but wait: none is smaller than the first.
    """

    def __init__(self, history: JobHistory, *, first: int, most: int) -> None:
        self.size = self._least = first
        self._most = most
        self._history = history
        self._begun = 0.0
        self._speeds: deque[float] = deque(maxlen=_REMEMBERED)

    def __enter__(self) -> None:
        self._begun = self._history.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        took = self._history.monotonic() - self._begun
        self._speeds.append(self.size / max(took, _STEP / _BIGGEST_CHANGE))
        wanted = round(max(max(self._speeds) * _STEP, self.size / _BIGGEST_CHANGE))
        self.size = max(self._least, min(wanted, self._most))
        self._history.sleep(min(took, _STEP) * _REST)


@contextmanager
def _spool() -> Iterator[IO[bytes]]:
    spool = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  closed here
    try:
        yield spool
    finally:
        with suppress(OSError):  # where it is full, that was said
            spool.close()


class _Plan:
    """The jobs that go, in a file, as (created_at, id): for each connection a run of them.

    They were read connection by connection, and go in the order of their times, all connections together: as they
    came, so what stands together in the indexes goes together, which is several times faster.
    """

    _ENTRY = struct.Struct(">Q16s")
    _READ = 64

    def __init__(self, file: IO[bytes]) -> None:
        self.shares: dict[UUID, Share] = {}
        self.jobs = 0
        self._runs: list[tuple[int, int]] = []
        self._file = file

    def add(self, source_connection_id: UUID, jobs: Iterable[SyncJob]) -> None:
        """Take in the jobs of a connection, which come newest first. Raises StorageError where the file has no room."""
        begin, newest, job = self.jobs, None, None
        for job in jobs:
            newest = newest or job
            entry = self._ENTRY.pack((job.created_at - _BEGINNING) // _MICROSECOND, job.id.bytes)
            self._where_there_is_room(self._file.write, entry)
            self.jobs += 1
        if newest and job:
            self._where_there_is_room(self._file.flush)
            self._runs.append((begin, self.jobs))
            self.shares[source_connection_id] = Share(self.jobs - begin, job.created_at, newest.created_at)

    @staticmethod
    def _where_there_is_room(act: Callable[..., object], *data: bytes) -> None:
        try:
            act(*data)
        except OSError as error:
            where = f"the folder for temporary files ({tempfile.tempdir or 'none can be used'})"
            way_out = "make room, or name another in TMPDIR; nothing was deleted"
            raise StorageError(where, f"cannot take the plan: {error.strerror}: {way_out}") from error

    def oldest_first(self) -> Iterator[UUID]:
        """The ids of all, in the order of their times."""
        return (UUID(bytes=entry[8:]) for entry in heapq.merge(*(self._backwards(*run) for run in self._runs)))

    def _backwards(self, begin: int, end: int) -> Iterator[bytes]:
        size = self._ENTRY.size
        while begin < end:
            end, stop = max(begin, end - self._READ), end
            self._file.seek(end * size)
            data = self._file.read((stop - end) * size)
            yield from (data[at : at + size] for at in range(len(data) - size, -1, -size))


_BEGINNING = datetime.min.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
