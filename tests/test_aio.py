"""AsyncJobHistory: the same methods, on asyncio and on trio; no write is abandoned."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, assert_type
from uuid import UUID

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

import jobhistory
from jobhistory import (
    Change,
    InvalidTransitionError,
    JobCancelled,
    JobHistory,
    JobNotFoundError,
    JobRepository,
    JobStatus,
    LostJobError,
    Retention,
    SourceConnection,
    StorageError,
    SyncJob,
    UnknownOutcomeError,
    aio,
)
from jobhistory.aio import THREADS, AsyncJobHistory, AsyncRun
from jobhistory.storage.memory import InMemoryJobRepository
from tests.workers import CONNECTION, START, Time, Troubled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def history(repository: JobRepository) -> AsyncJobHistory:
    return AsyncJobHistory(JobHistory(repository))


class Held(Troubled):
    """A repository that holds one call of a method until it is let go."""

    def __init__(self, method: str) -> None:
        super().__init__(InMemoryJobRepository())
        self._repository.register(CONNECTION)
        self._held = [method]
        self.reached = threading.Event()
        self.go = threading.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = super().__getattr__(name)

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401  whatever the port takes and gives
            if name in self._held:
                self._held.remove(name)
                self.reached.set()
                assert self.go.wait(60)
            return method(*args, **options)

        return call

    async def reach(self) -> None:
        assert await anyio.to_thread.run_sync(self.reached.wait, 60)


async def soon(condition: Callable[[], bool]) -> None:
    """Let the others run until it holds."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110  nobody tells
            await anyio.sleep(0.001)


async def report_until_cancelled(run: AsyncRun) -> None:
    with anyio.fail_after(60):
        while True:
            run.report(inserted=1)
            await anyio.sleep(0.001)


async def cancelled_while_held(held: Held, act: Callable[[], Any], by: str) -> bool:
    """Cancel a task while its call is held in the repository, and say whether the task was cancelled."""
    cancelled = False
    waiting = True

    async def work() -> None:
        nonlocal cancelled, waiting
        try:
            await act()
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            cancelled = True
            raise
        finally:
            waiting = False

    if by != "scope":
        others = asyncio.all_tasks()
        task = asyncio.create_task(work())
        await held.reach()
        for _ in range(3):
            for each in asyncio.all_tasks() - others if by == "all tasks" else [task]:
                each.cancel()
            await asyncio.sleep(0)
        assert waiting, "it waits for its write"
        held.go.set()
        await asyncio.wait([task])
    else:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await held.reach()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    await anyio.lowlevel.cancel_shielded_checkpoint()
                assert waiting, "it waits for its write"
                held.go.set()
    return cancelled


# asyncio.run cancels all tasks there are, also those that anyio made, and so do services that shut down.
BY_WHOM = pytest.mark.parametrize(
    ("anyio_backend", "by"),
    [("asyncio", "scope"), ("asyncio", "task"), ("asyncio", "all tasks"), ("trio", "scope")],
    ids=str,
)


# ---- The same methods

NO_IO = {"redacted", "redacted_text", "without_secrets"}
"""Methods of JobHistory that touch no storage: those of `history.history` will do."""
RENAMED = {"Run": "AsyncRun", "Reaper": "AsyncReaper", "Iterator[SyncJob]": "AsyncIterator[SyncJob]"}


def public(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(public(JobHistory).keys() - NO_IO))
def test_every_method_has_the_signature_of_its_model(name: str) -> None:
    model, method = inspect.signature(getattr(JobHistory, name)), inspect.signature(getattr(AsyncJobHistory, name))
    assert model.parameters == method.parameters
    returned = model.return_annotation
    assert method.return_annotation in (returned, RENAMED.get(returned))
    plain = name in ("run", "track", "reaper")
    iterates = name == "iter_jobs"
    assert (not plain and not iterates) == inspect.iscoroutinefunction(getattr(AsyncJobHistory, name))
    assert iterates == inspect.isasyncgenfunction(getattr(AsyncJobHistory, name))
    assert inspect.getdoc(getattr(AsyncJobHistory, name))


def test_there_are_no_other_methods() -> None:
    assert public(JobHistory).keys() - NO_IO == public(AsyncJobHistory).keys()


