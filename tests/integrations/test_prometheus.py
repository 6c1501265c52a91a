"""Metrics, as the client exposes them and reads them back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from jobhistory import JobHistory, JobRepository, JobStatus, StorageError
from jobhistory.integrations.prometheus import ActiveJobs, Exposition, PrometheusHook
from tests.integrations.stories import cancelled, completed, failed, never_started, told, vanished
from tests.workers import CONNECTION, START, Time

COMPLETED = {JobStatus.COMPLETED}
FINISHED = {"COMPLETED": 2.0, "FAILED": 2.0, "CANCELLED": 2.0}
ENTITIES = {"inserted": 90.0, "updated": 24.0, "deleted": 6.0, "failed": 2.0}


def samples(text: bytes) -> dict[str, dict[str, float]]:
    """Each series' value, by its labels."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return found


def live(history: JobHistory, time: Time) -> None:
    """Six jobs that are finished, and two that are not."""
    for story in (completed, completed, failed, cancelled, never_started, vanished):
        story(history, time)
    history.enqueue(CONNECTION)
    history.start(history.enqueue(CONNECTION).id)


def test_finished_jobs_are_counted_by_status_with_durations_and_entities() -> None:
    registry = CollectorRegistry()
    live(*told(PrometheusHook(registry)))

    found = samples(generate_latest(registry))
    assert FINISHED == found["jobhistory_jobs_total"]
    assert ENTITIES == found["jobhistory_entities_total"]
    assert {"COMPLETED": 179.0, "FAILED": 5.0, "CANCELLED": 6.0} == found["jobhistory_job_duration_seconds_sum"]
    buckets = found["jobhistory_job_duration_seconds_bucket"]
    assert [0.0, 2.0, 2.0] == [buckets[f"{bound},COMPLETED"] for bound in ("60.0", "300.0", "+Inf")]
    assert "jobhistory_last_completed_timestamp_seconds" not in found


def test_counters_begin_at_nought_so_that_the_first_job_is_an_increase() -> None:
    registry = CollectorRegistry()
    PrometheusHook(registry)

    found = samples(generate_latest(registry))
    assert dict.fromkeys(FINISHED, 0.0) == found["jobhistory_jobs_total"]
    assert dict.fromkeys(ENTITIES, 0.0) == found["jobhistory_entities_total"]
    assert dict.fromkeys(FINISHED, 0.0) == found["jobhistory_job_duration_seconds_count"]


def test_each_connection_may_have_its_own_series_and_when_it_last_completed() -> None:
    registry = CollectorRegistry()
    history, time = told(PrometheusHook(registry, per_connection=True))
    before = samples(generate_latest(registry))
    first = completed(history, time)
    live(history, time)
    last = START + timedelta(seconds=300)
    assert last == max(
        job.completed_at for job in history.iter_jobs(CONNECTION, statuses=COMPLETED) if job.completed_at
    )
    history.repository.delete_many([first.id])
    history.add_many([first])  # an import brings an old one

    found = samples(generate_latest(registry))
    assert "jobhistory_last_completed_timestamp_seconds" not in before
    assert {str(CONNECTION): last.timestamp()} == found["jobhistory_last_completed_timestamp_seconds"]
    assert {"COMPLETED": 4.0, "FAILED": 2.0, "CANCELLED": 2.0} == {
        labels.rpartition(",")[2]: value for labels, value in found["jobhistory_jobs_total"].items()
    }
    assert all(str(CONNECTION) in labels for labels in found["jobhistory_entities_total"])


def test_unfinished_jobs_are_counted_whoever_runs_them(history: JobHistory) -> None:
    registry = CollectorRegistry()
    registry.register(ActiveJobs(history))
    empty = samples(generate_latest(registry))
    for _ in range(1001):
        history.enqueue(CONNECTION)
    history.cancel(history.start(history.enqueue(CONNECTION).id).id)

    assert {"PENDING": 0.0, "RUNNING": 0.0, "CANCELLING": 0.0} == empty["jobhistory_active_jobs"]
    assert {"PENDING": 1001.0, "RUNNING": 0.0, "CANCELLING": 1.0} == (
        samples(generate_latest(registry))["jobhistory_active_jobs"]
    )


def test_registering_what_counts_the_unfinished_reads_nothing(history: JobHistory) -> None:
    history.close()
    registry = CollectorRegistry()

    registry.register(ActiveJobs(history))
    with pytest.raises(StorageError):
        generate_latest(registry)


def test_an_exposition_tells_of_what_others_wrote_from_now_on_and_of_each_job_once(
    repository: JobRepository, time: Time
) -> None:
    history = time.history(repository)
    completed(history, time)
    exposition = Exposition(history)

    def read() -> dict[str, dict[str, float]]:
        return samples(exposition.read()[0])

    assert 0 == read()["jobhistory_jobs_total"]["COMPLETED"]
    live(history, time)
    for _ in range(2):
        found = read()
        assert (FINISHED, ENTITIES) == (found["jobhistory_jobs_total"], found["jobhistory_entities_total"])
        assert {"PENDING": 1.0, "RUNNING": 1.0, "CANCELLING": 0.0} == found["jobhistory_active_jobs"]


def test_the_format_is_the_one_that_is_preferred(memory: JobHistory) -> None:
    exposition = Exposition(memory)
    plain, plain_type = exposition.read()
    modern, modern_type = exposition.read("application/openmetrics-text; version=1.0.0")

    assert plain_type.startswith("text/plain; version=")
    assert modern_type.startswith("application/openmetrics-text; version=1.0.0")
    names: Iterable[str] = (family.name for family in openmetrics(modern.decode()))  # type: ignore[no-untyped-call]
    assert {"jobhistory_jobs", "jobhistory_entities", "jobhistory_active_jobs"} <= set(names)
    assert plain != modern
