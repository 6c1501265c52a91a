"""demo: a small real worker, and five of its runs over a copy of a real folder.

`mirror` is the worker, as anybody would write one; the rest is the stage, where things happen to it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, UUID, uuid5

import attrs
import click

from jobhistory.cli.database import Database, data_folder, find_connection
from jobhistory.cli.render import COLOURS, show_jobs, visible
from jobhistory.errors import StorageError
from jobhistory.history import JobHistory
from jobhistory.run import Run
from jobhistory.status import JobStatus

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PACKAGE = Path(__file__).parent.parent
_MOST_FILES = 300
_MOST_BYTES = 32 * 2**20
_SECONDS_A_RUN = 0.6
"""How long a run takes at least where somebody watches it."""


def mirror(
    history: JobHistory,
    connection_id: UUID,
    source: Path,
    target: Path,
    watch: Callable[[Run, Sequence[Path]], Iterable[Path]],
) -> None:
    """Make `target` hold the files that `source` holds, and record it.

    A file that cannot be read counts as failed; a target that cannot be written to ends the run, with OSError.
    `watch` hands out the files, as a progress bar would.
    """
    metadata = {"source": str(source), "target": str(target)}
    with history.track(connection_id, metadata=metadata, flush_interval=0.1) as run:
        files = _files(source)
        for name in watch(run, files):
            run.raise_if_cancelled()
            copy = target / name
            try:
                content = (source / name).read_bytes()
            except OSError:
                run.report(failed=1)
                continue
            if not copy.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
                run.report(inserted=1)
            elif copy.read_bytes() != content:
                copy.write_bytes(content)
                run.report(updated=1)
        for name in set(_files(target)).difference(files):
            (target / name).unlink()
            run.report(deleted=1)


def _files(folder: Path) -> list[Path]:
    """All files below the folder, relative to it; links that lead nowhere are among them."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=_PACKAGE)
@click.pass_obj
def demo(database: Database, *, folder: Path) -> None:
    """Run a small real sync five times, and list its history.

    The worker mirrors the files of FOLDER, or else of this package. It works on a copy, in a temporary place,
    where files change, vanish and cannot be read; one run fails, and one is cancelled midway. FOLDER is only
    read. The history stays, in a file of its own unless --db is given.
    """
    if not database.given:
        database = Database(str(data_folder() / "demo.db"))
    folder = folder.resolve()
    connection_id = uuid5(NAMESPACE_URL, folder.as_uri())
    with tempfile.TemporaryDirectory(prefix="jobhistory-demo-") as place, database.write() as history:
        stage = Stage(history, connection_id, Path(place, "source"), Path(place, "mirror"))
        whole = copy_some(folder, stage.source)
        if not _files(stage.source):
            message = f"no file in {visible(str(folder))} can be read: name another folder"
            raise click.ClickException(message)
        if connection_id not in {connection.id for connection in history.connections()}:
            path = str(folder)
            history.register(connection_id, f"mirror of {path if path.isprintable() else ascii(path)}")
        click.echo(f"Mirroring {visible(str(folder))}{'' if whole else ', a part of it'}.")
        stage.play()
        connection = find_connection(history, str(connection_id))
        jobs = history.list_jobs(connection_id, limit=20)
        show_jobs(jobs, {connection_id: connection.name}, now=history.clock())
    if database.file is not None:
        failed = next(job.id for job in jobs if job.status is JobStatus.FAILED)
        click.echo(f"The history is kept in {visible(str(database.file))}. Look at it with:")
        for command in ("list", f"show {failed}", "export"):
            click.echo(f"  jobhistory --db {visible(shlex.quote(database.url))} {command}")


def copy_some(folder: Path, to: Path) -> bool:
    """Copy the files of a folder, as far as they can be read and are not too many; says whether that was all."""
    to.mkdir()
    whole, files, room = True, 0, _MOST_BYTES
    for where, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(where, name) for name in sorted(names)):
            copy = to / path.relative_to(folder)
            try:
                if path.is_symlink() or not path.is_file():
                    continue
                if files == _MOST_FILES or path.stat().st_size > room:
                    return False
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                files, room = files + 1, room - copy.stat().st_size
            except OSError:
                whole = False
    return whole


@attrs.frozen
class Stage:
    """Where the demo plays: a copy of the folder and its mirror, and all that happens to them."""

    history: JobHistory
    connection_id: UUID
    source: Path
    target: Path

    def play(self) -> None:
        """Run the worker five times, under a live display where there is a terminal. Raises StorageError."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        acts: list[tuple[str, Callable[[], object], Callable[[Run], object]]] = [
            ("first run", _nothing, _nothing),
            ("files changed, vanished, unreadable", self.edit, _nothing),
            ("the mirror's disk goes away", self.edit, self.take_target_away),
            ("it is back; cancelled midway", self.target.unlink, self.cancel),
            ("runs through", _nothing, _nothing),
        ]
        end = TextColumn("{task.fields[end]}")
        with Progress(
            TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), end, disable=not sys.stdout.isatty()
        ) as progress:
            for title, before, halfway in acts:
                before()
                status = self.run(halfway, progress, progress.add_task(title, total=None, end=""))
                if progress.disable:
                    click.echo(f"{title}: {status}")

    def run(self, halfway: Callable[[Run], object], progress: Progress, task: TaskID) -> JobStatus:
        """Run the worker once, with what happens to it halfway. Raises StorageError."""

        def watch(run: Run, files: Sequence[Path]) -> Iterator[Path]:
            for done, name in enumerate(files, 1):
                if done == (len(files) + 1) // 2:
                    halfway(run)
                yield name
                progress.update(task, completed=done, total=len(files))
                if not progress.disable:
                    self.history.sleep(_SECONDS_A_RUN / len(files))

        try:
            mirror(self.history, self.connection_id, self.source, self.target, watch)
        except StorageError:
            raise
        except OSError:
            pass  # the job says so
        [job] = self.history.list_jobs(self.connection_id, limit=1)
        progress.update(task, end=f"[{COLOURS[job.status]}]{job.status}")
        return job.status

    def edit(self) -> None:
        """Change every third file, delete every seventh, add one, and a link that leads nowhere."""
        link = self.source / "link to a file that is gone"
        link.unlink(missing_ok=True)
        files = [self.source / name for name in _files(self.source)]
        for path in files[::3]:
            with path.open("ab") as file:
                file.write(b"changed\n")
        for path in files[1::7]:
            path.unlink()
        (self.source / f"new after {len(files)}").touch()
        link.symlink_to("gone")

    def take_target_away(self, run: Run) -> None:
        """Put a file in the place of the mirror: what a worker meets where a disk is not mounted."""
        del run
        shutil.rmtree(self.target)
        self.target.touch()

    def cancel(self, run: Run) -> None:
        """Cancel the run as somebody else would: by its id, in another thread."""
        somebody = threading.Thread(target=self.history.cancel, args=(run.job.id,))
        somebody.start()
        somebody.join()
        while True:
            run.raise_if_cancelled()
            self.history.sleep(0.01)


def _nothing(*_: object) -> None:
    """Nothing happens."""
