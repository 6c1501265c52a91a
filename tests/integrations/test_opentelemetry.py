"""Spans and metrics, as the SDK exports them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobhistory import JobHistory, JobStatus, SyncJob
from jobhistory.integrations.opentelemetry import OpenTelemetryHook
from tests.integrations.stories import STACK, cancelled, completed, failed, never_started, told, vanished
from tests.workers import CONNECTION, START, Time


class Telemetry(NamedTuple):
    history: JobHistory
    time: Time
    provider: TracerProvider
    exported: InMemorySpanExporter
    reader: InMemoryMetricReader

    def span(self) -> ReadableSpan:
        [span] = [span for span in self.exported.get_finished_spans() if span.name == "sync"]
        return span

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Each metric's points, by their attributes as JSON."""
        measured = self.reader.get_metrics_data()
        assert measured is not None
        data = json.loads(measured.to_json())
        [scope] = [scope for resource in data["resource_metrics"] for scope in resource["scope_metrics"]]
        assert "jobhistory" == scope["scope"]["name"]
        return {
            f"{metric['name']} {metric['unit']}": {
                ",".join(map(str, point["attributes"].values())): point for point in metric["data"]["data_points"]
            }
            for metric in scope["metrics"]
        }


@pytest.fixture
def telemetry() -> Telemetry:
    exported, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    history, time = told(OpenTelemetryHook(provider, MeterProvider([reader])))
    return Telemetry(history, time, provider, exported, reader)


def seconds(nanoseconds: int | None) -> float:
    """Since START."""
    assert nanoseconds is not None
    return nanoseconds / 10**9 - START.timestamp()


def test_a_job_is_a_span_with_its_true_start_and_end(telemetry: Telemetry) -> None:
    job = completed(telemetry.history, telemetry.time)

    span = telemetry.span()
    assert (10, 100) == (seconds(span.start_time), seconds(span.end_time))
    assert StatusCode.UNSET is span.status.status_code
    assert {
        "jobhistory.job.id": str(job.id),
        "jobhistory.source_connection.id": str(CONNECTION),
        "jobhistory.job.status": "COMPLETED",
        "jobhistory.job.duration": 89.5,
        "jobhistory.job.worker": "host:7:tag",
        "jobhistory.job.metadata": '{"trigger":"schedule"}',
        "jobhistory.entities.inserted": 45,
        "jobhistory.entities.updated": 12,
        "jobhistory.entities.deleted": 3,
        "jobhistory.entities.failed": 1,
    } == dict(span.attributes or {})
    assert () == tuple(span.events)


def test_a_moment_is_exact_to_the_microsecond(telemetry: Telemetry) -> None:
    telemetry.time.seconds = 0.123457
    job = telemetry.history.enqueue(CONNECTION)
    telemetry.history.start(job.id)
    telemetry.history.complete(job.id)

    assert int(START.timestamp()) * 10**9 + 123_457_000 == telemetry.span().start_time


def test_a_failed_job_is_a_span_in_error_with_its_exception(telemetry: Telemetry) -> None:
    failed(telemetry.history, telemetry.time)

    span = telemetry.span()
    assert (StatusCode.ERROR, "BadTokenError: expired") == (span.status.status_code, span.status.description)
    assert "github.BadTokenError" == (span.attributes or {})["error.type"]
    [event] = span.events
    assert ("exception", span.end_time) == (event.name, event.timestamp)
    assert {
        "exception.type": "github.BadTokenError",
        "exception.message": "BadTokenError: expired",
        "exception.stacktrace": STACK,
    } == dict(event.attributes or {})


@pytest.mark.parametrize(
    ("story", "times", "status", "kind"),
    [
        (cancelled, (0, 6), StatusCode.UNSET, None),
        (never_started, (5, 5), StatusCode.UNSET, None),
        (vanished, (0, 15), StatusCode.ERROR, "_OTHER"),
    ],
)
def test_however_a_job_ends_its_span_says_what_is_known(
    telemetry: Telemetry,
    story: Callable[[JobHistory, Time], SyncJob],
    times: tuple[int, int],
    status: StatusCode,
    kind: str | None,
) -> None:
    story(telemetry.history, telemetry.time)

    span = telemetry.span()
    assert times == tuple(map(seconds, (span.start_time, span.end_time)))
    assert status is span.status.status_code
    assert kind == (span.attributes or {}).get("error.type")


def test_a_failure_that_nobody_explained_is_a_span_in_error(telemetry: Telemetry) -> None:
    failure = SyncJob(id=CONNECTION, source_connection_id=CONNECTION, status=JobStatus.FAILED, created_at=START)
    telemetry.history.add_many([failure])

    span = telemetry.span()
    assert StatusCode.ERROR is span.status.status_code
    assert [{}] == [dict(event.attributes or {}) for event in span.events]


def test_a_jobs_span_is_a_child_of_its_workers(telemetry: Telemetry) -> None:
    with telemetry.provider.get_tracer("worker").start_as_current_span("nightly") as around:
        completed(telemetry.history, telemetry.time)

    parent = telemetry.span().parent
    assert parent is not None
    assert around.get_span_context().span_id == parent.span_id


def test_a_jobs_span_is_a_child_of_the_one_that_enqueued_it(telemetry: Telemetry) -> None:
    metadata = {"trigger": "http"}
    with telemetry.provider.get_tracer("web").start_as_current_span("POST /run") as asked:
        TraceContextTextMapPropagator().inject(metadata)
        job = telemetry.history.enqueue(CONNECTION, metadata=metadata)
    with telemetry.provider.get_tracer("worker").start_as_current_span("nightly"), telemetry.history.run(job.id):
        pass

    parent, context = telemetry.span().parent, asked.get_span_context()
    assert parent is not None
    assert (context.trace_id, context.span_id) == (parent.trace_id, parent.span_id)


def test_metadata_that_name_no_span_do_no_harm(telemetry: Telemetry) -> None:
    for nonsense in ("x", 7, ["00-1"], None):
        with telemetry.history.track(CONNECTION, metadata={"traceparent": nonsense}):
            pass

    assert [None] * 4 == [span.parent for span in telemetry.exported.get_finished_spans()]


def test_finished_jobs_are_counted_with_their_durations_and_entities(telemetry: Telemetry) -> None:
    for story in (completed, completed, failed, cancelled, never_started, vanished):
        story(telemetry.history, telemetry.time)
    telemetry.history.start(telemetry.history.enqueue(CONNECTION).id)  # this one is not

    metrics = telemetry.metrics()
    assert {"COMPLETED": 2, "FAILED,github.BadTokenError": 1, "FAILED,_OTHER": 1, "CANCELLED": 2} == {
        name: point["value"] for name, point in metrics["jobhistory.jobs {job}"].items()
    }
    assert {"COMPLETED": (2, 179.0), "FAILED,github.BadTokenError": (1, 5.0), "CANCELLED": (1, 6.0)} == {
        name: (point["count"], point["sum"]) for name, point in metrics["jobhistory.job.duration s"].items()
    }
    assert 24 * 3600 == metrics["jobhistory.job.duration s"]["COMPLETED"]["explicit_bounds"][-1]
    assert {"inserted": 90, "updated": 24, "deleted": 6, "failed": 2} == {
        name: point["value"] for name, point in metrics["jobhistory.entities {entity}"].items()
    }
