"""Erasing a data subject strands no run: it ends, and what remains outside goes to a person."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, write

from tightship.review.inbox import Decision
from tightship.runtime.simulation import Simulation, simulate


@pytest.mark.parametrize("again", [False, True])
def test_a_parked_run_whose_subject_was_erased_ends_and_says_what_remains(again: bool) -> None:
    async def story(sim: Simulation) -> None:
        pay = write("bank.pay", {"id": "p-1"})
        desk = Desk(sim, [pay])

        async def payer(ctx: Any, input: dict[str, Any]) -> dict[str, Any]:
            await ctx.tool("bank.pay", {"case": input["case"]})
            return {"done": True}

        desk.agent("payer", payer)
        desk.workflow("payer", {"review": {"by": "operator", "within": "4h"}}, subjects=["input.case"])
        run = await desk.run()
        assert run.state == "parked"
        if again:
            await (await desk.operator()).cancel(run.id, "ann", "as asked for")
        await desk.ledger.erase("default", "one", "ann")
        if not again:
            [item] = await (await desk.operator()).items()
            await (await desk.operator()).decide(item.item, Decision("approve", "ann", reason="fine"))
        desk.kill()
        await desk.resume()
        ended = await desk.only()
        assert (ended.state, ended.outcome, ended.reason) == ("ended", "escalated", "erased")
        assert ended.package is not None
        [remains] = ended.package["evidence"]["effects that remain"]
        assert remains["tool"] == "bank.pay"
        items = await (await desk.operator()).items()
        assert [item.type for item in items] == ["escalation"]
        desk.kill()
        await desk.resume()
        assert len(pay.calls) == 1

    simulate(story)
