"""The page in a browser: Debian's Chromium, driven by Selenium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from starlette.types import Receive, Scope, Send

from jobhistory.history import JobHistory
from jobhistory.http import create_app
from jobhistory.http.problems import problem
from jobhistory.status import JobStatus
from tests.http.serving import DOCS, DOCS_KEY, KEY, Stage
from tests.http.test_page import HISTORY, HOSTILE, job_in
from tests.workers import needed

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
PATIENCE = 60


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = needed("chromium", "apt-get install chromium")
    for flag in (*FLAGS, "--window-size=1240,900", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(needed("chromedriver", "apt-get install chromium-driver")))
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kathmandu"})
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Chrome, stage: Stage, history: JobHistory) -> Iterator[Chrome]:
    """A browser at a server that needs no key, whose console has stayed empty."""
    stage.app = create_app(history)
    yield chromium
    chromium.get("about:blank")
    log: list[dict[str, str]] = chromium.get_log("browser")  # type: ignore[no-untyped-call]
    assert [] == [entry for entry in log if entry["level"] == "SEVERE"]


def until(browser: Chrome, condition: Callable[[Chrome], Any]) -> Any:  # noqa: ANN401  what the condition gives
    """What the condition gives, once it holds."""
    return WebDriverWait(browser, PATIENCE, poll_frequency=0.02, ignored_exceptions=[Exception]).until(condition)


def text(browser: Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "main").text


def test_a_reader_goes_from_connections_to_a_jobs_story(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job = job_in(history, JobStatus.FAILED, error="the source did not answer", error_details={"exit_code": 3})

    browser.get(stage.url)
    browser.find_element(By.LINK_TEXT, "docs").click()
    until(browser, lambda _: "the source did not answer" in text(browser))
    browser.find_element(By.LINK_TEXT, str(job.id)[:13]).click()
    until(browser, lambda _: "Error details" in text(browser))

    assert "exit_code" not in text(browser)
    browser.find_element(By.TAG_NAME, "summary").click()
    assert "exit_code" in text(browser)


def test_times_are_the_viewers_and_utc_on_hover(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job_in(history, JobStatus.COMPLETED)

    browser.get(stage.url + HISTORY)

    time = browser.find_element(By.CSS_SELECTOR, "tbody time")
    assert "2024-03-15 12:00:00 UTC" == time.get_attribute("title")
    assert "5:45" in time.text, "Kathmandu is 5:45 hours ahead"


def test_what_runs_is_shown_as_it_goes_on(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job = history.start(history.enqueue(DOCS).id)
    for path in ("/", HISTORY, f"{HISTORY}/jobs/{job.id}"):
        browser.get(stage.url + path)
        until(browser, lambda _: browser.find_element(By.ID, "live").is_displayed())
        assert "RUNNING" in text(browser)
    history.report(job.id, inserted=4_321)

    until(browser, lambda _: "4,321" in text(browser))
    history.complete(job.id)
    until(browser, lambda _: "COMPLETED" in text(browser))


def test_the_reader_keeps_his_place_when_news_come(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job = job_in(history, JobStatus.COMPLETED)
    browser.get(stage.url + HISTORY)
    until(browser, lambda _: browser.find_element(By.ID, "live").is_displayed())
    browser.execute_script("document.querySelector('tbody a').focus()")

    history.enqueue(DOCS)
    until(browser, lambda _: "PENDING" in text(browser))

    focused = browser.switch_to.active_element.get_attribute("href")
    assert f"{stage.url}{HISTORY}/jobs/{job.id}" == focused


def test_what_is_live_comes_back_after_an_outage(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    app, outage = create_app(history), iter([problem(503, "The storage failed")])

    async def down_at_first(scope: Scope, receive: Receive, send: Send) -> None:
        answer = next(outage, app) if scope["path"].endswith("/live") else app
        await answer(scope, receive, send)

    stage.app = down_at_first
    browser.get(stage.url + HISTORY)
    until(browser, lambda _: browser.find_element(By.ID, "live").is_displayed())

    history.enqueue(DOCS)
    until(browser, lambda _: "PENDING" in text(browser))
    log: list[dict[str, str]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [True] == ["503" in entry["message"] for entry in log]


def test_a_job_is_cancelled_by_keyboard(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job = history.enqueue(DOCS)
    browser.get(f"{stage.url}{HISTORY}/jobs/{job.id}")

    browser.find_element(By.LINK_TEXT, "Cancel…").send_keys(Keys.ENTER)
    until(browser, lambda _: "Cancel this job?" in text(browser))
    assert JobStatus.PENDING is history.get(job.id).status
    browser.find_element(By.CSS_SELECTOR, "button.danger").send_keys(Keys.ENTER)
    until(browser, lambda _: "CANCELLED" in text(browser))

    assert JobStatus.CANCELLED is history.get(job.id).status


def test_hostile_text_runs_nothing(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job = job_in(history, JobStatus.FAILED, error=HOSTILE, error_details={HOSTILE: HOSTILE}, metadata={"a": HOSTILE})

    for path in ("/", HISTORY, f"{HISTORY}/jobs/{job.id}"):
        browser.get(stage.url + path)
        assert [] == browser.find_elements(By.CSS_SELECTOR, "main script, main img")
        assert browser.execute_script("return window.alert.toString()").count("native code") == 1
    assert "<script>alert(1)</script>" in text(browser)


def test_it_all_works_without_a_script(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    job = history.enqueue(DOCS)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(stage.url)
        browser.find_element(By.LINK_TEXT, "docs").click()
        until(browser, lambda _: "PENDING" in text(browser))
        assert browser.find_element(By.CSS_SELECTOR, "tbody time").text.endswith(" UTC")
        browser.find_element(By.LINK_TEXT, "Pending").click()
        browser.find_element(By.LINK_TEXT, str(job.id)[:13]).click()
        until(browser, lambda _: "Waiting for a worker" in text(browser))
        browser.find_element(By.LINK_TEXT, "Cancel…").click()
        until(browser, lambda _: "Cancel this job?" in text(browser))
        browser.find_element(By.CSS_SELECTOR, "button.danger").click()
        until(browser, lambda _: "CANCELLED" in text(browser))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_key_opens_the_page(browser: Chrome, stage: Stage, history: JobHistory) -> None:
    from jobhistory.http import Tokens

    stage.app = create_app(history, Tokens({KEY: None, DOCS_KEY: {DOCS}}))
    browser.get(stage.url + HISTORY)
    until(browser, lambda _: "Sign in" in text(browser))
    browser.find_element(By.ID, "key").send_keys(DOCS_KEY, Keys.ENTER)
    until(browser, lambda _: "queues one" in text(browser))
    until(browser, lambda _: browser.find_element(By.ID, "live").is_displayed())
    browser.find_element(By.CSS_SELECTOR, "header button").click()
    until(browser, lambda _: "Sign in" in text(browser))


def contrast(browser: Chrome, selector: str) -> list[float]:
    """How much each element's text stands out (WCAG 2.2, 1.4.3)."""
    ratios: list[float] = browser.execute_script(Path(__file__).with_name("contrast.js").read_text(), selector)
    return ratios


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_in_light_and_dark(
    browser: Chrome, stage: Stage, history: JobHistory, scheme: str
) -> None:
    jobs = [job_in(history, status, n) for n, status in enumerate(JobStatus)]
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    for path in ("/", HISTORY, *(f"{HISTORY}/jobs/{job.id}" for job in jobs), f"{HISTORY}/jobs/{jobs[0].id}/cancel"):
        browser.get(stage.url + path)
        ratios = contrast(browser, "main *, header *")
        assert len(ratios) > 5
        assert min(ratios) >= 4.5, (path, ratios)
