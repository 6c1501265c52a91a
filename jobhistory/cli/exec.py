"""exec: any command as a job."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Any
from uuid import uuid4

import click

from jobhistory.cli.completion import connection_words
from jobhistory.cli.database import Database, NotFoundError, find_connection
from jobhistory.cli.durations import HELP, Duration
from jobhistory.cli.live import LiveLine
from jobhistory.cli.render import label, visible
from jobhistory.errors import InvalidIdError, JobHistoryError, NameTakenError
from jobhistory.exec import GRACE, NOT_EXECUTABLE, NOT_FOUND, SIGNALLED, Execution
from jobhistory.exec.counts import NAMES, rsync_stats, singer_messages
from jobhistory.history import JobHistory
from jobhistory.ids import parse_id
from jobhistory.job import SyncJob
from jobhistory.repository import SourceConnection
from jobhistory.times import span

OWN_FAILURE = 125
"""The exit code where the command was not run because of us: wrong usage, no history, another job is active."""

_EXIT_CODES = [
    (str(OWN_FAILURE), "COMMAND was not run: wrong usage, no such history, another job is active"),
    (str(NOT_EXECUTABLE), "it cannot be run"),
    (str(NOT_FOUND), "there is no such command"),
    (f"{SIGNALLED} + n", "signal n killed it, or stopped it although it says 0"),
    ("else", "COMMAND's own"),
]
_ENVIRONMENT = [
    ("JOBHISTORY_REPORT", f'a file to append counts to, as lines that add up: {{"inserted": 3}} ({", ".join(NAMES)})'),
    ("JOBHISTORY_JOB_ID", "its job, and"),
    ("JOBHISTORY_URL", "the history, for a command that uses the library itself"),
]
_END_OF_OPTIONS = "--"
_MEANT_AS_ID = re.compile(r"[0-9a-f-]{8,36}", re.ASCII | re.IGNORECASE)


class _Command(click.Command):
    """What stands behind `--` is the command; what fails before it runs has an exit code that is none of its own."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401  as click has it
        with _own_failures():
            return super().make_context(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the command off first: none of its words is an option of ours."""
        at = args.index(_END_OF_OPTIONS) if _END_OF_OPTIONS in args else len(args)
        ours, command = args[:at], args[at + 1 :]
        rest = super().parse_args(ctx, ours)
        if not command and not ctx.resilient_parsing:
            message = "Missing COMMAND: put it last, behind --"
            raise click.UsageError(message, ctx)
        ctx.params["command"] = tuple(command)
        return rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage, with the command in it."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND..."]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what the command finds, and what the exit codes mean."""
        super().format_epilog(ctx, formatter)
        for heading, rows in (("The command's environment", _ENVIRONMENT), ("Exit codes", _EXIT_CODES)):
            with formatter.section(heading):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  as click has it
        """Run it."""
        with _own_failures():
            return super().invoke(ctx)


class OwnFailure(click.ClickException):
    """The command was not run, because of us."""

    exit_code = OWN_FAILURE

    def __init__(self, why: click.ClickException) -> None:
        super().__init__(why.message)
        self._why = why

    def show(self, file: IO[Any] | None = None) -> None:
        """Show it as what it is."""
        self._why.show(file)


@contextmanager
def _own_failures() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        raise OwnFailure(error) from error
    except (JobHistoryError, OSError) as error:
        raise OwnFailure(click.ClickException(visible(str(error)))) from error


def _metadata(_context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, sign, _) in zip(pairs, split, strict=True):
        if not key or not sign:
            message = f"{visible(pair)!r} is not KEY=VALUE"
            raise click.BadParameter(message)
    return {key: value for key, _, value in split}


@click.command("exec", cls=_Command, epilog=HELP)
@click.argument("connection", shell_complete=connection_words)
@click.option("--name", help="Give CONNECTION this name.")
@click.option("--exclusive", is_flag=True, help="Refuse to run while CONNECTION has a job that is not finished.")
@click.option("--timeout", type=Duration(), help="Stop the command after this long; its job is FAILED.")
@click.option(
    "--grace",
    type=Duration(),
    default=span(GRACE),
    show_default=True,
    help="Kill it this long after it was asked to stop.",
)
@click.option(
    "--meta", multiple=True, metavar="KEY=VALUE", callback=_metadata, help="Kept with the job. May be repeated."
)
@click.option("--singer", is_flag=True, help="Count the RECORD messages it writes, as inserted.")
@click.option("--rsync", is_flag=True, help="Count what `rsync --stats` says it did.")
@click.pass_obj
def exec_(
    database: Database,
    *,
    connection: str,
    name: str | None,
    exclusive: bool,
    timeout: float | None,
    grace: float,
    meta: Mapping[str, str],
    singer: bool,
    rsync: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a job of CONNECTION.

    CONNECTION is an id, the start of one, or a name; a new id or a new name makes a new connection. Where
    COMMAND exits with 0 the job is COMPLETED, else FAILED, with the end of its standard error in the details.
    What it writes passes through untouched.

    Ctrl-C, SIGTERM, SIGHUP, `jobhistory cancel` and --timeout stop its whole process group: politely, and
    after --grace firmly. It has a session of its own, so nothing in it can ask for a password at the terminal.
    """
    if singer and rsync:
        message = "--singer or --rsync: its output is one of them"
        raise click.UsageError(message)
    with database.write() as history:
        known = _connection(history, connection, name)
        live = LiveLine(lambda: _story(execution.job, label(known), history.clock()))
        execution = Execution(
            history=history,
            source_connection_id=known.id,
            command=command,
            url=_absolute(database),
            exclusive=exclusive,
            metadata=meta,
            timeout=timeout,
            grace=grace,
            reader=singer_messages() if singer else rsync_stats() if rsync else None,
            through=live.write if live.is_on else None,
        )
        with _said_by(live.say):
            with live:
                code = execution.execute()
            if live.is_on:
                live.say(_story(execution.job, label(known), history.clock()))
    raise click.exceptions.Exit(code)


def _connection(history: JobHistory, text: str, name: str | None) -> SourceConnection:
    """The connection that is meant, made where it is new. Raises NotFoundError, NameTakenError."""
    try:
        return history.register(parse_id(text), name)
    except InvalidIdError:
        pass  # a name, or the start of an id
    try:
        found = find_connection(history, text)
    except NotFoundError:
        if _MEANT_AS_ID.fullmatch(text):
            raise
        found = _new_connection(history, text)
    return found if name is None else history.register(found.id, name)


def _new_connection(history: JobHistory, name: str) -> SourceConnection:
    try:
        made = history.register(uuid4(), name)
    except NameTakenError:  # since we looked
        return find_connection(history, name)
    with suppress(OSError):  # where that has no room, it is no reason not to run
        click.echo(f"jobhistory: new connection {label(made)}, {made.id}", err=True)
    return made


def _absolute(database: Database) -> str | None:
    """The history's URL as it holds in any folder; None where no other process can open it."""
    if database.file is not None:
        return f"sqlite:///{database.file.absolute()}"
    return None if database.url == "memory:" else database.url


def _story(job: SyncJob | None, connection: str, now: datetime) -> str:
    """What is known of the job, in a line."""
    if job is None or job.started_at is None:
        return connection
    took = (now - job.started_at).total_seconds() if job.duration_seconds is None else job.duration_seconds
    counts = ((getattr(job, f"entities_{name}"), name) for name in NAMES)
    said = ", ".join(f"{count:,} {name}" for count, name in counts if count)
    return "  ".join(filter(None, (connection, job.status, span(max(0.0, took)), said, visible(job.error or ""))))


@contextmanager
def _said_by(say: Callable[[str], None]) -> Iterator[None]:
    """What the library logs is said, in a line; what it logs again and again, once."""
    logger, handler = logging.getLogger("jobhistory"), _Sayer(say)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Sayer(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() + (f": {error}" if error else "")
        if text not in self._said:
            self._said.add(text)
            self._say(visible(text))
