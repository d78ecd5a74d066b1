"""A plan: when it stands, and in which words it is said why it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manager_desk import task

from tightship.core.errors import LoadError
from tightship.patterns import Manager
from tightship.patterns._plan import Bounds, Task, problems, read_plan


def test_what_was_not_done_cannot_be_needed_by_the_next_plan() -> None:
    bounds = Bounds({"look": None}, done=frozenset({"a"}), used=frozenset({"a", "b"}))
    plan, _ = read_plan({"tasks": [task("c", "a", "b")]})
    assert problems(plan, bounds) == ["c: it needs 'b', which is not done"]


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([], "no task"),
        ([task("a"), task("a", n=1)], "used twice"),
        ([task("a", worker="x")], "no worker 'x'"),
        ([task("a", "z")], "'z', which is no task"),
        ([task("a", "a")], "circle"),
        ([task("a"), {**task("b"), "goal": "do a"}], "b is a again"),
        ([task("a", covers=("x",))], "nothing covers 'y'"),
        ([task("a", covers=("x", "y")), task("b", covers=("y",))], "'y' is covered by a, b"),
        ([task("a", covers=("x", "y", "z"))], "'z', which nobody asked for"),
        ([task("a/b")], "no id for a task"),
        ([task("a", worker="typed", n="one")], "input.n"),
        ([task(f"t{number}") for number in range(13)], "at most 12"),
    ],
)
def test_each_way_in_which_a_plan_does_not_stand_is_said(tasks: list[dict[str, Any]], said: str) -> None:
    covered = any(one["covers"] for one in tasks)
    bounds = Bounds({"look": None, "typed": {"n": "int"}}, ("x", "y") if covered else ())
    plan, wrong = read_plan({"tasks": tasks})
    assert not wrong
    assert any(said in one for one in problems(plan, bounds)), problems(plan, bounds)


@pytest.mark.parametrize("output", [None, [], {}, {"tasks": [{"id": "a"}]}, {"tasks": [{**task("a"), "more": 1}]}])
def test_what_is_no_plan_is_said(output: Any) -> None:
    assert read_plan(output)[1]


@given(st.lists(st.tuples(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=3)), min_size=1, max_size=8))
def test_a_plan_that_stands_can_be_carried_out_to_the_end(given_tasks: Any) -> None:
    plan = [Task(f"t{id}", "look", f"goal {at}", tuple(f"t{need}" for need in needs)) for at, (id, needs) in enumerate(given_tasks)]  # fmt: skip
    if problems(plan, Bounds({"look": None})):
        return
    done = set[str]()
    while ready := [one for one in plan if one.id not in done and set(one.needs) <= done]:
        done |= {one.id for one in ready}
    assert done == {one.id for one in plan}


def test_several_answers_need_the_items_that_they_are_about() -> None:
    with pytest.raises(LoadError, match="give `cover`"):
        Manager(plan="plan", workers={"look": "look"}, answers=2)
