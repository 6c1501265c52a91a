"""Run events, as openlineage-python's own transports write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.transport.console import ConsoleConfig, ConsoleTransport
from openlineage.client.transport.file import FileConfig, FileTransport

from jobhistory import JobHistory, SyncJob
from jobhistory.integrations.openlineage import OpenLineageHook
from tests.integrations.stories import STACK, cancelled, completed, failed, never_started, told, vanished
from tests.workers import CONNECTION, Time

PRODUCER = "https://pypi.org/project/jobhistory"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


@pytest.fixture
def client(lines: Path) -> OpenLineageClient:
    return OpenLineageClient(transport=FileTransport(FileConfig(str(lines), append=True)))


def read(lines: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.read_text().splitlines()]


def test_a_jobs_life_is_written_as_events_of_one_run(lines: Path, client: OpenLineageClient) -> None:
    job = completed(*told(OpenLineageHook(client)))

    events = read(lines)
    assert [
        ("START", "2024-03-15T12:00:10Z"),
        ("RUNNING", "2024-03-15T12:01:10Z"),
        ("RUNNING", "2024-03-15T12:01:40Z"),
        ("COMPLETE", "2024-03-15T12:01:40Z"),
    ] == [(event["eventType"], event["eventTime"]) for event in events]
    assert {str(job.id)} == {event["run"]["runId"] for event in events}
    assert {("jobhistory", str(CONNECTION))} == {(event["job"]["namespace"], event["job"]["name"]) for event in events}
    assert {(PRODUCER, "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent")} == {
        (event["producer"], event["schemaURL"]) for event in events
    }
    kind = events[0]["job"]["facets"]["jobType"]
    assert ("BATCH", "JOBHISTORY", "SYNC") == (kind["processingType"], kind["integration"], kind["jobType"])


def test_the_counts_are_in_a_facet_of_the_run(lines: Path, client: OpenLineageClient) -> None:
    completed(*told(OpenLineageHook(client)))

    first, second, *_, last = [event["run"]["facets"]["jobhistory_syncJob"] for event in read(lines)]
    assert {
        "_producer": PRODUCER,
        "_schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet",
        "status": "COMPLETED",
        "durationSeconds": 89.5,
        "entitiesInserted": 45,
        "entitiesUpdated": 12,
        "entitiesDeleted": 3,
        "entitiesFailed": 1,
        "worker": "host:7:tag",
    } == last
    assert [0, 45] == [first["entitiesInserted"], second["entitiesInserted"]]


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        (failed, [("START", "00:00"), ("FAIL", "00:05")]),
        (cancelled, [("START", "00:00"), ("RUNNING", "00:05"), ("ABORT", "00:06")]),
        (never_started, [("ABORT", "00:05")]),
        (vanished, [("START", "00:00"), ("FAIL", "00:15")]),
    ],
)
def test_however_a_job_ends_its_last_event_says_so(
    lines: Path,
    client: OpenLineageClient,
    story: Callable[[JobHistory, Time], SyncJob],
    expected: list[tuple[str, str]],
) -> None:
    story(*told(OpenLineageHook(client)))

    assert expected == [(event["eventType"], event["eventTime"][-6:-1]) for event in read(lines)]


def test_an_error_is_in_the_facet_for_errors(lines: Path, client: OpenLineageClient) -> None:
    failed(*told(OpenLineageHook(client)))
    cancelled(*told(OpenLineageHook(client)))
    vanished(*told(OpenLineageHook(client)))

    [first, second] = [each for event in read(lines) if (each := event["run"]["facets"].get("errorMessage"))]
    assert ("BadTokenError: expired", "PYTHON", STACK) == (
        first["message"],
        first["programmingLanguage"],
        first["stackTrace"],
    )
    assert second["message"].startswith("its worker vanished")
    assert "stackTrace" not in second


def test_names_and_datasets_are_what_the_user_says(lines: Path, client: OpenLineageClient) -> None:
    source, target = InputDataset("https://api.github.com", "issues"), OutputDataset("postgres://db1", "public.issues")
    hook = OpenLineageHook(
        client, namespace="syncs", name=lambda _: "github issues", datasets=lambda _: ([source], [target])
    )

    completed(*told(hook))

    for event in read(lines):
        assert ("syncs", "github issues") == (event["job"]["namespace"], event["job"]["name"])
        assert [["issues"], ["public.issues"]] == [
            [each["name"] for each in event[way]] for way in ("inputs", "outputs")
        ]


def test_an_event_is_validated_when_it_is_built() -> None:
    job = failed(*told(lambda _: None))
    event = OpenLineageHook(OpenLineageClient(transport=ConsoleTransport(ConsoleConfig()))).event(job)

    assert event == attrs.evolve(event)  # what its validators see
    with pytest.raises(ValueError, match="badly formed"):
        attrs.evolve(event.run, runId="no id")
    with pytest.raises(ValueError, match="has to contain time"):
        attrs.evolve(event, eventTime="2024-03-15")


def test_the_client_is_found_as_openlineage_has_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "console")
    with caplog.at_level("INFO", "openlineage"):
        completed(*told(OpenLineageHook()))

    said = [json.loads(message) for message in caplog.messages if message.startswith("{")]
    assert ["START", "RUNNING", "RUNNING", "COMPLETE"] == [event["eventType"] for event in said]
