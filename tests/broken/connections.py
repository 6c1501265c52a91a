"""Faults of register, connections and forget."""

from __future__ import annotations

from uuid import UUID

from jobhistory.errors import JobHistoryError, NameTakenError
from jobhistory.repository import SourceConnection
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from tests.broken.base import caught_by


@caught_by("test_a_new_repository_is_empty")
class BornWithAnExample(InMemoryJobRepository):
    """A new repository knows an example connection."""

    def __init__(self) -> None:
        super().__init__()
        self.register(UUID(int=9), "example")


@caught_by("test_registering_again_keeps_the_name_and_the_jobs")
class RegisterResetsTheName(InMemoryJobRepository):
    """Registering without a name takes the name away."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        super().register(source_connection_id, name)
        self._names[source_connection_id] = name
        return SourceConnection(source_connection_id, name)


@caught_by("test_registering_again_keeps_the_name_and_the_jobs")
class RegisterReplacesTheRow(InMemoryJobRepository):
    """INSERT OR REPLACE with a cascade: registering again drops the jobs."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        self._delete(id for _, id in list(self._histories.get(source_connection_id, [])))
        return super().register(source_connection_id, name)


@caught_by("test_a_name_is_kept_as_plain_text", story=False)
class NamesAreKeptAsTheyCome(InMemoryJobRepository):
    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        super().register(source_connection_id, name)
        self._names[source_connection_id] = name or self._names[source_connection_id]
        return SourceConnection(source_connection_id, self._names[source_connection_id])


@caught_by("test_another_name_renames")
class FirstNameStays(InMemoryJobRepository):
    """A connection that has a name keeps it."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        return super().register(source_connection_id, self._names.get(source_connection_id) or name)


@caught_by("test_a_taken_name_is_refused", "test_one_connection_gets_a_name")
class NamesAreShared(InMemoryJobRepository):
    """Nobody looks whether a name is taken."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        known = super().register(source_connection_id)
        self._names[source_connection_id] = name or known.name
        return SourceConnection(source_connection_id, self._names[source_connection_id])


@caught_by("test_a_taken_name_is_refused", "test_one_connection_gets_a_name")
class NamesAreTakenOver(InMemoryJobRepository):
    """The latest to register a name has it."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        with self._open():
            self._names = {id: None if taken == name else taken for id, taken in self._names.items()}
        return super().register(source_connection_id, name)


@caught_by("test_a_name_given_up_can_be_taken")
class NamesAreHeldForEver(InMemoryJobRepository):
    """A name that was ever used is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.used: dict[str | None, UUID] = {}

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        if name and self.used.setdefault(name, source_connection_id) != source_connection_id:
            raise NameTakenError(name, self.used[name])
        return super().register(source_connection_id, name)


@caught_by("test_names_are_compared_to_the_character")
class NamesWithoutCase(InMemoryJobRepository):
    """COLLATE NOCASE: names that differ in case are one name."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        for other, taken in self._names.items():
            if name and taken and name.casefold() == taken.casefold() and other != source_connection_id:
                raise NameTakenError(name, other)
        return super().register(source_connection_id, name)


@caught_by("test_a_name_that_cannot_be_stored_is_refused", story=False)
class NamesUnchecked(InMemoryJobRepository):
    """Any name will do."""

    def register(self, source_connection_id: UUID, name: str | None = None) -> SourceConnection:
        known = super().register(source_connection_id)
        self._names[source_connection_id] = known.name if name is None else name
        return SourceConnection(source_connection_id, self._names[source_connection_id])


@caught_by("test_connections_stand_in_the_order_of_their_ids")
class ConnectionsAsTheyCame(InMemoryJobRepository):
    """connections() keeps the order of registration."""

    def connections(self) -> list[SourceConnection]:
        return [SourceConnection(id, name) for id, name in self._names.items()]


@caught_by("test_forgetting_drops_a_connection_and_its_jobs", "test_a_forgotten_connection_starts_anew")
class ForgetLeavesTheJobs(InMemoryJobRepository):
    """forget drops the connection alone."""

    def forget(self, source_connection_id: UUID) -> None:
        jobs, numbers = dict(self._jobs), dict(self._feed._number_of)
        super().forget(source_connection_id)
        self._jobs, self._feed._number_of = jobs, numbers


@caught_by("test_forgetting_needs_a_known_connection")
class ForgetIsNeverRefused(InMemoryJobRepository):
    """Forgetting an unknown connection is a success."""

    def forget(self, source_connection_id: UUID) -> None:
        if source_connection_id in self._names:
            super().forget(source_connection_id)


@caught_by("test_forgetting_is_refused_while_a_job_is_active")
class ForgetDropsWaitingJobs(InMemoryJobRepository):
    """forget takes a PENDING job for one that is not active yet."""

    def forget(self, source_connection_id: UUID) -> None:
        active = list(self._active)
        jobs = {key: self._jobs[key[1]] for key in active}
        self._active = [
            key
            for key, job in jobs.items()
            if job.source_connection_id != source_connection_id or job.status is not JobStatus.PENDING
        ]
        try:
            super().forget(source_connection_id)
        except JobHistoryError:
            self._active = active
            raise


@caught_by("test_forgetting_is_refused_while_a_job_is_active")
class ForgetDropsWhatItCan(InMemoryJobRepository):
    """A refused forget has deleted the finished jobs already."""

    def forget(self, source_connection_id: UUID) -> None:
        self.delete_many([id for _, id in self._histories.get(source_connection_id, [])])
        super().forget(source_connection_id)


@caught_by("test_a_forgotten_connection_starts_anew")
class ForgottenNamesComeBack(InMemoryJobRepository):
    """A connection that returns has its old name."""

    def forget(self, source_connection_id: UUID) -> None:
        name = self._names.get(source_connection_id)
        super().forget(source_connection_id)
        self._names[source_connection_id] = name

    def connections(self) -> list[SourceConnection]:
        return [connection for connection in super().connections() if connection.id in self._histories]
