r"""Fingerprints: what two errors have in common, once all that changes from one to the next is taken out.

`pattern` puts placeholders in place of what changes, and `fingerprint` is a digest of that:

    TimeoutError: page 17 of https://api.example.com/v1/pages?cursor=8f3a took 30.5 s
    TimeoutError: page # of <url> took # s

Beside Sentry, whose grouping is the best known (https://develop.sentry.dev/backend/application-domains/grouping/;
for messages src/sentry/grouping/parameterization.py and strategies/message.py in getsentry/sentry, as of 2026):

- Likewise: one search takes out URLs, e-mail and IP addresses, UUIDs, hashes, hexadecimal and decimal numbers, dates
  and times; no more than the first two lines that are not empty count; the algorithm has a version, for a change to
  it makes new groups.
- Sentry groups by the stack trace first, then by the exception's type, and by the message last. Here the message is
  all there is for every worker, and it starts with the type; of a traceback, the line that tells the error counts.
- Sentry has a placeholder for each kind (<int>, <hex>, <uuid>, ...). Here every word with a digit becomes `#`, since
  ids of one kind look like several: 12345678 is a hash, too. So do all its parts: `us-east-1`, `psycopg2`.
- Sentry takes out quoted text behind `=` alone, and no paths. Here paths go, and quoted text does (`<quoted>`), unless
  it tells the error: five words or more, as in (1040, "Too many connections on this server"), or what stands under a
  key such as 'error', 'code' or 'message' in JSON.
- Sentry takes out every number, so that errors of all status codes fall into one group
  (https://github.com/getsentry/sentry/issues/71630). Here a code of up to five digits stays, for it says which error it
  is: right behind code, errno, exit, HTTP, signal, SQLSTATE, status, and the like; `'404 Not Found'`, ORA-00942. Ids
  and counts have no such word before them. An exit code of 1 is not one of 137.
- Several of one kind in a row count as one: `in (1, 2, 3)` is `in (4)`.

The cost is linear in the length of the text, and of a long one no more is taken out than counts. No expression can run
away: each begins only where a word, a quote or a path can begin, its repeats are bounded or possessive, and what a
failed attempt has read no other one of its kind reads again. Quoted text is searched again by itself, at most once for
each of the four kinds of quotes. What is found is searched until nothing changes, so a pattern is its own pattern;
that takes two rounds as a rule, and `_ROUNDS` at most.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from itertools import islice

VERSION = 2
"""The version of the algorithm, which each fingerprint begins with: those of two versions are not to be compared."""
LONGEST = 500
"""So many characters of a pattern count."""

_ROUNDS = 5
_ENOUGH = 4 * LONGEST
_LINES = 2
_WORDS = 5
_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\r?\n(?:[ \t][^\n]*+\n)*+(?P<error>\S)", re.MULTILINE)
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}"
_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}"
_CLOCK = r"""
    [0-9]{1,2}:[0-9]{2} (?: :[0-9]{2} (?:[.,][0-9]{1,9})? )?
    (?: [ ]?(?:[ap]m|z|utc|gmt)\b | [ ]?[+-][0-9]{2}:?[0-9]{2}\b )?
