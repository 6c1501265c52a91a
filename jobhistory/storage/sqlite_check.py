"""What is wrong with a history in SQLite, or endangers it, and the way out; and the rows that other hands wrote.

Reading trusts the rows: each was checked when it was written. Another program may write to the file all the
same, past the record's rules (any SQLite shell) or the schema's (PRAGMA ignore_check_constraints). So here each
row is read as the bytes it is, and put to the record's constructor.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from jobhistory.abilities import Finding
from jobhistory.errors import InvalidJobError, StorageError
from jobhistory.job import COLUMNS, FIELDS, SyncJob
from jobhistory.private_files import PRIVATE, longer_file, new_file, sync
from jobhistory.repository import check_name
from jobhistory.storage.filesystem import SHARED_BY_MACHINES, SHARED_PERHAPS, filesystem_of
from jobhistory.storage.sqlite_connections import Connections
from jobhistory.times import from_wire

ROW = ("source_connection_id", *(name for name in COLUMNS if name != "source_connection_id"))
"""The columns of a row as they are read: its connection's id leads."""

_BATCH = 500
_MIB = 2**20
_GREATEST_LOG = 64 * _MIB
_LEAST_ROOM = 64 * _MIB
_FULL = 2  # PRAGMA synchronous
_UNSORTED = "PRIMARY KEY order"  # PRAGMA integrity_check
_RESTORE = "restore a backup, or save what can be read: https://www.sqlite.org/recovery.html"
_REINDEX = (
    "copy the file, then REINDEX it (`sqlite3 FILE REINDEX`), which sorts its rows and makes its indexes anew of them; "
    f"where that fails, {_RESTORE}"
)
_SET_ASIDE = "`jobhistory check --set-aside FILE` moves it there, and the rest can be read"

# Releases of SQLite that can damage a file as it is used here: its name, the first, and those that mend it, one a
# branch, the newest first. A distributor may have mended an older one.
_DEFECTS = (
    ("WAL-reset bug, https://www.sqlite.org/wal.html#walresetbug", (3, 7, 0), ((3, 51, 3), (3, 50, 7), (3, 44, 6))),
)
_IN_MEMORY = frozenset(("ramfs", "tmpfs"))

Migrate = Callable[[sqlite3.Connection], object]
"""Makes the newest schema in an empty database."""


# ---- Rows that other hands wrote


def fault_in(row: Mapping[str, Any]) -> InvalidJobError | None:
    """What keeps the row from being a job, None where nothing does. Texts may be str, or bytes not yet decoded."""
    try:
        values = {field: _read(name, row[name]) for name, field in zip(COLUMNS, FIELDS, strict=True)}
        SyncJob(**values)
    except InvalidJobError as error:
        return error
    return None


def named(row: Mapping[str, Any]) -> str:
    """The job by its id, which may be none."""
    return f"job {_shown_id(row['id'])}"


def unreadable(path: str, rows: Sequence[Sequence[Any]], error: Exception) -> StorageError:
    """The error that names the first of the rows that is no job, the column and the way out."""
    for values in rows:
        row = dict(zip(ROW, values, strict=True))
        row["source_connection_id"] = row["source_connection_id"] or bytes(16)  # a page leaves its own out
        if fault := fault_in(row):
            return StorageError(path, f"{named(row)}: {fault} (another program wrote it: {_SET_ASIDE})")
    return StorageError(path, f"a job cannot be read: {error}")


def unreadable_connection(path: str, db: Connections) -> StorageError:
    """The error that names a source connection that is none, and the way out."""
    faults = ((id, _fault_in_connection(id, name)) for _, id, name in db.read(_CONNECTIONS))
    reason = next((f"{_shown_id(id)}: {fault}" for id, fault in faults if fault), "cannot be read: try again")
    return StorageError(path, f"source connection {reason} (another program wrote it: {_SET_ASIDE})")


