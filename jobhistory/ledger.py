"""A move's ledger: a file that knows, after the process too, what was brought from SOURCE."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO
from uuid import UUID

from jobhistory.errors import StorageError

_MARK = b"jobhistory copy\n"
_SIZE = 16
"""Bytes of the mark, and of each id after it."""


class Ledger:
    """The ids of what was brought from SOURCE.

    Args:
        file: read and appended to; what it holds is from the same move, which was interrupted. One that holds
            something else is left as it is: StorageError.
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
            file.write(_MARK)
            file.flush()

    def note(self, ids: Iterable[UUID]) -> None:
        """Write the ids down, before what they stand for is written to DEST."""
        self._file.write(b"".join(id.bytes for id in ids))
        self._file.flush()

    def among(self, ids: Iterable[UUID]) -> set[UUID]:
        """Those of the ids that were written down."""
        asked = {id.bytes: id for id in ids}
        found: set[bytes] = set()
        if asked:
            for read in self._parts():
                found |= asked.keys() & set(read)
        return {asked[each] for each in found}

    def __iter__(self) -> Iterator[UUID]:
        """All the ids, in the order in which they were written down."""
        return (UUID(bytes=each) for read in self._parts() for each in read)

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
