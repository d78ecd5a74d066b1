"""An agent that is a person: the run parks, the answer has to fit, and nobody is waited for beyond the deadline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from model_desk import ANSWER, Desk, of_kind
from tightship import Agent, Workflow
from tightship.core import kinds
from tightship.core.errors import BoundaryError, GuardRefused, InputRejected
from tightship.ledger import Ledger, MemoryState
from tightship.review.inbox import Decision
from tightship.runtime.result import Run
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import projections

OUTPUT = {"amount": "float", "reason": ["damaged", "late"]}
FITTING = {"amount": 12.5, "reason": "late"}


def desk_with_a_clerk(folder: Path, **more: Any) -> Desk:
    """A desk whose workflow `case` asks a person between two turns of an agent."""
    clerk = {"input": {"triage": "object"}, "output": OUTPUT, **more.pop("clerk", {})}
    desk = Desk(folder, [ANSWER], tools=[], **more)
    desk.space.add(
        Agent("clerk", owner="o", purpose="say what is paid back", human="lead", **clerk),
        Agent("last", owner="o", purpose="p", python="m:f", input={"clerk": "any"}, output={"paid": "any"}),
        functions={"last": _last},
    )
    desk.space.add(
        Workflow("case", owner="o", purpose="p", input={"ticket": "str"}, steps=["triage", "clerk", "last"]),
    )
    return desk


async def _last(ctx: Any, given: Any) -> Any:
    return {"paid": given["clerk"]}


async def parked(desk: Desk) -> tuple[Run, str]:
    run = await desk.space.run("case", {"ticket": "broken"}, reference="C-1")
    assert run.state == "parked"
    [item] = run.waiting
    return run, item


async def resumed(desk: Desk, run: Run) -> Run:
    await desk.space.resume([run.id])
    return await desk.space.result(run.id)


async def test_the_run_parks_with_all_that_the_person_needs(tmp_path: Path) -> None:
    desk = desk_with_a_clerk(tmp_path)
    _, item = await parked(desk)
    operator = await desk.space.operator()
    found, package = await operator.item(item)
    assert (found.type, found.role, found.due) == ("question", "lead", 0.0)
    assert "clerk" in found.title and "broken" not in found.title
    assert package["what_happened"] == "say what is paid back"
    assert package["evidence"]["input"] == {"triage": ANSWER}
    assert package["schema"]["required"] == ["amount", "reason"]


async def test_the_answer_is_the_agents_output_and_the_run_goes_on(tmp_path: Path) -> None:
    desk = desk_with_a_clerk(tmp_path)
    run, item = await parked(desk)
    operator = await desk.space.operator()
    await operator.decide(item, Decision("answer", "ann", FITTING))
    run = await resumed(desk, run)
    assert (run.outcome, run.output) == ("completed", {"paid": FITTING})
    assert len(desk.requests) == 1 and len(of_kind(run, kinds.OPENED)) == 1
    [closed] = of_kind(run, kinds.CLOSED)
    assert (closed.body["by"], closed.body["decision"]) == ("ann", "answer")


@pytest.mark.parametrize(
    "value",
    [{"amount": "much", "reason": "late"}, {"amount": 1.0}, {"amount": 1.0, "reason": "mood"}, "12.50", None],
)
async def test_an_answer_that_does_not_fit_is_refused_at_the_inbox_and_can_be_given_again(
    tmp_path: Path, value: Any
) -> None:
    desk = desk_with_a_clerk(tmp_path)
    run, item = await parked(desk)
    operator = await desk.space.operator()
    with pytest.raises(InputRejected):
        await operator.decide(item, Decision("answer", "ann", value))
    found, _ = await operator.item(item)
    assert found.open
    await operator.decide(item, Decision("answer", "ann", FITTING))
    assert (await resumed(desk, run)).outcome == "completed"
    with pytest.raises(GuardRefused):
        await operator.decide(item, Decision("answer", "ann", FITTING))


async def test_approving_gives_no_output_so_it_is_refused_where_one_is_declared(tmp_path: Path) -> None:
    desk = desk_with_a_clerk(tmp_path)
    _, item = await parked(desk)
    with pytest.raises(InputRejected, match="asks for an output"):
        await (await desk.space.operator()).decide(item, Decision("approve", "ann"))


async def test_where_no_output_is_declared_saying_that_it_is_done_is_enough(tmp_path: Path) -> None:
    desk = desk_with_a_clerk(tmp_path, clerk={"output": {}})
    run, item = await parked(desk)
    await (await desk.space.operator()).decide(item, Decision("approve", "ann"))
    assert (await resumed(desk, run)).output == {"paid": None}


async def test_only_a_holder_of_the_role_may_answer(tmp_path: Path) -> None:
    desk = desk_with_a_clerk(tmp_path)
    _, item = await parked(desk)
    with pytest.raises(BoundaryError, match="does not hold the role lead"):
        await (await desk.space.operator()).decide(item, Decision("answer", "mallory", FITTING))


async def test_a_person_who_does_not_do_it_ends_it_by_the_declared_behaviour(tmp_path: Path) -> None:
    desk = desk_with_a_clerk(tmp_path)
    run, item = await parked(desk)
    await (await desk.space.operator()).decide(item, Decision("reject", "ann", reason="not mine"))
    run = await resumed(desk, run)
    assert (run.outcome, run.reason) == ("escalated", "Unforeseen")
    assert run.package is not None and "ann did not do it: not mine" in run.package["what_happened"]


def test_nobody_is_waited_for_beyond_the_deadline(tmp_path: Path) -> None:
    async def story(sim: Simulation) -> tuple[Run, float]:
        state = MemoryState()
        world = sim.world()
        ledger = Ledger.in_memory(world, projections(), state)
        gives = {"then": "continue", "give": FITTING}
        desk = desk_with_a_clerk(
            tmp_path, world=world, ledger=ledger, clerk={"within": "5m", "on": {"unforeseen": gives}}
        )
        run, item = await parked(desk)
        found, _ = await (await desk.space.operator()).item(item)
        due = found.due - sim.clock.now()
        await sim.clock.sleep(290)
        assert await desk.space.due() == []
        await sim.clock.sleep(20)
        return await resumed(desk, run), due

    run, due = simulate(story)
    assert 299 < due <= 300
    assert (run.outcome, run.output) == ("completed", {"paid": FITTING})
    [closed] = of_kind(run, kinds.CLOSED)
    assert closed.body["decision"] == "expired"


async def test_the_question_is_asked_once_however_often_the_run_is_taken_up(tmp_path: Path) -> None:
    state = MemoryState()
    desk = desk_with_a_clerk(tmp_path, state=state)
    run, item = await parked(desk)
    await desk.space.close()
    for _ in range(2):
        desk = desk_with_a_clerk(tmp_path, state=state)
        again = await desk.space.run("case", {"ticket": "broken"}, reference="C-1")
        assert (again.id, again.waiting) == (run.id, (item,))
        assert (await resumed(desk, run)).waiting == (item,)
        await desk.space.close()
    desk = desk_with_a_clerk(tmp_path, state=state)
    await (await desk.space.operator()).decide(item, Decision("answer", "ann", FITTING))
    run = await resumed(desk, run)
    assert run.outcome == "completed" and len(of_kind(run, kinds.OPENED)) == 1
