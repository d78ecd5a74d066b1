"""`tightship company …`: the sample company on loopback."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from tightship.core.errors import LoadError, StoreError, TightshipError

if TYPE_CHECKING:
    from tightship.workflow.config import ConnectorSpec

DEFAULT_PORT = 8765
_SECRETS = ".secrets"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Place(NamedTuple):
    """Where a workspace expects the company: its port, the name of the secret, the workspace's folder."""

    port: int
    secret: str
    folder: Path


@click.group()
def company() -> None:
    """The sample company: a practice world on loopback."""


@company.command()
@click.option(
    "-w",
    "--workspace",
    type=click.Path(path_type=Path),
    default=".",
    metavar="DIR",
    help="The workspace that it serves (default: here).",
)
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--db", metavar="FILE", help="Where its records are kept; `:memory:` forgets them at the end.")
@click.option("--seed", type=int, default=1, show_default=True, help="Drives faults that have a rate.")
@click.option("--until-closed", is_flag=True, help="End when standard input is closed: with whoever started it.")
@click.option("--debug", is_flag=True, help="Print whole tracebacks.")
@click.option("--json", "as_json", is_flag=True, help="What it prints is JSON anyway.")
def serve(
    workspace: Path, port: int | None, db: str | None, seed: int, until_closed: bool, debug: bool, as_json: bool
) -> int:
    """Serve the sample company on 127.0.0.1 until Ctrl-C.

    In a workspace whose connector points to this machine, it listens where the connector looks for it, keeps its
    records in company.db there, and uses the connector's token: that of the environment, else that of .secrets, else
    a new one, which it writes to .secrets. Elsewhere it listens on port 8765 with records in memory and a new token.

    Prints one JSON line with url, openapi, pid, and the token where it was made here, when it is ready.
    """
    from tightship.company import CompanyError, CompanySettings
    from tightship.company import serve as serving

    if until_closed:
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        place = _place(workspace)
        token = None if place is None else _token(place)
        chosen = port if port is not None else place.port if place is not None else DEFAULT_PORT
        file = db or (str(place.folder / "company.db") if place is not None else ":memory:")
        asyncio.run(serving(CompanySettings(chosen, file, seed, token)))
    except CompanyError as error:
        return _failed(StoreError(str(error), fix=_fix(str(error))), debug, as_json)
    except TightshipError as error:
        return _failed(error, debug, as_json)
    except KeyboardInterrupt:
        return 0
    return 0


def _end_with_input() -> None:
    """End this process in good order once standard input is closed."""
    while os.read(0, 1024):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def _fix(error: str) -> str:
    if "cannot listen" in error:
        return (
            "stop what is there (the company of another workspace?), or choose another --port and write it into"
            " `connectors:` of tightship.yaml"
        )
    return "choose another --port or --db"


def _failed(error: TightshipError, debug: bool, as_json: bool) -> int:
    if debug:
        raise error
    if as_json:
        import orjson

        click.echo(orjson.dumps(error.as_dict()).decode(), err=True)
    else:
        click.echo(f"error: {error.message}", err=True)
        for name, value in (("where", error.where), ("fix", error.fix)):
            if value:
                click.echo(f"  {name + ':':<6} {value}", err=True)
    return 1


def _place(folder: Path) -> Place | None:
    """Where the workspace in this folder, if there is one, looks for a company on this machine.

    Raises:
        LoadError: its tightship.yaml is wrong.
    """
    from tightship.patterns import load_all
    from tightship.workflow.loader import CONFIG, load_workspace

    if not (folder / CONFIG).is_file():
        return None
    load_all()
    loaded = load_workspace(folder)
    for problem in loaded.problems:
        if problem.file == CONFIG:
            raise problem
    for connector in loaded.workspace.config.connectors.values():
        port = _local_port(connector)
        if port is not None:
            bearer = connector.auth.bearer if connector.auth is not None else None
            return Place(port, bearer.secret if bearer is not None else "COMPANY_TOKEN", folder)
    return None


def _local_port(connector: ConnectorSpec) -> int | None:
    """The port on this machine that a connector talks to, or None when it talks to another machine."""
    address = urlsplit(connector.base_url or connector.openapi)
    return address.port if address.hostname in _LOOPBACK else None


def _token(place: Place) -> str:
    """The workspace's token, made and kept when there is none.

    Raises:
        LoadError: .secrets can be read by others, or cannot be written.
    """
    from tightship.connectors.secrets import default_secrets
    from tightship.core.errors import UnknownName

    try:
        return default_secrets(place.folder).get(place.secret)
    except UnknownName:
        token = secrets.token_urlsafe(24)
        try:
            _keep(place.folder / _SECRETS, place.secret, token)
        except OSError as error:
            raise LoadError(f"the token cannot be kept: {error.strerror}", file=str(place.folder / _SECRETS)) from None
        return token


def _keep(path: Path, name: str, token: str) -> None:
    """Write a secret that its owner alone may read: a file in the folder of secrets, or a line of the file."""
    if not path.is_file():
        path.mkdir(mode=0o700, exist_ok=True)
        path = path / name
        text = f"{token}\n"
    else:
        text = f"{name}={token}\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
