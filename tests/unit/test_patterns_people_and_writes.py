"""Maker and checker, reviews, actions, child workflows: who decides, what is sent, what a person sees."""

from __future__ import annotations

from typing import Any

import pytest
from fake_frame import Escalated, World, frame

from tightship.core.errors import ChecksExhausted, DataMissing, FormatMismatch, LoadError, RunFailed
from tightship.core.ports import UndoSpec
from tightship.effects.frame import Answer
from tightship.patterns import Action, MakerChecker, Review, WorkflowStep, load_all
from tightship.workflow.build import Workflow
from tightship.workflow.models import WorkflowSpec

load_all()
GOOD, BAD = {"ok": True, "objections": []}, {"ok": False, "objections": ["no source"]}


def spec(*steps: Any) -> WorkflowSpec:
    return Workflow("sample", owner="tests", purpose="try a pattern", steps=list(steps))


async def run(workflow: WorkflowSpec, world: World, **names: Any) -> Any:
    top = frame(world, **names)
    return await workflow.root.execute(top), top.scope.names


def replies(*outputs: Any) -> Any:
    left = list(outputs)
    return lambda given: left.pop(0)


# --- maker and checker ---------------------------------------------------------------------------


async def test_an_approved_draft_is_the_output():
    world = World(agents={"m": replies("draft"), "c": replies(GOOD)})
    output, _ = await run(spec(MakerChecker(maker="m", checker="c")), world)
    assert output == "draft"
    assert [fields["passed"] for _, _, fields in world.notes] == [True]


async def test_objections_go_to_the_makers_next_turn_and_to_nobody_else():
    world = World(agents={"m": replies("one", "two"), "c": replies(BAD, GOOD), "after": replies("done")})
    await run(spec(MakerChecker(maker="m", checker="c"), "after"), world)
    assert world.feedback == [("m", []), ("c", []), ("m", ["no source"]), ("c", []), ("after", [])]


async def test_approved_is_a_verdict_too_and_an_acceptance_of_ones_own_replaces_it():
    world = World(agents={"m": replies("one"), "c": replies({"approved": True})})
    assert (await run(spec(MakerChecker(maker="m", checker="c")), world))[0] == "one"
    world = World(agents={"m": replies("one", "two"), "c": replies({"score": 0.2}, {"score": 0.9})})
    pair = MakerChecker(maker="m", checker="c", accept="c.score > 0.5")
    assert (await run(spec(pair), world))[0] == "two"


async def test_a_checker_without_a_verdict_is_no_approval():
    world = World(agents={"m": replies("one"), "c": replies({"ok": "yes"})})
    with pytest.raises(FormatMismatch):
        await run(spec(MakerChecker(maker="m", checker="c")), world)


async def test_rounds_that_run_out_escalate_with_the_draft_and_the_objections():
    world = World(agents={"m": replies("one", "two"), "c": replies(BAD, BAD)})
    with pytest.raises(ChecksExhausted) as ended:
        await run(spec(MakerChecker(maker="m", checker="c", rounds=2)), world)
    assert ended.value.evidence["draft"] == "two"
    assert ended.value.evidence["objections"] == ["no source"]
    assert [option["id"] for option in ended.value.options] == ["approve", "edit", "reject"]


async def test_rounds_that_run_out_may_fail_the_run():
    world = World(agents={"m": replies("one"), "c": replies(BAD)})
    with pytest.raises(RunFailed):
        await run(spec(MakerChecker(maker="m", checker="c", rounds=1, then="fail")), world)


@pytest.mark.parametrize(
    ("answer", "output"),
    [(Answer("approve", "ann"), "one"), (Answer("edit", "ann", "better"), "better")],
)
async def test_rounds_that_run_out_may_go_to_a_person(answer: Answer, output: str):
    world = World(agents={"m": replies("one"), "c": replies(BAD)}, answers=[answer])
    pair = MakerChecker(maker="m", checker="c", rounds=1, then="accept_with_review", by="lead")
    found, names = await run(spec(pair), world)
    assert found == output and names["m"] == output
    assert world.questions[0].role == "lead"
    assert world.questions[0].package["evidence"]["objections"] == ["no source"]


@pytest.mark.parametrize("decision", ["reject", "expired"])
async def test_what_the_person_does_not_release_is_not_released(decision: Any):
    world = World(agents={"m": replies("one"), "c": replies(BAD)}, answers=[Answer(decision, "ann")])
    pair = MakerChecker(maker="m", checker="c", rounds=1, then="accept_with_review", by="lead")
    with pytest.raises(ChecksExhausted):
        await run(spec(pair), world)


# --- review --------------------------------------------------------------------------------------


def reviewed(**fields: Any) -> WorkflowSpec:
    return spec("a", Review(by="lead", within="4h", **fields), {"b": {"with": {"text": "a.text"}}})


def agents() -> dict[str, Any]:
    return {"a": lambda g: {"text": "draft", "confidence": 0.5}, "b": lambda g: g["text"]}


async def test_nobody_is_asked_when_the_condition_does_not_hold():
    world = World(agents=agents(), ambient={"threshold": 0.4})
    output, _ = await run(reviewed(when="a.confidence < threshold"), world)
    assert output == "draft" and world.questions == []


async def test_a_person_is_asked_when_it_holds_and_sees_why():
    world = World(agents=agents(), ambient={"threshold": 0.8}, answers=[Answer("approve", "ann")])
    output, _ = await run(
        reviewed(when="a.confidence < threshold", show=["input.ticket"]), world, input={"ticket": "t"}
    )
    question = world.questions[0]
    assert output == "draft"
    assert (question.type, question.role, question.within, question.otherwise) == (
        "review",
        "lead",
        14400.0,
        "escalate",
    )
    assert question.package["evidence"] == {
        "a": {"text": "draft", "confidence": 0.5},
        "a.confidence": 0.5,
        "input.ticket": "t",
    }
    assert question.package["kind"] == "low_confidence"
    assert question.package["partial"] == {"a": {"text": "draft", "confidence": 0.5}}


