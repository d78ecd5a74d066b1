"""A stream of NATS JetStream as a broker: a durable pull consumer with explicit acknowledgement (https://docs.nats.io)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final

from tightship.context.feeds.port import MAX_ID, Delivery
from tightship.core.errors import Unavailable

WAIT: Final = 10.0
"""Seconds after which the server gives again what was not acknowledged."""
_NAME: Final = "Nats-Msg-Id"
"""The header by which a publisher names its message."""


class NatsBroker:
    """The messages of a stream (port `Broker`)."""

    def __init__(self, connection: Any, pulling: Any) -> None:
        self._connection, self._pulling = connection, pulling

    @classmethod
    async def open(cls, url: str, stream: str, subject: str | None, group: str, wait: float = WAIT) -> NatsBroker:
        """Connect, and make the durable consumer where there is none: it begins with the stream's first message.

        Raises:
            ImportError: nats-py is not installed. Unavailable: it does not answer, refuses, or has no such stream.
        """
        async with _translated():
            api = import_module("nats.js.api")
            connection: Any = await import_module("nats").connect(
                url, connect_timeout=10, allow_reconnect=False, error_cb=_quiet
            )
            try:
                config = api.ConsumerConfig(
                    ack_policy=api.AckPolicy.EXPLICIT, deliver_policy=api.DeliverPolicy.ALL, ack_wait=wait
                )
                pulling = await connection.jetstream().pull_subscribe(
                    subject or "", durable=group, stream=stream, config=config
                )
            except BaseException:
                await connection.close()
                raise
        return cls(connection, pulling)

    async def take(self, limit: int, seconds: float) -> Sequence[Delivery]:
        """As the port says."""
        async with _translated():
            try:
                messages = await self._pulling.fetch(limit, timeout=seconds)
            except import_module("nats.errors").TimeoutError:
                if self._connection.is_closed:
                    raise ConnectionError from None
                return []
        return [_delivery(message) for message in messages]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """As the port says."""
        async with _translated():
            for one in deliveries:
                await one.token.ack()
            await self._connection.flush(timeout=10)

    async def close(self) -> None:
        """As the port says."""
        async with _translated():
            await self._connection.close()


def _delivery(message: Any) -> Delivery:
    about = message.metadata
    named = (message.headers or {}).get(_NAME, "")[:MAX_ID]
    return Delivery(
        named or f"{about.stream}:{about.sequence.stream}", about.timestamp.timestamp(), message.data, message
    )


async def _quiet(error: Exception) -> None:
    """What goes wrong is raised where it matters; the library would print it."""


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    """The library's errors in the tree's terms, without the URL: a password may be in it."""
    try:
        yield
    except (import_module("nats.errors").Error, OSError, TimeoutError) as error:
        raise Unavailable(f"the broker of the feed does not answer as it should ({type(error).__name__})") from None
