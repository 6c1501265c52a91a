"""Optional abilities: what a repository may do beside the port, each a small Protocol of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, runtime_checkable
from uuid import UUID

import attrs

from jobhistory.repository import Position
from jobhistory.status import JobStatus


@runtime_checkable
class WaitsForChanges(Protocol):
    """An optional ability: to wait for a write. Where a repository lacks it, JobHistory asks again and again."""

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        """Wait until there may be changes after the token: True; False after `timeout` seconds without.

        Any number of seconds will do. Raises InvalidCursorError for a bad token; closing ends the wait.
        """
        ...


@runtime_checkable
class TellsLatestChange(Protocol):
    """An optional ability: to say where the feed ends. Where a repository lacks it, JobHistory reads all of it."""

    def latest_change(self) -> str | None:
        """The token of the newest change there has been, also of a job deleted since; None where there was none."""
        ...


@attrs.frozen
class JSONPage:
    """A page of jobs as a JSON array in the wire form, compact; how many they are, and where the last one stands."""

    json: str
    count: int
    last: Position


@runtime_checkable
class ListsAsJSON(Protocol):
    """An optional ability: to give a page as JSON, without a record of each job."""

    def list_jobs_json(
        self,
        source_connection_id: UUID,
        *,
        limit: int = 100,
        before: Position | None = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> JSONPage | None:
        """What json.dumps gives for the `to_dict` of the jobs of `list_jobs`, to the letter; None: ask for those.

        None where there are none, and where the page holds what only records tell rightly.
        """
        ...


@runtime_checkable
class BacksUp(Protocol):
    """An optional ability: to copy the whole history while others write to it."""

    def backup(self, destination: str | os.PathLike[str]) -> None:
        """Copy the history, as it is at one moment, to a new place: whole and verified, or not at all.

        Nothing is overwritten. Raises StorageError.
        """
        ...


@attrs.frozen
class Finding:
    """What a check found: an "error" is wrong, a "warning" endangers the history, a "note" says what was looked at."""

    level: Literal["error", "warning", "note"]
    what: str
    way_out: str = ""


@runtime_checkable
class Checks(Protocol):
    """An optional ability: to say what is wrong with what is stored, and to move out what nobody can read."""

    def check(self) -> Iterator[Finding]:
        """Look at everything that is stored, and at what it is stored in; it takes as long as reading it all."""
        ...

    def set_aside(self, file: str | os.PathLike[str]) -> int:
        """Move what another program stored past the record's rules into a new file, as lines of JSON; how many.

        The lines can be mended, and imported. Where there are none, no file is made. Raises StorageError.
        """
        ...


@runtime_checkable
class ReclaimsSpace(Protocol):
    """An optional ability: to give the room of what was deleted back to its disk."""

    def space(self) -> tuple[int, int]:
        """How many bytes the history takes, and how many of them are free."""
        ...

    def reclaim_space(self, most: int) -> int:
        """Give back free bytes, `most` of them (one page at least), in one transaction; how many: 0 where none is."""
        ...
