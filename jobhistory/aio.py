"""AsyncJobHistory: the history for asyncio and trio.

Every call runs in a thread of its own few. A write that has begun is never abandoned: a task that is
cancelled meanwhile waits for it, and is cancelled then.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future, wait
from datetime import timedelta
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack
from uuid import UUID

try:
    import anyio
    import anyio.from_thread
    import anyio.to_thread
except ImportError as error:
    message = "jobhistory.aio needs anyio: pip install 'jobhistory[aio]'"
    raise ImportError(message, name="anyio") from error

import jobhistory
from jobhistory.history import JobHistory, RunOptions
from jobhistory.job import SyncJob
from jobhistory.reaping import CONFIRM_FOR, SILENT_FOR, Reaper, Reaping, end, look
from jobhistory.repository import MAX_LIMIT, Before, Change, check_statuses
from jobhistory.retention import Progress, Pruned, Retention, Step
from jobhistory.run import Run
from jobhistory.sigterm import sigterm
from jobhistory.status import JobStatus
from jobhistory.times import seconds

THREADS = 8
"""At most so many calls of one AsyncJobHistory run at the same time; more would wait for each other's writes."""
WAITING_THREADS = 40
"""And at most so many wait for changes."""

_WAIT_AT_ONCE = 0.5
_P = ParamSpec("_P")
_T = TypeVar("_T")


async def open(url: str | os.PathLike[str], **options: Any) -> AsyncJobHistory:  # noqa: ANN401  as jobhistory.open
    """The history at `url`, as jobhistory.open has it: `async with await aio.open("history.db") as history:`.

    A task that is cancelled meanwhile closes what it opened.
    """
    threads = _Threads(1)
    opened: list[JobHistory] = []
    try:
        await threads.call(lambda: opened.append(jobhistory.open(url, **options)))
    except BaseException:
        for history in opened:
            await threads.call(history.close, shield=True)
        raise
    return AsyncJobHistory(opened[0])


def _threaded(
    method: Callable[Concatenate[JobHistory, _P], _T],
) -> Callable[Concatenate[AsyncJobHistory, _P], Coroutine[Any, Any, _T]]:
    """JobHistory's method as it is, in a thread."""

    @wraps(method)
    async def call(self: AsyncJobHistory, /, *args: _P.args, **options: _P.kwargs) -> _T:
        return await self._threads.call(partial(getattr(self.history, method.__name__), *args, **options))

    return call


