from __future__ import annotations

import codecs
import json
import os
import resource
import stat
import tracemalloc
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobhistory
from jobhistory.cli import rows as reading
from jobhistory.cli import transfer
from jobhistory.cli.rows import rows
from jobhistory.cli.transfer import Importer
from jobhistory.errors import StorageError
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import SourceConnection
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import strategies
from tests.cli.command_line import CommandLine, process

CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
OTHER = UUID("550e8400-e29b-41d4-a716-446655440001")
NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EXAMPLE = """[
  {
    "id": "770e8400-e29b-41d4-a716-446655440002",
    "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "COMPLETED",
    "started_at": "2024-03-15T12:00:00Z",
    "completed_at": "2024-03-15T12:05:32Z",
    "duration_seconds": 332.5,
    "entities_inserted": 45,
    "entities_updated": 12,
    "entities_deleted": 3,
    "entities_failed": 0,
    "error": null,
    "error_details": null
  },
  {
    "id": "660e8400-e29b-41d4-a716-446655440001",
    "source_connection_id": "550e8400-e29b-41d4-a716-446655440000",
    "status": "FAILED",
    "started_at": "2024-03-14T08:00:15Z",
    "completed_at": null,
    "duration_seconds": null,
    "entities_inserted": 0,
    "entities_updated": 0,
    "entities_deleted": 0,
    "entities_failed": 0,
    "error": "Authentication failed: GitHub personal access token is invalid or expired",
    "error_details": null
  }
]"""


def row(
    number: int, created_at: datetime | None = None, connection: UUID = CONNECTION, **fields: object
) -> dict[str, Any]:
    return {
        "id": str(UUID(int=number)),
        "source_connection_id": str(connection),
        "status": "PENDING",
        **({} if created_at is None else {"created_at": created_at.isoformat()}),
        **fields,
    }


def lines(values: Iterable[object]) -> str:
    return "".join(f"{json.dumps(value)}\n" for value in values)


def stored(history: JobHistory, connection: UUID = CONNECTION) -> dict[int, datetime]:
    """The numbers of a connection's jobs, newest first, and when they were created."""
    return {job.id.int: job.created_at for job in history.iter_jobs(connection)}


