"""A small healthy workspace in which `check` finds nothing, and a way to change one place of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tightship.core.ports import ToolSpec, UndoSpec, Usage
from tightship.patterns import load_all
from tightship.workflow.loader import Loaded, load_workspace

load_all()

FILES: Mapping[str, str] = {
    "tightship.yaml": """\
name: sample-desk
store: sqlite:.tightship
connectors:
  desk: {openapi: desk.json, base_url: "https://desk.example", auth: {bearer: {secret: DESK_TOKEN}}}
tiers:
  cheap:
    model: openai:gpt-4.1-mini-2025-04-14
    price: {input: 0.40, output: 1.60, source: price page, as_of: 2025-04-14}
    requests_per_minute: 500
budgets: {tenant: {day: {usd: 5.00}}}
roles:
  lead: [ann, ben]
""",
    "desk.json": "{}",
    "agents/triage.yaml": """\
agent: triage
owner: care
purpose: tell what a ticket is about
python: desk:triage
input: {ticket: str}
output: {topic: [refund, order], confidence: float, urgent: bool}
confidence: {source: classifier, calibrated_on: outcomes.jsonl}
within: 30s
""",
    "outcomes.jsonl": "",
    "agents/respond.yaml": """\
agent: respond
owner: care
purpose: write the reply from the passages
model: cheap
instructions: Answer from the passages alone.
input: {ticket: str, triage: object}
output: {text: str, amount: float}
budget: {usd: 0.10}
""",
    "agents/quality.yaml": """\
agent: quality
owner: quality
purpose: check each claim against its source
python: desk:quality
input: {respond: object}
output: {ok: bool, objections: "list[str]"}
tools: [desk.get]
""",
    "agents/desk.py": """\
async def triage(ctx, input):
    return {"topic": "refund", "confidence": 0.9, "urgent": False}


async def quality(ctx, input):
    await ctx.tool("desk.get", {"ticket_id": "T-1"})
    return {"ok": True, "objections": []}
""",
    "workflows/support.yaml": """\
workflow: support
owner: care
purpose: answer a customer's ticket
trigger: a ticket comes in
systems: [desk]
data: {ticket: the customer's words}
completion: the customer has a reply
escalation: the lead takes the case over
escalate_to: lead
input: {id: str, ticket: str}
budget: {usd: 0.30, tokens: 60000, seconds: 120, then: escalate}
on:
  unavailable: {retry: 3, after: 10s}
  data_missing: ask
  rule_conflict: escalate
  out_of_scope: escalate
  low_confidence: escalate
  format_mismatch: escalate
steps:
  - triage
  - checkpoint: triage.topic in ["refund", "order"]
  - maker_checker: {maker: respond, checker: quality, rounds: 2}
  - review: {when: triage.confidence < threshold || respond.amount > 100.0, by: lead, within: 4h, otherwise: escalate}
  - action: desk.reply
    with: {ticket_id: input.id, body: respond.text}
    claim: '"reply:" + input.id'
    undo: desk.retract
""",
    "evals/support.yaml": "workflow: support\ncases: []\n",
}


def _schema(*required: str, **properties: str) -> dict[str, object]:
    names = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": names, "required": list(required), "additionalProperties": False}


TOOLS: Mapping[str, ToolSpec] = {
    spec.name: spec
    for spec in (
        ToolSpec(
            "desk.get", input_schema=_schema("ticket_id", ticket_id="string"), output_schema=_schema(body="string")
        ),
        ToolSpec(
            "desk.reply",
            effect="write",
            input_schema=_schema("ticket_id", "body", ticket_id="string", body="string"),
            output_schema=_schema("id", id="string"),
            idempotency="none",
            can_lookup=True,
            undo=UndoSpec("desk.retract", {"reply_id": "result.id"}),
        ),
        ToolSpec(
            "desk.retract", effect="write", input_schema=_schema("reply_id", reply_id="string"), idempotency="key"
        ),
        ToolSpec("desk.score", input_schema=_schema(), price=Usage(usd=2_000_000)),
        ToolSpec("desk.ping", effect="write", input_schema=_schema("to", to="string"), idempotency="none"),
    )
}


def write(root: Path, files: Mapping[str, str | bytes | None] | None = None) -> Path:
    """The healthy workspace with these files instead (None leaves one out)."""
    for name, text in {**FILES, **(files or {})}.items():
        if text is None:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def changed(name: str, old: str, new: str) -> dict[str, str]:
    """The file with one place changed."""
    text = FILES[name]
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
    return {name: text.replace(old, new)}


def load(root: Path, files: Mapping[str, str | bytes | None] | None = None) -> Loaded:
    """Write and load."""
    return load_workspace(write(root, files))
