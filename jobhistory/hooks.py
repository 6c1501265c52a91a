"""Hooks: told of every job this process wrote, after the commit and in its order."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable

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
        self._telling = False
        self._in_order = threading.RLock()

    @staticmethod
    def begin_in_child() -> None:
        """Let go of what threads hold that a forked child does not have."""
        for hooks in list(_ALL):
            hooks.begin()

    def after(self, write: Callable[[], None], jobs: Iterable[SyncJob]) -> None:
        """Write, then tell of the jobs; writes of other threads wait, so that the order is that of the commits."""
        if not self._hooks:
            write()
            return
        with self._in_order:
            write()
            self._news.extend(jobs)
            if self._telling:  # a hook wrote: what it adds is told below it
                return
            self._telling = True
            try:
                while self._news:
                    self._tell(self._news.popleft())
            finally:
                self._telling = False

    def _tell(self, job: SyncJob) -> None:
        for hook in self._hooks:
            try:
                hook(job)
            except Exception:  # noqa: BLE001  # a hook's error is its own
                _log.exception("hook %r failed for job %s", hook, job.id)


_ALL: weakref.WeakSet[Hooks] = weakref.WeakSet()
os.register_at_fork(after_in_child=Hooks.begin_in_child)
