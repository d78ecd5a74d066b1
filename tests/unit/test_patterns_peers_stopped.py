"""Peers that are stopped (a limit, a loop, a halt, a time limit around them) hold nothing any longer: other runs go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import PERSON, Desk, simulate
from peers_desk import BOARD, add, diligent, keys, step

from board_desk import held_by_one
from tightship.core import kinds
from tightship.patterns import Sequence
from tightship.runtime.simulation import Simulation

LEASE = 3600.0
SAID = (
    "please tell me again how this open case of our customer stands",
    "kindly tell me again how this open case of our customer stands",
    "please tell me once how this open case of our customer stands",
    "kindly tell me once how this open case of our customer stands",
)
GOES_ON = {"unavailable": {"then": "continue", "give": {}}}


def holds(says: bool = False, seconds: float = 1.0) -> Any:
    """A peer that claims all that is open, and talks, or works on it for so long."""

    async def peer(ctx: Any, given: dict[str, Any]) -> Any:
        mine = keys(given["mine"])
        await asyncio.sleep(seconds if mine else 0.1)
        other = given["peers"][0]
        tells = [{"to": other, "kind": "tell", "text": SAID[len(given["mail"]) % len(SAID)]}] if says else []
        return {"claim": keys(given["open"]), "messages": tells}

    return peer


def opened(sim: Simulation, says: bool = False, seconds: float = 1.0, *, last: str = "", **fields: Any) -> Desk:
    """A desk whose two peers share a board with all runs, and a second workflow on the same board that does the work."""
    desk = Desk(sim)
    given = {"open": "list", "mine": "list", "mail": "list", "peers": "list"}
    for name in ("a", "b"):
        desk.agent(name, holds(says, seconds), tools=[], input=given, within="3h")
    add(desk, "good", diligent())
    add(desk, "better", diligent(1.3))

    async def slow(ctx: Any, given: dict[str, Any]) -> Any:
        await asyncio.sleep(120)
        return {}

    desk.agent("slow", slow, tools=[], within="3h")
    shared = step("a", "b", scope="tenant", lease="1h", within="3h", turns=100)
    around = Sequence(shared, within="30s", on=GOES_ON) if last else shared
    desk.workflow(around, *([last] if last else []), **BOARD, **fields)
    desk.workflow(step("good", "better", scope="tenant", lease="1h"), **BOARD, name="others")
    return desk


async def boards(desk: Desk) -> list[float]:
    """Until when the sub-problems of all boards are held; 0 for those that are not."""
    return [row["ends"] for row in await desk.ledger.select("context") if row["scope"].startswith("board:")]


async def done_by_others(desk: Desk, sim: Simulation) -> None:
    """Another run finds the sub-problem open, long before the claim would have run out."""
    began = sim.world().clock.now()
    other = await desk.process.start(desk.ws.run("others", {"items": ["x"]}, reference="another"))
    assert other.outcome == "completed" and keys(other.output["results"]) == ["x"]
    assert sim.world().clock.now() - began < LEASE / 4


STOPS: dict[str, dict[str, Any]] = {
    "halted": {"seconds": LEASE},
    "cancelled": {"seconds": LEASE},
    "near repeat": {"says": True},
    "calls": {"says": True, "limits": {"calls": 12, "similar": 1000}},
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_peers_held_is_open_to_other_runs_at_once(stop: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = opened(sim, **STOPS[stop])
        begun = desk.process.start(desk.ws.run("flow", {"items": ["x"]}))
        if stop in ("halted", "cancelled"):
            await asyncio.sleep(5)
            operator = await desk.operator()
            assert max(await boards(desk)) > 0, "it is held"
            if stop == "halted":
                await operator.halt("workflow:flow", PERSON)
            else:
                await operator.cancel((await desk.only()).id, PERSON)
        found = await begun
        assert found.outcome == ("cancelled" if stop == "cancelled" else "escalated")
        assert any(entry.kind == kinds.CONTEXT and entry.body.get("ttl") for entry in found.entries), "it had been held"
        assert await boards(desk) == [0.0]
        await held_by_one(desk.ledger)
        await done_by_others(desk, sim)

    simulate(story)


def test_peers_whose_time_is_over_hold_nothing_while_their_run_goes_on() -> None:
    async def story(sim: Simulation) -> None:
        desk = opened(sim, seconds=LEASE, last="slow")
        begun = desk.process.start(desk.ws.run("flow", {"items": ["x"]}))
        await asyncio.sleep(60)
        assert await boards(desk) == [0.0] and not begun.done()
        await done_by_others(desk, sim)
        assert (await begun).outcome == "completed"

    simulate(story)


@pytest.mark.parametrize("stop", ["near repeat", "calls"])
def test_a_process_that_dies_at_any_append_gives_back_the_same(stop: str) -> None:
    def play(at: int) -> tuple[Any, int]:
        async def story(sim: Simulation) -> tuple[Any, int]:
            desk = opened(sim, **STOPS[stop])
            begun = desk.process.start(desk.ws.run("flow", {"items": ["x"]}))
            while at and await desk.ledger.head() < at and not begun.done():
                await sim.world().clock.sleep(0.001)
            if at and not begun.done():
                desk.kill()
                await desk.resume()
            else:
                await begun
            found = await desk.only()
            assert await boards(desk) == [0.0], at
            returned = [entry for entry in found.entries if entry.key.endswith("/returned")]
            assert len(returned) <= 1, at
            return (found.outcome, found.reason), await desk.ledger.head()

        return simulate(story)

    undisturbed, head = play(0)
    for at in range(head - 20, head):  # from before it is stopped on
        assert play(at)[0] == undisturbed, at


def test_a_replay_gives_nothing_back_that_a_later_step_has_claimed_since() -> None:
    async def story(sim: Simulation) -> None:
        desk = opened(sim, seconds=LEASE)
        first = Sequence(
            step("a", "b", scope="tenant", lease="1h", within="3h", name="peers"), within="30s", on=GOES_ON
        )
        later = step("a", "b", scope="tenant", lease="1h", within="3h", name="peers")
        desk.workflow(first, later, **BOARD, name="twice")
        desk.process.start(desk.ws.run("twice", {"items": ["x"]}))
        await asyncio.sleep(60)
        held = await boards(desk)
        assert held[0] > 0
        desk.kill()
        desk.process.start(desk.ws.resume())
        await asyncio.sleep(60)
        assert await boards(desk) == held

    simulate(story)
