from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import IO
from uuid import UUID

import attrs
import pytest

from jobhistory.archive import job_line
from jobhistory.cli.watching import Rates, Watched
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.repository import MAX_LIMIT, SourceConnection
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from tests.cli.command_line import CommandLine
from tests.workers import START, Time

DOCS, CODE = UUID(int=1), UUID(int=2)
HEADING = "at id status seconds inserted updated deleted failed per_second silent connection worker error"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOSTILE = "\x1b]0;taken\x07\x9b2J\u202e [red]loud[/red] :skull:"
SHOWN = r"\x1b]0;taken\x07\x9b2J\u202e [red]loud[/red] :skull:"


def started(history: JobHistory, connection: UUID = DOCS, worker: str = "host:17:tag") -> SyncJob:
    return history.start(history.enqueue(connection).id, worker=worker)


# ---- Rates


def job_at(seconds: float | None, total: int, status: JobStatus = JobStatus.RUNNING) -> SyncJob:
    """A job whose counts moved to this total that many seconds after it was started."""
    moment = None if seconds is None else START + timedelta(seconds=seconds)
    ended = {"completed_at": moment, "duration_seconds": seconds} if status is JobStatus.COMPLETED else {}
    return SyncJob(
        id=UUID(int=7),
        source_connection_id=DOCS,
        status=status,
        created_at=START - timedelta(hours=1),
        started_at=None if status is JobStatus.PENDING else START,
        progress_at=moment,
        entities_inserted=total // 2,
        entities_failed=total - total // 2,
        **ended,  # type: ignore[arg-type]
    )


def test_a_rate_is_that_of_all_counts_between_the_last_two_times_they_moved() -> None:
    rates = Rates()

    assert [None, 10.0, 40.0] == [
        rates.of(job_at(None, 0), 100.0),
        rates.of(job_at(5, 50), 103.0),  # three seconds between the looks, five between the moves
        rates.of(job_at(10, 250), 112.0),
    ]


def test_counts_that_were_there_before_the_first_look_make_no_rate() -> None:
    rates = Rates()

    assert [None, 2.0] == [rates.of(job_at(5, 1000), 100.0), rates.of(job_at(10, 1010), 101.0)]


def test_a_rate_stays_between_two_moves_and_falls_where_the_next_is_late() -> None:
    rates = Rates()
    rates.of(job_at(None, 0), 100.0)

    assert [10.0, 10.0, 10.0, 5.0, 0.5] == [rates.of(job_at(5, 50), at) for at in (105.0, 106.0, 110.0, 115.0, 205.0)]


def test_the_time_a_job_waited_slows_it_down_in_no_rate() -> None:
    rates = Rates()
    waiting = rates.of(job_at(None, 0, JobStatus.PENDING), 1.0)

    assert [None, None, 10.0] == [waiting, rates.of(job_at(None, 0), 3600.0), rates.of(job_at(5, 50), 3605.0)]


def test_counts_that_moved_within_no_time_make_no_rate() -> None:
    rates = Rates()

    assert [None, None] == [rates.of(job_at(5, 50), 1.0), rates.of(job_at(5, 60), 1.0)]


def test_a_job_that_ended_is_forgotten() -> None:
    rates = Rates()
    rates.of(job_at(None, 0), 1.0)

    assert None is rates.of(job_at(5, 50, JobStatus.COMPLETED), 6.0)
    assert {} == rates._found


# ---- Changes


def test_first_comes_what_runs_then_what_was_written_since() -> None:
    time = Time()
    history = time.history(InMemoryJobRepository())
    with history:
        history.complete(started(history).id)
        older = started(history, CODE)
        time.seconds = 1
        newer = started(history)
        changes = Watched(history).changes()

        assert [older, newer] == next(changes)
        done = history.complete(older.id)
        assert [done] == next(changes)
        reported = history.report(newer.id, inserted=3)
        queued = history.enqueue(CODE)
        assert [reported, queued] == next(changes)
        history.beat(newer.id)
        assert [] == next(changes)


def test_one_connection_may_be_watched_alone() -> None:
    history = Time().history(InMemoryJobRepository())
    with history:
        started(history, CODE)
        ours = started(history)
        history.enqueue(CODE)
        waiting = history.enqueue(DOCS)
        watched = Watched(history, SourceConnection(DOCS))
        changes = watched.changes()

        assert [ours] == next(changes)
        assert ([ours], 1) == (watched.running(), watched.waiting())
        started(history, CODE)
        cancelled = history.cancel(waiting.id)
        assert [cancelled] == next(changes)


def test_while_a_long_history_is_read_through_the_view_goes_on() -> None:
    ticks = count(step=2)
    history = JobHistory(InMemoryJobRepository(), clock=lambda: START, monotonic=lambda: next(ticks), sleep=id)
    with history:
        for _ in range(MAX_LIMIT + 1):
            history.enqueue(DOCS)
        running = started(history)
        changes = Watched(history).changes()
        assert [[], [], [running]] == [next(changes) for _ in range(3)]  # a page, another, and what runs
        cancelled = history.cancel(history.active_jobs(limit=1, statuses={JobStatus.PENDING})[0].id)
        assert [cancelled] == next(changes)


