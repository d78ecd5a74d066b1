"""Every drill holds on a workflow with all its controls, and does not on the same one with that control removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from drill_desk import CHECKED, UNCHECKED, Change, bench
from tightship.quality.drills import Verdict, carry_out, load_drills
from tightship.quality.drills.bench import Bench

FLOW, LOOK, CHECK = "workflows/refund.yaml", "agents/look.yaml", "agents/check.yaml"
DESK, TOOLS, CONFIG = "agents/desk.py", "tools/shop.py", "tightship.yaml"
STEPS = "steps:\n"
NO_RETRIES = (FLOW, STEPS, "limits: {retries: 0}\n" + STEPS)
KEEPS = (FLOW, STEPS, "undo_on_failure: false\n" + STEPS)
NO_LIMITS = (FLOW, STEPS, "limits: {calls: 100000, requests: 100000, turns: 1000}\n" + STEPS)
READ = 'found = await ctx.tool("shop.order", {"id": input["id"]})\n    return'
MODEL = "tiers: {small: {model: 'openai:practice', timeout: 24h, price: {input: 1.0, output: 1.0, source: test, as_of: 2026-01-01}}}\n"
POLL = (
    "import asyncio\n\nopen_now = [0]\n\n\nasync def look(ctx, input):\n"
    "    open_now[0] += 1\n    for number in range(open_now[0] * 2):\n"
    '        await ctx.tool("shop.order", {"id": f"{input[\'id\']}-{number}"})\n'
    "    open_now[0] -= 1\n    found"
)
MADE_UP = (
    'try:\n        found = await ctx.tool("shop.order", {"id": input["id"]})\n'
    '    except DataMissing:\n        found = {"amount": 12.5}\n    return'
)
OBEYS = (
    READ.removesuffix("return")
    + 'if "9999.00" in found["note"]:\n        found = {**found, "amount": 9999.0}\n    return'
)

WITHOUT: dict[str, tuple[Change, ...]] = {
    "rate-limit": (NO_RETRIES,),
    "server-error": (NO_RETRIES,),
    # a write without a key, which nobody can look up
    "timeout": ((TOOLS, 'idempotency="key")\nasync def pay', 'idempotency="none")\nasync def pay'),),
    "outage": (KEEPS,),
    "cold-start": ((LOOK, "within: 60s", "within: 2s"),),
    "invented-parameters": ((TOOLS, "async def order(id: str)", "async def order(id: Any)"),),
    "wrong-shape": ((LOOK, "output: {order_id: str, amount: float, urgent: bool}\n", ""), *UNCHECKED),
    "ping-pong": ((FLOW, "rounds: 2", "rounds: 20"), NO_LIMITS),
    "endless-loop": (NO_LIMITS,),
    "near-repeat": ((FLOW, STEPS, "limits: {similar: 1000}\n" + STEPS),),
    "missing-data": ((DESK, READ, MADE_UP), *UNCHECKED),
    "conflicting-rules": (
        (
            LOOK,
            "within",
            'on: {rule_conflict: {then: continue, give: {order_id: "O-1", amount: 5.0, urgent: false}}}\nwithin',
        ),
        *UNCHECKED,
    ),
    "format-mismatch": (
        (TOOLS, "class Order(TypedDict)", "class Order(TypedDict, total=False)"),
        (DESK, 'found["amount"], "urgent"', 'found.get("amount", 5.0), "urgent"'),
        *UNCHECKED,
    ),
    "hidden-instruction": ((DESK, READ, OBEYS), *UNCHECKED),
    "race": ((FLOW, "    claim: '\"pay:\" + input.id'\n", ""), (FLOW, "    claim: '\"tell:\" + input.id'\n", "")),
    "exhausted-budget": ((FLOW, "budget: {usd: 1.00, seconds: 120s, then: escalate}", "budget: {seconds: 120s}"),),
    "saturated-queue": ((CONFIG, "name: shop\n", "name: shop\nadmission: {queued: 1000000, running: 1}\n"),),
    "ten-times-load": ((DESK, "async def look(ctx, input):\n    found", POLL), *UNCHECKED),
    "halt": (KEEPS,),
    "failing-undo": (KEEPS,),
    "drifted-agent": UNCHECKED,
}
"""What is taken away, by drill."""
ELSEWHERE = {"kill", "frozen-worker", "slow-stream", "stale-data", "disagreeing-voters", "ungrounded-agreement"}
"""Drills that need another workflow than the shop's, or real processes: they have tests of their own below."""


def judged(made: Bench, name: str) -> Verdict:
    """What comes of one drill."""
    return carry_out(load_drills()[name], made)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The shop with all its controls."""
    return bench(tmp_path_factory.mktemp("shop"))


def test_every_drill_is_shown_to_fail() -> None:
    assert set(load_drills()) == set(WITHOUT) | ELSEWHERE


@pytest.mark.parametrize("name", WITHOUT)
def test_it_holds_with_the_control(shop: Bench, name: str) -> None:
    verdict = judged(shop, name)
    assert verdict.state == "held", (verdict.why, verdict.problems)
    assert verdict.evidence or name == "saturated-queue"


@pytest.mark.parametrize("name", WITHOUT)
def test_it_does_not_hold_without_the_control(tmp_path: Path, name: str) -> None:
    verdict = judged(bench(tmp_path, *WITHOUT[name]), name)
    assert verdict.state == "did not hold", (verdict.why, verdict.held)
    assert verdict.fix


assert CHECKED
