"""Moving house: all of one history brought into another, of any backend, while both are written to.

SOURCE is only read, so there is a way back at every moment. A move copies what there is (`copy`), then takes
over what is written, by `changes` (`keep_up`), until the writers have switched to DEST, and ends with a comparison
of both in listing order, which mends what it finds and also removes what was deleted in SOURCE meanwhile (`finish`).

**Resuming.** Each part compares before it writes, so a move that was killed at any moment is begun again, and goes
on at the speed of reading. Only what came from SOURCE cannot be seen in a history: that stands in a Ledger
(jobhistory.ledger). What is in DEST alone and not in it, or went on since, is DEST's own, and stays.

**Jobs stay as they are**: every field, version and outcome; nothing is redacted again. A job that DEST has already
is brought on by the steps in between, each one of which every backend allows (jobhistory.successor).

**Written on both sides.** Whoever has switched writes to DEST, and what is written there counts: a waiting job that
was claimed there is DEST's, whatever becomes of it in SOURCE, and so is whatever is finished there. Only where the
same worker has a job in both, its word counts: one that was asked to stop in DEST alone moves on, and ends as it
does in SOURCE. `finish` tells of each that differs in the end; nothing is lost, for SOURCE has the other story.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from uuid import UUID

import attrs

from jobhistory.comparison import Comparison, jobs_of, pairs
from jobhistory.errors import (
    ActiveJobExistsError,
    ConflictError,
    DuplicateJobError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
    StorageError,
)
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.ledger import Ledger, entry
from jobhistory.repository import MAX_LIMIT, Change, Position, SourceConnection, is_stored
from jobhistory.status import JobStatus
from jobhistory.successor import steps, successor

_WAIT = 1.0
"""Seconds after which a wait for changes asks whether it shall end."""
_LOOK_EVERY = 10.0
"""Seconds between two looks at what is not in the feed: beats, so that nobody in DEST takes a worker for vanished."""
_ROUNDS = 10
"""How often both are compared, where something was still to be mended each time."""
_WITH_WORKER = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})


class Move:
    """Brings all of SOURCE into DEST: `copy`, `keep_up` for as long as it takes, `finish`.

    Every method may raise StorageError; the move is then begun again, with the same ledger.

    Args:
        source: is only read.
        dest: may be written to by others.
        ledger: of this move.
    """

    def __init__(self, source: JobHistory, dest: JobHistory, ledger: Ledger) -> None:
        self._history = source
        self._source = source.repository
        self._dest = dest.repository
        self._ledger = ledger
        self._token: str | None = None
        self._new: list[SyncJob] = []
        self._names: dict[UUID, str | None] = {}
        # The unfinished jobs, as they were last seen in DEST.
        self._open: dict[UUID, SyncJob] = {}
        self.nameless: dict[UUID, NameTakenError] = {}
        """Which connections are without their names in DEST, and why."""

    def copy(self, *, told: Callable[[int], object] = bool) -> None:
        """Copy all that is in SOURCE; what is in DEST already is brought on.

        `told` is called with how many more of SOURCE's jobs were looked at. Raises StorageError, and changes
        nothing, where the ledger is of a move whose SOURCE was another history.
        """
        self._require_same_source()
        self._token = self._history.latest_change()
        for connection in self._bring_connections():
            self._compare(connection, told, note=True)
        self._flush()
        self._catch_up()

    def keep_up(self, until: Callable[[], bool]) -> None:
        """Bring over what is written to SOURCE, until it is to end."""
        looked_at = self._history.monotonic()
        while not until():
            self._take(self._history.wait_for_changes(self._token, timeout=_WAIT))
            if self._history.monotonic() >= looked_at + _LOOK_EVERY:
                self._bring_connections()
                self._bring_beats()
                looked_at = self._history.monotonic()

    def finish(self, *, told: Callable[[int], object] = bool) -> list[Comparison]:
        """Compare both until DEST has all that SOURCE has and nothing that was deleted there; `told` as by `copy`."""
        compared: dict[UUID, Comparison] = {}
        touched = {connection.id for connection in self._all_connections()}
        for _ in range(_ROUNDS):
            touched |= self._catch_up()
            for connection in self._all_connections():
                if connection.id in touched:
                    compared[connection.id] = result = self._compare(connection, told)
                    self._flush(result)
            touched = {id for id in touched & compared.keys() if compared[id].mended} | self._remove(compared)
            touched |= {change.job.source_connection_id for change in self._source.changes(self._token)}
            if not touched:
                break
        for id in touched & compared.keys():
            compared[id].is_settled = False
        return [compared[each.id] for each in self._bring_connections() if each.id in compared]

    def _require_same_source(self) -> None:
        """Refuse a SOURCE that has none of the jobs in the ledger: all of them would be taken for deleted."""
        copied = None
        for copied in self._ledger.jobs():
            if is_stored(self._source, copied):
                return
        if copied is not None:
            reason = (
                "is of jobs that are not in SOURCE, which is another history now: give another ledger, or remove it"
            )
            raise StorageError(self._ledger.where, reason)

    def _bring_connections(self) -> list[SourceConnection]:
        """Make SOURCE's connections known in DEST, by the names that they have, or have got since."""
        here = {connection.id: connection for connection in self._source.connections()}
        there = {connection.id for connection in self._dest.connections()}
        self._ledger.note(here.keys() - self._names.keys())
        known = there - self.nameless.keys()
        left = [each for each in here.values() if each.id not in known or self._names.get(each.id, "") != each.name]
        while left:
            connection = left.pop()
            self._names[connection.id] = connection.name
            self.nameless.pop(connection.id, None)
            try:
                self._dest.register(connection.id, connection.name)
            except NameTakenError as taken:
                self._dest.register(connection.id)
                other = here.get(taken.source_connection_id)
                if other is None or other.name is None:
                    self.nameless[connection.id] = taken  # until it is free
                else:
                    # Its turn comes, once more perhaps: names may have been exchanged.
                    self._dest.register(other.id, f"{taken.name} {other.id}")
                    left += [connection, other]
        return list(here.values())

    def _all_connections(self) -> list[SourceConnection]:
        """SOURCE's, and those that DEST has from it and that are forgotten there by now.

        Where there is none at all, SOURCE is another history in the place of the one that was copied: nothing is
        taken for deleted.
        """
        here = self._bring_connections()
        there = {connection.id: connection for connection in self._dest.connections()}
        gone = {entry(id): id for id in there.keys() - {connection.id for connection in here}}
        return here + [there[gone[each]] for each in (self._ledger.among(gone) if here else ())]

    def _compare(
        self, connection: SourceConnection, told: Callable[[int], object], *, note: bool = False
    ) -> Comparison:
        """Read both in listing order, and bring DEST's jobs on; those it has not yet are kept for `_flush`."""
        result = Comparison(connection)

        def alone(there: SyncJob) -> None:
            result.own[there.id] = entry(there)
            self._remember(there)

        ours = jobs_of(self._source, connection.id, told)
        for here, there in pairs(ours, jobs_of(self._dest, connection.id), alone):
            result.jobs += 1
            result.running += here.status in _WITH_WORKER
            if there is None:
                self._new.append(here)
                if len(self._new) == MAX_LIMIT:
                    self._flush(result)
                continue
            self._remember(there)
            if here == there:
                if note:
                    self._ledger.note([there])
                result.digest(here, there)
            elif self._bring(there, here):
                result.mended += 1
            elif successor(here, there) or attrs.evolve(there, version=here.version) == here:
                result.gone_on += 1
            else:
                result.apart.append((here, there))
        return result

    def _catch_up(self) -> set[UUID]:
        """Bring over what was written by now; gives the connections whose jobs these are."""
        owners: set[UUID] = set()
        full = True
        while full:
            changes = self._source.changes(self._token, limit=MAX_LIMIT)
            owners |= self._take(changes)
            full = len(changes) == MAX_LIMIT
        return owners

    def _take(self, changes: list[Change]) -> set[UUID]:
        owners = {change.job.source_connection_id for change in changes}
        if not owners <= self._names.keys():
            self._bring_connections()
        for change in changes:
            job = change.job
            if stored := self._open.get(job.id):
                self._bring(stored, job)
            elif job.source_connection_id in self._names:  # otherwise it was forgotten by now
                self._new.append(job)
        self._flush()
        self._token = changes[-1].token if changes else self._token
        return owners

    def _bring_beats(self) -> None:
        before = None
        while page := self._source.active_jobs(statuses=_WITH_WORKER, before=before, limit=MAX_LIMIT):
            for job in page:
                if stored := self._open.get(job.id):
                    self._bring(stored, job)
            before = Position.of(page[-1])

    def _flush(self, result: Comparison | None = None) -> None:
        """Add the jobs that DEST has not, and tell which it refused for others with their ids."""
        new, self._new = self._new, []
        if not new:
            return
        self._ledger.note(new)
        apart = []
        try:
            self._dest.add_many(new)
        except DuplicateJobError:
            apart = [(job, stored) for job in new if (stored := self._add(job)) != job]
        else:
            for job in new:
                self._remember(job)
        if result is not None:
            result.mended += len(new) - len(apart)
            result.apart += apart

    def _add(self, job: SyncJob) -> SyncJob:
        """Add one job, or bring on the one that has its id; gives it as it then stands in DEST."""
        try:
            self._dest.add(job)
        except DuplicateJobError:
            self._bring(self._dest.get(job.id), job)
            return self._dest.get(job.id)
        self._remember(job)
        return job

    def _bring(self, stored: SyncJob, found: SyncJob) -> bool:
        """Bring DEST's job on to where SOURCE's is; whether anything was written."""
        written = False
        while target := successor(stored, found):
            try:
                for step in steps(stored, target):
                    self._ledger.note([step])
                    self._dest.replace(step)
                    stored, written = step, True
            except ConflictError as conflict:
                stored = conflict.stored  # someone who has switched wrote to it
            except JobNotFoundError:
                self._ledger.note([found])
                self._dest.add(found)
                stored, written = found, True
        self._remember(stored)
        return written

    def _remember(self, stored: SyncJob) -> None:
        if stored.is_active:
            self._open[stored.id] = stored
        else:
            self._open.pop(stored.id, None)

    def _remove(self, compared: dict[UUID, Comparison]) -> set[UUID]:
        """Delete from DEST what came from SOURCE and was deleted there; gives the connections it was taken from."""
        ours = self._ledger.among(chain.from_iterable(result.own.values() for result in compared.values()))
        touched = set()
        for id, result in compared.items():
            gone = [each for each, stood in result.own.items() if stood in ours and self._is_gone(each)]
            for first in range(0, len(gone), MAX_LIMIT):
                self._dest.delete_many(gone[first : first + MAX_LIMIT])
                touched.add(id)
        for id in compared.keys() - {connection.id for connection in self._source.connections()}:
            with suppress(ActiveJobExistsError, SourceConnectionNotFoundError):
                if not self._dest.list_jobs(id, limit=1):
                    self._dest.forget(id)
                    del compared[id]
                    self._names.pop(id, None)
        return touched

    def _is_gone(self, id: UUID) -> bool:
        """Whether SOURCE has the job no more; what is left unfinished by that is ended in DEST, to be deleted."""
        if is_stored(self._source, id):
            return False
        if stored := self._open.get(id):
            at = self._history.clock()
            waits = stored.status is JobStatus.PENDING
            ended = stored.cancel(at=at, reason=_GONE) if waits else stored.lost(at=at, error=_GONE)
            self._ledger.note([ended])
            with suppress(ConflictError, JobNotFoundError):
                self._dest.replace(ended)
                return True
            return False
        return True


_GONE = "finished, and deleted, where it was copied from"
