"""A data subject is erased while this very process drives a run about them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tightship import Agent, Workflow, Workspace
from tightship.connectors.python import tool
from tightship.core.errors import Unavailable, WriteFailed
from tightship.ledger.audit import verify
from tightship.ledger.references import addresses_of

PERSON = "ada@example.org"
SECRETS = (PERSON, "flat 7", "receipt for Ada")


class Bank:
    """Tools of which one waits, in the middle of its work, until it is told to go on."""

    def __init__(self, waits: str) -> None:
        self.waits = waits
        self.refunds = 0
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def pause(self, where: str) -> None:
        if where == self.waits:
            self.began.set()
            await self.go_on.wait()

    def tools(self) -> dict[str, Any]:
        @tool(effect="write", name="bank.pay", idempotency="key")
        async def pay(who: str) -> str:
            await self.pause("write")
            return "receipt for Ada"

        @tool(effect="write", name="bank.refund", idempotency="key")
        async def refund(who: str) -> str:
            self.refunds += 1
            if self.refunds == 1:
                raise WriteFailed(f"no account of {who}")
            await self.pause("undo")
            return "receipt for Ada"

        @tool(effect="read", name="bank.look")
        async def look(who: str) -> str:
            await self.pause("read")
            return "receipt for Ada"

        return {one.spec.name: one for one in (pay, refund, look)}

    async def clerk(self, ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        seen = await ctx.tool("bank.look", {"who": given["who"]})
        await self.pause("agent")
        return {"note": f"{seen}, {given['address']}"}

    async def judge(self, ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        if self.waits == "undo":
            raise Unavailable(f"nobody answers about {PERSON}", evidence={"address": "flat 7"})
        return {"note": "flat 7"}


def opened(folder: Path, bank: Bank) -> Workspace:
    (folder / "tightship.yaml").write_text("name: bank\nroles: {operator: [ann]}\n", "utf-8")
    ws = Workspace.open(folder, tools=bank.tools())
    given: Any = {"who": "str", "address": "str"}
    for name in ("clerk", "judge"):
        agent = Agent(
            name, owner="o", purpose=name, python=f"x:{name}", input=given, output={"note": "str"}, tools=["bank.look"]
        )
        ws.add(agent, functions={name: getattr(bank, name)})
    pay: Any = {"action": "bank.pay", "with": {"who": "input.who"}, "undo": "bank.refund"}
    steps = ["clerk", pay, {"name": "more", **pay}, "judge"]
    ws.add(Workflow("w", owner="o", purpose="p", input=given, subjects=["input.who"], steps=steps))
    return ws


async def readable(ws: Workspace) -> list[str]:
    """All values of the store that anybody can still open."""
    ledger = await ws.ledger()
    addresses = {address for entry in await ledger.entries(0, 10_000) for address in addresses_of(entry)}
    values = await ledger.values(sorted(addresses), erased=None)
    return [str(value) for value in values.values() if value is not None]


@pytest.mark.parametrize(
    ("where", "remains"), [("agent", []), ("read", []), ("write", ["bank.pay"]), ("undo", ["bank.pay"])], ids=str
)
async def test_a_run_that_is_under_way_ends_and_nothing_of_the_subject_can_be_read(
    tmp_path: Path, where: str, remains: list[str]
) -> None:
    bank = Bank(where)
    async with opened(tmp_path, bank) as ws:
        going = asyncio.ensure_future(ws.run("w", {"who": PERSON, "address": "flat 7"}))
        await bank.began.wait()
        assert any(PERSON in value for value in await readable(ws))
        await (await ws.ledger()).erase("default", PERSON, by="ann")
        bank.go_on.set()
        run: Any = await asyncio.wait_for(going, 300)
        assert (run.state, run.outcome, run.reason) == ("ended", "escalated", "erased")
        assert "erased" in run.package["what_happened"]
        assert [one["tool"] for one in run.package["evidence"].get("effects that remain", ())] == remains
        assert bank.refunds == (2 if where == "undo" else 0)
        assert await ws.resume() == []
    async with opened(tmp_path, bank) as ws:  # and none of it was only out of memory
        told = await readable(ws)
        assert any("erased" in value for value in told)
        assert [value for value in told if any(secret in value for secret in SECRETS)] == []
        assert (await ws.result(run.id)).package == run.package
        report = await verify(await ws.ledger())
        assert report.ok, report.findings
        assert report.erased > 0
