"""OpenLineage: run events. Needs `pip install 'jobhistory[openlineage]'`.

    history = jobhistory.open("history.db", hooks=[background(OpenLineageHook())])

By itself the client finds its transport as OpenLineage has it, by OPENLINEAGE_URL or openlineage.yml
(https://openlineage.io/docs/client/python/configuration). Over HTTP it waits for an answer: so in the background.

START      a job is RUNNING, at started_at
RUNNING    it reports counts, at progress_at; is CANCELLING, at cancel_requested_at
COMPLETE   COMPLETED, at completed_at, as the next two; with the last sign of life where its worker vanished
FAIL       FAILED
ABORT      CANCELLED

The runId is the job's id, the job's name its source connection's id unless named otherwise. A job that waits is no
run yet; where it never ran, its end stands alone. Run facets: `jobhistory_syncJob`, with counts, and `errorMessage`.
Specification: https://openlineage.io/spec/2-0-2/OpenLineage.json
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

import attrs

try:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import RunFacet, error_message_run, job_type_job
except ImportError as error:
    message = "jobhistory.integrations.openlineage needs openlineage-python: pip install 'jobhistory[openlineage]'"
    raise ImportError(message, name=error.name) from error

from jobhistory.integrations.attributes import exception
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from jobhistory.times import to_wire

_PRODUCER = "https://pypi.org/project/jobhistory"
_STATES = {
    JobStatus.RUNNING: RunState.RUNNING,
    JobStatus.CANCELLING: RunState.RUNNING,
    JobStatus.COMPLETED: RunState.COMPLETE,
    JobStatus.FAILED: RunState.FAIL,
    JobStatus.CANCELLED: RunState.ABORT,
}


@attrs.define
class SyncJobRunFacet(RunFacet):
    """How the job stands. Its schema is that of any run facet, which may have more in it."""

    status: str
    durationSeconds: float | None
    entitiesInserted: int
    entitiesUpdated: int
    entitiesDeleted: int
    entitiesFailed: int
    worker: str | None


class OpenLineageHook:
    """Emits an event for each change of a job that runs, or ran.

    Args:
        client: emits them.
        namespace: of the jobs.
        name: gives a job's name, which all jobs of a source connection should have in common.
        datasets: gives what a job reads and what it writes.
    """

    def __init__(
        self,
        client: OpenLineageClient | None = None,
        *,
        namespace: str = "jobhistory",
        name: Callable[[SyncJob], str] = lambda job: str(job.source_connection_id),
        datasets: Callable[[SyncJob], tuple[Collection[InputDataset], Collection[OutputDataset]]] = lambda _: ((), ()),
    ) -> None:
        self._client = client or OpenLineageClient()
        self._namespace = namespace
        self._name = name
        self._datasets = datasets

    def __call__(self, job: SyncJob) -> None:
        """Emit its event, if it has one."""
        if job.status is not JobStatus.PENDING:
            self._client.emit(self.event(job))

    def event(self, job: SyncJob) -> RunEvent:
        """What is emitted for a job that is not PENDING."""
        inputs, outputs = self._datasets(job)
        kind = job_type_job.JobTypeJobFacet("BATCH", "JOBHISTORY", "SYNC", producer=_PRODUCER)
        return RunEvent(
            eventType=_state(job),
            eventTime=to_wire(_at(job)),
            run=Run(str(job.id), _run_facets(job)),
            job=Job(self._namespace, self._name(job), {"jobType": kind}),
            inputs=[*inputs],
            outputs=[*outputs],
            producer=_PRODUCER,
        )


def _state(job: SyncJob) -> RunState:
    # What a running job writes before its first counts is its start: a heartbeat is not told.
    is_start = job.status is JobStatus.RUNNING and job.progress_at is None
    return RunState.START if is_start else _STATES[job.status]


def _at(job: SyncJob) -> datetime:
    if job.is_terminal:
        return job.completed_at or job.last_sign_at
    return max(filter(None, (job.started_at, job.progress_at, job.cancel_requested_at)))


def _run_facets(job: SyncJob) -> dict[str, RunFacet]:
    facets: dict[str, RunFacet] = {
        "jobhistory_syncJob": SyncJobRunFacet(
            status=job.status.value,
            durationSeconds=job.duration_seconds,
            entitiesInserted=job.entities_inserted,
            entitiesUpdated=job.entities_updated,
            entitiesDeleted=job.entities_deleted,
            entitiesFailed=job.entities_failed,
            worker=job.worker,
            producer=_PRODUCER,
        )
    }
    if job.status is JobStatus.FAILED and (error := exception(job)):
        trace = error.get("exception.stacktrace")
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            error["exception.message"], "PYTHON", trace, producer=_PRODUCER
        )
    return facets
