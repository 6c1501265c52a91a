from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import times
from jobhistory.errors import (
    ActiveJobExistsError,
    SourceConnectionNotFoundError,
    StorageError,
    UnknownOutcomeError,
)
from jobhistory.job import COLUMNS, SyncJob
from jobhistory.repository import Position
from jobhistory.status import JobStatus
from jobhistory.storable import JSONText
from jobhistory.storage import filesystem, sqlite, sqlite_connections
from jobhistory.storage.sqlite import APPLICATION_ID, SQLiteJobRepository
from jobhistory.storage.sqlite_connections import Connections
from jobhistory.testing import strategies
from jobhistory.testing.rules.base import CONNECTION, OTHER, UNKNOWN, at, job, jobs

BESIDE = ("-wal", "-shm", "-journal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def repository(path: Path) -> Iterator[SQLiteJobRepository]:
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)
        repository.register(OTHER)
        yield repository


def driver(repository: SQLiteJobRepository) -> sqlite3.Connection:
    """The connection that the repository itself uses in this thread."""
    repository.connections()
    return repository._db._connection()


def pragma(connection: sqlite3.Connection, name: str) -> object:
    [(value,)] = connection.execute(f"PRAGMA {name}").fetchall()
    return value


def foreign(path: Path, *statements: str) -> sqlite3.Connection:
    """A connection of another application, which has run the statements."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement).fetchall()
    return connection


def run_python(program: str, *arguments: object) -> str:
    """What the program prints, in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def in_another_thread(call: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def descriptors(folder: Path) -> list[str]:
    """The files in the folder that this process has open, one entry a descriptor."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own descriptor
            found.append(str(entry.readlink()))
    return sorted(name for name in found if name.startswith(str(folder)))


# ---- A file that is made


@pytest.mark.parametrize(
    ("name", "value"),
    [("application_id", APPLICATION_ID), ("user_version", 1), ("auto_vacuum", 2), ("journal_mode", "wal")],
)
def test_a_new_file_bears_the_marks_of_a_history(
    repository: SQLiteJobRepository, path: Path, name: str, value: object
) -> None:
    assert value == pragma(driver(repository), name)
    repository.close()
    with closing(sqlite3.connect(path)) as other:
        assert value == pragma(other, name)


def test_the_mark_spells_jobh() -> None:
    assert b"jobh" == APPLICATION_ID.to_bytes(4, "big")


def test_space_that_was_freed_can_be_given_back(repository: SQLiteJobRepository, path: Path) -> None:
    many = jobs(*range(300), status=JobStatus.COMPLETED, metadata={"text": "x" * 4000})
    repository.add_many(many)
    repository.delete_many(each.id for each in many)
    repository.close()
    full = path.stat().st_size
    with closing(sqlite3.connect(path)) as other:
        other.executescript("PRAGMA incremental_vacuum")

    assert path.stat().st_size < full / 10


@pytest.mark.parametrize(("durability", "synchronous"), [(None, 2), ("full", 2), ("relaxed", 1)])
def test_durability_is_full_unless_relaxed(path: Path, durability: Any, synchronous: int) -> None:  # noqa: ANN401
    options = {} if durability is None else {"durability": durability}
    with closing(SQLiteJobRepository(path, **options)) as repository:
        assert synchronous == pragma(driver(repository), "synchronous")


def test_the_connection_that_made_the_file_is_set_as_those_that_come_later(repository: SQLiteJobRepository) -> None:
    def settings() -> dict[str, object]:
        return {name: pragma(driver(repository), name) for name in ("recursive_triggers", "trusted_schema")}

    # A file may come from anywhere: what its views call is not trusted.
    assert {"recursive_triggers": 0, "trusted_schema": 0} == settings()
    in_another_thread(lambda: equal({"recursive_triggers": 0, "trusted_schema": 0}, settings()))


def equal(expected: object, actual: object) -> None:
    assert expected == actual


@pytest.mark.parametrize("durability", ["FULL", "normal", None, 2])
def test_an_unknown_durability_is_refused_before_a_file_is_made(path: Path, durability: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=re.escape(f"must be 'full' or 'relaxed', not {durability!r}")):
        SQLiteJobRepository(path, durability=durability)

    assert not path.exists()


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "30", None])
def test_a_timeout_that_is_no_duration_is_refused_before_a_file_is_made(path: Path, timeout: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=r"timeout must be seconds"):
        SQLiteJobRepository(path, timeout=timeout)

    assert not path.exists()


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_only_its_owner_may_read_a_new_file_whatever_the_umask(path: Path, mask: int) -> None:
    with umask(mask), closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)

        files = [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]
        assert [0o600] * 3 == [stat.S_IMODE(file.stat().st_mode) for file in files]


def test_an_empty_file_becomes_a_history_and_keeps_its_mode(path: Path) -> None:
    path.touch()
    path.chmod(0o640)
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)

    assert 0o640 == stat.S_IMODE(path.stat().st_mode)


def test_a_closed_history_is_one_file(repository: SQLiteJobRepository, path: Path) -> None:
    repository.close()

    assert [path] == list(path.parent.iterdir())


# ---- Where it lies


def test_a_relative_path_stays_the_same_file_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with closing(SQLiteJobRepository("history.db")) as repository:
        monkeypatch.chdir("elsewhere")
        in_another_thread(lambda: repository.register(CONNECTION))

        assert [CONNECTION] == [known.id for known in repository.connections()]
        assert str(tmp_path / "history.db") == repository.path
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_a_link_leads_to_one_history_however_it_is_reached(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path.name)
    with closing(SQLiteJobRepository(link)) as linked, closing(SQLiteJobRepository(path)) as direct:
        linked.register(CONNECTION)
        assert linked.connections() == direct.connections()
        assert ["history.db", "history.db-shm", "history.db-wal", "link.db"] == sorted(names(tmp_path))

        link.unlink()
        link.symlink_to("another.db")
        in_another_thread(lambda: linked.register(OTHER))
        assert {CONNECTION, OTHER} == {known.id for known in direct.connections()}


@pytest.mark.parametrize("name", ["a%20b?mode=ro&immutable=1#c.db", " ", "\N{PILE OF POO}", os.fsdecode(b"\xff.db")])
def test_any_name_a_file_can_have_is_taken_literally(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        with closing(SQLiteJobRepository(tmp_path / name)) as repository:
            repository.register(CONNECTION)

    assert [name] == names(tmp_path)


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", Path(":memory:")])
def test_what_is_no_path_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="is no file: give a path, or use InMemoryJobRepository") as refused:
        SQLiteJobRepository(path)

    assert repr(path) == refused.value.where
    assert [] == list(tmp_path.iterdir())


def test_a_path_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "history.db"
    with pytest.raises(StorageError, match="its folder does not exist: make it first") as refused:
        SQLiteJobRepository(path)

    assert str(path) == refused.value.where
    assert isinstance(refused.value.__cause__, FileNotFoundError)
    assert [] == list(tmp_path.iterdir())


def test_a_path_that_no_file_can_have_is_refused(path: Path) -> None:
    path.touch()
    loop = path.with_name("loop")
    loop.symlink_to(loop)
    for impossible in (path / "under a file.db", path.with_name("n" * 300), loop):
        with pytest.raises(StorageError, match="give another path") as refused:
            SQLiteJobRepository(impossible)
        assert str(impossible) == refused.value.where
        assert isinstance(refused.value.__cause__, OSError)

    assert b"" == path.read_bytes()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    folder, pipe = tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (folder, pipe, Path("/dev/null")):
        with pytest.raises(StorageError, match="is no regular file: give another path") as refused:
            SQLiteJobRepository(path)
        assert str(path) == refused.value.where

    assert ["folder", "pipe"] == sorted(names(tmp_path))
    assert not Path("/dev/null-journal").exists()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, worked in by a user who may do nothing special."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_may_not_be_written_to_is_named(unprivileged: Path) -> None:
    unprivileged.chmod(0o555)
    with pytest.raises(StorageError, match="cannot be made: its folder may not be written to") as refused:
        SQLiteJobRepository(unprivileged / "history.db")

    assert isinstance(refused.value.__cause__, PermissionError)


def test_a_file_that_may_not_be_read_is_refused_and_stays_as_it_is(unprivileged: Path) -> None:
    path = unprivileged / "history.db"
    SQLiteJobRepository(path).close()
    content = path.read_bytes()
    path.chmod(0)
    with pytest.raises(StorageError, match="permissions") as refused:
        SQLiteJobRepository(path)

    assert str(path) == refused.value.where
    path.chmod(0o600)
    assert (content, ["history.db"]) == (path.read_bytes(), names(unprivileged))


def test_a_file_that_may_not_be_written_to_can_be_read(unprivileged: Path) -> None:
    path = unprivileged / "history.db"
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)
    path.chmod(0o400)
    with closing(SQLiteJobRepository(path)) as repository:
        assert [CONNECTION] == [known.id for known in repository.connections()]
        with pytest.raises(StorageError, match="cannot be written to: check permissions") as refused:
            repository.register(OTHER)

    assert str(path) == refused.value.where


@pytest.fixture
def looking_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_connections, "_IN_PLACE_FOR", 0)


def test_a_file_that_was_taken_away_is_not_made_anew(repository: SQLiteJobRepository, path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(StorageError, match=r"was taken away .*: put it back, or open the history anew"):
        in_another_thread(repository.connections)

    assert [] == list(path.parent.iterdir())


@pytest.mark.usefixtures("looking_always")
def test_nothing_is_acknowledged_that_goes_to_a_file_without_a_name(
    repository: SQLiteJobRepository, path: Path
) -> None:
    repository.add(job(1))
    path.rename(path.with_name("aside.db"))
    for call in METHODS.values():
        with pytest.raises(StorageError, match=r"was taken away \(No such file or directory\)") as refused:
            call(repository)
        assert str(path) == refused.value.where
        assert isinstance(refused.value.__cause__, FileNotFoundError)

    path.with_name("aside.db").rename(path)
    assert [job(1)] == repository.list_jobs(CONNECTION)


@pytest.mark.usefixtures("looking_always")
def test_a_file_that_was_replaced_is_not_taken_for_the_one_that_was_opened(
    repository: SQLiteJobRepository, path: Path
) -> None:
    restored = path.with_name("restored.db")
    SQLiteJobRepository(restored).close()
    before = restored.read_bytes()
    assert 2 == len(repository.connections())
    restored.replace(path)
    for call in (repository.connections, lambda: in_another_thread(lambda: repository.register(UNKNOWN))):
        with pytest.raises(StorageError, match="was replaced by another file: open the history anew"):
            call()

    assert before == path.read_bytes()


def test_who_only_reads_soon_sees_that_the_file_was_taken_away_and_who_writes_at_once(
    repository: SQLiteJobRepository, path: Path
) -> None:
    repository.add(job(1))
    reads = iter(partial(repository.get, job(1).id), None)
    assert job(1) == next(reads)
    path.unlink()
    with pytest.raises(StorageError, match="was taken away"):
        repository.add(job(2))
    with pytest.raises(StorageError, match="was taken away"):
        deque(reads, maxlen=0)


@pytest.mark.parametrize("another", [False, True])
def test_nothing_is_acknowledged_that_goes_to_a_log_without_a_name_and_closing_saves_it(
    repository: SQLiteJobRepository, path: Path, *, another: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connections, "_IN_PLACE_FOR", 0 if another else 1e9)
    repository.add(job(1))
    log = path.with_name("history.db-wal")
    log.unlink()
    if another:
        log.touch()
    for write in (partial(repository.add, job(2)), partial(repository.replace, job(1).start(at=at(2)))):
        with pytest.raises(StorageError, match=rf"lost its log, {log}: close the history everywhere") as refused:
            write()
        assert str(path) == refused.value.where

    repository.close()
    with closing(SQLiteJobRepository(path)) as again:
        assert [job(1)] == again.list_jobs(CONNECTION)


def test_who_opens_a_history_whose_log_was_taken_away_is_told_what_saves_it(
    repository: SQLiteJobRepository, path: Path
) -> None:
    repository.add(job(1))
    path.with_name("history.db-wal").unlink()
    told = pytest.raises(StorageError, match="if its -wal was taken away, close the history everywhere")
    with closing(SQLiteJobRepository(path)) as other, told:
        other.list_jobs(CONNECTION)

    repository.close()
    with closing(SQLiteJobRepository(path)) as again:
        assert [job(1)] == again.list_jobs(CONNECTION)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_filesystem_is_refused_before_a_file_is_made(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = path.parent.stat().st_dev
    mounts = path.with_name("mountinfo")
    mounts.write_text(
        "22 27 0:21 / /proc rw,relatime shared:1 - proc proc rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt/server rw,noatime shared:7 - {kind} server:/jobs rw\n"
    )
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    with pytest.raises(StorageError, match=rf"network filesystem \({kind}\): use a local disk"):
        SQLiteJobRepository(path)

    assert ["mountinfo"] == names(path.parent)


def test_the_filesystem_is_known_where_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "proc" == filesystem.filesystem_of("/proc")
    assert filesystem.filesystem_of(tmp_path / "missing") is None
    monkeypatch.setattr(filesystem, "_MOUNTS", tmp_path / "no Linux")
    assert filesystem.filesystem_of("/proc") is None
    (tmp_path / "no Linux").touch()
    assert filesystem.filesystem_of("/proc") is None


# ---- A file that is refused, and left as it is


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def rollback_database(path: Path) -> None:
    foreign(path, "CREATE TABLE theirs (x)", "INSERT INTO theirs VALUES (1)", "PRAGMA user_version = 1").close()


def wal_database(path: Path) -> None:
    foreign(path, "PRAGMA journal_mode = WAL", "CREATE TABLE theirs (x)").close()


def wal_database_left_by_a_crash(path: Path) -> None:
    source = path.with_name("source")
    with closing(foreign(source, "PRAGMA journal_mode = WAL", "CREATE TABLE theirs (x)")):
        for suffix in ("", "-wal"):
            shutil.copy(f"{source}{suffix}", f"{path}{suffix}")
    source.unlink()


def empty_database(path: Path) -> None:
    foreign(path, "VACUUM").close()


def marked_database(path: Path) -> None:
    foreign(path, "CREATE TABLE theirs (x)", "PRAGMA application_id = 252006674").close()  # a GeoPackage


def text(path: Path) -> None:
    path.write_text("2024-03-15 job started\n" * 1000)


def short_text(path: Path) -> None:
    path.write_text("x")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def cut_short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


NEWER = "PRAGMA user_version = 2"


def newer_history(path: Path) -> None:
    SQLiteJobRepository(path).close()
    foreign(path, NEWER).close()


def newer_history_left_by_a_crash(path: Path) -> None:
    """Its release upgraded it, and died before the log was copied back."""
    newer_history(path)
    source = path.with_name("source")
    path.rename(source)
    with closing(foreign(source, "CREATE TABLE more (x)")):
        for suffix in ("", "-wal"):
            shutil.copy(f"{source}{suffix}", f"{path}{suffix}")
    source.unlink()


NOT_OURS = "is no job history, but another application's file: give another path"
NO_DATABASE = "the file is no SQLite database: give another path"
TOO_NEW = "has schema 2, of a newer release: upgrade jobhistory"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (rollback_database, NOT_OURS),
        (wal_database, NOT_OURS),
        (wal_database_left_by_a_crash, NOT_OURS),
        (empty_database, NOT_OURS),
        (marked_database, NOT_OURS),
        (short_text, NOT_OURS),
        (text, NO_DATABASE),
        (zeros, NO_DATABASE),
        (cut_short, NO_DATABASE),
        (newer_history, TOO_NEW),
        (newer_history_left_by_a_crash, TOO_NEW),
    ],
)
def test_a_file_that_is_no_history_of_ours_is_refused_and_stays_as_it_is(
    path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(path)
    before = snapshot(path.parent)
    with pytest.raises(StorageError, match=re.escape(reason)) as refused:
        SQLiteJobRepository(path)

    assert str(path) == refused.value.where
    assert before == snapshot(path.parent)
    assert [] == descriptors(path.parent)


class Interrupted(SQLiteJobRepository):
    """A repository whose file others use while it is being opened: after it was looked at, before it is read."""

    meanwhile: Callable[[Path], object] | None

    def _connect(self) -> sqlite3.Connection:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile(Path(self.path))
        return super()._connect()


def interrupted(path: Path, meanwhile: Callable[[Path], object]) -> SQLiteJobRepository:
    class Opening(Interrupted):
        def __init__(self) -> None:
            self.meanwhile = meanwhile
            super().__init__(path)

    return Opening()


@pytest.mark.parametrize(
    ("make", "reason"), [(rollback_database, NOT_OURS), (marked_database, NOT_OURS), (newer_history, TOO_NEW)]
)
def test_a_file_that_becomes_anothers_while_it_is_opened_is_refused(
    path: Path, make: Callable[[Path], None], reason: str
) -> None:
    with pytest.raises(StorageError, match=re.escape(reason)):
        interrupted(path, make)

    assert [] == descriptors(path.parent)
    with closing(sqlite3.connect(path)) as other:
        assert [] == other.execute("SELECT name FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchall() or (
            make is newer_history
        )


# ---- A file that was left in the midst of something


def crash(source: Path, path: Path) -> None:
    """Make at `path` what a history in use leaves when its machine dies: the file and its log."""
    for suffix in ("", "-wal"):
        shutil.copy(f"{source}{suffix}", f"{path}{suffix}")


def logged_pages(log: Path) -> dict[int, bytes]:
    """The latest content of each page in a write-ahead log (https://www.sqlite.org/fileformat2.html#walformat)."""
    data = log.read_bytes()
    (size,) = struct.unpack_from(">I", data, 8)
    frames = range(32, len(data), 24 + size)
    return {struct.unpack_from(">I", data, frame)[0]: data[frame + 24 : frame + 24 + size] for frame in frames}


def test_what_was_acknowledged_is_there_after_a_crash(repository: SQLiteJobRepository, path: Path) -> None:
    repository.add_many(jobs(*range(100)))
    crash(path, path.with_name("crashed.db"))

    with closing(SQLiteJobRepository(path.with_name("crashed.db"))) as recovered:
        assert repository.list_jobs(CONNECTION) == recovered.list_jobs(CONNECTION)


@pytest.mark.parametrize("copied", [1, 2, 50])
def test_a_history_whose_checkpoint_was_cut_short_opens(
    repository: SQLiteJobRepository, path: Path, copied: int
) -> None:
    repository.add_many(jobs(*range(100), metadata={"text": "x" * 3000}))
    crashed = path.with_name("crashed.db")
    crash(path, crashed)
    pages = sorted(logged_pages(crashed.with_name("crashed.db-wal")).items())
    with crashed.open("r+b") as file:
        for number, page in pages[:copied]:
            file.seek((number - 1) * len(page))
            file.write(page)
    assert crashed.stat().st_size < len(pages) * len(pages[0][1])

    with closing(SQLiteJobRepository(crashed)) as recovered:
        assert repository.list_jobs(CONNECTION) == recovered.list_jobs(CONNECTION)


def test_a_file_whose_first_opening_died_becomes_a_history(path: Path) -> None:
    def die(path: Path) -> None:
        assert path.stat().st_size == 0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted(path, die)

    with closing(SQLiteJobRepository(path)) as repository:
        assert [] == repository.connections()


JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def journal(path: Path, pages_before: int, magic: bytes = JOURNAL_MAGIC) -> None:
    """A rollback journal of a database of so many pages, none of them changed yet."""
    head = magic + struct.pack(">IIIII", 0, 1, pages_before, 512, 4096)
    path.with_name(f"{path.name}-journal").write_bytes(head.ljust(512, b"\0"))


def test_a_file_that_lost_power_while_it_was_made_becomes_a_history(path: Path) -> None:
    path.write_bytes(bytes(4096) + b"pages that came to the disk before the first one".ljust(4096, b"\0"))
    journal(path, 0)
    with closing(SQLiteJobRepository(path)) as repository:
        assert [] == repository.connections()

    assert ["history.db"] == names(path.parent)


@pytest.mark.parametrize(
    ("content", "pages_before", "magic"),
    [
        (b"no database, whatever lies beside it" * 300, 0, JOURNAL_MAGIC),
        (bytes(8192), 2, JOURNAL_MAGIC),
        (bytes(8192), 0, b"no magic"),
    ],
)
def test_a_file_that_cannot_be_half_made_is_refused_and_stays_as_it_is(
    path: Path, content: bytes, pages_before: int, magic: bytes
) -> None:
    path.write_bytes(content)
    journal(path, pages_before, magic)
    before = snapshot(path.parent)
    with pytest.raises(StorageError, match=re.escape(NO_DATABASE)):
        SQLiteJobRepository(path)

    assert before == snapshot(path.parent)


def test_a_file_that_another_made_meanwhile_is_used_as_it_is(path: Path) -> None:
    def be_faster(path: Path) -> None:
        with closing(SQLiteJobRepository(path)) as first:
            first.register(CONNECTION)

    with closing(interrupted(path, be_faster)) as late:
        assert [CONNECTION] == [known.id for known in late.connections()]


# ---- Its locks


def test_opening_a_history_again_drops_no_lock_of_this_process(repository: SQLiteJobRepository, path: Path) -> None:
    assert 2 == len(repository.connections())
    SQLiteJobRepository(path).close()
    program = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("PRAGMA journal_mode = DELETE")
except sqlite3.OperationalError as error:
    print(error)
"""

    assert "database is locked\n" == run_python(program, path)


def test_a_history_is_opened_and_read_while_another_writes(repository: SQLiteJobRepository, path: Path) -> None:
    with closing(foreign(path, "BEGIN IMMEDIATE")), closing(SQLiteJobRepository(path, timeout=0)) as reader:
        assert repository.connections() == reader.connections()


def test_opening_a_history_writes_nothing(repository: SQLiteJobRepository, path: Path) -> None:
    before = snapshot(path.parent)
    with closing(SQLiteJobRepository(path)) as reader:
        in_another_thread(reader.connections)

    after = snapshot(path.parent)
    assert [before[name] for name in ("history.db", "history.db-wal")] == [
        after[name] for name in ("history.db", "history.db-wal")
    ]
    assert 2 == len(repository.connections())


def test_a_lock_held_beyond_the_timeout_is_an_error_that_names_it(path: Path) -> None:
    with closing(SQLiteJobRepository(path, timeout=timedelta(milliseconds=150))) as repository:
        repository.register(CONNECTION)
        with closing(foreign(path, "BEGIN IMMEDIATE")):
            with pytest.raises(StorageError, match=r"database is locked .* or raise timeout") as refused:
                repository.register(OTHER)
            assert [CONNECTION] == [known.id for known in repository.connections()]

        assert str(path) == refused.value.where
        assert isinstance(refused.value.__cause__, sqlite3.OperationalError)
        repository.register(OTHER)
        assert 2 == len(repository.connections())


class Driver(sqlite3.Connection):
    """A connection of the real driver that lets a test do something around each statement."""

    before: Callable[[str], object] = staticmethod(lambda _: None)
    after: Callable[[str], object] = staticmethod(lambda _: None)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # noqa: ANN401
        self.before(sql)
        cursor = super().execute(sql, *parameters)
        self.after(sql)
        return cursor


class Store:
    """Connections on a file of one table, in the journal mode given, and the driver they use."""

    def __init__(self, path: Path, mode: str = "WAL") -> None:
        self.path = path
        foreign(path, f"PRAGMA journal_mode = {mode}", "CREATE TABLE marks (mark)").close()
        self.connections = Connections(str(path), self._connect, timeout=60)
        self.marks()

    def _connect(self) -> Driver:
        return sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False, factory=Driver)

    @property
    def driver(self) -> Driver:
        driver = self.connections._connection()
        assert isinstance(driver, Driver)
        return driver

    def mark(self, mark: int) -> None:
        with self.connections.write() as db:
            db.execute("INSERT INTO marks VALUES (?)", (mark,))

    def marks(self) -> list[int]:
        return [mark for (mark,) in self.connections.read("SELECT mark FROM marks")]


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.connections.close()


def raising(error: BaseException, at: str) -> Callable[[str], None]:
    def watch(sql: str) -> None:
        if sql == at:
            raise error

    return watch


def counting(attempts: int, at: str, then: Callable[[], object]) -> Callable[[str], None]:
    """Does `then` before the attempt that follows the given number of failed ones."""
    seen: list[str] = []

    def watch(sql: str) -> None:
        if sql == at:
            seen.append(sql)
            if len(seen) > attempts:
                then()

    return watch


def test_a_write_waits_until_the_lock_is_free(store: Store) -> None:
    with closing(foreign(store.path, "BEGIN IMMEDIATE")) as other:
        store.driver.before = counting(3, "BEGIN IMMEDIATE", other.rollback)
        store.mark(1)

    assert [1] == store.marks()


def test_a_read_waits_until_the_lock_is_free(tmp_path: Path) -> None:
    store = Store(tmp_path / "rollback.db", "DELETE")
    with closing(foreign(store.path, "BEGIN EXCLUSIVE")) as other:
        store.driver.before = counting(3, "SELECT mark FROM marks", other.rollback)
        assert [] == store.marks()
    store.connections.close()


def test_a_commit_waits_for_readers_of_a_file_that_has_no_log_yet(tmp_path: Path) -> None:
    store = Store(tmp_path / "rollback.db", "DELETE")
    with closing(foreign(store.path, "BEGIN", "SELECT * FROM marks")) as other:
        store.driver.before = counting(3, "COMMIT", other.rollback)
        store.mark(1)
        assert [1] == store.marks()
    store.connections.close()


@pytest.mark.parametrize("when", ["after BEGIN IMMEDIATE", "before COMMIT", "after COMMIT"])
def test_an_interrupted_write_leaves_no_transaction_open(store: Store, when: str) -> None:
    edge, _, statement = when.partition(" ")
    setattr(store.driver, edge, raising(KeyboardInterrupt(), statement))
    with pytest.raises(KeyboardInterrupt):
        store.mark(1)

    assert not store.driver.in_transaction
    setattr(store.driver, edge, lambda _: None)
    store.mark(2)
    assert ([1, 2] if when == "after COMMIT" else [2]) == store.marks()


def test_a_write_within_a_write_of_its_own_thread_is_refused_and_harms_nothing(store: Store) -> None:
    with store.connections.write() as db:
        db.execute("INSERT INTO marks VALUES (1)")
        with pytest.raises(StorageError, match="in the midst of a write: write from another thread"):
            store.mark(2)

    assert [1] == store.marks()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "INSERT INTO marks VALUES (?)", "COMMIT"])
def test_a_fork_in_the_midst_of_a_write_undoes_it_on_both_sides(store: Store, statement: str) -> None:
    children: list[int] = []
    store.driver.before = counting(0, statement, lambda: children.append(os.fork()))
    try:
        with pytest.raises(StorageError, match=r"this thread forked, .* in the midst of this: do it again"):
            store.mark(1)
        store.mark(2 if children == [0] else 3)
    except BaseException:
        if children == [0]:
            os._exit(1)
        raise
    if children == [0]:
        os._exit(0)
    [child] = children
    assert 0 == os.waitpid(child, 0)[1]

    assert [2, 3] == sorted(store.marks())


def test_a_connection_that_cannot_roll_back_is_given_up(store: Store) -> None:
    class Stuck(Driver):
        def rollback(self) -> None:
            raise sqlite3.OperationalError

    store.driver.__class__ = Stuck
    store.driver.after = raising(ZeroDivisionError(), "INSERT INTO marks VALUES (?)")
    with pytest.raises(ZeroDivisionError):
        store.mark(1)

    store.mark(2)
    assert [2] == store.marks()


def test_a_commit_that_fails_has_an_unknown_outcome(store: Store) -> None:
    for statement in (
        "PRAGMA foreign_keys = ON",
        "CREATE TABLE known (mark PRIMARY KEY)",
        "CREATE TABLE bound (mark REFERENCES known DEFERRABLE INITIALLY DEFERRED)",
    ):
        store.driver.execute(statement)
    with (
        pytest.raises(UnknownOutcomeError, match="the commit failed: FOREIGN KEY constraint failed") as unknown,
        store.connections.write() as db,
    ):
        db.execute("INSERT INTO bound VALUES (7)")

    assert str(store.path) == unknown.value.where
    assert isinstance(unknown.value.__cause__, sqlite3.IntegrityError)
    assert not store.driver.in_transaction
    store.mark(1)
    assert [1] == store.marks()


# ---- Waiting for others


def test_waiting_for_what_is_there_already_ends_at_once(repository: SQLiteJobRepository) -> None:
    repository.add(job(1))
    [change] = repository.changes()

    assert [True, False] == [repository.wait_for_changes(after, 0) for after in (None, change.token)]


# ---- Errors


Deny = Callable[[int, str | None], bool]


@contextmanager
def denying(repository: SQLiteJobRepository, deny: Deny) -> Iterator[None]:
    """The repository's own connection fails at what is denied, as on a file that fails."""
    connection = driver(repository)
    connection.set_authorizer(lambda action, name, *_: sqlite3.SQLITE_DENY if deny(action, name) else sqlite3.SQLITE_OK)
    try:
        yield
    finally:
        connection.set_authorizer(None)


METHODS: dict[str, Callable[[SQLiteJobRepository], object]] = {
    "register": lambda repository: repository.register(UNKNOWN),
    "connections": lambda repository: repository.connections(),
    "forget": lambda repository: repository.forget(OTHER),
    "add": lambda repository: repository.add(job(2)),
    "add_many": lambda repository: repository.add_many(jobs(3, 4)),
    "get": lambda repository: repository.get(job(1).id),
    "replace": lambda repository: repository.replace(job(1).start(at=at(2))),
    "list_jobs": lambda repository: repository.list_jobs(CONNECTION),
    "active_jobs": lambda repository: repository.active_jobs(),
    "newest_jobs": lambda repository: repository.newest_jobs(),
    "newest_jobs of some": lambda repository: repository.newest_jobs([CONNECTION]),
    "delete_many": lambda repository: repository.delete_many([job(1).id]),
    "changes": lambda repository: repository.changes(),
}


@pytest.mark.parametrize("method", METHODS)
def test_no_exception_of_the_driver_reaches_a_caller(repository: SQLiteJobRepository, path: Path, method: str) -> None:
    repository.add(job(1))
    before = repository.changes()
    with denying(repository, lambda *_: True), pytest.raises(StorageError, match="not authorized") as failed:
        METHODS[method](repository)

    assert str(path) == failed.value.where
    assert isinstance(failed.value.__cause__, sqlite3.Error)
    assert before == repository.changes()
    METHODS[method](repository)


WRITES = ["register", "forget", "add", "add_many", "replace", "delete_many"]


@pytest.mark.parametrize("method", WRITES)
def test_a_write_whose_commit_fails_has_an_unknown_outcome_and_can_be_replayed(
    repository: SQLiteJobRepository, method: str
) -> None:
    repository.add(job(1))

    def commit(action: int, name: str | None) -> bool:
        return (action, name) == (sqlite3.SQLITE_TRANSACTION, "COMMIT")

    with denying(repository, commit), pytest.raises(UnknownOutcomeError, match="replaying it is safe"):
        METHODS[method](repository)

    METHODS[method](repository)


def test_a_full_disk_is_an_error_that_says_so_and_nothing_is_written(repository: SQLiteJobRepository) -> None:
    connection = driver(repository)
    before = repository.changes()
    limit = pragma(connection, "page_count")
    connection.execute(f"PRAGMA max_page_count = {limit}").fetchall()
    many = jobs(*range(100), metadata={"text": "x" * 3000})
    with pytest.raises(StorageError, match="the disk is full: make room and try again") as failed:
        repository.add_many(many)

    assert not isinstance(failed.value, UnknownOutcomeError)
    assert isinstance(failed.value.__cause__, sqlite3.OperationalError)
    assert before == repository.changes()
    connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    repository.add_many(many)
    assert 100 == len(repository.list_jobs(CONNECTION))


def test_a_write_that_fails_midway_changes_nothing(repository: SQLiteJobRepository, path: Path) -> None:
    repository.add(job(1, JobStatus.COMPLETED))
    before = repository.changes()
    foreign(path, "CREATE TRIGGER no BEFORE DELETE ON source_connections BEGIN SELECT raise(ABORT, 'no'); END").close()
    with pytest.raises(StorageError, match="no"):
        repository.forget(CONNECTION)

    assert before == repository.changes()
    assert [job(1, JobStatus.COMPLETED)] == repository.list_jobs(CONNECTION)


def test_a_damaged_file_is_an_error_that_says_so(repository: SQLiteJobRepository, path: Path) -> None:
    repository.add_many(jobs(*range(100)))
    repository.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))

    with pytest.raises(StorageError, match="the file is damaged: restore a backup") as failed:
        SQLiteJobRepository(path).list_jobs(CONNECTION)
    assert str(path) == failed.value.where


