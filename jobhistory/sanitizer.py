"""What a history makes of the texts it is given before it stores them: without secrets, and storable."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from jobhistory.failure import alone
from jobhistory.job import SyncJob
from jobhistory.redact import redact_json
from jobhistory.storable import TEXT_BYTES, mend_json, mend_text

Redact = Callable[[str], str]
"""Takes the secrets out of a text."""

# The pid and tag that a worker's name ends in where it was made here, from a text that was sanitized.
_MADE_HERE = re.compile(r":[0-9]+:[0-9a-f]{8}\Z", re.ASCII)
_ROUNDS = 5
_Value = TypeVar("_Value")
_log = logging.getLogger("jobhistory")


@attrs.frozen
class Sanitizer:
    """Makes texts, JSON objects and jobs fit to be stored; what it made it leaves as it is.

    Args:
        redact: takes the secrets out of a text; None leaves them in. Where it fails, the text is lost, and
            nothing else.
    """

    _redact: Redact | None

    def text(self, text: str, limit: int = TEXT_BYTES) -> str:
        """The text without secrets, and storable, in at most `limit` bytes of UTF-8."""
        plain = str.__str__(text) if isinstance(text, str) else mend_text(text)
        return _until_it_stays(lambda value: mend_text(self.without_secrets(value), limit), plain)

    def worker(self, name: str) -> str:
        """A worker's name likewise; one that ends in a pid and a tag is left alone, whatever it looks like."""
        return name if self._redact is None or _MADE_HERE.search(name) else self.text(name)

    def json(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object: likewise, also without what stands under keys that look secret."""
        if self._redact is None:
            return mend_json(value)
        # Before it is cut: a secret cut in two is not known as one.
        with contextlib.suppress(Exception):  # it is no JSON yet
            value = redact_json(value, self.without_secrets)
        # And after: what is no JSON shows its text, and so its secrets, only when it is mended.
        return _until_it_stays(lambda value: mend_json(redact_json(value, self.without_secrets)), mend_json(value))

    def job(self, job: SyncJob) -> SyncJob:
        """The job with all its texts so."""
        if self._redact is None or (metadata := job.metadata) is None:
            return self.version(job)
        return attrs.evolve(self.version(job), metadata=self.json(metadata))

    def version(self, job: SyncJob) -> SyncJob:
        """The next version of a stored job so: all but its metadata, which stay what they are."""
        if self._redact is None:
            return job
        changes: dict[str, Any] = {}
        if job.error is not None:
            changes["error"] = self.text(job.error)
        if (details := job.error_details) is not None:
            changes["error_details"] = self.json(details)
        if job.worker is not None and (worker := self.worker(job.worker)) != job.worker:
            changes["worker"] = worker
        return attrs.evolve(job, **changes) if changes else job

    def without_secrets(self, text: str) -> str:
        """The text without secrets, as long as it is."""
        if self._redact is None:
            return text
        try:
            return self._redact(text if isinstance(text, str) else mend_text(text))
        except Exception as error:  # noqa: BLE001  # a failure is reported all the same
            _log.error("the redactor failed: the text is not stored", exc_info=alone(error))
            return "[not stored: the redactor failed]"


def _until_it_stays(clean: Callable[[_Value], _Value], value: _Value) -> _Value:
    """Clean again what cleaning changed: a cut may leave half a mask, and an import must find nothing to change."""
    for _ in range(_ROUNDS):
        if (cleaned := clean(value)) == value:
            break
        value = cleaned
    return value
