"""A saga that is cut off from around (a time limit, an ended branch) is undone before the run goes on, whenever the
process dies; and what could not be undone is reported once, whoever undoes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from engine_desk import Desk, simulate
from test_patterns_saga import Shop, action, notes

from tightship.core import kinds
from tightship.core.errors import Unavailable
from tightship.insight import show
from tightship.patterns import Concurrent, Foreach, Manager, Saga, Sequence, Vote, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()

GOES_ON = {"unavailable": {"then": "continue", "give": {"done": False}}}


async def slow(ctx: Any, given: dict[str, Any]) -> Any:
    """An agent that takes longer than anybody waits for it."""
    await asyncio.sleep(5)
    return {"ok": True}


async def fails(ctx: Any, given: dict[str, Any]) -> Any:
    """An agent that fails when the others are under way."""
    await asyncio.sleep(0.3)
    raise Unavailable("not today")


async def answers(ctx: Any, given: dict[str, Any]) -> Any:
    """An agent that answers at once."""
    return {"ok": True}


async def plans(ctx: Any, given: dict[str, Any]) -> Any:
    """A planner with one task."""
    return {"tasks": [{"id": "a", "worker": "work", "goal": "do it", "needs": [], "covers": []}]}


def opened(sim: Simulation, shop: Shop) -> Desk:
    """A desk with the shop's tools, these agents and child workflows that are slow and quick."""
    desk = Desk(sim, shop.tools())
    for agent in (slow, fails, answers):
        desk.agent(agent.__name__, agent, tools=[])
    desk.agent("plans", plans, tools=[], output={"tasks": "list[object]"})
    desk.workflow(action("charge"), "slow", name="slow-child")
    desk.workflow(action("charge"), name="child")
    return desk


def saga(**fields: Any) -> Saga:
    return Saga(action("charge"), "slow", **fields)


def item_by_item() -> Any:
    """Two items side by side: the second one fails while the first one is in its saga."""
    per_item = {"when": {"if": "index == 0", "then": saga(), "else": "fails"}}
    return Foreach(in_="['a', 'b']", as_="one", steps=per_item, concurrency=2, on_failure="end", on=GOES_ON)


AROUND: dict[str, Callable[[], Any]] = {
    "a time limit": lambda: Sequence(saga(), within=0.3, on=GOES_ON),
    "a branch that is ended": lambda: Concurrent(branches=[saga(), "fails"], on_failure="end", on=GOES_ON),
    "an item that is ended": item_by_item,
    "a voter whose time is over": lambda: Vote(Sequence(saga()), "answers", "answers", need=2, within=0.3),
    "a manager whose time is over": lambda: Manager(plan="plans", workers={"work": saga()}, within=0.3, on=GOES_ON),
    "one saga in another": lambda: Sequence(
        Saga(action("charge"), Saga(action("ship"), "slow")), within=0.3, on=GOES_ON
    ),
    "a child run": lambda: Sequence(Saga(WorkflowStep("slow-child")), within=0.3, on=GOES_ON),
    "a child run that has ended": lambda: Sequence(
        Saga(action("ship"), WorkflowStep("child"), "slow"), within=0.3, on=GOES_ON
    ),
}


@pytest.mark.parametrize("around", AROUND)
def test_a_saga_that_is_cut_off_from_around_is_undone_before_the_run_goes_on(around: str) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop()
        desk = opened(sim, shop)
        desk.workflow(AROUND[around](), action("book"))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == ["book"]
        assert shop.calls.count("uncharge") == 1 and shop.calls[-1] == "book"
        assert len(notes(run, "saga.undone")) == (2 if around == "one saga in another" else 1)
        if "ship" in shop.calls:
            assert shop.calls.index("unship") < shop.calls.index("uncharge") or around == "a child run that has ended"
        assert not await (await desk.operator()).items()

    simulate(story)


def test_a_saga_that_has_ended_stands_when_what_is_around_it_is_cut_off() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop()
        desk = opened(sim, shop)
        desk.workflow(Sequence(Saga(action("charge")), "slow", within=0.3, on=GOES_ON))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == ["charge"] and not notes(run, "saga.undone")

    simulate(story)


def test_each_try_of_what_is_around_begins_with_nothing_of_the_one_before() -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop()
        desk = opened(sim, shop)
        again = {"unavailable": {"retry": 1, "then": "continue", "give": {}}}
        claimed = {**action("charge"), "claim": "'the charge'"}
        desk.workflow(Sequence(Saga(claimed, "slow"), within=0.3, on=again))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == []
        assert shop.calls == ["charge", "uncharge"] * 2

    simulate(story)


@pytest.mark.parametrize("deaf", [3, 100])
def test_a_saga_that_is_cut_off_while_it_is_undone_is_undone_to_the_end(deaf: int) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",), deaf=deaf)
        desk = opened(sim, shop)
        inner = Saga(action("charge"), action("ship"), undo_retry={"times": 2, "after": 20})
        desk.workflow(Sequence(inner, within="10s", on=GOES_ON), action("book"))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == (["book"] if deaf == 3 else ["charge", "book"])
        items = await (await desk.operator()).items()
        assert [item.type for item in items] == ["residual"] * (deaf == 100)
        assert len(notes(run, "saga.undone")) == 1

    simulate(story)


