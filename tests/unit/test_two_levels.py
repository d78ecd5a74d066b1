"""Two levels (P4): supervisors with agents, budgets and escalations of their own under one orchestrator, at size."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool

from tightship.core.errors import Unavailable
from tightship.patterns import Manager, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()

PER_DOMAIN = 10
"""Agents of a domain: its planner, its writer, and workers."""


def tasks(count: int, worker: str = "look", **input: Any) -> dict[str, Any]:
    return {
        "tasks": [
            {"id": f"t{number}", "worker": worker, "goal": f"part {number}", "input": {"part": number, **input}}
            for number in range(count)
        ]
    }


class House:
    """An orchestrator over domains, each a manager with agents of its own; every agent reads once.

    Args:
        agents: how many there are in all domains together.
        broken: domains whose workers fail.
    """

    def __init__(self, sim: Simulation, agents: int, broken: tuple[int, ...] = ()) -> None:
        self.turns = Counter[str]()
        self.broken = broken
        self.desk = Desk(sim, [tool("archive.read", {"found": True})], config="limits: {branches: 64}\n")
        self.domains = agents // PER_DOMAIN
        workers = {}
        for number in range(self.domains):
            self._domain(number)
            workers[f"domain{number}"] = {
                "do": WorkflowStep(f"domain-{number}", with_={"case": "task.goal"}),
                "input": {"part": "int"},
            }
        self.desk.agent("split", self._split, input={"items": "list", "failed": "list"})
        self.desk.workflow(
            Manager(
                plan="split", workers=workers, cover="input.domains", max_tasks=64, concurrency=64,
                on_failure="keep", within="1h",
            ),
            input={"case": "str?", "domains": "list[str]"},
        )  # fmt: skip

    def _domain(self, number: int) -> None:
        names = [f"d{number}-w{index}".replace("-", "_") for index in range(PER_DOMAIN - 1)]

        async def plan(ctx: Any, given: dict[str, Any]) -> Any:
            return {
                "tasks": [{"id": name, "worker": name, "goal": f"do {name}"} for name in names],
            }

        self.desk.agent(f"d{number}_plan", plan, input={"items": "list"})
        for name in names:
            self.desk.agent(name, self._worker(number, name), input={"task": "object"})
        self.desk.workflow(
            Manager(plan=f"d{number}_plan", workers={name: name for name in names}, replans=0, within="30m"),
            name=f"domain-{number}",
            budget={"usd": 1.0, "calls": 100, "then": "escalate"},
        )

    async def _split(self, ctx: Any, given: dict[str, Any]) -> Any:
        return {
            "tasks": [
                {"id": item, "worker": item, "goal": item, "covers": [item], "input": {"part": number}}
                for number, item in enumerate(given["items"])
            ]
        }

    def _worker(self, domain: int, name: str) -> Any:
        async def work(ctx: Any, given: dict[str, Any]) -> Any:
            self.turns[name] += 1
            await ctx.tool("archive.read", {"name": name})
            await asyncio.sleep(0.01 * (1 + len(self.turns) % 7))
            if domain in self.broken and name.endswith("w3"):
                raise Unavailable("the archive is closed")
            return {"made": name}

        return work

    def given(self) -> dict[str, Any]:
        return {"case": "one", "domains": [f"domain{number}" for number in range(self.domains)]}

    async def run(self) -> Any:
        return await self.desk.process.start(self.desk.ws.run("flow", self.given()))
