"""Runs actors against one repository in every order of their calls to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from random import Random
from typing import Any

import attrs

from jobhistory import ConflictError, JobRepository, SyncJob

Log = list[tuple[str, SyncJob]]
"""Each write that succeeded, in order: who, and what."""


def _always() -> bool:
    return True


@attrs.define(eq=False)
class Actor:
    """One thread; it stands still before each call to the repository until it is told to go on."""

    name: str
    act: Callable[[JobRepository], object]
    trouble: Trouble | None = None
    result: Any = None
    error: BaseException | None = None
    done: bool = False
    calls: list[tuple[str, object]] = attrs.field(factory=list)
    """What it called, and what it saw."""
    ready: Callable[[], bool] = _always
    _go: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    _stands: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))

    def start(self, threads: Executor, repository: JobRepository, log: Log) -> None:
        """Run it up to its first call."""
        gate: Any = Gate(repository, log)
        threads.submit(self._run, gate)
        self._stands.acquire()

    def step(self) -> None:
        """Run it up to its next call, or to its end."""
        self._go.release()
        self._stands.acquire()

    def stand(self, until: Callable[[], bool] = _always) -> None:
        self.ready = until
        self._stands.release()
        self._go.acquire()

    def _run(self, gate: JobRepository) -> None:
        _this_thread.actor = self
        try:
            self.result = self.act(gate)
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.error = error
        self.done = True
        self._stands.release()


_this_thread = threading.local()


def stand(what: str, until: Callable[[], bool] = _always) -> None:
    """Let the others go on, until it is this actor's turn again and `until` holds: for steps that are no calls."""
    actor: Actor = _this_thread.actor
    actor.stand(until)
    actor.calls.append((what, None))


@attrs.frozen
class Trouble:
    """What comes out of an actor's call in place of its result: before it reached the storage, or behind it."""

    call: int
    error: Callable[[], BaseException]
    landed: bool


class Gate:
    """The repository as the actors see it: each call waits for its turn, each write that succeeds is noted."""

    def __init__(self, repository: JobRepository, log: Log) -> None:
        self._repository = repository
        self._log = log

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  # whatever the port takes and gives
            actor: Actor = _this_thread.actor
            actor.stand()
            trouble = actor.trouble if actor.trouble and actor.trouble.call == len(actor.calls) else None
            if trouble and not trouble.landed:
                actor.calls.append((name, "trouble"))
                raise trouble.error()
            try:
                result = getattr(self._repository, name)(*args, **options)
            except Exception as error:
                actor.calls.append((name, _seen(error)))
                raise
            actor.calls.append((name, _seen(result)))
            if name in ("add", "replace") and all(args[0] != written for _, written in self._log):  # else a replay
                self._log.append((actor.name, args[0]))
            if trouble:
                raise trouble.error()
            return result

        return call


def _seen(result: object) -> object:
    """What a call tells, times aside: after the same writes, a version is a record."""
    match result:
        case SyncJob():
            return result.version
        case list():
            return tuple(map(_seen, result))
        case ConflictError():
            return type(result), result.stored.version
        case Exception():
            return type(result)
        case _:
            return None


Scenario = Callable[[], tuple[JobRepository, list[Actor]]]
Choose = Callable[[list[Actor], Log], int]
"""Which of the waiting actors goes on."""


def every_interleaving(scenario: Scenario, *, at_most: int) -> Iterator[tuple[list[Actor], Log]]:
    """Each schedule's actors after their end, and what they wrote; depth first, and no more than `at_most`.

    Of schedules that come to the same point (the same writes were made, and each actor saw the same of them) what
    follows is the same: it is played for one of them only. So the orders of calls that commute are played once.
    """
    passed: set[object] = set()
    ahead: list[list[int]] = [[]]
    with ThreadPoolExecutor() as threads:
        for _ in range(at_most):
            if not ahead:
                return
            prefix = ahead.pop()
            taken: list[int] = []

            def choose(actors: list[Actor], log: Log, prefix: list[int] = prefix, taken: list[int] = taken) -> int:
                waiting = _waiting(actors)
                if len(taken) < len(prefix):
                    choice = prefix[len(taken)]
                else:
                    choice = 0
                    point = _point(actors, log)
                    if point not in passed:
                        passed.add(point)
                        ahead.extend([*taken, other] for other in range(1, len(waiting)))
                taken.append(choice)
                return choice

            yield _played(scenario, threads, choose)


def some_interleavings(scenario: Scenario, *, number: int, seed: int) -> Iterator[tuple[list[Actor], Log]]:
    """As many schedules, each choice drawn at random: nothing is taken to be the same."""
    with ThreadPoolExecutor() as threads:
        dice = Random(seed)  # noqa: S311  # no secret
        for _ in range(number):
            yield _played(scenario, threads, lambda actors, _: dice.randrange(len(_waiting(actors))))


def _played(scenario: Scenario, threads: Executor, choose: Choose) -> tuple[list[Actor], Log]:
    repository, actors = scenario()
    log: Log = []
    for actor in actors:
        actor.start(threads, repository, log)
    while waiting := _waiting(actors):
        waiting[choose(actors, log)].step()
    assert all(actor.done for actor in actors), "nobody waits for ever"
    return actors, log


def _waiting(actors: list[Actor]) -> list[Actor]:
    return [actor for actor in actors if not actor.done and actor.ready()]


def _point(actors: list[Actor], log: Log) -> object:
    """All that what follows depends on."""
    written = tuple((name, job.status, job.version) for name, job in log)
    return written, tuple((tuple(actor.calls), actor.done) for actor in actors)
