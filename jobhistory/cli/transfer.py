"""import and export: jobs as JSON, in and out.

`export` writes one job a line with all that is kept of it, newest first; before a connection's jobs stands a
line for the connection itself, `{"source_connection_id": ..., "name": ...}`, which carries its name.
`import` reads that, any other jobs one a line, or a JSON array of jobs, packed by gzip or not; and Parquet.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO
from uuid import UUID

import attrs
import click

from jobhistory.archive import connection_line, job_line
from jobhistory.cli.completion import connection_words
from jobhistory.cli.database import BadInputError, Database, find_connection
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import TIMES, json_text, many, visible
from jobhistory.cli.rows import Row, unpacked
from jobhistory.errors import DuplicateJobError, InvalidIdError, InvalidJobError, NameTakenError
from jobhistory.history import JobHistory
from jobhistory.ids import parse_id
from jobhistory.job import FIELDS, SyncJob
from jobhistory.private_files import whole_file
from jobhistory.repository import SourceConnection
from jobhistory.status import JobStatus
from jobhistory.times import to_wire

REFUSED = 4
"""The exit code of an import that refused rows."""

_BATCH = 500
_HELD = 1000
_BIG_FILE_BYTES = 2**20
_NAMED, _SHOWN = 20, 40
_MICROSECOND = timedelta(microseconds=1)
_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
_NO_TIME = "no job of its connection near it has a created_at or started_at to order it by"

# Airweave's own words, and times as its database has them: without a zone, and UTC.
_STATUSES = {"CREATED": JobStatus.PENDING, "IN_PROGRESS": JobStatus.RUNNING}
_NAIVE_TIME = re.compile(r"[\d-]+T[\d:.]+", re.ASCII)


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--connection",
    metavar="CONNECTION",
    shell_complete=connection_words,
    help="Whose jobs they are, where a row does not say.",
)
@as_json
@click.pass_obj
def import_(database: Database, *, file: BinaryIO, connection: str | None, as_json: bool) -> None:
    """Add the jobs in FILE to the history.

    FILE, or standard input for -, holds a JSON array of jobs, or one job on each line; newest first, as the API
    gives them, as a live Airweave has them (statuses in lower case, times that mean UTC, further keys, which
    are left out), or as `export` wrote them, packed by gzip or not; or it is an archive of `prune`. New connections
    are registered. Running it twice changes nothing: what is there already counts as imported.

    A row that cannot be a job, or has the id of another one, is refused with its number and the reason; all
    others are imported. A job with neither created_at nor started_at stands a microsecond behind the newer
    job of its connection; if it is the newest, before the older one. One without the key duration_seconds
    took the difference of its timestamps.
    """
    with database.write() as history:
        importer = Importer(history, _connection_id(history, connection), _say)
        try:
            with _progress(file) as watched, unpacked(watched) as found:
                importer.take(found)
        finally:
            if importer.left_out:
                _say(f"left out of the rows: {', '.join(importer.left_out)}")
            counts = {"imported": importer.imported, "refused": importer.refused}
            said = f"Imported {many(importer.imported, 'job')}, refused {many(importer.refused, 'row')}."
            click.echo(json_text(counts, indent=2) if as_json else said)
    if importer.refused:
        raise click.exceptions.Exit(REFUSED)


@click.command()
@click.argument("connections", metavar="[CONNECTION]...", nargs=-1, shell_complete=connection_words)
@click.option("-o", "--output", metavar="FILE", default="-", help="Write to FILE; it is replaced once all is written.")
@click.pass_obj
def export(database: Database, *, connections: tuple[str, ...], output: str) -> None:
    """Write jobs as lines of JSON for `import`.

    All that is kept of each job stands on a line, newest first: the jobs of each CONNECTION, or of all. Before
    those of a connection comes a line with its id and name. Imported elsewhere, they are the same jobs.
    """
    with database.read() as history, _written(output, database.file) as file:
        chosen = [find_connection(history, text) for text in connections] or history.connections()
        file.writelines(exported(history, chosen))


def exported(history: JobHistory, connections: Iterable[SourceConnection]) -> Iterator[str]:
    """The lines of an export: for each connection its own, and its jobs', newest first."""
    for connection in connections:
        yield connection_line(connection)
        yield from map(job_line, history.iter_jobs(connection.id))


