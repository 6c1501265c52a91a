"""A copy of a history in SQLite, while others write to it: SQLite's own way (https://www.sqlite.org/backup.html)."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from jobhistory.errors import StorageError
from jobhistory.private_files import whole_file
from jobhistory.storage.sqlite_connections import Connections, storage_error


def backup(path: str, db: Connections, destination: Path) -> None:
    """Copy the history as it is at one moment into a new file, which appears once it is whole, sound and on disk.

    Raises StorageError where something is there already, and where the copy cannot be made or is not sound.
    """
    with whole_file(destination) as part, db.held() as source:
        try:
            with contextlib.closing(sqlite3.connect(f"{part.as_uri()}?mode=rw", uri=True)) as copy:
                # In one step: a write in between would make it begin again. Writers do not wait for it.
                source.backup(copy)
            _verify(path, part)
        except sqlite3.Error as error:
            raise storage_error(str(destination), error) from error


def _verify(path: str, copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        said = db.execute("PRAGMA integrity_check(1)").fetchall()
        if said != [("ok",)]:
            reason = said[0][0].splitlines()[-1]
            raise StorageError(path, f"its copy is not sound, and was not kept: {reason}: run `jobhistory check`")
