"""The page as it is served, without a browser."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI

from jobhistory.history import JobHistory
from jobhistory.http import create_app
from jobhistory.http.charts import chart, spark
from jobhistory.ids import UUID7
from jobhistory.job import SyncJob
from jobhistory.status import JobStatus
from tests.http.serving import DOCS, DOCS_KEY, KEY, OTHERS, TOKENS, UNKNOWN, Stage
from tests.http.test_api import finished

NOON = datetime(2024, 3, 15, 12, tzinfo=UTC)
HISTORY = f"/connections/{DOCS}"
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\u202e{{ 7 * 7 }}"


class Page(HTMLParser):
    """A page's tags, and the text between them."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self, text: str) -> list[str]:
        return [attrs["href"] or "" for tag, attrs in self.tags if tag == "a" and text in (attrs.get("href") or "")]


@pytest.fixture
def page(client: httpx2.Client) -> httpx2.Client:
    """A reader who has signed in."""
    client.headers.clear()
    client.cookies.set("jobhistory_key", KEY)
    return client


def job_in(history: JobHistory, status: JobStatus, n: int = 0, error: str = "no", **values: object) -> SyncJob:
    """A job of DOCS in that status, all times set that it may have."""
    at = NOON + timedelta(minutes=10 * n)
    is_terminal = status in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}
    is_begun = status is not JobStatus.PENDING
    given: dict[str, object] = {
        "started_at": at + timedelta(seconds=2) if is_begun else None,
        "completed_at": at + timedelta(seconds=90) if is_terminal else None,
        "duration_seconds": 88.0 if is_terminal else None,
        "error": error if status is JobStatus.FAILED else None,
    } | values
    job = SyncJob(
        id=UUID7(lambda: at)(),
        source_connection_id=DOCS,
        status=status,
        created_at=at,
        **given,  # type: ignore[arg-type]
    )
    history.add_many([job])
    return job


# ---- Connections


def test_connections_show_how_their_last_jobs_went(history: JobHistory, page: httpx2.Client) -> None:
    job_in(history, JobStatus.COMPLETED)
    failed = [job_in(history, JobStatus.FAILED, n) for n in (1, 2)]
    job_in(history, JobStatus.CANCELLED, 3)

    shown = Page(page.get("/"))

    assert [HISTORY, f"/connections/{OTHERS}"] == [
        link for link in shown.links("/connections/") if "/jobs/" not in link
    ]
    assert "2 failures in a row" in shown.text
    assert "CANCELLED" in shown.text
    assert "No jobs yet" in shown.text
    assert ("svg", "Durations of the last 4 jobs, up to 1m 28s") == next(
        (tag, attrs["aria-label"]) for tag, attrs in shown.tags if tag == "svg"
    )
    assert failed


def test_connections_that_only_failed_lately_show_how_often(history: JobHistory, page: httpx2.Client) -> None:
    for n in range(31):
        job_in(history, JobStatus.FAILED, n)

    assert "30+ failures in a row" in Page(page.get("/")).text


def test_many_connections_come_in_pages(history: JobHistory, page: httpx2.Client) -> None:
    for n in range(150):
        history.register(UUID(int=n), f"connection {n}")

    first = page.get("/")
    [more] = [attrs["href"] for tag, attrs in Page(first).tags if attrs.get("rel") == "next"]
    second = page.get(f"/{more}")

    assert (100, 52) == tuple(len(Page(answer).links("/connections/")) for answer in (first, second))
    assert "There are no more." in Page(page.get(f"/?after={UUID(int=2**128 - 1)}")).text


def test_an_empty_history_says_how_to_begin(stage: Stage, memory: JobHistory) -> None:
    with stage.serving_history(memory, authorize=None) as client:
        assert "No source connection is registered yet" in client.get("/").text


# ---- A connection's history


