"""A run's own envelope where other processes may drive runs of its family: the store knows what all have spent (C6).

What this process knows is a first look, which costs nothing. It may be old both ways: others spend, and others give
back. What counts is a guard in the transaction that records an admit (`Guards.counts`), and before anything is refused
here, the figures are read from the store (`controls.counters`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tightship.controls.budgets import UNITS, Amount, Envelope, Limit

Look = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""Reads a run's row of `counters`."""
PAUSE: Final = 0.2
"""Seconds after which whoever waits for what others have set aside looks again: their settles are told to nobody."""


class RunEnvelope(Envelope):
    """What a run and all runs below it may spend.

    Args:
        run: whose it is.
        limit: the most per unit, as declared.
        look: reads what the store has counted for the run.
        counted: whether the store counts: not for a run on its own, until it has its first child.
    """

    __slots__ = ("_look", "counted", "declared", "run")

    def __init__(self, run: str, limit: Limit, look: Look, counted: bool = False) -> None:
        super().__init__("run", limit)
        self.run, self.declared, self.counted = run, limit, counted
        self._look = look

    async def supply(self, amount: Amount) -> bool:
        """Read what all processes have spent; whether the amount fits after all."""
        return await self.refresh() and self._short_of(amount) is None

    async def refresh(self) -> bool:
        """Take over what the store has counted; false when it counts nothing for this run."""
        if not self.counted:
            return False
        row = await self._look(self.run) or {}
        self._used_usd, self._used_tokens, self._used_calls = (row.get(unit, 0) for unit in UNITS)
        self._held_usd, self._held_tokens, self._held_calls = (row.get(f"{unit}_held", 0) for unit in UNITS)
        limit = self.declared.plus(Amount(*(row.get(f"{unit}_more", 0) for unit in UNITS)))
        if limit != self.limit:
            self.extend(Amount(*((limit.of(unit) or 0) - (self.limit.of(unit) or 0) for unit in UNITS)))
        return True

    async def settled(self) -> None:
        """Wait until a call that is in flight here has settled; where others drive the family too, a moment at most."""
        if not self.counted:
            return await super().settled()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSE):
                await super().settled()
