"""Many tenants of one server ask for each other's things, in every way there is: none sees or touches any.

Each answer is searched for whatever is another tenant's: ids, names, texts. What is foreign answers as what does
not exist, byte for byte; and afterwards nothing is written that its owner did not ask for.
"""

from __future__ import annotations

import base64
import random
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import attrs
import pytest
from fastapi import HTTPException

import jobhistory
from jobhistory.history import JobHistory
from jobhistory.http import Authorize, Tokens, create_app
from jobhistory.http.page import COOKIE
from jobhistory.job import SyncJob
from jobhistory.repository import Cursor
from jobhistory.status import JobStatus
from tests.faults.campaign import sizes
from tests.http.serving import running

TENANTS, CONNECTIONS, JOBS = 5, 2, 4
BAD = 300
# Ids in full and as the page cuts them, and the mark that is in each text of a tenant; cursors hold ids, too.
MARKS = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}(?:-[0-9a-f]{4}){0,2}(?:-[0-9a-f]{12})?|secret-[0-9a-f]+|AQ[\w=-]{70,}")


def shouted(id: UUID) -> str:
    return str(id).upper()


def quoted(id: UUID) -> str:
    """Each character as an escape."""
    return "".join(f"%{ord(character):02x}" for character in str(id))


SPELLINGS = (str, shouted, quoted)


@attrs.frozen
class Tenant:
    """A key, what it opens, and the mark in all that is written there."""

    key: str
    mark: str
    connections: list[UUID]


@attrs.define
class Ask:
    """A request, and the things that it names: `malformed` where it does so in a way that is none."""

    method: str
    path: str
    headers: dict[str, str]
    connection: UUID | None = None
    job: UUID | None = None
    malformed: bool = False


class World:
    """The tenants' histories, and whose each thing is."""

    def __init__(self, history: JobHistory, dice: random.Random) -> None:
        self.history = history
        self.dice = dice
        self.tenants: list[Tenant] = []
        self.jobs: dict[UUID, list[UUID]] = {}
        # The start of an id is a millisecond, which may be several tenants'.
        self.owners: defaultdict[bytes, list[Tenant]] = defaultdict(list)
        self.cancelled: set[UUID] = set()
        for n in range(TENANTS):
            tenant = Tenant(f"key-{dice.getrandbits(64):x}", f"secret-{dice.getrandbits(48):012x}", [])
            self.tenants.append(tenant)
            self.owners[tenant.mark.encode()].append(tenant)
            for m in range(CONNECTIONS):
                id = UUID(int=dice.getrandbits(128))
                tenant.connections.append(id)
                self.jobs[id] = []
                history.register(id, f"{tenant.mark} {n}.{m} <é>")
                self.own(tenant, id)
                for _ in range(JOBS):
                    self.note(tenant, id, self._finished(tenant, id))
                self.note(tenant, id, history.enqueue(id, metadata={"why": tenant.mark}))

    def _finished(self, tenant: Tenant, id: UUID) -> SyncJob:
        job = self.history.start(self.history.enqueue(id, metadata={"why": tenant.mark}).id, worker=tenant.mark)
        if self.dice.random() < 0.5:
            return self.history.complete(job.id)
        return self.history.fail(job.id, error=f"{tenant.mark} failed", error_details={tenant.mark: [tenant.mark]})

    def own(self, tenant: Tenant, id: UUID) -> None:
        for mark in (str(id), str(id)[:13]):
            self.owners[mark.encode()].append(tenant)

    def note(self, tenant: Tenant, connection: UUID, job: SyncJob) -> None:
        self.jobs[connection].append(job.id)
        self.own(tenant, job.id)

    def cursor(self, connection: UUID, statuses: frozenset[JobStatus] | None = None) -> str:
        job = self.history.get(self.dice.choice(self.jobs[connection]))
        return str(Cursor(connection, Cursor.after(job).position, statuses))

    def is_foreign(self, tenant: Tenant, mark: bytes) -> bool:
        if mark.startswith(b"AQ"):
            mark = str(UUID(bytes=base64.urlsafe_b64decode(mark)[1:17])).encode()
        return mark in self.owners and tenant not in self.owners[mark]

    def foreign(self, tenant: Tenant, text: bytes) -> set[bytes]:
        """What there is of other tenants in a text."""
        return {mark for mark in MARKS.findall(text) if self.is_foreign(tenant, mark)}


