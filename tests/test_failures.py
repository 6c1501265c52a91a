"""Errors that differ in what changes alone are the same; others are not; they are counted by that."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import InvalidJobError, InvalidLimitError, JobHistory, JobStatus, SourceConnectionNotFoundError, SyncJob
from jobhistory import failures as module
from jobhistory import fingerprint as fingerprint_module
from jobhistory.failures import Failure
from jobhistory.fingerprint import LONGEST, VERSION, fingerprint, pattern
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing import strategies
from tests.workers import CONNECTION, START

OTHER, THIRD = UUID(int=2), UUID(int=3)

PATTERNS = [
    (
        "TimeoutError: page 17 of https://api.example.com/v1/pages?cursor=8f3a took 30.5 s",
        "TimeoutError: page # of <url> took # s",
    ),
    ("user 550e8400-e29b-41d4-abcd-446655440000 is gone", "user # is gone"),
    ("pod sync-7d9f8b6c5-xkqlp at 0x7f3a2b, 3,000 rows, v1.2.3", "pod # at # rows, #"),
    ("cannot reach 10.0.0.1:5432, [fe80::1]:80 nor ::1", "cannot reach #, [#]:# nor #"),
    ("who is jane.doe+x@example.co.uk?", "who is <email>?"),
    ("at 2024-03-15T12:00:00.123Z, 2024-03-15 12:00:00+01:00", "at <time>"),
    ("at Fri, 15 Mar 2024 12:00:00 GMT or Sat Mar 16 09:05:01 2024", "at <time> or <time>"),
    ("no file /var/lib/a-b/c.txt: ~/x, ../y/z and C:\\Users\\me\\x.txt", "no file <path>: <path> and <path>"),
    ("no key in bucket/key.csv, a/b/c; and/or application/json", "no key in <path>; and/or application/json"),
    ("KeyError: 'user_id'", "KeyError: <quoted>"),
    ("can't open \"x\" because it doesn't exist", "can't open <quoted> because it doesn't exist"),
    ("b'raw' and `code` and it's 'isn't' too", "<quoted> and <quoted> and it's <quoted> too"),
    (
        "(1045, \"Access denied for user 'x'@'y' (using password: YES)\")",
        '(#, "Access denied for user <quoted>@<quoted> (using password: YES)")',
    ),
    (
        "{'ok': False, 'error': 'ratelimited', \"code\": 429, 'message': 'User 12 waits'}",
        "{<quoted>: False, 'error': 'ratelimited', \"code\": 429, 'message': 'User # waits'}",
    ),
    ("HTTP Error 404: Not Found, exit code -9, [Errno 111]", "HTTP Error 404: Not Found, exit code -9, [Errno 111]"),
    ("code 400012, status 2024-03-15, exit code 3.14", "code #, status <time>, exit code #"),
    ("HTTPError: 404", "HTTPError: 404"),
    ("urllib.error.HTTPError(503), ClientError: 17 rows", "urllib.error.HTTPError(503), ClientError: # rows"),
    ("Client error '404 Not Found' for url 'https://x/1'", "Client error '404 Not Found' for url <quoted>"),
    ("HTTP/1.1 503 behind 17 hops", "HTTP/1.1 503 behind # hops"),
    ("DatabaseError: ORA-00942, not ORDER-00942", "DatabaseError: ORA-00942, not #"),
    ("SQLSTATE[40001]: 12 (SQLSTATE 42P01), pgcode=23505", "SQLSTATE[40001]: # (SQLSTATE 42P01), pgcode=23505"),
    ("[WinError 10061] code 0x80070005 at 0x80070005", "[WinError 10061] code 0x80070005 at #"),
    ("{'code': 18456} in zip code 90210", "{'code': 18456} in zip code #"),
    ("KeyError: 404", "KeyError: #"),
    ("“the user” or ‘l’eau’ of «the docs», „beide“", "<quoted> or <quoted> of <quoted>"),  # noqa: RUF001  meant
    ("« Trop de connexions sur le serveur 12 »", "« Trop de connexions sur le serveur # »"),
    ("l’eau ‘x", "l’eau ‘x"),  # noqa: RUF001  meant
    ("WHERE id IN (1, 2,3) AND name IN ('a', 'b')", "WHERE id IN (#) AND name IN (<quoted>)"),
    ("first  line\n\n  second\tline 2 \nthird", "first line second line #"),
    ("", ""),
]


@pytest.mark.parametrize(("error", "expected"), PATTERNS)
def test_what_changes_is_taken_out_and_the_rest_stays(error: str, expected: str) -> None:
    assert expected == pattern(error)


def test_of_a_traceback_the_line_that_tells_the_error_counts() -> None:
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "x.py", line 3, in f\n    g()\n    ~^^\nKeyError: 1\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "x.py", line 3, in f\nValueError: bad thing 12\n'
    )
    assert "ValueError: bad thing #" == pattern(traceback)
    assert "ValueError: bad thing #" == pattern(traceback.replace("\n", "\r\n"))
    assert "Traceback (most recent call last):" == pattern("Traceback (most recent call last):\n")


NUMBERS = st.integers(0, 10**18).map(str) | st.decimals(0, 10**6, places=3).map(str)
TIMES = st.datetimes(timezones=st.timezones()).map(lambda at: at.replace(microsecond=0, tzinfo=None).isoformat() + "Z")
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
PATHS = st.lists(WORDS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
SLOTS = {
    "number": NUMBERS,
    "id": st.uuids().map(str) | st.binary(min_size=16, max_size=16).map(bytes.hex).map(lambda text: f"{text}0"),
    "time": TIMES,
    "path": PATHS,
    "url": PATHS.map(lambda path: f"https://example.com{path}?q=1"),
    "quoted": st.lists(WORDS, min_size=1, max_size=4).map(lambda words: f"'{' '.join(words)}'"),
}


@given(template=st.lists(st.sampled_from([*SLOTS]) | st.just("word"), max_size=8), data=st.data())
def test_errors_that_differ_in_what_changes_alone_have_one_fingerprint(
    template: list[str], data: st.DataObject
) -> None:
    def drawn() -> str:
        return " ".join(f"then {data.draw(SLOTS[slot])}" if slot in SLOTS else slot for slot in template)

    assert fingerprint(drawn()) == fingerprint(drawn())


@given(one=st.lists(WORDS, max_size=6), other=st.lists(WORDS, max_size=6))
def test_errors_of_other_words_have_another_fingerprint(one: list[str], other: list[str]) -> None:
    assert (one == other) == (fingerprint(" ".join(one)) == fingerprint(" ".join(other)))


TOKENS = st.sampled_from([
    "12", "a1", "'", '"', "`", "/a", "/", ".", ",", ":", "-", "#", "<", ">", " ", "code", "error", "x", "@", "\\",
    "://", "2024-03-15", "T12:00", "one two three four five", "'s", "b", "=", "(", ")", "{", "}", "é", "…", "\n",
    "HTTPError", "SQLSTATE", "[", "]", "404", "0x1", "ora-", "“", "”", "‘", "’", "«", "»",  # noqa: RUF001  meant
])  # fmt: skip


@given(text=st.lists(TOKENS, max_size=25).map("".join) | strategies.hostile_text())
def test_a_pattern_is_its_own_pattern(text: str) -> None:
    once = pattern(text)
    assert once == pattern(once)


def test_a_fingerprint_names_its_version_and_stays_as_it_is() -> None:
    # A change to these is a change to every stored fingerprint: count VERSION up.
    assert 2 == VERSION
    assert "2-6c8bd5851ce3486c" == fingerprint("KeyError: 'a'")
    assert "2-e3b0c44298fc1c14" == fingerprint("")


def test_only_so_much_of_a_pattern_counts() -> None:
    assert fingerprint("x" * LONGEST + "y") == fingerprint("x" * LONGEST + "z")
    assert fingerprint("x" * (LONGEST - 1) + "y") != fingerprint("x" * (LONGEST - 1) + "z")


def test_of_a_long_error_no_more_is_taken_out_than_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    take, taken = fingerprint_module._placeholder, []

    def placeholder(match: re.Match[str]) -> str:
        taken.append(match[0])
        return take(match)

    monkeypatch.setattr(fingerprint_module, "_placeholder", placeholder)
    body = json.dumps([{"number": n, "url": f"https://example.com/{n}"} for n in range(300)])

    assert pattern(f"ValueError: {body}").startswith("ValueError: [{<quoted>: #, <quoted>: <quoted>}, {<quoted>: #,")
    assert 500 > len(taken)


def test_what_stands_behind_a_long_list_or_quotation_counts() -> None:
    assert "keys (#) are taken" == pattern(f"keys ({', '.join(map(str, range(3000)))}) are taken")
    assert "<quoted> is no number" == pattern(f"'{'x' * 10_000}' is no number")


ADVERSARIES = [
    "a", "1", "a.", "a-", "a/", "/", "/a", "'", " '", "'a ", '"', "`", "@", "a@", ":", "a:", "0:", "a://", "\\\\",
    "'code':", "'code':\"", "code ", "mon ", "2024-", "12:00 ", "x'y", "''", "b'", "#,", "#, ", "a+", "http ", "1.",
    "b'x ", "ab'x ", "Traceback (most recent call last):\n x\n", "\n", " ", "(", "é", "“", "«b",
    "‘a ", "x’y", "‘x’y", "httperror: ", "sqlstate[", "zip code ", "'404 A", "'404 ",  # noqa: RUF001  meant
]  # fmt: skip


def search(*pieces: str) -> None:
    """Look for the patterns of 128 KiB of each: the quotes alone took four minutes while the search was quadratic."""
    program = """
