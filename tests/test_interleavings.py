"""Worker, second worker, canceller and reaper, in every order of their calls to the repository, or in many."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

import attrs
import pytest

from jobhistory import (
    InvalidTransitionError,
    JobHistory,
    JobRepository,
    JobStatus,
    LostJobError,
    StorageError,
    SyncJob,
    UnknownOutcomeError,
)
from jobhistory.reaping import Reaping, reap
from jobhistory.run import Run
from jobhistory.storage.memory import InMemoryJobRepository
from tests.interleavings import Actor, Log, Scenario, Trouble, every_interleaving, some_interleavings, stand

CONNECTION = UUID(int=1)
AT_MOST = 5_000
EVERY = partial(every_interleaving, at_most=100_000)
AT_ONCE = Reaping(silent_for=0, confirm_for=0)


class SteppedRun(Run):
    """A Run whose writer takes its steps when it is told to."""

    def _start(self) -> None:
        pass

    def tick(self) -> None:
        self._tick()


def work(job: SyncJob, *, ticks: int = 1, fails: bool = False) -> Callable[[JobRepository], SteppedRun]:
    """A worker's whole life: claim, count, let the writer write, count again, end."""

    def act(repository: JobRepository) -> SteppedRun:
        run = SteppedRun(JobHistory(repository), lambda: job.id, worker="host")
        with run:
            for _ in range(ticks):
                run.report(inserted=1)
                run.tick()
            run.report(inserted=1)
            if fails:
                raise ZeroDivisionError
        return run

    return act


def cancel(job: SyncJob) -> Callable[[JobRepository], SyncJob]:
    return lambda repository: JobHistory(repository).cancel(job.id)


def reap_at_once(repository: JobRepository) -> list[SyncJob]:
    """A reaper to whom every running job looks silent."""
    history = JobHistory(repository)
    later = JobHistory(repository, clock=lambda: history.clock().replace(year=2999))
    return reap(later, AT_ONCE, lambda _: False)


SCENARIOS: dict[str, Callable[[SyncJob], list[Actor]]] = {
    "a worker and a canceller": lambda job: [Actor("worker", work(job)), Actor("canceller", cancel(job))],
    "a worker and a reaper": lambda job: [Actor("worker", work(job)), Actor("reaper", reap_at_once)],
    "two workers": lambda job: [Actor("worker", work(job)), Actor("second worker", work(job))],
    "two reapers and a worker": lambda job: [
        Actor("worker", work(job, ticks=0)),
        Actor("reaper", reap_at_once),
        Actor("second reaper", reap_at_once),
    ],
    "a worker, a canceller and a reaper": lambda job: [
        Actor("worker", work(job, ticks=0)),
        Actor("canceller", cancel(job)),
        Actor("reaper", reap_at_once),
    ],
    "a failing worker, a canceller and a reaper": lambda job: [
        Actor("worker", work(job, ticks=0, fails=True)),
        Actor("canceller", cancel(job)),
        Actor("reaper", reap_at_once),
    ],
}
ALL_FOUR: Callable[[SyncJob], list[Actor]] = lambda job: [  # noqa: E731  # reads as the scenarios do
    Actor("worker", work(job)),
    Actor("second worker", work(job, ticks=0)),
    Actor("canceller", cancel(job)),
    Actor("reaper", reap_at_once),
]


def check(repository: JobRepository, job: SyncJob, actors: list[Actor], log: Log) -> None:
    """What must hold after every schedule."""
    writes = [written for _, written in log if written.id == job.id]
    assert list(range(2, len(writes) + 2)) == [w.version for w in writes], "each write has one predecessor"
    assert not [w for w in writes[:-1] if w.is_terminal], "a finished job never changes"
    stored = repository.get(job.id)
    assert writes[-1] == stored

    workers = [actor for actor in actors if "worker" in actor.name]
    claims = [w for w in writes if w.status is JobStatus.RUNNING and w.heartbeat_at is None]
    assert len(claims) <= 1, "one claim wins"
    owners = {w.worker for w in writes if w.worker is not None}
    assert len(owners) <= 1, "a job has one worker"

    for actor in workers:
        match actor.error:
            case None:
                if actor.result.job.status is JobStatus.CANCELLED:
                    assert JobStatus.CANCELLED is stored.status
                else:
                    assert actor.result.job == stored, "a worker that ended in peace ended its job"
            case LostJobError():
                assert all(name != actor.name for name, w in log if w.is_terminal), "the loser's end never lands"
            case InvalidTransitionError():
                assert all(name != actor.name for name, _ in log), "who could not claim wrote nothing"
            case ZeroDivisionError():
                pass
            case _:
                raise actor.error
    for actor in actors:
        if actor.name == "canceller" and actor.error is None:
            cancelled = stored.status is JobStatus.CANCELLED or stored.cancel_requested_at is not None
            assert cancelled, "a cancel that was acknowledged is not lost"
        if "worker" not in actor.name and not isinstance(actor.error, InvalidTransitionError | None):
            raise actor.error


