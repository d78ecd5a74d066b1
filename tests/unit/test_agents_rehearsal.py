"""A rehearsal runs any workflow on generated outputs: it costs nothing, touches nothing, asks nobody, and says so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from model_desk import Desk, of_kind
from support_desk import CONTRACT, TEMPLATE, tickets
from tightship import Agent, Workflow, Workspace
from tightship.core import kinds
from tightship.core.errors import InputRejected, LoadError
from tightship.core.world import World
from tightship.insight import entry_line
from tightship.ledger import Ledger, MemoryState
from tightship.runtime.result import Run
from tightship.runtime.workspace import projections
from tightship.workflow.types import shape_of

CONFIG = """\
name: practice-shop
roles: {lead: [ann]}
budgets: {tenant: {day: {calls: 1}}}
tiers:
  cheap: {model: "anthropic:practice-1", next: strong}
  strong: {model: "nobody:practice-2"}
"""
STEPS: list[Any] = [
    "triage",
    {"concurrent": ["look", "clerk"]},
    {"review": {"when": "true", "by": "lead", "within": "1h", "otherwise": "escalate"}},
    {"foreach": {"in": "look.lines", "as": "line", "steps": ["each"], "max": 5}},
    {
        "action": "orders.note",
        "with": {"order_id": "triage.note", "text": "look.text"},
        "claim": "'note:' + triage.note",
        "undo": "none",
    },
    {"workflow": "inner", "with": {"text": "look.text"}},
]


async def never(*_: Any) -> Any:
    raise AssertionError("an agent's code ran in a rehearsal")


def rehearsal(folder: Path, state: MemoryState | None = None) -> Desk:
    """A workflow with every kind of agent and most kinds of steps."""
    desk = Desk(folder, [AssertionError("a model was asked")], config=CONFIG, state=state, rehearse=True)
    owner = {"owner": "o", "purpose": "p"}
    look = {"text": "str", "lines": "list[str]"}
    desk.space.add(
        Agent("look", python="m:f", input={"triage": "object"}, output=look, tools=["orders.get"], **owner),
        Agent("clerk", human="lead", input={"triage": "object"}, output={"ok": "bool"}, within="1h", **owner),
        Agent("each", python="m:f", input={"line": "str"}, output={"n": "int"}, **owner),
        Agent("plain", python="m:f", input={"text": "str"}, **owner),
        functions={"look": never, "each": never, "plain": never},
    )
    desk.space.add(
        Workflow("inner", input={"text": "str"}, steps=["plain"], **owner),
        Workflow("case", input={"ticket": "str"}, steps=STEPS, **owner),
    )
    return desk


async def rows(desk: Desk, table: str) -> list[dict[str, Any]]:
    return await desk.ledger.select(table)


async def test_every_kind_of_agent_and_step_runs_to_its_end_on_outputs_of_the_declared_shape(tmp_path: Path) -> None:
    desk = rehearsal(tmp_path)
    run = await desk.space.run("case", {"ticket": "hello"})
    assert (run.state, run.outcome) == ("ended", "completed"), run.package
    assert (run.usd, run.tokens, run.live) == (0, 0, False)
    assert desk.requests == [] and desk.shop.read == [] and desk.shop.notes == []
    specs = desk.space.files.agents
    turns = of_kind(run, kinds.TURN)
    assert {entry.body["agent"] for entry in turns} >= {"triage", "look", "clerk"}
    for entry in turns:
        schema = specs[entry.body["agent"]].output_schema
        assert schema is None or shape_of(schema).fits(await desk.ledger.value(entry.body["out"]))


async def test_it_says_of_every_entry_that_it_is_one_and_leaves_figures_people_and_claims_alone(tmp_path: Path) -> None:
    desk = rehearsal(tmp_path)
    run = await desk.space.run("case", {"ticket": "hello"})
    assert run.entries[0].body["live"] is False
    assert all(entry.body["rehearsal"] for entry in of_kind(run, kinds.TURN))
    effects = of_kind(run, kinds.SETTLED)
    assert effects and all(entry.body["meta"]["rehearsal"] for entry in effects)
    lines = [entry_line(entry) for entry in (*effects, *of_kind(run, kinds.TURN))]
    assert all(" rehearsed" in line for line in lines)
    [note] = [entry.body for entry in of_kind(run, kinds.NOTE) if entry.body["type"] == "rehearsal.decision"]
    told = await desk.ledger.value(note["detail"]) if "detail" in note else note
    assert (told["asked"], told["role"], told["decision"]) == ("review", "lead", "approve")
    assert {row["live"] for row in await rows(desk, "runs")} == {0}
    assert await rows(desk, "inbox") == [] and await rows(desk, "spend") == []
    assert [row for row in await rows(desk, "claims") if row["run"]] == []


async def test_the_same_input_rehearses_the_same_and_another_one_differs(tmp_path: Path) -> None:
    desk = rehearsal(tmp_path)
    first, second, other = [await desk.space.run("desk", {"ticket": text}) for text in ("a", "a", "b")]
    assert first.output == second.output != other.output


async def test_an_escalated_rehearsal_keeps_its_package_and_bothers_nobody(tmp_path: Path) -> None:
    desk = rehearsal(tmp_path)
    never_true = {"checkpoint": {"that": "triage.topic == 'nothing'", "otherwise": "escalate", "reason": "no"}}
    desk.space.add(
        Workflow("stuck", owner="o", purpose="p", input={"ticket": "str"}, steps=["triage", never_true]),
    )
    run = await desk.space.run("stuck", {"ticket": "a"})
    assert (run.outcome, run.reason) == ("escalated", "CheckpointFailed")
    assert run.package is not None and await rows(desk, "inbox") == []


async def test_rehearsals_and_real_runs_do_not_take_each_other_over(tmp_path: Path) -> None:
    state = MemoryState()
    desk = rehearsal(tmp_path, state)
    run = await desk.space.run("desk", {"ticket": "a"}, reference="T-1")
    assert run.outcome == "completed"
    await desk.space.close()
    live = Desk(tmp_path, [], state=state)
    assert await live.space.due() == []
    with pytest.raises(InputRejected, match="was a rehearsal"):
        for ended in await live.space.resume([await left_running(state, live)]):
            assert ended.error is not None
            raise ended.error
    await live.space.close()


async def left_running(state: MemoryState, desk: Desk) -> str:
    """A rehearsal that a killed process has left."""
    for row in state.backend._tables["runs"].values():
        row["state"] = "running"
    return (await desk.ledger.select("runs"))[0]["id"]


async def test_no_provider_is_loaded_for_a_rehearsal_and_a_real_run_says_what_is_missing(tmp_path: Path) -> None:
    desk = rehearsal(tmp_path)
    assert (await desk.space.run("desk", {"ticket": "a"})).outcome == "completed"
    world = World()
    live = Workspace.open(tmp_path, world=world, ledger=Ledger.in_memory(world, projections()))
    live.add(Agent("triage", owner="o", purpose="p", model="strong", input={"ticket": "str"}))
    live.add(Workflow("desk", owner="o", purpose="p", input={"ticket": "str"}, steps=["triage"]))
    with pytest.raises(LoadError, match="strong"):
        await live.run("desk", {"ticket": "a"})
    assert await live._ledger.entries() == []  # type: ignore[union-attr]  # nothing was started
    await live.close()


# --- the support template ----------------------------------------------------------------------------


class Unplugged(httpx2.AsyncBaseTransport):
    """A network in which nothing answers, and everything that was tried is kept."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.tried.append(str(request.url))
        raise httpx2.ConnectError("connection refused", request=request)


