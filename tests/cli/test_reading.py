from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.cli import database
from jobhistory.cli.reading import _newest_of_all
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import newest_first
from jobhistory.status import ACTIVE_STATUSES, JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import strategies
from tests.cli.command_line import CommandLine

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
DOCS, CODE, IDLE = (UUID(f"{digit * 8}-0000-4000-8000-000000000000") for digit in "dca")
FAILED, DONE, RUNNING, WAITING = (UUID(f"{digit * 8}-1111-4111-8111-111111111111") for digit in "1234")


@pytest.fixture
def _filled(history: JobHistory) -> None:
    history.register(DOCS, "the docs")
    history.register(CODE)
    history.register(IDLE, "idle")
    docs: dict[str, Any] = {"source_connection_id": DOCS}
    history.add_many(
        [
            SyncJob(
                **docs,
                id=FAILED,
                status=JobStatus.FAILED,
                created_at=NOON,
                error="it broke:\nno route to host, which is a long story that no table has the room for",
            ),
            SyncJob(
                **docs,
                id=DONE,
                status=JobStatus.COMPLETED,
                created_at=NOON + timedelta(hours=1),
                started_at=NOON + timedelta(hours=1),
                completed_at=NOON + timedelta(hours=1, seconds=332),
                duration_seconds=332.5,
                entities_inserted=1234,
                entities_updated=12,
                entities_failed=3,
            ),
            SyncJob(
                id=RUNNING,
                source_connection_id=CODE,
                status=JobStatus.RUNNING,
                created_at=NOON + timedelta(minutes=30),
                started_at=datetime(9999, 1, 1, tzinfo=UTC),
            ),
            SyncJob(**docs, id=WAITING, created_at=NOON + timedelta(hours=2)),
        ]
    )


OUR_STYLES = re.compile(r"\x1b\[[0-9;]*m")
filled = pytest.mark.usefixtures("_filled")


def ids(text: str) -> list[UUID]:
    return [UUID(job["id"]) for job in json.loads(text)]


@filled
def test_piped_it_is_plain_text_with_every_value_in_full(cli: CommandLine) -> None:
    error = "it broke:\\nno route to host, which is a long story that no table has the room for"
    assert [
        "id status created_at seconds inserted updated deleted failed connection error",
        f"{WAITING} PENDING 2024-03-15T14:00:00Z - 0 0 0 0 the docs -",
        f"{DONE} COMPLETED 2024-03-15T13:00:00Z 332.5 1234 12 0 3 the docs -",
        f"{RUNNING} RUNNING 2024-03-15T12:30:00Z - 0 0 0 0 {CODE} -",
        f"{FAILED} FAILED 2024-03-15T12:00:00Z - 0 0 0 0 the docs {error}",
    ] == [re.sub(" +", " ", line) for line in cli("list").stdout.splitlines()]


@filled
def test_the_columns_of_plain_text_stand_below_one_another(cli: CommandLine) -> None:
    head, *lines = cli("list").stdout.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", head)]

    assert 10 == len(starts)
    for line in lines:
        assert [True] * 10 == [line[start - 2 : start].isspace() or start == 0 for start in starts]
        assert not [start for start in starts if line[start].isspace()]


@filled
def test_on_a_terminal_it_is_a_table_that_fits(cli: CommandLine) -> None:
    title, _, head, _, waiting, done, failed, _, legend = OUR_STYLES.sub(
        "", cli.on_terminal("list", "the docs", columns=80)
    ).splitlines()

    assert "the docs" == title.strip()
    assert ["job", "status", "age", "took", "+", "~", "-", "!", "error"] == head.split()
    assert ["44444444-1111", "PENDING"] == waiting.split()[:2]
    assert re.fullmatch(r" 22222222-1111  COMPLETED  \d+d  5m 32s  1234  12  0  3 *", done)
    assert re.search(r" 0   0  0  0  it broke:\\nno route t.*…$", failed.rstrip())
    assert 80 >= max(map(len, (head, done, failed)))
    assert "+ inserted  ~ updated  - deleted  ! failed" == legend.strip()


