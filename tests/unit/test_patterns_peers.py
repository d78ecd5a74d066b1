"""Peers: two never hold one sub-problem, what is abandoned comes back, late results are refused, the end is found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate

from tightship.core import kinds
from tightship.patterns import Peers, load_all
from tightship.runtime.simulation import Simulation

load_all()

BOARD = {"input": {"case": "str?", "items": "list"}}


def add(desk: Desk, name: str, function: Any, **more: Any) -> None:
    given = {"open": "list", "mine": "list", "inbox": "list", "done": "list", "peers": "list"}
    desk.agent(name, function, tools=[], input=given, **more)


def keys(listed: list[Any]) -> list[str]:
    return [one["key"] for one in listed]


def diligent(seconds: float = 1.0, most: int = 1) -> Any:
    """A peer that claims what is open and does what it has."""

    async def peer(ctx: Any, given: dict[str, Any]) -> Any:
        await asyncio.sleep(seconds)
        return {
            "results": [{"key": key, "value": key.upper()} for key in keys(given["mine"])],
            "claim": keys(given["open"])[:most],
        }

    return peer


def step(*agents: str, **fields: Any) -> Peers:
    return Peers(**{"agents": list(agents), "board": "input.items", "name": "shared", **fields})


async def run(desk: Desk, *items: str, **more: Any) -> Any:
    return await desk.process.start(desk.ws.run("flow", {"items": list(items)}, **more))


def notes(run: Any, type: str) -> list[Any]:
    return [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == type]


def test_all_is_done_once_and_shared_out() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", diligent())
        add(desk, "b", diligent())
        desk.workflow(step("a", "b"), **BOARD)
        found = await run(desk, *"uvwxyz")
        assert found.outcome == "completed", found
        assert sorted((one["key"], one["value"]) for one in found.output["results"]) == [(k, k.upper()) for k in "uvwxyz"]
        assert {one["by"] for one in found.output["results"]} == {"a", "b"}
        assert found.output["open"] == found.output["elsewhere"] == []

    simulate(story)
