"""New files that their owner alone may read, whatever the umask, and that are there after a power loss."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from jobhistory.errors import StorageError, UnknownOutcomeError

PRIVATE = 0o600
_IS_THERE = "is there already, and nothing is overwritten: give another name"


def create(path: str | os.PathLike[str]) -> int:
    """Make an empty file, and give its descriptor. Raises OSError: FileExistsError where something is there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    os.fchmod(descriptor, PRIVATE)
    return descriptor


def check_new(path: Path) -> None:
    """Raise StorageError where something is there already, for who wants to know it before there is work to lose."""
    if path.exists():
        raise StorageError(str(path), _IS_THERE)


@contextlib.contextmanager
def new_file(path: Path, *, known_as: Path | None = None) -> Iterator[int]:
    """The descriptor of a new file, which is gone again where the block raises.

    It stays where that is an UnknownOutcomeError: it may hold what is nowhere else. Raises StorageError, naming
    `known_as` or the path, where something is there already, or no file can be made.
    """
    name = str(known_as or path)
    try:
        descriptor = create(path)
    except FileExistsError as error:
        raise StorageError(name, _IS_THERE) from error
    except OSError as error:
        raise StorageError(name, f"cannot be made: {error.strerror}: give another path") from error
    with _undone(name, lambda: path.unlink(missing_ok=True)), os.fdopen(descriptor, "rb", buffering=0):
        yield descriptor


@contextlib.contextmanager
def longer_file(path: Path) -> Iterator[int]:
    """The descriptor of a file that is there, at its end; where the block raises, it is as long as it was again.

    With the same exception, and StorageError, as `new_file`.
    """
    with _undone(str(path), bool), path.open("r+b", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        with _undone(str(path), lambda: file.truncate(length)):
            yield file.fileno()


@contextlib.contextmanager
def _undone(name: str, undo: Callable[[], object]) -> Iterator[None]:
    """What the block wrote to the file of this name is undone where it raises, but for UnknownOutcomeError."""
    try:
        yield
    except UnknownOutcomeError:
        raise
    except OSError as error:
        undo()
        if isinstance(error, StorageError):
            raise
        raise StorageError(name, f"cannot be written: {error.strerror}") from error
    except BaseException:
        undo()
        raise


@contextlib.contextmanager
def whole_file(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """A name to write to: what stands there at the end of the block becomes the new file, whole and on disk.

    Nothing is overwritten, unless it `replaces` what is there; and nothing stays where the block raises. StorageError
    as from `new_file`.
    """
    path = path.resolve()
    if not replaces:
        check_new(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with new_file(part, known_as=path):
        yield part
        sync(part)
        if replaces:
            part.replace(path)
            sync(path)
            return
        _name(part, path)
        try:
            sync(path)
        except BaseException:
            path.unlink()
            raise


def _name(part: Path, path: Path) -> None:
    """Give the file its name, which nothing else has: in one step, so that no empty file has it meanwhile."""
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise StorageError(str(path), _IS_THERE) from error
    except OSError:  # no filesystem of ours: FAT has no links
        with new_file(path):
            part.replace(path)
    else:
        part.unlink()


def sync(path: Path) -> None:
    """Put a file, and its name in its folder, on disk."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
