from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from hypothesis import given, settings

from jobhistory import private_files
from jobhistory.abilities import Checks
from jobhistory.errors import StorageError
from jobhistory.history import JobHistory
from jobhistory.job import COLUMNS, SyncJob
from jobhistory.repository import Position
from jobhistory.status import JobStatus
from jobhistory.storage import filesystem, sqlite_check
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.storage.sqlite_check import ROW, fault_in
from jobhistory.testing import strategies
from jobhistory.testing.rules.base import CONNECTION, OTHER, job, jobs
from jobhistory.times import to_wire


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[SQLiteJobRepository]:
    with closing(SQLiteJobRepository(tmp_path / "history.db")) as repository:
        repository.register(CONNECTION, "docs")
        repository.register(OTHER)
        yield repository


def said(repository: SQLiteJobRepository, level: str) -> list[str]:
    return [finding.what for finding in repository.check() if finding.level == level]


def meddle(repository: SQLiteJobRepository, statement: str, *parameters: object) -> None:
    """What another program may do, past the schema's own checks."""
    with closing(sqlite3.connect(repository.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(statement, parameters)


def test_only_a_history_on_disk_can_be_checked(repository: SQLiteJobRepository) -> None:
    assert isinstance(repository, Checks)
    assert not isinstance(InMemoryJobRepository(), Checks)


def test_a_sound_history_has_no_errors_and_says_what_was_looked_at(
    repository: SQLiteJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_check, "filesystem_of", lambda _: "ext4")  # the test's may be in memory
    repository.add_many(jobs(*range(1234)))

    assert [] == said(repository, "error")
    notes = "\n".join(said(repository, "note"))
    for word in (sqlite3.sqlite_version, "durability: full", "filesystem: ", "rules: 1,234 of 1,234"):
        assert word in notes


# ---- Rows that other hands wrote

ID = job(5).id
BAD = [
    ("status = 'WRONG'", "status must be one of PENDING"),
    ("status = CAST(x'ff' AS TEXT)", "status must be UTF-8"),
    ("status = 'RUNNING'", "started_at must be set in a RUNNING job"),
    ("created_at = '2024-03-15'", "created_at must be a time such as 2024-03-15T12:00:00.000000Z"),
    ("created_at = '2024-02-30T12:00:00.000000Z'", "created_at must be a time"),
    ("heartbeat_at = '2024-03-15T12:00:00.000+0100'", "heartbeat_at must be a time"),
    ("error = 'no error in a job that waits'", "error must be null in a PENDING job"),
    ("worker = CAST(x'6869ff' AS TEXT)", "worker must be UTF-8"),
    ("worker = 'a' || char(0)", "worker must not contain NUL"),
    ("metadata_json = 'nonsense'", "metadata_json must be a JSON object"),
    ("metadata_json = '[]'", "metadata must be a JSON object (a dict)"),
    ("metadata_json = '{\"a\": NaN}'", "metadata: a float must be finite"),
    ('metadata_json = \'{"a": "\\u0000"}\'', "metadata: a text must not contain NUL"),
    ("metadata_json = replace(hex(zeroblob(50000)), '0', '[')", "metadata_json must be a JSON object"),
    ("entities_failed = -1", "entities_failed must be an int from 0"),
    ("version = 0", "version must be an int from 1"),
    ("duration_seconds = 9e999", "duration_seconds must be seconds"),
    ("id = x'0123'", "id must be the 16 bytes of a UUID"),
    ("connection = 77", "source_connection_id must be a UUID"),
]


@pytest.mark.parametrize(("change", "fault"), BAD, ids=[change[:20] + fault for change, fault in BAD])
def test_a_row_that_is_no_job_is_named_with_what_is_wrong_and_can_be_set_aside(
    repository: SQLiteJobRepository, tmp_path: Path, change: str, fault: str
) -> None:
    repository.add_many(jobs(*range(10)))
    meddle(repository, f"UPDATE jobs SET {change} WHERE id = ?", ID.bytes)  # noqa: S608  of this file
    named = f"job {'x' + repr('0123') if change.startswith('id') else ID}"

    (row,) = [what for what in said(repository, "error") if what.startswith("job")]
    assert row.startswith(f"{named}: {fault}")
    aside = tmp_path / "aside.ndjson"
    assert 1 == repository.set_aside(aside)
    (line,) = aside.read_text().splitlines()
    assert ID.hex[:4] in json.loads(line)["id"] or named.endswith(json.loads(line)["id"])
    assert 0o600 == stat.S_IMODE(aside.stat().st_mode)
    assert [] == said(repository, "error")
    assert jobs(9, 8, 7, 6, 4, 3, 2, 1, 0) == repository.list_jobs(CONNECTION)


def test_what_was_set_aside_comes_back_once_it_is_mended(repository: SQLiteJobRepository, tmp_path: Path) -> None:
    failed = job(5, JobStatus.FAILED, error="café", error_details={"a": [1]}, metadata={"b": "c"})
    repository.add_many([*jobs(4, 6), failed])
    meddle(repository, "UPDATE jobs SET worker = CAST(x'6869ff' AS TEXT) WHERE status = 'FAILED'")
    repository.set_aside(tmp_path / "aside.ndjson")
    line = json.loads((tmp_path / "aside.ndjson").read_text())

    assert "hi\udcff" == line["worker"]
    JobHistory(repository).add_many([SyncJob.from_dict(line | {"worker": failed.worker})])
    assert [*jobs(6), failed, *jobs(4)] == repository.list_jobs(CONNECTION)


def test_the_feed_goes_on_behind_what_was_set_aside(repository: SQLiteJobRepository, tmp_path: Path) -> None:
    repository.add_many(jobs(1, 2))
    token = repository.changes()[-1].token
    meddle(repository, "UPDATE jobs SET status = 'WRONG' WHERE id = ?", job(2).id.bytes)
    repository.set_aside(tmp_path / "aside.ndjson")
    repository.add(job(3))
    assert jobs(3) == [change.job for change in repository.changes(token)]


def test_connections_that_are_none_are_named_and_set_aside(repository: SQLiteJobRepository, tmp_path: Path) -> None:
    repository.add_many(jobs(1, 2))
    meddle(repository, "UPDATE source_connections SET name = CAST(x'ff' AS TEXT) WHERE id = ?", CONNECTION.bytes)
    meddle(repository, "UPDATE source_connections SET id = x'abcd' WHERE id = ?", OTHER.bytes)
    errors = [what for what in said(repository, "error") if what.startswith("source connection")]

    assert [f"source connection {CONNECTION}: name must be UTF-8", "source connection x'abcd': id must be"] == [
        errors[0].partition(", not")[0],
        errors[1][:37],
    ]
    assert 2 == repository.set_aside(tmp_path / "aside.ndjson")
    assert [] == said(repository, "error")
    assert [(CONNECTION, None)] == [(known.id, known.name) for known in repository.connections()]
    assert jobs(2, 1) == repository.list_jobs(CONNECTION)


def test_a_row_that_was_mended_meanwhile_is_left_alone(
    repository: SQLiteJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add_many(jobs(1, 2))
    meddle(repository, "UPDATE jobs SET status = 'WRONG'")

    def slowly(file: Path) -> AbstractContextManager[int]:
        meddle(repository, "UPDATE jobs SET status = 'PENDING' WHERE id = ?", job(1).id.bytes)
        return private_files.new_file(file)

    monkeypatch.setattr(sqlite_check, "new_file", slowly)
    assert 1 == repository.set_aside(tmp_path / "aside.ndjson")
    assert jobs(1) == repository.list_jobs(CONNECTION)


def test_rows_are_set_aside_in_batches_each_in_the_file_before_it_goes(
    repository: SQLiteJobRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path) -> None:
        with closing(sqlite3.connect(repository.path)) as another:
            left = len(another.execute("SELECT 1 FROM jobs").fetchall())
        seen.append((len(file.read_text().splitlines()), left))
        if left == 1:
            raise OSError(28, "No space left on device")

    repository.add_many(jobs(*range(5)))
    meddle(repository, "UPDATE jobs SET status = 'WRONG'")
    meddle(repository, "UPDATE source_connections SET name = CAST(x'ff' AS TEXT) WHERE id = ?", CONNECTION.bytes)
    seen: list[tuple[int, int]] = []
    one, other = tmp_path / "one.ndjson", tmp_path / "other.ndjson"
    monkeypatch.setattr(sqlite_check, "_BATCH", 2)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_check, "sync", full)
        with pytest.raises(StorageError, match=r"one\.ndjson: cannot be written: No space left"):
            repository.set_aside(one)

    assert [(2, 5), (4, 3), (6, 1)] == seen
    assert 2 == repository.set_aside(other)
    lines = [json.loads(line) for file in (one, other) for line in file.read_text().splitlines()]
    assert [*(str(job(number).id) for number in range(5)), None] == [line.get("id") for line in lines]
    assert [] == said(repository, "error")


def test_nothing_is_set_aside_of_a_sound_history_nor_over_a_file(
    repository: SQLiteJobRepository, tmp_path: Path
) -> None:
    repository.add_many(jobs(1, 2))
    file = tmp_path / "aside.ndjson"
    assert 0 == repository.set_aside(file)
    assert not file.exists()

    meddle(repository, "UPDATE jobs SET status = 'WRONG'")
    file.write_text("precious")
    with pytest.raises(StorageError, match="is there already, and nothing is overwritten"):
        repository.set_aside(file)
    assert "precious" == file.read_text()
    assert 2 == sum(what.startswith("job") for what in said(repository, "error"))


def test_more_rows_than_one_batch_are_looked_at(repository: SQLiteJobRepository) -> None:
    repository.add_many(jobs(*range(1100)))
    meddle(repository, "UPDATE jobs SET version = 0")
    assert 1100 == sum(what.startswith("job") for what in said(repository, "error"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteJobRepository]:
    with closing(SQLiteJobRepository(tmp_path_factory.mktemp("check") / "h.db", durability="relaxed")) as repository:
        yield repository


@settings(max_examples=30)
@given(stored=strategies.jobs())
def test_no_job_of_ours_is_ever_found_fault_with(shared: SQLiteJobRepository, stored: SyncJob) -> None:
    shared.register(stored.source_connection_id)
    shared.add(stored)
    rows = list(sqlite_check._rows(shared._db))
    assert [None] == [fault_in(row) for row in rows if row["id"] == stored.id.bytes]
    shared._db.read("SELECT 1")
    with shared._db.write() as db:
        db.execute("DELETE FROM jobs")


@pytest.mark.parametrize("name", COLUMNS)
def test_a_value_of_another_type_as_a_damaged_file_may_hold_is_a_fault(
    repository: SQLiteJobRepository, name: str
) -> None:
    repository.add(job(5))
    (row,) = sqlite_check._rows(repository._db)
    assert fault_in(row) is None
    assert fault_in({**row, name: 0.5}) is not None


def test_an_id_of_any_kind_is_shown() -> None:
    assert [f"job {ID}", "job x'0123'", "job 'a'"] == [
        sqlite_check.named({"id": id}) for id in (ID.bytes, b"\x01\x23", "a")
    ]


def test_a_row_holds_each_column_once() -> None:
    assert Counter(COLUMNS) == Counter(ROW)


# ---- Reading them

READS: dict[str, Callable[[SQLiteJobRepository], object]] = {
    "get": lambda repository: repository.get(ID),
    "list_jobs": lambda repository: repository.list_jobs(CONNECTION),
    "list_jobs, filtered": lambda repository: repository.list_jobs(CONNECTION, statuses=set(JobStatus)),
    "active_jobs": lambda repository: repository.active_jobs(),
    "newest_jobs": lambda repository: repository.newest_jobs(per_connection=10),
    "newest_jobs, asked for": lambda repository: repository.newest_jobs([CONNECTION, OTHER], per_connection=10),
    "changes": lambda repository: repository.changes(),
    "add": lambda repository: repository.add(job(5)),
    "add_many": lambda repository: repository.add_many(jobs(5)),
    "replace": lambda repository: repository.replace(job(5)),
}


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            "heartbeat_at = 'yesterday'",
            "heartbeat_at must be a time such as 2024-03-15T12:00:00.000000Z, not 'yesterday'",
        ),
        ("worker = CAST(x'6869ff' AS TEXT)", r"worker must be UTF-8, not b'hi\xff'"),
    ],
)
def test_whoever_meets_a_row_that_is_no_job_is_told_the_file_the_job_the_column_and_the_way_out(
    repository: SQLiteJobRepository, method: str, change: str, fault: str
) -> None:
    repository.add_many(jobs(4, 5, 6))
    meddle(repository, f"UPDATE jobs SET {change} WHERE id = ?", ID.bytes)  # noqa: S608  of this file
    with pytest.raises(StorageError, match=re.escape(f"{repository.path}: job {ID}: {fault}")) as failed:
        READS[method](repository)

    assert "`jobhistory check --set-aside FILE`" in str(failed.value)
    assert jobs(6) == repository.list_jobs(CONNECTION, limit=1)
    assert jobs(4) == repository.list_jobs(CONNECTION, before=Position.of(job(5)))


