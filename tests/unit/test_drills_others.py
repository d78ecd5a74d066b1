"""Drills that need a model, a vote, a shared context, or real processes: each holds, and fails without its control."""

from __future__ import annotations

from pathlib import Path

import pytest

from drill_desk import Change, bench
from tightship.quality.drills import Verdict, carry_out, load_drills, processes

FLOW, LOOK, DESK, TOOLS, CONFIG = (
    "workflows/refund.yaml",
    "agents/look.yaml",
    "agents/desk.py",
    "tools/shop.py",
    "tightship.yaml",
)
CALL = 'ctx.tool("shop.order", {"id": input["id"]})\n    return'


def judged(name: str, folder: Path, *changes: Change) -> Verdict:
    """What comes of one drill on the shop with these changes."""
    return carry_out(load_drills()[name], bench(folder, *changes))


# --- real processes ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer places at which processes are hit."""
    monkeypatch.setattr(processes, "APPENDS", 3)
    monkeypatch.setattr(processes, "WRITES", 1)


def test_a_killed_process_is_gone_on_from(tmp_path: Path) -> None:
    verdict = judged("kill", tmp_path)
    assert verdict.state == "held", verdict.problems
    assert any("before write 1" in one for one in verdict.held) and any("after #" in one for one in verdict.held)


def test_a_kill_shows_an_agent_that_does_something_else_in_every_process(tmp_path: Path) -> None:
    """Its call names the process: what the next one asks, when it takes up the turn, is not what the ledger holds."""
    by_process = 'ctx.tool("shop.order", {"id": str(os.getpid())})\n    found = await ' + CALL
    verdict = judged("kill", tmp_path, (DESK, CALL, by_process))
    assert verdict.state == "did not hold", verdict.held
    assert any("Nondeterminism" in one for one in verdict.problems), verdict.problems


def test_a_frozen_process_wakes_and_does_nothing_twice(tmp_path: Path) -> None:
    verdict = judged("frozen-worker", tmp_path)
    assert verdict.state == "held", verdict.problems
    for place in ("before write 1", "after write 1"):
        assert f"frozen {place}, and taken over: what came of it is as undisturbed" in verdict.held
        assert f"frozen {place}, and taken over: nothing was settled twice" in verdict.held


def test_a_takeover_shows_a_write_of_which_nobody_can_tell_whether_it_was_done(tmp_path: Path) -> None:
    no_key = (TOOLS, 'idempotency="key")\nasync def pay', 'idempotency="none")\nasync def pay')
    verdict = judged("frozen-worker", tmp_path, no_key)
    assert verdict.state == "did not hold", verdict.held
    assert any("taken over: it ended as escalated: OutcomeUnknown" in one for one in verdict.problems), verdict.problems


def test_a_freeze_shows_that_there_is_no_time_to_spare(tmp_path: Path) -> None:
    verdict = judged("frozen-worker", tmp_path, (FLOW, "seconds: 120s", "seconds: 1s"))
    assert verdict.state == "did not hold", verdict.held


# --- a model ----------------------------------------------------------------------------------------

TIER = "name: shop\ntiers: {small: {model: 'openai:practice', timeout: 30s}}\n"
MODEL: tuple[Change, ...] = (
    (CONFIG, "name: shop\n", TIER),
    (LOOK, "python: desk:look", "model: small"),
    (FLOW, "  - maker_checker: {maker: look, checker: check, rounds: 2}\n", "  - look\n"),
)
PATIENT: tuple[Change, ...] = (
    (CONFIG, "name: shop\n", TIER.replace("30s", "1h")),
    (LOOK, "within: 60s", "within: 1h"),
    (FLOW, "seconds: 120s", "seconds: 2h"),
)


def test_a_stream_without_end_is_cut_off(tmp_path: Path) -> None:
    assert judged("slow-stream", tmp_path, *MODEL).state == "held"


def test_a_stream_is_waited_for_by_whoever_sets_no_limit(tmp_path: Path) -> None:
    verdict = judged("slow-stream", tmp_path, *PATIENT, *MODEL[1:])
    assert verdict.state == "did not hold", verdict.held


def test_a_provider_that_asks_for_patience_is_waited_for(tmp_path: Path) -> None:
    verdict = judged("rate-limit", tmp_path, *MODEL)
    assert verdict.state == "held", verdict.problems
    assert any("the provider" in one for one in verdict.held)


def test_without_a_model_there_is_no_stream(tmp_path: Path) -> None:
    verdict = judged("slow-stream", tmp_path)
    assert (verdict.state, verdict.why) == ("does not apply", "no agent is a model")


# --- a vote -----------------------------------------------------------------------------------------

