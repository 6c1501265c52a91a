from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import attrs
import pytest

from jobhistory.cli import pruning
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from tests.cli.command_line import CommandLine, process

DOCS, USERS = UUID("550e8400-e29b-41d4-a716-446655440000"), UUID("550e8400-e29b-41d4-a716-446655440001")
DAY = timedelta(days=1)


@pytest.fixture
def jobs(history: JobHistory) -> list[SyncJob]:
    """Ten of each connection, a day apart from now on; every third failed."""
    history.register(DOCS, "docs")
    history.register(USERS, "users")
    now = datetime.now(UTC)
    jobs = [
        SyncJob(
            id=UUID(int=100 * number + day),
            source_connection_id=id,
            status=JobStatus.FAILED if day % 3 == 0 else JobStatus.COMPLETED,
            created_at=now - day * DAY,
            started_at=now - day * DAY,
            completed_at=now,
        )
        for number, id in enumerate((DOCS, USERS), 1)
        for day in range(1, 11)
    ]
    history.add_many(jobs)
    return jobs


def left(history: JobHistory, connection: UUID = DOCS) -> list[int]:
    """How many days old the jobs are that are left."""
    return [job.id.int % 100 for job in history.iter_jobs(connection)]


@pytest.mark.usefixtures("jobs")
def test_the_plan_is_shown_and_nothing_goes_without_a_yes(cli: CommandLine, history: JobHistory) -> None:
    refused = cli("prune", "docs", "--older-than", "5d", stdin="n\n")

    today = datetime.now(UTC)
    dates = f"{today - 10 * DAY:%Y-%m-%d} to {today - 5 * DAY:%Y-%m-%d}"
    assert f"           6  {dates}  docs\n6 jobs may go, of 1 of 1 connections.\n" == refused.stdout
    assert refused.stderr.startswith("Delete 6 jobs? [y/N]: ")
    assert (1, 10) == (refused.exit_code, len(left(history)))

    nobody = cli("prune", "docs", "--older-than", "5d")
    assert (1, 10) == (nobody.exit_code, len(left(history)))
    said = "\nError: nobody answered, and nothing was deleted: give --yes where nobody can be asked\n"
    assert nobody.stderr.endswith(said)
    assert "--yes" not in refused.stderr

    agreed = cli("prune", "docs", "--older-than", "5d", stdin="y\n")
    assert (0, [1, 2, 3, 4]) == (agreed.exit_code, left(history))
    assert re.search(r"Deleted 6 jobs\. The history took 0\.\d MiB, and takes 0\.\d MiB\.\n$", agreed.stdout)
    assert 10 == len(left(history, USERS))


@pytest.mark.usefixtures("jobs")
def test_a_closed_standard_input_is_nobody_to_ask(
    cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "Error: nobody answered" in cli.on_terminal("prune", "--keep-last", "1")
    assert 10 == len(left(history))


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    ("words", "stay"),
    [
        (["--older-than", "120h"], [1, 2, 3, 4]),
        (["--older-than", "7200m"], [1, 2, 3, 4]),
        (["--older-than", "432000s"], [1, 2, 3, 4]),
        (["--older-than", "432000"], [1, 2, 3, 4]),
        (["--older-than", "1w"], [1, 2, 3, 4, 5, 6]),
        (["--keep-last", "2"], [1, 2]),
        (["--older-than", "5d", "--keep-last", "6"], [1, 2, 3, 4, 5, 6]),
        (["--older-than", "5d", "--keep-failed-for", "8d"], [1, 2, 3, 4, 6]),
    ],
)
def test_what_stays_is_as_the_options_say(
    cli: CommandLine, history: JobHistory, words: list[str], stay: list[int]
) -> None:
    assert 0 == cli("prune", *words, "--yes").exit_code
    assert [stay, stay] == [left(history, id) for id in (DOCS, USERS)]


@pytest.mark.parametrize(
    "words", [["--older-than", "90x"], ["--older-than", "d"], ["--older-than", "\u0663d"], [], ["--keep-last", "0"]]
)
def test_options_that_mean_nothing_are_wrong_usage(cli: CommandLine, history: JobHistory, words: list[str]) -> None:
    history.register(DOCS)
    result = cli("prune", *words)
    assert 2 == result.exit_code
    assert re.search("older.than|--keep-last", result.stderr)


@pytest.mark.usefixtures("jobs")
def test_a_dry_run_changes_nothing_and_asks_nothing(cli: CommandLine, history: JobHistory) -> None:
    result = cli("prune", "--keep-last", "1", "--dry-run", "--yes")
    assert (0, "") == (result.exit_code, result.stderr)
    assert result.stdout.endswith("18 jobs may go, of 2 of 2 connections.\n")
    assert 10 == len(left(history))


