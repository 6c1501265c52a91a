"""Which text and which JSON a job can hold: one policy for every backend.

PostgreSQL refuses NUL, UTF-8 has no lone surrogates, and SQLite's length() stops at NUL: so the record
refuses them, for all. `check_*` refuse (for input), `mend_*` never do (for a failure being reported).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from jobhistory.errors import InvalidJobError, StorageError

TEXT_BYTES = 16 * 1024
"""The longest error text, in bytes of UTF-8."""
JSON_BYTES = 64 * 1024
"""The longest JSON object, in bytes of UTF-8 as it is stored."""
JSON_LEVELS = 64
"""The deepest JSON object: one that holds no other is one level deep."""
# json.loads refuses ints of more than 4,300 digits; 10**4300 has 14,285 bits.
_INT_BITS = 14_284


class JSONText(str):
    """The text of a JSON object that has been checked."""

    __slots__ = ()


def check_text(field: str, value: object) -> str:
    """A str of at most 16 KiB of UTF-8, without NUL and lone surrogates; raises InvalidJobError."""
    text = _check_characters(field, value)
    if len(text) > TEXT_BYTES or len(text.encode()) > TEXT_BYTES:
        raise InvalidJobError(field, f"must have at most {TEXT_BYTES:,} bytes of UTF-8", text)
    return text


def check_json(field: str, value: object) -> JSONText:
    """The text of a JSON object (a dict with str keys) of at most 64 KiB and 64 levels.

    Raises InvalidJobError for anything that JSON or a database would change or refuse: other types, keys
    that are no str, NaN and Infinity, NUL and lone surrogates, ints of more than 4,300 digits.
    """
    if type(value) is JSONText:
        return value
    if not isinstance(value, dict):
        raise InvalidJobError(field, "must be a JSON object (a dict)", value)
    text = _dump(_Checker(field, value).copy(value, 1))
    if len(text.encode()) > JSON_BYTES:
        raise _too_long(field, value)
    return text


def load_json(text: str) -> dict[str, Any]:
    """The object, its keys in their order; a new one at each call, so that nobody shares it."""
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def load_stored(job_id: UUID, name: str, text: str | None) -> dict[str, Any] | None:
    """The object in a job's field, or None; raises StorageError, naming both, where another program spoilt it."""
    try:
        return None if text is None else load_json(text)
    except (ValueError, RecursionError) as error:
        reason = f"its {name} is no JSON (another program wrote it: `jobhistory check` says what to do)"
        raise StorageError(f"job {job_id}", reason) from error


def canonical(text: str | None) -> str | None:
    """Equal for equal objects: the order of keys does not count, and True is not 1."""
    try:
        return None if text is None else json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text  # another program wrote it: the job can still be finished


def mend_text(value: object, limit: int = TEXT_BYTES) -> str:
    """The value as text that can be stored, at most `limit` bytes of UTF-8: never refused.

    NUL and lone surrogates are written as escapes; what is too long is cut, and says so.
    """
    try:
        text = str.__str__(value if isinstance(value, str) else str(value))
    except Exception:  # noqa: BLE001  the error being reported is broken itself; it is reported all the same
        text = _unshown(value)
    data = text.replace("\0", r"\x00").encode(errors="backslashreplace")
    if len(data) <= limit:
        return data.decode()
    marker = f" [cut: {len(data):,} bytes in all]"
    return data[: limit - len(marker)].decode(errors="ignore") + marker


def mend_json(value: object) -> dict[str, Any]:
    """The mapping as a JSON object that can be stored, itself where it can; never refused.

    What is no JSON becomes text, what is too long or too deep is cut, and says so. What is no mapping
    becomes the `value` of one.
    """
    for limit in (JSON_BYTES, TEXT_BYTES, 4096, 1024, 256):
        mended = _Mender(limit).mend(value, 1)
        if not isinstance(mended, dict):
            mended = {"value": _Mender(limit).mend(value, 2)}
        text = _dump(mended)
        if len(text.encode()) <= JSON_BYTES:
            return mended
    return {"cut": mend_text(text)}


