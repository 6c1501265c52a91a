"""The page: connections, a connection's history, a job's story; made here, without a script but for what is live."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlencode
from uuid import UUID

import attrs
from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.sse import format_sse_event
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from jobhistory.errors import JobHistoryError, SourceConnectionNotFoundError
from jobhistory.http.auth import check_origin
from jobhistory.http.charts import chart, spark
from jobhistory.http.events import EventStream, Feed, stream
from jobhistory.http.problems import meaning
from jobhistory.http.schema import After, Before, ConnectionId, JobId, Statuses
from jobhistory.http.service import Service
from jobhistory.job import SyncJob
from jobhistory.repository import Change, Cursor, SourceConnection
from jobhistory.stats import Stats, took
from jobhistory.status import JobStatus
from jobhistory.times import span, to_wire

COOKIE = "jobhistory_key"
_PAGE = 100
_SPARKS = 30
_SHOWN = 64
_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_STORY = (
    ("created_at", "Queued"),
    ("started_at", "Started"),
    ("progress_at", "Last progress"),
    ("heartbeat_at", "Last sign of life"),
    ("cancel_requested_at", "Cancel requested"),
    ("completed_at", "Ended"),
)
_COUNTS = ("inserted", "updated", "deleted", "failed")


def page_router(service: Service, feed: Feed, comment_every: float) -> APIRouter:
    """The page's routes, none of them in the API's document."""
    page = _Page(service, feed, comment_every)
    router = APIRouter(include_in_schema=False, route_class=page.route_class())
    connection = "/connections/{source_connection_id}"
    job = f"{connection}/jobs/{{job_id}}"
    for path, endpoint in (
        ("/", page.connections),
        (connection, page.history),
        (job, page.job),
        (f"{job}/cancel", page.confirm),
        ("/live", page.live),
        (f"{connection}/live", page.live_of),
        ("/sign-in", page.sign_in),
    ):
        router.add_api_route(path, endpoint, methods=["GET", "HEAD"])
    for path, endpoint in (
        (f"{job}/cancel", page.cancel),
        ("/sign-in", page.enter),
        ("/sign-out", page.leave),
    ):
        router.add_api_route(path, endpoint, methods=["POST"])
    router.mount("/static", _Files(packages=[("jobhistory.http", "static")]))
    return router


class _Files(StaticFiles):
    """The pages' style and script, which a browser asks about each time: another version's do not fit these pages."""

    def file_response(self, *args: Any, **options: Any) -> Response:  # noqa: ANN401  StaticFiles' own
        """The file, or that it is the same still."""
        answer = super().file_response(*args, **options)
        answer.headers.update({"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"})
        return answer


class _SignInError(Exception):
    """The visitor has no key, or one that is not valid."""


class _Page:
    """What each address shows."""

    def __init__(self, service: Service, feed: Feed, comment_every: float) -> None:
        self._service = service
        self._history = service.history
        self._feed = feed
        self._comment_every = comment_every
        self._templates = Environment(
            loader=PackageLoader("jobhistory.http"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(span=span, wire=_wire, brief=_brief, pretty=_pretty)
        self._templates.globals.update(spark=spark, took=took, statuses=[*JobStatus], is_open=service.is_open)

    def route_class(self) -> type[APIRoute]:
        """A route whose errors are pages, and which asks who is there."""
        page = self

        class Route(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def answer(request: Request) -> Response:
                    try:
                        return await handle(request)
                    except _SignInError:
                        return _redirect(request, f"/sign-in?{urlencode({'next': _here(request)})}")
                    except (JobHistoryError, RequestValidationError, HTTPException) as error:
                        status, detail = meaning(error)
                        return page._render(request, "problem.html", status=status, detail=detail)

                return answer

        return Route

    # ---- Looking

    async def connections(self, request: Request, after: After = None) -> Response:
        """All connections, each with how its last jobs went."""
        key = await self._key(request)
        connections = await self._service.connections(key, limit=_PAGE + 1, after=after)
        shown = connections[:_PAGE]
        ids = [connection.id for connection in shown]
        newest = await self._service.call(self._history.newest_jobs, ids, per_connection=_SPARKS)
        return await self._rendered(
            request,
            "connections.html",
            lines=[Line(connection, newest[connection.id]) for connection in shown],
            following=_query(after=str(shown[-1].id)) if len(connections) > _PAGE else None,
            is_first=after is None,
            live="/live",
        )

    async def history(
        self,
        request: Request,
        source_connection_id: ConnectionId,
        before: Before = None,
        status: Statuses = None,
    ) -> Response:
        """One connection's jobs, newest first."""
        connection = await self._connection(await self._key(request), source_connection_id)
        wanted = frozenset(status) if status else None
        jobs = await self._service.call(
            self._history.list_jobs, source_connection_id, limit=_PAGE + 1, before=before, statuses=wanted
        )
        shown = jobs[:_PAGE]
        base = _base(request)
        return await self._rendered(
            request,
            "history.html",
            connection=connection,
            jobs=shown,
            summary=Stats.of(shown),
            chart=chart(shown, self._history.clock(), lambda job: _url(base, job)),
            wanted=wanted or frozenset(),
            toggled={each: _query(status=sorted((wanted or frozenset()) ^ {each})) for each in JobStatus},
            following=(
                _query(status=sorted(wanted or ()), before=str(Cursor.after(shown[-1], wanted)))
                if len(jobs) > _PAGE
                else None
            ),
            is_first=before is None,
            newest=_query(status=sorted(wanted or ())),
            live=f"/connections/{connection.id}/live",
        )

    async def job(self, request: Request, source_connection_id: ConnectionId, job_id: JobId) -> Response:
        """One job's whole story."""
        key = await self._key(request)
        job = await self._service.job(key, source_connection_id, job_id)
        return await self._rendered(
            request,
            "job.html",
            connection=await self._connection(key, source_connection_id),
            job=job,
            story=_story(job),
            counts=[(name, getattr(job, f"entities_{name}")) for name in _COUNTS],
            live=f"/connections/{source_connection_id}/live" if job.is_active else None,
        )

    # ---- Acting

    async def confirm(self, request: Request, source_connection_id: ConnectionId, job_id: JobId) -> Response:
        """Ask whether the job is really to be cancelled."""
        key = await self._key(request)
        job = await self._service.job(key, source_connection_id, job_id)
        connection = await self._connection(key, source_connection_id)
        return await self._rendered(request, "cancel.html", connection=connection, job=job)

    async def cancel(self, request: Request, source_connection_id: ConnectionId, job_id: JobId) -> Response:
        """Cancel it, and show what became of it."""
        check_origin(request)
        job = await self._service.job(await self._key(request), source_connection_id, job_id)
        await self._service.write(self._history.cancel, job.id)
        return _redirect(request, _url("", job))

    # ---- What is live: the page asks for itself again when there is news

    async def live(self, request: Request) -> Response:
        """A message for each change of a job that the visitor may see."""
        key, known = await self._key(request), {}
        after = await self._feed.place(request.headers.get("last-event-id"))

        async def allows(id: UUID) -> bool:
            if id not in known:
                known[id] = await self._service.allows(key, id)
            return known[id]

        return self._stream(after, allows)

    async def live_of(self, request: Request, source_connection_id: ConnectionId) -> Response:
        """A message for each change of the connection's jobs."""
        await self._service.check(await self._key(request), source_connection_id)
        after = await self._feed.place(request.headers.get("last-event-id"))

        async def is_its(id: UUID) -> bool:
            return id == source_connection_id

        return self._stream(after, is_its)

    def _stream(self, after: str | None, is_told: Callable[[UUID], Coroutine[Any, Any, bool]]) -> Response:
        async def event(change: Change) -> bytes | None:
            if not await is_told(change.job.source_connection_id):
                return None
            return format_sse_event(data_str=str(change.job.id), id=change.token)

        return EventStream(stream(self._feed, after, every=self._comment_every, event=event))

    # ---- Who is there

    async def sign_in(self, request: Request, next: str = "/") -> Response:
        """Ask for a key."""
        return await self._rendered(request, "sign_in.html", next=_local(next), is_wrong=False)

    async def enter(self, request: Request) -> Response:
        """Take the key, and keep it in a cookie that no script reads and no other site's form sends."""
        check_origin(request)
        form = parse_qs((await request.body()).decode(errors="replace"))
        key, following = ((form.get(name) or [""])[0] for name in ("key", "next"))
        if not await self._service.allows(key or None, None):
            return self._render(request, "sign_in.html", status=403, next=_local(following), is_wrong=True)
        answer = _redirect(request, _local(following))
        answer.set_cookie(COOKIE, key, path=_base(request) or "/", secure=request.url.scheme == "https", httponly=True)
        return answer

    async def leave(self, request: Request) -> Response:
        """Forget the key."""
        check_origin(request)
        answer = _redirect(request, "/sign-in")
        answer.delete_cookie(COOKIE, path=_base(request) or "/")
        return answer

    async def _key(self, request: Request) -> str | None:
        key = request.cookies.get(COOKIE)
        if not await self._service.allows(key, None):
            raise _SignInError
        return key

    async def _connection(self, key: str | None, id: UUID) -> SourceConnection:
        if await self._service.allows(key, id):
            for connection in await self._service.call(self._history.connections):
                if connection.id == id:
                    return connection
        raise SourceConnectionNotFoundError(id)

    async def _rendered(self, request: Request, template: str, **values: Any) -> Response:  # noqa: ANN401  the template's
        # In a thread: a long table takes longer than others should wait for.
        return await self._service.call(self._render, request, template, **values)

    def _render(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        live: str | None = None,
        **values: Any,  # noqa: ANN401  as above
    ) -> Response:
        base = _base(request)
        text = self._templates.get_template(template).render(
            base=base,
            live=live and base + live,
            now=self._history.clock(),
            status=status,
            url=lambda job: _url(base, job),
            **values,
        )
        return HTMLResponse(text, status, _HEADERS)


