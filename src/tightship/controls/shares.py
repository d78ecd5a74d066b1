"""One rate limit for all workers: what goes out is booked in a bucket that they share (F13).

Virtual scheduling (ITU-T I.371, the generic cell rate algorithm), for requests and tokens at once: a booking is given
the moment at which the shared levels suffice, and the levels are kept as of the last moment that was given. Bookings
are served in the order in which they reach the store, so that no worker overtakes another. A worker has one booking
under way for each name; it books for all that wait here, up to a short time's worth.

What holds: in any T seconds all workers together send at most `burst + requests_per_second * T` requests (with a burst
of one second's worth or more; else at most `1 + requests_per_second * (T + LIFE)`). A booked request that is not sent
within LIFE of its time is booked anew, so a frozen worker sends nothing late; a dead one loses what it had booked, at
most `QUANTUM` seconds' worth; an idle one holds nothing. While the store cannot be asked, a worker goes on with its
share, the rate divided by the workers that lived, and what it sent is charged as soon as the store answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tightship.controls.buckets import SOON, Bucket, Rate
from tightship.core.errors import RateLimited, StoreError
from tightship.core.world import Clock

LIFE = 0.25
"""Seconds after its time during which a booked request may still go out."""
QUANTUM = 0.2
"""Seconds' worth of the rate that all workers together book ahead."""
NEVER = 1e9
"""Seconds that stand for no limit."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker books.

    Attributes:
        name: the tool or tier. rate: its declared limit.
        requests: how many go together; 0 only settles what is owed. tokens: of all of them.
        within: seconds that they can wait; if that is too short, nothing is booked.
        owed_requests, owed_tokens: what was sent without a booking, or (negative) booked and not used.
        pause: seconds for which the other side wants to be left alone (Retry-After).
    """

    name: str
    rate: Rate
    requests: int = 0
    tokens: int = 0
    within: float = NEVER
    owed_requests: float = 0.0
    owed_tokens: float = 0.0
    pause: float = 0.0

    @property
    def most_requests(self) -> float:
        """The shared bucket's capacity: less than the burst by what may go out late."""
        per_second = self.rate.requests_per_second
        return max(1.0, self.rate.at_once - (per_second or 0.0) * LIFE)

    @property
    def most_tokens(self) -> float:
        """The shared bucket's capacity in tokens: a minute's worth, less what may go out late."""
        per_minute = self.rate.tokens_per_minute or 0.0
        return max(1.0, per_minute - per_minute / 60.0 * LIFE)

    def parameters(self) -> dict[str, str | float | None]:
        """The ask as the parameters of the store's statement."""
        return {
            "name": self.name,
            "per_second": self.rate.requests_per_second,
            "per_minute": self.rate.tokens_per_minute,
            "most_requests": self.most_requests,
            "most_tokens": self.most_tokens,
            "requests": self.requests,
            "tokens": self.tokens,
            "within": self.within,
            "owed_requests": self.owed_requests,
            "owed_tokens": self.owed_tokens,
            "pause": self.pause,
        }


@dataclass(frozen=True, slots=True)
class Booking:
    """What the store says to an ask: whether it was booked, and the seconds until its requests may go (or could)."""

    booked: bool
    wait: float


class Shares(Protocol):
    """Where all workers book. A port: Postgres moves one row by one statement, simulation a dict."""

    async def book(self, ask: Ask) -> Booking:
        """Book, or say why not; whole or not at all.

        Raises:
            StoreError: the store cannot be asked. Whether it has booked is not known then.
        """
        ...


class Levels(Protocol):
    """A store that keeps the levels (`ledger/pg_rates.py`)."""

    async def move(self, parameters: Mapping[str, Any]) -> tuple[bool, float]:
        """Run its statement with an ask's parameters: whether it was booked, and the seconds to wait."""
        ...


