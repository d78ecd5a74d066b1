"""Following changes: who watches is told of every write, and knows when it has heard nothing for too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from tightship.context.heads import Head, Heads, Place
from tightship.context.values import Value
from tightship.core import kinds
from tightship.core.errors import StoreError
from tightship.core.world import Clock
from tightship.ledger import Entry, Ledger
from tightship.workflow.context_keys import matches

SILENCE: Final = 0.25
"""Seconds without a sign of the ledger's position after which what a follower holds counts as stale."""
BEAT: Final = 0.01
"""Seconds between two looks at what other processes have appended, where nobody tells of it."""
QUIET: Final = 0.1
"""Seconds without a notice after which a shared store is looked at all the same."""
_AT_ONCE: Final = 1000
"""Keys that one reading brings up to date."""
_REMEMBERED: Final = 100_000
"""Keys of which is known what was told last; beyond, the earliest are forgotten, and may be told twice."""
_T = TypeVar("_T")


class Follower:
    """A copy of the heads that is kept up by the ledger's listeners: own entries, and those of other processes.

    Silence is not freshness: a copy is believed only if all that others had appended 250 ms ago has been told.
    Otherwise `get` reads through, so that a follower that lost its feed answers late and never wrongly.
    """

    def __init__(self, heads: Heads, clock: Clock, pattern: str = "", scope: str = "") -> None:
        self._heads, self._clock = heads, clock
        self._pattern, self._scope = pattern, scope
        self._copies: dict[Place, Head] = {}
        self._newest: dict[Place, int] = {}
        self._told: dict[Place, int] = {}
        self._changed: dict[Place, None] = {}
        self._woken = asyncio.Event()
        self._listening = False
        self.position = 0
        """The last position of the ledger that was heard."""
        self.read_through = 0
        """How often a read did not believe the copy."""

    @property
    def stale(self) -> bool:
        """Whether it may have missed what was written more than 250 ms ago."""
        silence = self._clock.monotonic() - self._heads.ledger.hearing.heard
        return not self._listening or silence > SILENCE

    @asynccontextmanager
    async def following(self) -> AsyncGenerator[Follower]:
        """Listen for as long as the block runs."""
        ledger = self._heads.ledger
        stop = ledger.listen(self._heard)
        self._listening = True
        try:
            async with _told_by_store(ledger) if ledger.backend.shared else _asked(ledger, self._clock):
                yield self
        finally:
            self._listening = False
            stop()
            self._copies.clear()

    async def get(self, key: str) -> Value:
        """A key's value in the scope that is followed: from the copy while it is believed, else from the ledger."""
        place: Place = (self._scope, key)
        head = self._copies.get(place)
        if head is None or self.stale:
            self.read_through += 1
            head = (await self._heads.read([place]))[place]
            self._keep(head)
        return (await self._heads.values([head], self._clock.now()))[0]

    async def changes(self) -> AsyncGenerator[Value]:
        """Each change of what is followed, at its newest: a reader who is slow skips what was overwritten."""
        while True:
            await self._woken.wait()
            places = list(self._changed)[:_AT_ONCE]
            for place in places:
                del self._changed[place]
            if not self._changed:
                self._woken.clear()
            heads = (await self._heads.read(places)).items()
            # what stands as it was told came together with an earlier change
            fresh = [head for place, head in heads if head.version > self._told.get(place, 0)]
            fresh.sort(key=lambda head: head.version)
            values = await self._heads.values(fresh, self._clock.now())
            for head, value in zip(fresh, values, strict=True):
                _remember(self._told, (head.scope, head.key), head.version)
                self._keep(head)
                yield value

    def _keep(self, head: Head) -> None:
        """Keep a copy, unless a later write has been heard of while it was read."""
        place: Place = (head.scope, head.key)
        if self._listening and head.version >= self._newest.get(place, 0):
            _remember(self._copies, place, head)

    def _heard(self, entries: list[Entry], foreign: bool) -> None:
        for entry in entries:
            self.position = max(self.position, entry.n)
            if entry.kind != kinds.CONTEXT:
                continue
            place: Place = (entry.body["scope"], entry.body["key"])
            if self._scope not in ("", place[0]):
                continue
            self._copies.pop(place, None)
            _remember(self._newest, place, max(entry.n, self._newest.get(place, 0)))
            if not self._pattern or matches(self._pattern, place[1]) is not None:
                self._changed[place] = None
                self._woken.set()


def _remember(known: dict[Place, _T], place: Place, what: _T) -> None:
    known.pop(place, None)
    known[place] = what
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]


@asynccontextmanager
async def _told_by_store(ledger: Ledger) -> AsyncGenerator[None]:
    """A shared store says when somebody has appended."""
    from tightship.ledger.follower import Follower as Feed

    feed = Feed.start(ledger, None, every=QUIET)
    try:
        yield
    finally:
        await feed.close(QUIET)


@asynccontextmanager
async def _asked(ledger: Ledger, clock: Clock) -> AsyncGenerator[None]:
    """A store of one machine is asked: a feed that is quiet is not the same as one that is broken."""

    async def beat() -> None:
        while True:
            with suppress(StoreError):  # nothing is heard meanwhile, and whoever reads knows it
                await ledger.poll()
            await clock.sleep(BEAT)

    beating = asyncio.ensure_future(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait({beating})
