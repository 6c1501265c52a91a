"""A million inputs that nobody should pass: at the record, at each call, at the importer and at the command line.

Each is taken, or refused by a documented error which changes nothing; what is taken can be read again, equal, from
every backend; and both backends say the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from jobhistory import storable
from jobhistory.cli import render, transfer
from jobhistory.cli.app import app
from jobhistory.errors import InvalidJobError, JobHistoryError, StorageError
from jobhistory.history import JobHistory
from jobhistory.job import FIELDS, SyncJob
from jobhistory.repository import Cursor, JobRepository, Position
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, NOON, OTHER
from tests.faults.campaign import sizes
from tests.faults.hostile import spoilt, spoilt_line, text, value, wire_job

BATCH = 400
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


@pytest.fixture
def repository(folder: Path) -> Iterator[SQLiteJobRepository]:
    with closing(SQLiteJobRepository(folder / "history.db", durability="relaxed")) as repository:
        for each in (CONNECTION, OTHER):
            repository.register(each)
        yield repository


@pytest.fixture
def random(seed: int) -> Random:
    return Random(seed)


def emptied(repository: SQLiteJobRepository) -> None:
    with repository._db.write() as db:
        db.execute("DELETE FROM jobs")


# ---- The record


def made_of(random: Random) -> SyncJob | None:
    """A job made of something hostile, None where it is refused as documented."""
    spoilt_job = spoilt(random, wire_job(random), value)
    try:
        if random.random() < 0.5:
            return SyncJob.from_dict(spoilt_job)
        # As from Python: times are no text then, and ids are UUIDs.
        values = {name: made for name, made in spoilt_job.items() if name in FIELDS and type(made) is not str}
        ids = {name: UUID(int=random.getrandbits(128)) for name in ("id", "source_connection_id")}
        return SyncJob(**{"created_at": NOON, **ids, "status": spoilt_job.get("status"), **values})
    except InvalidJobError:
        return None


def record_campaign(repository: SQLiteJobRepository, random: Random, size: int) -> int:
    """Make jobs of whatever comes, store those that are jobs, and read them again; how many there were."""
    taken: dict[UUID, SyncJob] = {}
    count = 0
    for left in range(size - 1, -1, -1):
        if (job := made_of(random)) is not None:
            taken[job.id] = job
        if len(taken) == BATCH or not left:
            count += len(taken)
            for each in (repository, InMemoryJobRepository()):
                for id in {job.source_connection_id for job in taken.values()}:
                    each.register(id)
                each.add_many(taken.values())
                read = {change.job.id: change.job for change in each.changes()}
                assert taken == read
                for job in read.values():
                    assert job == SyncJob.from_dict(job.to_dict(bookkeeping=True))
            taken.clear()
            emptied(repository)
    return count


@sizes(2_000, 500_000)
def test_whatever_becomes_a_job_is_read_again_as_it_was_and_all_else_is_refused(
    repository: SQLiteJobRepository, random: Random, size: int
) -> None:
    count = record_campaign(repository, random, size)
    assert size / 20 < count < size * 19 / 20


def test_a_record_that_took_what_cannot_be_stored_would_be_noticed(
    repository: SQLiteJobRepository, random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storable, "_check_characters", lambda _, given: given)
    with pytest.raises(Exception):  # noqa: B017, PT011  what it is depends on what comes first
        record_campaign(repository, random, 2_000)


# ---- The calls


class Draws:
    """What was drawn for one history is given to the other too: the same objects, in the same order."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._drawn: list[Any] = []
        self._left: list[Any] = []

    def again(self) -> Draws:
        self._left = list(self._drawn)
        return self

    def __call__(self, of: Callable[[Random], Any]) -> Any:  # noqa: ANN401  anything
        if self._left:
            return self._left.pop(0)
        self._drawn.append(of(self._random))
        return self._drawn[-1]


