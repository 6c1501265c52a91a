"""PgQueuer's queries, which its workers and producers call: a queue an entrypoint.

On one asyncpg connection, as its manual has it; on asyncio's own loop, where its command line would run uvloop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import asyncpg
from pgqueuer import AsyncpgDriver, Job, JobId, Queries
from pgqueuer.ports.repository import EntrypointExecutionParameter

BATCH = 10_000
# A job that nobody beats for is claimed again after 30 s, by default; here those that were started stay so.
SILENT = timedelta(days=1)


class PgQueuer:
    """A job that ends moves from the queue to the log, which also has each step before that."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._worker = uuid4()

    @classmethod
    async def open(cls, url: str) -> PgQueuer:
        queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
        await queries.install()
        return cls(queries)

    async def prepare(self, count: int, names: Sequence[str]) -> None:
        for begin in range(0, count, BATCH):
            batch = [names[n % len(names)] for n in range(begin, min(begin + BATCH, count))]
            await self._queries.enqueue(batch, [None] * len(batch), [0] * len(batch))
            await self._queries.log_jobs([(job, "successful", None) for job in await self._claim(names, BATCH)])
        await self._queries.aggregate_logs()  # as its workers do every so often

    async def enqueue(self, name: str) -> JobId:
        [id] = await self._queries.enqueue(name, None)
        return id

    async def enqueue_many(self, name: str, count: int) -> None:
        await self._queries.enqueue([name] * count, [None] * count, [0] * count)

    async def start(self, name: str) -> Job:
        [job] = await self._claim([name], 1)
        return job

    async def finish(self, job: Job) -> None:
        await self._queries.log_jobs([(job, "successful", None)])

    async def get(self, id: JobId) -> Job | None:
        return await self._queries.queue_job_by_id(id)

    async def show(self, name: str) -> str:
        [row] = await self._queries.driver.fetch(f"SHOW {name}")
        return str(row[name])

    async def _claim(self, names: Sequence[str], count: int) -> list[Job]:
        entrypoints = {name: EntrypointExecutionParameter(concurrency_limit=0) for name in names}  # as by default
        jobs: list[Job] = await self._queries.dequeue(count, entrypoints, self._worker, None, SILENT)
        return jobs
