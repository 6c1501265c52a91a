"""completion: the words that a shell completes, names of connections and ids of jobs among them."""

from __future__ import annotations

import re
from collections.abc import Callable

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ZshComplete

from jobhistory.cli.database import Database
from jobhistory.errors import JobHistoryError
from jobhistory.history import JobHistory
from jobhistory.repository import newest_first

_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
_SHOWN = 100
# What a shell takes as one word, unquoted, and we as no option; a connection named otherwise is completed by its id.
_PLAIN = re.compile(r"(?!-)[\w@%+,./-]+", re.ASCII)
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


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


def _quietly(words: Callable[[JobHistory, str], list[CompletionItem]]) -> Completer:
    """The words of the history that those typed so far name; none where it cannot be read: a shell takes no errors."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with Database.chosen(context.find_root().params.get("db")).read() as history:
                return words(history, incomplete)
        except (click.ClickException, JobHistoryError, OSError):
            return []

    return complete


@_quietly
def connection_words(history: JobHistory, incomplete: str) -> list[CompletionItem]:
    """The names of connections that begin so, or their ids."""
    known = history.connections()
    words = [
        (each.name, str(each.id)) if each.name and _PLAIN.fullmatch(each.name) else (str(each.id), each.name)
        for each in known
    ]
    named = [CompletionItem(word, help=about) for word, about in words if word.startswith(incomplete)]
    ids = [CompletionItem(str(each.id), help=each.name) for each in known if str(each.id).startswith(incomplete)]
    return named or ids


@_quietly
def job_words(history: JobHistory, incomplete: str) -> list[CompletionItem]:
    """The ids of the newest jobs that begin so, those that are not finished first."""
    newest = history.newest_jobs(per_connection=3).values()
    finished_last = (*history.active_jobs(limit=_SHOWN), *newest_first(job for several in newest for job in several))
    words = {str(job.id): job.status for job in finished_last}
    return [CompletionItem(word, help=status) for word, status in words.items() if word.startswith(incomplete)][:_SHOWN]
