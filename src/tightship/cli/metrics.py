"""`tightship metrics`: what there is to do and what today has cost, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from tightship.cli._shell import Shell, command, run_async
from tightship.core.errors import InputRejected, TightshipError, Unavailable

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
        host, port = _address(listen)
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

    async with looking(shell) as workspace:
        ledger = await workspace.ledger()
        return await demand(ledger, await _living(ledger))


async def _living(ledger: Ledger) -> set[str] | None:
    """Who lives of those that execute; None where one process does."""
    return await ledger.living() if ledger.backend.shared else None


def _address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets."""
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
        right = parts.netloc == listen and "@" not in listen
    except ValueError:
        host, port, right = None, None, False
    if not host or port is None or not right:
        raise InputRejected(f"{listen!r} is no place to listen", fix="write HOST:PORT, such as 127.0.0.1:9464")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    from tightship.insight import demand

    stop = asyncio.Event()
    async with looking(shell) as workspace:
        ledger = await workspace.ledger()

        async def read() -> Demand:
            return await demand(ledger, await _living(ledger))

        app = build_app(read, token)
        with _listener(host, port) as listener:
            name = f"[{host}]" if ":" in host else host
            url = f"http://{name}:{listener.getsockname()[1]}"
            async with stoppable(shell, stop, quiet=True):
                shell.line({"event": "ready", "url": url, "pid": os.getpid()})
                shell.say(f"{url}/metrics answers; Ctrl-C ends it")
                await _until(stop, app, listener)
    shell.line({"event": "stopped"})
    shell.say("stopped")


@contextlib.contextmanager
def _listener(host: str, port: int) -> Generator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(64)  # from here on whoever comes waits, and is not turned away
        except (OSError, OverflowError) as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error}", fix="choose another --listen") from error
        yield listener


async def _until(stop: asyncio.Event, app: Starlette, listener: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:  # `stoppable` has them
            yield

    server = Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
            limit_concurrency=64,
        )
    )
    serving = asyncio.ensure_future(server.serve([listener]))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        server.should_exit = True
        await serving


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
        return is_loopback(_hostname(request.headers.get("host", "")))
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _hostname(value: str) -> str:
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:
        return ""
