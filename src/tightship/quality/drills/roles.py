"""Drills on agents that leave their role: invented parameters, other shapes (F7, F10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.core.ports import Json
from tightship.quality.drills.judge import canonical, judge_safe
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
