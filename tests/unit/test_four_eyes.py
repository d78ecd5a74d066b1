"""Four eyes: whoever has set a run going, or has had a hand in it, decides none of its checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from engine_desk import OTHER, PERSON, Desk, simulate, write

from tightship.core import kinds
from tightship.core.errors import ActRefused, BoundaryError
from tightship.patterns import MakerChecker, Vote, WorkflowStep
from tightship.review.inbox import Decision, InboxItem
from tightship.runtime.fork import fork
from tightship.runtime.operator import Operator
from tightship.runtime.simulation import Simulation
from tightship.workflow.build import Agent

OUT = {"text": "str"}
REVIEW = {"review": {"by": "operator", "of": "draft", "within": "4h"}}
SEND = {"action": "mail.send", "with": {"text": "draft.text"}, "undo": "mail.recall", "name": "sent"}
Act = Callable[[Operator, str], Awaitable[Any]]


def desk_of(sim: Simulation, *steps: Any, four_eyes: bool = True) -> Desk:
    """A workspace whose one workflow drafts something, and what comes then."""

    async def drafts(ctx: Any, given: dict[str, Any]) -> dict[str, str]:
        return {"text": "a draft"}

    desk = Desk(sim, [write("mail.send", {"id": "m-1"}), write("mail.recall", {})])
    for name in ("draft", "more"):
        desk.agent(name, drafts, output=OUT, tools=[])
    for name in ("signs", "fills"):
        output = {"ok": "bool", "objections": "list[str]"}
        spec = Agent(name, owner="test", purpose=f"plays {name}", human="operator", output=output, within="4h")
        desk._specs.append(spec)
        desk.ws.add(spec)
    desk.workflow(*(steps or ("draft", REVIEW, SEND)), four_eyes=four_eyes)
    return desk


async def waiting(desk: Desk) -> InboxItem:
    """The one question that is open."""
    [item] = await (await desk.operator()).items()
    return item


async def settle(desk: Desk) -> None:
    for _ in range(4):
        await desk.resume()


async def refused(desk: Desk, by: str, why: str, decision: str = "approve", value: Any = None) -> None:
    """Somebody wants to decide what is open, and the error says why they may not."""
    operator, item = await desk.operator(), await waiting(desk)
    with pytest.raises(BoundaryError, match=f"{why}.*four eyes.*somebody else") as said:
        await operator.decide(item.item, Decision(decision, by, value))  # type: ignore[arg-type]
    assert "another holder of the role operator" in str(said.value.fix)
    assert (await waiting(desk)).item == item.item, "it still waits"


def test_who_has_started_a_run_does_not_approve_it_also_with_the_role_and_after_a_crash() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim)
        run = await desk.run(by=f" {PERSON} ")
        assert run.entries[0].body["by"] == [PERSON] and run.entries[0].body["four_eyes"]
        await refused(desk, PERSON.upper(), f"has set run {run.id} going")
        desk.kill()
        await desk.resume()
        await refused(desk, PERSON, "has set run")
        assert await (await desk.operator()).barred(await waiting(desk)) == {PERSON: f"has set run {run.id} going"}
        await desk.answer(by=OTHER)
        await settle(desk)
        assert (await desk.only()).outcome == "completed"

    simulate(story)


def test_where_four_eyes_are_not_declared_or_nobody_is_known_the_role_suffices() -> None:
    async def story(sim: Simulation, four_eyes: bool) -> None:
        desk = desk_of(sim, four_eyes=four_eyes)
        await desk.run(**({} if four_eyes else {"by": PERSON}))
        assert not await (await desk.operator()).barred(await waiting(desk))
        await desk.answer(by=PERSON)

    for four_eyes in (True, False):
        simulate(lambda sim, declared=four_eyes: story(sim, declared))


async def nothing(operator: Operator, run: str) -> None:
    """Takes it and gives it back."""


async def edits(operator: Operator, run: str) -> None:
    await operator.edit(run, "draft", {"text": "mine"}, PERSON)


async def does(operator: Operator, run: str) -> None:
    await operator.do(run, "more", {"text": "mine"}, PERSON)


async def undoes(operator: Operator, run: str) -> None:
    await operator.undo(run, "sent", PERSON)


@pytest.mark.parametrize(
    ("act", "steps", "why"),
    [
        (nothing, ("draft", REVIEW), "has taken run"),
        (edits, ("draft", REVIEW), "has edited draft"),
        (does, ("draft", {"review": {"by": "operator", "of": "draft", "within": "4h"}, "name": "first"}, "more"), ""),
        (undoes, ("draft", SEND, REVIEW), "has had sent"),
    ],
)
def test_who_has_had_a_run_in_hand_does_not_approve_it(act: Act, steps: tuple[Any, ...], why: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, *steps)
        run = await desk.run(by="carl")
        operator = await desk.operator()
        await operator.take(run.id, PERSON)
        await act(operator, run.id)
        await operator.give(run.id, PERSON)
        await settle(desk)
        await refused(desk, PERSON, why or "has done more of run")
        await desk.answer(by=OTHER)

    simulate(story)


def test_a_check_is_not_done_by_hand_and_an_edit_after_it_is_checked_anew() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, "draft", REVIEW, {**REVIEW, "name": "last"}, SEND)
        run = await desk.run(by="carl")
        await desk.answer(by=OTHER)
        await settle(desk)
        operator = await desk.operator()
        await operator.take(run.id, PERSON)
        with pytest.raises(ActRefused, match="checks what others made"):
            await operator.do(run.id, "last", {"decision": "approve"}, PERSON)
        await operator.edit(run.id, "draft", {"text": "mine"}, PERSON)
        await operator.give(run.id, PERSON)
        for _ in range(2):  # both reviews look at what is there now
            await settle(desk)
            await refused(desk, PERSON, "has edited draft")
            assert not desk.tools["mail.send"].calls
            await desk.answer(by=OTHER)
        await settle(desk)
        assert (await desk.only()).outcome == "completed"
        assert [one.args for one in desk.tools["mail.send"].calls] == [{"text": "mine"}]

    simulate(story)


def test_what_a_check_has_given_is_not_changed_by_hand() -> None:
    async def story(sim: Simulation) -> None:
        checked = MakerChecker(maker="draft", checker="signs", name="checked")
        desk = desk_of(sim, checked, {**REVIEW, "review": {**REVIEW["review"], "of": "checked"}})
        run = await desk.run(by="carl")
        await desk.answer("answer", {"ok": True, "objections": []}, by=OTHER)
        await settle(desk)
        operator = await desk.operator()
        await operator.take(run.id, PERSON)
        with pytest.raises(ActRefused, match="may not change it"):
            await operator.edit(run.id, "checked", {"text": "mine"}, PERSON)

    simulate(story)


@pytest.mark.parametrize(
    "step",
    [MakerChecker(maker="draft", checker="signs"), Vote("signs", "draft", settle="majority", within="1h")],
)
def test_a_human_checker_and_a_voter_are_checks_as_well(step: Any) -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, step)
        await desk.run(by=PERSON)
        yes = {"ok": True, "objections": []}
        await refused(desk, PERSON, "has set run", "answer", yes)
        await desk.answer("answer", yes, by=OTHER)

    simulate(story)


def test_work_that_a_person_is_asked_for_is_no_check() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim, "fills")
        await desk.run(by=PERSON)
        await desk.answer("answer", {"ok": True, "objections": []}, by=PERSON)

    simulate(story)


@pytest.mark.parametrize("declared", ["outer", "inner"])
def test_it_holds_in_runs_below_for_those_who_set_the_request_going_and_for_hands_on_runs_above(declared: str) -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim)
        desk.workflow("draft", REVIEW, name="inner", four_eyes=declared == "inner")
        desk.workflow(WorkflowStep("inner", with_={}), name="outer", four_eyes=declared == "outer")
        run = await desk.run("outer", by="carl")
        item = await waiting(desk)
        assert item.run != run.id
        assert [one.body["by"] for one in await desk.entries(kinds.STARTED)] == [["carl"], ["carl"]]
        operator = await desk.operator()
        await operator.take(run.id, PERSON)
        await operator.give(run.id, PERSON)
        await refused(desk, PERSON, f"has taken run {item.run}")
        assert "carl" in await operator.barred(item)

    simulate(story)


def test_a_hand_in_a_run_below_counts_for_the_review_above() -> None:
    async def story(sim: Simulation) -> None:
        desk = desk_of(sim)
        desk.workflow("draft", {"review": {**REVIEW["review"], "by": "operator"}}, name="inner", output={"x": "draft"})
        inner = WorkflowStep("inner", with_={}, name="draft")
        desk.workflow(inner, REVIEW, name="outer", four_eyes=True)
        await desk.run("outer", by="carl")
        below = (await waiting(desk)).run
        operator = await desk.operator()
        await operator.take(below, PERSON)
        await operator.edit(below, "draft", {"text": "mine"}, PERSON)
        await operator.give(below, PERSON)
        await settle(desk)
        await desk.answer(by=OTHER)
        await settle(desk)
        assert (await waiting(desk)).run != below
        await refused(desk, PERSON, f"has edited draft in run {below}")

    simulate(story)


def test_runs_that_follow_another_know_who_set_that_going() -> None:
    """A run that an answer to an escalation starts, one that is linked by hand, and a fork."""

    async def story(sim: Simulation) -> None:
        desk = desk_of(sim)
        run = await desk.run(by="carl")
        await desk.answer("reject", by=OTHER)
        await settle(desk)
        case = await waiting(desk)
        await (await desk.operator()).decide(case.item, Decision("answer", PERSON, {"case": "two"}))
        await settle(desk)
        item = await waiting(desk)
        assert item.run != run.id
        await refused(desk, PERSON, f"has set run {item.run} going")
        assert set(await (await desk.operator()).barred(item)) == {PERSON, "carl"}
        await desk.answer(by=OTHER)
        await settle(desk)
        linked = await desk.run(by="dora", case="three", linked=run.id)
        made = await desk.process.start(fork(desk.ws, run.id, by="emil"))
        found = {one.run: one.body["by"] for one in await desk.entries(kinds.STARTED)}
        assert found[linked.id] == ["dora", "carl"] and found[made.id] == ["emil", "carl"]

    simulate(story)
