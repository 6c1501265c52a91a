"""Credentials, made up from a seed, and put where a template holds «kind»: no file holds what looks like one."""

from __future__ import annotations

import base64
import json
import re
import string
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ALNUM = string.ascii_letters + string.digits
BASE64 = ALNUM + "+/"
URLSAFE = ALNUM + "-_"
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"


@attrs.frozen
class Leak:
    """A text, and the credentials in it, as they are spelled there."""

    name: str
    text: str
    secrets: tuple[str, ...]


def _run(random: Random, alphabet: str, length: int) -> str:
    """Draw one of these characters, as often as asked, with at least one digit among them."""
    drawn = random.choices(alphabet, k=length)
    drawn[random.randrange(1, length)] = random.choice(string.digits)
    return "".join(drawn)


def _word(random: Random, length: int) -> str:
    return "".join(random.choice("bcdfghklmnprstvz" if at % 2 else "aeiou") for at in range(length))


def _password(random: Random) -> str:
    """Draw a password a person or a generator would choose, free of what ends it in most notations."""
    return random.choice(
        [
            _word(random, 7) + str(random.randrange(10, 9999)),
            _word(random, 6).capitalize() + random.choice("!#$%*") + str(random.randrange(100, 999)),
            _run(random, ALNUM, 16),
            _word(random, 11),
            _run(random, ALNUM + "-_.~!*", 20) + "x",
        ],
    )


def _hard_password(random: Random) -> str:
    """Draw a password with the punctuation that notations give a meaning to."""
    marks = "".join(random.choice("@:/?#&;,=+%^|(<[{>") for _ in range(3))
    return _word(random, 4) + marks[0] + _run(random, ALNUM, 4) + marks[1:] + _word(random, 4)


