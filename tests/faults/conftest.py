"""The seed and the size of each campaign, and a folder on which a sync costs nothing."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """FAULTS_SEED, else a new one; CI repeats the same. Shown with a failure, and by -s."""
    given = os.environ.get("FAULTS_SEED") or ("0" if os.environ.get("CI") else secrets.randbits(32))
    print(f"\n{request.node.name}: FAULTS_SEED={given}")
    return int(given)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is such a place: what survives a process, or what a disk holds, is not asked of it."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of its own is made in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="jobhistory-") as name:
        yield Path(name)
