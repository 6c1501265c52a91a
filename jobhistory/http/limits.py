"""How long a request may take, and how large it may be."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobhistory.http.problems import problem

MAX_BODY = 16 * 1024
"""Bytes; no request needs more than a form's few fields."""
SECONDS = 30.0
"""Until an answer begins: reading the request, and finding what to say."""


class TooLargeError(Exception):
    """The body goes on where it should have ended."""


class LimitsMiddleware:
    """Answers 413 to a body that is too large, before anything is done, and 503 where it takes too long.

    A write that had begun is not undone: what it says is that nobody waited for its end.
    """

    def __init__(self, app: ASGIApp, *, max_body: int = MAX_BODY, seconds: float = SECONDS) -> None:
        self._app = app
        self._max_body = max_body
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, within the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_in_time(message: Message) -> None:
            nonlocal started
            started = True
            deadline.reschedule(None)  # an answer that has begun may take as long as its reader
            await send(message)

        try:
            async with asyncio.timeout(self._seconds) as deadline:
                body = await self._body(scope, receive)
                await self._app(scope, _given(body, receive), send_in_time)
        except TooLargeError:
            answer = problem(413, f"The body has more than {self._max_body:,} bytes", {"Connection": "close"})
            await answer(scope, receive, send)
        except TimeoutError:
            if started or not deadline.expired():
                raise
            said = "It took too long: look whether it was done before you repeat it"
            await problem(503, said, {"Connection": "close"})(scope, receive, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body, which is small or refused."""
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body:
            raise TooLargeError
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise TooLargeError
            more = message.get("more_body", False)
        return body


def _given(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body first, and then what comes: that the client is gone."""
    first = True

    async def receive_rest() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return receive_rest