async def test_a_run_has_the_methods_and_signatures_of_its_model(history: AsyncJobHistory) -> None:
    run = history.track(CONNECTION)
    model = history.history.track(CONNECTION)
    names = {name for name in dir(model) if not name.startswith("_")}
    assert names == {name for name in dir(run) if not name.startswith("_")}
    for name in names - {"job", "cancelled", "worker"}:
        assert inspect.signature(getattr(model, name)) == inspect.signature(getattr(run, name))


async def typed(history: AsyncJobHistory) -> None:  # read by mypy alone
    """What a type checker makes of it."""
    assert_type(await history.register(CONNECTION, "name"), SourceConnection)
    assert_type(await history.enqueue(CONNECTION, exclusive=True), SyncJob)
    assert_type(await history.list_jobs(CONNECTION, limit=3), list[SyncJob])
    assert_type(await history.newest_jobs(), dict[UUID, list[SyncJob]])
    assert_type(await history.wait_for_changes("1", timeout=3), list[Change])
    assert_type(history.iter_jobs(CONNECTION), AsyncIterator[SyncJob])
    async with history.run(CONNECTION, flush_interval=3) as run:
        assert_type(run, AsyncRun)
        assert_type(run.report(inserted=1), None)
    await history.get(3)  # type: ignore[arg-type]
    await history.list_jobs(CONNECTION, limi=3)  # type: ignore[call-arg]
    history.run(CONNECTION, flush=3)  # type: ignore[call-arg]


async def test_every_method_does_what_its_model_does(history: AsyncJobHistory) -> None:
    assert SourceConnection(CONNECTION, "name") == await history.register(CONNECTION, "name")
    assert [SourceConnection(CONNECTION, "name")] == await history.connections()
    job = await history.enqueue(str(CONNECTION), metadata={"cursor": 7})
    assert {"cursor": 7} == job.metadata
    assert job == await history.enqueue(CONNECTION, job_id=job.id, metadata={"cursor": 7})
    assert job == await history.get(str(job.id))
    started = await history.start(job.id, worker="me")
    assert "me" == started.worker
    assert 3 == (await history.report(job.id, inserted=3)).entities_inserted
    assert (await history.beat(job.id)).heartbeat_at
    assert JobStatus.CANCELLING is (await history.cancel(job.id)).status
    assert "why" == (await history.finish_cancel(job.id, reason="why")).error
    second = await history.start((await history.enqueue(CONNECTION)).id)
    assert [second] == await history.active_jobs(statuses={JobStatus.RUNNING})
    assert JobStatus.COMPLETED is (await history.complete(second.id, duration_seconds=3)).status
    third = await history.enqueue(CONNECTION)
    assert "broken" == (await history.fail(third.id, error="broken")).error
    assert [third.id, second.id, job.id] == [j.id for j in await history.list_jobs(CONNECTION)]
    assert {CONNECTION: 3} == {id: len(jobs) for id, jobs in (await history.newest_jobs(per_connection=9)).items()}
    assert {job.id, second.id, third.id} == {change.job.id for change in await history.changes()}
    fourth = SyncJob(id=UUID(int=4), source_connection_id=CONNECTION, created_at=START)
    await history.add_many([fourth])
    await history.replace(fourth.cancel(at=START))
    with pytest.raises(JobNotFoundError):
        await history.get(UUID(int=5))
    with pytest.raises(InvalidTransitionError):
        await history.start(fourth.id)
    assert 4 - 2 == (await history.prune(Retention(keep_last=1), [CONNECTION])).deleted
    await history.forget(CONNECTION)
    assert [] == await history.connections()
    await history.close()
    with pytest.raises(StorageError, match="is closed"):
        await history.connections()


async def test_iter_jobs_reads_page_by_page(history: AsyncJobHistory) -> None:
    jobs = [
        SyncJob(id=UUID(int=i), source_connection_id=CONNECTION, created_at=START + timedelta(seconds=i))
        for i in range(1, 2_003)
    ]
    await history.add_many(jobs)
    assert jobs[::-1] == [job async for job in history.iter_jobs(CONNECTION)]
    assert jobs[9::-1] == [job async for job in history.iter_jobs(CONNECTION, before=jobs[10])]
    assert [] == [job async for job in history.iter_jobs(CONNECTION, statuses={JobStatus.FAILED})]


async def test_a_method_that_a_users_class_overrides_is_called(repository: JobRepository) -> None:
    class Mine(JobHistory):
        def connections(self) -> list[SourceConnection]:
            return []

    assert [] == await AsyncJobHistory(Mine(repository)).connections()


# ---- Opening and closing


