"""A small workspace with a real outside (a file that writes append to), and the command line as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import tightship
from cli_warm import Forked, warm

PATIENCE = 600.0
"""Seconds after which what has to happen counts as not happening; a busy machine needs some."""

FILES: Mapping[str, str] = {
    "tightship.yaml": """\
name: shop
roles: {lead: [ann, ben]}
budgets: {tenant: {day: {usd: 5.00}}}
""",
    "agents/judge.yaml": """\
agent: judge
owner: shop
purpose: judge an order
python: shop:judge
input: {order: str, amount: float}
output: {amount: float, note: str}
tools: [desk.look]
""",
    "agents/shop.py": """\
import asyncio
from tightship import DataMissing

async def judge(ctx, input):
    if input["amount"] < 0:
        raise DataMissing("the amount is not known", needed="the amount")
    if input["order"].startswith("slow"):
        await asyncio.sleep(30)
    seen = await ctx.tool("desk.look", {"order": input["order"]})
    return {"amount": input["amount"], "note": seen}
""",
    "tools/desk.py": """\
import asyncio
from pathlib import Path
from tightship import Request, tool

OUTSIDE = Path(__file__).parent.parent / "outside.txt"

@tool(effect="read", name="desk.look")
async def look(order: str) -> str:
    return f"seen {order}"

@tool(effect="write", name="desk.pay", idempotency="key", price="0.01")
async def pay(order: str, amount: float, request: Request) -> str:
    if order.startswith("held"):
        await asyncio.sleep(1.0)
    done = OUTSIDE.read_text().splitlines() if OUTSIDE.exists() else []
    if f"pay {request.key}" not in [line.rsplit(" ", 2)[0] for line in done]:
        with OUTSIDE.open("a") as file:
            file.write(f"pay {request.key} {order} {amount}\\n")
    return f"paid {order}"

@tool(effect="write", name="desk.unpay", idempotency="key")
async def unpay(order: str, request: Request) -> str:
    with OUTSIDE.open("a") as file:
        file.write(f"unpay {request.key} {order}\\n")
    return f"took back {order}"
""",
    "workflows/pay.yaml": """\
workflow: pay
owner: shop
purpose: pay what is due for an order
input: {order: str, amount: float}
budget: {usd: 0.50, seconds: 1200, then: escalate}
escalate_to: lead
steps:
  - judge
  - review: {when: judge.amount > 100.0, by: lead, within: 1h, otherwise: escalate}
  - action: desk.pay
    with: {order: input.order, amount: judge.amount}
    claim: '"pay:" + input.order'
    undo: {tool: desk.unpay, with: {order: args.order}}
""",
    "agents/wait.yaml": """\
agent: wait
owner: shop
purpose: wait for a while after something was paid
python: waiting:wait
output: {done: bool}
""",
    "agents/waiting.py": """\
import asyncio

async def wait(ctx, input):
    await asyncio.sleep(60)
    return {"done": True}
""",
    "workflows/pay_and_wait.yaml": """\
workflow: pay-and-wait
owner: shop
purpose: pay, and then take a long time
input: {order: str, amount: float}
budget: {usd: 0.50, seconds: 1200, then: escalate}
escalate_to: lead
steps:
  - action: desk.pay
    with: {order: input.order, amount: input.amount}
    claim: '"pay:" + input.order'
    undo: {tool: desk.unpay, with: {order: args.order}}
  - wait
""",
}


def make(folder: Path, **changed: str) -> Path:
    """Write the workspace; `changed` replaces files (`workflows__pay` for `workflows/pay.yaml`)."""
    files = dict(FILES)
    for name, text in changed.items():
        path = name.replace("__", "/")
        files[path if "." in path else f"{path}.yaml"] = text
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def lines(folder: Path, records: Iterable[Any], name: str = "orders.jsonl") -> str:
    """Write a file of inputs; returns its name."""
    text = "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)
    (folder / name).write_text(text)
    return name


def outside(folder: Path) -> list[str]:
    """What was done outside, without the keys: `pay O-1`, in order."""
    path = folder / "outside.txt"
    done = path.read_text().splitlines() if path.exists() else []
    return [f"{line.split()[0]} {line.split()[2]}" for line in done]


def command(*args: str) -> list[str]:
    """The command line as an argument list."""
    return [sys.executable, "-m", "tightship", *args]


def environment() -> dict[str, str]:
    """The environment without what would steer the commands; they run what is tested, in whatever working tree."""
    kept = {name: value for name, value in os.environ.items() if name != "COMPANY_TOKEN"}
    return {**kept, "PYTHONPATH": str(Path(tightship.__file__).parents[1])}


def cli(folder: Path, *args: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command in a folder to its end."""
    return warm().run(args, folder, environment(), given, timeout=PATIENCE)


def answer(folder: Path, *args: str) -> Any:
    """The JSON that a command prints; it has to succeed."""
    done = cli(folder, *args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wrong(folder: Path, *args: str) -> dict[str, Any]:
    """The JSON error of a command that has to fail with 1 and show no traceback."""
    done = cli(folder, *args, "--json")
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    told: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return told


@contextlib.contextmanager
def process(folder: Path, *args: str) -> Generator[Forked]:
    """A command under way; what is left of it at the end is killed by its id."""
    with contextlib.closing(warm().start(args, folder, environment())) as started:
        yield started


@contextlib.contextmanager
def serving(folder: Path) -> Generator[Forked]:
    """`tightship serve`, ready."""
    with process(folder, "serve", "--json") as started:
        assert event(started, "ready")["pid"] == started.pid
        yield started


def event(started: Forked, name: str, **fields: Any) -> dict[str, Any]:
    """The next JSON line of a process with this `event` and these fields."""
    assert started.stdout is not None
    watchdog = threading.Timer(PATIENCE, started.kill)
    watchdog.start()
    try:
        for line in started.stdout:
            told: dict[str, Any] = json.loads(line)
            if told.get("event") == name and all(told.get(field) == value for field, value in fields.items()):
                return told
    finally:
        watchdog.cancel()
    raise AssertionError(f"it ended without {name}: {started.stderr.read() if started.stderr else ''}")


def until(check: Any, what: str) -> Any:
    """Wait until a check gives something true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not in time: {what}")


def interrupt(started: Forked) -> tuple[int, str, str]:
    """Ctrl-C, and how the process ended."""
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=PATIENCE)
    return started.returncode, out, err
