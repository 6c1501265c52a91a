from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest

from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from tests.cli.command_line import CommandLine, process

DOCS, CODE = UUID(int=1), UUID(int=2)
LONG_AGO = datetime(2024, 3, 15, 12, tzinfo=UTC)
HOSTILE = "\x1b[2J\x9b2J [red]host[/red]"
SHOWN = r"\x1b[2J\x9b2J [red]host[/red]"


@pytest.fixture
def waiting(history: JobHistory) -> SyncJob:
    return history.enqueue(DOCS)


@pytest.fixture
def running(history: JobHistory) -> SyncJob:
    return history.start(history.enqueue(DOCS).id, worker="host:17:tag")


def vanished(history: JobHistory, status: JobStatus = JobStatus.RUNNING, *, worker: str = "gone:17:tag") -> SyncJob:
    """A job whose worker was last heard of long ago."""
    job = SyncJob(
        id=UUID(int=7 + len(history.active_jobs())),
        source_connection_id=DOCS,
        status=status,
        created_at=LONG_AGO,
        started_at=None if status is JobStatus.PENDING else LONG_AGO,
        worker=None if status is JobStatus.PENDING else worker,
    )
    history.add_many([job])
    return job


# ---- cancel


def test_a_job_that_waits_is_cancelled_at_once_and_keeps_the_reason(
    cli: CommandLine, history: JobHistory, waiting: SyncJob
) -> None:
    result = cli("cancel", str(waiting.id), "--reason", "not today")

    assert (0, f"Job {waiting.id} is CANCELLED: no worker had taken it.\n", "") == (
        result.exit_code,
        result.stdout,
        result.stderr,
    )
    stored = history.get(waiting.id)
    assert (JobStatus.CANCELLED, "not today") == (stored.status, stored.error)


def test_a_job_that_runs_is_asked_to_stop(cli: CommandLine, history: JobHistory, running: SyncJob) -> None:
    result = cli("cancel", str(running.id))

    assert (0, f"Job {running.id} is CANCELLING: its worker host:17:tag is asked to stop.\n", "") == (
        result.exit_code,
        result.stdout,
        result.stderr,
    )
    assert JobStatus.CANCELLING is history.get(running.id).status


def test_a_reason_that_has_no_place_is_not_swallowed(cli: CommandLine, running: SyncJob) -> None:
    said = "The reason is not kept: only a job that ends at once has a place for it.\n"

    for _ in range(2):
        assert (0, said) == ((result := cli("cancel", str(running.id), "--reason", "late")).exit_code, result.stderr)


def test_asking_again_changes_nothing(
    cli: CommandLine, history: JobHistory, running: SyncJob, waiting: SyncJob
) -> None:
    for job in (running, waiting):
        cli("cancel", str(job.id))
    before = [history.get(job.id) for job in (running, waiting)]

    again = [cli("cancel", str(job.id)) for job in (running, waiting)]

    assert [
        (0, f"Job {running.id} was CANCELLING already: its worker host:17:tag has not stopped yet.\n"),
        (0, f"Job {waiting.id} was CANCELLED already.\n"),
    ] == [(result.exit_code, result.stdout) for result in again]
    assert before == [history.get(job.id) for job in (running, waiting)]


def test_a_finished_job_cannot_be_cancelled(cli: CommandLine, history: JobHistory, running: SyncJob) -> None:
    done = history.complete(running.id)

    result = cli("cancel", str(running.id), "--reason", "late")

    assert (1, "", f"Error: job {running.id} is COMPLETED already: a finished job never changes\n") == (
        result.exit_code,
        result.stdout,
        result.stderr,
    )
    assert done == history.get(running.id)


def test_the_start_of_an_id_is_enough_and_an_unknown_one_is_not_found(cli: CommandLine, waiting: SyncJob) -> None:
    assert 3 == cli("cancel", str(UUID(int=99))).exit_code
    assert 3 == cli("cancel", "no job").exit_code
    assert 0 == cli("cancel", str(waiting.id)[:13]).exit_code


def test_cancelling_in_a_history_that_is_not_there_makes_none(cli: CommandLine) -> None:
    assert 3 == cli("cancel", str(UUID(int=1))).exit_code
    assert 3 == cli("reap").exit_code


@pytest.mark.parametrize(("worker", "named"), [(HOSTILE, f"its worker {SHOWN}"), (None, "its worker")])
def test_a_workers_name_steers_no_terminal(
    cli: CommandLine, history: JobHistory, worker: str | None, named: str
) -> None:
    job = SyncJob(
        id=UUID(int=7),
        source_connection_id=DOCS,
        status=JobStatus.RUNNING,
        created_at=LONG_AGO,
        started_at=LONG_AGO,
        worker=worker,
    )
    history.add_many([job])

    assert f"Job {job.id} is CANCELLING: {named} is asked to stop.\n" == cli.on_terminal("cancel", str(job.id))


