"""Counts that come from a report, from Singer messages and from rsync."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import venv
import zlib
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import JobHistory, JobStatus
from jobhistory.exec import counts as module
from jobhistory.exec.counts import Counting, Reader, Report, rsync_stats, singer_messages
from jobhistory.storage.memory import InMemoryJobRepository
from tests.executions import CONNECTION, Executions, counts, outcome, wait_until
from tests.workers import needed

COMPLETED, FAILED = JobStatus.COMPLETED, JobStatus.FAILED


@pytest.fixture
def exec_(tmp_path: Path) -> Executions:
    return Executions(tmp_path)


def counted(reader: Reader, *pieces: bytes) -> dict[str, int]:
    """What the reader makes of a stream that comes in these pieces."""
    with (
        JobHistory(InMemoryJobRepository()).track(CONNECTION) as run,
        closing(Counting(reader, run.report, "a stream")) as counting,
    ):
        for piece in pieces:
            counting.feed(piece)
    return counts(run.job)


# ---- A report


def test_a_script_reports_its_counts_as_it_goes(exec_: Executions) -> None:
    script = """
        echo '{"inserted": 3, "updated": 1}' >> $JOBHISTORY_REPORT
        read line
        echo '{"inserted": 2, "deleted": 4, "failed": 1}' >> $JOBHISTORY_REPORT
        printf '{"inserted": 10}' >> $JOBHISTORY_REPORT
    """
    with exec_.running("--", "sh", "-c", script) as process, exec_.history() as history:
        wait_until(history, lambda job: {"inserted": 3, "updated": 1} == counts(job))
        assert process.stdin is not None
        process.stdin.close()
        assert 0 == process.wait()

    job = exec_.job()
    assert {"inserted": 15, "updated": 1, "deleted": 4, "failed": 1} == counts(job)
    assert (COMPLETED, None) == outcome(job)


@pytest.mark.parametrize(
    "line",
    [
        "three",
        "[3]",
        '{"inserted": -3}',
        '{"inserted": 3.0}',
        '{"inserted": true}',
        '{"inserted": "3"}',
        '{"inserted": 3, "insert": 3}',
        '{"updated": 1, "inserted": 9223372036854775808}',
        "[" * 100_000,
        "\N{REPLACEMENT CHARACTER}",
    ],
)
def test_a_line_that_holds_no_counts_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str) -> None:
    path = tmp_path / "report"

    with JobHistory(InMemoryJobRepository()).track(CONNECTION) as run, closing(Report(path, run.report)):
        path.write_text(f'{line}\n\n{line}\n{{"inserted": 3}}\n')

    assert {"inserted": 3} == counts(run.job)
    [said] = caplog.messages
    assert said.startswith("JOBHISTORY_REPORT: a line was not counted, nor will others like it be named: ")


def test_what_was_not_counted_is_said_once_and_the_job_completed(exec_: Executions) -> None:
    (exec_.folder / "lines").write_text('three\nfour\n{"updated": 5}')

    ended = exec_.run("--", "sh", "-c", "cat lines > $JOBHISTORY_REPORT")

    assert 0 == ended.returncode
    assert ["jobhistory: JOBHISTORY_REPORT: a line was not counted"] == [
        line.partition(",")[0] for line in ended.stderr.splitlines()
    ]
    assert {"updated": 5} == counts(exec_.job())


def test_a_report_may_be_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "report"

    with JobHistory(InMemoryJobRepository()).track(CONNECTION) as run, closing(Report(path, run.report)) as report:
        path.write_text('{"inserted": 100}\n{"fail')
        report.read()
        path.write_text('{"inserted": 20}\n')

    assert {"inserted": 120} == counts(run.job)


def test_the_report_is_out_of_others_sight_and_gone_with_the_command(exec_: Executions) -> None:
    ended = exec_.run("--", "sh", "-c", "stat -c %a $(dirname $JOBHISTORY_REPORT); echo $JOBHISTORY_REPORT")

    mode, path = ended.stdout.splitlines()
    assert ("700", False) == (mode, Path(path).parent.exists())


def test_counts_that_come_after_a_cancel_are_added(exec_: Executions) -> None:
    script = """trap 'echo "{\\"deleted\\": 5}" > $JOBHISTORY_REPORT; exit 1' TERM; echo ready; read line"""

    with exec_.running("--", "sh", "-c", script) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        process.wait()

    assert {"deleted": 5} == counts(exec_.job())


# ---- Singer


RECORD = b'{"type": "RECORD", "stream": "users", "record": {"id": 1}}'


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "SCHEMA", "stream": "users", "schema": {"title": "RECORD"}, "key_properties": ["id"]}',
        b'{"type": "STATE", "value": "RECORD"}',
        b'{"type": "ACTIVATE_VERSION", "stream": "RECORD", "version": 1}',
        b'"RECORD"',
        b'INFO METRIC: {"type": "RECORD"}',
        b'{"type": "RECORD", "stream": "users", "record": {"id": 1}',
        b'{"type": ["RECORD"]}',
        b'\xff"RECORD"',
        b"[" * 100_000 + b'"RECORD"',
        b"",
    ],
)
def test_of_what_a_tap_writes_its_records_are_counted(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert {"inserted": 2} == counted(singer_messages(), RECORD + b"\n", line + b"\r\n", RECORD)
    assert [] == caplog.messages


@given(
    st.lists(st.sampled_from([RECORD, b'{"type": "STATE", "value": {}}', b"noise", b""])),
    st.lists(st.integers(min_value=0, max_value=400)),
    st.sampled_from([b"", b"\n"]),
)
def test_it_makes_no_difference_in_which_pieces_a_stream_comes(lines: list[bytes], cuts: list[int], end: bytes) -> None:
    stream = b"\n".join(lines) + end
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})

    pieces = [stream[start:end] for start, end in pairwise(places)]

    records = lines.count(RECORD)
    assert ({"inserted": records} if records else {}) == counted(singer_messages(), *pieces)


def test_a_line_too_long_to_read_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 100)
    long = RECORD[:-2] + b" " * 100

    assert {"inserted": 2} == counted(singer_messages(), RECORD + b"\n" + long, long, b"}}\n" + RECORD, b"\n", long)
    assert ["a stream: a line was not counted, nor will others like it be named: it has more than 100 bytes"] == (
        caplog.messages
    )


def test_what_comes_after_the_end_of_a_stream_is_left_out() -> None:
    with JobHistory(InMemoryJobRepository()).track(CONNECTION) as run:
        counting = Counting(singer_messages(), run.report, "a stream")
        counting.close()
        counting.feed(RECORD + b"\n")

    assert {} == counts(run.job)


@pytest.fixture
def tap(request: pytest.FixtureRequest) -> Path:
    """A tap from PyPI, in an environment of its own, which is kept: it is large."""
    pinned = Path(__file__).with_name("tap-jsonl.txt")
    home = request.config.cache.mkdir(f"tap-jsonl-{zlib.crc32(pinned.read_bytes()):08x}")
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "venv" / "bin" / "tap-jsonl").exists():
            venv.create(home / "venv", clear=True)
            pip = [sys.executable, "-m", "pip", "--python", str(home / "venv"), "install", "-q", "--no-compile"]
            # What CI holds fast is for another environment.
            environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
            subprocess.run(
                [*pip, "--no-deps", "--only-binary", ":all:", "-r", str(pinned)], env=environment, check=False
            )
    return Path(needed(str(home / "venv" / "bin" / "tap-jsonl"), "PyPI could not be reached"))


def test_the_records_of_a_real_tap_are_counted_on_their_way(exec_: Executions, tap: Path) -> None:
    (exec_.folder / "users.jsonl").write_text("".join(f'{{"id": {number}}}\n' for number in range(1234)))
    config = {"path": "users.jsonl", "stream_name": "users", "primary_keys": ["id"]}
    (exec_.folder / "config.json").write_text(json.dumps(config))

    ended = exec_.run("--singer", "--", str(tap), "--config", "config.json")

    job = exec_.job()
    assert (0, (COMPLETED, None), {"inserted": 1234}) == (ended.returncode, outcome(job), counts(job)), ended.stderr
    messages = [json.loads(line) for line in ended.stdout.splitlines()]
    assert list(range(1234)) == [each["record"]["id"] for each in messages if each["type"] == "RECORD"]
    assert {"SCHEMA", "RECORD", "STATE"} == {each["type"] for each in messages}


def test_a_real_tap_that_fails_is_a_failed_job_with_its_reason(exec_: Executions, tap: Path) -> None:
    ended = exec_.run("--singer", "--", str(tap), "--config", "nowhere.json")

    assert 0 != ended.returncode
    job = exec_.job()
    assert (FAILED, f"tap-jsonl exited with {ended.returncode}") == outcome(job)
    assert "nowhere.json" in (job.error_details or {})["stderr"]


# ---- rsync


def test_what_rsync_did_is_counted(exec_: Executions) -> None:
    rsync = needed("rsync", "apt-get install rsync")
    source, target = exec_.folder / "source", exec_.folder / "target"
    (source / "folder").mkdir(parents=True)
    for number in range(1200):
        (source / "folder" / f"{number}").write_text("first")
    (source / "link").symlink_to("folder")
    copy = ("--rsync", "--", rsync, "-a", "--stats", "--delete", f"{source}/", f"{target}")

    first = exec_.run(*copy)
    for number in range(5):
        (source / "folder" / f"{number}").unlink()
    (source / "folder" / "5").write_text("longer than it was")
    (source / "folder" / "new").write_text("new")
    exec_.run(*copy)

    second_job, first_job = exec_.jobs()
    assert "Number of created files: 1,203 (reg: 1,200, dir: 2, link: 1)" in first.stdout.splitlines()
    assert {"inserted": 1203} == counts(first_job)
    assert {"inserted": 1, "updated": 1, "deleted": 5} == counts(second_job)
    assert [COMPLETED, COMPLETED] == [first_job.status, second_job.status]
    assert sorted(path.name for path in source.rglob("*")) == sorted(path.name for path in target.rglob("*"))


def test_an_rsync_that_fails_is_a_failed_job_with_its_reason(exec_: Executions) -> None:
    rsync = needed("rsync", "apt-get install rsync")

    ended = exec_.run("--rsync", "--", rsync, "-a", "--stats", "nowhere/", "target")

    job = exec_.job()
    assert (23, (FAILED, "rsync exited with 23")) == (ended.returncode, outcome(job))
    assert 'nowhere" failed: No such file or directory' in (job.error_details or {})["stderr"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # 3.4, nothing to do
        (
            ["Number of files: 3 (reg: 2, dir: 1)", "Number of created files: 0", "Number of deleted files: 0",
             "Number of regular files transferred: 0", "Total file size: 10 bytes"],
            {},
        ),
        # 3.4 where thousands have points, and a folder among what was created
        (
            ["Number of created files: 1.002 (dir: 1.002)",
             "Number of deleted files: 2.000.001 (reg: 2.000.000, dir: 1)", "Number of regular files transferred: 7"],
            {"inserted": 1002, "updated": 7, "deleted": 2_000_001},
        ),
        # 3.4 with hard links: created, and never transferred
        (
            ["Number of created files: 5 (reg: 5)", "Number of regular files transferred: 2"],
            {"inserted": 5},
        ),
        # 3.0
        (["Number of files: 4", "Number of files transferred: 3", "Total file size: 10 bytes"], {"updated": 3}),
        # two in a row
        (
            ["Number of created files: 2 (reg: 2)", "Number of regular files transferred: 3",
             "Number of created files: 0", "Number of regular files transferred: 3"],
            {"inserted": 2, "updated": 4},
        ),
        # a file's name
        (["folder/Number of created files: 5", "Number of created files: 5 of 6"], {}),
    ],
)  # fmt: skip
def test_the_statistics_of_any_rsync_are_read(lines: list[str], expected: dict[str, int]) -> None:
    assert expected == counted(rsync_stats(), "\n".join(lines).encode())


# ---- As README shows it

SHOWN = """
jobhistory exec notes --rsync -- rsync -a --stats --delete notes/ backup/
jobhistory exec users --singer -- tap-jsonl --config tap.json | target-postgres
jobhistory exec docs --exclusive --timeout 1h --meta trigger=cron -- ./sync.sh
"""
SCRIPT = """\
#!/bin/sh
set -e
cp docs/*.md index/
echo "{\\"inserted\\": $(ls docs/*.md | wc -l)}" >> "$JOBHISTORY_REPORT"
"""


def test_each_use_that_readme_shows_leaves_its_job(exec_: Executions, tap: Path) -> None:
    needed("rsync", "apt-get install rsync")
    assert SHOWN.strip() in (Path(__file__).parent.parent / "README.md").read_text()
    folder = exec_.folder
    for name in ("notes", "docs", "index", "bin"):
        (folder / name).mkdir()
    for name in ("notes/a.md", "docs/a.md", "docs/b.md"):
        (folder / name).write_text("text")
    (folder / "users.jsonl").write_text('{"id": 1}\n{"id": 2}\n{"id": 3}\n')
    (folder / "tap.json").write_text('{"path": "users.jsonl", "stream_name": "users", "primary_keys": ["id"]}')
    for path, script in (("sync.sh", SCRIPT), ("bin/target-postgres", "#!/bin/sh\nexec cat > received\n")):
        (folder / path).write_text(script)
        (folder / path).chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), str(tap.parent), os.environ["PATH"]])

    subprocess.run(
        ["/bin/bash", "-e", "-o", "pipefail", "-c", SHOWN],
        cwd=folder,
        env=os.environ | {"PATH": path, "JOBHISTORY_URL": exec_.url},
        check=True,
    )

    with exec_.history() as history:
        jobs = {each.name: history.list_jobs(each.id) for each in history.connections()}
    told = {name: [(job.status, counts(job)) for job in of_it] for name, of_it in jobs.items()}
    assert {
        "notes": [(COMPLETED, {"inserted": 2})],
        "users": [(COMPLETED, {"inserted": 3})],
        "docs": [(COMPLETED, {"inserted": 2})],
    } == told
    assert "cron" == (jobs["docs"][0].metadata or {})["trigger"]
    assert 3 == (folder / "received").read_text().count('"RECORD"')
