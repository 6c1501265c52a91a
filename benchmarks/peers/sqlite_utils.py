"""sqlite-utils as its manual has it: a table of dicts, an index, rows_where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlite_utils import Database

from benchmarks.peers.peer import SYNCHRONOUS, Durability

LATEST = """
SELECT jobs.* FROM json_each(?) AS asked, jobs
WHERE jobs.rowid = (
    SELECT rowid FROM jobs WHERE source_connection_id = asked.value ORDER BY created_at DESC LIMIT 1
)
"""
COUNTS = ("entities_inserted", "entities_updated", "entities_deleted", "entities_failed")


class SQLiteUtils:
    """One Database; records are dicts, ids and times text."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self._db = Database(folder / "sqlite-utils.db")
        self._db.enable_wal()
        self._db.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
        self._jobs = self._db.table("jobs")
        self._fresh: dict[str, Any] = {}

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        self._jobs.insert_all(jobs, pk="id")
        self._jobs.create_index(["source_connection_id", "created_at"])
        self._fresh = dict.fromkeys(jobs[0]) | dict.fromkeys(COUNTS, 0) | {"status": "PENDING", "version": 1}

    def insert(self, connection: str) -> str:
        id = str(uuid4())
        key = {"id": id, "source_connection_id": connection, "created_at": datetime.now(UTC).isoformat()}
        self._jobs.insert(self._fresh | key)
        return id

    def transition(self, id: str) -> None:
        self._jobs.update(id, {"status": "RUNNING", "started_at": datetime.now(UTC).isoformat(), "version": 2})

    def newest(self, connection: str, limit: int) -> Sequence[dict[str, Any]]:
        return list(
            self._jobs.rows_where("source_connection_id = ?", [connection], order_by="created_at desc", limit=limit)
        )

    def get(self, id: str) -> dict[str, Any]:
        return dict(self._jobs.get(id))

    def latest(self, connections: Sequence[str]) -> Sequence[dict[str, Any]]:
        return list(self._db.query(LATEST, [json.dumps(connections)]))

    def id_of(self, record: dict[str, Any]) -> str:
        return str(record["id"])

    def pragma(self, name: str) -> object:
        [(value,)] = self._db.execute(f"PRAGMA {name}").fetchall()
        return value
