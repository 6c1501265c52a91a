"""Logging: a record for each change of a job, with what is known of it as structured fields. Needs the stdlib alone.

    history = jobhistory.open("history.db", hooks=[LoggingHook()])

The fields are given as `extra`, which JSON formatters and OpenTelemetry's handler write out by themselves; a format
string takes them as `%(jobhistory.job.id)s`. They go by the names of attributes.py, and `exception.*` where a job
has an error. The record's message is for people, and has no text of the error's.
"""

from __future__ import annotations

import logging

from jobhistory.integrations.attributes import attributes, exception
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus


class LoggingHook:
    """Logs every change: ERROR where a job FAILED, DEBUG for progress, INFO for each other status.

    Args:
        logger: where; `jobhistory.jobs` if left out.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("jobhistory.jobs")

    def __call__(self, job: SyncJob) -> None:
        """Log it."""
        level = _level(job)
        if self._logger.isEnabledFor(level):
            fields = attributes(job) | exception(job)
            self._logger.log(level, "sync job %s is %s", job.id, job.status.value, extra=fields)


def _level(job: SyncJob) -> int:
    if job.status is JobStatus.FAILED:
        return logging.ERROR
    # What a running job writes after its start are its counts.
    return logging.DEBUG if job.is_active and job.progress_at is not None else logging.INFO
