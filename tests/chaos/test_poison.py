"""A run that ends its process: its neighbours complete, and it goes to a person in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import answer, cli, command, environment, lines, make

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
