"""Managers of the tests: planners that give what is written down, workers, and what the run noted of them."""

from __future__ import annotations

from typing import Any

from engine_desk import Desk

from tightship.core import kinds
from tightship.patterns import load_all

load_all()


def task(id: str, *needs: str, worker: str = "look", covers: tuple[str, ...] = (), **input: Any) -> dict[str, Any]:
    return {
        "id": id,
        "worker": worker,
        "goal": f"do {id}",
        "needs": list(needs),
        "covers": list(covers),
        "input": input,
    }


def planner(*plans: Any) -> Any:
    """A planner that gives these plans, one per turn; `seen` is what it was told."""
    left, seen = list(plans), list[Any]()

    async def plan(ctx: Any, given: dict[str, Any]) -> Any:
        seen.append((list(ctx.feedback), given.get("done"), given.get("failed")))
        found = left.pop(0) if len(left) > 1 else left[0]
        return {"tasks": found}

    plan.seen = seen  # type: ignore[attr-defined]
    return plan


def add(desk: Desk, name: str, function: Any, **input: str) -> None:
    desk.agent(name, function, tools=[], input=input)


def plans(desk: Desk, function: Any) -> None:
    add(desk, "plan", function, team="object", items="list", done="list", failed="list")


async def summed(ctx: Any, given: dict[str, Any]) -> Any:
    """A worker whose result is the names of all it was built on."""
    known = {name for one in given["inputs"].values() for name in one["made"]}
    return {"made": sorted(known | {given["task"]["id"]})}


def looks(desk: Desk, function: Any = summed) -> None:
    add(desk, "look", function, task="object", inputs="object")


def notes(run: Any, type: str) -> list[Any]:
    return [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == type]