def test_a_source_connection_whose_id_is_another_in_its_index_is_an_error_that_says_so(path: Path) -> None:
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION, "in the table")
    id = CONNECTION.bytes
    path.write_bytes(path.read_bytes().replace(id + b"in the table", bytes([id[0] ^ 1]) + id[1:] + b"in the table"))
    with closing(SQLiteJobRepository(path)) as damaged, pytest.raises(StorageError, match="restore a backup"):
        damaged.newest_jobs([CONNECTION])


def test_a_file_that_was_replaced_by_something_else_is_an_error_that_says_so(
    repository: SQLiteJobRepository, path: Path
) -> None:
    repository.close()
    path.write_text("no database any more" * 1000)
    with pytest.raises(StorageError, match=re.escape(NO_DATABASE)):
        SQLiteJobRepository(path)


def test_a_place_that_cannot_keep_a_log_is_refused(path: Path) -> None:
    class Lockless(SQLiteJobRepository):
        def _connect(self) -> sqlite3.Connection:
            uri = f"{Path(self.path).as_uri()}?vfs=unix-none"
            return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)

    with pytest.raises(StorageError, match="cannot keep a write-ahead log here, but only delete: use a local disk"):
        Lockless(path)
    assert [] == descriptors(path.parent)


# ---- Pickling


