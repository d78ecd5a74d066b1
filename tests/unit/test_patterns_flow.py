"""Sequence, agents, checkpoints, decisions: what passes on, what is done again, what stops."""

from __future__ import annotations

from typing import Any

import pytest
from fake_frame import World, frame

from tightship.core.errors import CheckpointFailed, DataMissing, LoadError, OutOfScope, RunFailed
from tightship.patterns import AgentStep, Checkpoint, When, load_all
from tightship.patterns import Sequence as Steps
from tightship.workflow.build import Workflow
from tightship.workflow.models import WorkflowSpec

load_all()


def spec(*steps: Any, **fields: Any) -> WorkflowSpec:
    return Workflow("sample", owner="tests", purpose="try a pattern", steps=list(steps), **fields)


def replies(*outputs: Any) -> Any:
    """An agent that gives these outputs, one per turn."""
    left = list(outputs)
    return lambda given: left.pop(0)


async def run(workflow: WorkflowSpec, world: World, **names: Any) -> Any:
    top = frame(world, **names)
    output = await workflow.root.execute(top)
    return output, top.scope.names


async def test_steps_run_in_order_and_see_what_those_before_them_bound():
    world = World(agents={"a": lambda given: {"n": 1}, "b": lambda given: {"n": given["x"] + 1}})
    output, names = await run(spec("a", {"b": {"with": {"x": "a.n"}}}), world)
    assert output == {"n": 2}
    assert names["a"] == {"n": 1} and names["b"] == {"n": 2}
    assert [agent for _, agent, _ in world.turns] == ["a", "b"]


async def test_a_sequence_gives_the_last_output_that_can_be_handed_on():
    world = World(agents={"a": lambda given: {"n": 1}})
    output, _ = await run(spec("a", Checkpoint("a.n == 1")), world)
    assert output == {"n": 1}


async def test_an_agent_step_can_be_called_otherwise():
    world = World(agents={"a": lambda given: {"n": 1}})
    _, names = await run(spec(AgentStep("a", name="first")), world)
    assert names["first"] == {"n": 1} and "a" not in names


async def test_two_turns_of_one_agent_have_keys_of_their_own():
    world = World(agents={"a": lambda given: {"n": 1}})
    await run(spec("a", "a", Steps("a", "a")), world)
    assert len({key for key, _, _ in world.turns}) == 4


async def test_good_output_passes_a_checkpoint():
    world = World(agents={"a": replies({"n": 5}), "b": replies("done")})
    output, _ = await run(spec("a", Checkpoint("a.n > 3"), "b"), world)
    assert output == "done"
    assert world.notes == []


async def test_bad_output_is_made_again_once_with_the_reason():
    world = World(agents={"a": replies({"n": 1}, {"n": 5}), "b": replies("done")})
    output, names = await run(spec("a", Checkpoint("a.n > 3"), "b"), world)
    assert output == "done" and names["a"] == {"n": 5}
    assert world.feedback == [("a", []), ("a", ["'a.n > 3' does not hold"]), ("b", [])]
    assert [note for _, note, _ in world.notes] == ["checkpoint.failed"]


async def test_bad_output_never_passes_on():
    world = World(agents={"a": replies({"n": 1}, {"n": 2}), "b": replies("done")})
    with pytest.raises(CheckpointFailed) as failed:
        await run(spec("a", Checkpoint("a.n > 3"), "b"), world)
    assert [agent for _, agent, _ in world.turns] == ["a", "a"]
    assert failed.value.evidence["values"] == {"a.n": 2}


async def test_the_steps_between_the_redone_one_and_the_checkpoint_run_again():
    world = World(
        agents={"a": replies({"n": 1}, {"n": 4}), "b": lambda given: {"m": given["n"] * 2}, "c": replies("done")}
    )
    steps = ["a", {"b": {"with": {"n": "a.n"}}}, Checkpoint("b.m == 8", redo="a"), "c"]
    output, names = await run(spec(*steps), world)
    assert output == "done" and names["b"] == {"m": 8}


async def test_a_checkpoint_redoes_as_often_as_it_says_and_tells_every_reason():
    world = World(agents={"a": replies({"n": 1}, {"n": 2}, {"n": 9})})
    await run(spec("a", Checkpoint("a.n > 3", times=2, reason="too small")), world)
    assert world.feedback[-1] == ("a", ["too small", "too small"])


async def test_an_output_that_lacks_the_field_does_not_pass():
    world = World(agents={"a": replies({}, {"n": 9})})
    _, names = await run(spec("a", Checkpoint("a.n > 3")), world)
    assert names["a"] == {"n": 9}
    assert "a.n" in world.feedback[1][1][0]


@pytest.mark.parametrize(("otherwise", "error"), [("escalate", CheckpointFailed), ("fail", RunFailed)])
async def test_a_checkpoint_that_does_not_redo_ends_at_once(otherwise: str, error: type[Exception]):
    world = World(agents={"a": replies({"n": 1})})
    with pytest.raises(error):
        await run(spec("a", Checkpoint("a.n > 3", otherwise=otherwise)), world)
    assert len(world.turns) == 1


async def test_a_checkpoint_with_nothing_before_it_escalates():
    with pytest.raises(CheckpointFailed):
        await run(spec(Checkpoint("input.n > 3"), "a"), World(), input={"n": 1})


@pytest.mark.parametrize(("n", "taken"), [(1, "small"), (9, "large")])
async def test_a_decision_takes_one_way(n: int, taken: str):
    world = World(agents={"small": replies("small"), "large": replies("large")})
    decision = When(if_="input.n > 3", then=["large"], else_=["small"])
    output, _ = await run(spec(decision), world, input={"n": n})
    assert output == taken and [agent for _, agent, _ in world.turns] == [taken]


async def test_a_decision_without_another_way_goes_on():
    world = World(agents={"b": replies("done")})
    output, _ = await run(spec({"when": {"if": "input.n > 3", "then": ["a"]}}, "b"), world, input={"n": 1})
    assert output == "done"


async def test_the_first_case_that_holds_is_taken():
    world = World(agents={name: replies(name) for name in "abc"})
    cases = {"cases": [{"if": "input.n > 5", "then": "a"}, {"if": "input.n > 3", "then": ["b"]}], "else": "c"}
    for n, taken in ((9, "a"), (4, "b"), (1, "c")):
        world = World(agents={name: replies(name) for name in "abc"})
        output, _ = await run(spec({"when": cases}), world, input={"n": n})
        assert output == taken


async def test_a_switch_chooses_by_value_and_an_unknown_value_is_out_of_scope():
    switch = {"when": {"switch": "input.topic", "is": {"refund": "a", "order": "b"}}}
    world = World(agents={"a": replies("a"), "b": replies("b")})
    output, _ = await run(spec(switch), world, input={"topic": "order"})
    assert output == "b"
    with pytest.raises(OutOfScope) as refused:
        await run(spec(switch), World(), input={"topic": "weather"})
    assert refused.value.evidence == {"value": "weather", "cases": ["refund", "order"]}


async def test_a_decision_on_missing_data_is_told_as_such():
    with pytest.raises(DataMissing, match=r"input\.n"):
        await run(spec({"when": {"if": "input.n > 3", "then": "a"}}), World())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of"),
        ({"if": "true", "cases": [{"if": "true", "then": "a"}], "then": "a"}, "exactly one of"),
        ({"if": "true"}, "belong together"),
        ({"switch": "input.n"}, "belong together"),
    ],
)
def test_a_decision_has_exactly_one_form(fields: dict[str, Any], said: str):
    with pytest.raises(LoadError, match=said):
        spec({"when": fields})
