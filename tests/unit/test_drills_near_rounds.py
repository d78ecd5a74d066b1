"""The drill on near repeats looks at rounds too: it holds where they are bounded, and does not where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from drill_desk import Change, bench
from tightship.quality.drills import Verdict, carry_out, load_drills

FLOW, DESK = "workflows/refund.yaml", "agents/desk.py"
CHECKED = "  - maker_checker: {maker: look, checker: check, rounds: 2}\n"
UNBOUNDED: Change = (FLOW, "steps:\n", "limits: {similar: 1000, turns: 1000}\nsteps:\n")
AGENT = """\
agent: {name}
owner: sales
purpose: play {name}
python: desk:{name}
input: {{{input}}}
output: {output}
tools: [{tools}]
within: 10s
"""


def agent(name: str, input: str, output: str, tools: str = "") -> Change:
    return f"agents/{name}.yaml", "", AGENT.format(name=name, input=input, output=output, tools=tools)


MANAGED: tuple[Change, ...] = (
    agent("plan", "id: str", "{tasks: list}"),
    agent("seek", "task: object", "{order_id: str, amount: float}", "shop.order"),
    agent("sum", "results: list", "{order_id: str, amount: float}"),
    (
        DESK,
        "async def check(",
        """\
async def plan(ctx, input):
    return {"tasks": [{"id": "t", "worker": "seek", "goal": "what is to be paid back", "input": {"id": input["id"]}}]}


async def seek(ctx, input):
    found = await ctx.tool("shop.order", {"id": input["task"]["input"]["id"]})
    return {"order_id": found["id"], "amount": found["amount"]}


async def sum(ctx, input):
    return input["results"][0]["value"]


async def check(""",
    ),
    (
        FLOW,
        CHECKED,
        "  - manager: {plan: plan, workers: {seek: {do: seek, input: {id: str}}}, replans: 8, synthesise: sum, within: 1m}\n"
        "    name: look\n",
    ),
)
GIVEN = "open: list, mine: list, inbox: list"
DOES = "{claim: list, results: list, messages: list}"
SHARED: tuple[Change, ...] = (
    *(agent(name, GIVEN, DOES, "shop.order") for name in ("north", "south")),
    agent("pick", "shared: object", "{order_id: str, amount: float}"),
    (
        DESK,
        "async def check(",
        """\
async def north(ctx, input):
    results = []
    for one in input["mine"]:
        found = await ctx.tool("shop.order", {"id": one["key"]})
        results.append({"key": one["key"], "value": {"order_id": found["id"], "amount": found["amount"]}})
    return {"claim": [one["key"] for one in input["open"]], "results": results, "messages": []}


async def south(ctx, input):
    return await north(ctx, input)


async def pick(ctx, input):
    return input["shared"]["results"][0]["value"]


async def check(""",
    ),
    (
        FLOW,
        CHECKED,
        "  - peers: {agents: [north, south], board: '[input.id]', within: 1m}\n    name: shared\n"
        "  - agent: pick\n    name: look\n",
    ),
)


def judged(folder: Path, *changes: Change) -> Verdict:
    """What comes of the drill on the shop with these changes."""
    return carry_out(load_drills()["near-repeat"], bench(folder, *changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [(MANAGED, "stopped after 4 plans"), (SHARED, "messages of a peer")],
    ids=["manager", "peers"],
)
def test_rounds_in_other_words_are_stopped(tmp_path: Path, changes: tuple[Change, ...], said: str) -> None:
    verdict = judged(tmp_path, *changes)
    assert verdict.state == "held", (verdict.why, verdict.problems)
    assert any(said in one and "NearRepeat" in one for one in verdict.held), verdict.held


@pytest.mark.parametrize(
    ("changes", "said"),
    [(MANAGED, "the same was planned in 9 wordings"), (SHARED, "a peer said the same in")],
    ids=["manager", "peers"],
)
def test_rounds_that_nobody_bounds_are_shown(tmp_path: Path, changes: tuple[Change, ...], said: str) -> None:
    verdict = judged(tmp_path, *changes, UNBOUNDED)
    assert verdict.state == "did not hold", (verdict.why, verdict.held)
    assert any(said in one for one in verdict.problems), verdict.problems