def test_a_history_is_a_table_beside_a_chart(history: JobHistory, page: httpx2.Client) -> None:
    jobs = [job_in(history, status, n) for n, status in enumerate(JobStatus)]

    shown = Page(page.get(HISTORY))

    assert [f"{HISTORY}/jobs/{job.id}" for job in jobs[::-1]] * 2 == shown.links("/jobs/")
    bars = [attrs["class"] for tag, attrs in shown.tags if tag == "rect"]
    assert [status.lower() for status in JobStatus][::-1] == bars
    assert "docs" in shown.text
    assert "50%" in shown.text, "of those that completed or failed"
    assert "1m 28s" in shown.text
    assert "2024-03-15T12:00:00Z" in [attrs["datetime"] for tag, attrs in shown.tags if tag == "time"]


def test_a_history_is_filtered_by_status(history: JobHistory, page: httpx2.Client) -> None:
    failed, completed = job_in(history, JobStatus.FAILED), job_in(history, JobStatus.COMPLETED, 1)

    shown = Page(page.get(f"{HISTORY}?status=FAILED"))

    assert [str(failed.id)] * 2 == [link[-36:] for link in shown.links("/jobs/")]
    current = [attrs["href"] for _, attrs in shown.tags if attrs.get("aria-current") == "true"]
    assert ["?"] == current, "a click on it takes it back"
    both = Page(page.get(f"{HISTORY}?status=FAILED&status=COMPLETED"))
    assert [str(completed.id), str(failed.id)] * 2 == [link[-36:] for link in both.links("/jobs/")]
    assert "No job is in this status." in Page(page.get(f"{HISTORY}?status=RUNNING")).text