async def test_a_condition_that_cannot_be_evaluated_sends_the_run_to_the_person():
    world = World(agents=agents(), answers=[Answer("approve", "ann")])
    await run(reviewed(when="refund.amount > 100.0"), world)
    assert "could not be evaluated" in world.questions[0].package["what_happened"]


async def test_an_edit_replaces_the_output_that_is_reviewed():
    world = World(agents=agents(), answers=[Answer("edit", "ann", {"text": "better"})])
    output, names = await run(reviewed(), world)
    assert output == "better" and names["a"] == {"text": "better"}


@pytest.mark.parametrize(
    ("fields", "answer", "error"),
    [
        ({}, Answer("reject", "ann", reason="rude"), Escalated),
        ({"on_reject": "fail"}, Answer("reject", "ann"), RunFailed),
        ({}, Answer("expired"), Escalated),
        ({"otherwise": "fail"}, Answer("expired"), RunFailed),
        ({"otherwise": "reject", "on_reject": "fail"}, Answer("expired"), RunFailed),
        ({"otherwise": "reject"}, Answer("expired"), Escalated),
    ],
)
async def test_what_is_not_released_ends_as_declared(
    fields: dict[str, Any], answer: Answer, error: type[BaseException]
):
    world = World(agents=agents(), answers=[answer])
    with pytest.raises(error):
        await run(reviewed(**fields), world)
    assert [agent for _, agent, _ in world.turns] == ["a"]


def test_the_persons_time_is_not_the_steps_own_limit():
    review = next(step for step in reviewed().walk() if step.pattern == "review")
    assert review.within is None and review.deadline == 14400.0  # type: ignore[attr-defined]


# --- action --------------------------------------------------------------------------------------


async def test_an_action_sends_what_with_says_and_carries_its_claim_and_undo():
    action = Action(
        "desk.reply",
        with_={"ticket": "input.id", "body": "a.text", "status": '"solved"', "urgent": False},
        claim='"reply:" + input.id',
        undo={"tool": "desk.retract", "with": {"id": "result.id"}},
        name="sent",
    )
    world = World(agents={"a": lambda g: {"text": "hello"}}, tools={"desk.reply": lambda args: {"id": "R1"}})
    output, names = await run(spec("a", action), world, input={"id": "T-1"})
    assert output == names["sent"] == {"id": "R1"}
    call = world.actions[0]
    assert call.args == {"ticket": "T-1", "body": "hello", "status": "solved", "urgent": False}
    assert call.claim == "reply:T-1"
    assert call.undo == UndoSpec("desk.retract", {"id": "result.id"})


async def test_without_with_an_action_sends_the_output_before_it_past_checkpoints_and_reviews():
    world = World(agents={"a": lambda g: {"text": "hello"}}, answers=[Answer("approve", "ann")])
    steps = [
        "a",
        {"checkpoint": "a.text != ''"},
        Review(by="lead", within=60),
        {"action": "desk.reply", "undo": "none"},
    ]
    await run(spec(*steps), world)
    assert world.actions[0].args == {"text": "hello"} and world.actions[0].undo is None


async def test_an_action_behind_maker_and_checker_sends_the_makers_output():
    world = World(agents={"m": lambda g: {"text": "hello"}, "c": replies(GOOD)})
    await run(spec(MakerChecker(maker="m", checker="c"), Action("desk.reply", undo="desk.retract")), world)
    assert world.actions[0].args == {"text": "hello"}
    assert world.actions[0].undo == UndoSpec("desk.retract", {})


async def test_from_names_the_object_to_send():
    world = World(agents={"a": lambda g: {"request": {"x": 1}}})
    await run(spec("a", Action("desk.reply", from_="a.request", undo="none")), world)
    assert world.actions[0].args == {"x": 1}


@pytest.mark.parametrize("output", ["text", None, [1]])
async def test_what_is_no_object_is_not_sent(output: Any):
    world = World(agents={"a": lambda g: output})
    with pytest.raises(FormatMismatch):
        await run(spec("a", Action("desk.reply", undo="none")), world)
    assert world.actions == []


async def test_nothing_is_sent_when_an_argument_or_the_claim_is_missing():
    world = World(agents={"a": lambda g: {"text": "hello"}})
    with pytest.raises(DataMissing):
        await run(spec("a", Action("desk.reply", with_={"body": "a.body"}, undo="none")), world)
    assert world.actions == []
    world = World(agents={"a": lambda g: {"text": "hello"}})
    with pytest.raises(FormatMismatch):
        await run(spec("a", Action("desk.reply", claim="a.text == 'hello'", undo="none")), world)
    assert world.actions == []


def test_an_undo_is_a_tool_or_none():
    with pytest.raises(LoadError):
        spec(Action("desk.reply", undo="retract it"))


# --- child workflows -----------------------------------------------------------------------------


async def test_a_child_workflow_gets_what_with_says_or_this_runs_input():
    world = World(children={"credit-check": lambda give: {"given": give}})
    output, names = await run(
        spec(WorkflowStep("credit-check", with_={"id": "input.customer"})), world, input={"customer": "c"}
    )
    assert output == names["credit_check"] == {"given": {"id": "c"}}
    world = World(children={"credit-check": lambda give: {"given": give}})
    assert (await run(spec(WorkflowStep("credit-check")), world, input={"x": 1}))[0] == {"given": {"x": 1}}
