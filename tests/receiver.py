"""A receiver of webhooks on loopback: it answers as written down, and keeps what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from tightship.context.feeds.webhook import secret_bytes, verified

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Receiver:
    """Answers: a status; or a function that is awaited first and gives one. Once they have run out: 200."""

    answers: list[int | Callable[[], Awaitable[int]]] = field(default_factory=list)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/told"

    @property
    def ids(self) -> list[str]:
        """The names of the deliveries, in the order in which they came."""
        return [headers["webhook-id"] for headers, _ in self.received]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [orjson.loads(body) for _, body in self.received]

    def signed(self, window: float = 1e9) -> bool:
        """Whether every delivery is signed, as the receiving side of this program judges it."""
        key = secret_bytes(SECRET)
        return all(
            verified(key, headers, body, float(headers["webhook-timestamp"]), window) is not None
            for headers, body in self.received
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append((headers, body))
            self.came.set()
            answer = self.answers.pop(0) if self.answers else 200
            status = answer if isinstance(answer, int) else await answer()
            there = f"location: {self.url}/elsewhere\r\n" if status == 307 else ""
            writer.write(f"HTTP/1.1 {status} X\r\n{there}content-length: 2\r\n\r\nno".encode())
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*answers: int | Callable[[], Awaitable[int]]) -> AsyncGenerator[Receiver]:
    """A receiver, for as long as it is needed."""
    receiver = Receiver(list(answers))
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
