"""Slow, oversized and malformed requests, to a server of its own kind."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from starlette.types import Message

from jobhistory.history import JobHistory
from jobhistory.http import create_app
from jobhistory.http.limits import LimitsMiddleware
from jobhistory.http.server import Protocol, Server
from jobhistory.http.service import THREADS, WRITERS
from jobhistory.job import SyncJob
from jobhistory.storage.memory import InMemoryJobRepository
from tests.http.serving import DOCS, JOBS, KEY, NO_CERTIFICATES, TOKENS, Stage, running
from tests.http.test_api import detail

RUN = f"/v1/source-connections/{DOCS}/run"


@pytest.fixture
def line(stage: Stage, history: JobHistory) -> Iterator[socket.socket]:
    """A bare connection to the history's server."""
    stage.app = create_app(history, TOKENS)
    with closing(connected(stage.url)) as line:
        yield line


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def answered(line: socket.socket) -> tuple[bytes, dict[str, object]]:
    """The status line and the problem that come, until the server hangs up."""
    received = b""
    while chunk := line.recv(65536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return head.splitlines()[0], json.loads(body)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nA B: c\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so(line: socket.socket, request_: bytes) -> None:
    line.sendall(request_)

    status, problem = answered(line)

    assert (b"HTTP/1.1 400 Bad Request", 400) == (status, problem["status"])


def test_a_head_without_end_is_cut_off(line: socket.socket) -> None:
    # Just over 64 KiB: what it hung up without reading could cost us the answer.
    line.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 65536)

    status, problem = answered(line)

    assert (b"HTTP/1.1 431 Request Header Fields Too Large", 431) == (status, problem["status"])


def test_a_body_that_is_too_large_is_refused_before_anything_is_done(
    history: JobHistory, client: httpx2.Client, line: socket.socket
) -> None:
    assert (413, "The body has more than 16,384 bytes") == detail(client.post(RUN, content=b"x" * 20_000))
    assert (413, "The body has more than 16,384 bytes") == detail(client.post(RUN, content=iter([b"x" * 10_000] * 2)))
    assert [] == history.list_jobs(DOCS)
    assert 200 == client.post(RUN, content=b"x" * 16_384).status_code

    line.sendall(f"POST {RUN} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n".encode())
    assert b"HTTP/1.1 413" == answered(line)[0][:12]


def test_a_request_that_does_not_come_to_an_end_is_given_up(stage: Stage, history: JobHistory) -> None:
    with stage.serving_history(history, seconds=0.1):
        host, port = stage.url.removeprefix("http://").split(":")
        with closing(socket.create_connection((host, int(port)), timeout=60)) as line:
            line.sendall(f"POST {RUN} HTTP/1.1\r\nX-API-Key: {KEY}\r\nHost: x\r\nContent-Length: 9\r\n\r\nx".encode())

            status, problem = answered(line)

        assert (
            b"HTTP/1.1 503 Service Unavailable",
            "It took too long: look whether it was done before you repeat it",
        ) == (
            status,
            problem["detail"],
        )
        assert [] == history.list_jobs(DOCS)


def test_a_client_that_sends_no_head_is_hung_up_on(history: JobHistory) -> None:
    class Impatient(Protocol):
        head_seconds = 0.5

    with running(create_app(history), Impatient) as url:
        with closing(connected(url)) as silent:
            assert b"" == silent.recv(1)
        with closing(connected(url)) as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):  # its head and its body may come one by one
                answer += slow.recv(65536)
            assert b"HTTP/1.1 200 OK" == answer[:15]
            slow.sendall(b"GET /healthz HT")
            assert b"" == slow.recv(1)


def test_an_answer_does_not_wait_for_the_clients_acknowledgement(history: JobHistory) -> None:
    at_once = []

    class Watched(Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as Protocol's
            super().connection_made(transport)
            line = transport.get_extra_info("socket")
            at_once.append(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)

    with running(create_app(history), Watched) as url, closing(connected(url)) as line:
        line.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"HTTP/1.1 200 OK" == line.recv(15)

    assert [True] == at_once


def test_a_server_may_listen_on_a_socket_of_this_machine(history: JobHistory, tmp_path: Path) -> None:
    server = Server(create_app(history))
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as line:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        line.connect(str(tmp_path / "s"))
        line.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"HTTP/1.1 200 OK" == line.recv(15)
        server.should_exit = True
        thread.join()


def test_an_answer_that_has_begun_may_take_its_time() -> None:
    sent: list[Message] = []

    async def slow(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body"})  # type: ignore[operator]

    async def failing(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        raise TimeoutError

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": []}
    asyncio.run(LimitsMiddleware(slow, seconds=0.01)(scope, receive, send))
    assert ["http.response.start", "http.response.body"] == [message["type"] for message in sent]
    with pytest.raises(TimeoutError):
        asyncio.run(LimitsMiddleware(failing, seconds=60)(scope, receive, send))


def test_what_is_not_http_passes_the_limits() -> None:
    seen = []

    async def app(scope: dict[str, object], *_: object) -> None:
        seen.append(scope["type"])

    asyncio.run(LimitsMiddleware(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]

    assert ["lifespan"] == seen


def test_a_hundred_clients_at_a_time_are_served(history: JobHistory, stage: Stage) -> None:
    history.enqueue(DOCS)

    async def ask(client: httpx2.AsyncClient) -> int:
        return (await client.get(JOBS, params={"limit": 10})).status_code

    async def all_at_once() -> list[int]:
        async with httpx2.AsyncClient(
            base_url=stage.url, headers={"X-API-Key": KEY}, timeout=60, limits=httpx2.Limits(max_connections=None)
        ) as client:
            return await asyncio.gather(*(ask(client) for _ in range(100)))

    with stage.serving_history(history):
        assert [200] * 100 == asyncio.run(all_at_once())


def test_writes_that_wait_for_another_do_not_keep_readers_waiting(stage: Stage) -> None:
    came, began, free = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    class Locked(InMemoryJobRepository):
        def list_jobs(self, source_connection_id: UUID, **options: Any) -> list[SyncJob]:  # noqa: ANN401  as it is
            came.release()  # to look whether there is such a connection
            return super().list_jobs(source_connection_id, **options)

        def add(self, job: SyncJob, *, exclusive: bool = False) -> None:
            began.release()
            assert free.wait(60)
            super().add(job, exclusive=exclusive)

    async def scenario() -> None:
        async with httpx2.AsyncClient(base_url=stage.url, timeout=20, verify=NO_CERTIFICATES) as client:
            writes = [asyncio.create_task(client.post(RUN)) for _ in range(THREADS)]
            for each in [came] * THREADS + [began] * WRITERS:
                await asyncio.to_thread(each.acquire)
            try:
                assert 200 == (await client.get("/healthz")).status_code
            finally:
                free.set()
            assert [200] * THREADS == [answer.status_code for answer in await asyncio.gather(*writes)]

    history = JobHistory(Locked())
    history.register(DOCS)
    with stage.serving_history(history, authorize=None):
        asyncio.run(scenario())


def test_that_nobody_can_connect_is_told_once_a_second(
    history: JobHistory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: clock[0])
        server = Server(create_app(history))
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([])
        for clock[0] in (1.0, 1.5, 2.0):
            for _ in range(3):
                loop.call_exception_handler({"message": "accept", "exception": OSError(errno.EMFILE, "Too many")})
        loop.call_exception_handler({"message": "something else"})

    clock = [0.0]
    asyncio.run(scenario())

    said = "nobody can connect for now: Too many (more at a time: ulimit -n)"
    assert [said, said, "something else"] == [record.getMessage() for record in caplog.records]
