"""A server as `jobhistory serve` runs it, on loopback, in a thread of this process."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx2
from starlette.types import ASGIApp, Receive, Scope, Send

from jobhistory.history import JobHistory
from jobhistory.http import Tokens, create_app
from jobhistory.http.server import Protocol, Server

DOCS = UUID("550e8400-e29b-41d4-a716-446655440000")
OTHERS = UUID("550e8400-e29b-41d4-a716-446655440001")
UNKNOWN = UUID("550e8400-e29b-41d4-a716-446655440002")
KEY = "key-of-everybody"
DOCS_KEY = "key-of-docs"
TOKENS = Tokens({KEY: None, DOCS_KEY: {DOCS}})
JOBS = f"/v1/source-connections/{DOCS}/jobs"
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For a client that speaks plain HTTP: to load the world's certificates takes longer than most tests."""


class Stage:
    """One server for many applications, one after the other: to start one takes longer than most tests."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(feed=self)
        self.app: ASGIApp | None = None
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)

    def end(self) -> None:
        """Nothing: what is left open is closed."""

    @contextmanager
    def serving(self, app: ASGIApp, **options: Any) -> Iterator[httpx2.Client]:  # noqa: ANN401  the client's own
        """A client of the application, with the key to all."""
        self.app = app
        usual = {"base_url": self.url, "headers": {"Authorization": f"Bearer {KEY}"}, "verify": NO_CERTIFICATES}
        with httpx2.Client(**{**usual, "timeout": 60, **options}) as client:
            yield client

    @contextmanager
    def serving_history(self, history: JobHistory, **options: Any) -> Iterator[httpx2.Client]:  # noqa: ANN401  create_app's own
        """A client of the history's application."""
        with self.serving(create_app(history, options.pop("authorize", TOKENS), **options)) as client:
            yield client


@contextmanager
def running(app: Any, protocol: type[Protocol] = Protocol) -> Iterator[str]:  # noqa: ANN401  what Server takes, or a Stage
    """The URL that the application is served at."""
    server = Server(app, protocol)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
