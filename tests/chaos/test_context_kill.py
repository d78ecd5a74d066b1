"""The gate over real kills: processes that restock one item end by SIGKILL at any moment, and it is ordered once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from cli_desk import environment
from cli_warm import warm
from tightship import Workspace

FILES = {
    "tightship.yaml": """\
name: shop
roles: {buyer: [you]}
context:
  stock/*: {max_age: 30s, source: {tool: erp.stock, with: {sku: "parts[0]"}, value: result.position, as_of: result.at}}
""",
    "agents/plan.yaml": """\
agent: plan
owner: shop
purpose: say how much to order
python: desk:plan
input: {sku: str}
output: {sku: str, count: int}
""",
    "agents/desk.py": """\
import asyncio

async def plan(ctx, input):
    stock = await ctx.read(f"stock/{input['sku']}")
    await asyncio.sleep(0.05)
    return {"sku": input["sku"], "count": 50 if stock.value < 10 else 0}
""",
    "tools/erp.py": """\
import asyncio
import time
from pathlib import Path
from tightship import Request, tool

OUTSIDE = Path(__file__).parent.parent / "orders.txt"

def orders():
    return OUTSIDE.read_text().splitlines() if OUTSIDE.exists() else []

@tool(effect="read")
async def stock(sku: str) -> dict[str, float]:
    found = {"position": 50.0 * len(orders()), "at": time.time()}
    await asyncio.sleep(0.02)
    return found

@tool(effect="write", idempotency="key")
async def order(sku: str, count: int, request: Request) -> str:
    await asyncio.sleep(0.02)
    if request.key not in orders():
        with OUTSIDE.open("a") as file:
            file.write(f"{request.key}\\n")
    await asyncio.sleep(0.02)
    return "ordered"
""",
    "workflows/restock.yaml": """\
workflow: restock
owner: shop
purpose: keep an item in stock
input: {sku: str}
escalate_to: buyer
limits: {restarts: 100}  # a busy machine gets nothing done between two kills
steps:
  - plan
  - action: erp.order
    with: {sku: plan.sku, count: plan.count}
    undo: none
    gate: {agents: [plan], on: ["stock/*"], when: plan.count > 0, rounds: 20}
""",
}
DRIVER = """\
import asyncio, sys
from tightship import Workspace

async def main():
    async with Workspace.open(sys.argv[1]) as ws:
        print("ready", flush=True)
        await ws.resume()
        runs = [ws.run("restock", {"sku": "widget"}, reference=name) for name in ("a", "b", "c")]
        ended = await asyncio.gather(*runs)
        print(*[f"{run.outcome} {run.reason}".strip() for run in ended], sep="\\n", flush=True)

asyncio.run(main())
"""


def drive(folder: Path, seconds: float | None) -> str:
    """One process; ended by SIGKILL after so many seconds from its start on."""
    with contextlib.closing(warm().start([str(folder)], folder, environment(), code=DRIVER)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        return process.communicate()[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_an_item_is_ordered_once_over_kills_at_any_moment(seed: int, tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    chance = random.Random(seed)
    for _ in range(6):
        drive(tmp_path, chance.uniform(0.0, 0.4))
    assert drive(tmp_path, None).splitlines() == ["completed"] * 3
    assert len((tmp_path / "orders.txt").read_text().splitlines()) == 1

    async def tables() -> list[str]:
        async with Workspace.open(tmp_path) as ws:
            ledger = await ws.ledger()
            before = [await ledger.select(name) for name in ("context", "context_ages")]
            await ledger.rebuild()
            after = [await ledger.select(name) for name in ("context", "context_ages")]
            return [json.dumps(before), json.dumps(after)]

    before, after = asyncio.run(tables())
    assert before == after
    assert [row["busy"] for row in json.loads(before)[0]] == [0]