def test_an_unknown_status_is_named_too(repository: SQLiteJobRepository) -> None:
    repository.add_many(jobs(4, 5, 6))
    meddle(repository, "UPDATE jobs SET status = 'WRONG' WHERE id = ?", ID.bytes)
    with pytest.raises(StorageError, match=f"job {ID}: status must be one of PENDING, .*, not 'WRONG'"):
        repository.list_jobs(CONNECTION)


def test_a_job_with_spoilt_json_can_be_finished_and_only_that_field_cannot_be_read(
    repository: SQLiteJobRepository,
) -> None:
    repository.add(job(5, metadata={"a": 1}))
    meddle(repository, "UPDATE jobs SET metadata_json = 'nonsense'")
    history = JobHistory(repository)
    history.cancel(ID)

    (cancelled,) = history.list_jobs(CONNECTION)
    assert (JobStatus.CANCELLED, None) == (cancelled.status, cancelled.error_details)
    with pytest.raises(StorageError, match=f"job {ID}: its metadata is no JSON .*jobhistory check"):
        _ = cancelled.metadata


CONNECTION_READS: dict[str, Callable[[SQLiteJobRepository], object]] = {
    "connections": lambda repository: repository.connections(),
    "newest_jobs": lambda repository: repository.newest_jobs(),
    "newest_jobs, asked for": lambda repository: repository.newest_jobs([CONNECTION]),
}


