"""The rules of list_jobs, active_jobs and newest_jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import combinations, product
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory.abilities import JSONPage, ListsAsJSON
from jobhistory.errors import InvalidCursorError, InvalidJobError, InvalidLimitError, SourceConnectionNotFoundError
from jobhistory.job import SyncJob
from jobhistory.repository import JobRepository, Position
from jobhistory.status import ACTIVE_STATUSES, TERMINAL_STATUSES, JobStatus
from jobhistory.testing import strategies
from jobhistory.testing.rules.base import CONNECTION, MICROSECOND, NOON, OTHER, UNKNOWN, Rules, add, at, job, jobs
from jobhistory.testing.stateful import answer, patient

_FIRST = datetime.min.replace(tzinfo=UTC)
_LAST = datetime.max.replace(tzinfo=UTC)
# Ascending as unsigned big-endian numbers, and in no other reading of the bytes.
_IDS = [
    UUID(int=number) for number in (0, 1, 256, 1 << 64, 1 << 96, 1 << 120, (1 << 127) - 1, 1 << 127, (1 << 128) - 1)
]
_SHUFFLED = (4, 0, 8, 2, 6, 7, 1, 5, 3)
_LOOKALIKES: list[Any] = [0, -1, 1001, 2**63, True, False, 10.0, "10", b"10", None, [10]]


class ListRules(Rules):
    """A connection's history is read newest first, page by page, filtered or not."""

    def test_the_newest_stands_first(self, repository: JobRepository) -> None:
        """Jobs stand by created_at, descending, from year 1 to 9999 and down to the microsecond."""
        times = [_LAST, _LAST - MICROSECOND, at(1), at(0.5), NOON + MICROSECOND, NOON, NOON - MICROSECOND, _FIRST]
        history = [job(number, created_at=time) for number, time in enumerate(times)]
        add(repository, *(history[i] for i in (3, 7, 0, 5, 1, 6, 2, 4)))
        assert history == repository.list_jobs(CONNECTION)
        assert history == repository.active_jobs()
        assert history == repository.newest_jobs(per_connection=8)[CONNECTION]

    def test_ties_stand_by_id(self, repository: JobRepository) -> None:
        """Jobs of one created_at stand by id, descending, as unsigned big-endian numbers."""
        tied = [job(0, id=id) for id in _IDS]
        add(repository, *(tied[i] for i in _SHUFFLED))
        assert tied[::-1] == repository.list_jobs(CONNECTION)
        assert tied[:-4:-1] == repository.list_jobs(CONNECTION, limit=3)
        assert tied[::-1] == repository.active_jobs()
        assert tied[:-4:-1] == repository.active_jobs(limit=3)
        assert tied[:-4:-1] == repository.newest_jobs(per_connection=3)[CONNECTION]

    def test_a_page_holds_at_most_the_limit(self, repository: JobRepository) -> None:
        """A page holds the newest `limit` jobs, 1 to 1000, or 100 where none is given; all where there are fewer."""
        history = jobs(*range(1001, 0, -1))
        repository.add_many(history)
        for limit in (1, 2, 99, 100, 101, 999, 1000):
            assert history[:limit] == repository.list_jobs(CONNECTION, limit=limit)
            assert history[:limit] == repository.active_jobs(limit=limit)
            assert history[:limit] == repository.newest_jobs(per_connection=limit)[CONNECTION]
        assert history[:100] == repository.list_jobs(CONNECTION)
        assert history[:100] == repository.active_jobs()
        assert history[:1] == repository.newest_jobs()[CONNECTION]

    def test_a_limit_is_an_int_from_1_to_1000(self, repository: JobRepository) -> None:
        """Anything else raises InvalidLimitError, whatever it looks like, in every method that takes one."""
        add(repository, job(1))
        calls: dict[str, Callable[[Any], object]] = {
            "list_jobs": lambda limit: repository.list_jobs(CONNECTION, limit=limit),
            "active_jobs": lambda limit: repository.active_jobs(limit=limit),
            "newest_jobs": lambda limit: repository.newest_jobs(per_connection=limit),
            "newest_jobs of one": lambda limit: repository.newest_jobs([CONNECTION], per_connection=limit),
            "changes": lambda limit: repository.changes(limit=limit),
        }
        answers = {(name, repr(limit)): answer(call, limit) for name, call in calls.items() for limit in _LOOKALIKES}
        assert dict.fromkeys(answers, InvalidLimitError) == answers

    def test_a_page_starts_behind_the_position(self, repository: JobRepository) -> None:
        """`before` leaves out its own place and all that stands before it, ties included."""
        history = [job(0, id=id, created_at=at(-row)) for row in range(3) for id in reversed(_IDS[row::3])]
        add(repository, *history[::2], *history[1::2])
        for i, each in enumerate(history):
            assert history[i + 1 :] == repository.list_jobs(CONNECTION, before=Position.of(each))
            assert history[i + 1 : i + 3] == repository.list_jobs(CONNECTION, before=Position.of(each), limit=2)
            assert history[i + 1 :] == repository.active_jobs(before=Position.of(each))

    def test_a_position_need_not_be_a_jobs(self, repository: JobRepository) -> None:
        """Any (created_at, id) is a position: between jobs, beyond them, or where a deleted or another's job stood."""
        history = jobs(9, 7, 5, 3, 1, status=JobStatus.COMPLETED)
        add(repository, *history, job(4, source_connection_id=OTHER))
        repository.delete_many([history[1].id])
        least, greatest = _IDS[0], _IDS[-1]
        places = {
            Position(_LAST, greatest): [0, 2, 3, 4],
            Position(at(9), greatest): [0, 2, 3, 4],
            Position(at(9), least): [2, 3, 4],
            Position.of(history[1]): [2, 3, 4],
            Position(at(6), least): [2, 3, 4],
            Position.of(job(4)): [3, 4],
            Position(at(1), least): [],
            Position(_FIRST, least): [],
        }
        expected = {place: [history[i] for i in kept] for place, kept in places.items()}
        assert expected == {place: repository.list_jobs(CONNECTION, before=place) for place in places}

    def test_pages_hold_through_inserts_and_deletes(self, repository: JobRepository) -> None:
        """While jobs come and go, the pages behind a position neither skip nor repeat what stood throughout."""
        history = jobs(*range(10, 0, -1), status=JobStatus.COMPLETED)
        add(repository, *history)
        first = repository.list_jobs(CONNECTION, limit=4)
        repository.delete_many([history[1].id, first[-1].id, history[5].id])
        newer, older = add(repository, job(11), job(0))
        rest = repository.list_jobs(CONNECTION, before=Position.of(first[-1]), limit=9)
        assert history[:4] == first
        assert [history[4], *history[6:], older] == rest
        assert [newer] == repository.list_jobs(CONNECTION, limit=1)

    def test_a_position_is_a_position(self, repository: JobRepository) -> None:
        """Anything else as `before` raises InvalidCursorError, even a job or the pair itself."""
        [stored] = add(repository, job(1))
        bad: list[Any] = [stored, (stored.created_at, stored.id), stored.created_at, stored.id, "", "cursor", 0, True]
        answers = {
            (name, repr(before)): answer(call, before)
            for before in bad
            for name, call in {
                "list_jobs": lambda before: repository.list_jobs(CONNECTION, before=before),
                "active_jobs": lambda before: repository.active_jobs(before=before),
            }.items()
        }
        assert dict.fromkeys(answers, InvalidCursorError) == answers

    def test_statuses_filter(self, repository: JobRepository) -> None:
        """`statuses` keeps the jobs in any of them; None keeps all, an empty set none."""
        history = [job(-number, list(JobStatus)[number % 6]) for number in range(18)]
        add(repository, *history)
        assert history == repository.list_jobs(CONNECTION, statuses=None)
        for several in range(len(JobStatus) + 1):
            for statuses in combinations(JobStatus, several):
                expected = [each for each in history if each.status in statuses]
                assert expected == repository.list_jobs(CONNECTION, statuses=statuses)

    def test_the_filter_comes_before_the_limit(self, repository: JobRepository) -> None:
        """A filtered page is full while older jobs still match, with and without a position."""
        history = [job(-number, JobStatus.FAILED if number % 50 == 0 else JobStatus.COMPLETED) for number in range(300)]
        repository.add_many(history)
        failed, place = history[::50], Position.of(history[120])
        assert failed == repository.list_jobs(CONNECTION, statuses={JobStatus.FAILED})
        assert failed[:2] == repository.list_jobs(CONNECTION, statuses={JobStatus.FAILED}, limit=2)
        assert failed[3:5] == repository.list_jobs(CONNECTION, statuses={JobStatus.FAILED}, before=place, limit=2)

    def test_a_status_is_a_job_status(self, repository: JobRepository) -> None:
        """Anything else among the statuses raises InvalidJobError: a word, its lower case, a bare status."""
        add(repository, job(1))
        bad: list[Any] = [["PENDING"], "PENDING", JobStatus.PENDING, [None], [JobStatus.PENDING, "x"], 1, True]
        calls: dict[str, Callable[[Any], object]] = {
            "list_jobs": lambda statuses: repository.list_jobs(CONNECTION, statuses=statuses),
            "active_jobs": lambda statuses: repository.active_jobs(statuses=statuses),
        }
        answers = {(name, repr(statuses)): answer(call, statuses) for name, call in calls.items() for statuses in bad}
        assert dict.fromkeys(answers, InvalidJobError) == answers

    def test_an_unknown_connection_is_no_empty_one(self, repository: JobRepository) -> None:
        """Listing an unknown connection raises SourceConnectionNotFoundError; one without jobs gives []."""
        add(repository, job(1))
        assert [] == repository.list_jobs(OTHER)
        for statuses in (None, set(JobStatus), set[JobStatus]()):
            with pytest.raises(SourceConnectionNotFoundError) as refused:
                repository.list_jobs(UNKNOWN, statuses=statuses)
            assert UNKNOWN == refused.value.source_connection_id

    def test_a_list_holds_one_connection(self, repository: JobRepository) -> None:
        """No other connection's jobs stand in a list, even where they are tied."""
        mine = [job(0, id=id) for id in _IDS[::2]]
        others = [job(0, id=id, source_connection_id=OTHER) for id in _IDS[1::2]]
        add(repository, *mine, *others)
        assert mine[::-1] == repository.list_jobs(CONNECTION)
        assert others[::-1] == repository.list_jobs(OTHER)
        assert others[-2::-1] == repository.list_jobs(OTHER, before=Position.of(others[-1]))

    def test_the_pages_of_any_history_join_to_the_whole(self) -> None:
        """Page after page, whatever the limit and the filter, a history is read once and in order."""

        @patient(max_examples=25)
        @given(
            strategies.histories(min_size=1),
            st.integers(1, 3) | strategies.limits(),
            st.none() | st.sets(strategies.statuses(), max_size=3),
        )
        def pages_join(history: list[SyncJob], limit: int, wanted: set[JobStatus] | None) -> None:
            with self.opened() as repository:
                connection = history[0].source_connection_id
                repository.register(connection)
                repository.add_many(history)
                read: list[SyncJob] = []
                for _ in range(len(history) + 1):
                    place = Position.of(read[-1]) if read else None
                    read += repository.list_jobs(connection, limit=limit, before=place, statuses=wanted)
                whole = [each for each in history if wanted is None or each.status in wanted]
                whole.sort(key=lambda each: each.id)
                whole.sort(key=lambda each: each.created_at)
                assert whole[::-1] == read

        pages_join()


