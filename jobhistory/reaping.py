"""Ending the jobs of workers that vanished, in two looks, so that no wrong clock ends a live one."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs

from jobhistory.errors import ConflictError, JobNotFoundError
from jobhistory.ids import worker_name
from jobhistory.job import SyncJob
from jobhistory.repository import MAX_LIMIT, Position
from jobhistory.run import HEARTBEAT_INTERVAL
from jobhistory.status import JobStatus
from jobhistory.times import earlier, seconds, to_wire

if TYPE_CHECKING:
    from jobhistory.history import JobHistory

SILENT_FOR = 300.0
"""Seconds without a sign of life after which a worker is looked at."""
CONFIRM_FOR = 30.0
"""Seconds for which it then must not move; two heartbeats of a Run."""

_LOOK_AT_LEAST_EVERY = 0.5
_RUNNING = frozenset({JobStatus.RUNNING, JobStatus.CANCELLING})
_PENDING = frozenset({JobStatus.PENDING})
# host:pid:tag; a longer number is no pid.
_WORKER = re.compile("(.*):([1-9][0-9]{0,9}):[^:]*", re.DOTALL)
_log = logging.getLogger("jobhistory")


def _duration(value: float | timedelta) -> float:
    return seconds("silent_for, confirm_for or pending_for", value)


@attrs.frozen(kw_only=True)
class Reaping:
    """Who counts as vanished: all durations in seconds.

    The first look takes the clock's word for it: jobs last heard of more than `silent_for` ago, and, with
    `pending_for`, jobs that waited longer than that. The second look takes nobody's: what has the same version
    after `confirm_for` on the monotonic clock was written by nobody, whatever any clock says. So
    `confirm_for` must be longer than the workers' heartbeat_interval; less than a Run's default is logged.
    """

    silent_for: float = attrs.field(default=SILENT_FOR, converter=_duration)
    confirm_for: float = attrs.field(default=CONFIRM_FOR, converter=_duration)
    pending_for: float | None = attrs.field(default=None, converter=attrs.converters.optional(_duration))

    def __attrs_post_init__(self) -> None:
        if self.confirm_for <= HEARTBEAT_INTERVAL:
            _log.warning(
                "confirm_for of %g s is no longer than a Run's heartbeat_interval of %g s: live jobs are reaped "
                "unless their workers beat more often",
                self.confirm_for,
                HEARTBEAT_INTERVAL,
            )


def reap(history: JobHistory, rule: Reaping, wait: Callable[[float], bool]) -> list[SyncJob]:
    """The jobs this call ended; another process that reaps at the same time ends others.

    `wait` waits for seconds, and gives True to have the reaping given up.
    """
    suspects = look(history, rule)
    begun = history.monotonic()
    while suspects and (left := begun + rule.confirm_for - history.monotonic()) > 0:
        if wait(min(left, threading.TIMEOUT_MAX)):
            return []
    return end(history, rule, suspects)


def look(history: JobHistory, rule: Reaping) -> list[SyncJob]:
    """Those that look vanished, by this machine's clock."""
    suspects: list[SyncJob] = []
    for statuses, silent_for in ((_RUNNING, rule.silent_for), (_PENDING, rule.pending_for)):
        if silent_for is None:
            continue
        since = earlier(history.clock(), silent_for)
        before: Position | None = None
        while page := history.active_jobs(statuses=statuses, silent_since=since, before=before, limit=MAX_LIMIT):
            suspects += page
            before = Position.of(page[-1])
    return suspects


def end(history: JobHistory, rule: Reaping, suspects: Iterable[SyncJob]) -> list[SyncJob]:
    """End those of them that nobody has written since."""
    ended = (_end(history, rule, suspect) for suspect in suspects)
    return [job for job in ended if job is not None]


def _end(history: JobHistory, rule: Reaping, suspect: SyncJob) -> SyncJob | None:
    """End the job if nobody has written it since the first look."""
    at = history.clock()
    silence = max(0.0, (at - suspect.last_sign_at).total_seconds())
    evidence = _evidence(suspect, rule)
    if suspect.status is JobStatus.PENDING:
        ended = suspect.fail(at=at, error=f"no worker took it within {silence:.0f} s", error_details=evidence)
    else:
        error = f"its worker vanished: {suspect.worker or 'a worker without a name'} was silent for {silence:.0f} s"
        ended = suspect.lost(at=at, error=error, error_details=evidence)
    try:
        history.replace(ended)
    except (ConflictError, JobNotFoundError):
        return None  # it lives, or was ended or deleted by another
    return ended


def _evidence(suspect: SyncJob, rule: Reaping) -> dict[str, Any]:
    """What is known of the worker, for whoever asks why."""
    host, pid = _host_and_pid(suspect.worker)
    return {
        "worker": suspect.worker,
        "host": host,
        "pid": pid,
        "process_exists": _exists(pid) if host == os.uname().nodename and pid is not None else None,
        "last_heartbeat_at": _wire(suspect.heartbeat_at),
        "counts_moved_at": _wire(suspect.progress_at),
        "silent_for": rule.pending_for if suspect.status is JobStatus.PENDING else rule.silent_for,
        "confirmed_for": rule.confirm_for,
        "reaped_by": worker_name(),
    }


def _wire(moment: datetime | None) -> str | None:
    return None if moment is None else to_wire(moment)


def _host_and_pid(worker: str | None) -> tuple[str | None, int | None]:
    """The parts of `host:pid:tag`; None for a name of another form."""
    parts = _WORKER.fullmatch(worker or "")
    return (parts[1], int(parts[2])) if parts else (None, None)


def _exists(pid: int) -> bool:
    """Whether this host has a process of that number; it may be another one by now."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


class Reaper:
    """Reaps again and again in a thread, as a context manager; errors are logged, and it goes on.

    A child forked inside the `with` does not reap, and its leaving changes nothing.
    """

    def __init__(self, history: JobHistory, rule: Reaping, every: float | timedelta) -> None:
        self._history = history
        self._rule = rule
        self._every = min(seconds("every", every), threading.TIMEOUT_MAX)
        self._pid = os.getpid()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._reap_until_left, name="jobhistory reaper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() == self._pid:
            self._left.set()
            self._thread.join()

    def _reap_until_left(self) -> None:
        while not self._left.is_set():
            try:
                reap(self._history, self._rule, self._wait)
            except BaseException:  # noqa: BLE001  whatever a hook raises, as said
                _log.exception("reaping failed; it is tried again")
            self._left.wait(self._every)

    def _wait(self, duration: float) -> bool:
        """Wait, and say whether it was left; a sleep of the history's own may move its clock, so that is used."""
        if self._history.sleep is time.sleep:
            return self._left.wait(duration)
        self._history.sleep(min(duration, _LOOK_AT_LEAST_EVERY))
        return self._left.is_set()
