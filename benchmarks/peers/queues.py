"""Measure the library and the job queues that live in PostgreSQL in one run: `python -m benchmarks.peers.queues`.

PgQueuer and Procrastinate, where the work is the same, on one server from the wheel, with its defaults and a disk
that is synced: each in a database of its own, with the tables that it makes itself, over its own connections. They work
in processes and in turns as in `benchmarks.peers`. All that was timed is counted afterwards, from outside.

What is the same, each acknowledged when its transaction is on the disk, none with arguments or a payload:

- enqueue: one more job waits in one of 50 queues. By the thousand: in one transaction, making their records included.
- start: a waiting job is claimed, and no other worker gets it. The peers choose it in the statement that claims it, the
  one that waits longest; the library's worker was told which one (here the same), reads it, and replaces what it read.
- finish: the job ended well, and is remembered. PgQueuer moves it to its log; the others change its row, the library
  once it has read it.
- get: a waiting job by its id, as the record that the peer's users have. The library's has more in it.

By default, PgQueuer's workers start ten jobs at a time, and end as many; here it is asked for one at a time, as the
others are.

Left out, where there is nothing like the library's: a page of the newest jobs (Procrastinate's list_jobs has no limit,
PgQueuer's browse_queue gives the oldest, of those that did not end); a job that ended (PgQueuer keeps its steps
alone); the newest job of each queue; counts, errors and times in the record, and reporting them while a job runs.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import attrs
import psycopg

from benchmarks.__main__ import MIDDLE
from benchmarks.data import connection_ids
from benchmarks.peers.__main__ import Figure, in_turns
from benchmarks.peers.peer import LIBRARY, TITLES
from benchmarks.peers.process import PeerProcess
from benchmarks.peers.queue_child import QUEUES
from tests.postgres import Server, private_folder

NAMES = [str(id) for id in connection_ids(50)]
OPERATIONS = ("enqueue", "start", "finish", "get", "enqueue 1000")
LANDED = {
    LIBRARY: "SELECT status, count(*) FROM jobhistory.jobs GROUP BY status",
    "pgqueuer": """
        SELECT status::text, count(*) FROM (
            SELECT status FROM pgqueuer UNION ALL SELECT status FROM pgqueuer_log WHERE status = 'successful'
        ) AS jobs GROUP BY status
    """,
    "procrastinate": "SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY status",
}
"""How many jobs there are in each status, in the peer's own tables."""
STATES = {
    "waiting": ("PENDING", "queued", "todo"),
    "running": ("RUNNING", "picked", "doing"),
    "finished": ("COMPLETED", "FAILED", "successful", "succeeded"),
}
"""What the peers call them."""


def check_landed(peer: str, url: str, account: dict[str, int]) -> None:
    """Raise AssertionError where the peer's tables, as others see them, hold other jobs than it says."""
    with closing(psycopg.connect(url)) as connection:
        statuses: dict[str, int] = dict(connection.execute(LANDED[peer].encode()).fetchall())
    landed = {state: sum(statuses.pop(name, 0) for name in names) for state, names in STATES.items()}
    if statuses or landed != account:
        message = f"{TITLES[peer]} should have {account}, and has {landed | statuses}"
        raise AssertionError(message)


def measure(server: Server, names: Sequence[str], count: int, cache: Path, seconds: float) -> Iterator[list[Figure]]:
    """The figures of each operation, the library's first."""
    with ExitStack() as opened:
        urls = {name: server.url(name) for name in names}
        peers = []
        for name in names:
            server.execute(f"CREATE DATABASE {name}")
            child = PeerProcess(name, cache, urls[name], child="benchmarks.peers.queue_child")
            peers.append(opened.enter_context(child))
            settings = child.ask(jobs=count, names=NAMES)
            print(f"  {TITLES[name]:15} {', '.join(f'{name} {value}' for name, value in settings.items())}", flush=True)
        for operation in OPERATIONS:
            # What autovacuum would do within a minute or so: plans fit what there is now.
            for url in urls.values():
                with closing(psycopg.connect(url, autocommit=True)) as connection:
                    connection.execute("VACUUM ANALYZE")
            server.execute("CHECKPOINT")
            yield in_turns(operation, peers, seconds)
            for peer in peers:
                check_landed(peer.name, urls[peer.name], peer.ask(account=True))


def main() -> None:
    """`python -m benchmarks.peers.queues [PEER ...] [--jobs N] [--json FILE] [--folder FOLDER] [--seconds SECONDS]`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.queues", description=__doc__)
    others = [name for name in QUEUES if name != LIBRARY]
    parser.add_argument("peers", nargs="*", choices=[*others, []], help="which, instead of all")
    parser.add_argument("--jobs", type=int, default=MIDDLE, help="finished ones, there before anything is timed")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "jobhistory-benchmarks")
    parser.add_argument("--seconds", type=float, default=10, help="for each operation, of all peers together")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)

    rows = []
    with private_folder() as folder:
        server = Server(folder / "measured", {"max_wal_size": "4GB"})
        server.make()
        server.start()
        try:
            [(version,)] = server.execute("SHOW server_version")
            print(f"Python {platform.python_version()}, PostgreSQL {version}")
            print(f"{options.jobs:,} finished jobs of {len(NAMES)} queues")
            names = [LIBRARY, *(options.peers or others)]
            for figures in measure(server, names, options.jobs, options.folder, options.seconds):
                for figure in figures:
                    print(figure.line(), flush=True)
                    rows.append({"jobs": options.jobs, "connections": len(NAMES)} | attrs.asdict(figure))
        finally:
            server.stop()
    if options.json:
        options.json.write_text(json.dumps({"figures": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
