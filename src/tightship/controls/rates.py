"""Rate limits per tool or model: requests per second and tokens per minute, on the world's clock (F13).

Waiting is in order of arrival and bounded: what cannot be served in time is refused at once, with the time after which
asking again makes sense. Where many workers share a store, a name's limit is one for all of them (`shares.py`). An
existing limiter is not used because waiting has to follow the world's clock (virtual in simulation), a server's
Retry-After has to hold back those that wait already, and queues have to be bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tightship.controls.buckets import SOON, Bucket, Rate
from tightship.controls.shares import SharedGate, Shares
from tightship.core.errors import RateLimited
from tightship.core.world import Clock


class _Gate:
    """The limits of one name, and those that wait for it."""

    __slots__ = (
        "_clock",
        "_requests",
        "_tokens",
        "_turn",
        "_waiting_tokens",
        "name",
        "paused_until",
        "rate",
        "waiting",
    )

    def __init__(self, name: str, rate: Rate, clock: Clock) -> None:
        self.name, self.rate, self._clock = name, rate, clock
        now = clock.monotonic()
        per_second, per_minute = rate.requests_per_second, rate.tokens_per_minute
        self._requests = None if per_second is None else Bucket(per_second, rate.at_once, now)
        self._tokens = None if per_minute is None else Bucket(per_minute / 60.0, float(per_minute), now)
        self.paused_until = 0.0
        self._turn = asyncio.Lock()
        self.waiting = 0
        self._waiting_tokens = 0

    def wait(self, tokens: int, *, ahead: int = 0, ahead_tokens: int = 0) -> float:
        """Seconds until a request with that many tokens may go out, after those ahead of it."""
        now = self._clock.monotonic()
        wait = self.paused_until - now
        if self._requests is not None:
            one = self._requests.wait(now, 1.0)
            wait = max(wait, one + ahead / self._requests.rate)
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(now, tokens) + ahead_tokens / self._tokens.rate)
        return wait

    def try_take(self, tokens: int) -> bool:
        if self.waiting or self.wait(tokens) > SOON:
            return False
        self._take(tokens)
        return True

    async def acquire(self, tokens: int, within: float | None) -> None:
        if self.try_take(tokens):
            return
        expected = self.wait(tokens, ahead=self.waiting, ahead_tokens=self._waiting_tokens)
        if self.waiting >= self.rate.waiting:
            raise RateLimited(
                f"{self.waiting} calls of {self.name} wait already, which is its limit", retry_after=expected
            )
        self._refuse_late(expected, within)
        deadline = None if within is None else self._clock.monotonic() + within
        self.waiting += 1
        self._waiting_tokens += tokens
        try:
            # The lock serves in order of arrival; whoever holds it is the only one that watches the buckets.
            async with self._turn:
                while (wait := self.wait(tokens)) > SOON:
                    if deadline is not None:
                        self._refuse_late(wait, deadline - self._clock.monotonic())
                    await self._clock.sleep(wait)
                self._take(tokens)
        finally:
            self.waiting -= 1
            self._waiting_tokens -= tokens

    def pause(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        self.paused_until = max(self.paused_until, until)
        if self._requests is not None:
            # The other side's patience is used up: a burst right after the pause would use it up again.
            self._requests.wait(self._clock.monotonic(), 0.0)
            self._requests.hold(until)

    def correct(self, tokens: int) -> None:
        if self._tokens is not None:
            self._tokens.take(tokens)

    def _take(self, tokens: int) -> None:
        if self._requests is not None:
            self._requests.take(1.0)
        if self._tokens is not None:
            self._tokens.take(tokens)

    def _refuse_late(self, wait: float, within: float | None) -> None:
        if within is not None and wait > within:
            raise RateLimited(
                f"{self.name} would have to wait {wait:.1f} s for its rate limit, and has {max(within, 0.0):.1f} s",
                retry_after=wait,
            )


class Rates:
    """Rate limits by name.

    Args:
        clock: the world's clock.
        rates: the limit per tool or tier; names that are not here have none, until one is paused.
        shares: where all workers book what goes out; None where this process is the only one.
        workers: how many workers live.
    """

    __slots__ = ("_clock", "_gates", "_shares", "_workers")

    def __init__(
        self,
        clock: Clock,
        rates: Mapping[str, Rate] | None = None,
        shares: Shares | None = None,
        workers: Callable[[], int] = lambda: 1,
    ) -> None:
        self._clock = clock
        self._shares = shares
        self._workers = workers
        self._gates: dict[str, _Gate | SharedGate] = {}
        for name, rate in (rates or {}).items():
            self.limit(name, rate)

    def limit(self, name: str, rate: Rate) -> None:
        """Declare a name's limit; one that is declared already stays as it is, with those that wait."""
        before = self._gates.get(name)
        if before is not None and before.rate != Rate():
            return
        if self._shares is not None:
            gate: _Gate | SharedGate = SharedGate(name, rate, self._clock, self._shares, self._workers)
        else:
            gate = _Gate(name, rate, self._clock)
        self._gates[name] = gate
        if before is not None and before.paused_until > self._clock.monotonic():
            gate.pause(before.paused_until - self._clock.monotonic())

    def try_acquire(self, name: str, tokens: int = 0) -> bool:
        """Take one request now if that is possible without waiting and without passing others by."""
        gate = self._gates.get(name)
        return gate is None or gate.try_take(tokens)

    async def acquire(self, name: str, tokens: int = 0, *, within: float | None = None) -> None:
        """Wait until one request may go out. Hold nothing (no reservation, no connection) while waiting.

        Args:
            name: the tool or tier.
            tokens: what the request is expected to use; corrected afterwards by `correct`.
            within: the seconds there are; None waits as long as it takes.

        Raises:
            RateLimited: too many wait already, or the wait would be longer than `within`; `retry_after` says how long.
        """
        gate = self._gates.get(name)
        if gate is not None:
            await gate.acquire(tokens, within)

    def correct(self, name: str, tokens: int) -> None:
        """A request has used that many tokens more (or, negative, less) than it was acquired with."""
        gate = self._gates.get(name)
        if gate is not None:
            gate.correct(tokens)

    def pause(self, name: str, seconds: float) -> None:
        """The other side said Retry-After (RFC 9110, section 10.2.3): nobody asks it before, the waiting included.

        Where workers share the name's limit, they share the pause; a name without one is paused here alone.
        """
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = _Gate(name, Rate(), self._clock)
        gate.pause(seconds)

    def waiting(self, name: str) -> int:
        """How many callers wait for a name."""
        gate = self._gates.get(name)
        return 0 if gate is None else gate.waiting
