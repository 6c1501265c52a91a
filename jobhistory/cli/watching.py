"""watch: what runs now, as it happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

import attrs
import click

from jobhistory.cli.completion import connection_words
from jobhistory.cli.database import Database, find_connection
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import (
    COUNT_SIGNS,
    COUNT_WORDS,
    COUNTS,
    FREE,
    LEGEND,
    RIGHT,
    Cell,
    job_cells,
    json_text,
    label,
    table_of,
    visible,
)
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.reaping import CONFIRM_FOR, SILENT_FOR
from jobhistory.repository import MAX_LIMIT, SourceConnection
from jobhistory.stats import took
from jobhistory.status import JobStatus
from jobhistory.times import span, to_wire

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_AT_LEAST_EVERY = 1.0
"""Seconds after which there is a new look though nothing was written: time passes."""
_APART = 0.1
"""Seconds between two looks at least, however much is written."""
_SHOWN = 100
_FEW = 10
_RUNNING = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})
_WAITING = frozenset({JobStatus.PENDING})
# What a line of text is made of, and how wide; the last three may hold spaces.
_WIDTHS = {"at": 20, "id": 36, "status": 10, "seconds": 8} | dict.fromkeys((*COUNT_WORDS, "per_second", "silent"), 8)
_FREE_WORDS = ("connection", "worker", "error")


@click.command()
@click.argument("connection", required=False, shell_complete=connection_words)
@as_json
@click.pass_obj
def watch(database: Database, *, connection: str | None, as_json: bool) -> None:
    """Watch what runs now, newest first.

    It goes on until Ctrl-C, which is exit code 130. On a terminal it is a table that keeps itself up to date; jobs
    that end leave a line above it. Anything else gets a heading and a line for each job that runs, then a line
    for each change of any job, with whole ids and UTC, where no field but the last three, connection, worker and
    error, holds a space. With --json each of these lines is the whole job, as `export` writes it.

    The rate is that of all four counts together, between the last two times they moved; it falls while they
    stand still. Silent is the time since the worker's last sign of life.

    \b
    Example:
      jobhistory watch --json | jq --unbuffered -r 'select(.status == "FAILED") | .error'
    """  # noqa: D301  click looks for a real backspace
    from rich.console import Console

    with database.read() as history:
        watched = Watched(history, find_connection(history, connection) if connection is not None else None)
        if as_json:
            _print_each(watched, lambda job: json_text(job.to_dict(bookkeeping=True)))
        elif sys.stdout.isatty() and Console().is_interactive:
            # Forced, for a terminal that went away is none to rich, which then says nothing for ever.
            _show_live(watched, Console(highlight=False, force_terminal=True))
        else:
            click.echo("  ".join([*_WIDTHS, *_FREE_WORDS]))
            _print_each(watched, lambda job: _line(watched, job))


@attrs.frozen
class _Counted:
    total: int
    moved_at: datetime
    """By the worker's clock."""
    seen: float
    """By ours."""


@attrs.frozen
class Rates:
    """Entities a second, from what the looks at jobs find; right too where the worker's clock is not ours."""

    _found: dict[UUID, tuple[_Counted, _Counted]] = attrs.field(factory=dict, init=False)
    """Of each job that runs the last two totals that differ."""

    def of(self, job: SyncJob, at: float) -> float | None:
        """The job's rate at this second of a monotonic clock; None before its counts were seen to move."""
        found = self._found.pop(job.id, None)
        if job.started_at is None or job.is_terminal:
            return None
        now = _Counted(sum(getattr(job, name) for name in COUNTS), job.progress_at or job.started_at, at)
        before, latest = found or (now, now)
        if now.total != latest.total:
            before, latest = latest, now
        self._found[job.id] = before, latest
        moved_for = (latest.moved_at - before.moved_at).total_seconds()
        return (latest.total - before.total) / max(moved_for, at - latest.seen) if moved_for > 0 else None


