"""Agents route the work to each other by its content (P6): with a brief that is checked, and a count that goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from tightship.core.errors import HandoffRefused, HandoffsExhausted, RunFailed
from tightship.core.ports import Json
from tightship.effects.frame import CONSTRAINTS, Frame
from tightship.patterns._brief import Brief, Known, retention
from tightship.patterns._shared import feedback
from tightship.workflow.models import Fields
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import Name

BRIEF = "brief"
PEERS = "peers"
OBJECTIONS = "objections"

NO_HANDOFF_FIELD = declare(
    "TS620",
    "error",
    "An agent that may hand over cannot say so",
    why="Control passes by the field `handoff` of an output; without it the agent can only finish.",
    fix="Declare `'handoff?': {to: str, brief: object}` in the agent's output, or take its peers away.",
)
NEVER_REACHED = declare(
    "TS621",
    "warning",
    "Nobody hands over to this agent",
    why="It stands in the workflow and can never get a turn.",
    fix="Name it among somebody's peers, or delete it.",
)
THIN_BRIEF = declare(
    "TS622",
    "warning",
    "A handoff carries no brief",
    why="The receiver sees the task anew: what was found, what holds and what is open gets lost on the way.",
    fix="Declare `brief`: the facts, `constraints: 'list[str]'` and `open_questions: 'list[str]'`.",
)
OVER_LIMIT = declare(
    "TS623",
    "error",
    "More handoffs than the limit allows",
    why="The run would end at its limit before this step's own bound.",
    fix="Lower `max`, or raise limits.handoffs.",
)
NOBODY_FINISHES = declare(
    "TS624",
    "error",
    "No agent can finish the work",
    why="An output that has to hold a handoff passes the work on every time.",
    fix="Make the field `handoff?` optional in the output of the agents that finish.",
)


@patterns.register("handoff")
class Handoff(Step):
    """`handoff: {first: AGENT, peers: {AGENT: [AGENT, …]}, brief: {FIELD: TYPE}, keep: […], max: 5, as: {NAME: STEP}}`.

    `first` begins. An agent that finishes gives its output; one that passes the work on gives an output with
    `handoff: {to: AGENT, brief: {…}}`. `to` has to be one of its peers, and the brief has to fit: else it goes back to
    the sender once, then to a person. Inside, `brief` is the brief that came with the work (empty at first), `peers`
    are the agents to whom it may be handed, and `objections` is what was wrong with the handoff that came back. `as`
    gives a step in place of an agent of that name. The output is that of whoever finished.
    """

    record = True
    isolated = True

    first: Name
    peers: Mapping[Name, tuple[Name, ...]] = Field(min_length=1)
    brief: Fields = Field(default_factory=dict)
    keep: tuple[str, ...] = ()
    max: int = Field(default=5, ge=1, le=100)
    then: Literal["escalate", "fail"] = "escalate"
    as_: Mapping[Name, Block] = {}

    _parties: dict[str, Step] = PrivateAttr(default_factory=dict[str, Step])

    @model_validator(mode="after")
    def _settled(self) -> Handoff:
        known = list(dict.fromkeys([*self.peers, *(name for names in self.peers.values() for name in names)]))
        if self.first not in known:
            raise ValueError(f"first: {self.first!r} is none of {', '.join(known)}; name it among the peers")
        for name, names in self.peers.items():
            if name in names:
                raise ValueError(f"peers: {name!r} cannot hand over to itself; delete it from its own list")
        stray = next((name for name in self.as_ if name not in known), None)
        if stray is not None:
            raise ValueError(f"as: {stray!r} is none of {', '.join(known)}; name it among the peers")
        lost = next((name for name in self.keep if name not in {one.removesuffix("?") for one in self.brief}), None)
        if lost is not None:
            raise ValueError(f"keep: {lost!r} is no field of the brief; declare it in `brief`")
        for name in known:
            step = self.as_.get(name)
            self._parties[name] = step if step is not None else patterns.get("agent")(agent=name)
        return self

    def children(self) -> Iterator[Step]:
        """Each agent, or the step that stands for it."""
        return iter(self._parties.values())

    def labels(self) -> Iterator[str]:
        """Their names."""
        return iter(self._parties)

    def once(self) -> Iterator[tuple[str, Step]]:
        """Nothing: any of them may get several turns."""
        return iter(())

    def introduces(self) -> Iterator[str]:
        """What came with the work, and to whom it may go."""
        yield BRIEF
        yield PEERS
        yield OBJECTIONS

    def describe(self) -> str:
        """In words."""
        routes = "; ".join(f"{name} to {', '.join(names)}" for name, names in self.peers.items() if names)
        carried = f", each with {', '.join(self.brief)}" if self.brief else ""
        return f"**{self.first}** begins; the work passes by its content ({routes}), at most {self.max} times{carried}"

    def conduct(self) -> list[str]:
        """What happens when it goes wrong."""
        return [
            *super().conduct(),
            "a brief that does not fit: back to the sender once, then to a person",
            f"handed over {self.max} times and not finished: {self.then}",
        ]

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        reached = {self.first, *(name for names in self.peers.values() for name in names)}
        for name in self._parties:
            if name not in reached:
                yield NEVER_REACHED.found(f"no peer of anybody is called {name!r}", context.mark("peers"))
        if not self.brief:
            yield THIN_BRIEF.found(f"what {self.first!r} and its peers hand over is not declared", context.mark())
        limits = context.workflow.limits.over(context.check.files.config.limits)
        if self.max > limits.handoffs:
            said = f"up to {self.max} handoffs, and the limit is {limits.handoffs}"
            yield OVER_LIMIT.found(said, context.mark("max"))
        schemas = {name: step.gives(context.check) for name, step in self._parties.items()}
        for name, schema in schemas.items():
            if self.peers.get(name) and schema is not None and "handoff" not in schema.get("properties", {}):
                yield NO_HANDOFF_FIELD.found(f"the output of {name!r} has no field 'handoff'", context.mark("peers"))
        if all(schema is not None and "handoff" in schema.get("required", ()) for schema in schemas.values()):
            yield NOBODY_FINISHES.found("every output requires `handoff`", context.mark("peers"))

    async def execute(self, frame: Frame) -> Json:
        """Pass the work on until somebody finishes it."""
        at, brief, trail = self.first, dict[str, Json](), [self.first]
        contract, known = Brief(self.brief, self.keep), Known()
        for number in range(1, self.max + 2):
            inner = frame.round(number)
            output, passed = await self._turn(inner, at, brief, contract)
            if passed is None:
                return output
            if number > self.max:
                break
            target, given = passed
            held, still = retention(brief, given), known.still(given)
            told: dict[str, Json] = {"facts": held.facts, "kept": held.kept, "known": still.facts, "still": still.kept}
            await inner.hand_over(at, target, number=number, **told, brief=given)
            at, brief = target, given
            trail.append(target)
        said = f"the work was handed over {self.max} times ({' -> '.join(trail)}) and nobody finished it"
        if self.then == "fail":
            raise RunFailed(said)
        raise HandoffsExhausted(
            said,
            needed="do it, or say who should",
            options=[{"id": name, "label": f"let {name} do it"} for name in self._parties],
            evidence={"trail": trail, "brief": brief},
        )

    async def _turn(
        self, frame: Frame, at: str, brief: Mapping[str, Json], contract: Brief
    ) -> tuple[Json, tuple[str, dict[str, Json]] | None]:
        """A turn of the agent that has the work: its output, and where it goes with which brief, if it goes on."""
        outer = {name: frame.scope.names.get(name) for name in (BRIEF, PEERS, OBJECTIONS, CONSTRAINTS)}
        frame.bind(BRIEF, dict(brief))
        frame.bind(PEERS, list[Json](self.peers.get(at, ())))
        frame.bind(OBJECTIONS, [])
        held = brief.get(CONSTRAINTS)
        if isinstance(held, list | tuple):
            before = outer[CONSTRAINTS]
            frame.bind(CONSTRAINTS, [*(before if isinstance(before, list) else ()), *held])
        try:
            output = await frame.step(self._parties[at])
            problems = self._problems(at, output, brief, contract)
            if problems:
                await self._returned(frame, at, output, problems, again=True)
                frame.bind(OBJECTIONS, list[Json](problems))
                with feedback(frame, problems):
                    output = await frame.at("again").step(self._parties[at])
                problems = self._problems(at, output, brief, contract)
                if problems:
                    await self._returned(frame, at, output, problems, again=False)
        finally:
            for name, value in outer.items():
                if value is None:
                    frame.scope.names.pop(name, None)
                else:
                    frame.bind(name, value)
        if problems:
            raise HandoffRefused(
                f"{at} cannot hand over to {_target(output) or 'anybody'}: {'; '.join(problems)}",
                needed="what is missing, or a decision who goes on",
                options=[{"id": name, "label": f"let {name} go on"} for name in self.peers.get(at, ())],
                evidence={"from": at, "to": _target(output), "problems": problems, "before": dict(brief)},
            )
        asked: Any = _asked(output)  # a handoff that passes
        return output, None if asked is None else (str(asked["to"]), dict(asked.get(BRIEF) or {}))

    async def _returned(self, frame: Frame, at: str, output: Json, problems: list[str], *, again: bool) -> None:
        """Record that a handoff did not pass: whose, to whom, and whether that is a peer; the second is final."""
        target = _target(output)
        allowed = target in self.peers.get(at, ())
        told: dict[str, Json] = {"source": at, "kind": "brief" if allowed else "peer", "problems": problems}
        # what is no name of the workflow is what somebody wrote, and is sealed
        told["target" if target in self._parties else "wanted"] = target
        if again:
            await frame.note("handoff.returned", **told, again=True)
        else:
            await frame.note("handoff.refused", **told)

    def _problems(self, at: str, output: Json, before: Mapping[str, Json], contract: Brief) -> list[str]:
        """What is wrong with the handoff that an output asks for; empty when there is none, or it may pass."""
        asked = _asked(output)
        if asked is None:
            return []
        if not isinstance(asked, Mapping):
            return [f"handoff: {{to: AGENT, brief: {{…}}}} is expected, and this is {type(asked).__name__}"]
        target, allowed = asked.get("to"), self.peers.get(at, ())
        if target not in allowed:
            peers = f"it may go to {', '.join(allowed)}" if allowed else "it has nobody to hand over to"
            return [f"handoff.to: {target!r} is no peer of {at}; {peers}"]
        return contract.problems(asked.get(BRIEF) or {}, before)


def _asked(output: Json) -> Json:
    """What an output says of a handoff, whatever its form; None when it asks for none."""
    found = output.get("handoff") if isinstance(output, Mapping) else None
    return found if found or isinstance(found, Mapping) else None


def _target(output: Json) -> str:
    asked = _asked(output)
    return str((asked.get("to") if isinstance(asked, Mapping) else asked) or "")[:200]
