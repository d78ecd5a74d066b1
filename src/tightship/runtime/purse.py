"""The envelopes of a run: made from what is declared, charged with what the ledger holds, extended by people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tightship.controls.budgets import UNITS, Amount, Chain, Envelope, EnvelopeTree, Limit
from tightship.controls.leases import Lease
from tightship.controls.periods import period_bounds
from tightship.controls.rebuild import rebuild
from tightship.core import kinds
from tightship.core.money import NANO
from tightship.core.ports import EntryView
from tightship.core.signals import OverBudget, Refused
from tightship.effects.frame import Question
from tightship.ledger import Draft, Entry
from tightship.review.package import from_exception
from tightship.runtime.families import Bounds

if TYPE_CHECKING:
    from tightship.runtime.node import NodeFrame
    from tightship.runtime.program import Program


ABOVE = "run:"
"""The scope of a run above: `run:ID`. A run's own envelope is called `run`."""
AGENT = "agent:"


def bounds_of(program: Program) -> Bounds:
    """What a run of this program, and the runs below it, may do."""
    limits = program.limits
    return Bounds(limit_of(program.spec.budget), limits.requests, limits.handoffs, limits.messages)


def limit_of(budget: Any) -> Limit:
    """A declared budget as limits."""
    return Limit(budget.usd, budget.tokens, budget.calls)


def build_envelopes(
    shared: EnvelopeTree, workflow: str, line: Sequence[tuple[str, Envelope]], agents: Mapping[str, Any]
) -> EnvelopeTree:
    """A run's envelopes, outermost first: those of tenant and workflow, which all runs of the process share, those of
    the runs above it, its own, and its agents'.

    Args:
        shared: tenant and workflows.
        workflow: the run's.
        line: the runs' envelopes by id, the run's own last.
        agents: the agents by name.
    """
    tree = EnvelopeTree(shared.refresh)
    parent: str | None = None
    for scope in shared.scopes():
        if scope.startswith("tenant:") or scope == f"workflow:{workflow}":
            for envelope in shared.of(scope):
                tree.add(envelope, parent)
            parent = scope
    for run, envelope in line[:-1]:
        scope = f"{ABOVE}{run}"
        tree.add(envelope, parent, scope)
        parent = scope
    tree.add(line[-1][1], parent)
    for name, agent in agents.items():
        if not agent.budget.empty:
            tree.add(Envelope(f"agent:{name}", limit_of(agent.budget)), "run")
    return tree


def recharge(tree: EnvelopeTree, entries: Sequence[Entry]) -> None:
    """Charge the agents' envelopes of a resumed run with what its ledger says. Those above them are charged where they
    are made: the run's own may be in use already, by a child that was resumed before it."""
    nothing = Chain()
    chains = {scope: Chain(tree.of(scope)) for scope in tree.scopes() if scope.startswith(AGENT)}

    def chain_of(entry: EntryView) -> Chain:
        body = entry.body
        return chains.get(str(body.get("task") or f"{AGENT}{body.get('agent')}"), nothing)

    rebuild(entries, chain_of)
    for entry in entries:
        if entry.kind == kinds.EXTENDED and entry.body["scope"] in chains:
            extend(tree, entry.body)


def extend(tree: EnvelopeTree, body: dict[str, Any]) -> None:
    """Raise the limits of an envelope by what somebody granted.

    Of one that all workers share, the ledger's limit has grown (`EnvelopesProjection`): it is borrowed from there.
    """
    more = Amount(int(body.get("usd", 0)), int(body.get("tokens", 0)), int(body.get("calls", 0)))
    for envelope in tree.of(body["scope"]):
        if envelope.period == body.get("period", "") and not isinstance(envelope, Lease):
            envelope.extend(more)


