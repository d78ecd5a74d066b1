"""Drills on work that goes in circles: ping-pong between agents, a turn that never ends, calls without end (F1)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.core import kinds
from tightship.core.errors import DataMissing, LimitReached, TightshipError
from tightship.core.ports import Json, Reply, Request
from tightship.models.rehearsal import rehearsed
from tightship.quality.drills.judge import judge_safe, last, told
from tightship.quality.drills.near_rounds import REWORDED, plan_anew, talk_anew, wording
from tightship.quality.drills.outside import Ask, Tap
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.roles import only
from tightship.quality.drills.scene import Scene, act, play
from tightship.quality.drills.systems import PATIENCE
from tightship.workflow.models import AgentSpec
from tightship.workflow.types import object_schema

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Clean
    from tightship.runtime.result import Run

TURNS = 24
"""Turns, beyond those of the undisturbed run, after which agents that go back and forth should have been stopped."""
CALLS = 250
"""Calls after which a turn that asks on and on should have been stopped."""
WORDINGS = 40
"""In how many wordings the same is asked."""


def _circles(bench: Bench) -> str:
    if bench.steps("handoff") or bench.steps("maker_checker"):
        return ""
    return "no agents hand work to each other, and none checks another"


@drill(
    "ping-pong",
    broken="agents that hand over hand back and forth, and a checker objects to everything",
    fix="lower `rounds` of maker_checker or `max` of handoff, and `limits.handoffs`",
    applies=_circles,
)
def ping_pong(bench: Bench, report: Report) -> None:
    """Two agents that never agree are stopped soon, and a person gets the case."""
    for step in bench.steps("maker_checker"):
        names = set(step.checker.agents())
        clean = next((one for one in bench.lively() if names & set(one.agents)), None)
        if clean is not None:
            _circle(bench, report, clean, lambda spec, f, names=names: _objects(f) if spec.agent in names else f)
    for step in bench.steps("handoff"):
        peers: Mapping[str, tuple[str, ...]] = step.peers
        clean = bench.lively(1)[0]
        _circle(
            bench,
            report,
            clean,
            lambda spec, f, s=step, p=peers: _hands_on(spec, s, p) if p.get(spec.agent) else f,
        )


def _circle(bench: Bench, report: Report, clean: Clean, actor: Any) -> None:
    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        turns = [entry for entry in run.entries if entry.kind == kinds.TURN]
        more = len(turns) - clean.turns
        report.hold(
            more <= TURNS,
            f"stopped after {more} turns more than undisturbed ({told(run)})",
            f"{more} turns more than undisturbed were taken before it was {told(run)}; {TURNS} are enough",
            [*turns[-1:], *last(run)],
        )
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}")

    play(bench, story, actor=actor)


def _objects(function: AgentFunction) -> AgentFunction:
    """A checker that always finds something new."""
    count = itertools.count(1)

    async def checker(ctx: AgentContext, given: dict[str, Json]) -> Json:
        verdict = await act(function, ctx, given)
        if not isinstance(verdict, Mapping):
            return verdict
        bent = {name: False if value is True else value for name, value in verdict.items()}
        return {**bent, "objections": [f"objection {next(count)}: this is still not right"]}

    return checker


def _hands_on(spec: AgentSpec, step: Any, peers: Mapping[str, tuple[str, ...]]) -> AgentFunction:
    """An agent that hands the work on whatever comes; what has to be kept is kept, and the rest is always new."""
    count = itertools.count(1)
    schema = object_schema(step.brief)

    async def agent(ctx: AgentContext, given: dict[str, Json]) -> Json:
        number = next(count)
        brief = rehearsed(schema, f"{spec.agent} {number}")
        brief |= {name: value for name, value in rehearsed(schema, "kept").items() if name in step.keep}
        base = rehearsed(spec.output_schema, spec.agent) if spec.output_schema is not None else {}
        return {**base, "handoff": {"to": peers[spec.agent][0], "brief": brief}}

    return agent


@drill(
    "endless-loop",
    broken="each agent in turn never comes back, and calls its tools without end, never twice the same",
    fix="give the agent `within:`, and bound it by `budget: {calls: 20}`, `limits.calls` or `limits.turns`",
)
def endless_loop(bench: Bench, report: Report) -> None:
    """A turn without end is ended, and so are calls without end."""
    for agent, clean in bench.by_agent():
        spec = bench.files.agent(agent)
        _endless(bench, report, clean, agent, ())
        if spec.tools:
            _endless(bench, report, clean, agent, spec.tools)


def _endless(bench: Bench, report: Report, clean: Clean, agent: str, tools: tuple[str, ...]) -> None:
    made = [0]

    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        async def endless(ctx: AgentContext, given: dict[str, Json]) -> Json:
            if not tools:
                await asyncio.get_running_loop().create_future()  # nobody will ever set it
            for number in range(CALLS + 10):
                made[0] = number + 1
                name = tools[number % len(tools)]
                try:
                    await ctx.tool(name, _arguments(ctx, name, number))
                except LimitReached:
                    raise
                except TightshipError:
                    continue
            return await act(function, ctx, given)

        return endless

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        began = scene.world.clock.now()
        run = await scene.run_for(clean.case, 2 * PATIENCE)
        took = scene.world.clock.now() - began
        _judge_end(report, run, agent, made[0], took, bool(tools))
        await judge_safe(report, scene, run, clean, f"{agent}, {'calls' if tools else 'a turn'} without end")

    play(bench, story, actor=only(agent, actor))


@drill(
    "near-repeat",
    broken="agents ask tools that find nothing for the same in ever other words; so do checkers object, managers plan "
    "what fails, and peers talk",
    fix="lower `limits.similar`, `rounds` of maker_checker, `replans` of manager, or `messages` of peers",
)
def near_repeat(bench: Bench, report: Report) -> None:
    """Whoever says the same over and over in other words is stopped soon, and a person gets the case."""
    for agent, clean in bench.by_agent():
        for tool in bench.files.agent(agent).tools:
            _rewords(bench, report, clean, agent, tool)
    for step in bench.steps("maker_checker"):
        names = set(step.checker.agents())
        clean = next((one for one in bench.lively() if names & set(one.agents)), None)
        if clean is not None:
            _objects_anew(bench, report, clean, names)
    plan_anew(bench, report)
    talk_anew(bench, report)
    if not report.held and not report.problems:
        report.skip("no tool that an agent calls takes a text, and no agent checks, plans or tells another one")


def _rewords(bench: Bench, report: Report, clean: Clean, agent: str, tool: str) -> None:
    said: list[Mapping[str, Json]] = []

    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        async def rewords(ctx: AgentContext, given: dict[str, Json]) -> Json:
            for number in range(WORDINGS):
                args = _said_as(ctx, tool, wording(number))
                if args is None:
                    break
                said.append(args)
                try:
                    await ctx.tool(tool, args)
                except LimitReached:
                    raise
                except TightshipError:
                    continue
            return await act(function, ctx, given)

        return rewords

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        if said:
            report.hold(
                len(said) <= REWORDED,
                f"{agent} was stopped after it had asked {tool} in {len(said)} wordings ({told(run)})",
                f"{agent} asked {tool} for the same in {len(said)} wordings before it was {told(run)}; "
                f"{REWORDED} are enough",
                last(run),
            )
            await judge_safe(report, scene, run, clean, f"{agent} asks {tool} in other words")

    async def finds_nothing(tap: Tap, request: Request, ask: Ask) -> Reply:
        if tap.spec.name == tool and request.agent == agent and request.args in said:
            raise DataMissing(f"{tool} has found nothing")
        return await ask()

    play(bench, story, actor=only(agent, actor), trouble=finds_nothing)


def _said_as(ctx: AgentContext, tool: str, wording: str) -> dict[str, Json] | None:
    """Arguments that fit the tool's contract, with this wording where it takes a text; None where it takes none."""
    spec = ctx.turn.session.tools[tool].spec
    try:
        value = rehearsed(spec.input_schema, "the same")
    except TightshipError:
        return None
    if not isinstance(value, dict):
        return None
    validator = jsonschema_rs.validator_for(dict(spec.input_schema))
    texts = [
        name for name, one in value.items() if isinstance(one, str) and validator.is_valid({**value, name: wording})
    ]
    return {**value, texts[0]: wording} if texts else None


