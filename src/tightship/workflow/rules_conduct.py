"""Readiness rules about what keeps agents to the matter: grounded claims, bounded histories, audits of outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tightship.workflow.models import AgentSpec, GroundedSpec, WorkflowSpec
from tightship.workflow.readiness import Check, Finding, Rule, rule
from tightship.workflow.source import Mark, did_you_mean
from tightship.workflow.tree import Step

AUDITED: Final = ("agent", "run", "given", "output")
"""What a workflow that audits is given of each output."""


def _property(agent: AgentSpec, field: str) -> Mapping[str, Any]:
    schema = agent.output_schema
    found: Mapping[str, Any] = {} if schema is None else schema["properties"].get(field, {})
    return found


def _cites(agent: AgentSpec, field: str) -> bool:
    """Whether a field of its output is a list of claims with their sources."""
    return {"claim", "source"} <= set(_property(agent, field).get("items", {}).get("properties", {}))


def _of_steps(check: Check, step: Step) -> Iterator[tuple[AgentSpec, GroundedSpec]]:
    """The agents whose claims a step says to hold against their sources, itself or as its voters; people are none."""
    declared: GroundedSpec | None = getattr(step, "grounded", None)
    if declared is None:
        return
    voters: Sequence[Step] = getattr(step, "voters", ())
    for one in [step, *voters]:
        spec = check.agent(str(getattr(one, "agent", "")))
        if spec is not None and spec.human is None:
            own: GroundedSpec | None = getattr(one, "grounded", None)
            yield spec, own or declared


def _grounded(check: Check) -> Iterator[tuple[AgentSpec, GroundedSpec, Mark | None]]:
    """Every declaration that claims have to stand: of agents, of steps and of votes."""
    for agent in check.files.agents.values():
        if agent.grounded is not None:
            yield agent, agent.grounded, agent.where("grounded")
    for place in check.places():
        for agent, grounds in _of_steps(check, place.step):
            yield agent, grounds, place.step.mark or place.workflow.where("steps")


def _held(check: Check, workflow: WorkflowSpec) -> set[str]:
    """The agents of a workflow whose claims are held against their sources at every turn."""
    by_step = {agent.agent for step in workflow.walk() for agent, _ in _of_steps(check, step)}
    return by_step | {name for name in workflow.agents() if (spec := check.agent(name)) and spec.grounded is not None}


@rule(
    "TS230",
    "error",
    "Claims that have to be grounded are not in the agent's output",
    why="There is nothing to hold against its sources, so whatever the agent says passes.",
    fix="Declare the field in `output` as `[{claim: str, source: str}]`, or correct `grounded.claims`.",
)
def no_claims(check: Check, rule: Rule) -> Iterator[Finding]:
    """Claims are where they are said to be."""
    for agent, grounds, mark in _grounded(check):
        if not _cites(agent, grounds.claims):
            said = f"{agent.agent!r} gives no list {grounds.claims!r} of objects with `claim` and `source`"
            yield rule.found(said, mark)


@rule(
    "TS231",
    "error",
    "An agent has to cite and can read nothing",
    why="Every claim is refused: no tool, no shared value and no declared input can be its source.",
    fix="Give it a tool that reads, or name an input in `grounded.sources`, for example `input.ticket`.",
)
def nothing_to_cite(check: Check, rule: Rule) -> Iterator[Finding]:
    """What has to be cited can be read."""
    for agent, grounds, mark in _grounded(check):
        inputs = [name.partition(".")[2] for name in grounds.sources if name.startswith("input.")]
        strangers = [name for name in inputs if agent.input and name not in agent.input_schema["properties"]]
        for name in strangers:
            yield rule.found(f"{agent.agent!r} has no input {name!r}", mark)
        tools = "tools" in grounds.sources and bool(agent.tools)
        context = "context" in grounds.sources and bool(check.files.config.context)
        if not (tools or context or inputs):
            yield rule.found(f"{agent.agent!r} has nothing that it could cite", mark)


@rule(
    "TS232",
    "warning",
    "An agent may cite another agent's word",
    why="Two agents that cite each other agree on whatever the first has invented.",
    fix="Let it cite what was read: tools, the shared context, the workflow's own input.",
)
def cites_an_agent(check: Check, rule: Rule) -> Iterator[Finding]:
    """An agent's word is no evidence."""
    for agent, grounds, mark in _grounded(check):
        for name in grounds.sources:
            field = name.partition(".")[2]
            if field and field in check.files.agents:
                yield rule.found(f"{agent.agent!r} may cite what the agent {field!r} says", mark)