def _unshown(value: object) -> str:
    return f"{object.__repr__(value)}, which cannot be shown"


class _Checker:
    """Copies one value into JSON's own types, so that what is stored is what was checked."""

    def __init__(self, field: str, whole: object) -> None:
        self._field = field
        self._whole = whole
        self._left = JSON_BYTES

    def copy(self, value: object, level: int) -> object:
        self._spend(1)
        match value:
            case None | True | False:
                return value
            case str():
                return self._text("a text", value)
            case int():
                if int.bit_length(value) > _INT_BITS:
                    raise InvalidJobError(f"{self._field}: an int", "must have at most 4,300 digits", value)
                self._spend(int.bit_length(value) // 4)
                return value
            case float():
                if not math.isfinite(value):
                    raise InvalidJobError(f"{self._field}: a float", "must be finite", value)
                return value
            case dict() | list() | tuple() if level > JSON_LEVELS:
                raise InvalidJobError(self._field, f"must have at most {JSON_LEVELS} levels", self._whole)
            case dict():
                return {self._text("a key", key): self.copy(child, level + 1) for key, child in value.items()}
            case list() | tuple():
                return [self.copy(child, level + 1) for child in value]
            case _:
                raise InvalidJobError(f"{self._field}: a value", "must be of a JSON type", value)

    def _text(self, what: str, value: object) -> str:
        text = _check_characters(f"{self._field}: {what}", value)
        self._spend(len(text))
        return text

    def _spend(self, bytes_at_least: int) -> None:
        """Give up early: a small value that holds itself, or one text many times, may be endless as JSON."""
        self._left -= bytes_at_least
        if self._left < 0:
            raise _too_long(self._field, self._whole)


class _Mender:
    """Mends one value; `limit` bounds the bytes of each text and the members of each container."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = JSON_BYTES

    def mend(self, value: object, level: int) -> Any:  # noqa: ANN401  any JSON value
        self._left -= 1
        if self._left < 0:
            return "[cut]"
        try:
            return self._copy(value, level)
        except Exception:  # noqa: BLE001  as in mend_text
            return self._text(_unshown(value))

    def _copy(self, value: object, level: int) -> Any:  # noqa: ANN401  any JSON value
        match value:
            case None | True | False:
                return value
            case int() if int.bit_length(value) > _INT_BITS:
                return f"[an int of {int.bit_length(value):,} bits]"
            case int():
                self._left -= int.bit_length(value) // 4
                return int.__int__(value)
            case float() if math.isfinite(value):
                return float.__float__(value)
            case Mapping() | list() | tuple() | set() | frozenset() if level > JSON_LEVELS:
                return "[cut]"
            case Mapping():
                members = islice(value.items(), self._limit)
                mended = {self._text(key): self.mend(child, level + 1) for key, child in members}
                if len(value) > self._limit:
                    mended["cut"] = f"{len(value):,} members in all"
                return mended
            case list() | tuple() | set() | frozenset():
                items = [self.mend(child, level + 1) for child in islice(value, self._limit)]
                return items if len(value) <= self._limit else [*items, f"[cut: {len(value):,} items in all]"]
            case _:
                return self._text(value)

    def _text(self, value: object) -> str:
        text = mend_text(value, self._limit)
        self._left -= len(text)
        return text


def _dump(value: object) -> JSONText:
    return JSONText(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def _too_long(field: str, value: object) -> InvalidJobError:
    return InvalidJobError(field, f"must have at most {JSON_BYTES:,} bytes as JSON", value)


def _check_characters(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidJobError(field, "must be a str", value)
    value = str.__str__(value)
    if "\0" in value:
        raise InvalidJobError(field, "must not contain NUL", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidJobError(field, "must not contain lone surrogates", value) from None
    return value
