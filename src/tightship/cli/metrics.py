"""`tightship metrics`: what there is to do and what today has cost, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import click

from tightship.cli._http import address, hostname, is_loopback, listening, serve_until
from tightship.cli._shell import Shell, command, run_async
from tightship.core.errors import InputRejected, TightshipError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from tightship.insight import Demand
    from tightship.ledger import Ledger

TOKEN_VARIABLE: Final = "TIGHTSHIP_METRICS_TOKEN"
_FRESH: Final = 1.0
"""Seconds for which one reading answers everybody who asks."""


@click.command()
@click.option("--listen", default="", metavar="HOST:PORT", help="Serve /metrics and /healthz there until told to stop.")
@command
def metrics(shell: Shell, listen: str) -> None:
    """Print what there is to do and what today has cost, by tenant and workflow, as Prometheus reads it.

    With --listen it goes on and answers at /metrics, and at /healthz whether the store can be read. Who asks has to
    send the bearer token that TIGHTSHIP_METRICS_TOKEN holds; on a loopback address it may be left out, elsewhere
    nothing is served without one. Works beside a process that executes.
    """
    if listen:
        host, port = address(listen)
        token = _token(host)
        run_async(lambda: _serve(shell, host, port, token))
        return
    found = run_async(lambda: _once(shell))
    shell.emit(found.as_dict())
    if not shell.json:
        from tightship.insight import exposition

        click.echo(exposition(found), nl=False)


async def _once(shell: Shell) -> Demand:
    from tightship.cli._open import looking
    from tightship.insight import demand
    from tightship.runtime.admission import bounds_of

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        return await demand(ledger, await _living(ledger), bounds=bounds_of(workspace.files.config.admission))


async def _living(ledger: Ledger) -> set[str] | None:
    """Who lives of those that execute; None where one process does."""
    return await ledger.living() if ledger.backend.shared else None


def _token(host: str) -> str:
    """What whoever asks has to know; empty where nobody else can ask.

    Raises:
        InputRejected: others can, and there is none.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token and not is_loopback(host):
        raise InputRejected(
            f"{host} can be reached from other machines, and no token keeps them out",
            fix=f"set {TOKEN_VARIABLE} (`openssl rand -base64 32`), or listen on 127.0.0.1",
        )
    return token


# --- serving ------------------------------------------------------------------------------------------


async def _serve(shell: Shell, host: str, port: int, token: str) -> None:
    from tightship.cli._open import looking
    from tightship.cli._work import stoppable
    from tightship.insight import Lately, demand
    from tightship.runtime.admission import bounds_of

    stop, lately = asyncio.Event(), Lately()
    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        bounds = bounds_of(workspace.files.config.admission)

        async def read() -> Demand:
            return await demand(ledger, await _living(ledger), lately, bounds)

        app = build_app(read, token)
        with listening(host, port) as listener:
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{listener.getsockname()[1]}"
            async with stoppable(shell, stop, quiet=True):
                shell.line({"event": "ready", "url": url, "pid": os.getpid()})
                shell.say(f"{url}/metrics answers; Ctrl-C ends it")
                await serve_until(stop, app, listener)
    shell.line({"event": "stopped"})
    shell.say("stopped")


class _Readings:
    """One reading at a time, and one for all who ask within a second."""

    def __init__(self, read: Callable[[], Awaitable[Demand]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._last: tuple[float, Demand] | None = None

    async def latest(self) -> Demand:
        now = asyncio.get_running_loop().time
        async with self._lock:
            if self._last is None or now() - self._last[0] >= _FRESH:
                found = await self._read()
                self._last = (now(), found)
            return self._last[1]


def build_app(read: Callable[[], Awaitable[Demand]], token: str = "") -> Starlette:
    """/metrics and /healthz.

    Args:
        read: reads the store.
        token: what /metrics asks for; without one, only requests that name this machine are answered, so that no web
            page reads it through a name of its own (DNS rebinding).
    """
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from tightship.insight import exposition
    from tightship.insight.exposition import CONTENT_TYPE

    readings = _Readings(read)

    async def answer(request: Request) -> Response:
        if not _may(request, token):
            return PlainTextResponse("the bearer token is missing or wrong\n", 401, {"WWW-Authenticate": "Bearer"})
        try:
            text = exposition(await readings.latest())
        except TightshipError:  # its words are for the log of whoever runs this, not for the network
            return PlainTextResponse("the store cannot be read\n", 503)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def health(request: Request) -> Response:
        try:
            await readings.latest()
        except TightshipError:
            return PlainTextResponse("the store cannot be read\n", 503)
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/metrics", answer), Route("/healthz", health)])


def _may(request: Request, token: str) -> bool:
    if not token:
        return is_loopback(hostname(request.headers.get("host", "")))
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
