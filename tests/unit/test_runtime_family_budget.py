"""A run's budget holds for it and the runs below it together, whichever processes drive them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from engine_desk import Desk, simulate
from family_desk import ASKS, Beside, Family, Line, until
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.connectors.testing import ScriptedTool
from tightship.core import kinds
from tightship.core.money import to_nano
from tightship.core.ports import Reply, Request, ToolSpec, Usage
from tightship.patterns import Concurrent, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()
CENT = to_nano("0.01")
Purchase = tuple[int, int, float]
"""What it may cost at most (cents), what it costs (cents), and how long it takes (s)."""


class Shop(ScriptedTool):
    """Sells things of one price; what they cost in the end stands in the order."""

    def __init__(self, cents: int) -> None:
        super().__init__(ToolSpec(f"shop.{cents}", timeout=30.0, price=Usage(cents * CENT)))

    async def perform(self, request: Request) -> Reply:
        self.calls.append(request)
        await asyncio.sleep(request.args["seconds"])
        return Reply("sold", Usage(request.args["cost"] * CENT))


def buyer(line: Line, purchases: Sequence[Purchase]) -> Any:
    """An agent that buys these things, once the line is open."""

    async def agent(ctx: Any, given: dict[str, Any]) -> Any:
        await line.wait()
        for number, (most, cost, seconds) in enumerate(purchases):
            await ctx.tool(f"shop.{most}", {"n": number, "by": ctx.agent, "cost": cost, "seconds": seconds})
        return {}

    return agent


def buying(
    sim: Simulation, parent: Sequence[Purchase], child: Sequence[Purchase], budget: Mapping[str, Any], **more: Any
) -> Family:
    """Parent and child buy at the same time, driven by two processes; the request has one budget."""
    desk, line = Desk(sim, [Shop(0), Shop(1), Shop(2), Shop(3)]), Line()
    desk.agent("above", buyer(line, parent))
    desk.agent("below", buyer(line, child))
    first, early = more.pop("first", ()), more.pop("early", ())
    begun = Line()
    begun.open.set()
    desk.agent("before", buyer(begun, first))
    desk.agent("early", buyer(begun, early))
    desk.workflow(ASKS, "below", name="inner", budget={"then": budget.get("then", "escalate")})
    beside = ["early"] if early else []
    steps = [*(["before"] if first else []), Concurrent("above", *beside, WorkflowStep("inner", with_={}))]
    desk.workflow(*steps, budget={"then": "escalate", **budget}, **more)
    return Family(desk, line)


def sold(desk: Desk) -> list[Request]:
    """What was bought, in all."""
    return [call for tool in desk.tools.values() for call in tool.calls]


def spent(entries: Sequence[Any]) -> int:
    """What it cost, as the settles say (cents)."""
    return sum(entry.body.get("usd", 0) for entry in entries if entry.kind == kinds.SETTLED) // CENT


async def counted(desk: Desk) -> dict[str, Any]:
    """What the store has counted for the request."""
    run = await desk.only()
    rows = await desk.ledger.select("counters", [("run", "=", run.id)])
    return rows[0] if rows else dict.fromkeys(("usd", "usd_held", "tokens_held", "calls_held"), 0)


def test_a_parent_and_a_child_elsewhere_spend_no_more_than_the_run_has() -> None:
    async def story(sim: Simulation) -> None:
        family = buying(sim, [(1, 1, 1.0)] * 2, [(1, 1, 1.0)] * 2, {"usd": 0.03})
        await family.part()
        run = await family.end()
        assert len(sold(family.desk)) == 3
        assert spent(await family.desk.entries()) == 3
        assert run.outcome == "escalated"

    simulate(story)


@pytest.mark.parametrize("budget", [{"calls": 5}, {"usd": 0.05}])
def test_what_the_run_spent_before_it_had_a_child_is_part_of_it(budget: dict[str, Any]) -> None:
    async def story(sim: Simulation) -> None:
        first = [(1, 1, 1.0), (1, 1, 0.0)]
        family = buying(sim, [(1, 1, 1.0)] * 3, [(1, 1, 1.0)] * 3, budget, first=first)
        await family.part()
        await family.end()
        assert len(sold(family.desk)) == 5
        row = await counted(family.desk)
        assert (row["usd"], row["calls"], row["requests"]) == (5 * CENT, 5, 5)
        assert row["usd_held"] == row["calls_held"] == 0

    simulate(story)


def test_what_is_under_way_when_the_first_child_begins_is_counted_and_given_back() -> None:
    async def story(sim: Simulation) -> None:
        early = [(3, 1, 9.0), (0, 0, 2.0), (2, 2, 0.0)]
        family = buying(sim, [(1, 1, 0.0)], [(3, 1, 1.0)] * 2, {"usd": 0.06}, first=[(1, 0, 1.0)], early=early)
        await family.part()
        assert (await counted(family.desk))["usd_held"] == 3 * CENT
        run = await family.end()
        assert run.outcome == "completed", run
        row = await counted(family.desk)
        assert (row["usd"], row["usd_held"], row["calls_held"]) == (6 * CENT, 0, 0)
        assert row["requests"] == len(sold(family.desk)) == 7

    simulate(story)


@pytest.mark.parametrize("cents", [0, 1])
def test_requests_of_both_are_those_of_one_request_also_the_free_ones(cents: int) -> None:
    async def story(sim: Simulation) -> None:
        each = [(cents, cents, 1.0)] * 3
        family = buying(sim, each, each, {}, limits={"requests": 4})
        await family.part()
        await family.end()
        assert len(sold(family.desk)) == 4
        assert (await counted(family.desk))["requests"] == 4

    simulate(story)


def test_what_another_process_has_set_aside_and_does_not_need_is_waited_for() -> None:
    """The child holds the whole budget for ten seconds, and pays a third of it: the parent's turn comes then."""

    async def story(sim: Simulation) -> None:
        family = buying(sim, [(0, 0, 1.0), (2, 2, 0.0)], [(3, 1, 10.0)], {"usd": 0.03})
        await family.part()
        run = await family.end()
        assert run.outcome == "completed", run
        assert spent(await family.desk.entries()) == 3

    simulate(story)