@pytest.mark.parametrize("method", CONNECTION_READS)
def test_whoever_meets_a_connection_with_a_bad_id_is_told(repository: SQLiteJobRepository, method: str) -> None:
    meddle(repository, "UPDATE source_connections SET id = x'abcd' WHERE id = ?", OTHER.bytes)
    fault = re.escape(f"{repository.path}: source connection x'abcd': id must be the 16 bytes of a UUID")
    with pytest.raises(StorageError, match=fault):
        CONNECTION_READS[method](repository)


def test_whoever_meets_a_connection_with_a_bad_name_is_told(repository: SQLiteJobRepository) -> None:
    meddle(repository, "UPDATE source_connections SET name = CAST(x'ff' AS TEXT) WHERE id = ?", OTHER.bytes)
    with pytest.raises(StorageError, match=f"source connection {OTHER}: name must be UTF-8"):
        repository.connections()


def test_whoever_needs_the_floor_of_the_feed_where_it_is_lost_is_told(repository: SQLiteJobRepository) -> None:
    meddle(repository, "DELETE FROM feed")
    for method in (partial(repository.add_many, jobs(5)), repository.latest_change):
        with pytest.raises(StorageError, match="the floor of the feed is lost"):
            method()


def test_where_no_row_is_at_fault_the_error_says_so(repository: SQLiteJobRepository) -> None:
    assert "x: a job cannot be read: y" == str(sqlite_check.unreadable("x", [], ValueError("y")))
    assert "try again" in str(sqlite_check.unreadable_connection("x", repository._db))


