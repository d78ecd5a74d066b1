"""An agent that blocks the event loop is named while it does, and stopped; the other runs go on."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from tightship import Agent, Workflow, Workspace
from tightship.runtime import dispatch, watchdog

SPIN = """
import time

async def spin(ctx, given):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pass
    return {"ok": True}

async def calm(ctx, given):
    return {"ok": True}

async def asleep(ctx, given):
    time.sleep(1.5)
    return {"ok": True}
"""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(dispatch, "Watchdog", lambda: watchdog.Watchdog(tell=0.4, stop=0.8, out=out))
    return out


async def test_a_spinning_agent_is_named_and_stopped_and_the_next_run_completes(
    tmp_path: Path, told: io.StringIO
) -> None:
    (tmp_path / "tightship.yaml").write_text("name: loop\nroles: {operator: [ann]}\n", "utf-8")
    (tmp_path / "agents").mkdir()
    code = tmp_path / "agents" / "desk.py"
    code.write_text(SPIN, "utf-8")
    async with Workspace.open(tmp_path) as ws:
        for name in ("spin", "calm"):
            ws.add(Agent(name, owner="o", purpose=f"to {name}", python=f"desk:{name}", output={"ok": "bool"}))
            ws.add(Workflow(f"w_{name}", owner="o", purpose="p", steps=[name], budget={"seconds": 60, "then": "fail"}))
        both: list[Any] = await asyncio.gather(ws.run("w_spin", {}), ws.run("w_calm", {}))
    spun, calm = both  # the spinning agent would have completed, had nobody stopped it
    assert (spun.outcome, spun.reason) == ("escalated", "AgentHung")
    assert "blocked the event loop" in spun.package["what_happened"]
    assert str(code) in spun.package["evidence"]["where"]
    assert calm.outcome == "completed"
    assert f"{code}:" in told.getvalue() and told.getvalue().count("blocks the event loop") == 1


async def test_an_agent_that_blocks_the_loop_beyond_its_time_has_failed_at_the_line_where_it_was_seen(
    tmp_path: Path, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "Watchdog", lambda: watchdog.Watchdog(tell=0.4, out=told))
    (tmp_path / "tightship.yaml").write_text("name: loop\nroles: {operator: [ann]}\n", "utf-8")
    (tmp_path / "agents").mkdir()
    code = tmp_path / "agents" / "desk.py"
    code.write_text(SPIN, "utf-8")
    async with Workspace.open(tmp_path) as ws:
        ws.add(Agent("asleep", owner="o", purpose="p", python="desk:asleep", output={"ok": "bool"}, within="1s"))
        ws.add(Workflow("w", owner="o", purpose="p", steps=["asleep"]))
        run = await ws.run("w", {})
    assert (run.outcome, run.reason) == ("escalated", "AgentHung")
    assert run.package is not None
    assert "within 1 s: it blocked the event loop" in run.package["what_happened"]
    line = SPIN.splitlines().index("    time.sleep(1.5)") + 1
    assert run.package["evidence"]["where"] == f"{code}:{line}"
    assert "asyncio.to_thread" in str(run.package)


async def test_an_agent_that_waits_is_left_alone(tmp_path: Path, told: io.StringIO) -> None:
    (tmp_path / "tightship.yaml").write_text("name: loop\nroles: {operator: [ann]}\n", "utf-8")

    async def patient(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(1.5)
        return {"ok": True}

    async with Workspace.open(tmp_path) as ws:
        ws.add(
            Agent("patient", owner="o", purpose="wait", python="x:y", output={"ok": "bool"}),
            functions={"patient": patient},
        )
        ws.add(Workflow("w", owner="o", purpose="p", steps=["patient"]))
        assert (await ws.run("w", {})).outcome == "completed"
    assert told.getvalue() == ""
