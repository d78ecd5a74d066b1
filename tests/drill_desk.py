"""A small shop for tests of drills: a workflow on which every drill holds, and what is to be changed so that one does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from tightship.core.world import Clock
from tightship.quality.drills.bench import Bench

CONFIG = "name: shop\nroles: {lead: [ann]}\n"

TOOLS = '''\
from typing import Any

from typing_extensions import TypedDict

from tightship import tool


class Order(TypedDict):
    id: str
    amount: float
    note: str


@tool(effect="read")
async def order(id: str) -> Order:
    """An order."""
    raise AssertionError("a drill never calls the real tool")


@tool(effect="write", idempotency="key")
async def pay(order_id: str, amount: float) -> Order:
    """Pay it back."""
    raise AssertionError("a drill never calls the real tool")


@tool(effect="write", idempotency="key")
async def take_back(id: str) -> None:
    """Take a payment back."""
    raise AssertionError("a drill never calls the real tool")


@tool(effect="write", idempotency="key")
async def tell(order_id: str, text: str) -> None:
    """Tell the customer."""
    raise AssertionError("a drill never calls the real tool")
'''

AGENTS = """\
import os

from tightship import DataMissing


async def look(ctx, input):
    found = await ctx.tool("shop.order", {"id": input["id"]})
    return {"order_id": input["id"], "amount": found["amount"], "urgent": False}


async def check(ctx, input):
    found = await ctx.tool("shop.order", {"id": input["id"]})
    made = input["look"]
    wrong = [] if (made["order_id"], made["amount"], made["urgent"]) == (input["id"], found["amount"], False) else ["amount"]
    return {"ok": not wrong, "objections": wrong}
"""

LOOK = """\
agent: look
owner: sales
purpose: find what is to be paid back
python: desk:look
input: {id: str}
output: {order_id: str, amount: float, urgent: bool}
tools: [shop.order]
within: 60s
"""

CHECK = """\
agent: check
owner: audit
purpose: compare it with the order
python: desk:check
input: {id: str, look: object}
output: {ok: bool, objections: "list[str]"}
tools: [shop.order]
within: 60s
"""

FLOW = """\
workflow: refund
owner: sales
purpose: pay an order back
escalate_to: lead
input: {id: str}
budget: {usd: 1.00, seconds: 120s, then: escalate}
steps:
  - maker_checker: {maker: look, checker: check, rounds: 2}
  - action: shop.pay
    with: {order_id: look.order_id, amount: look.amount}
    claim: '"pay:" + input.id'
    undo: {tool: shop.take_back, with: {id: result.id}}
  - action: shop.tell
    with: {order_id: look.order_id, text: '"It is paid back."'}
    claim: '"tell:" + input.id'
    undo: none
"""

FILES: Mapping[str, str] = {
    "tightship.yaml": CONFIG,
    "tools/shop.py": TOOLS,
    "agents/desk.py": AGENTS,
    "agents/look.yaml": LOOK,
    "agents/check.yaml": CHECK,
    "workflows/refund.yaml": FLOW,
    "cases.jsonl": '{"id": "O-1"}\n{"id": "O-2"}\n',
}
CHECKED = "  - maker_checker: {maker: look, checker: check, rounds: 2}\n"
READING = FLOW[: FLOW.index("  - action: shop.pay")] + "output: {order: look.order_id, amount: look.amount}\n"
"""The same work without a write: it only says what is to be paid back."""
UNCHECKED = (("workflows/refund.yaml", CHECKED, "  - look\n"),)
"""Nobody checks what the agent made."""
Change = tuple[str, str, str]
"""A file, the text in it, and what stands there instead (the whole file, where the text is empty)."""


class NoCompany:
    """A practice company that has nothing (quality.drills.outside.Practice)."""

    operations = frozenset[str]()

    def __init__(self, database: Path | None, clock: Clock) -> None:
        self.transport = httpx2.MockTransport(lambda request: httpx2.Response(404))

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


def write_shop(folder: Path, *changes: Change) -> Path:
    """Write the shop with these changes; a change that changes nothing is a mistake of the test."""
    files = dict(FILES)
    for name, old, new in changes:
        assert not old or old in files[name], f"{name} has no {old!r}"
        files[name] = files[name].replace(old, new) if old else new
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def bench(folder: Path, *changes: Change, workflow: str = "refund", **more: Any) -> Bench:
    """The shop, ready to be drilled."""
    found = Bench(write_shop(folder, *changes), workflow, NoCompany, **more)
    found.learn()
    return found
