"""What every peer does, by whatever it has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

LIBRARY = "library"
TITLES = {
    LIBRARY: "jobhistory",
    "orm": "SQLAlchemy ORM",
    "sqlite_utils": "sqlite-utils",
    "dagster": "Dagster",
    "mlflow": "MLflow",
    "meltano": "Meltano",
    "pgqueuer": "PgQueuer",
    "procrastinate": "Procrastinate",
}
"""What each is called; the key is its module."""

Durability = Literal["full", "relaxed"]
SYNCHRONOUS = {"full": "FULL", "relaxed": "NORMAL"}
"""SQLite's setting, the same for every peer; the journal is the write-ahead log for all."""


class Peer(Protocol):
    """One way to keep the history. Its constructor takes a folder of its own, and the durability of its writes.

    Jobs come in as `SyncJob.to_dict(bookkeeping=True)` gives them, ids as text; a record goes out as whatever
    the peer's users get. A peer whose record lacks some of the fields leaves them out, and so has less to do.
    """

    def prepare(self, jobs: Sequence[dict[str, Any]]) -> None:
        """Store a history at once, by the fastest way there is; not timed."""

    def insert(self, connection: str) -> str:
        """Store a new job of the connection, which did not start yet where there is such a state; gives its id."""

    def transition(self, id: str) -> None:
        """Move a job that was inserted on to its next status."""

    def newest(self, connection: str, limit: int) -> Sequence[object]:
        """The newest jobs of one connection, newest first."""

    def get(self, id: str) -> object:
        """One job."""

    def latest(self, connections: Sequence[str]) -> Sequence[object]:
        """The newest job of each connection; in one query where the peer has one."""

    def id_of(self, record: Any) -> str:  # noqa: ANN401  the peer's own
        """The id of a record that came out."""

    def pragma(self, name: str) -> object:
        """A setting of SQLite's, as its own connections have it."""
