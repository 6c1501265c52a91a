"""Changes as server-sent events: one reader a process, whose finds go to all who listen.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from itertools import takewhile
from typing import ParamSpec, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi.sse import format_sse_event
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from jobhistory.errors import InvalidCursorError, StorageError
from jobhistory.history import JobHistory
from jobhistory.repository import MAX_LIMIT, Change

COMMENT_EVERY = 15.0
"""Seconds of silence after which a stream says that it is still there: proxies cut what is idle."""
RECONNECT_AFTER = 2000
"""Milliseconds after which a browser that was cut off comes back."""
_NO_PLACE = "Last-Event-ID is not the id of an event: leave it out, and list what there is"
_THREADS = 3  # one for the reader, the others for those who catch up
_WAIT_AT_ONCE = 0.5
_PAUSE = 1.0
_KEPT = 4 * MAX_LIMIT
_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger("jobhistory")


class Feed:
    """What is written to a history, read once however many listen.

    The newest changes are kept; who listens only keeps its place among them, and reads by itself what it
    missed. So a slow client costs no memory, and every client resumes wherever it was. The reader begins with
    the first listener, and ends with the last.
    """

    def __init__(self, history: JobHistory) -> None:
        self._history = history
        self._limiter = CapacityLimiter(_THREADS)
        self._newest: dict[str, Change] = {}
        self._behind: str | None = None
        """The place that all those kept come after."""
        self._news = asyncio.Event()
        self._listeners = 0
        self._reader: asyncio.Task[None] | None = None
        self._ended = False

    async def place(self, token: str | None) -> str | None:
        """Where to begin: at the token, which is checked; without one, with what is still to come.

        Raises HTTPException for a token that is none.
        """
        if token is None:
            return await self._call(self._history.latest_change)
        try:
            await self._call(self._history.changes, token, limit=1)
        except InvalidCursorError as error:
            raise HTTPException(422, _NO_PLACE) from error
        return token

    def end(self) -> None:
        """Let all streams end: the server stops."""
        self._ended = True
        self._wake()

    async def listen(self, token: str | None, *, every: float) -> AsyncGenerator[list[Change]]:
        """The changes after `token`, as they come; an empty list where there was none for `every` seconds.

        Raises StorageError where the storage fails while the listener reads by itself.
        """
        self._listeners += 1
        if self._reader is None:
            self._behind = token
            self._reader = asyncio.create_task(self._read(token))
        try:
            while not self._ended:
                news = self._news  # before the look, so that nothing is missed in between
                found = await self._since(token)
                if found:
                    token = found[-1].token
                    yield found
                else:
                    try:
                        await asyncio.wait_for(news.wait(), every)
                    except TimeoutError:
                        yield []
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._reader.cancel()
                self._reader = None
                self._newest.clear()

    async def _since(self, token: str | None) -> list[Change]:
        if token != self._behind and token not in self._newest:
            return await self._call(self._history.changes, token, limit=MAX_LIMIT)
        behind = takewhile(lambda change: change.token != token, reversed(self._newest.values()))
        return [*behind][::-1]

    async def _call(self, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
        return await anyio.to_thread.run_sync(partial(function, *args, **options), limiter=self._limiter)

    async def _read(self, token: str | None) -> None:
        while True:
            if _server_stops():
                self.end()
            try:
                found = await self._call(self._history.wait_for_changes, token, timeout=_WAIT_AT_ONCE, limit=MAX_LIMIT)
            except StorageError as error:
                _log.warning("the feed cannot be read, and is tried again: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            if not found:
                continue
            token = found[-1].token
            self._newest |= {change.token: change for change in found}
            for old in [*self._newest][:-_KEPT]:
                del self._newest[old]
                self._behind = old
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _server_stops() -> bool:
    """Whether the uvicorn that serves this process was told to stop: it tells no application before all is answered.

    It would wait for ever for streams; what it was told stands in the object whose method its signals come to.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True


class EventStream(StreamingResponse):
    """Server-sent events, which nobody keeps and no proxy holds back."""

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def stream(
    feed: Feed, after: str | None, *, every: float, event: Callable[[Change], Awaitable[bytes | None]]
) -> AsyncGenerator[bytes]:
    """The frames of a stream: what `event` makes of each change, None for one that is not told.

    Its place in the feed is told with each event, and in each silence, so that a client that comes back reads
    nothing twice, and little that is not meant for it.
    """
    yield format_sse_event(comment="changes as they come", id=after, retry=RECONNECT_AFTER)
    async with aclosing(feed.listen(after, every=every)) as changes:
        async for batch in changes:
            if batch:
                after = batch[-1].token
            frames = [frame for change in batch if (frame := await event(change))]
            if frames:
                yield b"".join(frames)
            elif not batch:
                yield format_sse_event(comment="still here", id=after)
