"""The readiness check: for every rule a workspace in which it speaks; in the healthy one none does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from readiness_samples import (
    CLAIMING,
    CODE,
    CONFIG,
    HEAD,
    IDLE,
    IN_CLEAR,
    LOOPED,
    PINGED,
    PLANNED,
    QUALITY,
    RESPOND,
    RETRACT,
    REVIEWED,
    ROUTED,
    SUPPORT,
    TRIAGE,
    agents,
    found,
    gated,
    managed,
    more,
    needing,
    passing,
    peering,
    settling,
    shared,
    tool,
    voting,
)
from sample_workspace import FILES, TOOLS, changed

from tightship.workflow.readiness import all_rules, rules_page

DOCS = Path(__file__).parents[2] / "docs" / "readiness.md"

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
