"""Archives: whole and on disk before anything goes, never over another file, and read back as equal records."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobhistory import (
    InvalidJobError,
    JobHistory,
    JobRepository,
    JobStatus,
    Retention,
    StorageError,
    SyncJob,
    private_files,
)
from jobhistory import archive as archive_module
from jobhistory.archive import archiving, check_archive, parquet_rows
from jobhistory.cli.rows import unpacked
from jobhistory.cli.transfer import Importer
from jobhistory.repository import SourceConnection
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import strategies
from tests.workers import CONNECTION, START, Time, Troubled

OTHER = UUID(int=2)
KINDS = (".ndjson.gz", ".parquet")
RULE = Retention(keep_last=1)


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"old{request.param}"


@pytest.fixture
def history(memory: JobHistory) -> JobHistory:
    memory.register(CONNECTION, "docs \u2713")
    memory.register(OTHER, "users")
    memory.add_many(job(number, (CONNECTION, OTHER)[number % 2]) for number in range(1, 11))
    return memory


def job(number: int, connection: UUID = CONNECTION) -> SyncJob:
    return SyncJob(
        id=UUID(int=number),
        source_connection_id=connection,
        status=JobStatus.FAILED,
        created_at=START.replace(microsecond=number),
        started_at=START,
        error="token \u2713\n",
        error_details={"b": [1, None], "a": 0.1},
        metadata={"trigger": "cron"},
        worker="host:1:tag",
        version=4,
    )


def imported(file: Path) -> tuple[JobHistory, list[str]]:
    """A new history with what is in the file, and what was said about it."""
    history, said = JobHistory(InMemoryJobRepository()), list[str]()
    with file.open("rb") as stream, unpacked(stream) as rows:
        Importer(history, None, said.append).take(rows)
    return history, said


def jobs_of(history: JobHistory) -> list[SyncJob]:
    return sorted((each for c in history.connections() for each in history.iter_jobs(c.id)), key=lambda each: each.id)


def test_what_goes_is_in_the_archive_and_comes_back_as_it_was_with_its_connections_name(
    history: JobHistory, file: Path
) -> None:
    before = jobs_of(history)
    assert 8 == history.prune(RULE, archive=file).deleted

    restored, said = imported(file)
    assert [] == said
    assert [SourceConnection(CONNECTION, "docs \u2713"), SourceConnection(OTHER, "users")] == restored.connections()
    assert before == sorted(jobs_of(history) + jobs_of(restored), key=lambda each: each.id)
    assert 0o600 == file.stat().st_mode & 0o777
    assert [file] == list(file.parent.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_any_finished_job_comes_back_equal(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    finished = st.sampled_from([status for status in JobStatus if status.name in ("COMPLETED", "FAILED", "CANCELLED")])
    folder = tmp_path_factory.mktemp("archives")
    names = (folder / f"{number}{kind}" for number in range(10**6))

    @settings(max_examples=25)
    @given(st.lists(strategies.jobs(statuses=finished), max_size=4, unique_by=lambda each: each.id))
    def comes_back(jobs: list[SyncJob]) -> None:
        file = next(names)
        with archiving(file) as passed_on:
            for each in jobs:
                assert [each] == list(passed_on(SourceConnection(each.source_connection_id), [each]))
        assert bool(jobs) == file.exists()
        if jobs:
            restored = JobHistory(InMemoryJobRepository(), redact=None)
            with file.open("rb") as stream, unpacked(stream) as rows:
                Importer(restored, None, pytest.fail).take(rows)
            assert sorted(jobs, key=lambda each: each.id) == jobs_of(restored)

    comes_back()


def test_lines_are_those_of_an_export_packed_by_gzip(history: JobHistory, tmp_path: Path) -> None:
    history.prune(RULE, [CONNECTION], archive=tmp_path / "old.ndjson.gz")
    first, second, *_ = gzip.decompress((tmp_path / "old.ndjson.gz").read_bytes()).splitlines()
    assert {"source_connection_id": str(CONNECTION), "name": "docs \u2713"} == json.loads(first)
    assert job(8).to_dict(bookkeeping=True) == json.loads(second)


def test_a_table_has_the_records_fields_and_moments_and_numbers_as_such(history: JobHistory, tmp_path: Path) -> None:
    from pyarrow import parquet

    history.prune(RULE, [CONNECTION], archive=tmp_path / "old.parquet")
    table = parquet.read_table(tmp_path / "old.parquet")
    assert [*job(1).to_dict(bookkeeping=True), "source_connection"] == table.column_names
    row = table.to_pylist()[0]
    assert (START.replace(microsecond=8), "docs \u2713", 4) == (
        row["created_at"],
        row["source_connection"],
        row["version"],
    )
    assert json.loads(row["error_details"]) == {"b": [1, None], "a": 0.1}


@pytest.mark.parametrize(("bound", "most"), [("_BATCH", 3), ("_BATCH", 4), ("_BATCH_TEXT", 30)])
def test_many_jobs_or_long_ones_are_written_in_several_batches(
    history: JobHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(archive_module, bound, most)
    before = jobs_of(history)
    history.prune(RULE, archive=tmp_path / "old.parquet")
    assert 1 < parquet.ParquetFile(tmp_path / "old.parquet").num_row_groups
    assert before == sorted(jobs_of(history) + jobs_of(imported(tmp_path / "old.parquet")[0]), key=lambda each: each.id)


class Watching:
    """A repository that looks whether what is to be deleted is in the archive, and whether that was synced."""

    def __init__(self, repository: JobRepository, file: Path, synced: list[Path]) -> None:
        self._repository, self._file, self._synced = repository, file, synced
        self.seen = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self._repository, name)  # type: ignore[no-any-return]

    def delete_many(self, job_ids: Iterable[UUID]) -> int:
        ids = set(job_ids)
        assert ids <= {each.id for each in jobs_of(imported(self._file)[0])}, "it is in the archive"
        assert [self._file] == self._synced[1:], "which is on disk, and its name too"
        self.seen += len(ids)
        return self._repository.delete_many(ids)


def test_all_that_goes_is_on_disk_before_the_first_job_goes(
    history: JobHistory, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(private_files, "sync", synced.append)
    watching = Watching(history.repository, file, synced)
    assert watching.seen == 0
    JobHistory(watching, clock=lambda: START).prune(RULE, archive=file)
    assert 8 == watching.seen


def test_where_deleting_fails_the_archive_stays_and_the_next_run_needs_another(history: JobHistory, file: Path) -> None:
    troubled = Time().history(Troubled(history.repository, delete_many=["down"]))
    before = jobs_of(history)
    with pytest.raises(StorageError, match="is down"):
        troubled.prune(RULE, archive=file)
    written = file.read_bytes()
    assert 8 == len(jobs_of(imported(file)[0]))

    with pytest.raises(StorageError, match="is there already, and nothing is overwritten"):
        troubled.prune(RULE, archive=file)
    assert (before, written) == (jobs_of(history), file.read_bytes())
    assert 8 == troubled.prune(RULE, archive=file.with_name(f"again{file.name}")).deleted


def test_an_archive_that_cannot_be_written_is_said_by_the_name_it_was_to_have(
    history: JobHistory, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_files, "sync", sync)
    with pytest.raises(StorageError, match=f"^{re.escape(str(file))}: cannot be written: No space left on device"):
        history.prune(RULE, archive=file)
    assert ([], 10) == (list(file.parent.iterdir()), len(jobs_of(history)))


@pytest.mark.parametrize("error", [StorageError("there", "failed"), KeyboardInterrupt()])
def test_where_planning_is_cut_short_there_is_no_archive_and_nothing_is_gone(
    history: JobHistory, file: Path, error: BaseException
) -> None:
    def stop(step: str, done: int, _: int) -> None:
        if (step, done) == ("planning", 2):
            raise error

    with pytest.raises(type(error)):
        history.prune(RULE, archive=file, progress=stop)
    assert ([], 10) == (list(file.parent.iterdir()), len(jobs_of(history)))


def test_nothing_is_written_for_a_dry_run_or_where_nothing_goes(history: JobHistory, file: Path) -> None:
    history.prune(RULE, archive=file, dry_run=True)
    history.prune(Retention(keep_last=5), archive=file)
    assert [] == list(file.parent.iterdir())


def test_an_archive_of_another_kind_is_refused_before_anything_goes(history: JobHistory, tmp_path: Path) -> None:
    for dry_run in (True, False):
        with pytest.raises(InvalidJobError, match=r"archive must end in .ndjson.gz or .parquet.*old.csv"):
            history.prune(RULE, archive=tmp_path / "old.csv", dry_run=dry_run)
    assert 10 == len(jobs_of(history))


def test_where_no_file_can_be_made_nothing_goes(history: JobHistory, file: Path) -> None:
    with pytest.raises(StorageError, match="cannot be made"):
        history.prune(RULE, archive=file.parent / "missing" / file.name)
    assert 10 == len(jobs_of(history))


def test_a_name_that_cannot_be_synced_is_said_and_no_archive_stays(
    history: JobHistory, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(path: Path) -> None:
        if path == file:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(private_files, "sync", sync)
    with pytest.raises(StorageError, match="cannot be written: Input/output error"):
        history.prune(RULE, archive=file)
    assert ([], 10) == (list(file.parent.iterdir()), len(jobs_of(history)))


# ---- Reading


@pytest.mark.parametrize("bytes_left", [30, 200, -1])
def test_of_a_packed_file_that_was_cut_short_all_whole_rows_come_back(
    history: JobHistory, tmp_path: Path, bytes_left: int
) -> None:
    file = tmp_path / "old.ndjson.gz"
    history.prune(RULE, archive=file)
    whole = jobs_of(imported(file)[0])
    file.write_bytes(file.read_bytes()[:bytes_left])

    restored, said = imported(file)
    assert 1 == len(said)
    assert "the file is damaged, or cut short, from here on" in said[0]
    assert jobs_of(restored) == [each for each in whole if each in jobs_of(restored)]
    assert (bytes_left == -1) == (whole == jobs_of(restored))


def test_a_table_that_was_cut_short_is_an_error(history: JobHistory, tmp_path: Path) -> None:
    file = tmp_path / "old.parquet"
    history.prune(RULE, archive=file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(StorageError, match="the Parquet file: cannot be read"):
        imported(file)


def test_anybodys_table_is_read_as_far_as_it_holds_jobs(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    moment = datetime(2024, 3, 15, 12, tzinfo=UTC)
    rows = [
        {"id": str(UUID(int=1)), "source_connection_id": str(CONNECTION), "status": "pending", "created_at": moment},
        {"id": str(UUID(int=2)), "source_connection_id": str(CONNECTION), "status": "lost", "created_at": moment},
    ]
    rows = [{**row, "metadata": text, "rows": 3} for row, text in zip(rows, ('{"a": 1}', "{"), strict=True)]
    data = BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), data)
    assert [{"a": 1}, "{"] == [row["metadata"] for row in parquet_rows(BytesIO(data.getvalue()))]
    (tmp_path / "theirs.parquet").write_bytes(data.getvalue())
    restored, said = imported(tmp_path / "theirs.parquet")
    assert [UUID(int=1)] == [each.id for each in jobs_of(restored)]
    assert 1 == len(said)
    assert said[0].startswith("row 2 (line 2) refused")


def table(**columns: Any) -> bytes:  # noqa: ANN401  whatever pyarrow takes
    """A table in Parquet with one job, some of whose columns are these."""
    import pyarrow as pa
    from pyarrow import parquet

    given = {"id": [str(UUID(int=1))], "source_connection_id": [str(CONNECTION)], "created_at": [START]} | columns
    data = BytesIO()
    parquet.write_table(pa.table(given), data)
    return data.getvalue()


@pytest.mark.parametrize(("kind", "number"), [("us", 2**62), ("ns", 1710504000123456789)])
def test_a_moment_that_no_record_can_hold_is_an_error_of_the_file(
    kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    monkeypatch.setitem(sys.modules, "pandas", None)  # with which such a row is refused by itself
    data = table(created_at=pa.array([number], pa.timestamp(kind)))
    with pytest.raises(StorageError, match="the Parquet file: cannot be read: "):
        list(parquet_rows(BytesIO(data)))


def test_a_damaged_table_is_an_error() -> None:
    data = bytearray(table(error=["no"]))
    data[4:24] = bytes(20)
    with pytest.raises(StorageError, match="the Parquet file: cannot be read: "):
        list(parquet_rows(BytesIO(bytes(data))))


def test_a_connection_that_is_no_text_is_refused_with_its_row() -> None:
    data = table(source_connection_id=[["x"]], source_connection=["docs"])
    said: list[str] = []
    with unpacked(BytesIO(data)) as rows:
        Importer(JobHistory(InMemoryJobRepository()), None, said.append).take(rows)
    assert ["row 1 (line 1) refused: ", "row 2 (line 2) refused: "] == [each[:24] for each in said]


def test_without_pyarrow_the_error_names_the_extra_before_anything_goes(
    history: JobHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"Parquet needs pyarrow: pip install 'jobhistory\[parquet\]'"):
        history.prune(RULE, archive=tmp_path / "old.parquet")
    check_archive(tmp_path / "old.ndjson.gz")
    assert 10 == len(jobs_of(history))


def test_pyarrow_is_loaded_by_nothing_but_a_table() -> None:
    code = "import jobhistory.cli.app, sys; print('pyarrow' in sys.modules)"
    assert "False\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
