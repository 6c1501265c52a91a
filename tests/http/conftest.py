from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from jobhistory.history import JobHistory
from tests.http.serving import DOCS, OTHERS, Stage, running


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    stage = Stage()
    with running(stage) as stage.url:
        yield stage


@pytest.fixture
def history(memory: JobHistory) -> JobHistory:
    """A history with two connections, the first of them named."""
    memory.register(DOCS, "docs")
    memory.register(OTHERS)
    return memory


@pytest.fixture
def client(stage: Stage, history: JobHistory) -> Iterator[httpx2.Client]:
    """A client of its server, with the key to all."""
    with stage.serving_history(history) as client:
        yield client
