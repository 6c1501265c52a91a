"""The contract of JobRepository: every backend passes it, yours too.

    from jobhistory.testing import JobRepositoryContract

    class TestMyRepository(JobRepositoryContract):
        def make_repository(self) -> MyRepository:
            return MyRepository()

Each test's name is the rule it holds, and its failure says the rule in full. The rules themselves stand in
`jobhistory.testing.rules`, a file for each concern.
"""

from __future__ import annotations

from jobhistory.testing.rules.connections import ConnectionRules
from jobhistory.testing.rules.feed import FeedRules, WaitRules
from jobhistory.testing.rules.reading import ActiveRules, JSONRules, ListRules, NewestRules
from jobhistory.testing.rules.sharing import CloseRules, RaceRules
from jobhistory.testing.rules.values import ValueRules
from jobhistory.testing.rules.writing import AddRules, DeleteRules, ReplaceRules
from jobhistory.testing.stateful import run_machine


class JobRepositoryContract(
    ConnectionRules,
    AddRules,
    ReplaceRules,
    DeleteRules,
    ListRules,
    JSONRules,
    ActiveRules,
    NewestRules,
    FeedRules,
    WaitRules,
    ValueRules,
    RaceRules,
    CloseRules,
):
    """What JobRepository promises, as tests: subclass it in a test module, and supply make_repository.

    `make_repository(self)` returns a new, empty repository at each call; the tests close it. Fixtures of
    your own (a folder, a server) may set what it needs, if they are autouse. Hypothesis runs with the
    active profile, but with no deadline and few examples.
    """

    def test_any_story_is_told_as_the_oracle_tells_it(self) -> None:
        """Whatever is called in whatever order, answers, order and errors are those of a list and sorted()."""
        run_machine(self.make_repository, max_examples=10, stateful_step_count=40)
