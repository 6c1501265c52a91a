"""completion: the words that a shell completes, names of connections and ids of jobs among them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete

from jobhistory.cli.database import Database
from jobhistory.errors import JobHistoryError
from jobhistory.history import JobHistory
from jobhistory.repository import newest_first

_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_SHOWN = 100
# What a shell takes as one word, unquoted; a connection with another name is completed by its id.
_PLAIN = re.compile(r"[\w@%+,./-]+", re.ASCII)


@click.command()
@click.argument("shell", type=click.Choice([*_SHELLS]))
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Make a shell complete commands, connections and jobs.

    Printed is what the shell has to run, once for each session:

    \b
    bash   eval "$(jobhistory completion bash)"          in ~/.bashrc
    zsh    eval "$(jobhistory completion zsh)"           in ~/.zshrc
    fish   jobhistory completion fish > ~/.config/fish/completions/jobhistory.fish

    Connections and jobs are those of the history that --db or JOBHISTORY_URL names.
    """  # noqa: D301  click looks for a real backspace
    complete = _SHELLS[shell](context.find_root().command, {}, "jobhistory", "_JOBHISTORY_COMPLETE")
    click.echo(complete.source())


def connection_words(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of connections that begin so, or their ids; nothing where the history cannot be read."""
    with _quietly_read(context) as history:
        known = history.connections() if history else []
    words = [
        (each.name, str(each.id)) if each.name and _PLAIN.fullmatch(each.name) else (str(each.id), each.name)
        for each in known
    ]
    named = [CompletionItem(word, help=about) for word, about in words if word.startswith(incomplete)]
    ids = [CompletionItem(str(each.id), help=each.name) for each in known if str(each.id).startswith(incomplete)]
    return named or ids


def job_words(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of the newest jobs that begin so, those that are not finished first."""
    with _quietly_read(context) as history:
        active = history.active_jobs(limit=_SHOWN) if history else []
        newest = history.newest_jobs(per_connection=3).values() if history else []
    jobs = {job.id: job for job in (*active, *newest_first(job for several in newest for job in several))}
    words = [(str(job.id), job.status) for job in jobs.values()]
    return [CompletionItem(word, help=status) for word, status in words if word.startswith(incomplete)][:_SHOWN]


@contextmanager
def _quietly_read(context: click.Context) -> Iterator[JobHistory | None]:
    """The history that the words typed so far name; None where it cannot be read: a shell is no place to complain."""
    try:
        with Database.chosen(context.find_root().params.get("db")).read() as history:
            yield history
    except (click.ClickException, JobHistoryError):
        yield None
