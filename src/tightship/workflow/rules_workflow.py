"""Readiness rules about workflows as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tightship.core.errors import InputRejected
from tightship.core.ports import ToolSpec
from tightship.workflow.conditions import Expression, Values
from tightship.workflow.models import LimitOverrides, Limits, Spec, WorkflowSpec
from tightship.workflow.names import Place
from tightship.workflow.readiness import Check, Finding, Rule, rule
from tightship.workflow.source import plain
from tightship.workflow.tree import Step
from tightship.workflow.types import check_input

_SANE: Final = {
    "turns": 1000,
    "calls": 5000,
    "retries": 100,
    "repeats": 10,
    "handoffs": 50,
    "messages": 5000,
    "branches": 200,
}
_MAP: Final = ("trigger", "systems", "data", "completion", "escalation")
_PERSONAL: Final = re.compile(
    r"(^|_)(e?mail|phone|mobile|address|street|postcode|birth|dob|ssn|iban|passport|tax_id|first_name|last_name|full_name"
    r"|surname|customer|customer_id|patient|patient_id|employee_id|user_id|person)($|_)"
)
MANY_AGENTS: Final = 8


@rule(
    "TS100",
    "error",
    "A workflow has no budget",
    why="A loop or a long answer can cost any amount before somebody notices.",
    fix="Add `budget: {usd: 0.30, tokens: 60000, seconds: 120, then: ask}` with your figures.",
)
def no_budget(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every workflow has an envelope."""
    for workflow in check.workflows():
        if workflow.budget.empty:
            yield rule.found(f"the workflow {workflow.workflow!r} has no budget", workflow.where("budget"))