class StoredShares:
    """The shared buckets in a store."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels

    async def book(self, ask: Ask) -> Booking:
        """One statement.

        Raises:
            StoreError: the store does not answer.
        """
        return Booking(*await self._levels.move(ask.parameters()))


@dataclass(slots=True)
class _Level:
    """The state of one name; the levels are as of `at`."""

    requests: float
    tokens: float
    at: float

    def fill(self, ask: Ask, seconds: float) -> None:
        """Let time pass."""
        self.at += seconds
        self.requests = min(ask.most_requests, self.requests + seconds * (ask.rate.requests_per_second or 0.0))
        self.tokens = min(ask.most_tokens, self.tokens + seconds * (ask.rate.tokens_per_minute or 0.0) / 60.0)


class MemoryShares:
    """The shared buckets in memory, for workers of one simulation. `fails` has the store not answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: dict[str, _Level] = {}
        self.fails = False
        self.asked = 0

    async def book(self, ask: Ask) -> Booking:
        """As the statement of the Postgres store does it (`ledger/sql/postgres/book_rate.sql`)."""
        self.asked += 1
        if self.fails:
            raise StoreError("the store does not answer")
        now, rate = self._clock.now(), ask.rate
        per_second, per_token = rate.requests_per_second, (rate.tokens_per_minute or 0.0) / 60.0
        level = self._levels.setdefault(ask.name, _Level(ask.most_requests, ask.most_tokens, now))
        level.fill(ask, max(0.0, now - level.at))
        level.requests -= ask.owed_requests
        level.tokens = min(ask.most_tokens, level.tokens - ask.owed_tokens)
        if ask.pause > 0:
            level.at = max(level.at, now + ask.pause)
            level.requests = min(level.requests, 1.0)
        need = 0.0
        if per_second:
            need = max(need, (min(ask.requests, ask.most_requests) - level.requests) / per_second)
        if per_token:
            need = max(need, (min(ask.tokens, ask.most_tokens) - level.tokens) / per_token)
        wait = level.at - now + need
        if not ask.requests or wait > ask.within + SOON:
            return Booking(False, wait)
        level.fill(ask, need)
        level.requests -= ask.requests
        level.tokens -= ask.tokens
        return Booking(True, wait)


class _Waiter:
    """One that waits. `at` is when it may go, on the monotonic clock; `until` is when that is over."""

    __slots__ = ("at", "deadline", "tokens", "until")

    def __init__(self, tokens: int, deadline: float | None) -> None:
        self.tokens, self.deadline = tokens, deadline
        self.at: float | None = None
        self.until = 0.0


