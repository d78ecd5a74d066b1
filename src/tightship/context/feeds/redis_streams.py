"""A stream of Redis as a broker: a consumer group, acknowledged once durable (https://redis.io/docs/data-types/streams/)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final

import orjson

from tightship.context.feeds.port import Delivery
from tightship.core.errors import Unavailable

IDLE: Final = 10.0
"""Seconds after which what another consumer has taken and not acknowledged is taken over."""
FIELD: Final = b"data"
"""The field of an entry that holds the event as JSON; without it the event is the fields, as texts."""


class RedisBroker:
    """The entries of a stream (port `Broker`)."""

    def __init__(self, redis: Any, stream: str, group: str, idle: float) -> None:
        self._redis, self._stream, self._group, self._idle = redis, stream, group, idle
        self._name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"
        self._claimed_at = float("-inf")

    @classmethod
    async def open(cls, url: str, stream: str, group: str, idle: float = IDLE) -> RedisBroker:
        """Connect, and make the group where there is none: it begins with the stream's first entry.

        Raises:
            ImportError: redis is not installed. Unavailable: it does not answer, or refuses.
        """
        async with _translated():
            redis = _client().asyncio.Redis.from_url(url, socket_connect_timeout=10, socket_timeout=30)
            try:
                await redis.xgroup_create(stream, group, id="0", mkstream=True)
            except BaseException as error:
                if not str(error).startswith("BUSYGROUP"):  # it is there already
                    await redis.aclose()
                    raise
        return cls(redis, stream, group, idle)

    async def take(self, limit: int, seconds: float) -> Sequence[Delivery]:
        """As the port says."""
        async with _translated():
            left = await self._left_by_others(limit)
            if left:
                return left
            block = max(1, round(seconds * 1000))
            found = await self._redis.xreadgroup(self._group, self._name, {self._stream: ">"}, count=limit, block=block)
            entries = next(iter(found.values()))[0] if isinstance(found, dict) and found else []
            if isinstance(found, list) and found:
                entries = found[0][1]
        return [_delivery(id, fields) for id, fields in entries]

    async def _left_by_others(self, limit: int) -> list[Delivery]:
        """What a consumer that is gone has taken and not acknowledged; a deleted entry comes without fields."""
        now = time.monotonic()
        if now - self._claimed_at < self._idle / 2:
            return []
        found = await self._redis.xautoclaim(
            self._stream, self._group, self._name, min_idle_time=round(self._idle * 1000), start_id="0-0", count=limit
        )
        entries = [(id, fields) for id, fields in found[1] if fields]
        if len(entries) < limit:
            self._claimed_at = now
        return [_delivery(id, fields) for id, fields in entries]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """As the port says."""
        async with _translated():
            await self._redis.xack(self._stream, self._group, *[one.token for one in deliveries])

    async def close(self) -> None:
        """As the port says."""
        async with _translated():
            await self._redis.aclose()


def _delivery(id: bytes, fields: Mapping[bytes, bytes]) -> Delivery:
    data = fields.get(FIELD)
    if data is None:
        texts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
        data = orjson.dumps(texts)
    return Delivery(id.decode(), int(id.partition(b"-")[0]) / 1000, data, id)


def _client() -> Any:
    import_module("redis.asyncio")
    return import_module("redis")


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    """The library's errors in the tree's terms, without the URL: a password may be in it."""
    try:
        yield
    except (_client().RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"the broker of the feed does not answer as it should ({type(error).__name__})") from None
