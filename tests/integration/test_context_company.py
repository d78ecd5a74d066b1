"""Two classic failures of agents at an ERP, with the sample company as one: they happen with a cache, not with a gate."""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from support_desk import CONTRACT, Token
from tightship.company import Company, Faults, InProcessTransport, build_app
from tightship.connectors.auth import auth_of
from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.settings import AuthSettings
from tightship.core.ports import Request
from tightship.ledger import Ledger
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.build import Agent, Workflow

CONFIG = """
name: shop
roles: {buyer: [you]}
context:
  stock/*:
    max_age: 30s
    source: {tool: stock.get, with: {sku: "parts[0]"}, as_of: result.as_of}
"""


class Shop:
    """The sample company in virtual time, and a workspace whose agent orders what lies below its reorder point."""

    def __init__(self, sim: Simulation, folder: Path, gated: bool) -> None:
        load_all()
        self.sim = sim
        self.company = Company(clock=sim.clock.now, rng=random.Random(1))
        world = sim.world(InProcessTransport(build_app(self.company, Faults(random.Random(1)), token="practice")))
        auth = auth_of(AuthSettings.model_validate({"bearer": {"secret": "COMPANY_TOKEN"}}), Token(), world)
        self.erp = OpenApiConnector("company", CONTRACT.read_bytes(), "http://company.example", auth, world)
        (folder / "tightship.yaml").write_text(CONFIG)
        tools = {name: self.erp.tool(name) for name in ("stock.get", "purchasing.create", "purchasing.cancel")}
        ledger = Ledger.in_memory(world, projections())
        self.ws = Workspace.open(folder, world=world, ledger=ledger, tools=tools)
        self.process = sim.loop.process("shop")
        agent = Agent("plan", owner="o", purpose="p", python="shop:plan", input={"sku": "str"}, output={})
        action: dict[str, Any] = {
            "tool": "purchasing.create",
            "with": {"sku": "plan.sku", "quantity": "plan.quantity"},
            "undo": {"tool": "purchasing.cancel", "with": {"purchase_order_id": "result.id"}},
        }
        if gated:
            action["gate"] = {"agents": ["plan"], "on": ["stock/*"], "when": "plan.quantity > 0"}
            steps: list[Any] = ["plan", {"action": action}]
        else:
            steps = ["plan", {"when": {"if": "plan.quantity > 0", "then": [{"action": action}]}}]
        flow = Workflow("restock", owner="o", purpose="p", input={"sku": "str"}, escalate_to="buyer", steps=steps)
        self.ws.add(agent, flow, functions={"plan": self._plan})

    async def _plan(self, ctx: Any, given: Any) -> Any:
        stock = (await ctx.read(f"stock/{given['sku']}")).value
        await self.sim.clock.sleep(2.0)  # it thinks
        missing = stock["reorder_point"] - stock["on_hand"] - stock["in_transit"]
        return {"sku": given["sku"], "quantity": missing + 10 if missing > 0 else 0}

    async def restock(self, sku: str) -> None:
        run = await self.process.start(self.ws.run("restock", {"sku": sku}))
        assert run.outcome == "completed", run.package

    async def ask(self, name: str, **args: Any) -> Any:
        request = Request(args, "k", "test", "test", self.sim.clock.now() + 30)
        return (await self.erp.tool(name).perform(request)).value


async def stale(shop: Shop, sku: str) -> None:
    """A figure that was read 20 s ago does not show what was ordered since."""
    await shop.restock(sku)
    await shop.sim.clock.sleep(20.0)
    await shop.restock(sku)


async def race(shop: Shop, sku: str) -> None:
    """Two agents restock one item."""
    first = shop.process.start(shop.restock(sku))
    await shop.restock(sku)
    await first


@pytest.mark.parametrize(("gated", "orders"), [(False, 2), (True, 1)], ids=["cache of 30 s", "gate"])
@pytest.mark.parametrize("failure", [stale, race])
def test_what_is_in_transit_is_not_ordered_again(
    failure: Callable[[Shop, str], Awaitable[None]], gated: bool, orders: int, tmp_path: Path
) -> None:
    async def story(sim: Simulation) -> int:
        shop = Shop(sim, tmp_path, gated)
        sku = (await shop.ask("stock.list", below_reorder_point=True))["items"][0]["sku"]
        before = len((await shop.ask("purchasing.list", sku=sku))["items"])
        await failure(shop, sku)
        return len((await shop.ask("purchasing.list", sku=sku))["items"]) - before

    assert simulate(story) == orders