# ---- The file, and what it lies on


def test_a_damaged_file_is_said_to_be(repository: SQLiteJobRepository) -> None:
    repository.add_many(jobs(*range(100), metadata={"text": "x" * 3000}))
    repository.close()
    with Path(repository.path).open("r+b") as file:
        file.seek(-4096 * 3, os.SEEK_END)
        file.write(b"\xff" * 4096 * 3)
    with closing(SQLiteJobRepository(repository.path)) as damaged:
        (error,) = said(damaged, "error")

    assert error.startswith("it cannot be read to the end: database disk image is malformed")
    assert "restore a backup" in error


def in_pages_of(table_or_index: str, repository: SQLiteJobRepository, old: bytes, new: bytes) -> None:
    """Overwrite bytes in the one page of a table or index, as a disk that errs may; the repository is closed."""
    with closing(sqlite3.connect(repository.path)) as connection:
        [(page,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table_or_index,))
        [(size,)] = connection.execute("PRAGMA page_size")
    repository.close()
    file = bytearray(Path(repository.path).read_bytes())
    at = file.index(old, (page - 1) * size, page * size)
    file[at : at + len(new)] = new
    Path(repository.path).write_bytes(file)


@pytest.mark.parametrize("place", ["jobs", "jobs_active"])
def test_rows_or_an_index_out_of_order_are_mended_as_it_is_said(repository: SQLiteJobRepository, place: str) -> None:
    repository.add_many(jobs(*range(10)))
    in_pages_of(place, repository, to_wire(job(3).created_at).encode()[:-1], b"2034")

    with closing(SQLiteJobRepository(repository.path)) as damaged:
        errors = [finding for finding in damaged.check() if finding.level == "error"]
    assert {sqlite_check._REINDEX} == {finding.way_out for finding in errors if finding.what.startswith("integrity: ")}
    out_of_order = f"it cannot be read to the end: its rows are out of order: {sqlite_check._REINDEX}"
    assert (place == "jobs") == (out_of_order in [finding.what for finding in errors])

    with closing(sqlite3.connect(repository.path)) as connection:
        connection.execute("REINDEX")
    with closing(SQLiteJobRepository(repository.path)) as mended:
        assert [] == said(mended, "error")
        assert 10 == len(mended.list_jobs(CONNECTION)) == len(mended.active_jobs())


