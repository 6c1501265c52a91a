"""Meltano's Job model: a run a job, its job_name the connection.

Its row has no counts, and its payload holds the error. Its table has no index but the integer primary key, by
which a run is found here. It keeps no newest run of each job_name in one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from meltano.core.job import JobFinder
from meltano.core.job.job import Job, State
from meltano.core.migration_service import MigrationService
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from benchmarks.peers.engines import read_pragma, set_durability, write_ahead
from benchmarks.peers.peer import Durability

STATES = {"COMPLETED": State.SUCCESS, "FAILED": State.FAIL}


class Meltano:
    """The model on the engine that its project makes (db.project_engine), the schema by its own migrations."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        set_durability(durability)
        self._engine = create_engine(f"sqlite:///{folder / 'meltano.db'}", poolclass=NullPool)
        write_ahead(self._engine)
        MigrationService(self._engine).upgrade(silent=True)
        self._keys: dict[str, int] = {}

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(Job), [_values(job) | {"id": n} for n, job in enumerate(jobs, 1)])
        self._keys = {job["id"]: n for n, job in enumerate(jobs, 1)}

    def insert(self, connection: str) -> str:
        with Session(self._engine) as session:
            job = Job(job_name=connection, started_at=datetime.now(UTC)).save(session)
            return str(job.id)

    def transition(self, id: str) -> None:
        with Session(self._engine) as session:
            job = session.get_one(Job, int(id))
            job.start()
            job.save(session)

    def newest(self, connection: str, limit: int) -> Sequence[Job]:
        with Session(self._engine) as session:
            query = session.query(Job).filter(Job.job_name == connection).order_by(Job.started_at.desc())
            records: Sequence[Job] = query.limit(limit).all()
            return records

    def get(self, id: str) -> Job:
        with Session(self._engine) as session:
            return session.get_one(Job, self._keys[id])

    def latest(self, connections: Sequence[str]) -> Sequence[Job]:
        with Session(self._engine) as session:
            return [JobFinder(connection).latest(session) for connection in connections]

    def id_of(self, record: Job) -> str:
        return str(record.run_id)

    def pragma(self, name: str) -> object:
        return read_pragma(self._engine, name)


def _values(job: dict[str, Any]) -> dict[str, Any]:
    created, completed = (datetime.fromisoformat(job[name]) for name in ("created_at", "completed_at"))
    return {
        "job_name": job["source_connection_id"],
        "run_id": UUID(job["id"]),
        "_state": STATES[job["status"]].name,
        "started_at": created,
        "last_heartbeat_at": completed,
        "ended_at": completed,
        "payload": {"error": job["error"]} if job["error"] else {},
        "trigger": None,
    }
