"""prune: letting old jobs go."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from jobhistory.cli.completion import connection_words
from jobhistory.cli.database import BadInputError, Database, find_connection
from jobhistory.cli.durations import HELP, Duration
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import json_text, label, visible
from jobhistory.repository import SourceConnection
from jobhistory.retention import Progress, Pruned, Retention, Step
from jobhistory.times import to_wire

_SHOWN = 20
_MIB = 2**20


@click.command(epilog=HELP)
@click.argument("connections", metavar="[CONNECTION]...", nargs=-1, shell_complete=connection_words)
@click.option("--older-than", type=Duration(), help="Jobs younger than this stay.")
@click.option("--keep-last", type=click.IntRange(1), metavar="N", help="The newest N of each connection stay.")
@click.option("--keep-failed-for", type=Duration(), help="FAILED jobs stay for this long, instead of --older-than.")
@click.option(
    "--archive",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write what goes to FILE, which is new, before it goes: .ndjson.gz or .parquet. `import` reads it.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask: for cron, and wherever there is no terminal.")
@as_json
@click.pass_obj
def prune(
    database: Database,
    *,
    connections: tuple[str, ...],
    older_than: float | None,
    keep_last: int | None,
    keep_failed_for: float | None,
    archive: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete old finished jobs, and give their room back.

    Those of each CONNECTION, or of all. --older-than, --keep-last or both must be given: a job goes only where no
    option keeps it, and its age counts from its created_at. Active jobs always stay, and so do each connection's
    newest job and its newest COMPLETED one. What would go is shown first. Others may go on writing; whoever is
    interrupted runs it again.
    """
    if older_than is None and keep_last is None:
        message = "--older-than or --keep-last must be given, to say what may go"
        raise click.UsageError(message)
    rule = Retention(older_than=older_than, keep_last=keep_last, keep_failed_for=keep_failed_for)
    with database.read() as history:
        chosen = [find_connection(history, text) for text in connections] or history.connections()
        known = {connection.id: connection for connection in chosen}
        now = history.clock()
        history.clock = lambda: now  # nothing grows old while somebody thinks about it

        def go(*, dry_run: bool) -> Pruned:
            with _progress() as progress:
                return history.prune(rule, known, dry_run=dry_run, archive=archive, progress=progress)

        try:
            plan = done = go(dry_run=True)
            if not as_json:
                _show_plan(plan, known)
            if not dry_run and (yes or (plan.jobs and _is_agreed(plan))):
                done = go(dry_run=False)
        except ImportError as error:  # the extra of the archive's kind
            raise BadInputError(str(error)) from None
    if as_json:
        click.echo(json_text(_as_json(done, known), indent=2))
    elif done is not plan:
        click.echo(_outcome(done, archive))


def _is_agreed(plan: Pruned) -> bool:
    try:
        return click.confirm(f"Delete {_jobs(plan.jobs)}?", err=True, abort=True)
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):
            raise  # a no, or Ctrl-C
    except RuntimeError:
        pass  # standard input is closed
    click.echo(err=True)
    message = "nobody answered, and nothing was deleted: give --yes where nobody can be asked"
    raise click.ClickException(message)


def _show_plan(plan: Pruned, known: Mapping[UUID, SourceConnection]) -> None:
    shares = sorted(plan.planned.items(), key=lambda item: item[1].jobs, reverse=True)
    for id, share in shares[:_SHOWN]:
        dates = f"{to_wire(share.oldest)[:10]} to {to_wire(share.newest)[:10]}"
        click.echo(f"{share.jobs:12,}  {dates}  {label(known[id])}")
    if others := shares[_SHOWN:]:
        click.echo(f"{sum(share.jobs for _, share in others):12,}  of {len(others):,} more")
    click.echo(f"{_jobs(plan.jobs)} may go, of {len(shares):,} of {len(known):,} connections.")


def _outcome(done: Pruned, archive: Path | None) -> str:
    text = f"Deleted {_jobs(done.deleted)}"
    if archive and done.jobs:
        text += f", which are in {visible(str(archive))}"
    if done.bytes_before is None or done.bytes_after is None:
        return f"{text}. Their room is for new ones, once the server's own upkeep saw to it."
    before, after = (f"{size / _MIB:,.1f} MiB" for size in (done.bytes_before, done.bytes_after))
    return f"{text}. The history took {before}, and takes {after}."


def _as_json(done: Pruned, known: Mapping[UUID, SourceConnection]) -> dict[str, Any]:
    shares = [
        {
            "id": str(id),
            "name": known[id].name,
            "jobs": share.jobs,
            "oldest": to_wire(share.oldest),
            "newest": to_wire(share.newest),
        }
        for id, share in done.planned.items()
    ]
    return {
        "planned": done.jobs,
        "deleted": done.deleted,
        "bytes_before": done.bytes_before,
        "bytes_after": done.bytes_after,
        "connections": shares,
    }


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Told how far it is, shows a bar on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    with Bars(console=Console(stderr=True), transient=True) as bars:
        shown: dict[Step, TaskID] = {}

        def tell(step: Step, done: int, total: int) -> None:
            if step not in shown:
                shown[step] = bars.add_task(step.capitalize())
            bars.update(shown[step], completed=done, total=total)

        yield tell
