"""Repositories with one believable fault each: the one in memory, but for what its docstring says."""

from __future__ import annotations

from tests.broken import adding, connections, feed, reading, replacing, values
from tests.broken.base import FAULTS, STORIES, Fault

__all__ = ["FAULTS", "STORIES", "Fault", "adding", "connections", "feed", "reading", "replacing", "values"]
