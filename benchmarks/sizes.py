"""What a long history costs: the same page of more jobs, a page of which nothing is in memory, and bytes on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs

from benchmarks.cases import LEAST_PAGE, Case, Figure
from benchmarks.data import Histories, connection_ids, open_least
from jobhistory import JobHistory
from jobhistory.storage.sqlite import SQLiteJobRepository


def flatness(large: Histories, small: Histories) -> Iterator[Case]:
    """The same page of a large history, over that of a small one."""
    ours, little = (JobHistory(SQLiteJobRepository(each.library)) for each in (large, small))
    ids = connection_ids(large.connections)
    for name, target, asked in (("one connection", 1.05, ids[7:8]), ("60 in turn", 1.15, ids[:60])):
        yield Case(
            f"list 100 of {large.count:,} jobs over {small.count:,}, {name}",
            target,
            lambda asked=asked: [ours.list_jobs(id) for id in asked],  # type: ignore[misc]
            lambda asked=asked: [little.list_jobs(id) for id in asked],  # type: ignore[misc]
        )


def cold(histories: Histories) -> Iterator[Case]:
    """The newest page when nothing of the files is in memory, each by a connection opened for it, over floor A."""
    asked = connection_ids(histories.connections)[7]

    def ours() -> None:
        with closing(SQLiteJobRepository(histories.library)) as repository:
            repository.list_jobs(asked, limit=1000)

    def floor() -> None:
        with closing(open_least(histories.least)) as least:
            least.execute(LEAST_PAGE, (str(asked), 1000)).fetchall()

    def forget() -> None:
        for path in (histories.library, histories.least):
            with path.open("rb") as file:
                os.fsync(file.fileno())  # what is not on disk yet cannot be forgotten
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    yield Case("cold cache, newest 1000", 0.1, ours, floor, forget)


def space(folder: Path, count: int, connections: int) -> Iterator[Figure]:
    """Bytes of file a job, where errors are short."""
    histories = Histories(folder, count, connections)
    path = folder / f"short-{count}-{connections}.db"
    if not path.exists():
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        with closing(SQLiteJobRepository(part, durability="relaxed")) as repository:
            for id in connection_ids(connections):
                repository.register(id)
            for batch in histories.batches():
                repository.add_many(attrs.evolve(job, error=job.error and job.error[:80]) for job in batch)
        part.rename(path)
    yield Figure(f"disk a job, {count:,} with short errors", "bytes", 380, path.stat().st_size / count)
