"""Workflows that start by themselves: each slot once, however many look and however often; what was missed is recorded."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.core import kinds
from tightship.core.errors import LoadError
from tightship.ledger import Draft, Ledger, MemoryState
from tightship.patterns import load_all
from tightship.runtime.schedules import Schedules
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import Workspace, projections
from tightship.workflow.build import Agent, Workflow

HOURLY = {"cron": "0 * * * *", "input": {"n": 21}}
HOUR = 3600.0


async def double(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {"n": 2 * given["n"]}


def desk(sim: Simulation, folder: Path, state: MemoryState, schedule: dict[str, Any] | None = None) -> Workspace:
    """A process on the store."""
    load_all()
    (folder / "tightship.yaml").write_text("name: desk\nroles: {lead: [nora]}\n", "utf-8")
    world = sim.world()
    ws = Workspace.open(folder, world=world, ledger=Ledger.in_memory(world, projections(), state))
    ws.add(
        Agent("doubler", owner="o", purpose="double it", python="x:doubler", output={"n": "int"}),
        functions={"doubler": double},
    )
    twice = Workflow(
        "twice",
        owner="o",
        purpose="double it",
        input={"n": "int"},
        steps=["doubler"],
        schedule=HOURLY if schedule is None else schedule,
    )
    ws.add(twice)
    return ws


def schedules(ws: Workspace, ledger: Ledger) -> Schedules:
    return Schedules(ledger, ws.files.workflows, ws._starting)


def story(tell: Callable[[Simulation, Path, MemoryState], Awaitable[None]]) -> Callable[[Simulation], Awaitable[None]]:
    async def told(sim: Simulation) -> None:
        with tempfile.TemporaryDirectory() as folder:
            await tell(sim, Path(folder), MemoryState())

    return told


async def to_next_hour(sim: Simulation, more: float = 1.0) -> None:
    now = sim.clock.now()
    await sim.clock.sleep(HOUR - now % HOUR + more)


async def references(ledger: Ledger) -> list[str]:
    return sorted(row["reference"] for row in await ledger.select("runs"))


async def kept(ledger: Ledger) -> dict[str, Any]:
    [row] = await ledger.select("schedules")
    return row


def test_a_schedule_that_is_new_starts_nothing_before_its_next_slot_and_then_once() -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        ws = desk(sim, folder, state)
        ledger = await ws.ledger()
        looks = schedules(ws, ledger)
        await looks.look()
        assert await references(ledger) == []
        await to_next_hour(sim)
        for _ in range(3):
            await looks.look()
        [reference] = await references(ledger)
        at = datetime.fromisoformat(reference.removeprefix("schedule:")).timestamp()
        assert at % HOUR == 0 and sim.clock.now() - at < 60
        assert (await kept(ledger))["missed"] == 0

    simulate(story(tell))


@pytest.mark.parametrize("processes", [2, 5])
def test_many_processes_that_look_at_once_start_a_slot_once(processes: int) -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        desks = [desk(sim, folder, state) for _ in range(processes)]
        ledgers = [await ws.ledger() for ws in desks]
        looks = [schedules(ws, ledger) for ws, ledger in zip(desks, ledgers, strict=True)]
        await looks[0].look()
        for _ in range(3):
            await to_next_hour(sim)
            await asyncio.gather(*(one.look() for one in looks))
        assert len(await references(ledgers[0])) == 3
        row = await kept(ledgers[0])
        assert (row["started"], row["missed"]) == (3, 0)

    simulate(story(tell), shuffle=True)


def test_of_the_slots_missed_while_everything_was_down_the_last_is_started_and_the_others_are_recorded() -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        ws = desk(sim, folder, state)
        await schedules(ws, await ws.ledger()).look()
        await to_next_hour(sim)
        first = sim.clock.now() - 1
        await sim.clock.sleep(5 * HOUR)
        again = desk(sim, folder, state)  # everything starts anew
        ledger = await again.ledger()
        looks = schedules(again, ledger)
        await looks.look()
        await looks.look()
        assert len(await references(ledger)) == 1
        row = await kept(ledger)
        assert (row["missed"], row["upto"]) == (5, first + 5 * HOUR)
        [entry] = [one for one in await ledger.entries() if one.kind == kinds.SCHEDULE and one.body.get("missed")]
        assert (entry.body["since"], entry.body["run"]) == (first, row["run"])

    simulate(story(tell))


def test_what_is_declared_anew_counts_from_then_on() -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        ws = desk(sim, folder, state)
        await schedules(ws, await ws.ledger()).look()
        await sim.clock.sleep(5 * HOUR)
        changed = desk(sim, folder, state, {"cron": "30 * * * *", "input": {"n": 1}})
        ledger = await changed.ledger()
        await schedules(changed, ledger).look()
        assert await references(ledger) == []
        assert ((await kept(ledger))["cron"], (await kept(ledger))["missed"]) == ("30 * * * *", 0)

    simulate(story(tell))


def test_a_halted_workflow_keeps_its_last_slot_until_it_is_let_go_on() -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        ws = desk(sim, folder, state)
        ledger = await ws.ledger()
        looks = schedules(ws, ledger)
        await looks.look()
        await ledger.append(Draft("", kinds.HALT, "", {"scope": "workflow:twice", "by": "ann", "reason": "audit"}))
        await to_next_hour(sim)
        await looks.look()
        assert await references(ledger) == []
        await ledger.append(Draft("", kinds.UNHALT, "", {"scope": "workflow:twice", "by": "ann", "reason": "done"}))
        await looks.look()
        assert len(await references(ledger)) == 1

    simulate(story(tell))


def test_who_serves_starts_what_is_due_and_carries_it_out() -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        ws = desk(sim, folder, state, {**HOURLY, "cron": "* * * * *"})
        stop = asyncio.Event()
        serving = asyncio.ensure_future(ws.serve(stop))
        await sim.clock.sleep(90 - sim.clock.now() % 60)
        await sim.clock.sleep(60)
        stop.set()
        await serving
        rows = await (await ws.ledger()).select("runs")
        assert [row["outcome"] for row in rows] == ["completed", "completed"]
        await ws.close()

    simulate(story(tell))


@settings(max_examples=25, deadline=None)
@given(
    pauses=st.lists(st.floats(1, 4 * HOUR), min_size=1, max_size=8), looks=st.integers(1, 3), seed=st.integers(0, 999)
)
def test_every_slot_is_started_or_recorded_as_missed_never_both(pauses: list[float], looks: int, seed: int) -> None:
    async def tell(sim: Simulation, folder: Path, state: MemoryState) -> None:
        ws = desk(sim, folder, state)
        ledger = await ws.ledger()
        await schedules(ws, ledger).look()
        began = sim.clock.now()
        for pause in pauses:
            await sim.clock.sleep(pause)
            await asyncio.gather(*(schedules(ws, ledger).look() for _ in range(looks)))
        come = int(sim.clock.now() // HOUR) - int(began // HOUR)
        row = await kept(ledger)
        assert row["started"] == len(await references(ledger))
        assert row["started"] + row["missed"] == come

    simulate(story(tell), seed, shuffle=True)


def test_a_schedule_that_is_wrong_says_where_and_how_to_mend_it() -> None:
    with pytest.raises(LoadError, match="five fields"):
        Workflow("w", owner="o", purpose="p", steps=["a"], schedule={"cron": "at noon"})
