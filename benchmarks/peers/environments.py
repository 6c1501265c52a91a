"""Where each peer runs: in this environment, or in one of its own, made on demand."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

PINS = {
    "dagster": ("dagster==1.13.29", "sqlalchemy==2.1.9", "alembic==1.20.1"),
    "mlflow": ("mlflow-skinny==3.17.2", "sqlalchemy==2.1.9", "alembic==1.20.1", "pandas==3.1.1"),
    "meltano": ("meltano==4.4.1", "sqlalchemy==2.0.58", "alembic==1.20.1"),
    "pgqueuer": ("pgqueuer==1.6.0", "asyncpg==0.32.0"),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary]==3.3.9"),
}
"""What is installed for the peers that clash with each other; the others come with `jobhistory[bench]`."""


def interpreter(peer: str, folder: Path) -> str:
    """The Python that runs this peer. An environment is kept in the folder for as long as its pins stay the same."""
    pins = PINS.get(peer)
    if pins is None:
        return sys.executable
    key = hashlib.sha256(repr((sys.version, pins)).encode()).hexdigest()[:8]
    home = folder / f"{peer}-{key}"
    python = home / "bin" / "python"
    if not home.exists():
        part = home.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        print(f"{peer}: installing {', '.join(pins)} into {home}", file=sys.stderr, flush=True)
        venv.create(part, with_pip=True)
        subprocess.run([part / "bin" / "python", "-m", "pip", "install", "-q", *pins], check=True)
        part.rename(home)
    return str(python)
