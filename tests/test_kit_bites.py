from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import Phase, settings

from jobhistory.abilities import WaitsForChanges
from jobhistory.errors import JobHistoryError
from jobhistory.repository import JobRepository
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import JobRepositoryContract, run_machine
from jobhistory.testing.rules import feed
from jobhistory.testing.rules.feed import WaitRules
from tests.broken import FAULTS, STORIES, Fault

RULES = [name for name in dir(JobRepositoryContract) if name.startswith("test_")]

# How a test of the kit fails; an accident in a fault is none.
TOLD = (AssertionError, JobHistoryError, pytest.fail.Exception)

# A race may be missed once.
TRIES = 4


@pytest.fixture(autouse=True)
def _repeatable_and_unshrunk() -> Iterator[None]:
    """To see a fault is enough here: the same examples each time, and no search for the shortest."""
    active = settings.get_current_profile_name()
    settings.register_profile("bites", settings(), derandomize=True, database=None, phases=[Phase.generate])
    settings.load_profile("bites")
    yield
    settings.load_profile(active)


def hold(rule: str, make: Callable[[], JobRepository]) -> None:
    """Run one test of the contract as pytest would."""

    class Contract(JobRepositoryContract):
        def make_repository(self) -> JobRepository:
            return make()

    contract = Contract()
    test = getattr(contract, rule)
    wants = "repository" in inspect.signature(test).parameters
    with contract.opened() if wants else nullcontext() as repository:
        test(repository) if wants else test()


def hold_often(rule: str, make: Callable[[], JobRepository]) -> None:
    for _ in range(TRIES):
        hold(rule, make)


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_repository_passes(rule: str) -> None:
    hold(rule, InMemoryJobRepository)


class Unable(InMemoryJobRepository):
    """It lacks what WaitsForChanges asks for."""

    wait_for_changes: Any = None


@pytest.mark.parametrize("rule", [name for name in dir(WaitRules) if name.startswith("test_")])
def test_a_repository_without_an_optional_ability_passes(rule: str) -> None:
    assert not isinstance(Unable(), WaitsForChanges)
    hold(rule, Unable)


class LetsNobodyGo(InMemoryJobRepository):
    """Closing forgets who waits."""

    def __init__(self) -> None:
        super().__init__()
        self.somebody_waits = threading.Event()

    def wait_for_changes(self, after: str | None, timeout: float) -> bool:
        del after
        self.somebody_waits.set()
        return threading.Event().wait(timeout)

    def close(self) -> None:
        assert self.somebody_waits.wait(60)
        super().close()


def test_a_wait_that_closing_does_not_end_is_told_and_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_PATIENCE", 0.1)
    with pytest.raises(AssertionError, match="still waiting"):
        hold("test_closing_ends_the_wait", LetsNobodyGo)


@pytest.mark.parametrize(("fault", "rule"), [(fault, rule) for fault, rules in FAULTS.items() for rule in rules])
def test_a_fault_is_caught_by_its_rule(fault: Fault, rule: str) -> None:
    with pytest.raises(TOLD) as caught:
        hold_often(rule, fault)
    assert f"The rule: {getattr(JobRepositoryContract, rule).__doc__}" in caught.value.__notes__


@pytest.mark.parametrize("fault", STORIES)
def test_a_fault_is_caught_by_a_story(fault: Fault) -> None:
    with pytest.raises(TOLD):
        run_machine(fault, max_examples=1000, stateful_step_count=40)


def test_each_rule_has_caught_a_fault() -> None:
    assert set(RULES) == {rule for rules in FAULTS.values() for rule in rules}
