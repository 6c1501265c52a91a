"""The one way in which a history writes jobs: outcomes are settled, lost races read again, hooks told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

from jobhistory.errors import ConflictError, JobNotFoundError, SourceConnectionNotFoundError, UnknownOutcomeError
from jobhistory.hooks import Hook, Hooks
from jobhistory.job import SyncJob
from jobhistory.repository import JobRepository

Step = Callable[[SyncJob], SyncJob]
"""Gives a job's next version, or the job itself where there is nothing to do."""


class Recorder:
    """Writes to a repository.

    Args:
        repository: where the jobs are stored.
        hooks: called after each commit with what was written.
    """

    def __init__(self, repository: JobRepository, hooks: Iterable[Hook]) -> None:
        self._repository = repository
        self._hooks = Hooks(hooks)

    def add(self, jobs: list[SyncJob], add: Callable[[], None], *, register: bool = True) -> None:
        """Add the jobs, which `add` does, registering their connections where they are new, if that is wanted."""
        try:
            self._write(jobs, add)
        except SourceConnectionNotFoundError:
            if not register:
                raise
            for id in {job.source_connection_id: None for job in jobs}:
                self._repository.register(id)
            self._write(jobs, add)

    def untold(self, jobs: list[SyncJob]) -> list[SyncJob]:
        """Those that are not stored yet, for the hooks; all where there are none, which spares the look."""
        return [job for job in jobs if not self._is_stored(job.id)] if self._hooks else jobs

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        """Store the next version of a job. Raises what JobRepository.replace raises."""
        self._write([] if quiet else [job], lambda: self._repository.replace(job, quiet=quiet))

    def update(self, job_id: UUID, step: Step, *, quiet: bool = False) -> SyncJob:
        """Read, step, compare and set; read again where another was faster."""
        while True:
            job = self._repository.get(job_id)
            following = step(job)
            if following is job:
                return job
            try:
                self.replace(following, quiet=quiet)
            except ConflictError:
                continue
            return following

    def flush(self) -> None:
        """Let the hooks in the background tell what they hold."""
        self._hooks.flush()

    def _is_stored(self, job_id: UUID) -> bool:
        try:
            self._repository.get(job_id)
        except JobNotFoundError:
            return False
        return True

    def _write(self, jobs: list[SyncJob], write: Callable[[], None]) -> None:
        self._hooks.after(lambda: _settle(write), jobs)


def _settle(write: Callable[[], None]) -> None:
    """Write; where the outcome is unknown, write again: replaying is safe, and settles it."""
    try:
        write()
    except UnknownOutcomeError:
        write()
