"""A request whose runs two workers of one Postgres store drive: its handoffs and its money are counted exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import postgres_desk
from tightship import Agent, Workflow, Workspace
from tightship.connectors.testing import ScriptedTool
from tightship.core import kinds
from tightship.core.money import to_nano
from tightship.core.ports import Reply, ToolSpec, Usage
from tightship.patterns import Concurrent, WorkflowStep, load_all
from tightship.review.inbox import Decision
from tightship.workflow.tree import patterns

load_all()
BY: dict[str, Any] = {"owner": "desk"}


class Worker:
    """One of two workspaces on the store. The agents of both wait at the same line."""

    def __init__(self, folder: Path, line: asyncio.Event, waits: Callable[[], None]) -> None:
        self.ws = Workspace.open(folder)
        self.line, self.waits = line, waits
        above, below = self.chain("above"), self.chain("below")
        asks: Any = {"review": {"when": "true", "by": "lead"}}
        inner = Workflow("inner", purpose="goes on elsewhere", steps=[asks, below], limits={"handoffs": 90}, **BY)
        both = Concurrent(above, WorkflowStep("inner", with_={}))
        self.ws.add(inner, Workflow("flow", purpose="is a request", steps=[both], limits={"handoffs": 3}, **BY))

    def chain(self, name: str) -> Any:
        """Three agents that pass the work on twice."""
        names = [f"{name}{number}" for number in range(3)]
        for at, one in enumerate(names):
            spec = Agent(one, purpose="passes on", python=f"desk:{one}", input={}, output={}, **BY)
            self.ws.add(spec, functions={one: self.player(names, at)})
        peers = {one: names[at + 1 : at + 2] for at, one in enumerate(names)}
        return patterns.get("handoff")(first=names[0], peers=peers, brief={"problem": "str"}, max=3)

    def player(self, names: list[str], at: int) -> Any:
        async def agent(ctx: Any, given: Mapping[str, Any]) -> Any:
            if at == 0:
                self.waits()
                await self.line.wait()
            if at == 2:
                return {"answer": "ok"}
            return {"handoff": {"to": names[at + 1], "brief": {"problem": "none"}}}

        return agent


async def until(look: Callable[[], Any]) -> Any:
    async with asyncio.timeout(postgres_desk.PATIENCE):
        while not (found := await look()):  # noqa: ASYNC110 - it happens in the store
            await asyncio.sleep(0.02)
        return found


CENT = Usage(to_nano("0.01"))


class Buyers(Worker):
    """The same, whose agents buy two things for a cent each."""

    def __init__(self, folder: Path, line: asyncio.Event, waits: Callable[[], None]) -> None:
        self.shop = ScriptedTool(ToolSpec("shop.buy", timeout=30.0, price=CENT), (Reply("sold", CENT),))
        self.ws = Workspace.open(folder, tools={"shop.buy": self.shop})
        self.line, self.waits = line, waits
        for name in ("above", "below"):
            spec = Agent(name, purpose="buys", python=f"desk:{name}", input={}, output={}, tools=["shop.buy"], **BY)
            self.ws.add(spec, functions={name: self.buy})
        asks: Any = {"review": {"when": "true", "by": "lead"}}
        ends: dict[str, Any] = {"then": "escalate"}
        inner = Workflow("inner", purpose="goes on elsewhere", steps=[asks, "below"], budget=ends, **BY)
        both = Concurrent("above", WorkflowStep("inner", with_={}))
        self.ws.add(inner, Workflow("flow", purpose="is a request", steps=[both], budget={"usd": 0.03, **ends}, **BY))

    async def buy(self, ctx: Any, given: Mapping[str, Any]) -> Any:
        self.waits()
        await self.line.wait()
        for number in range(2):
            await ctx.tool("shop.buy", {"n": number, "by": ctx.agent})
        return {}


@pytest.mark.parametrize("kind", [Worker, Buyers])
async def test_two_workers_together_do_no_more_than_the_request_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Worker]
) -> None:
    monkeypatch.setenv("TIGHTSHIP_MASTER_KEY", "dGlnaHRzaGlwIHRlc3RzJyBtYXN0ZXIga2V5ISEhISE=")
    config = f"name: desk\nroles: {{lead: [ann]}}\nstore: '{postgres_desk.new_store()}'\n"
    (tmp_path / "tightship.yaml").write_text(config)
    line, waiting = asyncio.Event(), list[int]()
    one, two = (kind(tmp_path, line, lambda: waiting.append(1)).ws for _ in range(2))
    async with one, two:
        begun = asyncio.create_task(one.run("flow", {}))
        operator = await two.operator()
        [item] = await until(operator.items)

        async def parked() -> Any:
            return await (await two.ledger()).select("runs", [("id", "=", item.run), ("state", "=", "parked")])

        await until(parked)
        await operator.decide(item.item, Decision("approve", "ann"))
        driven = asyncio.create_task(two.resume([item.run]))

        async def both() -> bool:
            return len(waiting) == 2

        await until(both)
        ledger = await two.ledger()
        rows = await ledger.select("runs", [("state", "=", "running")])
        assert len({row["owner"] for row in rows}) == 2
        line.set()
        await asyncio.gather(begun, driven)
        run = begun.result()
        while run.state != "ended":
            await one.resume([run.id])
            run = await one.result(run.id)
        entries = await ledger.entries(limit=10_000)
        if kind is Worker:
            assert sum(entry.kind == kinds.NOTE and entry.body["type"] == "handoff" for entry in entries) == 3
        else:
            assert sum(entry.body.get("usd", 0) for entry in entries if entry.kind == kinds.SETTLED) == 3 * CENT.usd
        assert run.outcome == "escalated"
