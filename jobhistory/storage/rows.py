"""Filling in records from rows that were checked when they were written: what the SQL backends share."""

from __future__ import annotations

from jobhistory.job import SyncJob


class DraftJob(SyncJob):
    """A SyncJob that can be filled in by plain assignment; it gets its true class when it is complete.

    The constructor takes ten times as long, nearly all of it for checks and for passing by the frozen class.
    A property of each backend holds what it fills in equal to what the constructor makes.
    """

    # Both must be object's: with either one in Python, each assignment costs a call.
    __slots__ = ()
    __init__ = object.__init__
    __delattr__ = object.__delattr__
    __setattr__ = object.__setattr__
