"""The command line, `jobhistory`. Needs `pip install 'jobhistory[cli]'`.

app.py        the group: --db, errors to one line and an exit code
database.py   where the history is, and what a word on the command line names in it
durations.py  how long: 90d, 36h, 5m
render.py     what a person sees: tables, a job's story, times; nothing that could steer a terminal
reading.py    list, show, connections
insight.py    stats, failures
watching.py   watch
acting.py     cancel, reap
pruning.py    prune
transfer.py   import, export
rows.py       what a file that is imported holds
moving.py     copy
serve.py      serve
upkeep.py     backup, check
completion.py completion
exec.py       exec
live.py       its line at the foot of the terminal
demo.py       demo
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

INTERRUPTED = 130
"""The exit code after Ctrl-C."""
_NEEDED = ("click", "platformdirs", "rich")


def main() -> None:
    """Run the command line; it ends with an exit code that `jobhistory --help` explains."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        sys.exit(f"jobhistory: the command line needs {', '.join(missing)}: pip install 'jobhistory[cli]'")
    _keep_standard_streams()
    try:
        from jobhistory.cli.app import app

        with Path(os.devnull).open("w", encoding="utf-8") as nobody:  # reads what whoever started this has closed
            sys.stdout, sys.stderr = sys.stdout or nobody, sys.stderr or nobody
            try:
                app(prog_name="jobhistory")
            finally:
                _forget_what_is_unsaid()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _forget_what_is_unsaid() -> None:
    """Drop what standard error has no room for: Python would try again at the end, and make the exit code 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _keep_standard_streams() -> None:
    """Open those that are closed: else a file or a connection takes their number, and what is meant for them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