def test_rows_out_of_order_end_a_look_at_them(repository: SQLiteJobRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.add_many(jobs(1, 2))
    batch = repository._db.read(sqlite_check._BATCH_OF_ROWS, (0, b"", b""))
    reads = iter([batch, batch])  # as where the last row of a batch leads back to its start
    monkeypatch.setattr(repository._db, "read", lambda *_: next(reads))
    with pytest.raises(StorageError, match="out of order: copy the file, then REINDEX it"):
        list(sqlite_check._rows(repository._db))


def test_a_schema_that_is_no_text_any_more_is_said_to_be_damaged(repository: SQLiteJobRepository) -> None:
    repository.close()
    file = Path(repository.path)
    damaged = file.read_bytes().replace(b"INDEX jobs_active ON jobs (s", b"INDEX jobs_active ON jobs (\xff")
    file.write_bytes(damaged)
    with pytest.raises(StorageError, match="the file is damaged: restore a backup"):
        SQLiteJobRepository(file)


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("*** in database main ***\nPage 9 is never used", sqlite_check._RESTORE),
        ("CHECK constraint failed in jobs", sqlite_check._SET_ASIDE),
        ("NULL value in jobs.status", sqlite_check._SET_ASIDE),
        ("wrong # of entries in index jobs_active", sqlite_check._REINDEX),
    ],
)
def test_what_sqlite_finds_is_passed_on_with_the_way_out(line: str, way_out: str) -> None:
    db: Any = SimpleNamespace(read=lambda _: [(line,)])
    (finding,) = sqlite_check._integrity(db)
    assert ("error", f"integrity: {line.replace(chr(10), '; ')}", way_out) == attrs.astuple(finding)


