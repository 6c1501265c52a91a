"""One queue on PostgreSQL in a process of its own: it makes a history, then times what it is asked to.

    python -m benchmarks.peers.queue_child PEER URL

As `benchmarks.peers.child`, whose requests these are but for two: the first is {"jobs": how many, "names": of the
queues}, and {"account": true} asks for how many jobs there should be now in each state. It runs in the peer's own
environment likewise.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any, Protocol

from benchmarks.peers.child import named, serve

QUEUES = {"library": "LibraryQueue", "pgqueuer": "PgQueuer", "procrastinate": "Procrastinate"}
"""Each peer's class, in the module of its name."""
KEPT = 50
"""So many jobs wait all the time, and are read."""


class Queue(Protocol):
    """One way to have jobs wait, run and end; coroutines, as the peers have it.

    Opened by `open(url)`, which also makes its schema, by its own means, in that empty database. An id, and a job that
    was started, are whatever the peer has for it. A job carries no arguments.
    """

    async def prepare(self, count: int, names: Sequence[str]) -> None:
        """Keep a history of so many finished jobs of these queues, by the fastest way there is; not timed."""

    async def enqueue(self, name: str) -> Any:  # noqa: ANN401  the peer's own
        """Let one more job wait; gives its id."""

    async def enqueue_many(self, name: str, count: int) -> None:
        """Let so many more wait, all or none of them."""

    async def start(self, name: str) -> Any:  # noqa: ANN401  as above
        """Claim the job of the queue that waits longest; gives that job."""

    async def finish(self, job: Any) -> None:  # noqa: ANN401  as above
        """End a job that was started, successfully, and remember it."""

    async def get(self, id: Any) -> Any:  # noqa: ANN401  as above
        """One job that waits; the record has its id as `id`."""

    async def show(self, name: str) -> str:
        """A setting of PostgreSQL's, as its own connections have it."""


class QueueTurns:
    """The turns of a queue."""

    def __init__(self, queue: Queue, names: Sequence[str]) -> None:
        self.account = Counter(waiting=0, running=0, finished=0)
        self._queue = queue
        self._names = names
        # One is read and another one written to, so that what is read stays the same.
        self._read, self._written = names[0], names[-1]

    async def prepare(self, count: int) -> None:
        """Make the history. Raises AssertionError where what is read is not what was asked for."""
        await self._queue.prepare(count, self._names)
        kept = [await self._queue.enqueue(self._read) for _ in range(KEPT)]
        self.account.update(finished=count, waiting=KEPT)
        given = [(await self._queue.get(id)).id for id in kept]
        if given != kept:
            message = f"{type(self._queue).__name__} gives other jobs than were asked for: {given} instead of {kept}"
            raise AssertionError(message)
        self._ids = cycle(kept)

    async def take(self, operation: str, calls: int) -> float:
        """Seconds a call takes, over so many in a row, after one that is not timed (unless one is long enough)."""
        untimed = calls > 1
        call, arguments, done = await self._plan(operation, untimed + calls)
        if untimed:
            await call(*arguments.pop())
        begun = time.perf_counter()
        for each in arguments:
            await call(*each)
        seconds = time.perf_counter() - begun
        self.account.update(done)
        return seconds / calls

    async def _plan(
        self, operation: str, calls: int
    ) -> tuple[Callable[..., Awaitable[object]], list[tuple[Any, ...]], dict[str, int]]:
        """What is called, and with what each time; how many jobs more there are in each state afterwards."""
        queue, name = self._queue, self._written
        match operation.split():
            case ["enqueue"]:
                return queue.enqueue, [(name,)] * calls, {"waiting": calls}
            case ["enqueue", count]:
                return queue.enqueue_many, [(name, int(count))] * calls, {"waiting": calls * int(count)}
            case ["start"]:
                await queue.enqueue_many(name, calls)
                return queue.start, [(name,)] * calls, {"running": calls}
            case ["finish"]:
                await queue.enqueue_many(name, calls)
                return queue.finish, [(await queue.start(name),) for _ in range(calls)], {"finished": calls}
            case ["get"]:
                return queue.get, [(id,) for id in islice(self._ids, calls)], {}
        message = f"no operation {operation!r}"
        raise ValueError(message)


def answers(requests: Iterable[dict[str, Any]], queue: Queue, runner: asyncio.Runner) -> Iterator[dict[str, object]]:
    """The answer to each request, in turn."""
    requests = iter(requests)
    first = next(requests)
    turns = QueueTurns(queue, first["names"])
    runner.run(turns.prepare(first["jobs"]))
    yield {name: runner.run(queue.show(name)) for name in ("fsync", "synchronous_commit")}
    for request in requests:
        if "account" in request:
            yield dict(turns.account)
        else:
            yield {"seconds": runner.run(turns.take(request["operation"], request["calls"]))}


def main() -> None:
    """Answer for the peer that is named."""
    name, url = sys.argv[1:]
    with asyncio.Runner() as runner:
        serve(lambda requests: answers(requests, runner.run(named(name, QUEUES).open(url)), runner))


if __name__ == "__main__":
    main()
