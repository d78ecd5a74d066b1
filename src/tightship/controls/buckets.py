"""What a system may be asked, and the bucket that holds it: token buckets on a clock.

Turner, "New directions in communications", IEEE Communications Magazine 24(10), 1986.
"""

from __future__ import annotations

from dataclasses import dataclass

SOON = 1e-6
"""Seconds that count as none: a shorter wait could fail to move a float clock."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a system may be asked.

    Attributes:
        requests_per_second: None for no limit; fractions are allowed (one a minute is 1/60).
        tokens_per_minute: tokens in and out; None for no limit.
        burst: requests that may go out at once after a quiet time; None for one second's worth, at least 1.
        waiting: how many callers may wait; the next one is refused.
    """

    requests_per_second: float | None = None
    tokens_per_minute: float | None = None
    burst: int | None = None
    waiting: int = 1000

    def __post_init__(self) -> None:
        for name in ("requests_per_second", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} has to be above 0, not {value}")

    @property
    def at_once(self) -> float:
        """Requests that may go out at once."""
        return float(self.burst) if self.burst is not None else max(1.0, self.requests_per_second or 1.0)


class Bucket:
    """A level that refills at a constant rate up to its capacity; it may go below 0 (a debt that is waited off)."""

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float, level: float | None = None) -> None:
        self.rate, self.capacity = rate, capacity
        self._level, self._at = capacity if level is None else level, now

    def wait(self, now: float, amount: float) -> float:
        """Seconds until the amount can be taken; one above the capacity waits for a full bucket."""
        if now > self._at:
            self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
            self._at = now
        short = (min(amount, self.capacity) - self._level) / self.rate
        return short if now >= self._at else max(short, 0.0) + self._at - now

    def take(self, amount: float) -> None:
        """Take an amount, whatever the level."""
        self._level -= amount

    def hold(self, until: float) -> None:
        """Nothing goes out before that moment, then one, and the rest at the plain rate."""
        self._level = min(self._level, 1.0)
        self._at = max(self._at, until)
