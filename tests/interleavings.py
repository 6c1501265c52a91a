"""Runs actors against one repository in every order of their calls to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from random import Random
from typing import Any

import attrs

from jobhistory import JobRepository, SyncJob

Log = list[tuple[str, SyncJob]]
"""Each write that succeeded, in order: who, and what."""


@attrs.define
class Actor:
    """One thread; it stands still before each call to the repository until it is told to go on."""

    name: str
    act: Callable[[JobRepository], object]
    result: Any = None
    error: BaseException | None = None
    done: bool = False
    _go: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    _stands: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))

    def start(self, threads: Executor, repository: JobRepository, log: Log) -> None:
        """Run it up to its first call."""
        gate: Any = Gate(repository, self, log)
        threads.submit(self._run, gate)
        self._stands.acquire()

    def step(self) -> None:
        """Run it up to its next call, or to its end."""
        self._go.release()
        self._stands.acquire()

    def stand(self) -> None:
        self._stands.release()
        self._go.acquire()

    def _run(self, gate: JobRepository) -> None:
        try:
            self.result = self.act(gate)
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.error = error
        self.done = True
        self._stands.release()


class Gate:
    """The repository as one actor sees it: each call waits for its turn, each write that succeeds is noted."""

    def __init__(self, repository: JobRepository, actor: Actor, log: Log) -> None:
        self._repository = repository
        self._actor = actor
        self._log = log

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  # whatever the port takes and gives
            self._actor.stand()
            result = getattr(self._repository, name)(*args, **options)
            if name in ("add", "replace"):
                self._log.append((self._actor.name, args[0]))
            return result

        return call


Scenario = Callable[[], tuple[JobRepository, list[Actor]]]
Choose = Callable[[int], int]
"""Which of so many waiting actors goes on."""


def every_interleaving(scenario: Scenario, *, at_most: int) -> Iterator[tuple[list[Actor], Log]]:
    """Each schedule's actors after their end, and what they wrote; depth first, and no more than `at_most`."""
    prefix: list[int] | None = []
    with ThreadPoolExecutor() as threads:
        for _ in range(at_most):
            if prefix is None:
                return
            choices: list[tuple[int, int]] = []

            def choose(options: int, prefix: list[int] = prefix, choices: list[tuple[int, int]] = choices) -> int:
                choice = prefix[len(choices)] if len(choices) < len(prefix) else 0
                choices.append((choice, options))
                return choice

            yield _played(scenario, threads, choose)
            prefix = _following(choices)


def some_interleavings(scenario: Scenario, *, number: int, seed: int) -> Iterator[tuple[list[Actor], Log]]:
    """As many schedules, each choice drawn at random: where there are too many, from all over, not from one end."""
    with ThreadPoolExecutor() as threads:
        draw = Random(seed).randrange  # noqa: S311  # no secret
        for _ in range(number):
            yield _played(scenario, threads, draw)


def _played(scenario: Scenario, threads: Executor, choose: Choose) -> tuple[list[Actor], Log]:
    repository, actors = scenario()
    log: Log = []
    for actor in actors:
        actor.start(threads, repository, log)
    while waiting := [actor for actor in actors if not actor.done]:
        waiting[choose(len(waiting))].step()
    return actors, log


def _following(choices: list[tuple[int, int]]) -> list[int] | None:
    """The next schedule in the order of depth first: the last choice that can be raised is raised."""
    for i in range(len(choices) - 1, -1, -1):
        choice, options = choices[i]
        if choice + 1 < options:
            return [taken for taken, _ in choices[:i]] + [choice + 1]
    return None
