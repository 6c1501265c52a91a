from __future__ import annotations

import gzip
import json
from itertools import product
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given
from starlette.responses import PlainTextResponse
from starlette.routing import Match

from jobhistory.errors import StorageError, UnknownOutcomeError
from jobhistory.history import JobHistory
from jobhistory.http import create_router, schema
from jobhistory.http.wire import job_json
from jobhistory.job import WIRE_FIELDS, SyncJob
from jobhistory.repository import Cursor
from jobhistory.status import JobStatus
from jobhistory.storage.memory import InMemoryJobRepository
from jobhistory.testing.strategies import jobs
from tests.http.serving import DOCS, DOCS_KEY, JOBS, KEY, OTHERS, TOKENS, UNKNOWN, Stage
from tests.workers import Troubled

EXAMPLE = [schema.COMPLETED, schema.FAILED]
NO_CONNECTION = "Source connection with the specified ID does not exist"


def finished(history: JobHistory, number: int, connection: UUID = DOCS) -> list[SyncJob]:
    """So many completed jobs, newest first."""
    ended = [history.complete(history.start(history.enqueue(connection).id).id) for _ in range(number)]
    return ended[::-1]


def detail(response: httpx2.Response) -> tuple[int, str]:
    """A problem's status and sentence."""
    assert "application/problem+json" == response.headers["Content-Type"]
    body = response.json()
    assert ["type", "title", "status", "detail"] == list(body)
    assert response.status_code == body["status"]
    return body["status"], body["detail"]


# ---- Lists


def test_a_list_is_the_contracts_example_to_the_letter(history: JobHistory, client: httpx2.Client) -> None:
    history.add_many(map(SyncJob.from_dict, EXAMPLE))

    response = client.get(JOBS, params={"limit": 10})

    assert (200, "application/json") == (response.status_code, response.headers["Content-Type"])
    assert json.dumps(EXAMPLE) == json.dumps(response.json())
    assert [list(WIRE_FIELDS)] * 2 == [list(job) for job in response.json()]


@given(jobs())
def test_a_job_in_bytes_is_its_dict_as_json(job: SyncJob) -> None:
    assert json.dumps(job.to_dict(), ensure_ascii=False, separators=(",", ":")) == job_json(job)


def test_a_connection_without_jobs_has_an_empty_list(client: httpx2.Client) -> None:
    assert [] == client.get(JOBS).json()


@pytest.mark.parametrize(
    "limit", ["0", "1001", "-1", "+1", " 1", "1 ", "1.0", "1e1", "1_0", "٣", "0x1", "", "true", "00001"]
)
def test_a_limit_is_plain_digits_from_1_to_1000(client: httpx2.Client, limit: str) -> None:
    status, said = detail(client.get(JOBS, params={"limit": limit}))

    assert 422 == status
    assert said.startswith("limit must be an int from 1 to 1000")


def test_a_limit_is_kept_and_left_out_it_is_100(history: JobHistory, client: httpx2.Client) -> None:
    newest = finished(history, 103)

    for params, number in (({"limit": 1}, 1), ({"limit": 102}, 102), ({"limit": 1000}, 103), ({}, 100)):
        listed = client.get(JOBS, params=params).json()
        assert [str(job.id) for job in newest[:number]] == [job["id"] for job in listed]


def test_pages_follow_each_other_by_their_links(history: JobHistory, client: httpx2.Client) -> None:
    newest = finished(history, 7)
    url, pages = f"{JOBS}?limit=3", []

    while url:
        response = client.get(url)
        pages.append([UUID(job["id"]) for job in response.json()])
        url = response.links.get("next", {}).get("url", "")

    ids = [job.id for job in newest]
    assert [ids[:3], ids[3:6], ids[6:]] == pages


def test_a_filter_goes_with_the_pages(history: JobHistory, client: httpx2.Client) -> None:
    finished(history, 2)
    waiting = [history.enqueue(DOCS) for _ in range(2)]
    history.cancel(waiting[0].id)
    params: dict[str, Any] = {"status": ["PENDING", "CANCELLED"], "limit": 1}

    first = client.get(JOBS, params=params)
    second = client.get(first.links["next"]["url"])

    assert [[str(waiting[1].id)], [str(waiting[0].id)]] == [
        [job["id"] for job in page.json()] for page in (first, second)
    ]
    assert [] == client.get(second.links["next"]["url"]).json()


