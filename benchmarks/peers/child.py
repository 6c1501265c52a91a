"""One peer in a process of its own: it stores a history, then times what it is asked to.

    python -m benchmarks.peers.child PEER FOLDER DURABILITY

Requests come in as lines of JSON, one at a time, and each is answered with one: first {"jobs": a file of lines},
then {"operation": ..., "calls": ...} for every turn. Nothing but the standard library and the peer is imported,
so that it runs in the peer's own environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Peer

CLASSES = {
    "library": "Library",
    "orm": "ORM",
    "sqlite_utils": "SQLiteUtils",
    "dagster": "Dagster",
    "mlflow": "MLflow",
    "meltano": "Meltano",
}
"""Each peer's class, in the module of its name."""


class Turns:
    """The turns of a peer, whose history holds these jobs."""

    def __init__(self, peer: Peer, jobs: list[dict[str, Any]]) -> None:
        self._peer = peer
        peer.prepare(jobs)
        newest: defaultdict[str, list[str]] = defaultdict(list)
        for job in sorted(jobs, key=lambda job: job["created_at"], reverse=True):
            newest[job["source_connection_id"]].append(job["id"])
        self._connections = sorted(newest)
        # One is read and another one written to, so that what is read stays the same.
        self._read, self._written = self._connections[0], self._connections[-1]
        self._ids = cycle(newest[self._read][::7])
        self._check(newest)

    def _check(self, newest: dict[str, list[str]]) -> None:
        """What is timed gives what it should."""
        peer, page = self._peer, newest[self._read][:10]
        given = [
            [peer.id_of(record) for record in peer.newest(self._read, 10)],
            [peer.id_of(peer.get(id)) for id in page],
            sorted(peer.id_of(record) for record in peer.latest(self._connections)),
        ]
        expected = [page, page, sorted(ids[0] for ids in newest.values())]
        if given != expected:
            message = f"{type(peer).__name__} gives other jobs than it was given: {given} instead of {expected}"
            raise AssertionError(message)

    def take(self, operation: str, calls: int) -> float:
        """Seconds a call takes, over so many in a row, after one that is not timed (unless one is long enough)."""
        call, arguments = self._plan(operation)
        if calls > 1:
            call(*next(arguments))
        ready = list(islice(arguments, calls))
        begun = time.perf_counter()
        for each in ready:
            call(*each)
        return (time.perf_counter() - begun) / calls

    def _plan(self, operation: str) -> tuple[Callable[..., object], Iterator[tuple[object, ...]]]:
        """What is called, and with what, time after time."""
        peer = self._peer
        match operation.split():
            case ["insert"]:
                return peer.insert, cycle([(self._written,)])
            case ["transition"]:
                return peer.transition, ((peer.insert(self._written),) for _ in cycle([None]))
            case ["newest", limit]:
                return peer.newest, cycle([(self._read, int(limit))])
            case ["get"]:
                return peer.get, ((id,) for id in self._ids)
            case ["latest"]:
                return peer.latest, cycle([(self._connections,)])
        message = f"no operation {operation!r}"
        raise ValueError(message)


def answers(requests: Iterable[dict[str, Any]], peer: Peer) -> Iterator[dict[str, object]]:
    """The answer to each request, in turn."""
    requests = iter(requests)
    with Path(next(requests)["jobs"]).open() as lines:
        turns = Turns(peer, [json.loads(line) for line in lines])
    yield {name: peer.pragma(name) for name in ("journal_mode", "synchronous")}
    for request in requests:
        yield {"seconds": turns.take(request["operation"], request["calls"])}


def serve(answering: Callable[[Iterator[dict[str, Any]]], Iterator[dict[str, object]]]) -> None:
    """Answer what comes in until there are no more requests."""
    # What a peer prints goes elsewhere.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for answer in answering(map(json.loads, sys.stdin)):
        print(json.dumps(answer), file=replies, flush=True)


def named(name: str, classes: dict[str, str]) -> Any:  # noqa: ANN401  a peer's class
    """The peer's class, in the module of its name."""
    return getattr(import_module(f"benchmarks.peers.{name}"), classes[name])


def main() -> None:
    """Answer for the peer that is named."""
    name, folder, durability = sys.argv[1:]
    serve(lambda requests: answers(requests, named(name, CLASSES)(Path(folder), durability)))


if __name__ == "__main__":
    main()
