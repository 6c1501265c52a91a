"""Whose key is it, and which connections does it open."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import HTTPException, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from jobhistory.ids import parse_id

Authorize = Callable[[str, UUID | None], bool | Awaitable[bool]]
"""Whether this key may see, run and cancel the jobs of this source connection; with None, whether it is a key at all.

A coroutine function is awaited, any other is called in a thread.
"""


Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, description="The API key, as Authorization: Bearer KEY")),
]
"""The key in the header that the contract names."""
Header = Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="The API key"))]
"""The key in the header that existing clients send."""


def check_origin(request: Request) -> None:
    """Raise 403 for a write that a page of another site had a browser send, with what the browser knows.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    headers = request.headers
    origin = headers.get("origin")
    is_foreign = headers.get("sec-fetch-site", "none") not in {"same-origin", "none"} or (
        origin is not None and urlsplit(origin).netloc != headers.get("host")
    )
    if request.method not in {"GET", "HEAD"} and is_foreign:
        raise HTTPException(403, "Another site's page sent this request: it is refused")


class Tokens:
    """Keys, and the connections that each opens: None for all. An Authorize.

    Only their digests are held, and all are compared, each in constant time: how long it takes tells nothing.
    """

    def __init__(self, tokens: Mapping[str, Collection[UUID] | None]) -> None:
        self._known = [(_digest(token), None if ids is None else frozenset(ids)) for token, ids in tokens.items()]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a key a line; behind it the ids of the connections it opens, or none for all. `#` begins a comment.

        Raises OSError, and ValueError for a file with no key, a key that stands twice, and what is no id.
        """
        tokens: dict[str, Collection[UUID] | None] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            if words := line.partition("#")[0].split():
                token, *ids = words
                if token in tokens:
                    message = f"{path}: a key stands there twice"
                    raise ValueError(message)
                tokens[token] = {parse_id(id) for id in ids} or None
        if not tokens:
            message = f"{path} holds no key: write one a line"
            raise ValueError(message)
        return cls(tokens)

    async def __call__(self, token: str, source_connection_id: UUID | None) -> bool:
        """Whether the key is known, and opens the connection."""
        return self._some(token, lambda ids: ids is None or source_connection_id is None or source_connection_id in ids)

    async def opens_all(self, token: str, _: UUID | None = None) -> bool:
        """Whether the key is known, and opens all connections. An Authorize, for what tells of them together."""
        return self._some(token, lambda ids: ids is None)

    def _some(self, token: str, allows: Callable[[frozenset[UUID] | None], bool]) -> bool:
        digest, allowed = _digest(token), False
        for known, ids in self._known:
            allowed |= hmac.compare_digest(digest, known) and allows(ids)
        return allowed


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogatepass")).digest()