class Campaign:
    """Asks random things with random keys, and judges each answer."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.dice = world.dice
        self.line = HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.asked = self.given = 0
        self.leaked: list[tuple[Ask, int, set[bytes]]] = []
        self.differing: list[tuple[Ask, Ask]] = []
        self.unasked: list[UUID] = []

    def one(self) -> None:
        tenant = self.dice.choice(self.world.tenants)
        ask = self._ask(tenant)
        status, head, body = self._answer(ask)
        self.asked += 1
        said = head + b"\n" + body
        told = unquote(ask.path).lower().encode()
        leaks = {mark for mark in self.world.foreign(tenant, said) if mark.lower() not in told}
        is_own = ask.connection is None or ask.connection in tenant.connections
        is_its = ask.job is None or (ask.connection is not None and ask.job in self.world.jobs[ask.connection])
        may = is_own and is_its and not ask.malformed
        if leaks or (status < BAD and not may):
            self.leaked.append((ask, status, leaks))
        if may:
            self.given += status < BAD and tenant.mark.encode() in body
            self._remember(tenant, ask, status, body)
        elif not ask.malformed and self.dice.random() < 0.25:
            self.asked += 1
            name = ask.job if is_own or (ask.job is not None and self.dice.random() < 0.5) else ask.connection
            assert name is not None
            if (status, head, body) != self._answer(missing := self._missing(ask, name)):
                self.differing.append((ask, missing))

    def _remember(self, tenant: Tenant, ask: Ask, status: int, body: bytes) -> None:
        if ask.method == "POST" and status in {200, 303} and ask.connection is not None:
            if ask.job is not None:
                self.world.cancelled.add(ask.job)
            else:
                self.world.note(tenant, ask.connection, self.world.history.get(body[7:43].decode()))

    def _missing(self, ask: Ask, name: UUID) -> Ask:
        """The same, but that its connection, or its job, does not exist."""
        path, unknown = ask.path, UUID(int=self.dice.getrandbits(128))
        for spell in SPELLINGS:
            path = path.replace(spell(name), spell(unknown))
        if name == ask.connection and "before=" in path:
            before, _, cursor = path.partition("before=")
            parsed = Cursor.parse(cursor)
            path = f"{before}before={attrs.evolve(parsed, source_connection_id=unknown)}"
        return Ask(ask.method, path, ask.headers)

    def _answer(self, ask: Ask) -> tuple[int, bytes, bytes]:
        self.line.request(ask.method, ask.path, headers=ask.headers)
        with closing(self.line.getresponse()) as response:
            is_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
            body = until_blank_line(response) if is_stream else response.read()
        if is_stream:
            self.line.close()
        head = "".join(f"{name}: {value}\n" for name, value in response.getheaders() if name.lower() != "date")
        return response.status, head.encode(), body

    def _ask(self, tenant: Tenant) -> Ask:
        dice, world = self.dice, self.world
        whose = tenant if dice.random() < 0.35 else dice.choice(world.tenants)
        connection = dice.choice(whose.connections)
        job = dice.choice(world.jobs[connection if dice.random() < 0.6 else dice.choice([*world.jobs])])
        spell = dice.choice(SPELLINGS)
        c, j = spell(connection), spell(job)
        prefix = dice.choice(["/v1", ""])
        base, page = f"{prefix}/source-connections/{c}", f"/connections/{c}"
        slash = dice.choice(["", "", "/"])
        bearer = dice.choice([("Authorization", "Bearer "), ("Authorization", "bearer "), ("X-API-Key", "")])
        headers = {bearer[0]: bearer[1] + tenant.key, "Cookie": f"{COOKIE}={tenant.key}", "Accept-Encoding": "identity"}
        about: dict[str, Any] = {"connection": connection}
        both: dict[str, Any] = {"connection": connection, "job": job}
        own = str(dice.choice(tenant.connections))
        none: dict[str, Any] = {"connection": connection, "malformed": True}
        nobody: dict[str, Any] = {}
        cursor = world.cursor(connection, dice.choice([None, frozenset(JobStatus)]))
        statuses = "".join(f"status={status}&" for status in JobStatus) if Cursor.parse(cursor).statuses else ""
        method, path, named = dice.choice(
            [
                ("GET", f"{base}/jobs{slash}?limit={dice.randint(1, 9)}", about),
                ("HEAD", f"{base}/jobs{slash}", about),
                ("GET", f"{base}/jobs?{statuses}limit=3&before={cursor}", about),
                ("GET", f"{base}/jobs?status=FAILED&status=PENDING", about),
                ("GET", f"{base}/jobs/{j}{slash}", both),
                ("POST", f"{base}/jobs/{j}/cancel{slash}", both),
                ("POST", f"{base}/run?exclusive={dice.choice(['true', 'true', 'true', 'false'])}", about),
                ("GET", f"{base}/jobs/events", about),
                ("GET", f"{prefix}/source-connections{slash}?limit={dice.randint(1, 3)}", nobody),
                ("GET", f"{prefix}/source-connections?after={connection}", nobody),
                # A cursor of somebody else; ways around the path; ids that are none.
                ("GET", f"{prefix}/source-connections/{own}/jobs?before={cursor}", nobody),
                ("GET", f"{prefix}/source-connections/{own}/../{c}/jobs", none),
                ("GET", f"{prefix}/source-connections/{own}%2F..%2F{c}/jobs", none),
                ("GET", f"{base}{dice.choice(['%00', '%20', '%0a', ';', '%EF%BC%91'])}/jobs", none),
                ("GET", f"{prefix}/source-connections/{dice.choice(['{%s}', 'urn:uuid:%s', '%%7B%s%%7D']) % c}/jobs",
                 none),
                ("GET", f"{prefix}/source-connections/{own}/jobs/{j}", {"connection": UUID(own), "job": job}),
                # The page.
                ("GET", page, about),
                ("GET", f"{page}?{statuses}before={cursor}", about),
                ("GET", f"{page}/jobs/{j}", both),
                ("GET", f"{page}/jobs/{j}/cancel", both),
                ("POST", f"{page}/jobs/{j}/cancel", both),
                ("GET", f"{page}/live", about),
                ("GET", "/live", nobody),
                ("GET", "/", nobody),
                ("GET", f"/?after={connection}", nobody),
            ]
        )  # fmt: skip
        if path.endswith(("/events", "/live")):
            headers["Last-Event-ID"] = dice.choice(["1", "7", world.history.latest_change() or "1"])
        return Ask(method, path, headers, **named)


def until_blank_line(response: HTTPResponse) -> bytes:
    """A stream's first event."""
    lines = []
    while (line := response.readline()).strip():
        lines.append(line)
    return b"".join(lines)


