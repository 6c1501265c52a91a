"""For an environment of its own, with `.[test-integrations]`, where tests/conftest.py has not what it needs:

python -m pytest --confcutdir tests/integrations/apart tests/integrations/apart
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobhistory
from jobhistory import JobHistory

# As tests/conftest.py has it: a shell starts what it runs in the background with this one ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "history.db")


@pytest.fixture
def history(url: str) -> Iterator[JobHistory]:
    with jobhistory.open(url) as history:
        yield history
