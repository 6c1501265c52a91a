from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import pytest

from jobhistory import health
from jobhistory.cli.render import bar, spark
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from jobhistory.storage.sqlite import SQLiteJobRepository
from tests.cli.command_line import CommandLine

NOW = datetime.now(UTC)
DOCS, CODE, IDLE = (UUID(f"{digit * 8}-0000-4000-8000-000000000000") for digit in "dca")
OUR_STYLES = re.compile(r"\x1b\[[0-9;]*m")


def job(days_ago: float, connection: UUID, status: JobStatus = JobStatus.COMPLETED, seconds: float = 60) -> SyncJob:
    at = NOW - timedelta(days=days_ago)
    return SyncJob(
        id=UUID(int=connection.int + int(days_ago * 1000)),
        source_connection_id=connection,
        status=status,
        created_at=at,
        started_at=at,
        completed_at=at + timedelta(seconds=seconds),
        duration_seconds=seconds,
        entities_inserted=100,
        error=f"page {days_ago} is missing" if status is JobStatus.FAILED else None,
    )


@pytest.fixture
def _filled(history: JobHistory) -> None:
    history.register(DOCS, "the docs")
    history.register(CODE, "code")
    history.register(IDLE)
    history.add_many([job(days, DOCS) for days in range(5, 25)])
    history.add_many([job(1, CODE, JobStatus.FAILED), job(2, CODE, JobStatus.FAILED), job(9, CODE, JobStatus.FAILED)])
    history.add_many([job(10, CODE, seconds=30)])


filled = pytest.mark.usefixtures("_filled")


@filled
def test_piped_figures_are_columns_of_words(cli: CommandLine) -> None:
    head, idle, code, docs = (re.split(" {2,}", line) for line in cli("stats").stdout.splitlines())

    assert [
        *("connection", "status", "created_at", "last_success_at", "failure_streak", "success_rate"),
        *("p50_seconds", "p95_seconds", "running", "signals", "name"),
    ] == head
    assert [str(IDLE), "-", "-", "-", "0", "-", "-", "-", "0", "-", "-"] == idle
    assert ["3", "0.25", "30", "30", "0", "-", "code"] == code[4:]
    assert ["0", "1", "60", "60", "0", "OVERDUE", "the docs"] == docs[4:]


@filled
def test_a_terminal_gets_bars_and_spark_lines_and_the_signals_in_words(cli: CommandLine) -> None:
    shown = OUR_STYLES.sub("", cli.on_terminal("stats"))

    assert re.search(r"code +FAILED +1d ago .* 25% +3 +30s +30s +▄!!!", shown), shown
    assert re.search(r"the docs +COMPLETED +5d ago +5d ago +100% +1m +1m +█{20}", shown)
    assert "never" in shown
    assert "OVERDUE  the docs: has not run for 5d, though it always runs, usually every 1d (job dddddddd-0000)" in shown