def test_the_contracts_example_comes_back_as_it_went_in(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "example.json"
    file.write_text(EXAMPLE)

    imported = cli("import", str(file))
    listed = cli("list", "550e8400-e29b-41d4-a716-446655440000", "--limit", "10", "--json")

    assert (0, "Imported 2 jobs, refused 0 rows.\n") == (imported.exit_code, imported.output)
    assert EXAMPLE + "\n" == listed.stdout


def test_importing_twice_changes_nothing(cli: CommandLine, history: JobHistory) -> None:
    rows = [*json.loads(EXAMPLE), row(3), row(1, NOON), row(2)]
    cli("import", "-", stdin=lines(rows))
    token = history.changes()[-1].token
    jobs = list(history.iter_jobs(CONNECTION))

    again = cli("import", "-", stdin=lines(rows))

    assert (0, "Imported 5 jobs, refused 0 rows.\n") == (again.exit_code, again.stdout)
    assert jobs == list(history.iter_jobs(CONNECTION))
    assert [] == history.changes(token)


@pytest.mark.parametrize(
    "text",
    [
        lines(json.loads(EXAMPLE)),
        lines(json.loads(EXAMPLE)).rstrip("\n"),
        lines(json.loads(EXAMPLE)).replace("\n", "\r\n\r\n"),
        "\n \n" + EXAMPLE + "\n\n",
        EXAMPLE.replace("\n", "\r\n"),
        json.dumps(json.loads(EXAMPLE)),
        codecs.BOM_UTF8.decode() + EXAMPLE,
        codecs.BOM_UTF8.decode() + lines(json.loads(EXAMPLE)),
    ],
)
def test_an_array_and_lines_are_read_as_they_come(cli: CommandLine, text: str) -> None:
    assert 0 == cli("import", "-", stdin=text).exit_code
    assert json.loads(EXAMPLE) == json.loads(cli("list", "--json").stdout)


@pytest.mark.parametrize("text", ["", "\n\n", "[]", "[ \n]"])
def test_a_file_without_rows_is_imported_too(cli: CommandLine, text: str) -> None:
    assert "Imported 0 jobs, refused 0 rows.\n" == cli("import", "-", stdin=text).stdout


def test_a_live_airweaves_rows_are_understood(cli: CommandLine, history: JobHistory) -> None:
    live: dict[str, Any] = {
        "id": "770e8400-e29b-41d4-a716-446655440002",
        "source_connection_id": str(CONNECTION),
        "organization_id": "8d1e8a5f-6f3c-4b43-9d43-0c4f1d6fd8a1",
        "sync_id": "0b3e4c36-5d84-4c0d-9d3e-5a1f0bb8d8a9",
        "created_at": "2024-03-15T11:59:58.000001",
        "modified_at": "2024-03-15T12:05:32.654321",
        "status": "completed",
        "started_at": "2024-03-15T12:00:00.123456",
        "completed_at": "2024-03-15T12:05:32.623456",
        "duration_seconds": 332.5,
        "entities_inserted": 45,
        "entities_updated": None,
        "entities_deleted": 3,
        "entities_encountered": {"GitHubFile": 60},
        "error": None,
        "error_details": None,
    }
    waiting = {**live, "id": str(UUID(int=2)), "status": "created", "started_at": None, "completed_at": None}
    waiting |= dict.fromkeys(("duration_seconds", "entities_inserted", "entities_deleted"))
    running = waiting | {"id": str(UUID(int=3)), "status": "in_progress", "started_at": "2024-03-15T12:00:00+02:00"}

    result = cli("import", "-", stdin=json.dumps([live, waiting, running]))

    assert (0, "Imported 3 jobs, refused 0 rows.\n") == (result.exit_code, result.stdout)
    assert "left out of the rows: organization_id, sync_id, modified_at, entities_encountered\n" == result.stderr
    assert SyncJob(
        id=UUID(live["id"]),
        source_connection_id=CONNECTION,
        status=JobStatus.COMPLETED,
        created_at=datetime(2024, 3, 15, 11, 59, 58, 1, tzinfo=UTC),
        started_at=datetime(2024, 3, 15, 12, 0, 0, 123456, tzinfo=UTC),
        completed_at=datetime(2024, 3, 15, 12, 5, 32, 623456, tzinfo=UTC),
        duration_seconds=332.5,
        entities_inserted=45,
        entities_deleted=3,
    ) == history.get(live["id"])
    assert JobStatus.PENDING is history.get(UUID(int=2)).status
    assert JobStatus.RUNNING is history.get(UUID(int=3)).status
    assert NOON - timedelta(hours=2) == history.get(UUID(int=3)).started_at


@pytest.mark.parametrize(
    ("fields", "duration"),
    [({}, 332.5), ({"duration_seconds": None}, None), ({"duration_seconds": 300}, 300.0), ({"started_at": None}, None)],
)
def test_a_row_without_a_duration_took_the_difference_of_its_timestamps(
    cli: CommandLine, history: JobHistory, fields: dict[str, Any], duration: float | None
) -> None:
    ended: dict[str, Any] = {"status": "FAILED", "started_at": "2024-03-15T12:00:00Z"}
    ended |= {"completed_at": "2024-03-15T12:05:32.5Z", **fields}

    assert 0 == cli("import", "-", stdin=lines([row(1, NOON, **ended)])).exit_code

    assert duration == history.get(UUID(int=1)).duration_seconds


def test_keys_left_out_are_named_up_to_a_bound(cli: CommandLine) -> None:
    result = cli("import", "-", stdin=lines([row(1, NOON) | {f"extra{i}" * 100: i for i in range(100)}]))

    assert 20 == result.stderr.count(",") + 1
    assert len(result.stderr) < 1000


def test_a_row_without_a_time_stands_just_behind_the_newer_one(cli: CommandLine, history: JobHistory) -> None:
    result = cli("import", "-", stdin=lines([row(1, NOON), row(2), row(3), row(4, NOON - timedelta(hours=1))]))

    assert {1: NOON, 2: NOON - MICROSECOND, 3: NOON - 2 * MICROSECOND, 4: NOON - timedelta(hours=1)} == stored(history)
    assert [1, 2, 3, 4] == list(stored(history))
    assert (
        "row 2 (line 2): neither created_at nor started_at: ordered as if created at 2024-03-15T11:59:59.999999Z\n"
        "row 3 (line 3): neither created_at nor started_at: ordered as if created at 2024-03-15T11:59:59.999998Z\n"
    ) == result.stderr
    assert 0 == result.exit_code


def test_the_newest_rows_without_a_time_stand_just_before_the_older_one(cli: CommandLine, history: JobHistory) -> None:
    cli("import", "-", stdin=lines([row(1), row(2), row(3, NOON)]))

    assert {1: NOON + 2 * MICROSECOND, 2: NOON + MICROSECOND, 3: NOON} == stored(history)


def test_a_row_without_a_time_is_ordered_by_its_own_connection(cli: CommandLine, history: JobHistory) -> None:
    later = NOON + timedelta(days=1)
    cli("import", "-", stdin=lines([row(1, later, OTHER), row(2, NOON), row(3, None, OTHER), row(4)]))

    assert {1: later, 3: later - MICROSECOND} == stored(history, OTHER)
    assert {2: NOON, 4: NOON - MICROSECOND} == stored(history)


def test_a_job_is_not_placed_after_its_own_end(cli: CommandLine, history: JobHistory) -> None:
    ended = {"status": "FAILED", "completed_at": "2024-03-15T11:00:00Z"}

    cli("import", "-", stdin=lines([row(1), row(2) | ended, row(3, NOON, OTHER), row(4, None, OTHER) | ended]))

    assert {1: NOON - timedelta(hours=1) + MICROSECOND, 2: NOON - timedelta(hours=1)} == stored(history)
    assert {3: NOON, 4: NOON - timedelta(hours=1)} == stored(history, OTHER)


def test_what_was_imported_is_told_as_json(cli: CommandLine) -> None:
    result = cli("import", "-", "--json", stdin=lines([row(1), row(2, NOON, OTHER)]))

    assert (4, {"imported": 1, "refused": 1}) == (result.exit_code, json.loads(result.stdout))


def test_a_row_that_nothing_gives_a_time_is_refused(cli: CommandLine, history: JobHistory) -> None:
    result = cli("import", "-", stdin=lines([row(1), row(2, NOON, OTHER)]))

    assert (4, "Imported 1 job, refused 1 row.\n") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("row 1 (line 1) refused: no job of its connection near it has a created_at")
    assert {2: NOON} == stored(history, OTHER)


def test_time_ends_where_datetime_ends(cli: CommandLine, history: JobHistory) -> None:
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

    assert (
        0
        == cli("import", "-", stdin=lines([row(1, first), row(2), row(3, None, OTHER), row(4, last, OTHER)])).exit_code
    )
    assert {1: first, 2: first} == dict(sorted(stored(history).items()))
    assert {3: last, 4: last} == dict(sorted(stored(history, OTHER).items()))


def test_rows_that_wait_for_a_time_are_bounded(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_HELD", 2)

    result = cli("import", "-", stdin=lines([row(1), row(2, None, OTHER), row(3), row(4, NOON), row(5, NOON, OTHER)]))

    assert "Imported 4 jobs, refused 1 row.\n" == result.stdout
    assert "row 3 (line 3) refused: no job of its connection near it" in result.stderr


def test_a_refused_row_is_named_and_all_others_are_imported(cli: CommandLine, history: JobHistory) -> None:
    good = [json.dumps(row(number, NOON)) for number in (1, 2, 3)]
    bad = [
        "",
        "{",
        "17",
        json.dumps(row(4, NOON, status="done")),
        json.dumps(row(5, NOON, entities_failed=True, status="RUNNING", started_at=NOON.isoformat())),
        json.dumps(row(6, NOON) | {"id": "6"}),
        "\udcff",
        '{"id": ' + "[" * 10**5,
        '{"id": ' + "1" * 5000 + "}",
        json.dumps({"source_connection_id": "x", "name": "y"}),
        json.dumps(row(7, NOON, status=7)),
    ]
    text = "\n".join([good[0], *bad, *good[1:]]).encode(errors="surrogateescape")

    result = cli("import", "-", stdin=text)

    assert (4, "Imported 3 jobs, refused 10 rows.\n") == (result.exit_code, result.stdout)
    assert {1, 2, 3} == stored(history).keys()
    refusals = result.stderr.splitlines()
    assert [f"row {i} (line {i + 1}) refused:" for i in range(2, 12)] == [
        " ".join(line.split()[:5]) for line in refusals
    ]
    for reason, line in zip(
        [
            "no JSON (one job on each line, or an array of jobs)",
            "job must be a JSON object, not 17",
            "status must be one of PENDING",
            "entities_failed must be an int from 0",
            "id must be a UUID in its canonical form, not '6'",
            "can't decode byte 0xff",
            "recursion",
            "4300",
            "not an id: 'x'",
            "status must be one of PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED, not 7",
        ],
        refusals,
        strict=True,
    ):
        assert reason in line


def test_a_refused_row_of_an_array_is_named_by_its_number_and_line(cli: CommandLine) -> None:
    text = "\n" + EXAMPLE.replace('"COMPLETED"', '"DONE"').replace('"FAILED"', '"LOST"')

    result = cli("import", "-", stdin=text)

    assert 4 == result.exit_code
    assert ["row 1 (line 3)", "row 2 (line 17)"] == [line.split(" refused")[0] for line in result.stderr.splitlines()]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (EXAMPLE[:-1], "Expecting"),
        (EXAMPLE + "x", "Extra data: line 30 column 2"),
        (EXAMPLE.replace("},", "}"), "Expecting ',' delimiter: line 16 column 3"),
        ("[" * 10**5, "recursion"),
        ("[1, \udcff]", "can't decode byte 0xff"),
    ],
)
def test_an_array_that_is_no_json_imports_nothing(cli: CommandLine, text: str, reason: str) -> None:
    result = cli("import", "-", stdin=text.encode(errors="surrogateescape"))

    assert (1, "Imported 0 jobs, refused 0 rows.\n") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("Error: no JSON array: ")
    assert reason in result.stderr
    assert "[]\n" == cli("list", "--json").output


