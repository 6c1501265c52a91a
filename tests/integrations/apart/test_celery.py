"""The recipe for Celery, as it stands in the documentation, with a real worker and a broker of files."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobhistory import JobHistory, JobStatus, SyncJob
from tests.integrations.apart.engines import CONNECTION, PATIENCE, recipe, wait_until

GIVEN = """
import threading

URL, BROKER = {url!r}, "filesystem://"
ENDLESS, FAILING = "550e8400-e29b-41d4-a716-446655440001", "550e8400-e29b-41d4-a716-446655440002"


def batches_of(connection):
    yield ["a", "b"]
    if str(connection) == FAILING:
        raise PermissionError("expired")
    while str(connection) == ENDLESS:
        threading.Event().wait(0.01)
        yield ["c"]

"""
CONFIGURED = """
app.conf.update(
    broker_transport_options={{
        "data_folder_in": {folder!r}, "data_folder_out": {folder!r}, "control_folder": {folder!r} + "/control"
    }},
    worker_hijack_root_logger=False,
    task_ignore_result=True,
)
"""


@pytest.fixture
def tasks(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The recipe's module."""
    (tmp_path / "broker").mkdir()
    code = GIVEN.format(url=url) + recipe("celery") + CONFIGURED.format(folder=str(tmp_path / "broker"))
    (tmp_path / "tasks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    tasks = importlib.import_module("tasks")
    yield tasks
    tasks.history.close()
    monkeypatch.delitem(sys.modules, "tasks")


@pytest.fixture
def worker(tasks: Any, tmp_path: Path) -> Iterator[Any]:
    """Starts a worker with one process, when it is called."""
    assert tasks
    started: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "1", "-P", "prefork"]

    def start() -> None:
        with (tmp_path / "worker.log").open("wb") as log:
            options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]
            started.append(subprocess.Popen([*command, *options], cwd=tmp_path, stdout=log, stderr=log))

    yield start
    for process in started:
        process.terminate()
        process.wait(PATIENCE)


def test_jobs_wait_beside_their_messages_and_a_worker_of_its_own_process_runs_them(
    history: JobHistory,
    tasks: Any,
    worker: Any,
    tmp_path: Path,
) -> None:
    waiting = tasks.enqueue(CONNECTION)
    unwanted = tasks.enqueue(CONNECTION)
    history.cancel(unwanted.id)
    tasks.sync.apply_async([str(waiting.id)])  # a second message for the same job
    failing = tasks.enqueue(tasks.FAILING)
    endless = tasks.enqueue(tasks.ENDLESS)
    assert JobStatus.PENDING is history.get(waiting.id).status

    worker()
    wait_until(history, lambda job: job.id == endless.id and job.status is JobStatus.RUNNING)
    tasks.app.control.revoke(str(endless.id), terminate=True)
    wait_until(history, lambda job: job.id == endless.id and job.is_terminal)

    def story(job: SyncJob) -> tuple[str, int, str | None]:
        job = history.get(job.id)
        return job.status.value, min(job.entities_inserted, 3), job.error

    assert [
        ("COMPLETED", 2, None),
        ("CANCELLED", 0, None),
        ("FAILED", 2, "PermissionError: expired"),
        ("CANCELLED", 3, "SIGTERM"),
    ] == [story(job) for job in (waiting, unwanted, failing, endless)], (tmp_path / "worker.log").read_text()
    assert {"trigger": "celery"} == history.get(waiting.id).metadata

    again = tasks.enqueue(tasks.ENDLESS)  # the process lives on
    wait_until(history, lambda job: job.id == again.id and job.status is JobStatus.RUNNING)
    history.cancel(again.id)
    assert JobStatus.CANCELLED is wait_until(history, lambda job: job.id == again.id and job.is_terminal).status