def run_scenario(
    repository: JobRepository,
    scenario: Callable[[SyncJob], list[Actor]],
    schedules: Callable[[Scenario], Iterator[tuple[list[Actor], Log]]] = EVERY,
) -> list[str]:
    """Play the schedules and check each; who wrote first in each of them."""
    repository.register(CONNECTION)
    history = JobHistory(repository)
    jobs: list[SyncJob] = []
    first: list[str] = []

    def begin() -> tuple[JobRepository, list[Actor]]:
        jobs.append(history.enqueue(CONNECTION))
        return repository, scenario(jobs[-1])

    for actors, log in schedules(begin):
        job = jobs[-1]
        first.append(log[0][0])
        check(repository, job, actors, log)
        leave_nothing(repository, job)
    return first


def leave_nothing(repository: JobRepository, job: SyncJob) -> None:
    """What a schedule leaves unfinished is no suspect of the next one's reaper."""
    for left in repository.active_jobs():
        JobHistory(repository).fail(left.id, error="left behind")
    repository.delete_many([job.id])


@pytest.mark.parametrize(
    ("repository", "scenario"),
    [
        pytest.param(backend, scenario, marks=[pytest.mark.slow] if backend == "postgres" and "," in scenario else [])
        for backend in ("memory", "sqlite", "postgres")
        for scenario in SCENARIOS
    ],
    indirect=["repository"],
)
def test_no_order_of_calls_breaks_a_jobs_story(repository: JobRepository, scenario: str) -> None:
    schedules = run_scenario(repository, SCENARIOS[scenario], partial(every_interleaving, at_most=AT_MOST))
    assert 10 <= len(schedules) < AT_MOST, "every order was tried"


@pytest.mark.slow
def test_no_order_of_the_calls_of_all_four_breaks_a_jobs_story(repository: JobRepository) -> None:
    schedules = run_scenario(repository, ALL_FOUR)
    assert 1_000 <= len(schedules) < 100_000, "every order was tried"


@pytest.mark.parametrize("number", [300, pytest.param(40_000, marks=pytest.mark.slow)])
def test_no_order_drawn_of_the_calls_of_all_four_breaks_a_jobs_story(repository: JobRepository, number: int) -> None:
    first = run_scenario(repository, ALL_FOUR, partial(some_interleavings, number=number, seed=number))
    assert {"worker", "second worker", "canceller"} == set(first), "a cancel may come before any claim"


# ---- Inside of one Run: the user's thread, the writer, a signal, a fork, and a storage that fails


class Worker:
    """One Run: a user's thread, which counts and leaves, and the writer's, which ticks meanwhile."""

    def __init__(self, job: SyncJob) -> None:
        self.job = job
        self.run: TwoThreadedRun | None = None

    def use(self, repository: JobRepository) -> TwoThreadedRun:
        history = JobHistory(repository, sleep=lambda _: None)
        self.run = run = TwoThreadedRun(history, lambda: self.job.id, worker="host")
        try:
            return self._count(run)
        except StorageError:
            if run._claim.stored is not None:
                raise
        return self._count(run)  # where entering raised, it may be tried again

    def _count(self, run: TwoThreadedRun) -> TwoThreadedRun:
        with run:
            run.report(inserted=1)
            run.flush()
            fork = copy.copy(run)
            fork._pid = -1  # what a child of this process finds
            fork.__exit__(None, None, None)
            run.report(inserted=1)
        return run

    def write(self, _: JobRepository) -> None:
        """The writer's thread: what Run._write_until_left does, so many times."""
        stand("begin", until=lambda: self.run is not None)
        assert self.run is not None
        try:
            for _tick in range(2):
                stand("wait")
                if self.run._left.is_set() or self.run._claim.lost is not None:
                    break
                if self.run._claim.stored is not None:
                    self.run._tick()
        finally:
            self.run.writer_ended = True

    def ask_to_stop(self, _: JobRepository) -> None:
        """What a handled SIGTERM does, between any two calls."""
        stand("SIGTERM", until=lambda: self.run is not None)
        assert self.run is not None
        self.run.request_cancel("SIGTERM")


class TwoThreadedRun(Run):
    """A Run whose writer is an actor of its own; leaving waits for it, as it does for the thread."""

    writer_ended = False

    def _start(self) -> None:
        pass

    def _leave(self) -> None:
        super()._leave()
        stand("join", until=lambda: self.writer_ended)


BESIDE: dict[str, Callable[[Worker], Actor]] = {
    "canceller": lambda worker: Actor("canceller", cancel(worker.job)),
    "reaper": lambda _: Actor("reaper", reap_at_once),
    "signal": lambda worker: Actor("signal", worker.ask_to_stop),
}
TROUBLES: dict[str, Callable[[], BaseException]] = {
    "the storage fails": lambda: StorageError("history.db", "no space left"),
    "the outcome is unknown": lambda: UnknownOutcomeError("history.db", "the connection was lost"),
    "Ctrl-C": KeyboardInterrupt,
}
UNCLEAR = ("the outcome is unknown", "Ctrl-C")


