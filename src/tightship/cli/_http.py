"""HTTP servers of commands: where they listen, and that they end when they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tightship.core.errors import InputRejected, Unavailable

if TYPE_CHECKING:
    from starlette.applications import Starlette


def address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 address stands in brackets."""
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
        right = parts.netloc == listen and "@" not in listen
    except ValueError:
        host, port, right = None, None, False
    if not host or port is None or not right:
        raise InputRejected(f"{listen!r} is no place to listen", fix="write HOST:PORT, such as 127.0.0.1:8788")
    return host, port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def listening(host: str, port: int) -> Generator[socket.socket]:
    """A socket that takes connections.

    Raises:
        Unavailable: the place is taken, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(64)  # from here on whoever comes waits, and is not turned away
        except (OSError, OverflowError) as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error}", fix="choose another --listen") from error
        yield listener


async def serve_until(stop: asyncio.Event, app: Starlette, listener: socket.socket, connections: int = 64) -> None:
    """Serve until told to stop; what has begun is answered.

    Args:
        connections: how many at once; others are turned away.
    """
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
            limit_concurrency=connections,
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


def hostname(value: str) -> str:
    """The host that a `Host` header names; empty where it names none."""
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:
        return ""