class SharedGate:
    """The limits of one name as this worker sees them, and those that wait for it here.

    Args:
        name: the tool or tier.
        rate: the declared limit, of all workers together.
        clock: the world's clock.
        shares: where to book.
        workers: how many workers live.
    """

    def __init__(self, name: str, rate: Rate, clock: Clock, shares: Shares, workers: Callable[[], int]) -> None:
        self.name, self.rate = name, rate
        self._clock, self._shares, self._workers = clock, shares, workers
        self._turn = asyncio.Lock()
        self._queue: deque[_Waiter] = deque()
        self._alone: tuple[int, Bucket | None, Bucket | None] | None = None
        self._owed_requests = self._owed_tokens = self._pause = 0.0
        self._settling: asyncio.Task[None] | None = None
        self._last = 0.0
        """When what was booked last may go, on the monotonic clock."""
        self.paused_until = 0.0
        self.waiting = 0

    def try_take(self, tokens: int) -> bool:
        """Nothing goes out that was not booked."""
        return False

    async def acquire(self, tokens: int, within: float | None) -> None:
        """Book, together with others that wait here, and wait for the time that was given.

        Raises:
            RateLimited: too many wait here, or the time would come too late.
        """
        if self.waiting >= self.rate.waiting:
            after = self.waiting / (self.rate.requests_per_second or 1.0)
            raise RateLimited(
                f"{self.waiting} calls of {self.name} wait already, which is its limit", retry_after=after
            )
        waiter = _Waiter(tokens, None if within is None else self._clock.monotonic() + within)
        self._queue.append(waiter)
        self.waiting += 1
        try:
            while not await self._passed(waiter):
                waiter.at = None
                self._queue.appendleft(waiter)
        finally:
            self.waiting -= 1
            if waiter.at is None:
                with contextlib.suppress(ValueError):
                    self._queue.remove(waiter)

    async def _passed(self, waiter: _Waiter) -> bool:
        """Wait until a request may go; false when its time went by (the worker was frozen)."""
        async with self._turn:  # in order of arrival; whoever holds it books for those behind as well
            if waiter.at is None:
                # One booking at a time: what others wait for is not booked away from them.
                while (early := self._last - self._clock.monotonic()) > SOON:
                    await self._clock.sleep(early)
                await self._book(waiter)
        assert waiter.at is not None
        while (wait := max(waiter.at, self.paused_until) - self._clock.monotonic()) > SOON:
            await self._clock.sleep(wait)
        return self._clock.monotonic() <= waiter.until

    async def _book(self, first: _Waiter) -> None:
        asked = self._clock.monotonic()
        left = NEVER if first.deadline is None else first.deadline - asked
        batch = self._batch(first)
        owed = (self._owed_requests, self._owed_tokens, self._pause)
        self._owed_requests = self._owed_tokens = self._pause = 0.0
        ask = Ask(self.name, self.rate, len(batch), sum(one.tokens for one in batch), left, *owed)
        try:
            booking = await self._shares.book(ask)
        except BaseException as error:
            self._owe_again(owed)
            if not isinstance(error, StoreError):
                raise
            self._go_alone(first)
            return
        if not booking.booked:
            self._refuse(booking.wait, left)
        now = self._clock.monotonic()
        for one in batch:
            one.at, one.until = now + booking.wait, asked + booking.wait + LIFE
            self._queue.remove(one)
        self._last = now + booking.wait

    def _batch(self, first: _Waiter) -> list[_Waiter]:
        """The first that waits and those behind it that are served in the same short time: they go together."""
        seconds = QUANTUM / max(1, self._workers())
        requests = min((self.rate.requests_per_second or NEVER) * seconds, Ask(self.name, self.rate).most_requests)
        tokens = (self.rate.tokens_per_minute or NEVER) / 60.0 * seconds - first.tokens
        batch = [first]
        for one in self._queue:
            if one is first:
                continue
            tokens -= one.tokens
            patient = one.deadline is None or (first.deadline is not None and one.deadline >= first.deadline + QUANTUM)
            if len(batch) + 1 > requests or tokens < 0 or not patient:
                break
            batch.append(one)
        return batch

    def _owe_again(self, owed: tuple[float, float, float]) -> None:
        """Nobody knows whether the store has heard of it: debts are told again, what was given back is not."""
        requests, tokens, pause = owed
        self._owed_requests += max(0.0, requests)
        self._owed_tokens += max(0.0, tokens)
        self._pause = max(self._pause, pause)

    def _go_alone(self, first: _Waiter) -> None:
        """Without the store: this worker's share of the rate, from an empty bucket."""
        now, workers = self._clock.monotonic(), max(1, self._workers())
        if self._alone is None or self._alone[0] != workers:
            per_second, per_minute = self.rate.requests_per_second, self.rate.tokens_per_minute
            self._alone = (
                workers,
                None if per_second is None else Bucket(per_second / workers, 1.0, now, level=0.0),
                None
                if per_minute is None
                else Bucket(per_minute / 60.0 / workers, per_minute / workers, now, level=0.0),
            )
        _, requests, tokens = self._alone
        wait = 0.0 if requests is None else requests.wait(now, 1.0)
        if tokens is not None:
            wait = max(wait, tokens.wait(now, first.tokens))
        if first.deadline is not None and wait > first.deadline - now:
            self._refuse(wait, first.deadline - now)
        if requests is not None:
            requests.take(1.0)
        if tokens is not None:
            tokens.take(first.tokens)
        self._owed_requests += 1.0
        self._owed_tokens += first.tokens
        first.at = now + max(0.0, wait)
        first.until = first.at + LIFE
        self._last = first.at
        self._queue.remove(first)

    def _refuse(self, wait: float, left: float) -> None:
        raise RateLimited(
            f"{self.name} would have to wait {wait:.1f} s for its rate limit, and has {max(left, 0.0):.1f} s",
            retry_after=wait,
        )

    # --- afterwards ------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Nobody asks before; the other workers hear of it at their next booking."""
        self.paused_until = max(self.paused_until, self._clock.monotonic() + seconds)
        self._pause = max(self._pause, seconds)
        self._settle_soon()

    def correct(self, tokens: int) -> None:
        """A request has used so many tokens more, or fewer, than were booked."""
        if self.rate.tokens_per_minute is not None and tokens:
            self._owed_tokens += tokens
            self._settle_soon()

    def _settle_soon(self) -> None:
        if self._settling is None or self._settling.done():
            self._settling = asyncio.ensure_future(self._settle())

    async def _settle(self) -> None:
        """Tell the store what is owed; corrections that come meanwhile go with the next booking."""
        owed = (self._owed_requests, self._owed_tokens, self._pause)
        if not any(owed):
            return
        self._owed_requests = self._owed_tokens = self._pause = 0.0
        try:
            await self._shares.book(Ask(self.name, self.rate, 0, 0, NEVER, *owed))
        except StoreError:
            self._owe_again(owed)
