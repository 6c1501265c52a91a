"""stats, failures: how connections do, and which errors there are."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import compress
from uuid import UUID

import click

from jobhistory.cli.completion import connection_words
from jobhistory.cli.database import Database, find_connection
from jobhistory.cli.durations import HELP, METAVAR, Duration
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import (
    COLOURS,
    FREE,
    RIGHT,
    WIDE,
    WRAP,
    Cell,
    bar,
    columns,
    json_text,
    label,
    print_columns,
    print_table,
    short,
    since_when,
    spark,
    table_of,
    visible,
)
from jobhistory.errors import InvalidJobError
from jobhistory.failures import Failure
from jobhistory.health import Health, looked_at
from jobhistory.history import JobHistory
from jobhistory.repository import MAX_LIMIT, SourceConnection
from jobhistory.times import earlier, from_wire, span, to_wire

_SPARKS = 30
_SPARKS_AT_LEAST = 8
_BAR = 10
_TIME = "2024-03-15T12:00:00Z"

connections_argument = click.argument("names", metavar="[CONNECTION]...", nargs=-1, shell_complete=connection_words)


@click.command()
@connections_argument
@click.option("--signals", "only_signals", is_flag=True, help="Only connections in which something is unusual.")
@as_json
@click.pass_obj
def stats(database: Database, *, names: tuple[str, ...], only_signals: bool, as_json: bool) -> None:
    """Show how connections do, and what is unusual.

    Each CONNECTION, or else every one, has a line of figures, drawn from its newest 50 jobs: the newest, the last
    success, the share of those that ended which succeeded, how many failed in a row since, the median (p50) and the
    95th percentile (p95) of the durations of completed jobs, how many run now, and a spark line of the newest
    durations, up to 30 (! failed, · not known). A narrow terminal goes without p95 and running; anything but a
    terminal gets aligned text, with times in UTC.

    Signals stand below, each with its numbers, where ten earlier jobs at least say what is usual:

    \b
      SLOW     a run takes, or took, much longer than usual
      FEW      the newest run inserted much less than usual
      OVERDUE  runs always came when they were due, and one has not
      STALLED  a run's counts stopped moving, though its worker is alive

    \b
    Examples:
      jobhistory stats
      jobhistory stats "the docs" --json
      jobhistory stats --signals
    """  # noqa: D301  click looks for a real backspace
    with database.read() as history:
        now, on_terminal = history.clock(), sys.stdout.isatty() and not as_json
        width = _spark_width() if on_terminal else 0
        health: dict[UUID, Health] = {}
        sparks: dict[UUID, str] = {}
        for id, each, newest in looked_at(history.repository, _asked(history, names), now):
            health[id], sparks[id] = each, spark(newest[:width], now)
        known = {each.id: each for each in history.connections()}
        shown = {known[id]: each for id, each in health.items() if id in known and (each.signals or not only_signals)}
        if as_json:
            rows = [{"id": str(one.id), "name": one.name, **each.to_dict()} for one, each in shown.items()]
            click.echo(json_text(rows, indent=2))
        elif not shown:
            click.echo("Nothing is unusual." if health else "No connections in this history.", err=True)
        elif on_terminal:
            _show_stats(shown, sparks, now)
        else:
            _print_stats(shown)


def _asked(history: JobHistory, names: Sequence[str]) -> list[UUID] | None:
    return [find_connection(history, name).id for name in names] if names else None


def _spark_width() -> int:
    return max(_SPARKS_AT_LEAST, min(_SPARKS, columns() // 3 - 18))


def _show_stats(shown: Mapping[SourceConnection, Health], sparks: Mapping[UUID, str], now: datetime) -> None:
    head = [
        ("connection", FREE),
        ("newest\njob", ""),
        ("", ""),
        ("last\nsuccess", ""),
        ("success\nrate", RIGHT),
        ("failed\nin a row", RIGHT),
        ("p50", RIGHT),
        ("p95", RIGHT),
        ("running", RIGHT),
        ("durations", ""),
    ]
    rows = [_figures(connection, each, sparks[connection.id], now) for connection, each in shown.items()]
    if columns() < WIDE:  # what a narrow terminal can do without
        narrow = [heading not in {"p95", "running"} for heading, _ in head]
        head, rows = list(compress(head, narrow)), [list(compress(row, narrow)) for row in rows]
    print_table(table_of(head, rows))
    for connection, each in shown.items():
        for signal in each.signals:
            kind = click.style(f"{signal.kind:<8}", fg="yellow", bold=True)
            about = click.style(f"(job {short(signal.job.id)})", dim=True)
            click.echo(f"{kind} {label(connection)}: {signal} {about}")


def _figures(connection: SourceConnection, health: Health, sparks: str, now: datetime) -> list[Cell]:
    stats = health.stats
    job, success, rate = stats.newest, stats.last_success, stats.success_rate
    return [
        (label(connection), "bold"),
        (job.status, COLOURS[job.status]) if job else ("", ""),
        (since_when(job.created_at, now) if job else "", ""),
        (since_when(success.created_at, now) if success else "never", "" if success else "dim"),
        ("" if rate is None else f"{rate:.0%}", "green" if rate == 1 else ""),
        (str(stats.failure_streak or ""), "red"),
        *(("" if seconds is None else span(seconds), "") for seconds in (stats.p50_seconds, stats.p95_seconds)),
        (str(stats.running or ""), "cyan"),
        (sparks, ""),
    ]


def _print_stats(shown: Mapping[SourceConnection, Health]) -> None:
    """The figures in columns, for a program: words without a space, but for the name, which stands last."""
    head = ["connection", "status", "created_at", "last_success_at", "failure_streak", "success_rate"]
    print_columns([[*head, "p50_seconds", "p95_seconds", "running", "signals", "name"], *map(_plain, shown.items())])


def _plain(line: tuple[SourceConnection, Health]) -> list[str]:
    connection, health = line
    stats = health.stats
    return [
        str(connection.id),
        stats.newest.status if stats.newest else "-",
        to_wire(stats.newest.created_at) if stats.newest else "-",
        to_wire(stats.last_success.created_at) if stats.last_success else "-",
        str(stats.failure_streak),
        *(
            "-" if number is None else f"{number:.6g}"
            for number in (stats.success_rate, stats.p50_seconds, stats.p95_seconds)
        ),
        str(stats.running),
        ",".join(dict.fromkeys(signal.kind for signal in health.signals)) or "-",
        visible(connection.name or "-"),
    ]


def _since(context: click.Context, parameter: click.Parameter, text: str) -> datetime | float:
    with suppress(InvalidJobError):
        return from_wire("since", text)
    try:
        return Duration().convert(text, parameter, context)
    except click.BadParameter as error:
        message = f"{error.message}; nor a time such as {_TIME}"
        raise click.BadParameter(message, param=parameter) from None


@click.command(epilog=HELP)
@connections_argument
@click.option(
    "--since",
    metavar=f"{METAVAR}|TIME",
    default="7d",
    show_default=True,
    callback=_since,
    help=f"Of jobs created since: a {METAVAR} ago, or a time such as {_TIME}.",
)
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=20, show_default=True, help="How many, at most.")
@as_json
@click.pass_obj
def failures(database: Database, *, names: tuple[str, ...], since: datetime | float, limit: int, as_json: bool) -> None:
    """Show which errors there are, the most frequent first.

    They are those of each CONNECTION, or else of all. Errors that differ only in numbers (codes aside), ids, times,
    addresses, paths or quoted text count as one, with #, <url>, <path> or <quoted> in their place. Each has how many
    jobs it ended, when the first and the last, in how many connections, and the last one's id, for `jobhistory show`.

    \b
    Examples:
      jobhistory failures
      jobhistory failures "the docs" --since 4w
      jobhistory failures --json | jq '.[0].connections'
    """  # noqa: D301  click looks for a real backspace
    with database.read() as history:
        now = history.clock()
        start = since if isinstance(since, datetime) else earlier(now, since)
        found = history.failures(_asked(history, names), since=start, limit=limit)
    if as_json:
        click.echo(json_text([failure.to_dict() for failure in found], indent=2))
    elif not found:
        click.echo(f"No job failed that was created since {to_wire(start.replace(microsecond=0))}.", err=True)
    elif sys.stdout.isatty():
        _show_failures(found, now)
    else:
        head = ["fingerprint", "count", "connections", "first_at", "last_at", "latest_job", "error"]
        print_columns([head, *map(_plain_failure, found)])


def _show_failures(found: Sequence[Failure], now: datetime) -> None:
    most = found[0].count
    wide = columns() >= WIDE
    head = [
        ("  jobs" if wide else "jobs", "" if wide else RIGHT),
        ("first", ""),
        ("last", ""),
        ("connections", RIGHT),
        ("latest job", ""),
        ("error", WRAP),
    ]
    rows = [
        [
            (f"{each.count:>6,} {bar(each.count / most, _BAR)}" if wide else f"{each.count:,}", "bold"),
            (since_when(each.first_at, now), ""),
            (since_when(each.last_at, now), ""),
            (f"{len(each.connections):,}", ""),
            (short(each.latest.id), ""),
            (_error(each), "red"),
        ]
        for each in found
    ]
    print_table(table_of(head, rows))


def _plain_failure(each: Failure) -> list[str]:
    times = (to_wire(each.first_at), to_wire(each.last_at))
    return [each.fingerprint, str(each.count), str(len(each.connections)), *times, str(each.latest.id), _error(each)]


def _error(failure: Failure) -> str:
    return visible(failure.pattern) or "(no error was given)"