def _objects_anew(bench: Bench, report: Report, clean: Clean, names: set[str]) -> None:
    """A checker that never agrees, and says so in other words each time."""

    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        count = itertools.count()

        async def checker(ctx: AgentContext, given: dict[str, Json]) -> Json:
            verdict = await act(function, ctx, given)
            if not isinstance(verdict, Mapping):
                return verdict
            bent = {name: False if value is True else value for name, value in verdict.items()}
            return {**bent, "objections": [wording(next(count))]}

        return checker if spec.agent in names else function

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        taken = [entry for entry in run.entries if entry.kind == kinds.TURN and entry.body["agent"] in names]
        report.hold(
            len(taken) <= REWORDED,
            f"stopped after {len(taken)} checks ({told(run)})",
            f"the same objection came in {len(taken)} wordings before it was {told(run)}; {REWORDED} are enough",
            [*taken[-1:], *last(run)],
        )
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}, objections in other words")

    play(bench, story, actor=actor)


def _judge_end(report: Report, run: Run, agent: str, calls: int, took: float, asks: bool) -> None:
    if asks:
        report.hold(
            calls <= CALLS,
            f"{agent} was stopped after {calls} calls ({told(run)})",
            f"{agent} made {calls} calls in one turn, and nothing stopped it",
            last(run),
        )
    else:
        report.hold(
            run.state == "ended" and took <= PATIENCE,
            f"{agent} was given up after {took:.0f} s ({told(run)})",
            f"{agent} did not come back; after {took:.0f} s the run was {told(run)}",
            last(run) or run.entries[-1:],
        )


def _arguments(ctx: AgentContext, tool: str, number: int) -> dict[str, Json]:
    """Arguments that fit the tool's contract, others each time."""
    spec = ctx.turn.session.tools[tool].spec
    try:
        value = rehearsed(spec.input_schema, f"call {number}")
    except TightshipError:
        return {}
    if not isinstance(value, dict):
        return {}
    told = {name: f"{one}-{number}" if isinstance(one, str) else one for name, one in value.items()}
    return told if jsonschema_rs.validator_for(dict(spec.input_schema)).is_valid(told) else value