def _read(name: str, value: Any) -> Any:  # noqa: ANN401  the record checks each
    """A column's value as the record takes it; raises InvalidJobError where it cannot be read."""
    if value is None:
        return None
    if name in ("id", "source_connection_id"):
        if not isinstance(value, bytes) or len(value) != 16:  # noqa: PLR2004  RFC 9562
            raise InvalidJobError(name, "must be the 16 bytes of a UUID", value)
        return UUID(bytes=value)
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise InvalidJobError(name, "must be UTF-8", value) from None
    if name.endswith("_at"):
        if not isinstance(value, str) or len(value) != len("2024-03-15T12:00:00.000000Z") or value[-1] != "Z":
            raise InvalidJobError(name, "must be a time such as 2024-03-15T12:00:00.000000Z", value)
        return from_wire(name, value)
    if name.endswith("_json"):
        try:
            return json.loads(value)
        except (TypeError, ValueError, RecursionError):
            raise InvalidJobError(name, "must be a JSON object", value) from None
    return value


def _shown_id(value: object) -> str:
    if not isinstance(value, bytes):
        return repr(value)
    return str(UUID(bytes=value)) if len(value) == 16 else f"x'{value.hex()}'"  # noqa: PLR2004  RFC 9562


def _as_bytes(name: str) -> str:
    """The column with its text as bytes, which need not be UTF-8."""
    texts = ("status", "error", "worker")
    return f"CAST(j.{name} AS BLOB)" if name in texts or name.endswith(("_at", "_json")) else f"j.{name}"


_COLUMNS = ", ".join(_as_bytes(name) for name in ROW[1:])
_ROWS = f"SELECT c.id, {_COLUMNS} FROM jobs AS j LEFT JOIN source_connections AS c ON c.number = j.connection"
_BATCH_OF_ROWS = f"""
SELECT j.connection, {_ROWS.removeprefix("SELECT ")}
WHERE (j.connection, j.created_at, j.id) > (?, CAST(? AS TEXT), ?)
ORDER BY j.connection, j.created_at, j.id LIMIT {_BATCH}
"""
_CONNECTIONS = "SELECT number, id, CAST(name AS BLOB) FROM source_connections ORDER BY number"


def _rows(db: Connections) -> Iterator[dict[str, Any]]:
    """Every row there is, those of no connection too; in batches, so that nothing waits for the whole.

    Raises StorageError where they are not in order, and reading on would leave some out or never end.
    """
    place = (-(2**63), b"", b"")
    while batch := db.read(_BATCH_OF_ROWS, place):
        rows = [dict(zip(("connection", *ROW), row, strict=True)) for row in batch]
        places = [place, *map(_place, rows)]
        if any(after <= before for before, after in pairwise(places)):
            raise StorageError(db.path, f"its rows are out of order: {_REINDEX}")
        yield from rows
        place = places[-1]


def _place(row: Mapping[str, Any]) -> tuple[int, bytes, bytes]:
    """Where the row stands in the order of its table; what a damaged file has in place of bytes stands before all."""
    id = row["id"]
    return row["connection"], row["created_at"] or b"", id if isinstance(id, bytes) else b""


def _fault_in_connection(id: object, name: bytes | None) -> InvalidJobError | None:
    try:
        _read("id", id)
        check_name(_read("name", name))
    except InvalidJobError as error:
        return error
    return None


def set_aside(db: Connections, raise_floor: str, file: Path) -> int:
    """Move the rows that are no jobs into a new file, on lines that `jobhistory import` reads once they are mended.

    A connection whose name is none loses it, one whose id is none goes. Gives the number of lines; where there
    are none, no file is made. In batches, so that others may write in between: those of each are in the file, and on
    disk, before they leave the history. Whoever is interrupted goes on with another file.
    """
    bad = [row["id"] for row in _rows(db) if fault_in(row)]
    if not bad and not any(_fault_in_connection(id, name) for _, id, name in db.read(_CONNECTIONS)):
        return 0
    moved = 0
    for first in range(0, len(bad) + 1, _BATCH):  # connections go last, and may be all there is
        is_last = first + _BATCH > len(bad)
        with (longer_file if first else new_file)(file) as descriptor, db.write() as connection:
            connection.execute(raise_floor)
            lines = [_line(row) for id in bad[first : first + _BATCH] for row in _take_out(connection, id)]
            lines += [_line(row) for row in _mend_connections(connection)] if is_last else []
            with open(descriptor, "w", encoding="ascii", closefd=False) as stream:
                stream.writelines(lines)
            sync(file)
        moved += len(lines)
    return moved


