"""What a person sees: a table of jobs, of connections, and one job's story.

Stored text comes from sources, their errors and their names. On its way to a person all of it passes
`visible`, so that none of it can steer a terminal; on its way to a program, `json_text`. On a terminal
times are local and relative, ids short and statuses coloured; elsewhere every value stands in full.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from jobhistory.job import FIELDS, WIRE_FIELDS, SyncJob
from jobhistory.repository import SourceConnection
from jobhistory.stats import heights, took
from jobhistory.status import JobStatus
from jobhistory.times import UNITS, span, to_wire

if TYPE_CHECKING:
    from rich.table import Table

# C0 and C1 controls, DEL, the marks that turn the direction of text, line and paragraph separators, and the
# lone surrogates that undecodable bytes in a file's name become.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

COLOURS: Mapping[JobStatus, str] = {
    JobStatus.PENDING: "yellow",
    JobStatus.RUNNING: "cyan",
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLING: "magenta",
    JobStatus.CANCELLED: "magenta",
}
TIMES = tuple(name for name in FIELDS if name.endswith("_at"))
_BLOCKS = ("metadata", "error", "error_details")
COUNTS = tuple(name for name in WIRE_FIELDS if name.startswith("entities_"))
COUNT_WORDS = tuple(name.removeprefix("entities_") for name in COUNTS)
COUNT_SIGNS = "+~-!"
LEGEND = "  ".join(f"{sign} {word}" for sign, word in zip(COUNT_SIGNS, COUNT_WORDS, strict=True))
_PLAIN_HEAD = ("id", "status", "created_at", "seconds", *COUNT_WORDS)
_SHORT = len("770e8400-e29b")  # of an id: 48 bits, which in a UUIDv7 are its millisecond

_LONG_AGO = 7 * 86400

WIDE = 110
"""The columns from which on a terminal gets all of a table."""
_POWERS = " kMGTPE"

_EIGHTHS = " ▏▎▍▌▋▊▉"
_SPARKS = "▁▂▃▄▅▆▇█"

FREE, WRAP, RIGHT = "free", "wrap", "right"
Cell = tuple[str, str]
"""A text that is visible already, and its style."""


def visible(text: str) -> str:
    r"""The text on one line, with all that could steer a terminal written as an escape such as \x1b."""
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def json_text(value: object, *, indent: int | None = None) -> str:
    """The value as JSON in printable ASCII, on one line unless indented: nothing in it can steer a terminal."""
    return json.dumps(value, indent=indent, ensure_ascii=True)


def many(count: int, word: str) -> str:
    """So many of what the word names one of."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def label(connection: SourceConnection) -> str:
    """The connection's name, or its id where it has none."""
    return visible(connection.name or str(connection.id))


def bar(part: float, width: int) -> str:
    """A bar that fills a part (0 to 1) of so many columns, to an eighth of one."""
    whole, eighths = divmod(round(part * width * 8), 8)
    return f"{'█' * whole}{_EIGHTHS[eighths]}".rstrip().ljust(width)


def spark(jobs: Sequence[SyncJob], now: datetime) -> str:
    """The jobs' durations in a line, the oldest on the left: ! failed, · has none. `jobs` stand newest first."""
    durations = [took(job, now) for job in jobs]
    line = [
        "!" if job.status is JobStatus.FAILED else "·" if seconds is None else _SPARKS[height - 1]
        for job, seconds, height in zip(jobs, durations, heights(durations, len(_SPARKS), 1), strict=True)
    ]
    return "".join(reversed(line))


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, for a week; the local date and time where it is longer, or still to come."""
    if moment > now or (now - moment).total_seconds() >= _LONG_AGO:
        return local(moment)[:16]
    past = age(moment, now)
    return "just now" if past == "0s" else f"{past} ago"


def age(moment: datetime, now: datetime) -> str:
    """How long ago, in whole days, hours, minutes or seconds: 412d, 5m; 0s where it is still to come."""
    seconds = max(0, int((now - moment).total_seconds()))
    size, unit = next((each for each in UNITS if seconds >= each[0]), UNITS[-1])
    return f"{seconds // size}{unit}"


def few_digits(count: int) -> str:
    """The count in four characters, cut where it has more digits: 9999, 48k, 1.2M."""
    if count < 10_000:  # noqa: PLR2004  four digits
        return str(count)
    power = (len(str(count)) - 1) // 3
    whole, tenth = divmod(count * 10 // 1000**power, 10)
    fraction = f".{tenth}" if tenth and whole < 10 else ""  # noqa: PLR2004  one digit
    return f"{whole}{fraction}{_POWERS[power]}"


def since_when(moment: datetime, now: datetime) -> str:
    """How long ago, or the local date alone: ten columns at most."""
    return ago(moment, now)[:10]


def local(moment: datetime) -> str:
    """The moment in this machine's time zone, with its offset."""
    with suppress(OverflowError, OSError, ValueError):  # the first and the last day there is stay in UTC
        moment = moment.astimezone()
    return moment.isoformat(" ")


