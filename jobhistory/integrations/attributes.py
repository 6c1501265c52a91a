"""A job as attributes: the names under which telemetry and logs tell of it, one set for both.

Errors go by OpenTelemetry's semantic conventions (https://opentelemetry.io/docs/specs/semconv/general/recording-errors/
and .../exceptions/exceptions-logs/); what they have no name for stands under `jobhistory.`.
"""

from __future__ import annotations

from jobhistory.job import SyncJob
from jobhistory.status import JobStatus

Attributes = dict[str, str | int | float]
ACTIONS = ("inserted", "updated", "deleted", "failed")
"""What is counted of entities."""


def attributes(job: SyncJob) -> Attributes:
    """What is known of the job, without its error's text; what is null is left out."""
    known = {
        "jobhistory.job.id": str(job.id),
        "jobhistory.source_connection.id": str(job.source_connection_id),
        "jobhistory.job.status": job.status.value,
        "jobhistory.job.duration": job.duration_seconds,
        "jobhistory.job.worker": job.worker,
        "jobhistory.job.metadata": job.metadata_json,
        **{f"jobhistory.entities.{action}": count for action, count in entities(job).items()},
        "error.type": error_type(job),
    }
    return {name: value for name, value in known.items() if value is not None}


def exception(job: SyncJob) -> dict[str, str]:
    """The error of a job that has one, as the attributes of an exception."""
    if job.error is None:
        return {}
    details = job.error_details or {}
    found = {"exception.type": details.get("type"), "exception.stacktrace": details.get("traceback")}
    return {"exception.message": job.error, **{name: text for name, text in found.items() if isinstance(text, str)}}


def entities(job: SyncJob) -> dict[str, int]:
    """Its four counts, as `{"inserted": 45}`."""
    return {action: getattr(job, f"entities_{action}") for action in ACTIONS}


def error_type(job: SyncJob) -> str | None:
    """The class of the error that it FAILED with, `_OTHER` where it is not known, None where it did not."""
    if job.status is not JobStatus.FAILED:
        return None
    kind = (job.error_details or {}).get("type")
    return kind if isinstance(kind, str) else "_OTHER"
