"""A peer in its process, as seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from benchmarks.peers.environments import interpreter

ROOT = Path(__file__).parents[2]
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_LOGGING_LEVEL": "ERROR"}


class PeerProcess:
    """A peer that answers one request at a time, until the block is left.

    Args:
        name: a peer's name.
        environments: where environments of their own are kept.
        arguments: the rest of what the child takes.
        child: the module that runs there.
    """

    def __init__(
        self, name: str, environments: Path, *arguments: str | Path, child: str = "benchmarks.peers.child"
    ) -> None:
        self.name = name
        command = [interpreter(name, environments), "-m", child, name, *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._replies = cast("IO[str]", self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process; what is still asked of it is not waited for."""
        if error is not None:
            self._process.kill()
        self._process.communicate()

    def ask(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
        """The answer. Raises ChildProcessError where the peer ended instead; it has said why on stderr."""
        line = ""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._replies.readline()
        if not line:
            message = f"the peer {self.name} ended; see above (its modules come with `pip install 'jobhistory[bench]'`)"
            raise ChildProcessError(message)
        answer: dict[str, Any] = json.loads(line)
        return answer
