"""backup, check: that nothing is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import attrs
import click

from jobhistory.abilities import BacksUp, Checks, Finding
from jobhistory.cli.database import BadInputError, Database
from jobhistory.cli.reading import as_json
from jobhistory.cli.render import json_text, many, visible

WRONG = 5
"""The exit code of a check that found something wrong."""


@click.command()
@click.argument("destination", metavar="DEST", type=click.Path(path_type=Path))
@as_json
@click.pass_obj
def backup(database: Database, *, destination: Path, as_json: bool) -> None:
    """Copy the history to a new file, DEST.

    Others may write meanwhile: the copy is the history as it was at one moment. It is verified, and readable by
    its owner alone; nothing is overwritten. To restore it, stop whatever uses the history, remove its files
    (-wal and -shm too), and put the copy in its place.
    """
    with database.read() as history:
        if not isinstance(history.repository, BacksUp):
            message = f"{visible(database.url)} cannot be backed up: use its own tools, or `jobhistory export`"
            raise BadInputError(message)
        history.repository.backup(destination)
    size = destination.stat().st_size
    if as_json:
        click.echo(json_text({"file": str(destination), "bytes": size}, indent=2))
    else:
        click.echo(f"Backed up to {visible(str(destination))}: {size:,} bytes, verified.")


@click.command()
@click.option(
    "--set-aside",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Move jobs that cannot be read into FILE, a new one, so that the rest can: mend its lines, then `import` it.",
)
@as_json
@click.pass_obj
def check(database: Database, *, set_aside: Path | None, as_json: bool) -> None:
    """Check whether the history is sound.

    It says what is not, and what to do about it. It reads everything: the file, and each job in it, which another
    program may have written past the rules; and it looks at SQLite's release and its known defects, durability,
    permissions and the filesystem. What is wrong is an error, and the exit code is 5; what only endangers the
    history is a warning, and the exit code is 0. Nothing is changed, but for --set-aside, which goes by batches: if it
    is interrupted, run it again with another FILE.
    """
    with database.read() as history:
        if not isinstance(history.repository, Checks):
            message = f"{visible(database.url)} cannot be checked: use its own tools"
            raise BadInputError(message)
        if set_aside:
            moved = history.repository.set_aside(set_aside)
            said = f"Moved {moved:,} to {set_aside}: mend and import them." if moved else "Nothing is to be moved."
            click.echo(visible(said), err=True)
        findings = []
        for finding in history.repository.check():
            findings.append(finding)
            if not as_json:
                _say(finding)
    count = Counter(finding.level for finding in findings)
    if as_json:
        click.echo(json_text([attrs.asdict(finding) for finding in findings], indent=2))
    else:
        said = f"{many(count['error'], 'error')}, {many(count['warning'], 'warning')}."
        click.echo(visible(f"{database.url}: {said}"))
    if count["error"]:
        raise click.exceptions.Exit(WRONG)


def _say(finding: Finding) -> None:
    click.echo(visible(f"{finding.level:<8} {finding.what}"))
    if finding.way_out:
        click.echo(visible(f"{'':<8} {finding.way_out}"))
