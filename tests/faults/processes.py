"""A function that runs in a new process, below or above something."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PROGRAM = """
import pickle, sys
function, arguments = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(function(*arguments)))
"""


def call(
    function: Callable[..., Any],
    *arguments: object,
    above: Sequence[str] = (),
    **environment: str,
) -> Any:  # noqa: ANN401  what the function gives
    """What the module-level function gives in a new process, which the command `above` starts.

    What it raises is printed, and raises CalledProcessError here.
    """
    root = {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    run = subprocess.run(
        [*above, sys.executable, "-c", _PROGRAM],
        input=pickle.dumps((function, arguments)),
        stdout=subprocess.PIPE,
        env=os.environ | root | environment,
        check=True,
    )
    return pickle.loads(run.stdout)  # noqa: S301  our own bytes
