"""How many orders are wrong when two planners restock a shop for a day: `python -m benchmarks.staleness [--json]`.

A simulation in virtual time from one seed, with the in-memory ledger: after each sale two planners look at the
item's stock, one at once and one within 25 s, think, and order when it lies below the reorder point. An order is wrong
when the item was not below its reorder point any more at the moment it reached the shop's system: somebody else had
ordered already. The same day is played with three policies: a cache of 30 s, a cap of 250 ms on the age of what is
read, and the gate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tightship.core.ports import Reply, Request, ToolSpec
from tightship.ledger import Ledger
from tightship.patterns import load_all
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.build import Agent, Workflow

ITEMS: Final = 8
SALES: Final = 240
DAY: Final = 1200.0
"""Seconds: the sales of a day, with the quiet minutes between them left out."""
REORDER, FULL = 20, 60
POLICIES: Final[Mapping[str, tuple[str, bool]]] = {
    "cache of 30 s": ("30s", False),
    "cap of 250 ms": ("250ms", False),
    "gate": ("30s", True),
}
"""How old what is read may be, and whether the order has a gate."""


@dataclass(frozen=True, slots=True)
class Day:
    """What came of one day: orders that were right and wrong, how often the shop's system was read, runs that a person
    has to look at, items that lay below their reorder point in the evening with nothing ordered."""

    policy: str
    runs: int
    orders: int
    wrong: int
    reads: int
    escalated: int
    forgotten: int


class Shop:
    """The shop's own system: reading takes 40 ms, an order 120 ms; each counts at its middle."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.position = {f"sku-{number}": FULL for number in range(ITEMS)}
        self.orders = self.wrong = self.reads = 0
        self._keys: set[str] = set()
        self.tools = {
            "shop.stock": ShopTool(ToolSpec("shop.stock", input_schema={"type": "object"}), self.stock),
            "shop.order": ShopTool(
                ToolSpec("shop.order", effect="write", input_schema={"type": "object"}, idempotency="key"), self.order
            ),
        }

    async def stock(self, request: Request) -> Any:
        """What is on hand and in transit."""
        self.reads += 1
        await self.sim.clock.sleep(0.02)
        found = {"position": self.position[request.args["sku"]], "at": self.sim.clock.now()}
        await self.sim.clock.sleep(0.02)
        return found

    async def order(self, request: Request) -> Any:
        """Order up to a full shelf."""
        await self.sim.clock.sleep(0.06)
        sku = request.args["sku"]
        if request.key not in self._keys:
            self._keys.add(request.key)
            self.orders += 1
            self.wrong += self.position[sku] >= REORDER
            self.position[sku] += request.args["count"]
        await self.sim.clock.sleep(0.06)
        return {"sku": sku}


class ShopTool:
    """A tool over one of the shop's operations."""

    def __init__(self, spec: ToolSpec, work: Any) -> None:
        self.spec = spec
        self._work = work

    async def perform(self, request: Request) -> Reply:
        """Ask the shop."""
        return Reply(await self._work(request))

    async def lookup(self, request: Request) -> Reply | None:
        """It honours keys; nobody looks."""
        return None


def workspace(folder: Path, sim: Simulation, shop: Shop, age: str, gated: bool) -> Workspace:
    """The workspace of the two planners."""
    (folder / "tightship.yaml").write_text(
        "name: shop\nroles: {operator: [nobody]}\ncontext:\n"
        f'  stock/*: {{max_age: {age}, source: {{tool: shop.stock, with: {{sku: "parts[0]"}}, '
        "value: result.position, as_of: result.at}}\n"
    )
    world = sim.world()
    ledger = Ledger.in_memory(world, projections())
    ws = Workspace.open(folder, world=world, ledger=ledger, tools=shop.tools)
    thinking = sim.random("thinking")

    async def plan(ctx: Any, given: Any) -> Any:
        stock = await ctx.read(f"stock/{given['sku']}")
        await sim.clock.sleep(thinking.uniform(0.2, 4.0))  # a model call
        return {"sku": given["sku"], "count": FULL - stock.value if stock.value < REORDER else 0}

    agent = Agent("plan", owner="o", purpose="p", python="shop:plan", input={"sku": "str"}, output={})
    action: dict[str, Any] = {"tool": "shop.order", "with": {"sku": "plan.sku", "count": "plan.count"}, "undo": "none"}
    if gated:
        action["gate"] = {"agents": ["plan"], "on": ["stock/*"], "when": "plan.count > 0", "rounds": 5}
        steps: list[Any] = ["plan", {"action": action}]
    else:
        steps = ["plan", {"when": {"if": "plan.count > 0", "then": [{"action": action}]}}]
    flow = Workflow("restock", owner="o", purpose="p", input={"sku": "str"}, escalate_to="operator", steps=steps)
    ws.add(agent, flow, functions={"plan": plan})
    return ws


async def play(sim: Simulation, policy: str, folder: Path, sales: int) -> Day:
    """One day under one policy."""
    age, gated = POLICIES[policy]
    shop = Shop(sim)
    ws = workspace(folder, sim, shop, age, gated)
    chance, process = sim.random("sales"), sim.loop.process("shop")
    moments = sorted(chance.uniform(0, DAY) for _ in range(sales))
    runs: list[asyncio.Task[Any]] = []
    began = sim.clock.monotonic()
    for moment in moments:
        await sim.clock.sleep(max(0.0, began + moment - sim.clock.monotonic()))
        sku = f"sku-{chance.randrange(ITEMS)}"
        shop.position[sku] -= chance.randint(1, 12)
        for later in (0.0, chance.uniform(0.0, 25.0)):
            runs.append(process.start(look(ws, sim, sku, later)))
    outcomes = [(await run).outcome for run in runs]
    forgotten = sum(1 for position in shop.position.values() if position < REORDER)
    return Day(policy, len(runs), shop.orders, shop.wrong, shop.reads, outcomes.count("escalated"), forgotten)


async def look(ws: Workspace, sim: Simulation, sku: str, later: float) -> Any:
    """A planner gets to the sale when it has time."""
    await sim.clock.sleep(later)
    return await ws.run("restock", {"sku": sku})


def measure(seed: int = 1, sales: int = SALES) -> list[Day]:
    """The same day under every policy."""
    load_all()
    days: list[Day] = []
    for policy in POLICIES:
        with tempfile.TemporaryDirectory() as folder:
            days.append(simulate(lambda sim, p=policy, f=Path(folder): play(sim, p, f, sales), seed))
    return days


def main(arguments: list[str]) -> int:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sales", type=int, default=SALES)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    days = measure(given.seed, given.sales)
    if given.json:
        print(json.dumps([asdict(day) for day in days], indent=2))
        return 0
    print(f"{'policy':<16}{'runs':>6}{'orders':>8}{'wrong':>7}{'reads':>7}{'escalated':>11}{'forgotten':>11}")
    for day in days:
        print(
            f"{day.policy:<16}{day.runs:>6}{day.orders:>8}{day.wrong:>7}{day.reads:>7}{day.escalated:>11}{day.forgotten:>11}"
        )
    print(f"seed {given.seed}, {given.sales} sales, {time.perf_counter() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