def test_a_pickle_opens_the_same_file_as_it_was_opened(path: Path) -> None:
    with closing(SQLiteJobRepository(path, durability="relaxed", timeout=timedelta(seconds=7))) as repository:
        repository.register(CONNECTION)
        with closing(pickle.loads(pickle.dumps(repository))) as loaded:  # noqa: S301  our own bytes
            assert repository.connections() == loaded.connections()
            assert 1 == pragma(driver(loaded), "synchronous")
            assert 7 == loaded._timeout


# ---- What it is made with


def test_an_up_to_date_file_is_opened_without_sqlite_utils(path: Path) -> None:
    program = """
import sys
from jobhistory.storage.sqlite import SQLiteJobRepository
SQLiteJobRepository(sys.argv[1]).connections()
print("sqlite_utils" in sys.modules)
"""

    assert ["True\n", "False\n"] == [run_python(program, path), run_python(program, path)]


def test_plugins_of_sqlite_utils_are_not_run(path: Path) -> None:
    from sqlite_utils import Database, hookimpl
    from sqlite_utils.plugins import pm

    prepared: list[sqlite3.Connection] = []

    class Plugin:
        @hookimpl
        def prepare_connection(self, conn: sqlite3.Connection) -> None:
            prepared.append(conn)

    plugin = Plugin()
    pm.register(plugin)
    try:
        SQLiteJobRepository(path).close()
        assert [] == prepared
        with closing(Database(memory=True)) as other:
            assert [other.conn] == prepared
    finally:
        pm.unregister(plugin)