@rule(
    "TS101",
    "error",
    "A workflow has no time limit",
    why="A run that hangs stays open for ever and holds its claims.",
    fix="Add `seconds` to its budget, for example `seconds: 2m`.",
)
def no_time_limit(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every run ends in time."""
    for workflow in check.workflows():
        if not workflow.budget.empty and workflow.budget.seconds is None:
            yield rule.found(f"the budget of {workflow.workflow!r} names no seconds", workflow.where("budget"))


@rule(
    "TS102",
    "warning",
    "A workflow has no limit on money or tokens",
    why="It runs on models or on calls with a price, and nothing bounds what they cost.",
    fix="Add `usd` (and `tokens` where models run) to its budget.",
)
def no_money_limit(check: Check, rule: Rule) -> Iterator[Finding]:
    """What costs is bounded in money."""
    for workflow in check.workflows():
        budget = workflow.budget
        if not budget.empty and budget.usd is None and _costs(check, workflow):
            yield rule.found(f"the budget of {workflow.workflow!r} names no usd", workflow.where("budget"))


def _costs(check: Check, workflow: WorkflowSpec) -> bool:
    tools = set(workflow.tools())
    for name in workflow.agents():
        spec = check.agent(name)
        if spec is not None:
            if spec.kind == "model":
                return True
            tools |= set(spec.tools)
    return any(found.price.usd > 0 for name in tools if (found := check.tool(name)) is not None)


@rule(
    "TS103",
    "warning",
    "The map of a workflow is incomplete",
    why="Who approves it, or takes it over, must see what starts it, what it touches, and when it is done.",
    fix="Add the missing fields; one sentence each is enough.",
)
def incomplete_map(check: Check, rule: Rule) -> Iterator[Finding]:
    """Trigger, systems, data, completion and escalation are written down."""
    for workflow in check.workflows():
        missing = [name for name in _MAP if not getattr(workflow, name)]
        if missing:
            said = f"the workflow {workflow.workflow!r} does not say: {', '.join(missing)}"
            yield rule.found(said, workflow.where("workflow", key=True))


@rule(
    "TS104",
    "error",
    "Nobody is named to take escalations",
    why="An escalated run would lie in the inbox of no one.",
    fix="Add `escalate_to: ROLE`, with the role declared in tightship.yaml.",
)
def no_escalation_role(check: Check, rule: Rule) -> Iterator[Finding]:
    """Escalations reach somebody."""
    for workflow in check.workflows():
        if workflow.escalation_role(check.files.config.roles) is None:
            said = f"escalations of {workflow.workflow!r} have no role"
            yield rule.found(said, workflow.where("workflow", key=True))


@rule(
    "TS105",
    "advice",
    "A workflow has no evals",
    why="Without recorded cases and their expected outcomes nobody sees when a change makes it worse.",
    fix="Add a file under evals/ that names the workflow.",
)
def no_evals(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every workflow is tested."""
    named = {
        str(found["workflow"])
        for found in check.files.evals.values()
        if isinstance(found, dict) and "workflow" in found
    }
    for workflow in check.workflows():
        if workflow.workflow not in named:
            yield rule.found(f"no file under evals/ names {workflow.workflow!r}", workflow.where("workflow", key=True))


@rule(
    "TS106",
    "advice",
    "Many agents stand in one workflow",
    why="From 8 agents on, coordination costs more than it gives, and one failure takes everything with it.",
    fix="Split it: one workflow per domain, each with its own budget and escalation, started with `workflow:`.",
)
def many_agents(check: Check, rule: Rule) -> Iterator[Finding]:
    """Large teams get two levels."""
    for workflow in check.workflows():
        count = len(workflow.agents())
        if count >= MANY_AGENTS:
            yield rule.found(f"{count} agents stand in {workflow.workflow!r}", workflow.where("steps", key=True))


@rule(
    "TS107",
    "warning",
    "A limit is set beyond sane bounds",
    why="Limits end loops; one that is never reached ends nothing.",
    fix="Lower it to a few times what a normal run needs.",
)
def huge_limits(check: Check, rule: Rule) -> Iterator[Finding]:
    """Limits limit."""
    specs: list[tuple[str, Limits | LimitOverrides, Spec]]
    specs = [("the workspace", check.files.config.limits, check.files.config)]
    specs += [(workflow.workflow, workflow.limits, workflow) for workflow in check.workflows()]
    for what, limits, spec in specs:
        for name, sane in _SANE.items():
            value = getattr(limits, name)
            if value is not None and value > sane:
                yield rule.found(f"{what}: limits.{name} is {value} (sane: {sane})", spec.where("limits", name))


@rule(
    "TS108",
    "error",
    "A limit is lower than what the steps need",
    why="Even a run in which nothing goes wrong would end at the limit.",
    fix="Raise the limit, or lower the number of steps.",
)
def tight_limits(check: Check, rule: Rule) -> Iterator[Finding]:
    """A plain run fits its limits."""
    for workflow in check.workflows():
        turns = sum(_least_turns(step) for step in workflow.steps)
        limit = workflow.limits.over(check.files.config.limits).turns
        if turns > limit:
            said = f"{workflow.workflow!r} needs at least {turns} turns, and limits.turns is {limit}"
            yield rule.found(said, workflow.where("limits", "turns"))


def _least_turns(step: Step) -> int:
    below = [_least_turns(child) for child in step.children()]
    own = 1 if step.pattern == "agent" else 0
    if step.isolated:
        return own
    if step.order == "choice":
        return own + (min(below) if step.sure and below else 0)
    return own + sum(below)


@rule(
    "TS109",
    "warning",
    "Personal data come in, and no data subject is declared",
    why="What belongs to a person must be erasable when that person asks; without a subject it cannot be found.",
    fix="Add `subjects: [input.customer_id]` with the field that identifies the person.",
)
def no_subjects(check: Check, rule: Rule) -> Iterator[Finding]:
    """Whose data it is, is known."""
    for workflow in check.workflows():
        personal = sorted({name.removesuffix("?") for name in _field_names(workflow.input) if _PERSONAL.search(name)})
        if personal and not workflow.subjects:
            said = f"{workflow.workflow!r} takes {', '.join(personal)} and names no subjects"
            yield rule.found(said, workflow.where("input"))


def _field_names(fields: object) -> Iterator[str]:
    if isinstance(fields, dict):
        for name, inner in fields.items():
            yield str(name).removesuffix("?")
            yield from _field_names(inner)
    elif isinstance(fields, list) and len(fields) == 1:
        yield from _field_names(fields[0])


@rule(
    "TS110",
    "error",
    "A data subject is not taken from the input",
    why="Subjects are worked out when the run starts, before any step: only the input is there.",
    fix="Use a field of the input, for example `input.customer_id`.",
)
def late_subjects(check: Check, rule: Rule) -> Iterator[Finding]:
    """Subjects are known at the start."""
    for workflow in check.workflows():
        known = set(workflow.input_schema["properties"])
        for index, subject in enumerate(workflow.subjects):
            fields = {ref.path[1] for ref in subject.refs if ref.path[0] == "input" and len(ref.path) > 1}
            if subject.names != frozenset({"input"}) or subject.ambient or fields - known:
                mark = subject.mark or workflow.where("subjects", index)
                yield rule.found(f"the subject {str(subject.source)!r} is not a field of the input", mark)


@rule(
    "TS111",
    "warning",
    "Undo is declared and switched off",
    why="With `undo_on_failure: false` finished actions stay when a later step fails.",
    fix="Delete `undo_on_failure: false`, or write `undo: none` where that is meant.",
)
def undo_off(check: Check, rule: Rule) -> Iterator[Finding]:
    """What can be undone is undone."""
    for workflow in check.workflows():
        undone = [step for step in workflow.walk() if step.pattern == "action" and len(list(step.tools())) > 1]
        if undone and not workflow.undo_on_failure:
            said = f"{workflow.workflow!r} has {len(undone)} actions with an undo that never runs"
            yield rule.found(said, workflow.where("undo_on_failure"))


@rule(
    "TS112",
    "advice",
    "A purpose says next to nothing",
    why="The purpose is pinned in every turn as the objective, and it is what people read first.",
    fix="Say in one sentence for whom it does what.",
)
def empty_purpose(check: Check, rule: Rule) -> Iterator[Finding]:
    """Purposes are sentences."""
    for workflow in check.workflows():
        if len(workflow.purpose.split()) < 3:
            yield rule.found(f"the purpose of {workflow.workflow!r} is {workflow.purpose!r}", workflow.where("purpose"))


@rule(
    "TS113",
    "advice",
    "An input is never used",
    why="Data that nobody needs should not be collected.",
    fix="Delete the field, or declare it as an input of the agent that needs it.",
)
def unused_input(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every input is needed."""
    for workflow in check.workflows():
        used = _used_inputs(check, workflow)
        for name in workflow.input_schema["properties"]:
            if used is not None and name not in used:
                said = f"no step of {workflow.workflow!r} uses the input {name!r}"
                yield rule.found(said, workflow.where("input", name, key=True))


def _used_inputs(check: Check, workflow: WorkflowSpec) -> set[str] | None:
    """The input fields that something uses; None when all of them may be."""
    used = set[str]()
    found = [one for step in workflow.walk() for _, one in step.expressions()] + [
        one for _, one in workflow.expressions()
    ]
    for expression in (single for one in found for single in _single(one)):
        for ref in expression.refs:
            if ref.path[0] == "input":
                if len(ref.path) < 2:
                    return None
                used.add(ref.path[1])
    for step in workflow.walk():
        if any(True for _ in step.workflows()) and not any(name == "with" for name, _ in step.expressions()):
            return None
        for name in step.agents():
            spec = check.agent(name)
            if spec is None or not spec.input:
                return None
            used |= {field.removesuffix("?") for field in spec.input}
    return used


def _single(found: object) -> Iterator[Expression]:
    if isinstance(found, Expression):
        yield found
    elif isinstance(found, Values):
        yield from found.expressions()


@rule(
    "TS114",
    "warning",
    "Nothing checks what an action sends",
    why="A write that no checkpoint, checker or person stands before passes every mistake on to the outside.",
    fix="Put a checkpoint, a maker_checker, a vote or a review before the action.",
)
def unchecked_action(check: Check, rule: Rule) -> Iterator[Finding]:
    """Something stands between agents and the outside."""
    for place in check.places():
        if place.step.pattern == "action" and not _reads_only(check.tool(next(iter(place.step.tools()), ""))):
            earlier = [*place.step.before, *(one for above in place.above for one in above.before)]
            if not any(_checks(one) for one in earlier):
                tool = next(iter(place.step.tools()), "")
                yield rule.found(f"nothing is checked before {tool}", place.step.mark or place.workflow.where("steps"))


def _reads_only(spec: ToolSpec | None) -> bool:
    return spec is not None and spec.effect == "read"


def _checks(step: Step) -> bool:
    return any(one.pattern in ("checkpoint", "maker_checker", "review", "vote") for one in step.walk())


@rule(
    "TS115",
    "warning",
    "A time limit is longer than the run's",
    why="The run's own time ends first, so this limit never counts.",
    fix="Shorten `within`, or raise `seconds` in the workflow's budget.",
)
def long_within(check: Check, rule: Rule) -> Iterator[Finding]:
    """Deadlines shrink along the chain."""
    for place in check.places():
        step, seconds = place.step, place.workflow.budget.seconds
        if step.within is not None and seconds is not None and step.within > seconds and not _waits(check, place):
            said = f"{step.part} may take {step.within:g} s, and {place.workflow.workflow!r} has {seconds:g} s"
            yield rule.found(said, step.mark or place.workflow.where("steps"))


def _waits(check: Check, place: Place) -> bool:
    """Whether the step waits for people, which does not count into the run's time."""
    return any((spec := check.agent(name)) is not None and spec.kind == "human" for name in place.step.agents())


@rule(
    "TS116",
    "advice",
    "A workflow uses a system that its map does not list",
    why="A system that is used and not listed was not seen by those who approved the workflow.",
    fix="List every connector that the workflow's agents and actions use under `systems`.",
)
def unlisted_systems(check: Check, rule: Rule) -> Iterator[Finding]:
    """Every system that is used is listed."""
    for workflow in check.workflows():
        if not workflow.systems:
            continue
        tools = {*workflow.tools()}
        for name in workflow.agents():
            spec = check.agent(name)
            tools |= set(spec.tools) if spec is not None else set()
        listed = " ".join(str(plain(text)) for text in workflow.systems).lower()
        missing = sorted({tool.partition(".")[0] for tool in tools if tool.partition(".")[0].lower() not in listed})
        if missing:
            said = f"{workflow.workflow!r} uses {', '.join(missing)}, not listed under systems"
            yield rule.found(said, workflow.where("systems"))


@rule(
    "TS117",
    "error",
    "A schedule's input does not fit the workflow",
    why="Every start by the schedule would be refused, at a time when nobody watches.",
    fix="Give under `schedule: input:` what the workflow's `input` declares.",
)
def unfit_schedule(check: Check, rule: Rule) -> Iterator[Finding]:
    """What starts by itself starts with what it needs."""
    for workflow in check.workflows():
        if workflow.schedule is not None:
            try:
                check_input(workflow.input, dict(workflow.schedule.input), workflow.workflow)
            except InputRejected as error:
                yield rule.found(f"{workflow.workflow!r}: {error.message}", workflow.where("schedule", "input"))
