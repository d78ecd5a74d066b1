"""Whether this process ran: one that was frozen, or whose event loop was blocked, knows nothing of how the outside was.

While something is waited for, the loop ticks each second. A tick that comes late says that the process stood still
(SIGSTOP, a paused container or machine, a call that blocked the loop): whatever spanned that time may have been
answered long ago, and was not heard.
"""

from __future__ import annotations

import asyncio
from typing import Final

TICK: Final = 1.0
"""Seconds between two ticks."""
LATE: Final = 1.0
"""Seconds that a tick may come late on a busy machine."""


class Pulse:
    """The ticks of the event loop that runs, in its time (s)."""

    __slots__ = ("_last", "_loop", "_stood_until", "_until")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop that ticks, while it does."""
        self._last = self._until = 0.0
        self._stood_until = float("-inf")

    def begin(self, seconds: float) -> float:
        """Something is asked that may take so long: tick until then. The moment, for `stood_still`."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._loop is not loop:
            self._loop, self._last, self._until = loop, now, now
            loop.call_later(TICK, self._tick, loop)
        self._look()
        self._until = max(self._until, now + seconds)
        return now

    def stood_still(self, since: float) -> bool:
        """Whether the process stood still at some time since then (as `begin` gave it)."""
        self._look()
        return self._stood_until > since

    def _look(self) -> None:
        """What is asked before the late tick itself comes hears of it as well."""
        if self._loop is not None and (now := self._loop.time()) - self._last > TICK + LATE:
            self._last = self._stood_until = now

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        self._look()
        self._last = loop.time()
        if self._last < self._until:
            loop.call_later(TICK, self._tick, loop)
        else:
            self._loop = None


__all__ = ["LATE", "TICK", "Pulse"]
