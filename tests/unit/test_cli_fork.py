"""A fork takes over what was recorded before a key and does the rest anew, without touching the outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tightship import Agent, Workflow, Workspace, tool
from tightship.connectors.python import PythonTool
from tightship.core import kinds
from tightship.core.errors import InputRejected, UnknownName
from tightship.core.ports import UndoSpec
from tightship.core.signals import Halted
from tightship.core.world import World
from tightship.ledger import Ledger
from tightship.review.inbox import Decision
from tightship.runtime.fork import fork
from tightship.runtime.workspace import projections


class Outside:
    """A world that counts."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.written: list[str] = []

    def tools(self) -> dict[str, PythonTool]:
        @tool(effect="read", name="desk.look", price="0.01")
        async def look(order: str) -> str:
            self.read.append(order)
            return f"seen {len(self.read)}"

        @tool(effect="write", name="desk.pay", idempotency="key", undo=UndoSpec("desk.unpay"))
        async def pay(order: str) -> str:
            self.written.append(f"pay {order}")
            return "paid"

        @tool(effect="write", name="desk.unpay", idempotency="key")
        async def unpay(order: str) -> str:
            self.written.append(f"unpay {order}")
            return "taken back"

        return {"desk.look": look, "desk.pay": pay, "desk.unpay": unpay}


