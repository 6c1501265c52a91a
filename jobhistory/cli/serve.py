"""serve: the API and the page, for others to look at."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobhistory.cli.database import BadInputError, Database
from jobhistory.cli.render import visible

if TYPE_CHECKING:
    from jobhistory.http import Tokens

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="The port; 0 for any that is free."
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The keys that are let in, one a line.",
)
@click.option("--metrics", is_flag=True, help="Serve /metrics too, for Prometheus.")
@click.pass_obj
def serve(database: Database, *, host: str, port: int, token_file: Path | None, metrics: bool) -> None:
    """Serve the history over HTTP, with a page to look at.

    It serves until Ctrl-C. Each line of the token file holds a key, for all connections or for those whose ids
    stand behind it. Clients send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; the page asks for it.
    Without a token file everybody who reaches the port may see, run and cancel jobs: so only this machine does.
    Metrics tell of all connections: only a key for all of them opens /metrics.
    """
    try:
        from jobhistory.http.server import Server

        if metrics:
            from jobhistory.http.metrics import create_metrics_router
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    from jobhistory.http import create_app

    tokens = _read(token_file) if token_file else None
    if tokens is None and not _is_loopback(host):
        message = f"{visible(host)} is reached from other machines: give --token-file, or serve on 127.0.0.1"
        raise BadInputError(message)
    with database.read() as history, _listening(host, port) as listening:
        bound = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        open_to = "" if tokens else " No --token-file: for this machine only, and for everybody on it."
        click.echo(f"Serving {visible(database.url)} at http://{shown}:{bound}/ until Ctrl-C.{open_to}")
        app = create_app(history, tokens, hosts=None if tokens else {*_THIS_MACHINE, host.lower()})
        if metrics:
            app.include_router(create_metrics_router(history, tokens and tokens.opens_all, is_key=tokens))
        Server(app).run([listening])


def _read(path: Path) -> Tokens:
    from jobhistory.http import Tokens

    try:
        return Tokens.from_file(path)
    except ValueError as error:
        raise BadInputError(visible(str(error))) from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections already. Raises OSError."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=2048)