import sys
from jobhistory.fingerprint import pattern
for piece in sys.argv[1:]:
    pattern(piece * (2**17 // len(piece)))
"""
    subprocess.run([sys.executable, "-c", program, *pieces], timeout=120, check=True)


def test_the_cost_of_hostile_quotes_grows_with_their_number_alone() -> None:
    search("b'")


@pytest.mark.slow
@pytest.mark.parametrize("piece", ADVERSARIES)
def test_the_cost_of_hostile_text_grows_with_its_length_alone(piece: str) -> None:
    search(piece)


# ---- Counting them


def failed(n: int, error: str | None, connection: UUID = CONNECTION, **changes: Any) -> SyncJob:  # noqa: ANN401  a job's fields
    """The n-th job of a connection, one a minute, which took ten seconds."""
    at = START + timedelta(minutes=n)
    job = SyncJob(
        id=UUID(int=(connection.int << 64) + n),
        source_connection_id=connection,
        status=JobStatus.FAILED,
        created_at=at,
        started_at=at,
        completed_at=at + timedelta(seconds=10),
        error=error,
    )
    return attrs.evolve(job, **changes)


def at(minute: int, second: int = 0) -> datetime:
    return START + timedelta(minutes=minute, seconds=second)


def test_failures_say_which_how_often_since_when_where_and_give_the_latest(history: JobHistory) -> None:
    history.add_many(
        [
            failed(1, "page 1 is missing"),
            failed(2, "page 2 is missing"),
            failed(3, "no route"),
            failed(4, "page 3 is missing", OTHER),
            failed(5, None, completed_at=None, heartbeat_at=at(5, 30)),
            attrs.evolve(failed(6, "page 4 is missing"), status=JobStatus.CANCELLED),
        ]
    )

    missing, lost, route = history.failures()

    assert (
        Failure(
            fingerprint=fingerprint("page 9 is missing"),
            pattern="page # is missing",
            count=3,
            first_at=at(1, 10),
            last_at=at(4, 10),
            connections={CONNECTION: 2, OTHER: 1},
            latest=failed(4, "page 3 is missing", OTHER),
        )
        == missing
    )
    assert ("", at(5, 30)) == (lost.pattern, lost.last_at)
    assert ("no route", 1) == (route.pattern, route.count)
    assert json.loads(json.dumps(missing.to_dict())) == {
        "fingerprint": missing.fingerprint,
        "pattern": "page # is missing",
        "count": 3,
        "first_at": "2024-03-15T12:01:10Z",
        "last_at": "2024-03-15T12:04:10Z",
        "connections": {str(CONNECTION): 2, str(OTHER): 1},
        "latest": missing.latest.to_dict(),
    }


def test_failures_are_those_of_the_connections_asked_for_and_since(memory: JobHistory) -> None:
    memory.add_many([failed(n, f"page {n}", id) for n in range(1, 40) for id in (CONNECTION, OTHER)])

    assert [78] == [failure.count for failure in memory.failures()]
    assert [39] == [failure.count for failure in memory.failures([str(OTHER), OTHER])]
    [recent] = memory.failures(since=at(30))
    assert (20, at(30, 10)) == (recent.count, recent.first_at)
    assert [] == memory.failures(since=at(40))
    assert [] == memory.failures([])


def test_as_many_as_asked_for_come_the_most_frequent_first(memory: JobHistory) -> None:
    memory.add_many([failed(n, "abc"[n % 3] * (n % 3 + 1) if n < 30 else "often") for n in range(100)])

    assert ["often", "ccc"] == [failure.pattern for failure in memory.failures(limit=2)]


def test_more_failures_than_a_page_holds_are_all_counted(memory: JobHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIMIT", 30)
    memory.add_many([failed(n, "it") for n in range(100)])

    assert [100] == [failure.count for failure in memory.failures()]


def test_bad_input_is_told(memory: JobHistory) -> None:
    with pytest.raises(SourceConnectionNotFoundError):
        memory.failures([OTHER])
    with pytest.raises(InvalidLimitError):
        memory.failures(limit=0)
    with pytest.raises(InvalidJobError, match="since"):
        memory.failures(since=datetime(2024, 1, 1))  # noqa: DTZ001  that is the point


def test_a_connection_that_is_forgotten_meanwhile_is_left_out() -> None:
    class Forgetful(InMemoryJobRepository):
        def list_jobs(self, source_connection_id: UUID, **options: Any) -> list[SyncJob]:  # noqa: ANN401  the port's
            if source_connection_id == CONNECTION:
                self.forget(CONNECTION)
            return super().list_jobs(source_connection_id, **options)

    history = JobHistory(Forgetful())
    history.add_many([failed(1, "x"), failed(1, "y", OTHER)])

    assert ["y"] == [failure.pattern for failure in history.failures()]
