"""A house of two levels: an orchestrator over domains, each a workflow with a manager and agents of its own.

    python tests/house.py FOLDER AGENTS [KILL_AT]

runs it for real on SQLite, as one reference; with KILL_AT the process sends itself SIGKILL once it has written so many
entries. What came of it is printed as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from tightship import Agent, Workflow, Workspace
from tightship.core import kinds
from tightship.ledger.sqlite import SqliteBackend

PER_DOMAIN = 10
"""Agents of a domain: its planner and its workers."""
CONFIG = "name: house\nlimits: {branches: 64, turns: 100}\n"

Work = Callable[[int, str, Any], Awaitable[Any]]


def names(domain: int) -> list[str]:
    """The workers of a domain."""
    return [f"d{domain}_w{index}" for index in range(PER_DOMAIN - 1)]


def given(agents: int) -> dict[str, Any]:
    """The orchestrator's input for so many agents."""
    return {"case": "one", "domains": [f"domain{number}" for number in range(agents // PER_DOMAIN)]}


def furnish(
    agents: int, work: Work, calls: Mapping[int, int] | None = None, tools: list[str] | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """The agents and workflows of a house, and the functions behind the agents.

    Args:
        agents: how many there are in all domains together.
        work: what a worker does, from its domain, its name and its context.
        calls: of some domains, how many calls their budget allows.
        tools: what workers may use.
    """
    specs, functions = list[Any](), dict[str, Any]()

    def agent(name: str, function: Any, **takes: str) -> None:
        own = {"owner": "test", "purpose": f"plays {name}", "python": f"test:{name}"}
        specs.append(Agent(name, input=takes, output={}, tools=tools or [], **own))
        functions[name] = function

    domains = range(agents // PER_DOMAIN)
    for domain in domains:
        agent(f"d{domain}_plan", _planner(names(domain)), items="list")
        for name in names(domain):
            agent(name, _worker(work, domain, name), task="object")
        manager = {
            "plan": f"d{domain}_plan",
            "workers": {name: name for name in names(domain)},
            "replans": 0,
            "within": "30m",
        }
        budget = {"usd": 1.0, "calls": (calls or {}).get(domain, 100), "then": "escalate"}
        specs.append(_workflow(f"domain-{domain}", {"case": "str?"}, manager, budget=budget))
    agent("split", _split, items="list")
    workers = {
        f"domain{domain}": {"do": {"workflow": f"domain-{domain}", "with": {"case": "task.goal"}}, "input": {}}
        for domain in domains
    }
    manager = {
        "plan": "split",
        "workers": workers,
        "cover": "input.domains",
        "max_tasks": 64,
        "concurrency": 64,
        "on_failure": "keep",
        "within": "1h",
    }
    specs.append(_workflow("flow", {"case": "str?", "domains": "list[str]"}, manager))
    return specs, functions


def _workflow(name: str, takes: Mapping[str, str], manager: Mapping[str, Any], **fields: Any) -> Any:
    own = {"owner": "test", "purpose": "is tested", "escalate_to": "operator", **fields}
    return Workflow(name, input=takes, steps=[{"manager": manager}], **own)


def _planner(workers: list[str]) -> Any:
    async def plan(ctx: Any, given: dict[str, Any]) -> Any:
        return {"tasks": [{"id": name, "worker": name, "goal": f"do {name}"} for name in workers]}

    return plan


async def _split(ctx: Any, given: dict[str, Any]) -> Any:
    return {"tasks": [{"id": one, "worker": one, "goal": one, "covers": [one]} for one in given["items"]]}


def _worker(work: Work, domain: int, name: str) -> Any:
    async def function(ctx: Any, given: dict[str, Any]) -> Any:
        return await work(domain, name, ctx)

    return function


# --- for real -----------------------------------------------------------------------------------------


async def live(folder: Path, agents: int) -> dict[str, Any]:
    """Run it, or go on with what an earlier process has left."""

    async def work(domain: int, name: str, ctx: Any) -> Any:
        await ctx.random()
        return {"made": name}

    config = folder / "tightship.yaml"
    if not config.exists():
        config.write_text(f"{CONFIG}roles: {{operator: [ann]}}\n")
    specs, functions = furnish(agents, work)
    async with Workspace.open(folder) as ws:
        ws.add(*specs, functions=functions)
        run = await ws.run("flow", given(agents), reference="house")
        entries = await (await ws.ledger()).entries(0, 1_000_000)
    turns = Counter((entry.run, entry.key) for entry in entries if entry.kind == kinds.TURN)
    ended = Counter(entry.run for entry in entries if entry.kind == kinds.ENDED)
    made = {name for one in (run.output or {"results": {}})["results"].values() for name in one["results"]}
    return {
        "outcome": run.outcome,
        "made": len(made),
        "turns": len(turns),
        "most_turns": max(turns.values()),
        "ends": sorted(set(ended.values())),
        "claims": sum(entry.kind == kinds.CLAIMED for entry in entries),
    }


def die_after(entries: int) -> None:
    """End this process once it has written so many entries."""
    write, commit, written = SqliteBackend.write, SqliteBackend.commit, [0]

    def counting(self: SqliteBackend, batch: Any, tables: Any) -> None:
        written[0] += len(batch.rows)
        write(self, batch, tables)

    def killing(self: SqliteBackend) -> None:
        commit(self)
        if written[0] >= entries:
            os.kill(os.getpid(), signal.SIGKILL)

    SqliteBackend.write, SqliteBackend.commit = counting, killing


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_after(int(sys.argv[3]))
    print(json.dumps(asyncio.run(live(Path(sys.argv[1]), int(sys.argv[2])))))