class Listener(threading.Thread):
    """Reads a tenant's stream from the first change on, to its end."""

    def __init__(self, url: str, path: str, tenant: Tenant) -> None:
        super().__init__(daemon=True)
        self.tenant = tenant
        self.line = HTTPConnection(urlsplit(url).netloc, timeout=600)
        headers = {"Authorization": f"Bearer {tenant.key}", "Cookie": f"{COOKIE}={tenant.key}", "Last-Event-ID": "1"}
        self.line.request("GET", path, headers=headers)
        self.response = self.line.getresponse()
        self.heard = b""
        self.start()

    def run(self) -> None:
        while chunk := self.response.read1():
            self.heard += chunk
        self.line.close()


def listeners(world: World, url: str) -> Iterator[Listener]:
    for tenant in world.tenants:
        yield Listener(url, "/live", tenant)
        yield Listener(url, f"/v1/source-connections/{tenant.connections[0]}/jobs/events", tenant)


def let_loose(folder: Path, seed: int, size: int, authorize: Any = None) -> tuple[World, Campaign, list[Listener]]:  # noqa: ANN401  Authorize, or made of tokens
    """So many requests to a server of its own, and what came of them."""
    with jobhistory.open(folder / "history.db") as history:
        world = World(history, random.Random(seed))
        tokens: Authorize = authorize or Tokens({tenant.key: tenant.connections for tenant in world.tenants})
        app = create_app(history, tokens)
        with running(app) as url, ExitStack() as at_the_end:
            heard = list(listeners(world, url))
            campaign = Campaign(world, url)
            at_the_end.callback(campaign.line.close)
            while campaign.asked < size:
                campaign.one()
        for listener in heard:
            listener.join()
        campaign.unasked = unasked(world)
    print(f"{campaign.asked:,} requests, {campaign.given:,} of them answered with the tenant's own, "
          f"{len(campaign.leaked)} with another's, {len(campaign.differing)} told foreign from missing")  # fmt: skip
    return world, campaign, heard


def unasked(world: World) -> list[UUID]:
    """The jobs that are there, or stopped, though no owner asked for that."""
    return [
        job.id
        for connection, known in world.jobs.items()
        for job in world.history.iter_jobs(connection)
        if job.id not in known or (job.status is JobStatus.CANCELLED and job.id not in world.cancelled)
    ]


@sizes(short=120, full=100_000)
def test_no_tenant_sees_or_touches_anothers_jobs(folder: Path, seed: int, size: int) -> None:
    world, campaign, heard = let_loose(folder, seed, size)

    assert ([], [], []) == (campaign.leaked, campaign.differing, campaign.unasked)
    assert campaign.given > size // 20
    for listener in heard:
        assert set() == world.foreign(listener.tenant, listener.heard)
        assert str(world.jobs[listener.tenant.connections[0]][0]).encode() in listener.heard


def test_a_server_that_lets_everybody_see_everything_is_caught(folder: Path) -> None:
    async def anybody(_key: str, _id: UUID | None) -> bool:
        return True

    world, campaign, heard = let_loose(folder, 1, 100, anybody)

    assert len(campaign.leaked) > 10
    assert campaign.unasked
    assert all(world.foreign(listener.tenant, listener.heard) for listener in heard[::2])


def test_a_server_that_tells_foreign_from_missing_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobhistory.http import service

    check = service.Service.check

    async def telling(self: service.Service, key: str | None, id: UUID) -> None:
        if not await self.allows(key, id):
            try:
                self.history.list_jobs(id, limit=1)
            except LookupError:
                pass
            else:
                raise HTTPException(403, "It is somebody else's")
        await check(self, key, id)

    monkeypatch.setattr(service.Service, "check", telling)

    _, campaign, _ = let_loose(folder, 1, 200)

    assert campaign.differing