async def ask_for_extension(frame: NodeFrame, signal: OverBudget) -> None:
    """Ask a person for more; take the answer into the envelopes.

    Raises:
        OverBudget: nobody granted it.
    """
    task = frame.task
    program, session = task.program, task.session
    package = from_exception(signal, program.context(frame, signal.scope))
    key = frame.next_key("budget")
    within = _rest_of_period(_short(session.envelopes, signal), session.shared.world.clock.now())
    question = Question("budget", package.title, program.escalation_role, package.to_json(), within)
    answer = await frame.at(f"budget/{key.rsplit('/', 1)[-1]}").ask(question)
    if answer.decision == "expired":
        return  # another day or month has begun, with an envelope of its own
    if answer.decision not in ("approve", "edit", "answer"):
        raise Refused(
            f"{signal.reason}; {answer.by or 'nobody'} did not grant more", scope=signal.scope, unit=signal.unit
        )
    if key in task.journal.granted:
        return  # taken in when the run was loaded; if it does not suffice, the next question is another one
    body: dict[str, Any] = {"scope": signal.scope, "by": answer.by, **_granted(answer.value, signal, session.envelopes)}
    short = _short(session.envelopes, signal)
    if short is not None and short.period:
        body["period"] = short.period
    if signal.scope.startswith(ABOVE):
        await _extend_above(frame, key, body)
    else:
        await task.journal.record(kinds.EXTENDED, key, body)
    if "seconds" in body:
        session.watch.extend(body["seconds"])
    else:
        extend(session.envelopes, body)


async def _extend_above(frame: NodeFrame, key: str, body: dict[str, Any]) -> None:
    """What is granted to a run above stands in that run's record too, from which its envelope is made again."""
    journal, run = frame.task.journal, frame.run.id
    above = body["scope"].removeprefix(ABOVE)
    entries = await journal.ledger.append(
        Draft(run, kinds.EXTENDED, key, body, journal.epoch),
        Draft(above, kinds.EXTENDED, f"{run}:{key}", {**body, "scope": "run"}),
        log=journal.log,
    )
    journal.index(entries[0])


def _short(tree: EnvelopeTree, signal: OverBudget) -> Envelope | None:
    """The envelope of the scope that has the least left: a day's or a month's, where there are both."""
    unit = signal.unit
    if unit not in UNITS:
        return None
    found = [envelope for envelope in tree.of(signal.scope) if envelope.left(unit) is not None]
    return min(found, key=lambda envelope: envelope.left(unit) or 0, default=None)


def _rest_of_period(short: Envelope | None, now: float) -> float | None:
    """Seconds until the envelope is renewed, or None when it never is."""
    if short is None or not short.period:
        return None
    return period_bounds("day" if len(short.period) > len("2026-01") else "month", now)[1] - now


def _granted(value: Any, signal: OverBudget, tree: EnvelopeTree) -> dict[str, Any]:
    """What an answer grants: figures by unit (money in USD), or as much again as the envelope had."""
    if isinstance(value, dict) and value and not wrong_grant(value):
        granted: dict[str, Any] = {name: int(value[name]) for name in ("tokens", "calls") if name in value}
        if "usd" in value:
            granted["usd"] = int(float(value["usd"]) * NANO)
        if "seconds" in value:
            granted["seconds"] = float(value["seconds"])
        return granted
    if signal.unit == "seconds":
        return {"seconds": 300.0}
    short = _short(tree, signal)
    if short is None:
        return {}
    limit = short.total if isinstance(short, Lease) else short.limit  # a lease's own is what was lent of it
    return {signal.unit: {"usd": limit.usd, "tokens": limit.tokens, "calls": limit.calls}.get(signal.unit) or 0}


def wrong_grant(value: Any) -> str | None:
    """What is wrong with the value of an answer to a budget question, or None."""
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        return 'give figures by unit, for example {"usd": 0.5}'
    for name, figure in value.items():
        if name not in ("usd", "tokens", "calls", "seconds"):
            return f"{name!r} is no unit: use usd, tokens, calls or seconds"
        if isinstance(figure, bool) or not isinstance(figure, int | float) or not 0 <= figure < 1e9:
            return f"{name} has to be a number from 0 up, not {figure!r}"
    return None
