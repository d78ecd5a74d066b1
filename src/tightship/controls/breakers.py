"""Circuit breakers: what fails, is too slow or spends too much is left alone for a while (F11).

One stands before every system that is called. Others are declared: for a tool, an agent or a workflow, whose calls
they count whatever system is called.

Nygard, "Release It!" (2007). Closed: calls pass and are counted over a sliding window. Open: calls are refused at once,
with the time until it is worth asking again. Half-open: a few probes pass; they close the breaker or open it for
twice as long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tightship.core.errors import Unavailable
from tightship.core.money import show_usd
from tightship.core.ports import Json
from tightship.core.world import Clock

State = Literal["closed", "open", "half-open"]
_SLICES = 10


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens, and for how long.

    Attributes:
        window: seconds over which calls are counted.
        minimum: calls in the window below which it never opens.
        error_rate: share of failed calls from which it opens.
        slow_after: seconds from which a call counts as slow; None counts none.
        slow_rate: share of slow calls from which it opens.
        spend: nano-dollars that calls in the window have cost from which it opens; None bounds nothing.
        cooldown: seconds it stays open the first time; doubled each time that a probe fails.
        longest: the most seconds it stays open.
        probes: good calls in a row that close it again.
    """

    window: float = 30.0
    minimum: int = 10
    error_rate: float = 0.5
    slow_after: float | None = None
    slow_rate: float = 0.8
    spend: int | None = None
    cooldown: float = 10.0
    longest: float = 300.0
    probes: int = 2


class _Slice:
    """Counts of a tenth of the window, or of all of it."""

    __slots__ = ("calls", "errors", "index", "slow", "usd")

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.calls = self.errors = self.slow = self.usd = 0

    def count(self, failed: bool, slow: bool, usd: int) -> None:
        self.calls += 1
        self.errors += failed
        self.slow += slow
        self.usd += usd


class _Breaker:
    __slots__ = (
        "_slices",
        "_sum",
        "cooldown",
        "good",
        "probed_at",
        "probing",
        "reopen_at",
        "rule",
        "state",
        "why",
    )

    def __init__(self, rule: BreakerRule) -> None:
        self.rule = rule
        self.state: State = "closed"
        self.cooldown = rule.cooldown
        self.reopen_at = 0.0
        self.probing = self.good = 0
        self.probed_at = 0.0
        self.why = ""
        self._slices: deque[_Slice] = deque()
        self._sum = _Slice()

    def count(self, now: float, failed: bool, slow: bool, usd: int) -> _Slice:
        """Count a call; the sums over the window."""
        index = int(now * _SLICES / self.rule.window)
        slices, total = self._slices, self._sum
        if not slices or slices[-1].index < index:
            slices.append(_Slice(index))
            while slices[0].index <= index - _SLICES:
                old = slices.popleft()
                total.calls -= old.calls
                total.errors -= old.errors
                total.slow -= old.slow
                total.usd -= old.usd
        slices[-1].count(failed, slow, usd)
        total.count(failed, slow, usd)
        return total

    def open(self, now: float, why: str) -> None:
        self.state, self.why = "open", why
        self.reopen_at = now + self.cooldown
        self.cooldown = min(self.cooldown * 2, self.rule.longest)
        self._forget()

    def hear(self, until: float, seconds: float, why: str) -> None:
        """Another process has opened it, for so long."""
        self.reopen_at = max(until, self.reopen_at if self.state == "open" else 0.0)
        self.state, self.why = "open", why
        self.cooldown = min(max(self.cooldown, seconds * 2), self.rule.longest)
        self._forget()

    def close(self) -> None:
        self.state, self.why = "closed", ""
        self.cooldown = self.rule.cooldown
        self._forget()

    def _forget(self) -> None:
        self.probing = self.good = 0
        self._slices.clear()
        self._sum = _Slice()


