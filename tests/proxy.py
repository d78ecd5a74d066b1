"""A TCP relay that can stop relaying: what a cut cable looks like to both ends, nothing is closed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import postgres_desk


class Proxy:
    """Relays connections from a TCP port of loopback to a unix socket, until it is cut."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> int:
        """Begin to relay; returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Packets are lost from now on, in both directions; connections are taken and lead nowhere."""
        self._open.clear()

    def mend(self) -> None:
        """What was held back is delivered, and everything after it."""
        self._open.set()

    async def close(self) -> None:
        """Close every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()

    def changed(self, data: bytes) -> bytes:
        """What is passed on in place of what came."""
        return data

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._open.wait()
        try:
            there, back = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        self._writers.append(back)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._relay(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(self.changed(data))
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.close()


class Aged(Proxy):
    """Relays a server that says that it has another version."""

    def __init__(self, target: Path, version: str) -> None:
        super().__init__(target)
        name = b"server_version\0"
        value = version.encode() + b"\0"
        self._said = b"S" + struct.pack(">I", 4 + len(name) + len(value)) + name + value

    def changed(self, data: bytes) -> bytes:
        """The message ParameterStatus, by which a server says its version while it lets a client in."""
        return re.sub(rb"S\0\0\0.server_version\0[^\0]*\0", lambda _: self._said, data, flags=re.DOTALL)


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """The same store by way of a relay."""
    proxy = Proxy(postgres_desk.server().folder / ".s.PGSQL.5432")
    port = await proxy.start()
    schema = url.rpartition("schema=")[2]
    try:
        yield proxy, f"postgresql://postgres@127.0.0.1:{port}/postgres?schema={schema}"
    finally:
        proxy.mend()
        await proxy.close()
