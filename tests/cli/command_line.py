from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import threading
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from jobhistory.cli.app import app


@attrs.frozen
class CommandLine:
    """Runs `jobhistory --db url …` in this process, its output piped or on a terminal that is really one."""

    url: str
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *words: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner(catch_exceptions=False).invoke(app, ["--db", self.url, *words], input=stdin)

    def on_terminal(self, *words: str, columns: int = 200, term: str = "xterm-256color") -> str:
        """What a terminal of this width gets, escapes and all."""
        self.monkeypatch.setenv("TERM", term)
        self.monkeypatch.setenv("COLUMNS", str(columns))
        received = bytearray()
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, columns))

        def read() -> None:
            # On Linux the end of a terminal is EIO.
            try:
                while chunk := os.read(ours, 65536):
                    received.extend(chunk)
            except OSError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with os.fdopen(theirs, "w", encoding="utf-8") as screen, self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            patch.setattr(sys, "stderr", screen)
            with pytest.raises(SystemExit):
                app(["--db", self.url, *words], prog_name="jobhistory")
        reader.join()
        os.close(ours)
        return received.decode().replace("\r\n", "\n")


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401  those of subprocess.run
    """Run `jobhistory` as a process of its own."""
    command = [sys.executable, "-m", "jobhistory.cli", *words]
    return subprocess.run(command, text=True, check=False, **{"capture_output": True, **options})