@filled
def test_a_row_is_one_line_of_eighty_columns_with_its_connection_and_the_start_of_its_error(
    cli: CommandLine, history: JobHistory
) -> None:
    took = timedelta(minutes=55, seconds=57)
    history.add_many(
        [
            SyncJob(
                id=UUID(int=1),
                source_connection_id=CODE,
                status=JobStatus.CANCELLED,
                created_at=NOON,
                started_at=NOON,
                completed_at=NOON + took,
                duration_seconds=took.total_seconds(),
                error="TimeoutError: it took too long",
                entities_inserted=1_200_345,
                entities_updated=987_654,
                entities_deleted=12,
                entities_failed=9,
            )
        ]
    )

    lines = OUR_STYLES.sub("", cli.on_terminal("list", columns=80)).splitlines()

    [line] = [line for line in lines if "CANCELLED" in line]
    assert re.fullmatch(
        r" 00000000-0000  CANCELLED +\d+d  55m 57s  1\.2M  987k  12  9  ccccc\S*…  Timeo\S*… *", line
    ), line
    assert 80 >= max(map(len, lines))
    assert 5 == len(re.findall(r"^ [0-9a-f]{8}-[0-9a-f]{4}  ", "\n".join(lines), re.MULTILINE))
    wide = OUR_STYLES.sub("", cli.on_terminal("list"))
    assert re.search(r" CANCELLED  2024-03-1\d \d\d:\d\d  55m 57s  1,200,345  987,654  12  9 ", wide)


@filled
def test_a_table_of_several_connections_names_them(cli: CommandLine) -> None:
    table = cli.on_terminal("list")

    assert "connection" in table
    assert table.count("the docs") == 3
    assert str(CODE) in table


@filled
def test_a_running_job_shows_how_long_it_has_been_running(cli: CommandLine) -> None:
    [line] = [line for line in cli.on_terminal("list").splitlines() if "RUNNING" in line]

    assert "0ms" in line  # its clock is far ahead of ours


@filled
def test_a_connection_is_named_by_its_id_its_name_or_the_start_of_its_id(cli: CommandLine) -> None:
    for text in (str(DOCS), str(DOCS).upper(), "the docs", "dddddddd", "dddddddd-0000-4"):
        assert [WAITING, DONE, FAILED] == ids(cli("list", text, "--json").stdout)


@filled
@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("the dcs", "did you mean the docs?"),
        ("ddd", "`jobhistory connections` lists them"),
        (str(DOCS).replace("4000", "4001"), f"did you mean {DOCS}"),
    ],
)
def test_an_unknown_connection_names_the_near_ones(cli: CommandLine, text: str, way_out: str) -> None:
    result = cli("list", text)

    assert 3 == result.exit_code
    assert result.stderr.startswith(f"Error: no connection {text}: {way_out}")


@filled
@pytest.mark.parametrize("command", ["list", "watch"])
def test_a_connection_that_a_script_left_empty_is_not_all_of_them(cli: CommandLine, command: str) -> None:
    result = cli(command, "")

    assert 3 == result.exit_code
    assert "" == result.stdout
    assert 'Error: no connection "": `jobhistory connections` lists them\n' == result.stderr


def test_an_empty_history_has_no_connection_to_suggest(cli: CommandLine, history: JobHistory) -> None:
    assert [] == history.connections()
    assert "Error: no connection x: there are none in this history yet\n" == cli("list", "x").stderr


def test_the_start_of_an_id_must_be_of_one_connection_alone(cli: CommandLine, history: JobHistory) -> None:
    for last in (1, 2):
        history.register(UUID(int=last))

    several = f"several connections start with 00000000: {UUID(int=1)}, {UUID(int=2)}: give more characters"
    assert (3, f"Error: {several}\n") == ((result := cli("list", "00000000")).exit_code, result.stderr)
    assert 0 == cli("list", str(UUID(int=1))).exit_code


@filled
def test_json_is_the_wire_form(cli: CommandLine, history: JobHistory) -> None:
    jobs = [history.get(id).to_dict() for id in (WAITING, DONE, FAILED)]

    assert json.dumps(jobs, indent=2) + "\n" == cli("list", "the docs", "--json").stdout


@filled
def test_without_a_connection_the_newest_of_all_come_first(cli: CommandLine) -> None:
    result = cli("list", "--json", "--limit", "3")

    assert [WAITING, DONE, RUNNING] == ids(result.stdout)
    assert "There may be more: name a CONNECTION to page through, or raise --limit.\n" == result.stderr


@given(
    st.lists(strategies.histories(max_size=3), max_size=3),
    st.integers(1, 6),
    strategies.status_filters(),
)
def test_the_newest_of_all_are_those_of_one_long_list(
    histories: list[list[SyncJob]], limit: int, statuses: frozenset[JobStatus] | None
) -> None:
    jobs = list({job.id: job for jobs in histories for job in jobs}.values())
    history = JobHistory(InMemoryJobRepository(), redact=None)
    history.add_many(jobs)
    wanted = [job for job in newest_first(jobs) if statuses is None or job.status in statuses]

    assert wanted[:limit] == _newest_of_all(history, limit, statuses)[0]


