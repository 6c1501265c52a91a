"""How a fault is entered with the tests that catch it, and what several faults are made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from jobhistory.errors import JobHistoryError
from jobhistory.job import SyncJob
from jobhistory.repository import refusal
from jobhistory.storage.memory import InMemoryJobRepository

Fault = type[InMemoryJobRepository]
_F = TypeVar("_F", bound=Fault)

FAULTS: dict[Fault, tuple[str, ...]] = {}
"""Each fault, and the tests of the contract that must catch it."""
STORIES: list[Fault] = []
"""The faults that the state machine must catch too."""


def caught_by(*tests: str, story: bool = True) -> Callable[[_F], _F]:
    """Enter a fault; where no `story` shows it, it takes arguments, values or threads that no story has."""

    def enter(fault: _F) -> _F:
        FAULTS[fault] = tests
        if story:
            STORIES.append(fault)
        return fault

    return enter


class Gap:
    """The moment between a check and its act: a thread in it waits until another is there too, if one comes."""

    def __init__(self) -> None:
        self._meeting = threading.Barrier(2)

    def __call__(self) -> None:
        try:
            if threading.active_count() > 2:
                self._meeting.wait(timeout=0.1)
        except threading.BrokenBarrierError:
            self._meeting = threading.Barrier(2)


class OwnRefusal(InMemoryJobRepository):
    """replace as it should be, but that subclasses say why a job may not replace another."""

    def refused(self, stored: SyncJob, job: SyncJob) -> JobHistoryError | None:
        return refusal(stored, job)

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        with self._open():
            stored = self.get(job.id)
            if stored == job:
                return
            if error := self.refused(stored, job):
                raise error
            self.overwrite(job)
            if not quiet:
                self._feed.announce(job.id)

    def overwrite(self, job: SyncJob) -> None:
        stored = self._jobs[job.id]
        key = (stored.created_at, stored.id)
        self._active = [active for active in self._active if active != key]
        for history in self._histories.values():
            if key in history:
                history.remove(key)
        self._feed._number_of.setdefault(job.id, 0)
        number = self._feed._number_of[job.id]
        self._insert(job)
        self._feed._number_of[job.id] = number
