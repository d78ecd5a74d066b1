"""The readings fit what the runtime writes: one real run, from its first effect to a decision and the action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tightship.core import kinds
from tightship.core.ports import Reply, Request, ToolSpec, Usage
from tightship.insight import conventions as names
from tightship.insight import cost_report, costs_of_run, entry_line, row_line, show, spans, why
from tightship.ledger import Ledger
from tightship.review import Decision
from tightship.runtime.workspace import Workspace, projections

FILES = {
    "tightship.yaml": "name: practice\nstore: 'sqlite:.tightship'\nroles: {support_lead: [nora]}\n",
    "agents/triage.yaml": """
agent: triage
owner: team-triage
purpose: sort tickets
python: "desk:triage"
input: {ticket: str}
output: {topic: str, confidence: float, reason: str}
confidence: {source: classifier, calibrated_on: outcomes.jsonl}
tools: [kb.search]
""",
    "outcomes.jsonl": "",
    "agents/knowledge.yaml": """
agent: knowledge
owner: team-knowledge
purpose: look things up
python: "desk:knowledge"
input: {triage: object, ticket: str}
output: {text: str}
tools: [kb.search]
""",
    "agents/desk.py": """
async def triage(ctx, input):
    found = await ctx.tool("kb.search", {"q": input["ticket"]})
    return {"topic": "order", "confidence": 0.7, "reason": "the knowledge base says " + found["hit"]}

async def knowledge(ctx, input):
    found = await ctx.tool("kb.search", {"q": input["ticket"]})
    try:
        await ctx.tool("mail.send", {"text": found["hit"]})
    except Exception:
        pass
    return {"text": found["hit"]}
""",
    "workflows/desk.yaml": """
workflow: desk
owner: customer-care
purpose: answer a ticket
input: {ticket: str}
steps:
  - triage
  - knowledge
  - review: {when: "triage.confidence < threshold", by: support_lead, within: 4h, otherwise: escalate}
  - action: desk.reply
    with: {text: knowledge.text}
    undo: none
""",
}


@dataclass
class PracticeTool:
    """A tool of the practice world, inside the process."""

    spec: ToolSpec
    answer: Callable[[Request], Reply]

    async def perform(self, request: Request) -> Reply:
        return self.answer(request)

    async def lookup(self, request: Request) -> Reply | None:
        return None


TOOLS = {
    "kb.search": PracticeTool(
        ToolSpec("kb.search", price=Usage(usd=1_000_000)),
        lambda request: Reply({"hit": "where orders are"}, Usage(usd=400_000)),
    ),
    "desk.reply": PracticeTool(
        ToolSpec("desk.reply", effect="write", idempotency="key"), lambda request: Reply({"id": "m-1"})
    ),
}


async def test_a_real_run_can_be_read_from_end_to_end(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    ledger = Ledger.in_memory(projections=projections())
    async with Workspace.open(tmp_path, ledger=ledger, tools=TOOLS) as ws:
        run = (await ws.run("desk", {"ticket": "where is my order"})).id
        assert (await show(ledger, run)).steps[-1].state == "waiting"
        operator = await ws.operator()
        (item,) = await operator.items()
        await operator.decide(item.item, Decision("approve", "nora", reason="fits"))
        await ws.resume([run])

        entries = await ledger.run_entries(run)
        (row,) = await ledger.select("runs", [("id", "=", run)])
        view, decisions, costs = await show(ledger, run), await why(ledger, run), await costs_of_run(ledger, run)

    assert [step.label for step in view.steps] == ["triage", "knowledge", "review by support_lead", "desk.reply"]
    assert view.summary["outcome"] == "completed" == row_line(row, 0)["state"]
    assert (row["usd"], row["calls"] >= 3) == (costs.total.usd, True) == (800_000, True)
    assert (await cost_report(ledger)).total == costs.total
    assert [one.name for one in costs.repeated] == ["kb.search"]

    by_kind = {decision.kind: decision for decision in decisions.decisions}
    assert (by_kind["action"].accountable, by_kind["action"].within) == ("nora", True)
    assert (by_kind["review"].actor, by_kind["review"].reason) == ("nora", "fits")
    assert "threshold = 0.8" in " ".join(map(str, by_kind["review"].rules))
    assert by_kind["refusal"].action == "refused mail.send to knowledge"
    knowledge = next(one for one in decisions.decisions if one.actor == "knowledge")
    assert (knowledge.accountable, knowledge.trigger.certain, knowledge.within) == ("team-knowledge", True, False)
    triage = next(one for one in decisions.decisions if one.actor == "triage")
    assert triage.reason == "the knowledge base says where orders are"
    positions = {entry.n: entry for entry in entries}
    for decision in decisions.decisions:
        assert all(not datum.n or positions[datum.n] for datum in decision.data)

    found = spans(entries)
    ids = {span["span_id"] for span in found}
    assert all(span["parent_id"] in ids for span in found[1:])
    assert {span["attributes"].get(names.AGENT) for span in found} >= {"triage", "knowledge", "workflow"}
    assert {entry.kind for entry in entries} >= {kinds.STARTED, kinds.ADMITTED, kinds.CLOSED, kinds.ENDED}
    assert all(entry_line(entry) for entry in entries)


async def test_a_run_below_is_named_as_soon_as_it_begins_with_how_it_stands(tmp_path: Path) -> None:
    above = (
        "workflow: front\nowner: customer-care\npurpose: pass it on\ninput: {ticket: str}\nsteps:\n  - workflow: desk\n"
    )
    for name, text in {**FILES, "workflows/front.yaml": above}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    ledger = Ledger.in_memory(projections=projections())
    async with Workspace.open(tmp_path, ledger=ledger, tools=TOOLS) as ws:
        run = (await ws.run("front", {"ticket": "where is my order"})).id
        (child,) = await ledger.select("runs", [("parent", "=", run)])
        (step,) = (await show(ledger, run)).steps
        assert (step.kind, step.label, step.state, step.note) == (
            "run",
            f"desk: run {child['id']}",
            "waiting",
            "parked",
        )
        assert f"desk: run {child['id']}  waiting  (parked)" in (await show(ledger, run)).render()

        operator = await ws.operator()
        (item,) = await operator.items()
        await operator.decide(item.item, Decision("approve", "nora"))
        await ws.resume([child["id"], run])
        (step,) = (await show(ledger, run)).steps
    assert (step.label, step.state, step.note) == (f"desk: run {child['id']}", "done", "")
