"""Redaction: secrets go out of a text before it is stored, and the rest of it stays readable.

Masked is what redact_rules.py takes for a secret, and the values a user registers. The text is searched until nothing
changes (hence redacting twice is redacting once), which takes two rounds as a rule; one that has not settled after
`ROUNDS` is masked as a whole. The cost is linear in the length of the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from jobhistory.redact_rules import MASK, is_secret_key, lower, rules

ROUNDS = 5
SHORTEST_SECRET = 4
DEEPEST = 200  # levels of JSON


def _spellings(secret: str) -> set[str]:
    """Give a secret as it is, and as URLs, JSON, Python and base64 (wherever it starts in what is encoded) spell it."""
    from base64 import b64encode
    from json import dumps
    from urllib.parse import quote, quote_plus

    data = secret.encode("utf-8", "surrogatepass")
    spellings = {secret, quote(data), quote(data, safe=""), quote_plus(data), repr(secret)[1:-1]}
    spellings |= {dumps(secret)[1:-1], dumps(secret, ensure_ascii=False)[1:-1]}
    for shift in range(3):
        # The first and last characters may hold bits of the neighbours too.
        encoded = b64encode(bytes(shift) + data).decode()[(4 * shift + 2) // 3 : 4 * (shift + len(data)) // 3]
        if len(encoded) >= 2 * SHORTEST_SECRET:
            spellings |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return spellings


def _checked(secrets: Iterable[str]) -> tuple[str, ...]:
    for number, secret in enumerate(secrets := tuple(secrets), 1):
        if not isinstance(secret, str):
            raise TypeError(f"secret {number} is a {type(secret).__name__}: register a list of str")
        if len(secret) < SHORTEST_SECRET:
            few = f"fewer than {SHORTEST_SECRET} characters"
            raise ValueError(f"secret {number} has {few}: it would mask ordinary text")
    return secrets


@attrs.frozen
class Redactor:
    """Masks the secrets in a text: those it recognises, and those registered, in the spellings they are met in.

    Args:
        secrets: values to mask wherever they stand, of 4 characters or more each.

    Raises:
        TypeError: a secret is no str.
        ValueError: a secret is too short.
    """

    secrets: tuple[str, ...] = attrs.field(default=(), converter=_checked, repr=False)
    _spellings: tuple[str, ...] = attrs.field(init=False, repr=False, eq=False)

    @_spellings.default
    def _longest_first(self) -> tuple[str, ...]:
        return tuple(sorted({s for secret in self.secrets for s in _spellings(secret)}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """Give the text with `MASK` for each secret. No text is refused, and redacting the answer changes nothing."""
        for _ in range(ROUNDS):
            redacted = self._round(text)
            if redacted == text:
                return text
            text = redacted
        return MASK

    def _round(self, text: str) -> str:
        for spelling in self._spellings:
            if spelling in text:
                text = MASK.join(part.replace(spelling, MASK) for part in text.split(MASK))
        shapes, others = rules()
        for rule in shapes:
            text = rule(text, text)
        lowered = lower(text)
        for rule in others:
            if (masked := rule(text, lowered)) is not text:
                text, lowered = masked, lower(masked)
        return text


def redact_json(value: object, redact: Callable[[str], str]) -> Any:  # noqa: ANN401  any JSON value
    """Give a copy of a JSON value with each string redacted, by a Redactor or the like, keys included.

    What stands under a secret's name is `MASK`, be it a number or an object, but for null, bool and sentences
    ("is required"); so is what lies deeper than 200 levels. Keys that become the same are numbered.
    """
    return _walk(value, redact, 1)


def _walk(value: object, redact: Callable[[str], str], level: int) -> object:
    if isinstance(value, str):
        return redact(value)
    if not isinstance(value, dict | list):
        return value
    if level > DEEPEST:
        return MASK
    if isinstance(value, list):
        return [_walk(item, redact, level + 1) for item in value]
    redacted: dict[str, object] = {}
    name = value.get("name", value.get("key"))
    for key, item in value.items():
        shown = redact(key)
        while shown in redacted:
            shown = f"{redact(key)} ({len(redacted)})"
        secret = is_secret_key(key, item) or (key == "value" and isinstance(name, str) and is_secret_key(name, item))
        redacted[shown] = MASK if secret else _walk(item, redact, level + 1)
    return redacted
