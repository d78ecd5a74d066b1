"""How much is taken in: bounded, fair between tenants, the lowest priorities refused first, late work not begun."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool
from hypothesis import given
from hypothesis import strategies as st

from tightship.core import kinds
from tightship.core.errors import Overloaded
from tightship.ledger.claiming import AGE, rank
from tightship.runtime.admission import Gatekeeper
from tightship.runtime.engine import Start
from tightship.runtime.fairness import fair_order
from tightship.runtime.simulation import Simulation
from tightship.workflow.config import Admission

rows = st.lists(
    st.fixed_dictionaries(
        {"tenant": st.sampled_from("abc"), "priority": st.integers(0, 9), "started_at": st.floats(0, 2000)}
    ),
    max_size=40,
)


def numbered(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "id": f"{number:03}"} for number, row in enumerate(found)]


@given(rows, st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)))
def test_every_place_goes_to_the_tenant_with_the_fewest_at_work(
    found: list[dict[str, Any]], working: dict[str, int]
) -> None:
    order = fair_order(numbered(found), working)
    assert sorted(row["id"] for row in order) == [row["id"] for row in numbered(found)]
    busy = {name: working.get(name, 0) for name in "abc"}
    for place, row in enumerate(order):
        left = {one["tenant"] for one in order[place:]}
        assert busy[row["tenant"]] == min(busy[name] for name in left)
        busy[row["tenant"]] += 1


@given(rows)
def test_nobody_is_passed_over_by_work_that_came_nine_minutes_later(found: list[dict[str, Any]]) -> None:
    order = [row for row in fair_order(numbered(found), {}) if row["tenant"] == "a"]
    for place, row in enumerate(order):
        assert all(later["started_at"] >= row["started_at"] - 9 * AGE for later in order[place:])
        assert all(
            rank(row["priority"], row["started_at"]) <= rank(later["priority"], later["started_at"])
            for later in order[place:]
        )


class Crowd:
    """Starts that come at a gatekeeper, each of which works for a second."""

    def __init__(self, sim: Simulation, **admission: Any) -> None:
        self.sim = sim
        self.gate = Gatekeeper(Admission.model_validate(admission), sim.clock)
        self.begun: list[str] = []
        self.refused: list[tuple[str, float]] = []
        self.most: dict[str, int] = {}
        self._at: dict[str, int] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def come(self, tenant: str, priority: int = 0, workflow: str = "flow", times: int = 1) -> None:
        """So many starts."""
        self.tasks += [asyncio.ensure_future(self._one(tenant, priority, workflow)) for _ in range(times)]

    async def _one(self, tenant: str, priority: int, workflow: str) -> None:
        try:
            async with self.gate.place(tenant, workflow, priority):
                self.begun.append(f"{tenant}{priority}")
                for name in (tenant, workflow):
                    self._at[name] = self._at.get(name, 0) + 1
                    self.most[name] = max(self.most.get(name, 0), self._at[name])
                await self.sim.clock.sleep(1.0)
                for name in (tenant, workflow):
                    self._at[name] -= 1
        except Overloaded as error:
            self.refused.append((f"{tenant}{priority}", error.retry_after))

    async def done(self) -> None:
        """Until all have begun and ended, or were refused."""
        await asyncio.gather(*self.tasks)


def test_a_full_queue_refuses_with_a_time_to_come_again_and_never_holds_more() -> None:
    async def story(sim: Simulation) -> Any:
        crowd = Crowd(sim, running=2, queued=10)
        crowd.come("a", times=40)
        await sim.clock.sleep(0.5)
        most = crowd.gate.waiting()
        await crowd.done()
        return crowd, most

    crowd, most = simulate(story)
    assert (len(crowd.begun), len(crowd.refused), most) == (12, 28, 10)
    assert all(after > 0 for _, after in crowd.refused)


def test_the_lowest_priorities_are_refused_first() -> None:
    async def story(sim: Simulation) -> Any:
        crowd = Crowd(sim, running=1, queued=20)
        for priority in (9, 5, 0):
            crowd.come("a", priority, times=20)
            await sim.clock.sleep(0)
        await crowd.done()
        return crowd

    crowd = simulate(story)
    begun = [crowd.begun.count(name) for name in ("a9", "a5", "a0")]
    assert begun == [1 + 11, 4, 5]  # of 20 places, 9 may fill 11, 5 fills up to 15, and 0 all


def test_a_tenant_that_fills_the_queue_makes_room_for_one_that_does_not() -> None:
    async def story(sim: Simulation) -> Any:
        crowd = Crowd(sim, running=1, queued=10)
        crowd.come("g", times=30)
        await sim.clock.sleep(0.5)
        crowd.come("a", times=5)
        await crowd.done()
        return crowd

    crowd = simulate(story)
    assert crowd.begun.count("a0") >= 4
    assert crowd.begun.index("a0") <= 2, "and it is taken up next, as the tenant with fewer at work"


def test_tenants_and_workflows_have_no_more_at_work_than_their_bounds() -> None:
    async def story(sim: Simulation) -> Any:
        crowd = Crowd(sim, running=10, tenants={"g": {"running": 2}}, workflows={"slow": {"running": 3}})
        crowd.come("g", times=8)
        crowd.come("a", workflow="slow", times=8)
        crowd.come("b", times=8)
        await crowd.done()
        return crowd

    crowd = simulate(story)
    assert (crowd.most["g"], crowd.most["slow"]) == (2, 3)
    assert len(crowd.begun) == 24


def test_whoever_gives_up_waiting_leaves_its_place_to_others() -> None:
    async def story(sim: Simulation) -> Any:
        crowd = Crowd(sim, running=1, queued=10)
        crowd.come("a", times=3)
        await sim.clock.sleep(0.5)
        crowd.tasks[1].cancel()
        await asyncio.gather(*crowd.tasks, return_exceptions=True)
        crowd.tasks.clear()
        crowd.come("a")
        await crowd.done()
        return crowd, crowd.gate.waiting()

    crowd, waiting = simulate(story)
    assert (len(crowd.begun), waiting) == (3, 0)


async def slow(ctx: Any, given: dict[str, Any]) -> Any:
    """Takes ten seconds."""
    await ctx.tool("shop.look", {})
    return {}


class Slow:
    """A tool that takes its time."""

    def __init__(self, sim: Simulation) -> None:
        self.inner, self.sim = tool("shop.look", "seen", timeout=60.0), sim
        self.spec = self.inner.spec

    async def perform(self, request: Any) -> Any:
        """Wait, then answer."""
        await self.sim.clock.sleep(10.0)
        return await self.inner.perform(request)

    async def lookup(self, request: Any) -> Any:
        """As inside."""
        return None


def test_a_start_beyond_the_bound_writes_nothing_and_a_run_that_exists_is_no_new_start() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [Slow(sim)], "admission: {running: 1, queued: 1}\n")
        desk.agent("a", slow)
        desk.workflow("a")
        first = desk.begin(reference="one")
        second = desk.begin(reference="two")
        await sim.clock.sleep(1.0)
        with pytest.raises(Overloaded) as refused:
            await desk.run(reference="three")
        started = len(await desk.entries(kinds.STARTED))
        again = desk.begin(reference="one")
        runs = await asyncio.gather(first, second, again)
        return refused.value, started, [run.outcome for run in runs]

    error, started, outcomes = simulate(story)
    assert started == 1
    assert error.as_dict()["retry_after"] > 0
    assert outcomes == ["completed"] * 3


def test_a_run_that_waited_too_long_is_escalated_and_nothing_of_it_is_done() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [look := tool("shop.look", "seen")])
        desk.agent("a", slow)
        desk.workflow("a", begin_within=60)
        body = await _left(desk, sim, 30)
        late = await _left(desk, sim, 90)
        return look, await desk.ws.result(body), await desk.ws.result(late)

    look, soon, late = simulate(story)
    assert soon.outcome == "completed"
    assert (late.outcome, late.reason) == ("escalated", "unavailable")
    assert len(look.calls) == 1


async def _left(desk: Desk, sim: Simulation, seconds: float) -> str:
    """A run whose process dies directly after it was recorded; it is resumed so much later."""
    before = {row["id"] for row in await desk.ledger.select("runs")}
    engine = await desk.process.start(desk.ws.engine())
    run = await desk.process.start(engine.start(Start("flow", {"case": "one"})))
    desk.kill()
    await sim.clock.sleep(seconds)
    await desk.resume()
    assert run not in before
    return run


def test_the_sweep_keeps_to_the_bounds_of_tenants_and_serves_them_in_turn() -> None:
    async def story(sim: Simulation) -> Any:
        look = Slow(sim)
        desk = Desk(sim, [look], "admission: {tenants: {g: {running: 2}}}\n")
        desk.agent("a", slow)
        desk.workflow("a")
        engine = await desk.process.start(desk.ws.engine())
        for tenant in "ggggggab":
            await desk.process.start(engine.start(Start("flow", {"case": "one"}, tenant=tenant)))
        desk.kill()
        stop = asyncio.Event()
        serving = desk.process.start(desk.ws.serve(stop, concurrency=3))
        await sim.clock.sleep(5.0)
        first = sorted(row["tenant"] for row in await desk.ledger.select("runs") if row["epoch"] > 1)
        await sim.clock.sleep(60.0)
        rows = await desk.ledger.select("runs")
        stop.set()
        await serving
        return first, rows

    first, rows = simulate(story)
    assert first == ["a", "b", "g"]
    assert {row["outcome"] for row in rows} == {"completed"}
    spans = sorted((row["ended_at"] - 10, row["ended_at"]) for row in rows if row["tenant"] == "g")
    assert all(sum(begin <= at < end for begin, end in spans) <= 2 for at, _ in spans)
