"""Readiness rules about what keeps agents to the matter: grounded claims, bounded histories, audits of outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tightship.workflow.models import AgentSpec
from tightship.workflow.readiness import Check, Finding, Rule, rule

AUDITED: Final = ("agent", "run", "given", "output")
"""What a workflow that audits is given of each output."""


def _property(agent: AgentSpec, field: str) -> Mapping[str, Any]:
    schema = agent.output_schema
    found: Mapping[str, Any] = {} if schema is None else schema["properties"].get(field, {})
    return found


@rule(
    "TS230",
    "error",
    "Claims that have to be grounded are not in the agent's output",
    why="There is nothing to hold against its sources, so whatever the agent says passes.",
    fix="Declare the field in `output` as `[{claim: str, source: str}]`, or correct `grounded.claims`.",
)
def no_claims(check: Check, rule: Rule) -> Iterator[Finding]:
    """Claims are where they are said to be."""
    for agent in check.files.agents.values():
        if agent.grounded is None:
            continue
        items = _property(agent, agent.grounded.claims).get("items", {})
        if not {"claim", "source"} <= set(items.get("properties", {})):
            said = f"{agent.agent!r} gives no list {agent.grounded.claims!r} of objects with `claim` and `source`"
            yield rule.found(said, agent.where("grounded"))


@rule(
    "TS231",
    "error",
    "An agent has to cite and can read nothing",
    why="Every claim is refused: no tool, no shared value and no declared input can be its source.",
    fix="Give it a tool that reads, or name an input in `grounded.sources`, for example `input.ticket`.",
)
def nothing_to_cite(check: Check, rule: Rule) -> Iterator[Finding]:
    """What has to be cited can be read."""
    for agent in check.files.agents.values():
        if agent.grounded is None:
            continue
        sources = agent.grounded.sources
        inputs = [name.partition(".")[2] for name in sources if name.startswith("input.")]
        strangers = [name for name in inputs if agent.input and name not in agent.input_schema["properties"]]
        for name in strangers:
            yield rule.found(f"{agent.agent!r} has no input {name!r}", agent.where("grounded", "sources"))
        tools = "tools" in sources and bool(agent.tools)
        context = "context" in sources and bool(check.files.config.context)
        if not (tools or context or inputs):
            yield rule.found(f"{agent.agent!r} has nothing that it could cite", agent.where("grounded"))


@rule(
    "TS232",
    "warning",
    "An agent may cite another agent's word",
    why="Two agents that cite each other agree on whatever the first has invented.",
    fix="Let it cite what was read: tools, the shared context, the workflow's own input.",
)
def cites_an_agent(check: Check, rule: Rule) -> Iterator[Finding]:
    """An agent's word is no evidence."""
    for agent in check.files.agents.values():
        for name in () if agent.grounded is None else agent.grounded.sources:
            field = name.partition(".")[2]
            if field and field in check.files.agents:
                said = f"{agent.agent!r} may cite what the agent {field!r} says"
                yield rule.found(said, agent.where("grounded", "sources"))


@rule(
    "TS233",
    "warning",
    "Some voters have to ground their claims and others need not",
    why="The vote counts an answer that cites nothing as much as one that was held against its sources.",
    fix="Declare `grounded` for every voter, or for none.",
)
def uneven_grounds(check: Check, rule: Rule) -> Iterator[Finding]:
    """Uncited agreement is no evidence."""
    for place in check.places():
        if place.step.pattern != "vote":
            continue
        voters = [check.agent(name) for voter in place.step.children() for one in voter.walk() for name in one.agents()]
        known = [voter for voter in voters if voter is not None and voter.kind != "human"]
        without = [voter.agent for voter in known if voter.grounded is None]
        if without and len(without) < len(known):
            yield rule.found(f"{', '.join(without)} may answer without a source", place.step.mark)


@rule(
    "TS234",
    "error",
    "A bounded history is declared for an agent that has none",
    why="Only a model's conversation is bounded; for other agents the field does nothing.",
    fix="Delete `history`.",
)
def no_history(check: Check, rule: Rule) -> Iterator[Finding]:
    """The field does what it says."""
    for agent in check.files.agents.values():
        if agent.history is not None and agent.kind != "model":
            yield rule.found(f"{agent.agent!r} is no model", agent.where("history"))


@rule(
    "TS235",
    "error",
    "An audit names a workflow that cannot take an output",
    why="No output would ever be looked at.",
    fix="Name a workflow with `input: {agent: str, run: str, given: object, output: object}` that gives `ok: bool`.",
)
def no_auditor(check: Check, rule: Rule) -> Iterator[Finding]:
    """Audits can be made."""
    for agent in check.files.agents.values():
        if agent.audit is None:
            continue
        found = check.files.workflows.get(agent.audit.by)
        if found is None:
            yield rule.found(f"there is no workflow {agent.audit.by!r}", agent.where("audit", "by"))
        elif set(found.input_schema["properties"]) != set(AUDITED):
            said = f"{found.workflow!r} does not take {', '.join(AUDITED)}"
            yield rule.found(said, agent.where("audit", "by"))


@rule(
    "TS236",
    "error",
    "An agent audits itself",
    why="Whoever made an output finds it right.",
    fix="Let another agent or a person look at it.",
)
def audits_itself(check: Check, rule: Rule) -> Iterator[Finding]:
    """The checker is somebody else."""
    for agent in check.files.agents.values():
        found = None if agent.audit is None else check.files.workflows.get(agent.audit.by)
        if found is not None and agent.agent in found.agents():
            yield rule.found(
                f"{found.workflow!r} asks {agent.agent!r} about its own output", agent.where("audit", "by")
            )