class Desk:
    """A workspace in memory, with agents that can be told to behave differently."""

    def __init__(self, folder: Path) -> None:
        self.outside = Outside()
        self.fails = False
        world = World()
        ledger = Ledger.in_memory(world, projections())
        (folder / "tightship.yaml").write_text("name: shop\nroles: {lead: [ann]}\n")
        self.space = Workspace.open(folder, world=world, ledger=ledger, tools=self.outside.tools())
        common: dict[str, Any] = {"owner": "o", "purpose": "p"}
        self.space.add(
            Agent("look", python="m:f", input={"order": "str"}, output={"seen": "str"}, tools=["desk.look"], **common),
            Agent("last", python="m:f", input={"order": "str"}, output={"done": "bool"}, **common),
            functions={"look": self.look, "last": self.last},
        )
        action = {"action": "desk.pay", "with": {"order": "input.order"}, "claim": "'pay:' + input.order"}
        undo = {"undo": {"tool": "desk.unpay", "with": {"order": "args.order"}}}
        review = {"review": {"when": "true", "by": "lead", "within": "1h", "otherwise": "escalate", "show": ["look"]}}
        inputs = {"order": "str"}
        self.space.add(
            Workflow("pay", input=inputs, steps=["look", action | undo, "last"], **common),
            Workflow("asked", input=inputs, steps=["look", review, action | undo], **common),
            Workflow("inner", input=inputs, steps=["look", action | undo], **common),
        )
        self.space.add(
            Workflow(
                "outer", input=inputs, steps=[{"workflow": "inner", "with": {"order": "input.order"}}, "last"], **common
            )
        )

    async def look(self, ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"seen": await ctx.tool("desk.look", {"order": given["order"]})}

    async def last(self, ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        if self.fails:
            raise ValueError("no")
        return {"done": True}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.space.close()


async def spent(desk: Desk) -> list[dict[str, Any]]:
    return await (await desk.space.ledger()).select("spend", order=[("name", "asc")])


async def test_what_stands_before_the_key_is_replayed_and_writes_are_rehearsed(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    before = await spent(desk)
    made = await fork(desk.space, source.id, "action")
    assert made.outcome == "completed"
    assert made.output == source.output
    assert (desk.outside.read, desk.outside.written) == (["O-1"], ["pay O-1"])
    assert not made.live
    assert (made.usd, made.calls) == (0, 1)
    first = made.entries[0]
    assert first.body["forked"]["run"] == source.id
    copied = {entry.key for entry in made.entries if "copied" in entry.body}
    assert copied == {"look/look/1/tool/1", "look/look/1"}
    paid = {row["name"]: row["calls"] for row in before}
    assert {row["name"]: row["calls"] for row in await spent(desk)}["desk.look"] == paid["desk.look"] == 1


async def test_without_a_key_everything_is_done_anew_except_writes(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    made = await fork(desk.space, source.id)
    assert made.outcome == "completed"
    assert (desk.outside.read, desk.outside.written) == (["O-1", "O-1"], ["pay O-1"])


async def test_a_rehearsed_write_holds_no_claim_that_real_work_needs(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    await fork(desk.space, source.id, "action")
    ledger = await desk.space.ledger()
    assert {row["run"] for row in await ledger.select("claims")} == {source.id}


async def test_a_live_fork_writes_and_the_claim_keeps_it_from_doing_it_twice(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    made = await fork(desk.space, source.id, "desk.pay", live=True)
    assert made.live
    assert (made.outcome, made.reason) == ("escalated", "duplicate")
    assert desk.outside.written == ["pay O-1"]


async def test_a_fork_that_fails_never_undoes_what_the_first_run_did(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    desk.fails = True
    for live in (False, True):
        made = await fork(desk.space, source.id, "last", live=live)
        assert made.outcome == "escalated"
    assert desk.outside.written == ["pay O-1"]


async def test_new_code_is_tried_on_an_old_run(desk: Desk) -> None:
    desk.fails = True
    source = await desk.space.run("pay", {"order": "O-1"})
    assert source.outcome == "escalated"
    assert desk.outside.written == ["pay O-1", "unpay O-1"]
    desk.fails = False
    made = await fork(desk.space, source.id, "last")
    assert made.outcome == "completed"
    assert desk.outside.written == ["pay O-1", "unpay O-1"]


async def test_a_decision_before_the_key_stands_in_the_fork_and_a_later_one_is_asked_for_again(desk: Desk) -> None:
    source = await desk.space.run("asked", {"order": "O-1"})
    [item] = source.waiting
    operator = await desk.space.operator()
    await operator.decide(item, Decision("approve", "ann"))
    await desk.space.resume([source.id])
    after = await fork(desk.space, source.id, "action")
    assert after.outcome == "completed"
    assert [entry.body["by"] for entry in after.entries if entry.kind == kinds.CLOSED] == ["ann"]
    again = await fork(desk.space, source.id, "review")
    assert again.state == "parked"
    [opened] = [entry for entry in again.entries if entry.kind == kinds.OPENED]
    assert opened.body["title"].startswith("rehearsal: ")
    assert again.waiting != source.waiting
    assert desk.outside.written == ["pay O-1"]


async def test_a_child_run_is_replayed_or_rehearsed_with_its_parent(desk: Desk) -> None:
    source = await desk.space.run("outer", {"order": "O-1"})
    assert source.outcome == "completed"
    assert (desk.outside.read, desk.outside.written) == (["O-1"], ["pay O-1"])
    replayed = await fork(desk.space, source.id, "last")
    assert replayed.outcome == "completed"
    assert desk.outside.read == ["O-1"]
    anew = await fork(desk.space, source.id)
    assert anew.outcome == "completed"
    assert (desk.outside.read, desk.outside.written) == (["O-1", "O-1"], ["pay O-1"])
    children = await (await desk.space.ledger()).select("runs", [("parent", "=", anew.id)])
    assert [child["live"] for child in children] == [0]


async def test_forks_of_nothing_are_refused(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    with pytest.raises(UnknownName, match="no run"):
        await fork(desk.space, "r-nothing")
    with pytest.raises(UnknownName, match="nothing under 'lok'") as told:
        await fork(desk.space, source.id, "lok")
    assert told.value.fix == "did you mean 'look'?"
    made = await fork(desk.space, source.id)
    with pytest.raises(InputRejected):
        await fork(desk.space, made.id)
    await (await desk.space.operator()).halt("workflow:pay", "ann")
    with pytest.raises(Halted):
        await fork(desk.space, source.id)


async def test_a_fork_is_a_reading_of_the_log_like_any_run(desk: Desk) -> None:
    source = await desk.space.run("pay", {"order": "O-1"})
    made = await fork(desk.space, source.id, "last")
    ledger = await desk.space.ledger()
    before = await ledger.select("runs", [("id", "=", made.id)])
    await ledger.rebuild()
    assert await ledger.select("runs", [("id", "=", made.id)]) == before
