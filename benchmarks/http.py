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
from jobhistory.http.auth import Key
from jobhistory.http.schema import ConnectionId, Limit
from jobhistory.http.server import Server
from jobhistory.http.wire import KEPT

CONNECTIONS = 100
KEY = "key"
_THREADS, _CLIENTS, _TURNS = 1, 16, 3
_TARGET = 0.5
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@attrs.frozen
class Load:
    """What wrk measured: requests a second, and the latency in milliseconds that one in a hundred exceeds."""

    rate: float
    p99: float


def serve(path: Path, listening: socket.socket) -> None:
    """Serve the history, and beside it its own answers as constant bytes, each with all that is checked before."""
    history = jobhistory.open(path)
    app = create_app(history, Tokens({KEY: None}))
    constant: dict[int, bytes] = {}

    async def floor(request: Request, key: Key, source_connection_id: ConnectionId, limit: Limit = 100) -> Response:
        del request, key, source_connection_id
        return Response(constant[limit], media_type="application/json", headers=KEPT)

    app.add_api_route("/floor/{source_connection_id}/jobs", floor, include_in_schema=False)
    [connection, *_] = connection_ids(CONNECTIONS)
    from jobhistory.http.wire import jobs_json

    for limit in (10, 1000):
        constant[limit] = jobs_json(history.list_jobs(connection, limit=limit)).encode()
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
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  our own
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
        floor.append(asked(f"{url}/floor/{connection}/jobs?limit={limit}", seconds))
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
        for limit in (10, 1000):
            _show(f"list {limit}", compare(url, limit, options.seconds), limit)
            with writing(histories.library):
                _show(f"list {limit}, with a writer", compare(url, limit, options.seconds), limit)


def _show(case: str, measured: tuple[Load, Load, float], limit: int) -> None:
    ours, floor, ratio = measured
    target = f"{_TARGET:>6}" if limit == 10 else "     -"  # noqa: PLR2004  the short list
    print(f"{case:28} {ours.rate:8.0f} {ours.p99:8.1f} {floor.rate:8.0f} {floor.p99:8.1f} {ratio:6.2f}  {target}")


if __name__ == "__main__":
    main()