def test_open_takes_what_its_model_takes() -> None:
    assert inspect.signature(jobhistory.open).parameters == inspect.signature(aio.open).parameters


async def test_open_opens_and_leaving_closes(tmp_path: Path) -> None:
    async with await aio.open(str(tmp_path / "history.db"), redact=None) as history:
        await history.fail((await history.enqueue(CONNECTION)).id, error="password=Xy12secret99")
    with pytest.raises(StorageError, match="is closed"):
        await history.connections()
    async with await aio.open(tmp_path / "history.db") as again:
        assert ["password=Xy12secret99"] == [job.error for job in await again.list_jobs(CONNECTION)]


async def test_open_raises_what_its_model_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot open"):
        await aio.open("ftp://x")
    with pytest.raises(StorageError):
        await aio.open(str(tmp_path / "missing" / "history.db"))


@BY_WHOM
async def test_an_opening_that_is_cancelled_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    held = Held("connections")
    opened = JobHistory(held)

    def slowly(_: str) -> JobHistory:
        opened.connections()
        return opened

    async def use() -> None:
        async with await aio.open("memory:"):
            await anyio.sleep_forever()

    monkeypatch.setattr(jobhistory, "open", slowly)
    assert await cancelled_while_held(held, use, by)
    with pytest.raises(StorageError, match="is closed"):
        opened.connections()


def test_without_anyio_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['anyio'] = None; import jobhistory.aio"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: jobhistory.aio needs anyio: pip install 'jobhistory[aio]'" == process.stderr.splitlines()[-1]


def test_importing_jobhistory_loads_none_of_it() -> None:
    code = "import sys, jobhistory; print({'anyio', 'asyncio', 'jobhistory.aio'} & sys.modules.keys())"
    assert "set()\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# ---- Running


async def test_a_run_reports_and_completes(history: AsyncJobHistory) -> None:
    async with history.track(CONNECTION, exclusive=True, metadata={"by": "me"}, worker="host") as run:
        run.report(inserted=2)
        await run.flush()
        assert 2 == (await history.get(run.job.id)).entities_inserted
        run.report(failed=1)
        run.raise_if_cancelled()
        assert not run.cancelled
    stored = await history.get(run.job.id)
    assert stored == run.job
    assert (JobStatus.COMPLETED, 2, 1) == (stored.status, stored.entities_inserted, stored.entities_failed)
    assert run.worker == stored.worker
    assert {"by": "me"} == stored.metadata


async def test_a_run_claims_a_job_that_waits(history: AsyncJobHistory) -> None:
    job = await history.enqueue(CONNECTION)
    async with history.run(job.id, heartbeat_interval=0.01):
        claimed = (await history.get(job.id)).version
        await soon(lambda: history.history.get(job.id).version >= claimed + 3)
        with pytest.raises(InvalidTransitionError):
            async with history.run(job.id):
                raise AssertionError
    assert JobStatus.COMPLETED is (await history.get(job.id)).status


async def test_entering_raises_what_its_model_raises(history: AsyncJobHistory) -> None:
    with pytest.raises(JobNotFoundError, match=r"history\.track"):
        async with history.run(CONNECTION):
            raise AssertionError
    async with history.track(CONNECTION) as run:
        pass
    with pytest.raises(RuntimeError, match="a Run is entered once"):
        async with run:
            raise AssertionError
    assert JobStatus.COMPLETED is run.job.status


async def test_an_error_ends_in_failed_and_comes_out_as_it_is(history: AsyncJobHistory) -> None:
    error = ValueError("no such field")
    run = history.track(CONNECTION)

    async def sync() -> None:
        async with run:
            run.report(updated=1)
            raise error

    with pytest.raises(ValueError, match="no such field") as caught:
        await sync()
    assert error is caught.value
    stored = await history.get(run.job.id)
    assert (JobStatus.FAILED, "ValueError: no such field", 1) == (stored.status, stored.error, stored.entities_updated)
    assert "in sync" in (stored.error_details or {})["traceback"]


async def test_a_cancel_ends_in_cancelled_and_stays_inside(history: AsyncJobHistory) -> None:
    async with history.track(CONNECTION, flush_interval=0.01) as run:
        await history.cancel(run.job.id)
        await report_until_cancelled(run)
    assert JobStatus.CANCELLED is (await history.get(run.job.id)).status
    with pytest.raises(JobCancelled):
        run.raise_if_cancelled()


