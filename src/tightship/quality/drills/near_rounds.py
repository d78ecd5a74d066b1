"""Rounds in which nearly the same is planned or said again: managers and peers of the drill `near-repeat` (F1)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from tightship.agents.context import AgentContext
from tightship.agents.turn import AgentFunction
from tightship.controls.limits import PEER_TURN
from tightship.core import kinds
from tightship.core.errors import DataMissing
from tightship.core.ports import Json
from tightship.quality.drills.judge import judge_safe, last, told
from tightship.quality.drills.registry import Report
from tightship.quality.drills.scene import Scene, act, play
from tightship.workflow.models import AgentSpec
from tightship.workflow.tree import Step

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Clean

REWORDED: Final = 12
"""Wordings of the same after which whoever says it should have been stopped."""
PLANS: Final = 6
"""Plans of the same after which whoever makes them should have been stopped."""
_FILLERS: Final = ("again", "exactly", "finally", "kindly", "now", "once", "quickly", "really", "simply", "still")
_DOES: Final = ("claim", "results", "release", "messages")
"""What of a peer's output changes something."""


def wording(number: int) -> str:
    """The same request in the wording of this number, below 45."""
    pairs = list(itertools.combinations(_FILLERS, 2))
    first, second = pairs[number % len(pairs)]
    return f"{first} tell me all details that anybody knows about how this open case of our customer stands {second}"


# --- managers ----------------------------------------------------------------------------------------


def plan_anew(bench: Bench, report: Report) -> None:
    """Workers that get nothing done, and a planner that plans the same for them in other words."""
    for step in bench.steps("manager"):
        planners = set(step.plan.agents())
        workers = {name for one in step.workers.values() for name in _agents(bench, one.do)} - planners
        clean = next((one for one in bench.lively() if planners & set(one.agents)), None)
        if clean is not None and workers:
            _manage(bench, report, clean, planners, workers)


def _agents(bench: Bench, step: Step) -> Iterator[str]:
    """Who takes turns in a step, and in the workflows that it starts."""
    workflows = bench.files.workflows
    yield from step.agents()
    for one in step.walk():
        for name in one.workflows():
            yield from workflows[name].agents() if name in workflows else ()


def _manage(bench: Bench, report: Report, clean: Clean, planners: set[str], workers: set[str]) -> None:
    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        if spec.agent in planners:
            return _plans_anew(function)
        return _gets_nothing_done if spec.agent in workers else function

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        plans = [entry for entry in run.entries if entry.kind == kinds.TURN and entry.body["agent"] in planners]
        report.hold(
            len(plans) <= PLANS,
            f"stopped after {len(plans)} plans ({told(run)})",
            f"the same was planned in {len(plans)} wordings before it was {told(run)}; {PLANS} are enough",
            [*plans[-1:], *last(run)],
        )
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}, plans in other words")

    play(bench, story, actor=actor)


async def _gets_nothing_done(ctx: AgentContext, given: dict[str, Json]) -> Json:
    raise DataMissing("nothing of it was to be found")


def _plans_anew(function: AgentFunction) -> AgentFunction:
    """A planner that plans what it has planned at first, with other ids and in other words."""
    first, count = list[Mapping[str, Any]](), itertools.count()

    async def planner(ctx: AgentContext, given: dict[str, Json]) -> Json:
        plan = first[0] if first else await act(function, ctx, given)
        if not isinstance(plan, Mapping) or not plan.get("tasks"):
            return plan
        first[:] = [plan]
        number = next(count)
        tasks = [
            {
                **task,
                "id": f"{task['id']}-{number}",
                "goal": f"{task['goal']}: {wording(number)}",
                "needs": [f"{need}-{number}" for need in task.get("needs") or ()],
            }
            for task in plan["tasks"]
        ]
        return {**plan, "tasks": tasks}

    return planner


# --- peers -------------------------------------------------------------------------------------------


def talk_anew(bench: Bench, report: Report) -> None:
    """Peers that do nothing but tell each other the same in other words."""
    for step in bench.steps("peers"):
        parts = [one.part for one in step.agents_]
        following = dict(zip(parts, [*parts[1:], *parts[:1]], strict=True))
        seats = [(next(iter(one.agents())), following[one.part]) for one in step.agents_ if one.pattern == "agent"]
        peers = {name: other for name, other in seats if _may_talk(bench.files.agent(name))}
        clean = next((one for one in bench.lively() if set(peers) & set(one.agents)), None)
        if clean is not None and len(peers) > 1:
            _talk(bench, report, clean, peers)


def _may_talk(spec: AgentSpec) -> bool:
    return spec.output_schema is None or "messages" in spec.output_schema.get("properties", {})


def _talk(bench: Bench, report: Report, clean: Clean, peers: Mapping[str, str]) -> None:
    def actor(spec: AgentSpec, function: AgentFunction) -> AgentFunction:
        return _talks(function, peers[spec.agent]) if spec.agent in peers else function

    async def story(scene: Scene) -> None:
        await scene.prepare(clean.case)
        run = await scene.run(clean.case)
        turns = [one for one in run.entries if one.kind == kinds.NOTE and one.body["type"] == PEER_TURN]
        sent = Counter[str]()
        for one in turns:
            sent[str(one.body["source"])] += int(one.body["messages"])
        if sent.total():
            most = max(sent.values())
            report.hold(
                most <= REWORDED,
                f"stopped after {most} messages of a peer ({told(run)})",
                f"a peer said the same in {most} wordings before it was {told(run)}; {REWORDED} are enough",
                [*turns[-1:], *last(run)],
            )
        await judge_safe(report, scene, run, clean, f"case {clean.case.number}, messages in other words")

    play(bench, story, actor=actor)


def _talks(function: AgentFunction, other: str) -> AgentFunction:
    count = itertools.count()

    async def peer(ctx: AgentContext, given: dict[str, Json]) -> Json:
        said = await act(function, ctx, given)
        if not isinstance(said, Mapping):
            return said
        idle: dict[str, Json] = {name: [] if name in _DOES else value for name, value in said.items()}
        return {**idle, "messages": [{"to": other, "kind": "tell", "text": wording(next(count))}]}

    return peer
