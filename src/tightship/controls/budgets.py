"""Budget envelopes: reserved before a call, settled after it, never exceeded by anything that was let through.

An envelope belongs to one scope (`agent:NAME`, `task:KEY`, `run`, `workflow:NAME`, `tenant:NAME`) and holds money,
tokens and calls. A chain is the path from an agent's envelope to its tenant's; what is reserved is reserved in all
of them or in none. Everything here is in memory: the durable truth is the ledger, from which
`controls.rebuild` makes the same figures again.

For every unit that is reserved, `spent + reserved <= limit` holds after each reserve. A call that cost more than
was reserved for it is charged as it was: the envelope then stands above its limit and lets nothing more through.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from tightship.core.money import show_usd
from tightship.core.ports import Json
from tightship.core.signals import OverBudget

Unit = Literal["usd", "tokens", "calls"]
UNITS: Final[tuple[Unit, ...]] = ("usd", "tokens", "calls")
ALERT_AT: Final = 0.8
"""The share of a limit from which an early alert is due."""

# Larger than any sum that can occur, so that "no limit" costs no branch in the hot path.
_OPEN: Final = 1 << 62


@dataclass(slots=True)
class Amount:
    """Nano-dollars, tokens (in and out) and calls. Negative where something is given back."""

    usd: int = 0
    tokens: int = 0
    calls: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.usd + other.usd, self.tokens + other.tokens, self.calls + other.calls)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.usd - other.usd, self.tokens - other.tokens, self.calls - other.calls)

    def __neg__(self) -> Amount:
        return Amount(-self.usd, -self.tokens, -self.calls)

    def __bool__(self) -> bool:
        return bool(self.usd or self.tokens or self.calls)

    def as_dict(self) -> dict[str, int]:
        """The three figures by unit."""
        return {"usd": self.usd, "tokens": self.tokens, "calls": self.calls}


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may be spent of each unit; None where there is no limit."""

    usd: int | None = None
    tokens: int | None = None
    calls: int | None = None

    def of(self, unit: Unit) -> int | None:
        """The limit of one unit."""
        return self.usd if unit == "usd" else self.tokens if unit == "tokens" else self.calls

    def plus(self, more: Amount) -> Limit:
        """A limit raised by an amount; what had no limit keeps none."""
        return Limit(
            None if self.usd is None else self.usd + more.usd,
            None if self.tokens is None else self.tokens + more.tokens,
            None if self.calls is None else self.calls + more.calls,
        )


UNLIMITED: Final = Limit()


@dataclass(frozen=True, slots=True)
class Shortage:
    """What keeps a reserve from being made: the innermost envelope that is short, and of what.

    `scope` is its name on the chain that was looked at.
    """

    envelope: Envelope
    unit: Unit
    asked: int
    left: int
    scope: str = ""

    @property
    def passing(self) -> bool:
        """Whether only calls in flight stand in the way: it fits once they have settled and cost little."""
        held = getattr(self.envelope.reserved, self.unit)
        return held > 0 and self.asked <= self.left + held

    def signal(self) -> OverBudget:
        """The shortage as the door raises it."""
        envelope, unit = self.envelope, self.unit
        scope = self.scope or envelope.scope
        name = scope if not envelope.period else f"{scope} ({envelope.period})"
        limit = envelope.limit.of(unit) or 0
        reason = (
            f"the budget of {name} cannot cover this: {show_amount(unit, self.asked)} asked, "
            f"{show_amount(unit, max(self.left, 0))} of {show_amount(unit, limit)} left"
        )
        return OverBudget(reason, scope=scope, unit=unit)


@dataclass(frozen=True, slots=True)
class Alert:
    """An envelope has spent more than the alert share of its limit."""

    scope: str
    period: str
    unit: Unit
    spent: int
    limit: int

    def as_dict(self) -> dict[str, Json]:
        """The alert as the fields of a note."""
        return {
            "scope": self.scope,
            "period": self.period,
            "unit": self.unit,
            "spent": self.spent,
            "limit": self.limit,
        }


