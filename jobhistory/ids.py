"""Making and reading ids: UUIDv7 for new jobs, any UUID for given ones; and the names of workers."""

from __future__ import annotations

import os
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from jobhistory.errors import InvalidIdError

if TYPE_CHECKING:
    from collections.abc import Callable

# uuid.UUID() alone also accepts braces, urn:uuid: and digits of other scripts.
_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_LOCK = threading.RLock()  # a signal handler may fork while it is held
# A child has no thread that would release a lock which another held: so nobody else holds it at a fork.
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


def check_id(value: object) -> UUID:
    """The value, which must be a UUID; raises InvalidIdError."""
    if not isinstance(value, UUID):
        raise InvalidIdError(value)
    return value


def parse_id(value: object) -> UUID:
    """A UUID, from itself or from its canonical text in either case (RFC 9562, section 4).

    Raises InvalidIdError for anything else.
    """
    if isinstance(value, str) and _CANONICAL.fullmatch(value):
        return UUID(value)
    return check_id(value)


class UUID7:
    """A source of UUIDv7 (RFC 9562, section 5.7), strictly increasing within the process.

    The first 60 free bits are the clock, to a quarter of a microsecond; the other 62 are random. Where the
    clock stands still or steps back, the last id is raised by a random step instead (section 6.2, method 2),
    so that processes forked from one another still differ.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._last = 0

    def __call__(self) -> UUID:
        """The next id."""
        milliseconds, rest = divmod(max(0, (self._clock() - _EPOCH) // _MICROSECOND), 1000)
        drawn = int.from_bytes(os.urandom(12))
        fresh = (milliseconds << 12 | rest * 4096 // 1000) << 62 | drawn & (1 << 62) - 1
        with _LOCK:
            self._last = max(fresh, self._last + 1 + (drawn >> 64))
            bits = self._last
        head, tail = bits >> 74, bits & (1 << 62) - 1
        return UUID(int=head << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | tail)


def worker_name(host: str | None = None) -> str:
    """`host:pid:tag`: this host (or the name given), this process, and a tag that is new at each call."""
    return f"{host or os.uname().nodename}:{os.getpid()}:{os.urandom(4).hex()}"
