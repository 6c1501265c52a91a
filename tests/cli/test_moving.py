from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import jobhistory
from jobhistory.cli.moving import _asked_to_end, _opened
from jobhistory.history import JobHistory
from jobhistory.job import SyncJob
from jobhistory.ledger import Ledger
from jobhistory.status import JobStatus
from jobhistory.testing.rules.base import CONNECTION, OTHER, job, jobs
from tests.cli.command_line import CommandLine


@pytest.fixture
def dest(tmp_path: Path) -> str:
    return str(tmp_path / "dest.db")


def contents(url: str) -> list[SyncJob]:
    with jobhistory.open(url) as history:
        return history.list_jobs(CONNECTION)


def ledgers(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("data/jobhistory/*.ids"))


def test_copy_says_what_it_copied_as_export_would_write_it(
    cli: CommandLine, history: JobHistory, dest: str, tmp_path: Path
) -> None:
    history.register(CONNECTION, "docs")
    history.repository.add_many(jobs(1, 2, 3))
    lines = cli("export", "docs").stdout.splitlines(keepends=True)[1:]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()

    for _ in range(2):
        result = cli("copy", cli.url, dest)
        assert (0, "") == (result.exit_code, result.stderr)
        assert f"{digest}            3  docs\n3 jobs of 1 connection\n" == result.stdout
    assert jobs(3, 2, 1) == contents(dest)
    assert [] == ledgers(tmp_path)


def test_copy_draws_a_bar_on_a_terminal(cli: CommandLine, history: JobHistory, dest: str) -> None:
    history.register(CONNECTION)
    history.repository.add_many(jobs(1, 2, 3))
    shown = cli.on_terminal("copy", cli.url, dest)
    assert "Copying" in shown
    assert "3/3" in shown


def test_copy_refuses_what_it_could_not_do_rightly(cli: CommandLine, history: JobHistory, dest: str) -> None:
    history.register(CONNECTION)
    Path(f"{dest}.link").hardlink_to(cli.url)
    for words, said in (
        ((cli.url, f"sqlite:///{cli.url}"), "the same"),
        ((cli.url, f"{dest}.link"), "the same"),
        ((cli.url, "postgresql://there/db?read_url=x"), "leave read_url out"),
        ((cli.url, "memory:"), "give a path"),
    ):
        result = cli("copy", *words)
        assert (2, True) == (result.exit_code, said in result.stderr)
    assert 3 == cli("copy", dest, f"{dest}.new").exit_code
    assert not Path(f"{dest}.new").exists()


def test_copy_takes_no_other_file_for_its_ledger(
    cli: CommandLine, history: JobHistory, dest: str, tmp_path: Path
) -> None:
    history.register(CONNECTION)
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    for file in (str(other), cli.url):
        before = Path(file).read_bytes()
        result = cli("copy", cli.url, dest, "--ledger", file)
        assert (1, True) == (result.exit_code, "is no ledger of a copy" in result.stderr)
        assert before == Path(file).read_bytes()


def test_a_full_disk_is_told_once_by_who_wrote_to_the_ledger() -> None:
    with _opened(Path("/dev/full")) as ledger:
        ledger.write(b"entry")
    assert ledger.closed


def test_copy_tells_of_what_differs_and_ends_with_code_4(
    cli: CommandLine, history: JobHistory, dest: str, tmp_path: Path
) -> None:
    history.register(CONNECTION, "docs")
    history.repository.add_many([job(1, JobStatus.FAILED), job(2, JobStatus.RUNNING), *jobs(3, 4)])
    with jobhistory.open(dest) as there:
        there.repository.register(OTHER, "docs")
        there.repository.register(CONNECTION)
        there.repository.add_many([job(1, JobStatus.COMPLETED, worker="w\x1b"), job(3), job(5)])
        there.start(job(3).id)
    result = cli("copy", cli.url, dest)

    assert 4 == result.exit_code
    sums = {"jobs": 4, "running": 1, "gone_on": 1, "different": 1, "only_in_dest": 1}
    [docs] = (as_json := json.loads(cli("copy", cli.url, dest, "--json").stdout))["connections"]
    assert sums == {name: as_json[name] for name in sums} == {name: docs[name] for name in sums}
    assert (str(CONNECTION), "docs", False, True) == tuple(
        docs[name] for name in ("id", "name", "name_is_copied", "is_equal")
    )
    assert result.stdout.startswith(docs["sha256"])
    assert [("FAILED", "COMPLETED")] == [
        (pair["source"]["status"], pair["dest"]["status"]) for pair in as_json["jobs_that_differ"]
    ]
    told = "version 1, worker"
    assert [
        rf"job {job(1).id}: FAILED in SOURCE ({told} None), COMPLETED in DEST ({told} w\x1b): DEST's stays",
        f"a name was not copied: the name 'docs' belongs to source connection {OTHER}",
        "1 job left running in SOURCE: let the workers end there, then copy again",
    ] == result.stderr.splitlines()
    assert (
        "4 jobs of 1 connection, 1 gone on in DEST, 1 written in both and different, 1 in DEST alone"
        == result.stdout.splitlines()[-1]
    )
    assert 1 == len(ledgers(tmp_path))


