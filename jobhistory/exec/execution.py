"""The job that a command runs as: what stops it, and what is recorded of its end."""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import attrs

from jobhistory.errors import JobCancelled, LostJobError, StorageError
from jobhistory.exec.counts import Counting, Reader, Report
from jobhistory.exec.group import NOT_EXECUTABLE, NOT_FOUND, SIGNALLED, STDERR, STDOUT, Events, Group, signal_name
from jobhistory.exec.passage import Tail, Write, write_all
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.recorder import Step
from jobhistory.run import Run
from jobhistory.status import JobStatus
from jobhistory.times import seconds

GRACE = 10.0
"""Seconds from being asked to stop to being killed."""
LINGER = 1.0
"""Seconds for which what the command left behind may still write."""
TAIL_CHARACTERS = 8 * 1024
"""How much of the end of standard error is kept."""

_FLUSH_INTERVAL = 1.0
_TICK = 0.2
_COMMAND_BYTES = 4 * 1024
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
_log = logging.getLogger("jobhistory")


class CommandFailed(Exception):  # noqa: N818  # how a job failed, in the job's words
    """How the command failed: the error and the details that its job is to have."""

    def __init__(self, error: str, details: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.error = error
        self.details = dict(details)


@attrs.frozen
class Stop:
    """That the command has to stop: by which signal, and what its job is to say then."""

    signal: int
    reason: str | None = None
    """Why it is CANCELLED, where that is known."""
    failure: str | None = None
    """Why it FAILED, if it did."""


def _timeout(value: float | timedelta | None) -> float | None:
    return None if value is None else seconds("timeout", value)


def _grace(value: float | timedelta) -> float:
    return seconds("grace", value)


@attrs.define(kw_only=True, eq=False)
class Execution:
    """A command and the job it runs as.

    Args:
        history: where the job is recorded.
        source_connection_id: whose job it is.
        command: the program and its arguments; no shell reads them.
        url: the history's, absolute; the command gets it as JOBHISTORY_URL.
        exclusive: refuse to run beside another unfinished job of the connection.
        metadata: the job's; the command's text is added to it.
        timeout: seconds or timedelta after which it is stopped, and its job FAILED.
        grace: seconds or timedelta from being asked to stop to being killed.
        reader: reads counts from its standard output.
        through: writes what passes through; given, standard output passes through where it is a terminal.
    """

    history: JobHistory
    source_connection_id: UUID
    command: Sequence[str]
    url: str | None = None
    exclusive: bool = False
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    timeout: float | None = attrs.field(default=None, converter=_timeout)
    grace: float = attrs.field(default=GRACE, converter=_grace)
    reader: Reader | None = None
    through: Write | None = None
    _tail: Tail = attrs.field(factory=lambda: Tail(TAIL_CHARACTERS), init=False)
    _run: Run | None = attrs.field(default=None, init=False)

    @property
    def job(self) -> SyncJob | None:
        """The job as it was last read or written, None before it runs."""
        return None if self._run is None else self._run.job

    def execute(self) -> int:
        """Run the command to its end, and give its exit code: 128 + n where signal n killed it.

        Where it was stopped and exits with 0 all the same, that is 128 + the signal that it was sent. Only the
        main thread can do this, and once; SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGTSTP then go to the command.

        A history that fails once the job runs, or has it ended by another, is logged, and the command goes on.
        How it ended is tried to be written for a minute; a signal that comes then leaves one try more.
        Before, it raises what `track` raises, ActiveJobExistsError among it; OSError where there is no room
        for a report.
        """
        code = -1
        events: Events = SimpleQueue()
        try:
            with (
                TemporaryDirectory(prefix="jobhistory-", ignore_cleanup_errors=True) as folder,
                _signals(events.put),
                _CommandRun(self.history, self._enqueue, flush_interval=_FLUSH_INTERVAL) as run,
            ):
                self._run = run
                code, problem = self._outcome(run, events, Path(folder, "report"))
                if problem is not None:
                    raise problem
        except (CommandFailed, KeyboardInterrupt):
            pass  # recorded, or logged that it is not
        except (LostJobError, StorageError) as error:
            if code < 0:
                raise
            _log.warning("how the command ended is not recorded: %s", error)
        return code

    def _enqueue(self) -> UUID:
        metadata = {"command": self.history.redacted_text(shlex.join(self.command), _COMMAND_BYTES), **self.metadata}
        return self.history.enqueue(self.source_connection_id, exclusive=self.exclusive, metadata=metadata).id

    def _outcome(self, run: Run, events: Events, path: Path) -> tuple[int, BaseException | None]:
        """Run it; the exit code, and what the Run is to be left with."""
        came = [events.get() for _ in range(events.qsize())]
        for number in came:
            if number is not None and number != signal.SIGTSTP:  # asked to stop while the history kept us waiting
                return SIGNALLED + number, JobCancelled(run.job.id, signal_name(number))
            events.put(number)
        environment = {"JOBHISTORY_JOB_ID": str(run.job.id), "JOBHISTORY_REPORT": str(path)}
        if self.url is not None:
            environment["JOBHISTORY_URL"] = self.url
        sees: dict[int, Callable[[bytes], object]] = {STDERR: self._tail.see}
        with ExitStack() as opened:
            if self.reader is not None:
                output = opened.enter_context(closing(Counting(self.reader, run.report, "standard output")))
                sees[STDOUT] = output.feed
            elif self.through is not None and os.isatty(STDOUT):
                sees[STDOUT] = len  # nobody reads it: it passes for the terminal's sake
            report = opened.enter_context(closing(Report(path, run.report)))
            try:
                group = Group(self.command, environment, sees, write=self.through or write_all, events=events)
            except OSError as error:
                code = NOT_FOUND if isinstance(error, (FileNotFoundError, NotADirectoryError)) else NOT_EXECUTABLE
                failure = f"{self.command[0]} cannot be run: {error.strerror}"
                _log.error("%s", failure)
                return code, CommandFailed(failure, {"exit_code": code})
            with closing(group):
                watch = Watch(self, run, group, report, events)
                watch.until_the_end()
        return self._judged(run, group, watch.stop)

    def _judged(self, run: Run, group: Group, stop: Stop | None) -> tuple[int, BaseException | None]:
        code = group.exit_code
        if stop is not None:
            code = code or SIGNALLED + stop.signal
            if stop.failure is None:
                return code, JobCancelled(run.job.id, stop.reason)
        if code == 0:
            return code, None
        if stop is not None:
            error = f"{group.program} {stop.failure}"
            _log.error("%s", error)
        elif group.killed_by:
            error = f"{group.program} was killed by {group.killed_by}"
        else:
            error = f"{group.program} exited with {code}"
        details = {
            "exit_code": code,
            "signal": group.killed_by,
            "stderr": self._tail.text(self.history.without_secrets),
        }
        return code, CommandFailed(error, {name: value for name, value in details.items() if value})


class Watch:
    """Waits for a command, and stops it when that is asked."""

    def __init__(self, execution: Execution, run: Run, group: Group, report: Report, events: Events) -> None:
        self.stop: Stop | None = None
        self._run = run
        self._group = group
        self._report = report
        self._events = events
        self._now = execution.history.monotonic
        self._timeout = execution.timeout
        self._timeout_at = math.inf if execution.timeout is None else self._now() + execution.timeout
        self._grace = execution.grace
        self._kill_at = math.inf

    def until_the_end(self) -> None:
        """Return when the command has ended, and what it wrote has passed."""
        group, now = self._group, self._now
        self._wait(lambda: group.ended)
        while not self._events.empty():  # what came with its end, or before
            self._heed(self._events.get())
        if self.stop is not None:
            self._wait(lambda: not group.lives or now() >= self._kill_at + LINGER)
        group.let_go()
        linger_until = now() + LINGER
        self._wait(lambda: not group.passing or now() >= linger_until)
        group.hang_up()
        # Whoever reads us may take its time; only a stop gives up on that.
        self._wait(lambda: not group.passing or (self.stop is not None and now() >= linger_until + LINGER))

    def _wait(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            self._report.read()
            if self.stop is None and (stop := self._asked()):
                self._begin(stop)
            if self._now() >= self._kill_at:
                self._group.send(signal.SIGKILL)
            with suppress(Empty):
                self._heed(self._events.get(timeout=_TICK))

    def _heed(self, event: int | None) -> None:
        if event == signal.SIGTSTP:
            self._group.suspend()
        elif event is not None:
            self._begin(Stop(event, reason=signal_name(event)))

    def _asked(self) -> Stop | None:
        """The stop that the time or the job asks for."""
        if self._now() >= self._timeout_at:
            return Stop(signal.SIGTERM, failure=f"timed out after {self._timeout:.10g} s")
        try:
            self._run.raise_if_cancelled()
        except JobCancelled:
            return Stop(signal.SIGTERM)
        except LostJobError as lost:
            # Reaped, or ended by the command itself: the sync does not fail of that.
            is_cancelled = lost.job is not None and lost.job.status is JobStatus.CANCELLED
            return Stop(signal.SIGTERM) if is_cancelled else None
        return None

    def _begin(self, stop: Stop) -> None:
        self._group.send(stop.signal)
        if self.stop is None:
            self.stop = stop
            self._kill_at = self._now() + self._grace
            if stop.failure is None:
                self._run.request_cancel(stop.reason)


class _CommandRun(Run):
    """A Run that records a CommandFailed in its own words, and that a signal keeps from trying on and on."""

    def _write_to_the_end(self, step: Step, within: float) -> None:
        with _signals(_interrupt) if within else nullcontext():  # the last try is let be
            super()._write_to_the_end(step, within)

    def _ending(self, error: BaseException | None, causes: list[BaseException]) -> Step:
        if not isinstance(error, CommandFailed):
            return super()._ending(error, causes)
        at = self._now()
        end = partial(
            SyncJob.fail,
            at=at,
            error=self._history.redacted_text(error.error),
            error_details=self._history.redacted(error.details),
            duration_seconds=self._claim.lasted(),
        )
        return lambda job: attrs.evolve(end(self._with_totals(job, at)), version=job.version + 1)


@contextmanager
def _signals(receive: Callable[[int], object]) -> Iterator[None]:
    """The signals that mean the command are received, save those that are ignored here, as under nohup."""
    before: dict[int, Any] = {}
    try:
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # then nobody is told how a command ended (wait(2))
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for passed_on in _PASSED_ON:
            if signal.getsignal(passed_on) is not signal.SIG_IGN:
                before[passed_on] = signal.signal(passed_on, lambda number, _frame: receive(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int) -> None:
    if number != signal.SIGTSTP:
        raise KeyboardInterrupt
