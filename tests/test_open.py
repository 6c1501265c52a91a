from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import jobhistory
from jobhistory import StorageError
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION, NOON
from tests.postgres import Database


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder worked in, with a place for relative paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("history.db", "history.db"),
        ("sub/history.db", "sub/history.db"),
        ("./history.db", "history.db"),
        ("sqlite:///history.db", "history.db"),
        ("sqlite:///sub/history.db", "sub/history.db"),
        ("memory", "memory"),
        ("sqlite", "sqlite"),
        ("memory:history.db", "memory:history.db"),
        ("with:colon.db", "with:colon.db"),
        ("with%20percent?and=query#.db", "with%20percent?and=query#.db"),
        ("sqlite:///with%20percent?and=query", "with%20percent?and=query"),
    ],
)
def test_a_path_or_sqlite_url_opens_that_file(folder: Path, url: str, file: str) -> None:
    with jobhistory.open(url) as history:
        assert isinstance(history.repository, SQLiteJobRepository)
        assert str(folder / file) == history.repository.path
        history.register(CONNECTION)

    assert (folder / file).is_file()
    with jobhistory.open(folder / file) as again:
        assert [CONNECTION] == [known.id for known in again.connections()]


def test_an_absolute_path_is_one_with_four_slashes(folder: Path) -> None:
    for url in (str(folder / "history.db"), f"sqlite:///{folder / 'history.db'}", folder / "history.db"):
        with jobhistory.open(url) as history:
            assert isinstance(history.repository, SQLiteJobRepository)
            assert str(folder / "history.db") == history.repository.path


def test_memory_is_new_each_time(folder: Path) -> None:
    with jobhistory.open("memory:") as first, jobhistory.open("memory:") as second:
        assert isinstance(first.repository, InMemoryJobRepository)
        first.register(CONNECTION)
        assert [] == second.connections()

    assert ["sub"] == [file.name for file in folder.iterdir()]


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("mysql://admin:hunter2@localhost/db", "mysql"),
        ("https://example.com/history.db", "https"),
        ("file:///history.db", "file"),
        ("memory://", "memory"),
        ("sqlite://history.db", "sqlite"),
        ("sqlite://localhost/history.db", "sqlite"),
        ("sqlite:history.db", "sqlite"),
        ("sqlite:/history.db", "sqlite"),
        ("SQLITE:///history.db", "SQLITE"),
        ("://", ""),
    ],
)
def test_a_url_of_another_kind_is_refused_without_its_password(folder: Path, url: str, scheme: str) -> None:
    with pytest.raises(ValueError, match="wanted a path, sqlite:///path, memory: or postgresql://") as refused:
        jobhistory.open(url)

    assert f"cannot open {scheme}:" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert ["sub"] == [file.name for file in folder.iterdir()]


@pytest.mark.parametrize("url", ["", ":memory:", "sqlite:///", "sqlite:///:memory:"])
def test_a_url_without_a_file_is_refused(folder: Path, url: str) -> None:
    with pytest.raises(StorageError, match="is no file: give a path, or use InMemoryJobRepository"):
        jobhistory.open(url)

    assert ["sub"] == [file.name for file in folder.iterdir()]


@pytest.mark.parametrize("url", [None, 7, b"history.db"])
def test_what_is_no_text_and_no_path_is_refused(folder: Path, url: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError):
        jobhistory.open(url)

    assert ["sub"] == [file.name for file in folder.iterdir()]


def test_a_file_that_cannot_be_used_is_a_storage_error(folder: Path) -> None:
    (folder / "notes.txt").write_text("no history" * 1000)
    with pytest.raises(StorageError, match=r"notes\.txt"):
        jobhistory.open("notes.txt")


def test_options_are_those_of_the_history() -> None:
    told: list[object] = []
    with jobhistory.open("memory:", clock=lambda: NOON, new_id=lambda: UUID(int=7), hooks=[told.append]) as history:
        created = history.enqueue(CONNECTION)

    assert (NOON, UUID(int=7), [created]) == (created.created_at, created.id, told)
    with pytest.raises(TypeError, match="colour"):
        jobhistory.open("memory:", colour="red")


def test_every_public_name_is_there() -> None:
    assert [] == [name for name in jobhistory.__all__ if not hasattr(jobhistory, name)]


WORKER = """
import sys
import jobhistory

docs, code = "550e8400-e29b-41d4-a716-446655440000", "0e8400e2-9b41-4d4a-8716-446655440000"
with jobhistory.open(sys.argv[1]) as history:
    history.register(docs, "docs")
    with history.track(docs, metadata={"trigger": "schedule"}) as run:
        for batch in (["a", "b"], ["c"]):
            run.report(inserted=len(batch))
    try:
        with history.track(docs, exclusive=True) as run:
            run.report(updated=1)
            raise PermissionError("token ghp_0123456789abcdefghijABCDEFGHIJ012345 is expired")
    except PermissionError:
        pass
    queued = history.enqueue(code, exclusive=True)
    try:
        history.enqueue(code, exclusive=True)
    except jobhistory.ActiveJobExistsError as error:
        print(type(error).__name__, error.job_id == queued.id)
    with history.run(queued.id) as run:
        history.cancel(queued.id)
        run.flush()
        run.report(deleted=1)
    history.enqueue(docs)
    print(history.connections())
    for job in [*history.iter_jobs(docs), *history.iter_jobs(code), *history.active_jobs()]:
        print(job.status, job.version, job.entities_inserted, job.entities_updated, job.error, job.metadata)
    print([len(jobs) for jobs in history.newest_jobs(per_connection=2).values()], len(history.changes()))
"""


def test_a_worker_runs_unchanged_on_every_backend_by_its_url_alone(folder: Path, postgres: Database) -> None:
    program = folder / "worker.py"
    program.write_text(WORKER)
    urls = ("memory:", "history.db", f"{postgres.url}?schema=worked_on")
    told = [
        subprocess.run([sys.executable, program, url], capture_output=True, text=True, check=True).stdout
        for url in urls
    ]
    assert "ActiveJobExistsError True" in told[0]
    assert [told[0]] * 3 == told
