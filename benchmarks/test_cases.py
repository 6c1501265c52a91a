"""What is asked of a history, on every backend: `pytest benchmarks -n0 --benchmark-only`, with `jobhistory[bench]`.

The ratios over hand-written SQL are in `python -m benchmarks`; these times compare backends, and releases
(`--benchmark-autosave`, `--benchmark-compare`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from benchmarks.data import connection_ids, jobs
from jobhistory import JobHistory, JobRepository, JobStatus, SyncJob
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository

COUNT, CONNECTIONS = 100_000, 50
IDS = connection_ids(CONNECTIONS)
# One connection is read and another one written to, so that what is read stays the same.
READ, WRITTEN = IDS[0], IDS[-1]

BACKENDS: dict[str, Callable[[Path], JobRepository]] = {
    "memory": lambda _: InMemoryJobRepository(),
    "sqlite-full": lambda folder: SQLiteJobRepository(folder / "history.db"),
    "sqlite-relaxed": lambda folder: SQLiteJobRepository(folder / "history.db", durability="relaxed"),
}

Benchmark = Any  # pytest-benchmark's fixture: calls what it is given many times, and gives its last result


@pytest.fixture(scope="module", params=BACKENDS)
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRepository]:
    """One of each backend, with the same history."""
    repository = BACKENDS[request.param](tmp_path_factory.mktemp(request.param))
    for id in IDS:
        repository.register(id)
    repository.add_many(jobs(COUNT, CONNECTIONS))
    yield repository
    repository.close()


@pytest.fixture
def history(repository: JobRepository) -> JobHistory:
    """The use cases on it."""
    return JobHistory(repository)


@pytest.mark.parametrize("limit", [10, 100, 1000])
def test_list(benchmark: Benchmark, history: JobHistory, limit: int) -> None:
    assert limit == len(benchmark(history.list_jobs, READ, limit=limit))


def test_list_100_far_down_by_cursor(benchmark: Benchmark, history: JobHistory) -> None:
    *_, far = history.list_jobs(READ, limit=1000)
    assert 100 == len(benchmark(history.list_jobs, READ, limit=100, before=far))


def test_list_10_by_status(benchmark: Benchmark, history: JobHistory) -> None:
    failed = benchmark(history.list_jobs, READ, limit=10, statuses={JobStatus.FAILED})
    assert [JobStatus.FAILED] * 10 == [job.status for job in failed]


def test_get(benchmark: Benchmark, history: JobHistory) -> None:
    ids = cycle(job.id for job in history.list_jobs(READ, limit=1000))
    assert READ == benchmark(lambda: history.get(next(ids))).source_connection_id


def test_newest_of_all_connections(benchmark: Benchmark, history: JobHistory) -> None:
    assert CONNECTIONS == len(benchmark(history.newest_jobs))


def test_changes_100(benchmark: Benchmark, history: JobHistory) -> None:
    assert 100 == len(benchmark(history.repository.changes, limit=100))


def test_active_jobs_100(benchmark: Benchmark, history: JobHistory) -> None:
    queue = [job.id for job in (history.enqueue(WRITTEN) for _ in range(200))]
    assert 100 == len(benchmark(history.active_jobs, limit=100))
    for id in queue:
        history.cancel(id)


def test_enqueue(benchmark: Benchmark, history: JobHistory) -> None:
    assert JobStatus.PENDING == benchmark(history.enqueue, WRITTEN).status


def waiting(history: JobHistory) -> tuple[tuple[UUID], dict[str, object]]:
    """What start is called with: a job that waits."""
    return (history.enqueue(WRITTEN).id,), {}


def test_start(benchmark: Benchmark, history: JobHistory) -> None:
    started = benchmark.pedantic(history.start, setup=lambda: waiting(history), rounds=300)
    assert JobStatus.RUNNING == started.status


def test_add_many_of_1000(benchmark: Benchmark, repository: JobRepository) -> None:
    def batch() -> tuple[tuple[list[SyncJob]], dict[str, object]]:
        return ([SyncJob(id=uuid4(), source_connection_id=WRITTEN, created_at=at) for at in times],), {}

    times = [job.created_at for job in jobs(1000, 1)]
    benchmark.pedantic(repository.add_many, setup=batch, rounds=15)
    assert 1000 == len(repository.list_jobs(WRITTEN, limit=1000))