class JSONRules(Rules):
    """What can list as JSON (see ListsAsJSON) gives the same pages; what cannot passes."""

    def test_a_page_as_json_is_its_records_as_json(self, repository: JobRepository) -> None:
        """list_jobs_json gives, to the letter, the to_dict of list_jobs' records as compact JSON; or leaves it to them.

        So do the count and the last job's place; an unknown connection and a bad argument are refused alike.
        """
        if not isinstance(repository, ListsAsJSON):
            return
        texts = ["", 'a \\ "b"\n\t\x7f\u2028', "\u00e9\U0001f600 </script>", "'; DROP TABLE jobs"]
        add(repository, *(job(-n, list(JobStatus)[n % 6], id=id) for n, id in enumerate(_IDS)))
        add(
            repository,
            *(job(n, JobStatus.FAILED, error=text, error_details={text: [n]}) for n, text in enumerate(texts)),
        )
        add(repository, *jobs(7, status=JobStatus.COMPLETED, duration_seconds=0.25, entities_inserted=2**53))
        for limit, before, statuses in product(
            (1, 3, 100), (None, Position(NOON, _IDS[2])), (None, {JobStatus.FAILED})
        ):
            asked: dict[str, Any] = {"limit": limit, "before": before, "statuses": statuses}
            listed = repository.list_jobs(CONNECTION, **asked)
            page = repository.list_jobs_json(CONNECTION, **asked)
            whole = json.dumps([each.to_dict() for each in listed], ensure_ascii=False, separators=(",", ":"))
            assert page in {None, JSONPage(whole, len(listed), Position.of(listed[-1]))}
        bad: list[dict[str, Any]] = [{"limit": 0}, {"before": "cursor"}, {"statuses": ["PENDING"]}]
        asked_as = [answer(repository.list_jobs, CONNECTION, **each) for each in bad]
        assert asked_as == [answer(repository.list_jobs_json, CONNECTION, **each) for each in bad]
        assert answer(repository.list_jobs_json, UNKNOWN) in {None, SourceConnectionNotFoundError}


