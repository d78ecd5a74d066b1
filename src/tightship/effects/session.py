"""What the door knows of one run, and what all runs of a process share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tightship.context.desk import SharedContext
from tightship.context.values import Value
from tightship.controls.breakers import Breakers
from tightship.controls.budgets import UNITS, Amount, Chain, EnvelopeTree
from tightship.controls.cache import ResultCache
from tightship.controls.family import RunEnvelope
from tightship.controls.halts import Halts, scopes_of
from tightship.controls.limits import Handoffs, Messages, RunLimits, Stopwatch
from tightship.controls.loops import LoopDetector
from tightship.controls.near_repeats import NearRepeats
from tightship.controls.pulse import Pulse
from tightship.controls.rates import Rates
from tightship.controls.retries import RetryBudgets, Throttle
from tightship.controls.standing import Standing
from tightship.core.ports import Json, Tool
from tightship.core.world import World
from tightship.effects.flight import Flights
from tightship.effects.frame import RunFacts
from tightship.effects.governance import DeclaredOnly, Governance
from tightship.effects.journal import Body, Journal
from tightship.ledger import Count
from tightship.models.versions import Versions
from tightship.workflow.models import GroundedSpec
from tightship.workflow.safeguards import Domains


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How the door tries a system again that did not answer: full-jitter back-off, `attempts` in all.

    A system that asks for more than `patience` seconds is not tried again here: the next tier, or what is declared for
    `unavailable`, comes next. Times are in seconds.

    Source of the back-off: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """

    attempts: int = 3
    base: float = 0.2
    cap: float = 10.0
    patience: float = 60.0

    def delay(self, attempt: int, uniform: float, retry_after: float | None) -> float:
        """Seconds to wait after this attempt (1 is the first); the other side's wish comes first."""
        backoff = min(self.cap, self.base * 2 ** (attempt - 1)) * (0.5 + uniform / 2)
        return max(backoff, retry_after or 0.0)


@dataclass(slots=True)
class Shared:
    """What the runs of one process share."""

    world: World
    halts: Halts
    rates: Rates
    breakers: Breakers
    cache: ResultCache[str]
    governance: Governance = field(default_factory=DeclaredOnly)
    retry: RetryPolicy = RetryPolicy()
    validators: dict[str, Any] = field(default_factory=dict[str, Any])
    """Compiled argument schemas by tool name."""
    context: SharedContext | None = None
    """The shared context of the workspace."""
    domains: Domains = field(default_factory=dict[str, Any])
    """What arguments have to be, by tool and argument."""
    spread: Callable[[str], Awaitable[None]] | None = None
    """Tells the other workers of a shared store that a breaker has opened or closed."""
    versions: Versions | None = None
    """Which versions of models have answered."""
    pulse: Pulse = field(default_factory=Pulse)
    """Whether this process ran while it waited for an answer."""
    standing: Standing = field(default_factory=Standing)
    """Which runs here only wait for what others have begun."""
    retries: RetryBudgets = field(init=False)
    throttle: Throttle = field(init=False)

    def __post_init__(self) -> None:
        self.retries = RetryBudgets(self.world.clock)
        self.throttle = Throttle(self.world.clock)