"""
# What comes first here goes first. The groups are the kinds; those inside `kept`, `said` and `quoted` are their parts.
_CHANGING = re.compile(
    rf"""
    (?P<kept>
        (?: (?<![\w-]) (?P<around>["'])?
            (?: (?:error|exit|pg|return|sql|status)?[ _-]? (?<!zip[ ])(?<!postal[ ])code
              | errno | exit(?:ed)?(?:[ ]with)? | hresult | http(?:/[0-9](?:\.[0-9])?)?(?:[ ]error)?
              | signal | status | winerror )
            (?(around)(?P=around)) [ ]?[:=(]?[ ]? -?(?: 0x[0-9a-f]{{1,8}} | [0-9]{{1,5}} )
          | (?:api|client|http|request|response|server|status)(?:error|exception) [ ]?[:(]?[ ]? [1-5][0-9]{{2}}
          | (?<![\w-]) sql[ ]?state [ ]?[:=(\[]?[ ]? [0-9a-z]{{5}}
          | (?<![\w-]) (?: (?:dpi|dpy|ora|pls|tns)-[0-9]{{4,5}} | aadsts[0-9]{{4,7}} ) )
        (?! [\w-] | [.,:/][0-9] )
      | (?<!\w) (?P<line>["']) [3-5][0-9]{{2}} (?:[ ][a-z][a-z-]*+){{1,4}} (?P=line) (?!\w) )
  | (?P<said> (?P<key> (?P<mark>["']) (?:code|error|error_?code|message|msg|reason|status|title|type) (?P=mark)
        [ ]?:[ ]? ) (?P<quote>["']) (?P<value> (?: (?!(?P=quote)). )*+ ) (?P=quote) )
  | (?P<url> (?<![\w.+-]) [\w.+-]{{2,30}}+://[^\s"'`<>]++ )
  | (?P<email> (?<![\w.+-]) [\w.+-]++@[\w-]++(?:\.[\w-]++)*+ )
  | (?P<time> (?<![\w.+-])
        (?: [0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} (?: [T ]{_CLOCK} )?
          | (?: {_DAY},?[ ] )? (?: [0-9]{{1,2}}[ -]{_MONTH}[ -] | {_MONTH}[ ]{{1,2}}[0-9]{{1,2}},?[ ] )
            (?: {_CLOCK}[ ] )? [0-9]{{4}} (?: [ ]{_CLOCK} )? )
        (?![\w-]) )
  | (?P<path> (?<![\w./\\~-])
        (?: (?: ~ | \.{{1,2}} )?/[^\s"'`<>()\[\]{{}},;:|/][^\s"'`<>()\[\]{{}},;:|]*+
          | (?: [a-z]:[\\/] | \\\\ )[^\s"'`<>()\[\]{{}},;:|]++
          | [\w.-]++ (?: (?:/[\w.-]++){{2,}}+ /?+ | /[\w-]++\.[a-z]\w{{0,4}}+ ) (?![\w/]) ) )
  | (?P<address> (?<![\w:]) (?=[a-f:]{{0,9}}[0-9]) (?:[0-9a-f]{{0,4}}:){{2,7}}[0-9a-f]{{0,4}} (?![\w:]) )
  | (?P<uuid> (?<![\w-]) [0-9a-f]{{8}}-(?:[0-9a-f]{{4}}-){{3}}[0-9a-f]{{12}} (?![\w-]) )
  | (?P<number> (?<![\w-]) (?: [^\W\d] | - )*+ \d[\w-]*+ (?: [.,:/]\d[\w-]*+ )*+ )
  | (?P<quoted> (?<!\w) [bfru]?
        (?: "(?P<double>[^"]*+)" | '(?P<single>(?:[^']|(?<=\w\w)'(?=\w))*+)' | `(?P<back>[^`]*+)`
          | [“„‘«](?P<curly>(?:[^“„”‘’«»]|(?<=\w)’(?=\w))*+)[“”’»] ) (?!\w) )
    """,  # noqa: RUF001  these quotes are meant
    re.VERBOSE | re.IGNORECASE,
)
_PLACEHOLDERS = {"url": "<url>", "email": "<email>", "time": "<time>", "path": "<path>"}
_SEVERAL = re.compile(r"(#|<[a-z]+>)(?:,[ ]?\1)++")


def fingerprint(error: str) -> str:
    """The error's fingerprint, such as `2-5d1f2c0a9b3e4f60`: the version, and a digest of its pattern."""
    return f"{VERSION}-{hashlib.sha256(pattern(error).encode(errors='surrogatepass')).hexdigest()[:16]}"


@lru_cache(maxsize=1024)  # many jobs fail of the same error
def pattern(error: str) -> str:
    """The error on one line, with placeholders in place of what changes, as far as it counts."""
    start = max((found.start("error") for found in _TRACEBACK.finditer(error)), default=0)
    lines = (" ".join(line.split()) for line in error[start:].splitlines())
    return _settled(" ".join(islice(filter(None, lines), _LINES)))[:LONGEST]


def _settled(text: str) -> str:
    before, rounds = "", 0
    while text != before and rounds < _ROUNDS:
        before, rounds = text, rounds + 1
        text = _taken_out(text)
    return text


def _taken_out(text: str) -> str:
    """The text with what is found in it taken out; of a long one, as much as may count."""
    taken, at = "", 0
    for match in _CHANGING.finditer(text):
        taken += text[at : match.start()] + _placeholder(match)
        at = match.end()
        if len(taken) > _ENOUGH and len(taken := _SEVERAL.sub(r"\1", taken)) > _ENOUGH:
            return taken
    return _SEVERAL.sub(r"\1", taken + text[at:])


def _placeholder(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "kept":
        return match[0]
    if kind == "said":
        return f"{match['key']}{match['quote']}{_settled(match['value'])}{match['quote']}"
    if kind == "quoted":
        [text] = [part for part in match.group("double", "single", "back", "curly") if part is not None]
        inside = _settled(text)
        begins, ends = match[0][-len(text) - 2], match[0][-1]
        return f"{begins}{inside}{ends}" if len(inside.split()) >= _WORDS else "<quoted>"
    return _PLACEHOLDERS.get(kind or "", "#")