VOTER = """\
agent: {name}
owner: audit
purpose: say whether it is to be paid
python: desk:say
input: {{id: str}}
output: {{pay: bool, reason: str}}
within: 10s
"""
VOTE: tuple[Change, ...] = (
    *((f"agents/{name}.yaml", "", VOTER.format(name=name)) for name in ("a", "b", "c")),
    (DESK, "import os\n", "import os\n\n\nasync def say(ctx, input):\n    return {'pay': True, 'reason': 'fine'}\n"),
    (
        FLOW,
        "steps:\n",
        "steps:\n  - vote: {voters: [a, b, c], compare: answer.pay, settle: SETTLE}\n    name: said\n"
        "  - checkpoint: said.value == true\n",
    ),
)


def test_no_single_voter_acts(tmp_path: Path) -> None:
    verdict = judged("disagreeing-voters", tmp_path, *VOTE, (FLOW, "SETTLE", "majority"))
    assert verdict.state == "held", verdict.problems


def test_a_vote_shows_whoever_decides_alone(tmp_path: Path) -> None:
    weights = "{rule: weighted, weights: {a: 9, b: 1, c: 1}}"
    verdict = judged("disagreeing-voters", tmp_path, *VOTE, (FLOW, "SETTLE", weights))
    assert verdict.state == "did not hold", verdict.held
    assert all(problem.startswith("a alone") for problem in verdict.problems)


LOOKS_AT = """\
agent: {name}
owner: audit
purpose: look at what a voter says
python: desk:fine
input: {{id: str}}
output: {{ok: bool, objections: "list[str]"}}
within: 10s
"""
PAIRS: tuple[Change, ...] = (
    *VOTE,
    ("agents/second.yaml", "", LOOKS_AT.format(name="second")),
    (
        DESK,
        "import os\n",
        "import os\n\n\nasync def fine(ctx, input):\n    return {'ok': all(one['pay'] for one in input.values()"
        " if isinstance(one, dict) and 'pay' in one), 'objections': ['pay it']}\n",
    ),
    (FLOW, "[a, b, c]", "[maker_checker: {maker: a, checker: second}, maker_checker: {maker: b, checker: second}]"),
)
"""Two voters, each a pair whose checker is the same agent, and wants what its maker says undisturbed."""


def test_voters_that_are_patterns_are_made_to_disagree_too(tmp_path: Path) -> None:
    verdict = judged("disagreeing-voters", tmp_path, *PAIRS, (FLOW, "SETTLE", "majority"))
    assert verdict.state == "held", (verdict.why, verdict.problems)
    assert {one.partition(" alone")[0] for one in verdict.held} == {"a", "b"}


def test_a_pair_that_decides_alone_is_shown(tmp_path: Path) -> None:
    verdict = judged("disagreeing-voters", tmp_path, *PAIRS, (FLOW, "SETTLE", "{rule: priority, order: [a, b]}"))
    assert verdict.state == "did not hold", (verdict.why, verdict.held)
    assert all(problem.startswith("a alone") for problem in verdict.problems), verdict.problems


BELOW = """\
workflow: ask-{name}
owner: audit
purpose: say whether it is to be paid
escalate_to: lead
input: {{id: str}}
budget: {{seconds: 60s, then: escalate}}
steps: [{name}]
output: {{pay: {name}.pay, reason: {name}.reason}}
"""
FLOWS: tuple[Change, ...] = (
    *VOTE,
    *((f"workflows/ask-{name}.yaml", "", BELOW.format(name=name)) for name in ("a", "b", "c")),
    (FLOW, "[a, b, c]", "[workflow: ask-a, workflow: ask-b, workflow: ask-c]"),
)


@pytest.mark.parametrize(
    ("rule", "state"), [("majority", "held"), ("{rule: priority, order: [ask_a, ask_b, ask_c]}", "did not hold")]
)
def test_voters_that_are_workflows_are_made_to_disagree_too(tmp_path: Path, rule: str, state: str) -> None:
    verdict = judged("disagreeing-voters", tmp_path, *FLOWS, (FLOW, "SETTLE", rule))
    assert verdict.state == state, (verdict.why, verdict.held, verdict.problems)
    assert {one.partition(" alone")[0] for one in verdict.held} == {"ask_a", "ask_b", "ask_c"}


def test_a_vote_of_people_says_why_it_is_not_drilled(tmp_path: Path) -> None:
    asks = ("agents/b.yaml", "python: desk:say\ninput: {id: str}", "human: lead\ninput: {id: str}")
    verdict = judged("disagreeing-voters", tmp_path, *VOTE, (FLOW, "SETTLE", "majority"), asks)
    assert verdict.state == "does not apply"
    assert verdict.why == "said: b asks a person, whose word nobody puts into their mouth"


def test_without_a_vote_nobody_disagrees(tmp_path: Path) -> None:
    assert judged("disagreeing-voters", tmp_path).why == "no step is a vote"