async def test_a_cancel_seen_by_a_task_of_a_group_ends_in_cancelled_and_stays_inside(
    history: AsyncJobHistory,
) -> None:
    async with history.track(CONNECTION, flush_interval=0.01) as run, anyio.create_task_group() as tasks:
        tasks.start_soon(report_until_cancelled, run)
        tasks.start_soon(report_until_cancelled, run)
        await history.cancel(run.job.id)
    assert JobStatus.CANCELLED is (await history.get(run.job.id)).status


async def test_a_run_that_asks_itself_to_stop_does(history: AsyncJobHistory) -> None:
    async with history.track(CONNECTION) as run:
        run.request_cancel("enough")
        run.report(inserted=1)
        raise AssertionError
    assert (JobStatus.CANCELLED, "enough") == (run.job.status, run.job.error)


async def test_a_worker_that_lost_its_job_learns_it(history: AsyncJobHistory) -> None:
    run = history.track(CONNECTION)

    async def sync() -> None:
        async with run:
            await history.fail(run.job.id, error="an operator's")
            run.report(inserted=1)
            await run.flush()

    with pytest.raises(LostJobError):
        await sync()
    assert "an operator's" == (await history.get(run.job.id)).error


# ---- Cancelled tasks


async def test_a_cancelled_task_ends_in_cancelled_with_the_reason_and_is_cancelled(history: AsyncJobHistory) -> None:
    with anyio.CancelScope() as scope:
        async with history.track(CONNECTION) as run:
            run.report(inserted=1)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    stored = await history.get(run.job.id)
    assert (JobStatus.CANCELLED, 1) == (stored.status, stored.entities_inserted)
    assert "Cancelled" in (stored.error or "")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_asyncio_cancels_ends_likewise(history: AsyncJobHistory) -> None:
    run = history.track(CONNECTION)

    async def sync() -> None:
        async with asyncio.timeout(None) as limit, run:
            run.report(inserted=1)
            limit.reschedule(asyncio.get_running_loop().time())
            await asyncio.sleep(3600)

    with pytest.raises(TimeoutError):
        await sync()
    stored = await history.get(run.job.id)
    assert (JobStatus.CANCELLED, 1) == (stored.status, stored.entities_inserted)
    assert "CancelledError" == stored.error


@BY_WHOM
async def test_a_write_that_has_begun_is_not_abandoned(by: str) -> None:
    held = Held("add")
    history = AsyncJobHistory(JobHistory(held))
    assert await cancelled_while_held(held, partial(history.enqueue, CONNECTION), by)
    assert 1 == len(await history.list_jobs(CONNECTION))


@BY_WHOM
async def test_a_claim_that_has_begun_is_not_abandoned_and_its_job_is_cancelled(by: str) -> None:
    held = Held("replace")
    history = AsyncJobHistory(JobHistory(held))
    run = history.track(CONNECTION)

    async def sync() -> None:
        async with run:
            await anyio.sleep_forever()

    assert await cancelled_while_held(held, sync, by)
    (job,) = await history.list_jobs(CONNECTION)
    assert JobStatus.CANCELLED is job.status
    assert "Cancelled" in (job.error or "")


@BY_WHOM
async def test_an_end_that_is_being_written_is_not_abandoned(by: str) -> None:
    held = Held("nothing yet")
    history = AsyncJobHistory(JobHistory(held))
    run = history.track(CONNECTION)

    async def sync() -> None:
        async with run:
            run.report(inserted=1)
            held._held.append("replace")

    assert await cancelled_while_held(held, sync, by)
    (job,) = await history.list_jobs(CONNECTION)
    assert (JobStatus.COMPLETED, 1) == (job.status, job.entities_inserted)


async def test_leaving_writes_the_end_though_all_threads_are_busy_and_the_task_is_cancelled() -> None:
    held = [Held("connections") for _ in range(THREADS)]
    history = AsyncJobHistory(JobHistory(held[0]))

    async def occupy(repository: Held) -> None:
        await history._threads.call(repository.connections)

    async with anyio.create_task_group() as others:
        with anyio.CancelScope() as scope:
            async with history.track(CONNECTION) as run:
                for each in held:
                    others.start_soon(occupy, each)
                for each in held:
                    await each.reach()
                others.start_soon(let_go_soon, held)
                scope.cancel()
                await anyio.sleep_forever()
    assert JobStatus.CANCELLED is (await history.get(run.job.id)).status


async def let_go_soon(held: list[Held]) -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    for each in held:
        each.go.set()


