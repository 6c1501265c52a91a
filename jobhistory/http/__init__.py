"""The HTTP API, and the page. Needs `pip install 'jobhistory[http]'`.

app.py        create_app: both, with the limits, the compression and the headers of a server
api.py        create_router: the API alone, for a service of yours
service.py    a history as it is served: in threads, and to each key what it may see
auth.py       whose key is it, and which connections does it open
route.py      one route: its spellings, HEAD, and errors as problems
schema.py     what goes in and out, as OpenAPI says it
wire.py       jobs as bytes, answers that need not be sent twice
problems.py   errors as problem+json
metrics.py    create_metrics_router: /metrics, for Prometheus
events.py     changes as server-sent events, read once a process
limits.py     how long a request may take, and how large it may be
hosts.py      by which names the server may be called
page.py       the page, from templates/ and static/; charts.py draws
server.py     uvicorn, for `jobhistory serve`
"""

from __future__ import annotations

try:
    import fastapi  # noqa: F401  to name the extra where it is missing
    import jinja2  # noqa: F401  as above
except ImportError as error:
    message = f"jobhistory.http needs {error.name}: pip install 'jobhistory[http]'"
    raise ImportError(message, name=error.name) from error

from jobhistory.http.api import create_router
from jobhistory.http.app import create_app
from jobhistory.http.auth import Authorize, Tokens

__all__ = ["Authorize", "Tokens", "create_app", "create_router"]
