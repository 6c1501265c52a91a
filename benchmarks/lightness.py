"""What it costs to have the library: its import, and the repository in memory."""

from __future__ import annotations

import subprocess
import sys
from bisect import insort
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

import attrs

from benchmarks.cases import FEW, Case, pending
from benchmarks.data import connection_ids, jobs
from jobhistory import JobHistory, SyncJob
from jobhistory.storage.memory import InMemoryJobRepository


def package() -> Iterator[Case]:
    """A process that imports the library, over one that imports what the library stands on."""
    stood_on = "import attrs, json, logging, sqlite3, threading, uuid"
    yield Case(
        "import jobhistory, over what it stands on",
        1.15,
        lambda: subprocess.run([sys.executable, "-c", "import jobhistory"], check=True),
        lambda: subprocess.run([sys.executable, "-c", stood_on], check=True),
    )


def memory(count: int, turns: int) -> Iterator[Case]:
    """The repository in memory, over ready tuples in a dict, and a sorted list a connection."""
    repository = InMemoryJobRepository()
    history = JobHistory(repository)
    by_id: dict[UUID, tuple[object, ...]] = {}
    keys: dict[UUID, list[tuple[datetime, UUID]]] = {}

    def add(job: SyncJob, row: tuple[object, ...]) -> None:
        by_id[job.id] = row
        insort(keys[job.source_connection_id], (job.created_at, job.id))

    ids = connection_ids(FEW)
    for id in ids:
        history.register(id)
        keys[id] = []
    all_jobs = list(jobs(count, FEW))
    repository.add_many(all_jobs)
    for job in all_jobs:
        add(job, attrs.astuple(job))
    asked, some = ids[7], [job.id for job in all_jobs[:: count // 50]]
    yield Case(
        f"list 100 of {count:,} in memory",
        2,
        lambda: history.list_jobs(asked),
        lambda: [by_id[id] for _, id in keys[asked][-100:][::-1]],
    )
    yield Case(
        f"get, 50 times, of {count:,} in memory",
        2,
        lambda: [history.get(id) for id in some],
        lambda: [by_id[id] for id in some],
    )
    fresh = [pending(asked) for _ in range(8 * turns)]  # each takes microseconds
    mine, theirs = iter(fresh), iter([(job, attrs.astuple(job)) for job in fresh])
    yield Case(
        f"add to {count:,} in memory",
        2,
        lambda: repository.add(next(mine)),
        lambda: add(*next(theirs)),
    )