def show_jobs(jobs: Sequence[SyncJob], names: Mapping[UUID, str | None], *, now: datetime) -> None:
    """Print the jobs, of which there must be some, as a table on a terminal, as aligned text under a heading elsewhere.

    `names` are the connections'. Where all jobs are of one, a terminal gets its name as the title.
    """
    owner = {job.id: visible(names.get(job.source_connection_id) or str(job.source_connection_id)) for job in jobs}
    if not sys.stdout.isatty():
        head = [*_PLAIN_HEAD, "connection", "error"]
        print_columns([head, *([*_plain(job), owner[job.id], _error(job) or "-"] for job in jobs)])
        return
    several = len({job.source_connection_id for job in jobs}) > 1
    connection = [("connection", FREE)] if several else []
    numbers = [(heading, RIGHT) for heading in ("took", *COUNT_SIGNS)]
    cells, created = (job_cells, ("created", "")) if columns() >= WIDE else (_narrow_cells, ("age", RIGHT))
    print_table(
        table_of(
            [("job", ""), ("status", ""), created, *numbers, *connection, ("error", FREE)],
            [[*cells(job, now), *([(owner[job.id], "")] if several else []), (_error(job), "red")] for job in jobs],
            title=None if several else owner[jobs[0].id],
            caption=LEGEND,
        )
    )


def show_connections(
    connections: Iterable[SourceConnection], newest: Mapping[UUID, Sequence[SyncJob]], *, now: datetime
) -> None:
    """Print the connections, each with its newest job if it has one, as `show_jobs` prints jobs."""
    known = [(connection, next(iter(newest[connection.id]), None)) for connection in connections]
    if not sys.stdout.isatty():
        head = ["connection", "newest_job", *_PLAIN_HEAD[1:3], "name"]
        rows = [
            [str(connection.id), *(_plain(job)[:3] if job else ["-"] * 3), visible(connection.name or "-")]
            for connection, job in known
        ]
        print_columns([head, *rows])
        return
    print_table(
        table_of(
            [("connection", ""), ("name", FREE), ("newest job", ""), ("status", ""), ("created", "")],
            [
                [
                    (short(connection.id), ""),
                    (visible(connection.name or ""), "bold"),
                    *(job_cells(job, now)[:3] if job else []),
                ]
                for connection, job in known
            ],
        )
    )


def show_story(job: SyncJob, connection: SourceConnection) -> None:
    """Print all that is known of one job: each field, what happened when, what it was given, why it failed."""
    terminal = sys.stdout.isatty()
    facts = {name: value for name, value in job.to_dict(bookkeeping=True).items() if name not in (*TIMES, *_BLOCKS)}
    width = max(map(len, FIELDS)) + 3
    for name, value in facts.items():
        text = "-" if value is None else visible(str(value))
        if name == "source_connection_id" and connection.name is not None:
            text += f"  {visible(connection.name)}"
        if name == "duration_seconds" and value is not None:
            text += f"  {span(value)}"
        colour = COLOURS[job.status] if name == "status" else None
        click.echo(f"{click.style(name.ljust(width), dim=True)}{click.style(text, fg=colour, bold=colour is not None)}")
    _print_heading("timeline")
    story = sorted((moment, name) for name in TIMES if (moment := getattr(job, name)) is not None)
    for moment, name in story:
        when = local(moment) if terminal else to_wire(moment)
        since = f"  +{span((moment - story[0][0]).total_seconds())}" if moment > story[0][0] else ""
        click.echo(f"  {click.style(name.ljust(width - 2), dim=True)}{when}{since}")
    for name in _BLOCKS:
        if (value := getattr(job, name)) is not None:
            _print_heading(name)
            for line in _lines(value):
                click.echo(f"  {visible(line)}")


