from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import attrs
import psycopg
import pytest
from hypothesis import given
from psycopg import sql

import jobhistory
from jobhistory import (
    JobNotFoundError,
    JobStatus,
    Position,
    SourceConnectionNotFoundError,
    StorageError,
    SyncJob,
    UnknownOutcomeError,
)
from jobhistory.repository import JobRepository
from jobhistory.storage import postgres as backend
from jobhistory.storage import postgres_connection, postgres_connections
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.postgres_connection import Connection
from jobhistory.testing import strategies
from jobhistory.testing.rules.base import CONNECTION, OTHER, UNKNOWN, at, job, jobs
from tests.crew import work_together
from tests.postgres import Database, Proxy
from tests.workers import MULTITHREADED_FORK, forked


@pytest.fixture
def repository(postgres: Database) -> Iterator[PostgresJobRepository]:
    with closing(postgres.empty()) as repository:
        repository.register(CONNECTION)
        repository.register(OTHER)
        yield repository


def schema_of(repository: PostgresJobRepository) -> str:
    return repository._db.schema


@contextmanager
def beside(postgres: Database, repository: PostgresJobRepository) -> Iterator[psycopg.Connection[Any]]:
    """A connection of someone else, who finds the repository's tables by their names alone."""
    with closing(psycopg.connect(postgres.url, autocommit=True)) as connection:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema_of(repository))))
        yield connection


@pytest.fixture
def other(postgres: Database, repository: PostgresJobRepository) -> Iterator[psycopg.Connection[Any]]:
    with beside(postgres, repository) as connection:
        yield connection


@contextmanager
def schema(postgres: Database) -> Iterator[str]:
    """A name that is not there yet; what is made under it is dropped."""
    name = f"new_{uuid4().hex}"
    yield name
    postgres.connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