class Importer:
    """Makes jobs of rows and stores them in batches; what is wrong with a row costs that row alone.

    Args:
        history: where the jobs go.
        connection_id: whose they are where a row does not say; None refuses such rows.
        say: told of each row that is refused, or placed among its neighbours.
    """

    def __init__(self, history: JobHistory, connection_id: UUID | None, say: Callable[[str], object]) -> None:
        self.imported = self.refused = 0
        self.left_out: dict[str, None] = {}
        self._history = history
        self._connection_id = connection_id
        self._say = say
        self._names = {connection.id: connection.name for connection in history.connections()}
        self._batch: list[tuple[Row, SyncJob]] = []
        # Of each connection, the time of the row before; and the rows that wait for the first that has one.
        self._newer: dict[UUID, datetime] = {}
        self._waiting: dict[UUID, list[tuple[Row, SyncJob]]] = {}

    def take(self, rows: Iterable[Row]) -> None:
        """Import the rows. Raises StorageError; what `imported` counts by then is stored."""
        for row in rows:
            try:
                self._take(row)
            except (InvalidIdError, InvalidJobError, NameTakenError) as error:
                self._refuse(row, str(error))
            if len(self._batch) >= _BATCH:
                self._flush()
        for row, _ in chain.from_iterable(self._waiting.values()):
            self._refuse(row, _NO_TIME)
        self._flush()

    def _take(self, row: Row) -> None:
        match row.value:
            case _ if row.refusal:
                self._refuse(row, row.refusal)
            case {"source_connection_id": id, "name": name, **others} if not others:
                self._name(row, parse_id(id), name)
            case dict() as value:
                data = self._understood(value)
                timed = not data.keys().isdisjoint(("created_at", "started_at"))
                job = SyncJob.from_dict(data, created_at=None if timed else _LAST)
                if "duration_seconds" not in value:
                    job = _with_duration(job)
                self._place(row, job, timed=timed)
            case value:
                raise InvalidJobError("job", "must be a JSON object", value)

    def _name(self, row: Row, id: UUID, name: str | None) -> None:
        """Register a connection; one that has a name keeps it, as a person may have chosen it here."""
        if (kept := self._names.get(id)) is None:
            self._names[id] = self._history.register(id, name).name
        elif name is not None and (name := self._history.redacted_text(name)) != kept:
            self._say(f"{row}: connection {id} keeps its name {kept!r}, not {name!r}")

    def _understood(self, value: dict[str, Any]) -> dict[str, Any]:
        """The row in the words of the record, without keys that it does not know."""
        for key in value:
            if key not in FIELDS and len(self.left_out) < _NAMED:
                self.left_out[key[:_SHOWN]] = None
        data = {name: value[name] for name in FIELDS if value.get(name) is not None}
        if self._connection_id is not None:
            data.setdefault("source_connection_id", str(self._connection_id))
        if isinstance(status := data.get("status"), str):
            data["status"] = _STATUSES.get(status.upper(), status.upper())
        naive = {name: f"{data[name]}Z" for name in TIMES if _NAIVE_TIME.fullmatch(str(data.get(name)))}
        return data | naive

    def _place(self, row: Row, job: SyncJob, *, timed: bool) -> None:
        """Give the job a time to order it by, if it has none, and so the rows that waited for it."""
        owner = job.source_connection_id
        if not timed:
            newer = self._newer.get(owner)
            bounds = [newer and max(newer, _FIRST + _MICROSECOND) - _MICROSECOND, job.completed_at]
            if not any(bounds):
                self._wait(row, job)
                return
            job = self._placed(row, job, min(filter(None, bounds)))
        at = job.created_at
        for waiting_row, waiting in reversed(self._waiting.pop(owner, ())):
            at = min(at, _LAST - _MICROSECOND) + _MICROSECOND
            self._batch.append((waiting_row, self._placed(waiting_row, waiting, at)))
        self._newer[owner] = job.created_at
        self._batch.append((row, job))

    def _wait(self, row: Row, job: SyncJob) -> None:
        if sum(map(len, self._waiting.values())) >= _HELD:
            self._refuse(row, _NO_TIME)
        else:
            self._waiting.setdefault(job.source_connection_id, []).append((row, job))

    def _placed(self, row: Row, job: SyncJob, at: datetime) -> SyncJob:
        self._say(f"{row}: neither created_at nor started_at: ordered as if created at {to_wire(at)}")
        return attrs.evolve(job, created_at=at)

    def _refuse(self, row: Row, reason: str) -> None:
        self.refused += 1
        self._say(f"{row} refused: {reason}")

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._store(batch)

    def _store(self, batch: list[tuple[Row, SyncJob]]) -> None:
        """Store a batch; where another job has the id of one of them, by halves, until that one stands alone."""
        try:
            self._history.add_many([job for _, job in batch])
        except DuplicateJobError as error:
            if len(batch) == 1:
                self._refuse(batch[0][0], str(error))
                return
            middle = len(batch) // 2
            self._store(batch[:middle])
            self._store(batch[middle:])
        else:
            self.imported += len(batch)


def _with_duration(job: SyncJob) -> SyncJob:
    """The job, which came without a duration, with the difference of its timestamps where it has both."""
    if job.started_at is None or job.completed_at is None:
        return job
    return attrs.evolve(job, duration_seconds=(job.completed_at - job.started_at).total_seconds())


def _connection_id(history: JobHistory, text: str | None) -> UUID | None:
    """The id, which may be new, or that of the connection with this name. Raises NotFoundError."""
    if text is None:
        return None
    try:
        return parse_id(text)
    except InvalidIdError:
        return find_connection(history, text).id


def _say(text: str) -> None:
    click.echo(visible(text), err=True)


@contextmanager
def _progress(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, with a progress bar on stderr while it is read, where it is big and that is a terminal."""
    if sys.stderr.isatty() and (size := os.fstat(file.fileno()).st_size) >= _BIG_FILE_BYTES:
        from rich.console import Console
        from rich.progress import wrap_file

        console = Console(stderr=True)
        with wrap_file(file, size, description="Importing", console=console, transient=True) as watched:
            yield watched
    else:
        yield file


@contextmanager
def _written(path: str, history: Path | None) -> Iterator[IO[str]]:
    """Standard output for -; else a new file, readable by its owner alone, that replaces the old one at the end.

    Raises BadInputError where the old one is the history, StorageError where it cannot be written.
    """
    if path == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    target = Path(path)
    if target.exists() and not target.is_file():  # a pipe or a device is written to, never replaced
        with target.open("w", encoding="ascii") as device:
            yield device
        return
    if history and str(target.resolve()).removesuffix("-wal").removesuffix("-shm") == str(history.resolve()):
        message = f"{visible(path)} is the history itself, and would be replaced: name another file"
        raise BadInputError(message)
    with whole_file(target, replaces=True) as part, part.open("w", encoding="ascii") as file:
        yield file