def check_one_run(repository: JobRepository, one: Worker, actors: list[Actor], log: Log) -> None:
    """What must hold after every schedule of the threads of one Run."""
    worker, *others = actors
    job = one.job
    writes = [written for _, written in log if written.id == job.id]
    stored = repository.get(job.id)
    assert list(range(2, len(writes) + 2)) == [w.version for w in writes], "each write has one predecessor"
    assert not [w for w in writes[:-1] if w.is_terminal], "a finished job never changes"
    assert stored == (writes[-1] if writes else job)
    for actor in others:
        assert actor.error is None or isinstance(actor.error, InvalidTransitionError), actor.name
        if actor.name == "canceller" and actor.error is None:
            cancelled = stored.status is JobStatus.CANCELLED or stored.cancel_requested_at is not None
            assert cancelled, "a cancel that was acknowledged is not lost"

    run = one.run
    assert run is not None
    ours = stored.is_terminal and log[-1][0] in ("worker", "writer")
    match worker.error:
        case InvalidTransitionError() if run._claim.stored is None:
            # A claim of which it did not learn may have landed, and been ended by others.
            claims = [job for name, job in log if name not in ("canceller", "reaper")]
            assert len(claims) <= bool(worker.trouble and worker.trouble.landed), "who could not claim wrote nothing"
            assert not ours
        case LostJobError():
            assert not ours, "the loser's end never lands"
        case KeyboardInterrupt() | StorageError() if run._claim.stored is None:
            assert not stored.is_terminal or not ours
        case KeyboardInterrupt() | StorageError() | None:
            assert stored.is_terminal, "its end is recorded, whatever came between"
            if ours:
                assert run._totals[0] == stored.entities_inserted, "no count is lost"
        case _:
            raise worker.error


def play_one_run(repository: JobRepository, beside: tuple[str, ...], trouble: Trouble | None) -> int:
    """Play every schedule of one Run's threads, with others beside them; how many there were."""
    repository.register(CONNECTION)
    history = JobHistory(repository)
    workers: list[Worker] = []

    def begin() -> tuple[JobRepository, list[Actor]]:
        worker = Worker(history.enqueue(CONNECTION))
        workers.append(worker)
        others = [BESIDE[name](worker) for name in beside]
        return repository, [Actor("worker", worker.use, trouble), Actor("writer", worker.write), *others]

    for actors, log in EVERY(begin):
        check_one_run(repository, workers[-1], actors, log)
        leave_nothing(repository, workers[-1].job)
    return len(workers)


@pytest.mark.parametrize(
    "beside",
    [
        (),
        ("canceller",),
        ("reaper",),
        ("signal",),
        pytest.param(("canceller", "reaper"), marks=pytest.mark.slow),
        pytest.param(("canceller", "signal"), marks=pytest.mark.slow),
    ],
)
def test_no_order_of_a_runs_own_threads_breaks_its_story(beside: tuple[str, ...]) -> None:
    assert 10 <= play_one_run(InMemoryJobRepository(), beside, None) < 100_000


@pytest.mark.parametrize("beside", [(), *(pytest.param((name,), marks=pytest.mark.slow) for name in BESIDE)])
@pytest.mark.parametrize(
    ("trouble", "landed"),
    [("the storage fails", False), *((trouble, landed) for trouble in UNCLEAR for landed in (False, True))],
)
def test_no_trouble_at_any_call_of_a_run_breaks_its_story(
    beside: tuple[str, ...], trouble: str, *, landed: bool
) -> None:
    repository = InMemoryJobRepository()
    schedules = [play_one_run(repository, beside, Trouble(call, TROUBLES[trouble], landed)) for call in range(8)]
    assert 50 <= sum(schedules), "every order was tried"


class Racy(InMemoryJobRepository):
    """Reads, checks and writes without comparing: what a team builds first."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:
        stored = self.get(job.id)
        super().replace(attrs.evolve(job, version=stored.version + 1) if not stored.is_terminal else job, quiet=quiet)


class Overwriting(InMemoryJobRepository):
    """Writes whatever comes."""

    def replace(self, job: SyncJob, *, quiet: bool = False) -> None:  # noqa: ARG002  # the port's signature
        self._jobs[job.id] = job


@pytest.mark.parametrize("broken", [Racy, Overwriting])
def test_a_racy_repository_is_caught_by_the_same_check(broken: type[InMemoryJobRepository]) -> None:
    with pytest.raises(AssertionError):
        _run_all(broken)


@pytest.mark.parametrize("broken", [Racy, Overwriting])
def test_a_racy_repository_is_caught_between_a_runs_own_threads_too(broken: type[InMemoryJobRepository]) -> None:
    with pytest.raises(AssertionError):
        play_one_run(broken(), ("reaper",), None)


def _run_all(broken: type[InMemoryJobRepository]) -> None:
    for scenario in SCENARIOS.values():
        run_scenario(broken(), scenario)
