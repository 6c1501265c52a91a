"""JobHistory: the use cases, over any repository."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack
from uuid import UUID

from jobhistory.abilities import TellsLatestChange, WaitsForChanges
from jobhistory.errors import DuplicateJobError
from jobhistory.hooks import Hook
from jobhistory.ids import UUID7, parse_id
from jobhistory.job import SyncJob
from jobhistory.reaping import CONFIRM_FOR, SILENT_FOR, Reaper, Reaping, reap
from jobhistory.recorder import Recorder
from jobhistory.redact import Redactor
from jobhistory.repository import (
    MAX_LIMIT,
    Before,
    Change,
    JobRepository,
    Position,
    SourceConnection,
    check_limit,
    check_name,
    check_statuses,
    position_of,
)
from jobhistory.retention import Progress, Pruned, Retention
from jobhistory.run import Run
from jobhistory.sanitizer import Redact, Sanitizer
from jobhistory.status import JobStatus
from jobhistory.steps import Steps
from jobhistory.times import seconds, utc_now

if TYPE_CHECKING:
    from jobhistory.failures import Failure
    from jobhistory.health import Health
    from jobhistory.stats import Stats

_POLL_EVERY = 0.5


class RunOptions(TypedDict, total=False):
    """How a job is run; see Run."""

    worker: str | None
    flush_interval: float | timedelta
    heartbeat_interval: float | timedelta
    handle_sigterm: bool


class JobHistory(Steps):
    """What ran, what runs, why it failed; and the way to run, report, finish and cancel.

    Ids are UUIDs or their canonical text (else InvalidIdError). Safe to share between threads. A lost race
    is read again and decided anew, so ConflictError never comes out of here; InvalidTransitionError says
    that the job's status does not allow what was asked, StorageError that the storage failed.

    It can be pickled, for a process pool, where its parts can: a history in a file is opened where that is
    loaded, and is to be closed there; one in memory raises TypeError.

    Args:
        repository: where the jobs are stored; closed only by whoever opened it.
        clock: gives the time, an aware datetime.
        monotonic: gives seconds for durations and intervals.
        sleep: waits for seconds.
        new_id: gives the ids of new jobs; UUIDv7 from the clock if left out.
        redact: takes secrets out of every text before it is stored; None stores all as it comes.
        hooks: called in order after each commit of this process with the job; heartbeats are left out, and
            errors are logged. For that order its threads commit one after the other, once there is a hook.
            One thread calls them at a time: a write made meanwhile returns at once, and that thread tells of
            it too. A hook holds up the thread that calls it, which may be the one that writes for a Run: put
            a slow one in the background, with jobhistory.background(hook).
    """

    def __init__(
        self,
        repository: JobRepository,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        new_id: Callable[[], UUID] | None = None,
        redact: Redact | None = Redactor(),  # noqa: B008  frozen
        hooks: Iterable[Hook] = (),
    ) -> None:
        self.repository = repository
        self.clock = clock
        self.monotonic = monotonic
        self.sleep = sleep
        self._new_id = new_id or UUID7(clock)
        self._sanitizer = Sanitizer(redact)
        self._recorder = Recorder(repository, hooks)

    def register(self, source_connection_id: UUID | str, name: str | None = None) -> SourceConnection:
        """Make a source connection known, or rename it. Raises NameTakenError, InvalidJobError."""
        id = parse_id(source_connection_id)
        given = check_name(name)
        return self.repository.register(id, None if given is None else self.redacted_text(given))

    def connections(self) -> list[SourceConnection]:
        """All source connections, in the order of their ids."""
        return self.repository.connections()

    def forget(self, source_connection_id: UUID | str) -> None:
        """Drop a connection and its jobs. Raises SourceConnectionNotFoundError, ActiveJobExistsError."""
        self.repository.forget(parse_id(source_connection_id))

    def enqueue(
        self,
        source_connection_id: UUID | str,
        *,
        job_id: UUID | str | None = None,
        exclusive: bool = False,
        register: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> SyncJob:
        """Add a PENDING job, registering its connection (register=False: SourceConnectionNotFoundError instead).

        With a job_id of yours it is safe to retry: the stored job comes back. Raises DuplicateJobError where
        another connection's job has that id; ActiveJobExistsError if exclusive, and one is not finished yet;
        InvalidJobError for metadata that cannot be stored.
        """
        job = SyncJob(
            id=self._new_id() if job_id is None else parse_id(job_id),
            source_connection_id=parse_id(source_connection_id),
            created_at=self.clock(),
            metadata=dict(metadata) if isinstance(metadata, Mapping) else metadata,
        )
        job = self._sanitizer.job(job)
        try:
            self._recorder.add([job], lambda: self.repository.add(job, exclusive=exclusive), register=register)
        except DuplicateJobError:
            stored = self.repository.get(job.id)
            if job_id is None or stored.source_connection_id != job.source_connection_id:
                raise
            return stored
        return job

    def add_many(self, jobs: Iterable[SyncJob]) -> None:
        """Store ready-made jobs (an import), all or none, redacted, registering their connections.

        Jobs that are stored already, as they are, are left alone, and hooks not told of them. Raises DuplicateJobError.
        """
        ready = [self._sanitizer.job(job) for job in jobs]
        self._recorder.add(ready, lambda: self.repository.add_many(ready), again=True)

    def get(self, job_id: UUID | str) -> SyncJob:
        """The job. Raises JobNotFoundError."""
        return self.repository.get(parse_id(job_id))

    def list_jobs(
        self,
        source_connection_id: UUID | str,
        *,
        limit: int = 100,
        before: Before = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> list[SyncJob]:
        """The connection's jobs, newest first: at most `limit` (1 to 1000), those behind `before`.

        Raises SourceConnectionNotFoundError, InvalidLimitError, and InvalidCursorError for a cursor or job
        of another connection, or a cursor of another filter.
        """
        connection = parse_id(source_connection_id)
        wanted = check_statuses(statuses)
        position = position_of(before, connection, wanted)
        return self.repository.list_jobs(connection, limit=limit, before=position, statuses=wanted)

    def iter_jobs(
        self,
        source_connection_id: UUID | str,
        *,
        before: Before = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> Iterator[SyncJob]:
        """All the connection's jobs, newest first, read page by page: none skipped, none repeated."""
        wanted = check_statuses(statuses)
        while page := self.list_jobs(source_connection_id, limit=MAX_LIMIT, before=before, statuses=wanted):
            yield from page
            before = page[-1]

    def active_jobs(
        self,
        *,
        statuses: Iterable[JobStatus] | None = None,
        silent_since: datetime | None = None,
        before: SyncJob | Position | None = None,
        limit: int = 100,
    ) -> list[SyncJob]:
        """The unfinished jobs of all connections, newest first: what runs, what waits, what went silent."""
        return self.repository.active_jobs(
            statuses=statuses, silent_since=silent_since, before=position_of(before), limit=limit
        )

    def newest_jobs(
        self, source_connection_ids: Iterable[UUID | str] | None = None, *, per_connection: int = 1
    ) -> dict[UUID, list[SyncJob]]:
        """The newest jobs of each connection asked for (None: of all), in one query; [] where it has none.

        Raises SourceConnectionNotFoundError, InvalidLimitError.
        """
        return self.repository.newest_jobs(_parsed(source_connection_ids), per_connection=per_connection)

    def stats(self, source_connection_ids: Iterable[UUID | str] | None = None) -> dict[UUID, Stats]:
        """The figures of each connection asked for (None: of all), drawn from its newest 50 jobs.

        Its newest job, last success, failure streak, success rate, p50 and p95 of durations, and jobs running
        now: see jobhistory.stats. Raises SourceConnectionNotFoundError.
        """
        from jobhistory.health import stats_of

        return stats_of(self.repository, _parsed(source_connection_ids))

    def health(self, source_connection_ids: Iterable[UUID | str] | None = None) -> dict[UUID, Health]:
        """The same figures, and with them what is unusual in those jobs: see jobhistory.signals.

        A run that takes much longer than usual, or inserted much less; one that has not come, though it always
        does; counters that stopped moving. Raises SourceConnectionNotFoundError.
        """
        from jobhistory.health import health_of

        return health_of(self.repository, _parsed(source_connection_ids), self.clock())

    def failures(
        self,
        source_connection_ids: Iterable[UUID | str] | None = None,
        *,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Failure]:
        """The errors of failed jobs, grouped by what they have in common, the most frequent first.

        Each says how often, since when, in which connections, and gives the latest job; see
        jobhistory.fingerprint for what makes two errors the same. Read are the FAILED jobs of the connections
        asked for (None: of all), created at `since` or later.

        Raises SourceConnectionNotFoundError, InvalidLimitError, and InvalidJobError where `since` is no aware
        datetime.
        """
        from jobhistory.failures import failures_of

        return failures_of(self.repository, _parsed(source_connection_ids), since, check_limit(limit))

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        """The jobs written since the token `after`, each as it stands now, in commit order, at least once.

        Raises InvalidCursorError, InvalidLimitError.
        """
        return self.repository.changes(after, limit=limit)

    def wait_for_changes(
        self, after: str | None = None, *, timeout: float | timedelta = 60, limit: int = 1000
    ) -> list[Change]:
        """As `changes`, but waits until there is one: [] after `timeout` (seconds or timedelta) without."""
        deadline = self.monotonic() + seconds("timeout", timeout)
        while not (found := self.changes(after, limit=limit)) and (left := deadline - self.monotonic()) > 0:
            if not isinstance(self.repository, WaitsForChanges):
                self.sleep(min(left, _POLL_EVERY))
            elif not self.repository.wait_for_changes(after, left):
                break
        return found

    def latest_change(self) -> str | None:
        """The token after which `changes` gives what is still to come; None where there was no change yet."""
        if isinstance(self.repository, TellsLatestChange):
            return self.repository.latest_change()
        token = None
        while found := self.changes(token, limit=MAX_LIMIT):
            token = found[-1].token
        return token

    def run(self, job_id: UUID | str, **options: Unpack[RunOptions]) -> Run:
        """Claim a PENDING job for a `with` block, which decides how it ends: see Run.

        Options are those of Run: worker (a name in place of the host's), flush_interval, heartbeat_interval
        (seconds or timedelta), handle_sigterm. Entering raises JobNotFoundError, and InvalidTransitionError
        where the job is not PENDING.
        """
        id = parse_id(job_id)
        return Run(self, lambda: id, **options)

    def track(
        self,
        source_connection_id: UUID | str,
        *,
        exclusive: bool = False,
        metadata: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> Run:
        """Enqueue a job and run it, in one: see enqueue, run and Run.

        Where entering fails between the two, or the process is killed there, the job stays PENDING, and refuses
        `exclusive` ones until it is cancelled, reaped with `pending_for`, or this Run is entered again.
        """
        connection = parse_id(source_connection_id)
        id = self._new_id()  # one, however often entering is tried
        return Run(
            self, lambda: self.enqueue(connection, job_id=id, exclusive=exclusive, metadata=metadata).id, **options
        )

    def reap(
        self,
        *,
        silent_for: float | timedelta = SILENT_FOR,
        confirm_for: float | timedelta = CONFIRM_FOR,
        pending_for: float | timedelta | None = None,
    ) -> list[SyncJob]:
        """End the jobs of vanished workers, and give those that were ended; see Reaping for the two looks.

        RUNNING becomes FAILED, CANCELLING becomes CANCELLED, both with no completed_at and with the evidence
        in error_details; with `pending_for`, jobs that waited longer than that become FAILED. Takes
        `confirm_for`, unless there is nobody to look at. Safe from many processes at once.
        """
        rule = Reaping(silent_for=silent_for, confirm_for=confirm_for, pending_for=pending_for)

        def wait(duration: float) -> bool:
            self.sleep(duration)
            return False

        return reap(self, rule, wait)

    def reaper(
        self,
        *,
        every: float | timedelta = 60,
        silent_for: float | timedelta = SILENT_FOR,
        confirm_for: float | timedelta = CONFIRM_FOR,
        pending_for: float | timedelta | None = None,
    ) -> Reaper:
        """A context manager that reaps in a thread, `every` so many seconds."""
        rule = Reaping(silent_for=silent_for, confirm_for=confirm_for, pending_for=pending_for)
        return Reaper(self, rule, every)

    def prune(
        self,
        rule: Retention,
        source_connection_ids: Iterable[UUID | str] | None = None,
        *,
        dry_run: bool = False,
        archive: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Pruned:
        """Delete the finished jobs that the rule lets go, of these connections (None: of all), while others write.

        Never an active job, a connection's newest job, or its newest COMPLETED one. In short transactions, the
        oldest first; interrupted, it is just called again. Then the room is given back, where the backend can.

        `dry_run` only says what would go. `archive` names a new file, .ndjson.gz or .parquet, that holds what goes
        before anything goes; `jobhistory import` reads it. `progress` is told of the step ("planning", "deleting",
        "reclaiming"), how much of it is done, and of how much.

        Raises SourceConnectionNotFoundError, InvalidJobError for an archive of another kind, ImportError where its
        extra is missing, StorageError where something is there already, dry run or not: then nothing was deleted.
        """
        # The modules of files, which take as long to import as all else, for a call that is rare.
        from jobhistory.pruning import prune

        return prune(self, rule, source_connection_ids, dry_run=dry_run, archive=archive, progress=progress)

    def close(self) -> None:
        """Flush the hooks in the background, close the repository: every method then raises StorageError."""
        self._recorder.flush()
        self.repository.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        """Store the next version of a job, redacted, and tell the hooks: what Run and the steps by id are made of.

        Raises what JobRepository.replace raises.
        """
        self._recorder.replace(self._sanitizer.version(job), quiet=quiet)


def _parsed(source_connection_ids: Iterable[UUID | str] | None) -> list[UUID] | None:
    return None if source_connection_ids is None else [parse_id(id) for id in source_connection_ids]
