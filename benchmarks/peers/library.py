"""This library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