def test_a_history_goes_on_in_pages_with_its_filter(history: JobHistory, page: httpx2.Client) -> None:
    jobs = [job_in(history, JobStatus.FAILED if n % 2 else JobStatus.COMPLETED, n) for n in range(230)]
    seen: list[str] = []
    query: str | None = "?status=FAILED"

    while query:
        shown = Page(page.get(HISTORY + query))
        seen += [link[-36:] for link in shown.links("/jobs/")[: len(shown.links("/jobs/")) // 2]]
        query = next((attrs["href"] for _, attrs in shown.tags if attrs.get("rel") == "next"), None)

    assert [str(job.id) for job in jobs[::-1] if job.status is JobStatus.FAILED] == seen
    assert 15 == len(shown.links("/jobs/")) // 2


def test_a_connection_without_jobs_says_how_to_queue_one(page: httpx2.Client) -> None:
    assert "queues one" in page.get(HISTORY).text


def test_a_page_of_100_is_small_whatever_its_errors_hold(history: JobHistory, page: httpx2.Client) -> None:
    for n in range(101):
        job_in(history, JobStatus.FAILED, n, error='"' * 16_000, entities_inserted=2**63 - 1)

    answer = page.get(HISTORY)

    assert 200 == len(Page(answer).links("/jobs/"))
    assert len(answer.content) < 100_000


# ---- A job's story


def test_a_story_has_its_timeline_counts_metadata_and_error(history: JobHistory, page: httpx2.Client) -> None:
    job = job_in(
        history,
        JobStatus.FAILED,
        error="ValueError: no such thing",
        error_details={"traceback": "line 1\nline 2", "exit_code": 3},
        metadata={"trigger": "schedule"},
        entities_inserted=1_234,
        worker="host:17:tag",
    )

    shown = Page(page.get(f"{HISTORY}/jobs/{job.id}"))

    for text in ("FAILED", "1,234", "ValueError: no such thing", "line 1\nline 2", "schedule", "host:17:tag", "88.0 s"):
        assert text in shown.text
    assert ["Queued", "Started", "Ended"] == re.findall("Queued|Started|Ended", shown.text)
    assert {"+2s", "+1m 28s"} <= set(shown.text.split("\n")) | set(re.findall(r"\+[\dms ]+[ms]", shown.text))
    assert [{}] == [attrs for tag, attrs in shown.tags if tag == "details"], "folded"
    assert "/cancel" not in str(shown.tags)


def test_a_lost_workers_evidence_is_unfolded(history: JobHistory, page: httpx2.Client) -> None:
    job = history.start(history.enqueue(DOCS).id)
    lost = job.lost(at=history.clock(), error="its worker vanished", error_details={"silent_for": 331})
    history.replace(lost)

    shown = Page(page.get(f"{HISTORY}/jobs/{job.id}"))

    assert "Its worker vanished: nobody knows when it ended." in shown.text
    assert "331" in shown.text
    assert "Found failed" in shown.text
    assert [{"open": None}] == [attrs for tag, attrs in shown.tags if tag == "details"]


def test_stored_text_stays_text(history: JobHistory, page: httpx2.Client) -> None:
    job = job_in(
        history,
        JobStatus.FAILED,
        error=HOSTILE,
        error_details={HOSTILE: HOSTILE},
        metadata={HOSTILE: [HOSTILE]},
        worker=HOSTILE,
    )
    history.register(DOCS, HOSTILE.replace("\u202e", ""))

    for path in ("/", HISTORY, f"{HISTORY}/jobs/{job.id}", f"/connections/{UNKNOWN}?status={HOSTILE}"):
        answer = page.get(path)
        shown = Page(answer)
        scripts = [attrs for tag, attrs in shown.tags if tag == "script"]
        assert [{"src": "/static/page.js", "defer": None}] == scripts
        assert ["/static/icon.svg"] == [attrs["src"] for tag, attrs in shown.tags if tag == "img"]
        assert not [name for _, attrs in shown.tags for name in attrs if name.startswith("on") or name == "style"]
        assert "{{ 7 * 7 }}" in shown.text or answer.is_error


def test_only_what_is_ours_may_run(page: httpx2.Client) -> None:
    for path, status in (("/", 200), (f"/connections/{UNKNOWN}", 404)):
        answer = page.get(path)
        assert status == answer.status_code
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "nosniff" == answer.headers["X-Content-Type-Options"]


def test_the_pages_own_files_are_served(page: httpx2.Client) -> None:
    for name, kind in (("style.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        assert kind == page.get(f"/static/{name}").headers["Content-Type"].partition(";")[0]


def test_what_does_not_exist_is_said_on_a_page(history: JobHistory, page: httpx2.Client) -> None:
    foreign = history.enqueue(OTHERS)

    for path in (f"/connections/{UNKNOWN}", f"{HISTORY}/jobs/{UNKNOWN}", f"{HISTORY}/jobs/{foreign.id}"):
        answer = page.get(path)
        assert (404, "text/html; charset=utf-8") == (answer.status_code, answer.headers["Content-Type"])
        assert "does not exist" in answer.text
    assert 422 == page.get("/connections/x").status_code


# ---- Cancelling


def test_a_job_is_cancelled_once_that_was_confirmed(history: JobHistory, page: httpx2.Client) -> None:
    for job, status in ((history.enqueue(DOCS), "CANCELLED"), (history.start(history.enqueue(DOCS).id), "CANCELLING")):
        url = f"{HISTORY}/jobs/{job.id}"
        assert [f"{url}/cancel"] == Page(page.get(url)).links("/cancel")

        asked = page.get(f"{url}/cancel")
        assert "Cancel this job?" in asked.text
        assert job == history.get(job.id), "to look changes nothing"
        answer = page.post(f"{url}/cancel", headers={"Origin": str(page.base_url).rstrip("/")})

        assert (303, url) == (answer.status_code, answer.headers["Location"])
        assert status == history.get(job.id).status
        assert [] == Page(page.get(url)).links("/cancel")


def test_another_sites_page_cancels_nothing(history: JobHistory, page: httpx2.Client) -> None:
    job = history.enqueue(DOCS)

    assert 403 == page.post(f"{HISTORY}/jobs/{job.id}/cancel", headers={"Sec-Fetch-Site": "cross-site"}).status_code
    assert job == history.get(job.id)


# ---- Who may look


def test_a_stranger_is_asked_for_a_key_and_comes_to_where_he_wanted(history: JobHistory, page: httpx2.Client) -> None:
    [job] = finished(history, 1)
    page.cookies.clear()
    url = f"{HISTORY}/jobs/{job.id}"

    asked = page.get(url)
    assert 303 == asked.status_code
    assert str(job.id) not in page.get(asked.headers["Location"]).text.replace(url, "")
    wrong = page.post("/sign-in", content="key=wrong&next=/")
    assert (403, True) == (wrong.status_code, "This key is not valid." in wrong.text)
    right = page.post("/sign-in", content=f"key={DOCS_KEY}&next={url}")
    assert (303, url) == (right.status_code, right.headers["Location"])
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(right.headers["Set-Cookie"].split("; "))
    assert 200 == page.get(url).status_code
    assert 404 == page.get(f"/connections/{OTHERS}").status_code

    assert "/sign-in" == page.post("/sign-out").headers["Location"]
    assert 303 == page.get(url).status_code


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", ""])
def test_a_sign_in_leads_nowhere_else(page: httpx2.Client, elsewhere: str) -> None:
    assert "/" == page.post("/sign-in", content=f"key={KEY}&next={elsewhere}").headers["Location"]


def test_the_page_works_where_it_is_mounted(stage: Stage, history: JobHistory) -> None:
    finished(history, 1)
    outer = FastAPI()
    outer.mount("/jobs", create_app(history))
    with stage.serving(outer) as client:
        shown = Page(client.get("/jobs/"))
        assert f"/jobs/connections/{DOCS}" in shown.links("/connections/")
        for _, attrs in shown.tags:
            for name in ("href", "src"):
                if (attrs.get(name) or "").startswith("/jobs/"):
                    assert 200 == client.get(str(attrs[name])).status_code


def test_a_stranger_comes_to_where_he_wanted_also_where_the_page_is_mounted(stage: Stage, history: JobHistory) -> None:
    outer = FastAPI()
    outer.mount("/jobs", create_app(history, TOKENS))
    wanted = f"/jobs{HISTORY}?status=FAILED&status=CANCELLED"
    with stage.serving(outer) as client:
        asked = client.get(wanted)
        [following] = [
            attrs["value"]
            for _, attrs in Page(client.get(asked.headers["Location"])).tags
            if attrs.get("name") == "next"
        ]
        assert wanted == client.post("/jobs/sign-in", data={"key": KEY, "next": following}).headers["Location"]


def test_a_browser_asks_whether_style_and_script_are_still_those(page: httpx2.Client) -> None:
    for url in ("/static/style.css", "/static/page.js"):
        first = page.get(url)
        second = page.get(url, headers={"If-None-Match": first.headers["ETag"]})
        assert [(200, "no-cache"), (304, "no-cache")] == [
            (answer.status_code, answer.headers.get("Cache-Control")) for answer in (first, second)
        ]
        assert "nosniff" == first.headers["X-Content-Type-Options"]


# ---- Drawings


def test_a_chart_reaches_up_to_a_round_number_above_its_longest_bar() -> None:
    def of(seconds: float | None) -> SyncJob:
        ended = None if seconds is None else NOON
        return SyncJob(
            id=UNKNOWN,
            source_connection_id=DOCS,
            status=JobStatus.FAILED,
            created_at=NOON,
            started_at=NOON,
            completed_at=ended,
            duration_seconds=seconds,
        )

    for seconds, top, middle in ((None, "20ms", "10ms"), (61.0, "2m", "1m"), (86_400.0 * 5, "6d", "3d")):
        drawn = chart([of(seconds)], NOON, lambda _: "/")
        assert drawn is not None
        assert (top, middle) == (drawn.top, drawn.middle)
    assert chart([], NOON, lambda _: "/") is None
    assert 'aria-label="No jobs yet"' in spark([], NOON)
    assert 'd="M118 24v-3"' in spark([of(None)], NOON)
