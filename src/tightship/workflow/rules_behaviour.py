"""Readiness rules about what happens on exceptions (E1 to E7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from tightship.workflow.models import WorkflowSpec
from tightship.workflow.readiness import Check, Finding, Rule, rule
from tightship.workflow.source import Mark
from tightship.workflow.tree import Behaviour, Step
from tightship.workflow.types import shape_of

_E_KINDS: Final = (
    "unavailable",
    "data_missing",
    "rule_conflict",
    "out_of_scope",
    "low_confidence",
    "format_mismatch",
)
_FOR_PEOPLE: Final = frozenset({"rule_conflict", "out_of_scope"})


def _declared(check: Check) -> Iterator[tuple[str, Mapping[str, Behaviour], Mark | None]]:
    """Every `on:` of the workspace, with whose it is."""
    for agent in check.files.agents.values():
        yield f"the agent {agent.agent!r}", agent.on, agent.where("on")
    for workflow in check.workflows():
        yield f"the workflow {workflow.workflow!r}", workflow.on, workflow.where("on")
        for step in workflow.walk():
            yield f"the step {step.part!r}", step.on, step.mark or workflow.where("steps")


@rule(
    "TS600",
    "advice",
    "A workflow that acts does not say what happens on some exceptions",
    why="The default escalates, which is safe; where a retry or another source would do, people are asked for nothing.",
    fix="Declare them under `on:` of the workflow, for example `unavailable: {retry: 3, after: 10s}`.",
)
def undeclared_kinds(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every kind was thought about."""
    for workflow in check.workflows():
        if not any(step.pattern == "action" for step in workflow.walk()):
            continue
        declared = set(workflow.on) | {kind for step in workflow.walk() for kind in step.on}
        for name in workflow.agents():
            spec = check.agent(name)
            declared |= set(spec.on) if spec is not None else set()
        missing = [kind for kind in _E_KINDS if kind not in declared]
        if missing:
            said = f"{workflow.workflow!r} does not say what happens on {', '.join(missing)}"
            yield rule.found(said, workflow.where("on") or workflow.where("workflow"))


@rule(
    "TS601",
    "error",
    "The unforeseen is retried or passed over in silence",
    why="Nobody knows what happened: trying again may repeat the damage, and going on hides it.",
    fix="Let `unforeseen` escalate or ask.",
)
def silent_unforeseen(check: Check, rule: Rule) -> Iterator[Finding]:
    """No silent failure."""
    for what, on, mark in _declared(check):
        behaviour = on.get("unforeseen")
        if behaviour is not None and (behaviour.then == "continue" or behaviour.retry):
            done = "goes on" if behaviour.then == "continue" else "tries again"
            yield rule.found(f"{what} {done} after something unforeseen", mark)


@rule(
    "TS602",
    "error",
    "What only a person can decide does not reach one",
    why="Two rules that contradict each other, or work outside the agents' scope, do not change by trying again.",
    fix="Let `rule_conflict` and `out_of_scope` escalate or ask, without retries.",
)
def not_for_agents(check: Check, rule: Rule) -> Iterator[Finding]:
    """E3 and E4 go to people."""
    for what, on, mark in _declared(check):
        for kind in sorted(_FOR_PEOPLE & set(on)):
            if on[kind].then == "continue" or on[kind].retry:
                yield rule.found(f"{what} does not send {kind} to a person", mark)


@rule(
    "TS603",
    "warning",
    "Retries follow each other without a pause",
    why="A system that is down is hit again at once, by every run at the same time.",
    fix="Add `after`, for example `after: 10s`.",
)
def hasty_retry(check: Check, rule: Rule) -> Iterator[Finding]:
    """Retries back off."""
    for what, on, mark in _declared(check):
        behaviour = on.get("unavailable")
        if behaviour is not None and behaviour.retry and not behaviour.after:
            yield rule.found(f"{what} retries {behaviour.retry} times without a pause", mark)


@rule(
    "TS604",
    "error",
    "More retries are declared than the run allows",
    why="All layers share one retry budget per run: the later retries are never made.",
    fix="Lower `retry`, or raise limits.retries.",
)
def too_many_retries(check: Check, rule: Rule) -> Iterator[Finding]:
    """One retry budget for all layers."""
    for workflow in check.workflows():
        limit = workflow.limits.over(check.files.config.limits).retries
        for what, on, mark in _of_workflow(check, workflow):
            for kind, behaviour in on.items():
                if behaviour.retry > limit:
                    yield rule.found(f"{what} retries {kind} {behaviour.retry} times, and the run allows {limit}", mark)


def _of_workflow(check: Check, workflow: WorkflowSpec) -> Iterator[tuple[str, Mapping[str, Behaviour], Mark | None]]:
    yield f"the workflow {workflow.workflow!r}", workflow.on, workflow.where("on")
    for step in workflow.walk():
        yield f"the step {step.part!r}", step.on, step.mark or workflow.where("steps")
    for name in workflow.agents():
        spec = check.agent(name)
        if spec is not None:
            yield f"the agent {name!r}", spec.on, spec.where("on")


@rule(
    "TS605",
    "error",
    "An agent that writes without a key is retried",
    why="Its first turn may have written already: the second writes again.",
    fix="Delete `retry`, or move the write into an `action` step with a claim.",
)
def retried_writer(check: Check, rule: Rule) -> Iterator[Finding]:
    """Retries repeat nothing."""
    for place in check.places():
        own = [check.agent(name) for name in place.step.agents()] if place.step.pattern == "agent" else []
        for agent in own:
            retried = any(b.retry for b in place.step.on.values()) or (
                agent is not None and any(b.retry for b in agent.on.values())
            )
            if agent is not None and retried:
                for tool in agent.tools:
                    spec = check.tool(tool)
                    if spec is not None and spec.effect == "write" and spec.idempotency == "none":
                        said = f"{agent.agent!r} is retried and can write with {tool}"
                        yield rule.found(said, place.step.mark or place.workflow.where("steps"))


@rule(
    "TS606",
    "error",
    "A step goes on with a value that is not an output of it",
    why="The steps behind get something of another shape and fail in its place.",
    fix="Give a value that fits the declared output in `give`.",
)
def unfit_give(check: Check, rule: Rule) -> Iterator[Finding]:
    """What stands in has the declared shape."""
    for place in check.places():
        schema = place.step.gives(check)
        for kind, behaviour in place.step.on.items() if schema is not None else ():
            misfits = shape_of(schema or {}).misfits(behaviour.give) if behaviour.then == "continue" else []
            if misfits and not _is_write(place.step):
                said = f"on {kind}, {place.step.part!r} goes on with a value that does not fit: {misfits[0]}"
                yield rule.found(said, place.step.mark or place.workflow.where("steps"))


def _is_write(step: Step) -> bool:
    return step.pattern == "action"
