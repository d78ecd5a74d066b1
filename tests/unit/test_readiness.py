"""The readiness check: for every rule a workspace in which it speaks; in the healthy one none does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_workspace import FILES, TOOLS, changed, load

from tightship.connectors import load_tools
from tightship.core.errors import LoadError
from tightship.workflow.readiness import Finding, all_rules, check_workspace, rules_page

SUPPORT, TRIAGE, RESPOND, QUALITY = (
    "workflows/support.yaml",
    "agents/triage.yaml",
    "agents/respond.yaml",
    "agents/quality.yaml",
)
CONFIG, CODE = "tightship.yaml", "agents/desk.py"
DOCS = Path(__file__).parents[2] / "docs" / "readiness.md"

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

CASES: list[tuple[str, dict[str, Any]]] = [
    ("TS001", {"agents/broken.yaml": "agent: [\n"}),
    ("TS305", changed(CONFIG, "sqlite:.tightship", "postgresql://ts:hunter2@db.example/ts")),
    ("TS316", changed(SUPPORT, "usd: 0.30", "usd: 300")),
    ("TS330", changed(CONFIG, "    requests_per_minute: 500\n", "")),
    ("TS331", changed(CONFIG, "name: ", "admission: {queued: 10, tenants: {acme: {queued: 11}}}\nname: ")),
    ("TS412", more("  - triage\n  - when: {if: triage.topic, then: quality}\n")),
    ("TS412", more("  - triage\n  - checkpoint: '\"yes\"'\n")),
    # workflows
    ("TS100", changed(SUPPORT, "budget: {usd: 0.30, tokens: 60000, seconds: 120, then: escalate}\n", "")),
    ("TS101", changed(SUPPORT, "seconds: 120, ", "")),
    ("TS102", changed(SUPPORT, "usd: 0.30, ", "")),
    ("TS103", changed(SUPPORT, "completion: the customer has a reply\n", "")),
    (
        "TS104",
        more("  - triage\n", HEAD.replace("escalate_to: lead\n", ""))
        | changed(CONFIG, "[ann, ben]", "[ann, ben]\n  other: [cleo, dan]"),
    ),
    ("TS105", {"evals/support.yaml": None}),
    ("TS106", {**more("".join(f"  - n{i}\n" for i in range(8))), **agents(8)}),
    ("TS107", changed(SUPPORT, "escalate_to: lead\n", "escalate_to: lead\nlimits: {turns: 5000}\n")),
    ("TS108", changed(SUPPORT, "escalate_to: lead\n", "escalate_to: lead\nlimits: {turns: 2}\n")),
    (
        "TS109",
        changed(SUPPORT, "input: {id: str, ticket: str}", "input: {id: str, ticket: str, customer: {email: str}}"),
    ),
    ("TS110", changed(SUPPORT, "escalate_to: lead\n", "escalate_to: lead\nsubjects: triage.topic\n")),
    ("TS111", changed(SUPPORT, "escalate_to: lead\n", "escalate_to: lead\nundo_on_failure: false\n")),
    ("TS112", changed(SUPPORT, "answer a customer's ticket", "support")),
    ("TS113", changed(SUPPORT, "ticket: str}", "ticket: str, colour: str}")),
    (
        "TS114",
        more("  - respond: {with: {ticket: input.ticket, triage: '{}'}}\n" + RETRACT),
    ),
    ("TS115", changed(SUPPORT, "  - triage\n", "  - triage: {within: 10m}\n")),
    ("TS116", changed(SUPPORT, "systems: [desk]", "systems: [crm]")),
    ("TS117", more("  - triage\n", HEAD.replace("steps:", 'schedule: {cron: "0 7 * * *", input: {id: 7}}\nsteps:'))),
    # what the work is like
    ("TS120", needing("{order: fixed}", ROUTED)),
    ("TS120", needing("{order: fixed}", PLANNED)),
    ("TS121", needing("{order: free}", "  - n0\n  - n1\n")),
    ("TS122", needing("{independent: true}", "  - n0\n  - n1\n")),
    ("TS123", needing("{complexity: low}", PLANNED)),
    ("TS124", needing("{complexity: high}", "  - n0\n")),
    ("TS125", needing("{regulated: true}", PINGED)),
    ("TS126", needing("{sovereignty: true}", "  - n0\n")),
    ("TS127", needing("{volume: high}", "  - vote: {voters: [n0, n1], within: 1m}\n")),
    ("TS128", needing("{regulated: true}", REVIEWED)),
    (
        "TS129",
        more(REVIEWED, HEAD.replace("steps:", "four_eyes: true\nsteps:"))
        | agents(3)
        | changed(CONFIG, "lead: [ann, ben]", "lead: [ann]"),
    ),
    ("TS573", needing("{sovereignty: true}", "  - workflow: support\n")),
    # agents
    ("TS200", changed(QUALITY, 'output: {ok: bool, objections: "list[str]"}\n', "")),
    ("TS201", changed(QUALITY, "input: {respond: object}\n", "")),
    (
        "TS202",
        {
            "agents/idle.yaml": FILES[TRIAGE]
            .replace("agent: triage", "agent: idle")
            .replace("a ticket is about", "nobody asks")
        },
    ),
    ("TS203", changed(QUALITY, "check each claim against its source", "tell what the ticket is about")),
    ("TS204", changed(QUALITY, "tools: [desk.get]\n", "")),
    ("TS205", changed(QUALITY, "[desk.get]", "[desk.get, desk.score]")),
    ("TS206", changed(QUALITY, "[desk.get]", "[desk.get, desk.gett]")),
    ("TS207", changed(QUALITY, "[desk.get]", "[desk.get, desk.ping]")),
    ("TS208", changed(QUALITY, "[desk.get]", "[desk.get, desk.retract]")),
    ("TS209", changed(RESPOND, "usd: 0.10", "usd: 0.50")),
    ("TS210", changed(TRIAGE, "within: 30s", "within: 5m")),
    ("TS211", changed(RESPOND, "instructions: Answer from the passages alone.\n", "")),
    ("TS212", changed(RESPOND, "budget: {usd: 0.10}", "tools: [desk.get]")),
    ("TS213", changed(TRIAGE, "confidence: float, ", "")),
    ("TS213", changed(TRIAGE, "confidence: {source: classifier", "confidence: {source: logprob, of: tone")),
    (
        "TS219",
        {
            **changed(RESPOND, "budget: {usd", "confidence: {source: logprob, field: amount, of: text}\nbudget: {usd"),
            **changed(CONFIG, "openai:gpt-4.1-mini-2025-04-14", "anthropic:claude-x-20250414"),
        },
    ),
    ("TS214", changed(TRIAGE, ", calibrated_on: outcomes.jsonl", "")),
    ("TS215", {"outcomes.jsonl": None}),
    ("TS216", changed(RESPOND, "model: cheap\ninstructions: Answer from the passages alone.\n", "human: lead\n")),
    ("TS217", changed(TRIAGE, "within: 30s", "on: {unavailable: {use: quality}}")),
    # workspace
    ("TS300", changed(CONFIG, ", source: price page", "")),
    ("TS301", changed(CONFIG, "gpt-4.1-mini-2025-04-14", "gpt-4.1-mini")),
    ("TS302", changed(CONFIG, "    price:", "    next: cheap\n    price:")),
    ("TS303", changed(CONFIG, ", auth: {bearer: {secret: DESK_TOKEN}}", "")),
    ("TS304", changed(CONFIG, "https://desk", "http://desk")),
    ("TS304", changed(CONFIG, "{bearer: {secret: DESK_TOKEN}}", IN_CLEAR)),
    ("TS305", changed(SUPPORT, "a ticket comes in", "key sk-live-abcdefghijklmnop0123456789")),
    ("TS306", changed(CONFIG, "budgets: {tenant: {day: {usd: 5.00}}}\n", "")),
    ("TS307", changed(CONFIG, "lead: [ann, ben]", "lead: []")),
    ("TS308", changed(CONFIG, "lead: [ann, ben]", "lead: [ann]")),
    (
        "TS309",
        {
            **changed(SUPPORT, "".join(FILES[SUPPORT].partition("  - action")[1:]), ""),
            **changed(QUALITY, "tools: [desk.get]\n", ""),
            CODE: "async def triage(ctx, i): ...\nasync def quality(ctx, i): ...\n",
        },
    ),
    ("TS310", changed(CONFIG, "lead: [ann, ben]", "lead: [ann, ben]\n  idle: [cleo, dan]")),
    ("TS311", changed(CONFIG, "openapi: desk.json", 'openapi: "https://desk.example/openapi.json"')),
    ("TS312", {"desk.json": None}),
    ("TS340", changed(CONFIG, "tiers:\n", "domains: {desk.reply: {body: {exists: desk.retract}}}\ntiers:\n")),
    ("TS341", changed(CONFIG, "tiers:\n", "breakers: {agents: {nobody: {minimum: 3}}}\ntiers:\n")),
    (
        "TS342",
        changed(CONFIG, "tiers:\n", "breakers: {workflows: {support: {minimum: 3}}}\ntiers:\n")
        | changed(SUPPORT, "escalate_to: lead\n", "escalate_to: lead\nbreaker: {minimum: 5}\n"),
    ),
    ("TS313", changed(CONFIG, "sqlite:.tightship", '"memory:"')),
    (
        "TS314",
        {
            **changed(
                CONFIG,
                "tiers:\n",
                "tiers:\n" + IDLE,
            )
        },
    ),
    *(
        ("TS230", changed(TRIAGE, "within: 30s", f"within: 30s\ngrounded: {{claims: {field}}}"))
        for field in ("x", "topic")
    ),
    ("TS231", changed(TRIAGE, "within: 30s", "within: 30s\ngrounded: {claims: topic}")),
    ("TS231", changed(TRIAGE, "within: 30s", "within: 30s\ngrounded: {claims: topic, sources: [input.order]}")),
    ("TS232", changed(RESPOND, "budget:", "grounded: {claims: text, sources: [input.triage]}\nbudget:")),
    (
        "TS233",
        {
            **changed(TRIAGE, "within: 30s", "within: 30s\ngrounded: {claims: topic}"),
            **more("  - vote: {voters: [triage, quality], within: 1m}\n"),
        },
    ),
    ("TS234", changed(TRIAGE, "within: 30s", "within: 30s\nhistory: {tokens: 8000}")),
    ("TS235", changed(TRIAGE, "within: 30s", "within: 30s\naudit: {by: nobody}")),
    ("TS235", changed(TRIAGE, "within: 30s", "within: 30s\naudit: {by: support}")),
    ("TS236", changed(TRIAGE, "within: 30s", "within: 30s\naudit: {by: support}")),
    ("TS240", changed(RESPOND, "budget:", "reset: {turns: 10}\nbudget:")),
    ("TS237", changed(TRIAGE, "within: 30s", "within: 30s\ndrift: {role: nobody}")),
    ("TS237", changed(SUPPORT, "escalate_to", "drift: {role: nobody}\nescalate_to")),
    ("TS237", changed(CONFIG, "tiers:\n", "leaks: {role: nobody}\ntiers:\n")),
    ("TS230", more("  - triage: {grounded: topic}\n")),
    ("TS230", more("  - vote: {voters: [triage, quality], within: 1m, grounded: topic}\n")),
    ("TS231", more("  - triage: {grounded: topic}\n")),
    ("TS232", more("  - respond: {grounded: {claims: text, sources: [input.triage]}}\n")),
    ("TS233", more("  - vote: {voters: [{triage: {grounded: topic}}, quality], within: 1m}\n")),
    ("TS238", CLAIMING),
    *(
        ("TS239", {**CLAIMING, **more(f"  - vote: {{voters: [{voter}, quality], within: 1m, grounded: claims}}\n")})
        for voter in (
            "{sequence: [triage]}",
            "{triage: {on: {data_missing: {then: continue, give: {topic: order}}}}}",
        )
    ),
    ("TS218", {CODE: "import desk_rulebook\n" + FILES[CODE]}),
    ("TS218", {CODE: "from . import desk_rulebook\n" + FILES[CODE]}),
    (
        "TS218",
        {
            CODE: "import desk_rulebook\n" + FILES[CODE],
            "agents/desk_rulebook.py": "def f():\n    import desk_rulebook_more\n",
        },
    ),
    ("TS218", {"tools/till.py": "import nowhere_to_be_found\n"}),
    ("TS218", {"tools/till.py": "from ._drawer import coins\n", "tools/_drawer.py": "coins = 1\n"}),
    ("TS218", {"tools/till.py": "def f():\n    import _drawer\n", "tools/_drawer.py": ""}),
    # names
    ("TS400", changed(SUPPORT, "respond.amount > 100.0", "refund.amount > 100.0")),
    ("TS401", {**more("  - concurrent: [triage, {respond: {with: {ticket: input.ticket, triage: triage}}}]\n")}),
    ("TS402", changed(SUPPORT, "respond.amount > 100.0", "respond.ammount > 100.0")),
    ("TS403", changed(SUPPORT, '["refund", "order"]', '["refund", "orders"]')),
    ("TS404", changed(SUPPORT, "respond.amount > 100.0", 'respond.amount == "much"')),
    ("TS405", more("  - when: {if: 'input.id == \"x\"', then: triage}\n  - checkpoint: triage.urgent\n")),
    ("TS406", changed(RESPOND, "triage: object}", "triage: object, order: object}")),
    ("TS407", changed(SUPPORT, "  - triage\n", "  - triage: {with: {ticket: input.ticket, tone: input.id}}\n")),
    ("TS408", {**more("  - n0\n  - n1\n"), **agents(2)}),
    ("TS409", changed(TRIAGE, "confidence: {source: classifier, calibrated_on: outcomes.jsonl}\n", "")),
    ("TS410", changed(SUPPORT, "  - triage\n", "  - triage\n  - triage\n")),
    ("TS411", changed(TRIAGE, "input: {ticket: str}", "input: {ticket: int}")),
    (
        "TS413",
        managed("{plan: n1, workers: {n: n0}}", HEAD.replace("ticket: str", "ticket: str, items: list"))
        | {"agents/n1.yaml": agents(2)["agents/n1.yaml"].replace("{ticket: str}", "{items: list}")},
    ),
    # patterns
    ("TS500", changed(SUPPORT, "    undo: desk.retract\n", "")),
    ("TS501", changed(SUPPORT, "    claim: '\"reply:\" + input.id'\n", "")),
    ("TS502", {}),
    ("TS503", changed(SUPPORT, "body: respond.text", "text: respond.text")),
    ("TS504", more("  - action: desk.retract\n    undo: none\n")),
    ("TS505", more("  - action: desk.get\n    with: {ticket_id: input.id}\n    undo: none\n")),
    ("TS506", {SUPPORT: FILES[SUPPORT] + "    on: {unavailable: {retry: 2, after: 5s}}\n"}),
    ("TS507", {SUPPORT: FILES[SUPPORT] + "    on: {unavailable: {then: continue}}\n"}),
    ("TS508", changed(SUPPORT, "undo: desk.retract", "undo: {tool: desk.retract, with: {reply_id: input.id}}")),
    ("TS508", changed(SUPPORT, "undo: desk.retract", "undo: desk.get")),
    ("TS508", changed(SUPPORT, "undo: desk.retract", "undo: {tool: desk.retract, with: {id: result.id}}")),
    ("TS508", changed(SUPPORT, "undo: desk.retract", "undo: desk.ping")),
    ("TS510", more("  - checkpoint: input.id != ''\n  - triage\n")),
    ("TS511", changed(SUPPORT, 'triage.topic in ["refund", "order"]', "1 == 1")),
    (
        "TS512",
        more("  - triage\n" + RETRACT + "  - checkpoint: triage.urgent\n"),
    ),
    (
        "TS513",
        changed(
            SUPPORT,
            'checkpoint: triage.topic in ["refund", "order"]',
            "checkpoint: {that: triage.urgent, redo: respond}",
        ),
    ),
    (
        "TS520",
        more(
            "  - concurrent:\n"
            + "".join(
                f"      - {{action: desk.retract, with: {{reply_id: input.{f}}}, undo: none}}\n"
                for f in ("id", "ticket")
            )
        ),
    ),
    ("TS521", more("  - concurrent: [triage]\n")),
    (
        "TS522",
        {
            **more("  - concurrent: [n0, n1, n2]\n", HEAD.replace("escalate_to", "limits: {branches: 2}\nescalate_to")),
            **agents(3),
        },
    ),
    ("TS523", voting("{voters: [n0], within: 30s}")),
    ("TS523", voting("{voters: [n0, n1], need: 3, within: 30s}")),
    (
        "TS524",
        voting("{voters: [n0, {action: {tool: desk.retract, with: {reply_id: input.id}, undo: none}}], within: 30s}"),
    ),
    ("TS525", voting("{voters: [n0, n0], within: 30s}")),
    ("TS526", voting("{voters: [person, person, person], within: 4h}")),
    ("TS527", voting("{voters: [n0, n1]}")),
    ("TS528", voting("{voters: [n0, triage], within: 30s}") | shared("{writers: [triage]}")),
    (
        "TS529",
        voting(
            "{voters: [n0, n1, n2], within: 30s}", HEAD.replace("escalate_to", "limits: {branches: 2}\nescalate_to")
        ),
    ),
    ("TS534", settling("weighted")),
    ("TS534", settling("{rule: majority, otherwise: judge}")),
    ("TS535", settling("{rule: priority, order: [n0, nobody]}")),
    ("TS536", settling("{rule: quorum, quorum: 3}")),
    ("TS537", settling("{rule: quorum, quorum: 1}")),
    ("TS538", settling("{rule: judge, judge: n1}")),
    ("TS530", changed(QUALITY, "python: desk:quality", "model: cheap\ninstructions: Answer from the passages alone.")),
    ("TS531", changed(QUALITY, "output: {ok: bool, objections", "output: {fine: bool, objections")),
    ("TS532", changed(SUPPORT, "rounds: 2", "rounds: 6")),
    ("TS533", changed(SUPPORT, "rounds: 2", "rounds: 2, then: accept_with_review")),
    (
        "TS540",
        more("  - when: {if: 1 == 1, then: triage, else: [respond: {with: {ticket: input.ticket, triage: input}}]}\n"),
    ),
    (
        "TS541",
        more("  - triage\n  - when: {switch: triage.topic, is: {refund: n0, weather: n1}, else: n0}\n") | agents(2),
    ),
    ("TS542", more("  - triage\n  - when: {switch: triage.topic, is: {refund: n0}}\n") | agents(1)),
    ("TS550", more("  - foreach: {in: '[input.id]', steps: triage}\n")),
    ("TS551", more("  - foreach: {in: '[input.id]', steps: triage, max: 500}\n")),
    (
        "TS552",
        more(LOOPED.format("input.id")),
    ),
    ("TS553", more("  - foreach: {in: '[input.id]', steps: triage, max: 40, concurrency: 40}\n")),
    ("TS560", changed(SUPPORT, "within: 4h, ", "")),
    ("TS561", changed(SUPPORT, ", otherwise: escalate}\n  - action", "}\n  - action")),
    ("TS562", more("  - review: {by: lead, within: 4h, otherwise: escalate}\n  - triage\n")),
    ("TS563", changed(SUPPORT, "triage.confidence < threshold || respond.amount > 100.0", "1 < 2")),
    ("TS564", changed(SUPPORT, "within: 4h", "within: 30d")),
    (
        "TS565",
        changed(SUPPORT, "within: 4h", "learn: {error: 0.05}, within: 4h")
        | changed(TRIAGE, ", calibrated_on: outcomes.jsonl", ""),
    ),
    ("TS566", changed(SUPPORT, "within: 4h", "within: 4h, remind: 4h")),
    ("TS567", changed(TRIAGE, "source: classifier", "source: checker")),
    ("TS570", more("  - workflow: support\n    with: {id: input.id}\n")),
    ("TS571", more("  - workflow: support\n", HEAD.replace("usd: 0.30", "usd: 0.10"))),
    (
        "TS572",
        more("  - workflow: support\n", HEAD.replace("escalate_to", "limits: {depth: 1}\nescalate_to"))
        | {
            "workflows/top.yaml": HEAD.replace("workflow: more", "workflow: top").replace(
                "escalate_to", "limits: {depth: 1}\nescalate_to"
            )
            + "  - workflow: more\n"
        },
    ),
    # shared context
    ("TS580", gated("  - triage\n", "{agents: [quality], on: [stock/*]}")),
    (
        "TS581",
        gated(
            "  - triage\n  - action: desk.ping\n    with: {to: '\"a\"'}\n    undo: none\n",
            "{agents: [triage], on: [stock/*]}",
        ),
    ),
    ("TS582", gated("  - triage\n", "{agents: [triage], on: [prices/*]}")),
    ("TS700", shared("{writers: [triag]}")),
    ("TS700", shared("{writers: [triage], readers: [nobody]}")),
    ("TS700", shared("{writers: [triage], conflict: {priority: [quality]}}")),
    ("TS700", shared("{writers: [triage], conflict: {person: chief}}")),
    ("TS701", shared("{feeds: [erp]}")),
    ("TS702", shared("{max_age: 5s, source: {tool: desk.ping, with: {to: key}}}")),
    ("TS702", shared("{max_age: 5s, source: {tool: desk.get, with: {ticket_id: sku}}}")),
    ("TS702", shared("{max_age: 5s, source: {tool: desk.get}}")),
    ("TS702", shared("{max_age: 5s, source: {tool: desk.nothing}}")),
    ("TS702", shared("{max_age: 5s, source: {tool: nowhere.get}}")),
    ("TS702", shared("{max_age: 5s, source: {tool: desk.get, with: {ticket_id: key}, value: other.x}}")),
    ("TS703", shared("{writers: [triage], conflict: {merge: 'desk:nothing'}}")),
    ("TS703", shared("{writers: [triage], conflict: {merge: 'desk:triage'}}")),
    ("TS704", shared("{writers: [triage, quality]}")),
    ("TS705", more("  - triage\n  - checkpoint: context.limit > 3\n")),
    ("TS620", passing("{first: n0, peers: {n0: [n1]}, brief: {what: str}}")),
    ("TS621", passing("{first: n0, peers: {n0: [], n1: []}, brief: {what: str}}")),
    ("TS622", passing("{first: n0, peers: {n0: [n1]}}")),
    ("TS623", passing("{first: n0, peers: {n0: [n1]}, brief: {what: str}, max: 20}")),
    ("TS624", passing("{first: n0, peers: {n0: [n1], n1: [n0]}, brief: {what: str}}", "{handoff: {to: str}}")),
    ("TS630", more("  - saga: {steps: [triage]}\n")),
    ("TS631", more("  - saga: {steps: [triage], then: continue}\n")),
    ("TS640", managed("{plan: triage, workers: {n: {do: n0, input: {}}}, within: 1m, fallback: quality}")),
    ("TS641", managed("{plan: n1, workers: {n: n0}}")),
    ("TS642", managed("{plan: n1, workers: {n: n0}, max_tasks: 40}")),
    ("TS643", managed("{plan: n1, workers: {n: n0}}")),
    ("TS644", managed("{plan: n1, workers: {n: n1}}")),
    ("TS645", managed("{plan: n1, workers: {n: n0}}")),
    ("TS646", managed("{plan: n1, workers: {n: n0}}", HEAD.replace("escalate_to", "limits: {turns: 12}\nescalate_to"))),
    ("TS647", managed("{plan: n1, workers: {n: {workflow: support}}}")),
    (
        "TS706",
        {
            CONFIG: FILES[CONFIG]
            + "feeds:\n  bank: {webhook: {secret: '${BANK}'}, key: event.key, value: event.value, as_of: sent}\n"
        },
    ),
    ("TS707", shared("{writers: [triage]}") | changed(RESPOND, "model: cheap\n", "model: cheap\nwrites: [stock/*]\n")),
    ("TS708", shared("{writers: [triage]}") | changed(TRIAGE, "within: 30s", "reads: [stock/*]")),
    ("TS650", peering("{agents: [n0, n1], board: '[1]'}", "input: {open: list}\noutput: {x: int}")),
    ("TS651", peering("{agents: [n0, n1], board: '[1]'}", "input: {id: str}\noutput: {claim: list, results: list}")),
    (
        "TS652",
        peering(
            "{agents: [n0, n1], board: '[1]', lease: 10s}",
            "input: {open: list}\noutput: {claim: list, results: list}\nwithin: 1m",
        ),
    ),
    ("TS653", peering("{agents: [n0], board: '[1]'}")),
    ("TS654", peering("{agents: [n0, n1], board: '[1]', scope: tenant}")),
    ("TS655", changed(CONFIG, "name: ", "limits: {branches: 1}\nname: ") | peering("{agents: [n0, n1], board: '[1]'}")),
    ("TS656", changed(CONFIG, "name: ", "limits: {messages: 9}\nname: ") | peering("{agents: [n0, n1], board: '[1]'}")),
    # exceptions
    ("TS600", changed(SUPPORT, "  data_missing: ask\n", "")),
    ("TS601", changed(SUPPORT, "  data_missing: ask\n", "  data_missing: ask\n  unforeseen: {retry: 1}\n")),
    ("TS602", changed(SUPPORT, "rule_conflict: escalate", "rule_conflict: {retry: 2}")),
    ("TS603", changed(SUPPORT, "retry: 3, after: 10s", "retry: 3")),
    ("TS604", changed(SUPPORT, "retry: 3", "retry: 30")),
    (
        "TS605",
        changed(QUALITY, "tools: [desk.get]", "tools: [desk.get, desk.ping]\non: {unavailable: {retry: 1, after: 1s}}"),
    ),
    (
        "TS606",
        changed(
            SUPPORT, "  - triage\n", "  - triage: {on: {data_missing: {then: continue, give: {topic: weather}}}}\n"
        ),
    ),
]
TOOLS_FOR = {"TS502": tool("desk.reply", can_lookup=False), "TS606": TOOLS}


def found(root: Path, files: dict[str, Any] | None = None, tools: Any = TOOLS) -> list[Finding]:
    return check_workspace(load(root, files), tools)


def test_in_the_healthy_workspace_no_rule_speaks(tmp_path: Path):
    assert [str(one) for one in found(tmp_path)] == []


@pytest.mark.parametrize(("rule", "files"), CASES, ids=[f"{rule}-{i}" for i, (rule, _) in enumerate(CASES)])
def test_the_rule_speaks_where_it_should(tmp_path: Path, rule: str, files: dict[str, Any]):
    findings = found(tmp_path, files, TOOLS_FOR.get(rule, TOOLS))
    chosen = [one for one in findings if one.rule == rule]
    assert chosen, [str(one) for one in findings]
    declared = next(one for one in all_rules() if one.id == rule)
    for finding in chosen:
        assert finding.severity == declared.severity
        assert finding.message and finding.why and finding.fix
        assert finding.file is not None and finding.line is not None, str(finding)
    if rule != "TS001":
        assert not any(one.rule == "TS001" for one in findings), [str(one) for one in findings if one.rule == "TS001"]


def test_every_rule_has_a_workspace_in_which_it_speaks():
    in_the_store = {"TS320"}  # tests/chaos/test_rolling_upgrade.py
    assert {rule for rule, _ in CASES} == {rule.id for rule in all_rules()} - in_the_store


def test_there_are_many_rules_and_each_says_why_and_how():
    rules = all_rules()
    assert len(rules) >= 36
    for rule in rules:
        assert rule.title and rule.why.endswith(".") and rule.fix.endswith("."), rule.id
        assert rule.id.startswith("TS") and len(rule.id) == 5


def test_the_page_of_rules_is_what_the_registry_says():
    assert DOCS.read_text() == rules_page(), "write docs/readiness.md anew from workflow.readiness.rules_page()"


def test_problems_of_loading_are_findings_with_their_place(tmp_path: Path):
    findings = found(tmp_path, changed(SUPPORT, "rounds: 2", "rounds: two"))
    first = findings[0]
    assert (first.rule, first.severity, first.file, first.line) == ("TS001", "error", SUPPORT, 22)
    assert first.as_dict()["column"] == 63


def test_errors_come_first_and_nothing_is_said_twice(tmp_path: Path):
    findings = found(
        tmp_path, {**changed(SUPPORT, "seconds: 120, ", ""), **changed(CONFIG, "lead: [ann, ben]", "lead: [ann]")}
    )
    severities = [one.severity for one in findings]
    assert severities == sorted(severities, key=["error", "warning", "advice"].index)
    assert len(findings) == len(set(findings))


def test_without_contracts_the_rules_about_tools_are_silent(tmp_path: Path):
    files = changed(SUPPORT, "body: respond.text", "text: respond.text")
    assert "TS503" not in {one.rule for one in found(tmp_path, files, None)}


def test_a_text_without_its_own_quotes_is_explained(tmp_path: Path):
    finding = next(
        one for one in found(tmp_path, changed(SUPPORT, "body: respond.text", "body: solved")) if one.rule == "TS400"
    )
    assert "'\"solved\"'" in finding.fix and (finding.file, finding.line) == (SUPPORT, 25)


def test_a_name_bound_only_later_is_told_from_one_bound_nowhere(tmp_path: Path):
    files = changed(SUPPORT, 'checkpoint: triage.topic in ["refund", "order"]', "checkpoint: respond.amount > 1.0")
    finding = next(one for one in found(tmp_path, files) if one.rule == "TS400")
    assert "does not run before" in finding.message


QUIET = [
    (
        "TS405",
        more(
            "  - when: {if: 'input.id == \"x\"', then: triage}\n  - checkpoint: has(triage.urgent) && triage.urgent\n"
        ),
    ),
    ("TS405", more("  - when: {if: 'input.id == \"x\"', then: triage, else: triage}\n  - checkpoint: triage.urgent\n")),
    ("TS104", changed(SUPPORT, "escalate_to: lead\n", "")),
    ("TS120", needing("{order: free}", ROUTED)),
    ("TS120", needing("{order: fixed}", "  - n0\n  - n1\n")),
    ("TS121", needing("{order: free}", ROUTED)),
    ("TS121", needing("{}", "  - n0\n  - n1\n")),
    ("TS122", needing("{independent: true}", "  - concurrent: [n0, n1]\n")),
    ("TS123", needing("{complexity: high}", PLANNED)),
    ("TS124", needing("{complexity: high}", PLANNED)),
    ("TS125", needing("{regulated: true}", "  - review: {by: lead, within: 1h, otherwise: escalate}\n" + PINGED)),
    ("TS125", needing("{regulated: false}", PINGED)),
    ("TS128", more(REVIEWED, HEAD.replace("steps:", "four_eyes: true\nneed: {regulated: true}\nsteps:")) | agents(3)),
    ("TS128", needing("{regulated: true}", PINGED)),
    ("TS129", more(REVIEWED) | agents(3)),
    ("TS126", needing("{sovereignty: true}", "  - workflow: support\n")),
    ("TS573", needing("{}", "  - workflow: support\n")),
    ("TS573", needing("{sovereignty: true}", "  - workflow: support\n    escalated: {x: '1'}\n")),
    ("TS127", needing("{volume: high, complexity: high}", "  - vote: {voters: [n0, n1], within: 1m}\n")),
    (
        "TS127",
        needing(
            "{volume: high}", "  - when: {if: 'input.id == \"x\"', then: {vote: {voters: [n0, n1], within: 1m}}}\n"
        ),
    ),
    ("TS304", changed(CONFIG, "https://desk.example", "http://127.0.0.1:8000")),
    ("TS304", changed(CONFIG, "https://desk.example", "http://[::1]:8000")),
    (
        "TS218",
        {CODE: "import desk_rulebook, json\nfrom tightship import tool\n" + FILES[CODE], "agents/desk_rulebook.py": ""},
    ),
    ("TS218", {CODE: OPTIONAL + FILES[CODE], "agents/unused.py": "import nowhere_to_be_found\n"}),
    ("TS218", {"tools/till.py": OPTIONAL + "import json\nfrom tightship import tool\n"}),
    ("TS218", {"tools/_drawer.py": "import nowhere_to_be_found\n", "tools/old/till.py": "from . import nothing\n"}),
    ("TS301", changed(CONFIG, "openai:gpt-4.1-mini-2025-04-14", "anthropic:claude-haiku-4-5-20251001")),
    ("TS301", changed(CONFIG, "model: openai:gpt-4.1-mini-2025-04-14", "model: ollama:qwen3\n    undated: true")),
    ("TS303", changed(CONFIG, "auth: {bearer: {secret: DESK_TOKEN}}", "auth: none")),
    ("TS305", changed(SUPPORT, "a ticket comes in", "the password reset form is sent")),
    ("TS115", changed(SUPPORT, "within: 4h", "within: 2d")),
    ("TS408", {**more("  - n0\n  - n1: {with: {ticket: n0.x}}\n"), **agents(2)}),
    (
        "TS552",
        more(LOOPED.format("'\"r:\" + item'")),
    ),
    ("TS500", changed(SUPPORT, "undo: desk.retract", "undo: none")),
    ("TS606", changed(SUPPORT, "  - triage\n", f"  - triage: {{on: {{data_missing: {CONTINUE}}}}}\n")),
    ("TS403", changed(SUPPORT, 'triage.topic in ["refund", "order"]', 'triage.topic != ""')),
    (
        "TS202",
        {
            TRIAGE: FILES[TRIAGE] + "on: {unavailable: {use: spare}}\n",
            "agents/spare.yaml": FILES[TRIAGE].replace("agent: triage", "agent: spare"),
        },
    ),
]


@pytest.mark.parametrize(("rule", "files"), QUIET, ids=[f"{rule}-{i}" for i, (rule, _) in enumerate(QUIET)])
def test_the_rule_is_silent_where_all_is_well(tmp_path: Path, rule: str, files: dict[str, Any]):
    findings = found(tmp_path, files)
    assert [str(one) for one in findings if one.rule in (rule, "TS001")] == []


@pytest.mark.parametrize(
    "files",
    [
        changed(SUPPORT, "  - triage\n", "  - triagee\n"),
        changed(SUPPORT, "rounds: 2", "rounds: two"),
        changed(CONFIG, "store: sqlite:.tightship", "store: sqlite:.tightship\nlimits: soon"),
    ],
    ids=["agent", "rounds", "config"],
)
def test_one_mistake_is_one_error_and_what_follows_from_it_is_not_said(tmp_path: Path, files: dict[str, Any]):
    findings = found(tmp_path, files)
    assert [one.rule for one in findings if one.severity != "advice"] == ["TS001"], [str(one) for one in findings]


def test_a_tool_that_nothing_else_uses_is_what_is_meant(tmp_path: Path):
    files = changed(SUPPORT, "action: desk.reply", "action: desk.replyy")
    findings = check_workspace(load(tmp_path, files), {"desk.get": TOOLS["desk.get"]}, {"desk.get", "desk.reply"})
    assert next(one for one in findings if one.rule == "TS206").fix == "did you mean 'desk.reply'?"


def test_a_bad_time_of_a_review_is_named_as_it_is_written(tmp_path: Path):
    finding = found(tmp_path, changed(SUPPORT, "within: 4h", "within: soon"))[0]
    text = FILES[SUPPORT].splitlines()
    assert finding.message.startswith("within of the step 'review'")
    assert "within: 4h" in text[(finding.line or 0) - 1]


def test_functions_of_the_module_alone_are_not_suggested(tmp_path: Path):
    code = FILES[CODE] + "async def _helper(ctx, input): ...\n"
    finding = found(tmp_path, changed(TRIAGE, "desk:triage", "desk:zzz") | {CODE: code})[0]
    assert "_helper" not in finding.fix
    assert "triage" in finding.fix


def test_roles_are_not_called_unused_where_workflows_are_written_in_python(tmp_path: Path):
    files: dict[str, Any] = {name: None for name in FILES if name.startswith(("workflows/", "evals/"))}
    assert "TS310" not in {one.rule for one in found(tmp_path, files)}


def test_a_role_that_is_told_of_leaks_is_used(tmp_path: Path):
    idle = "lead: [ann, ben]\n  idle: [cleo, dan]"
    files = changed(CONFIG, "lead: [ann, ben]", idle)
    assert "TS310" in {one.rule for one in found(tmp_path / "unused", files)}
    files = {name: f"leaks: {{role: idle}}\n{text}" for name, text in files.items()}
    assert "TS310" not in {one.rule for one in found(tmp_path / "used", files)}


def test_a_missing_import_is_named_with_its_line_also_below_what_is_imported(tmp_path: Path):
    files = {
        CODE: "import desk_rulebook\n" + FILES[CODE],
        "agents/desk_rulebook.py": "X = 1\nimport desk_rulebook_more\n",
    }
    finding = found(tmp_path, files)[0]
    assert (finding.rule, finding.file, finding.line) == ("TS218", "agents/desk_rulebook.py", 2)
    assert "agents/desk_rulebook_more.py" in finding.message


def test_a_missing_import_of_a_tool_is_named_with_its_line_and_nothing_is_run(tmp_path: Path):
    finding = found(tmp_path, {"tools/till.py": "raise SystemExit\nfrom nowhere_to_be_found import x\n"})[0]
    assert (finding.rule, finding.file, finding.line) == ("TS218", "tools/till.py", 2)
    assert "no such package is installed" in finding.message


def test_a_file_of_tools_that_imports_another_is_told_that_it_finds_none(tmp_path: Path):
    (tmp_path / "tools").mkdir()
    for name, text in (("_drawer", "coins = 1\n"), ("till", "import _drawer\n")):
        (tmp_path / "tools" / f"{name}.py").write_text(text, "utf-8")
    with pytest.raises(LoadError, match="_drawer"):  # so it is, when a run begins
        load_tools(tmp_path / "tools")
    [finding] = [one for one in found(tmp_path, {}) if one.rule == "TS218"]
    assert "imported on its own" in finding.message
    assert "same file" in finding.fix


def test_an_imported_file_that_is_no_python_is_said_once(tmp_path: Path):
    findings = found(tmp_path, {CODE: "import desk_rulebook\n" + FILES[CODE], "agents/desk_rulebook.py": "def f(:\n"})
    assert [(one.rule, one.file, one.line) for one in findings] == [("TS001", "agents/desk_rulebook.py", 1)]