def test_an_index_of_a_torn_file_is_no_reason_to_make_it_anew() -> None:
    db: Any = SimpleNamespace(
        read=lambda _: [("*** in database main ***\nx",), ("row 1 missing from index jobs_active",)]
    )
    assert [sqlite_check._RESTORE] * 2 == [finding.way_out for finding in sqlite_check._integrity(db)]


def test_a_file_that_was_taken_away_is_said_to_be(repository: SQLiteJobRepository) -> None:
    Path(repository.path).unlink()
    assert ["the file was taken away"] == said(repository, "error")


def test_what_another_program_did_to_the_schema_is_named(repository: SQLiteJobRepository) -> None:
    for statement in (
        "DROP INDEX jobs_active",
        "DROP VIEW sync_jobs",
        "CREATE VIEW sync_jobs AS SELECT 1",
        "CREATE TABLE mine (x)",
        "CREATE TRIGGER theirs AFTER INSERT ON jobs BEGIN SELECT 1; END",
        "DELETE FROM feed",
    ):
        meddle(repository, statement)
    assert {
        "the index jobs_active is missing: another program dropped it",
        "the view sync_jobs was changed by another program",
        "the floor of the feed is lost",
    } == set(said(repository, "error"))
    assert "a trigger, theirs, acts on what is written here" in said(repository, "warning")


def test_durability_is_said(tmp_path: Path) -> None:
    with closing(SQLiteJobRepository(tmp_path / "h.db", durability="relaxed")) as repository:
        assert [True] == [
            what.startswith('its durability here is "relaxed"')
            for what in said(repository, "warning")
            if "durab" in what
        ]
    with closing(sqlite3.connect(repository.path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    db = repository._db
    db._closed = False
    assert ["it keeps no write-ahead log, but delete"] == said(repository, "error")
    db.close()


def test_permissions_a_great_log_and_a_full_disk_are_warned_of(
    repository: SQLiteJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add(job(1))
    Path(repository.path).chmod(0o644)
    monkeypatch.setattr(sqlite_check, "_GREATEST_LOG", 100)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=3 * 2**20, f_frsize=1))
    warnings = "\n".join(said(repository, "warning"))

    assert f"{repository.path} may be used by others than its owner (mode 0644, too much: 0044)" in warnings
    assert "the write-ahead log has grown to" in warnings
    assert "only 3 MiB are free on its disk" in warnings


@pytest.mark.parametrize(
    ("version", "warned"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_a_release_of_sqlite_with_a_known_defect_is_warned_of(version: tuple[int, int, int], *, warned: bool) -> None:
    findings = list(sqlite_check._release(version))
    assert warned == any("WAL-reset bug" in finding.what for finding in findings if finding.level == "warning")
    assert f"SQLite {'.'.join(map(str, version))}" == findings[-1].what


@pytest.mark.parametrize(
    ("kind", "level", "word"),
    [
        ("nfs4", "error", "network or shared filesystem (nfs4)"),
        ("fuse.sshfs", "error", "network or shared filesystem (fuse.sshfs)"),
        ("virtiofs", "error", "network or shared filesystem (virtiofs)"),
        ("tmpfs", "warning", "it is gone after a restart"),
        ("xfs", "note", "filesystem: xfs"),
        (None, "note", "filesystem: unknown"),
    ],
)
def test_a_filesystem_that_cannot_keep_a_history_is_told(
    repository: SQLiteJobRepository, monkeypatch: pytest.MonkeyPatch, kind: str | None, level: str, word: str
) -> None:
    device = Path(repository.path).stat().st_dev
    mounts = Path(repository.path).with_name("mountinfo")
    number = f"{os.major(device)}:{os.minor(device)}" if kind else "0:0"
    mounts.write_text(f"36 35 {number} / /whatever/name/it/has rw - {kind} x rw\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    assert [True] == [word in what for what in said(repository, level) if "ystem" in what or "restart" in what]
