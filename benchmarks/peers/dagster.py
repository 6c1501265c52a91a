"""Dagster's SqliteRunStorage: a run a job, its job_name the connection.

Its run has no counts and no error; they are left out. It keeps no newest run of each job in one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from dagster import DagsterEvent, DagsterEventType, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._serdes import serialize_value
from sqlalchemy import insert

from benchmarks.peers.engines import set_durability
from benchmarks.peers.peer import Durability

STATUSES = {"COMPLETED": DagsterRunStatus.SUCCESS, "FAILED": DagsterRunStatus.FAILURE}


class Dagster:
    """The run storage alone, without an instance, its event log and its snapshots."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        set_durability(durability)
        self._storage = SqliteRunStorage.from_local(str(folder))

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        with self._storage.connect() as connection:
            connection.execute(insert(RunsTable), [_values(job) for job in jobs])

    def insert(self, connection: str) -> str:
        id = str(uuid4())
        self._storage.add_run(DagsterRun(connection, run_id=id))
        return id

    def transition(self, id: str) -> None:
        event = DagsterEvent(DagsterEventType.RUN_START.value, job_name="sync")
        self._storage.handle_run_event(id, event, datetime.now(UTC))

    def newest(self, connection: str, limit: int) -> Sequence[RunRecord]:
        records: Sequence[RunRecord] = self._storage.get_run_records(RunsFilter(job_name=connection), limit=limit)
        return records

    def get(self, id: str) -> RunRecord:
        [record] = self._storage.get_run_records(RunsFilter(run_ids=[id]))
        return record

    def latest(self, connections: Sequence[str]) -> Sequence[RunRecord]:
        return [record for connection in connections for record in self.newest(connection, 1)]

    def id_of(self, record: RunRecord) -> str:
        return str(record.dagster_run.run_id)

    def pragma(self, name: str) -> object:
        with self._storage.connect() as connection:
            value: object = connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            return value


def _values(job: dict[str, Any]) -> dict[str, Any]:
    """As add_run and handle_run_event leave a run that ended."""
    created, started, completed = (
        datetime.fromisoformat(job[name]) for name in ("created_at", "started_at", "completed_at")
    )
    run = DagsterRun(job["source_connection_id"], run_id=job["id"], status=STATUSES[job["status"]])
    return {
        "run_id": run.run_id,
        "pipeline_name": run.job_name,
        "status": run.status.value,
        "run_body": serialize_value(run),
        "create_timestamp": created.replace(tzinfo=None),
        "update_timestamp": completed.replace(tzinfo=None),
        "start_time": started.timestamp(),
        "end_time": completed.timestamp(),
    }
