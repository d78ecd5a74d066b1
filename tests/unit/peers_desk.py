"""Peers of the tests: how they are declared, run to their end, and what the run noted of them."""

from __future__ import annotations

import asyncio
from typing import Any

from engine_desk import Desk

from tightship.core import kinds
from tightship.patterns import Peers, load_all

load_all()

BOARD: dict[str, Any] = {"input": {"case": "str?", "items": "list"}}


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
    made: dict[str, Any] = {"agents": list(agents), "board": "input.items", "name": "shared", **fields}
    return Peers(**made)


async def run(desk: Desk, *items: str, **more: Any) -> Any:
    """To its end, also when it parks to wait for other runs."""
    found = await desk.process.start(desk.ws.run("flow", {"items": list(items)}, **more))
    while found.state == "parked":
        await asyncio.sleep(5)
        await desk.process.start(desk.ws.resume([found.id]))
        found = await desk.ws.result(found.id)
    return found


def notes(run: Any, type: str) -> list[Any]:
    return [entry for entry in run.entries if entry.kind == kinds.NOTE and entry.body["type"] == type]
