"""The one way in which a history writes jobs: outcomes are settled, lost races read again, hooks told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

from jobhistory.errors import ConflictError, SourceConnectionNotFoundError, UnknownOutcomeError
from jobhistory.hooks import Hook, Hooks
from jobhistory.job import SyncJob
from jobhistory.repository import JobRepository, is_stored

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

    def add(self, jobs: list[SyncJob], add: Callable[[], None], *, register: bool = True, again: bool = False) -> None:
        """Add the jobs, which `add` does, registering their connections where they are new, if that is wanted.

        Where some may be stored already, it is `again`: hooks are told of the others alone.
        """
        looks = again and self._hooks
        told = [job for job in jobs if not is_stored(self._repository, job.id)] if looks else jobs
        try:
            self._write(told, add)
        except SourceConnectionNotFoundError:
            if not register:
                raise
            for id in {job.source_connection_id: None for job in jobs}:
                self._repository.register(id)
            self._write(told, add)

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

    def _write(self, jobs: list[SyncJob], write: Callable[[], None]) -> None:
        self._hooks.after(lambda: _settle(write), jobs)


def _settle(write: Callable[[], None]) -> None:
    """Write; where the outcome is unknown, write again: replaying is safe, and settles it."""
    try:
        write()
    except UnknownOutcomeError:
        write()