def test_the_newest_of_many_connections_are_found_in_few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    history = JobHistory(InMemoryJobRepository())
    jobs = [history.enqueue(UUID(int=number)) for number in range(200)]
    asked: list[UUID] = []
    list_jobs = history.list_jobs

    def listed(connection: UUID, **page: Any) -> list[SyncJob]:  # noqa: ANN401  list_jobs's own
        asked.append(connection)
        return list_jobs(connection, **page)

    monkeypatch.setattr(history, "list_jobs", listed)

    assert jobs[:-4:-1] == _newest_of_all(history, 3, None)[0]
    assert 3 == len(asked)


def test_the_start_of_an_id_is_looked_for_in_a_bounded_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    history = JobHistory(InMemoryJobRepository())
    monkeypatch.setattr(database, "_SEARCHED_IN_ALL", 50)
    for number in range(10):
        for last in range(1, 7):
            history.enqueue(UUID(int=number), job_id=UUID(f"{number}{last:07x}-1111-4111-8111-111111111111"))

    assert UUID("30000002-1111-4111-8111-111111111111") == database.find_job(history, "30000002").id
    with pytest.raises(database.NotFoundError, match="among the newest 5 of any connection"):
        database.find_job(history, "30000001")


@filled
def test_active_is_what_is_not_finished_over_all_connections_or_in_one(cli: CommandLine) -> None:
    assert [WAITING, RUNNING] == ids(cli("list", "--active", "--json").stdout)
    assert [WAITING] == ids(cli("list", "--active", "--status", "pending", "--json").stdout)
    assert [WAITING] == ids(cli("list", "the docs", "--active", "--json").stdout)


@filled
def test_active_and_a_status_that_is_not_are_refused(cli: CommandLine) -> None:
    result = cli("list", "--active", "--status", "FAILED")

    assert 2 == result.exit_code
    assert (
        f"--active is {', '.join(sorted(ACTIVE_STATUSES))}: leave out the other --status, or --active" in result.stderr
    )


@filled
def test_statuses_filter_in_either_case(cli: CommandLine) -> None:
    assert [DONE, FAILED] == ids(cli("list", "--status", "completed", "--status", "FAILED", "--json").stdout)
    assert [FAILED] == ids(cli("list", "the docs", "--status", "failed", "--json").stdout)
    assert 2 == cli("list", "--status", "lost").exit_code


@filled
def test_pages_follow_one_another_by_the_cursor_that_ends_each(cli: CommandLine) -> None:
    pages: list[list[UUID]] = []
    more: list[str] = []
    command = ["list", "the docs", "--limit", "1", "--json"]
    while len(pages) < 4:
        result = cli(*command, *more)
        pages.append(ids(result.stdout))
        if not result.stderr:
            break
        found = re.fullmatch(r"More: (--before) (\S+)\n", result.stderr)
        assert found
        more = list(found.groups())

    assert [[WAITING], [DONE], [FAILED]] == pages
    assert "" == cli("list", "the docs", "--limit", "3").stderr


@filled
def test_pages_keep_their_filter(cli: CommandLine) -> None:
    command = ["list", "the docs", "--status", "FAILED", "--status", "PENDING", "--limit", "1", "--json"]
    first = cli(*command)
    second = cli(*command, *first.stderr.split()[1:])

    assert [[WAITING], [FAILED]] == [ids(first.stdout), ids(second.stdout)]


@filled
def test_a_cursor_is_bound_to_its_connection_and_filter(cli: CommandLine) -> None:
    cursor = cli("list", "the docs", "--limit", "1").stderr.split()[-1]

    assert 2 == cli("list", str(CODE), "--before", cursor).exit_code
    assert 2 == cli("list", "the docs", "--status", "FAILED", "--before", cursor).exit_code
    assert "name it" in cli("list", "--before", cursor).stderr


@filled
def test_a_list_of_nothing_says_so_where_it_is_in_nobodys_way(cli: CommandLine) -> None:
    for words, message in [
        (["idle"], "No jobs in idle.\n"),
        (["idle", "--active"], "No such jobs in idle.\n"),
        (["--status", "CANCELLED"], "No such jobs in this history.\n"),
    ]:
        assert (0, "", message) == ((result := cli("list", *words)).exit_code, result.stdout, result.stderr)
    assert "[]\n" == cli("list", "idle", "--json").output


@pytest.mark.parametrize("limit", ["0", "1001", "x", "1.0"])
def test_a_limit_is_from_1_to_1000(cli: CommandLine, limit: str) -> None:
    assert 2 == cli("list", "--limit", limit).exit_code


@filled
def test_show_takes_the_start_of_an_id_as_list_shows_it(cli: CommandLine) -> None:
    assert str(DONE) in cli("show", str(DONE)[:13].upper()).stdout
    assert str(DONE) in cli("show", str(DONE)[:8]).stdout
    assert str(FAILED) in cli("show", str(FAILED)).stdout


