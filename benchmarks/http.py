"""What the HTTP API costs: its lists over the same application answering constant bytes, asked by wrk.

python -m benchmarks.http [--jobs N] [--seconds S]; needs wrk (https://github.com/wg/wrk) and the extra [http].
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from starlette.requests import Request
from starlette.responses import Response

import jobhistory
from benchmarks.data import Histories, connection_ids
from jobhistory.http import Tokens, create_app
from jobhistory.http.api import Api, api_router
from jobhistory.http.events import Feed
from jobhistory.http.schema import Before, ConnectionId, Limit, Statuses
from jobhistory.http.server import Server
from jobhistory.http.service import Service
from jobhistory.http.wire import KEPT, jobs_json

CONNECTIONS = 100
LIMITS = (10, 1000)
KEY = "key"
_THREADS, _CLIENTS, _TURNS = 1, 16, 3
_TARGET = 0.5
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@attrs.frozen
class Load:
    """What wrk measured: requests a second, and the latency in milliseconds that one in a hundred exceeds."""

    rate: float
    p99: float


class Floor(Api):
    """The API, but that its list is made once: all that is around it stays."""

    def __init__(self, service: Service, feed: Feed, comment_every: float) -> None:
        super().__init__(service, feed, comment_every)
        [connection, *_] = connection_ids(CONNECTIONS)
        lists = {limit: service.history.list_jobs(connection, limit=limit) for limit in LIMITS}
        self._constant = {limit: jobs_json(jobs).encode() for limit, jobs in lists.items()}

    async def list_jobs(
        self,
        *,
        request: Request,
        source_connection_id: ConnectionId,
        limit: Limit = 100,
        before: Before = None,
        status: Statuses = None,
    ) -> Response:
        del request, source_connection_id, before, status
        return Response(self._constant[limit], media_type="application/json", headers=KEPT)


def serve(path: Path, listening: socket.socket) -> None:
    """Serve the history, and beside it its own answers as constant bytes, each with all that is checked before."""
    history = jobhistory.open(path)
    tokens = Tokens({KEY: None})
    app = create_app(history, tokens)
    floor = Floor(Service(history, tokens), app.state.feed, 15)
    app.include_router(api_router(floor), prefix="/floor", include_in_schema=False)
    Server(app).run([listening])


@contextmanager
def served(path: Path) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        process = multiprocessing.get_context("fork").Process(target=serve, args=(path, listening))
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A worker that reports as fast as it can, meanwhile; its job is taken out again."""
    stop = threading.Event()

    def write() -> None:
        with jobhistory.open(path) as history:
            job = history.start(history.enqueue(connection_ids(CONNECTIONS)[1]).id)
            count = 0
            while not stop.is_set():
                count += 1
                history.report(job.id, inserted=count)
            history.repository.delete_many([history.complete(job.id).id])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def asked(url: str, seconds: int) -> Load:
    """Ask for the URL again and again, from several clients at a time."""
    command = ["wrk", f"-t{_THREADS}", f"-c{_CLIENTS}", f"-d{seconds}s", "--latency", "-H", f"X-API-Key: {KEY}", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if wrong := re.search(r"Non-2xx.*|Socket errors.*", said):
        sys.exit(f"{url}: {wrong[0]}")
    [rate] = re.findall(r"Requests/sec:\s+([\d.]+)", said)
    [(p99, unit)] = re.findall(r"99%\s+([\d.]+)(us|ms|s)", said)
    return Load(float(rate), float(p99) * _MILLISECONDS[unit])


def compare(url: str, limit: int, seconds: int) -> tuple[Load, Load, float]:
    """The list, its floor, and the ratio of their rates: medians of several turns."""
    connection = connection_ids(CONNECTIONS)[0]
    ours, floor = [], []
    for _ in range(_TURNS):
        ours.append(asked(f"{url}/v1/source-connections/{connection}/jobs?limit={limit}", seconds))
        floor.append(asked(f"{url}/floor/v1/source-connections/{connection}/jobs?limit={limit}", seconds))
    ratio = statistics.median(mine.rate / theirs.rate for mine, theirs in zip(ours, floor, strict=True))
    return _median(ours), _median(floor), ratio


def _median(loads: list[Load]) -> Load:
    return Load(statistics.median(load.rate for load in loads), statistics.median(load.p99 for load in loads))


def main() -> None:
    """Print, for each list, its rate and p99, its floor's, and the ratio; with a writer and without."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10**6)
    parser.add_argument("--seconds", type=int, default=5, help="for each turn")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "jobhistory-benchmarks")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    histories = Histories(options.folder, options.jobs, CONNECTIONS)
    histories.build()
    print(f"{options.jobs:,} jobs")
    print(f"{'case':28} {'list/s':>8} {'p99 ms':>8} {'floor/s':>8} {'p99 ms':>8} {'ratio':>6}  target")
    with served(histories.library) as url:
        for limit in LIMITS:
            _show(f"list {limit}", compare(url, limit, options.seconds), limit)
            with writing(histories.library):
                _show(f"list {limit}, with a writer", compare(url, limit, options.seconds), limit)


def _show(case: str, measured: tuple[Load, Load, float], limit: int) -> None:
    ours, floor, ratio = measured
    target = f"{_TARGET:>6}" if limit == 10 else "     -"  # noqa: PLR2004  the short list
    print(f"{case:28} {ours.rate:8.0f} {ours.p99:8.1f} {floor.rate:8.0f} {floor.p99:8.1f} {ratio:6.2f}  {target}")


if __name__ == "__main__":
    main()
