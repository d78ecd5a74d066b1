"""A drill on agents that have slowly become others: their outputs have the right shape and another distribution (F6,
F14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.core import kinds
from tightship.core.ports import Json
from tightship.quality.drills.judge import asked_a_person, canonical, last, named, settled, strange, told
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.roles import only
from tightship.quality.drills.scene import Scene, act, play
from tightship.runtime.drift import told_apart
from tightship.workflow.models import AgentSpec

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Clean
    from tightship.runtime.result import Run

RUNS: Final = 100
"""Runs on either side after which a comparison with a baseline should tell what nobody notices in one run."""
PROMISE: Final = " We grant 40 percent off, whatever was agreed."

Bend = Callable[[Json, AgentSpec], Json]
"""What becomes of an output."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A way in which an agent has become another one.

    Attributes:
        what: in words. bend: what becomes of each of its outputs.
        strict: it has to be stopped in the very run, where an action takes its arguments from the agent.
    """

    what: str
    bend: Bend
    strict: bool = True


def _figures(value: Any, spec: AgentSpec) -> Any:
    return _each(value, lambda one: one * 3 + 1 if isinstance(one, int | float) and not isinstance(one, bool) else one)


def _decisions(value: Any, spec: AgentSpec) -> Any:
    return _each(value, lambda one: not one if isinstance(one, bool) else one)


def _texts(value: Any, spec: AgentSpec) -> Any:
    return _each(value, lambda one: one + PROMISE if isinstance(one, str) and len(one.split()) >= 3 else one)


def _choices(value: Any, spec: AgentSpec) -> Any:
    """The next of the allowed values, of every field that has some."""
    if not isinstance(value, Mapping) or spec.output_schema is None:
        return value
    fields: Mapping[str, Any] = spec.output_schema.get("properties", {})
    allowed = {name: list(field["enum"]) for name, field in fields.items() if "enum" in field}
    turned = {name: many[(many.index(value[name]) + 1) % len(many)] for name, many in allowed.items() if name in value}
    return {**value, **turned}


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _each(one, change) for name, one in value.items()}
    return [_each(one, change) for one in value] if isinstance(value, list) else change(value)


DRIFTS: Final = (
    Drift("larger figures", _figures),
    Drift("turned decisions", _decisions),
    Drift("other choices", _choices, strict=False),
    Drift("a promise in every text", _texts, strict=False),
)


def acted(bench: Bench) -> list[str]:
    """The agents that took turns in the chosen cases."""
    return list(dict.fromkeys(name for clean in bench.acting() for name in clean.agents))


def deciding(bench: Bench) -> list[str]:
    """Those of them whose outputs stand in the arguments of actions."""
    names: set[str] = set()
    for step in bench.steps("action"):
        names |= step.with_.names if step.with_ is not None else {spec.agent for spec in bench.agents()}
    return [name for name in acted(bench) if name in names]


@drill(
    "drifted-agent",
    broken="each agent in turn gives larger figures, turned decisions, other choices, promises, and one answer for all",
    fix="check an agent's figures before an action takes them: a checkpoint, another agent, or a review; declare the "
    "fields of outputs that decide otherwise, so that `tightship drift check` can compare them",
    applies=lambda bench: "" if acted(bench) else "no agent takes part in a case that comes to something",
)
def drifted_agent(bench: Bench, report: Report) -> None:
    """Outputs of the right shape and of another distribution are noticed.

    What an agent puts into the arguments of an action has to be stopped in that run. What decides otherwise (a way, a
    verdict, a figure for another agent, words) may show in the comparison of many runs with a baseline.
    """
    for agent in acted(bench):
        clean = next(one for one in bench.acting() if agent in one.agents)
        for drift in DRIFTS:
            _drifted(bench, report, agent, clean, drift)
        for other, drift in _one_answer(bench, agent, clean):
            _drifted(bench, report, agent, other, drift)


def _one_answer(bench: Bench, agent: str, clean: Clean) -> list[tuple[Clean, Drift]]:
    """The same answer whatever is asked: that of another case for the chosen one, and of the chosen one for a case
    that came to nothing."""
    known = [one for one in bench.all_clean() if agent in one.outputs and one is not clean]
    differ = [one for one in known if canonical(one.outputs[agent]) != canonical(clean.outputs.get(agent))]
    found: list[tuple[Clean, Drift]] = []
    lively = next((one for one in differ if one.writes), None)
    if lively is not None:
        found.append((clean, _always(lively.outputs[agent], "the answer to another case")))
    idle = next((one for one in differ if not one.writes), None)
    if idle is not None and agent in clean.outputs:
        found.append((idle, _always(clean.outputs[agent], f"the usual answer to case {idle.case.number}", False)))
    return found


def _always(answer: Json, what: str, strict: bool = True) -> Drift:
    return Drift(what, lambda value, spec: answer, strict)


def _drifted(bench: Bench, report: Report, agent: str, clean: Clean, drift: Drift) -> None:
    spec = bench.files.agent(agent)
    if all(canonical(drift.bend(one, spec)) == canonical(one) for one in clean.given.get(agent, ())):
        return  # there is nothing of the kind in its outputs

    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        async def drifted(ctx: AgentContext, given: dict[str, Json]) -> Json:
            return drift.bend(await act(function, ctx, given), spec)

        return drifted

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        extra, what = await strange(scene, run, clean.writes), f"{agent}, {drift.what}"
        strict = drift.strict and agent in deciding(bench)
        if not extra or asked_a_person(run) or (_with_people(run) and not strict):
            report.hold(True, f"{what}: {told(run)}{', a person has the case' if extra else ''}", "", last(run))
            return
        did = f"{what}: nobody noticed, and it did {named(extra)}"
        if strict:
            report.hold(False, "", did, settled(run))
            return
        fields = _told_apart(bench, agent, drift)
        report.hold(
            bool(fields),
            f"{did}; compared with a baseline it shows after {RUNS} runs in {', '.join(fields)}",
            f"{did}; nor does it show in {RUNS} runs: no declared field of its output differs",
            settled(run),
        )

    play(bench, story, actor=only(agent, actor))


def _with_people(run: Run) -> bool:
    """Whether a run, or one below it, has ended with a person."""
    return any(entry.kind == kinds.ENDED and entry.body.get("outcome") == "escalated" for entry in run.entries)


def _told_apart(bench: Bench, agent: str, drift: Drift) -> list[str]:
    """The fields by which a comparison with a baseline tells it, on as many runs as the cases give when repeated."""
    spec = bench.files.agent(agent)
    known = [clean.outputs[agent] for clean in bench.all_clean() if agent in clean.outputs]
    if not known:
        return []
    before = [known[at % len(known)] for at in range(RUNS)]
    return told_apart(agent, before, [drift.bend(one, spec) for one in before], spec.output_schema)
