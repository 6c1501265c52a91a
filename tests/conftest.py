"""How Hypothesis runs here, and what tests of workers begin with."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from jobhistory import JobHistory, JobRepository
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository
from tests.postgres import Database, shared_server
from tests.workers import CONNECTION, Time

# No example is judged by its time, and CI repeats the same examples. HYPOTHESIS_EXAMPLES asks for more of them.
examples = int(os.environ.get("HYPOTHESIS_EXAMPLES", "50"))
settings.register_profile("local", deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# Hundreds of processes import the package: it is compiled once, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# To wait for a disk takes longer than most tests do, and none asks what it holds: their folders are in memory, where
# there is room to spare and programs may be run. PYTEST_DEBUG_TEMPROOT names another place.
_MEMORY = Path("/dev/shm")  # noqa: S108  pytest makes a folder of its own in it
if (
    os.access(_MEMORY, os.W_OK)
    and shutil.disk_usage(_MEMORY).free > 2**30
    and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# A shell that runs the tests in the background ignores these, and all that is started inherits that.
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


# Its packages clash with those of [test]: .ci/run makes an environment for it, where nothing is left out.
collect_ignore = ["integrations/apart"]


def pytest_report_header() -> str:
    return "left out: tests/integrations/apart (dlt, Singer, APScheduler, Celery), which has its environment in .ci/run"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database on the one server that all processes of this run share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with shared_server(folder) as server, closing(Database(server)) as database:
        yield database


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobRepository]:
    """One of each backend, which knows CONNECTION."""
    repository: JobRepository
    match request.param:
        case "memory":
            repository = InMemoryJobRepository()
        case "sqlite":
            repository = SQLiteJobRepository(tmp_path / "history.db", durability="relaxed")
        case _:
            repository = request.getfixturevalue("postgres").empty()
    repository.register(CONNECTION)
    yield repository
    repository.close()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def history(repository: JobRepository, time: Time) -> JobHistory:
    return time.history(repository)


@pytest.fixture
def memory(time: Time) -> JobHistory:
    """Where it is the same for every backend."""
    return time.history(InMemoryJobRepository())


@pytest.fixture
def outer() -> Iterator[list[int]]:
    """What SIGTERM does around the test: it is written down."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    yield received
    signal.signal(signal.SIGTERM, before)
