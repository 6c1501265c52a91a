"""dlt's own pipelines, from local files to local files, as jobs."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.common.destination.exceptions import DestinationTerminalException
from dlt.common.runtime.collector import DictCollector
from dlt.pipeline.exceptions import PipelineStepFailed

from jobhistory import JobHistory, LostJobError
from jobhistory.integrations.dlt import run_pipeline
from tests.integrations.apart.engines import CONNECTION, newest

Pipeline = Callable[..., Any]


@pytest.fixture(autouse=True)
def _local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    """To files in a folder."""
    files = dlt.destinations.filesystem(bucket_url=str(tmp_path / "lake"))
    return dlt.pipeline("users", destination=files, dataset_name="lake", pipelines_dir=str(tmp_path / "pipelines"))


@pytest.fixture
def broken() -> set[str]:
    """The tables that the warehouse refuses."""
    return set()


@pytest.fixture
def warehouse(tmp_path: Path, broken: set[str]) -> Any:
    """A pipeline to a destination that may refuse a table."""

    @dlt.destination(name="warehouse")
    def write(_: object, table: dict[str, Any]) -> None:
        if table["name"] in broken:
            message = f"no room for {table['name']}"
            raise DestinationTerminalException(message)

    return dlt.pipeline("users", destination=write, dataset_name="d", pipelines_dir=str(tmp_path / "pipelines"))


@dlt.source
def directory(users: int, teams: int = 0) -> Any:
    """Users with two addresses each, which get a table of their own, and teams."""
    people = [{"id": number, "emails": [{"address": "a"}, {"address": "b"}]} for number in range(users)]
    groups = [{"id": number} for number in range(teams)]
    return [dlt.resource(people, name="users"), dlt.resource(groups, name="teams")]


def test_a_pipeline_over_local_files_is_a_job_with_the_counts_of_its_load(
    history: JobHistory,
    pipeline: Any,
    tmp_path: Path,
) -> None:
    (tmp_path / "users.jsonl").write_text("".join(f'{{"id": {number}, "tags": ["x"]}}\n' for number in range(1234)))

    @dlt.resource
    def users() -> Iterator[Any]:
        with (tmp_path / "users.jsonl").open() as lines:
            yield from map(json.loads, lines)

    with history.track(CONNECTION) as run:
        info = run_pipeline(run, pipeline, users())

    assert ("COMPLETED", {"inserted": 1234}) == newest(history)
    assert info is not None
    assert not info.has_failed_jobs
    [loaded] = (tmp_path / "lake" / "lake" / "users").iterdir()
    assert 1234 == len(gzip.decompress(loaded.read_bytes()).splitlines())
    assert 1234 == pipeline.last_trace.last_normalize_info.row_counts["users"]


def test_rows_of_nested_tables_are_no_entities(history: JobHistory, warehouse: Any) -> None:
    for users, teams in ((3, 2), (5, 0)):
        with history.track(CONNECTION) as run:
            run_pipeline(run, warehouse, directory(users, teams))
        assert ("COMPLETED", {"inserted": users + teams}) == newest(history)


def test_what_a_source_raises_is_a_failed_job(history: JobHistory, warehouse: Any) -> None:
    @dlt.resource
    def users() -> Iterator[Any]:
        yield {"id": 1}
        message = "the token ghp_0123456789abcdefghijABCDEFGHIJ012345 is expired"
        raise PermissionError(message)

    with pytest.raises(PipelineStepFailed), history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, users())

    assert ("FAILED", {}) == newest(history)
    [job] = history.list_jobs(CONNECTION)
    assert "token [redacted] is expired" in (job.error or "")


def test_what_was_loaded_before_a_table_failed_is_counted_once_and_the_rest_when_it_is_loaded(
    history: JobHistory,
    warehouse: Any,
    broken: set[str],
) -> None:
    broken.add("teams")
    with pytest.raises(PipelineStepFailed), history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, directory(3, 5))
    assert ("FAILED", {"inserted": 3, "failed": 5}) == newest(history)

    broken.clear()
    with history.track(CONNECTION) as run:
        run_pipeline(run, warehouse)  # what is pending
    assert ("COMPLETED", {"inserted": 5}) == newest(history)

    with history.track(CONNECTION) as run:
        assert run_pipeline(run, warehouse) is None
    assert ("COMPLETED", {}) == newest(history)


def test_what_dlt_is_told_to_leave_out_is_failed_in_a_completed_job(
    history: JobHistory,
    warehouse: Any,
    broken: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOAD__RAISE_ON_FAILED_JOBS", "false")
    broken.add("teams")

    with history.track(CONNECTION) as run:
        info = run_pipeline(run, warehouse, directory(3, 5))

    assert info is not None
    assert info.has_failed_jobs
    assert ("COMPLETED", {"inserted": 3, "failed": 5}) == newest(history)


def test_a_pipeline_stops_when_it_is_asked_to_and_can_run_again(history: JobHistory, warehouse: Any) -> None:
    yielded = []

    @dlt.resource
    def users() -> Iterator[Any]:
        for number in range(100):
            yielded.append(number)
            if number == 3:
                history.cancel(run.job.id)
                run.flush()
                run.request_cancel()
            yield [{"id": number}]

    with history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, users())

    assert ("CANCELLED", {}) == newest(history)
    assert yielded[-1] < 99
    with history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, directory(4))
    assert ("COMPLETED", {"inserted": 4}) == newest(history)


def test_a_cancel_that_comes_when_all_is_loaded_changes_nothing(
    history: JobHistory,
    warehouse: Any,
) -> None:
    class Late(DictCollector):
        def on_end_trace(self, *_: object) -> None:
            run.request_cancel()

    warehouse.collector = Late()
    with history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, directory(4))

    assert ("COMPLETED", {"inserted": 4}) == newest(history)


def test_a_worker_that_lost_its_job_stops(history: JobHistory, warehouse: Any) -> None:
    @dlt.resource
    def users() -> Iterator[Any]:
        for number in range(100):
            if number == 3:
                history.fail(run.job.id, error="reaped")
                run.report(inserted=1)
                with pytest.raises(LostJobError):
                    run.flush()
            yield [{"id": number}]

    with pytest.raises(LostJobError), history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, users())

    assert ("FAILED", {}) == newest(history)


def test_ctrl_c_while_a_source_is_read_is_a_cancelled_job_and_goes_on(history: JobHistory, warehouse: Any) -> None:
    @dlt.resource
    def users() -> Iterator[Any]:
        yield [{"id": 1}]
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, users())

    assert ("CANCELLED", {}) == newest(history)


def test_a_sigterm_that_the_run_handles_stops_the_pipeline(history: JobHistory, warehouse: Any) -> None:
    @dlt.resource
    def users() -> Iterator[Any]:
        for number in range(100):
            if number == 3:
                signal.raise_signal(signal.SIGTERM)
            yield [{"id": number}]

    with history.track(CONNECTION, handle_sigterm=True) as run:
        run_pipeline(run, warehouse, users())

    assert ("CANCELLED", {}) == newest(history)
    [job] = history.list_jobs(CONNECTION)
    assert "SIGTERM" == job.error


def test_the_pipelines_own_progress_goes_on_and_is_its_own_again(history: JobHistory, warehouse: Any) -> None:
    steps = []

    class Progress(DictCollector):
        def _start(self, step: str) -> None:
            assert step == self.step  # tqdm's and alive_progress's bars are called by it
            steps.append(step.split(maxsplit=1)[0])
            super()._start(step)

        def on_start_trace_step(self, *args: Any) -> None:
            steps.append(args[1])

        def on_end_trace_step(self, *args: Any) -> None:
            steps.append(f"{args[1].step} ended")

    warehouse.collector = progress = Progress()
    with history.track(CONNECTION) as run:
        run_pipeline(run, warehouse, directory(4))

    assert progress is warehouse.collector
    assert ["run", "extract", "Extract", "extract ended", "normalize", "Normalize", "normalize ended"] == (
        list(dict.fromkeys(steps))[:7]
    )
    assert ["load", "Load", "load ended", "run ended"] == list(dict.fromkeys(steps))[7:]
