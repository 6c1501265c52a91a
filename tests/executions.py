"""`jobhistory exec` as a process of its own, and what its job became."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs

import jobhistory
from jobhistory import JobHistory, JobStatus, SyncJob

CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
_PATIENCE = 60


@attrs.frozen
class Executions:
    """Runs commands as jobs of CONNECTION, in a folder of its own."""

    folder: Path
    connection: str = str(CONNECTION)
    launcher: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return str(self.folder / "history.db")

    def words(self, *words: str | bytes) -> list[str | bytes]:
        """The command line that begins with `jobhistory exec CONNECTION`."""
        return [
            *self.launcher,
            sys.executable,
            "-m",
            "jobhistory.cli",
            "--db",
            self.url,
            "exec",
            self.connection,
            *words,
        ]

    def run(self, *words: str | bytes, **options: Any) -> subprocess.CompletedProcess[Any]:  # noqa: ANN401  subprocess.run's
        """Run it to its end; options are those of subprocess.run."""
        return subprocess.run(
            self.words(*words),
            check=False,
            cwd=self.folder,
            **{"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options},
        )

    @contextmanager
    def running(self, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:  # noqa: ANN401  Popen's
        """Start it, its standard input and output piped; whatever happens, it is not left behind."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(self.words(*words), cwd=self.folder, **{**pipes, **options}) as process:
            alarm = threading.Timer(_PATIENCE, _end, [process])
            alarm.start()
            try:
                yield process
            finally:
                alarm.cancel()
                _end(process)

    @contextmanager
    def history(self) -> Iterator[JobHistory]:
        with closing(jobhistory.open(self.url)) as history:
            yield history

    def jobs(self) -> list[SyncJob]:
        with self.history() as history:
            return history.list_jobs(CONNECTION)

    def job(self) -> SyncJob:
        """The one job."""
        [job] = self.jobs()
        return job

    def fifo(self, name: str) -> Path:
        """A named pipe: who opens one end waits for the other, and its end tells that all writers are gone."""
        path = self.folder / name
        os.mkfifo(path)
        return path


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, and with its input what waits for that."""
    process.kill()
    if process.stdin is not None:
        process.stdin.close()


def wait_until(history: JobHistory, is_so: Callable[[SyncJob], bool]) -> SyncJob:
    """Wait for a job of which it is so."""
    after = None
    while changes := history.wait_for_changes(after, timeout=_PATIENCE):
        for change in changes:
            if is_so(change.job):
                return change.job
        after = changes[-1].token
    message = "waited in vain"
    raise AssertionError(message)


def outcome(job: SyncJob) -> tuple[JobStatus, str | None]:
    return job.status, job.error


def counts(job: SyncJob) -> dict[str, int]:
    """The counts that are not 0."""
    names = ("inserted", "updated", "deleted", "failed")
    return {name: count for name in names if (count := getattr(job, f"entities_{name}"))}