async def test_in_a_cancelled_task_nothing_begins(history: AsyncJobHistory) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await history.enqueue(CONNECTION)
        raise AssertionError
    assert [] == await history.list_jobs(CONNECTION)


async def test_a_pruning_that_is_cancelled_ends_after_the_step_under_way(history: AsyncJobHistory) -> None:
    await history.add_many(finished(500))
    told: list[tuple[str, int]] = []
    with anyio.CancelScope() as scope:

        def tell(step: str, done: int, _: int) -> None:
            told.append((step, done))
            if step == "deleting":
                anyio.from_thread.run_sync(scope.cancel)

        await history.prune(Retention(keep_last=1), progress=tell)
        raise AssertionError
    assert [("planning", 1), ("deleting", 50)] == told
    assert 450 == len([job async for job in history.iter_jobs(CONNECTION)])


def finished(number: int) -> list[SyncJob]:
    return [
        SyncJob(id=UUID(int=at), source_connection_id=CONNECTION, created_at=START).cancel(at=START)
        for at in range(1, number + 1)
    ]


async def test_a_cancelled_task_closes_its_history(repository: JobRepository) -> None:
    with anyio.CancelScope() as scope:
        async with AsyncJobHistory(JobHistory(repository)) as history:
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(StorageError, match="is closed"):
        await history.connections()


async def test_an_error_comes_out_as_its_models_does_and_in_no_group(repository: JobRepository) -> None:
    history = AsyncJobHistory(JobHistory(Troubled(repository, connections=["down", "lost"])))
    with pytest.raises(StorageError, match="is down"):
        await history.connections()
    with pytest.raises(UnknownOutcomeError):
        await history.connections()


