"""Hooks: told of every job this process wrote, after the commit and in its order; in the background, if wanted."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial

from jobhistory.failure import alone
from jobhistory.job import SyncJob
from jobhistory.times import seconds

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

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def begin(self) -> None:
        """With nothing to tell; so does a forked child, for what its parent's other threads were telling."""
        self._news: deque[SyncJob] = deque()
        self._telling = threading.Lock()
        self._in_order = threading.RLock()

    def flush(self) -> None:
        """Let those in the background tell what they hold, each within its time."""
        for hook in self._hooks:
            if isinstance(hook, Background):
                hook.flush()

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
            _tell(hook, job, Exception)


def background(hook: Hook, queue: int = 1000, within: float | timedelta = 5) -> Background:
    """The hook in a thread of its own: a slow one, as one that asks the network, then holds up no worker.

    It tells in the order of the commits. What it may lose, with a warning in the log:

    - what comes while `queue` changes are waiting;
    - what still waits `within` so many seconds (or a timedelta) after `history.close()` or the end of the process
      began to wait for it. `flush()` waits likewise, whenever it is called.

    And without one what waits in a process that is killed or ends by os._exit, as the children of multiprocessing
    and of prefork workers do: flush there. A forked child begins with nothing waiting: its parent tells that.

    Make what the hook tells, as an exporter, first: at the end of the process the last made is the first to end.

    `dropped` counts what the queue had no place for. Raises ValueError for a queue that is no int of at least 1,
    InvalidJobError for a duration that is none.
    """
    return Background(hook, queue, within)


class Background:
    """A hook that tells another one in a thread, which lives while there is something to tell; see background."""

    def __init__(self, hook: Hook, queue: int, within: float | timedelta) -> None:
        if type(queue) is not int or queue < 1:
            message = f"queue must be an int of at least 1, not {queue!r}"
            raise ValueError(message)
        self._hook = hook
        self._name = _name(hook)
        self._queue = queue
        self._within = min(seconds("within", within), threading.TIMEOUT_MAX)
        self.begin()
        _ALL.add(self)
        # Before what was made before it, as an exporter that shuts down at the end of the process too.
        atexit.unregister(_flush_at_exit)
        atexit.register(_flush_at_exit)

    def __reduce__(self) -> tuple[type[Background], tuple[Hook, int, float]]:
        return type(self), (self._hook, self._queue, self._within)

    def begin(self) -> None:
        """With nothing to tell; so does a forked child."""
        self.dropped = 0
        """How many changes the queue had no place for, in this process."""
        self._is_dropping = False
        self._waiting: deque[SyncJob] = deque()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def __call__(self, job: SyncJob) -> None:
        """Have it told, soon; or drop it."""
        with self._changed:
            if len(self._waiting) == self._queue:
                self.dropped += 1
                if not self._is_dropping:  # said once, until all is told
                    _log.warning("hook %s is too slow: changes are dropped, now one of job %s", self._name, job.id)
                self._is_dropping = True
                return
            self._waiting.append(job)
            if self._thread is None:
                thread = threading.Thread(target=self._tell, name=f"jobhistory hook {self._name}", daemon=True)
                thread.start()
                self._thread = thread  # behind start, which may fail: the next change tries again

    def flush(self) -> bool:
        """Wait until all is told, at most `within`, and say whether it is; a warning says where it is not."""
        with self._changed:
            own = threading.current_thread()
            if self._changed.wait_for(lambda: self._thread in {None, own}, self._within):
                return True
            left = len(self._waiting) + 1
        _log.warning("hook %s is too slow: %d changes are not told after %g s", self._name, left, self._within)
        return False

    def _tell(self) -> None:
        while (job := self._next()) is not None:
            _tell(self._hook, job, BaseException)  # whatever it raises, the next one is told

    def _next(self) -> SyncJob | None:
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None  # what comes now starts another
            self._is_dropping = False
            self._changed.notify_all()
            return None


def _tell(hook: Hook, job: SyncJob, expected: type[BaseException]) -> None:
    try:
        hook(job)
    except expected as error:  # a hook's error is its own
        _log.error("hook %s failed for job %s", _name(hook), job.id, exc_info=alone(error))


def _name(hook: Hook) -> str:
    """What it is, without what it holds: its repr may show a token, and goes into a log."""
    while isinstance(hook, partial):
        hook = hook.func
    return str(getattr(hook, "__qualname__", type(hook).__qualname__))


_ALL: weakref.WeakSet[Hooks | Background] = weakref.WeakSet()


def _begin_in_child() -> None:
    """Let go of what threads hold that a forked child does not have."""
    for hooks in list(_ALL):
        hooks.begin()


def _flush_at_exit() -> None:
    for hook in list(_ALL):
        if isinstance(hook, Background):
            hook.flush()


os.register_at_fork(after_in_child=_begin_in_child)