class ActiveRules(Rules):
    """What is not finished yet, over all connections."""

    def test_active_jobs_are_those_not_finished(self, repository: JobRepository) -> None:
        """active_jobs gives the PENDING, RUNNING and CANCELLING jobs of all connections, newest first."""
        history = [
            job(-number, status, source_connection_id=connection)
            for number, (status, connection) in enumerate(
                (status, connection) for status in JobStatus for connection in (CONNECTION, OTHER)
            )
        ]
        add(repository, *history[::2], *history[1::2])
        assert [each for each in history if each.status in ACTIVE_STATUSES] == repository.active_jobs()
        repository.replace(history[0].fail(at=NOON, error="ended"))
        assert [each for each in history[1:] if each.status in ACTIVE_STATUSES] == repository.active_jobs()

    def test_active_statuses_filter(self, repository: JobRepository) -> None:
        """`statuses` keeps the active jobs in any of them; None keeps all, an empty set none."""
        history = [job(-number, sorted(ACTIVE_STATUSES)[number % 3]) for number in range(9)]
        add(repository, *history)
        for several in range(len(ACTIVE_STATUSES) + 1):
            for statuses in combinations(sorted(ACTIVE_STATUSES), several):
                expected = [each for each in history if each.status in statuses]
                assert expected == repository.active_jobs(statuses=statuses)
                assert expected[1:2] == repository.active_jobs(statuses=statuses, limit=1, before=_behind(expected))

    def test_no_finished_status_is_active(self, repository: JobRepository) -> None:
        """Asking active_jobs for a terminal status raises InvalidJobError."""
        add(repository, *(job(number, status) for number, status in enumerate(JobStatus)))
        for status in TERMINAL_STATUSES:
            assert InvalidJobError is answer(repository.active_jobs, statuses={status})
            assert InvalidJobError is answer(repository.active_jobs, statuses=[JobStatus.RUNNING, status])

    def test_silence_is_measured_from_the_last_sign(self, repository: JobRepository) -> None:
        """silent_since keeps jobs last heard of strictly before it: by heartbeat, start or creation, the latest."""
        heard = [
            job(5),
            job(0, JobStatus.RUNNING, started_at=at(5), id=_IDS[1]),
            job(0, JobStatus.RUNNING, started_at=at(1), heartbeat_at=at(5), id=_IDS[2]),
            job(1, JobStatus.CANCELLING, started_at=at(5), heartbeat_at=at(2)),
            job(5, JobStatus.RUNNING, started_at=at(0), heartbeat_at=at(1), id=_IDS[3]),
        ]
        # Neither progress nor a request says that the worker lives.
        heard = add(repository, *(attrs.evolve(each, progress_at=at(9), cancel_requested_at=at(9)) for each in heard))
        expected = sorted(heard, key=lambda each: (each.created_at, each.id), reverse=True)
        assert [] == repository.active_jobs(silent_since=at(5))
        assert [] == repository.active_jobs(silent_since=at(5) - MICROSECOND)
        assert expected == repository.active_jobs(silent_since=at(5) + MICROSECOND)
        tomorrow_in_tokyo = (at(5) + MICROSECOND).astimezone(timezone(timedelta(hours=9)))
        assert expected == repository.active_jobs(silent_since=tomorrow_in_tokyo)
        assert [] == repository.active_jobs(silent_since=_FIRST)
        assert expected == repository.active_jobs(silent_since=_LAST)

    def test_the_silent_are_chosen_before_the_limit(self, repository: JobRepository) -> None:
        """A page of silent jobs is full while older ones are silent too, filtered by status or not."""
        silent = jobs(10, 8, 6, 4, 2, status=JobStatus.RUNNING)
        loud = [job(each, JobStatus.RUNNING, heartbeat_at=at(99)) for each in (11, 9, 7, 5, 3)]
        add(repository, *silent, *loud, *(job(-each) for each in range(3)))
        ask = partial(repository.active_jobs, silent_since=at(50))
        assert silent[:2] == ask(limit=2)
        assert silent[2:4] == ask(limit=2, before=Position.of(silent[1]))
        assert silent[1:4] == ask(limit=3, before=Position.of(loud[1]), statuses={JobStatus.RUNNING})

    def test_silent_since_is_an_aware_datetime(self, repository: JobRepository) -> None:
        """A naive datetime, a date, a number or a text as silent_since raises InvalidJobError."""
        add(repository, job(1))
        bad: list[Any] = [NOON.replace(tzinfo=None), NOON.date(), NOON.timestamp(), NOON.isoformat(), 0, True]
        answers = {repr(since): answer(repository.active_jobs, silent_since=since) for since in bad}
        assert dict.fromkeys(answers, InvalidJobError) == answers
        with pytest.raises(InvalidJobError) as refused:
            repository.active_jobs(silent_since=bad[0])
        assert "silent_since" == refused.value.field


