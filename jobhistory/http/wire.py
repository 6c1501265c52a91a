"""Jobs as bytes, and answers that a client keeps and asks about: ETag, 304 (RFC 9110, 8.8.3 and 13.1.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from jobhistory.abilities import JSONPage, ListsAsJSON
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import Cursor, Position, SourceConnection, position_of
from jobhistory.status import JobStatus
from jobhistory.times import to_wire

KEPT = {"Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key"}
"""Only who asked may keep it, and asks each time whether it still holds."""


def job_json(job: SyncJob) -> str:
    """What json.dumps gives for job.to_dict(), compact and in UTF-8, in a tenth of the time.

    Only texts need quoting, and error_details is JSON already. A property holds the two equal.
    """
    return (
        f'{{"id":"{job.id}","source_connection_id":"{job.source_connection_id}","status":"{job.status.value}",'
        f'"started_at":{_time(job.started_at)},"completed_at":{_time(job.completed_at)},'
        f'"duration_seconds":{_null if job.duration_seconds is None else repr(job.duration_seconds)},'
        f'"entities_inserted":{job.entities_inserted},"entities_updated":{job.entities_updated},'
        f'"entities_deleted":{job.entities_deleted},"entities_failed":{job.entities_failed},'
        f'"error":{_null if job.error is None else _quoted(job.error)},'
        f'"error_details":{job.error_details_json or _null}}}'
    )


def jobs_json(jobs: Iterable[SyncJob]) -> str:
    """A bare array."""
    return f"[{','.join(map(job_json, jobs))}]"


def page_of(
    history: JobHistory,
    source_connection_id: UUID,
    *,
    limit: int,
    before: Cursor | None,
    statuses: frozenset[JobStatus] | None,
) -> tuple[str, Cursor | None]:
    """A page of a list as a bare array, and where the next one begins, if there may be one.

    Straight from the storage where it can do that; else by way of the records. Raises as JobHistory.list_jobs.
    """
    page = None
    if isinstance(history.repository, ListsAsJSON):
        position = position_of(before, source_connection_id, statuses)
        page = history.repository.list_jobs_json(source_connection_id, limit=limit, before=position, statuses=statuses)
    if page is None:
        jobs = history.list_jobs(source_connection_id, limit=limit, before=before, statuses=statuses)
        if not jobs:
            return "[]", None
        page = JSONPage(jobs_json(jobs), len(jobs), Position.of(jobs[-1]))
    return page.json, Cursor(source_connection_id, page.last, statuses) if page.count == limit else None


def connections_json(newest: Iterable[tuple[SourceConnection, SyncJob | None]]) -> str:
    """A bare array of connections, each with its newest job."""
    members = (
        f'{{"id":"{connection.id}","name":{_null if connection.name is None else _quoted(connection.name)},'
        f'"newest_job":{_null if job is None else job_json(job)}}}'
        for connection, job in newest
    )
    return f"[{','.join(members)}]"


def kept(request: Request, body: str, headers: Mapping[str, str] | None = None) -> Response:
    """The JSON; or 304 and nothing, where the client has it already."""
    data = body.encode()
    # Weak: the same JSON, however it is compressed on its way.
    tag = f'W/"{blake2b(data, digest_size=16).hexdigest()}"'
    every = {**KEPT, "ETag": tag, **(headers or {})}
    if _matches(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=every)
    return Response(data, media_type="application/json", headers=every)


def _matches(asked: Iterable[str], tag: str) -> bool:
    opaque = tag.removeprefix("W/")
    each = (part.strip().removeprefix("W/") for line in asked for part in line.split(","))
    return any(part in ("*", opaque) for part in each)


_null = "null"
_quoted = json.JSONEncoder(ensure_ascii=False).encode


def _time(moment: datetime | None) -> str:
    return _null if moment is None else f'"{to_wire(moment)}"'
