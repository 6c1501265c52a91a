"""That redaction costs linear time, whoever wrote the text.

It rests on three legs: an attempt that fails has read a bounded number of characters, by the shape of the expressions;
those that succeed read the text a bounded number of times, as counted here; and a quarter of a megabyte of each hostile
kind is done in a time that no quadratic search could keep to.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from typing import Any

import attrs
import pytest

from jobhistory.redact_rules import Rule, lower, rules

Tree = Any  # what the regular expression compiler parses a pattern to

# Hostile texts are one of these over and over: beginnings of matches, and matches that prove harmless.
UNITS = [
    *(
        "a",
        "\u0130",
        "\\",
        '\\\\\\"',
        "://",
        "://a:b@",
        "a@b:c//",
        "a:a:@tcp(",
        "1234567890:AA",
        "abc8Q~",
        "a=,",
        "[redacted]",
    ),
    *("password=", "password=[", "password={", "password=$", "password=a(", "password=a,b ", "password='is "),
    *("password=\"is password='is ", "token=is,", "token:is:", "token%3d", "token 'aaaaaaaaaaaaaaaaaaaa", "?key="),
    *("auth=", "auth=auth1", "auth=('a',", '"auth" "a" ', "secret value: ", "<a token>", 'name="password">'),
    *("authorization: is ", 'cookie: a="', "bearer ", "login ", "mysql ", "'pass ", "--", "--token ", "-u a:"),
    *("eyJ", "-eyJ", "eyJaaaaaaaaaaaa.", "-sk-", "-----begin private key-----\n", "-----begin aaaaaaaaaaaaaaa"),
]


class RunsAwayError(Exception):
    """An attempt could read without bound, and fail."""


def is_unbounded(tree: Tree) -> bool:
    """Whether this reads without bound. What does so must be possessive, and nothing after it may fail."""
    unbounded = False
    for operation, argument in tree:
        name = str(operation)
        least, most = argument[:2] if name.endswith("REPEAT") else (1, 1)
        inner = sum(is_unbounded(part) for part in parts(argument)) > 0  # each is looked at
        if unbounded and least > 0 and name != "SUBPATTERN":
            raise RunsAwayError
        if inner and (name.startswith("ASSERT") or least > 1):
            raise RunsAwayError
        if str(most) == "MAXREPEAT":
            if name != "POSSESSIVE_REPEAT":
                raise RunsAwayError
            inner = True
        unbounded = unbounded or inner
    return unbounded


def parts(argument: Tree) -> list[Tree]:
    if type(argument).__name__ == "SubPattern":
        return [argument]
    return [part for one in argument for part in parts(one)] if isinstance(argument, tuple | list) else []


def runs_away(pattern: re.Pattern[str]) -> bool:
    try:
        is_unbounded(importlib.import_module("re._parser").parse(pattern.pattern, pattern.flags))
    except RunsAwayError:
        return True
    return False


def test_no_expression_can_read_without_bound_and_fail() -> None:
    assert [] == [rule.pattern.pattern for group in rules() for rule in group if runs_away(rule.pattern)]


@pytest.mark.parametrize("bad", ["a*b", "a*+b", "(?:a+)+", "x(?:a|b*+)c", "(a*+)b", "(?=a*+)", ".*?", "(?:a*+b){2}"])
def test_an_expression_that_could_is_noticed(bad: str) -> None:
    assert runs_away(re.compile(bad))


def read(text: str) -> int:
    """Count the characters in all matches, repeated ones too, of one redaction."""
    total = 0

    def counting(rule: Rule) -> Rule:
        def spans(match: re.Match[str], text: str) -> list[tuple[int, int]]:
            nonlocal total
            total += match.end() - match.start()
            return rule.spans(match, text)

        return attrs.evolve(rule, spans=spans)

    for group in rules():
        for rule in map(counting, group):
            rule(text, lower(text))
    return total


@pytest.mark.parametrize("unit", UNITS)
def test_four_times_the_text_is_four_times_the_reading(unit: str) -> None:
    assert read(unit * (80_000 // len(unit))) <= 4.2 * read(unit * (20_000 // len(unit))) + 1000


LIMITED = """
import json, re, resource, sys
from jobhistory.redact import Redactor
seconds, size, units = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
redact = Redactor()
for unit in units:
    redact("x" + unit * (size // len(unit)) + "'\\"")
if not units:
    re.search("a*b", "a" * size)
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_hostile_texts_cost_no_more_than_linear_time() -> None:
    assert "" == run(LIMITED, json.dumps([40, 2**18, UNITS]))


def test_quadratic_time_would_be_noticed() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        run(LIMITED, json.dumps([2, 2**18, []]))


def test_importing_compiles_no_expression() -> None:
    code = "import jobhistory.redact_rules as r; print(r.rules.cache_info().currsize, r._pattern.cache_info().currsize)"
    assert "0 0\n" == run(code)
