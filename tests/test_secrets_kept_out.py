"""That the secrets in error texts are nowhere afterwards: not on disk, not in logs, not on a screen."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobhistory.cli.app import app
from jobhistory.history import JobHistory
from jobhistory.redact import Redactor
from jobhistory.storage.sqlite import SQLiteJobRepository
from jobhistory.testing.rules.base import CONNECTION
from tests.harmless_corpus import HELD_OUT_PLAIN, PLAIN
from tests.leaks_corpus import HELD_OUT_LEAKS, LEAKS
from tests.secrets_corpus import Leak, draw

SEED = 20261125
LEAKING = list(draw(LEAKS + HELD_OUT_LEAKS, seed=SEED, times=1))
HARMLESS = list(draw(PLAIN + HELD_OUT_PLAIN, seed=SEED, times=1))
SECRETS = {secret for leak in LEAKING for secret in leak.secrets}
SHOWN = 8  # characters of a secret that can be read are a secret that can be read


class UpstreamError(Exception):
    """What a connector raises."""


def fetch(text: str) -> None:
    raise UpstreamError(text)


def in_a_run(history: JobHistory, text: str) -> None:
    with (
        suppress(UpstreamError),
        history.track(CONNECTION, metadata={"note": text, "deep": [{text: text}]}) as run,
    ):
        run.report(inserted=1)
        fetch(text)


def by_id(history: JobHistory, text: str) -> None:
    job = history.enqueue(CONNECTION, metadata={text: None})
    history.fail(job.id, error=text, error_details={"body": text, "lines": text.splitlines()})


def with_a_reason(history: JobHistory, text: str) -> None:
    history.cancel(history.enqueue(CONNECTION, metadata={"as json": json.dumps({"said": text})}).id, reason=text)


WAYS = (in_a_run, by_id, with_a_reason)


def readable(found: str) -> set[str]:
    """The secrets that can be read in this, wholly or in part, as they are or as JSON spells them."""
    pieces = _pieces()
    lengths = set(map(len, pieces))
    seen = {piece for size in lengths for at in range(len(found)) if (piece := found[at : at + size]) in pieces}
    return {secret for piece in seen for secret in pieces[piece]}


@cache
def _pieces() -> dict[str, set[str]]:
    pieces: dict[str, set[str]] = {}
    for secret in SECRETS:
        for spelling in {secret, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret))[3:-3]}:
            for at in range(max(1, len(spelling) - SHOWN + 1)):
                pieces.setdefault(spelling[at : at + SHOWN], set()).add(secret)
    return pieces


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Where a secret may come to stand, and all that stands there after each text was recorded in every way."""

    def places(redact: Redactor | None, leaks: list[Leak]) -> dict[str, str]:
        path = tmp_path_factory.mktemp("secrets") / "history.db"
        with closing(SQLiteJobRepository(path, durability="relaxed")) as repository, logged() as log:
            history = JobHistory(repository, redact=redact, hooks=[failing_hook])
            for number, leak in enumerate(leaks):
                WAYS[number % len(WAYS)](history, leak.text)
            files = [path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))]
            disk = b"".join(file.read_bytes() for file in files)
            jobs = list(history.iter_jobs(CONNECTION))
            return {
                "database, WAL and shm": disk.decode("latin1"),
                "repr": "\n".join(map(repr, jobs)),
                "logs": log.getvalue(),
                "list": command(path, "list", str(CONNECTION), "--limit", "1000"),
                "list --json": command(path, "list", str(CONNECTION), "--limit", "1000", "--json"),
                "show": "\n".join(command(path, "show", str(job.id)) for job in jobs[::40]),
                "export": command(path, "export"),
            }

    return places


def failing_hook(job: object) -> None:
    """What a hook may do: its error is logged."""
    message = f"no use for {job}"
    raise ValueError(message)


def command(path: Path, *words: str) -> str:
    return CliRunner(catch_exceptions=False).invoke(app, ["--db", str(path), *words]).output


@contextmanager
def logged() -> Iterator[StringIO]:
    """Everything that is logged, with tracebacks."""
    lines = StringIO()
    handler = logging.StreamHandler(lines)
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)


@pytest.fixture(scope="module")
def kept(places: Callable[..., dict[str, str]]) -> dict[str, str]:
    return places(Redactor(), LEAKING)


def test_the_corpus_is_of_the_size_the_claim_is_made_for() -> None:
    assert len(SECRETS) >= 300


def test_of_a_hundred_secrets_not_one_can_be_read_anywhere(kept: dict[str, str]) -> None:
    leaked = {place: readable(found) for place, found in kept.items()}
    assert len(set().union(*leaked.values())) <= len(SECRETS) / 100, leaked


def test_without_redaction_they_are_found_everywhere(
    places: Callable[..., dict[str, str]],
) -> None:
    leaks = LEAKING[::5]
    secrets = {secret for leak in leaks for secret in leak.secrets}
    leaked = {place: len(readable(found) & secrets) for place, found in places(None, leaks).items()}
    del leaked["list"], leaked["show"]  # which cut what they show, or show but a few
    assert min(leaked.values()) > len(secrets) * 0.9, leaked


def test_of_a_hundred_harmless_texts_at_most_one_is_touched(tmp_path: Path) -> None:
    with closing(SQLiteJobRepository(tmp_path / "history.db", durability="relaxed")) as repository:
        history = JobHistory(repository)
        touched = [each.name for each in HARMLESS if not is_kept(history, each)]
    assert len(touched) <= len(HARMLESS) / 100, touched


def is_kept(history: JobHistory, text: Leak) -> bool:
    job = history.fail(history.enqueue(CONNECTION).id, error=text.text, error_details={"body": text.text})
    return (job.error, job.error_details) == (text.text, {"body": text.text})
