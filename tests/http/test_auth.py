from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from jobhistory.history import JobHistory
from jobhistory.http import Tokens
from jobhistory.http.service import Service
from jobhistory.repository import SourceConnection
from jobhistory.storage.memory import InMemoryJobRepository
from tests.http.serving import DOCS, DOCS_KEY, JOBS, KEY, OTHERS, TOKENS, UNKNOWN, Stage
from tests.http.test_api import NO_CONNECTION, detail, finished

OPERATIONS = [
    ("GET", "jobs"),
    ("HEAD", "jobs"),
    ("GET", "jobs/events"),
    ("POST", "run"),
    ("GET", "jobs/{job}"),
    ("POST", "jobs/{job}/cancel"),
]


def test_a_request_without_a_key_is_told_how_to_bring_one(client: httpx2.Client) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Basic a2V5"}, {"Authorization": KEY}):
        for path in (JOBS, "/v1/source-connections", "/v1/source-connections/x/jobs?limit=x"):
            response = client.get(path, headers=headers)
            assert 'Bearer realm="jobhistory"' == response.headers["WWW-Authenticate"]
            assert (401, "An API key is needed: Authorization: Bearer KEY") == detail(response)


def test_a_key_that_nobody_has_is_not_valid(client: httpx2.Client) -> None:
    for headers in ({"Authorization": f"Bearer {KEY}x"}, {"Authorization": "", "X-API-Key": "x"}):
        response = client.get(JOBS, headers=headers)
        assert 'Bearer realm="jobhistory", error="invalid_token"' == response.headers["WWW-Authenticate"]
        assert (401, "The API key is not valid") == detail(response)


def test_a_key_may_come_in_either_header(client: httpx2.Client) -> None:
    for headers in ({"Authorization": f"bearer {KEY}"}, {"Authorization": "", "X-API-Key": KEY}):
        assert 200 == client.get(JOBS, headers=headers).status_code


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_is_foreign_and_what_is_missing_answer_alike_byte_for_byte(
    history: JobHistory, client: httpx2.Client, method: str, path: str
) -> None:
    [job] = finished(history, 1, OTHERS)
    answers = []
    for key, connection in ((DOCS_KEY, OTHERS), (DOCS_KEY, UNKNOWN), (KEY, UNKNOWN)):
        response = client.request(
            method,
            f"/v1/source-connections/{connection}/{path.format(job=job.id)}",
            headers={"Authorization": f"Bearer {key}"},
        )
        del response.headers["Date"]
        answers.append((response.status_code, response.headers.raw, response.content))

    assert [answers[0]] * 3 == answers
    assert 404 == answers[0][0]


def test_what_is_wrong_by_itself_is_told_whosever_the_connection_is(history: JobHistory, client: httpx2.Client) -> None:
    headers = {"Authorization": f"Bearer {DOCS_KEY}"}
    [page] = [client.get(JOBS, params={"limit": 1}) for _ in finished(history, 1)]
    cursor = page.links["next"]["url"].partition("before=")[2]

    for query in ("limit=0", f"before={cursor}"):
        answers = [client.get(f"/v1/source-connections/{id}/jobs?{query}", headers=headers) for id in (OTHERS, UNKNOWN)]
        assert [422, 422] == [answer.status_code for answer in answers]
        assert answers[0].content == answers[1].content


def test_authorize_may_be_a_function_or_a_coroutine_function(stage: Stage, history: JobHistory) -> None:
    def blocking(key: str, id: UUID | None) -> bool:
        return key == KEY and id in {None, DOCS}

    async def awaited(key: str, id: UUID | None) -> bool:
        return blocking(key, id)

    for authorize in (blocking, awaited):
        with stage.serving_history(history, authorize=authorize) as client:
            assert 200 == client.get(JOBS).status_code
            assert (404, NO_CONNECTION) == detail(client.get(f"/v1/source-connections/{OTHERS}/jobs"))
            assert 401 == client.get(JOBS, headers={"Authorization": "Bearer x"}).status_code


def test_without_keys_another_sites_page_writes_nothing(stage: Stage, history: JobHistory) -> None:
    job = history.enqueue(DOCS)
    with stage.serving_history(history, authorize=None) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            for path in (f"/v1/source-connections/{DOCS}/run", f"{JOBS}/{job.id}/cancel"):
                assert (403, "Another site's page sent this request: it is refused") == detail(
                    client.post(path, headers=headers)
                )
            assert 200 == client.get(JOBS, headers=headers).status_code
        assert [job] == history.list_jobs(DOCS)
        assert 200 == client.post(f"{JOBS}/{job.id}/cancel", headers={"Origin": stage.url}).status_code


def test_a_server_answers_to_its_own_names_only(stage: Stage, history: JobHistory) -> None:
    with stage.serving_history(history, authorize=None, hosts={"localhost", "::1"}) as client:
        for host, status in (
            ("localhost", 200),
            ("LOCALHOST:80", 200),
            ("[::1]:80", 200),
            ("evil.example", 421),
            ("[", 421),
        ):
            assert status == client.get(JOBS, headers={"Host": host}).status_code


# ---- The token file


def test_a_token_file_holds_keys_and_what_each_opens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# keys\n\nall  # of the team\nsome {DOCS} {OTHERS}\n")
    tokens = Tokens.from_file(path)

    async def answers() -> list[list[bool]]:
        return [[await tokens(key, id) for id in (None, DOCS, UNKNOWN)] for key in ("all", "some", "#", "")]

    import asyncio

    assert [[True, True, True], [True, True, False], [False] * 3, [False] * 3] == asyncio.run(answers())
    assert "some" not in repr(vars(tokens))


@pytest.mark.parametrize(
    ("text", "said"),
    [("# nothing\n", "holds no key"), ("a\na\n", "twice"), ("a not-an-id\n", "not an id: 'not-an-id'")],
)
def test_a_token_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)

    with pytest.raises(ValueError, match=said):
        Tokens.from_file(path)


def test_a_function_is_asked_about_many_connections_in_one_thread() -> None:
    history = JobHistory(InMemoryJobRepository())
    ids = [UUID(int=n) for n in range(100)]
    for id in ids:
        history.register(id)
    here: ContextVar[bool] = ContextVar("here", default=False)
    asked, calls = [], 0

    def last_ones(_key: str, id: UUID | None) -> bool:
        nonlocal calls
        asked.append(id)
        calls += not here.get()  # each call of a thread has a context of its own
        here.set(True)
        return id is not None and id > ids[50]

    async def scenario() -> list[SourceConnection]:
        return await Service(history, last_ones).connections("any", limit=2, after=ids[3])

    assert [ids[51], ids[52]] == [connection.id for connection in asyncio.run(scenario())]
    assert ids[4:53] == asked
    assert 1 == calls


def test_a_function_may_give_what_is_to_be_awaited(stage: Stage, history: JobHistory) -> None:
    def wrapped(key: str, id: UUID | None) -> Awaitable[bool]:
        return TOKENS(key, id)

    with stage.serving_history(history, authorize=wrapped) as client:
        assert 401 == client.get(JOBS, headers={"Authorization": "Bearer wrong"}).status_code
        client.headers["Authorization"] = f"Bearer {DOCS_KEY}"
        assert (200, 404) == tuple(client.get(JOBS.replace(str(DOCS), str(id))).status_code for id in (DOCS, OTHERS))
        assert [str(DOCS)] == [each["id"] for each in client.get("/v1/source-connections").json()]
