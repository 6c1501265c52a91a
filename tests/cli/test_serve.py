from __future__ import annotations

import builtins
import functools
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobhistory.history import JobHistory
from tests.cli.command_line import CommandLine
from tests.cli.test_transfer import CONNECTION, EXAMPLE
from tests.workers import needed

# The contract's own line, word for word.
CURL = r"""curl "https://api.airweave.ai/v1/source-connections/550e8400-e29b-41d4-a716-446655440000/jobs?limit=10" \
-H "Authorization: Bearer YOUR_API_KEY"
"""

# A process that has just begun may take longer than the client's own 5 s on a busy machine.
get = functools.partial(httpx2.get, timeout=60)


@contextmanager
def serving(cli: CommandLine, *words: str) -> Iterator[tuple[str, str]]:
    """Where `jobhistory serve` serves, and the line that says so."""
    command = [sys.executable, "-m", "jobhistory.cli", "--db", cli.url, "serve", "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        [url] = re.findall(r"http://\S+:\d+", line)
        try:
            yield url, line
        finally:
            process.send_signal(signal.SIGINT)
            assert 130 == process.wait()


@pytest.fixture
def example(cli: CommandLine, tmp_path: Path) -> Path:
    """A token file; the history holds the contract's example."""
    (tmp_path / "example.json").write_text(EXAMPLE)
    assert 0 == cli("import", str(tmp_path / "example.json")).exit_code
    tokens = tmp_path / "tokens"
    tokens.write_text("YOUR_API_KEY\n")
    return tokens


def test_the_contracts_own_line_is_answered_with_its_example(cli: CommandLine, example: Path) -> None:
    with serving(cli, "--token-file", str(example)) as (url, line):
        assert "No --token-file" not in line
        words = shlex.split(CURL.replace("\\\n", "").replace("https://api.airweave.ai", url))
        words[0] = needed("curl", "apt-get install curl")
        answer = subprocess.run([*words, "-s"], capture_output=True, text=True, check=True).stdout

    assert json.dumps(json.loads(EXAMPLE)) == json.dumps(json.loads(answer))


def test_a_published_client_of_the_contract_lists_runs_and_cancels(
    cli: CommandLine, example: Path, history: JobHistory
) -> None:
    from airweave import AirweaveSDK
    from airweave.errors import NotFoundError

    with serving(cli, "--token-file", str(example)) as (url, _):
        client = AirweaveSDK(api_key="YOUR_API_KEY", base_url=url)
        closing = client._client_wrapper.httpx_client.httpx_client
        listed = client.source_connections.get_source_connection_jobs(str(CONNECTION), limit=10)
        run = client.source_connections.run(str(CONNECTION))
        cancelled = client.source_connections.cancel_job(source_connection_id=str(CONNECTION), job_id=run.id)
        with pytest.raises(NotFoundError) as refused:
            client.source_connections.get_source_connection_jobs(str(history.enqueue(CONNECTION).id))
        closing.close()

    assert [job["id"] for job in json.loads(EXAMPLE)] == [job.id for job in listed]
    assert (332.5, "FAILED") == (listed[0].duration_seconds, listed[1].status)
    assert ("PENDING", "CANCELLED") == (run.status, cancelled.status)
    assert "Source connection with the specified ID does not exist" == refused.value.body.detail


def test_without_a_token_file_it_serves_this_machine_and_says_so(cli: CommandLine, history: JobHistory) -> None:
    history.enqueue(CONNECTION)
    with serving(cli) as (url, line):
        assert f"Serving {cli.url} at http://127.0.0.1:" in line
        assert "No --token-file: for this machine only, and for everybody on it." in line
        assert 1 == len(get(f"{url}/v1/source-connections").json())
        assert 421 == get(f"{url}/v1/source-connections", headers={"Host": "evil.example"}).status_code


def test_metrics_are_served_where_they_are_asked_for_to_a_key_for_all(cli: CommandLine, example: Path) -> None:
    with example.open("a") as tokens:
        tokens.write(f"LIMITED {CONNECTION}\n")

    with serving(cli, "--metrics", "--token-file", str(example)) as (url, _):
        answers = [
            get(f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}) for key in ("YOUR_API_KEY", "LIMITED")
        ]

    assert [200, 403] == [answer.status_code for answer in answers]
    assert 'jobhistory_jobs_total{status="COMPLETED"} 0.0' in answers[0].text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])  # noqa: S104  it is refused
def test_without_a_token_file_other_machines_are_not_served(cli: CommandLine, history: JobHistory, host: str) -> None:
    history.enqueue(CONNECTION)

    result = cli("serve", "--host", host)

    assert (2, f"Error: {host} is reached from other machines: give --token-file, or serve on 127.0.0.1\n") == (
        result.exit_code,
        result.stderr,
    )


def test_it_serves_an_address_of_version_6(cli: CommandLine, history: JobHistory) -> None:
    history.enqueue(CONNECTION)
    with serving(cli, "--host", "::1") as (url, _):
        assert url.startswith("http://[::1]:")
        assert {"status": "ok"} == get(f"{url}/healthz").json()


def test_a_token_file_that_is_no_good_is_told(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.enqueue(CONNECTION)
    (tmp_path / "tokens").touch()

    result = cli("serve", "--token-file", str(tmp_path / "tokens"))
    assert (2, f"Error: {tmp_path}/tokens holds no key: write one a line\n") == (result.exit_code, result.stderr)
    assert "No such file" in cli("serve", "--token-file", str(tmp_path / "none")).stderr


def test_a_port_that_is_taken_is_told(cli: CommandLine, history: JobHistory) -> None:
    history.enqueue(CONNECTION)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = cli("serve", "--port", str(taken.getsockname()[1]))

    assert (1, True) == (result.exit_code, "Address already in use" in result.stderr)


def test_a_history_that_is_not_there_is_not_made(cli: CommandLine) -> None:
    assert 3 == cli("serve").exit_code


def test_the_extra_that_is_missing_is_named(
    cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.enqueue(CONNECTION)
    usual = builtins.__import__

    def without_fastapi(name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  as it is
        if name == "fastapi":
            raise ImportError(name="fastapi")
        return usual(name, *args, **options)

    for name in [name for name in sys.modules if name.startswith("jobhistory.http")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_fastapi)

    result = cli("serve")

    assert (1, "Error: jobhistory.http needs fastapi: pip install 'jobhistory[http]'\n") == (
        result.exit_code,
        result.stderr,
    )