def test_what_a_person_adds_for_one_process_is_there_for_the_other() -> None:
    async def story(sim: Simulation) -> None:
        family = buying(sim, [(0, 0, 8.0), (1, 1, 0.0), (1, 1, 0.0)], [(1, 1, 0.0)] * 3, {"usd": 0.02, "then": "ask"})
        desk = family.desk
        await family.part()
        family.line.open.set()

        async def asked() -> Any:
            operator = await family.beside.process.start(family.beside.ws.operator())
            return await family.beside.process.start(operator.items())

        await until(asked)
        await family.beside.answer({"usd": 0.05})
        child = asyncio.ensure_future(family.beside.process.start(family.beside.ws.resume([family.child])))
        run = await family.end()
        await child
        assert run.outcome == "completed", run
        assert len(await desk.entries(kinds.OPENED)) == 2, "the review, and one question about money"
        assert spent(await desk.entries()) == 5

    simulate(story)


def test_a_run_on_its_own_counts_nothing_and_asks_the_store_for_nothing() -> None:
    async def story(sim: Simulation) -> None:
        desk, line = Desk(sim, [Shop(0), Shop(1)]), Line()
        line.open.set()
        desk.agent("alone", buyer(line, [(1, 1, 0.0), (0, 0, 0.0)]))
        desk.workflow("alone", budget={"usd": 1})
        asked: list[Any] = []
        append = desk.ledger.append

        def watched(*drafts: Any, **more: Any) -> Any:
            asked.extend(more["guards"].counts if more.get("guards") else ())
            return append(*drafts, **more)

        desk.ledger.append = watched  # type: ignore[method-assign]
        run = await desk.run()
        assert run.outcome == "completed"
        assert asked == [] and await desk.ledger.select("counters") == []
        assert not any({"above", "held", "before"} & set(entry.body) for entry in await desk.entries())

    simulate(story)


PURCHASES = st.lists(
    st.integers(0, 3).flatmap(
        lambda most: st.tuples(st.just(most), st.integers(0, most), st.sampled_from([0.0, 0.3, 1.0, 4.0]))
    ),
    max_size=5,
)
KILLS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])), max_size=3)


async def crash(family: Family, of_parent: bool) -> None:
    """One of the two processes dies, and another one takes over its run."""
    desk = family.desk
    if of_parent:
        run = await desk.only()
        desk.kill()
        family.begun = desk.process.start(desk.ws.resume([run.id]))
    else:
        family.beside.process.kill()
        family.beside = Beside(desk)
        family.driven = family.beside.resume(family.child)


@settings(max_examples=40, deadline=None)
@given(first=PURCHASES, early=PURCHASES, parent=PURCHASES, child=PURCHASES, cents=st.integers(1, 12), kills=KILLS)
def test_whatever_dies_nothing_is_exceeded_and_nothing_is_lost(
    first: list[Purchase],
    early: list[Purchase],
    parent: list[Purchase],
    child: list[Purchase],
    cents: int,
    kills: list[tuple[bool, float]],
) -> None:
    """Settled sums are what was spent, and a refusal is true: with what was asked the budget would not have held."""

    async def story(sim: Simulation) -> None:
        family = buying(sim, parent, child, {"usd": cents / 100}, first=first, early=early)
        desk = family.desk
        try:
            await family.part()
        except AssertionError:  # what it bought before its child has used up the budget
            assert spent(await desk.entries()) + 3 > cents
            return
        family.line.open.set()
        for of_parent, seconds in kills:
            await asyncio.sleep(seconds)
            if not (family.begun if of_parent else family.driven).done():
                await crash(family, of_parent)
        await family.end()
        entries = await desk.entries()
        total = spent(entries)
        assert total <= cents
        row = await counted(desk)
        assert row["usd"] == total * CENT
        assert row["usd_held"] == row["tokens_held"] == row["calls_held"] == 0
        refusals = [entry for entry in entries if entry.kind == kinds.SETTLED and "refused" in entry.body]
        for refused in refusals:
            assert refused.body["refused"]["signal"] == "OverBudget"
            assert total + int(refused.body["name"].removeprefix("shop.")) > cents, "it would have fitted"

    simulate(story)
