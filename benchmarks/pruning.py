"""What workers notice while nine of ten jobs of a long history are pruned, and whether the right ones are gone.

`python -m benchmarks.pruning --jobs 1000000`: four processes write and two read, before and meanwhile. What must
stay is found beforehand by a statement of SQL that shares nothing with the library.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from uuid import UUID

import attrs

from benchmarks.data import Histories, connection_ids
from jobhistory import JobHistory, JobStatus, Retention, SyncJob
from jobhistory.storage.sqlite import SQLiteJobRepository

WRITERS, READERS = 4, 2
LONE = 10
YEAR = timedelta(days=365)
MILLISECONDS, MIB = 1000, 2**20

# By hand, and nothing clever: what is young, failed and not so old, active, newest, newest COMPLETED.
STAYS = """
CREATE TABLE stays.jobs AS
SELECT id FROM main.jobs WHERE created_at >= :cutoff
    OR status = 'FAILED' AND created_at >= :failed_cutoff
    OR status IN ('PENDING', 'RUNNING', 'CANCELLING')
UNION
SELECT (SELECT id FROM main.jobs WHERE connection = number ORDER BY created_at DESC, id DESC LIMIT 1)
FROM source_connections
UNION
SELECT (SELECT id FROM main.jobs WHERE connection = number AND status = 'COMPLETED'
    ORDER BY created_at DESC, id DESC LIMIT 1)
FROM source_connections
"""
GONE = "SELECT count(*) FROM stays.jobs WHERE id NOT NULL AND id NOT IN (SELECT id FROM main.jobs)"
LEFT = (
    "SELECT count(*) FROM main.jobs WHERE created_at < :now AND id NOT IN (SELECT id FROM stays.jobs WHERE id NOT NULL)"
)


@attrs.frozen
class Scene:
    """A copy of a history; the moment at which it is pruned; from when on jobs are too young to go, and failed ones."""

    path: Path
    now: datetime
    cutoff: datetime
    failed_cutoff: datetime

    @property
    def stays(self) -> Path:
        """Where the ids of the jobs are that must stay."""
        return self.path.with_suffix(".stays")

    @property
    def parameters(self) -> dict[str, str]:
        """The moments as the file has them."""
        return {name: stored(getattr(self, name)) for name in ("now", "cutoff", "failed_cutoff")}

    def history(self, repository: SQLiteJobRepository | None = None) -> JobHistory:
        """The history, whose clock goes on from `now`."""
        begun = time.monotonic()
        return JobHistory(
            repository or SQLiteJobRepository(self.path),
            clock=lambda: self.now + timedelta(seconds=time.monotonic() - begun),
        )

    @contextmanager
    def with_stays(self) -> Iterator[sqlite3.Connection]:
        """The copy, and beside it what must stay."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            db.execute("ATTACH ? AS stays", (str(self.stays),))
            yield db


