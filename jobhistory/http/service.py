"""A history as it is served: its calls run in threads, and each key sees what it may."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import anyio.from_thread
import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import HTTPException
from starlette.requests import Request

from jobhistory.errors import JobNotFoundError, SourceConnectionNotFoundError
from jobhistory.history import JobHistory
from jobhistory.http.auth import Authorize, Bearer, Header, check_origin
from jobhistory.job import SyncJob
from jobhistory.repository import SourceConnection

THREADS = 8
"""For what is read."""
WRITERS = 4
"""Threads for what is written, apart from those: where one writer holds the storage, all others wait for it, and those
who only look need not. More would only wait for each other."""
_REALM = 'Bearer realm="jobhistory"'
_INVALID = f'{_REALM}, error="invalid_token"'
INSUFFICIENT = f'{_REALM}, error="insufficient_scope"'
"""Of a key that is valid, but not for this: https://www.rfc-editor.org/rfc/rfc6750#section-3.1."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Service:
    """What the API and the page stand on.

    Args:
        history: what is served.
        authorize: who may see what; None: everybody everything.
    """

    def __init__(self, history: JobHistory, authorize: Authorize | None) -> None:
        self.history = history
        self.is_open = authorize is None
        self._authorize = authorize
        self._is_awaited = any(map(inspect.iscoroutinefunction, (authorize, getattr(authorize, "__call__", None))))  # noqa: B004  an object's, to look at
        self._limiter, self._writers = CapacityLimiter(THREADS), CapacityLimiter(WRITERS)

    async def call(self, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
        """Call what blocks, in a thread; once begun it is waited for, also where nobody wants its result any more."""
        return await anyio.to_thread.run_sync(partial(function, *args, **options), limiter=self._limiter)

    async def write(self, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
        """As `call`, for what may have to wait for another's write."""
        return await anyio.to_thread.run_sync(partial(function, *args, **options), limiter=self._writers)

    async def admit(self, request: Request, bearer: Bearer, header: Header) -> None:
        """Note the request's key as its state's `key`; raise 401 where there is none, or one that nobody has."""
        request.state.key = key = bearer.credentials if bearer else header
        if self.is_open:
            check_origin(request)  # a browser brings no key, so that any page could have sent it
        elif key is None:
            raise HTTPException(401, "An API key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": _REALM})
        elif not await self.allows(key, None):
            raise HTTPException(401, "The API key is not valid", {"WWW-Authenticate": _INVALID})

    async def allows(self, key: str | None, source_connection_id: UUID | None) -> bool:
        """Whether the key may see the connection; for None, whether it is a key."""
        if self._authorize is None:
            return True
        if key is None:
            return False
        if self._is_awaited:
            answer: Any = self._authorize(key, source_connection_id)
            return bool(await answer)
        return await self.call(_ask, self._authorize, key, source_connection_id)

    async def check(self, key: str | None, source_connection_id: UUID) -> None:
        """Raise SourceConnectionNotFoundError where the connection is somebody else's, or there is none."""
        if not await self.allows(key, source_connection_id):
            raise SourceConnectionNotFoundError(source_connection_id)
        await self.call(self.history.list_jobs, source_connection_id, limit=1)

    async def job(self, key: str | None, source_connection_id: UUID, job_id: UUID) -> SyncJob:
        """The job, which must be the connection's. Raises as `check`, and JobNotFoundError."""
        await self.check(key, source_connection_id)
        job = await self.call(self.history.get, job_id)
        if job.source_connection_id != source_connection_id:
            raise JobNotFoundError(job_id)
        return job

    async def connections(self, key: str | None, *, limit: int, after: UUID | None) -> list[SourceConnection]:
        """The connections that the key may see, in the order of their ids: at most `limit`, those behind `after`."""
        known = await self.call(self.history.connections)
        return await self._seen(key, [each for each in known if after is None or each.id > after], limit)

    async def _seen(self, key: str | None, connections: list[SourceConnection], limit: int) -> list[SourceConnection]:
        """The first of the connections that the key may see, at most `limit`."""
        if (authorize := self._authorize) is None:
            return connections[:limit]
        if not self._is_awaited:
            # All in one thread: to go to one and come back takes longer than most answers.
            allowed = (each for each in connections if key is not None and _ask(authorize, key, each.id))
            return await self.call(lambda: [*islice(allowed, limit)])
        seen: list[SourceConnection] = []
        for connection in connections:
            if len(seen) < limit and await self.allows(key, connection.id):
                seen.append(connection)
        return seen


def _ask(authorize: Authorize, key: str, source_connection_id: UUID | None) -> bool:
    """What the function says, called in this thread; what it gives to be awaited is no answer yet, and no yes."""
    answer = authorize(key, source_connection_id)
    return bool(anyio.from_thread.run(_awaited, answer) if inspect.isawaitable(answer) else answer)


async def _awaited(answer: Awaitable[bool]) -> bool:
    return await answer
