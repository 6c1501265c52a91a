from __future__ import annotations

import fcntl
import logging
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from uuid import UUID

import attrs
import pytest
from click.testing import CliRunner

import jobhistory
from jobhistory import JobHistory, JobStatus, SourceConnection, StorageError, SyncJob
from jobhistory.cli.app import app
from jobhistory.cli.database import Database
from jobhistory.cli.exec import _absolute, _connection, _said_by, _story
from jobhistory.exec import Execution
from jobhistory.exec import group as group_module
from jobhistory.exec.execution import Watch
from jobhistory.exec.group import Events, Group
from jobhistory.exec.passage import write_all
from jobhistory.storage.sqlite import SQLiteJobRepository
from tests.executions import CONNECTION, Executions, counts, outcome, wait_until

CANCELLED, COMPLETED, FAILED, RUNNING = JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.RUNNING
# It says when it listens; then it goes on until it is ended, or its standard input is.
WAITS = ["sh", "-c", "echo ready; cat"]


@pytest.fixture
def exec_(tmp_path: Path) -> Executions:
    return Executions(tmp_path)


# ---- What becomes of the job


def test_a_command_that_exits_with_0_is_a_completed_job(exec_: Executions) -> None:
    ended = exec_.run("--meta", "trigger=cron", "--meta", "query=a=b", "--", "echo", "two words")

    assert (0, "two words\n", "") == (ended.returncode, ended.stdout, ended.stderr)
    job = exec_.job()
    assert (COMPLETED, None) == outcome(job)
    assert {"command": "echo 'two words'", "trigger": "cron", "query": "a=b"} == job.metadata
    assert job.duration_seconds is not None


def test_a_command_that_exits_with_another_code_is_a_failed_job_with_the_end_of_its_stderr(exec_: Executions) -> None:
    ended = exec_.run("--", "sh", "-c", "echo fine; echo 'no such token' >&2; exit 23")

    assert (23, "fine\n", "no such token\n") == (ended.returncode, ended.stdout, ended.stderr)
    job = exec_.job()
    assert (FAILED, "sh exited with 23") == outcome(job)
    assert {"exit_code": 23, "stderr": "no such token\n"} == job.error_details
    assert job.completed_at is not None


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (40, "signal 40")]
)
def test_a_command_killed_by_a_signal_is_a_failed_job_that_names_it(exec_: Executions, number: int, name: str) -> None:
    kills_itself = f"import os; os.kill(os.getpid(), {int(number)})"

    ended = exec_.run("--", sys.executable, "-c", kills_itself)

    assert 128 + number == ended.returncode
    job = exec_.job()
    assert (FAILED, f"{Path(sys.executable).name} was killed by {name}") == outcome(job)
    assert {"exit_code": 128 + number, "signal": name} == job.error_details


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("no-such-command", 127, "No such file or directory"),
        ("./not-executable", 126, "Permission denied"),
        ("./not-executable/in-it", 127, "Not a directory"),
    ],
)
def test_a_command_that_cannot_be_run_is_a_failed_job(exec_: Executions, command: str, code: int, reason: str) -> None:
    (exec_.folder / "not-executable").write_text("")

    ended = exec_.run("--", command, "-x")

    assert (code, f"jobhistory: {command} cannot be run: {reason}\n") == (ended.returncode, ended.stderr)
    assert (FAILED, f"{command} cannot be run: {reason}") == outcome(exec_.job())
    assert {"exit_code": code} == exec_.job().error_details


def test_a_script_that_names_no_interpreter_is_the_shells(exec_: Executions, monkeypatch: pytest.MonkeyPatch) -> None:
    (exec_.folder / "sync-docs").write_text('echo "$# $1"; exit 3\n')
    (exec_.folder / "sync-docs").chmod(0o755)
    monkeypatch.setenv("PATH", str(exec_.folder), prepend=os.pathsep)

    ended = exec_.run("--", "sync-docs", "-x y")

    assert (3, "1 -x y\n") == (ended.returncode, ended.stdout)
    assert (FAILED, "sync-docs exited with 3") == outcome(exec_.job())


