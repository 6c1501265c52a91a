"""What a shell completes; bash itself is asked."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID

import click
import pytest

import jobhistory
from jobhistory.cli.app import app
from jobhistory.history import JobHistory
from tests.cli.command_line import CommandLine

DOCS, ODD = UUID("550e8400-e29b-41d4-a716-446655440000"), UUID("660e8400-e29b-41d4-a716-446655440000")


def completed(*words: str) -> list[str]:
    """What bash offers for the last of the words, asked as its completion asks."""
    program = Path(sys.executable).with_name("jobhistory")
    script = """
set -e
eval "$("$1" completion bash)"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_jobhistory_completion jobhistory
printf '%s\\n' "${COMPREPLY[@]}"
"""
    path = f"{program.parent}:{os.environ['PATH']}"
    command = ["bash", "-c", script, "bash", str(program), "jobhistory", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PATH": path})
    assert "" == run.stderr
    return run.stdout.split()


def test_bash_completes_commands_connections_and_jobs(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS, "docs")
    history.register(ODD, "with spaces")
    done = history.complete(history.start(history.enqueue(DOCS).id).id)
    waiting = history.enqueue(DOCS)
    db = ("--db", cli.url)

    assert ["check", "completion", "connections"] == sorted(set(completed("c")) - {"cancel", "copy"})
    assert ["--status"] == completed("list", "--st")
    assert ["docs", str(ODD)] == completed(*db, "list", "")
    assert [str(DOCS)] == completed(*db, "exec", "550e")
    assert [str(waiting.id), str(done.id)] == completed(*db, "show", "")
    assert [] == completed(*db, "show", "ffff")


def test_wherever_a_connection_is_named_it_is_completed(cli: CommandLine, history: JobHistory) -> None:
    history.register(DOCS, "docs")
    root = click.Context(app)
    root.params["db"] = cli.url
    for command in app.commands.values():
        context = click.Context(command, parent=root)
        for each in command.params:
            if "CONNECTION" in each.make_metavar(context):
                assert ["docs"] == [word.value for word in each.shell_complete(context, "do")], command.name


def test_a_history_that_cannot_be_read_completes_nothing(cli: CommandLine) -> None:
    for words in (("list", ""), ("cancel", "")):
        assert [] == completed("--db", cli.url, *words)
    assert [] == completed("--db", "long" * 1000, "list", "")
    Path(cli.url).write_text("no database\n" * 100)
    assert [] == completed("--db", cli.url, "export", "d")


def test_a_history_that_opens_and_cannot_be_read_completes_nothing(cli: CommandLine) -> None:
    jobhistory.open(cli.url).close()
    with closing(sqlite3.connect(cli.url)) as other:
        other.execute("DROP VIEW sync_jobs")
        other.execute("ALTER TABLE source_connections RENAME TO gone")

    for command in ("list", "show"):
        assert [] == completed("--db", cli.url, command, "")


def test_a_name_that_looks_like_an_option_is_completed_by_its_id(cli: CommandLine, history: JobHistory) -> None:
    history.register(ODD, "--json")

    assert [str(ODD)] == completed("--db", cli.url, "list", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_theirs(cli: CommandLine, shell: str) -> None:
    assert f"_JOBHISTORY_COMPLETE={shell}_complete" in cli("completion", shell).stdout
