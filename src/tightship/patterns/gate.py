"""The temporal consistency gate of an action: decided on one snapshot that still stands, or decided again (X5).

The values that the named agents have read are compared with one snapshot; where one has changed or is too old, the
steps from the first of these agents up to the action are done again on the snapshot. The action is then admitted only
if all of it still stands, judged in the transaction of the admit: optimistic concurrency control with backward
validation (Kung and Robinson, ACM TODS 6(2), 1981). What is read outside counts as changed from the moment of the
admit until it was read again after the action has settled, so two actions never rest on the same reading.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tightship.core.errors import ContextChanged
from tightship.core.ports import Json
from tightship.effects.frame import Agreement, Frame
from tightship.ledger import Expected
from tightship.workflow.conditions import Condition
from tightship.workflow.context_keys import KeyPattern
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.spec import listed
from tightship.workflow.tree import Step
from tightship.workflow.units import Name

Act = Callable[[Frame, tuple[Expected, ...]], Awaitable[Json]]

NOT_BEFORE = declare(
    "TS580",
    "error",
    "A gate names an agent that does not decide before its action",
    why="The gate does the steps from that agent's up to the action again; an agent elsewhere cannot decide anew.",
    fix="Put the agent's step before the action in the same list of steps.",
)
ACTS_BETWEEN = declare(
    "TS581",
    "error",
    "An action stands between a gated action and the agents that decide it",
    why="When the decision is made again, the steps in between are done again: this action would be done twice.",
    fix="Move the other action before the agents' steps, or behind the gated one.",
)
NO_KEY = declare(
    "TS582",
    "error",
    "A gate looks at a key that nobody declares",
    why="Nothing is ever read or written under it, so the gate would hold nothing back.",
    fix="Name keys of `context:` in tightship.yaml.",
)


class Gate(BaseModel):
    """Whose decisions an action rests on, and which values of the shared context these have to agree on."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    agents: Annotated[tuple[Name, ...], BeforeValidator(listed), Field(min_length=1)]
    on: Annotated[tuple[KeyPattern, ...], BeforeValidator(listed), Field(min_length=1)]
    when: Condition | None = None
    rounds: int = Field(default=3, ge=1, le=20)


def decided_by(step: Step, gate: Gate) -> Sequence[Step]:
    """The steps before an action from the first one of the gate's agents on: what is done again."""
    for place, one in enumerate(step.before):
        if any(agent in gate.agents for inner in one.walk() for agent in inner.agents()):
            return step.before[place:]
    return ()


async def through(step: Step, gate: Gate, frame: Frame, act: Act) -> Json:
    """Act once the decision rests on what stands; None when, decided again, `when` no longer holds.

    Raises:
        ContextChanged: in no round did everything stand until the admit.
        StaleContext: a value is too old, and there is no younger one.
    """
    again = decided_by(step, gate)
    above = frame.key.rpartition("/")[0]
    inside = [f"{above}/{one.part}" if above else one.part for one in again]
    agreed: list[Agreement] = []
    for number in range(1, gate.rounds + 1):
        at = frame.at(f"gate/{number}")
        agreed.append(await at.agree(gate.agents, gate.on, inside))
        expect = agreed[-1].expect
        await at.note("gate.round", round=number, passed=not agreed[-1].changed, changed=list(agreed[-1].changed))
        if agreed[-1].changed or number > 1:
            at.pin(agreed[-1])
            for one in again:
                await at.step(one)
            inside = [f"{at.key}/{one.part}" for one in again]
            expect = await at.based(gate.agents, gate.on, agreed[-1])
        if gate.when is not None and not await at.evaluate(gate.when):
            return None
        try:
            return await act(at, expect)
        except ContextChanged as moved:
            key = moved.evidence.get("key")
            await at.note("gate.moved", round=number, changed=key)
    raise ContextChanged(
        f"what this action was decided on has changed in {gate.rounds} rounds, each time before it could be done",
        needed="decide by hand, or raise `rounds` of the gate",
        evidence={"decided_on": dict(agreed[0].snapshot), "now": dict(agreed[-1].snapshot)},
    )


def gate_findings(step: Step, gate: Gate, context: StepCheck) -> Iterable[Finding]:
    """What may be wrong with a gate."""
    before = [agent for one in step.before for inner in one.walk() for agent in inner.agents()]
    for agent in gate.agents:
        if agent not in before:
            yield NOT_BEFORE.found(f"{agent} takes no turn before this action", context.mark("gate"))
    for one in decided_by(step, gate):
        for inner in one.walk():
            if inner.pattern in ("action", "workflow"):
                yield ACTS_BETWEEN.found(f"{inner.part} would be done again", context.mark("gate"))
    declared = context.check.files.config.context
    for key in gate.on:
        if not any(_meet(key, pattern) for pattern in declared):
            yield NO_KEY.found(f"{key} is not declared", context.mark("gate", "on"))


def _meet(one: str, other: str) -> bool:
    """Whether two patterns have a key in common."""
    parts, others = one.split("/"), other.split("/")
    if len(parts) != len(others):
        return False
    return all(a == b or "*" in (a, b) for a, b in zip(parts, others, strict=True))
