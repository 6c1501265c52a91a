"""Behind pgbouncer with transaction pooling: two connections to the server, handed round for each transaction."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from jobhistory.storage import postgres as backend
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.testing import run_machine
from jobhistory.testing.rules.base import CONNECTION, at, job
from jobhistory.testing.rules.feed import FeedRules
from jobhistory.testing.rules.sharing import RaceRules
from jobhistory.testing.rules.writing import AddRules, ReplaceRules
from tests.postgres import USER, Database, private_folder
from tests.workers import needed

_SETTINGS = """
[databases]
* = {server}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 200
"""


@pytest.fixture(scope="module")
def pooled(postgres: Database) -> Iterator[str]:
    """The URL of the database through pgbouncer."""
    program = needed("pgbouncer", "apt-get install pgbouncer")
    info = postgres.connection.info
    with private_folder() as folder, ExitStack() as ended:
        if USER is not None:
            shutil.chown(folder, USER)
        server = {"host": info.host, "port": info.port, "user": info.user, "password": info.password}
        there = " ".join(f"{name}='{value}'" for name, value in server.items() if value)
        (folder / "pgbouncer.ini").write_text(_SETTINGS.format(server=there, folder=folder))
        with (folder / "log").open("wb") as log:
            pooler = subprocess.Popen([program, folder / "pgbouncer.ini"], user=USER, stdout=log, stderr=log)
        ended.callback(pooler.wait)
        ended.callback(pooler.send_signal, signal.SIGTERM)
        while not (folder / ".s.PGSQL.6432").exists() and pooler.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                pooler.wait(0.02)
        yield f"postgresql://anyone@{quote(str(folder), safe='')}:6432/{postgres.name}"


class TestThroughPgbouncer(AddRules, ReplaceRules, FeedRules, RaceRules):
    @pytest.fixture(autouse=True)
    def _through_the_pooler(self, postgres: Database, pooled: str) -> None:
        self.postgres, self.pooled = postgres, pooled

    def make_repository(self) -> PostgresJobRepository:
        with closing(self.postgres.empty()) as direct:
            schema = direct._db.schema
        return PostgresJobRepository(self.pooled, schema=schema)

    def test_any_story_is_told_as_the_oracle_tells_it(self) -> None:
        run_machine(self.make_repository, max_examples=5, stateful_step_count=30)


def test_a_schema_is_made_through_the_pooler(postgres: Database, pooled: str) -> None:
    name = f"new_{uuid4().hex}"
    with closing(PostgresJobRepository(pooled, schema=name)) as repository:
        assert [] == repository.connections()
    postgres.connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


def test_statements_are_prepared_but_not_through_the_pooler(postgres: Database, pooled: str) -> None:
    prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%source_connections%%'"
    with (
        closing(postgres.empty(max_size=1)) as direct,
        closing(PostgresJobRepository(pooled, schema=direct._db.schema)) as repository,
    ):
        for _ in range(9):
            assert direct.connections() == repository.connections()
        assert [(1,)] == direct._db.read(prepared)
        assert [(0,)] == repository._db.read(prepared)


def test_another_clients_settings_change_nothing(postgres: Database, pooled: str) -> None:
    with (
        closing(postgres.empty()) as direct,
        closing(PostgresJobRepository(pooled, schema=direct._db.schema)) as repository,
        closing(psycopg.connect(pooled, autocommit=True)) as other,
    ):
        direct.register(CONNECTION)
        for number, zone in enumerate(("Asia/Kathmandu", "America/St_Johns")):
            other.execute(f"SET TimeZone TO '{zone}'".encode())
            repository.add(job(number))
            assert repr(job(number)) == repr(repository.get(job(number).id))
            assert [(zone,)] == other.execute("SHOW TimeZone").fetchall()


def test_who_waits_looks_where_notifications_do_not_come_through(
    postgres: Database, pooled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_LOOK_EVERY", 0.05)
    with (
        closing(postgres.empty()) as direct,
        closing(PostgresJobRepository(pooled, schema=direct._db.schema)) as repository,
    ):
        direct.register(CONNECTION)
        assert not repository.wait_for_changes(None, 0.01)
        direct.add(job(1).start(at=at(2)))
        assert repository.wait_for_changes(None, 60)