def test_sqlite_utils_finds_its_migrations_applied(path: Path) -> None:
    from sqlite_utils import Database

    SQLiteJobRepository(path).close()
    with closing(Database(path, execute_plugins=False)) as db:
        applied = [(row["migration_set"], row["name"]) for row in db["_sqlite_migrations"].rows]

    assert [("jobhistory", "first")] == applied


def test_the_view_reads_well_through_sqlite_utils(repository: SQLiteJobRepository, path: Path) -> None:
    from sqlite_utils import Database

    repository.register(CONNECTION, "github")
    running = job(1, metadata={"why": "cron"}).start(at=at(2), worker="here:1:a").report(at=at(3), inserted=7)
    failed = running.request_cancel(at=at(4)).fail(at=at(5.25), error="gone", error_details={"code": 7})
    repository.add(failed)

    with closing(Database(path, execute_plugins=False)) as db:
        [row] = db["sync_jobs"].rows

    def shown(value: object) -> object:
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z") if isinstance(value, datetime) else value

    fields = {name.removesuffix("_json"): shown(getattr(failed, name)) for name in COLUMNS}
    named = {"id": str(failed.id), "source_connection_id": str(CONNECTION), "source_connection": "github"}
    assert {**fields, **named} == row


def test_the_view_is_read_under_datasettes_defences(repository: SQLiteJobRepository, path: Path) -> None:
    repository.add(job(1))
    with closing(foreign(path, "PRAGMA trusted_schema = OFF")) as other:
        assert [(str(job(1).id),)] == other.execute("SELECT id FROM sync_jobs").fetchall()


