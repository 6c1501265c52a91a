"""By which names a server may be called: a page that had its own name point at this machine reads nothing.

https://owasp.org/www-community/attacks/DNS_Rebinding
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from jobhistory.http.problems import problem


class HostsMiddleware:
    """Answers 421 where the request is for another host."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is meant for us."""
        if scope["type"] == "http" and _name(Headers(scope=scope).get("host", "")) not in self._hosts:
            await problem(421, "This server does not go by that name")(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
