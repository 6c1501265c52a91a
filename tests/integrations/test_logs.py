"""Log records, as a formatter writes them."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from jobhistory.integrations.logs import LoggingHook
from tests.integrations.stories import STACK, cancelled, completed, failed, never_started, told, vanished
from tests.workers import CONNECTION


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("jobhistory.jobs")
    yield logger
    logger.setLevel(logging.NOTSET)


def test_each_change_is_a_record_with_its_fields(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.setLevel(logging.DEBUG)
    job = completed(*told(LoggingHook()))

    assert [
        ("INFO", "PENDING", 0),
        ("INFO", "RUNNING", 0),
        ("DEBUG", "RUNNING", 45),
        ("DEBUG", "RUNNING", 45),
        ("INFO", "COMPLETED", 45),
    ] == [
        (
            record.levelname,
            getattr(record, "jobhistory.job.status"),
            getattr(record, "jobhistory.entities.inserted"),
        )
        for record in caplog.records
    ]
    last = vars(caplog.records[-1])
    assert f"sync job {job.id} is COMPLETED" == caplog.messages[-1]
    assert {
        "jobhistory.job.id": str(job.id),
        "jobhistory.source_connection.id": str(CONNECTION),
        "jobhistory.job.status": "COMPLETED",
        "jobhistory.job.duration": 89.5,
        "jobhistory.job.worker": "host:7:tag",
        "jobhistory.job.metadata": '{"trigger":"schedule"}',
        "jobhistory.entities.inserted": 45,
        "jobhistory.entities.updated": 12,
        "jobhistory.entities.deleted": 3,
        "jobhistory.entities.failed": 1,
    } == {name: value for name, value in last.items() if "." in name}


def test_a_failure_is_an_error_with_its_exception(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    failed(*told(LoggingHook(logger)))
    vanished(*told(LoggingHook(logger)))

    first, second = [vars(record) for record in caplog.records if record.levelno == logging.ERROR]
    assert ("github.BadTokenError", "github.BadTokenError", "BadTokenError: expired", STACK) == tuple(
        first[name] for name in ("error.type", "exception.type", "exception.message", "exception.stacktrace")
    )
    assert "_OTHER" == second["error.type"]
    assert "exception.type" not in second
    assert second["exception.message"].startswith("its worker vanished")
    assert "expired" not in first["msg"] % first["args"]


def test_a_cancel_is_no_error(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    logger.setLevel(logging.INFO)
    cancelled(*told(LoggingHook(logger)))
    never_started(*told(LoggingHook(logger)))

    assert ["INFO"] * len(caplog.records) == [record.levelname for record in caplog.records]
    assert ["PENDING", "RUNNING", "CANCELLING", "CANCELLED", "PENDING", "CANCELLED"] == [
        getattr(record, "jobhistory.job.status") for record in caplog.records
    ]


def test_a_format_string_takes_the_fields() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(jobhistory.job.status)s %(jobhistory.entities.inserted)d"))
    logger = logging.getLogger("of its own")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)

    completed(*told(LoggingHook(logger)))

    assert ["INFO PENDING 0", "INFO RUNNING 0", "INFO COMPLETED 45"] == stream.getvalue().splitlines()
