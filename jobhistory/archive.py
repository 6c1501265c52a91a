"""An archive: jobs in a file of their own, for whoever likes to read them, and for `jobhistory import`.

NAME.ndjson.gz holds lines of JSON packed by gzip, as `jobhistory export` writes them: each job with all that is kept
of it, and before those of a connection a line with its id and name. NAME.parquet holds the same as a table, with the
connection's name in each row, and JSON as text; it needs `pip install 'jobhistory[parquet]'`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from jobhistory.errors import InvalidJobError, StorageError
from jobhistory.job import COLUMNS, FIELDS, SyncJob
from jobhistory.private_files import whole_file
from jobhistory.repository import SourceConnection

Write = Callable[[SourceConnection, SyncJob], object]
PassOn = Callable[[SourceConnection, Iterable[SyncJob]], Iterable[SyncJob]]
"""Writes the jobs of a connection down as they are taken from it."""

# What is held in memory while a table is written: so many rows, or so many characters of what may be long; and read.
_BATCH, _BATCH_TEXT = 10_000, 2**24
_READ = 500
_NAME = "source_connection"
_ENDINGS = "must end in .ndjson.gz or .parquet, which says how it is written"


def check_archive(path: Path) -> None:
    """Raise InvalidJobError where the name does not say how to write it, ImportError where the extra is missing."""
    _writer_of(path)


@contextmanager
def archiving(path: Path | None) -> Iterator[PassOn]:
    """Gives the function that writes to a new file, which is whole and on disk once the block has ended.

    Where there is no job, no file is made; where there is no path, nothing is written. Raises StorageError where
    something is there already or the file cannot be written, and what `check_archive` raises.
    """
    if path is None:
        yield lambda _, jobs: jobs
        return
    writer, write = _writer_of(path), None
    with ExitStack() as file:

        def passed_on(connection: SourceConnection, jobs: Iterable[SyncJob]) -> Iterator[SyncJob]:
            nonlocal write
            for job in jobs:
                write = write or file.enter_context(writer(file.enter_context(whole_file(path))))
                write(connection, job)
                yield job

        yield passed_on


def _writer_of(path: Path) -> Callable[[Path], AbstractContextManager[Write]]:
    if path.name.endswith(".ndjson.gz"):
        return _lines
    if path.name.endswith(".parquet"):
        _pyarrow()
        return _table
    raise InvalidJobError("archive", _ENDINGS, str(path))


# ---- Lines of JSON


def connection_line(connection: SourceConnection) -> str:
    """The line that names a connection, before those of its jobs: printable ASCII, as all lines are."""
    return f"{json.dumps({'source_connection_id': str(connection.id), 'name': connection.name})}\n"


def job_line(job: SyncJob) -> str:
    """The line of a job, with all that is kept of it."""
    return f"{json.dumps(job.to_dict(bookkeeping=True))}\n"


@contextmanager
def _lines(path: Path) -> Iterator[Write]:
    with gzip.open(path, "wt", compresslevel=6, encoding="ascii") as file:
        last: SourceConnection | None = None

        def write(connection: SourceConnection, job: SyncJob) -> None:
            nonlocal last
            if connection != last:
                file.write(connection_line(connection))
                last = connection
            file.write(job_line(job))

        yield write


# ---- A table in Parquet: https://parquet.apache.org/docs/file-format/


def _pyarrow() -> Any:  # noqa: ANN401  it has no types
    try:
        import pyarrow.parquet
    except ImportError as error:
        message = "Parquet needs pyarrow: pip install 'jobhistory[parquet]'"
        raise ImportError(message, name="pyarrow") from error
    return pyarrow


def _schema(arrow: Any) -> Any:  # noqa: ANN401  as above
    """The record's fields, in their order, and the connection's name at the end."""
    kinds = {"duration_seconds": arrow.float64(), "version": arrow.int64()}
    kinds |= {name: arrow.int64() for name in FIELDS if name.startswith("entities_")}
    kinds |= {name: arrow.timestamp("us", tz="UTC") for name in FIELDS if name.endswith("_at")}
    return arrow.schema([(name, kinds.get(name, arrow.string())) for name in (*FIELDS, _NAME)])


@contextmanager
def _table(path: Path) -> Iterator[Write]:
    arrow = _pyarrow()
    schema = _schema(arrow)
    with arrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[tuple[object, ...]] = []
        text = 0

        def flush() -> None:
            nonlocal text
            columns = zip(*batch, strict=True)
            arrays = [arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))
            batch.clear()
            text = 0

        def write(connection: SourceConnection, job: SyncJob) -> None:
            nonlocal text
            values = (getattr(job, name) for name in COLUMNS)
            batch.append((*(str(value) if type(value) is UUID else value for value in values), connection.name))
            text += sum(len(each or "") for each in (job.error, job.error_details_json, job.metadata_json))
            if len(batch) == _BATCH or text >= _BATCH_TEXT:
                flush()

        yield write
        if batch:
            flush()


def parquet_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows of a table in Parquet, each as the JSON object that an export has for it, connections' names included.

    Raises StorageError where the file is none, is not whole, or holds a moment that no datetime can be; ImportError
    where the extra is missing.
    """
    arrow = _pyarrow()
    named: set[str] = set()
    try:
        for batch in arrow.parquet.ParquetFile(file).iter_batches(_READ):
            for row in batch.to_pylist():
                name, id = row.pop(_NAME, None), row.get("source_connection_id")
                if name is not None and str(id) not in named:
                    named.add(str(id))
                    yield {"source_connection_id": id, "name": name}
                yield {key: _value(key, value) for key, value in row.items()}
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise StorageError("the Parquet file", f"cannot be read: {error}") from error


def _value(key: str, value: Any) -> Any:  # noqa: ANN401  whatever a table may hold
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and key in ("error_details", "metadata"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass  # refused with the row
    return value
