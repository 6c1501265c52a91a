"""The histories that are measured: the same jobs in the library's file and in the least table that could do."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

import attrs

from jobhistory import JobStatus, SyncJob
from jobhistory.job import COLUMNS
from jobhistory.storage.sqlite import SQLiteJobRepository

BATCH = 10_000
CYCLE = 1_000_000
BEGUN = datetime(2020, 1, 1, tzinfo=UTC)
TIMES = {name for name in COLUMNS if name.endswith("_at")}
IDS = {"id", "source_connection_id"}

# Floor A: rowid, unique id, one index, the same nineteen columns; what a careful team writes in an hour.
LEAST_TABLE = f"""
CREATE TABLE jobs ({", ".join(COLUMNS)});
CREATE UNIQUE INDEX jobs_id ON jobs (id);
CREATE INDEX jobs_newest ON jobs (source_connection_id, created_at);
"""


def connection_ids(count: int) -> list[UUID]:
    """The source connections, the same ones each time."""
    return [UUID(int=(0x5EED << 112) + n) for n in range(count)]


def jobs(count: int, connections: int) -> Iterator[SyncJob]:
    """Finished jobs, oldest first: 5% FAILED, a tenth of those with 8 KiB of error, the same each time."""
    dice = random.Random(count * connections)  # noqa: S311  # the same data each time is the point
    ids = connection_ids(connections)
    for n in range(count):
        created = BEGUN + timedelta(seconds=15 * n, microseconds=dice.randrange(1_000_000))
        started, completed = created + timedelta(seconds=1), created + timedelta(seconds=dice.randrange(2, 900))
        failed = dice.randrange(20) == 0
        error = (
            ("E" * 8192 if dice.randrange(10) == 0 else "TimeoutError: the source did not answer") if failed else None
        )
        yield SyncJob(
            id=UUID(int=dice.getrandbits(128)),
            source_connection_id=dice.choice(ids),
            status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
            created_at=created,
            started_at=started,
            completed_at=completed,
            duration_seconds=(completed - started).total_seconds(),
            entities_inserted=dice.randrange(1000),
            entities_updated=dice.randrange(1000),
            entities_deleted=dice.randrange(100),
            entities_failed=dice.randrange(10),
            error=error,
            heartbeat_at=completed,
            progress_at=completed,
            worker=f"worker-{dice.randrange(9)}:4711:0123abcd",
            version=5,
        )


def least_row(job: SyncJob) -> tuple[object, ...]:
    """The job as plain columns: ids and times as text."""
    values = ((name, getattr(job, name)) for name in COLUMNS)
    return tuple(
        str(value) if name in IDS or name == "status" else value.isoformat() if name in TIMES and value else value
        for name, value in values
    )


def open_least(path: Path, synchronous: str = "FULL") -> sqlite3.Connection:
    """Floor A's own connection."""
    least = sqlite3.connect(path, isolation_level=None)
    least.execute("PRAGMA journal_mode = WAL")
    least.execute(f"PRAGMA synchronous = {synchronous}")
    return least


@attrs.frozen
class Histories:
    """The same jobs, in a folder: library.db and least.db."""

    folder: Path
    count: int
    connections: int

    @property
    def library(self) -> Path:
        """The library's file."""
        return self.folder / f"library-{self.count}-{self.connections}.db"

    @property
    def least(self) -> Path:
        """Floor A's file."""
        return self.folder / f"least-{self.count}-{self.connections}.db"

    def batches(self) -> Iterator[list[SyncJob]]:
        """The jobs, oldest first, so many at a time."""
        rest = jobs(self.count, self.connections)
        while batch := list(islice(rest, BATCH)):
            yield batch

    def build(self) -> None:
        """Make what is missing, showing how far it is; a finished file is used again."""
        if self.library.exists() and self.least.exists():
            return
        parts = self.library.with_suffix(".part"), self.least.with_suffix(".part")
        for part in parts:
            part.unlink(missing_ok=True)
        if self.count > CYCLE:
            self._repeat(*parts)
        else:
            self._write(*parts)
        for part, final in zip(parts, (self.library, self.least), strict=True):
            part.rename(final)

    def _write(self, library: Path, least_path: Path) -> None:
        repository = SQLiteJobRepository(library, durability="relaxed")
        for id in connection_ids(self.connections):
            repository.register(id)
        least = open_least(least_path, "NORMAL")
        least.executescript(LEAST_TABLE)
        insert = f"INSERT INTO jobs VALUES ({', '.join('?' * len(COLUMNS))})"
        done = 0
        for batch in self.batches():
            repository.add_many(batch)
            least.execute("BEGIN")
            least.executemany(insert, map(least_row, batch))
            least.execute("COMMIT")
            done += len(batch)
            self._show(done)
        print(file=sys.stderr)
        repository.close()
        least.close()

    def _repeat(self, library: Path, least: Path) -> None:
        """A million jobs, and copies of them one leap year after the other, in the order of their times."""
        one = Histories(self.folder, CYCLE, self.connections)
        one.build()
        for source, target, make in ((one.library, library, _LATER), (one.least, least, _LATER_LEAST)):
            shutil.copy(source, target)
            with closing(sqlite3.connect(target, isolation_level=None)) as db:
                db.execute("PRAGMA journal_mode = OFF")
                db.execute("PRAGMA cache_size = -2000000")  # 2 GB: pages of many connections are written in turns
                db.create_function("another", 2, _another)
                for cycle in range(1, self.count // CYCLE):
                    self._show(cycle * CYCLE)
                    db.execute(make, {"cycle": cycle, "years": 4 * cycle, "count": CYCLE})
                db.execute("PRAGMA journal_mode = WAL")
        print(file=sys.stderr)

    def _show(self, done: int) -> None:
        print(f"\r{self.library.name}: {done:,} of {self.count:,}", end="", file=sys.stderr, flush=True)


def _another(id: bytes | str, cycle: int) -> bytes | str:
    """An id like the one given, as it is stored there."""
    if isinstance(id, bytes):
        return id[:-1] + bytes([id[-1] ^ cycle])
    return f"{id[:-2]}{int(id[-2:], 16) ^ cycle:02x}"


def _later(columns: Iterable[str]) -> str:
    """Adds the first million jobs once more, some years later, each with an id of its own."""
    new = {"id": "another(id, :cycle)", "change": "change + :cycle * :count"}
    new |= {name: f"printf('%04d', substr({name}, 1, 4) + :years) || substr({name}, 5)" for name in TIMES}
    names = list(columns)
    values = ", ".join(new.get(name, name) for name in names)
    first = f"SELECT {values} FROM jobs WHERE created_at < '{BEGUN.year + 1}' ORDER BY created_at"
    return f"INSERT INTO jobs ({', '.join(names)}) {first}"


_LIBRARY_COLUMNS = ("connection", *(name for name in COLUMNS if name != "source_connection_id"), "change")
_LATER = _later(_LIBRARY_COLUMNS)
_LATER_LEAST = _later(COLUMNS)
