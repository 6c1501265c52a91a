"""Procrastinate's tasks and its job manager, which its workers call: a queue a queue.

Its pool asks a connection whether it is alive each time it lends it, and each call is a transaction with a BEGIN and
a COMMIT: four round trips where one would do.
"""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Job, Status

BATCH = 10_000
TASK = "sync"


class Procrastinate:
    """A job that ends keeps its row; a trigger writes each step to a table of events."""

    def __init__(self, app: App, worker: int) -> None:
        self._app = app
        self._manager = app.job_manager
        self._worker = worker

    @classmethod
    async def open(cls, url: str) -> Procrastinate:
        app = App(connector=PsycopgConnector(conninfo=url))
        await app.open_async()
        await app.schema_manager.apply_schema_async()
        return cls(app, await app.job_manager.register_worker())

    async def prepare(self, count: int, names: Sequence[str]) -> None:
        each, left = divmod(count, len(names))
        for n, name in enumerate(names):
            rest = each + (n < left)
            while rest:
                await self.enqueue_many(name, batch := min(rest, BATCH))
                rest -= batch
        # Its manager claims one by one. These are its functions' own updates, which its triggers see.
        for status in ("doing", "succeeded"):
            await self._app.connector.execute_query_async(f"UPDATE procrastinate_jobs SET status = '{status}'")

    async def enqueue(self, name: str) -> int:
        id: int = await self._app.configure_task(TASK, queue=name).defer_async()
        return id

    async def enqueue_many(self, name: str, count: int) -> None:
        await self._app.configure_task(TASK, queue=name).batch_defer_async(*[{} for _ in range(count)])

    async def start(self, name: str) -> Job:
        job = await self._manager.fetch_job([name], self._worker)
        assert job is not None
        return job

    async def finish(self, job: Job) -> None:
        await self._manager.finish_job(job, Status.SUCCEEDED, delete_job=False)  # as its worker does by default

    async def get(self, id: int) -> Job:
        [job] = await self._manager.list_jobs_async(id=id)
        return job

    async def show(self, name: str) -> str:
        row = await self._app.connector.execute_query_one_async(f"SHOW {name}")
        return str(row[name])
