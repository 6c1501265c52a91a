"""Counts read from what a command writes: its report, its Singer messages, its `rsync --stats`.

Each is read by lines, and a line gives what to add, as `{"inserted": 3}`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from jobhistory.errors import JobCancelled, LostJobError
from jobhistory.job import WIRE_FIELDS

NAMES = tuple(name.removeprefix("entities_") for name in WIRE_FIELDS if name.startswith("entities_"))
"""What is counted: inserted, updated, deleted, failed."""
LONGEST_LINE = 16 * 2**20
"""The longest line that is read, in bytes: more is never held in memory."""

_CHUNK_BYTES = 2**20
_NUMBER = rb"(\d[\d.,]*)"
_CREATED = re.compile(rb"Number of created files: %b(?: \((?:reg: %b)?.*\))?\s*" % (_NUMBER, _NUMBER))
_TRANSFERRED = re.compile(rb"Number of (?:regular )?files transferred: %b\s*" % _NUMBER)
_DELETED = re.compile(rb"Number of deleted files: %b(?: \(.*\))?\s*" % _NUMBER)
_log = logging.getLogger("jobhistory")


@attrs.frozen
class Reader:
    """Reads lines.

    Args:
        read: takes a line without its end, gives what to add, and raises ValueError for a line that it should
            understand and does not.
        marker: what any line that counts has in it, so that others are passed over fast.
    """

    read: Callable[[bytes], Mapping[str, int]]
    marker: bytes = b""


def _report(line: bytes) -> Mapping[str, int]:
    """A line of a report: a JSON object of counts; an empty line adds nothing."""
    if not line.strip():
        return {}
    counts = _json(line)
    if not isinstance(counts, dict) or not counts.keys() <= set(NAMES):
        message = f"wanted a JSON object with keys among {', '.join(NAMES)}"
        raise ValueError(message)
    return counts


def _singer(line: bytes) -> Mapping[str, int]:
    try:
        message = _json(line)
    except ValueError:
        return {}
    return {"inserted": 1} if isinstance(message, dict) and message.get("type") == "RECORD" else {}


def singer_messages() -> Reader:
    """Reads a tap's messages: a RECORD is an entity inserted, since Singer tells no update from an insert.

    https://github.com/singer-io/getting-started/blob/master/docs/SPEC.md
    """
    return Reader(_singer, b'"RECORD"')


def rsync_stats() -> Reader:
    """Reads what `rsync --stats` prints when it is done (rsync(1), --stats).

    Inserted are the created files and deleted the deleted ones, of any kind; updated are the regular files
    transferred that were not created. rsync before 3.1 does not tell the created ones: there all that were
    transferred are updated.
    """
    return Reader(_RsyncStats(), b"Number of ")


class _RsyncStats:
    """Remembers how many files were created, from one line to the next."""

    def __init__(self) -> None:
        self._created = 0

    def __call__(self, line: bytes) -> Mapping[str, int]:
        if match := _CREATED.fullmatch(line):
            self._created = _number(match[2] or b"0")
            return {"inserted": _number(match[1])}
        if match := _TRANSFERRED.fullmatch(line):
            created, self._created = self._created, 0
            return {"updated": max(0, _number(match[1]) - created)}
        if match := _DELETED.fullmatch(line):
            return {"deleted": _number(match[1])}
        return {}


class Counting:
    """Takes a stream of bytes in pieces, as they come, has its lines read, and adds what they say.

    Lines that cannot be read are left out; the first of them is logged.

    Args:
        reader: reads them.
        add: a Run's `report`.
        source: what the stream is, for the log.
    """

    def __init__(self, reader: Reader, add: Callable[..., None], source: str) -> None:
        self._read = reader.read
        self._marker = reader.marker
        self._add = add
        self._source = source
        self._pieces: list[bytes] = []
        self._length = 0
        self._warned = False
        self._closed = False
        self._lock = threading.Lock()

    def feed(self, chunk: bytes) -> None:
        """Take the next piece; what comes after the end is left out."""
        with self._lock:
            if not self._closed:
                for line in self._lines(chunk):
                    self._count(line)

    def close(self) -> None:
        """The stream is over: its last line may lack its end."""
        self.feed(b"\n")
        with self._lock:
            self._closed = True

    def _lines(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that end in the chunk and may count, None for one that is too long."""
        ended, newline, rest = chunk.rpartition(b"\n")
        if newline:
            if self._length > LONGEST_LINE:
                yield None
                ended = ended.partition(b"\n")[2]
            lines = b"".join([*self._pieces, ended])
            self._pieces.clear()
            self._length = 0
            if self._marker in lines:
                yield from (line for line in lines.split(b"\n") if self._marker in line)
        self._length += len(rest)
        if self._length <= LONGEST_LINE:
            self._pieces.append(rest)
        else:
            self._pieces.clear()

    def _count(self, line: bytes | None) -> None:
        try:
            if line is None:
                message = f"it has more than {LONGEST_LINE:,} bytes"
                raise ValueError(message)  # noqa: TRY301  # said in one place
            if counts := self._read(line):
                self._add(**counts)
        except (JobCancelled, LostJobError):
            pass  # added all the same; whoever runs the command stops it
        except ValueError as error:
            if not self._warned:
                self._warned = True
                _log.warning("%s: a line was not counted, nor will others like it be named: %s", self._source, error)


class Report:
    """The file that a command appends its counts to, as JSON objects on lines, read as it grows.

    Args:
        path: where it is made, empty.
        add: a Run's `report`.
    """

    def __init__(self, path: Path, add: Callable[..., None]) -> None:
        path.touch()
        self._file = path.open("rb")
        self._counting = Counting(Reader(_report), add, "JOBHISTORY_REPORT")

    def read(self) -> None:
        """Read what has come since; a file that was written anew, from its start."""
        size = os.fstat(self._file.fileno()).st_size
        if size < self._file.tell():
            self._counting.feed(b"\n")
            self._file.seek(0)
        while chunk := self._file.read(min(_CHUNK_BYTES, size - self._file.tell())):
            self._counting.feed(chunk)

    def close(self) -> None:
        """Read the rest."""
        self.read()
        self._counting.close()
        self._file.close()


def _json(line: bytes) -> Any:  # noqa: ANN401  any JSON value
    try:
        return json.loads(line)
    except RecursionError:
        message = "JSON too deep to read"
        raise ValueError(message) from None


def _number(digits: bytes) -> int:
    """A number with separators between its thousands, commas or points as the locale has it."""
    return int(re.sub(rb"[.,]", b"", digits))
