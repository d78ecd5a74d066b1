"""Readiness rules that hold how a workflow is built against what it says that its work is like (`need:`, P11).

Each advises a pattern for a need, or against one that the need does not justify.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightship.workflow.models import WorkflowSpec
from tightship.workflow.readiness import Check, Finding, Rule, rule
from tightship.workflow.source import Mark
from tightship.workflow.tree import Step

_FREE = ("handoff", "peers", "manager")
"""Patterns in which agents decide what comes next."""
_SIDE_BY_SIDE = ("concurrent", "foreach", "manager", "peers", "vote")
_FOUR_EYES = ("maker_checker", "review", "vote")
_DEAR = ("manager", "peers", "vote")
"""Patterns that take turns which nobody would need who did the work alone, in every run."""


def _of(workflow: WorkflowSpec, *words: str) -> list[Step]:
    return [step for step in workflow.walk() if step.pattern in words]


def _at(workflow: WorkflowSpec, step: Step | None, *field: str) -> Mark | None:
    return (step.mark if step is not None else None) or workflow.where("need", *field)


@rule(
    "TS120",
    "warning",
    "Agents decide what comes next where the order is fixed",
    why="Deciding costs turns and can go wrong; steps in their order cost nothing and cannot.",
    fix="Write the steps one after the other, independent ones in `concurrent`; or say `need: {order: free}`.",
)
def free_pattern_for_fixed_order(check: Check, rule: Rule) -> Iterator[Finding]:
    """A fixed order needs nobody who decides it."""
    for workflow in check.workflows():
        if workflow.need.order == "fixed":
            for step in _of(workflow, *_FREE):
                said = f"the order of {workflow.workflow!r} is fixed, and a {step.pattern} decides it anew in every run"
                yield rule.found(said, _at(workflow, step, "order"))


@rule(
    "TS121",
    "advice",
    "The order is free, and the steps stand in one",
    why="What is not needed is done all the same, and what the content needs next has no place.",
    fix="Let `handoff` route by content; where the parts are known only when the work is there, let a `manager` plan.",
)
def fixed_steps_for_free_order(check: Check, rule: Rule) -> Iterator[Finding]:
    """A free order needs somebody who decides it."""
    for workflow in check.workflows():
        if workflow.need.order == "free" and not _of(workflow, *_FREE, "when", "workflow"):
            advised = "manager" if workflow.need.complexity == "high" else "handoff"
            said = f"the order of {workflow.workflow!r} is free, and nothing in it chooses; a {advised} would"
            yield rule.found(said, _at(workflow, None, "order"))


@rule(
    "TS122",
    "advice",
    "Independent parts wait for each other",
    why="What does not need each other's results is done sooner side by side.",
    fix="Put the parts into `concurrent`, or `foreach` where they are alike.",
)
def independent_in_sequence(check: Check, rule: Rule) -> Iterator[Finding]:
    """Independent parts run side by side."""
    for workflow in check.workflows():
        if workflow.need.independent and len(workflow.agents()) > 1 and not _of(workflow, *_SIDE_BY_SIDE):
            said = f"the parts of {workflow.workflow!r} are independent, and nothing runs side by side"
            yield rule.found(said, _at(workflow, None, "independent"))


@rule(
    "TS123",
    "warning",
    "More is planned and discussed than simple work needs",
    why="Whoever plans, or talks with peers, takes turns, tokens and time before anything is done.",
    fix="Let one agent do it, or write its steps down; or say `need: {complexity: high}`.",
)
def coordination_for_simple_work(check: Check, rule: Rule) -> Iterator[Finding]:
    """Simple work needs no plan."""
    for workflow in check.workflows():
        if workflow.need.complexity == "low":
            for step in _of(workflow, "manager", "peers"):
                said = f"the work of {workflow.workflow!r} is simple, and a {step.pattern} stands in it"
                yield rule.found(said, _at(workflow, step, "complexity"))


@rule(
    "TS124",
    "advice",
    "One agent has to see through work that is complex",
    why="What nobody can list beforehand has to be taken apart first; one agent loses sight of half of it.",
    fix="Let a `manager` plan it and delegate, or give each domain a workflow of its own.",
)
def one_agent_for_complex_work(check: Check, rule: Rule) -> Iterator[Finding]:
    """Complex work is taken apart."""
    for workflow in check.workflows():
        alone = len(workflow.agents()) == 1 and not workflow.children()
        if workflow.need.complexity == "high" and alone:
            said = f"the work of {workflow.workflow!r} is complex, and {workflow.agents()[0]!r} does all of it"
            yield rule.found(said, _at(workflow, None, "complexity"))


@rule(
    "TS125",
    "warning",
    "Regulated work goes out with nobody else having seen it",
    why="Rules that ask for four eyes are not kept by one agent, however good it is.",
    fix="Put a `maker_checker` of different identities, a `vote` of them, or a `review` by a person before the action.",
)
def no_four_eyes(check: Check, rule: Rule) -> Iterator[Finding]:
    """Regulated writes have four eyes."""
    for workflow in check.workflows():
        if not workflow.need.regulated:
            continue
        for place in check.names(workflow).places:
            if place.step.pattern != "action" or _reads(check, place.step):
                continue
            earlier = [*place.step.before, *(one for above in place.above for one in above.before)]
            if not any(step.pattern in _FOUR_EYES for one in earlier for step in one.walk()):
                tool = next(iter(place.step.tools()), "")
                said = f"{workflow.workflow!r} is regulated, and nobody but the maker sees what {tool} is given"
                yield rule.found(said, _at(workflow, place.step, "regulated"))


def _reads(check: Check, step: Step) -> bool:
    spec = check.tool(next(iter(step.tools()), ""))
    return spec is not None and spec.effect == "read"


@rule(
    "TS128",
    "advice",
    "Regulated work may be checked by whoever has set it going",
    why="Four eyes are those of two people; whoever starts a run, or edits what is in it, may hold the role as well.",
    fix="Say `four_eyes: true`: then none of them decides its reviews, its checkers' questions and its votes.",
)
def open_four_eyes(check: Check, rule: Rule) -> Iterator[Finding]:
    """Regulated work that people check declares four eyes."""
    for workflow in check.workflows():
        decided = any(True for step in workflow.walk() for _ in step.roles())
        if workflow.need.regulated and not workflow.four_eyes and decided:
            said = f"{workflow.workflow!r} is regulated, and whoever has started a run may decide its reviews"
            yield rule.found(said, _at(workflow, None, "regulated"))


@rule(
    "TS129",
    "warning",
    "Four eyes are declared, and a role has one person",
    why="What that person has set going, or had a hand in, nobody could decide: it waits until its time is over.",
    fix="Name a second person of the role in tightship.yaml.",
)
def two_eyes(check: Check, rule: Rule) -> Iterator[Finding]:
    """Under four eyes two people at least hold each role that decides."""
    for workflow in check.workflows():
        for role in dict.fromkeys(name for step in workflow.walk() for name in step.roles()):
            people = check.files.config.roles.get(role, ())
            if workflow.four_eyes and len(people) == 1 and "*" not in people:
                said = f"{people[0]} alone is {role} in {workflow.workflow!r}"
                yield rule.found(said, workflow.where("four_eyes"))


@rule(
    "TS126",
    "advice",
    "Sovereign parties share one workflow",
    why="Who decides for itself over its data and its money needs a budget, an escalation and a record of its own.",
    fix="Give each party a workflow, and start it with `workflow:`, or as a receiver of a `handoff` with `as`.",
)
def shared_workflow_for_sovereign_parties(check: Check, rule: Rule) -> Iterator[Finding]:
    """Sovereign parties have two levels."""
    for workflow in check.workflows():
        if workflow.need.sovereignty and not workflow.children():
            said = f"the parties of {workflow.workflow!r} are sovereign, and it starts no workflow of any of them"
            yield rule.found(said, _at(workflow, None, "sovereignty"))


@rule(
    "TS127",
    "advice",
    "Coordination is paid in every one of many runs",
    why="What a plan, a vote or a talk costs is multiplied by the volume; it pays where the work is complex.",
    fix="Write the steps down for the usual case, and keep the dear pattern behind a `when` for the others.",
)
def dear_pattern_for_volume(check: Check, rule: Rule) -> Iterator[Finding]:
    """Volume is done cheaply."""
    for workflow in check.workflows():
        need = workflow.need
        if need.volume == "high" and need.complexity != "high" and not need.regulated:
            for place in check.names(workflow).places:
                guarded = any(one.pattern == "when" for one in place.above)
                if place.step.pattern in _DEAR and not guarded:
                    said = f"{workflow.workflow!r} runs often, and each run pays for a {place.step.pattern}"
                    yield rule.found(said, _at(workflow, place.step, "volume"))