@pytest.mark.parametrize("status", ["completed", "DONE", "", "COMPLETED,FAILED"])
def test_a_status_is_one_of_the_words(client: httpx2.Client, status: str) -> None:
    assert (
        422,
        f"status must be one of PENDING, RUNNING, COMPLETED, FAILED, CANCELLING, CANCELLED, not {status!r}",
    ) == detail(client.get(JOBS, params={"status": ["FAILED", status]}))


def test_a_cursor_that_is_none_or_belongs_elsewhere_is_refused(history: JobHistory, client: httpx2.Client) -> None:
    [job], [foreign] = finished(history, 1), finished(history, 1, OTHERS)
    mine, theirs = Cursor.after(job), Cursor.after(foreign)

    for params in ({"before": "x"}, {"before": ""}, {"before": str(theirs)}, {"before": str(mine), "status": "FAILED"}):
        status, said = detail(client.get(JOBS, params=params))
        assert (422, True) == (status, said.startswith("cursor "))


def test_an_id_is_a_canonical_uuid(client: httpx2.Client) -> None:
    for id in ("x", f"{{{DOCS}}}", DOCS.hex, f"urn:uuid:{DOCS}"):
        status, said = detail(client.get(f"/v1/source-connections/{id}/jobs"))
        assert (422, True) == (status, said.startswith("not an id"))


# ---- Spellings, HEAD, methods


@pytest.mark.parametrize(("version", "slash"), [*product(("/v1", ""), ("", "/"))])
def test_every_path_goes_with_and_without_version_and_slash(
    history: JobHistory, client: httpx2.Client, version: str, slash: str
) -> None:
    job = history.enqueue(DOCS)
    connection = f"{version}/source-connections/{DOCS}"

    for method, path in (
        ("GET", f"{version}/source-connections"),
        ("GET", f"{connection}/jobs"),
        ("HEAD", f"{connection}/jobs"),
        ("GET", f"{connection}/jobs/{job.id}"),
        ("POST", f"{connection}/run"),
        ("POST", f"{connection}/jobs/{job.id}/cancel"),
    ):
        assert 200 == client.request(method, path + slash).status_code


def test_a_slash_too_many_or_a_version_that_is_none_is_not_found(client: httpx2.Client) -> None:
    for path in (f"{JOBS}//", f"/v2/source-connections/{DOCS}/jobs", "/v1/source-connectionsx", "/v1"):
        assert (404, "Not Found") == detail(client.get(path))


def test_a_web_socket_finds_nothing_here(history: JobHistory) -> None:
    route = create_router(history, None).routes[0]

    assert Match.NONE is route.matches({"type": "websocket", "path": JOBS})[0]


def test_head_answers_as_get_without_the_body(history: JobHistory, client: httpx2.Client) -> None:
    [job] = finished(history, 1)

    assert (200, "text/event-stream") == (
        (head := client.head(f"{JOBS}/events")).status_code,
        head.headers["Content-Type"][:17],
    )
    for path in (JOBS, f"{JOBS}/{job.id}", "/v1/source-connections", "/healthz", "/openapi.json"):
        got, head = client.get(path), client.head(path)
        assert (200, b"") == (head.status_code, head.content)
        assert got.headers.get("ETag") == head.headers.get("ETag")
        assert got.headers["Content-Length"] == head.headers["Content-Length"]


def test_another_method_is_refused_with_what_is_allowed(client: httpx2.Client) -> None:
    for method, path, allowed in (
        ("DELETE", JOBS, "GET"),
        ("GET", f"/v1/source-connections/{DOCS}/run", "POST"),
    ):
        response = client.request(method, path)
        assert (405, allowed) == (response.status_code, response.headers["Allow"])
        assert "application/problem+json" == response.headers["Content-Type"]


# ---- One job, run, cancel


def test_a_job_is_found_by_its_id_and_its_connection(history: JobHistory, client: httpx2.Client) -> None:
    [job], [foreign] = finished(history, 1), finished(history, 1, OTHERS)

    assert job.to_dict() == client.get(f"{JOBS}/{job.id}").json()
    for id in (foreign.id, UNKNOWN):
        assert (404, "Sync job with the specified ID does not exist") == detail(client.get(f"{JOBS}/{id}"))
    assert (404, NO_CONNECTION) == detail(client.get(f"/v1/source-connections/{UNKNOWN}/jobs/{job.id}"))


def test_run_queues_a_job(history: JobHistory, client: httpx2.Client) -> None:
    response = client.post(f"/v1/source-connections/{DOCS}/run")

    [job] = history.list_jobs(DOCS)
    assert (200, job.to_dict()) == (response.status_code, response.json())
    assert (JobStatus.PENDING, {"trigger": "http"}) == (job.status, job.metadata)


