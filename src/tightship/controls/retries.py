"""No retry storm: a budget of retries for each service, and asking less of one that turns requests away (F13).

Both bound what one process adds to the load of a service that is in trouble. Beyer et al. (ed.), "Site Reliability
Engineering" (2016), chapter 21 "Handling Overload": client-side throttling, and retries as a share of requests; the
floor of retries is that of Finagle's `RetryBudget`.
"""

from __future__ import annotations

from collections import deque

from tightship.core.errors import RateLimited
from tightship.core.world import Clock

_SLICES = 10


class _Window:
    """Two counts over a sliding window."""

    __slots__ = ("_latest", "_pace", "_slices", "first", "second")

    def __init__(self, seconds: float) -> None:
        self._pace = _SLICES / seconds
        self._latest = [-1, 0, 0]
        self._slices = deque([self._latest])
        self.first = self.second = 0

    def add(self, now: float, first: int, second: int) -> None:
        """Count, and forget what lies behind the window."""
        index = int(now * self._pace)
        latest = self._latest
        if index != latest[0]:
            latest = self._roll(index)
        latest[1] += first
        latest[2] += second
        self.first += first
        self.second += second

    def _roll(self, index: int) -> list[int]:
        slices = self._slices
        while slices and slices[0][0] <= index - _SLICES:
            _, old_first, old_second = slices.popleft()
            self.first -= old_first
            self.second -= old_second
        self._latest = [index, 0, 0]
        slices.append(self._latest)
        return self._latest


class RetryBudgets:
    """How many retries this process makes of a service: a share of its requests, and a few in any case.

    Args:
        clock: the world's clock.
        share: retries per request.
        floor: retries in a window that are always allowed.
        window: seconds over which both are counted.
    """

    __slots__ = ("_clock", "_floor", "_seconds", "_share", "_windows")

    def __init__(self, clock: Clock, share: float = 0.1, floor: int = 30, window: float = 60.0) -> None:
        self._clock, self._share, self._floor, self._seconds = clock, share, floor, window
        self._windows: dict[str, _Window] = {}

    def request(self, service: str) -> None:
        """A first attempt is made."""
        self._window(service).add(self._clock.monotonic(), 1, 0)

    def spend(self, service: str) -> bool:
        """Whether there may be one retry more; it is counted."""
        window = self._window(service)
        now = self._clock.monotonic()
        window.add(now, 0, 0)
        if window.second >= self._floor + self._share * window.first:
            return False
        window.add(now, 0, 1)
        return True

    def _window(self, service: str) -> _Window:
        found = self._windows.get(service)
        if found is None:
            found = self._windows[service] = _Window(self._seconds)
        return found


class Throttle:
    """Turns requests away here with the chance `max(0, (requests - ratio * accepts - pad) / (requests + 1))`.

    It begins where a service turns away more than a fifth of what it is asked, long before a breaker opens (at half),
    and lets enough through to see when that is over.

    Args:
        clock: the world's clock.
        ratio: requests per accepted one that are let through; SRE's K.
        pad: requests that are never turned away, so that a few failures of a quiet service change nothing.
        window: seconds over which both are counted.
    """

    __slots__ = ("_clock", "_pad", "_ratio", "_seconds", "_windows")

    def __init__(self, clock: Clock, ratio: float = 1.25, pad: int = 10, window: float = 60.0) -> None:
        self._clock, self._ratio, self._pad, self._seconds = clock, ratio, pad, window
        self._windows: dict[str, _Window] = {}

    def refusing(self, service: str) -> float:
        """The chance with which a request is turned away now, in [0, 1)."""
        window = self._windows.get(service)
        if window is None or window.first <= self._pad + self._ratio * window.second:
            return 0.0
        window.add(self._clock.monotonic(), 0, 0)
        return max(0.0, (window.first - self._ratio * window.second - self._pad) / (window.first + 1))

    def refuse(self, service: str) -> RateLimited:
        """Count a request that is turned away here; what is raised for it."""
        self._count(service, 1, 0)
        return RateLimited(
            f"{service} turns away more than it takes: it is asked less for a while",
            retry_after=self._seconds / _SLICES,
            evidence={"sent": False},
        )

    def record(self, service: str, accepted: bool) -> None:
        """A request was answered, or turned away by the service."""
        self._count(service, 1, int(accepted))

    def _count(self, service: str, requests: int, accepts: int) -> None:
        window = self._windows.get(service)
        if window is None:
            window = self._windows[service] = _Window(self._seconds)
        window.add(self._clock.monotonic(), requests, accepts)


__all__ = ["RetryBudgets", "Throttle"]
