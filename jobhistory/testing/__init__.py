"""The testing kit: check a backend, or code that uses jobhistory. Needs `pip install 'jobhistory[testing]'`.

A backend passes the whole contract, or fails a test whose name is the rule that it breaks:

    from jobhistory.testing import JobRepositoryContract

    class TestMyRepository(JobRepositoryContract):
        def make_repository(self) -> MyRepository:
            return MyRepository()

Code that uses jobhistory gets a history in memory, whose time moves only when told to, from the fixtures
of `jobhistory.testing.plugin`, which pytest loads by itself:

    def test_my_sync(job_history):
        my_sync(job_history)
        assert [job.status for job in job_history.list_jobs(MY_SOURCE)] == [JobStatus.COMPLETED]

`jobhistory.testing.strategies` makes jobs and histories for properties of your own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobhistory.testing import strategies
    from jobhistory.testing.contract import JobRepositoryContract
    from jobhistory.testing.stateful import JobRepositoryMachine, run_machine

__all__ = ["JobRepositoryContract", "JobRepositoryMachine", "run_machine", "strategies"]

_HOMES = {
    "JobRepositoryContract": "contract",
    "JobRepositoryMachine": "stateful",
    "run_machine": "stateful",
    "strategies": "strategies",
}


def __getattr__(name: str) -> object:
    """Load Hypothesis when it is asked for: pytest loads the plugin, and so this package, at every start."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}: pip install 'jobhistory[testing]'", name=error.name) from error
    return getattr(home, name, home)
