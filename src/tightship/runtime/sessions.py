"""What the door knows of a run: made anew from its program, or as its ledger says when the run is taken over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tightship.agents.turn import state_of
from tightship.controls.budgets import EnvelopeTree
from tightship.controls.limits import Limits, RunLimits, Stopwatch
from tightship.controls.loops import LoopDetector, LoopLimits
from tightship.controls.near_repeats import NearLimits, NearRepeats
from tightship.core import kinds
from tightship.effects.frame import RunFacts
from tightship.effects.journal import Journal
from tightship.effects.session import Session, Shared
from tightship.ledger import Entry
from tightship.runtime.families import Families
from tightship.runtime.program import Program
from tightship.runtime.purse import build_envelopes, recharge


class Sessions:
    """Makes the sessions of one process's runs.

    Args:
        shared: what they share.
        envelopes: the envelopes above a tenant's runs.
        families: the envelopes of runs.
        lease: raises StaleOwner once this process may act for its runs no more.
    """

    def __init__(
        self,
        shared: Shared,
        envelopes: Callable[[str], EnvelopeTree],
        families: Families,
        lease: Callable[[], None] | None = None,
    ) -> None:
        self._shared = shared
        self._envelopes = envelopes
        self._families = families
        self._lease = lease

    def new(self, facts: RunFacts, journal: Journal, program: Program) -> Session:
        """The session of a run that has done nothing yet; its family holds it."""
        spec, limits = program.spec, program.limits
        line = self._families.line(facts.id)
        tree = build_envelopes(self._envelopes(facts.tenant), spec.name, line, program.definition.agents)
        near = _near_repeats(program)
        journal.listener = near.observe
        return Session(
            facts,
            journal,
            self._shared,
            tree,
            RunLimits(Limits(limits.turns, limits.calls, limits.retries, limits.repeats)),
            LoopDetector(LoopLimits(repeats=limits.repeats + 1)),
            near,
            Stopwatch(self._shared.world.clock, spec.budget.seconds, used=journal.seconds),
            program.tools,
            agent_limits=_agent_limits(program),
            asks_on_budget=program.asks_on_budget,
            live=program.live,
            lease=self._lease,
            line=self._families.quotas(facts.id),
            handoffs=self._families.handoffs(facts.id),
            messages=self._families.messages(facts.id),
            alone=self._families.alone(facts.id),
        )

    def revived(self, facts: RunFacts, journal: Journal, program: Program, entries: Sequence[Entry]) -> Session:
        """The session of a run that is taken over: with all that its entries say was counted and spent."""
        session = self.new(facts, journal, program)
        recharge(session.envelopes, entries)
        session.limits.restore(entry for entry in entries if entry.body.get("cls") != "undo")
        for name, own in session.agent_limits.items():
            own.restore([entry for entry in entries if entry.body.get("agent") == name])
        lines = {entry.key: entry.body["line"] for entry in entries if "line" in entry.body}
        session.loops.restore([_as_seen(entry) for entry in entries], lambda key: lines.get(key, ""))
        for entry in entries:
            session.near.observe(entry.kind, entry.key, entry.body)
            if entry.kind == kinds.EXTENDED and "seconds" in entry.body:
                session.watch.extend(entry.body["seconds"])
        return session


def _agent_limits(program: Program) -> dict[str, RunLimits]:
    """Counters of the agents that declare limits of their own; what they leave open is the run's."""
    found: dict[str, RunLimits] = {}
    for name, agent in program.definition.agents.items():
        own, run = agent.limits, program.limits
        if own.turns is None and own.calls is None and own.repeats is None:
            continue
        limits = Limits(own.turns or run.turns, own.calls or run.calls, run.retries, own.repeats or run.repeats)
        found[name] = RunLimits(limits, f"agent:{name}")
    return found


def _near_repeats(program: Program) -> NearRepeats:
    """What is said, with the bounds of the run, and of the agents that declare one of their own."""
    limits = NearLimits(program.limits.similar, program.limits.similarity)
    own = {
        name: NearLimits(agent.limits.similar, limits.similarity)
        for name, agent in program.definition.agents.items()
        if agent.limits.similar is not None
    }
    return NearRepeats(limits, own)


def _as_seen(entry: Entry) -> Entry:
    """A turn's entry with the state that the detection of loops saw when it was taken."""
    if entry.kind != kinds.TURN or "~" not in entry.key:
        return entry
    return replace(entry, body={**entry.body, "hash": state_of(entry.key, str(entry.body.get("hash", "")))})
