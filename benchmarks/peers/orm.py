"""SQLAlchemy's ORM: the same nineteen fields as a mapped class, compared and set by its version column."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON, Index, create_engine, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from benchmarks.peers.engines import read_pragma, set_durability, write_ahead
from benchmarks.peers.peer import Durability


class Base(DeclarativeBase):
    """What the mapped class inherits."""


class Job(Base):
    """One job, and the index that lists it."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_newest", "source_connection_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    source_connection_id: Mapped[UUID]
    status: Mapped[str]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    duration_seconds: Mapped[float | None]
    entities_inserted: Mapped[int] = mapped_column(default=0)
    entities_updated: Mapped[int] = mapped_column(default=0)
    entities_deleted: Mapped[int] = mapped_column(default=0)
    entities_failed: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None]
    error_details: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime]
    cancel_requested_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    # `metadata` is taken by the base class.
    job_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON)
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  as SQLAlchemy has it


class ORM:
    """A session for each call, as a service has one for each request."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        set_durability(durability)
        self._engine = create_engine(f"sqlite:///{folder / 'orm.db'}")
        write_ahead(self._engine)
        Base.metadata.create_all(self._engine)

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        with Session(self._engine) as session:
            session.execute(insert(Job), [_values(job) for job in jobs])
            session.commit()

    def insert(self, connection: str) -> str:
        with Session(self._engine) as session:
            id = uuid4()
            now = datetime.now(UTC).replace(tzinfo=None)
            session.add(Job(id=id, source_connection_id=UUID(connection), status="PENDING", created_at=now))
            session.commit()
            return str(id)

    def transition(self, id: str) -> None:
        with Session(self._engine) as session:
            job = session.get_one(Job, UUID(id))
            job.status = "RUNNING"
            job.started_at = datetime.now(UTC).replace(tzinfo=None)
            session.commit()

    def newest(self, connection: str, limit: int) -> Sequence[Job]:
        page = select(Job).where(Job.source_connection_id == UUID(connection))
        with Session(self._engine) as session:
            records: Sequence[Job] = session.scalars(page.order_by(Job.created_at.desc()).limit(limit)).all()
            return records

    def get(self, id: str) -> Job:
        with Session(self._engine) as session:
            record: Job = session.get_one(Job, UUID(id))
            return record

    def latest(self, connections: Sequence[str]) -> Sequence[Job]:
        wanted = Job.source_connection_id.in_([UUID(connection) for connection in connections])
        key = (Job.source_connection_id, func.max(Job.created_at).label("created_at"))
        last = select(*key).where(wanted).group_by(Job.source_connection_id).subquery()
        same = (Job.source_connection_id == last.c.source_connection_id) & (Job.created_at == last.c.created_at)
        with Session(self._engine) as session:
            records: Sequence[Job] = session.scalars(select(Job).join(last, same)).all()
            return records

    def id_of(self, record: Job) -> str:
        return str(record.id)

    def pragma(self, name: str) -> object:
        return read_pragma(self._engine, name)


def _values(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_metadata" if name == "metadata" else name: UUID(value)
        if name in ("id", "source_connection_id")
        else datetime.fromisoformat(value).replace(tzinfo=None)
        if name.endswith("_at") and value
        else value
        for name, value in job.items()
    }