BAD_VALUES = [
    ("id", b"short"),
    ("id", "770e8400e29b41d4"),
    ("status", "running"),
    ("created_at", None),
    ("created_at", "2024-03-15 12:00:00"),
    *((f"{name}_at", "2024-03-15T12:00:00Z") for name in ("started", "completed", "cancel_requested", "heartbeat")),
    ("progress_at", 1710504000),
    ("duration_seconds", -1.0),
    *((f"entities_{name}", -1) for name in ("inserted", "updated", "deleted", "failed")),
    ("entities_inserted", 1.5),
    ("error", b"bytes"),
    ("version", 0),
    ("change", 0),
    ("connection", None),
]


@pytest.mark.parametrize(("column", "value"), BAD_VALUES)
def test_the_schema_itself_refuses_wrong_formats_and_ranges(
    repository: SQLiteJobRepository, path: Path, column: str, value: object
) -> None:
    repository.add(job(1))
    with closing(foreign(path)) as other, pytest.raises(sqlite3.IntegrityError, match=r"CHECK|NOT NULL|cannot store"):
        other.execute(f"UPDATE jobs SET {column} = ?", (value,))  # noqa: S608  a name of the above


# ---- Rows in and out


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteJobRepository]:
    with closing(
        SQLiteJobRepository(tmp_path_factory.mktemp("shared") / "history.db", durability="relaxed")
    ) as repository:
        yield repository