@filled
def test_show_json_is_one_object_with_all_that_is_kept(cli: CommandLine, history: JobHistory) -> None:
    expected = history.get(DONE).to_dict(bookkeeping=True)

    assert json.dumps(expected, indent=2) + "\n" == cli("show", str(DONE), "--json").stdout


def test_show_says_why_it_shows_no_job(cli: CommandLine, history: JobHistory) -> None:
    for last in (1, 2):
        history.enqueue(DOCS, job_id=UUID(int=last))

    for text, message in [
        ("x", "no job x: give its id, or the start of it as `jobhistory list` shows it"),
        (
            "ffffffff",
            (
                "no job starts with ffffffff among the newest 100 of any connection: give the whole id, "
                "as `jobhistory list --json` has it"
            ),
        ),
        ("00000000", f"several jobs start with 00000000: {UUID(int=2)}, {UUID(int=1)}: give more characters"),
        ("0", f"several jobs start with 0: {UUID(int=2)}, {UUID(int=1)}: give more characters"),
    ]:
        assert (3, f"Error: {message}\n") == ((result := cli("show", text)).exit_code, result.stderr)


def test_of_many_jobs_that_start_alike_three_are_named_and_none_is_taken(cli: CommandLine, history: JobHistory) -> None:
    for last in range(1, 6):
        history.enqueue(DOCS, job_id=UUID(int=last))
    history.enqueue(DOCS, job_id=DONE)

    for text in ("0000", "00000000-0000"):
        assert (
            f": {UUID(int=5)}, {UUID(int=4)}, {UUID(int=3)} and 2 more: give more characters\n"
            in (result := cli("cancel", text)).stderr
        )
        assert 3 == result.exit_code
    said = f"Error: 2222 is too short to name a job: give more characters, as in {DONE}\n"
    assert (3, said) == ((result := cli("cancel", "2222")).exit_code, result.stderr)
    assert 6 == len(history.active_jobs())


def test_an_unknown_job_names_the_near_one(cli: CommandLine, history: JobHistory) -> None:
    job = history.enqueue(DOCS)
    mistyped = f"{str(job.id)[:12]}{'1' if str(job.id)[12] == '0' else '0'}"

    result = cli("show", mistyped)

    assert (3, True) == (result.exit_code, result.stderr.endswith(f"did you mean {job.id}?\n"))


def test_a_connection_taken_for_a_job_is_told_apart(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS)

    said = f"Error: no job, but a connection: `jobhistory list {DOCS}` shows its jobs\n"
    assert (3, said) == ((result := cli("show", str(DOCS))).exit_code, result.stderr)


def test_a_renamed_connection_comes_as_json(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS)

    assert {"id": str(DOCS), "name": "docs"} == json.loads(
        cli("connections", "rename", str(DOCS), "docs", "--json").stdout
    )


@filled
def test_connections_come_with_their_newest_jobs(cli: CommandLine, history: JobHistory) -> None:
    assert (
        f"""\
connection                            newest_job                            status   created_at            name
{IDLE}  -                                     -        -                     idle
{CODE}  {RUNNING}  RUNNING  2024-03-15T12:30:00Z  -
{DOCS}  {WAITING}  PENDING  2024-03-15T14:00:00Z  the docs
"""
        == cli("connections").stdout
    )
    assert [
        {"id": str(IDLE), "name": "idle", "newest_job": None},
        {"id": str(CODE), "name": None, "newest_job": history.get(RUNNING).to_dict()},
        {"id": str(DOCS), "name": "the docs", "newest_job": history.get(WAITING).to_dict()},
    ] == json.loads(cli("connections", "--json").stdout)
    table = cli.on_terminal("connections")
    assert [str(id)[:13] in table for id in (IDLE, CODE, DOCS, WAITING, RUNNING)] == [True] * 5
    assert "the docs" in table


def test_a_history_without_connections_says_so(cli: CommandLine, history: JobHistory) -> None:
    assert [] == history.connections()
    assert "No connections in this history.\n" == cli("connections").stderr
    assert "[]\n" == cli("connections", "--json").output


@filled
def test_a_connection_is_renamed_by_its_id_or_name(cli: CommandLine, history: JobHistory) -> None:
    assert 0 == cli("connections", "rename", str(CODE), "code").exit_code
    assert 0 == cli("connections", "rename", "the docs", "manual").exit_code
    assert {IDLE: "idle", CODE: "code", DOCS: "manual"} == {each.id: each.name for each in history.connections()}
    assert 3 == cli("connections", "rename", "the docs", "x").exit_code
    assert 2 == cli("connections", "rename", "code", "").exit_code