@rule(
    "TS233",
    "warning",
    "Some voters have to ground their claims and others need not",
    why="The vote counts an answer that cites nothing as much as one that was held against its sources.",
    fix="Declare `grounded` at the vote, or for every voter.",
)
def uneven_grounds(check: Check, rule: Rule) -> Iterator[Finding]:
    """Uncited agreement is no evidence."""
    for place in check.places():
        if place.step.pattern != "vote":
            continue
        voters = [check.agent(name) for voter in place.step.children() for one in voter.walk() for name in one.agents()]
        known = [voter for voter in voters if voter is not None and voter.kind != "human"]
        steps = [place.step, *(one for voter in place.step.children() for one in voter.walk())]
        held = {agent.agent for step in steps for agent, _ in _of_steps(check, step)}
        without = [voter.agent for voter in known if voter.grounded is None and voter.agent not in held]
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


@rule(
    "TS237",
    "error",
    "What a check for drift or leaks finds reaches nobody",
    why="The item would wait for a role that nobody holds.",
    fix="Name a role of tightship.yaml in `drift.role`, or `leaks.role`.",
)
def tells_nobody(check: Check, rule: Rule) -> Iterator[Finding]:
    """A finding is somebody's."""
    roles = check.files.config.roles
    for one in (*check.files.agents.values(), *check.workflows()):
        if one.drift is not None and one.drift.role not in roles:
            said = f"nobody holds the role {one.drift.role!r}"
            yield rule.found(said, one.where("drift", "role"), fix=did_you_mean(one.drift.role, roles))
    leaks = check.files.config.leaks
    if leaks is not None and leaks.role not in roles:
        mark = check.files.config.where("leaks", "role")
        yield rule.found(f"nobody holds the role {leaks.role!r}", mark, fix=did_you_mean(leaks.role, roles))


@rule(
    "TS238",
    "advice",
    "A workflow acts on claims that nobody holds against their sources",
    why="The agent names a source for what it claims, and nothing looks whether the source says so.",
    fix="Declare `grounded: {claims: FIELD}` at the agent, or `grounded: FIELD` at its step or at the vote.",
)
def unheld_claims(check: Check, rule: Rule) -> Iterator[Finding]:
    """What is acted upon stands."""
    for workflow in check.workflows():
        if not any(step.pattern == "action" for step in workflow.walk()):
            continue
        held = _held(check, workflow)
        for name in workflow.agents():
            spec = check.agent(name)
            fields = [] if spec is None or spec.human is not None else [f for f in _fields(spec) if _cites(spec, f)]
            if fields and name not in held:
                said = f"{workflow.workflow!r} acts, and {name!r} gives {fields[0]!r} unchecked"
                yield rule.found(said, workflow.where("steps"))


def _fields(agent: AgentSpec) -> list[str]:
    return [] if agent.output_schema is None else list(agent.output_schema["properties"])


@rule(
    "TS239",
    "error",
    "An answer that is not grounded is counted all the same",
    why="What is given in a voter's place, or by an agent that need not cite, was held against no source.",
    fix="Let exceptions of voters escalate, so that they are absent; write `grounded` at the step that answers.",
)
def counted_all_the_same(check: Check, rule: Rule) -> Iterator[Finding]:
    """An ungrounded answer counts for nothing."""
    for place in check.places():
        if place.step.pattern != "vote" or getattr(place.step, "grounded", None) is None:
            continue
        voters: Sequence[Step] = getattr(place.step, "voters", ())
        for voter in voters:
            mark = voter.mark or place.step.mark
            for kind in _goes_on(check, place.workflow, voter):
                yield rule.found(f"on {kind}, {voter.part!r} goes on with an answer that nobody gave", mark)
            if voter.pattern != "agent" and not any(getattr(one, "grounded", None) for one in voter.walk()):
                yield rule.found(f"nothing says which agent of {voter.part!r} has to be grounded", mark)


def _goes_on(check: Check, workflow: WorkflowSpec, voter: Step) -> list[str]:
    """The kinds of exceptions on which something stands in for a voter's answer."""
    specs = [spec for one in voter.walk() for name in one.agents() if (spec := check.agent(name)) is not None]
    declared = (workflow.on, *(one.on for one in voter.walk()), *(spec.on for spec in specs))
    return sorted({kind for on in declared for kind, behaviour in on.items() if behaviour.then == "continue"})


@rule(
    "TS240",
    "error",
    "A reset is declared for an agent that keeps nothing",
    why="A model's turns and a person's begin anew in any case; the field does nothing.",
    fix="Delete `reset`.",
)
def resets_nothing(check: Check, rule: Rule) -> Iterator[Finding]:
    """The field does what it says."""
    for agent in check.files.agents.values():
        if agent.reset is not None and agent.kind != "python":
            yield rule.found(f"{agent.agent!r} is a {agent.kind}", agent.where("reset"))
