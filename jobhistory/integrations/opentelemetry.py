"""OpenTelemetry: a span for each job, and metrics. Needs `pip install 'jobhistory[opentelemetry]'`.

    history = jobhistory.open("history.db", hooks=[OpenTelemetryHook()])

A job's span `sync` is made when it is finished, from the times in the job:

start, end   started_at and completed_at; one that never started took no time, one whose worker vanished ends with its
             last sign of life
status       ERROR where it FAILED, with the error as description and an `exception` event; else unset, for a cancel is
             no error
attributes   those of attributes.py
parent       the span that the job's metadata name as `traceparent` (https://www.w3.org/TR/trace-context/), which
             `opentelemetry.propagate.inject(metadata)` writes where a job is enqueued; else the one around whoever
             finished the job, mostly its worker (in the background: none)

Metrics, of finished jobs; the first two with `jobhistory.job.status` and `error.type`:

jobhistory.jobs           a counter, {job}
jobhistory.job.duration   a histogram, s, of those that ran
jobhistory.entities       a counter, {entity}, with `jobhistory.entities.action`: inserted, updated, deleted, failed
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context, get_current
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    message = "jobhistory.integrations.opentelemetry needs opentelemetry-api: pip install 'jobhistory[opentelemetry]'"
    raise ImportError(message, name=error.name) from error

from jobhistory.integrations.attributes import Attributes, attributes, entities, exception
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus

_SCOPE = "jobhistory"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATIONS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


class OpenTelemetryHook:
    """Tells OpenTelemetry of finished jobs.

    Args:
        tracer_provider: whose spans they are; the global one if left out.
        meter_provider: likewise.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._jobs = meter.create_counter("jobhistory.jobs", "{job}", "Finished sync jobs")
        self._duration = meter.create_histogram(
            "jobhistory.job.duration",
            "s",
            "How long finished sync jobs ran",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self._entities = meter.create_counter("jobhistory.entities", "{entity}", "What finished sync jobs did")

    def __call__(self, job: SyncJob) -> None:
        """Tell of it, if it is finished."""
        if job.is_terminal:
            known = attributes(job)
            self._measure(job, known)
            self._trace(job, known)

    def _measure(self, job: SyncJob, known: Attributes) -> None:
        kind = {name: value for name, value in known.items() if name in {"jobhistory.job.status", "error.type"}}
        self._jobs.add(1, kind)
        if job.duration_seconds is not None:
            self._duration.record(job.duration_seconds, kind)
        for action, count in entities(job).items():
            if count:
                self._entities.add(count, {"jobhistory.entities.action": action})

    def _trace(self, job: SyncJob, known: Attributes) -> None:
        ended = job.completed_at or job.last_sign_at
        span = self._tracer.start_span(
            "sync",
            _parent(job),
            start_time=_nanoseconds(job.started_at or ended),
            attributes=known,
        )
        if job.status is JobStatus.FAILED:
            span.set_status(Status(StatusCode.ERROR, job.error))
            span.add_event("exception", exception(job), _nanoseconds(ended))
        span.end(_nanoseconds(ended))


def _parent(job: SyncJob) -> Context:
    named = {name: text for name, text in (job.metadata or {}).items() if isinstance(text, str)}
    return TraceContextTextMapPropagator().extract(named, get_current())


def _nanoseconds(moment: datetime) -> int:
    """Since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