def _take_out(connection: sqlite3.Connection, id: object) -> Iterator[dict[str, Any]]:
    """Delete the row with this id, unless it was mended or taken out meanwhile; and give it."""
    for values in connection.execute(f"{_ROWS} WHERE j.id = ?", (id,)).fetchall():
        row = dict(zip(ROW, values, strict=True))
        if fault_in(row):
            connection.execute("DELETE FROM jobs WHERE id = ?", (id,))
            yield row


def _mend_connections(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Take bad names off their connections, and out those with bad ids, which have no jobs any more; give what was."""
    for number, id, name in connection.execute(_CONNECTIONS).fetchall():
        if fault := _fault_in_connection(id, name):
            connection.execute(_UNNAME if fault.field == "name" else _DROP, (number,))
            yield {"source_connection_id": id, "name": name}


_UNNAME = "UPDATE source_connections SET name = NULL WHERE number = ?"
_DROP = "DELETE FROM source_connections WHERE number = ?"


def _line(row: Mapping[str, Any]) -> str:
    """A line in the form of an export, with each value as near to it as it is."""
    return json.dumps({name.removesuffix("_json"): _shown(name, value) for name, value in row.items()}) + "\n"


def _shown(name: str, value: Any) -> Any:  # noqa: ANN401  as it is
    if value is not None and name in ("id", "source_connection_id"):
        return _shown_id(value)
    text = value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
    if name.endswith("_json") and text is not None:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # shown as the text it is
    return text


# ---- The whole check


def check(path: str, db: Connections, migrate: Migrate) -> Iterator[Finding]:
    """What is wrong, what endangers the history, and what was looked at: as it is found."""
    yield from _release(sqlite3.sqlite_version_info)
    if not Path(path).exists():
        yield Finding("error", "the file was taken away", "put it back, or restore a backup")
        return
    yield from _files(Path(path))
    yield from _filesystem(filesystem_of(Path(path).parent))
    try:
        yield from _durability(db)
        yield from _integrity(db)
        yield from _schema(db, migrate)
        yield from _contents(db)
    except StorageError as error:
        yield Finding("error", f"it cannot be read to the end: {error.reason}")


def _release(version: tuple[int, ...]) -> Iterator[Finding]:
    shown = ".".join(map(str, version[:3]))
    for name, first, mended in _DEFECTS:
        branch = [fix for fix in mended if fix[:2] == version[:2]]
        if first <= version < (branch or mended)[0]:
            yield Finding(
                "warning",
                f"SQLite {shown} can damage a file, if very rarely, when several connections write ({name})",
                f"run Python with SQLite {'.'.join(map(str, mended[0]))} or newer, and keep backups",
            )
    yield Finding("note", f"SQLite {shown}")


def _files(path: Path) -> Iterator[Finding]:
    for file in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        if mode := stat.S_IMODE(status.st_mode) & ~PRIVATE:
            yield Finding(
                "warning",
                f"{file} may be used by others than its owner (mode {stat.S_IMODE(status.st_mode):04o}, too much: "
                f"{mode:04o})",
                f"chmod 600 {file}",
            )
        if file.name.endswith("-wal") and status.st_size > _GREATEST_LOG:
            yield Finding(
                "warning",
                f"the write-ahead log has grown to {status.st_size // _MIB:,} MiB: some reader never ends, "
                "or no checkpoint comes through",
                "end whatever holds a read open for long (`fuser` on the file names it); the next write shrinks it",
            )
    disk = os.statvfs(path)
    if (room := disk.f_bavail * disk.f_frsize) < _LEAST_ROOM:
        yield Finding("warning", f"only {room // _MIB:,} MiB are free on its disk", "make room")


def _filesystem(kind: str | None) -> Iterator[Finding]:
    if kind in SHARED_BY_MACHINES | SHARED_PERHAPS:
        yield Finding(
            "error",
            f"it lies on a network or shared filesystem ({kind}), whose locks SQLite cannot rely on: it can be damaged",
            "move it to a local disk (https://www.sqlite.org/useovernet.html)",
        )
    elif kind in _IN_MEMORY:
        yield Finding("warning", f"it lies in memory ({kind}): it is gone after a restart", "move it to a local disk")
    else:
        yield Finding("note", f"filesystem: {kind or 'unknown'}")


def _durability(db: Connections) -> Iterator[Finding]:
    [(journal,)], [(synchronous,)] = db.read("PRAGMA journal_mode"), db.read("PRAGMA synchronous")
    if journal != "wal":
        yield Finding("error", f"it keeps no write-ahead log, but {journal}", "open it once with jobhistory")
    if synchronous < _FULL:
        yield Finding(
            "warning",
            'its durability here is "relaxed": a power loss may take the last writes back',
            'open it with durability="full"',
        )
    else:
        yield Finding("note", "durability: full (write-ahead log, synced at each commit)")


def _integrity(db: Connections) -> Iterator[Finding]:
    found = [said for (said,) in db.read("PRAGMA integrity_check") if said != "ok"]
    is_torn = any(said.startswith("***") for said in found)
    is_unsorted = any(_UNSORTED in said for said in found)
    for said in found:
        if is_unsorted and said.startswith("NULL"):
            continue  # of a row in the wrong place SQLite says that it has no values, which it has
        if said.startswith(("CHECK", "NULL")):
            way_out = _SET_ASIDE  # a row that is named below
        elif not is_torn and (_UNSORTED in said or " index " in said):
            way_out = _REINDEX
        else:
            way_out = _RESTORE
        yield Finding("error", f"integrity: {'; '.join(said.splitlines())}", way_out)


def _schema(db: Connections, migrate: Migrate) -> Iterator[Finding]:
    """What differs from a new file: another program's doing."""
    statement = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_stat%'"
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        migrate(fresh)
        ours = {(kind, name): sql for kind, name, sql in fresh.execute(statement)}
    theirs = {(kind, name): sql for kind, name, sql in db.read(statement)}
    for (kind, name), sql in ours.items():
        if (kind, name) not in theirs:
            yield Finding("error", f"the {kind} {name} is missing: another program dropped it", f"run again: {sql}")
        elif theirs[kind, name] != sql:
            yield Finding("error", f"the {kind} {name} was changed by another program", f"it should be: {sql}")
    for kind, name in theirs.keys() - ours.keys():
        if kind == "trigger":
            yield Finding(
                "warning",
                f"a trigger, {name}, acts on what is written here",
                f"DROP TRIGGER {name}, unless you want it",
            )


def _contents(db: Connections) -> Iterator[Finding]:
    if len(db.read("SELECT only FROM feed")) != 1:
        yield Finding("error", "the floor of the feed is lost", "INSERT OR IGNORE INTO feed VALUES (1, 0)")
    connections = db.read(_CONNECTIONS)
    for _, id, name in connections:
        if fault := _fault_in_connection(id, name):
            yield Finding("error", f"source connection {_shown_id(id)}: {fault}", _SET_ASIDE)
    count = bad = 0
    for row in _rows(db):
        count += 1
        if fault := fault_in(row):
            bad += 1
            yield Finding("error", f"{named(row)}: {fault}", _SET_ASIDE)
    yield Finding("note", f"jobs that keep the record's rules: {count - bad:,} of {count:,}")