@attrs.frozen
class Line:
    """A connection in the list of all, with its newest jobs, newest first."""

    connection: SourceConnection
    jobs: Sequence[SyncJob]

    @property
    def newest(self) -> SyncJob | None:
        """Its newest job."""
        return self.jobs[0] if self.jobs else None

    @property
    def streak(self) -> int:
        """How many of its newest jobs failed one after the other; those that did not end, or were cancelled, apart."""
        return Stats.of(self.jobs).failure_streak


def _story(job: SyncJob) -> list[tuple[str, datetime, float]]:
    """What happened, when, and how many seconds after what stands before it."""
    known = sorted((at, n, name) for n, (field, name) in enumerate(_STORY) if (at := getattr(job, field)) is not None)
    moments = [at for at, _, _ in known]
    since = [0.0, *((later - earlier).total_seconds() for earlier, later in pairwise(moments))]
    return [(name, at, seconds) for (at, _, name), seconds in zip(known, since, strict=True)]


def _base(request: Request) -> str:
    """Where the application is mounted."""
    base: str = request.scope.get("root_path", "")
    return base.rstrip("/")


def _here(request: Request) -> str:
    """What was asked for, from where the application is mounted on."""
    path, query = request.url.path.removeprefix(_base(request)), request.url.query
    return f"{path}?{query}" if query else path


def _url(base: str, job: SyncJob) -> str:
    return f"{base}/connections/{job.source_connection_id}/jobs/{job.id}"


def _redirect(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(_base(request) + path, 303, {"Cache-Control": "no-store"})


def _local(path: str) -> str:
    """The path, if it stays on this server."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _query(**values: str | Sequence[str]) -> str:
    return f"?{urlencode(values, doseq=True)}" if any(values.values()) else "?"


def _wire(moment: datetime) -> str:
    return to_wire(moment.replace(microsecond=0))


def _brief(text: str) -> str:
    """A text's first line, as far as a table has room."""
    first, *others = text.strip().splitlines() or [""]
    return first if len(first) <= _SHOWN and not others else f"{first[: _SHOWN - 1]}…"


def _pretty(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
