"""The rules of register, connections and forget."""

from __future__ import annotations

from contextlib import closing
from uuid import UUID

import pytest

from jobhistory.errors import (
    ActiveJobExistsError,
    InvalidJobError,
    JobNotFoundError,
    NameTakenError,
    SourceConnectionNotFoundError,
)
from jobhistory.repository import JobRepository, SourceConnection
from jobhistory.status import JobStatus
from jobhistory.testing.rules.base import CONNECTION, OTHER, UNKNOWN, Rules, add, announced, job, snapshot
from jobhistory.testing.stateful import answer


class ConnectionRules(Rules):
    """A source connection is known once, keeps its name and its jobs, and goes only when none is active."""

    def test_a_new_repository_is_empty(self) -> None:
        """make_repository gives a repository without connections, jobs and changes."""
        with closing(self.make_repository()) as repository:
            assert ([], {}, [], []) == (
                repository.connections(),
                repository.newest_jobs(),
                repository.active_jobs(),
                repository.changes(),
            )

    def test_registering_again_keeps_the_name_and_the_jobs(self, repository: JobRepository) -> None:
        """Register is idempotent: without a name it keeps the one there is, and never touches the jobs."""
        kept = add(repository, job(1))
        named = SourceConnection(CONNECTION, "crm")
        assert named == repository.register(CONNECTION, "crm")
        assert named == repository.register(CONNECTION)
        assert named == repository.register(CONNECTION, "crm")
        assert named in repository.connections()
        assert kept == repository.list_jobs(CONNECTION)

    def test_another_name_renames(self, repository: JobRepository) -> None:
        """Register with another name renames the connection."""
        repository.register(CONNECTION, "crm")
        assert SourceConnection(CONNECTION, "sales") == repository.register(CONNECTION, "sales")
        assert SourceConnection(CONNECTION, "sales") in repository.connections()

    def test_a_name_is_kept_as_plain_text(self, repository: JobRepository) -> None:
        """A name of a subclass of str, such as an enum's, is its text."""
        registered = repository.register(CONNECTION, JobStatus.RUNNING)
        names = [registered.name, *(known.name for known in repository.connections() if known.id == CONNECTION)]
        assert [("RUNNING", str)] * 2 == [(name, type(name)) for name in names]

    def test_a_taken_name_is_refused(self, repository: JobRepository) -> None:
        """A name belongs to one connection: NameTakenError says whose it is, and nothing changes."""
        repository.register(CONNECTION, "crm")
        repository.register(OTHER, "shop")
        before = snapshot(repository)
        for late in (OTHER, UNKNOWN):
            with pytest.raises(NameTakenError) as refused:
                repository.register(late, "crm")
            assert ("crm", CONNECTION) == (refused.value.name, refused.value.source_connection_id)
        assert before == snapshot(repository)

    def test_a_name_given_up_can_be_taken(self, repository: JobRepository) -> None:
        """A name is free again once its connection is renamed or forgotten."""
        repository.register(CONNECTION, "crm")
        repository.register(CONNECTION, "sales")
        assert SourceConnection(OTHER, "crm") == repository.register(OTHER, "crm")
        repository.forget(OTHER)
        assert SourceConnection(CONNECTION, "crm") == repository.register(CONNECTION, "crm")

    def test_names_are_compared_to_the_character(self, repository: JobRepository) -> None:
        """Names that differ in case, in a space or in how an accent is written are different names."""
        names = ["Cafe", "cafe", "cafe ", "caf\xe9", "cafe\u0301", "CAF\xc9", "ca%e"]
        named = [SourceConnection(UUID(int=number), name) for number, name in enumerate(names)]
        assert named == [repository.register(connection.id, connection.name) for connection in named]
        assert named == repository.connections()[: len(named)]

    def test_a_name_that_cannot_be_stored_is_refused(self, repository: JobRepository) -> None:
        """A name is printable text and not empty, of at most 16 KiB: else InvalidJobError, and nothing changes."""
        before = snapshot(repository)
        bad: list[object] = ["", "a\0b", "\ud800", "line\nfeed", "\x1b[2J", "\U0001f680" * 4097, 5, b"crm", True]
        answers = {repr(name): answer(repository.register, CONNECTION, name) for name in bad}
        assert dict.fromkeys(answers, InvalidJobError) == answers
        assert before == snapshot(repository)

    def test_connections_stand_in_the_order_of_their_ids(self, repository: JobRepository) -> None:
        """connections() gives all of them, in the order of their ids as unsigned big-endian numbers."""
        ids = [UUID(int=number) for number in (0, 1, 1 << 64, 1 << 96, (1 << 127) - 1, 1 << 127, (1 << 128) - 1)]
        for id in (ids[3], ids[6], ids[0], ids[5], ids[2], ids[4], ids[1]):
            repository.register(id)
        assert sorted([*ids, CONNECTION, OTHER]) == [connection.id for connection in repository.connections()]

    def test_forgetting_drops_a_connection_and_its_jobs(self, repository: JobRepository) -> None:
        """After forget the connection, its jobs and their changes are gone, and others' are untouched."""
        repository.register(CONNECTION, "crm")
        dropped = add(repository, job(1, JobStatus.COMPLETED), job(2, JobStatus.FAILED))
        kept = add(repository, job(3, source_connection_id=OTHER), job(4, JobStatus.FAILED, source_connection_id=OTHER))
        repository.forget(CONNECTION)
        assert [OTHER] == [connection.id for connection in repository.connections()]
        assert SourceConnectionNotFoundError is answer(repository.list_jobs, CONNECTION)
        assert [JobNotFoundError] * 2 == [answer(repository.get, gone.id) for gone in dropped]
        assert {OTHER: kept[::-1]} == repository.newest_jobs(per_connection=9)
        assert kept == announced(repository)

    def test_forgetting_needs_a_known_connection(self, repository: JobRepository) -> None:
        """Forgetting an unknown connection raises SourceConnectionNotFoundError, and nothing changes."""
        before = snapshot(repository)
        with pytest.raises(SourceConnectionNotFoundError) as refused:
            repository.forget(UNKNOWN)
        assert UNKNOWN == refused.value.source_connection_id
        assert before == snapshot(repository)

    def test_forgetting_is_refused_while_a_job_is_active(self, repository: JobRepository) -> None:
        """While a job is active forget raises ActiveJobExistsError, which names it, and drops nothing."""
        add(repository, job(1, JobStatus.COMPLETED), job(2, source_connection_id=OTHER))
        for number, status in enumerate((JobStatus.PENDING, JobStatus.RUNNING, JobStatus.CANCELLING), start=10):
            active = job(number, status)
            repository.add(active)
            before = snapshot(repository)
            with pytest.raises(ActiveJobExistsError) as refused:
                repository.forget(CONNECTION)
            assert (CONNECTION, active.id) == (refused.value.source_connection_id, refused.value.job_id)
            assert before == snapshot(repository)
            _finish(repository, active.id)
        repository.forget(CONNECTION)
        assert [OTHER] == [connection.id for connection in repository.connections()]

    def test_a_forgotten_connection_starts_anew(self, repository: JobRepository) -> None:
        """Registered again, a forgotten connection has no name and no jobs, and may have the same jobs added."""
        repository.register(CONNECTION, "crm")
        again = add(repository, job(1, JobStatus.COMPLETED))
        repository.forget(CONNECTION)
        assert SourceConnection(CONNECTION) == repository.register(CONNECTION)
        assert [] == repository.list_jobs(CONNECTION)
        assert again == add(repository, *again)
        assert again == repository.list_jobs(CONNECTION)


def _finish(repository: JobRepository, id: UUID) -> None:
    """End the job by the shortest way there is."""
    active = repository.get(id)
    repository.replace(active.fail(at=active.created_at, error="ended"))
