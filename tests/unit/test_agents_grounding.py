"""Agents that agree on an invented fact are stopped: a claim stands in what it cites, or the turn does not stand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from engine_desk import Desk, simulate, tool

from model_desk import Desk as ModelDesk
from tightship.agents.grounding import as_text, judge
from tightship.core import kinds
from tightship.core.errors import DataMissing
from tightship.runtime.result import Run
from tightship.runtime.simulation import Simulation
from tightship.workflow.models import GroundedSpec

ORDER = {"order_id": "O-1", "status": "shipped", "days": 3, "lines": [{"sku": "A-1", "quantity": 2}]}
SPEC = GroundedSpec(claims="claims")
OUTPUT = {"answer": "str", "claims": [{"claim": "str", "source": "str"}]}


def claim(text: str, source: Any = "orders.get") -> dict[str, Any]:
    return {"answer": "yes", "claims": [{"claim": text, "source": source}]}


KNOWN = {
    "orders.get": [as_text(ORDER)],
    "stock/A-1@17": [as_text({"stock/A-1": 7})],
    "orders.list": ["order O-2 is open", "O-3 is paid"],
}


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (claim("Order O-1 is shipped."), None),
        (claim("The order O-1 takes 3 days."), None),
        (claim("The stock of A-1 is 7", "stock/A-1@17"), None),
        (claim("O-3 is paid", "orders.list"), None),
        ({"answer": "no"}, None),
        (claim("Order O-1 takes 5 days."), "do not say 5"),
        (claim("Order O-9 is shipped."), "do not say"),
        (claim("Order O-1 is not shipped."), "denies"),
        (claim("The customer was promised a refund by telephone."), "of its words"),
        (claim("Order O-1 is shipped.", ""), "cites no source"),
        (claim("Order O-1 is shipped.", []), "cites no source"),
        (claim("Order O-1 is shipped.", "refunds.get"), "nothing that it has read"),
        (claim("O-3 is open", "orders.list"), "its sources do not say"),
        ({"claims": ["Order O-1 is shipped."]}, "cites no source"),
        ({"claims": "Order O-1 is shipped."}, "no list of claims"),
    ],
)
def test_a_claim_stands_in_what_it_cites(output: Any, reason: str | None) -> None:
    wrong = judge(SPEC, output, KNOWN)
    assert (wrong == []) if reason is None else reason in str(wrong[0]) or reason == "its sources do not say", wrong
    if reason == "its sources do not say":
        assert wrong


def voting(*answers: dict[str, Any], grounded: Any = SPEC, vote: Any = None, step: Any = None) -> Run:
    """A vote of agents that read the order and answer so; `grounded` of the agents, of the vote, or of their steps."""

    async def story(sim: Simulation) -> Run:
        desk = Desk(sim, [tool("orders.get", ORDER, input_schema={"type": "object"})])
        for number, answer in enumerate(answers):

            async def voter(ctx: Any, given: Any, answer: dict[str, Any] = answer) -> Any:
                await ctx.tool("orders.get", {"order_id": "O-1"})
                return answer

            desk.agent(f"voter{number}", voter, output=OUTPUT, grounded=grounded, retries=0)
        names = [f"voter{number}" for number in range(len(answers))]
        voters: list[Any] = [{name: {"grounded": step}} for name in names] if step else names
        more = {"grounded": vote} if vote else {}
        desk.workflow({"vote": {"voters": voters, "compare": "answer.answer", "within": "30s", "need": 2, **more}})
        return await desk.run()

    return simulate(story)


INVENTED, READ = claim("The customer was promised 40 percent off."), claim("Order O-1 is shipped.")


def test_agents_that_agree_on_an_invented_fact_are_stopped() -> None:
    run = voting(INVENTED, INVENTED, INVENTED)
    assert run.outcome == "escalated"
    assert "claims what its sources do not say" in str(run.package)
    assert voting(INVENTED, INVENTED, INVENTED, grounded=None).outcome == "completed"  # what the declaration prevents


def test_only_grounded_answers_count_in_a_vote() -> None:
    run = voting(READ, READ, {**INVENTED, "answer": "no"})
    assert run.outcome == "completed" and run.output["value"] == "yes"
    assert list(run.output["absent"]) == ["voter2"]
    run = voting(READ, {**READ, "answer": "no"}, {**INVENTED, "answer": "no"})
    assert run.outcome == "escalated"  # one against one: the invention breaks no tie


@pytest.mark.parametrize(
    "declared", [{"vote": "claims"}, {"step": "claims"}, {"vote": {"claims": "claims", "fewest": 1}}]
)
def test_a_workflow_declares_that_answers_count_only_where_they_are_grounded(declared: Any) -> None:
    nothing = {"answer": "yes", "claims": []}
    for ungrounded in (INVENTED, nothing):
        agreed = (ungrounded, ungrounded, {**READ, "answer": "no"})
        run = voting(*agreed, grounded=None, **declared)
        assert run.outcome == "escalated"  # two who agree on what no source says are nobody
        assert voting(*agreed, grounded=None).output["value"] == "yes"  # what the declaration prevents
    run = voting(READ, READ, nothing, grounded=None, **declared)
    assert run.output["value"] == "yes" and list(run.output["absent"]) == ["voter2"]
    assert "1 claims with their sources are needed" in run.output["absent"]["voter2"]


def test_what_a_voter_says_of_its_own_grounds_goes_before_what_the_vote_says() -> None:
    nothing = {"answer": "yes", "claims": []}
    run = voting(READ, nothing, grounded=None, vote="claims", step={"claims": "claims", "fewest": 0})
    assert run.output["value"] == "yes" and run.output["absent"] == {}


def test_an_agent_that_stands_in_for_a_voter_has_to_be_grounded_as_well() -> None:
    async def story(sim: Simulation) -> Run:
        desk = Desk(sim, [tool("orders.get", ORDER, input_schema={"type": "object"})])

        async def absent(ctx: Any, given: Any) -> Any:
            raise DataMissing("nothing is known")

        async def inventing(ctx: Any, given: Any) -> Any:
            return INVENTED

        desk.agent("absent", absent, output=OUTPUT)
        desk.agent("backup", inventing, output=OUTPUT, retries=0)
        voter = {"absent": {"on": {"data_missing": {"use": "backup"}}}}
        desk.workflow({"vote": {"voters": [voter, voter], "compare": "answer.answer", "grounded": "claims"}})
        return await desk.run()

    run = simulate(story)
    assert run.outcome == "escalated" and "nothing that it has read" in str(run.package)


def test_an_agent_cannot_cite_what_it_has_made_up_itself() -> None:
    async def story(sim: Simulation) -> Run:
        desk = Desk(sim, [], config="context:\n  notes/*: {type: str, writers: [liar], readers: [liar]}\n")

        async def liar(ctx: Any, given: Any) -> Any:
            await ctx.write("notes/1", "the refund of 40 is agreed")
            await ctx.read("notes/1")
            return claim("The refund of 40 is agreed.", "notes/1")

        desk.agent("liar", liar, output=OUTPUT, grounded=SPEC, retries=0)
        desk.workflow("liar")
        return await desk.run()

    run = simulate(story)
    assert run.outcome == "escalated" and "nothing that it has read" in str(run.package)


async def test_a_model_is_told_which_claim_does_not_stand_and_mends_it(tmp_path: Path) -> None:
    get = [("orders.get", {"order_id": "O-1"})]
    script = [get, claim("O-1 is lost."), get, claim("Order O-1 is shipped.")]
    desk = ModelDesk(tmp_path, script, output=OUTPUT, grounded={"claims": "claims"}, tools=["orders.get"])
    run = await desk.run()
    assert (run.outcome, run.output) == ("completed", claim("Order O-1 is shipped."))
    assert "'O-1 is lost.'" in desk.said()[1][1]
    first, second = [entry.body for entry in run.entries if entry.kind == kinds.TURN]
    assert first["error"]["error"] == "Ungrounded" and second["repair"] == 2


async def test_an_input_is_a_source_only_where_it_is_declared(tmp_path: Path) -> None:
    said = claim("Where is O-1?", "input.ticket")
    for sources, outcome in ((["tools"], "escalated"), (["tools", "input.ticket"], "completed")):
        grounded = {"claims": "claims", "sources": sources}
        desk = ModelDesk(tmp_path, [said], output=OUTPUT, grounded=grounded, retries=0)
        assert (await desk.run("Where is O-1?")).outcome == outcome
