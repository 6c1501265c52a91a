"""Prometheus metrics. Needs `pip install 'jobhistory[prometheus]'`.

    history = jobhistory.open("history.db", hooks=[PrometheusHook()])
    REGISTRY.register(ActiveJobs(history))

`jobhistory serve --metrics` serves the same for all processes that write to the history.

jobhistory_jobs_total                         a counter of finished jobs, by status
jobhistory_job_duration_seconds               a histogram of those that ran, by status
jobhistory_entities_total                     a counter, of finished jobs, by action: inserted, updated, deleted, failed
jobhistory_active_jobs                        a gauge, by status: PENDING, RUNNING, CANCELLING
jobhistory_last_completed_timestamp_seconds   a gauge, with per_connection only

With per_connection, all but the active ones also have the label source_connection_id: series for each, so ask for it
where there are hundreds rather than tens of thousands. That a sync has not completed for a day is then
`time() - jobhistory_last_completed_timestamp_seconds > 86400`, once one has completed since the process began
(https://prometheus.io/docs/practices/instrumentation/#batch-jobs).
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    message = "jobhistory.integrations.prometheus needs prometheus-client: pip install 'jobhistory[prometheus]'"
    raise ImportError(message, name=error.name) from error

from jobhistory.history import JobHistory
from jobhistory.integrations.attributes import ACTIONS, entities
from jobhistory.job import SyncJob
from jobhistory.repository import MAX_LIMIT
from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, JobStatus

_DURATIONS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class PrometheusHook:
    """Counts finished jobs.

    Args:
        registry: where the metrics are registered: once each, so one hook a registry.
        per_connection: whether each connection has series of its own.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, per_connection: bool = False) -> None:
        labels = ["source_connection_id"] if per_connection else []
        self._jobs = Counter("jobhistory_jobs", "Finished sync jobs", ["status", *labels], registry=registry)
        self._duration = Histogram(
            "jobhistory_job_duration_seconds",
            "How long finished sync jobs ran",
            ["status", *labels],
            buckets=_DURATIONS,
            registry=registry,
        )
        self._entities = Counter(
            "jobhistory_entities", "What finished sync jobs did", ["action", *labels], registry=registry
        )
        self._completed: Gauge | None = None
        if per_connection:
            self._completed = Gauge(
                "jobhistory_last_completed_timestamp_seconds",
                "When a sync job last completed",
                labels,
                multiprocess_mode="max",
                registry=registry,
            )
        else:
            # At 0, so that the first is seen as an increase.
            for status in TERMINAL_STATUSES:
                self._jobs.labels(status.value)
                self._duration.labels(status.value)
            for action in ACTIONS:
                self._entities.labels(action)
        self._last: dict[UUID, datetime] = {}

    def __call__(self, job: SyncJob) -> None:
        """Count it, if it is finished."""
        if not job.is_terminal:
            return
        labels = [] if self._completed is None else [str(job.source_connection_id)]
        self._jobs.labels(job.status.value, *labels).inc()
        if job.duration_seconds is not None:
            self._duration.labels(job.status.value, *labels).observe(job.duration_seconds)
        for action, count in entities(job).items():
            if count:
                self._entities.labels(action, *labels).inc(count)
        if self._completed is not None and job.status is JobStatus.COMPLETED and job.completed_at is not None:
            last = max(job.completed_at, self._last.get(job.source_connection_id, job.completed_at))
            self._last[job.source_connection_id] = last  # what is imported may come in any order
            self._completed.labels(*labels).set(last.timestamp())


class ActiveJobs(Collector):
    """Counts the unfinished jobs of a history, whoever runs them, when it is asked."""

    def __init__(self, history: JobHistory) -> None:
        self._history = history

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge. Raises StorageError."""
        tally: Tally[JobStatus] = Tally()
        before: SyncJob | None = None
        while page := self._history.active_jobs(before=before, limit=MAX_LIMIT):
            tally.update(job.status for job in page)
            before = page[-1]
        gauge = GaugeMetricFamily("jobhistory_active_jobs", "Unfinished sync jobs", labels=["status"])
        for status in sorted(ACTIVE_STATUSES):
            gauge.add_metric([status.value], tally[status])
        yield gauge

    def describe(self) -> list[GaugeMetricFamily]:
        """Its name, so that registering it reads nothing."""
        return [GaugeMetricFamily("jobhistory_active_jobs", "Unfinished sync jobs")]


class Exposition:
    """The metrics of a history as Prometheus reads them: of all jobs that anybody finishes from now on.

    Raises StorageError, as its methods do.
    """

    def __init__(self, history: JobHistory, *, per_connection: bool = False) -> None:
        self._history = history
        self._registry = CollectorRegistry()
        self._registry.register(ActiveJobs(history))
        self._hook = PrometheusHook(self._registry, per_connection=per_connection)
        self._after = history.latest_change()
        self._reading = threading.Lock()

    def read(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics in the format that an Accept header prefers, and their content type."""
        with self._reading:
            while changes := self._history.changes(self._after, limit=MAX_LIMIT):
                for change in changes:
                    self._hook(change.job)
                self._after = changes[-1].token
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