def template(folder: Path, **changes: str) -> Path:
    shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / "tightship.yaml"
    text = config.read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    config.write_text(text)
    return folder


def open_rehearsal(folder: Path, network: Unplugged) -> Workspace:
    world = World(transport=network)
    return Workspace.open(folder, world=world, ledger=Ledger.in_memory(world, projections()), rehearse=True)


async def test_the_support_template_rehearses_without_company_network_or_secrets(tmp_path: Path) -> None:
    folder = template(tmp_path / "desk", **{"http://127.0.0.1:8765/openapi.json": "company.json"})
    shutil.copy(CONTRACT, folder / "company.json")
    network = Unplugged()
    ended: list[Run] = []
    async with open_rehearsal(folder, network) as space:
        for ticket in tickets()[:12]:
            given = {name: ticket[name] for name in ("id", "ticket", "customer_id")}
            ended.append(await space.run("support", given))
    assert network.tried == []
    assert {run.state for run in ended} == {"ended"}
    assert "completed" in {run.outcome for run in ended} <= {"completed", "escalated"}
    assert sum(run.usd for run in ended) == 0
    wrote = [e for run in ended for e in of_kind(run, kinds.SETTLED) if e.body["cls"] == "write"]
    assert wrote and all(entry.body["meta"] == {"rehearsal": True} for entry in wrote)


async def test_an_argument_that_the_tool_does_not_have_or_of_another_type_is_found_in_a_rehearsal(
    tmp_path: Path,
) -> None:
    desk = rehearsal(tmp_path)
    for name, given in (("missing", {"order_id": "triage.note"}), ("typed", {"order_id": "1", "text": "input.ticket"})):
        action = {"action": "orders.note", "with": given, "undo": "none", "claim": "input.ticket"}
        desk.space.add(Workflow(name, owner="o", purpose="p", input={"ticket": "str"}, steps=["triage", action]))
        run = await desk.space.run(name, {"ticket": "a"})
        assert (run.outcome, run.reason) == ("escalated", "InvalidArguments")


async def test_a_contract_that_has_to_be_fetched_and_cannot_be_is_named_with_the_way_out(tmp_path: Path) -> None:
    network = Unplugged()
    async with open_rehearsal(template(tmp_path / "desk"), network) as space:
        with pytest.raises(LoadError, match="a rehearsal needs the contract of company") as told:
            await space.run("support", {"id": "T-1000", "ticket": "x", "customer_id": "C-1001"})
    assert told.value.file == "http://127.0.0.1:8765/openapi.json"
    assert told.value.fix is not None and "keep a copy" in told.value.fix
    assert network.tried == ["http://127.0.0.1:8765/openapi.json"]
