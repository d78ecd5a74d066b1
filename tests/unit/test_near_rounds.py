"""Rounds of a pattern in which nearly the same is planned or said again are stopped, as turns and calls are."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from engine_desk import Desk, simulate, tool
from hypothesis import given
from hypothesis import strategies as st

from tightship.controls.near_repeats import NearLimits, NearRepeats, of_round, of_turn
from tightship.core import kinds
from tightship.core.errors import Unavailable
from tightship.insight.demand import demand
from tightship.insight.exposition import exposition
from tightship.patterns import Manager, Peers, WorkflowStep, load_all
from tightship.patterns._mail import Message, Said, heard
from tightship.patterns._plan import Task, came_of, planned
from tightship.review.package import Package
from tightship.runtime.simulation import Simulation

load_all()

SAME = "the opening year of the old iron bridge over the river"
FILLERS = ("again", "exactly", "kindly", "now", "once", "please", "really", "simply", "still", "quickly")
BOARD: dict[str, Any] = {"input": {"case": "str?", "items": "list?"}}
Story = Callable[[Simulation], Any]


def reworded() -> Iterator[str]:
    """The same in ever other words."""
    for first, second in itertools.permutations(FILLERS, 2):
        yield f"{first} find out {SAME} {second}"


WORDINGS = list(reworded())


def notes(entries: Any, type: str) -> list[Any]:
    return [entry for entry in entries if entry.kind == kinds.NOTE and entry.body["type"] == type]


# --- a manager ---------------------------------------------------------------------------------------


def manages(desk: Desk, goal: Callable[[int], str], look: Any = None, **fields: Any) -> list[str]:
    """A manager that plans one task a round, whose worker fails; the goals that were taken up."""
    taken = list[str]()

    async def plan(ctx: Any, given: Mapping[str, Any]) -> Any:
        number = int(given["failed"][0]["id"][1:]) + 1 if given["failed"] else 0
        return {"tasks": [{"id": f"t{number}", "worker": "look", "goal": goal(number)}]}

    async def fails(ctx: Any, given: Mapping[str, Any]) -> Any:
        taken.append(given["task"]["goal"])
        if look is not None:
            await look(ctx, given["task"])
        raise Unavailable(f"the archive is closed to {given['task']['id']}")

    desk.agent("plan", plan, tools=[], input={"failed": "list"})
    desk.agent("look", fails, input={"task": "object"})
    desk.workflow(Manager(plan="plan", workers={"look": "look"}, **{"replans": 10, **fields}), **BOARD)
    return taken


def managed(goal: Callable[[int], str], look: Any = None, config: str = "", **fields: Any) -> tuple[Any, list[str]]:
    async def story(sim: Simulation) -> tuple[Any, list[str]]:
        desk = Desk(sim, [tool("search.web", *([number] for number in range(20)))], config)
        taken = manages(desk, goal, look, **fields)
        return await desk.run(), taken

    return simulate(story)


def test_a_manager_that_plans_the_same_in_ever_other_words_is_stopped_before_it_is_carried_out_once_more() -> None:
    run, taken = managed(lambda number: WORDINGS[number])
    assert (run.outcome, run.reason) == ("escalated", "NearRepeat")
    assert taken == WORDINGS[:3]
    [note] = notes(run.entries, "near_repeat")
    assert note.key == "manager/4/near" and note.body["agent"] == "plan" and note.body["times"] == 3
    assert note.body["like"] == [f"manager/{number}/round" for number in (1, 2, 3)]
    assert not [one for one in notes(run.entries, "round") if "iron" in str(one.body)]  # what was planned stays sealed


def test_the_person_sees_the_plans_and_what_came_of_them_and_a_figure_counts_the_case() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim)
        manages(desk, lambda number: WORDINGS[number], fallback="look")
        await desk.run()
        operator = await desk.operator()
        [item] = await operator.items()
        return Package.from_json((await operator.item(item.item))[1]), exposition(await demand(desk.ledger))

    package, metrics = simulate(story)
    assert package.title == "flow: an agent repeats itself in other words"
    shown = package.evidence["repeated"][0]
    assert shown["step"] == "manager/1/round" and SAME in shown["said"] and "the archive is closed" in shown["said"]
    assert 'tightship_inbox_near_repeat_items{tenant="default",workflow="flow"} 1' in metrics


def test_the_very_same_plan_again_counts_too_for_its_ids_make_each_another_turn() -> None:
    run, taken = managed(lambda number: WORDINGS[0])
    assert run.reason == "NearRepeat" and len(taken) == 3


def test_a_manager_that_plans_something_else_or_learns_something_is_not_stopped() -> None:
    names = ("Ada", "Bo", "Cy", "Di", "Flo", "Gus")
    other, _ = managed(lambda number: f"ask whether {names[number]} has built {SAME}", replans=5)
    assert other.reason == "unavailable"

    async def learns(ctx: Any, task: Any) -> None:
        await ctx.tool("search.web", {"id": task["id"]})

    learned, taken = managed(lambda number: WORDINGS[number], learns, replans=5)
    assert learned.reason == "unavailable" and len(taken) == 6


def test_the_declared_bounds_count_and_a_planners_own_one() -> None:
    assert len(managed(lambda number: WORDINGS[number], config="limits: {similar: 6}")[1]) == 6
    assert len(managed(lambda number: WORDINGS[number], config="limits: {similarity: 1.0}", replans=5)[1]) == 6


def test_a_manager_whose_domains_fail_again_and_again_is_stopped_too() -> None:
    """The end of a run below is something new, but for one that did not complete: why is what came of the round."""

    async def story(sim: Simulation) -> tuple[Any, int]:
        desk, begun = Desk(sim), [0]

        async def plan(ctx: Any, given: Mapping[str, Any]) -> Any:
            number = len(given["failed"]) and int(given["failed"][0]["id"][1:]) + 1
            return {"tasks": [{"id": f"t{number}", "worker": "domain", "goal": WORDINGS[number]}]}

        async def fails(ctx: Any, given: Mapping[str, Any]) -> Any:
            begun[0] += 1
            raise Unavailable("the archive is closed")

        desk.agent("plan", plan, input={"failed": "list"})
        desk.agent("look", fails)
        desk.workflow("look", name="below")
        desk.workflow(Manager(plan="plan", workers={"domain": WorkflowStep("below", with_={})}, replans=8), **BOARD)
        return await desk.run(), begun[0]

    run, begun = simulate(story)
    assert run.reason == "NearRepeat" and begun == 3


def test_a_process_that_dies_at_any_append_comes_to_the_same_end_of_a_manager() -> None:
    def play(at: int) -> tuple[Any, list[str], int]:
        async def story(sim: Simulation) -> tuple[Any, list[str], int]:
            desk = Desk(sim)
            taken = manages(desk, lambda number: WORDINGS[number])
            return await killed(desk, at, {"items": []}), taken, await desk.ledger.head()

        run, taken, head = simulate(story)
        return told(run), taken, head

    undisturbed, taken, head = play(0)
    assert undisturbed[:2] == ("escalated", "NearRepeat") and taken == WORDINGS[:3]
    for at in range(2, head):
        again, repeated, _ = play(at)
        assert again == undisturbed, at
        assert set(repeated) == set(taken), at


async def killed(desk: Desk, at: int, input: Mapping[str, Any]) -> Any:
    """The run, whose process has died at this append; undisturbed for 0."""
    begun = desk.process.start(desk.ws.run("flow", dict(input)))
    if not at:
        return await begun
    while await desk.ledger.head() < at and not begun.done():
        await desk.world.clock.sleep(0.001)
    if not begun.done():
        desk.kill()
        await desk.resume()
    return await desk.only()


def told(run: Any) -> tuple[Any, ...]:
    """How it ended, what was found, and all that was taken, noted or decided."""
    found = [(one.key, {**one.body}) for one in notes(run.entries, "near_repeat")]
    rounds = [one.key for one in notes(run.entries, "round")]
    walked = {kinds.TURN, kinds.NODE, kinds.NOTE, kinds.DECIDED}
    entries = sorted((one.kind, one.key) for one in run.entries if one.kind in walked)
    return run.outcome, run.reason, found, rounds, run.package["evidence"]["repeated"], entries


# --- peers -------------------------------------------------------------------------------------------


def talks(desk: Desk, other: str, words: Callable[[int], str], name: str, more: Any = None) -> None:
    """A peer that answers whatever comes by a message to the other, and does nothing else."""
    numbers = itertools.count()

    async def peer(ctx: Any, given: Mapping[str, Any]) -> Any:
        await asyncio.sleep(0.01)
        said = {} if more is None else await more(ctx, given)
        return {"messages": [{"to": other, "kind": "tell", "text": words(next(numbers))}], **said}

    desk.agent(name, peer, input={"open": "list", "mine": "list", "inbox": "list"})


def talked(first: Callable[[int], str], second: Callable[[int], str], more: Any = None, **fields: Any) -> Any:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim, [tool("search.web", *([number] for number in range(40)))])
        talks(desk, "b", first, "a", more)
        talks(desk, "a", second, "b")
        step: dict[str, Any] = {"agents": ["a", "b"], "board": "input.items", "then": "keep", "name": "table"}
        desk.workflow(Peers(**{**step, **fields}), **BOARD)
        return await desk.process.start(desk.ws.run("flow", {"items": ["x"]}))

    return simulate(story)


def words(number: int) -> str:
    return WORDINGS[number]


def sent(run: Any) -> int:
    return sum(entry.body["messages"] for entry in notes(run.entries, "peers.turn"))


def test_peers_that_tell_each_other_the_same_in_ever_other_words_are_stopped() -> None:
    run = talked(words, words)
    assert (run.outcome, run.reason) == ("escalated", "NearRepeat")
    assert sent(run) <= 8
    note = notes(run.entries, "near_repeat")[0]  # the other one may have found it at the same moment
    assert note.key.startswith(f"table/{note.body['agent']}/") and note.key.endswith("/near")
    assert note.body["times"] == 3 and 0.7 <= note.body["similarity"] < 1
    assert SAME in run.package["evidence"]["repeated"][0]["said"]


def test_a_message_in_the_very_same_words_counts_too() -> None:
    run = talked(lambda number: WORDINGS[0], lambda number: WORDINGS[1])
    assert run.reason == "NearRepeat" and sent(run) <= 8


@pytest.mark.parametrize("small", ["dunno {}", "I have no idea what to do about it, attempt {}.", "dunno {}!"])
@pytest.mark.parametrize("by", [1, 2])
def test_a_number_that_only_counts_on_makes_no_message_a_new_one(small: str, by: int) -> None:
    run = talked(lambda number: small.format(by * number), lambda number: small.format(by * number + 1))
    assert (run.outcome, run.reason) == ("escalated", "NearRepeat") and sent(run) <= 10


@pytest.mark.parametrize("offer", [lambda number: 100 - 5 * number, lambda number: 10 * number])
def test_who_bargains_says_something_new_each_time(offer: Callable[[int], int]) -> None:
    run = talked(lambda number: f"we offer {offer(number)}", lambda number: f"we want {offer(number) + 40}", turns=8)
    assert run.outcome == "completed", run.package


@pytest.mark.parametrize("what", ["numbers", "learns", "works"])
def test_peers_that_say_learn_or_do_something_new_are_not_stopped(what: str) -> None:
    async def learns(ctx: Any, given: Mapping[str, Any]) -> Any:
        await ctx.tool("search.web", {"text": str(len(given["inbox"]))})
        return {}

    async def works(ctx: Any, given: Mapping[str, Any]) -> Any:
        mine = [one["key"] for one in given["mine"]]
        return {"claim": [one["key"] for one in given["open"]][:1], "results": [{"key": key, "value": 1} for key in mine]}  # fmt: skip

    def numbers(number: int) -> str:
        return f"the level of the river at the old bridge is {(7 * number) % 31} today"

    if what == "numbers":
        run = talked(numbers, numbers, turns=8)
    elif what == "learns":
        run = talked(words, numbers, learns, turns=8)
    else:
        run = talked(words, words, works, turns=4)
    assert run.outcome == "completed", run.package


def test_peers_in_a_branch_end_that_branch_as_any_limit_does() -> None:
    async def story(sim: Simulation) -> Any:
        desk = Desk(sim)
        talks(desk, "b", words, "a")
        talks(desk, "a", words, "b")

        async def beside(ctx: Any, given: Mapping[str, Any]) -> Any:
            return {"ok": True}

        desk.agent("beside", beside)
        table = Peers(agents=["a", "b"], board="input.items", name="table")
        desk.workflow({"concurrent": {"branches": [table, "beside"], "on_failure": "keep"}}, **BOARD)
        return await desk.process.start(desk.ws.run("flow", {"items": ["x"]}))

    run = simulate(story)
    assert run.outcome == "completed" and notes(run.entries, "near_repeat")
    [failed] = notes(run.entries, "branch.failed")
    assert failed.body["branch"] == "table"


def test_a_process_that_dies_at_any_append_finds_the_same_of_peers() -> None:
    def play(at: int) -> tuple[Any, int]:
        async def story(sim: Simulation) -> tuple[Any, int]:
            desk = Desk(sim)
            for me, other in (("a", "b"), ("b", "a")):
                talks_by_mail(desk, me, other)
            desk.workflow(Peers(agents=["a", "b"], board="input.items", name="table"), **BOARD)
            return await killed(desk, at, {"items": ["x"]}), await desk.ledger.head()

        run, head = simulate(story)
        turns = [entry.key for entry in run.entries if entry.kind == kinds.TURN]
        assert len(turns) == len(set(turns)), at
        return told(run), head

    undisturbed, head = play(0)
    assert undisturbed[:2] == ("escalated", "NearRepeat")
    for at in range(2, head):
        again, _ = play(at)
        assert again[:2] == undisturbed[:2], at
        assert all(note["times"] == 3 for _, note in again[2]) and len(again[3]) <= 8, at
        shown = [one["step"] for one in again[4]]
        assert shown in [note["like"] for _, note in again[2]], "what was recorded is what counts"
        assert len(again[5]) == len(set(again[5])), at


def talks_by_mail(desk: Desk, name: str, other: str) -> None:
    """A peer that says its part by how much it was told, so that a turn taken again is the same turn."""

    async def peer(ctx: Any, given: Mapping[str, Any]) -> Any:
        await asyncio.sleep(0.01)
        return {"messages": [{"to": other, "kind": "tell", "text": WORDINGS[len(given["mail"])]}]}

    desk.agent(name, peer, input={"mail": "list"})


# --- what is compared --------------------------------------------------------------------------------

IDS = st.integers(0, 10_000).map("t{}".format)


@given(st.lists(IDS, min_size=2, max_size=6, unique=True))
def test_the_ids_of_a_plan_change_nothing(ids: list[str]) -> None:
    half = len(ids) // 2
    plans = [[Task(id, "look", f"goal number {at}") for at, id in enumerate(some)] for some in (ids[:half], ids[half : 2 * half])]  # fmt: skip
    one, other = (planned(plan) for plan in plans)
    assert one == other
    failed = [[{**task.to_json(), "error": "E", "message": f"no way to {task.id}!"} for task in plan] for plan in plans]
    ends = [came_of(plan, {}, said) for plan, said in zip(plans, failed, strict=True)]
    assert ends[0] == ends[1]


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_the_ids_of_messages_change_nothing(one: int, other: int) -> None:
    def said(number: int) -> Any:
        message = Message(f"a-{number}-1", "a", "b", "reply", re=f"b-{number}-1", text=SAME)
        return Said(messages=[message]).to_json(), heard([message.to_json()], 2)

    assert said(one) == said(other)


def test_the_end_of_a_run_that_did_not_complete_is_news_to_turns_and_none_to_rounds() -> None:
    near = NearRepeats(NearLimits(similar=1))

    def says() -> None:
        near.observe(kinds.TURN, "a/1", {"agent": "a", "hash": "h", "out": "o"})
        near.observe(kinds.NOTE, "m/1/round", {"type": "round", "agent": "a", "line": "m/1*", "args": "g", "out": "o"})

    says()
    near.observe(kinds.SIGNAL, "", {"type": "child", "outcome": "escalated"})
    assert not near.earlier("a", of_turn("a", "a/1")) and near.earlier("a", of_round("a"), "m/2*")
    near.observe(kinds.SIGNAL, "", {"type": "child", "outcome": "completed"})
    assert not near.earlier("a", of_round("a"), "m/2*")
