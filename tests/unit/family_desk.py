"""A parent that one process drives and its child that another one does, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from engine_desk import Desk

from tightship.ledger import Ledger
from tightship.review.inbox import Decision
from tightship.runtime.workspace import Workspace, projections

ASKS: dict[str, Any] = {"review": {"when": "true", "by": "operator"}}
"""A step at which a run parks: from then on any process may drive it."""


class Beside:
    """Another process on a desk's ledger."""

    def __init__(self, desk: Desk) -> None:
        self.process = desk.sim.loop.process("beside")
        world = desk.sim.world()
        self.ws = Workspace.open(
            desk.folder, world=world, ledger=Ledger.in_memory(world, projections(), desk.state), tools=desk.tools
        )
        self.ws.add(*desk._specs, functions=desk._functions)

    async def answer(self, value: Any = None) -> str:
        """Answer what the child has asked; the child."""
        operator = await self.process.start(self.ws.operator())
        [item] = await self.process.start(operator.items())
        await self.process.start(operator.decide(item.item, Decision("approve", "ann", value)))
        return item.run

    def resume(self, run: str) -> asyncio.Task[Any]:
        """Drive a run here."""
        return self.process.start(self.ws.resume([run]))


class Line:
    """Where agents wait for each other."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def wait(self) -> None:
        self.waiting += 1
        await self.open.wait()


async def until(look: Any) -> None:
    """Wait for what will come."""
    for _ in range(600):
        if await look():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it has not come")


class Family:
    """A parent that one process drives, and its child that another one does; both wait at the same line."""

    def __init__(self, desk: Desk, line: Line, agents: int = 2) -> None:
        self.desk, self.line, self.agents = desk, line, agents

    async def part(self, more: Mapping[str, Any] | None = None) -> None:
        """Until the child is in other hands."""
        self.begun = self.desk.process.start(self.desk.ws.run("flow", dict(more or {})))
        await until(self._asked)
        self.beside = Beside(self.desk)
        self.child = await self.beside.answer()
        self.driven = self.beside.resume(self.child)
        await self.wait(self.agents)
        rows = await self.desk.ledger.select("runs", [("state", "=", "running")])
        assert len({row["owner"] for row in rows}) == 2, "two processes drive the two runs"

    async def end(self) -> Any:
        """Let both go, to the end; the parent."""
        self.line.open.set()
        await self.driven
        await self.begun
        run = await self.desk.only()
        while run.state != "ended":
            await self.desk.process.start(self.desk.ws.resume([run.id]))
            run = await self.desk.only()
        return run

    async def _asked(self) -> bool:
        rows = await self.desk.ledger.select("runs", [("state", "=", "parked")])
        return any(row["parent"] for row in rows)

    async def wait(self, agents: int) -> None:
        """Until so many agents have come to the line."""

        async def come() -> bool:
            return self.line.waiting >= agents

        await until(come)
