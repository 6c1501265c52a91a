"""Values that nobody should pass, and everybody does; drawn from a seed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from jobhistory.job import FIELDS
from jobhistory.status import JobStatus
from jobhistory.testing.rules.base import CONNECTION, NOON, OTHER

Value = Any


class Unshowable:
    """It raises wherever it is looked at."""

    def _refuse(self, *_: object) -> Any:  # noqa: ANN401  it never returns
        message = "not for you"
        raise RuntimeError(message)

    __repr__ = __str__ = __bool__ = __eq__ = __lt__ = _refuse
    __hash__ = object.__hash__


class Text(str):
    """A str that lies about itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another"

    def __len__(self) -> int:
        return 3

    def encode(self, *_: object, **__: object) -> bytes:
        """Nothing at all."""
        return b""


class Moment(datetime):
    """A subclass, as frozen clocks and data frames have."""


class Number(int):
    """An int that lies about itself."""

    def __int__(self) -> int:
        return 7

    def __ge__(self, _: object) -> bool:
        return True


ENDLESS: list[Value] = []
ENDLESS.append(ENDLESS)
DEEP: Value = {}
for _ in range(200):
    DEEP = {"a": DEEP}

PIECES = [
    *("", "a", " ", "é", "\u00a0", "\u2028", "\u202e", "\U0001f600", "e\u0301", "\ufeff", "İ", "\uff11", "٣"),
    *("\0", "\x1b[31m", "\x07", "\r", "\n", "\t", "\x7f", "\x9b", "\ud800", "\udfff", "\ud83d\ude00"),
    *("'", '"', "\\", "%s", "{}", "${HOME}", "; DROP TABLE jobs; --", "' OR 1=1", "NULL", "null", "NaN", "-", "--"),
    *("x" * 200, "ü" * 9000, "password=hunter2 ", "https://u:hunter2@h/ ", "[redacted]", "550e8400"),
]
TIMES = [
    *("2024-03-15T12:00:00Z", "2024-03-15T12:00:00.5+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    *("2024-02-30T00:00:00Z", "2024-03-15", "2024-W11-5", "2024-03-15T12:00:60Z", "2024-03-15T24:00:00Z", "now"),
    *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2024-03-15T12:00:00", "\uff12024-03-15T12:00:00Z"),
]
NUMBERS: list[Value] = [
    *(0, 1, -1, 5, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**5000, True, False, Number(-3), Number(9)),
    *(0.0, -0.0, 0.5, 1e308, 5e-324, math.inf, -math.inf, math.nan, Decimal("1.5"), 1j, "1", "0x10", "1_0", " 1"),
]
OBJECTS: list[Callable[[], Value]] = [
    lambda: None,
    object,
    Unshowable,
    lambda: Text("x"),
    lambda: Text("a\0b"),
    lambda: b"bytes\xff",
    lambda: bytearray(b"x"),
    lambda: ENDLESS,
    lambda: {"a": ENDLESS},
    lambda: DEEP,
    lambda: {"a": [1, 2.5, None, True, "x"]},
    lambda: {"a": math.nan},
    lambda: {"a": "\ud800"},
    lambda: {1: 2},
    lambda: {"a": {1, 2}},
    lambda: {"k" * 70_000: 1},
    lambda: {str(i): i for i in range(3000)},
    lambda: {"a": 10**4300},
    list,
    lambda: (),
    dict,
    set,
    lambda: range(3),
    lambda: lambda: None,
    lambda: timedelta(days=-1),
    lambda: timedelta.max,
    lambda: date(2024, 3, 15),
    lambda: datetime(2024, 3, 15),  # noqa: DTZ001  that is what is wrong with it
    lambda: datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    lambda: datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))),
    lambda: Moment(2024, 3, 15, tzinfo=UTC),
    lambda: NOON,
    lambda: NOON.replace(fold=1),
    lambda: JobStatus.RUNNING,
    lambda: "COMPLETED",
    lambda: "completed",
    lambda: CONNECTION,
    lambda: str(OTHER),
    lambda: f"{{{CONNECTION}}}",
    lambda: f"urn:uuid:{CONNECTION}",
    lambda: str(CONNECTION).upper(),
    lambda: UUID(int=0),
]


def text(random: Random) -> str:
    """A few pieces that do not belong together."""
    return "".join(random.choices(PIECES, k=random.choice((1, 1, 2, 3, 8))))


def value(random: Random) -> Value:
    """Anything."""
    match random.randrange(6):
        case 0:
            return text(random)
        case 1:
            return random.choice(NUMBERS)
        case 2:
            return random.choice(TIMES)
        case 3:
            return {text(random): json_value(random) for _ in range(random.randrange(3))}
        case _:
            return random.choice(OBJECTS)()


def json_value(random: Random) -> Value:
    """Anything that JSON can say, and NaN, which Python's says too."""
    match random.randrange(7):
        case 0:
            return [json_value(random) for _ in range(random.randrange(3))]
        case 1:
            return {text(random): json_value(random) for _ in range(random.randrange(3))}
        case 2:
            return random.choice((None, True, False, 0, -1, 2**63, 1.5, math.nan, math.inf, 1e308))
        case 3:
            return random.choice(TIMES)
        case 4:
            return random.choice((*JobStatus, "completed", "IN_PROGRESS", "CREATED", "created"))
        case _:
            return text(random)


def wire_job(random: Random) -> dict[str, Value]:
    """A job in the form of the wire, whole as a rule."""
    status = random.choice(list(JobStatus))
    job: dict[str, Value] = {
        "id": str(UUID(int=random.getrandbits(128))),
        "source_connection_id": str(random.choice((CONNECTION, OTHER))),
        "status": status.value,
    }
    if status is not JobStatus.PENDING:
        job |= {"started_at": "2024-03-15T12:00:00Z", "entities_inserted": random.randrange(100), "worker": "h:1:a"}
    if status in (JobStatus.COMPLETED, JobStatus.FAILED):
        job |= {"completed_at": "2024-03-15T12:05:00.5Z", "duration_seconds": 300.5}
    if status is JobStatus.FAILED:
        job |= {"error": "it broke", "error_details": {"a": [1, {"b": None}]}}
    if status is JobStatus.PENDING or random.random() < 0.5:
        job["created_at"] = f"2024-03-15T11:{random.randrange(60):02}:00Z"
    return job


def spoilt(random: Random, job: dict[str, Value], draw: Callable[[Random], Value]) -> dict[str, Value]:
    """The job with a few fields that are something else, gone, or unheard of."""
    job = dict(job)
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        match random.randrange(12):
            case 0:
                job.pop(random.choice(list(job)), None)
            case 1:
                job[text(random)] = draw(random)
            case _:
                job[random.choice(FIELDS)] = draw(random)
    return job


def spoilt_line(random: Random) -> bytes:
    """A line of a file of jobs: whole, with something in it that does not belong, or cut."""
    job = spoilt(random, wire_job(random), json_value)
    if random.random() < 0.05:
        job = json_value(random)
    line = json.dumps(job, ensure_ascii=random.random() < 0.5).encode(errors="surrogatepass")
    if random.random() < 0.2:
        at = random.randrange(len(line) + 1)
        rest = line[at + random.randrange(4) :] if random.random() < 0.7 else b""
        line = (
            line[:at] + random.choice((b"", b"\xff", b"\0", b"[" * 9, b"{", b'"', b"\\u0000", b"1e999", b"\r")) + rest
        )
    if random.random() < 0.01:
        line = b"[" * 5000
    return line.replace(b"\n", b" ")
