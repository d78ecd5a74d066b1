"""An escalated run is final: an answer that gives input starts a linked run, a sentence closes the case."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk

from tightship.core import kinds
from tightship.core.errors import DataMissing, GuardRefused, InputRejected
from tightship.ledger import Draft
from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation, simulate


async def escalated(sim: Simulation) -> tuple[Desk, str, str]:
    async def find(ctx: Any, input: dict[str, Any]) -> dict[str, Any]:
        if not input.get("order"):
            raise DataMissing("the letter names no order", needed="the order")
        return {"found": input["order"]}

    desk = Desk(sim)
    desk.agent("find", find, output={"found": "str"})
    desk.workflow("find", input={"case": "str", "order": "str?"}, subjects=["input.case"])
    run = await desk.run(case="one")
    assert run.outcome == "escalated"
    [item] = await (await desk.operator()).items()
    return desk, run.id, item.item


def test_an_object_starts_a_linked_run_with_what_was_missing() -> None:
    async def story(sim: Simulation) -> None:
        desk, run, item = await escalated(sim)
        operator = await desk.operator()
        await operator.decide(item, Decision("answer", "ann", {"order": "O-7"}))
        desk.kill()  # the answer and the new run are one append: neither is there without the other
        await desk.resume()
        old, new = sorted(await desk.ledger.select("runs"), key=lambda row: row["started_at"])
        assert (old["id"], old["outcome"], new["outcome"]) == (run, "escalated", "completed")
        [started] = [entry.body for entry in await desk.entries(kinds.STARTED) if entry.run == new["id"]]
        assert started["linked"] == run
        assert await desk.ledger.value(started["input"]) == {"case": "one", "order": "O-7"}
        assert (await desk.ws.result(new["id"])).output == {"found": "O-7"}
        with pytest.raises(GuardRefused):
            await (await desk.operator()).decide(item, Decision("answer", "ann", {"order": "O-8"}))
        assert len(await desk.ledger.select("runs")) == 2

    simulate(story)


def test_a_sentence_closes_the_case_and_starts_nothing() -> None:
    async def story(sim: Simulation) -> None:
        desk, _, item = await escalated(sim)
        await (await desk.operator()).decide(item, Decision("answer", "ann", "I rang and sorted it"))
        assert await desk.ws.due() == []
        assert len(await desk.ledger.select("runs")) == 1

    simulate(story)


@pytest.mark.parametrize(("value", "field"), [({"ordr": "O-7"}, "ordr"), ({"order": 7}, "order")])
def test_input_that_does_not_fit_is_refused_and_the_item_stays_open(value: Any, field: str) -> None:
    async def story(sim: Simulation) -> None:
        desk, _, item = await escalated(sim)
        operator = await desk.operator()
        with pytest.raises(InputRejected, match=field):
            await operator.decide(item, Decision("answer", "ann", value))
        assert (await operator.item(item))[0].open
        assert len(await desk.ledger.select("runs")) == 1

    simulate(story)


def test_however_many_wait_what_is_due_first_is_listed_first_and_what_was_decided_last_is_not_left_out() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        ledger, operator = desk.ledger, await desk.operator()
        for name, due in (("old", 0.0), ("later", 9e9), ("soon", 8e9), ("new", 0.0)):
            body = {"item": name, "type": "question", "role": "lead", "title": name, "due": due}
            await ledger.append(Draft("r-1", kinds.OPENED, name, body))
        for name in ("one", "two"):
            await ledger.append(Draft("r-1", kinds.OPENED, name, {"item": name, "type": "question", "title": name}))
            await ledger.append(Draft("r-1", kinds.CLOSED, name, {"item": name, "decision": "answer", "by": "ann"}))
        assert [one.item for one in await operator.items(limit=3)] == ["soon", "later", "old"]
        assert [one.item for one in await operator.items("all", limit=5)] == ["soon", "later", "old", "new", "two"]
        assert [one.item for one in await operator.items("closed", limit=1)] == ["two"]

    simulate(story)
