"""A run that ends its process: its neighbours complete, and it goes to a person in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import FILES, answer, cli, command, environment, lines, make, outside

JUDGE = """\
import asyncio
import os


async def judge(ctx, input):
    await ctx.tool("desk.look", {"order": input["order"]})
    poison = input["order"] == "O-0"
    await asyncio.sleep(0.3 if poison else 0.6)
    if poison:
        os.abort()
    return {"amount": input["amount"], "note": "checked"}
"""
"""All have begun when the first ends the process, and none of the others has ended."""
ORDERS = [{"id": n, "order": f"O-{n}", "amount": 1.0} for n in range(4)]


def ends(desk: Path, *args: str) -> int:
    return cli(desk, *args).returncode


@pytest.mark.parametrize("again", [("runs", "resume", "--all"), ("run",)])
def test_a_run_that_ends_its_process_does_so_a_few_times_and_is_escalated(
    tmp_path: Path, again: tuple[str, ...]
) -> None:
    desk = make(tmp_path / "shop")
    shop = desk / "agents" / "shop.py"
    shop.write_text(JUDGE)
    batch = ("run", "pay", "--input", lines(desk, ORDERS), "--batch", "x")
    assert ends(desk, *batch) < 0
    args = batch if again == ("run",) else again
    codes = []
    while (code := ends(desk, *args)) < 0:
        codes.append(code)
        assert len(codes) < 12, "it is not tried for ever"
    states = {run["id"]: (run["outcome"], run["reason"]) for run in answer(desk, "runs", "list")}
    assert sorted(states.values()) == [("completed", "")] * 3 + [("escalated", "restarts")]
    [poison] = [run for run, (outcome, _) in states.items() if outcome == "escalated"]
    shown = answer(desk, "runs", "show", poison)
    assert "5 times" in shown["package"]["what_happened"]
    assert shown["package"]["evidence"]["restarts"] == 5


def test_serve_gets_past_it_too(tmp_path: Path) -> None:
    desk = make(tmp_path / "shop")
    (desk / "agents" / "shop.py").write_text(JUDGE)
    config = desk / "tightship.yaml"
    config.write_text(config.read_text() + "limits: {restarts: 3}\n")
    assert ends(desk, "run", "pay", "--input", lines(desk, ORDERS), "--batch", "x") < 0
    for _ in range(8):
        with subprocess.Popen(
            command("serve", "--json"), cwd=desk, stdout=subprocess.PIPE, text=True, env=environment()
        ) as served:
            assert served.stdout is not None
            for line in served.stdout:
                if json.loads(line).get("reason") == "restarts":
                    served.terminate()
        if all(run["state"] == "ended" for run in answer(desk, "runs", "list")):
            break
    found = sorted((run["outcome"], run["reason"]) for run in answer(desk, "runs", "list"))
    assert found == [("completed", "")] * 3 + [("escalated", "restarts")]


PIN = """
import os

@tool(effect="write", name="desk.pin", idempotency="key")
async def pin(order: str) -> str:
    return f"pinned {order}"

@tool(effect="write", name="desk.unpin")
async def unpin(order: str) -> str:
    os._exit(7)

@unpin.looked_up_by
async def unpinned(request: Request) -> None:
    os._exit(7)
"""
UNDONE = """\
workflow: pay
owner: shop
purpose: pay what is due for an order
input: {order: str, amount: float}
budget: {usd: 0.50, seconds: 1200, then: escalate}
limits: {restarts: 3}
escalate_to: lead
steps:
  - action: desk.pay
    with: {order: input.order, amount: 1.0}
    undo: {tool: desk.unpay, with: {order: args.order}}
  - action: desk.pin
    with: {order: input.order}
    undo: {tool: desk.unpin, with: {order: args.order}}
  - judge
"""
"""The judge refuses a negative amount; what was pinned is taken back first."""


def test_an_undo_that_ends_its_process_is_given_up_and_the_rest_is_undone(tmp_path: Path) -> None:
    changed = {"tools__desk.py": FILES["tools/desk.py"] + PIN, "workflows__pay": UNDONE}
    desk = make(tmp_path / "shop", **changed)
    assert ends(desk, "run", "pay", "--data", '{"order": "O-1", "amount": -1}') == 7
    codes = []
    while (code := ends(desk, "runs", "resume", "--all")) == 7:
        codes.append(code)
        assert len(codes) < 8, "it is not tried for ever"
    [run] = answer(desk, "runs", "list")
    assert (run["state"], run["outcome"], run["reason"]) == ("ended", "escalated", "data_missing")
    assert outside(desk) == ["pay O-1", "unpay O-1"]
    [remains] = answer(desk, "runs", "show", run["id"])["package"]["evidence"]["effects that remain"]
    assert (remains["tool"], remains["why"]) == ("desk.pin", "whether it was undone is unknown")
    assert len(codes) == 3
    assert ends(desk, "runs", "resume", "--all") == 0 and ends(desk, "audit", "verify") == 0