def test_run_registers_nothing(history: JobHistory, client: httpx2.Client) -> None:
    assert (404, NO_CONNECTION) == detail(client.post(f"/v1/source-connections/{UNKNOWN}/run"))
    assert UNKNOWN not in {connection.id for connection in history.connections()}


def test_run_does_not_bring_back_what_is_forgotten_meanwhile(stage: Stage) -> None:
    class Forgetting(InMemoryJobRepository):
        def list_jobs(self, source_connection_id: UUID, **options: Any) -> list[SyncJob]:  # noqa: ANN401  as it is
            found = super().list_jobs(source_connection_id, **options)
            self.forget(source_connection_id)
            return found

    history = JobHistory(Forgetting())
    history.register(DOCS)

    with stage.serving_history(history) as client:
        assert (404, NO_CONNECTION) == detail(client.post(f"/v1/source-connections/{DOCS}/run"))
    assert [] == history.connections()


def test_an_exclusive_run_is_refused_while_a_job_is_active(history: JobHistory, client: httpx2.Client) -> None:
    run = f"/v1/source-connections/{DOCS}/run"
    first = client.post(run, params={"exclusive": "true"}).json()

    assert (409, f"Source connection has an active job {first['id']}: let it finish or cancel it first") == detail(
        client.post(run, params={"exclusive": "true"})
    )
    assert 200 == client.post(run, params={"exclusive": "false"}).status_code
    assert (422, "exclusive must be true or false, not '1'") == detail(client.post(run, params={"exclusive": "1"}))
    assert 2 == len(history.list_jobs(DOCS))


def test_cancel_ends_what_waits_and_asks_what_runs(history: JobHistory, client: httpx2.Client) -> None:
    running = history.start(history.enqueue(DOCS).id)
    waiting = history.enqueue(DOCS)

    for job, status in ((waiting, "CANCELLED"), (running, "CANCELLING"), (running, "CANCELLING")):
        response = client.post(f"{JOBS}/{job.id}/cancel")
        assert (200, status) == (response.status_code, response.json()["status"])
        assert history.get(job.id).to_dict() == response.json()


def test_what_completed_or_failed_is_not_cancelled(history: JobHistory, client: httpx2.Client) -> None:
    [completed] = finished(history, 1)
    failed = history.fail(history.enqueue(DOCS).id, error="no")

    for job in (completed, failed):
        assert (409, f"Sync job is {job.status} already: a finished job never changes") == detail(
            client.post(f"{JOBS}/{job.id}/cancel")
        )


def test_a_job_is_not_cancelled_by_way_of_another_connection(history: JobHistory, client: httpx2.Client) -> None:
    foreign = history.enqueue(OTHERS)

    assert (404, "Sync job with the specified ID does not exist") == detail(client.post(f"{JOBS}/{foreign.id}/cancel"))
    assert foreign == history.get(foreign.id)


def test_connections_are_listed_each_with_its_newest_job(history: JobHistory, client: httpx2.Client) -> None:
    newest, _ = finished(history, 2)

    assert [
        {"id": str(DOCS), "name": "docs", "newest_job": newest.to_dict()},
        {"id": str(OTHERS), "name": None, "newest_job": None},
    ] == client.get("/v1/source-connections").json()
    first = client.get("/v1/source-connections", params={"limit": 1})
    assert [str(DOCS)] == [each["id"] for each in first.json()]
    assert [str(OTHERS)] == [each["id"] for each in client.get(first.links["next"]["url"]).json()]


# ---- What need not be sent twice


def test_an_unchanged_list_is_not_sent_again(history: JobHistory, client: httpx2.Client) -> None:
    finished(history, 3)
    first = client.get(JOBS)

    for asked in (first.headers["ETag"], f'"other", {first.headers["ETag"]}', "*", first.headers["ETag"][2:]):
        again = client.get(JOBS, headers={"If-None-Match": asked})
        assert (304, b"") == (again.status_code, again.content)
        for name in ("ETag", "Cache-Control"):
            assert first.headers[name] == again.headers[name]
    finished(history, 1)
    assert 200 == client.get(JOBS, headers={"If-None-Match": first.headers["ETag"]}).status_code


def test_only_who_asked_may_keep_a_list_and_asks_each_time(client: httpx2.Client) -> None:
    headers = client.get(JOBS).headers

    assert "private, no-cache" == headers["Cache-Control"]
    assert {"Authorization", "X-API-Key", "Accept-Encoding"} >= {word.strip() for word in headers["Vary"].split(",")}


