"""copy: a history moves house."""

from __future__ import annotations

import hashlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import click

from jobhistory.cli.database import BadInputError, Database, data_folder
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import json_text, label, many, visible
from jobhistory.cli.transfer import REFUSED
from jobhistory.comparison import Comparison
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.ledger import Ledger
from jobhistory.moving import Move

_NAMED = 20
"""How many jobs that differ are named."""
_COUNTS: dict[str, Callable[[Comparison], int]] = {
    "jobs": lambda result: result.jobs,
    "running": lambda result: result.running,
    "gone_on": lambda result: result.gone_on,
    "different": lambda result: len(result.apart),
    "only_in_dest": lambda result: len(result.own),
}
"""What is counted of each connection, and of all."""


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DEST")
@click.option("--follow", is_flag=True, help="Keep up with what is written to SOURCE, until Ctrl-C or SIGTERM.")
@click.option(
    "--ledger",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where it remembers, until it is done, which jobs came from SOURCE; else a file in your data folder.",
)
@as_json
def copy(*, source: str, destination: str, follow: bool, ledger: Path | None, as_json: bool) -> None:
    """Copy a history to another backend.

    SOURCE and DEST are each a path or URL, as for --db, which is not used here. SOURCE is only read; DEST is made
    where it is missing. Jobs stay as they are. One that DEST has in an earlier state is brought up to date, and one
    that was copied and is deleted from SOURCE meanwhile is deleted from DEST. If it is interrupted, run it again: it
    goes on where it was.

    In the end both are compared. Each connection has a line: the SHA-256 of its jobs as `export` writes them, how
    many they are, and its name. Where something differs it is named, and the exit code is 4. With --json all of this
    is one object, with the sums first, and each job that differs in both its states.

    To move without a pause:

    \b
      1. Start it with --follow, and wait until it says that it keeps up.
      2. Let each worker end what it runs, and start it again with DEST's URL.
      3. Press Ctrl-C: what came last is brought over, and both are compared.

    Until then stop reapers, prune nothing in DEST, and let no worker take waiting jobs from SOURCE once one takes
    them from DEST: of a job that both took, DEST's stays, and it is named in the end.
    """  # noqa: D301  click looks for a real backspace
    here, there = _database(source), _database(destination)
    if _place(here) == _place(there) or _are_one_file(here.file, there.file):
        message = "SOURCE and DEST are the same"
        raise BadInputError(message)
    with here.read() as old, there.write() as new, _opened(ledger or _ledger(here, there)) as file:
        move = Move(old, new, Ledger(file))
        with _progress("Copying", old) as told:
            move.copy(told=told)
        if follow:
            with _asked_to_end() as ended:
                _say("Copied, and keeping up: let the workers switch to DEST, then press Ctrl-C once.")
                move.keep_up(ended)
        with _progress("Comparing", old) as told:
            results = move.finish(told=told)
    _name(results, move)
    click.echo(json_text(_as_json(results, move), indent=2) if as_json else _told(results))
    if any(result.apart or not result.is_equal for result in results):
        raise click.exceptions.Exit(REFUSED)
    if not any(result.running for result in results):
        Path(file.name).unlink(missing_ok=True)


def _database(url: str) -> Database:
    if "read_url=" in url:
        message = "copy reads what was written last: leave read_url out"
        raise BadInputError(message)
    if url == "memory:":
        message = "memory: would end with this command: give a path or another URL"
        raise BadInputError(message)
    return Database(url)


def _place(database: Database) -> str:
    return str(database.file.resolve()) if database.file else database.url


def _are_one_file(one: Path | None, other: Path | None) -> bool:
    """Whether two names are links to one file, which would get a log under each of them."""
    return one is not None and other is not None and one.exists() and other.exists() and one.samefile(other)


def _ledger(here: Database, there: Database) -> Path:
    """A file for these two, in our own folder."""
    data_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    both = hashlib.sha256(f"{_place(here)}\n{_place(there)}".encode()).hexdigest()
    return data_folder() / f"copy-{both[:16]}.ids"


@contextmanager
def _opened(ledger: Path) -> Iterator[BinaryIO]:
    file = ledger.open("a+b")
    try:
        yield file
    finally:
        with suppress(OSError):  # what is not in it by now was said to be so
            file.close()


def _name(results: list[Comparison], move: Move) -> None:
    """Say on standard error what differs, and what is still to be done."""
    apart = [pair for result in results for pair in result.apart]
    for pair in apart[:_NAMED]:
        _say(_difference(*pair))
    for taken in move.nameless.values():
        _say(f"a name was not copied: {taken}")
    if running := _counts(*results)["running"]:
        _say(f"{many(running, 'job')} left running in SOURCE: let the workers end there, then copy again")
    for result in results:
        if not result.is_equal:
            _say(f"{label(result.connection)} differs: SOURCE is still written to; copy again")


def _told(results: list[Comparison]) -> str:
    """What came of it: a line for each connection, and the sums."""
    lines = [f"{result.digests[0]} {result.jobs:>12,}  {label(result.connection)}" for result in results]
    sums = _counts(*results)
    told = [f"{many(sums['jobs'], 'job')} of {many(len(results), 'connection')}"]
    for name, what in (
        ("gone_on", "gone on in DEST"),
        ("different", "written in both and different"),
        ("only_in_dest", "in DEST alone"),
    ):
        told += [f"{sums[name]:,} {what}"] if sums[name] else []
    return "\n".join([*lines, ", ".join(told)])


def _as_json(results: list[Comparison], move: Move) -> dict[str, Any]:
    connections = [
        {
            "id": str(result.connection.id),
            "name": result.connection.name,
            "name_is_copied": result.connection.id not in move.nameless,
            "sha256": result.digests[0],
            "is_equal": result.is_equal,
            **_counts(result),
        }
        for result in results
    ]
    apart = [
        {"source": here.to_dict(bookkeeping=True), "dest": there.to_dict(bookkeeping=True)}
        for result in results
        for here, there in result.apart
    ]
    return {**_counts(*results), "connections": connections, "jobs_that_differ": apart}


def _counts(*results: Comparison) -> dict[str, int]:
    return {name: sum(map(count, results)) for name, count in _COUNTS.items()}


def _difference(here: SyncJob, there: SyncJob) -> str:
    told = (
        f"{job.status} in {where} (version {job.version}, worker {job.worker})"
        for job, where in ((here, "SOURCE"), (there, "DEST"))
    )
    return f"job {here.id}: {', '.join(told)}: DEST's stays"


def _say(text: str) -> None:
    click.echo(visible(text), err=True)


@contextmanager
def _asked_to_end() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C or SIGTERM came; a second one is as it was before."""
    asked = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(_: int, __: FrameType | None) -> None:
        asked.set()
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        restore()


@contextmanager
def _progress(what: str, history: JobHistory) -> Iterator[Callable[[int], object]]:
    """Gives a function that moves a bar on stderr on, by so many jobs, where that is a terminal."""
    if not sys.stderr.isatty():
        yield bool
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        count = sum(1 for connection in history.connections() for _ in history.iter_jobs(connection.id))
        task = progress.add_task(what, total=count)
        yield lambda jobs: progress.advance(task, jobs)
