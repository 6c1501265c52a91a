"""A real tap in this process as a job; tests/test_exec_counts.py has it in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tap_jsonl.tap import TapJsonl

from jobhistory import JobHistory
from jobhistory.integrations.singer import sync_tap
from tests.integrations.apart.engines import CONNECTION, newest


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "users.jsonl"
    path.write_text("".join(f'{{"id": {number}}}\n' for number in range(1234)))
    return {"path": str(path), "stream_name": "users", "primary_keys": ["id"]}


def test_a_tap_is_a_job_with_its_records_which_go_where_they_went(
    history: JobHistory, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tap = TapJsonl(config=config)
    writer = tap.message_writer

    with history.track(CONNECTION) as run:
        sync_tap(run, tap)

    assert ("COMPLETED", {"inserted": 1234}) == newest(history)
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(range(1234)) == [each["record"]["id"] for each in messages if each["type"] == "RECORD"]
    assert {"SCHEMA", "RECORD", "STATE"} == {each["type"] for each in messages}
    assert writer is tap.message_writer


def test_a_tap_whose_target_is_gone_is_a_failed_job_with_what_it_wrote_before(
    history: JobHistory, config: dict[str, Any]
) -> None:
    tap = TapJsonl(config=config)
    records = []

    def write(message: Any) -> None:
        if message.type == "RECORD":
            records.append(message)
        if len(records) == 100:
            raise BrokenPipeError

    tap.message_writer.write_message = write
    with pytest.raises(BrokenPipeError), history.track(CONNECTION) as run:
        sync_tap(run, tap)

    assert ("FAILED", {"inserted": 99}) == newest(history)


def test_a_tap_stops_behind_a_record_when_it_is_asked_to(history: JobHistory, config: dict[str, Any]) -> None:
    tap = TapJsonl(config=config)

    usual = tap.message_writer.write_message
    records = []

    def write(message: Any) -> None:
        if message.type == "RECORD":
            records.append(message)
        if len(records) == 100:
            run.request_cancel("enough")
        usual(message)

    tap.message_writer.write_message = write
    with history.track(CONNECTION) as run:
        sync_tap(run, tap)

    assert ("CANCELLED", {"inserted": 100}) == newest(history)
    assert 100 == len(records)
