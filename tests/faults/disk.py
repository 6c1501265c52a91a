"""What a disk may hold after a power loss, from the operations on a folder's files.

The model is what POSIX promises and what SQLite asks for (https://www.sqlite.org/atomiccommit.html), no more:
what was synced is there; of what was not, any part may be, in sectors of 512 bytes; a name that was made or
removed is made or removed for sure when its folder was synced.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import attrs

from tests.faults.shim import Kind, Operation

SECTOR = 512


@attrs.define(eq=False)
class File:
    """Its synced content, and the operations since."""

    content: bytearray = attrs.field(factory=bytearray)
    pending: list[Operation] = attrs.field(factory=list)

    def apply(self, operations: Iterable[Operation]) -> None:
        apply(self.content, operations)


def apply(content: bytearray, operations: Iterable[Operation]) -> None:
    for operation in operations:
        if operation.kind is Kind.TRUNCATE:
            del content[operation.offset :]
            content.extend(bytes(operation.offset - len(content)))
        else:
            end = operation.offset + len(operation.data)
            content.extend(bytes(max(0, end - len(content))))
            content[operation.offset : end] = operation.data


class Disk:
    """The files of one folder, and what is known for sure of them."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        # Which file each name may stand for: the last one as of now, the first one for sure since a sync.
        self._names: dict[str, list[File | None]] = {}

    def do(self, operation: Operation) -> None:
        """Take note of the next operation."""
        name = operation.name
        match operation.kind:
            case Kind.OPEN:
                self._files[name] = File()
                self._names.setdefault(name, [None]).append(self._files[name])
            case Kind.UNLINK:
                self._names[name].append(None)
                del self._files[name]
            case Kind.SYNC if name == "":
                for known in self._names.values():
                    del known[:-1]
            case Kind.SYNC:
                self._files[name].apply(self._files[name].pending)
                self._files[name].pending = []
            case _:
                self._files[name].pending.append(operation)

    def image(self, chance: random.Random) -> dict[str, bytes]:
        """The folder as it may be found, by name."""
        survives = chance.choice((nothing, everything, whole, torn, torn_at_the_end))
        found = {}
        for name, known in self._names.items():
            file = known[0] if survives is nothing else known[-1] if survives is everything else chance.choice(known)
            if file is not None:
                content = bytearray(file.content)
                apply(content, survives(file.pending, chance))
                found[name] = bytes(content)
        return found


# ---- Which of the operations that were not synced survive


def nothing(pending: list[Operation], _: random.Random) -> Iterable[Operation]:
    return pending[:0]


def everything(pending: list[Operation], _: random.Random) -> Iterable[Operation]:
    return pending


def whole(pending: list[Operation], chance: random.Random) -> Iterable[Operation]:
    """Any of them, in whole."""
    share = chance.random()
    return [operation for operation in pending if chance.random() < share]


def torn(pending: list[Operation], chance: random.Random) -> Iterable[Operation]:
    """Any sectors of any of them."""
    share = chance.random()
    parts = (part for operation in pending for part in sectors(operation))
    return [part for part in parts if chance.random() < share]


def torn_at_the_end(pending: list[Operation], chance: random.Random) -> Iterable[Operation]:
    """All up to one, and the first sectors of that one."""
    parts = [part for operation in pending for part in sectors(operation)]
    return parts[: chance.randint(0, len(parts))]


def sectors(operation: Operation) -> list[Operation]:
    if operation.kind is Kind.TRUNCATE:
        return [operation]
    edges = range(SECTOR - operation.offset % SECTOR, len(operation.data), SECTOR)
    starts, ends = [0, *edges], [*edges, len(operation.data)]
    return [
        attrs.evolve(operation, offset=operation.offset + start, data=operation.data[start:end])
        for start, end in zip(starts, ends, strict=True)
    ]


def write_image(image: dict[str, bytes], folder: Path) -> None:
    """Make the folder hold this, and nothing else."""
    for file in folder.iterdir():
        file.unlink()
    for name, content in image.items():
        (folder / name).write_bytes(content)
