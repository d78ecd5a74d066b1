"""What people type when they decide or cancel is sealed like every other value: read in the views, erased with the run."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk

from tightship.insight import show, why
from tightship.ledger._schema import projection_tables
from tightship.review.inbox import Decision, DecisionType
from tightship.runtime.simulation import Simulation, simulate

SAID = "Mrs Example of Sample Street rang and wept"


def desk(sim: Simulation) -> Desk:
    async def triage(ctx: Any, input: dict[str, Any]) -> dict[str, Any]:
        return {"topic": "order"}

    made = Desk(sim)
    made.agent("triage", triage, output={"topic": "str"})
    made.workflow("triage", {"review": {"by": "operator", "within": "4h", "otherwise": "escalate"}})
    return made


async def standing_in_clear(made: Desk) -> list[str]:
    found = [entry.kind for entry in await made.entries() if SAID.encode() in entry.data]
    for table in projection_tables():
        found += [table for row in await made.ledger.select(table) if SAID in str(row)]
    return found


async def views(made: Desk, run: str) -> tuple[str, str]:
    return (await show(made.ledger, run)).render(), (await why(made.ledger, run)).render()


async def decided(made: Desk, kind: DecisionType) -> str:
    run = await made.run()
    operator = await made.operator()
    [item] = await operator.items()
    await operator.decide(item.item, Decision(kind, "ann", {"topic": "refund"} if kind == "edit" else None, SAID))
    await made.resume()
    closed, _ = await operator.item(item.item)
    assert closed.reason == SAID
    assert [one.reason for one in await operator.items("all") if one.item == item.item] == [SAID]
    return run.id


async def cancelled(made: Desk) -> str:
    run = await made.run()
    await (await made.operator()).cancel(run.id, "ann", SAID)
    await made.resume()
    assert (await made.only()).outcome == "cancelled"
    return run.id


@pytest.mark.parametrize("act", ["approve", "reject", "edit", "cancel"])
def test_a_typed_reason_is_in_the_views_and_nowhere_in_clear(act: Any) -> None:
    async def story(sim: Simulation) -> tuple[list[str], tuple[str, str]]:
        made = desk(sim)
        run = await (cancelled(made) if act == "cancel" else decided(made, act))
        return await standing_in_clear(made), await views(made, run)

    clear, (timeline, decisions) = simulate(story)
    assert clear == []
    assert SAID in timeline and SAID in decisions


def test_a_cancel_keeps_its_reason_over_a_crash() -> None:
    async def story(sim: Simulation) -> tuple[list[str], str]:
        made = desk(sim)
        run = await made.run()
        await (await made.operator()).cancel(run.id, "ann", SAID)
        made.kill()
        await made.resume()
        made.kill()
        return await standing_in_clear(made), (await views(made, run.id))[0]

    clear, timeline = simulate(story)
    assert clear == [] and f"cancelled: cancelled: {SAID}" in timeline


@pytest.mark.parametrize("act", ["approve", "cancel"])
def test_a_typed_reason_goes_with_the_key_of_its_run(act: Any) -> None:
    async def story(sim: Simulation) -> tuple[str, str, str]:
        made = desk(sim)
        run = await (cancelled(made) if act == "cancel" else decided(made, act))
        made.ledger.vault.keyring.destroy(run)
        made.ledger.vault.forget(run)
        items = await (await made.operator()).items("all")
        return (*await views(made, run), "".join(item.reason for item in items))

    timeline, decisions, reasons = simulate(story)
    assert SAID not in timeline + decisions + reasons
    assert "(erased)" in timeline and "(erased)" in decisions
