"""Checked by mypy, run by nobody: every backend fits the port and the abilities it has, though none subclasses them."""

from __future__ import annotations

from jobhistory.abilities import BacksUp, Checks, ListsAsJSON, ReclaimsSpace, WaitsForChanges
from jobhistory.repository import JobRepository
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository

_in_memory: type[JobRepository] = InMemoryJobRepository
_in_postgres: type[JobRepository] = PostgresJobRepository
_in_sqlite: type[JobRepository] = SQLiteJobRepository

_backs_up: type[BacksUp] = SQLiteJobRepository
_checks: type[Checks] = SQLiteJobRepository
_lists_as_json: type[ListsAsJSON] = SQLiteJobRepository
_reclaims_space: type[ReclaimsSpace] = SQLiteJobRepository
_waits_in_memory: type[WaitsForChanges] = InMemoryJobRepository
_waits_in_sqlite: type[WaitsForChanges] = SQLiteJobRepository
