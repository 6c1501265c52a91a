"""All that a history holds, and whether it is sound: what every fault is judged by."""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs

from jobhistory import JobRepository, Position, SourceConnection, SyncJob, newest_first
from jobhistory.job import COLUMNS
from jobhistory.storage import sqlite
from jobhistory.storage.sqlite import SQLiteJobRepository

Facts = tuple[Any, ...]
"""All of a job, in its order: equal where the JSON is the same text, and so compared in no time."""
facts: Callable[[SyncJob], Facts] = operator.attrgetter(*COLUMNS)


@attrs.frozen
class State:
    """The connections, and the jobs in the order of the feed, each with its token."""

    connections: tuple[SourceConnection, ...] = ()
    feed: tuple[tuple[str, Facts], ...] = ()


def state_of(repository: JobRepository) -> State:
    """Read by the feed, and held against every list: what stands in one stands in the others."""
    feed: list[tuple[str, SyncJob]] = []
    while changes := repository.changes(feed[-1][0] if feed else None):
        feed += [(change.token, change.job) for change in changes]
    jobs = [job for _, job in feed]
    assert sorted(int(token) for token, _ in feed) == [int(token) for token, _ in feed]
    connections = repository.connections()
    listed = []
    for connection in connections:
        before = None
        while page := repository.list_jobs(connection.id, limit=1000, before=before):
            listed += page
            before = Position.of(page[-1])
    assert [facts(job) for job in newest_first(jobs)] == [facts(job) for job in newest_first(listed)]
    active = [job for job in jobs if job.is_active]
    assert [job.id for job in newest_first(active)][:1000] == [job.id for job in repository.active_jobs(limit=1000)]
    return State(tuple(connections), tuple((token, facts(job)) for token, job in feed))


def state_in(path: Path) -> State:
    """What a process that comes later finds; AssertionError where the file is not sound."""
    with closing(SQLiteJobRepository(path, timeout=1)) as repository:
        state = state_of(repository)
    with closing(sqlite3.connect(path)) as other:
        assert [("ok",)] == other.execute("PRAGMA integrity_check").fetchall()
        assert [(len(sqlite._SCHEMAS),)] == other.execute("PRAGMA user_version").fetchall()
    return state
