"""Workers of the simulated store: who dies is noticed at once, who is cut off once its lease has run out."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from tightship.ledger.presence import BEAT, LEASE
from tightship.runtime.simulation import Process

from .machines import Trouble


class Member:
    """A process as a worker. While it is cut off it goes on and believes to be one, as far as its lease allows.

    Args:
        alive: the owners that live, as the store sees it. process: whose death the store notices.
        trouble: what may go wrong. now: seconds of the loop.
    """

    def __init__(self, alive: set[str], process: Process, trouble: Trouble, loop: Any) -> None:
        self._alive, self._trouble, self._loop = alive, trouble, loop
        self._name, self._losses = process.name, 0
        self.id = process.name
        self._heard = loop.time()
        self.lost: Callable[[str], Awaitable[None]] | None = None
        self.cuts = 0
        alive.add(self.id)
        process.on_death(lambda: alive.discard(self.id))
        self._task = asyncio.ensure_future(self._beat())

    def lease_left(self) -> float:
        """Seconds for which nobody may take what it owns."""
        return max(0.0, self._heard + LEASE - self._loop.time())

    async def close(self) -> None:
        """End it: what it owns is free at once."""
        self._task.cancel()
        self._alive.discard(self.id)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            if self._trouble.strikes(0.04):
                await self._be_cut_off()
            self._heard = self._loop.time()

    async def _be_cut_off(self) -> None:
        """No beat arrives for a while; when that was too long, it comes back under another id."""
        self.cuts += 1
        owner, ends = self.id, self._heard + LEASE
        # the store's own clock: whatever becomes of this process meanwhile
        self._loop.call_at(ends, self._forget, owner, self._heard, context=contextvars.Context())
        await asyncio.sleep(self._trouble.delay(3 * LEASE))
        if self._loop.time() < ends:
            self._heard = self._loop.time()
            return
        self._trouble.told.append(f"{owner} was not heard for too long")
        self._losses += 1
        self.id = f"{self._name}.{self._losses}"
        self._alive.add(self.id)
        self._heard = self._loop.time()
        if self.lost is not None:
            await self.lost(owner)

    def _forget(self, owner: str, heard: float) -> None:
        if self._heard == heard:  # it was not heard since
            self._alive.discard(owner)
