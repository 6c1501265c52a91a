"""What tests of workers need: a clock that is set by hand, a Run that is driven by hand, a storage that fails."""

from __future__ import annotations

import os
import shutil
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

import attrs
import pytest

from jobhistory import JobHistory, JobRepository, StorageError, SyncJob, UnknownOutcomeError
from jobhistory.run import Run

CONNECTION = UUID(int=1)
START = datetime(2024, 3, 15, 12, tzinfo=UTC)
MULTITHREADED_FORK = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
Event = tuple[float, Callable[[], object]]
"""At which second what happens."""


@attrs.define
class Time:
    """Seconds since START; nobody waits for them. `offset` is what the wall clock is wrong by."""

    seconds: float = 0.0
    offset: float = 0.0
    slept: list[float] = attrs.field(factory=list)

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.seconds + self.offset)

    def monotonic(self) -> float:
        return 1000 + self.seconds  # it does not begin at nought

    def sleep(self, duration: float) -> None:
        self.slept.append(duration)
        self.seconds += duration

    def history(self, repository: JobRepository, **options: Any) -> JobHistory:  # noqa: ANN401  JobHistory's own
        return JobHistory(repository, clock=self.clock, monotonic=self.monotonic, sleep=self.sleep, **options)


class SteppedRun(Run):
    """A Run whose writer is no thread: `tick` is one step of it, `live` its whole life."""

    def _start(self) -> None:
        pass

    def tick(self) -> bool:
        return self._tick()

    def live(self, time: Time, until: float, *agenda: Event) -> None:
        """Let the writer write until that second; at some seconds something else happens."""
        coming = deque(sorted(agenda, key=itemgetter(0)))

        class Left:
            def wait(self, duration: float) -> bool:
                wakes = time.seconds + max(duration, 1e-6)  # some time goes by
                while coming and coming[0][0] <= min(wakes, until):
                    time.seconds, act = coming.popleft()
                    act()
                time.seconds = min(wakes, until)
                return wakes > until

        left, self._left = self._left, Left()  # type: ignore[assignment]
        try:
            self._write_until_left()
        finally:
            self._left = left


def counts(job: SyncJob) -> tuple[int, int, int, int]:
    return job.entities_inserted, job.entities_updated, job.entities_deleted, job.entities_failed


def stepped(history: JobHistory, **options: Any) -> SteppedRun:  # noqa: ANN401  Run's own
    job = history.enqueue(CONNECTION)
    return SteppedRun(history, lambda: job.id, **options)


class Troubled:
    """A repository that fails as it is told: each call of a method takes the next word meant for it.

    "fine": it works. "down": nothing is done. "lost": nothing is done, and the outcome is unknown. "landed":
    it is done, and the outcome is unknown.
    """

    def __init__(self, repository: JobRepository, **words: Iterable[str]) -> None:
        self._repository = repository
        self.words: defaultdict[str, deque[str]] = defaultdict(deque)
        for method, several in words.items():
            self.words[method].extend(several)
        self.landed: list[SyncJob] = []
        """Each version that was written, once."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._repository, name)

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  whatever the port takes and gives
            word = self.words[name].popleft() if self.words[name] else "fine"
            if word == "down":
                raise StorageError("there", "is down")
            if word == "lost":
                raise UnknownOutcomeError("there", "went silent")
            result = method(*args, **options)
            if name in ("add", "replace") and args[0] not in self.landed:
                self.landed.append(args[0])
            if word == "landed":
                raise UnknownOutcomeError("there", "went silent")
            return result

        return call


def forked(act: Callable[[], object]) -> str:
    """What `act` gives in a forked child, as text; its traceback where it raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = str(act())
        except BaseException:  # noqa: BLE001  a child must not run its parent's test
            said = traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def needed(what: str, way_out: str) -> str:
    """The program's path. A test whose program is missing is left out, but never in CI."""
    if (found := shutil.which(what, path=f"{os.environ['PATH']}:/usr/sbin")) is None:
        message = f"{what} is missing: {way_out}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return found
