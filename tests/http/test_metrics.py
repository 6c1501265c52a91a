"""/metrics, as Prometheus asks for it."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI

from jobhistory import StorageError
from jobhistory.history import JobHistory
from jobhistory.http import create_app
from jobhistory.http.metrics import create_metrics_router
from tests.http.serving import DOCS, DOCS_KEY, JOBS, KEY, OTHERS, TOKENS, Stage
from tests.http.test_api import detail, finished

# What Prometheus 3 sends.
ACCEPT = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.1"
)


def served(history: JobHistory, *, per_connection: bool = False) -> FastAPI:
    app = create_app(history, TOKENS)
    app.include_router(create_metrics_router(history, TOKENS.opens_all, is_key=TOKENS, per_connection=per_connection))
    return app


def test_prometheus_is_told_of_all_jobs_that_are_finished_from_then_on(stage: Stage, history: JobHistory) -> None:
    finished(history, 3)
    with stage.serving(served(history)) as client:
        first = client.get("/metrics", headers={"Accept": ACCEPT})
        finished(history, 2, OTHERS)
        history.enqueue(DOCS)
        second = client.get("/metrics", headers={"Accept": ACCEPT})
        head = client.head("/metrics")

    assert [200, 200, 200] == [first.status_code, second.status_code, head.status_code]
    assert first.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "no-store" == first.headers["Cache-Control"]
    counted = re.compile(r'^jobhistory_jobs_total\{status="COMPLETED"\} (\S+)$', re.MULTILINE)
    assert [["0.0"], ["2.0"]] == [counted.findall(each.text) for each in (first, second)]
    assert 'jobhistory_active_jobs{status="PENDING"} 1.0' in second.text
    assert "" == head.text


def test_each_connection_may_have_its_own_series(stage: Stage, history: JobHistory) -> None:
    with stage.serving(served(history, per_connection=True)) as client:
        finished(history, 2)
        told = client.get("/metrics").text

    assert f'jobhistory_jobs_total{{source_connection_id="{DOCS}",status="COMPLETED"}} 2.0' in told


def test_only_a_key_that_opens_all_connections_opens_the_metrics(stage: Stage, history: JobHistory) -> None:
    with stage.serving(served(history)) as client:
        answers = [
            client.get("/metrics", headers={"Authorization": given}) for given in (f"Bearer {DOCS_KEY}", "Bearer x", "")
        ]
        other = client.get(JOBS, headers={"Authorization": f"Bearer {DOCS_KEY}"})
        by_header = client.get("/metrics", headers={"Authorization": "", "X-API-Key": KEY})

    assert [403, 401, 401] == [answer.status_code for answer in answers]
    said = "The API key opens some connections, and metrics tell of all: use a key for all connections"
    assert (403, said) == detail(answers[0])
    assert 'Bearer realm="jobhistory", error="insufficient_scope"' == answers[0].headers["WWW-Authenticate"]
    assert (401, "The API key is not valid") == detail(answers[1])
    assert [200, 200] == [other.status_code, by_header.status_code]


def test_an_authorize_alone_tells_no_key_from_another(stage: Stage, history: JobHistory) -> None:
    app = create_app(history, TOKENS)
    app.include_router(create_metrics_router(history, TOKENS.opens_all))
    with stage.serving(app) as client:
        answers = [client.get("/metrics", headers={"Authorization": f"Bearer {key}"}) for key in (DOCS_KEY, "x", KEY)]

    assert [401, 401, 200] == [answer.status_code for answer in answers]
    assert [(401, "The API key is not valid")] * 2 == [detail(answer) for answer in answers[:2]]


def test_there_are_no_metrics_unless_they_are_asked_for(stage: Stage, history: JobHistory) -> None:
    with stage.serving_history(history) as client:
        assert 404 == client.get("/metrics").status_code


def test_a_storage_that_fails_is_a_problem_and_the_next_answer_lacks_nothing(
    stage: Stage, history: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        where = "there"
        raise StorageError(where, "is down")

    with stage.serving(served(history)) as client:
        finished(history, 2)
        with monkeypatch.context() as patch:
            patch.setattr(history.repository, "active_jobs", fails)
            down = client.get("/metrics")
        up = client.get("/metrics")

    assert (503, "The storage failed, and nothing was written: try again") == detail(down)
    assert 'jobhistory_jobs_total{status="COMPLETED"} 2.0' in up.text