@dataclass(slots=True)
class Session:
    """One run in the hands of its owner."""

    facts: RunFacts
    journal: Journal
    shared: Shared
    envelopes: EnvelopeTree
    limits: RunLimits
    loops: LoopDetector
    near: NearRepeats
    watch: Stopwatch
    tools: Mapping[str, Tool]
    flights: Flights = field(default_factory=Flights)
    """Admitted effects that have not settled: they outlive the branch that waited for them."""
    agent_limits: Mapping[str, RunLimits] = field(default_factory=dict[str, RunLimits])
    asks_on_budget: bool = True
    """Whether a person is asked when an envelope is short; the refused key then stays open."""
    live: bool = True
    """Whether writes are real; a rehearsal holds no claims, which real work may need."""
    keeps: bool = False
    """Whether the run is only put down: what it has not finished stays open, to be tried again."""
    lease: Callable[[], None] | None = None
    """Raises StaleOwner when this process may no longer act for the run."""
    line: Sequence[tuple[str, RunEnvelope, int]] = ()
    """The run and those above it, itself first: id, envelope, and the most requests that it and the runs below make."""
    handoffs: Sequence[Handoffs] = ()
    """How often control has passed: the counters of the run and of those above it, its own first."""
    messages: Sequence[Messages] = ()
    """What peers have sent: the counters of the same runs."""
    alone: bool = True
    """Whether no run is above or below it, so that what is counted here is all there is; else the store counts too."""
    before: Mapping[str, Json] | None = None
    """What it spent on its own, for its first child to tell while that is started."""
    founding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the first child is started."""
    reading: set[str] = field(default_factory=set[str])
    """Free reads under way that were begun while it was alone: nothing was admitted for them."""
    pins: dict[str, Mapping[tuple[str, str], Value]] = field(default_factory=dict[str, Mapping[tuple[str, str], Value]])
    """Below these keys the shared context is read as one snapshot has it, by scope and key."""
    ballots: set[str] = field(default_factory=set[str])
    """The keys of votes that the run has come to: below each, a person answers in one branch only."""
    announced: set[str] = field(default_factory=set[str])
    """What branches have let those beside them know (`Frame.announce`)."""
    apart: dict[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Below these keys nothing may be decided by these people: they made what is checked there."""
    grounds: dict[str, GroundedSpec] = field(default_factory=dict[str, GroundedSpec])
    """Below these keys what agents claim has to stand in what they cite."""
    deadlines: dict[str, float] = field(default_factory=dict[str, float])
    """Store time (s) by which steps that are under way have to end, by key: the step's own, and `until`."""
    _scopes: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    def check_lease(self) -> None:
        """Directly before sending: is the run still ours?

        Raises:
            StaleOwner: it is not.
        """
        if self.lease is not None:
            self.lease()

    def grounds_at(self, key: str) -> GroundedSpec | None:
        """What the nearest step around a key says about claims; None where none says anything."""
        around = [path for path in self.grounds if key.startswith(path) and key[len(path) : len(path) + 1] in "/+~!"]
        return self.grounds[max(around, key=len)] if around else None

    def until(self, key: str, own: float | None = None) -> float | None:
        """The earliest deadline that holds at a key: its own, and those of the steps around it; None without any."""
        if not self.deadlines:
            return own
        found = [at for name, at in self.deadlines.items() if key.startswith(name.removesuffix("until"))]
        return min([*found, *(() if own is None else (own,))], default=None)

    def scopes(self, agent: str) -> tuple[str, ...]:
        """The halt scopes that an effect of this agent lies in."""
        found = self._scopes.get(agent)
        if found is None:
            facts = self.facts
            found = scopes_of(tenant=facts.tenant, workflow=facts.workflow, run=facts.id, agent=agent)
            self._scopes[agent] = found
        return found

    def purse(self, task: str) -> str:
        """The envelope that a task is paid from: its own, or the run's."""
        return task if task in self.envelopes else "run"

    def chain(self, task: str) -> Chain:
        """The envelopes that a task is paid from."""
        return self.envelopes.chain(self.purse(task))

    def counters(self, agent: str) -> tuple[RunLimits, ...]:
        """What a turn or call of this agent counts against: the run's limits, and its own where it declares some."""
        own = self.agent_limits.get(agent)
        return (self.limits,) if own is None else (self.limits, own)

    def counts(self, amount: Amount) -> tuple[Count, ...]:
        """What the store has to have room for before an amount is spent: in the run and in those above it."""
        if self.alone:
            return ()
        found: list[Count] = []
        for run, envelope, requests in self.line:
            found.append(Count(run, "requests", amount.calls, requests))
            for unit in UNITS:
                limit, more = envelope.declared.of(unit), getattr(amount, unit)
                if limit is not None and more:
                    found.append(Count(run, unit, more, limit))
        return tuple(found)

    def counted(self, key: str = "") -> Body:
        """What an admit says so that it counts for the runs above too, and the settle of this key: also what it gives
        back of what was set aside for it. A run on its own says nothing."""
        if self.alone:
            return {}
        body: Body = {"above": [run for run, _, _ in self.line[1:]]}
        opened = self.journal.admitted.get(key)
        return body if opened is None else body | {"held": opened[0].get("reserve", {})}

    def count_handoffs(self, ids: Iterable[str]) -> None:
        """Count these handoffs, here and in the runs above; those that are counted already change nothing."""
        for counter in self.handoffs:
            counter.counted.update(ids)

    def hear_child(self, body: Mapping[str, Any]) -> None:
        """Count what a child tells of at its end, which another process may have driven: handoffs and messages."""
        self.count_handoffs(body.get("handoffs", ()))
        for counter in self.messages:
            counter.hear(body.get("messages", {}))

    async def drain(self) -> None:
        """Wait until every admitted effect has settled, on the disk. No run ends, parks or undoes before."""
        await self.flights.drain()
        await self.journal.drain()