CALLS: dict[str, Callable[[JobHistory, Draws, UUID], object]] = {
    "register": lambda history, draw, _: history.register(draw(value), draw(value)),
    "rename": lambda history, draw, _: history.register(OTHER, draw(text)),
    "forget": lambda history, draw, _: history.forget(draw(value)),
    "enqueue": lambda history, draw, _: history.enqueue(CONNECTION, metadata=draw(value)),
    "enqueue, with an id": lambda history, draw, _: history.enqueue(draw(value), job_id=draw(value)),
    "get": lambda history, draw, _: history.get(draw(value)),
    "list_jobs": lambda history, draw, _: history.list_jobs(draw(value)),
    "list_jobs, limited": lambda history, draw, _: history.list_jobs(CONNECTION, limit=draw(value)),
    "list_jobs, behind": lambda history, draw, _: history.list_jobs(CONNECTION, before=draw(value)),
    "list_jobs, filtered": lambda history, draw, _: history.list_jobs(CONNECTION, statuses=[draw(value)]),
    "active_jobs": lambda history, draw, _: history.active_jobs(silent_since=draw(value)),
    "newest_jobs": lambda history, draw, _: history.newest_jobs([draw(value)]),
    "newest_jobs, limited": lambda history, draw, _: history.newest_jobs(per_connection=draw(value)),
    "changes": lambda history, draw, _: history.changes(draw(value)),
    "changes, limited": lambda history, draw, _: history.changes(limit=draw(value)),
    "start": lambda history, draw, job: history.start(job, worker=f"w{draw(text)}"),
    "report": lambda history, draw, job: history.report(job, inserted=draw(value), failed=draw(value)),
    "complete": lambda history, draw, job: history.complete(job, duration_seconds=draw(value)),
    "fail": lambda history, draw, job: history.fail(job, error=draw(value), error_details=draw(value)),
    "fail, timed": lambda history, draw, job: history.fail(job, error="x", duration_seconds=draw(value)),
    "cancel": lambda history, draw, job: history.cancel(job, reason=draw(value)),
    "finish_cancel": lambda history, draw, job: history.finish_cancel(job, reason=draw(value)),
    "reap": lambda history, draw, _: history.reap(silent_for=draw(value), confirm_for=draw(value)),
    "delete": lambda history, draw, _: history.repository.delete_many([draw(value)]),
    "a cursor": lambda _, draw, __: Cursor.parse(draw(value)),
    "a position": lambda _, draw, __: Position(draw(value), draw(value)),
}


def state(repository: JobRepository) -> object:
    """All that is stored of the few jobs there are, and where each stands in the feed."""
    return repository.connections(), repository.changes()


def outcome(history: JobHistory, call: str, draws: Draws, id: UUID) -> str:
    """What comes of the call: its result, or its error. One that is not documented goes on."""
    before = state(history.repository)
    try:
        return repr(CALLS[call](history, draws.again(), id))
    except StorageError:
        raise
    except JobHistoryError as error:
        refused = f"{type(error).__name__}: {error}"
    assert before == state(history.repository)
    return refused


def calls_campaign(repository: SQLiteJobRepository, random: Random, size: int) -> Counter[bool]:
    """Call with whatever comes; how many were refused, and how many were not."""
    counts: Counter[bool] = Counter()
    both: tuple[JobHistory, ...] = ()
    for number in range(size):
        if number % 50 == 0:
            emptied(repository)
            both = two_histories(repository)
            for history in both:
                jobs = [history.enqueue(CONNECTION).id for _ in range(4)]
                history.start(jobs[0], worker="a")
                history.start(jobs[1], worker="b")
                history.cancel(jobs[1])
        call, id, draws = random.choice(list(CALLS)), random.choice(jobs), Draws(random)
        said, other = (outcome(history, call, draws, id) for history in both)
        assert comparable(said) == comparable(other), call
        counts[bool(re.match(r"\w+Error: ", said))] += 1
    return counts


def two_histories(repository: SQLiteJobRepository) -> tuple[JobHistory, JobHistory]:
    """The memory's and SQLite's, with nothing in them but two connections, and one clock and source of ids."""
    for connection in repository.connections():
        repository.forget(connection.id)

    def history(repository: JobRepository) -> JobHistory:
        ids = Random(1)
        for id in (CONNECTION, OTHER):
            repository.register(id)
        return JobHistory(
            repository, clock=lambda: NOON, sleep=lambda _: None, new_id=lambda: UUID(int=ids.getrandbits(128))
        )

    return history(InMemoryJobRepository()), history(repository)


def comparable(said: str) -> str:
    """Without tokens and the tags of workers; of several active jobs, either backend may name any."""
    return re.sub(r"token='\d+'|:\d+:[0-9a-f]{8}['\"]|active job [0-9a-f-]{36}", "", said)


@sizes(400, 200_000)
def test_each_call_takes_or_refuses_the_same_on_both_backends_and_a_refusal_changes_nothing(
    repository: SQLiteJobRepository, random: Random, size: int
) -> None:
    counts = calls_campaign(repository, random, size)
    assert counts[True] > size / 4
    assert counts[False] > size / 20