class Watched:
    """The jobs of a history, or of one connection in it, as somebody sees them who keeps looking."""

    def __init__(self, history: JobHistory, only: SourceConnection | None = None) -> None:
        self.history = history
        self.only = only
        self._rates = Rates()
        self._owners: dict[UUID, str] = {}

    def changes(self) -> Iterator[list[SyncJob]]:
        """What runs, then what was written since, if anything, again and again: the oldest first.

        While a long history is read through there is nothing to tell, about once a second.
        """
        token, told = None, self.history.monotonic()
        while page := self.history.changes(token, limit=MAX_LIMIT):  # nothing else says where the feed ends
            token = page[-1].token
            if self.history.monotonic() - told > _AT_LEAST_EVERY:
                told = self.history.monotonic()
                yield []
        yield self.running()[::-1]
        while True:
            self.history.sleep(_APART)
            found = self.history.wait_for_changes(token, timeout=_AT_LEAST_EVERY, limit=MAX_LIMIT)
            token = found[-1].token if found else token
            yield self._noted([each.job for each in found])

    def running(self) -> list[SyncJob]:
        """The newest jobs that have a worker, newest first."""
        return self._active(_RUNNING)

    def waiting(self) -> int:
        """How many jobs wait for a worker, as far as we count."""
        return len(self._active(_WAITING))

    def rate(self, job: SyncJob) -> float | None:
        """How many entities a second; None where that is not known."""
        return self._rates.of(job, self.history.monotonic())

    def owner(self, job: SyncJob) -> str:
        """The name of the job's connection, or its id."""
        id = job.source_connection_id
        if id not in self._owners:
            self._owners = {each.id: label(each) for each in self.history.connections()}
        return self._owners.get(id, str(id))

    def silence(self, job: SyncJob) -> float:
        """The seconds since the job's last sign of life."""
        return max(0.0, (self.history.clock() - job.last_sign_at).total_seconds())

    def _noted(self, written: list[SyncJob]) -> list[SyncJob]:
        """Those of them that are watched; their counts are kept for the rates."""
        ours = [job for job in written if self.only is None or job.source_connection_id == self.only.id]
        for job in ours:
            self.rate(job)
        return ours

    def _active(self, statuses: frozenset[JobStatus]) -> list[SyncJob]:
        if self.only is None:
            return self.history.active_jobs(statuses=statuses, limit=_SHOWN)
        return self.history.list_jobs(self.only.id, statuses=statuses, limit=_SHOWN)


def _print_each(watched: Watched, line: Callable[[SyncJob], str]) -> NoReturn:
    """For programs and files: a line for each job that runs, and for each change."""
    changes = watched.changes()
    while True:
        for job in next(changes):
            click.echo(line(job))


def _line(watched: Watched, job: SyncJob) -> str:
    now = watched.history.clock()
    seconds, rate = took(job, now), watched.rate(job)
    words = [
        to_wire(now.replace(microsecond=0)),
        str(job.id),
        job.status,
        "-" if seconds is None else f"{seconds:.1f}",
        *(str(getattr(job, name)) for name in COUNTS),
        "-" if rate is None else f"{rate:.1f}",
        "-" if job.is_terminal else f"{watched.silence(job):.1f}",
    ]
    free = [watched.owner(job), visible(job.worker or "-"), visible(job.error or "-")]
    return "  ".join([*map(str.ljust, words, _WIDTHS.values()), *free])


def _show_live(watched: Watched, console: Console) -> NoReturn:
    """For a person: a table that is always up to date, below a line for each job that ended."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        console.show_cursor()  # whatever ends us, or suspends us, leaves the terminal as it was
        changes = watched.changes()
        while True:
            written = next(changes)
            live.update(_table(watched), refresh=True)
            for job in written:
                if job.is_terminal:
                    console.print(_ending(watched, job), no_wrap=True, overflow="ellipsis")


def _ending(watched: Watched, job: SyncJob) -> RenderableType:
    from rich.text import Text

    id, status, _, seconds, *counts = job_cells(job, watched.history.clock())
    signed = [(f"{sign}{count}", style) for sign, (count, style) in zip(COUNT_SIGNS, counts, strict=True)]
    cells = [id, status, seconds, *signed, (watched.owner(job), ""), (visible(job.error or ""), "red")]
    return Text("  ").join(Text(text, style) for text, style in cells if text)


def _table(watched: Watched) -> RenderableType:
    from rich.text import Text

    now, jobs, waiting = watched.history.clock(), watched.running(), watched.waiting()
    queue = f"{_counted(waiting)} waiting"
    if not jobs:
        return Text(f"Nothing runs, {queue}.", "dim")
    numbers = [(heading, RIGHT) for heading in ("elapsed", *COUNT_SIGNS, "rate", "silent")]
    owner = [("connection", FREE)] if watched.only is None else []
    return table_of(
        [("job", ""), ("status", ""), *numbers, *owner, ("worker", FREE)],
        [_row(watched, job, now) for job in jobs],
        title=label(watched.only) if watched.only else None,
        caption=f"{LEGEND}  {_counted(len(jobs))} running, {queue}",
    )


def _row(watched: Watched, job: SyncJob, now: datetime) -> list[Cell]:
    id, status, _, elapsed, *counts = job_cells(job, now)
    rate, silence = watched.rate(job), watched.silence(job)
    alarm = "red" if silence > SILENT_FOR else "yellow" if silence > CONFIRM_FOR else ""
    return [
        id,
        status,
        elapsed,
        *counts,
        ("" if rate is None else f"{rate:,.1f}/s" if rate < _FEW else f"{rate:,.0f}/s", ""),
        (span(silence), alarm),
        *([(watched.owner(job), "")] if watched.only is None else []),
        (visible(job.worker or ""), "dim"),
    ]


def _counted(number: int) -> str:
    return f"{number}" if number < _SHOWN else f"{number} or more"
