from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

import jobhistory
from jobhistory.history import JobHistory
from jobhistory.testing.rules.base import CONNECTION, jobs
from tests.cli.command_line import CommandLine


@pytest.fixture
def bad(cli: CommandLine, history: JobHistory) -> JobHistory:
    """The history, with a job that another program spoilt."""
    history.add_many(jobs(1, 2, 3))
    with closing(sqlite3.connect(cli.url)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE jobs SET status = 'WR\x1bONG' WHERE id = ?", (jobs(2)[0].id.bytes,))
    return history


def test_backup_copies_the_history_and_says_where_to(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.add_many(jobs(1, 2))
    copy = tmp_path / "copy.db"
    result = cli("backup", str(copy))

    assert (0, f"Backed up to {copy}: {copy.stat().st_size:,} bytes, verified.\n") == (result.exit_code, result.stdout)
    with closing(jobhistory.open(copy)) as restored:
        assert jobs(2, 1) == restored.list_jobs(CONNECTION)


def test_a_backup_is_told_as_json(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.add_many(jobs(1))
    copy = tmp_path / "copy.db"

    told = json.loads(cli("backup", str(copy), "--json").stdout)

    assert {"file": str(copy), "bytes": copy.stat().st_size} == told


def test_backup_overwrites_nothing(cli: CommandLine, history: JobHistory) -> None:
    history.register(CONNECTION)
    result = cli("backup", cli.url)
    assert (1, True) == (result.exit_code, "is there already, and nothing is overwritten" in result.stderr)


def test_backup_makes_nothing_of_a_history_that_is_not_there(cli: CommandLine, tmp_path: Path) -> None:
    assert 3 == cli("backup", str(tmp_path / "copy.db")).exit_code
    assert [] == list(tmp_path.glob("*.db"))


@pytest.mark.parametrize("words", [("backup", "x.db"), ("check",)])
def test_a_history_that_cannot_be_kept_up_so_is_refused(cli: CommandLine, words: tuple[str, ...]) -> None:
    result = attrs.evolve(cli, url="memory:")(*words)
    assert (2, True) == (result.exit_code, "use its own tools" in result.stderr)


def test_check_of_a_sound_history_ends_with_code_0(cli: CommandLine, history: JobHistory) -> None:
    history.add_many(jobs(1, 2))
    result = cli("check")

    assert 0 == result.exit_code
    assert "note     jobs that keep the record's rules: 2 of 2\n" in result.stdout
    assert f"{cli.url}: 0 errors, " in result.stdout


@pytest.mark.usefixtures("bad")
def test_check_names_what_is_wrong_and_the_way_out_and_ends_with_code_5(cli: CommandLine) -> None:
    result = cli("check")

    assert 5 == result.exit_code
    (at,) = [number for number, line in enumerate(result.stdout.splitlines()) if f"job {jobs(2)[0].id}: " in line]
    error, way_out = result.stdout.splitlines()[at : at + 2]
    assert error.startswith("error ")
    assert error.endswith(r"not 'WR\x1bONG'")
    assert "check --set-aside FILE" in way_out


@pytest.mark.usefixtures("bad")
def test_check_prints_json_for_programs(cli: CommandLine) -> None:
    result = cli("check", "--json")
    findings = json.loads(result.stdout)

    assert 5 == result.exit_code
    assert {"level", "what", "way_out"} == set(findings[0])
    assert 1 == sum(finding["level"] == "error" and finding["what"].startswith("job") for finding in findings)


def test_what_is_set_aside_leaves_the_rest_readable(cli: CommandLine, bad: JobHistory, tmp_path: Path) -> None:
    file = tmp_path / "aside.ndjson"
    result = cli("check", "--set-aside", str(file))

    assert (0, f"Moved 1 to {file}: mend and import them.\n") == (result.exit_code, result.stderr)
    assert jobs(3, 1) == bad.list_jobs(CONNECTION)

    file.write_text(file.read_text().replace(r"WR\u001bONG", "PENDING"))
    assert 0 == cli("import", str(file)).exit_code
    assert jobs(3, 2, 1) == bad.list_jobs(CONNECTION)


def test_where_nothing_is_to_be_moved_that_is_said(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.add_many(jobs(1))
    result = cli("check", "--set-aside", str(tmp_path / "aside.ndjson"))
    assert (0, "Nothing is to be moved.\n") == (result.exit_code, result.stderr)