def as_json(jobs: Iterable[SyncJob]) -> str:
    return json.dumps([job.to_dict() for job in jobs], ensure_ascii=False, separators=(",", ":"))


# What a Run measures, and what SQLite cannot write as Python does.
durations = st.integers(1000, 10**13).map(lambda microseconds: microseconds / 10**6) | strategies.durations()


@given(
    drawn=st.lists(st.tuples(strategies.jobs(), durations), max_size=5, unique_by=lambda pair: pair[0].id),
    limit=st.integers(1, 6),
    statuses=strategies.status_filters(),
    before=st.none() | st.builds(Position, strategies.timestamps(), strategies.ids()),
)
def test_a_page_as_json_is_its_records_as_json(
    shared: SQLiteJobRepository,
    drawn: list[tuple[SyncJob, float]],
    limit: int,
    statuses: frozenset[JobStatus] | None,
    before: Position | None,
) -> None:
    shared.register(CONNECTION)
    shared.add_many(
        attrs.evolve(
            job,
            source_connection_id=CONNECTION,
            duration_seconds=None if job.duration_seconds is None else duration,
            error_details=job.error_details,
            metadata=None,
        )
        for job, duration in drawn
    )
    listed = shared.list_jobs(CONNECTION, limit=limit, before=before, statuses=statuses)
    page = shared.list_jobs_json(CONNECTION, limit=limit, before=before, statuses=statuses)
    with closing(foreign(Path(shared.path), "DELETE FROM jobs")):
        pass

    lasted = [job.duration_seconds for job in listed if job.duration_seconds]
    if page is not None:
        assert (as_json(listed), len(listed), Position.of(listed[-1])) == (page.json, page.count, page.last)
    else:
        assert not listed or not all(0.001 <= seconds <= 10**7 and seconds == round(seconds, 6) for seconds in lasted)


def test_a_page_that_only_records_tell_rightly_is_left_to_them(repository: SQLiteJobRepository) -> None:
    assert None is repository.list_jobs_json(CONNECTION), "it has no jobs, or was not looked up yet"
    for n, seconds in enumerate((0.1 + 0.2, 1e-7, 1e16, 5e-324, 1e-5, 1234567890.123456), 1):
        repository.add(attrs.evolve(job(n, JobStatus.COMPLETED), duration_seconds=seconds, error_details={"n": n}))
        assert n == len(repository.list_jobs(CONNECTION))
        assert None is repository.list_jobs_json(CONNECTION, limit=1)


@pytest.mark.parametrize("spoilt", ["error = CAST(x'ff' AS TEXT)", "created_at = '2024-13-01T00:00:00.000000Z'"])
def test_a_page_that_another_program_spoilt_is_left_to_its_records(
    repository: SQLiteJobRepository, path: Path, spoilt: str
) -> None:
    repository.add(job(1, JobStatus.FAILED))
    assert 1 == len(repository.list_jobs(CONNECTION))
    assert repository.list_jobs_json(CONNECTION)
    with closing(foreign(path, f"UPDATE jobs SET {spoilt}")):  # noqa: S608  one of the above
        pass

    assert None is repository.list_jobs_json(CONNECTION)