CITES = """\
async def say(ctx, input):
    order = await ctx.tool("shop.order", {"id": input["id"]})
    claims = [{"claim": f"The amount is {order['amount']}.", "source": "shop.order"}]
    return {"pay": True, "claims": claims}
"""
CITING = VOTER.replace("reason: str}}", "claims: [{{claim: str, source: str}}]}}\ntools: [shop.order]")
GROUNDED: tuple[Change, ...] = (
    *((f"agents/{name}.yaml", "", CITING.format(name=name)) for name in ("a", "b", "c")),
    (DESK, "import os\n", f"import os\n\n\n{CITES}"),
    *VOTE[4:],
    (FLOW, "SETTLE", "majority, grounded: claims"),
)


def test_voters_that_agree_on_an_invention_lead_to_nothing(tmp_path: Path) -> None:
    verdict = judged("ungrounded-agreement", tmp_path, *GROUNDED)
    assert verdict.state == "held", (verdict.why, verdict.problems)


def test_where_nobody_asks_for_sources_an_invention_is_acted_upon(tmp_path: Path) -> None:
    verdict = judged("ungrounded-agreement", tmp_path, *GROUNDED, (FLOW, ", grounded: claims", ""))
    assert verdict.state == "did not hold", (verdict.why, verdict.held)
    assert any("it did shop.pay" in problem for problem in verdict.problems)


def test_voters_without_claims_have_nothing_that_could_be_grounded(tmp_path: Path) -> None:
    verdict = judged("ungrounded-agreement", tmp_path, *VOTE, (FLOW, "SETTLE", "majority"))
    assert (verdict.state, verdict.why) == ("does not apply", "no voter gives claims")


# --- a shared context -------------------------------------------------------------------------------

STOCK = """\


@tool(effect="read")
async def stock() -> int:
    \"\"\"What is there.\"\"\"
    raise AssertionError("a drill never calls the real tool")
"""
KEY = """\
name: shop
context:
  stock:
    writers: [look]
    type: int
    max_age: 1h
    source: {tool: shop.stock, value: "3", as_of: "1767225600.0"}
"""
"""The source has had its figure since the moment at which every simulation begins."""
CONTEXT: tuple[Change, ...] = (
    (CONFIG, "name: shop\n", KEY),
    (TOOLS, '@tool(effect="read")\n', STOCK + '\n\n@tool(effect="read")\n'),
    (DESK, CALL, 'ctx.tool("shop.order", {"id": input["id"]})\n    await ctx.read("stock")\n    return'),
    (LOOK, "tools: [shop.order]", "tools: [shop.order, shop.stock]\nreads: [stock]"),
)


def test_nobody_acts_on_yesterdays_figures(tmp_path: Path) -> None:
    verdict = judged("stale-data", tmp_path, *CONTEXT)
    assert verdict.state == "held", (verdict.why, verdict.problems)


def test_a_figure_whose_time_nobody_asks_for_is_acted_on_a_day_later(tmp_path: Path) -> None:
    verdict = judged("stale-data", tmp_path, *CONTEXT, (CONFIG, ', as_of: "1767225600.0"', ""))
    assert verdict.state == "did not hold", (verdict.why, verdict.held)


# --- handing over -----------------------------------------------------------------------------------

PARTY = """\
agent: {name}
owner: sales
purpose: know a part of it
python: desk:answers
input: {{id: str}}
output: {{order_id: str, amount: float, handoff: object?}}
tools: [shop.order]
within: 10s
"""
RING: tuple[Change, ...] = (
    *((f"agents/{name}.yaml", "", PARTY.format(name=name)) for name in ("a", "b", "c")),
    (
        DESK,
        "async def look",
        f"async def answers(ctx, input):\n    found = await {CALL} {{'order_id': input['id'], 'amount': found['amount']}}\n\n\nasync def look",
    ),
    (
        FLOW,
        "  - maker_checker: {maker: look, checker: check, rounds: 2}\n",
        "  - handoff: {first: a, peers: {a: [b], b: [c], c: [a]}, brief: {problem: str}, max: MOST}\n    name: look\n",
    ),
)


def test_a_ring_of_agents_that_hand_on_is_broken(tmp_path: Path) -> None:
    verdict = judged("ping-pong", tmp_path, *RING, (FLOW, "MOST", "4"))
    assert verdict.state == "held", (verdict.why, verdict.problems)


def test_a_ring_shows_that_nobody_counts(tmp_path: Path) -> None:
    limits = (FLOW, "steps:\n", "limits: {handoffs: 1000, turns: 1000}\nsteps:\n")
    verdict = judged("ping-pong", tmp_path, *RING, (FLOW, "MOST", "100"), limits)
    assert verdict.state == "did not hold", (verdict.why, verdict.held)
