"""cancel, reap: acting on jobs that others run."""

from __future__ import annotations

import click

from jobhistory.cli.completion import job_words
from jobhistory.cli.database import Database, find_job
from jobhistory.cli.durations import HELP, Duration
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import json_text, label, visible
from jobhistory.errors import InvalidTransitionError
from jobhistory.job import SyncJob
from jobhistory.reaping import CONFIRM_FOR, SILENT_FOR, Reaping
from jobhistory.reaping import reap as reap_by
from jobhistory.status import JobStatus
from jobhistory.times import span


@click.command()
@click.argument("job", shell_complete=job_words)
@click.option("--reason", metavar="TEXT", help="Kept as the job's error, where it ends at once.")
@as_json
@click.pass_obj
def cancel(database: Database, *, job: str, reason: str | None, as_json: bool) -> None:
    """Stop a JOB, and say what became of it.

    One that waits is CANCELLED at once. One that runs is CANCELLING: its worker is asked to stop, sees it
    when it next reports, and ends it. Asking again changes nothing. One that COMPLETED or FAILED stays as it
    is, and the exit code is 1. JOB is an id, or the start of a recent one.
    """
    with database.read() as history:
        before = find_job(history, job)
        try:
            after = history.cancel(before.id, reason=reason)
        except InvalidTransitionError as error:
            message = f"job {error.job_id} is {error.status} already: a finished job never changes"
            raise click.ClickException(message) from error
    if as_json:
        click.echo(json_text(after.to_dict(), indent=2))
    else:
        click.echo(f"Job {after.id} {_fate(after, is_news=after != before)}")
    if reason is not None and (after == before or after.is_active):
        click.echo("The reason is not kept: only a job that ends at once has a place for it.", err=True)


def _fate(job: SyncJob, *, is_news: bool) -> str:
    """What a cancel made of the job."""
    worker = visible(f"its worker {job.worker}" if job.worker else "its worker")
    match job.status, is_news:
        case JobStatus.CANCELLED, True:
            return "is CANCELLED: no worker had taken it."
        case JobStatus.CANCELLED, False:
            return "was CANCELLED already."
        case _, True:
            return f"is CANCELLING: {worker} is asked to stop."
        case _:
            return f"was CANCELLING already: {worker} has not stopped yet."


@click.command(epilog=HELP)
@click.option(
    "--silent-for",
    type=Duration(),
    default=span(SILENT_FOR),
    show_default=True,
    help="Look at workers that gave no sign of life for this long.",
)
@click.option(
    "--confirm-for",
    type=Duration(),
    default=span(CONFIRM_FOR),
    show_default=True,
    help="Wait this long for one before their jobs are ended: longer than workers' heartbeats are apart.",
)
@click.option("--pending-for", type=Duration(), help="Also end jobs that have waited this long for a worker.")
@as_json
@click.pass_obj
def reap(
    database: Database, *, silent_for: float, confirm_for: float, pending_for: float | None, as_json: bool
) -> None:
    """End the jobs of workers that vanished, and say which and why.

    Made for cron: it waits, and speaks, only where a worker went silent. RUNNING becomes FAILED, CANCELLING
    becomes CANCELLED; `jobhistory show` has the evidence. Many may reap at the same time.
    """
    rule = Reaping(silent_for=silent_for, confirm_for=confirm_for, pending_for=pending_for)
    with database.read() as history:

        def wait(left: float) -> bool:
            click.echo(f"Some jobs look abandoned: waiting {span(rule.confirm_for)} for a sign of life.", err=True)
            history.sleep(left)
            return False

        ended = reap_by(history, rule, wait)
        names = {each.id: label(each) for each in history.connections()} if ended else {}
    if as_json:
        click.echo(json_text([job.to_dict() for job in ended], indent=2))
        return
    for job in ended:
        owner = names.get(job.source_connection_id, str(job.source_connection_id))
        click.echo(f"Job {job.id} of {owner} is {job.status}: {visible(job.error or '')}")