def stored(moment: datetime) -> str:
    """The moment as the file has it."""
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def scene(histories: Histories, path: Path) -> Scene:
    """A fresh copy, in which some connections have old jobs alone, and what must stay of it."""
    histories.build()
    for old in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm")), path.with_suffix(".stays")):
        old.unlink(missing_ok=True)
    with closing(sqlite3.connect(histories.library)) as built, closing(sqlite3.connect(path)) as db:
        built.backup(db)
        [(newest,)] = db.execute(
            "SELECT max(created_at) FROM jobs JOIN (SELECT max(change) AS m FROM jobs) ON change = m"
        )
        statement = "SELECT created_at FROM jobs ORDER BY change LIMIT 1 OFFSET ?"
        [(cutoff,)] = db.execute(statement, (histories.count * 9 // 10,))
    now = datetime.fromisoformat(newest) + timedelta(hours=1)
    found = Scene(path, now, datetime.fromisoformat(cutoff), datetime.fromisoformat(cutoff) - timedelta(days=1))
    with closing(found.history()) as history:
        history.add_many(lone_jobs(found))
    with found.with_stays() as db:
        db.execute(STAYS, found.parameters)
    return found


def lone_jobs(at: Scene) -> Iterator[SyncJob]:
    """For each of some connections: old jobs that failed, few that did not, one that runs to this day."""
    for number, day in itertools.product(range(LONE), range(1, 100)):
        created = at.cutoff - YEAR + timedelta(days=day, hours=number)
        status = (
            JobStatus.RUNNING
            if day == number + 1
            else (JobStatus.COMPLETED if day % 50 == number else JobStatus.FAILED)
        )
        yield SyncJob(
            id=UUID(int=(0x10E << 112) + 1000 * number + day),
            source_connection_id=UUID(int=(0x10E << 112) + number),
            status=status,
            created_at=created,
            started_at=created,
            completed_at=None if status is JobStatus.RUNNING else created + timedelta(minutes=1),
        )


class Timed(SQLiteJobRepository):
    """Remembers how long each transaction held its turn, and the checkpoint behind it took, if there was one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.took: list[float] = []

        write = self._db.write

        @contextmanager
        def timed() -> Iterator[sqlite3.Connection]:
            with write() as db:
                begun = time.monotonic()
                yield db
            self.took.append(time.monotonic() - begun)

        self._db.write = timed  # type: ignore[method-assign]


# ---- Those who work meanwhile


def writing(history: JobHistory, dice: random.Random, connections: list[UUID]) -> Iterator[Callable[[], object]]:
    """One job's life after the other, a write at a time."""
    while True:
        id = UUID(int=dice.getrandbits(128))
        yield partial(history.enqueue, dice.choice(connections), job_id=id)
        yield partial(history.start, id)
        yield partial(history.report, id, inserted=7)
        yield partial(history.complete, id)


def reading(history: JobHistory, dice: random.Random, connections: list[UUID]) -> Iterator[Callable[[], object]]:
    """One page after the other: the newest of one connection, what runs, the newest of all."""
    while True:
        yield lambda: history.list_jobs(dice.choice(connections))
        yield history.active_jobs
        yield history.newest_jobs


def worker(  # noqa: PLR0917  what a process is given
    at: Scene,
    number: int,
    connections: list[UUID],
    pause: float,
    ready: Barrier,
    phase: Synchronized[int],
    told: Queue[Told],
) -> None:
    """Work, a call every `pause` seconds, until the phase is -1; tell how many calls each phase had, and how long."""
    dice = random.Random(number)  # noqa: S311  no secret
    took: dict[int, list[float]] = {}
    with closing(at.history()) as history:
        calls = (writing if number < WRITERS else reading)(history, dice, connections)
        next(calls)()
        ready.wait()
        while (now := phase.value) >= 0:
            call = next(calls)
            begun = time.monotonic()
            call()
            took.setdefault(now, []).append(time.monotonic() - begun)
            time.sleep(pause)
    told.put((number, took))


Told = tuple[int, dict[int, list[float]]]


def show(name: str, took: list[float]) -> None:
    """Print how many there were, and how long the middle one, the longest of a hundred, and the longest took."""
    if took:
        took.sort()
        middle, hundredth, longest = (took[int(len(took) * part)] * MILLISECONDS for part in (0.5, 0.99, 1 - 1e-9))
        print(f"{name:34} {len(took):9,} {middle:9.1f} {hundredth:9.1f} {longest:9.1f}", flush=True)


def main() -> None:
    """Prune and print; the exit code is 1 where a job is gone that should stay, or is left that should go."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10**6)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "jobhistory-benchmarks")
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between two calls of a worker")
    parser.add_argument("--quiet", type=float, default=10, help="seconds of work without pruning, to compare with")
    parser.add_argument("--archive", type=Path)
    options = parser.parse_args()
    at = scene(Histories(options.folder, options.jobs, options.connections), options.folder / "pruning.db")

    spawn = multiprocessing.get_context("spawn")
    ready, phase, told = spawn.Barrier(WRITERS + READERS + 1), spawn.Value("i", 0), spawn.Queue()
    given = (connection_ids(options.connections), options.pause, ready, phase, told)
    workers = [spawn.Process(target=worker, args=(at, number, *given)) for number in range(WRITERS + READERS)]
    for each in workers:
        each.start()
    ready.wait()
    time.sleep(options.quiet)
    repository = Timed(at.path)
    with closing(at.history(repository)) as history:
        rule = Retention(older_than=at.now - at.cutoff, keep_failed_for=at.now - at.failed_cutoff)
        history.clock = lambda: at.now
        phase.value = 1
        begun = time.monotonic()
        pruned = history.prune(rule, archive=options.archive, progress=progress(begun))
        minutes = (time.monotonic() - begun) / 60
        phase.value = -1
    took = [told.get() for _ in workers]
    for each in workers:
        each.join()

    print(f"\n{pruned.deleted:,} of {options.jobs + 99 * LONE:,} jobs deleted in {minutes:.1f} minutes")
    assert pruned.bytes_before is not None
    assert pruned.bytes_after is not None
    print(f"{pruned.bytes_before / MIB:,.0f} MiB before, {pruned.bytes_after / MIB:,.0f} MiB after")
    print(f"{'milliseconds':34} {'calls':>9} {'median':>9} {'99%':>9} {'longest':>9}")
    for who, numbers in (("writers", range(WRITERS)), ("readers", range(WRITERS, WRITERS + READERS))):
        for number, name in enumerate(("before", "while pruning")):
            show(f"{who}, {name}", [t for each, phases in took if each in numbers for t in phases.get(number, [])])
    show("transactions of the pruning", repository.took)
    with at.with_stays() as db:
        [(gone,)], [(left,)] = (db.execute(each, at.parameters) for each in (GONE, LEFT))
    print(f"gone that should stay: {gone:,}; left that should go: {left:,}")
    sys.exit(1 if gone or left else 0)


def progress(begun: float) -> Callable[[str, int, int], None]:
    """Print how far it is, now and then."""
    shown = {"at": 0.0}

    def tell(step: str, done: int, total: int) -> None:
        if (now := time.monotonic()) - shown["at"] > 1 or done >= total:
            shown["at"] = now
            print(f"\r{now - begun:6.0f} s  {step} {done:,} of {total:,}   ", end="", file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    main()
