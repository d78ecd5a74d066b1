"""Peers on one tenant's board from several machines: processes race, one is killed while it holds claims."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import postgres_desk
import tightship
from board_desk import held_by_one
from tightship import Workspace

FILES = {
    "agents/one.yaml": """\
agent: one
owner: desk
purpose: work off what is open
python: desk:work
input: {open: list, mine: list}
output: {"claim?": "list[str]", "results?": list}
""",
    "agents/desk.py": """\
import asyncio
import os

turns = 0

async def work(ctx, input):
    global turns
    turns += 1
    await asyncio.sleep(0.05)
    if input["mine"] and os.environ.get("HANGS"):
        print("holding", flush=True)
        await asyncio.sleep(3600)
    return {
        "claim": [one["key"] for one in input["open"][:2]],
        "results": [{"key": one["key"], "value": os.getpid()} for one in input["mine"]],
    }
""",
    "workflows/work.yaml": """\
workflow: work
owner: desk
purpose: work off a board that all share
input: {items: "list[str]"}
escalate_to: lead
steps:
  - peers: {agents: [one, other], board: input.items, scope: tenant, lease: 3s, within: 10m, then: keep}
    name: shared
""",
}
FILES["agents/other.yaml"] = FILES["agents/one.yaml"].replace("agent: one", "agent: other")
DRIVER = """\
import asyncio, sys
from tightship import Workspace

async def main():
    async with Workspace.open(sys.argv[1]) as ws:
        await ws.engine()
        print("ready", flush=True)
        sys.stdin.readline()
        items = [f"item-{n}" for n in range(16)]
        if len(sys.argv) > 3:
            [ended] = await ws.resume([sys.argv[3]])
            assert ended.error is None, ended.error
            run = await ws.result(sys.argv[3])
        else:
            run = await ws.run("work", {"items": items}, reference=sys.argv[2])
        while run.state == "parked":
            await asyncio.sleep(0.2)
            await ws.resume([run.id])
            run = await ws.result(run.id)
        print(run.outcome, *[one["key"] for one in run.output["results"]], flush=True)

asyncio.run(main())
"""


def machine(folder: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(tightship.__file__).parents[1]), **env}
    command = [sys.executable, "-c", DRIVER, str(folder), *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


async def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


def said(process: subprocess.Popen[str]) -> list[str]:
    """Let it go on to its end."""
    output, _ = process.communicate("\n", timeout=300)
    assert process.returncode == 0
    return output.split()


@pytest.mark.slow
async def test_claims_of_a_killed_machine_come_back_and_what_it_says_late_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIGHTSHIP_MASTER_KEY", "dGlnaHRzaGlwIHRlc3RzJyBtYXN0ZXIga2V5ISEhISE=")
    config = f"name: desk\nroles: {{lead: [ann]}}\nstore: '{postgres_desk.new_store()}'\n"
    for name, text in {**FILES, "tightship.yaml": config}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    dies, lives = machine(tmp_path, "dies", HANGS="1"), machine(tmp_path, "lives")
    assert [await line(one) for one in (dies, lives)] == ["ready", "ready"]
    assert dies.stdin is not None and dies.stdout is not None
    dies.stdin.write("\n")
    dies.stdin.flush()
    assert await line(dies) == "holding"
    ending = asyncio.create_task(asyncio.to_thread(said, lives))
    await asyncio.sleep(0.3)  # both are at work
    dies.send_signal(signal.SIGKILL)
    dies.communicate()
    outcome, *by_survivor = await ending
    assert outcome == "completed"
    async with Workspace.open(tmp_path) as ws:
        ledger = await ws.ledger()
        rows = await ledger.select("runs", [])
        killed = next(row["id"] for row in rows if row["state"] != "ended")
        before = await held_by_one(ledger)
        assert len(before) == 16, "whoever lives has done what the killed one held"
        again = machine(tmp_path, "-", killed)
        assert await line(again) == "ready"
        outcome, *by_killed = await asyncio.to_thread(said, again)
        assert outcome == "completed"
        assert await held_by_one(ledger) == before, "what it says late changes nothing"
        assert sorted(by_survivor + by_killed) == sorted(before)
        heads = await ledger.select("context", [])
        assert sum(row["refusals"] for row in heads) > 0
