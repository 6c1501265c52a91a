from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from jobhistory.repository import JobRepository
from jobhistory.status import JobStatus
from jobhistory.storage import postgres as backend
from jobhistory.storage import sqlite
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing import JobRepositoryContract, JobRepositoryMachine, run_machine
from jobhistory.testing.rules.base import following, job
from jobhistory.testing.rules.feed import FeedRules
from jobhistory.testing.rules.reading import ActiveRules, ListRules, NewestRules
from tests.postgres import Database


class TestInMemoryJobRepository(JobRepositoryContract):
    def make_repository(self) -> InMemoryJobRepository:
        return InMemoryJobRepository()

    def test_the_latest_change_is_where_the_feed_ends_whoever_is_deleted(
        self, repository: InMemoryJobRepository
    ) -> None:
        assert None is repository.latest_change()
        repository.add_many([job(1), job(2, JobStatus.COMPLETED)])
        token = repository.changes()[-1].token
        repository.delete_many([job(2).id])
        assert token == repository.latest_change()

    def test_a_change_stays_in_the_feed_however_many_follow_it(self, repository: InMemoryJobRepository) -> None:
        kept, running = job(1), job(2, JobStatus.RUNNING)
        repository.add_many([kept, running])
        for _ in range(300):
            running = following(running)
            repository.replace(running)
        assert [kept, running] == [change.job for change in repository.changes()]


class TestSQLiteJobRepository(JobRepositoryContract):
    @pytest.fixture(autouse=True)
    def _in_a_folder_of_its_own(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_repository(self) -> SQLiteJobRepository:
        return SQLiteJobRepository(self.folder / f"{uuid4()}.db")


class TestPostgresJobRepository(JobRepositoryContract):
    @pytest.fixture(autouse=True)
    def _on_a_server(self, postgres: Database) -> None:
        self.postgres = postgres

    def make_repository(self) -> PostgresJobRepository:
        return self.postgres.empty()


class UnhelpedSQLiteJobRepository(SQLiteJobRepository):
    """Every page is read from the jobs in ascending order of their ids, past every key and index.

    An order that a statement forgot to ask for may come out right because a key happens to have it; here
    it comes out wrong.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, durability="relaxed")
        read = self._db.read
        vars(self._db)["read"] = lambda sql, parameters=(): read(unhelped(sql), parameters)


def unhelped(sql: str) -> str:
    # A subquery with a limit stays a query of its own: https://www.sqlite.org/optoverview.html#flattening
    return re.sub(r"\bFROM jobs\b", "FROM (SELECT * FROM jobs ORDER BY id LIMIT -1)", sql)


class TestReadingWithoutTheKeysHelp(ListRules, ActiveRules, NewestRules, FeedRules):
    @pytest.fixture(autouse=True)
    def _in_a_folder_of_its_own(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_repository(self) -> SQLiteJobRepository:
        return UnhelpedSQLiteJobRepository(self.folder / f"{uuid4()}.db")

    @pytest.mark.parametrize(
        ("forgetful", "rule"),
        [
            ("_PAGE", "test_ties_stand_by_id"),
            ("_ACTIVE_PAGE", "test_ties_stand_by_id"),
            ("_CHANGES", "test_changes_stand_in_the_order_of_their_commits"),
        ],
    )
    def test_an_order_that_was_not_asked_for_is_seen(
        self, forgetful: str, rule: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        careless = re.sub(r", (j\.)?id DESC|ORDER BY j.change", "", getattr(sqlite, forgetful))
        assert careless != getattr(sqlite, forgetful)
        for statement in (sqlite._page, sqlite._active_page):
            monkeypatch.setattr(sqlite, statement.__name__, statement.__wrapped__)
        monkeypatch.setattr(sqlite, forgetful, careless)

        with self.opened() as repository, pytest.raises(AssertionError):
            getattr(self, rule)(repository)


class TestReadingFromPostgresWithoutTheKeysHelp(ListRules, ActiveRules, NewestRules, FeedRules):
    @pytest.fixture(autouse=True)
    def _on_a_server(self, postgres: Database) -> None:
        self.postgres = postgres

    def make_repository(self) -> PostgresJobRepository:
        return unhelped_on(self.postgres)

    @pytest.mark.parametrize(
        ("forgetful", "rule"),
        [
            ("_PAGE", "test_ties_stand_by_id"),
            ("_ACTIVE_PAGE", "test_ties_stand_by_id"),
            ("_CHANGES", "test_changes_stand_in_the_order_of_their_commits"),
        ],
    )
    def test_an_order_that_was_not_asked_for_is_seen(
        self, forgetful: str, rule: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        careless = re.sub(r", id DESC|ORDER BY j.change, j.part", "", getattr(backend, forgetful))
        assert careless != getattr(backend, forgetful)
        for statement in (backend._page, backend._active_page):
            monkeypatch.setattr(backend, statement.__name__, statement.__wrapped__)
        monkeypatch.setattr(backend, forgetful, careless)

        with self.opened() as repository, pytest.raises(AssertionError):
            getattr(self, rule)(repository)


def unhelped_on(postgres: Database) -> PostgresJobRepository:
    """As UnhelpedSQLiteJobRepository; a subquery with an offset stays a query of its own."""
    repository = postgres.empty()
    read = repository._db.read
    unhelped = partial(re.sub, r"\bSCHEMA.jobs AS j\b", "(SELECT * FROM SCHEMA.jobs ORDER BY id OFFSET 0) AS j")
    vars(repository._db)["read"] = lambda sql, parameters=(): read(unhelped(sql), parameters)
    return repository


Make = Callable[[Path, Database], JobRepository]
BACKENDS: dict[str, Make] = {
    "memory": lambda _, __: InMemoryJobRepository(),
    # What a commit waits for on disk changes no answer.
    "sqlite": lambda folder, _: SQLiteJobRepository(folder / f"{uuid4()}.db", durability="relaxed"),
    "unhelped sqlite": lambda folder, _: UnhelpedSQLiteJobRepository(folder / f"{uuid4()}.db"),
    "postgres": lambda _, postgres: postgres.empty(),
    "unhelped postgres": lambda _, postgres: unhelped_on(postgres),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", BACKENDS.values(), ids=BACKENDS)
def test_a_thousand_stories_of_fifty_steps_are_told_as_the_oracle_tells_them(
    make: Make, tmp_path: Path, postgres: Database
) -> None:
    run_machine(lambda: make(tmp_path, postgres), max_examples=1000, stateful_step_count=50)


def test_a_contract_and_a_machine_need_a_repository() -> None:
    for unfinished in (JobRepositoryContract().make_repository, JobRepositoryMachine):
        with pytest.raises(NotImplementedError):
            unfinished()
