"""What patterns have come to can be read afterwards: which task failed, what a run below did, who took whose place."""

from __future__ import annotations

from typing import Any

from engine_desk import Desk, simulate

from tightship.core.errors import Unavailable
from tightship.insight import show, why
from tightship.patterns import Handoff, Manager, Peers, WorkflowStep, load_all
from tightship.runtime.simulation import Simulation

load_all()


def task(id: str, worker: str) -> dict[str, Any]:
    return {"id": id, "worker": worker, "goal": id}


async def read(desk: Desk, run: str) -> tuple[str, list[tuple[str, str]]]:
    """What `runs show` says, and the workflow's own decisions as `runs why` has them, each with its reason."""
    told = await why(desk.ledger, run)
    return (await show(desk.ledger, run)).render(), [
        (one.action, one.reason) for one in told.decisions if one.actor == "workflow"
    ]


def test_a_managers_failed_tasks_the_runs_below_it_and_its_replacement_are_named() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def plan(ctx: Any, given: dict[str, Any]) -> Any:
            number = len(given["failed"])
            if number and not ctx.feedback:
                return {"tasks": [task("again", "nobody")]}
            return {"tasks": [task(f"good-{number}", "domain"), task(f"bad-{number}", "broken")]}

        async def fine(ctx: Any, given: dict[str, Any]) -> Any:
            return {"ok": True}

        async def broken(ctx: Any, given: dict[str, Any]) -> Any:
            raise Unavailable("the archive is closed")

        desk.agent("plan", plan, tools=[], input={"failed": "list"})
        desk.agent("fine", fine, tools=[])
        desk.agent("broken", broken, tools=[])
        desk.workflow("fine", name="below")
        desk.workflow("broken", name="astray")
        workers = {"domain": WorkflowStep("below"), "broken": WorkflowStep("astray")}
        desk.workflow(Manager(plan="plan", workers=workers, fallback="fine", within="1h"))
        run = await desk.run()
        assert run.outcome == "completed"
        shown, decided = await read(desk, run.id)
        assert shown.count("below: run r-") == 2 and shown.count("astray: run r-") == 2
        assert "failed  (escalated: unavailable)" in shown
        said = [action for action, _ in decided]
        for one in ("bad-0 failed: Unforeseen", "the plan does not stand", "planned anew: 1 tasks failed"):
            assert one in said
        assert any(action.endswith("of below completed") for action in said)
        assert any(action.endswith("of astray ended: escalated") for action in said)
        assert said.index("the fallback took the manager's place") > said.index("bad-0 failed: Unforeseen")
        assert "the archive is closed" in shown or "unavailable" in shown

    simulate(story)


def test_a_step_that_has_failed_is_not_shown_as_done() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def plan(ctx: Any, given: dict[str, Any]) -> Any:
            return {"tasks": [task("share", "board"), task("look", "look")]}

        async def idle(ctx: Any, given: dict[str, Any]) -> Any:
            return {}

        desk.agent("plan", plan, tools=[])
        for name in ("a", "b", "look"):
            desk.agent(name, idle, tools=[])
        fields: dict[str, Any] = {"agents": ["a", "b"], "board": '["x"]', "name": "board"}
        board = Peers(**fields)
        desk.workflow(Manager(plan="plan", workers={"board": board, "look": "look"}, on_failure="keep", within="1h"))
        run = await desk.run()
        assert run.output["failed"][0]["error"] == "NobodyMoves"
        shown, decided = await read(desk, run.id)
        assert "share  failed  (NobodyMoves)" in shown
        assert ("the board: 0 done, 0 by other runs, 1 left", "") in decided

    simulate(story)


def test_who_handed_over_to_whom_and_what_came_back_are_decisions() -> None:
    async def story(sim: Simulation) -> None:
        desk = Desk(sim)

        async def first(ctx: Any, given: dict[str, Any]) -> Any:
            brief = {"problem": "a lost parcel"} if ctx.feedback else {}
            return {"handoff": {"to": "second", "brief": brief}}

        async def second(ctx: Any, given: dict[str, Any]) -> Any:
            return {"answer": "found"}

        desk.agent("first", first, tools=[])
        desk.agent("second", second, tools=[])
        desk.workflow(Handoff(first="first", peers={"first": ["second"]}, brief={"problem": "str"}))
        run = await desk.run()
        assert run.outcome == "completed"
        _, decided = await read(desk, run.id)
        said = dict(decided)
        assert "problem" in said["the handoff went back to its sender"]
        assert "first handed over to second" in said

    simulate(story)