def test_a_connection_is_named_as_soon_as_it_has_a_job() -> None:
    with JobHistory(InMemoryJobRepository()) as history:
        watched = Watched(history)
        nameless = history.enqueue(DOCS)
        assert str(DOCS) == watched.owner(nameless)
        history.register(CODE, "the code")
        assert "the code" == watched.owner(history.enqueue(CODE))
        history.cancel(nameless.id)
        history.forget(DOCS)
        assert str(DOCS) == Watched(history).owner(nameless)


# ---- The command, piped


@contextmanager
def watching(cli: CommandLine, *words: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """`jobhistory watch`, piped, and its output."""
    command = [sys.executable, "-m", "jobhistory.cli", "--db", cli.url, "watch", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def test_piped_it_is_a_line_for_each_change_until_ctrl_c(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS, "the docs")
    job = started(history)
    moment, number, short = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", r"\d+\.\d", r"(?:\d+\.\d|-)"

    def reads(lines: IO[str], status: str, inserted: int, silent: str, error: str) -> bool:
        read = re.sub(" +", " ", lines.readline().rstrip("\n"))
        words = f"{job.id} {status} {number} {inserted} 0 0 0 {short} {silent} the docs host:17:tag {error}"
        return re.fullmatch(f"{moment} {words}", read) is not None

    with watching(cli) as (process, lines):
        assert HEADING == re.sub(" +", " ", lines.readline().strip())
        assert reads(lines, "RUNNING", 0, number, "-")
        history.report(job.id, inserted=3)
        assert reads(lines, "RUNNING", 3, number, "-")
        history.cancel(job.id)
        assert reads(lines, "CANCELLING", 3, number, "-")
        history.finish_cancel(job.id, reason="no more of it")
        assert reads(lines, "CANCELLED", 3, "-", "no more of it")
        waiting = history.enqueue(DOCS)
        assert [str(waiting.id), "PENDING", "-"] == lines.readline().split()[1:4]

        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()

    assert (130, "", "") == (process.returncode, rest, errors)


def test_piped_it_can_be_kept_to_one_connection_and_steers_no_terminal(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS, "[red]docs[/red]")
    started(history, CODE)
    job = started(history, DOCS, HOSTILE)

    with watching(cli, "[red]docs[/red]") as (_, lines):
        assert lines.readline().startswith("at ")
        assert lines.readline().endswith(f"  [red]docs[/red]  {SHOWN}  -\n")
        history.fail(job.id, error=HOSTILE)
        last = lines.readline()

    assert last.endswith(f"[red]docs[/red]  {SHOWN}  {SHOWN}\n")


def test_as_json_each_line_is_the_whole_job_on_a_terminal_too(
    cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = started(history, DOCS, HOSTILE)
    failed = history.fail(running.id, error=HOSTILE)

    def changes(_: Watched) -> Iterator[list[SyncJob]]:
        yield [running]
        yield []
        yield [failed]
        raise KeyboardInterrupt

    monkeypatch.setattr(Watched, "changes", changes)
    assert [job_line(running), job_line(failed)] == cli("watch", "--json").stdout.splitlines(keepends=True)
    assert [job_line(running), job_line(failed)] == cli.on_terminal("watch", "--json").splitlines(keepends=True)


def test_a_history_or_connection_that_is_not_there_is_said(cli: CommandLine) -> None:
    assert 3 == cli("watch").exit_code
    cli("import", "-", stdin="")
    assert 3 == cli("watch", "nobody").exit_code


# ---- The command, on a terminal


@attrs.define
class Screen:
    """What a terminal that is really one has got so far from a process."""

    process: subprocess.Popen[bytes]
    terminal: int
    received: str = ""

    def until(self, pattern: str) -> str:
        """Read until the pattern comes behind all that was asked for before; gives what came, without our styles."""
        while not (found := re.search(pattern, ESCAPES.sub("", self.received))):
            self._read()
        text = ESCAPES.sub("", self.received)
        self.received = text[found.end() :]
        return text[: found.end()]

    def end(self, with_signal: signal.Signals) -> str:
        self.process.send_signal(with_signal)
        with suppress(OSError):  # on Linux the end of a terminal is EIO
            while True:
                self._read()
        self.process.wait()
        return self.received

    def hang_up(self) -> None:
        os.close(self.terminal)
        self.terminal = os.open(os.devnull, os.O_RDONLY)

    def _read(self) -> None:
        self.received += os.read(self.terminal, 65536).decode()


@pytest.fixture
def on_screen(cli: CommandLine) -> Iterator[Callable[..., Screen]]:
    opened: list[Screen] = []

    def open_one(*words: str, columns: int = 160, term: str = "xterm-256color") -> Screen:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, columns))
        process = subprocess.Popen(
            [sys.executable, "-m", "jobhistory.cli", "--db", cli.url, "watch", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": term, "COLUMNS": str(columns)},
        )
        os.close(theirs)
        opened.append(Screen(process, ours))
        return opened[-1]

    yield open_one
    for screen in opened:
        screen.process.kill()
        screen.process.wait()
        os.close(screen.terminal)


def test_on_a_terminal_it_is_a_table_that_keeps_itself_up_to_date(
    history: JobHistory, on_screen: Callable[..., Screen]
) -> None:
    history.register(DOCS, "the docs")
    job = started(history)
    screen = on_screen()

    table = screen.until("1 running, 0 waiting")
    assert ["job", "status", "elapsed", "+", "~", "-", "!", "rate", "silent", "connection", "worker"] == (
        next(line for line in table.splitlines() if "elapsed" in line).split()
    )
    assert re.search(rf"{str(job.id)[:13]} +RUNNING +\S+ +0 +0 +0 +0 +\S+ +the docs +host:17:tag", table)
    screen.until("1 running")  # drawn anew, though nothing was written

    history.report(job.id, inserted=1234, failed=2)
    screen.until(r"1,234 +0 +0 +2 +[\d,.]+/s")
    history.enqueue(CODE)
    screen.until("1 running, 1 waiting")

    history.fail(job.id, error="no route to host")
    screen.until(rf"{str(job.id)[:13]}  FAILED  \S+  \+1,234  ~0  -0  !2  the docs  no route to host")
    screen.until(r"Nothing runs, 1 waiting\.")
    screen.end(signal.SIGINT)
    assert 130 == screen.process.returncode


def test_a_table_of_one_connection_has_its_name_as_the_title(
    history: JobHistory, on_screen: Callable[..., Screen]
) -> None:
    history.register(DOCS, "the docs")
    started(history)
    started(history, CODE)

    table = on_screen("the docs", columns=80).until("1 running, 0 waiting")

    assert "the docs" == table.splitlines()[0].strip()
    assert "connection" not in table
    assert 80 >= max(map(len, table.splitlines()))


def test_a_worker_that_went_silent_stands_out(history: JobHistory, on_screen: Callable[..., Screen]) -> None:
    for number, minutes in enumerate((1, 10)):
        moment = history.clock() - timedelta(minutes=minutes)
        history.add_many(
            [
                SyncJob(
                    id=UUID(int=number),
                    source_connection_id=DOCS,
                    status=JobStatus.RUNNING,
                    created_at=moment,
                    started_at=moment,
                )
            ]
        )
    screen = on_screen()

    while "running" not in screen.received:
        screen._read()

    assert re.search(r"\x1b\[33m *1m", screen.received)
    assert re.search(r"\x1b\[31m *10m", screen.received)


def test_more_jobs_than_are_shown_are_not_counted(history: JobHistory, on_screen: Callable[..., Screen]) -> None:
    job = started(history)
    history.add_many(
        attrs.evolve(job, id=UUID(int=100 + i), status=JobStatus.PENDING, started_at=None, worker=None, version=1)
        for i in range(100)
    )

    on_screen().until("1 running, 100 or more waiting")


def test_stored_text_steers_no_live_view(history: JobHistory, on_screen: Callable[..., Screen]) -> None:
    history.register(DOCS, "[red]docs[/red]")
    job = started(history, DOCS, HOSTILE)
    screen = on_screen(columns=300)

    assert re.search(rf"\[red\]docs\[/red\] +{re.escape(SHOWN)}", screen.until("1 running"))
    history.fail(job.id, error=HOSTILE)
    screen.until(re.escape(f"!0  [red]docs[/red]  {SHOWN}"))
    rest = screen.end(signal.SIGINT)

    assert [] == [character for character in "\x07\x9b\u202e" if character in rest]


def test_the_cursor_stays_where_a_view_is_killed(history: JobHistory, on_screen: Callable[..., Screen]) -> None:
    history.register(DOCS)
    screen = on_screen()
    while "Nothing runs" not in screen.received:
        screen._read()

    received = screen.end(signal.SIGKILL)

    assert received.rindex("\x1b[?25h") > received.rindex("\x1b[?25l")


def test_a_view_ends_with_its_terminal(history: JobHistory, on_screen: Callable[..., Screen]) -> None:
    history.register(DOCS)
    screen = on_screen()
    screen.until("Nothing runs")

    screen.hang_up()

    # 120 is Python's own, where what was left in the buffer found no terminal either.
    assert screen.process.wait(timeout=120) in (1, 120)


def test_a_terminal_that_can_do_nothing_gets_lines(history: JobHistory, on_screen: Callable[..., Screen]) -> None:
    history.register(DOCS)
    screen = on_screen(term="dumb")
    screen.until("worker  error")
    screen.end(signal.SIGINT)

    assert 130 == screen.process.returncode
