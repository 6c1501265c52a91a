"""MLflow's SqlAlchemyStore: a run a job, an experiment a connection.

Its run has neither created_at nor error, and counts would be metrics; they are left out. A new run is RUNNING,
so its transition is to FINISHED. It keeps no newest run of each experiment in one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from mlflow.entities import LifecycleStage, Run, RunStatus, ViewType
from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from sqlalchemy import insert

from benchmarks.peers.engines import read_pragma, set_durability, write_ahead
from benchmarks.peers.peer import Durability

STATUSES = {"COMPLETED": RunStatus.FINISHED, "FAILED": RunStatus.FAILED}


class MLflow:
    """The store that its tracking server uses; artifacts are never touched."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        set_durability(durability)
        self._store = SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))
        write_ahead(self._store.engine)
        self._experiments: dict[str, str] = {}

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        for connection in sorted({job["source_connection_id"] for job in jobs}):
            self._experiments[connection] = self._store.create_experiment(connection)
        with self._store.engine.begin() as connection:
            connection.execute(insert(SqlRun), [self._values(job) for job in jobs])
            names = [{"run_uuid": UUID(job["id"]).hex, "key": MLFLOW_RUN_NAME, "value": "sync"} for job in jobs]
            connection.execute(insert(SqlTag), names)

    def _values(self, job: dict[str, Any]) -> dict[str, Any]:
        """As create_run and update_run_info leave a run that ended."""
        return {
            "run_uuid": UUID(job["id"]).hex,
            "name": "sync",
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": "worker",
            "status": RunStatus.to_string(STATUSES[job["status"]]),
            "start_time": _milliseconds(datetime.fromisoformat(job["created_at"])),
            "end_time": _milliseconds(datetime.fromisoformat(job["completed_at"])),
            "source_version": "",
            "lifecycle_stage": LifecycleStage.ACTIVE,
            "artifact_uri": f"artifacts/{job['id']}",
            "experiment_id": int(self._experiments[job["source_connection_id"]]),
        }

    def insert(self, connection: str) -> str:
        now = _milliseconds(datetime.now(UTC))
        run = self._store.create_run(self._experiments[connection], "worker", now, tags=[], run_name="sync")
        return str(UUID(run.info.run_id))

    def transition(self, id: str) -> None:
        now = _milliseconds(datetime.now(UTC))
        self._store.update_run_info(UUID(id).hex, RunStatus.FINISHED, now, run_name=None)

    def newest(self, connection: str, limit: int) -> Sequence[Run]:
        experiments = [self._experiments[connection]]
        records: Sequence[Run] = self._store.search_runs(
            experiments, "", ViewType.ACTIVE_ONLY, limit, ["attributes.start_time DESC"]
        )
        return records

    def get(self, id: str) -> Run:
        return self._store.get_run(UUID(id).hex)

    def latest(self, connections: Sequence[str]) -> Sequence[Run]:
        return [record for connection in connections for record in self.newest(connection, 1)]

    def id_of(self, record: Run) -> str:
        return str(UUID(record.info.run_id))

    def pragma(self, name: str) -> object:
        return read_pragma(self._store.engine, name)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
