"""README runs: its Python in one go, its shell lines after it, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
LINES_AT_MOST = 500


def python(code: str, folder: Path) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_tour_runs_and_prints_what_its_comments_say(tmp_path: Path) -> None:
    tour = [code for code in PYTHON if "testing" not in code and "def test_" not in code]

    printed = python("\n".join(tour), tmp_path)

    promised = re.findall(r"^# (.*)$", "\n".join(tour), re.MULTILINE)
    assert promised == printed.splitlines()


def test_the_worker_takes_the_job_that_waited_longest_of_more_than_a_page(tmp_path: Path) -> None:
    check = """
taken = []
work_off_the_queue(lambda run: taken.append(run.job.id))
assert taken == jobs
"""
    python(worker_of(120) + check, tmp_path)


def test_the_worker_that_gets_sigterm_cancels_its_job_and_leaves_the_others(tmp_path: Path) -> None:
    check = """
import signal
try:
    work_off_the_queue(lambda run: signal.raise_signal(signal.SIGTERM))
except SystemExit as error:
    assert error.code == 0
assert [history.get(id).status for id in jobs] == ["CANCELLED", "PENDING"]
"""
    python(worker_of(2) + check, tmp_path)


def worker_of(number: int) -> str:
    """The worker's functions, behind a history of so many jobs that wait."""
    [worker] = [code for code in PYTHON if "def work_off_the_queue" in code]
    functions = worker[: worker.index("\n\nhistory.enqueue")].replace("limit=1000", "limit=50")
    return f"""
import jobhistory
history = jobhistory.open("memory:")
jobs = [history.enqueue("550e8400-e29b-41d4-a716-446655440000").id for _ in range({number})]
{functions}"""


def test_a_pipeline_that_is_one_command_fails_where_its_target_does(tmp_path: Path) -> None:
    [form] = re.findall(r"`-- (bash -o pipefail -c '.*')`", README)
    (tmp_path / "tap-jsonl").write_text("#!/bin/sh\necho '{}'\n")
    (tmp_path / "target-postgres").write_text("#!/bin/sh\ncat > /dev/null\nexit 3\n")
    for program in ("tap-jsonl", "target-postgres"):
        (tmp_path / program).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    exec_ = f"{sys.executable} -m jobhistory.cli --db history.db exec users --"

    run = subprocess.run(
        ["/bin/sh", "-c", f"{exec_} {form}"], cwd=tmp_path, env=os.environ | {"PATH": path}, check=False
    )

    assert 3 == run.returncode


def test_the_shell_lines_run_after_the_tour(tmp_path: Path) -> None:
    test_the_tour_runs_and_prints_what_its_comments_say(tmp_path)
    lines = re.findall(r"^\$ (.*)$", "".join(CONSOLE), re.MULTILINE)
    assert lines
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    for line in lines:
        run = subprocess.run(
            ["/bin/bash", "-c", line],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PATH": path},
        )
        assert run.returncode == 0, f"{line}: {run.stderr}"


def test_the_contract_is_applied_in_the_lines_shown(tmp_path: Path) -> None:
    [lines] = [code for code in PYTHON if "JobRepositoryContract" in code]
    module = "from jobhistory.storage.memory import InMemoryJobRepository as MyRepository\n" + lines
    (tmp_path / "test_mine.py").write_text(module)

    collected = python("import pytest; pytest.main(['-q', '--co', 'test_mine.py', '-p', 'no:cacheprovider'])", tmp_path)

    assert len(re.findall("TestMyRepository", collected)) > 50


def test_a_consumers_test_passes_as_shown(tmp_path: Path) -> None:
    [lines] = [code for code in PYTHON if "def test_" in code]
    module = textwrap.dedent("""
        MY_SOURCE = "550e8400-e29b-41d4-a716-446655440000"


        def my_sync(history):
            with history.track(MY_SOURCE) as run:
                run.report(inserted=3)


    """)
    (tmp_path / "test_consumer.py").write_text(module + lines)

    printed = python("import pytest; pytest.main(['-q', 'test_consumer.py', '-p', 'no:cacheprovider'])", tmp_path)

    assert "1 passed" in printed


def test_it_stays_short() -> None:
    assert len(README.splitlines()) <= LINES_AT_MOST
