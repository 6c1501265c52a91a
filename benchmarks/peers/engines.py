"""What the peers on SQLAlchemy share: how durable their writes are, and what SQLite says of that."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from benchmarks.peers.peer import SYNCHRONOUS, Durability


def set_durability(durability: Durability) -> None:
    """Let every connection that any engine opens from now on write with this durability."""

    def connected(connection: Any, _: object) -> None:  # noqa: ANN401  a connection of the driver
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")

    if durability != "full":  # which SQLite is, untold: a peer that connects each time pays for no more than its own
        event.listen(Engine, "connect", connected)


def write_ahead(engine: Any) -> None:  # noqa: ANN401  an engine
    """Keep a write-ahead log; the file remembers it."""
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def read_pragma(engine: Any, name: str) -> object:  # noqa: ANN401  an engine
    """The setting, as one of the engine's connections has it."""
    with engine.connect() as connection:
        value: object = connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        return value
