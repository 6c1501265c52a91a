"""What a command writes passes through, whoever reads it, and however much it is."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import shlex
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from jobhistory import JobStatus, Redactor
from jobhistory.cli import live
from jobhistory.cli.live import LiveLine
from jobhistory.exec.passage import Passage, Tail, write_all
from tests.executions import CONNECTION, Executions, outcome, wait_until

CANCELLED, COMPLETED, FAILED, RUNNING = JobStatus.CANCELLED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.RUNNING
ALL_BYTES = bytes(range(256))
MEGABYTE = 2**20


@pytest.fixture
def exec_(tmp_path: Path) -> Executions:
    return Executions(tmp_path)


# ---- Pipes and files


def test_standard_input_and_output_are_the_commands_own_where_nothing_is_read_from_them(exec_: Executions) -> None:
    (exec_.folder / "in").write_text("")
    inodes = "import os; print(os.fstat(0).st_ino, os.fstat(1).st_ino)"

    with (exec_.folder / "in").open() as source, (exec_.folder / "out").open("w") as target:
        exec_.run("--", sys.executable, "-c", inodes, stdin=source, stdout=target, capture_output=False)
        ours = [os.fstat(source.fileno()).st_ino, os.fstat(target.fileno()).st_ino]

    assert ours == [int(word) for word in (exec_.folder / "out").read_text().split()]


def test_every_byte_passes_through(exec_: Executions) -> None:
    (exec_.folder / "bytes").write_bytes(ALL_BYTES * 1000)

    ended = exec_.run("--singer", "--", "sh", "-c", "cat bytes; cat bytes >&2; printf x", text=False)

    assert (0, ALL_BYTES * 1000 + b"x", ALL_BYTES * 1000) == (ended.returncode, ended.stdout, ended.stderr)
    assert (COMPLETED, None) == outcome(exec_.job())


@pytest.mark.parametrize(
    "megabytes", [pytest.param(64, id="64 MB"), pytest.param(1024, id="1 GB", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("lines", [True, False], ids=["in lines", "in one line"])
def test_a_command_that_prints_much_is_passed_on_in_little_memory(
    exec_: Executions, megabytes: int, stream: str, *, lines: bool
) -> None:
    source = "yes" if lines else "cat /dev/zero"
    redirected = "" if stream == "stdout" else ">&2"

    def run(megabytes: int) -> tuple[int, int]:
        """The bytes that came, and the most memory that any process of it took, in MB."""
        command = f"{source} | head -c {megabytes * MEGABYTE} {redirected}"
        with exec_.running("--singer", "--", "sh", "-c", command, **{stream: subprocess.PIPE}) as process:
            came = sum(len(chunk) for chunk in iter(lambda: os.read(getattr(process, stream).fileno(), MEGABYTE), b""))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert 0 == process.returncode
        return came, usage.ru_maxrss // 1024

    _, little = run(17)
    came, much = run(megabytes)

    assert megabytes * MEGABYTE == came
    # Twice the longest line that is read.
    assert much <= little + 32
    assert [(COMPLETED, None)] * 2 == [outcome(job) for job in exec_.jobs()]


def test_where_nobody_reads_on_the_command_is_told_by_sigpipe(exec_: Executions) -> None:
    with exec_.running("--singer", "--", "sh", "-c", "exec yes") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()

        assert 141 == process.wait()

    assert (FAILED, "sh was killed by SIGPIPE") == outcome(exec_.job())


def test_where_there_is_no_room_for_the_output_that_is_said(exec_: Executions) -> None:
    with Path("/dev/full").open("w") as full:
        ended = exec_.run(
            "--singer", "--", "sh", "-c", "exec yes", stdout=full, stderr=subprocess.PIPE, capture_output=False
        )

    assert 141 == ended.returncode
    assert "jobhistory: the command's output cannot be passed on: No space left on device\n" == ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_where_there_is_no_room_for_stderr_the_command_goes_on_and_the_end_of_it_is_kept(
    exec_: Executions, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    new = attrs.evolve(exec_, connection="new, which is said")
    script = "seq 100000 >&2; echo done; exit 3"

    with Path("/dev/full").open("w") as full:
        ended = new.run("--", "sh", "-ec", script, stdout=subprocess.PIPE, stderr=full, capture_output=False)

    assert (3, "done\n") == (ended.returncode, ended.stdout)
    with exec_.history() as history:
        [[job]] = history.newest_jobs().values()
    assert (job.error_details or {})["stderr"].endswith("\n99999\n100000\n")


def test_a_reader_that_is_slower_than_the_command_gets_everything(exec_: Executions) -> None:
    life = exec_.fifo("life")

    with exec_.running("--rsync", "--", "sh", "-c", f"exec 9>{life}; seq 10000 18000") as process:
        with life.open() as alive:
            assert "" == alive.read()  # the command is done, and what it wrote is still here and there
        assert process.stdout is not None
        assert [b"%d\n" % number for number in range(10000, 18001)] == process.stdout.readlines()
        assert 0 == process.wait()


def test_what_is_there_when_nothing_more_is_waited_for_still_passes() -> None:
    source, writes_on = os.pipe()
    reads, target = os.pipe()
    over, over_once_closed = os.pipe()
    seen = bytearray()
    os.write(writes_on, b"x" * 60_000)
    passing = Passage(source, target, over, write=write_all, see=seen.extend, done=lambda: os.close(target))
    os.close(over_once_closed)

    passing.start()

    with os.fdopen(reads, "rb") as passed:
        assert b"x" * 60_000 == passed.read()
    passing.join()
    assert b"x" * 60_000 == seen
    with pytest.raises(BrokenPipeError):
        os.write(writes_on, b"more")
    os.close(writes_on)
    os.close(over)


def test_a_stream_passes_however_many_files_are_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    low, writes_on = os.pipe()
    over, over_once_closed = os.pipe()
    source = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1024)  # more than select(2) takes
    seen = bytearray()
    with Path(os.devnull).open("w") as target:
        passing = Passage(source, target.fileno(), over, write=write_all, see=seen.extend, done=lambda: None)
        passing.start()
        os.write(writes_on, b"x")
        os.close(writes_on)
        passing.join()

    assert b"x" == seen
    for descriptor in (low, over, over_once_closed):
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_whoever_goes_on_writing_when_nothing_more_is_waited_for_is_left_alone_in_the_end() -> None:
    source, writes_on = os.pipe()
    over, over_once_closed = os.pipe()
    seen = []

    def write_more(chunk: bytes) -> None:
        seen.append(len(chunk))
        os.write(writes_on, chunk)

    os.write(writes_on, b"x" * 60_000)
    os.close(over_once_closed)
    with Path(os.devnull).open("w") as target:
        passing = Passage(source, target.fileno(), over, write=write_all, see=write_more, done=lambda: None)

        passing.start()
        passing.join()

    assert MEGABYTE <= sum(seen) < MEGABYTE + 60_000
    os.close(writes_on)
    os.close(over)


def test_a_reader_that_never_reads_does_not_keep_a_command_that_was_stopped(exec_: Executions) -> None:
    with exec_.running("--singer", "--", "yes") as process, exec_.history() as history:
        wait_until(history, lambda job: job.status is RUNNING)
        process.terminate()

        assert 143 == process.wait()

    assert (CANCELLED, "SIGTERM") == outcome(exec_.job())


def test_an_output_that_was_set_not_to_block_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    received = bytearray()
    wait = select.select

    def read_while_it_waits(*waits_for: Any) -> object:  # noqa: ANN401  those of select
        received.extend(os.read(ours, MEGABYTE))
        return wait(*waits_for)

    monkeypatch.setattr(select, "select", read_while_it_waits)

    write_all(theirs, ALL_BYTES * 4000)
    os.close(theirs)

    with os.fdopen(ours, "rb") as rest:
        assert ALL_BYTES * 4000 == received + rest.read()


def test_without_a_stderr_of_ours_the_command_can_do_without_it_too(exec_: Executions) -> None:
    words = exec_.words("--", "sh", "-c", "readlink /proc/$PPID/fd/2")
    words[words.index(exec_.url)] = "memory:"  # SQLite would keep the number from others
    command = f"{shlex.join(map(str, words))} 2>&-"

    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)

    # Not what was opened next, as a connection to a server: the command's messages would go there.
    assert (0, b"/dev/null\n") == (ended.returncode, ended.stdout)


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_a_tail_is_the_same_however_the_stream_comes_in_pieces(pieces: int) -> None:
    text = "".join(f"{number}\n" for number in range(1000))
    tail = Tail(100)

    for start in range(0, len(text), pieces):
        tail.see(text[start : start + pieces].encode())

    assert "".join(f"{number}\n" for number in range(976, 1000)) == tail.text(str)


@pytest.mark.parametrize("length", [10, 90, 110, 150, 190, 250, 1000])
@pytest.mark.parametrize("secret", ["password=hunter2secret", "password=" + "hunter2secret" * 20])
def test_no_secret_in_a_tail_is_kept_however_it_is_cut(secret: str, length: int) -> None:
    tail = Tail(100)

    tail.see(f"{secret}\n{'x ' * (length // 2)}".encode())

    assert "secret" not in tail.text(Redactor())


KEY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCsecret"] * 5)


@pytest.mark.parametrize(
    "secret", [f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----\n", "password=" + "hunter2secret" * 7]
)
@pytest.mark.parametrize(
    "filling", ["\N{ROCKET} ".encode(), b"\xff ", b"token ghp_" + b"A1b2C3d4" * 10 + b"\n"], ids=repr
)
def test_no_secret_in_a_tail_is_kept_however_wide_or_short_the_rest_of_it_is(secret: str, filling: bytes) -> None:
    for length in range(0, 2_000, 7):
        tail = Tail(100)

        tail.see(secret.encode() + b" " + (filling * 1_000)[:length])

        assert "secret" not in tail.text(Redactor())


def test_a_tail_of_wide_characters_is_as_long_as_one_of_narrow_ones() -> None:
    tail = Tail(100)

    tail.see("\N{ROCKET}".encode() * 1_000)

    assert "\N{ROCKET}" * 100 == tail.text(str)


# ---- Terminals


class Terminal:
    """A terminal as a person has it: what is shown on it, and keys."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        termios.tcsetwinsize(self.theirs, (24, 100))
        modes = termios.tcgetattr(self.theirs)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(self.theirs, termios.TCSANOW, modes)
        self._shown = bytearray()
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def wait_for(self, text: bytes) -> None:
        with self._news:
            assert self._news.wait_for(lambda: text in self._shown, timeout=60), bytes(self._shown)

    def find(self, pattern: bytes) -> list[bytes]:
        return re.findall(pattern, bytes(self._shown))

    def hang_up(self) -> None:
        os.close(self._ours)

    def everything(self) -> bytes:
        """All that was written to it, once nobody has it open any more."""
        self._reader.join()
        return bytes(self._shown)

    def rows(self) -> list[str]:
        """What is to be seen of that: a new line, a carriage return, and `erase to the end` are all it knows."""
        rows, column = [""], 0
        for shown in re.findall(r"\x1b\[K|[^\x1b]", self.everything().decode()):
            if shown == "\n":
                rows.append("")
                column = 0
            elif shown == "\r":
                column = 0
            elif shown == "\x1b[K":
                rows[-1] = rows[-1][:column]
            else:
                rows[-1] = rows[-1][:column].ljust(column) + shown + rows[-1][column + 1 :]
                column += 1
        return [row.rstrip() for row in rows]

    def _read(self) -> None:
        with suppress(OSError):  # its end
            while chunk := os.read(self._ours, 65536):
                with self._news:
                    self._shown += chunk
                    self._news.notify_all()


