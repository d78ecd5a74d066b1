"""A broker in memory: for tests and for programs that push to themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from tightship.context.feeds.port import Delivery
from tightship.core.errors import Unavailable
from tightship.core.ports import Json


class MemoryBroker:
    """Keeps what was published until it is acknowledged; `again` gives what is not once more, as after a crash.

    Attributes:
        acknowledged: the names of those that were taken, in order. down: it does not answer.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Delivery] = {}
        self._given: set[str] = set()
        self._woken = asyncio.Event()
        self.acknowledged: list[str] = []
        self.down = False

    def publish(self, event: Json, id: str, at: float) -> None:
        """Push an event, as JSON (bytes as they are)."""
        data = event if isinstance(event, bytes) else orjson.dumps(event)
        self._kept[id] = Delivery(id, at, data, token=id)
        self._woken.set()

    def again(self) -> None:
        """Whoever has taken something is gone: give it to the next."""
        self._given.clear()
        self._woken.set()

    async def take(self, limit: int, seconds: float) -> Sequence[Delivery]:
        """As the port says."""
        self._check()
        due = [one for id, one in self._kept.items() if id not in self._given]
        if not due:
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), seconds)
            except TimeoutError:
                return []
            return await self.take(limit, seconds)
        self._given.update(one.id for one in due[:limit])
        return due[:limit]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """As the port says."""
        self._check()
        for one in deliveries:
            if self._kept.pop(one.token, None) is not None:
                self.acknowledged.append(one.id)
            self._given.discard(one.token)

    async def close(self) -> None:
        """As the port says."""
        self.again()

    def _check(self) -> None:
        if self.down:
            raise Unavailable("the broker does not answer")
