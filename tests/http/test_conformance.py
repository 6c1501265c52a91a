"""Every answer is what the OpenAPI document says; and the file is read by another tool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jobhistory
from jobhistory.history import JobHistory
from jobhistory.http import create_app
from jobhistory.http.metrics import create_metrics_router
from jobhistory.http.schema import COMPLETED, FAILED
from jobhistory.job import SyncJob
from tests.http.serving import DOCS, KEY, TOKENS, Stage

TOOLS = Path(sys.executable).parent
# What an opaque text must hold no schema can say: any other one is refused.
SETTINGS = """
[[operations]]
include-operation-id = ["listJobs", "followJobs"]

[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "5xx"]
"""


def conforms(stage: Stage, history: JobHistory, folder: Path, *words: str) -> None:
    history.add_many(map(SyncJob.from_dict, (COMPLETED, FAILED)))
    app = create_app(history, TOKENS)
    app.include_router(create_metrics_router(history, TOKENS.opens_all, is_key=TOKENS))
    app.state.feed.end()  # a stream ends when it has begun
    (folder / "schemathesis.toml").write_text(SETTINGS)
    with stage.serving(app):
        tested = subprocess.run(
            [
                TOOLS / "schemathesis",
                "run",
                f"{stage.url}/openapi.json",
                *("--checks", "all", "--header", f"Authorization: Bearer {KEY}", "--continue-on-failure", "--no-color"),
                *("--suppress-health-check", "too_slow"),  # says how busy the machine is
                *words,
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        )
    assert 0 == tested.returncode, tested.stdout + tested.stderr
    assert "8 selected / 8 total" in tested.stdout


def test_every_answer_conforms_to_the_document(stage: Stage, history: JobHistory, tmp_path: Path) -> None:
    conforms(stage, history, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "5", "--seed", "1")


@pytest.mark.slow
def test_every_answer_conforms_to_the_document_however_long_it_is_asked(
    stage: Stage, history: JobHistory, tmp_path: Path
) -> None:
    conforms(stage, history, tmp_path, "--max-examples", "1000")


def test_datasette_opens_the_file_and_shows_the_view(tmp_path: Path) -> None:
    with jobhistory.open(tmp_path / "history.db") as history:
        history.register(DOCS, "docs")
        history.add_many([SyncJob.from_dict(FAILED)])
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    got = subprocess.run(
        [
            sys.executable,
            "-m",
            "datasette",
            "serve",
            str(tmp_path / "history.db"),
            "--get",
            "/history/sync_jobs.json?_shape=array",
        ],
        capture_output=True,
        text=True,
        check=False,
        env=unmeasured,
    )

    assert 0 == got.returncode, got.stderr
    [row] = json.loads(got.stdout)
    assert (FAILED["id"], "docs", "FAILED", FAILED["error"]) == tuple(
        row[name] for name in ("id", "source_connection", "status", "error")
    )
