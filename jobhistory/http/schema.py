"""What goes into the API and comes out, as OpenAPI says it, with the contract's words and examples."""

from __future__ import annotations

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema

from jobhistory.errors import InvalidJobError, InvalidLimitError
from jobhistory.ids import parse_id
from jobhistory.job import MAX_COUNT
from jobhistory.repository import MAX_LIMIT, Cursor, check_limit
from jobhistory.status import JobStatus

# ---- What comes out

_UTC = {"type": ["string", "null"], "format": "date-time"}
_Count = Annotated[int, Field(ge=0, le=MAX_COUNT, json_schema_extra={"format": "int64"})]

COMPLETED: dict[str, Any] = {
    "id": "770e8400-e29b-41d4-a716-446655440002",
    "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "COMPLETED",
    "started_at": "2024-03-15T12:00:00Z",
    "completed_at": "2024-03-15T12:05:32Z",
    "duration_seconds": 332.5,
    "entities_inserted": 45,
    "entities_updated": 12,
    "entities_deleted": 3,
    "entities_failed": 0,
    "error": None,
    "error_details": None,
}
FAILED: dict[str, Any] = {
    "id": "660e8400-e29b-41d4-a716-446655440001",
    "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "FAILED",
    "started_at": "2024-03-14T08:00:15Z",
    "completed_at": None,
    "duration_seconds": None,
    "entities_inserted": 0,
    "entities_updated": 0,
    "entities_deleted": 0,
    "entities_failed": 0,
    "error": "Authentication failed: GitHub personal access token is invalid or expired",
    "error_details": None,
}


class Job(BaseModel):
    """One run of a sync."""

    model_config = ConfigDict(extra="forbid")

    id: UUID = Field(description="Unique UUID identifier of the sync job")
    source_connection_id: UUID = Field(description="ID of the source connection this job belongs to")
    status: JobStatus = Field(description="Job status: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, or CANCELLING")
    started_at: Annotated[str | None, WithJsonSchema(_UTC)] = Field(
        description="When the job started execution (ISO 8601)"
    )
    completed_at: Annotated[str | None, WithJsonSchema(_UTC)] = Field(description="When the job finished (ISO 8601)")
    duration_seconds: float | None = Field(ge=0, description="Total execution time in seconds")
    entities_inserted: _Count = Field(description="Number of new entities created")
    entities_updated: _Count = Field(description="Number of existing entities updated")
    entities_deleted: _Count = Field(description="Number of entities removed")
    entities_failed: _Count = Field(description="Number of entities that failed to process")
    error: str | None = Field(description="Error message if the job failed")
    error_details: dict[str, Any] | None = Field(description="Additional error context for debugging")


class Connection(BaseModel):
    """A source connection, and how its newest sync went."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    name: str | None
    newest_job: Job | None = Field(description="null where it has none yet")


class Health(BaseModel):
    """The server answers, and so does its storage."""

    model_config = ConfigDict(extra="forbid")

    status: str = Field(json_schema_extra={"const": "ok"})


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    detail: str = Field(description="A plain sentence")


def problems(**details: str) -> dict[int | str, dict[str, Any]]:
    """The answers that are problems, as `s404="the sentence"`, beside those that every operation may give."""
    every = {"s503": "The storage failed, and nothing was written: try again", **details}
    return {
        name.removeprefix("s"): {
            "description": detail,
            "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
        }
        for name, detail in sorted(every.items())
    }


def add_examples(document: dict[str, Any]) -> None:
    """Put the contract's examples into the OpenAPI document; FastAPI by itself would leave their nulls out."""
    for path, answer in (("", [COMPLETED, FAILED]), ("/{job_id}", COMPLETED)):
        operation = document["paths"][f"/v1/source-connections/{{source_connection_id}}/jobs{path}"]["get"]
        operation["responses"]["200"]["content"]["application/json"]["example"] = answer
    document["components"]["schemas"]["Job"]["examples"] = [COMPLETED, FAILED]


# ---- What goes in

_DIGITS = re.compile("[0-9]{1,4}", re.ASCII)
_FLAGS = {"true": True, "false": False}


def _limit(text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise InvalidLimitError(text, MAX_LIMIT)
    return check_limit(int(text))


def _status(text: object) -> JobStatus:
    try:
        return JobStatus(str(text))
    except ValueError:
        raise InvalidJobError("status", f"must be one of {', '.join(JobStatus)}", text) from None


def _flag(text: str) -> bool:
    try:
        return _FLAGS[text]
    except KeyError:
        raise InvalidJobError("exclusive", "must be true or false", text) from None


def _uuid(*examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": "uuid", "examples": examples})


ConnectionId = Annotated[
    UUID,
    BeforeValidator(parse_id),
    _uuid(COMPLETED["source_connection_id"]),
    Path(description="Unique UUID identifier of the source connection"),
]
JobId = Annotated[
    UUID,
    BeforeValidator(parse_id),
    _uuid(COMPLETED["id"]),
    Path(description="Unique UUID identifier of the sync job"),
]
Limit = Annotated[
    int,
    BeforeValidator(_limit),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100, "examples": [10]}),
    Query(description="Maximum number of jobs to return (1-1000)"),
]
Before = Annotated[
    Cursor | None,
    PlainValidator(Cursor.parse),
    WithJsonSchema({"type": "string", "format": "cursor"}),
    Query(description="Where the page before this one ended, as its Link header says; with the same status"),
]
After = Annotated[
    UUID | None,
    BeforeValidator(parse_id),
    _uuid(COMPLETED["source_connection_id"]),
    Query(description="The last connection of the page before this one, as its Link header says"),
]
Statuses = Annotated[
    list[Annotated[JobStatus, BeforeValidator(_status)]] | None,
    Query(alias="status", description="Only jobs in this status; may be repeated"),
]
Exclusive = Annotated[
    bool,
    BeforeValidator(_flag),
    WithJsonSchema({"type": "boolean", "default": False}),
    Query(description="409 where a job of this connection is not finished yet"),
]
LastEventId = Annotated[
    str | None,
    WithJsonSchema({"type": "string"}),
    Header(alias="Last-Event-ID", description="The id of the last event that came: what came after it follows"),
]
