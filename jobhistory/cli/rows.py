"""Rows: what a file of jobs holds, one by one: JSON on each line or in one array, packed by gzip or not; Parquet."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import BinaryIO, cast

import attrs
import click

from jobhistory.archive import parquet_rows

_LINE_BYTES = 16 * 2**20


@attrs.frozen
class Row:
    """One row of a file: its number and its line, both from 1, and its JSON value, or why it has none."""

    number: int
    line: int
    value: object = None
    refusal: str | None = None

    def __str__(self) -> str:
        return f"row {self.number} (line {self.line})"


@contextmanager
def unpacked(stream: BinaryIO) -> Iterator[Iterable[Row]]:
    """The rows of a file: as `rows` has them, packed by gzip or not, or of a table in Parquet."""
    # A buffer around another would wait until it is full, for lines that come one by one. All it needs is readinto.
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", stream))
    try:
        match buffered.peek(4)[:4]:
            case b"PAR1":
                whole = buffered if buffered.seekable() else io.BytesIO(buffered.read())
                yield (Row(number, number, value) for number, value in enumerate(parquet_rows(whole), 1))
            case head if head.startswith(b"\x1f\x8b"):
                yield _packed(buffered)
            case _:
                yield rows(buffered)
    finally:
        if buffered is not stream:
            buffered.detach()  # it would close what others opened


def _packed(stream: BinaryIO) -> Iterator[Row]:
    """Where the file is cut short, or damaged, a row says so; those before it are whole."""
    number = line = 0
    try:
        for row in rows(cast("BinaryIO", gzip.GzipFile(fileobj=stream))):
            number, line = row.number, row.line
            yield row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield Row(number + 1, line + 1, refusal=f"the file is damaged, or cut short, from here on: {error}")


def rows(stream: BinaryIO) -> Iterable[Row]:
    """The rows of a JSON array, or of a file with one on each line; the latter are read one by one.

    Raises click.ClickException for an array that is not JSON.
    """
    lines = ((at, line) for at, line in _lines(stream) if line.strip())
    for at, line in lines:
        if line.decode("utf-8-sig", "replace").lstrip().startswith("["):
            return _elements(b"\n" * (at - 1) + line + stream.read())
        return (_row(number, at, line) for number, (at, line) in enumerate(chain([(at, line)], lines), 1))
    return ()


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines and their numbers; of one that is too long, its beginning."""
    at = 0
    while line := stream.readline(_LINE_BYTES + 1):
        at += 1
        yield at, line
        while line and not line.endswith(b"\n"):
            line = stream.readline(_LINE_BYTES)


def _row(number: int, at: int, line: bytes) -> Row:
    if len(line) > _LINE_BYTES:
        return Row(number, at, refusal=f"longer than {_LINE_BYTES:,} bytes")
    try:
        return Row(number, at, json.loads(line.decode("utf-8-sig")))
    except json.JSONDecodeError as error:
        return Row(number, at, refusal=f"no JSON (one job on each line, or an array of jobs): {error}")
    except (ValueError, RecursionError) as error:
        return Row(number, at, refusal=str(error))


def _elements(data: bytes) -> Iterator[Row]:
    """The elements of an array that is whole: it is gone through twice, and never in memory as more than a text."""
    try:
        text = data.decode("utf-8-sig")
        del data
        deque(_in_array(text), maxlen=0)
    except (ValueError, RecursionError) as error:
        message = f"no JSON array: {error}; nothing was imported"
        raise click.ClickException(message) from error
    return _in_array(text)


def _in_array(text: str) -> Iterator[Row]:
    """Raises ValueError, RecursionError where it is no JSON array."""
    decode = json.JSONDecoder().raw_decode
    at, line, counted, numbers = _after_space(text, text.index("[") + 1), 1, 0, count(1)
    while not text.startswith("]", at):
        line, counted = line + text.count("\n", counted, at), at
        value, at = decode(text, at)
        yield Row(next(numbers), line, value)
        at = _after_space(text, at)
        if text.startswith(",", at):
            at = _after_space(text, at + 1)
        elif not text.startswith("]", at):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if _after_space(text, at + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
