"""Exact results of reads and models, kept for a while, and one flight for many that want the same (C3).

The key is a keyed hash that the caller makes over tool, arguments and scope. The value is meant to be a reference (a
payload's address), so that an erased payload is not kept alive here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from tightship.core.errors import WorkException
from tightship.core.ports import Json
from tightship.core.world import Clock

V = TypeVar("V")


class _Item(Generic[V]):
    __slots__ = ("size", "until", "value")

    def __init__(self, value: V, size: int, until: float) -> None:
        self.value, self.size, self.until = value, size, until


class ResultCache(Generic[V]):
    """Least recently used goes first, bounded in number and in bytes.

    Args:
        clock: the world's clock.
        items: the most results.
        size: the most bytes, as the callers state them.
    """

    __slots__ = ("_clock", "_flights", "_items", "_limit", "_size", "_used", "coalesced", "evicted", "hits", "misses")

    def __init__(self, clock: Clock, *, items: int = 10_000, size: int = 64_000_000) -> None:
        self._clock = clock
        self._limit, self._size = items, size
        self._items: OrderedDict[str, _Item[V]] = OrderedDict()
        self._flights: dict[str, Flight[V]] = {}
        self._used = 0
        self.hits = self.misses = self.coalesced = self.evicted = 0

    def get(self, key: str) -> V | None:
        """The result, or None when there is none that is young enough."""
        item = self._items.get(key)
        if item is not None:
            if self._clock.monotonic() < item.until:
                self._items.move_to_end(key)
                self.hits += 1
                return item.value
            self.discard(key)
        self.misses += 1
        return None

    def put(self, key: str, value: V, *, size: int, ttl: float) -> None:
        """Keep a result.

        Args:
            key: the keyed hash of what was asked.
            value: the result, never None.
            size: bytes that count against the bound; one above the whole bound is not kept.
            ttl: seconds; 0 or less keeps nothing.
        """
        self.discard(key)
        if ttl <= 0 or size > self._size:
            return
        self._items[key] = _Item(value, size, self._clock.monotonic() + ttl)
        self._used += size
        while len(self._items) > self._limit or self._used > self._size:
            _, oldest = self._items.popitem(last=False)
            self._used -= oldest.size
            self.evicted += 1

    def discard(self, key: str) -> None:
        """Forget a result (its payload was erased, a write has changed what it read)."""
        item = self._items.pop(key, None)
        if item is not None:
            self._used -= item.size

    def clear(self, match: Callable[[str], bool] | None = None) -> None:
        """Forget everything, or the keys that match."""
        for key in list(self._items):
            if match is None or match(key):
                self.discard(key)

    def flight(self, key: str) -> Flight[V]:
        """Fetch a result once for all that want it now.

        ```
        async with cache.flight(key) as flight:
            if flight.hit is None:
                flight.fill(await fetch(), size=…, ttl=…)
        ```
        The first to enter fetches; the others wait and find `hit`. When the fetch raises an Exception they raise it
        too, since asking again at once would ask the same. When it is stopped (cancelled, halted, over budget: a
        reason of its own) or leaves without a result, the next in line fetches.
        """
        return Flight(self, key)

    def as_dict(self) -> dict[str, Json]:
        """Counts: results, bytes, hits, misses, coalesced, evicted."""
        return {
            "items": len(self._items),
            "bytes": self._used,
            "hits": self.hits,
            "misses": self.misses,
            "coalesced": self.coalesced,
            "evicted": self.evicted,
        }

    def __len__(self) -> int:
        return len(self._items)


class Flight(Generic[V]):
    """One caller's part in a fetch; made by `ResultCache.flight`."""

    __slots__ = ("_cache", "_done", "_error", "_key", "_leads", "hit")

    def __init__(self, cache: ResultCache[V], key: str) -> None:
        self._cache, self._key = cache, key
        self._leads = False
        self._done: asyncio.Event | None = None
        self._error: Exception | None = None
        self.hit: V | None = None

    def fill(self, value: V, *, size: int, ttl: float) -> None:
        """The result is there: keep it (for `ttl` seconds) and give it to all that wait, also when `ttl` is 0."""
        self.hit = value
        self._cache.put(self._key, value, size=size, ttl=ttl)

    async def __aenter__(self) -> Flight[V]:
        cache = self._cache
        self.hit = cache.get(self._key)
        while self.hit is None:
            leader = cache._flights.get(self._key)
            if leader is None:
                cache._flights[self._key] = self
                self._leads = True
                break
            cache.coalesced += 1
            if leader._done is None:
                leader._done = asyncio.Event()
            await leader._done.wait()
            if leader._error is not None:
                raise leader._error
            self.hit = leader.hit
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._leads:
            return
        self._leads = False
        del self._cache._flights[self._key]
        # a failure of the work is everybody's; what is the leader's own (its ledger, its keys) is not
        if isinstance(error, WorkException) and self.hit is None:
            self._error = type(error)(error.message)
        if self._done is not None:
            self._done.set()
