from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import jobhistory
from jobhistory.history import JobHistory
from tests.cli.command_line import CommandLine


@pytest.fixture(autouse=True)
def _nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests out of the user's data folder, and the user's settings out of the tests."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("JOBHISTORY_URL", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(str(tmp_path / "history.db"), monkeypatch)


@pytest.fixture
def history(cli: CommandLine) -> Iterator[JobHistory]:
    """The history that `cli` works on."""
    with closing(jobhistory.open(cli.url)) as opened:
        yield opened
