"""The gate: an action rests on one snapshot that still stands when it is admitted, or its decision is made again."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, Served, simulate

from tightship.core import kinds
from tightship.core.errors import DataMissing, OutcomeUnknown
from tightship.core.ports import Request, ToolSpec
from tightship.runtime.fork import fork
from tightship.runtime.simulation import Simulation

CONFIG = """
context:
  stock/*:
    writers: [decide, operator]
    max_age: 5s
    source: {tool: erp.stock, value: result.position, as_of: result.at}
  rules: {writers: [decide, operator], type: int}
"""


class Erp:
    """A stock of one item: reading it takes 40 ms, an order 120 ms and counts at once in between."""

    def __init__(self, sim: Simulation, position: int = 0) -> None:
        self.sim, self.position, self.reads = sim, position, 0
        self.orders: list[tuple[float, int, int]] = []
        """When, how many, and the position right before."""
        self.keys: set[str] = set()
        schema = {"type": "object"}
        self.stock = Served(ToolSpec("erp.stock", input_schema=schema), self._stock)
        self.order = Served(
            ToolSpec("erp.order", effect="write", input_schema=schema, idempotency="key", timeout=2.0), self._order
        )

    async def _stock(self, request: Request) -> Any:
        self.reads += 1
        await self.sim.clock.sleep(0.02)
        found = {"position": self.position, "at": self.sim.clock.now()}
        await self.sim.clock.sleep(0.02)
        return found

    async def _order(self, request: Request) -> Any:
        await self.sim.clock.sleep(0.06)
        count = int(request.args["count"])
        if request.key not in self.keys:  # it honours idempotency keys
            self.keys.add(request.key)
            self.orders.append((self.sim.clock.now(), count, self.position))
            self.position += count
        await self.sim.clock.sleep(0.06)
        return {"id": f"PO-{len(self.orders)}"}


def desk(sim: Simulation, erp: Erp, gate: dict[str, Any] | None, *, think: float = 0.5, **more: Any) -> Desk:
    """Agents that fill a stock up to 100 when it lies below 10."""
    d = Desk(sim, [erp.stock, erp.order], CONFIG)

    async def decide(ctx: Any, given: Any) -> Any:
        stock = await ctx.read("stock/widget")
        await sim.clock.sleep(think)
        return {"count": 100 if stock.value < 10 else 0, "version": stock.version}

    d.agent("decide", decide)
    order: dict[str, Any] = {"action": {"tool": "erp.order", "with": {"count": "decide.count"}, "undo": "none"}}
    if gate is not None:
        order["action"]["gate"] = {"agents": ["decide"], "on": ["stock/*"], "when": "decide.count > 0", **gate}
        d.workflow("decide", order, **more)
    else:
        d.workflow("decide", {"when": {"if": "decide.count > 0", "then": [order]}}, **more)
    return d


def wrong(erp: Erp) -> int:
    """Orders for what was not missing any more."""
    return sum(1 for _, _, before in erp.orders if before >= 10)


@pytest.mark.parametrize("agents", [1, 2, 5])
def test_several_runs_restock_one_item_once(agents: int) -> None:
    async def story(sim: Simulation) -> Erp:
        erp = Erp(sim)
        d = desk(sim, erp, {})
        tasks = [d.begin(case=str(number)) for number in range(agents)]
        outcomes = [(await task).outcome for task in tasks]
        assert outcomes == ["completed"] * agents
        return erp

    erp = simulate(story)
    assert len(erp.orders) == 1 and wrong(erp) == 0


def test_without_the_gate_each_of_them_orders() -> None:
    async def story(sim: Simulation) -> Erp:
        erp = Erp(sim)
        d = desk(sim, erp, None)
        for task in [d.begin(case=str(number)) for number in range(2)]:
            await task
        return erp

    assert wrong(simulate(story)) == 1


def test_a_value_that_changes_before_the_admit_lets_the_decision_be_made_again() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)
        d = desk(sim, erp, {})
        task = d.begin()
        await sim.clock.sleep(0.3)
        await d.ws.context.set("stock/widget", 50, by="ann")
        run = await task
        assert run.outcome == "completed" and run.output is None and erp.orders == []
        turns = [entry.key for entry in await d.entries(kinds.TURN)]
        assert turns == ["decide/decide/1", "action/gate/1/decide/decide/1"]

    simulate(story)


def test_a_decision_that_has_become_too_old_is_made_again() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)
        d = desk(sim, erp, {}, think=6.0)
        run = await d.run()
        assert (run.outcome, run.reason) == ("escalated", "ContextChanged")  # it thinks longer than its data holds
        assert erp.orders == []
        evidence = run.package["evidence"]
        assert evidence["error"] == "ContextChanged"
        assert evidence["decided_on"]["stock/widget"]["version"] < evidence["now"]["stock/widget"]["version"]
        assert len(await d.entries(kinds.TURN)) == 4  # once, and in each of three rounds

    simulate(story)


@pytest.mark.parametrize("kills", [1, 2, 3])
def test_whoever_waits_for_the_action_of_a_run_that_is_driven_alone_does_not_keep_it_waiting(kills: int) -> None:
    async def story(sim: Simulation) -> list[str]:
        erp = Erp(sim)
        d = desk(sim, erp, {})
        d.begin(case="one")
        d.begin(case="two")
        await sim.clock.sleep(0.6)  # one has its action under way, the other one waits for that
        for _ in range(kills):
            d.kill()
            d.process.start(d.ws.resume())
            await sim.clock.sleep(0.05)
        d.kill()
        await d.resume()
        assert len(erp.orders) == 1
        return [f"{row['outcome']} {row['reason']}" for row in await d.ledger.select("runs")]

    assert simulate(story) == ["completed "] * 2


@pytest.mark.parametrize("moment", [0.01, 0.03, 0.3, 0.55, 0.57, 0.6, 0.64, 0.7, 0.75, 1.0, 1.2, 1.5])
def test_killed_at_any_moment_it_orders_once_and_rightly(moment: float) -> None:
    async def story(sim: Simulation) -> Erp:
        erp = Erp(sim)
        d = desk(sim, erp, {})
        d.begin(case="a")
        d.begin(case="b")
        await sim.clock.sleep(moment)
        d.kill()
        await d.resume()
        rows = await d.ledger.select("runs")
        assert {row["outcome"] for row in rows} == {"completed"}
        [head] = await d.ledger.select("context")
        assert head["busy"] == 0
        return erp

    erp = simulate(story)
    assert len(erp.orders) == 1 and wrong(erp) == 0


def test_a_checkpoint_between_decision_and_action_holds_for_the_new_decision_too() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)
        d = Desk(sim, [erp.stock, erp.order], CONFIG)

        async def decide(ctx: Any, given: Any) -> Any:
            rules = await ctx.read("rules")
            await sim.clock.sleep(0.5)
            return {"count": rules.value}

        d.agent("decide", decide)
        d.workflow(
            "decide",
            {"checkpoint": {"that": "decide.count < 50", "otherwise": "escalate"}},
            {
                "action": {
                    "tool": "erp.order",
                    "with": {"count": "decide.count"},
                    "undo": "none",
                    "gate": {"agents": "decide", "on": "rules"},
                }
            },
        )
        await d.ws.context.set("rules", 10, by="ann")
        task = d.begin()
        await sim.clock.sleep(0.3)
        await d.ws.context.set("rules", 500, by="ann")
        run = await task
        assert run.outcome == "escalated" and erp.orders == []

    simulate(story)


def test_read_write_conflicts_are_counted() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)
        d = desk(sim, erp, None)
        task = d.begin()
        await sim.clock.sleep(0.3)
        await d.ws.context.set("stock/widget", 50, by="ann")
        await task
        [stats] = await d.ws.context.stats("stock/*")
        assert (stats.read_conflicts, stats.write_conflicts, stats.reads) == (1, 0, 1)

    simulate(story)


def test_an_action_whose_fate_is_unknown_makes_its_values_old_and_holds_nobody_up() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)

        async def lost(request: Request) -> Any:
            await erp._order(request)
            raise OutcomeUnknown("its answer was lost")

        schema = {"type": "object"}
        erp.order = Served(ToolSpec("erp.order", effect="write", input_schema=schema, timeout=2.0), lost)
        d = desk(sim, erp, {})
        assert (await d.run(case="a")).outcome == "escalated"
        [head] = await d.ledger.select("context")
        assert head["busy"] == 0 and head["used"] > head["since"]
        assert (await d.run(case="b")).outcome == "completed"
        assert len(erp.orders) == 1 and erp.reads == 2

    simulate(story)


def test_an_undone_action_makes_its_values_old_again() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)

        async def back(request: Request) -> Any:
            erp.position -= 100
            return {}

        schema = {"type": "object"}
        undo = Served(ToolSpec("erp.back", effect="write", input_schema=schema, idempotency="key"), back)
        d = Desk(sim, [erp.stock, erp.order, undo], CONFIG)

        async def decide(ctx: Any, given: Any) -> Any:
            return {"count": 100 if (await ctx.read("stock/widget")).value < 10 else 0}

        async def fail(ctx: Any, given: Any) -> Any:
            raise DataMissing("no")

        d.agent("decide", decide)
        d.agent("fail", fail)
        action: dict[str, Any] = {"tool": "erp.order", "with": {"count": "decide.count"}}
        action |= {"undo": {"tool": "erp.back", "with": {"id": "result.id"}}}
        action["gate"] = {"agents": "decide", "on": "stock/*", "when": "decide.count > 0"}
        d.workflow("decide", {"action": action}, "fail", name="failing")
        d.workflow("decide", {"action": action})
        assert (await d.run("failing")).outcome == "escalated" and erp.position == 0
        assert (await d.run(case="again")).outcome == "completed"
        assert erp.position == 100 and wrong(erp) == 0

    simulate(story)


def test_a_rehearsed_fork_holds_no_value_and_writes_none() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)
        d = desk(sim, erp, {})
        run = await d.run()
        before = await d.ledger.select("context")
        forked = await d.process.start(fork(d.ws, run.id))
        assert (forked.outcome, forked.live, len(erp.orders)) == ("completed", False, 1)
        after = await d.ledger.select("context")
        names = ("version", "busy", "used", "writes")
        assert [[row[name] for name in names] for row in before] == [[row[name] for name in names] for row in after]

    simulate(story)


def test_what_a_step_reads_for_its_agent_counts_as_read_by_it() -> None:
    async def story(sim: Simulation) -> None:
        erp = Erp(sim)
        d = Desk(sim, [erp.order], CONFIG.replace("tool: erp.stock", "tool: erp.order"))

        async def decide(ctx: Any, given: Any) -> Any:
            await sim.clock.sleep(0.5)
            return {"count": given["most"]}

        d.agent("decide", decide, input={"most": "int"})
        action: dict[str, Any] = {"tool": "erp.order", "with": {"count": "decide.count"}, "undo": "none"}
        action["gate"] = {"agents": "decide", "on": "rules"}
        d.workflow({"decide": {"with": {"most": "context.rules"}}}, {"action": action})
        await d.ws.context.set("rules", 10, by="ann")
        task = d.begin()
        await sim.clock.sleep(0.3)
        await d.ws.context.set("rules", 7, by="ann")
        assert (await task).outcome == "completed"
        assert [count for _, count, _ in erp.orders] == [7]

    simulate(story)
