"""/metrics, for Prometheus: of all that is written to the history, whoever writes it. Needs [prometheus] too."""

from __future__ import annotations

from fastapi import APIRouter, Depends, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from jobhistory.history import JobHistory
from jobhistory.http.auth import Authorize
from jobhistory.http.route import Route
from jobhistory.http.schema import problems
from jobhistory.http.service import INSUFFICIENT, Service
from jobhistory.integrations.prometheus import Exposition


def create_metrics_router(
    history: JobHistory,
    authorize: Authorize | None,
    *,
    is_key: Authorize | None = None,
    per_connection: bool = False,
) -> APIRouter:
    """`GET /metrics`, to include beside create_router, or in what create_app gives.

    Counters begin at nought with it, as Prometheus expects, and each request first reads what has changed since the
    one before. See jobhistory.integrations.prometheus for the metrics.

    Args:
        history: what it tells of; read at once, for where its changes end. Raises StorageError.
        authorize: as create_router has it, asked with the key and None alone: may it see the numbers of all
            connections? `Tokens.opens_all` is one. None: everybody may.
        is_key: asked the same way, whether it is a key at all, as create_router's is: one that is, but not for all
            connections, is told so (403). None: it is told as any other that it is not valid (401).
        per_connection: as PrometheusHook has it.
    """
    service = Service(history, authorize)
    keys = service if is_key is None else Service(history, is_key)
    exposition = Exposition(history, per_connection=per_connection)

    async def admit_to_all(request: Request) -> None:
        if not await service.allows(request.state.key, None):
            raise HTTPException(403, _NOT_ALL, {"WWW-Authenticate": INSUFFICIENT})

    async def metrics(request: Request) -> Response:
        """Retrieve metrics of all sync jobs, for Prometheus, in the format that Accept prefers."""
        body, content_type = await service.call(exposition.read, request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    router = APIRouter(route_class=Route)
    router.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        dependencies=[Depends(keys.admit), Depends(admit_to_all)],
        tags=["Server"],
        summary="Measure sync jobs",
        operation_id="metrics",
        response_class=Response,
        responses={200: _METRICS, **problems(s401="No API key, or one that is not valid", s403=_NOT_ALL)},
    )
    return router


_NOT_ALL = "The API key opens some connections, and metrics tell of all: use a key for all connections"
_TEXT = {"schema": {"type": "string"}}
_METRICS = {"description": "The metrics", "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}}