def run_python(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# ---- Opening


def test_a_worker_changes_only_its_url(postgres: Database, tmp_path: Path) -> None:
    worker = """
import sys, jobhistory
from uuid import UUID

with jobhistory.open(sys.argv[1]) as history:
    with history.track(UUID(int=7), metadata={"trigger": "cron"}) as run:
        run.report(inserted=3)
    try:
        with history.track(UUID(int=7)):
            raise RuntimeError("no luck")
    except RuntimeError:
        pass
    for job in history.list_jobs(UUID(int=7)):
        print(job.status, job.entities_inserted, job.error, job.metadata)
"""
    with schema(postgres) as name:
        separator = "&" if "?" in postgres.url else "?"
        urls = ["memory:", tmp_path / "history.db", f"{postgres.url}{separator}schema={name}&timeout=20"]
        said = [run_python(worker, url) for url in urls]

    assert ["FAILED 0 RuntimeError: no luck None", "COMPLETED 3 None {'trigger': 'cron'}"] == said[0].splitlines()
    assert [said[0]] * 3 == said


def test_a_url_holds_our_options_beside_those_of_libpq(postgres: Database) -> None:
    separator = "&" if "?" in postgres.url else "?"
    with schema(postgres) as name:
        ours = f"schema={name}&min_size=1&max_size=2&timeout=7"
        url = f"{postgres.url}{separator}application_name=a%20b&{ours}&connect_timeout=9"
        with jobhistory.open(url) as history:
            repository = history.repository
            assert isinstance(repository, PostgresJobRepository)
            assert (name, 7.0) == (schema_of(repository), repository._db.timeout)
            assert {"min_size": 1, "max_size": 2} == repository._db._sizes
            assert "9" == repository._db._options["connect_timeout"]
            assert [("a b",)] == repository._db.read("SELECT current_setting('application_name')")


@pytest.mark.parametrize("option", ["min_size=x", "max_size=", "timeout=1.5", "timeout=-1", "max_size=٣", "timeout= 3"])
def test_an_option_in_a_url_that_is_no_number_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        jobhistory.open(f"postgresql://nobody:hunter2@localhost/none?{option}")


@pytest.mark.parametrize(
    "options",
    [
        {"schema": ""},
        {"schema": 'a"b'},
        {"schema": "Upper"},
        {"schema": "a" * 64},
        {"schema": None},
        {"min_size": -1},
        {"min_size": True},
        {"min_size": 3, "max_size": 2},
        {"max_size": 0},
        {"max_size": "9"},
        {"timeout": -1},
        {"timeout": "30"},
        {"connect_timeout": float("nan")},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_opened(options: dict[str, Any]) -> None:
    [named] = {*options} - {"min_size"} or {"min_size"}
    with pytest.raises(ValueError, match=named):
        PostgresJobRepository("postgresql://nobody@localhost:1/none", **options)


@pytest.mark.parametrize("dsn", ["postgresql://u:hunter2@[half", "host=x password=hunter2 oops", "nonsense=hunter2"])
def test_what_is_no_dsn_is_refused_without_its_password(dsn: str) -> None:
    with pytest.raises(ValueError, match="is no PostgreSQL URL or connection string") as refused:
        PostgresJobRepository(dsn)

    assert "hunter2" not in f"{refused.value} {refused.value.__cause__}"


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    dsn = "postgresql://user:hunter2@localhost:1,localhost:2/none"
    with pytest.raises(StorageError, match="refused") as refused:
        PostgresJobRepository(dsn)

    assert "postgresql://localhost:1,localhost:2/none" == refused.value.where
    assert isinstance(refused.value.__cause__, psycopg.OperationalError)
    assert "hunter2" not in str(refused.value)


def test_a_missing_driver_is_named_with_its_extra() -> None:
    program = """
import sys, jobhistory
sys.modules["psycopg_pool"] = None
try:
    jobhistory.open("postgresql://localhost/none")
except ImportError as error:
    print(error)
"""
    assert "PostgreSQL needs psycopg and its pool: pip install 'jobhistory[postgres]'\n" == run_python(program)


def test_a_new_schema_is_made_by_all_that_open_it_at_once(postgres: Database) -> None:
    with schema(postgres) as name, ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: PostgresJobRepository(postgres.url, schema=name), range(8)))
        for number, repository in enumerate(opened):
            repository.register(UUID(int=number))
        assert 8 == len(opened[0].connections())
        for repository in opened:
            repository.close()
        versions = sql.SQL("SELECT version FROM {}.jobhistory_migrations").format(sql.Identifier(name))
        assert [(1,)] == postgres.connection.execute(versions).fetchall()


def test_a_database_of_another_encoding_is_refused(postgres: Database) -> None:
    name = f"latin_{uuid4().hex}"
    postgres.connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'".encode())
    try:
        with pytest.raises(StorageError, match="has encoding LATIN1: make a database with encoding 'UTF8'"):
            PostgresJobRepository(postgres.url.replace(postgres.name, name))
    finally:
        postgres.connection.execute(f"DROP DATABASE {name}".encode())


def test_tables_of_another_application_stay_as_they_are(postgres: Database) -> None:
    with schema(postgres) as name:
        postgres.connection.execute(f"CREATE SCHEMA {name} CREATE TABLE jobs (title text)".encode())
        with pytest.raises(StorageError, match="already exists") as refused:
            PostgresJobRepository(postgres.url, schema=name)

        assert isinstance(refused.value.__cause__, psycopg.errors.DuplicateTable)
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
        assert [("jobs",)] == postgres.connection.execute(tables, (name,)).fetchall()


def test_who_may_not_make_schemas_uses_one_that_is_there(postgres: Database) -> None:
    with schema(postgres) as name:
        owner = f"owner_{uuid4().hex}"
        postgres.connection.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'secret'".encode())
        try:
            dsn = psycopg.conninfo.make_conninfo(postgres.url, user=owner, password="secret")  # noqa: S106
            with pytest.raises(StorageError, match=r"permission denied.*grant it"):
                PostgresJobRepository(dsn, schema=name)
            postgres.connection.execute(f"CREATE SCHEMA {name} AUTHORIZATION {owner}".encode())
            with closing(PostgresJobRepository(dsn, schema=name)) as repository:
                repository.register(CONNECTION)
        finally:
            postgres.connection.execute(f"DROP OWNED BY {owner} CASCADE".encode())
            postgres.connection.execute(f"DROP ROLE {owner}".encode())


# ---- Migrations, while workers of both releases go on


NEXT = ("second", 1, "ALTER TABLE SCHEMA.jobs ADD COLUMN note text; CREATE INDEX ON SCHEMA.jobs (note)")
BREAKING = ("third", 3, "ALTER TABLE SCHEMA.jobs DROP COLUMN note")


def test_old_and_new_releases_work_side_by_side(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with schema(postgres) as name:
        opened = partial(PostgresJobRepository, postgres.url, schema=name)
        with closing(opened()) as old:
            old.register(CONNECTION)
            old.add(job(1))
            with monkeypatch.context() as release:
                release.setattr(backend, "_SCHEMAS", (*backend._SCHEMAS, NEXT))
                with closing(opened()) as new:
                    new.add(job(2))
                    old.add(job(3))
                    new.replace(job(3).start(at=at(9)))
                    old.replace(job(3).start(at=at(9)).beat(at=at(10)))
                    assert old.list_jobs(CONNECTION) == new.list_jobs(CONNECTION)
                    assert old.changes() == new.changes()
            with closing(opened()) as old_again:
                assert old.list_jobs(CONNECTION) == old_again.list_jobs(CONNECTION)
        migrations = sql.SQL("SELECT version, name FROM {}.jobhistory_migrations ORDER BY 1").format(
            sql.Identifier(name)
        )
        assert [(1, "first"), (2, "second")] == postgres.connection.execute(migrations).fetchall()


def test_a_release_that_can_no_longer_work_with_the_schema_is_refused(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with schema(postgres) as name:
        opened = partial(PostgresJobRepository, postgres.url, schema=name)
        with monkeypatch.context() as release:
            release.setattr(backend, "_SCHEMAS", (*backend._SCHEMAS, NEXT, BREAKING))
            opened().close()
        with pytest.raises(StorageError, match=f"has schema 3 in {name}, of a newer release: upgrade jobhistory"):
            opened()


def test_a_migration_that_fails_changes_nothing(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with schema(postgres) as name:
        opened = partial(PostgresJobRepository, postgres.url, schema=name)
        opened().close()
        with monkeypatch.context() as release:
            release.setattr(backend, "_SCHEMAS", (*backend._SCHEMAS, NEXT, ("third", 1, "SELECT 1/0")))
            with pytest.raises(StorageError, match="division by zero"):
                opened()
        with closing(opened()) as repository:
            assert [(1, 1)] == repository._db.read(backend._STATE)


# ---- Rows


@pytest.fixture(scope="module")
def shared(postgres: Database) -> Iterator[PostgresJobRepository]:
    with closing(postgres.empty()) as repository:
        yield repository


@given(stored=strategies.jobs())
def test_a_job_comes_back_as_the_constructor_made_it(shared: PostgresJobRepository, stored: SyncJob) -> None:
    stored = attrs.evolve(stored, id=uuid4())
    shared.register(stored.source_connection_id)
    shared.add(stored)
    read = shared.get(stored.id)

    assert (stored, repr(stored), hash(stored), SyncJob) == (read, repr(read), hash(read), type(read))
    for field in attrs.fields(SyncJob):
        assert type(getattr(stored, field.name)) is type(getattr(read, field.name)), field.name
    assert attrs.evolve(read) == stored
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        read.version = 9  # type: ignore[misc]


def test_times_are_utc_whatever_the_server_is_set_to(repository: PostgresJobRepository) -> None:
    repository.add(job(1))
    [stored] = repository.list_jobs(CONNECTION)

    assert (at(1), UTC) == (stored.created_at, stored.created_at.tzinfo)


def test_a_server_that_is_set_to_utc_is_left_so(postgres: Database, repository: PostgresJobRepository) -> None:
    dsn = psycopg.conninfo.make_conninfo(postgres.url, options="-c TimeZone=UTC")
    with closing(PostgresJobRepository(dsn, schema=schema_of(repository))) as set_so:
        set_so.add(job(1))
        assert repr(job(1)) == repr(set_so.get(job(1).id)) == repr(repository.get(job(1).id))


# ---- How statements are carried out


@pytest.fixture(scope="module")
def large(postgres: Database) -> Iterator[PostgresJobRepository]:
    """20,000 jobs, one in ten unfinished or failed."""
    statuses = [JobStatus.FAILED, JobStatus.RUNNING, JobStatus.PENDING]
    with closing(postgres.empty()) as repository:
        for connection in (CONNECTION, OTHER):
            repository.register(connection)
            repository.add_many(
                job(
                    number,
                    statuses[number // 10 % 3] if number % 10 == 0 else JobStatus.COMPLETED,
                    source_connection_id=connection,
                    id=UUID(int=(number << 64) + connection.int % 7),
                )
                for number in range(10_000)
            )
        with beside(postgres, repository) as other:
            other.execute("VACUUM ANALYZE jobs, source_connections")
        yield repository


def plan_of(
    repository: PostgresJobRepository, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The nodes of the plan of the first statement that is read with."""
    asked: list[tuple[str, Any]] = []
    read = repository._db.read

    def noting(statement: str, parameters: Any = ()) -> list[Any]:  # noqa: ANN401
        asked.append((statement, parameters))
        return read(statement, parameters)

    with monkeypatch.context() as listening:
        listening.setattr(repository._db, "read", noting)
        ask()
    statement, parameters = asked[0]
    [(plan,)] = read(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
    nodes, left = [], [(plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]]
    while left:
        nodes.append(left.pop())
        left += nodes[-1].get("Plans", [])
    return nodes


PAGES: dict[str, Callable[[PostgresJobRepository], object]] = {
    "the newest": lambda repository: repository.list_jobs(CONNECTION),
    "a later one": lambda repository: repository.list_jobs(CONNECTION, before=Position(at(5000), UUID(int=0))),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_one_range_of_the_index_without_a_sort(
    large: PostgresJobRepository, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = plan_of(large, lambda: PAGES[page](large), monkeypatch)

    assert ["Limit", "Index Scan"] == [node["Node Type"] for node in nodes]
    assert "jobs_source_connection_id_created_at_id_key" == nodes[1]["Index Name"]
    assert ("Backward", 100) == (nodes[1]["Scan Direction"], nodes[1]["Actual Rows"])
    assert "created_at" in nodes[1]["Index Cond"]
    assert "Filter" not in nodes[1]


def test_get_is_one_read_by_the_key(large: PostgresJobRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    [node] = plan_of(large, lambda: large.get(UUID(int=(5 << 64) + CONNECTION.int % 7)), monkeypatch)

    assert ("Index Scan", "jobs_pkey") == (node["Node Type"], node["Index Name"])


SEEKS: dict[str, Callable[[PostgresJobRepository], object]] = {
    "failed": lambda repository: repository.list_jobs(CONNECTION, limit=10, statuses={JobStatus.FAILED}),
    "failed or waiting": lambda repository: repository.list_jobs(
        CONNECTION, limit=10, statuses={JobStatus.FAILED, JobStatus.PENDING}
    ),
    "active": lambda repository: repository.active_jobs(limit=10),
    "silent": lambda repository: repository.active_jobs(limit=10, silent_since=at(10**6)),
    "changes": lambda repository: repository.changes("1-19990", limit=10),
    "newest of some": lambda repository: repository.newest_jobs([OTHER], per_connection=10),
    "newest of all": lambda repository: repository.newest_jobs(per_connection=10),
}


@pytest.mark.parametrize("seek", SEEKS)
def test_no_other_list_reads_past_what_it_does_not_give(
    large: PostgresJobRepository, seek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = plan_of(large, lambda: SEEKS[seek](large), monkeypatch)

    scans = [node for node in nodes if node.get("Relation Name") == "jobs"]
    assert scans
    assert {"Index Scan"} == {node["Node Type"] for node in scans}
    assert [] == [node for node in scans if node["Actual Rows"] + node.get("Rows Removed by Filter", 0) > 10]


def test_beats_are_hot_updates(repository: PostgresJobRepository, other: psycopg.Connection[Any]) -> None:
    other.execute("TRUNCATE jobs")  # a page without what former tests left
    running = job(1, JobStatus.RUNNING)
    repository.add(running)

    def beat(db: Connection) -> tuple[Any, ...]:
        """The numbers of updates and of HOT updates so far, as this connection's own have been counted too."""
        db.run("SELECT pg_stat_force_next_flush()")
        [counted] = db.run(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'SCHEMA.jobs'::regclass"
        )
        return counted

    before = repository._db.write(beat)
    for second in range(2, 32):
        running = running.beat(at=at(second))
        repository.replace(running, quiet=True)
    after = repository._db.write(beat)

    assert (30, 30) == (after[0] - before[0], after[1] - before[1])
    repository.replace(running.report(at=at(99), inserted=1))
    assert after[1] == repository._db.write(beat)[1], "a change in the feed is none"


# ---- The feed


def told(repository: JobRepository, after: str | None = None) -> list[SyncJob]:
    return [change.job for change in repository.changes(after)]


def add_late(other: psycopg.Connection[Any], late: SyncJob) -> None:
    """Add a job as the library does, in a transaction under way."""
    other.execute("BEGIN")
    other.execute(backend._ADD.replace("SCHEMA.", "").encode(), backend._values(late))


def test_a_commit_that_comes_late_is_not_missed(
    repository: PostgresJobRepository, other: psycopg.Connection[Any]
) -> None:
    late, early, first = jobs(1, 2, 3)
    repository.add(first)
    token = repository.changes()[-1].token
    add_late(other, late)
    repository.add(early)

    naive = repository._db.read("SELECT id FROM SCHEMA.jobs ORDER BY change, part")
    assert [(first.id,), (early.id,)] == naive, "who reads all there is goes past the one under way"
    assert [first] == told(repository)
    assert [] == told(repository, token)
    other.execute("COMMIT")
    assert [late, early] == told(repository, token)


def test_transactions_elsewhere_on_the_server_do_not_hold_the_feed_back(
    repository: PostgresJobRepository, other: psycopg.Connection[Any]
) -> None:
    other.execute("CREATE TABLE elsewhere (id int)")
    other.execute("BEGIN")
    other.execute("INSERT INTO elsewhere VALUES (1)")
    other.execute("SELECT count(*) FROM jobs")
    added = jobs(1, 2)
    repository.add_many(added)

    assert added == told(repository)
    other.execute("ROLLBACK")
    other.execute("DROP TABLE elsewhere")


def test_whoever_gathers_statistics_does_not_hold_the_feed_back(
    repository: PostgresJobRepository, other: psycopg.Connection[Any]
) -> None:
    other.execute("BEGIN")
    other.execute("ANALYZE jobs, source_connections")
    assert [(True,)] == other.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetchall()
    repository.add(job(1))

    assert [job(1)] == told(repository)
    other.execute("COMMIT")


def test_what_ends_while_it_is_looked_for_is_looked_for_again(
    repository: PostgresJobRepository, other: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = jobs(1, 2)
    add_late(other, late)
    repository.add(early)
    read = repository._db.read

    def ending(statement: str, *parameters: Any) -> list[Any]:  # noqa: ANN401
        if statement is backend._UNDER_WAY:
            other.execute("COMMIT")
        return read(statement, *parameters)

    monkeypatch.setattr(repository._db, "read", ending)
    assert [late, early] == told(repository)


def test_what_has_let_go_of_the_tables_but_not_of_its_number_is_not_taken_for_one_elsewhere(
    repository: PostgresJobRepository, other: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = jobs(1, 2)
    add_late(other, late)
    repository.add(early)
    read = repository._db.read

    def ending(statement: str, *parameters: Any) -> list[Any]:  # noqa: ANN401
        rows = read(statement, *parameters)
        if statement is backend._UNDER_WAY and rows:
            other.execute("COMMIT")
            return [(number, False) for number, _ in rows]
        return rows

    monkeypatch.setattr(repository._db, "read", ending)
    assert [late, early] == told(repository)


def test_the_feed_goes_on_growing_where_the_server_counts_anew(
    postgres: Database, repository: PostgresJobRepository, other: psycopg.Connection[Any]
) -> None:
    repository.add_many(jobs(1, 2))
    other.execute("UPDATE jobs SET change = change + 1000000")  # as a dump of another server has it
    with closing(PostgresJobRepository(postgres.url, schema=schema_of(repository))) as restored:
        token = restored.changes()[-1].token
        restored.add(job(3))
        repository.add(job(4))
        assert jobs(3, 4) == told(restored, token)
        assert jobs(1, 2, 3, 4) == told(repository)


def follow(repository: JobRepository, done: threading.Event) -> list[UUID]:
    """All jobs that a follower is told of until the writers are done and there is no more."""
    found: list[UUID] = []
    token: str | None = None
    while True:
        finished = done.is_set()
        page = repository.changes(token, limit=100)
        found += [change.job.id for change in page]
        token = page[-1].token if page else token
        if finished and not page:
            return found


@pytest.mark.parametrize("rounds", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_follower_misses_nothing_of_many_that_commit_at_once(postgres: Database, rounds: int) -> None:
    writers = 8
    with closing(postgres.empty(max_size=writers + 3)) as repository:
        repository.register(CONNECTION)
        repository.register(OTHER)
        done = threading.Event()

        def write(writer: int) -> None:
            for number in range(rounds):
                mine = [job(writer * 10**6 + number * 10 + i) for i in range(3)]
                repository.add(mine[0])
                repository.add_many(mine[1:])
                repository.replace(mine[0].start(at=at(10**8)))

        with ThreadPoolExecutor(writers + 1) as threads:
            following = threads.submit(follow, repository, done)
            writing = [threads.submit(write, writer) for writer in range(writers)]
            try:
                for each in writing:
                    each.result()
            finally:
                done.set()
            found = following.result()

        expected = {job(w * 10**6 + n * 10 + i).id for w in range(writers) for n in range(rounds) for i in range(3)}
        assert expected == set(found)


# ---- Waiting


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits is woken, or looks again in an hour."""
    monkeypatch.setattr(backend, "_LOOK_EVERY", 3600)


@pytest.mark.usefixtures("unhurried")
def test_a_write_of_another_process_wakes_who_waits(postgres: Database, repository: PostgresJobRepository) -> None:
    with closing(PostgresJobRepository(postgres.url, schema=schema_of(repository))) as elsewhere:
        for number in range(3):
            token = repository.changes()[-1].token if number else None
            with ThreadPoolExecutor(1) as thread:
                waiting = thread.submit(repository.wait_for_changes, token, 60)
                wait_for_listener(postgres)
                elsewhere._db._woken_at = -1
                elsewhere.add(job(number))
                assert waiting.result()


def wait_for_listener(postgres: Database) -> None:
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' OR wait_event = 'ClientRead'"
    while not postgres.connection.execute(listening).fetchone():
        pass


def test_who_waits_is_told_what_is_there_already_and_that_nothing_came(repository: PostgresJobRepository) -> None:
    assert not repository.wait_for_changes(None, 0)
    repository.add(job(1))
    assert repository.wait_for_changes(None, 0)
    assert not repository.wait_for_changes(repository.changes()[-1].token, 0.05)


def test_the_latest_change_leaves_what_is_still_to_come(repository: PostgresJobRepository) -> None:
    assert None is repository.latest_change()
    repository.add_many([job(1), job(2, JobStatus.COMPLETED)])
    first, last = repository.changes()
    # Another test's transaction, under way on the same server, may hold it back for a moment.
    while last.token != repository.latest_change():
        assert repository.latest_change() in (None, last.token)

    repository.delete_many([last.job.id])
    assert first.token == repository.latest_change()
    repository.add(job(3))
    assert [job(3)] == [change.job for change in repository.changes(first.token)]


def test_a_change_that_woke_nobody_is_found_soon(repository: PostgresJobRepository) -> None:
    repository._db._woken_at = 10**12
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(repository.wait_for_changes, None, 60)
        repository.add(job(1))
        assert waiting.result()


def test_closing_ends_the_waiting(repository: PostgresJobRepository) -> None:
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(repository.wait_for_changes, None, 60)
        repository.close()
        with pytest.raises(StorageError, match="is closed"):
            waiting.result()


def test_closing_closes_the_connections_of_all(repository: PostgresJobRepository) -> None:
    assert not repository.wait_for_changes(None, 0)
    with repository._db.listening() as wait:
        repository.close()
        wait(0)
    pool = repository._db._pool
    assert (None, []) == (pool, repository._db._listening)
    opened = [each for each in postgres_connection._SOCKETS if each.schema == schema_of(repository)]
    assert [] == [each for each in opened if not each.closed]


def test_a_call_that_finds_its_pool_closing_is_told_so(repository: PostgresJobRepository) -> None:
    repository._db._opened().close()
    with pytest.raises(StorageError, match="is closed: open it anew"):
        repository.connections()


def test_a_listener_whose_connection_ended_has_another(postgres: Database, repository: PostgresJobRepository) -> None:
    assert not repository.wait_for_changes(None, 0)
    for _ in range(2):
        [listener] = repository._db._listening
        end(postgres, listener)
        while not listener.closed:
            assert not repository.wait_for_changes(None, 0.02)


def test_who_waits_while_no_connection_can_be_had_looks_again(
    repository: PostgresJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = repository._db._listener
    monkeypatch.setattr(repository._db, "_listener", lambda: None)
    with ThreadPoolExecutor(1) as thread, repository._db.listening() as wait:
        waiting = thread.submit(repository.wait_for_changes, None, 60)
        wait(0)
        repository.add(job(1))
        assert waiting.result()
        assert [] == repository._db._listening
        monkeypatch.setattr(repository._db, "_listener", listener)
        wait(0)
    assert 1 == len(repository._db._listening)


def test_whichever_answer_to_a_listener_is_lost_it_looks_again(
    postgres: Database, repository: PostgresJobRepository
) -> None:
    with Proxy.of(postgres) as proxy:
        through = PostgresJobRepository(proxy.url, schema=schema_of(repository))
        with closing(through):
            for lost in range(100):
                proxy.lose_answer(after=lost)
                got = through._db._listener()
                if not proxy.lost_one():
                    break
                assert got is None
            assert got is not None
            got.close()
            assert lost > 2


# ---- Connections that end


def end(postgres: Database, connection: Connection) -> None:
    """End it from the server's side."""
    postgres.connection.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))


def test_connections_that_ended_while_idle_are_replaced(postgres: Database) -> None:
    with closing(postgres.empty(max_size=4)) as repository:
        with ThreadPoolExecutor(4) as threads:
            barrier = threading.Barrier(4)
            pids = repository_pids(repository, threads, barrier)
            for pid in pids:
                postgres.connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        for number in range(8):
            repository.register(UUID(int=number))
        assert 8 == len(repository.connections())


def repository_pids(
    repository: PostgresJobRepository, threads: ThreadPoolExecutor, barrier: threading.Barrier
) -> set[int]:
    def hold(db: Connection) -> int:
        barrier.wait()
        return db.info.backend_pid

    return set(threads.map(lambda _: repository._db.write(hold), range(4)))


def test_whichever_answer_is_lost_at_opening_it_is_told(postgres: Database, repository: PostgresJobRepository) -> None:
    with Proxy.of(postgres) as proxy:
        for lost in range(20):
            proxy.lose_answer(after=lost)
            try:
                PostgresJobRepository(proxy.url, schema=schema_of(repository)).close()
            except StorageError as failed:
                assert isinstance(failed.__cause__, psycopg.OperationalError)  # noqa: PT017  some openings succeed
            if not proxy.lost_one():
                break
        assert 3 <= lost < 19


Write = Callable[[PostgresJobRepository], object]
RUNNING = job(2, JobStatus.RUNNING)
WRITES: dict[str, tuple[Write, Callable[[PostgresJobRepository], object]]] = {
    "register": (lambda it: it.register(UNKNOWN), lambda it: it.connections()),
    "register by name": (lambda it: it.register(UNKNOWN, "crm"), lambda it: it.connections()),
    "add": (lambda it: it.add(job(5)), lambda it: it.get(job(5).id)),
    "add alone": (lambda it: it.add(job(6), exclusive=True), lambda it: it.get(job(6).id)),
    "add many": (lambda it: it.add_many(jobs(7, 8, 9)), lambda it: it.list_jobs(CONNECTION)),
    "replace": (lambda it: it.replace(RUNNING.beat(at=at(5))), lambda it: it.get(RUNNING.id)),
    "forget": (lambda it: it.forget(OTHER), lambda it: it.connections()),
    "delete": (lambda it: it.delete_many([job(1).id]), told),
}


@pytest.mark.parametrize("name", WRITES)
def test_whichever_answer_is_lost_a_write_is_done_once_or_its_outcome_unknown(postgres: Database, name: str) -> None:
    write, look = WRITES[name]
    with closing(postgres.empty()) as direct, Proxy.of(postgres) as proxy:
        through = PostgresJobRepository(proxy.url, schema=schema_of(direct))
        with closing(through):
            answers = 0
            for lost in range(20):
                for left in direct.active_jobs():
                    direct.replace(left.fail(at=at(100), error="cleared away"))
                for known in direct.connections():
                    direct.forget(known.id)
                for known_id in (CONNECTION, OTHER):
                    direct.register(known_id)
                direct.add(job(1, JobStatus.FAILED))
                if name != "add alone":
                    direct.add(RUNNING)
                expected_before = repr(look_or_error(direct, look))
                through.connections()  # so that the first answer is the write's
                proxy.lose_answer(after=lost)
                try:
                    answered = write(through)
                    unknown = False
                except UnknownOutcomeError:
                    unknown = True
                happened = proxy.lost_one()
                if unknown:
                    assert name in ("forget", "delete"), "all others are settled by a replay"
                else:
                    assert name != "delete" or answered == 1, "what was deleted is counted"
                    assert expected_before != repr(look_or_error(direct, look)), "what succeeded is there"
                with suppress(JobNotFoundError, SourceConnectionNotFoundError):
                    write(direct)
                if not happened:
                    break
                answers += 1
            else:
                pytest.fail("the write never ends")
            assert answers >= 1


def look_or_error(repository: PostgresJobRepository, look: Callable[[PostgresJobRepository], object]) -> object:
    try:
        return look(repository)
    except JobNotFoundError as error:
        return error


def test_a_replay_that_is_refused_for_what_came_after_is_an_unknown_outcome(
    postgres: Database, repository: PostgresJobRepository
) -> None:
    repository.add(RUNNING)
    first, second = RUNNING.beat(at=at(5)), RUNNING.beat(at=at(5)).beat(at=at(6))
    with (
        Proxy.of(postgres) as proxy,
        closing(PostgresJobRepository(proxy.url, schema=schema_of(repository))) as through,
    ):
        through.connections()
        proxy.lose_answer(after=0, then=lambda: repository.replace(second))
        with pytest.raises(UnknownOutcomeError, match=r"replayed: job .* is RUNNING at version 3") as refused:
            through.replace(first)

    assert isinstance(refused.value.__cause__, psycopg.OperationalError)
    assert second == repository.get(RUNNING.id)


def test_a_server_that_falls_silent_ends_the_call_in_time(
    postgres: Database, repository: PostgresJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy.of(postgres) as proxy:
        through = PostgresJobRepository(proxy.url, schema=schema_of(repository))
        with closing(through):
            assert repository.connections() == through.connections()
            proxy.fall_silent()
            monkeypatch.setattr(postgres_connection, "_GRACE", 0.1)
            through._db.timeout = 0.3
            with pytest.raises(UnknownOutcomeError, match="the server does not answer"):
                through.add(job(1))
            with pytest.raises(StorageError):
                through.connections()

    assert job(1) == repository.get(job(1).id)


def test_a_write_that_waits_too_long_is_not_done(
    repository: PostgresJobRepository, postgres: Database, other: psycopg.Connection[Any]
) -> None:
    repository.add(job(1))
    with closing(PostgresJobRepository(postgres.url, schema=schema_of(repository))) as hasty:
        other.execute("BEGIN; SELECT * FROM jobs FOR UPDATE")
        assert 2 == len(hasty.connections())
        hasty._db.timeout = 0.3
        with pytest.raises(
            StorageError, match=r"took longer than 0.3 s: .*57014.* \(try again, or raise timeout\)"
        ) as late:
            hasty.replace(job(1).start(at=at(2)))
        other.execute("ROLLBACK")
        hasty._db.timeout = 30

        assert (StorageError, psycopg.errors.QueryCanceled) == (type(late.value), type(late.value.__cause__))
        assert job(1) == repository.get(job(1).id)
        hasty.replace(job(1).start(at=at(2)))


def test_who_waits_too_long_for_a_connection_is_told_what_to_raise(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(postgres.empty(max_size=1)) as repository:

        def busy(_: Connection) -> None:
            with pytest.raises(
                StorageError, match="all 1 connections were busy all the time: raise max_size or timeout"
            ):
                repository.connections()

        assert [] == repository.connections()
        with monkeypatch.context() as hasty:
            hasty.setattr(repository._db, "timeout", 0.3)
            repository._db.write(busy)
        assert [] == repository.connections()


def test_a_server_that_went_away_is_told_with_the_reason(postgres: Database, repository: PostgresJobRepository) -> None:
    with Proxy.of(postgres) as proxy:
        through = PostgresJobRepository(proxy.url, schema=schema_of(repository))
        with closing(through):
            through.connections()
            proxy.close()
            through._db.timeout = 0.5
            with pytest.raises(
                StorageError, match=r"cannot be reached: .* \(check the URL, and that the server runs\)"
            ):
                through.connections()


def test_a_server_that_comes_back_is_found(postgres: Database, repository: PostgresJobRepository) -> None:
    with (
        Proxy.of(postgres) as proxy,
        closing(PostgresJobRepository(proxy.url, schema=schema_of(repository))) as through,
    ):
        through.connections()
        proxy.close()
        with ThreadPoolExecutor(3) as threads:
            adding = [threads.submit(through.add, job(number)) for number in range(3)]
            proxy.reopen()
            assert [None] * 3 == [each.result() for each in adding]

    assert jobs(2, 1, 0) == repository.list_jobs(CONNECTION)


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_what_the_server_rolled_back_for_others_is_done_again(repository: PostgresJobRepository, code: str) -> None:
    tries: list[int] = []

    def work(db: Connection) -> str:
        tries.append(1)
        if len(tries) < 4:
            db.run(f"DO $$ BEGIN RAISE 'no luck' USING ERRCODE = '{code}'; END $$")
        return "done"

    assert ("done", 4) == (repository._db.write(work), len(tries))


def test_what_is_rolled_back_all_the_time_is_a_storage_error(repository: PostgresJobRepository) -> None:
    assert 2 == len(repository.connections())
    repository._db.timeout = 0.2
    with pytest.raises(StorageError, match=r"no luck.*40001") as failed:
        repository._db.write(lambda db: db.run("DO $$ BEGIN RAISE 'no luck' USING ERRCODE = '40001'; END $$"))

    assert (StorageError, psycopg.errors.SerializationFailure) == (type(failed.value), type(failed.value.__cause__))


def test_a_job_that_comes_between_a_look_and_a_write_is_looked_at_again(
    repository: PostgresJobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    are_stored = repository._are_stored
    looks: list[int] = []

    def blind_once(db: Connection, wanted: dict[UUID, SyncJob]) -> set[UUID]:
        looks.append(1)
        return are_stored(db, wanted) if len(looks) > 1 else set()

    repository.add(job(1))
    monkeypatch.setattr(repository, "_are_stored", blind_once)
    repository.add(job(1))
    assert (2, [job(1)]) == (len(looks), repository.list_jobs(CONNECTION))
    looks.clear()
    repository.add_many(jobs(1, 2))
    assert (2, jobs(2, 1)) == (len(looks), repository.list_jobs(CONNECTION))


def test_a_server_that_became_a_standby_is_left(repository: PostgresJobRepository) -> None:
    pids: list[int] = []

    def work(db: Connection) -> None:
        pids.append(db.info.backend_pid)
        if len(pids) == 1:
            db.run("DO $$ BEGIN RAISE 'read-only' USING ERRCODE = '25006'; END $$")

    repository._db.write(work)
    assert 2 == len(set(pids))


def test_an_error_of_the_server_is_told_as_ours(
    repository: PostgresJobRepository, other: psycopg.Connection[Any]
) -> None:
    other.execute("ALTER TABLE jobs RENAME TO gone")
    calls: list[Callable[[], object]] = [
        lambda: repository.add(job(1)),
        lambda: repository.add_many([job(1)]),
        lambda: repository.get(job(1).id),
        lambda: repository.replace(job(1)),
        lambda: repository.list_jobs(CONNECTION),
        repository.changes,
    ]
    try:
        for call in calls:
            with pytest.raises(StorageError, match="42P01") as failed:
                call()
            assert isinstance(failed.value.__cause__, psycopg.errors.UndefinedTable)
            assert not isinstance(failed.value, UnknownOutcomeError)
    finally:
        other.execute("ALTER TABLE gone RENAME TO jobs")


def test_a_reader_may_be_another_server(postgres: Database, repository: PostgresJobRepository) -> None:
    """The standby is a schema's namesake in another database here: what is asked of it is told apart."""
    name = f"standby_{uuid4().hex}"
    postgres.connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
    url = postgres.url.replace(postgres.name, name)
    opened = partial(PostgresJobRepository, schema=schema_of(repository))
    try:
        with (
            closing(opened(url)) as standby,
            closing(opened(postgres.url, read_url=url)) as reading,
        ):
            standby.register(CONNECTION)
            standby.add(job(1))
            reading.add(job(2))
            assert [job(1)] == reading.list_jobs(CONNECTION) == reading.active_jobs()
            assert {CONNECTION: [job(1)]} == reading.newest_jobs()
            assert job(2) == reading.get(job(2).id)
            assert [job(2)] == told(reading)
            assert 2 == len(reading.connections())
        for closed in (reading.get, reading.list_jobs):
            with pytest.raises(StorageError, match="is closed"):
                closed(CONNECTION)
    finally:
        postgres.connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# ---- Processes


@pytest.mark.parametrize(("processes", "rounds"), [(4, 10), pytest.param(8, 200, marks=pytest.mark.slow)])
def test_processes_that_work_on_one_schema_lose_nothing(postgres: Database, processes: int, rounds: int) -> None:
    with schema(postgres) as name:
        PostgresJobRepository(postgres.url, schema=name).close()
        work_together(processes, f"{postgres.url}{'&' if '?' in postgres.url else '?'}schema={name}", rounds)


# ---- Forks


@MULTITHREADED_FORK
def test_a_child_has_connections_of_its_own(repository: PostgresJobRepository) -> None:
    pid = "SELECT pg_backend_pid()"
    repository.add(job(1))
    [(mine,)] = repository._db.read(pid)
    [(childs,)] = json.loads(forked(lambda: json.dumps(repository._db.read(pid))))

    assert mine != childs
    assert [(mine,)] == repository._db.read(pid), "the parent's is as it was"


@MULTITHREADED_FORK
def test_parent_and_child_write_side_by_side(repository: PostgresJobRepository) -> None:
    def write(numbers: range) -> str:
        for number in numbers:
            repository.add(job(number))
        return "done"

    def write_and_close() -> str:
        said = write(range(40, 50))
        repository.close()
        return said

    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(write, range(20))
        said = [forked(lambda: write(range(20, 40))), forked(write_and_close)]
        assert "done" == writing.result()

    assert ["done", "done"] == said
    assert jobs(*range(49, -1, -1)) == repository.list_jobs(CONNECTION)


@MULTITHREADED_FORK
def test_a_child_holds_no_connection_of_its_parent_open(repository: PostgresJobRepository) -> None:
    repository.wait_for_changes(None, 0)
    repository.connections()
    # The number of one that was closed may be another socket's by now.
    held = [number for connection, number in postgres_connection._SOCKETS.items() if not connection.closed]
    assert held

    def sockets() -> str:
        return str([number for number in held if Path(f"/proc/self/fd/{number}").is_socket()])

    assert "[]" == forked(sockets)
    assert 2 == len(repository.connections())
    assert not repository.wait_for_changes(None, 0)


@MULTITHREADED_FORK
def test_a_child_that_drops_its_parents_connections_leaves_them_in_peace(repository: PostgresJobRepository) -> None:
    mine = repository._db.read("SELECT pg_backend_pid()")

    def drop() -> str:
        postgres_connections._FORSAKEN.clear()
        postgres_connection._FORSAKEN.clear()
        gc.collect()
        return "went on"

    assert "went on" == forked(drop)
    assert mine == repository._db.read("SELECT pg_backend_pid()")


@MULTITHREADED_FORK
def test_a_child_of_a_closed_history_finds_it_closed(repository: PostgresJobRepository) -> None:
    repository.close()

    def ask() -> str:
        with pytest.raises(StorageError, match="is closed"):
            repository.connections()
        return "refused"

    assert "refused" == forked(ask)


def test_a_child_that_ends_as_programs_do_ends_well(postgres: Database, repository: PostgresJobRepository) -> None:
    program = """
import os, sys
from jobhistory.storage.postgres import PostgresJobRepository

repository = PostgresJobRepository(sys.argv[1], schema=sys.argv[2])
repository.connections()
if not os.fork():
    print(len(repository.connections()), flush=True)
    sys.exit()
os.wait()
print(len(repository.connections()))
"""
    assert "2\n2\n" == run_python(program, postgres.url, schema_of(repository))


def test_a_repository_that_is_dropped_closes_its_connections(
    postgres: Database, repository: PostgresJobRepository
) -> None:
    program = """
import gc, sys, threading
from jobhistory.storage.postgres import PostgresJobRepository

repository = PostgresJobRepository(sys.argv[1], schema=sys.argv[2])
repository.connections()
del repository
gc.collect()
print(threading.active_count())
"""
    assert "1\n" == run_python(program, postgres.url, schema_of(repository))
