from __future__ import annotations

import contextlib
import io
import json
import re
import time
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.cli.render import (
    age,
    ago,
    few_digits,
    json_text,
    local,
    show_connections,
    show_jobs,
    show_story,
    visible,
)
from jobhistory.history import JobHistory
from jobhistory.job import FIELDS, SyncJob
from jobhistory.repository import SourceConnection
from jobhistory.status import JobStatus
from jobhistory.testing import strategies
from jobhistory.times import span
from tests.cli.command_line import CommandLine

NOW = datetime(2024, 3, 15, 12, tzinfo=UTC)
CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")
HOSTILE = (
    "\x1b]0;taken\x07 \x1b[2J \x9b2J \x9d0;taken\x9c \x7f \x08 \r\n \x85 \u2028 \u2029 \u202e \u2066 \u061c \u200f "
    "[bold red]loud[/bold red] [/] [link=https://example.org]x[/link] :skull: %s {0} \\"
)
SHOWN = (
    r"\x1b]0;taken\x07 \x1b[2J \x9b2J \x9d0;taken\x9c \x7f \x08 \r\n \x85 \u2028 \u2029 \u202e \u2066 \u061c \u200f "
    "[bold red]loud[/bold red] [/] [link=https://example.org]x[/link] :skull: %s {0} \\"
)
MARKUP = "[bold red]loud[/bold red] [/] :skull:"
OUR_STYLES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def _in_nepal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone unlike any machine's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "<+0545>-5:45")
        time.tzset()
        yield
    time.tzset()


def steers(character: str) -> bool:
    """Whether a terminal would do something else with it than show it, by Unicode's own tables."""
    return (
        unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or unicodedata.name(character, "") in ("LEFT-TO-RIGHT MARK", "RIGHT-TO-LEFT MARK", "ARABIC LETTER MARK")
    )


@given(strategies.hostile_text() | st.text() | st.just(HOSTILE))
def test_what_steers_a_terminal_becomes_visible_and_the_rest_stays(text: str) -> None:
    shown = visible(text)

    assert [] == [character for character in shown if steers(character)]
    if not any(map(steers, text)):
        assert text == shown


def test_every_character_that_steers_is_escaped() -> None:
    assert [] == [hex(code) for code in range(0x110000) if steers(chr(code)) and visible(chr(code)) == chr(code)]


@given(strategies.json_objects() | st.just({HOSTILE: HOSTILE}))
def test_json_is_printable_ascii_and_says_the_same(value: dict[str, object]) -> None:
    assert json_text(value).isascii()
    assert json_text(value).isprintable()
    assert [] == [line for line in json_text(value, indent=2).split("\n") if not line.isprintable()]
    assert value == json.loads(json_text(value))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.312, "312ms"),
        (0.9999, "999ms"),
        (1, "1s"),
        (5.38, "5.3s"),
        (59.99, "59.9s"),
        (60, "1m"),
        (332.5, "5m 32s"),
        (3599, "59m 59s"),
        (3600, "1h"),
        (7559, "2h 5m"),
        (86400 * 3 + 4 * 3600, "3d 4h"),
        (1e300, "1e+300s"),
    ],
)
def test_a_duration_reads_as_a_person_says_it(seconds: float, text: str) -> None:
    assert text == span(seconds)


@given(strategies.durations())
def test_a_duration_is_short(seconds: float) -> None:
    assert len(span(seconds)) <= len("11574d 23h")


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=1), "1s ago"),
        (timedelta(seconds=59), "59s ago"),
        (timedelta(minutes=59, seconds=59), "59m ago"),
        (timedelta(hours=23), "23h ago"),
        (timedelta(days=6, hours=23), "6d ago"),
        (timedelta(days=7), "2024-03-08 17:45"),
        (timedelta(microseconds=-1), "2024-03-15 17:45"),
    ],
)
def test_a_moment_is_relative_for_a_week_and_local_before_and_after(passed: timedelta, text: str) -> None:
    assert text == ago(NOW - passed, NOW)


def test_an_age_is_never_below_nought_and_never_a_date() -> None:
    passed = (timedelta(days=412, hours=3), timedelta(minutes=5, seconds=59), timedelta(0), -timedelta(days=1))
    assert ["412d", "5m", "0s", "0s"] == [age(NOW - each, NOW) for each in passed]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9999"),
        (10_000, "10k"),
        (999_999, "999k"),
        (1_000_000, "1M"),
        (1_299_999, "1.2M"),
        (12_900_000, "12M"),
        (2**63 - 1, "9.2E"),
    ],
)
def test_a_count_in_few_digits_is_cut_never_rounded_up(count: int, text: str) -> None:
    assert text == few_digits(count)


@given(st.integers(0, 2**63 - 1))
def test_a_count_in_few_digits_fits_in_four(count: int) -> None:
    assert 4 >= len(few_digits(count))


@given(strategies.timestamps())
def test_every_moment_can_be_shown(moment: datetime) -> None:
    assert moment == datetime.fromisoformat(local(moment))
    assert ago(moment, NOW)


def test_the_first_and_the_last_moment_stay_in_utc_where_local_time_has_no_room() -> None:
    assert "9999-12-31 23:59:59.999999+00:00" == local(datetime.max.replace(tzinfo=UTC))


@given(strategies.jobs(), strategies.hostile_text())
def test_nothing_stored_steers_what_a_person_sees(job: SyncJob, name: str) -> None:
    connection = SourceConnection(job.source_connection_id, name)

    with contextlib.redirect_stdout(io.StringIO()) as out:
        show_jobs([job], {connection.id: name}, now=NOW)
        show_connections([connection], {connection.id: [job]}, now=NOW)
        show_story(job, connection)

    assert [] == [character for character in out.getvalue() if steers(character) and character != "\n"]


