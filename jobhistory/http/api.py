"""The API: what the contract describes, and what goes with it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends
from fastapi.sse import format_sse_event
from starlette.requests import Request
from starlette.responses import Response

from jobhistory.errors import SourceConnectionNotFoundError
from jobhistory.history import JobHistory
from jobhistory.http import schema
from jobhistory.http.auth import Authorize
from jobhistory.http.events import COMMENT_EVERY, EventStream, Feed, stream
from jobhistory.http.problems import NO_CONNECTION, NO_JOB
from jobhistory.http.route import Route
from jobhistory.http.schema import After, Before, ConnectionId, Exclusive, JobId, LastEventId, Limit, Statuses, problems
from jobhistory.http.service import Service
from jobhistory.http.wire import connections_json, job_json, kept, page_of
from jobhistory.job import SyncJob
from jobhistory.repository import Change, position_of


def create_router(
    history: JobHistory, authorize: Authorize | None, *, comment_every: float = COMMENT_EVERY
) -> APIRouter:
    """The API, for a service of yours: `app.include_router(create_router(history, authorize))`.

    Args:
        history: what it serves; closed by whoever opened it.
        authorize: called with the key of a request and a source connection's id, says whether the one may see
            the other; with None in place of the id, whether the key is valid at all. May be a coroutine
            function; any other is called in a thread. None: everybody may do everything.
        comment_every: seconds of silence after which an event stream sends a comment.
    """
    return api_router(Api(Service(history, authorize), Feed(history), comment_every))


def api_router(api: Api) -> APIRouter:
    """The routes of the API."""
    router = APIRouter(route_class=Route)
    connection = f"{_CONNECTIONS}/{{source_connection_id}}"
    admitted = {"dependencies": [Depends(api.service.admit)], "tags": ["Sync jobs"]}
    get: dict[str, Any] = {"methods": ["GET"], **admitted}
    post: dict[str, Any] = {"methods": ["POST"], **admitted}
    router.add_api_route(
        f"{connection}/jobs",
        api.list_jobs,
        summary="List sync jobs",
        operation_id="listJobs",
        response_model=list[schema.Job],
        response_description="An array of sync job objects, newest first",
        responses={200: _LISTED, 304: _UNCHANGED, **problems(s404=NO_CONNECTION, **_ANY)},
        **get,
    )
    router.add_api_route(
        f"{connection}/run",
        api.run,
        summary="Run a sync",
        operation_id="runSync",
        response_model=schema.Job,
        response_description="The new job, PENDING until a worker takes it",
        responses=problems(s404=NO_CONNECTION, s409="A job is not finished yet", **_ANY),
        **post,
    )
    # Before the job's own route, whose id it would be.
    router.add_api_route(
        f"{connection}/jobs/events",
        api.listen,
        summary="Follow sync jobs",
        operation_id="followJobs",
        status_code=200,
        response_class=EventStream,
        response_description="A stream of events, which does not end by itself",
        responses={200: _STREAM, **problems(s404=NO_CONNECTION, **_ANY)},
        **get,
    )
    router.add_api_route(
        f"{connection}/jobs/{{job_id}}",
        api.get_job,
        summary="Get a sync job",
        operation_id="getJob",
        response_model=schema.Job,
        responses={304: _UNCHANGED, **problems(s404=NO_JOB, **_ANY)},
        **get,
    )
    router.add_api_route(
        f"{connection}/jobs/{{job_id}}/cancel",
        api.cancel,
        summary="Cancel a sync job",
        operation_id="cancelJob",
        response_model=schema.Job,
        response_description="The job: CANCELLED where it was waiting, CANCELLING where its worker has to stop first",
        responses=problems(s404=NO_JOB, s409="It completed or failed already", **_ANY),
        **post,
    )
    router.add_api_route(
        _CONNECTIONS,
        api.list_connections,
        summary="List source connections",
        operation_id="listConnections",
        response_model=list[schema.Connection],
        response_description="An array of source connections in the order of their ids",
        responses={200: _LISTED, 304: _UNCHANGED, **problems(**_ANY)},
        **get,
    )
    router.add_api_route(
        "/healthz",
        api.health,
        tags=["Server"],
        summary="Is it well",
        operation_id="health",
        response_model=schema.Health,
        responses=problems(),
    )
    return router


_CONNECTIONS = "/v1/source-connections"
_ANY = {"s401": "No API key, or one that is not valid", "s422": "A parameter is not what it should be"}
_HEADER = {"schema": {"type": "string"}}
_LISTED = {
    "headers": {
        "ETag": {"description": "Send it as If-None-Match to be told only what changed", **_HEADER},
        "Link": {"description": 'The next page, as rel="next" (RFC 8288), where this one is full', **_HEADER},
    }
}
_UNCHANGED = {"description": "What If-None-Match names still holds"}
_STREAM = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}


class Api:
    """The operations; their docstrings are their descriptions in the OpenAPI document."""

    def __init__(self, service: Service, feed: Feed, comment_every: float) -> None:
        self.service = service
        self._history = service.history
        self._feed = feed
        self._comment_every = comment_every

    async def list_jobs(
        self,
        *,
        request: Request,
        source_connection_id: ConnectionId,
        limit: Limit = 100,
        before: Before = None,
        status: Statuses = None,
    ) -> Response:
        """Retrieve the sync job history for a source connection.

        Returns a list of sync jobs ordered by creation time (newest first). Each job includes status, timing
        information, and entity counts. Where there may be more, the Link header leads to the next page.
        """
        statuses = None if status is None else frozenset(status)
        # First what is wrong by itself, whosever the connection is.
        position_of(before, source_connection_id, statuses)
        if not await self.service.allows(request.state.key, source_connection_id):
            raise SourceConnectionNotFoundError(source_connection_id)
        page, following = await self.service.call(
            page_of, self._history, source_connection_id, limit=limit, before=before, statuses=statuses
        )
        headers = {}
        if following:
            given = [("limit", str(limit)), *(("status", each) for each in sorted(statuses or ()))]
            headers = _next(request, [*given, ("before", str(following))])
        return kept(request, page, headers)

    async def run(
        self, *, request: Request, source_connection_id: ConnectionId, exclusive: Exclusive = False
    ) -> Response:
        """Queue a sync job for a worker to pick up. The source connection must be registered already."""
        await self.service.check(request.state.key, source_connection_id)
        job = await self.service.write(
            self._history.enqueue,
            source_connection_id,
            exclusive=exclusive,
            register=False,
            metadata={"trigger": "http"},
        )
        return _fresh(job)

    async def listen(
        self, *, request: Request, source_connection_id: ConnectionId, last_event_id: LastEventId = None
    ) -> Response:
        """Follow the jobs of a source connection as they change.

        Server-sent events: each `job` event holds a job as it stands now, at least once. Without Last-Event-ID
        they begin with what is still to come; so listen first, then list.
        """
        await self.service.check(request.state.key, source_connection_id)
        after = await self._feed.place(last_event_id)

        async def event(change: Change) -> bytes | None:
            if change.job.source_connection_id != source_connection_id:
                return None
            return format_sse_event(data_str=job_json(change.job), event="job", id=change.token)

        return EventStream(stream(self._feed, after, every=self._comment_every, event=event))

    async def get_job(self, *, request: Request, source_connection_id: ConnectionId, job_id: JobId) -> Response:
        """Retrieve one sync job."""
        return kept(request, job_json(await self.service.job(request.state.key, source_connection_id, job_id)))

    async def cancel(self, *, request: Request, source_connection_id: ConnectionId, job_id: JobId) -> Response:
        """Ask a sync job to stop. Asking again changes nothing."""
        await self.service.job(request.state.key, source_connection_id, job_id)
        return _fresh(await self.service.write(self._history.cancel, job_id))

    async def list_connections(self, *, request: Request, limit: Limit = 100, after: After = None) -> Response:
        """Retrieve the source connections, each with its newest job."""
        page = await self.service.connections(request.state.key, limit=limit, after=after)
        newest = await self.service.call(self._history.newest_jobs, [connection.id for connection in page])
        headers = {}
        if len(page) == limit:
            headers = _next(request, [("limit", str(limit)), ("after", str(page[-1].id))])
        return kept(request, connections_json((each, next(iter(newest[each.id]), None)) for each in page), headers)

    async def health(self) -> Response:
        """Say whether the storage can be read."""
        await self.service.call(self._history.changes, limit=1)
        return Response(b'{"status":"ok"}', media_type="application/json", headers={"Cache-Control": "no-store"})


def _next(request: Request, query: list[tuple[str, str]]) -> dict[str, str]:
    # A path alone: what stands before it is known better to the client than behind a proxy.
    return {"Link": f'<{request.url.path}?{urlencode(query)}>; rel="next"'}


def _fresh(job: SyncJob) -> Response:
    return Response(job_json(job), media_type="application/json", headers={"Cache-Control": "no-store"})