# Makes the terminal the controlling one, as a login does.
_LOGIN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@contextmanager
def at_a_terminal(
    exec_: Executions, *words: str, term: str = "xterm"
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    terminal = Terminal()
    options = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.theirs)
    login = attrs.evolve(exec_, launcher=(sys.executable, "-c", _LOGIN))
    with login.running(*words, **options, start_new_session=True, env=os.environ | {"TERM": term}) as process:
        os.close(terminal.theirs)
        yield process, terminal


def test_a_line_tells_how_the_job_stands_and_gives_way_to_what_the_command_writes(exec_: Executions) -> None:
    steps = [
        'echo one; echo \'{"inserted": 1234, "failed": 2}\' > $JOBHISTORY_REPORT; read line',
        "printf 'two... '; read line; echo three; read line; echo four >&2; read line; printf five; exit 3",
    ]
    with at_a_terminal(exec_, "--", "sh", "-c", "; ".join(steps)) as (process, terminal):
        terminal.wait_for(b"  1,234 inserted, 2 failed")
        terminal.type(b"\n")
        for written in (b"two... ", b"three", b"four"):
            terminal.wait_for(written)
            terminal.type(b"\n")
        assert 3 == process.wait()

    *rows, told, below = terminal.rows()
    assert ["one", "two... three", "four", "five"] == rows
    assert re.fullmatch(
        rf"jobhistory: {CONNECTION}  FAILED  [0-9.]+ ?m?s  1,234 inserted, 2 failed  sh exited with 3", told
    )
    assert "" == below


