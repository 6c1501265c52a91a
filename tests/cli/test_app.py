from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import click
import pytest
from click.testing import CliRunner

import jobhistory
from jobhistory.cli import main
from jobhistory.cli.app import app
from jobhistory.cli.database import Database, data_folder
from jobhistory.cli.durations import HELP
from jobhistory.history import JobHistory
from tests.cli.command_line import CommandLine, process

CONNECTION = UUID("550e8400-e29b-41d4-a716-446655440000")


@pytest.mark.parametrize("missing", ["click", "platformdirs", "rich"])
def test_without_its_extra_the_command_line_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from jobhistory.cli import main; main()"

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert 1 == run.returncode
    assert f"jobhistory: the command line needs {missing}: pip install 'jobhistory[cli]'\n" == run.stderr


def test_without_its_extra_a_url_says_what_to_install() -> None:
    program = "import sys; sys.modules['psycopg'] = None; from jobhistory.cli import main; main()"
    url = "postgresql://me:hunter2secret@host/db"

    command = [sys.executable, "-c", program, "--db", url, "list"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 2 == run.returncode
    assert "Error: PostgreSQL needs psycopg and its pool: pip install 'jobhistory[postgres]'\n" == run.stderr


@pytest.mark.parametrize("words", [["list"], ["stats"], ["export"], ["prune", "--keep-last", "1", "--yes"]])
def test_where_nobody_reads_it_is_done_all_the_same(
    cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    history.enqueue(CONNECTION)
    monkeypatch.setattr(sys, "argv", ["jobhistory", "--db", cli.url, *words])
    for closed in ("stdout", "stderr"):
        monkeypatch.setattr(sys, closed, None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert 0 == ended.value.code


def test_help_loads_neither_sqlite_nor_rich() -> None:
    program = """
import sys
from jobhistory.cli import main
try:
    main()
finally:
    print([name for name in sys.argv[2:] if name in sys.modules], file=sys.stderr)
"""
    words = ["--help", "sqlite_utils", "jobhistory.storage.sqlite", "rich"]
    run = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)

    assert "[]\n" == run.stderr


def test_whatever_has_something_to_tell_tells_it_as_json_too() -> None:
    silent = {name for name, command in app.commands.items() if "as_json" not in [each.name for each in command.params]}
    assert {"completion", "demo", "exec", "export", "serve"} == silent  # what they print is not ours, or JSON always


def test_help_says_which_history_is_used_and_what_the_exit_codes_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    text = process("--help").stdout
    assert ["0", "1", "2", "3", "4", "5", "130"] == [
        line.split()[0] for line in text.split("Exit codes:")[1].splitlines() if line
    ]
    assert "JOBHISTORY_URL (not set)" in text
    assert str(data_folder() / "history.db") in text

    monkeypatch.setenv("JOBHISTORY_URL", "sqlite:///elsewhere.db")
    assert "JOBHISTORY_URL (which is set)" in process("--help").stdout


def test_db_comes_before_the_variable_and_the_variable_before_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, variable, standard = tmp_path / "named.db", tmp_path / "variable.db", data_folder() / "history.db"
    row = b'{"source_connection_id": "550e8400-e29b-41d4-a716-446655440000", "name": "a"}'

    def made_by(*words: str) -> set[Path]:
        subprocess.run([sys.executable, "-m", "jobhistory.cli", *words, "import", "-"], input=row, check=True)
        return {path for path in (named, variable, standard) if path.exists()}

    assert {standard} == made_by()
    assert 0o700 == standard.parent.stat().st_mode & 0o777
    monkeypatch.setenv("JOBHISTORY_URL", f"sqlite:///{variable}")
    assert {standard, variable} == made_by()
    assert {standard, variable, named} == made_by("--db", str(named))


@pytest.mark.parametrize("command", [["list"], ["list", "--active"], ["show", "x"], ["connections"], ["export"]])
def test_looking_at_a_history_that_is_not_there_makes_none_and_names_the_way_out(
    cli: CommandLine, command: list[str]
) -> None:
    result = cli(*command)

    assert (3, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith(f"Error: no history at {cli.url} yet: name another with --db or JOBHISTORY_URL")
    assert not Path(cli.url).exists()


def test_a_folder_that_the_user_named_is_not_made(tmp_path: Path) -> None:
    run = process("--db", str(tmp_path / "mistyped" / "history.db"), "import", "-", input="")

    assert (1, True) == (run.returncode, "its folder does not exist" in run.stderr)
    assert not (tmp_path / "mistyped").exists()


def test_looking_does_not_make_the_data_folder() -> None:
    assert 3 == process("list").returncode
    assert not data_folder().exists()


@pytest.mark.parametrize("url", ["{}/a.db", "sqlite:///{}/a.db", "{}/memory:", "sqlite:///a.db", "memory:b"])
def test_the_file_looked_for_is_the_one_that_would_be_opened(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database(url.format(tmp_path))
    assert database.file is not None
    assert not database.file.exists()

    jobhistory.open(database.url).close()

    assert database.file.exists()


def test_a_history_in_memory_is_never_missing() -> None:
    assert Database("memory:").file is None
    assert [] == Database("memory:").read().connections()


def test_a_url_of_another_kind_is_refused_without_its_password() -> None:
    result = process("--db", "mysql://me:hunter2secret@host/db", "list")

    assert 2 == result.returncode
    assert result.stderr.startswith("Error: cannot open mysql:...")
    assert "hunter2secret" not in result.stderr
    assert 1 == result.stderr.count("\n")


def test_a_file_that_is_no_history_is_refused_in_one_line(cli: CommandLine) -> None:
    Path(cli.url).write_text("no database\n" * 100)

    result = cli("list")

    assert 1 == result.exit_code
    assert result.stderr.startswith(f"Error: {cli.url}: ")
    assert 1 == result.stderr.count("\n")


def test_a_library_error_keeps_its_kind_in_the_exit_code(cli: CommandLine, history: JobHistory) -> None:
    history.register(CONNECTION, "one")
    history.register(UUID(int=2), "two")

    assert (2, "Error: cursor 'x' is no cursor: pass what str(cursor) gave\n") == (
        (bad := cli("list", "one", "--before", "x")).exit_code,
        bad.stderr,
    )
    assert (3, f"Error: no job {UUID(int=7)}\n") == ((gone := cli("show", str(UUID(int=7)))).exit_code, gone.stderr)
    assert (1, f"Error: the name 'two' belongs to source connection {UUID(int=2)}\n") == (
        (taken := cli("connections", "rename", "one", "two")).exit_code,
        taken.stderr,
    )


def test_a_job_that_may_not_be_stopped_is_no_wrong_usage(cli: CommandLine, history: JobHistory) -> None:
    """The group says so for every command, those to come included."""
    with history.track(CONNECTION) as run:
        pass

    @app.command("cancel-for-a-test")
    def cancel() -> None:
        history.cancel(run.job.id)

    try:
        result = cli("cancel-for-a-test")
    finally:
        del app.commands["cancel-for-a-test"]

    assert (1, f"Error: job {run.job.id} is COMPLETED: cannot request_cancel\n") == (result.exit_code, result.stderr)


def test_an_error_of_the_system_is_one_line(cli: CommandLine, history: JobHistory, tmp_path: Path) -> None:
    history.register(CONNECTION)

    result = cli("export", "-o", str(tmp_path / "missing" / "out.ndjson"))

    assert 1 == result.exit_code
    assert "No such file or directory" in result.stderr
    assert 1 == result.stderr.count("\n")


def test_ctrl_c_ends_with_130_and_no_traceback(cli: CommandLine) -> None:
    command = [sys.executable, "-m", "jobhistory.cli", "--db", cli.url, "import", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write("no job\n")
        running.stdin.flush()
        assert running.stderr.readline().startswith("row 1 (line 1) refused")  # so it is reading on by now

        running.send_signal(signal.SIGINT)
        stdout, stderr = running.communicate()

    assert (130, "Imported 0 jobs, refused 1 row.\n", "") == (running.returncode, stdout, stderr)


def test_ctrl_c_before_there_is_a_command_ends_so_too() -> None:
    program = """
import sys
class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == "jobhistory.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
from jobhistory.cli import main
main()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (130, "") == (run.returncode, run.stderr)


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["export"], ["connections"]])
def test_a_reader_that_has_gone_is_no_error_to_speak_of(
    cli: CommandLine, history: JobHistory, command: list[str]
) -> None:
    history.enqueue(CONNECTION)
    reads, writes = os.pipe()
    os.close(reads)

    run = process("--db", cli.url, *command, capture_output=False, stdout=writes, stderr=subprocess.PIPE)
    os.close(writes)

    assert (1, "") == (run.returncode, run.stderr)


def test_an_output_that_cannot_say_everything_gets_escapes(cli: CommandLine, history: JobHistory) -> None:
    history.register(CONNECTION, "名")

    run = process("--db", cli.url, "connections", env={**os.environ, "PYTHONIOENCODING": "latin-1"})

    assert (0, "") == (run.returncode, run.stderr)
    assert r"\u540d" in run.stdout


def test_an_output_of_another_kind_is_left_as_it_is(cli: CommandLine, history: JobHistory) -> None:
    history.register(CONNECTION, "名")

    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        app(["--db", cli.url, "connections"])

    assert "名" in out.getvalue()


def test_no_color_is_heeded(cli: CommandLine, history: JobHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    job = history.enqueue(CONNECTION)
    assert "\x1b[" in cli.on_terminal("list")
    assert "\x1b[" in cli.on_terminal("show", str(job.id))

    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[33" not in cli.on_terminal("list")
    assert "\x1b[" not in cli.on_terminal("show", str(job.id))


def test_a_terminal_that_knows_no_escapes_gets_none(cli: CommandLine, history: JobHistory) -> None:
    job = history.enqueue(CONNECTION)
    for words in (["list"], ["show", str(job.id)]):
        assert "\x1b" not in cli.on_terminal(*words, term="dumb")


def test_no_help_shows_a_mark_of_its_markup() -> None:
    for name in sorted(app.commands):
        text = CliRunner().invoke(app, [name, "--help"]).stdout
        assert "\\b" not in text, name


def test_durations_are_read_and_explained_the_same_everywhere() -> None:
    with_one = set()
    for name, command in app.commands.items():
        context = click.Context(command)
        helps = " ".join(command.get_help(context).split())
        assert ("DURATION" in "".join(each.make_metavar(context) for each in command.params)) == (HELP in helps)
        assert not [each.name for each in command.params if each.type is click.FLOAT]  # seconds alone
        with_one |= {name} if HELP in helps else set()

    assert {"exec", "failures", "prune", "reap"} == with_one
