from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import attrs
import httpx2
import pytest
import uvicorn

from jobhistory.errors import StorageError
from jobhistory.history import JobHistory
from jobhistory.http import create_app, events
from jobhistory.http.events import Feed
from jobhistory.repository import Change
from jobhistory.storage.memory import InMemoryJobRepository
from tests.http.serving import DOCS, JOBS, KEY, NO_CERTIFICATES, OTHERS, TOKENS, Stage, running
from tests.http.test_api import detail
from tests.workers import Troubled

EVENTS = f"{JOBS}/events"


@attrs.define
class Stream:
    """An open event stream, as a client reads it."""

    response: httpx2.Response
    _lines: Iterator[str]

    def frame(self) -> dict[str, str]:
        """The next frame, its fields by name; a comment's name is empty."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        return {}

    def event(self) -> tuple[str, str]:
        """The next event's id and what its job became."""
        while "data" not in (fields := self.frame()):
            pass
        return fields["id"], json.loads(fields["data"])["status"]


@contextmanager
def listening(client: httpx2.Client, url: str = EVENTS, **headers: str) -> Iterator[Stream]:
    with client.stream(
        "GET", url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ) as response:
        yield Stream(response, response.iter_lines())


def test_a_stream_tells_each_change_of_its_connections_jobs(history: JobHistory, client: httpx2.Client) -> None:
    with listening(client) as stream:
        assert "text/event-stream; charset=utf-8" == stream.response.headers["Content-Type"]
        assert {"": "changes as they come", "retry": "2000"} == stream.frame()
        history.enqueue(OTHERS)
        job = history.enqueue(DOCS)

        first = stream.frame()
        assert {"event": "job", "data": json.dumps(job.to_dict(), separators=(",", ":"))} == {
            name: first[name] for name in ("event", "data")
        }
        history.cancel(job.id)
        assert "CANCELLED" == stream.event()[1]


def test_a_stream_resumes_behind_the_last_event_that_came(history: JobHistory, client: httpx2.Client) -> None:
    with listening(client) as stream:
        stream.frame()
        job = history.enqueue(DOCS)
        last, _ = stream.event()
    history.start(job.id)
    history.report(job.id, inserted=3)
    history.complete(job.id)

    with listening(client, Last_Event_ID=last) as stream:
        assert last == stream.frame()["id"]
        assert "COMPLETED" == stream.event()[1]


def test_a_place_that_is_none_is_refused(client: httpx2.Client) -> None:
    assert (422, "Last-Event-ID is not the id of an event: leave it out, and list what there is") == detail(
        client.get(EVENTS, headers={"Last-Event-ID": "x"})
    )


def test_a_silent_stream_says_that_it_is_there_and_where(stage: Stage, history: JobHistory) -> None:
    with stage.serving_history(history, comment_every=0.01) as client, listening(client) as stream:
        stream.frame()
        history.enqueue(OTHERS)
        [change] = history.changes()

        while (frame := stream.frame()) == {"": "still here"}:
            pass
        assert {"": "still here", "id": change.token} == frame


def test_streams_end_when_the_server_stops(history: JobHistory) -> None:
    app = create_app(history, TOKENS)
    with httpx2.Client(headers={"X-API-Key": KEY}, timeout=60, verify=NO_CERTIFICATES) as client:
        with running(app) as url:
            stream = client.send(client.build_request("GET", url + EVENTS), stream=True)
            lines = stream.iter_lines()
            next(lines)
        assert "" == [*lines][-1]
        stream.close()


def test_streams_end_when_a_server_that_is_not_ours_stops() -> None:
    class Stopping(JobHistory):
        def wait_for_changes(self, *args: object, **options: object) -> list[Change]:
            del args, options
            server.should_exit = True
            return []

    history = Stopping(InMemoryJobRepository())
    server = uvicorn.Server(uvicorn.Config(create_app(history)))

    async def scenario() -> list[list[Change]]:
        listener = Feed(history).listen(None, every=60)
        return await asyncio.wait_for(_all(listener), 20)

    with server.capture_signals():
        assert [] == asyncio.run(scenario())


async def _all(listener: AsyncIterator[list[Change]]) -> list[list[Change]]:
    return [batch async for batch in listener]


