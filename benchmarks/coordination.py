"""What coordination costs by pattern, Tightship's side: runs/s of five agent turns that do nothing but answer.

manager: one plans, three work side by side, one puts together. handoff: the work passes through five agents, each with
a brief that is checked. fan_out: five side by side. vote: five side by side, and a majority is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from benchmarks import ours, workload
from benchmarks.harness import Job, Load, Outcome
from tightship import Agent, Workflow, Workspace

PLANNER, *WORKERS, WRITER = workload.TEAM
WORK = {"number": "int", "text": "str"}


async def _plan(ctx: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of three tasks."""
    return {"tasks": [{"id": name, "worker": name, "goal": f"do {name}", "input": {"step": 1}} for name in WORKERS]}


def _passing(name: str) -> Any:
    """An agent of the chain: it passes the work on with what it has found; the last one finishes."""
    place = workload.TEAM.index(name) + 1
    target = workload.TEAM[place] if place < len(workload.TEAM) else ""

    async def agent(ctx: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        found = workload.answer()
        return {**found, "handoff": {"to": target, "brief": found}} if target else found

    return agent


async def _approve(ctx: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    return {**workload.answer(), "ok": True}


def _add(ws: Workspace, name: str, function: Any, output: Mapping[str, Any], **takes: str) -> None:
    spec = Agent(name, owner="bench", purpose=f"do {name}", python=f"bench:{name}", input=takes, output=output)
    ws.add(spec, functions={name: function})


def _manager(ws: Workspace) -> dict[str, Any]:
    _add(ws, PLANNER, _plan, {"tasks": "list"}, items="list")
    for name in WORKERS:
        _add(ws, name, ours.answer, WORK, task="object")
    _add(ws, WRITER, ours.answer, WORK, results="list")
    workers = {name: {"do": name, "input": {"step": "int"}} for name in WORKERS}
    return {"manager": {"plan": PLANNER, "workers": workers, "synthesise": WRITER, "within": "10m"}}


def _handoff(ws: Workspace) -> dict[str, Any]:
    for name in workload.TEAM:
        _add(ws, name, _passing(name), {**WORK, "handoff?": {"to": "str", "brief": WORK}}, brief="object")
    chain = dict(zip(workload.TEAM, [[name] for name in workload.TEAM[1:]] + [[]], strict=True))
    return {"handoff": {"first": workload.TEAM[0], "peers": chain, "brief": WORK}}


def _fan_out(ws: Workspace) -> dict[str, Any]:
    for name in workload.TEAM:
        _add(ws, name, ours.answer, WORK)
    return {"concurrent": list(workload.TEAM)}


def _vote(ws: Workspace) -> dict[str, Any]:
    for name in workload.TEAM:
        _add(ws, name, _approve, {**WORK, "ok": "bool"})
    return {"vote": {"voters": list(workload.TEAM), "compare": "answer.ok", "settle": "majority", "within": "10m"}}


PATTERNS = {"manager": _manager, "handoff": _handoff, "fan_out": _fan_out, "vote": _vote}


def coordination(job: Job) -> Outcome:
    """Runs/s of each pattern, 32 at once."""
    return Outcome({f"runs_per_s_{name}": asyncio.run(_measure(job, name)) for name in PATTERNS})


async def _measure(job: Job, name: str) -> float:
    load = Load(job.size)
    async with Workspace.open(ours.prepare(job.folder(name))) as ws:
        step = PATTERNS[name](ws)
        budget = {"usd": 10.0, "seconds": 600, "then": "escalate"}
        given = {"run": "str"}
        ws.add(Workflow(name, owner="bench", purpose="coordinate", input=given, budget=budget, steps=[step]))
        await load.drive(lambda run: ours.completed(ws, name, run))
    return load.runs_per_s
