"""The port `Broker`: whatever keeps what a source has pushed until it is told that it was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from tightship.core import exact
from tightship.core.errors import InputRejected, InvalidArguments
from tightship.core.ports import Json

MAX_ID = 200
"""Characters of a delivery's name."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way from a source.

    Attributes:
        id: its name; the same event that comes again has the same one. at: when its sender says it sent it (s).
        data: the event as JSON. token: by which the broker knows it.
    """

    id: str
    at: float
    data: bytes
    token: Any = field(default=None, compare=False)

    def event(self) -> Json:
        """The event.

        Raises:
            InvalidArguments: it is no JSON, or a number in it cannot be kept.
        """
        try:
            return exact.loads(self.data)
        except exact.NumberTooLong as error:
            raise InvalidArguments(error.msg) from None
        except orjson.JSONDecodeError:
            raise InvalidArguments("the event is no JSON", fix="let its sender write JSON in UTF-8") from None


class Broker(Protocol):
    """Keeps deliveries until they are acknowledged, and gives those again that never are (at least once)."""

    async def take(self, limit: int, seconds: float) -> Sequence[Delivery]:
        """Deliveries that are due, in order; waits for one so long, then gives none.

        Raises:
            Unavailable: it does not answer.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """They are durable here: they are never given again.

        Raises:
            Unavailable: it does not answer; they may be given again.
        """
        ...

    async def close(self) -> None:
        """End the connection. What was not acknowledged is given to whoever comes next."""
        ...


async def open_broker(url: str, stream: str, subject: str | None, group: str) -> Broker:
    """The broker of a URL: `redis://`, `rediss://`, `nats://` or `tls://`.

    Args:
        stream: of Redis, or of JetStream. subject: of JetStream's messages, those of it alone.
        group: the consumer group, or durable consumer; all who name the same one share the messages.

    Raises:
        InputRejected: another scheme, or its client is not installed. Unavailable: it does not answer.
    """
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis", "rediss"):
            from tightship.context.feeds.redis_streams import RedisBroker

            return await RedisBroker.open(url, stream, group)
        if scheme in ("nats", "tls"):
            from tightship.context.feeds.jetstream import NatsBroker

            return await NatsBroker.open(url, stream, subject, group)
    except ImportError as error:
        extra = "redis" if scheme.startswith("redis") else "nats"
        raise InputRejected(
            f"the client of this broker cannot be imported: {error}", fix=f"pip install 'tightship[{extra}]'"
        ) from None
    raise InputRejected(f"there is no broker of the kind {scheme[:40]!r}", fix="use redis://… or nats://…")