# ---- The feed by itself


class Counted(JobHistory):
    """A history that counts the reads of those who do not wait for others to read."""

    own_reads = 0
    _here = threading.local()

    def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
        self.own_reads += not getattr(self._here, "waits", False)
        return super().changes(after, limit=limit)

    def wait_for_changes(self, *args: Any, **options: Any) -> list[Change]:  # noqa: ANN401  as it is
        self._here.waits = True
        try:
            return super().wait_for_changes(*args, **options)
        finally:
            self._here.waits = False


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  the feed has nobody to tell a test
        await asyncio.sleep(0)


async def collected(feed: Feed, token: str | None, number: int) -> list[Change]:
    """So many changes, from a place on."""
    found: list[Change] = []
    listener = feed.listen(token, every=60)
    async for batch in listener:
        found += batch
        if len(found) >= number:
            break
    await listener.aclose()
    return found


def test_one_reader_serves_all_who_listen() -> None:
    history = Counted(InMemoryJobRepository())
    history.enqueue(DOCS)
    feed = Feed(history)

    async def scenario() -> None:
        place = await feed.place(None)
        async with asyncio.TaskGroup() as tasks:
            listeners = [tasks.create_task(collected(feed, place, 3)) for _ in range(20)]
            await until(lambda: feed._listeners == len(listeners))
            for _ in range(3):
                await asyncio.to_thread(history.enqueue, DOCS)
        assert 0 == history.own_reads
        assert [history.changes(place)] * 20 == [listener.result() for listener in listeners]
        assert feed._reader is None

    asyncio.run(scenario())


def test_who_is_slow_reads_by_himself_what_is_no_longer_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_KEPT", 2)
    history = JobHistory(InMemoryJobRepository())
    feed = Feed(history)

    async def scenario() -> None:
        slow = feed.listen(None, every=60)
        first = asyncio.ensure_future(anext(slow))
        history.enqueue(DOCS)
        found = await first
        for _ in range(10):
            history.enqueue(DOCS)
        newest = history.latest_change()
        quick = await collected(feed, found[-1].token, 10)
        await until(lambda: newest in feed._newest)
        assert 2 == len(feed._newest)
        assert quick == await anext(slow)
        assert [*found, *quick] == await collected(feed, None, 11), "from where the reader began"
        await slow.aclose()

    asyncio.run(scenario())


def test_a_storage_that_fails_for_a_while_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_PAUSE", 0)
    troubled = Troubled(InMemoryJobRepository(), wait_for_changes=["down", "down"])
    history = JobHistory(troubled)
    feed = Feed(history)

    async def scenario() -> None:
        listener = asyncio.ensure_future(collected(feed, None, 1))
        await until(lambda: not troubled.words["wait_for_changes"])
        job = history.enqueue(DOCS)
        assert [job] == [change.job for change in await listener]

    asyncio.run(scenario())


def test_a_listener_that_cannot_read_is_told() -> None:
    class Down(InMemoryJobRepository):
        def changes(self, after: str | None = None, *, limit: int = 1000) -> list[Change]:
            del after, limit
            raise StorageError("there", "is down")

    async def scenario() -> None:
        feed = Feed(JobHistory(Down()))
        waiting = asyncio.ensure_future(anext(feed.listen("1", every=60)))
        await until(lambda: feed._reader is not None)
        with pytest.raises(StorageError):
            await anext(feed.listen("2", every=60))
        waiting.cancel()

    asyncio.run(scenario())


def test_the_page_hears_of_the_connections_that_its_reader_may_see(stage: Stage, history: JobHistory) -> None:
    async def docs_only(key: str, id: UUID | None) -> bool:
        return bool(key) and id in {None, DOCS}

    with stage.serving_history(history, authorize=docs_only) as client:
        client.cookies.set("jobhistory_key", "any")
        for url in ("/live", f"/connections/{DOCS}/live"):
            with listening(client, url) as stream:
                stream.frame()
                history.enqueue(OTHERS)
                job = history.enqueue(DOCS)
                for _ in range(2):
                    while "data" not in (fields := stream.frame()):
                        pass
                    assert str(job.id) == fields["data"]
                    history.cancel(job.id)
