"""Drills on agents that leave their role: invented parameters, other shapes, drift (F7, F10, F14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.core.ports import Json
from tightship.quality.drills.judge import (
    asked_a_person,
    canonical,
    judge_safe,
    last,
    named,
    settled,
    strange,
    told,
)
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.scene import Actor, Scene, act, play
from tightship.workflow.models import AgentSpec

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Clean

INVENTED: Final = "invented_parameter"
GARBAGE: Final = "This is no output but a sentence, as a model writes one that was told to answer in JSON."


def only(agent: str, make: Actor) -> Actor:
    """Replace one agent, and leave the others as they are."""
    return lambda spec, function: make(spec, function) if spec.agent == agent else function


def with_tools(bench: Bench) -> dict[str, list[str]]:
    """The agents that took turns in the chosen cases, with their tools."""
    acted = {name for clean in bench.lively() for name in clean.agents}
    return {spec.agent: list(spec.tools) for spec in bench.agents() if spec.tools and spec.agent in acted}


@drill(
    "invented-parameters",
    broken="an agent calls each of its tools with an argument that the contract does not know, and with wrong types",
    fix="declare the tool's arguments (`input_schema` with types and additionalProperties: false)",
    applies=lambda bench: "" if with_tools(bench) else "no agent calls a tool",
)
def invented_parameters(bench: Bench, report: Report) -> None:
    """What an agent has invented is refused at the door, and recorded."""
    for agent, tools in with_tools(bench).items():
        clean = next(one for one in bench.lively() if agent in one.agents)

        def actor(spec: AgentSpec, function: AgentFunction, tools: list[str] = tools) -> AgentFunction:
            async def inventive(ctx: AgentContext, given: dict[str, Json]) -> Json:
                for name in tools:
                    known = ctx.turn.session.tools[name].spec.input_schema.get("properties", {})
                    for args in ({INVENTED: "made up"}, {one: {INVENTED: [1, 2]} for one in known}):
                        try:
                            await ctx.tool(name, args)
                        except TightshipError:
                            continue
                return await act(function, ctx, given)

            return inventive

        async def story(scene: Scene, clean: Clean = clean, agent: str = agent, tools: list[str] = tools) -> None:
            await scene.prepare(clean.case)
            run = await scene.run(clean.case)
            reached = sorted({one.name for one in scene.outside.asked if INVENTED in canonical(one.args)})
            refused = [e for e in run.entries if e.kind == kinds.SETTLED and _is_invalid(e.body)]
            report.hold(
                not reached,
                f"{agent}: {len(tools)} tools refused invented arguments",
                f"{agent}: an invented argument reached {', '.join(reached)}",
                refused or [e for e in run.entries if e.kind == kinds.SETTLED and e.body["name"] in reached],
            )
            await judge_safe(report, scene, run, clean, agent)

        play(bench, story, actor=only(agent, actor))


def _is_invalid(body: Mapping[str, Any]) -> bool:
    return body.get("error", {}).get("error") == "InvalidArguments"


@drill(
    "wrong-shape",
    broken="each agent in turn answers with a sentence, with a field missing, and with a wrong type",
    fix="declare the agent's `output:` with its fields and types",
)
def wrong_shape(bench: Bench, report: Report) -> None:
    """An output of another shape than declared goes nowhere."""
    clean = bench.lively(1)[0]
    for agent in clean.agents:
        for what in ("a sentence", "a field less", "a wrong type"):

            def actor(spec: AgentSpec, function: AgentFunction, what: str = what) -> AgentFunction:
                async def shapeless(ctx: AgentContext, given: dict[str, Json]) -> Json:
                    return _bent(await act(function, ctx, given), what, spec)

                return shapeless

            async def story(scene: Scene, agent: str = agent, what: str = what) -> None:
                await scene.prepare(clean.case)
                run = await scene.run(clean.case)
                taken = [e for e in run.entries if e.kind == kinds.TURN and e.body["agent"] == agent]
                report.hold(
                    not any("out" in e.body for e in taken),
                    f"{agent}: {what} was refused",
                    f"{agent}: {what} was taken as its output",
                    taken,
                )
                await judge_safe(report, scene, run, clean, f"{agent}, {what}")

            play(bench, story, actor=only(agent, actor))


def _bent(output: Json, what: str, spec: AgentSpec) -> Json:
    """An output that has lost its shape: at the first field at which its declaration says so, where there is one."""
    if what == "a sentence" or not isinstance(output, Mapping) or not output:
        return GARBAGE
    drafts: list[dict[str, Json]] = []
    for name in output:
        if what == "a field less":
            drafts.append({other: value for other, value in output.items() if other != name})
        else:
            drafts.append({**output, name: {"of": "another type", "was": [output[name]]}})
    if spec.output_schema is None:
        return drafts[0]
    fits = jsonschema_rs.validator_for(dict(spec.output_schema)).is_valid
    return next((draft for draft in drafts if not fits(draft)), GARBAGE)


# --- drift --------------------------------------------------------------------------------------------


def deciding(bench: Bench) -> list[str]:
    """The agents whose outputs stand in the arguments of actions, and acted in the chosen cases."""
    names: set[str] = set()
    for step in bench.steps("action"):
        names |= step.with_.names if step.with_ is not None else {spec.agent for spec in bench.agents()}
    acted = {name for clean in bench.acting() for name in clean.agents}
    return [spec.agent for spec in bench.agents() if spec.agent in names & acted]


def _decides_nothing(bench: Bench) -> str:
    return "" if deciding(bench) else "no action takes its arguments from an agent"


@drill(
    "drifted-agent",
    broken="an agent whose output becomes an action gives larger figures, turned decisions, and one answer for all",
    fix="check it before the action: a checkpoint on its figures, another agent as its checker, or a review",
    applies=_decides_nothing,
)
def drifted_agent(bench: Bench, report: Report) -> None:
    """Outputs of the right shape and of another distribution are noticed by the workflow's own checks.

    Judged are the agents whose outputs become actions, by what stands between them and the action. That an agent
    further up has changed, only a comparison of many runs can show.
    """
    for agent in deciding(bench):
        clean = next(one for one in bench.acting() if agent in one.agents)
        other = next((one for one in bench.acting() if agent in one.agents and one is not clean), None)
        kinds_ = ["larger figures", "turned decisions", *(["the answer to another case"] if other else [])]
        for what in kinds_:
            swapped = other.outputs.get(agent) if other is not None and what.startswith("the answer") else None

            def actor(
                spec: AgentSpec, function: AgentFunction, what: str = what, swapped: Json = swapped
            ) -> AgentFunction:
                async def drifted(ctx: AgentContext, given: dict[str, Json]) -> Json:
                    output = await act(function, ctx, given)
                    return _drifted(output, what) if swapped is None else swapped

                return drifted

            async def story(scene: Scene, clean: Clean = clean, agent: str = agent, what: str = what) -> None:
                await scene.prepare(clean.case)
                run = await scene.run(clean.case)
                extra = await strange(scene, run, clean.writes)
                report.hold(
                    not extra or asked_a_person(run),
                    f"{agent}, {what}: {told(run)}{', a person had looked' if extra else ''}",
                    f"{agent}, {what}: nobody noticed, and it did {named(extra)}",
                    settled(run) if extra else last(run),
                )

            play(bench, story, actor=only(agent, actor))


def _drifted(value: Any, what: str) -> Any:
    if isinstance(value, bool):
        return not value if what == "turned decisions" else value
    if isinstance(value, int | float):
        return value * 3 + 1 if what == "larger figures" else value
    if isinstance(value, Mapping):
        return {name: _drifted(one, what) for name, one in value.items()}
    return [_drifted(one, what) for one in value] if isinstance(value, list) else value
