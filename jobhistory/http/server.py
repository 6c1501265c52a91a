"""uvicorn, as `jobhistory serve` runs it: it waits for no client for ever, and stops though streams are open."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
from asyncio import TimerHandle, Transport
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from jobhistory.http.problems import problem

HEAD_SECONDS = 10.0
"""A request's head must have come so long after its first byte, or the connection's beginning."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's head."""
_STOP_SECONDS = 5
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_log = logging.getLogger("jobhistory")


class Protocol(HttpToolsProtocol):
    """uvicorn's own, with an end to waiting for a request's head, and problems for what is no HTTP."""

    head_seconds = HEAD_SECONDS
    _waiting: TimerHandle | None = None
    _received = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait; and send what is written at once, be it the small rest of an answer."""
        super().connection_made(transport)
        # asyncio does so where a socket names its protocol, which one of socket.create_server does not: each answer
        # of a connection that is used again would come when the client's delayed ACK does (RFC 9293, 3.7.4).
        line = transport.get_extra_info("socket")
        if line.family in _INTERNET:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # noqa: FBT003  as C has it
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head is too large."""
        if self._waiting is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()
        self._received += len(data)
        if self._waiting is not None and self._received > MAX_HEAD:
            self._refuse(problem(431, f"The request's head has more than {MAX_HEAD:,} bytes"))
            return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Wait no more: the rest has a limit of its own."""
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong as every other answer does."""
        self._refuse(problem(400, msg))

    def _wait(self) -> None:
        self._received = 0
        self._waiting = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self, answer: Response) -> None:
        lines = [STATUS_LINE[answer.status_code], b"connection: close\r\n"]
        lines += [name + b": " + value + b"\r\n" for name, value in answer.raw_headers]
        self.transport.write(b"".join([*lines, b"\r\n", bytes(answer.body)]))
        self.transport.close()


class Server(uvicorn.Server):
    """Serves a create_app."""

    def __init__(self, app: FastAPI, protocol: type[Protocol] = Protocol) -> None:
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        super().__init__(config)
        self._feed = app.state.feed
        self._told_at = -math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        asyncio.get_running_loop().set_exception_handler(self._tell)
        await super().startup(sockets)

    def _tell(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what went wrong in the loop: in a line a second, and no trace, where there is no room to connect.

        asyncio tells that as often as its backlog is long, each second, until there is.
        """
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
            loop.default_exception_handler(context)
        elif loop.time() >= self._told_at + 1:
            self._told_at = loop.time()
            _log.error("nobody can connect for now: %s (more at a time: ulimit -n)", error.strerror)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the streams end, which would not by themselves; then the rest."""
        self._feed.end()
        await super().shutdown(sockets)
