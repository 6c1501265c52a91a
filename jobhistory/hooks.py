"""Hooks: told of every job this process wrote, after the commit and in its order."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from jobhistory.failure import alone
from jobhistory.job import SyncJob

Hook = Callable[[SyncJob], object]
"""Called with each job this process wrote, after its commit."""

_log = logging.getLogger("jobhistory")


class Hooks:
    """Calls each hook with each job; their errors are logged. With none, it costs nothing."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._hooks = tuple(hooks)
        self.begin()
        _ALL.add(self)

    def __reduce__(self) -> tuple[type[Hooks], tuple[tuple[Hook, ...]]]:
        return type(self), (self._hooks,)

    def begin(self) -> None:
        """With nothing to tell; so does a forked child, for what its parent's other threads were telling."""
        self._news: deque[SyncJob] = deque()
        self._telling = threading.Lock()
        self._in_order = threading.RLock()

    @staticmethod
    def begin_in_child() -> None:
        """Let go of what threads hold that a forked child does not have."""
        for hooks in list(_ALL):
            hooks.begin()

    def after(self, write: Callable[[], None], jobs: Sequence[SyncJob]) -> None:
        """Write, then tell of the jobs, in the order of the commits.

        While a hook runs, nobody else waits: what is written meanwhile, by another thread or by a hook, is
        told by the thread that is telling already.
        """
        if not self._hooks or not jobs:
            write()
            return
        with self._in_order:
            write()
            self._news.extend(jobs)
        telling = self._telling
        while self._news and telling.acquire(blocking=False):  # again, where news came as it was let go of
            try:
                while self._news:
                    self._tell(self._news.popleft())
            finally:
                telling.release()

    def _tell(self, job: SyncJob) -> None:
        for hook in self._hooks:
            try:
                hook(job)
            except Exception as error:  # noqa: BLE001  # a hook's error is its own
                _log.error("hook %r failed for job %s", hook, job.id, exc_info=alone(error))


_ALL: weakref.WeakSet[Hooks] = weakref.WeakSet()
os.register_at_fork(after_in_child=Hooks.begin_in_child)