def test_a_line_too_long_is_refused_and_the_next_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LINE_BYTES", 100)
    text = b'{"a": 1}\n"' + b"x" * 99 + b'"\n' + b"y" * 350 + b'\n"' + b"z" * 97 + b'"\n{}'

    found = list(rows(BytesIO(text)))

    assert [{"a": 1}, None, None, "z" * 97, {}] == [row.value for row in found]
    assert [None, "longer than 100 bytes", "longer than 100 bytes", None, None] == [row.refusal for row in found]
    assert [1, 2, 3, 4, 5] == [row.line for row in found]


def test_an_array_may_stand_on_one_line_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LINE_BYTES", 10)

    assert [1, 2, "x" * 50] == [row.value for row in rows(BytesIO(json.dumps([1, 2, "x" * 50]).encode()))]


def test_of_an_array_no_more_than_its_text_is_in_memory() -> None:
    text = json.dumps([{f"key {number}": [number] * 10} for number in range(2000)]).encode()
    tracemalloc.start()
    try:
        assert 2000 == sum(1 for _ in rows(BytesIO(text)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 3 * len(text) > most


def test_lines_are_read_one_by_one() -> None:
    class Endless:
        read = 0

        def readline(self, _: int) -> bytes:
            self.read += 1
            return b"{}\n"

    endless: Any = Endless()
    found = iter(rows(endless))

    assert [1, 2, 3] == [next(found).number for _ in range(3)]
    assert 3 == endless.read


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_an_id_that_another_job_has_costs_that_row_alone(
    cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(transfer, "_BATCH", batch)
    history.add_many([SyncJob.from_dict(row(3, NOON)), SyncJob.from_dict(row(5, NOON, OTHER))])
    values = [row(number, NOON) for number in range(1, 9)]
    values[2]["created_at"] = (NOON + MICROSECOND).isoformat()

    result = cli("import", "-", stdin=lines([*values, row(8, NOON, OTHER), row(8, NOON)]))

    assert (4, "Imported 7 jobs, refused 3 rows.\n") == (result.exit_code, result.stdout)
    assert [
        f"row {i} (line {i}) refused: another job {UUID(int=number)} is already stored: use a new id"
        for i, number in ((3, 3), (5, 5), (9, 8))
    ] == result.stderr.splitlines()
    assert dict.fromkeys((1, 2, 3, 4, 6, 7, 8), NOON) == stored(history)
    assert {5: NOON} == stored(history, OTHER)


def test_what_was_counted_is_stored_where_the_storage_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_BATCH", 2)

    class Full(InMemoryJobRepository):
        def add_many(self, jobs: Iterable[SyncJob]) -> None:
            if len(self.active_jobs()) >= 4:
                raise StorageError("here", "the disk is full")
            super().add_many(jobs)

    history = JobHistory(Full())
    importer = Importer(history, None, pytest.fail)

    with pytest.raises(StorageError):
        importer.take(rows(BytesIO(lines(row(number, NOON) for number in range(1, 10)).encode())))

    assert 4 == importer.imported == len(history.list_jobs(CONNECTION))


def test_rows_that_name_no_connection_get_the_one_given(cli: CommandLine, history: JobHistory) -> None:
    history.register(OTHER, "other")
    bare = row(1, NOON)
    del bare["source_connection_id"]
    own = row(2, NOON)

    refused = cli("import", "-", stdin=lines([bare]))
    assert 4 == refused.exit_code
    assert "source_connection_id must be given" in refused.stderr
    assert 0 == cli("import", "-", "--connection", "other", stdin=lines([bare, own])).exit_code
    assert (
        0
        == cli(
            "import", "-", "--connection", str(UUID(int=9)), stdin=lines([bare | {"id": str(UUID(int=3))}])
        ).exit_code
    )
    assert 3 == cli("import", "-", "--connection", "nobody", stdin=lines([bare])).exit_code

    assert {1: NOON} == stored(history, OTHER)
    assert {2: NOON} == stored(history)
    assert {3: NOON} == stored(history, UUID(int=9))


def test_names_come_along_but_replace_none(cli: CommandLine, history: JobHistory) -> None:
    history.register(CONNECTION, "mine")
    named = [
        {"source_connection_id": str(CONNECTION), "name": "theirs"},
        {"source_connection_id": str(OTHER), "name": "other"},
        {"source_connection_id": str(UUID(int=1)), "name": None},
        {"source_connection_id": str(UUID(int=2)), "name": "mine"},
        {"source_connection_id": str(UUID(int=3)), "name": 7},
        {"source_connection_id": str(OTHER), "name": "other"},
    ]

    result = cli("import", "-", stdin=lines([*named, row(1, NOON)]))

    assert (4, "Imported 1 job, refused 2 rows.\n") == (result.exit_code, result.stdout)
    assert f"row 1 (line 1): connection {CONNECTION} keeps its name 'mine', not 'theirs'\n" in result.stderr
    assert f"row 4 (line 4) refused: the name 'mine' belongs to source connection {CONNECTION}\n" in result.stderr
    assert "row 5 (line 5) refused: name must be a str, not 7\n" in result.stderr
    assert {CONNECTION: "mine", OTHER: "other", UUID(int=1): None} == {
        each.id: each.name for each in history.connections()
    }


def test_a_secret_in_a_connections_name_is_left_out_and_importing_it_again_says_nothing(
    cli: CommandLine, history: JobHistory
) -> None:
    for _ in range(2):
        result = cli(
            "import", "-", stdin=lines([{"source_connection_id": str(OTHER), "name": "token=abcdef0123456789"}])
        )
        assert (0, "") == (result.exit_code, result.stderr)

    assert ["token=[redacted]"] == [each.name for each in history.connections()]


def everything(history: JobHistory) -> tuple[list[SourceConnection], list[list[SyncJob]]]:
    known = history.connections()
    return known, [list(history.iter_jobs(each.id)) for each in known]


NAMES = strategies.hostile_text().filter(lambda text: text != "" and text.isprintable())


@given(st.lists(strategies.histories(max_size=4), max_size=2), st.dictionaries(NAMES, strategies.ids(), max_size=3))
def test_what_is_exported_imports_back_to_equal_records(histories: list[list[SyncJob]], names: dict[str, UUID]) -> None:
    history, copy = JobHistory(InMemoryJobRepository()), JobHistory(InMemoryJobRepository())
    history.add_many({job.id: job for jobs in histories for job in jobs}.values())
    for name, id in names.items():
        history.register(id, name)

    text = "".join(transfer.exported(history, history.connections()))
    importer = Importer(copy, None, pytest.fail)
    importer.take(rows(BytesIO(text.encode())))

    assert everything(history) == everything(copy)
    assert 0 == importer.refused


def test_an_export_is_a_line_for_the_connection_and_its_jobs_newest_first(
    cli: CommandLine, history: JobHistory
) -> None:
    history.register(OTHER, "other")
    jobs = [SyncJob.from_dict(row(number, NOON + number * MICROSECOND)) for number in (2, 1)]
    history.add_many(jobs)

    result = cli("export")

    assert [
        {"source_connection_id": str(CONNECTION), "name": None},
        *(job.to_dict(bookkeeping=True) for job in jobs),
        {"source_connection_id": str(OTHER), "name": "other"},
    ] == [json.loads(line) for line in result.stdout.splitlines()]
    assert result.stdout.splitlines()[3:] == cli("export", "other").stdout.splitlines()
    assert 3 == cli("export", "nobody").exit_code


def test_an_exported_file_is_its_owners_and_replaces_the_old_one_only_when_whole(
    cli: CommandLine, history: JobHistory, tmp_path: Path
) -> None:
    history.enqueue(CONNECTION)
    target, link = tmp_path / "jobs.ndjson", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)

    assert 3 == cli("export", "nobody", "-o", str(link)).exit_code
    assert "old" == target.read_text()
    assert 0 == cli("export", "-o", str(link)).exit_code

    assert cli("export").stdout == target.read_text()
    assert link.is_symlink()
    assert 0o600 == stat.S_IMODE(target.stat().st_mode)
    assert {"history.db", "jobs.ndjson", "link"} == {path.name for path in tmp_path.iterdir() if "-" not in path.name}


def test_an_export_that_finds_no_room_is_said_and_leaves_what_was_there(
    cli: CommandLine, history: JobHistory, tmp_path: Path
) -> None:
    history.enqueue(CONNECTION)
    target = tmp_path / "exported" / "jobs.ndjson"
    target.parent.mkdir()
    target.write_text("old")
    no_room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, no_room[1]))
    try:
        result = cli("export", "-o", str(target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_room)

    assert (1, f"Error: {target}: cannot be written: File too large\n") == (result.exit_code, result.stderr)
    assert (["jobs.ndjson"], "old") == ([path.name for path in target.parent.iterdir()], target.read_text())


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_an_export_never_replaces_the_history(
    cli: CommandLine, history: JobHistory, tmp_path: Path, ending: str
) -> None:
    job = history.enqueue(CONNECTION)
    link = tmp_path / "link"
    link.symlink_to(f"{cli.url}{ending}")

    result = cli("export", "-o", str(link))

    assert (2, True) == (result.exit_code, "link is the history itself" in result.stderr)
    with closing(jobhistory.open(cli.url)) as opened:
        assert [job] == opened.list_jobs(CONNECTION)


def test_an_export_may_go_to_a_pipe_which_stays_one(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.enqueue(CONNECTION)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Open at both ends, so that nobody waits: an export of one job fits into it.
    reads = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)

    assert 0 == cli("export", "-o", str(pipe)).exit_code

    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert cli("export").stdout == os.read(reads, 65536).decode()
    os.close(reads)
    assert process("--db", cli.url, "export", "-o", "/dev/stdout").stdout == cli("export").stdout


def test_export_and_import_speak_through_a_pipe(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.enqueue(CONNECTION, metadata={"\x7f": "für \u2028"})
    other = str(tmp_path / "other.db")

    exported = process("--db", cli.url, "export")
    imported = process("--db", other, "import", "-", input=exported.stdout)

    assert (0, 0) == (exported.returncode, imported.returncode)
    assert exported.stdout == process("--db", other, "export").stdout


def test_a_big_file_shows_its_progress_on_a_terminal(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "big.ndjson"
    file.write_text(lines(row(number, NOON, status="FAILED", error="x" * 16_000) for number in range(70)) + "refused\n")

    shown = cli.on_terminal("import", str(file))

    assert "Importing" in shown
    assert "row 71 (line 71) refused" in shown
    assert "Imported 70 jobs, refused 1 row." in shown


def test_a_small_file_shows_none(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "small.ndjson"
    file.write_text(lines([row(1, NOON)]))

    assert "Imported 1 job, refused 0 rows.\n" == cli.on_terminal("import", str(file))


def test_a_file_that_is_missing_is_wrong_usage_and_makes_no_history(cli: CommandLine) -> None:
    assert 2 == cli("import", "missing.json").exit_code
    assert not Path(cli.url).exists()