@pytest.mark.usefixtures("jobs")
def test_only_the_connections_that_lose_most_are_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_SHOWN", 1)
    lines = cli("prune", "--keep-last", "5", "--dry-run").stdout.splitlines()
    assert "           5  of 1 more" == lines[1]


@pytest.mark.usefixtures("jobs")
def test_programs_get_json_alone(cli: CommandLine) -> None:
    planned = json.loads(cli("prune", "docs", "--keep-last", "1", "--dry-run", "--json").stdout)
    done = json.loads(cli("prune", "docs", "--keep-last", "1", "--yes", "--json").stdout)
    asked = cli("prune", "users", "--keep-last", "1", "--json", stdin="y\n")
    assert {"planned", "deleted", "bytes_before", "bytes_after", "connections"} == set(done)
    assert (9, 0, 9, 9) == (planned["planned"], planned["deleted"], done["planned"], done["deleted"])
    [share] = done["connections"]
    assert (str(DOCS), "docs", 9) == (share["id"], share["name"], share["jobs"])
    assert share["oldest"] < share["newest"]
    assert 9 == json.loads(asked.stdout)["deleted"]


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("kind", ["ndjson.gz", "parquet"])
def test_an_archive_is_imported_as_it_was(cli: CommandLine, history: JobHistory, tmp_path: Path, kind: str) -> None:
    before = list(history.iter_jobs(DOCS))
    file = tmp_path / f"old.{kind}"
    result = cli("prune", "--keep-last", "1", "--yes", "--archive", str(file))
    assert f"Deleted 18 jobs, which are in {file}. " in result.stdout
    assert [1] == left(history)

    for words, given in (([str(file)], None), (["-"], file.read_bytes())):
        again = cli("import", *words, stdin=given)
        assert (0, "Imported 18 jobs, refused 0 rows.\n") == (again.exit_code, again.stdout)
        assert before == list(history.iter_jobs(DOCS))


@pytest.mark.usefixtures("jobs")
def test_an_archive_comes_through_a_pipe_too(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    cli("prune", "--keep-last", "1", "--yes", "--archive", str(tmp_path / "old.parquet"))
    with subprocess.Popen(["cat", tmp_path / "old.parquet"], stdout=subprocess.PIPE) as pipe:  # noqa: S607  on any PATH
        result = process("--db", cli.url, "import", "-", stdin=pipe.stdout)

    assert (0, "Imported 18 jobs, refused 0 rows.\n") == (result.returncode, result.stdout)
    assert 10 == len(left(history))


@pytest.mark.usefixtures("jobs")
def test_an_archive_that_is_there_already_is_refused_before_anybody_is_asked(
    cli: CommandLine, history: JobHistory, tmp_path: Path
) -> None:
    file = tmp_path / "old.ndjson.gz"
    file.write_text("precious")

    result = cli("prune", "--keep-last", "1", "--archive", str(file), stdin="y\n")

    said = f"Error: {file}: is there already, and nothing is overwritten: give another name\n"
    assert (1, "", said) == (result.exit_code, result.stdout, result.stderr)
    assert (10, "precious") == (len(left(history)), file.read_text())
    assert 0 == cli("prune", "--keep-last", "10", "--archive", str(file), "--yes").exit_code  # where nothing goes


@pytest.mark.usefixtures("jobs")
def test_without_the_extra_an_archive_is_wrong_usage(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = cli("prune", "--keep-last", "1", "--yes", "--archive", "old.parquet")
    assert (2, True) == (result.exit_code, "pip install 'jobhistory[parquet]'" in result.stderr)


@pytest.mark.usefixtures("jobs")
def test_room_that_an_interrupted_run_left_is_given_back_by_the_next(cli: CommandLine, history: JobHistory) -> None:
    ids = [job.id for job in history.iter_jobs(USERS)]
    history.repository.delete_many(ids)
    told = json.loads(cli("prune", "--keep-last", "10", "--yes", "--json").stdout)
    assert 0 == told["deleted"]
    assert told["bytes_after"] <= told["bytes_before"]


def test_a_backend_that_keeps_its_room_says_so(cli: CommandLine) -> None:
    result = attrs.evolve(cli, url="memory:")("prune", "--keep-last", "1", "--yes")
    assert "Deleted 0 jobs. Their room is for new ones, once the server's own upkeep saw to it.\n" in result.stdout


@pytest.mark.usefixtures("jobs")
def test_a_terminal_gets_a_bar_for_each_step(cli: CommandLine) -> None:
    seen = cli.on_terminal("prune", "--keep-last", "1", "--yes")
    assert [True] * 3 == [step in seen for step in ("Planning", "Deleting", "Deleted 18 jobs.")]


def test_a_rule_that_lets_nothing_go_names_the_options(cli: CommandLine) -> None:
    for words in ([], ["--keep-failed-for", "1d"]):
        result = cli("prune", *words)
        assert (2, True) == (result.exit_code, "Error: --older-than or --keep-last must be given" in result.stderr)
