"""Following changes: who watches is told of every write, and knows when it has heard nothing for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from tightship.context.heads import Head, Heads, Place
from tightship.context.values import Value
from tightship.core import kinds
from tightship.core.world import Clock
from tightship.ledger import Entry
from tightship.workflow.context_keys import matches

SILENCE: Final = 0.25
"""Seconds without a sign of the ledger's position after which what a follower holds counts as stale."""
_BEAT: Final = 0.02
"""Seconds between two looks at the ledger's position, and at what other processes have appended."""


class Follower:
    """A copy of the heads that is kept up by the ledger's listeners: own entries, and those of other processes.

    Silence is not freshness: a copy is believed only while the ledger's position was heard within 250 ms. Otherwise
    `get` reads through, so that a follower that lost its feed answers late and never wrongly.
    """

    def __init__(self, heads: Heads, clock: Clock, pattern: str = "", scope: str = "") -> None:
        self._heads, self._clock = heads, clock
        self._pattern, self._scope = pattern, scope
        self._heard_at = clock.monotonic()
        self._copies: dict[Place, Head] = {}
        self._told: dict[Place, int] = {}
        self._queue: asyncio.Queue[Place] = asyncio.Queue()
        self.position = 0
        """The last position of the ledger that was heard."""
        self.read_through = 0
        """How often a read did not believe the copy."""

    @property
    def stale(self) -> bool:
        """Whether nothing was heard for 250 ms."""
        return self._clock.monotonic() - self._heard_at > SILENCE

    @asynccontextmanager
    async def following(self) -> AsyncGenerator[Follower]:
        """Listen for as long as the block runs; the ledger is asked for its position in between."""
        stop: Callable[[], None] = self._heads.ledger.listen(self._heard)
        beat = asyncio.ensure_future(self._beat())
        try:
            yield self
        finally:
            stop()
            beat.cancel()
            await asyncio.wait({beat})

    async def get(self, key: str) -> Value:
        """A key's value in the scope that is followed: from the copy while it is believed, else from the ledger."""
        place: Place = (self._scope, key)
        head = self._copies.get(place)
        if head is None or self.stale:
            self.read_through += 1
            head = self._copies[place] = (await self._heads.read([place]))[place]
        return (await self._heads.values([head], self._clock.now()))[0]

    async def changes(self) -> AsyncGenerator[Value]:
        """Each change of what is followed, at its newest: a reader who is slow skips what was overwritten."""
        while True:
            place = await self._queue.get()
            head = (await self._heads.read([place]))[place]
            if head.version <= self._told.get(place, 0):
                continue  # told already, together with an earlier change
            self._told[place] = head.version
            self._copies[place] = head
            yield (await self._heads.values([head], self._clock.now()))[0]

    def _heard(self, entries: list[Entry], foreign: bool) -> None:
        self._heard_at = self._clock.monotonic()
        for entry in entries:
            self.position = max(self.position, entry.n)
            if entry.kind != kinds.CONTEXT:
                continue
            place: Place = (entry.body["scope"], entry.body["key"])
            self._copies.pop(place, None)
            if self._scope in ("", place[0]) and (not self._pattern or matches(self._pattern, place[1]) is not None):
                self._queue.put_nowait(place)

    async def _beat(self) -> None:
        """The ledger's position, asked for: a feed that is quiet is not the same as one that is broken."""
        ledger = self._heads.ledger
        while True:
            await ledger.poll()
            self.position = max(self.position, await ledger.head())
            self._heard_at = self._clock.monotonic()
            await self._clock.sleep(_BEAT)
