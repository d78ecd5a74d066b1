"""Peers under any schedule: whoever dies when, and whoever is how slow, each sub-problem is done once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from engine_desk import Desk, simulate
from hypothesis import given, settings
from hypothesis import strategies as st
from peers_desk import BOARD, add, diligent, keys, run, step

from board_desk import held_by_one
from tightship.context.board import Move, Spot, play
from tightship.core import kinds
from tightship.runtime.simulation import Simulation


def test_a_process_that_dies_at_any_append_takes_no_turn_twice_and_loses_no_result() -> None:
    async def helper(ctx: Any, given: dict[str, Any]) -> Any:
        asks = [one for one in given["inbox"] if one["kind"] == "ask"]
        replies = [{"to": one["from"], "kind": "reply", "re": one["id"], "data": 7} for one in asks]
        return {**(await diligent(0.01)(ctx, given)), "messages": replies}

    async def asker(ctx: Any, given: dict[str, Any]) -> Any:
        heard = [one["data"] for one in given["inbox"] if one["kind"] == "reply"]
        if heard:
            return {"results": [{"key": key, "value": heard[0]} for key in keys(given["mine"])]}
        if given["mine"] or not given["open"]:
            return {}
        return {"claim": ["x"], "messages": [{"to": "helper", "kind": "ask", "about": "x"}]}

    def play(at: int) -> int:
        async def story(sim: Simulation) -> int:
            desk = Desk(sim)
            add(desk, "asker", asker)
            add(desk, "helper", helper)
            desk.workflow(step("asker", "helper"), **BOARD)
            begun = desk.process.start(desk.ws.run("flow", {"items": ["x", "y"]}))
            while await desk.ledger.head() < at and not begun.done():
                await sim.world().clock.sleep(0.001)
            if not begun.done():
                desk.kill()
                await desk.resume()
            found = await desk.only()
            assert found.outcome == "completed", (at, found.package)
            assert {one["key"]: one["value"] for one in found.output["results"]} == {"x": 7, "y": "Y"}, at
            turns = [entry.key for entry in found.entries if entry.kind == kinds.TURN]
            assert len(turns) == len(set(turns))
            await held_by_one(desk.ledger)
            return len(found.entries)

        return simulate(story)

    for at in range(1, play(1000)):
        play(at)


def test_a_process_that_dies_while_claims_are_given_back_at_the_end_comes_to_the_same_end() -> None:
    async def holds(ctx: Any, given: dict[str, Any]) -> Any:
        return {"claim": [] if given["mine"] else keys(given["open"])[:1]}

    def play(at: int) -> int:
        async def story(sim: Simulation) -> int:
            desk = Desk(sim)
            add(desk, "a", holds)
            add(desk, "b", holds)
            desk.workflow(step("a", "b", scope="tenant", then="keep"), **BOARD)
            begun = desk.process.start(desk.ws.run("flow", {"items": ["x", "y"]}))
            while await desk.ledger.head() < at and not begun.done():
                await sim.world().clock.sleep(0.001)
            if not begun.done():
                desk.kill()
                await desk.resume()
            found = await desk.only()
            assert found.outcome == "completed", (at, found.reason, found.package)
            assert sorted(keys(found.output["open"])) == ["x", "y"], at
            await held_by_one(desk.ledger)
            assert [row["ends"] for row in await desk.ledger.select("context")] == [0.0, 0.0], "given back"
            return len(found.entries)

        return simulate(story)

    for at in range(1, play(1000)):
        play(at)


def test_a_process_that_dies_once_claims_went_back_finds_them_in_the_order_in_which_they_went() -> None:
    async def holds(ctx: Any, given: dict[str, Any]) -> Any:
        return {"claim": keys(given["open"])}

    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        add(desk, "a", holds)
        desk.workflow(step("a", then="keep", within=5.0), **BOARD)
        begun = desk.process.start(desk.ws.run("flow", {"items": ["z", "x", "y"]}))  # not as their names are sorted
        first = desk.process

        def dies(entries: Any, foreign: bool) -> None:
            if any(entry.key.startswith("shared/return/a/") for entry in entries):
                first.kill()

        desk.ledger.listen(dies)
        while first.alive and not begun.done():
            await sim.world().clock.sleep(0.1)
        assert not begun.done(), "it died while it gave back"
        desk.open()
        await desk.resume()
        found = await desk.only()
        assert found.outcome == "completed", (found.reason, found.package)
        assert sorted(keys(found.output["open"])) == ["x", "y", "z"]

    simulate(story)


# --- whatever the schedule ---------------------------------------------------------------------------

ITEMS = ("x", "y")
KINDS: list[Any] = ["claim", "result", "release", "renew", "give"]
HANDS = (("r1", "a"), ("r1", "b"), ("r2", "a"))
MOVES = st.tuples(
    st.sampled_from(HANDS),
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(ITEMS)), min_size=1, max_size=3),
    st.sampled_from([0, 0, 1, 31]),
)


@given(st.lists(MOVES, max_size=40))
def test_two_never_hold_one_and_only_a_holder_finishes_it(schedule: Any) -> None:
    spots, holder, ends, now = {item: Spot(item) for item in ITEMS}, dict[str, Any](), dict[str, float](), 0.0
    finished = dict[str, Any]()
    for (holding, by), wanted, seconds in schedule:
        now += seconds
        for item, spot in spots.items():
            if spot.state == "held" and now >= ends[item]:  # what the store shows once the lease has run out
                spots[item] = Spot(item, run=spot.run, by=spot.by, version=spot.version, lapsed=True)
        moves = [Move(kind, item, (holding, by, item), "b" if kind == "give" else "") for kind, item in wanted]
        before = dict(spots)
        verdicts, changed = play(moves, spots, holding, by)
        for item, (was, after) in changed.items():
            assert was == before[item]
            spots[item] = after
            ends[item] = now + 30
        for verdict, move in zip(verdicts, moves, strict=True):
            if verdict.why:
                continue
            item, me = move.item, (holding, by)
            lapsed = before[item].state == "open"
            assert holder.get(item) in (None, me) or lapsed, "somebody else held it"
            assert item not in finished or finished[item] == me, "what is done stays done"
            if move.kind == "result":
                assert finished.get(item) in (None, me)
                finished[item] = me
            holder[item] = (holding, "b") if move.kind == "give" else None if move.kind == "release" else me
            before[item] = replace(before[item], state="held")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(0.1, 50), min_size=4, max_size=4),
    st.integers(1, 3),
    st.sampled_from(["run", "tenant"]),
)
def test_whatever_their_pace_every_sub_problem_is_done_by_exactly_one(paces: Any, most: int, scope: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)
        for name, pace in zip("abcd", paces, strict=True):
            add(desk, name, diligent(pace, most))
        desk.workflow(step(*"abcd", scope=scope, lease="20s"), **BOARD)
        count = 2 if scope == "tenant" else 1
        found = await asyncio.gather(*(run(desk, *"uvwxyz", reference=f"r{n}") for n in range(count)))
        done = [one["key"] for each in found if each.output for one in each.output["results"]]
        if all(each.outcome == "completed" for each in found):
            assert sorted(done) == list("uvwxyz")
        assert len(done) == len(set(done))
        await held_by_one(desk.ledger)

    simulate(story)