class Envelope:
    """What one scope may spend in one period, and what it has spent and reserved.

    Args:
        scope: the scope's name, as it appears in refusals and reports.
        limit: the most per unit.
        period: a period key (`2026-03-01`, `2026-03`), empty for the run itself.
        spent: what was spent before (on resume).
    """

    __slots__ = (
        "_cap_calls",
        "_cap_tokens",
        "_cap_usd",
        "_held_calls",
        "_held_tokens",
        "_held_usd",
        "_mark_calls",
        "_mark_tokens",
        "_mark_usd",
        "_used_calls",
        "_used_tokens",
        "_used_usd",
        "_waiting",
        "period",
        "scope",
    )

    def __init__(self, scope: str, limit: Limit = UNLIMITED, *, period: str = "", spent: Amount | None = None) -> None:
        self.scope, self.period = scope, period
        self._cap_usd = _OPEN if limit.usd is None else limit.usd
        self._cap_tokens = _OPEN if limit.tokens is None else limit.tokens
        self._cap_calls = _OPEN if limit.calls is None else limit.calls
        before = spent or Amount()
        self._used_usd, self._used_tokens, self._used_calls = before.usd, before.tokens, before.calls
        self._held_usd = self._held_tokens = self._held_calls = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._set_marks()

    async def settled(self) -> None:
        """Wait until a call that is in flight has settled, or the limit has changed."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    async def supply(self, amount: Amount) -> bool:
        """Get hold of what is missing for an amount; whether there is more now. What is held whole never has more."""
        return False

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    @property
    def limit(self) -> Limit:
        """The most per unit, extensions included."""
        caps = (self._cap_usd, self._cap_tokens, self._cap_calls)
        return Limit(*(None if cap == _OPEN else cap for cap in caps))

    @property
    def reserved(self) -> Amount:
        """What calls in flight may still cost."""
        return Amount(self._held_usd, self._held_tokens, self._held_calls)

    @property
    def spent(self) -> Amount:
        """What settled calls have cost."""
        return Amount(self._used_usd, self._used_tokens, self._used_calls) - self.reserved

    @property
    def overrun(self) -> Amount:
        """How far what is spent and reserved stands above the limit, per unit; zero in the ordinary case."""
        return Amount(
            max(0, self._used_usd - self._cap_usd),
            max(0, self._used_tokens - self._cap_tokens),
            max(0, self._used_calls - self._cap_calls),
        )

    def left(self, unit: Unit) -> int | None:
        """What may still be reserved of a unit (never below 0), or None without a limit."""
        cap, used = self._figures(unit)
        return None if cap == _OPEN else max(0, cap - used)

    def extend(self, more: Amount) -> None:
        """Raise (or lower, with negative figures) the limits; units without a limit stay without."""
        if self._cap_usd != _OPEN:
            self._cap_usd += more.usd
        if self._cap_tokens != _OPEN:
            self._cap_tokens += more.tokens
        if self._cap_calls != _OPEN:
            self._cap_calls += more.calls
        self._set_marks()
        self._tell()

    def renew(self, period: str, limit: Limit) -> None:
        """Begin another period: nothing of it is spent, and what calls in flight have set aside will be spent in it."""
        self.period = period
        caps = (limit.usd, limit.tokens, limit.calls)
        self._cap_usd, self._cap_tokens, self._cap_calls = (_OPEN if cap is None else cap for cap in caps)
        self._used_usd, self._used_tokens, self._used_calls = self._held_usd, self._held_tokens, self._held_calls
        self._set_marks()
        self._tell()

    def alerts(self) -> list[Alert]:
        """Alerts that are newly due; each unit tells once, and again only after the limit was changed."""
        if not self._alarming():
            return []
        spent, due = self.spent, list[Alert]()
        if spent.usd >= self._mark_usd:
            self._mark_usd = _OPEN
            due.append(Alert(self.scope, self.period, "usd", spent.usd, self._cap_usd))
        if spent.tokens >= self._mark_tokens:
            self._mark_tokens = _OPEN
            due.append(Alert(self.scope, self.period, "tokens", spent.tokens, self._cap_tokens))
        if spent.calls >= self._mark_calls:
            self._mark_calls = _OPEN
            due.append(Alert(self.scope, self.period, "calls", spent.calls, self._cap_calls))
        return due

    def as_dict(self) -> dict[str, Json]:
        """Scope, period, limits, spent and reserved."""
        limit = self.limit
        return {
            "scope": self.scope,
            "period": self.period,
            "limit": {unit: limit.of(unit) for unit in UNITS},
            "spent": self.spent.as_dict(),
            "reserved": self.reserved.as_dict(),
        }

    def _figures(self, unit: Unit) -> tuple[int, int]:
        if unit == "usd":
            return self._cap_usd, self._used_usd
        return (self._cap_tokens, self._used_tokens) if unit == "tokens" else (self._cap_calls, self._used_calls)

    def _alarming(self) -> bool:
        return (
            self._used_usd - self._held_usd >= self._mark_usd
            or self._used_tokens - self._held_tokens >= self._mark_tokens
            or self._used_calls - self._held_calls >= self._mark_calls
        )

    def _set_marks(self) -> None:
        """From where an alert is due; a limit of 0 alerts nobody, since nothing was ever to be spent."""
        self._mark_usd, self._mark_tokens, self._mark_calls = (
            _OPEN if cap <= 0 or cap == _OPEN else math.ceil(cap * ALERT_AT)
            for cap in (self._cap_usd, self._cap_tokens, self._cap_calls)
        )

    def _short_of(self, amount: Amount) -> Unit | None:
        # A unit of which nothing is asked is not looked at: an overrun in money does not stop what is free.
        if amount.usd and self._used_usd + amount.usd > self._cap_usd:
            return "usd"
        if amount.tokens and self._used_tokens + amount.tokens > self._cap_tokens:
            return "tokens"
        if amount.calls and self._used_calls + amount.calls > self._cap_calls:
            return "calls"
        return None


class Reservation:
    """An amount that is set aside in every envelope of a chain until the call is settled.

    Exactly one of `settle` and `release` closes it.
    """

    __slots__ = ("_actual", "_envelopes", "amount", "open")

    def __init__(self, envelopes: Sequence[Envelope], amount: Amount) -> None:
        self._actual = amount
        self._envelopes = envelopes
        self.amount = amount
        self.open = True

    def settle(self, actual: Amount) -> Amount:
        """Charge what the call has cost and free the rest.

        Returns:
            By how much the cost exceeded the reservation, per unit (zero in the ordinary case). It is charged all
            the same: a figure that hides an overrun would be wrong.

        Raises:
            ValueError: the reservation is closed already.
        """
        if not self.open:
            raise ValueError("this reservation is closed already")
        self.open = False
        self._actual = actual
        held = self.amount
        for envelope in self._envelopes:
            envelope._held_usd -= held.usd
            envelope._held_tokens -= held.tokens
            envelope._held_calls -= held.calls
            envelope._used_usd += actual.usd - held.usd
            envelope._used_tokens += actual.tokens - held.tokens
            envelope._used_calls += actual.calls - held.calls
            if envelope._waiting:
                envelope._tell()
        return Amount(
            max(0, actual.usd - held.usd), max(0, actual.tokens - held.tokens), max(0, actual.calls - held.calls)
        )

    def lost(self) -> None:
        """The settling was not kept: the ledger will count the call in full, and so it counts here."""
        held, actual = self.amount, self._actual
        for envelope in self._envelopes:
            envelope._used_usd += max(0, held.usd - actual.usd)
            envelope._used_tokens += max(0, held.tokens - actual.tokens)
            envelope._used_calls += max(0, held.calls - actual.calls)

    def release(self) -> None:
        """The call was never made: nothing is charged.

        Raises:
            ValueError: the reservation is closed already.
        """
        self.settle(Amount())


class Chain:
    """The envelopes that an effect is paid from, the innermost first.

    Args:
        envelopes: those.
        scopes: their names here, where they have others than their own.
        refresh: called before they are looked at; begins what has to begin with a new day.
    """

    __slots__ = ("_refresh", "envelopes", "scopes")

    def __init__(
        self,
        envelopes: Iterable[Envelope] = (),
        scopes: Iterable[str] = (),
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self.envelopes = tuple(envelopes)
        self._refresh = refresh
        self.scopes = tuple(scopes) or tuple(envelope.scope for envelope in self.envelopes)

    def shortage(self, amount: Amount) -> Shortage | None:
        """The innermost envelope that cannot cover the amount, or None when all can."""
        if self._refresh is not None:
            self._refresh()
        for place, envelope in enumerate(self.envelopes):
            unit = envelope._short_of(amount)
            if unit is not None:
                cap, used = envelope._figures(unit)
                return Shortage(envelope, unit, getattr(amount, unit), cap - used, self.scopes[place])
        return None

    def reserve(self, amount: Amount) -> Reservation:
        """Set the amount aside in all envelopes, or in none.

        Raises:
            OverBudget: an envelope cannot cover it; it names the innermost such scope and the unit.
            ValueError: a figure of the amount is negative.
        """
        usd, tokens, calls = amount.usd, amount.tokens, amount.calls
        if usd < 0 or tokens < 0 or calls < 0:
            raise ValueError(f"{amount} cannot be reserved: a figure is negative")
        short = self.shortage(amount)
        if short is not None:
            raise short.signal()
        for envelope in self.envelopes:
            envelope._used_usd += usd
            envelope._used_tokens += tokens
            envelope._used_calls += calls
            envelope._held_usd += usd
            envelope._held_tokens += tokens
            envelope._held_calls += calls
        return Reservation(self.envelopes, amount)

    def charge(self, amount: Amount) -> None:
        """Count what has been spent already, whatever the limits say (a rebuild, a cost known only afterwards)."""
        for envelope in self.envelopes:
            envelope._used_usd += amount.usd
            envelope._used_tokens += amount.tokens
            envelope._used_calls += amount.calls

    def alerts(self) -> list[Alert]:
        """Alerts that are newly due in any envelope of the chain."""
        return [
            replace(alert, scope=scope)
            for envelope, scope in zip(self.envelopes, self.scopes, strict=True)
            if envelope._alarming()
            for alert in envelope.alerts()
        ]


class EnvelopeTree:
    """The envelopes of one run with those above it, by scope; a chain goes from a scope up to the root.

    A scope may have several envelopes (a day's and a month's budget): all of them are on its chain. `refresh` is called
    before a chain reserves.
    """

    __slots__ = ("_chains", "_envelopes", "_parents", "refresh")

    def __init__(self, refresh: Callable[[], None] | None = None) -> None:
        self.refresh = refresh
        self._envelopes: dict[str, list[Envelope]] = {}
        self._parents: dict[str, str | None] = {}
        self._chains: dict[str, Chain] = {}

    def add(self, envelope: Envelope, parent: str | None = None, scope: str = "") -> Envelope:
        """Hang an envelope below a scope that is there already; None for the outermost. `scope`: its name here, where
        that is another one than its own.

        Raises:
            ValueError: the parent is not there, or the scope hangs elsewhere already.
        """
        if parent is not None and parent not in self._parents:
            raise ValueError(f"there is no envelope {parent!r} to hang {envelope.scope!r} below")
        scope = scope or envelope.scope
        if self._parents.setdefault(scope, parent) != parent:
            raise ValueError(f"the envelope {scope!r} hangs below another scope already")
        self._envelopes.setdefault(scope, []).append(envelope)
        self._chains.clear()
        return envelope

    def __contains__(self, scope: str) -> bool:
        return scope in self._parents

    def chain(self, scope: str) -> Chain:
        """The chain that starts at a scope.

        Raises:
            KeyError: there is no such scope.
        """
        chain = self._chains.get(scope)
        if chain is None:
            path: list[tuple[Envelope, str]] = []
            at: str | None = scope
            while at is not None:
                path.extend((envelope, at) for envelope in self._envelopes[at])
                at = self._parents[at]
            chain = self._chains[scope] = Chain((one for one, _ in path), (name for _, name in path), self.refresh)
        return chain

    def scopes(self) -> list[str]:
        """Every scope, outermost first."""
        return list(self._parents)

    def of(self, scope: str) -> list[Envelope]:
        """The envelopes of one scope; none when it is not here."""
        return list(self._envelopes.get(scope, ()))

    def extend(self, scope: str, more: Amount, *, period: str | None = None) -> bool:
        """Raise the limits of a scope's envelopes, of one period or of all; False when there is none."""
        found = [envelope for envelope in self.of(scope) if period is None or envelope.period == period]
        for envelope in found:
            envelope.extend(more)
        return bool(found)

    def envelopes(self) -> list[Envelope]:
        """Every envelope, outermost first."""
        return [envelope for found in self._envelopes.values() for envelope in found]


def show_amount(unit: Unit, figure: int) -> str:
    """A figure with its unit, as people read it."""
    return show_usd(figure) if unit == "usd" else f"{figure:,} {unit}"