def test_backends_that_differ_would_be_noticed(
    repository: SQLiteJobRepository, random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = InMemoryJobRepository.add

    def halfway(self: InMemoryJobRepository, job: SyncJob, **options: Any) -> None:  # noqa: ANN401  those of add
        add(self, job, **options)
        if job.metadata:
            raise InvalidJobError("metadata", "is refused, and stored")

    monkeypatch.setattr(InMemoryJobRepository, "add", halfway)
    with pytest.raises(AssertionError):
        calls_campaign(repository, random, 2_000)


# ---- The importer


def command(repository: SQLiteJobRepository, *words: str, stdin: bytes = b"") -> Result:
    """Run `jobhistory`; what is not documented goes on."""
    result = CliRunner(catch_exceptions=False).invoke(app, ["--db", repository.path, *words], input=stdin)
    assert not STEERING.search(result.output.replace("\n", ""))
    assert result.exit_code in range(6)
    assert not result.exit_code or result.stderr
    return result


def importer_campaign(repository: SQLiteJobRepository, random: Random, size: int) -> Counter[str]:
    """Import whatever comes, `size` rows of it; how many were imported, and how many were not."""
    counts: Counter[str] = Counter()
    while (left := size - counts.total()) > 0:
        lines = [spoilt_line(random) for _ in range(min(left, random.choice((1, 20, 100))))]
        array = random.random() < 0.1
        content = b"[" + b",".join(lines) + b"]" if array else b"\n".join(lines)
        words = ("import", "-", *random.choice(((), ("--connection", str(OTHER)))))
        before = state(repository)
        result = command(repository, *words, stdin=content)
        after = state(repository)
        if result.exit_code in (0, 4):
            said = re.search(r"Imported ([\d,]+) jobs?, refused ([\d,]+) rows?\.\n", result.stdout)
            assert said is not None
            imported, refused = (int(number.replace(",", "")) for number in said.groups())
            assert (result.exit_code == 4) == (refused > 0)
            # An empty line is no row; a first line that is an array is one row or many.
            assert imported + refused <= len(lines) or content.lstrip().startswith(b"[")
            counts += Counter(imported=imported, refused=max(refused, len(lines) - imported))
            again = command(repository, *words, stdin=content)
            assert (result.exit_code, result.stdout) == (again.exit_code, again.stdout)
            assert after == state(repository)
        else:
            counts["refused"] += len(lines)
            assert before == after
        if len(repository.changes()) > 500:
            emptied(repository)
    return counts


@sizes(500, 280_000)
def test_what_is_imported_can_be_read_again_and_what_is_not_is_refused_row_by_row(
    repository: SQLiteJobRepository, random: Random, size: int
) -> None:
    counts = importer_campaign(repository, random, size)
    assert counts["imported"] > size / 10
    assert counts["refused"] > size / 10


def test_an_importer_that_breaks_on_a_row_would_be_noticed(
    repository: SQLiteJobRepository, random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.Importer, "_refuse", lambda *_: [].pop())
    with pytest.raises(IndexError):
        importer_campaign(repository, random, 500)


# ---- The command line

COMMANDS = (
    ("list",),
    ("list", "--active"),
    ("list", "--json"),
    ("show",),
    ("connections",),
    ("connections", "rename"),
    ("cancel",),
    ("cancel", "--reason"),
    ("reap", "--confirm-for", "0", "--pending-for"),
    ("export",),
    ("check",),
)
OPTIONS = ("--limit", "--before", "--status", "--json", "--active", "--silent-for", "--", "-x", "--help")


def word(random: Random, known: list[str]) -> str:
    match random.randrange(4):
        case 0:
            return random.choice(OPTIONS)
        case 1:
            return random.choice(known)[: random.choice((3, 8, 9, 36))]
        case 2:
            return str(
                random.choice((0, 1, -1, 1000, 1001, 10**30, 1.5, "nan", "inf", "1e400", "", "FAILED", "RUNNING"))
            )
        case _:
            return STEERING.sub("", text(random))  # what is typed comes back in an error as it is


def command_line_campaign(repository: SQLiteJobRepository, random: Random, size: int) -> Counter[int]:
    """Run commands with whatever words; how often each exit code came."""
    counts: Counter[int] = Counter()
    history = two_histories(repository)[1]
    repository.register(CONNECTION, "döcs")
    for number in range(size):
        if number % 100 == 0:
            emptied(repository)
            jobs = [
                history.enqueue(
                    CONNECTION, metadata={"a": text(random).replace("\0", "").encode(errors="replace").decode()}
                ).id
                for _ in range(5)
            ]
            history.fail(jobs[0], error=f"\x1b[31m{text(random)}", error_details={"\x07": text(random)})
        known = [*map(str, jobs), str(CONNECTION), str(OTHER), "döcs"]
        words = [*random.choice(COMMANDS), *(word(random, known) for _ in range(random.choice((0, 1, 1, 2, 3))))]
        before = state(repository)
        result = command(repository, *words)
        counts[result.exit_code] += 1
        assert result.exit_code == 0 or before == state(repository), words
    return counts


@sizes(100, 20_000)
def test_no_words_on_the_command_line_break_it_or_change_what_they_should_not(
    repository: SQLiteJobRepository, random: Random, size: int
) -> None:
    counts = command_line_campaign(repository, random, size)
    assert {0, 1, 2, 3} >= set(counts)
    assert min(counts[0], counts[2], counts[3]) > size / 50


def test_a_command_that_lets_control_characters_through_would_be_noticed(
    repository: SQLiteJobRepository, random: Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "visible", lambda given: given)
    with pytest.raises(AssertionError):
        command_line_campaign(repository, random, 10_000)  # ends at the first that does