class NewestRules(Rules):
    """The newest jobs of many connections, in one answer."""

    def test_each_connection_asked_for_is_a_key(self, repository: JobRepository) -> None:
        """newest_jobs gives each id asked for its newest jobs, [] where it has none, in the order asked."""
        repository.register(UNKNOWN)
        mine = add(repository, *jobs(3, 2, 1))
        others = add(repository, *jobs(5, 4, source_connection_id=OTHER, status=JobStatus.FAILED))
        asked = [UNKNOWN, OTHER, CONNECTION, OTHER]
        expected = [(UNKNOWN, []), (OTHER, others[:1]), (CONNECTION, mine[:1])]
        assert expected == list(repository.newest_jobs(asked).items())
        assert expected == list(repository.newest_jobs(iter(asked)).items())
        assert expected[:1] == list(repository.newest_jobs([UNKNOWN]).items())
        assert {CONNECTION: mine[:2], OTHER: others} == repository.newest_jobs([OTHER, CONNECTION], per_connection=2)
        assert {} == repository.newest_jobs([])

    def test_all_connections_stand_by_id_where_none_is_named(self, repository: JobRepository) -> None:
        """newest_jobs() gives every connection, the empty ones too, in the order of their ids."""
        for id in (_IDS[i] for i in _SHUFFLED):
            repository.register(id)
        [mine] = add(repository, job(1))
        every = sorted([*_IDS, CONNECTION, OTHER])
        assert [(id, [mine] if id == CONNECTION else []) for id in every] == list(repository.newest_jobs().items())

    def test_every_connection_asked_for_must_be_known(self, repository: JobRepository) -> None:
        """One unknown id among many raises SourceConnectionNotFoundError, which names it."""
        add(repository, job(1))
        for asked in ([UNKNOWN], [CONNECTION, UNKNOWN, OTHER]):
            with pytest.raises(SourceConnectionNotFoundError) as refused:
                repository.newest_jobs(asked)
            assert UNKNOWN == refused.value.source_connection_id

    def test_any_number_of_connections_may_be_asked_for(self, repository: JobRepository) -> None:
        """newest_jobs takes as many ids as there are."""
        [mine] = add(repository, job(1))
        assert {CONNECTION: [mine], OTHER: []} == repository.newest_jobs([CONNECTION, OTHER] * 20_000)


def _behind(jobs: list[SyncJob]) -> Position | None:
    """The position of the first, or None where there is none."""
    return Position.of(jobs[0]) if jobs else None
