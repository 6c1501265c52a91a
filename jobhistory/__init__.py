"""jobhistory: a flight recorder for data syncs.

What ran, newest first; what runs now; why it failed; stop that one. `open` gives a JobHistory.
"""

from __future__ import annotations

import os
from typing import Any

from jobhistory.errors import (
    ActiveJobExistsError,
    ConflictError,
    DuplicateJobError,
    InvalidCursorError,
    InvalidIdError,
    InvalidJobError,
    InvalidLimitError,
    InvalidTransitionError,
    JobCancelled,
    JobHistoryError,
    JobNotFoundError,
    LostJobError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
    UnknownOutcomeError,
)
from jobhistory.history import JobHistory
from jobhistory.hooks import background
from jobhistory.ids import UUID7
from jobhistory.job import SyncJob
from jobhistory.redact import Redactor
from jobhistory.repository import (
    Change,
    Cursor,
    JobRepository,
    Position,
    SourceConnection,
    check_limit,
    newest_first,
    refusal,
)
from jobhistory.retention import Pruned, Retention
from jobhistory.run import Run
from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, TRANSITIONS, JobStatus

__all__ = [
    "ACTIVE_STATUSES",
    "TERMINAL_STATUSES",
    "TRANSITIONS",
    "UUID7",
    "ActiveJobExistsError",
    "Change",
    "ConflictError",
    "Cursor",
    "DuplicateJobError",
    "InvalidCursorError",
    "InvalidIdError",
    "InvalidJobError",
    "InvalidLimitError",
    "InvalidTransitionError",
    "JobCancelled",
    "JobHistory",
    "JobHistoryError",
    "JobNotFoundError",
    "JobRepository",
    "JobStatus",
    "LostJobError",
    "NameTakenError",
    "Position",
    "Pruned",
    "Redactor",
    "Retention",
    "Run",
    "SourceConnection",
    "SourceConnectionNotFoundError",
    "StorageError",
    "SyncJob",
    "UnknownOutcomeError",
    "background",
    "check_limit",
    "newest_first",
    "open",
    "refusal",
]


def open(url: str | os.PathLike[str], **options: Any) -> JobHistory:  # noqa: ANN401  jobhistory.open reads as what it does
    """The history at `url`; close it, or use it in a `with`.

    Args:
        url: a path ("history.db"), "sqlite:///relative.db" or "sqlite:////absolute.db", "memory:", or
            "postgresql://user@host/database" as libpq has it, with `schema`, `read_url`, `min_size`, `max_size`
            and `timeout` among its options.
        options: those of JobHistory: clock, redact, hooks and the rest.

    Raises ValueError for a URL of another kind; StorageError where the file or the server cannot
    be used (see jobhistory.storage.sqlite and .postgres); ImportError where an extra is missing, naming it.
    """
    text = os.fspath(url)
    repository: JobRepository
    if text == "memory:":
        from jobhistory.storage.memory import InMemoryJobRepository

        repository = InMemoryJobRepository()
    elif text.startswith("sqlite:///") or not (text.startswith("sqlite:") or "://" in text):
        from jobhistory.storage.sqlite import SQLiteJobRepository

        repository = SQLiteJobRepository(text.removeprefix("sqlite:///"))
    elif text.startswith(("postgresql://", "postgres://")):
        from jobhistory.storage.postgres import PostgresJobRepository

        repository = PostgresJobRepository.from_url(text)
    else:
        # Its scheme alone: the rest may hold a password.
        message = (
            f"cannot open {text.partition(':')[0]}:...: wanted a path, sqlite:///path, memory: or postgresql://..."
        )
        raise ValueError(message)
    return JobHistory(repository, **options)
