"""Store time on a machine whose own clock nobody has to trust.

Each answer of the server that says what time it was there bounds the difference between its clock and this machine's
monotonic one: the time was read after the question had gone out and before the answer was here (Cristian,
"Probabilistic clock synchronization", 1989). What all bounds have in common (Marzullo 1984) is carried on by the
monotonic clock until the next answer. So a machine's clock that is wrong, or is set meanwhile, changes nothing.
"""

from __future__ import annotations

import logging
import math
import threading
from typing import Final, Self

from tightship.core.world import Clock

DRIFT: Final = 0.001
"""How much faster or slower one machine's clock may go than another's: oscillators differ by less than 0.0002, and NTP
slews by at most 0.0005."""

SKEW_SECONDS: Final = 60.0
"""How far a machine's clock may be from the server's before a start says so."""


class ServerClock:
    """A clock that goes as the server's does, once it has been heard; the machine's own before.

    Args:
        machine: the clock of this machine.
    """

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._bounds = (-math.inf, math.inf)
        self._heard = 0.0
        self._ahead: float | None = None
        self.monotonic = machine.monotonic
        self.sleep = machine.sleep

    @classmethod
    def over(cls, clock: Clock) -> Self:
        """A new one over a machine's clock, or over that of an earlier one."""
        return cls(clock._machine if isinstance(clock, ServerClock) else clock)

    def now(self) -> float:
        """Store time: seconds since the Unix epoch."""
        ahead = self._ahead
        return self._machine.now() if ahead is None else self.monotonic() + ahead

    @property
    def skew(self) -> float:
        """The server's clock less this machine's, seconds; 0 before it was heard."""
        return self.now() - self._machine.now()

    def warn(self, where: str) -> None:
        """Say in the log that the machine's clock is wrong, when it is so by more than a minute."""
        skew = self.skew
        if abs(skew) > SKEW_SECONDS:
            logging.getLogger(__name__).warning(
                "%s: this machine's clock is %s seconds %s the store's server, whose time counts; set both by NTP",
                where,
                f"{abs(skew):,.0f}",
                "behind" if skew > 0 else "ahead of",
            )

    def hear(self, now: float, sent: float, received: float) -> None:
        """Take in what the server said.

        Args:
            now: its time (s since the epoch).
            sent, received: when it was asked, and when it had answered (monotonic, s).
        """
        with self._lock:
            old = (received - self._heard) * DRIFT
            low, high = max(self._bounds[0] - old, now - received), min(self._bounds[1] + old, now - sent)
            if low > high:  # its clock was set, or another server has taken its place
                low, high = now - received, now - sent
            self._bounds, self._heard, self._ahead = (low, high), received, (low + high) / 2