def _print_heading(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")


def _lines(value: str | dict[str, Any]) -> Iterator[str]:
    """A text, or an object's members as JSON, by lines; a text of several lines among them stays readable."""
    if isinstance(value, str):
        yield from value.split("\n")
        return
    for key, member in value.items():
        if isinstance(member, str) and "\n" in member:
            yield f"{key}:"
            yield from (f"  {line}" for line in member.split("\n"))
        else:
            first, *others = json.dumps(member, indent=2, ensure_ascii=False).split("\n")
            yield f"{key}: {first}"
            yield from others


def _plain(job: SyncJob) -> list[str]:
    """What stands under _PLAIN_HEAD: words without a space, so that a field's number finds it."""
    seconds = "-" if job.duration_seconds is None else str(job.duration_seconds)
    return [str(job.id), job.status, to_wire(job.created_at), seconds, *(str(getattr(job, name)) for name in COUNTS)]


def job_cells(job: SyncJob, now: datetime) -> list[Cell]:
    """The same for a person; a job that runs shows how long it has been running."""
    colour = COLOURS[job.status]
    seconds, style = took(job, now), (colour if job.is_active else "")
    counts = [(name, getattr(job, name)) for name in COUNTS]
    return [
        (short(job.id), ""),
        (job.status, colour),
        (ago(job.created_at, now), ""),
        ("" if seconds is None else span(seconds), style),
        *((f"{count:,}", "dim" if not count else "red" if name == "entities_failed" else "") for name, count in counts),
    ]


def _narrow_cells(job: SyncJob, now: datetime) -> list[Cell]:
    """The same in fewer columns, for the connection and the error to have some."""
    id, status, _, took, *counts = job_cells(job, now)
    short_counts = [(few_digits(getattr(job, name)), style) for name, (_, style) in zip(COUNTS, counts, strict=True)]
    return [id, status, (age(job.created_at, now), ""), took, *short_counts]


def _error(job: SyncJob) -> str:
    return visible(job.error or "")


def short(id: UUID) -> str:
    """The start of the id, as a table shows it."""
    return str(id)[:_SHORT]


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print the rows in columns two spaces apart, the last of any width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        click.echo("  ".join([*map(str.ljust, row[:-1], widths), row[-1]]))


def columns() -> int:
    """How many columns the terminal has."""
    from rich.console import Console

    return Console().width


def print_table(table: Table) -> None:
    """Print the table on the terminal."""
    from rich.console import Console

    Console(highlight=False).print(table)


def table_of(
    head: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str | None = None,
    caption: str | None = None,
) -> Table:
    """A table that fits the terminal: FREE and WRAP columns give way, by an ellipsis or by more lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=Text(title, "bold") if title else None,
        title_justify="left",
        caption=Text(caption, "dim") if caption else None,
        caption_justify="left",
    )
    for heading, kind in head:
        table.add_column(
            Text(heading),
            justify="right" if kind == RIGHT else "left",
            no_wrap=kind not in {FREE, WRAP},
        )
    wraps = [kind == WRAP for _, kind in head]
    for row in rows:
        # Text, never str: a str is markup to rich.
        table.add_row(
            *(
                Text(text, style, no_wrap=not wrap, overflow="fold" if wrap else "ellipsis")
                for (text, style), wrap in zip(row, wraps, strict=False)  # a connection without a job has fewer
            )
        )
    return table
