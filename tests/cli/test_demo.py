from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

import jobhistory
from jobhistory.cli import demo
from jobhistory.cli.database import data_folder
from jobhistory.errors import StorageError
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.storage.memory import InMemoryJobRepository
from tests.cli.command_line import CommandLine, process

OUR_STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
STORY = ["COMPLETED", "CANCELLED", "FAILED", "COMPLETED", "COMPLETED"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Fifteen files in three folders, a link and a pipe."""
    folder = tmp_path / "folder"
    for number in range(15):
        path = folder / "abc"[number % 3] / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}")
    (folder / "link").symlink_to("a/00.txt")
    os.mkfifo(folder / "pipe")
    return folder


def counts(job: SyncJob) -> tuple[int, int, int, int]:
    return job.entities_inserted, job.entities_updated, job.entities_deleted, job.entities_failed


def jobs_of(history: JobHistory) -> list[SyncJob]:
    [connection] = history.connections()
    return history.list_jobs(connection.id)


def test_five_runs_are_recorded_as_they_went(cli: CommandLine, history: JobHistory, folder: Path) -> None:
    result = cli("demo", str(folder))

    assert 0 == result.exit_code
    done, cancelled, failed, edited, first = jobs = jobs_of(history)
    assert STORY == [job.status for job in jobs]
    # of 15 files every third changes, of the others every seventh goes, and one is new; a link leads nowhere
    assert [(15, 0, 0, 0), (1, 5, 2, 1)] == [counts(first), counts(edited)]
    # the mirror goes away midway
    assert 0 < failed.entities_updated < 5
    assert failed.error is not None
    assert re.match(r"(FileExists|NotADirectory)Error: ", failed.error)
    assert failed.error_details is not None
    assert "copy.parent.mkdir" in failed.error_details["traceback"]
    # it comes back empty, and the last two fill it together
    assert 0 < cancelled.entities_inserted < 13
    assert (13 - cancelled.entities_inserted, 0, 0, 1) == counts(done)
    assert cancelled.cancel_requested_at is not None


def test_the_history_is_listed_newest_first_with_the_way_to_it(cli: CommandLine, folder: Path) -> None:
    result = cli("demo", str(folder))
    listed = cli("list").stdout

    assert STORY == [line.split()[1] for line in listed.splitlines()[1:]]
    assert listed in result.stdout
    commands = re.findall(r"^  jobhistory --db (\S+) (.+)$", result.stdout, re.MULTILINE)
    assert [cli.url] * 3 == [url for url, _ in commands]
    for _, command in commands:
        assert 0 == cli(*command.split()).exit_code
    assert "FAILED" in cli(*commands[1][1].split()).stdout
    assert f"The history is kept in {cli.url}." in result.stdout


def test_the_folder_is_only_read(cli: CommandLine, folder: Path) -> None:
    def state() -> dict[str, tuple[int, int, int]]:
        return {str(path): ((at := path.lstat()).st_mtime_ns, at.st_ctime_ns, at.st_size) for path in folder.rglob("*")}

    before = state()

    assert 0 == cli("demo", str(folder)).exit_code
    assert before == state()


def test_the_mirror_holds_what_its_source_holds(history: JobHistory, folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    assert demo.copy_some(folder, source)
    connection = UUID(int=1)

    for _ in range(2):
        demo.mirror(history, connection, source, target, lambda _, files: files)
        (source / "b" / "01.txt").write_text("changed")
        (source / "c" / "02.txt").unlink(missing_ok=True)

    again, first = history.list_jobs(connection)
    assert [(15, 0, 0, 0), (0, 1, 1, 0)] == [counts(first), counts(again)]
    assert {path.relative_to(source): path.read_text() for path in source.rglob("*.txt")} == {
        path.relative_to(target): path.read_text() for path in target.rglob("*.txt")
    }


def test_it_keeps_its_own_history_unless_db_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHISTORY_URL", "sqlite:///nobody/asked/for/this.db")
    for _ in range(2):
        assert 0 == process("demo", str(folder)).returncode

    with closing(jobhistory.open(str(data_folder() / "demo.db"))) as history:
        assert [f"mirror of {folder}"] == [each.name for each in history.connections()]
        assert STORY * 2 == [job.status for job in jobs_of(history)]
    assert ["demo.db"] == [path.name for path in data_folder().iterdir()]


def test_without_a_folder_it_mirrors_the_package(cli: CommandLine, history: JobHistory) -> None:
    package = Path(jobhistory.__file__).parent

    assert 0 == cli("demo").exit_code
    [connection] = history.connections()
    assert f"mirror of {package}" == connection.name
    assert jobs_of(history)[-1].entities_inserted >= len(list(package.glob("*.py")))


def test_a_history_in_memory_has_no_way_back(folder: Path) -> None:
    shown = process("--db", "memory:", "demo", str(folder)).stdout

    assert STORY == re.findall(r"^[0-9a-f-]{36}  (\w+)", shown, re.MULTILINE)
    assert "kept in" not in shown


def test_one_file_is_enough(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "only").touch()

    assert 0 == cli("demo", str(folder)).exit_code
    assert STORY == [job.status for job in jobs_of(history)]


def test_a_folder_without_files_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty" / "with a folder in it").mkdir(parents=True)

    result = cli("demo", str(tmp_path / "empty"))

    assert 1 == result.exit_code
    assert f"no file in {tmp_path / 'empty'} can be read: name another folder" in result.stderr


def test_a_big_folder_is_mirrored_in_part(
    cli: CommandLine, history: JobHistory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_MOST_FILES", 10)
    assert ", a part of it." in cli("demo", str(folder)).stdout
    assert 10 == jobs_of(history)[-1].entities_inserted

    monkeypatch.setattr(demo, "_MOST_BYTES", 3 * len("file 0"))
    assert ", a part of it." in cli("demo", str(folder)).stdout
    assert 3 == jobs_of(history)[4].entities_inserted


def test_a_file_that_cannot_be_copied_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Root may read everything, but nobody may write below a path of 4,096 bytes."""
    deep = folder / Path(*["d" * 250] * ((4000 - len(str(folder))) // 251))
    deep.mkdir(parents=True)
    (deep / "file").touch()
    farther = tmp_path / ("t" * 250)
    farther.mkdir()

    assert not demo.copy_some(folder, farther / ("t" * 250))
    assert 15 == len(list(farther.rglob("*.txt")))


def test_a_storage_that_fails_ends_it(folder: Path, tmp_path: Path) -> None:
    class Full(InMemoryJobRepository):
        def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
            raise StorageError("here", f"the disk is full: {job.id}, {exclusive=}")

    demo.copy_some(folder, tmp_path / "source")
    stage = demo.Stage(JobHistory(Full()), UUID(int=1), tmp_path / "source", tmp_path / "mirror")

    with pytest.raises(StorageError, match="the disk is full"):
        stage.play()


def test_a_terminal_shows_the_runs_as_they_go(cli: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_SECONDS_A_RUN", 0)

    shown = OUR_STYLES.sub("", cli.on_terminal("demo", str(folder)))

    for title in ("first run", "files changed, vanished, unreadable", "the mirror's disk goes away"):
        assert title in shown
    assert re.search(r"cancelled midway +━+\S* +\d+/\d+ CANCELLED", shown)
    assert "+ inserted  ~ updated  - deleted  ! failed" in shown


def test_a_folder_of_any_name_can_be_mirrored(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\x1b[2J\xff [red]")
    folder.mkdir()
    (folder / "file").touch()

    shown = cli("demo", str(folder))

    assert 0 == shown.exit_code
    assert "\x1b" not in shown.output
    [connection] = history.connections()
    assert connection.name == f"mirror of {str(folder)!a}"


def test_a_name_given_to_the_mirror_stays(cli: CommandLine, history: JobHistory, folder: Path) -> None:
    cli("demo", str(folder))
    [connection] = history.connections()
    history.register(connection.id, "mine")

    cli("demo", str(folder))

    assert ["mine"] == [each.name for each in history.connections()]
