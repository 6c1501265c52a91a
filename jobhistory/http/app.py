"""The whole application: the API, the page, and what a server owes its clients."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response

from jobhistory.history import JobHistory
from jobhistory.http import events, limits
from jobhistory.http.api import Api, api_router
from jobhistory.http.auth import Authorize
from jobhistory.http.hosts import HostsMiddleware
from jobhistory.http.page import page_router
from jobhistory.http.problems import problem_of
from jobhistory.http.schema import add_examples
from jobhistory.http.service import Service


def create_app(
    history: JobHistory,
    authorize: Authorize | None = None,
    *,
    hosts: Collection[str] | None = None,
    comment_every: float = events.COMMENT_EVERY,
    seconds: float = limits.SECONDS,
) -> FastAPI:
    """The API and the page, as an ASGI application: `uvicorn.run(create_app(history, authorize))`.

    Args:
        history: what it serves; closed by whoever opened it.
        authorize: as create_router has it. None: everybody who reaches it may do everything.
        hosts: the names by which it may be called, without ports; None for any.
        comment_every: seconds of silence after which an event stream sends a comment.
        seconds: how long a request may take until its answer begins.
    """
    app = Application(
        title="jobhistory",
        summary="What ran, newest first; what runs now; why it failed; stop that one.",
        version="1",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.feed = feed = events.Feed(history)
    service = Service(history, authorize)
    app.include_router(api_router(Api(service, feed, comment_every)))
    app.include_router(page_router(service, feed, comment_every))
    for error in (HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(error, _problem)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(limits.LimitsMiddleware, seconds=seconds)
    if hosts is not None:
        app.add_middleware(HostsMiddleware, hosts=hosts)
    return app


class Application(FastAPI):
    """A FastAPI whose document holds the contract's examples."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document."""
        if self.openapi_schema is None:
            add_examples(super().openapi())
        return super().openapi()


async def _problem(_: Request, error: Exception) -> Response:
    return problem_of(error)
