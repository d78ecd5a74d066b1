"""Workspaces in which a rule of readiness speaks, or does not: the sample with one thing changed or added."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from sample_workspace import FILES, TOOLS, changed, load

from tightship.workflow.readiness import Finding, check_workspace

SUPPORT, TRIAGE, RESPOND, QUALITY = (
    "workflows/support.yaml",
    "agents/triage.yaml",
    "agents/respond.yaml",
    "agents/quality.yaml",
)
CONFIG, CODE = "tightship.yaml", "agents/desk.py"

IN_CLEAR = "{oauth2: {token_url: 'http://id.example/token', client_id: desk, secret: DESK_TOKEN}}"

HEAD = """\
workflow: more
owner: care
purpose: try one more workflow
trigger: t
systems: [desk]
data: d
completion: c
escalation: e
escalate_to: lead
input: {id: str, ticket: str}
budget: {usd: 0.30, seconds: 120}
steps:
"""


def more(steps: str, head: str = HEAD) -> dict[str, str]:
    """One more workflow with these steps, and its evals."""
    return {"workflows/more.yaml": head + steps, "evals/more.yaml": "workflow: more\n"}


CLAIMING = changed(TRIAGE, "urgent: bool}", "urgent: bool, claims: [{claim: str, source: str}]}")
"""An agent that cites, and nobody looks whether its sources say so."""


def agents(count: int) -> dict[str, str]:
    """Agents n0, n1, … each with a purpose of its own, and the code for them."""
    files = {
        f"agents/n{i}.yaml": f"agent: n{i}\nowner: o\npurpose: job{i} of its own{i}\npython: many:n{i}\n"
        "input: {ticket: str}\noutput: {x: int}\n"
        for i in range(count)
    }
    return {**files, "agents/many.py": "".join(f"async def n{i}(ctx, input): ...\n" for i in range(count))}


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {**TOOLS, name: replace(TOOLS[name], **fields)}


RETRACT = "  - action: desk.retract\n    with: {reply_id: input.id}\n    undo: none\n"
LOOPED = (
    "  - foreach: {{in: '[input.id]', max: 5, steps: "
    "[{{action: desk.retract, with: {{reply_id: item}}, claim: {}, undo: none}}]}}\n"
)
IDLE = "  idle:\n    model: openai:x-2025-01-01\n    price: {input: 1, output: 1, source: s, as_of: 2025-01-01}\n"
CONTINUE = "{then: continue, give: {topic: refund, confidence: 1, urgent: false}}"
OPTIONAL = "try:\n    import quicker\nexcept ImportError:\n    quicker = None\n"


def shared(key: str) -> dict[str, Any]:
    """The workspace with one key of the shared context, declared like this."""
    return {CONFIG: FILES[CONFIG] + f"context:\n  stock/*: {key}\n"}


def gated(before: str, gate: str) -> dict[str, Any]:
    """An action with a gate after these steps."""
    steps = f"{before}  - action: desk.ping\n    with: {{to: '\"b\"'}}\n    undo: none\n    gate: {gate}\n"
    return more(steps) | shared("{writers: [triage]}")


def managed(manager: str, head: str = HEAD) -> dict[str, Any]:
    """A workflow with a manager."""
    return more(f"  - manager: {manager}\n", head) | agents(2)


def peering(peers: str, agent: str = "input: {open: list}\noutput: {claim: list, results: list}") -> dict[str, Any]:
    """A workflow with peers, who are such agents."""
    files = {
        name: re.sub(r"(?m)^(in|out)put: .*\n?", "", text) + f"\n{agent}\n" if name.endswith(".yaml") else text
        for name, text in agents(2).items()
    }
    return more(f"  - peers: {peers}\n") | files


def passing(handoff: str, output: str = "{x: int}") -> dict[str, Any]:
    """A workflow in which agents with this output hand over."""
    files = {
        name: text.replace("output: {x: int}", f"output: {output}") if name.endswith(".yaml") else text
        for name, text in agents(2).items()
    }
    return more(f"  - handoff: {handoff}\n") | files


def voting(vote: str, head: str = HEAD) -> dict[str, Any]:
    """A workflow in which agents, or a person, vote like this."""
    person = "agent: person\nowner: o\npurpose: sign\nhuman: lead\ninput: {ticket: str}\noutput: {x: int}\nwithin: 1h\n"
    return more(f"  - vote: {vote}\n", head) | agents(3) | {"agents/person.yaml": person}


def settling(rule: str) -> dict[str, Any]:
    """A vote of two agents that is settled like this."""
    return voting(f"{{voters: [n0, n1], within: 30s, settle: {rule}}}")


def needing(need: str, steps: str) -> dict[str, Any]:
    """A workflow that declares what its work is like, with agents for its steps."""
    return more(steps, HEAD.replace("steps:", f"need: {need}\nsteps:")) | agents(3)


ROUTED = "  - handoff: {first: n0, peers: {n0: [n1], n1: []}, brief: {problem: str}}\n"
PLANNED = "  - manager: {plan: n0, workers: {do: n1}, within: 1m}\n"
PINGED = "  - n0\n  - checkpoint: n0.x > 0\n  - action: desk.ping\n    with: {to: '\"b\"'}\n    undo: none\n"
REVIEWED = "  - n0\n  - review: {by: lead, within: 1h, otherwise: escalate}\n" + PINGED


def found(root: Path, files: dict[str, Any] | None = None, tools: Any = TOOLS) -> list[Finding]:
    return check_workspace(load(root, files), tools)
