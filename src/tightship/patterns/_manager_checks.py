"""What may be wrong with a manager as it is declared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tightship.patterns._settle import settle_findings
from tightship.patterns._shared import takes_turns
from tightship.workflow.models import Limits
from tightship.workflow.readiness import Finding, StepCheck, declare

if TYPE_CHECKING:
    from tightship.patterns.manager import Manager

NO_TASKS = declare(
    "TS640",
    "error",
    "A planner declares no tasks",
    why="The manager reads the plan from the field `tasks`; without it every plan is rejected.",
    fix="Declare `output: {tasks: list}` on the planner.",
)
NO_DEADLINE = declare(
    "TS641",
    "warning",
    "A manager has no deadline",
    why="A planner or a worker that hangs holds up everything that was delegated.",
    fix="Add `within`, and `fallback` for what happens then.",
)
WIDE_PLAN = declare(
    "TS642",
    "error",
    "A plan may have more tasks than the limit of branches",
    why="The run would end at its limit whenever the planner uses what it is allowed.",
    fix="Lower `max_tasks`, or raise limits.branches.",
)
NO_FALLBACK = declare(
    "TS643",
    "advice",
    "Nothing stands in for the manager",
    why="A plan that is poor twice, or late, goes to a person with what was done until then.",
    fix="Add `fallback`: simpler steps that always work, for example one agent that does it alone.",
)
OWN_WORKER = declare(
    "TS644",
    "error",
    "A planner delegates to itself",
    why="It judges by its own plan what it did; and nothing keeps it from planning for ever.",
    fix="Let other agents do the sub-tasks.",
)
NOT_TYPED = declare(
    "TS645",
    "warning",
    "A worker says nothing of what it has to be given",
    why="The planner invents the input, and nobody notices before the worker fails.",
    fix="Declare it: `workers: {search: {do: searcher, input: {question: str}}}`.",
)

MANY_TURNS = declare(
    "TS646",
    "error",
    "A plan may need more turns than the limit",
    why="The run would end at its limit whenever the planner uses what it is allowed.",
    fix="Lower `max_tasks`, or raise limits.turns.",
)
MANY_REQUESTS = declare(
    "TS647",
    "advice",
    "Supervisors may ask more together than one request may",
    why="`limits.requests` counts the run and all runs below it: reaching it stops every supervisor, not one.",
    fix="Give the child workflows `budget: {calls: …}`, lower `max_tasks`, or raise limits.requests.",
)


def manager_findings(step: Manager, context: StepCheck) -> Iterable[Finding]:
    """What may be wrong with a manager where it stands."""
    schema = step.plan.gives(context.check)
    if schema is not None and "tasks" not in schema.get("properties", {}):
        yield NO_TASKS.found(f"the output of {step.plan.part!r} has no field 'tasks'", context.mark("plan"))
    if step.deadline is None:
        yield NO_DEADLINE.found("nothing says when it is late", context.mark())
    limits = context.workflow.limits.over(context.check.files.config.limits)
    if step.max_tasks > limits.branches:
        said = f"up to {step.max_tasks} tasks, and the limit is {limits.branches} branches"
        yield WIDE_PLAN.found(said, context.mark("max_tasks"))
    yield from _size_findings(step, context, limits)
    if step.fallback is None:
        yield NO_FALLBACK.found("there is no `fallback`", context.mark())
    planners = {spec.agent for spec in context.agents_below(step.plan)}
    for name, worker in step.workers.items():
        own = sorted(planners & {spec.agent for spec in context.agents_below(worker.do)})
        if own:
            yield OWN_WORKER.found(f"{own[0]!r} plans, and works as {name!r}", context.mark("workers"))
        if worker.input is None:
            yield NOT_TYPED.found(f"{name!r} declares no input", context.mark("workers"))
    if step.answers > 1:
        yield from settle_findings(step.settle, (), [one.do for one in step.workers.values()], context)


def _size_findings(step: Manager, context: StepCheck, limits: Limits) -> Iterable[Finding]:
    """Whether the largest plan fits into the run's limits, and the child runs of its tasks into the request's."""
    work = [worker.do for worker in step.workers.values()]
    if any(takes_turns(one) for one in work) and step.max_tasks + 1 > limits.turns:
        said = f"up to {step.max_tasks} tasks and the planner, and the limit is {limits.turns} turns"
        yield MANY_TURNS.found(said, context.mark("max_tasks"))
    workflows = context.check.files.workflows
    below = [workflows[name] for each in work for one in each.walk() for name in one.workflows() if name in workflows]
    calls = [
        min(spec.budget.calls or limits.requests, spec.limits.over(context.check.files.config.limits).calls)
        for spec in below
    ]
    most = step.max_tasks * max(calls, default=0)
    if most > limits.requests:
        said = f"up to {step.max_tasks} child runs of {max(calls)} calls each, and the limit is {limits.requests}"
        yield MANY_REQUESTS.found(said, context.mark("workers"))
