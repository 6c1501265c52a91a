"""The preload shim (shim.c): built here, put under a Python process, and spoken to from inside of it."""

from __future__ import annotations

import ctypes
import enum
import functools
import hashlib
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.faults.processes import call
from tests.workers import needed

SOURCE = Path(__file__).with_name("shim.c")


class Kind(enum.IntFlag):
    """What is done to a file; `enum kind` in shim.c."""

    OPEN = 1
    READ = 2
    WRITE = 4
    TRUNCATE = 8
    SYNC = 16
    UNLINK = 32
    LOCK = 64
    MAP = 128


@attrs.frozen
class Operation:
    """One thing done to a file of the folder: OPEN (made anew), WRITE, TRUNCATE, SYNC or UNLINK.

    `name` is "" for the folder itself; `offset` is where a WRITE begins, and what a TRUNCATE leaves.
    """

    kind: Kind
    name: str
    offset: int
    data: bytes


@functools.cache
def built() -> Path:
    """The shim, compiled once for each version of its source."""
    text = SOURCE.read_bytes()
    library = Path(tempfile.gettempdir(), f"jobhistory-shim-{hashlib.sha256(text).hexdigest()[:16]}-{os.geteuid()}.so")
    if not library.exists():
        part = library.with_suffix(f".{os.getpid()}")
        command = [
            needed("cc", "apt-get install gcc libc6-dev"),
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            str(part),
            str(SOURCE),
            "-ldl",
        ]
        subprocess.run(command, check=True)
        part.rename(library)
    return library


def above(folder: Path, function: Callable[..., Any], *arguments: object, log: Path | None = None) -> Any:  # noqa: ANN401
    """What the module-level function gives in a new process, with the shim between it and the folder."""
    environment = {"LD_PRELOAD": str(built()), "FAULTS_FOLDER": str(folder)}
    return call(function, *arguments, **environment, **({"FAULTS_LOG": str(log)} if log else {}))


def operations(log: Path) -> Iterator[Operation]:
    """What the shim recorded, in order."""
    head = struct.Struct("=IIIIq")
    data = log.read_bytes()
    at = 0
    while at < len(data):
        kind, name, length, _, offset = head.unpack_from(data, at)
        at += head.size
        yield Operation(Kind(kind), data[at : at + name].decode(), offset, data[at + name : at + name + length])
        at += name + length


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(built()))
    library.faults_arm.argtypes = (ctypes.c_uint, ctypes.c_long, ctypes.c_int, ctypes.c_int)
    library.faults_disarm.restype = ctypes.POINTER(ctypes.c_long)
    return library


class Watch(dict[Kind, int]):
    """How many operations of each kind there were, when it is over."""


@contextmanager
def failing(kinds: Kind, at: int, error: int, *, forever: bool) -> Iterator[Watch]:
    """In a process above the shim: the at-th operation of these kinds fails with the errno, once or from it on."""
    watch = Watch()
    _library().faults_arm(kinds, at, error, forever)
    try:
        yield watch
    finally:
        watch.update(zip(Kind, _library().faults_disarm(), strict=False))
