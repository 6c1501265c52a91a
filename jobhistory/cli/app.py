"""The group of commands: which history they use, and how each error becomes one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import click

from jobhistory.cli import INTERRUPTED
from jobhistory.cli.acting import cancel, reap
from jobhistory.cli.completion import completion
from jobhistory.cli.database import VARIABLE, BadInputError, Database, NotFoundError, standard_file
from jobhistory.cli.demo import demo
from jobhistory.cli.exec import exec_
from jobhistory.cli.insight import failures, stats
from jobhistory.cli.moving import copy
from jobhistory.cli.pruning import prune
from jobhistory.cli.reading import connections, list_, show
from jobhistory.cli.render import visible
from jobhistory.cli.serve import serve
from jobhistory.cli.transfer import REFUSED, export, import_
from jobhistory.cli.upkeep import WRONG, backup, check
from jobhistory.cli.watching import watch
from jobhistory.errors import InvalidTransitionError, JobHistoryError

_EXIT_CODES = {
    0: "done",
    click.ClickException.exit_code: "it failed; the message says why",
    BadInputError.exit_code: "wrong usage, a bad cursor or limit among it",
    NotFoundError.exit_code: "no such history, connection or job",
    REFUSED: "import: some rows were refused; copy: some jobs differ; the rest is in",
    WRONG: "check: something is wrong; it says what, and what to do",
    INTERRUPTED: "interrupted",
}


_EXAMPLES = [
    ("jobhistory list docs --limit 5", "the newest jobs of the connection docs"),
    ("jobhistory list --status failed", "what failed lately, anywhere"),
    ("jobhistory show 0192f0c1", "one job's story, by the start of its id"),
    ("jobhistory list docs --json", "for programs: as the HTTP API has it"),
    ("jobhistory exec docs -- ./sync.sh", "run a command as a job"),
    ("jobhistory COMMAND --help", "all about a command"),
]


class Commands(click.Group):
    """A group that says where its history is and what its exit codes mean, and that shows no traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  as click has it
        """Run the command; a documented error becomes one line, Ctrl-C its exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (JobHistoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever reads has read enough: click ends quietly
            raise _in_one_line(error) from error

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show how it is used, and say which history that is, and what the exit codes mean."""
        del ctx
        with formatter.section("Examples"):
            formatter.write_dl(_EXAMPLES, col_max=40)
        with formatter.section("The history"):
            stands = "which is set" if os.environ.get(VARIABLE) else "not set"
            for word, place in (("first", "--db"), ("else", f"{VARIABLE} ({stands})"), ("else", str(standard_file()))):
                formatter.write(f"  {word:<5}  {visible(place)}\n")  # unbroken, to be copied
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in _EXIT_CODES.items()])


@click.group("jobhistory", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--db", metavar="PATH|URL", help="The history: a file, sqlite:///FILE, or another URL.")
@click.version_option(package_name="jobhistory")
@click.pass_context
def app(context: click.Context, *, db: str | None) -> None:
    """What ran, newest first; what runs now; why it failed: the history of data syncs.

    A CONNECTION is given by its id, the start of its id, or its name; a JOB by its id, or the start of a recent
    one's. What a command found goes to standard output, what it has to say about it to standard error.
    `jobhistory completion` makes a shell complete them all.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False
    context.obj = Database.chosen(db)


def _in_one_line(error: Exception) -> click.ClickException:
    message = visible(str(error))
    match error:
        case LookupError():
            return NotFoundError(message)
        case ValueError() if not isinstance(error, InvalidTransitionError):
            return BadInputError(message)
        case _:
            return click.ClickException(message)


for command in (
    list_,
    show,
    watch,
    connections,
    stats,
    failures,
    cancel,
    reap,
    prune,
    import_,
    export,
    copy,
    backup,
    check,
    serve,
    exec_,
    demo,
    completion,
):
    app.add_command(command)