def play(around: str, at: int, before: bool, broken: tuple[str, ...]) -> tuple[Any, int]:
    """What a run leaves behind whose process dies before or after its append of this number, and how many there are."""

    async def story(sim: Simulation) -> tuple[Any, int]:
        shop, appends = Shop(broken=broken), 0
        desk = opened(sim, shop)
        desk.workflow(AROUND[around](), action("book"))
        process, append = desk.process, desk.ledger.append

        def counted(*drafts: Any, **named: Any) -> Any:
            nonlocal appends
            appends += 1
            if appends == at and before:
                process.kill()
                return asyncio.get_running_loop().create_future()
            told = append(*drafts, **named)
            if appends == at:
                told.add_done_callback(lambda _: process.kill())
            return told

        desk.ledger.append = counted  # type: ignore[method-assign]
        task = desk.begin()
        dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        process.on_death(lambda: dead.set_result(None))
        await asyncio.wait([task, dead], return_when=asyncio.FIRST_COMPLETED)
        if not process.alive:
            desk.kill()
            await desk.resume()
        rows = await desk.ledger.select("runs", [("parent", "=", "")])
        if not rows:  # it died before there was a run
            return None, appends
        run = await desk.only()
        assert len(notes(run, "saga.undone")) == (2 if around == "one saga in another" else 1), run
        items = [item.type for item in await (await desk.operator()).items()]
        return (run.outcome, shop.stands, items), appends

    return simulate(story)


@pytest.mark.parametrize(
    ("around", "broken"),
    [
        *((around, ()) for around in AROUND),
        ("one saga in another", ("unship",)),
        ("a branch that is ended", ("uncharge",)),
    ],
)
def test_a_process_that_dies_at_any_append_leaves_the_same_behind(around: str, broken: tuple[str, ...]) -> None:
    told, appends = play(around, 0, False, broken)
    stays = [one.removeprefix("un") for one in broken]
    assert told == ("completed", [*stays, "book"], ["residual"] * len(broken))
    for at in range(1, appends + 1):
        for before in (True, False):
            left, _ = play(around, at, before, broken)
            assert left in (told, None) and (left or at < 5), (at, before)


@pytest.mark.parametrize("end", ["failed", "cancelled", "escalated"])
def test_what_a_saga_has_reported_is_not_reported_again_by_the_end_of_its_run(end: str) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship", "uncharge"))
        desk = opened(sim, shop)
        last = {"review": {"by": "operator", "within": "1h", "otherwise": "escalate", "of": "x"}}
        broken = {**action("ship"), "on": {"unforeseen": {"then": "fail" if end == "failed" else "escalate"}}}
        desk.workflow(
            Saga(action("charge"), action("ship"), then="continue", give={}), last if end == "cancelled" else broken
        )
        run = await desk.run()
        operator = await desk.operator()
        if end == "cancelled":
            await operator.cancel(run.id, by="ann")
            await desk.resume()
            run = await desk.only()
        assert run.outcome == end and shop.calls.count("uncharge") == 1
        assert [item.type for item in await operator.items() if item.type != "escalation"] == ["residual"]
        ended = next(entry for entry in run.entries if entry.kind == kinds.ENDED)
        assert ended.body["residual"] == 1, "the end still says what remains"

    simulate(story)


@pytest.mark.parametrize("inner", ["a saga", "a child run", "a child run that has failed"])
def test_what_is_inside_has_reported_is_not_reported_or_undone_again_by_the_saga_around(inner: str) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship", "uncharge"))
        desk = opened(sim, shop)
        then: Any = "escalate" if inner == "a saga" else "fail" if inner.endswith("failed") else "continue"
        within = Saga(action("charge"), action("ship"), then=then, give={})
        desk.workflow(within, name="below")
        outer = Saga(action("book"), within if inner == "a saga" else WorkflowStep("below"), action("ship"))
        desk.workflow(Sequence(outer, on={"unforeseen": {"then": "continue", "give": {}}}))
        run = await desk.run()
        assert run.outcome == "completed" and shop.stands == ["charge"]
        assert shop.calls.count("uncharge") == 1
        assert [item.type for item in await (await desk.operator()).items()] == ["residual"]

    simulate(story)


@pytest.mark.parametrize("end", ["halted", "failed"])
def test_what_a_run_that_undoes_nothing_leaves_is_shown_to_people(end: str) -> None:
    async def story(sim: Simulation) -> None:
        shop = Shop(broken=("ship",) if end == "failed" else ())
        desk = opened(sim, shop)
        last = {**action("ship"), "on": {"unforeseen": {"then": "fail"}}}
        steps = (Saga(action("book"), action("charge")), last)
        desk.workflow(*((Saga(action("book"), "slow"),) if end == "halted" else steps), undo_on_failure=False)
        begun = desk.begin()
        if end == "halted":
            await asyncio.sleep(2)
            await (await desk.operator()).halt("workflow:flow", by="ann")
        await asyncio.wait({begun})
        run = await desk.only()
        done = ["book"] if end == "halted" else ["book", "charge"]
        view = await show(desk.ledger, run.id)
        assert shop.stands == done and run.outcome == ("escalated" if end == "halted" else "failed")
        assert [one.partition(" (")[0] for one in view.stands] == [f"shop.{name}" for name in done]
        assert "stands outside, since undo_on_failure is false:" in view.render()
        if end == "halted":
            assert run.package is not None
            (left,) = run.package["evidence"]["done outside"]
            assert (left["tool"], left["now"]) == ("shop.book", "stands")
            assert "undo_on_failure: false" in left["why"]

    simulate(story)


def test_of_a_run_that_undoes_what_it_did_nothing_is_said_to_stand() -> None:
    async def story(sim: Simulation) -> None:
        desk = opened(sim, Shop(broken=("ship",)))
        desk.workflow(action("book"), Saga(action("charge"), action("ship")))
        run = await desk.run()
        assert run.outcome == "escalated" and (await show(desk.ledger, run.id)).stands == ()

    simulate(story)
