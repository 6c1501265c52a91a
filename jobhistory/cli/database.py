"""Where the history is, and what a word on the command line names in it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from uuid import UUID

import attrs
import click
import platformdirs

import jobhistory
from jobhistory.cli.render import visible
from jobhistory.errors import InvalidIdError, JobNotFoundError
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import SourceConnection

VARIABLE = "JOBHISTORY_URL"
"""The environment variable that stands in for --db."""
# Enough of an id to be meant as one: `list` shows a little more. Less of it is no job's, as it may be a name: feed.
_START = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,27}", re.ASCII | re.IGNORECASE)
_TOO_SHORT = re.compile(r"[0-9a-f]{1,7}", re.ASCII | re.IGNORECASE)
# Of each connection, and of all together: what is read takes a quarter of a second.
_SEARCHED, _SEARCHED_IN_ALL = 100, 20_000
_NEAR = 0.85
_NAMED = 3


class NotFoundError(click.ClickException):
    """No such history, connection or job."""

    exit_code = 3


class BadInputError(click.ClickException):
    """A word on the command line that means nothing here."""

    exit_code = 2


@attrs.frozen
class Database:
    """A history by its path or URL; `given` says whether the command line named it."""

    url: str
    given: bool = True

    @classmethod
    def chosen(cls, url: str | None) -> Self:
        """The one that the command line names, else the environment, else the user's own."""
        return cls(url or os.environ.get(VARIABLE) or str(standard_file()), given=bool(url))

    def read(self) -> JobHistory:
        """The history, which must be there: nothing is made by looking. Raises NotFoundError, and as `write`."""
        if self.file is not None and not self.file.exists():
            message = (
                f"no history at {visible(str(self.file))} yet: name another with --db or {VARIABLE}, "
                "or start this one with `jobhistory import FILE` (`jobhistory demo` shows how it all works)"
            )
            raise NotFoundError(message)
        return self._open()

    def write(self) -> JobHistory:
        """The history, made where it is missing, and our own folder with it.

        Raises BadInputError for a URL of another kind, StorageError where it cannot be used.
        """
        if self.file is not None and self.file.parent == data_folder():
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._open()

    @property
    def file(self) -> Path | None:
        """The file that `jobhistory.open` would use, None where it would use none."""
        path = self.url.removeprefix("sqlite:///")
        return None if "://" in path or path == "memory:" else Path(path)

    def _open(self) -> JobHistory:
        try:
            return jobhistory.open(self.url)
        except (ValueError, ImportError) as error:  # a URL of another kind, or one whose extra is missing
            raise BadInputError(visible(str(error))) from None


def standard_file() -> Path:
    """The history of who names none."""
    return data_folder() / "history.db"


def data_folder() -> Path:
    """Where histories are kept that the user gave no place to."""
    return platformdirs.user_data_path("jobhistory", appauthor=False)


def find_connection(history: JobHistory, text: str) -> SourceConnection:
    """The connection with this id, this name, or the one whose id starts so. Raises NotFoundError, with near names."""
    known = history.connections()
    stored = history.redacted_text(text)
    for matches in (
        [connection for connection in known if str(connection.id) == text.lower()],
        [connection for connection in known if connection.name == text],
        [connection for connection in known if connection.name == stored],
        [connection for connection in known if _START.fullmatch(text) and str(connection.id).startswith(text.lower())],
    ):
        if len(matches) == 1:
            return matches[0]
    if matches:
        raise NotFoundError(_several("connections", text, [connection.id for connection in matches]))
    words = [str(connection.id) for connection in known] + [c.name for c in known if c.name is not None]
    if near := difflib.get_close_matches(text, words):
        way_out = f"did you mean {' or '.join(near)}?"
    else:
        way_out = "`jobhistory connections` lists them" if known else "there are none in this history yet"
    shown = visible(text) or '""'
    message = f"no connection {shown}: {visible(way_out)}"
    raise NotFoundError(message)


def find_job(history: JobHistory, text: str) -> SyncJob:
    """The job with this id, or the recent one whose id starts so. Raises NotFoundError, JobNotFoundError."""
    try:
        return history.get(text)
    except JobNotFoundError as error:
        if any(connection.id == error.job_id for connection in history.connections()):
            message = f"no job, but a connection: `jobhistory list {error.job_id}` shows its jobs"
            raise NotFoundError(message) from None
        raise
    except InvalidIdError:
        if not (_START.fullmatch(text) or _TOO_SHORT.fullmatch(text)):
            message = f"no job {visible(text)}: give its id, or the start of it as `jobhistory list` shows it"
            raise NotFoundError(message) from None
    searched = max(1, min(_SEARCHED, _SEARCHED_IN_ALL // max(1, len(history.connections()))))
    recent = history.newest_jobs(per_connection=searched).values()
    matches = [job for jobs in recent for job in jobs if str(job.id).startswith(text.lower())]
    if len(matches) == 1 and _START.fullmatch(text):
        return matches[0]
    if len(matches) == 1:
        message = f"{text} is too short to name a job: give more characters, as in {matches[0].id}"
    elif matches:
        message = _several("jobs", text, [job.id for job in matches])
    else:
        starts = {str(job.id)[: len(text)]: job.id for jobs in recent for job in jobs}
        near = [str(starts[start]) for start in difflib.get_close_matches(text.lower(), starts, cutoff=_NEAR)]
        whole = "give the whole id, as `jobhistory list --json` has it"
        way_out = f"did you mean {' or '.join(near)}?" if near else whole
        message = f"no job starts with {text} among the newest {searched} of any connection: {way_out}"
    raise NotFoundError(message)


def _several(what: str, text: str, ids: Sequence[UUID]) -> str:
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return f"several {what} start with {text}: {', '.join(map(str, ids[:_NAMED]))}{more}: give more characters"