def test_the_command_writes_to_a_terminal_where_we_do_and_can_read_ours(exec_: Executions) -> None:
    asks = (
        "test -t 0 && test -t 1 && test -t 2 && stty size <&1 && stty -a <&2 | grep -o -e -opost; read line; echo $line"
    )

    with at_a_terminal(exec_, "--", "sh", "-c", asks) as (process, terminal):
        terminal.type(b"typed\n")
        assert 0 == process.wait()

    assert ["24 100", "-opost", "typed"] == terminal.rows()[:3]


def test_the_command_has_no_terminal_to_ask_at_behind_our_back(exec_: Executions) -> None:
    with at_a_terminal(exec_, "--", "sh", "-c", ": < /dev/tty") as (process, _):
        assert process.wait() not in (0, 125)


def test_ctrl_c_is_passed_on_and_the_job_cancelled(exec_: Executions) -> None:
    with at_a_terminal(exec_, "--", "sh", "-c", "trap 'echo stopping; exit 20' INT; echo ready; read line") as (
        process,
        terminal,
    ):
        terminal.wait_for(b"ready")
        terminal.type(b"\x03")

        assert 20 == process.wait()

    assert "stopping" in terminal.rows()
    assert (CANCELLED, "SIGINT") == outcome(exec_.job())


