from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from jobhistory.abilities import BacksUp
from jobhistory.errors import StorageError, UnknownOutcomeError
from jobhistory.private_files import longer_file, new_file, whole_file
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, job, jobs


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "copy.db"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[SQLiteJobRepository]:
    with closing(SQLiteJobRepository(tmp_path / "history.db")) as repository:
        repository.register(CONNECTION, "docs")
        yield repository


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_only_a_history_on_disk_can_be_backed_up(repository: SQLiteJobRepository) -> None:
    assert isinstance(repository, BacksUp)
    assert not isinstance(InMemoryJobRepository(), BacksUp)


def test_a_backup_is_the_same_history_in_one_file(repository: SQLiteJobRepository, copy: Path) -> None:
    repository.add_many(jobs(*range(100)))
    repository.backup(copy)

    assert [copy.name] == names(copy.parent)
    with closing(SQLiteJobRepository(copy)) as restored:
        assert repository.connections() == restored.connections()
        assert repository.changes() == restored.changes()


@pytest.mark.parametrize("mask", [0, 0o777])
def test_only_its_owner_may_read_a_backup_whatever_the_umask(
    repository: SQLiteJobRepository, copy: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        repository.backup(copy)
    finally:
        os.umask(before)

    assert 0o600 == stat.S_IMODE(copy.stat().st_mode)


def test_a_backup_while_others_write_holds_all_that_was_acknowledged_before(
    repository: SQLiteJobRepository, copy: Path
) -> None:
    def write() -> None:
        for at in range(0, 3000, 10):
            repository.add_many(jobs(*range(at, at + 10)))

    copies = [copy.with_name(f"{number}.db") for number in range(5)]
    with ThreadPoolExecutor(1) as writer:
        adding = writer.submit(write)
        before = []
        for each in copies:
            before.append(len(repository.changes()))
            repository.backup(each)
        adding.result()

    for least, each in zip(before, copies, strict=True):
        with closing(SQLiteJobRepository(each)) as restored:
            kept = [change.job for change in restored.changes()]
        # What stands in it was all there at one moment: it is a beginning of what was written, in whole batches.
        assert jobs(*range(len(kept))) == kept
        assert least <= len(kept)
        assert 0 == len(kept) % 10


def test_nothing_is_overwritten(repository: SQLiteJobRepository, copy: Path) -> None:
    copy.write_text("precious")
    with pytest.raises(StorageError, match="is there already, and nothing is overwritten") as refused:
        repository.backup(copy)
    with pytest.raises(StorageError, match="is there already"):
        repository.backup(repository.path)

    assert str(copy) == refused.value.where
    assert "precious" == copy.read_text()
    assert [CONNECTION] == [known.id for known in repository.connections()]


def test_a_place_that_holds_no_file_is_named(repository: SQLiteJobRepository, copy: Path) -> None:
    place = copy.parent / "missing" / "copy.db"
    with pytest.raises(StorageError, match="cannot be made: No such file or directory") as refused:
        repository.backup(place)
    assert str(place) == refused.value.where


def test_a_backup_that_fails_leaves_nothing_behind(
    repository: SQLiteJobRepository, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add_many(jobs(*range(100)))

    class Full(sqlite3.Connection):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            self.execute("PRAGMA max_page_count = 3")

    connect = partial(sqlite3.connect, factory=Full)
    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(StorageError, match="the disk is full") as failed:
        repository.backup(copy)

    assert str(copy) == failed.value.where
    assert [] == names(copy.parent)


def test_a_copy_of_a_damaged_file_is_not_kept(repository: SQLiteJobRepository, copy: Path) -> None:
    repository.add_many(jobs(*range(100), metadata={"text": "x" * 3000}))
    repository.close()
    with Path(repository.path).open("r+b") as file:
        file.seek(-4096 * 3, os.SEEK_END)
        file.write(b"\xff" * 4096 * 3)

    with (
        closing(SQLiteJobRepository(repository.path)) as damaged,
        pytest.raises(StorageError, match=r"its copy is not sound, and was not kept: .*: run `jobhistory check`"),
    ):
        damaged.backup(copy)
    assert [] == names(copy.parent)


def test_a_new_file_goes_where_its_making_fails_but_not_where_it_may_be_needed(copy: Path) -> None:
    for error, kept in ((KeyboardInterrupt(), False), (UnknownOutcomeError("x", "y"), True)):
        with pytest.raises(type(error)), new_file(copy):
            raise error
        assert kept == copy.exists()


def test_a_longer_file_is_as_it_was_where_the_block_raises_and_is_never_made(copy: Path) -> None:
    with pytest.raises(StorageError, match=r"copy\.db: cannot be written: No such file"), longer_file(copy):
        pass
    copy.write_text("first")

    def write(error: BaseException) -> None:
        with longer_file(copy) as descriptor:
            os.write(descriptor, b", more")
            raise error

    for error, text in ((KeyboardInterrupt(), "first"), (UnknownOutcomeError("x", "y"), "first, more")):
        with pytest.raises(type(error)):
            write(error)
        assert text == copy.read_text()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_whole_file_has_its_name_once_it_is_whole_and_overwrites_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    def refused(*_: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    with whole_file(copy) as part:
        part.write_text("first")
        assert not copy.exists(), "an empty history would stand for it"
        with pytest.raises(StorageError, match="is there already"), whole_file(copy):
            copy.write_text("faster")
        copy.unlink()
    assert ("first", ["copy.db"]) == (copy.read_text(), names(copy.parent))


def test_a_new_file_that_cannot_be_written_is_named(copy: Path) -> None:
    with pytest.raises(StorageError, match=r"copy\.db: cannot be written: No space left on device"), new_file(copy):
        raise OSError(28, "No space left on device")
    assert not copy.exists()


def test_a_job_written_after_a_backup_is_not_in_it(repository: SQLiteJobRepository, copy: Path) -> None:
    repository.backup(copy)
    repository.add(job(1))
    with closing(SQLiteJobRepository(copy)) as restored:
        assert [] == restored.list_jobs(CONNECTION)