def _jwt(random: Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    header = part({"alg": "HS256", "typ": "JWT"})
    claims = part({"sub": _run(random, LOWER, 12), "iat": random.randrange(10**9)})
    return f"{header}.{claims}.{_run(random, URLSAFE, 43)}"


def _basic(random: Random) -> str:
    return base64.b64encode(f"{_word(random, 5)}:{_password(random)}".encode()).decode()


def _prefixed(prefix: str, alphabet: str, length: int, suffix: str = "") -> Callable[[Random], str]:
    return lambda random: prefix + _run(random, alphabet, length) + suffix


def _key_body(random: Random, newline: str, lines: int = 6) -> str:
    return newline.join("MII" + _run(random, BASE64, 61) for _ in range(lines))


KINDS: dict[str, Callable[[Random], str]] = {
    "pw": _password,
    "hardpw": _hard_password,
    "quotedpw": lambda random: quote(_hard_password(random), safe=""),
    "words": lambda random: " ".join(_word(random, 6) for _ in range(4)),
    "hex32": lambda random: _run(random, HEX, 32),
    "hex40": lambda random: _run(random, HEX, 40),
    "hex64": lambda random: _run(random, HEX, 64),
    "uuid": lambda random: str(UUID(int=random.getrandbits(128), version=4)),
    "alnum20": lambda random: _run(random, ALNUM, 20),
    "alnum32": lambda random: _run(random, ALNUM, 32),
    "alnum64": lambda random: _run(random, ALNUM, 64),
    "b64_40": lambda random: _run(random, BASE64, 40),
    "b64_44": lambda random: _run(random, BASE64, 43) + "=",
    "b64_88": lambda random: _run(random, BASE64, 86) + "==",
    "urlsafe43": lambda random: _run(random, URLSAFE, 42) + "x",
    "jwt": _jwt,
    "basic": _basic,
    "pem": lambda random: _key_body(random, "\n"),
    "pem_escaped": lambda random: _key_body(random, "\\n"),
    "pem_line": lambda random: _key_body(random, ""),
    "aws_id": _prefixed("AKIA", string.ascii_uppercase + "234567", 16),
    "aws_temporary_id": _prefixed("ASIA", string.ascii_uppercase + "234567", 16),
    "aws_secret": lambda random: _run(random, BASE64, 40),
    "aws_session": lambda random: "IQoJb3JpZ2luX2Vj" + _run(random, BASE64, 300) + "==",
    "github": _prefixed("ghp_", ALNUM, 36),
    "github_app": _prefixed("ghs_", ALNUM, 36),
    "github_oauth": _prefixed("gho_", ALNUM, 36),
    "github_fine": lambda random: "github_pat_" + _run(random, ALNUM, 22) + "_" + _run(random, ALNUM, 59),
    "gitlab": _prefixed("glpat-", URLSAFE, 20),
    "slack_bot": lambda random: (
        f"xoxb-{random.randrange(10**11, 10**12)}-{random.randrange(10**12, 10**13)}-{_run(random, ALNUM, 24)}"
    ),
    "slack_user": lambda random: (
        f"xoxp-{random.randrange(10**11, 10**12)}-{random.randrange(10**11, 10**12)}-{_run(random, HEX, 32)}"
    ),
    "slack_app": lambda random: (
        f"xapp-1-A{_run(random, ALNUM, 10).upper()}-{random.randrange(10**12)}-{_run(random, HEX, 64)}"
    ),
    "slack_hook": lambda random: (
        f"T{_run(random, ALNUM, 8).upper()}/B{_run(random, ALNUM, 9).upper()}/{_run(random, ALNUM, 24)}"
    ),
    "stripe": _prefixed("sk_live_", ALNUM, 24),
    "stripe_restricted": _prefixed("rk_test_", ALNUM, 99),
    "stripe_hook": _prefixed("whsec_", ALNUM, 32),
    "google": _prefixed("AIza", URLSAFE, 34, "k"),
    "google_oauth": lambda random: "ya29.a0A" + _run(random, URLSAFE, 150) + "0163",
    "google_refresh": lambda random: "1//0g" + _run(random, URLSAFE, 60),
    "google_client": _prefixed("GOCSPX-", URLSAFE, 28),
    "openai": lambda random: f"sk-{_run(random, ALNUM, 20)}T3BlbkFJ{_run(random, ALNUM, 20)}",
    "openai_project": lambda random: f"sk-proj-{_run(random, URLSAFE, 74)}T3BlbkFJ{_run(random, URLSAFE, 73)}x",
    "anthropic": lambda random: f"sk-ant-api03-{_run(random, URLSAFE, 93)}AA",
    "npm": _prefixed("npm_", ALNUM, 36),
    "pypi": lambda random: "pypi-AgEIcHlwaS5vcmc" + _run(random, URLSAFE, 120) + "x",
    "sendgrid": lambda random: f"SG.{_run(random, URLSAFE, 22)}.{_run(random, URLSAFE, 42)}x",
    "twilio_key": _prefixed("SK", HEX, 32),
    "digitalocean": _prefixed("dop_v1_", HEX, 64),
    "huggingface": _prefixed("hf_", string.ascii_letters, 34),
    "databricks": _prefixed("dapi", HEX, 32),
    "shopify": _prefixed("shpat_", HEX, 32),
    "notion_old": _prefixed("secret_", ALNUM, 43),
    "notion": _prefixed("ntn_", ALNUM, 46),
    "linear": _prefixed("lin_api_", ALNUM, 40),
    "airtable": lambda random: f"pat{_run(random, ALNUM, 14)}.{_run(random, HEX, 64)}",
    "hubspot": lambda random: f"pat-na1-{UUID(int=random.getrandbits(128), version=4)}",
    "atlassian": lambda random: "ATATT3xFfGF0" + _run(random, URLSAFE, 170) + "=" + _run(random, HEX, 8).upper(),
    "dropbox": lambda random: "sl.B" + _run(random, URLSAFE, 130) + "x",
    "telegram": lambda random: f"{random.randrange(10**8, 10**10)}:AA{_run(random, URLSAFE, 32)}x",
    "discord": lambda random: f"M{_run(random, ALNUM, 23)}.G{_run(random, ALNUM, 5)}.{_run(random, URLSAFE, 37)}x",
    "vault": lambda random: "hvs.CAES" + _run(random, URLSAFE, 90) + "x",
    "grafana": lambda random: f"glsa_{_run(random, ALNUM, 32)}_{_run(random, HEX, 8)}",
    "salesforce": lambda random: f"00D{_run(random, ALNUM, 12)}!AQ{_run(random, ALNUM + '._', 92)}x",
    "asana": lambda random: (
        f"2/{random.randrange(10**14, 10**15)}/{random.randrange(10**15, 10**16)}:{_run(random, HEX, 32)}"
    ),
    "sentry": lambda random: "sntrys_eyJ" + _run(random, BASE64, 120),
    "figma": _prefixed("figd_", URLSAFE, 39, "x"),
    "mailgun": _prefixed("key-", HEX, 32),
    "mailchimp": lambda random: _run(random, HEX, 32) + f"-us{random.randrange(1, 22)}",
    "square": _prefixed("EAAAE", URLSAFE, 58, "x"),
    "doppler": _prefixed("dp.pt.", ALNUM, 43),
    "postman": lambda random: f"PMAK-{_run(random, HEX, 24)}-{_run(random, HEX, 34)}",
    "new_relic": lambda random: "NRAK-" + _run(random, string.ascii_uppercase + string.digits, 27),
    "azure_client": lambda random: _run(random, ALNUM, 3) + "8Q~" + _run(random, ALNUM + "._~-", 33) + "x",
    "sas": lambda random: quote(_run(random, BASE64, 43) + "=", safe=""),
}

PLACE = re.compile("«([a-z0-9_]+)»")


def draw(templates: tuple[str, ...], *, seed: int, times: int) -> Iterator[Leak]:
    """Fill each template `times` times, each time with other credentials."""
    random = Random(seed)  # noqa: S311
    for number, template in enumerate(templates):
        for turn in range(times):
            found: list[str] = []

            def fill(place: re.Match[str], found: list[str] = found) -> str:
                found.append(KINDS[place[1]](random))
                return found[-1]

            text = PLACE.sub(fill, template)
            yield Leak(f"{number}.{turn} {template[:60]}", text, tuple(found))
