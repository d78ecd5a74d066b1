"""Serving the company over real TCP on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tightship.company._app import DROP, build_app
from tightship.company._call import CompanyError
from tightship.company._company import Company
from tightship.company._faults import Faults

_HOST = "127.0.0.1"
_GRACE = 0.5  # seconds that calls at work have left when the service ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class CompanySettings:
    """How to serve.

    Parameters: `port` 0 takes a free one; `db` is a file or `:memory:`; `seed` drives faults with a rate and
    suppliers' promises; `token` None makes a random one.
    """

    port: int = 0
    db: str | Path = ":memory:"
    seed: int = 1
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A service that accepts calls: its address, its token, and what is behind it."""

    url: str
    token: str
    company: Company
    faults: Faults


class _Droppable(H11Protocol):
    """HTTP/1.1 that lets the application drop the TCP connection, through `scope[DROP]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        inner = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope[DROP] = transport.abort
            await inner(scope, receive, send)  # type: ignore[arg-type]

        self.app = app  # type: ignore[assignment]


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http=_Droppable,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=2,
            limit_concurrency=1000,
        )
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn would raise the signal again at the end, before the database is closed; serve() handles it.
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Calls that a fault left hanging would hold up the end: their clients see a disconnect instead.
        asyncio.get_running_loop().call_later(_GRACE, self._drop_all)
        await super().shutdown(sockets)

    def _drop_all(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def stop(self) -> None:
        """Stop accepting calls, finish those at work, and return from serve()."""
        self.should_exit = True


def _bound(port: int) -> socket.socket:
    # asyncio switches Nagle's delay off only on sockets that name the protocol; with it, answers take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise CompanyError(f"cannot listen on {_HOST}:{port}: {error}") from error
    return listener


@contextmanager
def _opened(settings: CompanySettings) -> Generator[tuple[Running, ASGIApp, socket.socket], None, None]:
    """The company, its application and a bound socket; all are closed at the end."""
    company = Company(settings.db, rng=random.Random(settings.seed))
    try:
        with _bound(settings.port) as listener:
            faults = Faults(random.Random(settings.seed))
            app = build_app(company, faults, settings.token)
            url = f"http://{_HOST}:{listener.getsockname()[1]}"
            yield Running(url, app.state.token, company, faults), app, listener
    finally:
        company.close()


async def serve(settings: CompanySettings) -> None:
    """Serve until SIGINT or SIGTERM; print one JSON line with `url`, `token`, `openapi` and `pid` when ready.

    The token is printed only when it was made here: whoever gave one knows it.
    Raises: CompanyError when the port or the database cannot be used.
    """

    def announce() -> None:
        line = {"url": service.url, "openapi": f"{service.url}/openapi.json", "pid": os.getpid()}
        if settings.token is None:
            line["token"] = service.token
        sys.stdout.write(orjson.dumps(line).decode() + "\n")
        sys.stdout.flush()

    with _opened(settings) as (service, app, listener):
        server = _Server(app, announce)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, server.stop)
        try:
            await server.serve([listener])
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


@asynccontextmanager
async def running(settings: CompanySettings) -> AsyncGenerator[Running, None]:
    """Serve inside this event loop while the block runs; signal handlers are left alone.

    Raises: CompanyError when the port or the database cannot be used.
    """
    ready = asyncio.Event()
    with _opened(settings) as (service, app, listener):
        server = _Server(app, ready.set)
        serving = asyncio.create_task(server.serve([listener]))
        serving.add_done_callback(lambda _: ready.set())
        try:
            await ready.wait()
            if serving.done():
                raise CompanyError("the service ended before it was ready")
            yield service
        finally:
            server.stop()
            await serving