class Breakers:
    """The breakers of all systems, by key (a tool's service, a model's provider).

    Args:
        clock: the world's clock.
        rule: for keys that have none of their own.
        rules: by key: a system's name, `tool:NAME`, `agent:NAME`, `workflow:NAME`.
    """

    __slots__ = ("_breakers", "_clock", "_declared", "_rule", "_rules")

    def __init__(
        self, clock: Clock, rule: BreakerRule | None = None, rules: Mapping[str, BreakerRule] | None = None
    ) -> None:
        self._clock = clock
        self._rule = rule or BreakerRule()
        self._rules = dict(rules or {})
        self._declared = frozenset(key for key in self._rules if ":" in key)
        self._breakers: dict[str, _Breaker] = {}

    def keys(self, service: str, tool: str, agent: str, workflow: str) -> tuple[str, ...]:
        """The breakers that a call passes: its system's, and those that are declared for what it belongs to."""
        if not self._declared:
            return (service,)
        named = (f"tool:{tool}", f"agent:{agent}", f"workflow:{workflow}")
        return (service, *(key for key in named if key in self._declared))

    def check(self, key: str) -> None:
        """Whether a call may be made now. A call that was let through is reported by `record` or `abandon`.

        Raises:
            Unavailable: the breaker is open; `retry_after` says for how long.
        """
        breaker = self._breakers.get(key)
        if breaker is None or breaker.state == "closed":
            return
        now = self._clock.monotonic()
        if breaker.state == "open":
            if now < breaker.reopen_at:
                raise self._refusal(key, breaker, breaker.reopen_at - now)
            breaker.state = "half-open"
        rule = breaker.rule
        if breaker.probing >= rule.probes - breaker.good:
            # A probe that never reported (its worker's task was cut) must not keep the breaker half-open for ever.
            if now - breaker.probed_at < rule.cooldown:
                raise self._refusal(key, breaker, rule.cooldown - (now - breaker.probed_at))
            breaker.probing = 0
        breaker.probing += 1
        breaker.probed_at = now

    def record(self, key: str, ok: bool, seconds: float = 0.0, usd: int = 0) -> State | None:
        """How a call went.

        Args:
            key: the system.
            ok: whether it answered at all; a refusal for business reasons is an answer.
            seconds: how long it took. usd: what it cost (nano-dollars).

        Returns:
            The new state when this call changed it, for a note in the ledger, else None.
        """
        breaker = self._made(key)
        rule = breaker.rule
        now = self._clock.monotonic()
        slow = rule.slow_after is not None and seconds >= rule.slow_after
        if breaker.state == "open":
            return None  # a call from before it opened
        if breaker.state == "half-open":
            return self._probed(breaker, now, ok and not slow)
        counted = breaker.count(now, not ok, slow, usd)
        if rule.spend is not None and counted.usd >= rule.spend:
            breaker.open(now, f"{show_usd(counted.usd)} were spent within {rule.window:g} s")
            return "open"
        if counted.calls < rule.minimum:
            return None
        if counted.errors >= rule.error_rate * counted.calls and counted.errors:
            breaker.open(now, f"{counted.errors} of the last {counted.calls} calls failed")
            return "open"
        if counted.slow >= rule.slow_rate * counted.calls and counted.slow:
            breaker.open(now, f"{counted.slow} of the last {counted.calls} calls took {rule.slow_after:g} s or more")
            return "open"
        return None

    def hear(self, key: str, state: str, left: float, seconds: float = 0.0, why: str = "") -> None:
        """What another process has found out: it is open for a while longer, or answers again, which is probed here.

        Args:
            key: the system. state: `open` or `closed`. left: seconds for which it stays open from now on.
            seconds: for how long it was opened. why: the reason that the other process has.
        """
        breaker = self._made(key)
        now = self._clock.monotonic()
        if state == "closed":
            breaker.reopen_at = min(breaker.reopen_at, now)
        elif left > 0:
            breaker.hear(now + min(left, breaker.rule.longest), seconds, f"another worker has found out that {why}")

    def open_for(self, key: str) -> float:
        """Seconds for which it stays open; 0 when it is not."""
        breaker = self._breakers.get(key)
        return max(0.0, breaker.reopen_at - self._clock.monotonic()) if breaker and breaker.state == "open" else 0.0

    def _made(self, key: str) -> _Breaker:
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = _Breaker(self._rules.get(key, self._rule))
        return breaker

    def abandon(self, key: str) -> None:
        """A call that was let through was not made, or says nothing about the system (it was cancelled)."""
        breaker = self._breakers.get(key)
        if breaker is not None and breaker.probing:
            breaker.probing -= 1

    def why(self, key: str) -> str:
        """Why it is open, or empty."""
        breaker = self._breakers.get(key)
        return "" if breaker is None else breaker.why

    def state(self, key: str) -> State:
        """Closed, open or half-open."""
        breaker = self._breakers.get(key)
        return "closed" if breaker is None else breaker.state

    def as_dict(self) -> dict[str, Json]:
        """Every breaker that is not closed: its state and why."""
        return {
            key: {"state": breaker.state, "why": breaker.why}
            for key, breaker in sorted(self._breakers.items())
            if breaker.state != "closed"
        }

    @staticmethod
    def _probed(breaker: _Breaker, now: float, good: bool) -> State | None:
        if not good:
            breaker.open(now, "it still does not answer as it should")
            return "open"
        breaker.probing = max(0, breaker.probing - 1)
        breaker.good += 1
        if breaker.good >= breaker.rule.probes:
            breaker.close()
            return "closed"
        return None

    @staticmethod
    def _refusal(key: str, breaker: _Breaker, wait: float) -> Unavailable:
        return Unavailable(
            f"{key} is not asked at the moment: {breaker.why}",
            retry_after=max(wait, 0.0),
            fix=f"wait {max(wait, 0.0):.0f} s, or see to it that {key} answers again",
        )
