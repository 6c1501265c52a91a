"""Power is lost at any moment of a history's life: whatever its disk may hold then, nothing acknowledged is gone.

What the stock sqlite3 does to the files is recorded once, and what a disk may hold is rebuilt at each point.
"""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import attrs
import pytest

from jobhistory import JobStatus
from jobhistory.storage import sqlite
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, OTHER, at, job, jobs
from tests.faults import shim
from tests.faults.campaign import sizes
from tests.faults.disk import Disk, write_image
from tests.faults.shim import Kind
from tests.faults.state import State, state_in, state_of
from tests.faults.upgrade import UPGRADED

NAME = "history.db"
ACKNOWLEDGED = "acknowledged"
STEPS = 60


class Checkpointing(SQLiteJobRepository):
    """Copies its log back every few writes, where usually hundreds go by."""

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute("PRAGMA wal_autocheckpoint = 25")
        return connection


def live(folder: Path, durability: str, synchronous: str, seed: int) -> list[State]:
    """Above the shim: a history from its first opening on, and through an upgrade: its states, one for each step."""
    sqlite._SYNCHRONOUS[durability] = synchronous
    chance = random.Random(seed)
    acknowledged = os.open(folder / ACKNOWLEDGED, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    states = [State()]

    def took_a_step(repository: SQLiteJobRepository) -> None:
        os.write(acknowledged, b"!")
        states.append(state_of(repository))

    def open_it() -> SQLiteJobRepository:
        repository = Checkpointing(folder / NAME, durability=durability)  # type: ignore[arg-type]
        took_a_step(repository)
        return repository

    repository = open_it()
    repository.register(CONNECTION)
    took_a_step(repository)
    for number in range(STEPS):
        if number == STEPS // 2:
            repository.close()
            sqlite._SCHEMAS = UPGRADED  # type: ignore[assignment]
            repository = open_it()
        if chance.random() < 0.08:
            repository.close()
            repository = open_it()
            continue
        chance.choice(STORY)(repository, number, chance)
        took_a_step(repository)
    repository.close()
    return states


# Each is one write: what a power loss leaves is what was before it, or after it.


def known(repository: SQLiteJobRepository, number: int, _: random.Random) -> None:
    repository.register(CONNECTION, f"name {number}")


def one(repository: SQLiteJobRepository, number: int, _: random.Random) -> None:
    repository.add(job(number * 1000))


def many(repository: SQLiteJobRepository, number: int, chance: random.Random) -> None:
    numbers = range(number * 1000, number * 1000 + chance.randint(2, 60))
    repository.add_many(jobs(*numbers, metadata={"text": "x" * chance.choice((1, 300, 5000))}))


def moved(repository: SQLiteJobRepository, number: int, _: random.Random) -> None:
    for stored in repository.active_jobs(limit=1):
        following = (
            stored.start(at=at(number)) if stored.status is JobStatus.PENDING else stored.complete(at=at(number))
        )
        repository.replace(following)


def deleted(repository: SQLiteJobRepository, _: int, chance: random.Random) -> None:
    stored = [change.job.id for change in repository.changes() if change.job.is_terminal]
    repository.delete_many(chance.sample(stored, len(stored) // 2))


def forgotten(repository: SQLiteJobRepository, number: int, _: random.Random) -> None:
    if OTHER not in [connection.id for connection in repository.connections()]:
        repository.register(OTHER)
    elif repository.list_jobs(OTHER):
        repository.forget(OTHER)
    else:
        repository.add(job(number * 1000, JobStatus.COMPLETED, source_connection_id=OTHER))


STORY = (known, one, one, many, moved, moved, moved, moved, deleted, forgotten)


@attrs.frozen
class Losses:
    """How many images lost a step that was acknowledged, and how many hold what never was."""

    images: int
    acknowledged: int
    unsound: int


def lose_power(folder: Path, size: int, seed: int, *, durability: str = "full", synchronous: str = "FULL") -> Losses:
    """Images of what the disk may hold at each point of a few histories' lives."""
    chance = random.Random(seed)
    images = acknowledged = unsound = 0
    home, log = folder / "home", folder / "log"
    while images < size:
        home.mkdir()
        states = shim.above(home, live, home, durability, synchronous, chance.getrandbits(32), log=log)
        recorded = list(shim.operations(log))
        wanted = min(5.0, (size - images) / len(recorded))
        disk, steps = Disk(), 0
        for operation in recorded:
            if operation.name == ACKNOWLEDGED:
                steps += operation.kind is Kind.WRITE
                continue
            disk.do(operation)
            for _ in range(int(wanted + chance.random())):
                images += 1
                write_image(disk.image(chance), home)
                try:
                    found = state_in(home / NAME)
                except Exception:  # noqa: BLE001  what a file that is not sound brings up is all the same
                    unsound += 1
                    continue
                acknowledged += found not in states[steps : steps + 2]
                unsound += found not in states[: steps + 2]
        for file in (*home.iterdir(), log):
            file.unlink()
        home.rmdir()
    losses = Losses(images, acknowledged, unsound)
    print(f"{durability}, synchronous={synchronous}: {losses}")
    return losses


@pytest.fixture(autouse=True)
def _upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_SCHEMAS", UPGRADED)


@sizes(30, 20_000)
def test_full_durability_loses_nothing_acknowledged(folder: Path, size: int, seed: int) -> None:
    losses = lose_power(folder, size, seed)

    assert (0, 0) == (losses.acknowledged, losses.unsound)


@sizes(20, 5_000)
def test_relaxed_durability_loses_the_last_steps_at_most(folder: Path, size: int, seed: int) -> None:
    losses = lose_power(folder, size, seed, durability="relaxed", synchronous="NORMAL")

    assert 0 == losses.unsound


def test_a_history_that_never_waits_for_its_disk_is_caught(folder: Path, seed: int) -> None:
    tries = (lose_power(folder, 40, seed + each, synchronous="OFF") for each in range(10))

    assert any(losses.acknowledged and losses.unsound for losses in tries)


def test_a_relaxed_history_that_says_it_is_full_is_caught(folder: Path, seed: int) -> None:
    assert any(lose_power(folder, 60, seed + each, synchronous="NORMAL").acknowledged for each in range(10))