def test_a_ledger_is_kept_for_what_still_runs_in_source(
    cli: CommandLine, history: JobHistory, dest: str, tmp_path: Path
) -> None:
    running = [history.start(history.enqueue(CONNECTION).id) for _ in range(2)]
    result = cli("copy", cli.url, dest)
    assert (0, True) == (result.exit_code, "2 jobs left running in SOURCE" in result.stderr)
    assert 1 == len(ledgers(tmp_path))
    last, deleted = (history.complete(each.id) for each in running)
    history.repository.delete_many([deleted.id])
    assert 0 == cli("copy", cli.url, dest).exit_code
    assert [last] == contents(dest)
    assert [] == ledgers(tmp_path)


def test_a_source_that_never_rests_ends_with_code_4(
    cli: CommandLine, history: JobHistory, dest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.register(CONNECTION)
    monkeypatch.setattr("jobhistory.comparison.Comparison.is_equal", False)
    result = cli("copy", cli.url, dest)
    assert (4, f"{CONNECTION} differs: SOURCE is still written to; copy again\n") == (result.exit_code, result.stderr)


def test_copy_follows_until_ctrl_c_and_then_brings_over_what_came_last(
    cli: CommandLine, history: JobHistory, dest: str, tmp_path: Path
) -> None:
    history.register(CONNECTION)
    history.repository.add_many([job(1), job(2, JobStatus.COMPLETED)])
    ledger = tmp_path / "ledger"
    words = [sys.executable, "-m", "jobhistory.cli", "copy", cli.url, dest, "--follow", "--ledger", str(ledger)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "keeping up: let the workers switch" in process.stderr.readline()
        with ledger.open("r+b") as file:
            assert {job(1).id, job(2).id} == set(Ledger(file).jobs())
        history.repository.add(job(3))
        history.cancel(job(1).id)
        history.repository.delete_many([job(2).id])
        process.send_signal(signal.SIGINT)
        assert ("", "2 jobs of 1 connection") == (process.stderr.read(), process.stdout.read().splitlines()[-1])
    assert 0 == process.returncode
    assert history.list_jobs(CONNECTION) == contents(dest)
    assert not ledger.exists()


def test_whoever_is_told_that_it_keeps_up_may_end_it_at_once(
    cli: CommandLine, history: JobHistory, dest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.register(CONNECTION)

    def say(text: str) -> None:
        assert "keeping up" in text
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("jobhistory.cli.moving._say", say)
    result = cli("copy", cli.url, dest, "--follow")
    assert (0, "0 jobs of 1 connection") == (result.exit_code, result.stdout.splitlines()[-1])


def test_one_signal_asks_to_end_and_the_second_is_as_it_was() -> None:
    with _asked_to_end() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_ledger_is_kept_where_the_copy_was_interrupted(
    cli: CommandLine, history: JobHistory, dest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.register(CONNECTION)
    history.repository.add_many([job(1, JobStatus.COMPLETED), job(2, JobStatus.COMPLETED)])

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jobhistory.moving.Move.finish", interrupted)
        assert 130 == cli("copy", cli.url, dest).exit_code
    assert 1 == len(ledgers(tmp_path))
    history.repository.delete_many([job(1).id])
    assert 0 == attrs.evolve(cli, url="memory:")("copy", cli.url, dest).exit_code
    assert [job(2, JobStatus.COMPLETED)] == contents(dest)
    assert [] == ledgers(tmp_path)
