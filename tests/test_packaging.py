from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jobhistory"
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS: list[dict[str, Any]] = SETTINGS["tool"]["importlinter"]["contracts"]

OFFENCES = [
    ("layers", "status.py", "import jobhistory.job"),
    ("layers", "errors.py", "import jobhistory"),
    ("layers", "unplaced.py", ""),
    ("backends", "storage/memory.py", "import jobhistory.storage.sqlite"),
    ("backends", "storage/unplaced.py", ""),
    *(("core", "job.py", f"import {name}") for name in ("hypothesis", "psycopg", "psycopg_pool", "pytest")),
    ("core", "redact.py", "import sqlite3"),
    ("core", "history.py", "import sqlite_utils"),
    ("sqlite", "storage/memory.py", "import sqlite3"),
    ("sqlite", "__init__.py", "import sqlite_utils"),
    ("sqlite", "storage/memory.py", "import jobhistory.storage.sqlite_connections"),
    *(("postgres", "storage/memory.py", f"import {name}") for name in ("psycopg", "psycopg_pool")),
    ("postgres", "storage/sqlite.py", "import jobhistory.storage.postgres_connection"),
    ("postgres", "storage/sqlite.py", "import jobhistory.storage.postgres_connections"),
    *(("cli", "__init__.py", f"import {name}") for name in ("click", "platformdirs", "rich")),
    ("testing", "cli/__init__.py", "import pytest"),
    ("testing", "storage/memory.py", "import hypothesis"),
    ("parquet", "cli/transfer.py", "import pyarrow"),
    ("aio", "cli/__init__.py", "import anyio"),
    ("integrations", "integrations/logs.py", "import jobhistory.integrations.opentelemetry"),
    ("integrations", "integrations/unplaced.py", ""),
    ("dlt", "integrations/singer.py", "import dlt"),
    ("openlineage", "integrations/logs.py", "import openlineage"),
    ("opentelemetry", "integrations/logs.py", "import opentelemetry"),
    ("prometheus", "http/metrics.py", "import prometheus_client"),
    ("singer", "exec/counts.py", "import singer_sdk"),
    *(("http", "cli/serve.py", f"import {name}") for name in ("fastapi", "jinja2", "pydantic", "starlette", "uvicorn")),
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return shutil.copytree(
        PACKAGE,
        tmp_path / "jobhistory",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def lint_imports(package: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=package.parent,
        env=os.environ | {"COLUMNS": "1000"},  # its report is not wrapped
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_package_keeps_every_import_contract(package: Path) -> None:
    linted = lint_imports(package)

    assert 0 == linted.returncode, linted.stdout + linted.stderr
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in linted.stdout


def test_every_import_that_breaks_a_contract_is_named_under_it(package: Path) -> None:
    named = []  # contract, and what its report must say
    for contract, module, offence in OFFENCES:
        with (package / module).open("a") as source:
            source.write(f"\n{offence}\n")
        importer = ".".join(Path("jobhistory", module).with_suffix("").parts).removesuffix(".__init__")
        line = len((package / module).read_text().splitlines())
        told = f"{importer} -> {offence.removeprefix('import ')} (l.{line})" if offence else importer
        named.append((contract, f" {told}\n"))

    linted = lint_imports(package)

    assert 1 == linted.returncode
    titles = "|".join(re.escape(known["name"]) for known in CONTRACTS)
    _, *sections = re.split(rf"^({titles})\n-+\n", linted.stdout, flags=re.MULTILINE)
    reports = dict(zip(sections[::2], sections[1::2], strict=True))
    names = {known["id"]: known["name"] for known in CONTRACTS}
    assert [] == [(contract, told) for contract, told in named if told not in reports[names[contract]]], linted.stdout


def test_every_import_contract_has_been_seen_to_break() -> None:
    assert {known["id"] for known in CONTRACTS} == {contract for contract, _, _ in OFFENCES}


def test_the_core_contract_names_every_module_below_storage() -> None:
    [layers] = [known["layers"] for known in CONTRACTS if known["id"] == "layers"]
    [core] = [known["source_modules"] for known in CONTRACTS if known["id"] == "core"]
    below = re.findall(r"\w+", " ".join(layers[layers.index("storage") + 1 :]))
    standing = {f"jobhistory.{name}" for name in below if (PACKAGE / f"{name}.py").exists()}

    assert standing == set(core)


def test_importing_the_package_loads_no_backend_and_no_extra() -> None:
    program = "import jobhistory, sys; print([name for name in sys.argv[1:] if name in sys.modules])"
    backends = ["jobhistory.storage", "psycopg", "sqlite3", "sqlite_utils", "gzip", "secrets", "tempfile"]
    frameworks = ["fastapi", "httptools", "jinja2", "pydantic", "starlette", "uvicorn"]
    integrations = ["jobhistory.integrations", "openlineage", "opentelemetry", "prometheus_client"]
    tools = ["anyio", "click", "hypothesis", "platformdirs", "psycopg_pool", "pyarrow", "pytest", "rich"]
    extras = [*frameworks, *integrations, *tools]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}

    loaded = subprocess.run(
        [sys.executable, "-c", program, *backends, *extras],
        env=unmeasured,  # measuring loads sqlite3
        capture_output=True,
        text=True,
        check=True,
    )

    assert "[]\n" == loaded.stdout


def test_ci_runs_the_test_command_of_the_readme_and_the_demo() -> None:
    commands = re.findall(r"^ *(python3 -m venv .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    steps = (ROOT / ".ci" / "run").read_text()

    assert ["jobhistory demo", "pytest -n auto"] == [
        re.sub(r".*(jobhistory demo|pytest -n auto)", r"\1", command) for command in commands
    ]
    assert [] == [command for command in commands if command not in steps]


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements", {"bench", "test"}), ("integrations", {"test-integrations"})]
)
def test_a_lock_pins_every_requirement(lock: str, extras: set[str]) -> None:
    project = SETTINGS["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    required = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    while extras:
        wanted = [Requirement(text) for extra in extras for text in optional[extra]]
        required |= {canonicalize_name(each.name) for each in wanted}
        extras = {extra for each in wanted if each.name == "jobhistory" for extra in each.extras}
    locked = (ROOT / ".ci" / f"{lock}.lock").read_text()

    assert required - {"jobhistory"} <= set(re.findall(r"^([\w-]+)==", locked, re.MULTILINE))


def test_the_lock_pins_what_builds_the_package() -> None:
    [backend] = SETTINGS["build-system"]["requires"]

    assert f"\n{Requirement(backend).name}==" in (ROOT / ".ci" / "requirements.lock").read_text()


def test_every_extra_is_installed_where_ci_tests() -> None:
    optional: dict[str, list[str]] = SETTINGS["project"]["optional-dependencies"]
    tested = {"bench", "test", "test-integrations"}
    named = {extra for name in tested for text in optional[name] for extra in Requirement(text).extras}

    assert set(optional) - tested <= named
