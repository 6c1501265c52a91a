"""Checked by mypy, run by nobody: the testing kit, used as its docstrings say, type-checks."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given

from jobhistory import JobHistory, SyncJob
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import JobRepositoryContract, JobRepositoryMachine, run_machine, strategies
from jobhistory.testing.plugin import FrozenClock


class TestMyRepository(JobRepositoryContract):
    def make_repository(self) -> InMemoryJobRepository:
        return InMemoryJobRepository()


class MyMachine(JobRepositoryMachine):
    def make_repository(self) -> InMemoryJobRepository:
        return InMemoryJobRepository()


def test_my_story() -> None:
    run_machine(InMemoryJobRepository, max_examples=1000)


@given(strategies.jobs(), strategies.histories())
def test_my_property(job: SyncJob, history: list[SyncJob]) -> None: ...


def test_my_sync(job_history: JobHistory, frozen_clock: FrozenClock) -> None:
    frozen_clock.advance(5)
    job_history.enqueue(UUID(int=1))