async def test_where_no_thread_is_to_be_had_the_error_comes_out_in_no_group(
    history: AsyncJobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> NoReturn:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(anyio.to_thread, "run_sync", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await history.connections()


async def test_what_a_hook_raises_past_all_exceptions_comes_out_too(repository: JobRepository) -> None:
    def hook(_: SyncJob) -> NoReturn:
        raise JobCancelled(CONNECTION)

    with pytest.raises(JobCancelled):
        await AsyncJobHistory(JobHistory(repository, hooks=[hook])).enqueue(CONNECTION)


# ---- Threads


async def test_it_has_threads_of_its_own_and_no_more(history: AsyncJobHistory) -> None:
    at_once = most = 0
    lock = threading.Lock()
    full = threading.Event()

    def work() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        if at_once == THREADS:
            full.set()
        full.wait(60)
        with lock:
            at_once -= 1

    others = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as tasks:
        for _ in range(int(others.total_tokens)):
            await others.acquire_on_behalf_of(object())
        for _ in range(3 * THREADS):
            tasks.start_soon(history._threads.call, work)
    assert THREADS == most


async def test_the_loop_runs_on_while_the_storage_takes_long() -> None:
    held = Held("connections")
    history = AsyncJobHistory(JobHistory(held))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(history.connections)
        await soon(held.reached.is_set)
        await history.changes()
        held.go.set()


# ---- Waiting


async def test_wait_for_changes_gives_what_is_there_or_comes(history: AsyncJobHistory) -> None:
    first = await history.enqueue(CONNECTION)
    (change,) = await history.wait_for_changes(timeout=0)
    assert first == change.job
    assert [] == await history.wait_for_changes(change.token, timeout=0)
    assert [] == await history.wait_for_changes(change.token, timeout=timedelta(milliseconds=600))
    found: list[Change] = []

    async def wait() -> None:
        found.extend(await history.wait_for_changes(change.token, timeout=3600, limit=1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.sleep(0.01)
        second = await history.enqueue(CONNECTION)
        await history.enqueue(CONNECTION)
    assert [second] == [change.job for change in found]


@pytest.mark.parametrize(("anyio_backend", "native"), [("asyncio", False), ("asyncio", True), ("trio", False)], ids=str)
async def test_whoever_waits_for_changes_is_cancelled_at_once(*, native: bool) -> None:
    held = Held("changes")
    history = AsyncJobHistory(JobHistory(held))
    if native:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await history.wait_for_changes(timeout=3600)
    else:
        with anyio.move_on_after(0.01) as scope:
            await history.wait_for_changes(timeout=3600)
        assert scope.cancelled_caught
    assert not held.go.is_set(), "its thread is still in there"
    held.go.set()


async def test_those_who_wait_keep_nobody_from_writing(history: AsyncJobHistory) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(THREADS + 1):
            tasks.start_soon(partial(history.wait_for_changes, timeout=3600))
        await anyio.sleep(0.01)
        await history.enqueue(CONNECTION)


# ---- Reaping


def long_ago(repository: JobRepository) -> SyncJob:
    job = SyncJob(
        id=UUID(int=7), source_connection_id=CONNECTION, created_at=START, status=JobStatus.RUNNING, started_at=START
    )
    repository.add(job)
    return job


async def test_reap_ends_the_jobs_of_vanished_workers(history: AsyncJobHistory, repository: JobRepository) -> None:
    job = long_ago(repository)
    (reaped,) = await history.reap(confirm_for=0.01)
    assert (job.id, JobStatus.FAILED) == (reaped.id, reaped.status)
    assert [] == await history.reap()
    waiting = SyncJob(id=UUID(int=8), source_connection_id=CONNECTION, created_at=START)
    await history.add_many([waiting])
    assert [] == await history.reap(confirm_for=0.01)
    assert [waiting.id] == [j.id for j in await history.reap(confirm_for=0.01, pending_for=timedelta(hours=1))]


async def test_reap_is_cancelled_between_its_looks(history: AsyncJobHistory, repository: JobRepository) -> None:
    job = long_ago(repository)
    with anyio.move_on_after(0.05) as scope:
        await history.reap(confirm_for=3600)
    assert scope.cancelled_caught
    assert job == await history.get(job.id)


async def test_reap_holds_no_thread_between_its_looks(history: AsyncJobHistory, repository: JobRepository) -> None:
    long_ago(repository)
    async with anyio.create_task_group() as tasks:
        for _ in range(THREADS + 1):
            tasks.start_soon(partial(history.reap, confirm_for=3600))
        await anyio.sleep(0.05)
        with anyio.fail_after(60):
            await history.connections()
        tasks.cancel_scope.cancel()


async def test_reap_waits_by_the_sleep_of_its_history(repository: JobRepository, time: Time) -> None:
    history = AsyncJobHistory(time.history(repository))
    job = await history.start((await history.enqueue(CONNECTION)).id)
    time.seconds += 301

    assert [job.id] == [reaped.id for reaped in await history.reap(confirm_for=20)]
    assert [20.0] == time.slept


async def test_a_reaper_reaps_while_the_tasks_work(history: AsyncJobHistory, repository: JobRepository) -> None:
    job = long_ago(repository)
    async with history.reaper(every=0.01, confirm_for=0.01):
        await soon(lambda: history.history.get(job.id).is_terminal)
    assert "jobhistory reaper" not in {thread.name for thread in threading.enumerate()}


# ---- SIGTERM


async def test_sigterm_is_a_request_to_stop_to_every_task(history: AsyncJobHistory, outer: list[int]) -> None:
    ended: list[SyncJob] = []

    async def sync(connection: UUID) -> None:
        async with history.track(connection, handle_sigterm=True) as run:
            await report_until_cancelled(run)
        ended.append(run.job)

    before = signal.getsignal(signal.SIGTERM)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sync, UUID(int=2))
        tasks.start_soon(sync, UUID(int=3))
        await soon(lambda: len(history.history.active_jobs(statuses={JobStatus.RUNNING})) == 2)
        signal.raise_signal(signal.SIGTERM)
    assert [(JobStatus.CANCELLED, "SIGTERM")] * 2 == [(job.status, job.error) for job in ended]
    assert before is signal.getsignal(signal.SIGTERM)
    assert [] == outer


async def test_sigterm_is_given_back_where_entering_fails(history: AsyncJobHistory, outer: list[int]) -> None:
    with pytest.raises(JobNotFoundError):
        async with history.run(CONNECTION, handle_sigterm=True):
            raise AssertionError
    signal.raise_signal(signal.SIGTERM)
    assert [signal.SIGTERM] == outer


def test_sigterm_is_handled_in_the_main_threads_loop_only(anyio_backend: str, outer: list[int]) -> None:
    history = AsyncJobHistory(JobHistory(InMemoryJobRepository()))

    async def sync() -> None:
        with pytest.raises(ValueError, match="works in the main thread only"):
            async with history.track(CONNECTION, handle_sigterm=True):
                raise AssertionError

    thread = threading.Thread(target=anyio.run, args=(sync,), kwargs={"backend": anyio_backend})
    thread.start()
    thread.join()
    assert [] == history.history.connections()
    assert [] == outer
