"""Another workflow as one step: a child run with its own budget and its own record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import model_validator

from tightship.core.errors import Unforeseen
from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.workflow.conditions import Values
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import WorkflowName, is_name

CHILD_INPUT = declare(
    "TS570",
    "error",
    "A workflow is started with an input that does not fit",
    why="The child run would be refused every time.",
    fix="Give its declared fields in `with`, and no others.",
)
CHILD_BUDGET = declare(
    "TS571",
    "warning",
    "A child workflow may cost more than its parent has",
    why="The parent's envelope covers the child: it would stop the child in the middle.",
    fix="Raise the parent's budget, or lower the child's.",
)
CHILD_DEPTH = declare(
    "TS572",
    "error",
    "Workflows nest deeper than the limit",
    why="The run would end at its limit every time.",
    fix="Flatten the workflows, or raise limits.depth.",
)

TAKES_ALL = declare(
    "TS573",
    "advice",
    "A party that escalates takes the whole run with it",
    why="The parties are sovereign: what one of them leaves to its own people need not stop the others.",
    fix="Say in `escalated` what the run goes on with: `escalated: {answer: '\"our team will write\"'}`.",
)


@patterns.register("workflow")
class WorkflowStep(Step):
    """`workflow: NAME` with `with: {…}`; without it the child gets this run's input. Its output is bound to the
    workflow's name (with `_` for `-`), or to `name`. A child that escalates leaves the case to its own people; with
    `escalated: {…}` this run goes on with those values, without it this run ends as well."""

    short = "workflow"

    workflow: WorkflowName
    with_: Values | None = None
    escalated: Values | None = None

    def __init__(self, workflow: Any = None, /, **fields: Any) -> None:
        """The workflow's name first, or as `workflow=`."""
        super().__init__(**({} if workflow is None else {"workflow": workflow}), **fields)

    @model_validator(mode="before")
    @classmethod
    def _named_like_the_workflow(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("name") is None:
            name = str(data.get("workflow")).replace("-", "_")
            return {**data, "name": name} if is_name(name) else data
        return data

    def workflows(self) -> Iterator[str]:
        """The child."""
        yield self.workflow

    def describe(self) -> str:
        """In words."""
        return f"workflow **{self.workflow}** as a run of its own"

    def conduct(self) -> list[str]:
        """What happens when it goes wrong."""
        goes_on = ["the child escalates: its own people have the case, and this run goes on"]
        return [*super().conduct(), *(goes_on if self.escalated is not None else [])]

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        child = context.check.files.workflows.get(self.workflow)
        if child is None:
            return
        given = set(context.workflow.input_schema["properties"])
        if self.with_ is not None:
            given = set(self.with_.entries)
        if self.with_ is None or self.with_.whole is None:
            schema = child.input_schema
            missing = [name for name in schema["required"] if name not in given]
            extra = sorted(given - set(schema["properties"]))
            said = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{', '.join(extra)} not declared"] * bool(
                extra
            )
            if said:
                yield CHILD_INPUT.found(f"the input of {self.workflow!r}: {'; '.join(said)}", context.mark("with"))
        own, theirs = context.workflow.budget, child.budget
        for unit in ("usd", "tokens", "seconds", "calls"):
            mine, other = getattr(own, unit), getattr(theirs, unit)
            if mine is not None and other is not None and other > mine:
                yield CHILD_BUDGET.found(
                    f"{self.workflow!r} may use more {unit} than {context.workflow.workflow!r} has", context.mark()
                )
        if context.workflow.need.sovereignty and self.escalated is None:
            yield TAKES_ALL.found(f"nothing is said for when {self.workflow!r} escalates", context.mark())
        limit = context.workflow.limits.over(context.check.files.config.limits).depth
        depth = _depth(context, self.workflow, frozenset())
        if depth > limit:
            yield CHILD_DEPTH.found(f"{depth} levels, and the limit is {limit}", context.mark())

    async def execute(self, frame: Frame) -> Json:
        """Start the child and wait for its output."""
        give = dict(frame.run.input) if self.with_ is None else await frame.evaluate(self.with_)
        try:
            return await frame.child(self.workflow, give)
        except Unforeseen as error:
            if self.escalated is None or error.evidence.get("outcome") != "escalated":
                raise
            await frame.note("child.escalated", step=self.workflow, child=error.evidence.get("child"))
            return await frame.evaluate(self.escalated)


def _depth(context: StepCheck, name: str, above: frozenset[str]) -> int:
    """How many workflows stand below each other from this one on."""
    spec = context.check.files.workflows.get(name)
    if spec is None or name in above:
        return 0
    return 1 + max((_depth(context, child, above | {name}) for child in spec.children()), default=0)