@filled
def test_each_connection_is_read_once_few_at_the_same_time_on_a_terminal_too(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, newest_jobs = list[int](), SQLiteJobRepository.newest_jobs

    def counted(repository: SQLiteJobRepository, ids: list[UUID], *, per_connection: int) -> dict[UUID, list[SyncJob]]:
        asked.append(len(ids))
        return newest_jobs(repository, ids, per_connection=per_connection)

    monkeypatch.setattr(SQLiteJobRepository, "newest_jobs", counted)
    whole = cli.on_terminal("stats")
    monkeypatch.setattr(health, "AT_ONCE", 2)
    assert (whole, [3, 2, 1]) == (cli.on_terminal("stats"), asked)


@filled
def test_figures_of_some_connections_are_json(cli: CommandLine) -> None:
    [docs] = json.loads(cli("stats", "the docs", "--json").stdout)

    assert (str(DOCS), "the docs", 20, 1, None) == (
        docs["id"],
        docs["name"],
        docs["jobs"],
        docs["success_rate"],
        docs["newest"]["error"],
    )
    assert ["OVERDUE"] == [signal["kind"] for signal in docs["signals"]]


@filled
def test_signals_alone_leave_out_what_is_as_usual(cli: CommandLine) -> None:
    assert 2 == len(cli("stats", "--signals").stdout.splitlines())
    assert "Nothing is unusual.\n" == cli("stats", "code", "--signals").stderr


def test_where_there_are_no_connections_it_says_so(cli: CommandLine, history: JobHistory) -> None:
    assert [] == history.connections()
    assert "No connections in this history.\n" == cli("stats").stderr


@filled
def test_piped_failures_are_columns_with_the_pattern_last(cli: CommandLine) -> None:
    head, line = (re.split(" {2,}", line) for line in cli("failures").stdout.splitlines())

    assert ["fingerprint", "count", "connections", "first_at", "last_at", "latest_job", "error"] == head
    assert ["2", "1", str(job(1, CODE).id), "page # is missing"] == [*line[1:3], *line[5:]]


@filled
def test_failures_on_a_terminal_are_a_table(cli: CommandLine) -> None:
    shown = OUR_STYLES.sub("", cli.on_terminal("failures", "--since", "4w"))

    assert re.search(r"3 █{10} +.* +(23h|1d) ago +1 +cccccccc-0000 +page # is missing", shown)


@filled
@pytest.mark.parametrize("width", [80, 120])
def test_a_narrow_terminal_gets_whole_names_figures_and_errors(cli: CommandLine, width: int) -> None:
    figures, errors = (
        OUR_STYLES.sub("", cli.on_terminal(*words, columns=width))
        for words in (["stats"], ["failures", "--since", "4w"])
    )

    assert re.search(r"the docs +COMPLETED +5d ago +5d ago +100% +1m .*█{8}", figures), figures
    assert "page # is missing" in errors
    assert "…" not in errors


@filled
def test_failures_are_those_since_then_of_those_connections(cli: CommandLine) -> None:
    def count(*words: str) -> int:
        return sum(each["count"] for each in json.loads(cli("failures", "--json", *words).stdout))

    assert 2 == count()
    assert [3, 3, 3] == [count("--since", since) for since in ("10d", "999999w", "864000")]
    assert [0, 0] == [count("--since", since) for since in ("0.5h", "7")]
    assert 1 == count("--since", f"{NOW - timedelta(days=1.5):%Y-%m-%dT%H:%M:%SZ}", "code")
    assert 0 == count("the docs")


@filled
def test_where_nothing_failed_it_says_since_when(cli: CommandLine) -> None:
    result = cli("failures", "--since", "2024-03-15T12:00:00Z", "the docs")
    assert "No job failed that was created since 2024-03-15T12:00:00Z.\n" == result.stderr


@pytest.mark.parametrize("since", ["d", "1y", "yesterday", "2024-03-15", "-1d", "9" * 400, "1 d", "\u0663d"])
def test_a_time_that_is_none_is_wrong_usage(cli: CommandLine, since: str) -> None:
    result = cli("failures", "--since", since)
    assert (2, True) == (result.exit_code, "is no duration: 4w, 90d, 36h" in result.stderr)
    assert "; nor a time such as 2024-03-15T12:00:00Z\n" in result.stderr


@pytest.mark.usefixtures("_filled")
def test_an_error_that_was_not_given_is_named(cli: CommandLine, history: JobHistory) -> None:
    history.repository.add(attrs.evolve(job(0.5, IDLE, JobStatus.FAILED), error=None))
    assert "(no error was given)" in cli("failures", str(IDLE)).stdout


def test_a_bar_fills_its_part_to_an_eighth() -> None:
    assert ["    ", "█▌  ", "███▉", "████"] == [bar(part, 4) for part in (0, 0.375, 3.9 / 4, 1)]
    assert "▏   " == bar(0.03, 4)


def test_a_spark_line_begins_with_the_oldest() -> None:
    waiting = SyncJob(id=UUID(int=1), source_connection_id=DOCS, created_at=NOW)
    jobs = [waiting, job(1, DOCS, JobStatus.FAILED), job(2, DOCS, seconds=80), job(3, DOCS, seconds=10)]
    assert "▁█!·" == spark(jobs, NOW)
