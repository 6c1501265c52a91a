"""One route of the API: all its spellings, HEAD with GET, and every error a problem."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from jobhistory.errors import JobHistoryError
from jobhistory.http.problems import problem_of

# Behind whatever prefix the router was included with: the version may be missing, a slash may be too many.
_SPELLING = re.compile(r"(?:/v1)?(/source-connections(?:/.+?)?)/?\Z", re.DOTALL)


class Route(APIRoute):
    """A route as the contract spells it; clients also leave the /v1 out, and end with a slash."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match all spellings, and HEAD where GET is."""
        return super().matches({**scope, "path": _contracts_spelling(scope["path"]), "method": _method(scope)})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer HEAD as GET, without the body."""
        if (method := _method(scope)) != scope["method"]:
            scope, send = {**scope, "method": method}, _without_body(send)
        await super().handle(scope, receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Answer, or say what the problem is: whatever the application around this router does with errors."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except (JobHistoryError, RequestValidationError, HTTPException) as error:
                return problem_of(error)

        return answer


def _contracts_spelling(path: str) -> str:
    return _SPELLING.sub(r"/v1\1", path) if "/source-connections" in path else path


def _method(scope: Scope) -> str:
    method: str = scope.get("method", "")  # a WebSocket has none
    return "GET" if method == "HEAD" else method


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})  # also where the body would not end

    return send_head
