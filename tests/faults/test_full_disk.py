"""A real disk that is full, and one that is mounted read-only: errors that say so, and what still works, works.

Each test works on a filesystem of its own, mounted in a process that has mounts of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from jobhistory import JobStatus, StorageError, UnknownOutcomeError
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, job, jobs
from tests.faults.processes import call
from tests.faults.state import state_in

FINISHED = jobs(*range(300), status=JobStatus.COMPLETED, metadata={"text": "x" * 3000})


def on_a_filesystem_of_its_own(test: Callable[[Path], None], folder: Path) -> None:
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    call(mounted, test, folder, above=alone)


def mounted(test: Callable[[Path], None], folder: Path) -> None:
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
    test(folder)


def filled(path: Path) -> Path:
    """A history of finished jobs that was closed."""
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)
        repository.add_many(FINISHED)
    return path


def fill(folder: Path) -> None:
    """Take all the room there is."""
    with (folder / "filler").open("ab", buffering=0) as filler:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    filler.write(bytes(size))


def refused(act: Callable[[], object], reason: str) -> None:
    with pytest.raises(StorageError, match=reason) as error:
        act()
    assert not isinstance(error.value, UnknownOutcomeError)


def a_full_disk(folder: Path) -> None:
    path = filled(folder / "history.db")
    before = state_in(path)
    with closing(SQLiteJobRepository(path)) as repository:
        assert FINISHED[:-11:-1] == repository.list_jobs(CONNECTION, limit=10)
        fill(folder)
        for act in (lambda: repository.add(job(1000)), lambda: repository.add_many(jobs(*range(1000, 1900)))):
            refused(act, "the disk is full: make room and try again")
            assert FINISHED[:-11:-1] == repository.list_jobs(CONNECTION, limit=10)
        (folder / "filler").unlink()
        assert before == state_in(path)
        repository.add(job(1000))
    assert len(before.feed) + 1 == len(state_in(path).feed)


def deleting(folder: Path) -> None:
    """The log is full of what has its place in the file: copied there, when a write finds no room, it begins anew."""
    path = filled(folder / "history.db")
    with closing(SQLiteJobRepository(path)) as repository:
        repository.delete_many(each.id for each in FINISHED[:150])
        fill(folder)
        failed = 0
        for each in FINISHED[150:]:
            try:
                assert 1 == repository.delete_many([each.id])
            except StorageError:
                failed += 1
                assert 1 == repository.delete_many([each.id])
        assert 0 < failed < 75
    assert () == state_in(path).feed


def opening(folder: Path) -> None:
    path = filled(folder / "history.db")
    before = path.read_bytes()
    fill(folder)
    refused(lambda: SQLiteJobRepository(path), "the disk is full")
    refused(lambda: SQLiteJobRepository(folder / "new.db"), "the disk is full: make room and try again")
    assert before == path.read_bytes()
    (folder / "filler").unlink()
    assert len(FINISHED) == len(state_in(path).feed)
    assert () == state_in(folder / "new.db").feed


def read_only(folder: Path) -> None:
    path = filled(folder / "history.db")
    before = path.read_bytes()
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(folder)], check=True)
    refused(lambda: SQLiteJobRepository(path).connections(), "check that the folder exists, its permissions")
    refused(lambda: SQLiteJobRepository(folder / "new.db"), "cannot be made: .*: give another path")
    assert {path: before} == {file: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("test", [a_full_disk, deleting, opening, read_only])
def test_a_disk_that_takes_nothing_more_is_told_and_harms_nothing(test: Callable[[Path], None], tmp_path: Path) -> None:
    on_a_filesystem_of_its_own(test, tmp_path)
