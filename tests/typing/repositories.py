"""Checked by mypy, run by nobody: every backend fits the port, though none subclasses it."""

from __future__ import annotations

from jobhistory.repository import JobRepository
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.storage.postgres import PostgresJobRepository
from jobhistory.storage.sqlite import SQLiteJobRepository

_in_memory: type[JobRepository] = InMemoryJobRepository
_in_postgres: type[JobRepository] = PostgresJobRepository
_in_sqlite: type[JobRepository] = SQLiteJobRepository