def exactly(value: object) -> object:
    """The value with all its types, zones and signs."""
    return (type(value), repr(value), value.tzinfo if isinstance(value, datetime) else None)


@given(stored=strategies.jobs())
def test_a_job_comes_back_as_the_constructor_made_it(shared: SQLiteJobRepository, stored: SyncJob) -> None:
    shared.register(stored.source_connection_id)
    shared.add(stored)
    ways = [
        shared.get(stored.id),
        *shared.list_jobs(stored.source_connection_id),
        *shared.list_jobs(stored.source_connection_id, statuses={stored.status}),
        *shared.newest_jobs()[stored.source_connection_id],
        *(change.job for change in shared.changes()),
        *(shared.active_jobs() if stored.is_active else [shared.get(stored.id)]),
    ]
    with closing(foreign(Path(shared.path), "DELETE FROM jobs", "DELETE FROM source_connections")):
        pass

    assert [stored] * 6 == ways
    for read in ways:
        assert {name: exactly(getattr(stored, name)) for name in COLUMNS} == {
            name: exactly(getattr(read, name)) for name in COLUMNS
        }
        assert (SyncJob, UUID, UUID) == (type(read), type(read.id), type(read.source_connection_id))
        assert {UTC} == {read.created_at.tzinfo, *(at.tzinfo for at in (read.started_at, read.completed_at) if at)}
        assert {JSONText, type(None)} >= {type(read.error_details_json), type(read.metadata_json)}
        assert (hash(stored), repr(stored)) == (hash(read), repr(read))
        assert stored == pickle.loads(pickle.dumps(read)) == attrs.evolve(read)  # noqa: S301  our own bytes
        assert stored.id.is_safe is read.id.is_safe


@pytest.mark.parametrize("field", ["version", "id"])
def test_a_job_that_was_read_is_as_frozen_as_any(repository: SQLiteJobRepository, field: str) -> None:
    repository.add(job(1))
    read = repository.get(job(1).id)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(read, field, getattr(read, field))
    with pytest.raises(TypeError, match="immutable"):
        read.id.int = 1  # type: ignore[misc]


class _Frozen(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class FrozenDatetime(datetime, metaclass=_Frozen):
    """What freezegun puts in the place of every `datetime` in every module while time is frozen."""


def test_a_job_is_stored_whether_time_was_frozen_when_it_was_made_or_is_now(
    repository: SQLiteJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_before = job(1, JobStatus.RUNNING)
    with monkeypatch.context() as frozen:
        for module in (times, sqlite):
            frozen.setattr(module, "datetime", FrozenDatetime)
        made_then = attrs.evolve(job(2, JobStatus.RUNNING), worker="here:1:a")
        repository.add_many([made_before])
    repository.add_many([made_then])
    assert [made_then, made_before] == repository.list_jobs(CONNECTION)


# ---- What is remembered of connections


def test_a_connection_that_another_process_forgot_is_unknown(repository: SQLiteJobRepository, path: Path) -> None:
    repository.add(job(1, JobStatus.COMPLETED))
    assert 2 == len(repository.newest_jobs([CONNECTION, OTHER]))
    with closing(SQLiteJobRepository(path)) as other:
        other.forget(CONNECTION)

    for ask in (repository.list_jobs, lambda known: repository.newest_jobs([OTHER, known])):
        with pytest.raises(SourceConnectionNotFoundError) as refused:
            ask(CONNECTION)
        assert CONNECTION == refused.value.source_connection_id
    assert {OTHER: []} == repository.newest_jobs([OTHER])


@pytest.mark.parametrize("statuses", [None, frozenset({JobStatus.FAILED}), frozenset(JobStatus)])
def test_a_connection_that_another_process_made_anew_is_seen(
    repository: SQLiteJobRepository, path: Path, statuses: frozenset[JobStatus] | None
) -> None:
    old, new = job(1, JobStatus.FAILED), job(2, JobStatus.FAILED)
    repository.add(old)
    assert {CONNECTION: [old], OTHER: []} == repository.newest_jobs([CONNECTION, OTHER])
    with closing(SQLiteJobRepository(path)) as other:
        other.forget(CONNECTION)
        other.register(UNKNOWN)
        other.add(job(3, source_connection_id=UNKNOWN))
        other.register(CONNECTION)
        other.add(new)

    assert {CONNECTION: [new], OTHER: []} == repository.newest_jobs([CONNECTION, OTHER], per_connection=9)
    assert [new] == repository.list_jobs(CONNECTION, statuses=statuses)


class Evicting(dict[UUID, int]):
    """What is remembered, where another thread forgets each entry as soon as it was looked at."""

    def __contains__(self, key: object) -> bool:
        return self.pop(key, None) is not None  # type: ignore[call-overload]

    def get(self, key: UUID, default: Any = None) -> Any:  # noqa: ANN401
        return self.pop(key, default)


def test_what_another_thread_forgets_is_read_anew(repository: SQLiteJobRepository) -> None:
    repository.add(job(1))
    repository.list_jobs(CONNECTION)
    repository.list_jobs(OTHER)
    repository._numbers = Evicting(repository._numbers)

    assert {CONNECTION: [job(1)], OTHER: []} == repository.newest_jobs([CONNECTION, OTHER, CONNECTION])
    assert [job(1)] == repository.list_jobs(CONNECTION)


def test_a_connections_number_is_never_given_again(repository: SQLiteJobRepository, path: Path) -> None:
    assert [] == repository.list_jobs(OTHER)
    with closing(SQLiteJobRepository(path)) as other:
        other.forget(OTHER)
        other.register(UNKNOWN)
        other.add(job(1, source_connection_id=UNKNOWN))

    with pytest.raises(SourceConnectionNotFoundError):
        repository.list_jobs(OTHER)


# ---- Plans and speed: what the engine does, not how long it takes


@contextmanager
def traced(repository: SQLiteJobRepository) -> Iterator[list[str]]:
    """The statements that the repository runs, with their values."""
    statements: list[str] = []
    connection = driver(repository)
    connection.set_trace_callback(statements.append)
    try:
        yield statements
    finally:
        connection.set_trace_callback(None)


def plans(repository: SQLiteJobRepository, call: Callable[[SQLiteJobRepository], object]) -> list[str]:
    """How SQLite goes about each statement of the call that finds rows, line by line."""
    with traced(repository) as statements:
        call(repository)
    connection = driver(repository)
    finding = [sql for sql in statements if sql.split()[0] in ("WITH", "SELECT", "INSERT", "UPDATE", "DELETE")]
    return [line for sql in finding for *_, line in connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]


HERE = Position.of(job(150))
PRIMARY = r"USING PRIMARY KEY \(connection=\?( AND \(created_at,id\)<\(\?,\?\))?\)"
BY_STATUS = r"USING INDEX jobs_by_status \(connection=\? AND status=\? AND \(created_at,id\)<\(\?,\?\)\)"
ACTIVE = r"USING INDEX jobs_active \(status=\? AND \(created_at,id\)<\(\?,\?\)\)"
CHANGED = r"USING INDEX \w+ \(change>\?\)"
BY_ID = r"USING INDEX \w+ \(id=\?\)"
TAIL = r"SEARCH jobs USING COVERING INDEX \w+$"
NEWEST = r"SEARCH j USING PRIMARY KEY \(connection=\? AND created_at=\?"
NEWEST_FEW = r"SEARCH j USING PRIMARY KEY \(connection=\? AND \(created_at,id\)>\(\?,\?\)\)"
FEW = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})

