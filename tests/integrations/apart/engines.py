"""What tests of engines have in common."""

from __future__ import annotations

import re
from collections.abc import Callable

from jobhistory import JobHistory, SyncJob, integrations

CONNECTION = "550e8400-e29b-41d4-a716-446655440000"
PATIENCE = 240


def newest(history: JobHistory) -> tuple[str, dict[str, int]]:
    """The newest job's status, and its counts that are not 0."""
    [job] = history.list_jobs(CONNECTION, limit=1)
    names = ("inserted", "updated", "deleted", "failed")
    return job.status.value, {name: count for name in names if (count := getattr(job, f"entities_{name}"))}


def wait_until(history: JobHistory, is_so: Callable[[SyncJob], bool]) -> SyncJob:
    """Wait for a job of which it is so."""
    after = None
    while changes := history.wait_for_changes(after, timeout=PATIENCE):
        for change in changes:
            if is_so(change.job):
                return change.job
        after = changes[-1].token
    message = "waited in vain"
    raise AssertionError(message)


def recipe(package: str) -> str:
    """The code in the documentation that begins with this package."""
    blocks = re.findall(r"```python\n(.*?)```", integrations.__doc__ or "", re.DOTALL)
    [found] = [block for block in blocks if block.startswith(f"from {package}")]
    return str(found)