def test_ctrl_z_stops_the_command_and_both_go_on_together(exec_: Executions) -> None:
    with at_a_terminal(exec_, "--", "sh", "-c", "echo pid $$; read line; echo went on") as (process, terminal):
        terminal.wait_for(b"pid ")
        terminal.wait_for(b"RUNNING")
        terminal.type(b"\x1a")
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        [command] = terminal.find(rb"pid (\d+)")
        # A signal sent is not yet one acted on: the command may be running on another processor.
        while "T" != Path(f"/proc/{int(command)}/stat").read_text().rpartition(")")[2].split()[0]:
            os.sched_yield()

        process.send_signal(signal.SIGCONT)
        terminal.type(b"\n")

        assert 0 == process.wait()

    assert "went on" in terminal.rows()
    assert (COMPLETED, None) == outcome(exec_.job())


def test_where_the_terminal_goes_away_the_command_is_stopped(exec_: Executions) -> None:
    exec_.fifo("life")

    with at_a_terminal(exec_, "--", "sh", "-c", "echo ready; read line < life") as (process, terminal):
        terminal.wait_for(b"ready")
        terminal.hang_up()

        assert 129 == process.wait()

    assert (CANCELLED, "SIGHUP") == outcome(exec_.job())


def test_a_terminal_that_knows_no_escapes_gets_what_the_command_writes_and_nothing_else(exec_: Executions) -> None:
    with at_a_terminal(exec_, "--", "sh", "-c", "echo fine; exit 3", term="dumb") as (process, terminal):
        assert 3 == process.wait()

    assert b"fine\r\n" == terminal.everything()


def test_the_line_is_as_wide_as_the_terminal_and_stands_below_whole_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(live, "_STDERR", terminal.theirs)
    monkeypatch.setenv("TERM", "xterm")
    line = LiveLine(lambda: "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 80)

    line.write(terminal.theirs, b"whole\n")
    line.write(terminal.theirs, b"Password: ")
    line._show()
    line.write(terminal.theirs, b"\n")
    os.close(terminal.theirs)

    # Each is two columns wide.
    assert ["whole", "Password:", "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 49] == terminal.rows()
