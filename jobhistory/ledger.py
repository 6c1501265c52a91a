"""A move's ledger: a file that knows, after the process too, what was brought from SOURCE, and how it then stood.

So what is in DEST alone can be told apart: what was brought, and that nobody in DEST has written to since, was
deleted in SOURCE; all else is DEST's own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO
from uuid import UUID

from jobhistory.errors import StorageError
from jobhistory.job import SyncJob

_MARK = b"jobhistory copy, ledger\n"
_SIZE = len(_MARK)
"""Bytes of the mark, and of each entry after it."""
_ID = 16
"""Of those, the first, which are the id's."""
_CONNECTION = bytes(_SIZE - _ID)


def entry(what: UUID | SyncJob) -> bytes:
    """How a connection, by its id, or a job as it stands is written down."""
    if isinstance(what, UUID):
        return what.bytes + _CONNECTION
    # Every write to a job moves its version; the rest tells apart what two would write as the same version.
    stands = (what.version, what.status, what.worker, what.started_at, what.heartbeat_at, what.completed_at)
    digest = hashlib.blake2b("\0".join(map(str, stands)).encode(), digest_size=len(_CONNECTION))
    return what.id.bytes + digest.digest()


class Ledger:
    """What was brought from SOURCE.

    Args:
        file: read and appended to; what it holds is from the same move, which was interrupted. One that holds
            something else is left as it is: StorageError. So is one that cannot be written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.where = str(getattr(file, "name", "the ledger"))
        """Its file, for messages."""
        self._file = file
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        mark = file.read(_SIZE)
        if not _MARK.startswith(mark):
            raise StorageError(self.where, "is no ledger of a copy: give another file, or one that is not there yet")
        file.seek(file.truncate(end // _SIZE * _SIZE))
        if len(mark) < _SIZE:
            self._append(_MARK)

    def note(self, brought: Iterable[UUID | SyncJob]) -> None:
        """Write connections and jobs down, before they are written to DEST. Raises StorageError."""
        self._append(b"".join(map(entry, brought)))

    def among(self, entries: Iterable[bytes]) -> set[bytes]:
        """Those of the entries that were written down."""
        asked = set(entries)
        found: set[bytes] = set()
        if asked:
            for part in self._parts():
                found |= asked.intersection(part)
        return found

    def jobs(self) -> Iterator[UUID]:
        """The ids of the jobs, in the order in which they were written down, some more than once."""
        return (UUID(bytes=each[:_ID]) for part in self._parts() for each in part if each[_ID:] != _CONNECTION)

    def _append(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            reason = f"cannot be written: {error.strerror}: make room, or give another ledger, and copy again"
            raise StorageError(self.where, reason) from error

    def _parts(self) -> Iterator[list[bytes]]:
        place = _SIZE
        while True:
            self._file.seek(place)
            read = self._file.read(_SIZE * 2**16)
            self._file.seek(0, os.SEEK_END)
            if not read:
                return
            yield [read[at : at + _SIZE] for at in range(0, len(read), _SIZE)]
            place += len(read)
