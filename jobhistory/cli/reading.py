"""list, show, connections: looking at the history."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import click

from jobhistory.cli.completion import connection_words, job_words
from jobhistory.cli.database import Database, find_connection, find_job
from jobhistory.cli.render import json_text, label, show_connections, show_jobs, show_story
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import MAX_LIMIT, Cursor, SourceConnection, newest_first
from jobhistory.status import ACTIVE_STATUSES, JobStatus

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.command("list")
@click.argument("connection", required=False, shell_complete=connection_words)
@click.option("--active", is_flag=True, help="Only jobs that are not finished: what runs, and what waits.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(JobStatus, case_sensitive=False),
    metavar="STATUS",
    help=f"Only jobs with this status: {', '.join(JobStatus)}. May be repeated.",
)
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=20, show_default=True, help="How many, at most.")
@click.option("--before", metavar="CURSOR", help="The next page: the cursor that the page before it ended with.")
@as_json
@click.pass_obj
def list_(
    database: Database,
    *,
    connection: str | None,
    active: bool,
    statuses: tuple[JobStatus, ...],
    limit: int,
    before: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first.

    They are the jobs of CONNECTION, or else the newest of all connections together. A terminal gets a table,
    with ages and short counts where it is narrow; anything else gets aligned text, a job on each line, with whole
    ids and times in UTC, where no field but the last two, connection and error, holds a space. With --json it is
    as the HTTP API has it.
    """
    wanted = frozenset(statuses) or (ACTIVE_STATUSES if active else None)
    if active and not ACTIVE_STATUSES.issuperset(statuses):
        message = f"--active is {', '.join(sorted(ACTIVE_STATUSES))}: leave out the other --status, or --active"
        raise click.UsageError(message)
    if before and not connection:
        message = "--before pages through one connection: name it"
        raise click.UsageError(message)
    with database.read() as history:
        only = find_connection(history, connection) if connection is not None else None
        if only:
            jobs, more = _page(history, only, limit, before, wanted)
        else:
            jobs, more = _newest_of_all(history, limit, wanted)
        if as_json:
            click.echo(json_text([job.to_dict() for job in jobs], indent=2))
        elif jobs:
            names = {each.id: each.name for each in ([only] if only else history.connections())}
            show_jobs(jobs, names, now=history.clock())
        else:
            where = f"in {label(only)}" if only else "in this history"
            click.echo(f"No {'such ' if wanted or before else ''}jobs {where}.", err=True)
    if more:
        click.echo(more, err=True)


def _page(
    history: JobHistory,
    connection: SourceConnection,
    limit: int,
    before: str | None,
    statuses: Iterable[JobStatus] | None,
) -> tuple[list[SyncJob], str]:
    """A page of one connection, and how to get the next one if there is one."""
    cursor = Cursor.parse(before) if before else None
    jobs = history.list_jobs(connection.id, limit=limit, before=cursor, statuses=statuses)
    more = len(jobs) == limit and history.list_jobs(connection.id, limit=1, before=jobs[-1], statuses=statuses)
    return jobs, f"More: --before {Cursor.after(jobs[-1], statuses)}" if more else ""


def _newest_of_all(history: JobHistory, limit: int, statuses: frozenset[JobStatus] | None) -> tuple[list[SyncJob], str]:
    """The newest jobs of all connections, and how to get more if there may be more."""
    if statuses and statuses <= ACTIVE_STATUSES:
        jobs = history.active_jobs(limit=limit, statuses=statuses)
    else:
        # Only connections whose own newest job is among the newest can hold any of them.
        if statuses is None:
            first = history.newest_jobs()
        else:
            ids = [connection.id for connection in history.connections()]
            first = {id: history.list_jobs(id, limit=1, statuses=statuses) for id in ids}
        heads = newest_first(chain.from_iterable(first.values()))
        owners = [job.source_connection_id for job in heads[:limit]]
        found = (job for id in owners for job in history.list_jobs(id, limit=limit, statuses=statuses))
        jobs = newest_first(found)[:limit]
    return jobs, "There may be more: name a CONNECTION to page through, or raise --limit." if len(jobs) == limit else ""


@click.command()
@click.argument("job", shell_complete=job_words)
@as_json
@click.pass_obj
def show(database: Database, *, job: str, as_json: bool) -> None:
    """Tell all about one JOB.

    That is every field, what happened when, its metadata, and its error with the details. JOB is an id, or the
    start of one as `list` shows it. With --json it is one object: as the HTTP API has it, then what else is kept.
    """
    with database.read() as history:
        found = find_job(history, job)
        if as_json:
            click.echo(json_text(found.to_dict(bookkeeping=True), indent=2))
        else:
            connection = find_connection(history, str(found.source_connection_id))
            show_story(found, connection)


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def connections(context: click.Context, *, as_json: bool) -> None:
    """List the source connections, each with its newest job."""
    if context.invoked_subcommand:
        return
    with context.obj.read() as history:
        newest = history.newest_jobs()
        known = [each for each in history.connections() if each.id in newest]
        if as_json:
            rows = [
                {
                    "id": str(each.id),
                    "name": each.name,
                    "newest_job": next((job.to_dict() for job in newest[each.id]), None),
                }
                for each in known
            ]
            click.echo(json_text(rows, indent=2))
        elif known:
            show_connections(known, newest, now=history.clock())
        else:
            click.echo("No connections in this history.", err=True)


@connections.command()
@click.argument("connection", shell_complete=connection_words)
@click.argument("name")
@as_json
@click.pass_obj
def rename(database: Database, *, connection: str, name: str, as_json: bool) -> None:
    """Give CONNECTION, an id or a name, the name NAME; no two share one."""
    with database.read() as history:
        renamed = history.register(find_connection(history, connection).id, name)
    if as_json:
        click.echo(json_text({"id": str(renamed.id), "name": renamed.name}, indent=2))