# ---- reap


def test_reaping_says_what_it_ended_and_why(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS, "the docs")
    lost = vanished(history)
    stopping = vanished(history, JobStatus.CANCELLING)

    result = cli("reap", "--confirm-for", "0.01")

    assert 0 == result.exit_code
    assert "Some jobs look abandoned: waiting 10ms for a sign of life.\n" == result.stderr
    assert [
        (f"Job {job.id} of the docs is {status}: {history.get(job.id).error}")
        for job, status in ((stopping, "CANCELLED"), (lost, "FAILED"))
    ] == result.stdout.splitlines()
    assert "its worker vanished: gone:17:tag was silent for" in result.stdout


def test_it_is_quiet_and_does_not_wait_where_nobody_is_silent(
    cli: CommandLine, history: JobHistory, running: SyncJob, waiting: SyncJob
) -> None:
    result = cli("reap", "--confirm-for", "1000000")

    assert (0, "", "") == (result.exit_code, result.stdout, result.stderr)
    assert [waiting, running] == history.active_jobs()


def test_json_has_the_evidence(cli: CommandLine, history: JobHistory) -> None:
    assert [] == json.loads(cli("reap", "--json").stdout)
    job = vanished(history)

    (reaped,) = json.loads(cli("reap", "--confirm-for", "0", "--json").stdout)

    assert history.get(job.id).to_dict() == reaped
    assert ("gone", 17) == (reaped["error_details"]["host"], reaped["error_details"]["pid"])


def test_jobs_that_wait_too_long_are_ended_where_asked_for(cli: CommandLine, history: JobHistory) -> None:
    job = vanished(history, JobStatus.PENDING)

    assert "" == cli("reap", "--confirm-for", "0").stdout
    assert f"Job {job.id} of {DOCS} is FAILED: no worker took it within " in (
        cli("reap", "--confirm-for", "0", "--pending-for", "1m").stdout
    )
    assert JobStatus.FAILED is history.get(job.id).status


def test_silent_for_says_who_is_looked_at(cli: CommandLine, history: JobHistory) -> None:
    job = vanished(history)

    assert "" == cli("reap", "--confirm-for", "0", "--silent-for", "9999w").stdout
    assert history.get(job.id).is_active


@pytest.mark.parametrize("option", ["--silent-for", "--confirm-for", "--pending-for"])
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon"])
def test_a_duration_that_is_none_is_wrong_usage(cli: CommandLine, history: JobHistory, option: str, value: str) -> None:
    job = vanished(history)

    result = cli("reap", option, value)

    assert (2, "", True) == (result.exit_code, result.stdout, value in result.stderr)
    assert job == history.get(job.id)


def test_a_confirmation_shorter_than_a_heartbeat_is_said(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS)

    assert process("--db", cli.url, "reap", "--confirm-for", "15").stderr.startswith(
        "confirm_for of 15 s is no longer than a Run's heartbeat_interval"
    )
    assert "" == process("--db", cli.url, "reap").stderr


def test_ctrl_c_while_it_waits_ends_no_job(cli: CommandLine, history: JobHistory) -> None:
    job = vanished(history)
    command = [sys.executable, "-m", "jobhistory.cli", "--db", cli.url, "reap"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reaping:
        assert reaping.stderr is not None
        assert "Some jobs look abandoned: waiting 30s for a sign of life.\n" == reaping.stderr.readline()
        reaping.send_signal(signal.SIGINT)
        stdout, stderr = reaping.communicate()

    assert (130, "", "") == (reaping.returncode, stdout, stderr)
    assert job == history.get(job.id)


def test_a_vanished_workers_name_steers_no_terminal(cli: CommandLine, history: JobHistory) -> None:
    vanished(history, worker=HOSTILE)

    screen = cli.on_terminal("reap", "--confirm-for", "0")

    assert f"its worker vanished: {SHOWN} was silent for" in screen
    assert not [character for character in screen.rstrip("\n") if not character.isprintable()]


def test_a_connection_that_went_meanwhile_is_named_by_its_id(
    cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of its jobs and the look at their names."""
    vanished(history)
    connections = JobHistory.connections

    def forgotten(self: JobHistory) -> object:
        self.forget(DOCS)
        return connections(self)

    monkeypatch.setattr(JobHistory, "connections", forgotten)

    assert f" of {DOCS} is FAILED" in cli("reap", "--confirm-for", "0").stdout


def test_a_cancelled_job_comes_as_json(cli: CommandLine, history: JobHistory) -> None:
    job = history.enqueue(DOCS)

    told = json.loads(cli("cancel", str(job.id), "--json").stdout)

    assert history.get(job.id).to_dict() == told
    assert "CANCELLED" == told["status"]