READS: dict[str, tuple[Callable[[SQLiteJobRepository], object], str]] = {
    "page": (lambda r: r.list_jobs(CONNECTION), PRIMARY),
    "next page": (lambda r: r.list_jobs(CONNECTION, before=HERE), PRIMARY),
    "failed": (lambda r: r.list_jobs(CONNECTION, limit=5, statuses={JobStatus.FAILED}), BY_STATUS),
    "next failed": (lambda r: r.list_jobs(CONNECTION, limit=5, before=HERE, statuses={JobStatus.FAILED}), BY_STATUS),
    "completed": (lambda r: r.list_jobs(CONNECTION, statuses={JobStatus.COMPLETED}), PRIMARY),
    "running now": (lambda r: r.active_jobs(limit=5, statuses={JobStatus.RUNNING}), ACTIVE),
    "gone silent": (
        lambda r: r.active_jobs(limit=5, statuses={JobStatus.RUNNING}, silent_since=at(10**6), before=HERE),
        ACTIVE,
    ),
    "get": (lambda r: r.get(job(7).id), BY_ID),
    "changes": (lambda r: r.changes("20", limit=10), CHANGED),
}
MERGES: dict[str, tuple[Callable[[SQLiteJobRepository], object], str]] = {
    "failed or cancelled": (lambda r: r.list_jobs(CONNECTION, limit=5, statuses=FEW), BY_STATUS),
    "active": (lambda r: r.active_jobs(limit=5), ACTIVE),
}
OVERVIEWS: dict[str, tuple[Callable[[SQLiteJobRepository], object], str]] = {
    "newest": (lambda r: r.newest_jobs(), NEWEST),
    "newest of some": (lambda r: r.newest_jobs([OTHER, CONNECTION]), NEWEST),
    "newest few": (lambda r: r.newest_jobs(per_connection=3), NEWEST_FEW),
    "newest few of some": (lambda r: r.newest_jobs([OTHER, CONNECTION], per_connection=3), NEWEST_FEW),
}


def again(r: SQLiteJobRepository) -> None:
    with suppress(ActiveJobExistsError):
        r.add(job(-1), exclusive=True)


CHANGING: dict[str, tuple[Callable[[SQLiteJobRepository], object], str]] = {
    "add": (lambda r: r.add(job(10**6)), TAIL),
    "add exclusively": (again, r"USING COVERING INDEX jobs_by_status \(connection=\? AND status=\?\)"),
    "replace": (lambda r: r.replace(job(1).start(at=at(2))), TAIL),
    "replace quietly": (lambda r: r.replace(job(1).start(at=at(2)), quiet=True), BY_ID),
    "delete": (lambda r: r.delete_many([job(0, JobStatus.COMPLETED).id]), BY_ID),
}


def fill(repository: SQLiteJobRepository, finished: int) -> None:
    """Ten jobs of each status but COMPLETED, spread over two connections, before many COMPLETED ones."""
    rare = [status for status in JobStatus if status is not JobStatus.COMPLETED]
    special = {number: rare[number % 5] for number in range(1, 101)}
    repository.add_many(
        job(number, special.get(number, JobStatus.COMPLETED), source_connection_id=(CONNECTION, OTHER)[number % 10 > 7])
        for number in range(finished)
    )


@pytest.fixture(scope="module", params=["as it is", "analysed"])
def filled_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """To be copied: faster than to fill one for each statement."""
    path = tmp_path_factory.mktemp("filled") / "history.db"
    with closing(SQLiteJobRepository(path)) as repository:
        repository.register(CONNECTION)
        repository.register(OTHER)
        fill(repository, 400)
    if request.param == "analysed":
        foreign(path, "ANALYZE").close()
    return path


@pytest.fixture
def filled(filled_file: Path, path: Path) -> Iterator[SQLiteJobRepository]:
    shutil.copyfile(filled_file, path)
    with closing(SQLiteJobRepository(path)) as opened:
        opened.list_jobs(CONNECTION)
        opened.list_jobs(OTHER)
        yield opened


ALL = {**READS, **MERGES, **OVERVIEWS, **CHANGING}


@pytest.mark.parametrize("name", ALL)
def test_every_hot_statement_seeks_in_an_index(filled: SQLiteJobRepository, name: str) -> None:
    call, index = ALL[name]
    plan = plans(filled, call)

    assert [index] == [index for _ in [0] if any(re.search(index, line) for line in plan)], plan
    assert [] == [line for line in plan if re.match(r"SCAN (j|jobs|source_connections)\b", line)]


@pytest.mark.parametrize("name", [*READS, *OVERVIEWS, *CHANGING])
def test_nothing_is_sorted_that_stands_in_order_already(filled: SQLiteJobRepository, name: str) -> None:
    plan = plans(filled, ALL[name][0])

    assert [] == [line for line in plan if "TEMP B-TREE" in line]


def steps(repository: SQLiteJobRepository, call: Callable[[SQLiteJobRepository], object]) -> int:
    """How many instructions SQLite's machine executes for the call."""
    call(repository)  # what is looked up once is known, and every statement is prepared
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection = driver(repository)
    connection.set_progress_handler(step, 1)
    call(repository)
    connection.set_progress_handler(None, 1)
    return count


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SQLiteJobRepository]]:
    folder = tmp_path_factory.mktemp("sizes")
    repositories = []
    for finished in (400, 8000):
        repository = SQLiteJobRepository(folder / f"{finished}.db", durability="relaxed")
        repository.register(CONNECTION)
        repository.register(OTHER)
        fill(repository, finished)
        repositories.append(repository)
    yield repositories
    for repository in repositories:
        repository.close()


@pytest.mark.parametrize("name", ALL)
def test_a_statement_takes_as_many_steps_in_a_large_history_as_in_a_small_one(
    small_and_large: list[SQLiteJobRepository], name: str
) -> None:
    small, large = (steps(repository, ALL[name][0]) for repository in small_and_large)

    assert 10 < small
    assert small == large


@pytest.mark.parametrize("asked", [None, [CONNECTION]])
def test_the_newest_jobs_take_as_many_steps_more_as_more_are_wanted(
    small_and_large: list[SQLiteJobRepository], asked: list[UUID] | None
) -> None:
    repository, _ = small_and_large
    ten, forty = (steps(repository, methodcaller("newest_jobs", asked, per_connection=n)) for n in (10, 40))

    assert forty < 4 * ten