def test_a_long_list_is_compressed_where_that_is_asked_for(history: JobHistory, client: httpx2.Client) -> None:
    finished(history, 20)

    with client.stream("GET", JOBS, headers={"Accept-Encoding": "gzip"}) as response:
        sent = b"".join(response.iter_raw())

    assert "gzip" == response.headers["Content-Encoding"]
    plain = client.get(JOBS, headers={"Accept-Encoding": "identity"})
    assert plain.content == gzip.decompress(sent)
    assert len(sent) < len(plain.content) / 3


# ---- Errors


def test_healthz_needs_no_key_and_says_whether_the_storage_answers(history: JobHistory, client: httpx2.Client) -> None:
    assert {"status": "ok"} == client.get("/healthz", headers={"Authorization": ""}).json()
    history.close()
    assert (503, "The storage failed, and nothing was written: try again") == detail(client.get("/healthz"))


def test_an_unknown_outcome_is_not_called_a_failure(stage: Stage) -> None:
    troubled = Troubled(InMemoryJobRepository(), add=["landed", "landed"])
    history = JobHistory(troubled)
    history.register(DOCS)

    with stage.serving_history(history) as client:
        assert (503, "The storage failed: the write may have landed, look before you repeat it") == detail(
            client.post(f"/v1/source-connections/{DOCS}/run")
        )


def test_an_error_that_nobody_foresaw_says_nothing_of_itself(stage: Stage, history: JobHistory) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError("secret of ours")

    with stage.serving_history(history, authorize=broken) as client:
        assert (500, "The server failed; its log says why") == detail(client.get(JOBS))


def test_the_storage_is_not_shown_to_clients() -> None:
    for error in (StorageError("/srv/secret.db", "is full"), UnknownOutcomeError("/srv/secret.db", "broke")):
        from jobhistory.http.problems import problem_of

        assert b"/srv" not in bytes(problem_of(error).body)


# ---- In a service of one's own


def test_the_router_serves_in_a_service_of_ones_own(stage: Stage, history: JobHistory) -> None:
    app = FastAPI()
    app.include_router(create_router(history, TOKENS), prefix="/history")

    @app.get("/")
    async def home() -> PlainTextResponse:
        return PlainTextResponse("mine")

    [job] = finished(history, 1)
    with stage.serving(app, headers={"X-API-Key": KEY}) as client:
        assert "mine" == client.get("/").text
        for path in (f"/history{JOBS}", f"/history/source-connections/{DOCS}/jobs/"):
            assert [job.to_dict()] == client.get(path).json()
            assert (422, "limit must be an int from 1 to 1000, not 'x'") == detail(
                client.get(path, params={"limit": "x"})
            )
        assert (404, NO_CONNECTION) == detail(client.get(f"/history/v1/source-connections/{UNKNOWN}/jobs"))
        assert 401 == client.get(f"/history{JOBS}", headers={"X-API-Key": "x"}).status_code


# ---- The document


def test_the_documents_job_has_the_twelve_keys_and_the_contracts_examples(client: httpx2.Client) -> None:
    document: dict[str, Any] = client.get("/openapi.json").json()
    job = document["components"]["schemas"]["Job"]
    listed = document["paths"]["/v1/source-connections/{source_connection_id}/jobs"]["get"]["responses"]["200"]

    assert "3.1.0" == document["openapi"]
    assert list(WIRE_FIELDS) == list(job["properties"]) == job["required"]
    assert json.dumps(EXAMPLE) == json.dumps(listed["content"]["application/json"]["example"])


def test_every_operation_but_health_asks_for_one_of_two_keys(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()

    for path, item in document["paths"].items():
        for operation in item.values():
            expected: list[Any] | None = None if path == "/healthz" else [{"HTTPBearer": []}, {"APIKeyHeader": []}]
            assert expected == operation.get("security")
    assert {"bearer": "bearer", "header": "X-API-Key"} == {
        "bearer": document["components"]["securitySchemes"]["HTTPBearer"]["scheme"],
        "header": document["components"]["securitySchemes"]["APIKeyHeader"]["name"],
    }


def test_keys_of_others_see_their_own(history: JobHistory, client: httpx2.Client) -> None:
    mine, _ = finished(history, 1), finished(history, 1, OTHERS)
    headers = {"Authorization": f"Bearer {DOCS_KEY}"}

    assert [mine[0].to_dict()] == client.get(JOBS, headers=headers).json()
    assert [str(DOCS)] == [each["id"] for each in client.get("/v1/source-connections", headers=headers).json()]