class AsyncJobHistory:
    """JobHistory, with the same methods, to await.

    Args:
        history: what it calls; closing the one closes the other.
    """

    def __init__(self, history: JobHistory) -> None:
        self.history = history
        self._threads = _Threads(THREADS)
        self._waiting = anyio.CapacityLimiter(WAITING_THREADS)

    register = _threaded(JobHistory.register)
    connections = _threaded(JobHistory.connections)
    forget = _threaded(JobHistory.forget)
    enqueue = _threaded(JobHistory.enqueue)
    add_many = _threaded(JobHistory.add_many)
    get = _threaded(JobHistory.get)
    list_jobs = _threaded(JobHistory.list_jobs)
    active_jobs = _threaded(JobHistory.active_jobs)
    newest_jobs = _threaded(JobHistory.newest_jobs)
    stats = _threaded(JobHistory.stats)
    health = _threaded(JobHistory.health)
    failures = _threaded(JobHistory.failures)
    changes = _threaded(JobHistory.changes)
    latest_change = _threaded(JobHistory.latest_change)
    cancel = _threaded(JobHistory.cancel)
    start = _threaded(JobHistory.start)
    report = _threaded(JobHistory.report)
    beat = _threaded(JobHistory.beat)
    complete = _threaded(JobHistory.complete)
    fail = _threaded(JobHistory.fail)
    finish_cancel = _threaded(JobHistory.finish_cancel)
    replace = _threaded(JobHistory.replace)
    close = _threaded(JobHistory.close)

    async def iter_jobs(
        self,
        source_connection_id: UUID | str,
        *,
        before: Before = None,
        statuses: Iterable[JobStatus] | None = None,
    ) -> AsyncIterator[SyncJob]:
        """As JobHistory.iter_jobs, for `async for`."""
        wanted = check_statuses(statuses)
        while page := await self.list_jobs(source_connection_id, limit=MAX_LIMIT, before=before, statuses=wanted):
            for job in page:
                yield job
            before = page[-1]

    async def wait_for_changes(
        self,
        after: str | None = None,
        *,
        timeout: float | timedelta = 60,  # noqa: ASYNC109  the same methods
        limit: int = 1000,
    ) -> list[Change]:
        """As JobHistory.wait_for_changes; cancelled at once, while a thread goes on for up to half a second."""
        deadline = self.history.monotonic() + seconds("timeout", timeout)
        while True:
            left = max(0.0, deadline - self.history.monotonic())
            wait = partial(self.history.wait_for_changes, after, timeout=min(left, _WAIT_AT_ONCE), limit=limit)
            found = await anyio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=self._waiting)
            if found or left <= _WAIT_AT_ONCE:
                return found

    def run(self, job_id: UUID | str, **options: Unpack[RunOptions]) -> AsyncRun:
        """As JobHistory.run, for `async with`."""
        handle_sigterm = options.pop("handle_sigterm", False)
        return AsyncRun(self._threads, self.history.run(job_id, **options), handle_sigterm=handle_sigterm)

    def track(
        self,
        source_connection_id: UUID | str,
        *,
        exclusive: bool = False,
        metadata: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncRun:
        """As JobHistory.track, for `async with`."""
        handle_sigterm = options.pop("handle_sigterm", False)
        run = self.history.track(source_connection_id, exclusive=exclusive, metadata=metadata, **options)
        return AsyncRun(self._threads, run, handle_sigterm=handle_sigterm)

    async def reap(
        self,
        *,
        silent_for: float | timedelta = SILENT_FOR,
        confirm_for: float | timedelta = CONFIRM_FOR,
        pending_for: float | timedelta | None = None,
    ) -> list[SyncJob]:
        """As JobHistory.reap; no thread is held between the two looks, unless the history has a sleep of its own."""
        rule = Reaping(silent_for=silent_for, confirm_for=confirm_for, pending_for=pending_for)
        suspects = await self._threads.call(partial(look, self.history, rule))
        if suspects:
            await self._sleep(rule.confirm_for)
        return await self._threads.call(partial(end, self.history, rule, suspects))

    def reaper(
        self,
        *,
        every: float | timedelta = 60,
        silent_for: float | timedelta = SILENT_FOR,
        confirm_for: float | timedelta = CONFIRM_FOR,
        pending_for: float | timedelta | None = None,
    ) -> AsyncReaper:
        """As JobHistory.reaper, for `async with`."""
        rule = Reaping(silent_for=silent_for, confirm_for=confirm_for, pending_for=pending_for)
        return AsyncReaper(self._threads, Reaper(self.history, rule, every))

    async def prune(
        self,
        rule: Retention,
        source_connection_ids: Iterable[UUID | str] | None = None,
        *,
        dry_run: bool = False,
        archive: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Pruned:
        """As JobHistory.prune; cancelled, it ends after the transaction under way. `progress` is called in a thread."""

        def tell(step: Step, done: int, total: int) -> None:
            if progress is not None:
                progress(step, done, total)
            anyio.from_thread.check_cancelled()

        prune = partial(self.history.prune, dry_run=dry_run, archive=archive, progress=tell)
        return await self._threads.call(partial(prune, rule, source_connection_ids))

    async def _sleep(self, duration: float) -> None:
        if self.history.sleep is time.sleep:
            await anyio.sleep(duration)
        else:
            await self._threads.call(partial(self.history.sleep, duration))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._threads.call(self.history.close, shield=True)


class AsyncRun:
    """A Run, for `async with`; its thread writes while the tasks work.

    `report` and the others that touch no storage stay plain methods, cheap enough for every entity.
    Entering and leaving are not cut short: a task that is cancelled meanwhile is cancelled then, and its
    job is CANCELLED. So is the job of a task that was cancelled inside.
    """

    def __init__(self, threads: _Threads, run: Run, *, handle_sigterm: bool) -> None:
        self.worker = run.worker
        self.raise_if_cancelled = run.raise_if_cancelled
        self.request_cancel = run.request_cancel
        self.report = run.report
        self._threads = threads
        self._run = run
        self._handle_sigterm = handle_sigterm

    @property
    def job(self) -> SyncJob:
        """As Run.job."""
        return self._run.job

    @property
    def cancelled(self) -> bool:
        """As Run.cancelled."""
        return self._run.cancelled

    async def flush(self) -> None:
        """As Run.flush."""
        await self._threads.call(self._run.flush)

    async def __aenter__(self) -> Self:
        # Here and not in the Run, whose `with` is entered in another thread.
        if self._handle_sigterm:
            sigterm.watch(self.request_cancel)
        try:
            await self._threads.call(self._run.__enter__, shield=True)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        try:
            return await self._threads.call(partial(self._run.__exit__, kind, error, trace), shield=True)
        finally:
            sigterm.unwatch(self.request_cancel)


class AsyncReaper:
    """A Reaper, for `async with`: its thread reaps while the tasks work."""

    def __init__(self, threads: _Threads, reaper: Reaper) -> None:
        self._threads = threads
        self._reaper = reaper

    async def __aenter__(self) -> Self:
        self._reaper.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._threads.call(partial(self._reaper.__exit__, kind, error, trace), shield=True)


class _Threads:
    """At most `number` threads at the same time."""

    def __init__(self, number: int) -> None:
        self._limiter = anyio.CapacityLimiter(number)

    async def call(self, call: Callable[[], _T], *, shield: bool = False) -> _T:
        """What the call gives, from a thread.

        Once it has begun, a task that is cancelled waits for its end. So does one that asyncio cancels past
        anyio's scopes: `asyncio.timeout` and Ctrl-C hit this task, and not the one inside; who cancels all tasks
        there are, as asyncio.run does at its end, hits that too. With `shield` it always begins.
        """
        outcome: Future[_T] = Future()
        begun = threading.Lock()  # taken once: by the thread that calls, or by the task, so that none will

        def call_or_wait() -> None:
            if not begun.acquire(blocking=False):
                wait([outcome])
                return
            try:
                outcome.set_result(call())
            except BaseException as error:  # noqa: BLE001  raised below, outside of the group
                outcome.set_exception(error)

        async def work() -> None:
            while not outcome.done():
                try:
                    with anyio.CancelScope(shield=shield or begun.locked()):
                        await anyio.to_thread.run_sync(call_or_wait, limiter=self._limiter)
                except anyio.get_cancelled_exc_class() as error:
                    if not shield and begun.acquire(blocking=False):
                        outcome.set_exception(error)
                        raise
                except Exception as error:  # noqa: BLE001  there is no thread to be had: likewise
                    outcome.set_exception(error)

        with anyio.CancelScope(shield=shield):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(work)
        return outcome.result()
