"""This library."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jobhistory
from benchmarks.data import BATCH, jobs
from benchmarks.peers.peer import Durability
from jobhistory import JobHistory, SyncJob
from jobhistory.storage.sqlite import SQLiteJobRepository


class Library:
    """JobHistory on SQLite."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self._repository = SQLiteJobRepository(folder / "history.db", durability=durability)
        self._history = JobHistory(self._repository)

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        records = [SyncJob.from_dict(job) for job in jobs]
        for id in {record.source_connection_id for record in records}:
            self._repository.register(id)
        self._repository.add_many(records)

    def insert(self, connection: str) -> str:
        return str(self._history.enqueue(connection).id)

    def transition(self, id: str) -> None:
        self._history.start(id)

    def newest(self, connection: str, limit: int) -> list[SyncJob]:
        return self._history.list_jobs(connection, limit=limit)

    def get(self, id: str) -> SyncJob:
        return self._history.get(id)

    def latest(self, connections: Sequence[str]) -> list[SyncJob]:
        return [jobs[0] for jobs in self._history.newest_jobs(connections).values()]

    def id_of(self, record: SyncJob) -> str:
        return str(record.id)

    def pragma(self, name: str) -> object:
        [(value,)] = self._repository._db.read(f"PRAGMA {name}")
        return value


class LibraryQueue:
    """JobHistory on PostgreSQL: a queue a connection. Its workers are told which job is theirs: here the oldest."""

    def __init__(self, history: JobHistory) -> None:
        self._history = history
        self._waiting: defaultdict[str, deque[UUID]] = defaultdict(deque)

    @classmethod
    async def open(cls, url: str) -> LibraryQueue:
        return cls(jobhistory.open(url))

    async def prepare(self, count: int, names: Sequence[str]) -> None:
        repository = self._history.repository
        for name in names:
            repository.register(UUID(name))
        finished = jobs(count, len(names))
        while batch := list(islice(finished, BATCH)):
            repository.add_many(batch)

    async def enqueue(self, name: str) -> UUID:
        job = self._history.enqueue(name)
        self._waiting[name].append(job.id)
        return job.id

    async def enqueue_many(self, name: str, count: int) -> None:
        now, connection = datetime.now(UTC), UUID(name)
        fresh = [SyncJob(id=uuid4(), source_connection_id=connection, created_at=now) for _ in range(count)]
        self._history.repository.add_many(fresh)
        self._waiting[name].extend(job.id for job in fresh)

    async def start(self, name: str) -> SyncJob:
        return self._history.start(self._waiting[name].popleft())

    async def finish(self, job: SyncJob) -> None:
        self._history.complete(job.id)

    async def get(self, id: UUID) -> SyncJob:
        return self._history.get(id)

    async def show(self, name: str) -> str:
        repository: Any = self._history.repository  # PostgreSQL's
        [(value,)] = repository._db.read(f"SHOW {name}")
        return str(value)