def test_of_a_long_stderr_the_end_is_kept_from_the_start_of_a_line(exec_: Executions) -> None:
    ended = exec_.run("--", "sh", "-c", "seq 100000 999999 >&2; exit 1")

    assert "".join(f"{number}\n" for number in range(100_000, 1_000_000)) == ended.stderr
    kept = (exec_.job().error_details or {})["stderr"]
    assert "".join(f"{number}\n" for number in range(1_000_000 - 8 * 1024 // 7, 1_000_000)) == kept


def test_no_secret_is_kept_of_what_the_command_wrote(exec_: Executions) -> None:
    exec_.run("--", "sh", "-c", "echo token=abcdef0123456789 >&2; exit 1", "--password", "hunter2secret")

    job = exec_.job()
    assert {"exit_code": 1, "stderr": "token=[redacted]\n"} == job.error_details
    assert (job.metadata or {})["command"].endswith(" --password [redacted]")


def test_a_secret_in_a_long_command_is_redacted_before_it_can_be_cut(exec_: Executions) -> None:
    exec_.run("--", "true", f"{'x' * 4_050} ghp_0123456789abcdefghijABCDEFGHIJ012345")

    assert f"true '{'x' * 4_050} [redacted]'" == (exec_.job().metadata or {})["command"]


def test_what_is_no_text_can_be_recorded_too(exec_: Executions) -> None:
    ended = exec_.run("--", "sh", "-c", r"printf '\377\000\033[31m' >&2; exit 1", b"\xff", text=False)

    assert b"\xff\0\x1b[31m" == ended.stderr
    job = exec_.job()
    assert {"exit_code": 1, "stderr": "\N{REPLACEMENT CHARACTER}\\x00\x1b[31m"} == job.error_details


# ---- Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_is_passed_on_and_the_job_cancelled(exec_: Executions, number: signal.Signals) -> None:
    names = " ".join(f"trap 'echo got {name}; exit 5' {name};" for name in ("INT", "TERM", "HUP", "QUIT"))

    with exec_.running("--", "sh", "-c", f"{names} echo ready; read line") as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        process.send_signal(number)
        said = process.stdout.read()

    assert (5, f"got {number.name.removeprefix('SIG')}\n".encode()) == (process.wait(), said)
    assert (CANCELLED, number.name) == outcome(exec_.job())


def test_a_command_that_is_to_stop_before_it_began_is_not_run(exec_: Executions) -> None:
    with comes_first(exec_, signal.SIGTERM) as history:
        assert 143 == execution(history, "no-such-command").execute()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_a_command_that_is_to_wait_before_it_began_waits(exec_: Executions, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Group] = []
    monkeypatch.setattr(Group, "suspend", lambda group: waits.append(group))  # noqa: PLW0108  it is to be bound

    with comes_first(exec_, signal.SIGTSTP) as history:
        assert 0 == execution(history, "true").execute()

    assert 1 == len(waits)


@contextmanager
def comes_first(exec_: Executions, number: signal.Signals) -> Iterator[JobHistory]:
    """A history that keeps us waiting until a signal comes."""

    def come(job: SyncJob) -> None:
        if job.status is RUNNING:
            signal.raise_signal(number)

    with closing(jobhistory.open(exec_.url, hooks=[come])) as history:
        yield history


def test_every_further_signal_is_passed_on_too(exec_: Executions) -> None:
    script = "trap 'echo got TERM' TERM; trap 'exit 7' INT; echo ready; read line; read line"

    with exec_.running("--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert b"ready\n" == process.stdout.readline()
        process.terminate()
        assert b"got TERM\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)

        assert 7 == process.wait()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_a_signal_to_both_at_the_same_time_is_a_cancel(exec_: Executions) -> None:
    ended = exec_.run("--", "sh", "-c", "kill -TERM $PPID $$")

    assert 143 == ended.returncode
    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_a_cancel_from_another_process_stops_the_command(exec_: Executions) -> None:
    with exec_.running("--", *WAITS) as process, exec_.history() as history:
        job = wait_until(history, lambda job: job.status is RUNNING)
        history.cancel(job.id)

        assert 143 == process.wait()

    assert (CANCELLED, None) == outcome(exec_.job())


def test_a_command_that_was_stopped_and_says_0_has_not_succeeded(exec_: Executions) -> None:
    with exec_.running("--", "sh", "-c", "trap 'exit 0' TERM; echo ready; read line") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()

        assert 143 == process.wait()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_a_command_that_runs_too_long_is_stopped_and_failed(exec_: Executions) -> None:
    with exec_.running("--timeout", "0.25", "--", *WAITS, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None

        assert b"jobhistory: sh timed out after 0.25 s\n" == process.stderr.read()
        assert 143 == process.wait()

    job = exec_.job()
    assert (FAILED, "sh timed out after 0.25 s") == outcome(job)
    assert {"exit_code": 143, "signal": "SIGTERM"} == job.error_details


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(exec_: Executions) -> None:
    with exec_.running("--grace", "0.25", "--", "sh", "-c", "trap '' TERM; echo ready; read line") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()

        assert 137 == process.wait()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_a_job_shows_that_it_is_being_cancelled_while_its_command_stops(exec_: Executions) -> None:
    stops_slowly = "trap 'echo stopping' TERM; echo ready; read line; read line"
    with (
        exec_.running("--grace", "60", "--", "sh", "-c", stops_slowly) as process,
        exec_.history() as history,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.terminate()
        wait_until(history, lambda job: job.status is JobStatus.CANCELLING)
        process.stdin.close()
        process.wait()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_what_ignores_sigterm_in_the_group_is_killed_when_the_command_obeys(exec_: Executions) -> None:
    life = exec_.fifo("life")
    stubborn = "trap '' TERM; exec 9>life; echo ready; read line <&3; echo survived >&9"

    with exec_.running("--grace", "0.25", "--", "sh", "-c", f"exec 3<&0; ({stubborn}) & wait") as process:
        with life.open() as alive:
            process.terminate()

            assert "" == alive.read()
        assert 143 == process.wait()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_what_left_the_group_neither_keeps_exec_nor_is_stopped(exec_: Executions) -> None:
    life = exec_.fifo("life")
    daemon = "exec 9>life; read line <&3; echo survived >&9"

    with exec_.running("--", "sh", "-c", f"exec 3<&0; setsid sh -c '{daemon}' & wait") as process, life.open() as alive:
        process.terminate()
        assert 143 == process.wait()
        assert process.stdin is not None
        process.stdin.close()

        assert "survived\n" == alive.read()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


@pytest.mark.parametrize("forks", ["({}) &", "setsid sh -c '{}' &"], ids=["in its group", "a daemon"])
def test_what_the_command_leaves_behind_keeps_neither_exec_nor_the_job(exec_: Executions, forks: str) -> None:
    life = exec_.fifo("life")
    holds_the_pipes = forks.format("exec 9>life; read line <&3; echo survived >&9")
    waits_for_it = "read line < started"
    exec_.fifo("started")

    with (
        exec_.running("--singer", "--", "sh", "-c", f"exec 3<&0; {holds_the_pipes} {waits_for_it}") as process,
        life.open() as alive,
    ):
        (exec_.folder / "started").write_text("now\n")
        assert 0 == process.wait()
        assert process.stdin is not None
        process.stdin.close()

        assert "survived\n" == alive.read()

    assert (COMPLETED, None) == outcome(exec_.job())


def test_a_daemon_that_never_stops_writing_keeps_nobody(exec_: Executions) -> None:
    with exec_.running("--singer", "--", "sh", "-c", "setsid yes & exit 3", stdout=subprocess.DEVNULL) as process:
        assert 3 == process.wait()

    assert (FAILED, "sh exited with 3") == outcome(exec_.job())


def test_a_signal_that_is_ignored_here_is_ignored_there(exec_: Executions) -> None:
    words = shlex.join(map(str, exec_.words("--", *WAITS)))

    with subprocess.Popen(
        ["/bin/sh", "-c", f"trap '' HUP; exec {words}"],
        cwd=exec_.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.stdin.write(b"still there\n")
        process.stdin.close()

        assert b"still there\n" == process.stdout.read()
        assert 0 == process.wait()

    assert (COMPLETED, None) == outcome(exec_.job())


def test_how_a_command_ends_is_known_where_sigchld_is_ignored(exec_: Executions) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as whoever starts us may leave it

    with exec_.history() as history:
        code = execution(history, "sh", "-c", "exit 3").execute()

    assert signal.SIG_IGN is signal.signal(signal.SIGCHLD, before)
    assert (3, (FAILED, "sh exited with 3")) == (code, outcome(exec_.job()))


def test_where_exec_is_killed_the_job_is_reaped_and_the_command_ends_as_it_writes(exec_: Executions) -> None:
    life = exec_.fifo("life")

    with (
        exec_.running("--", "sh", "-c", "exec 9>life; read line; echo into nowhere >&2; read line") as process,
        life.open() as alive,
        exec_.history() as history,
    ):
        job = wait_until(history, lambda job: job.status is RUNNING)
        process.kill()
        process.wait()
        assert (job.worker or "").split(":")[1] == str(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"go on\n")
        process.stdin.flush()

        assert "" == alive.read()
        [reaped] = history.reap(silent_for=0, confirm_for=0)

    assert FAILED == reaped.status
    assert "vanished" in (reaped.error or "")


# ---- The history, and exec itself


def test_beside_a_job_that_is_not_finished_an_exclusive_command_is_not_run(exec_: Executions) -> None:
    with exec_.history() as history:
        other = history.enqueue(CONNECTION)

    ended = exec_.run("--exclusive", "--", "touch", "ran")

    assert (125, False) == (ended.returncode, (exec_.folder / "ran").exists())
    assert f"Error: source connection {CONNECTION} has an active job {other.id}: let it finish" in ended.stderr
    assert other == exec_.job()


@pytest.mark.parametrize(
    ("words", "way_out"),
    [
        ([], "Missing COMMAND: put it last, behind --"),
        (["--"], "Missing COMMAND: put it last, behind --"),
        (["touch", "ran"], "Got unexpected extra arguments (touch ran)"),
        (["--no-such-option", "--", "touch", "ran"], "No such option '--no-such-option'"),
        (["--singer", "--rsync", "--", "touch", "ran"], "--singer or --rsync"),
        (["--timeout", "soon", "--", "touch", "ran"], "'soon' is no duration"),
        (["--timeout", "nan", "--", "touch", "ran"], "'nan' is no duration"),
        (["--timeout", "-1", "--", "touch", "ran"], "'-1' is no duration"),
        (["--grace", "inf", "--", "touch", "ran"], "'inf' is no duration"),
        (["--meta", "key", "--", "touch", "ran"], "'key' is not KEY=VALUE"),
        (["--meta", "=value", "--", "touch", "ran"], "'=value' is not KEY=VALUE"),
        (["--meta", os.fsdecode(b"key=\xff"), "--", "touch", "ran"], "must not contain lone surrogates"),
    ],
)
def test_wrong_usage_runs_nothing_and_has_a_code_of_its_own(
    exec_: Executions, monkeypatch: pytest.MonkeyPatch, words: list[str], way_out: str
) -> None:
    monkeypatch.chdir(exec_.folder)

    ended = CliRunner().invoke(app, ["--db", exec_.url, "exec", str(CONNECTION), *words])

    assert (125, False) == (ended.exit_code, (exec_.folder / "ran").exists())
    assert way_out in ended.stderr


def test_without_a_history_nothing_is_run(exec_: Executions) -> None:
    Path(exec_.url).write_text("a letter")

    ended = exec_.run("--", "touch", "ran")

    assert (125, False) == (ended.returncode, (exec_.folder / "ran").exists())
    assert "history.db" in ended.stderr
    assert "a letter" == Path(exec_.url).read_text()


# ---- The same in this process, where what is hard to come by can be brought about


def execution(history: JobHistory, *command: str) -> Execution:
    return Execution(history=history, source_connection_id=CONNECTION, command=command)


def logged(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_without_room_for_a_report_nothing_is_run(exec_: Executions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(exec_.folder / "nowhere"))
    ran = exec_.folder / "ran"

    with exec_.history() as history, pytest.raises(FileNotFoundError, match="nowhere"):
        execution(history, "touch", str(ran)).execute()

    assert not ran.exists()


BREAKS_IT = """
import sqlite3, sys
sqlite3.connect(sys.argv[1]).executescript("DROP TABLE jobs")
sys.exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize("code", [0, 5])
def test_a_history_that_fails_while_the_command_runs_is_logged_and_the_code_is_the_commands(
    exec_: Executions, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    waited: list[float] = []
    # Waiting takes no time here, so neither does trying for a minute.
    history = JobHistory(
        SQLiteJobRepository(exec_.url), monotonic=lambda: time.monotonic() + sum(waited), sleep=waited.append
    )

    with closing(history.repository):
        assert code == execution(history, sys.executable, "-c", BREAKS_IT, exec_.url, str(code)).execute()

    assert ("could not be recorded" if code else "how the command ended is not recorded") in logged(caplog)


def test_a_signal_ends_the_wait_for_a_history_that_fails(exec_: Executions, caplog: pytest.LogCaptureFixture) -> None:
    signals = iter([signal.SIGTSTP, signal.SIGTERM])
    history = JobHistory(SQLiteJobRepository(exec_.url), sleep=lambda _: signal.raise_signal(next(signals)))

    with closing(history.repository):
        assert 0 == execution(history, sys.executable, "-c", BREAKS_IT, exec_.url, "0").execute()

    assert "could not be recorded" in logged(caplog)


def test_a_command_that_ends_its_job_itself_goes_on_to_its_own_end(exec_: Executions) -> None:
    program = """
import os, sys, jobhistory
with jobhistory.open(os.environ["JOBHISTORY_URL"]) as history:
    history.fail(os.environ["JOBHISTORY_JOB_ID"], error="the token has expired")
sys.stdin.read()
sys.exit(3)
"""
    with exec_.running("--", sys.executable, "-c", program, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert b"is not this worker's any more" in process.stderr.readline()
        process.stdin.close()

        assert b"its end could not be recorded" in process.stderr.read()
        assert 3 == process.wait()

    assert (FAILED, "the token has expired") == outcome(exec_.job())


def test_a_command_whose_job_was_cancelled_behind_its_back_is_stopped(exec_: Executions) -> None:
    with exec_.running("--", *WAITS) as process, exec_.history() as history:
        wait_until(history, lambda job: job.status is RUNNING)
        with closing(sqlite3.connect(exec_.url)) as database:
            database.execute("UPDATE jobs SET status = 'CANCELLED', version = version + 1")
            database.commit()

        assert 143 == process.wait()


def test_where_exec_itself_fails_the_command_is_not_left_behind(
    exec_: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[Group] = []

    def broken(watch: Watch) -> None:
        groups.append(watch._group)
        message = "broken"
        raise RuntimeError(message)

    monkeypatch.setattr(Watch, "_asked", broken)

    with exec_.history() as history, pytest.raises(RuntimeError, match="broken"):
        execution(history, "sh", "-c", "exec tail -f /dev/null").execute()

    [group] = groups
    assert -signal.SIGKILL == group._process.wait(60)
    assert (FAILED, "RuntimeError: broken") == outcome(exec_.job())


def test_a_history_that_cannot_be_used_from_the_start_is_an_error(exec_: Executions) -> None:
    with exec_.history() as history:
        pass

    with pytest.raises(StorageError, match="closed"):
        execution(history, "touch", str(exec_.folder / "ran")).execute()

    assert not (exec_.folder / "ran").exists()


def test_a_group_that_was_let_go_gets_no_signal_for_its_number_may_be_anothers() -> None:
    ended: Events = SimpleQueue()
    group = Group(["tail", "-f", "/dev/null"], {}, {2: len}, write=write_all, events=ended)
    group.let_go()

    assert not group.send(signal.SIGKILL)
    assert not group.ended
    os.kill(group._process.pid, signal.SIGTERM)
    while not group.ended or group.passing:
        ended.get()
    group.close()

    assert ("SIGTERM", 143) == (group.killed_by, group.exit_code)


def test_a_command_that_may_not_be_stopped_is_said_to_be_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    ended: Events = SimpleQueue()
    group = Group(["tail", "-f", "/dev/null"], {}, {2: len}, write=write_all, events=ended)
    with monkeypatch.context() as refused:
        refused.setattr(os, "killpg", refuse)  # as for what sudo runs

        assert not group.send(signal.SIGTERM)

    assert "what runs in tail as another user cannot be stopped" == logged(caplog)
    assert group.send(signal.SIGKILL)
    while not group.ended or group.passing:
        ended.get()
    group.close()


def test_what_is_logged_again_and_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    log = logging.getLogger("jobhistory")

    with _said_by(said.append):
        for job in ("1", "1", "2"):
            log.warning("job %s: a write failed", job, exc_info=StorageError("history.db", f"no\x1b disk for {job}"))
        log.info("all is well")
    log.warning("this is nobody's any more")

    assert [f"job {job}: a write failed: history.db: no\\x1b disk for {job}" for job in ("1", "2")] == said
    assert 4 == len(caplog.records)


def test_before_a_job_has_started_its_connection_is_all_there_is_to_tell() -> None:
    assert "notes" == _story(None, "notes", datetime.now(UTC))


def test_where_no_proc_tells_who_lives_the_group_is_given_its_grace(
    exec_: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "_PROC", exec_.folder)

    with exec_.history() as history:
        stopped = execution(history, "sh", "-c", "kill -TERM $PPID; exec tail -f /dev/null")
        stopped.grace = 0.25

        assert 143 == stopped.execute()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


# ---- Names, and what the command is told


def test_a_new_name_makes_a_connection_and_a_known_one_is_that(exec_: Executions) -> None:
    notes = attrs.evolve(exec_, connection="notes")

    first, second = notes.run("--", "true"), notes.run("--", "true")

    with exec_.history() as history:
        [connection] = history.connections()
        assert "notes" == connection.name
        assert 2 == len(history.list_jobs(connection.id))
    assert (f"jobhistory: new connection notes, {connection.id}\n", "") == (first.stderr, second.stderr)


def test_a_name_with_a_secret_makes_one_connection_without_it(exec_: Executions) -> None:
    secret = attrs.evolve(exec_, connection="notes token=abcdef0123456789")

    first, second = secret.run("--", "true"), secret.run("--", "true")

    with exec_.history() as history:
        [connection] = history.connections()
        assert "notes token=[redacted]" == connection.name
        assert 2 == len(history.list_jobs(connection.id))
    assert (0, 0, "") == (first.returncode, second.returncode, second.stderr)


def test_a_connection_can_be_given_a_name_with_its_id_or_by_another_name(exec_: Executions) -> None:
    exec_.run("--name", "notes", "--", "true")
    attrs.evolve(exec_, connection="notes").run("--name", "wiki", "--", "true")
    attrs.evolve(exec_, connection="550e8400").run("--", "true")

    with exec_.history() as history:
        assert [SourceConnection(CONNECTION, "wiki")] == history.connections()
    assert 3 == len(exec_.jobs())


def test_the_start_of_an_id_makes_no_connection(exec_: Executions) -> None:
    ended = attrs.evolve(exec_, connection="550e8400").run("--", "touch", "ran")

    assert (125, False) == (ended.returncode, (exec_.folder / "ran").exists())
    assert "no connection 550e8400" in ended.stderr


def test_a_name_that_another_took_meanwhile_is_that_connections(exec_: Executions) -> None:
    with exec_.history() as history:

        class Rivalled(JobHistory):
            def register(self, source_connection_id: UUID | str, name: str | None = None) -> SourceConnection:
                history.register(CONNECTION, name)
                return super().register(source_connection_id, name)

        assert SourceConnection(CONNECTION, "notes") == _connection(Rivalled(history.repository), "notes", None)


@pytest.mark.parametrize("url", ["history.db", "sqlite:///history.db"])
def test_the_command_can_use_the_library_itself_from_any_folder(exec_: Executions, url: str) -> None:
    program = """
import os, jobhistory
os.chdir("/")
with jobhistory.open(os.environ["JOBHISTORY_URL"]) as history:
    history.report(os.environ["JOBHISTORY_JOB_ID"], inserted=7, failed=1)
    print(history.get(os.environ["JOBHISTORY_JOB_ID"]).version)
"""
    words = exec_.words("--", sys.executable, "-c", program)
    words[words.index(exec_.url)] = url

    ended = subprocess.run(words, cwd=exec_.folder, capture_output=True, text=True, check=True)

    job = exec_.job()
    assert {"inserted": 7, "failed": 1} == counts(job)
    assert int(ended.stdout) + 1 == job.version


def test_a_file_that_is_open_for_the_command_is_the_commands(exec_: Executions) -> None:
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETFD, 0)  # not closed by exec: as a shell leaves it for <(...)
    os.write(write, b"secret")
    os.close(write)

    with exec_.history() as history:
        assert 0 == execution(history, "sh", "-c", f'test "$(cat /dev/fd/{read})" = secret').execute()

    os.close(read)


def test_a_history_that_no_other_process_can_open_is_not_named_to_the_command(exec_: Executions) -> None:
    words = exec_.words("--", "sh", "-c", "echo ${JOBHISTORY_URL-none}; test -n $JOBHISTORY_JOB_ID")
    words[words.index(exec_.url)] = "memory:"

    assert "none\n" == subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_url_of_another_kind_is_named_to_the_command_as_it_is() -> None:
    assert "postgresql://host/history" == _absolute(Database("postgresql://host/history"))


def test_help_tells_how_the_command_is_told_apart_and_what_it_finds() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "jobhistory.cli", "exec", "--help"], capture_output=True, text=True, check=True
    ).stdout

    assert "Usage: jobhistory exec [OPTIONS] CONNECTION -- COMMAND...\n" in text
    told = re.findall(r"^  (JOBHISTORY_\w+|\d+(?: \+ n)?) ", text, re.MULTILINE)
    assert ["JOBHISTORY_REPORT", "JOBHISTORY_JOB_ID", "JOBHISTORY_URL", "125", "126", "127", "128 + n"] == told
