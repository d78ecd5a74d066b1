"""Concurrent branches and loops: joined in order, ended by rule, bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_frame import World, frame

from tightship.core.errors import BranchFailed, DataMissing, FormatMismatch, LimitReached, OutOfScope
from tightship.patterns import Concurrent, Foreach, load_all
from tightship.workflow.build import Workflow
from tightship.workflow.models import WorkflowSpec

load_all()


def spec(*steps: Any) -> WorkflowSpec:
    return Workflow("sample", owner="tests", purpose="try a pattern", steps=list(steps))


async def run(workflow: WorkflowSpec, world: World, **names: Any) -> Any:
    top = frame(world, **names)
    return await workflow.root.execute(top), top.scope.names


def fails(error: Exception) -> Any:
    def agent(given: Any) -> Any:
        raise error

    return agent


async def waits(given: Any) -> Any:
    """An agent that never comes back by itself."""
    await asyncio.Event().wait()


async def test_branches_run_side_by_side_and_are_joined_under_their_names():
    started = asyncio.Event()

    async def first(given: Any) -> Any:
        await started.wait()
        return 1

    def second(given: Any) -> Any:
        started.set()
        return 2

    output, names = await run(spec(Concurrent("first", "second")), World(agents={"first": first, "second": second}))
    assert output == {"first": 1, "second": 2}
    assert names["first"] == 1 and names["second"] == 2


async def test_a_merge_sees_what_the_branches_bound():
    world = World(agents={"a": lambda g: {"n": 1}, "b": lambda g: {"n": 2}})
    output, _ = await run(spec(Concurrent("a", "b", merge="[a.n, b.n]")), world)
    assert output == [1, 2]


async def test_a_branch_may_be_a_list_of_steps():
    world = World(agents={"a": lambda g: {}, "b": lambda g: {"was": "b"}, "c": lambda g: {"was": "c"}})
    output, _ = await run(spec({"concurrent": [["a", "b"], "c"]}), world)
    assert output == {"b": {"was": "b"}, "c": {"was": "c"}}


async def test_two_branches_of_one_agent_are_told_apart():
    world = World(agents={"a": lambda g: {"n": 1}})
    output, _ = await run(spec(Concurrent("a", "a")), world)
    assert list(output) == ["a", "a-2"]


async def test_a_failed_branch_ends_its_siblings_and_tells_what_is_finished():
    world = World(agents={"a": lambda g: {"n": 1}, "b": fails(OutOfScope("not ours")), "c": waits})
    with pytest.raises(BranchFailed) as failed:
        await run(spec(Concurrent("a", "b", "c")), world)
    error = failed.value
    assert error.kind == "out_of_scope"
    assert error.evidence["partial"] == {"a": {"n": 1}}
    assert error.evidence["ended"] == ["c"]
    assert error.evidence["failed"]["b"]["message"] == "not ours"


async def test_siblings_may_finish_before_the_failure_escalates():
    async def slow(given: Any) -> Any:
        for _ in range(5):
            await asyncio.sleep(0)
        return {"n": 2}

    world = World(agents={"a": fails(DataMissing("no order", needed="the order number")), "b": slow})
    with pytest.raises(BranchFailed) as failed:
        await run(spec(Concurrent("a", "b", on_failure="escalate")), world)
    assert failed.value.evidence["partial"] == {"b": {"n": 2}}
    assert failed.value.needed == "the order number"


async def test_with_keep_the_run_goes_on_with_what_is_there():
    world = World(agents={"a": fails(DataMissing("gone")), "b": lambda g: {"n": 2}})
    output, names = await run(spec(Concurrent("a", "b", on_failure="keep")), world)
    assert output == {"b": {"n": 2}} and "a" not in names
    assert [(kind, fields["branch"]) for _, kind, fields in world.notes] == [("branch.failed", "a")]


async def test_with_keep_and_nothing_left_it_escalates():
    world = World(agents={"a": fails(DataMissing("gone")), "b": fails(DataMissing("too"))})
    with pytest.raises(BranchFailed):
        await run(spec(Concurrent("a", "b", on_failure="keep")), world)


@pytest.mark.parametrize("concurrency", [1, 2, 5])
async def test_a_loop_does_its_steps_for_every_item_in_order(concurrency: int):
    async def agent(given: Any) -> Any:
        await asyncio.sleep(0)
        return given["n"] * 10

    world = World(agents={"a": agent})
    loop = Foreach(in_="input.items", as_="one", steps=[{"a": {"with": {"n": "one + index"}}}], concurrency=concurrency)
    output, _ = await run(spec(loop), world, input={"items": [1, 2, 3]})
    assert output == [10, 30, 50]
    assert world.widest == (0 if concurrency == 1 else min(concurrency, 3))


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_the_item_means_nothing_behind_the_loop_and_hides_nothing_for_good(concurrency: int):
    world = World(agents={"item": lambda given: {"n": 1}, "a": lambda given: {"n": 2}})
    loop = Foreach(in_="input.items", steps=["a"], concurrency=concurrency)
    _, names = await run(spec("item", loop), world, input={"items": [7, 8]})
    assert names["item"] == {"n": 1} and "index" not in names


async def test_a_loop_over_nothing_gives_nothing():
    output, _ = await run(spec(Foreach(in_="input.items", steps=["a"])), World(), input={"items": []})
    assert output == []


async def test_a_loop_refuses_more_items_than_it_allows():
    with pytest.raises(LimitReached, match="3 items"):
        await run(spec(Foreach(in_="input.items", steps=["a"], max=2)), World(), input={"items": [1, 2, 3]})


async def test_a_loop_over_something_else_is_a_format_mismatch():
    with pytest.raises(FormatMismatch):
        await run(spec(Foreach(in_="input.items", steps=["a"])), World(), input={"items": "abc"})


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_failed_item_ends_a_loop_with_what_is_finished(concurrency: int):
    def agent(given: Any) -> Any:
        if given["n"] == 2:
            raise DataMissing("no such order")
        return given["n"]

    loop = Foreach(in_="input.items", steps=[{"a": {"with": {"n": "item"}}}], concurrency=concurrency)
    with pytest.raises(BranchFailed) as failed:
        await run(spec(loop), World(agents={"a": agent}), input={"items": [1, 2, 3]})
    assert failed.value.kind == "data_missing"
    assert failed.value.evidence["partial"]["0"] == 1


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_with_keep_a_failed_item_gives_null(concurrency: int):
    def agent(given: Any) -> Any:
        if given["n"] == 2:
            raise DataMissing("no such order")
        return given["n"]

    loop = Foreach(
        in_="input.items", steps=[{"a": {"with": {"n": "item"}}}], concurrency=concurrency, on_failure="keep"
    )
    output, _ = await run(spec(loop), World(agents={"a": agent}), input={"items": [1, 2, 3]})
    assert output == [1, None, 3]
