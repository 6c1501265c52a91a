"""Errors as problem details (RFC 9457, https://www.rfc-editor.org/rfc/rfc9457): `detail` is a plain sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from jobhistory.errors import (
    ActiveJobExistsError,
    InvalidCursorError,
    InvalidTransitionError,
    JobNotFoundError,
    SourceConnectionNotFoundError,
    StorageError,
    UnknownOutcomeError,
)

# One sentence for what is missing and for what is somebody else's, whatever the id: nobody learns which it is.
NO_CONNECTION = "Source connection with the specified ID does not exist"
NO_JOB = "Sync job with the specified ID does not exist"
_SAID = {
    SourceConnectionNotFoundError: (404, NO_CONNECTION),
    JobNotFoundError: (404, NO_JOB),
    # Its own words name the list that it belongs to, which may be somebody else's.
    InvalidCursorError: (422, "cursor is none of this list's: take it from the page before"),
}
SERVICE_UNAVAILABLE = 503
_log = logging.getLogger("jobhistory")


class ProblemResponse(JSONResponse):
    """A problem, never HTML and never a trace."""

    media_type = "application/problem+json"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> ProblemResponse:
    """The problem's answer; its title is the status's own."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return ProblemResponse(content, status, {"Cache-Control": "no-store", **(headers or {})})


def problem_of(error: Exception) -> ProblemResponse:
    """The answer to a request that ended in this error."""
    status, detail = meaning(error)
    headers = {"Retry-After": "1"} if status == SERVICE_UNAVAILABLE else getattr(error, "headers", None)
    return problem(status, detail, headers)


def meaning(error: Exception) -> tuple[int, str]:
    """What an error means to the client: a status, and a sentence. One that nobody foresaw says nothing of itself."""
    match error:
        case HTTPException():
            return error.status_code, error.detail
        case RequestValidationError():
            # Our own sentence where a check of ours refused.
            return 422, "; ".join(str(each.get("ctx", {}).get("error", each["msg"])) for each in error.errors())
        case SourceConnectionNotFoundError() | JobNotFoundError() | InvalidCursorError():
            return _SAID[type(error)]
        case InvalidTransitionError():
            return 409, f"Sync job is {error.status} already: a finished job never changes"
        case ActiveJobExistsError():
            return 409, f"Source connection has an active job {error.job_id}: let it finish or cancel it first"
        case UnknownOutcomeError():
            _log.error("the outcome of a write is unknown: %s", error)
            return 503, "The storage failed: the write may have landed, look before you repeat it"
        case StorageError():
            _log.error("the storage failed: %s", error)
            return 503, "The storage failed, and nothing was written: try again"
        case _:
            return 500, "The server failed; its log says why"