@pytest.fixture
def hostile(history: JobHistory) -> SyncJob:
    """A job that failed, hostile in every text that it has."""
    history.register(CONNECTION, MARKUP)
    job = SyncJob(
        id=UUID(int=1),
        source_connection_id=CONNECTION,
        status=JobStatus.FAILED,
        created_at=NOW,
        started_at=NOW,
        error=HOSTILE,
        error_details={HOSTILE: [HOSTILE, {HOSTILE: None}], "lines": f"one\n{HOSTILE}"},
        worker=HOSTILE,
        metadata={HOSTILE: HOSTILE},
    )
    history.repository.add(job)
    return job


COMMANDS = [
    ["list"],
    ["list", "--json"],
    ["list", str(CONNECTION)],
    ["list", MARKUP, "--limit", "1"],
    ["list", HOSTILE],
    ["show", str(UUID(int=1))],
    ["show", str(UUID(int=1)), "--json"],
    ["show", HOSTILE],
    ["connections"],
    ["connections", "--json"],
    ["connections", "rename", HOSTILE, "x"],
    ["connections", "rename", MARKUP, HOSTILE],
    ["stats"],
    ["stats", MARKUP, "--json"],
    ["stats", HOSTILE],
    ["failures", "--since", "99999d"],
    ["failures", "--since", "99999d", "--json"],
    ["failures", "--since", HOSTILE],
    ["export"],
    ["export", HOSTILE],
]


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_stored_text_steer_a_terminal(cli: CommandLine, command: list[str]) -> None:
    for received in (cli(*command).output, OUR_STYLES.sub("", cli.on_terminal(*command))):
        assert [] == [character for character in received if steers(character) and character != "\n"]
        assert received


@pytest.mark.usefixtures("hostile")
def test_hostile_text_is_shown_as_it_is_markup_and_all(cli: CommandLine, history: JobHistory) -> None:
    assert MARKUP in cli.on_terminal("list", columns=400)  # as the title
    history.enqueue(UUID(int=2))
    assert MARKUP in cli.on_terminal("list", columns=400)  # in a column
    assert SHOWN in cli("list").stdout
    assert SHOWN in cli.on_terminal("list", columns=400)
    assert MARKUP in cli.on_terminal("connections", columns=400)
    for shown in (cli("show", str(UUID(int=1))).stdout, cli.on_terminal("show", str(UUID(int=1)))):
        # worker, the metadata's key and value, the details' line; the error has lines of its own
        assert shown.count(SHOWN.split(r"\r\n", maxsplit=1)[0]) >= 6


def test_a_story_tells_every_field(cli: CommandLine, history: JobHistory) -> None:
    job = SyncJob(
        id=UUID(int=1),
        source_connection_id=CONNECTION,
        status=JobStatus.CANCELLED,
        created_at=NOW,
        started_at=NOW + timedelta(seconds=1),
        completed_at=NOW + timedelta(minutes=5, seconds=33),
        duration_seconds=331.5,
        entities_inserted=1234,
        error="first line\nsecond line",
        error_details={"trace": "a\nb", "list": [1, {"two": None}], "text": "für"},
        cancel_requested_at=NOW + timedelta(seconds=3),
        heartbeat_at=NOW + timedelta(seconds=2),
        progress_at=NOW + timedelta(seconds=2),
        worker="host:1:abcd",
        metadata={"trigger": "cron"},
        version=5,
    )
    history.register(CONNECTION, "docs")
    history.repository.add(job)

    shown = cli("show", str(job.id)).stdout

    assert [] == [name for name in FIELDS if not re.search(rf"^ *{name}\b", shown, re.MULTILINE)]
    assert (
        """\
id                     00000000-0000-0000-0000-000000000001
source_connection_id   550e8400-e29b-41d4-a716-446655440000  docs
status                 CANCELLED
duration_seconds       331.5  5m 31s
entities_inserted      1234
entities_updated       0
entities_deleted       0
entities_failed        0
worker                 host:1:abcd
version                5

timeline
  created_at           2024-03-15T12:00:00Z
  started_at           2024-03-15T12:00:01Z  +1s
  heartbeat_at         2024-03-15T12:00:02Z  +2s
  progress_at          2024-03-15T12:00:02Z  +2s
  cancel_requested_at  2024-03-15T12:00:03Z  +3s
  completed_at         2024-03-15T12:05:33Z  +5m 33s

metadata
  trigger: "cron"

error
  first line
  second line

error_details
  trace:
    a
    b
  list: [
    1,
    {
      "two": null
    }
  ]
  text: "für"
"""
        == shown
    )
    assert "2024-03-15 17:45:01+05:45  +1s" in cli.on_terminal("show", str(job.id))


@pytest.mark.parametrize("status", JobStatus)
def test_every_status_has_a_colour_on_a_terminal(cli: CommandLine, history: JobHistory, status: JobStatus) -> None:
    history.register(CONNECTION)
    history.repository.add(
        SyncJob(
            id=UUID(int=1),
            source_connection_id=CONNECTION,
            status=status,
            created_at=NOW,
            started_at=None if status is JobStatus.PENDING else NOW,
            completed_at=NOW if status is JobStatus.COMPLETED else None,
        )
    )

    assert re.search(rf"\x1b\[3\dm{status}", cli.on_terminal("list"))
    assert re.search(rf"\x1b\[3\dm\x1b\[1m{status}", cli.on_terminal("show", str(UUID(int=1))))
