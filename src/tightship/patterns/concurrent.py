"""Independent branches side by side (P2), joined by a declared merge; a failed branch ends by rule."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Literal

from tightship.core.ports import Json
from tightship.effects.frame import Branch, Frame
from tightship.patterns._shared import branch_failure, error_data, written_with
from tightship.workflow.conditions import Expression
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.steps import Children
from tightship.workflow.tree import Step, patterns

SAME_WRITE = declare(
    "TS520",
    "error",
    "Branches side by side write with the same tool",
    why="Their order is not defined: two writes may overtake or overwrite each other.",
    fix="Let one step after the join do the write, or put the branches one after the other.",
)
ONE_BRANCH = declare(
    "TS521",
    "advice",
    "Only one branch stands in a concurrent step",
    why="One branch has nothing to run beside.",
    fix="Write the step directly.",
)
TOO_MANY = declare(
    "TS522",
    "error",
    "More branches than the limit allows",
    why="The run would end at its limit every time.",
    fix="Raise limits.branches, or split the step.",
)


def run_step(step: Step) -> Callable[[Frame], Awaitable[Json]]:
    """The work of a branch that runs one step."""

    async def work(frame: Frame) -> Json:
        return await frame.step(step)

    return work


@patterns.register("concurrent")
class Concurrent(Step):
    """`concurrent: [a, b]` or `concurrent: {branches: […], on_failure: end|escalate|keep, merge: EXPRESSION}`.

    `on_failure`: `end` (default) ends the other branches at once and escalates with what is finished; `escalate` lets
    them finish first; `keep` goes on with what is there, unless nothing is. The output is the value of `merge`, or an
    object of the branches' outputs.
    """

    short = "branches"
    order = "parallel"

    branches: Children
    on_failure: Literal["end", "escalate", "keep"] = "end"
    merge: Expression | None = None

    def __init__(self, *branches: Any, **fields: Any) -> None:
        """Branches as arguments, or as `branches=[…]`."""
        super().__init__(**({"branches": list(branches)} if branches else {}), **fields)

    def children(self) -> Iterator[Step]:
        """The branches."""
        return iter(self.branches)

    def once(self) -> Iterator[tuple[str, Step]]:
        """Each branch under its number."""
        return ((f"{number}/{step.part}", step) for number, step in enumerate(self.branches, 1))

    def labels(self) -> Iterator[str]:
        """What each branch is called: its own name, or its last output's."""
        return (one.name or one.result or one.pattern for one in self.branches)

    def uses_after(self) -> frozenset[str]:
        """The merge sees what the branches bound."""
        return frozenset({"merge"})

    @property
    def sure(self) -> bool:
        """With `keep`, a failed branch binds nothing."""
        return self.on_failure != "keep"

    def describe(self) -> str:
        """In words."""
        rule = {
            "end": "a failed branch ends the others and escalates with what is finished",
            "escalate": "all finish; a failed branch escalates with what is finished",
            "keep": "all finish; failed branches are left out",
        }[self.on_failure]
        merged = f"; joined as `{self.merge.source}`" if self.merge is not None else ""
        return f"{len(self.branches)} branches side by side: {', '.join(self.labels())}; {rule}{merged}"

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        if len(self.branches) == 1:
            yield ONE_BRANCH.found("there is nothing beside the only branch", context.mark())
        limits = context.workflow.limits.over(context.check.files.config.limits)
        if len(self.branches) > limits.branches:
            said = f"{len(self.branches)} branches, and the limit is {limits.branches}"
            yield TOO_MANY.found(said, context.mark())
        yield from self._same_writes(context)

    def _same_writes(self, context: StepCheck) -> Iterable[Finding]:
        users = dict[str, list[str]]()
        for label, branch in zip(self.labels(), self.branches, strict=True):
            for tool in sorted(written_with(branch, context)):
                users.setdefault(tool, []).append(label)
        for tool, labels in users.items():
            if len(labels) > 1:
                yield SAME_WRITE.found(f"{' and '.join(labels)} may both call {tool}", context.mark())

    async def execute(self, frame: Frame) -> Json:
        """Fork, wait, join."""
        labels = [child.part for child in self.branches]
        branches = [Branch(str(index), run_step(step)) for index, step in enumerate(self.branches, 1)]
        results = await frame.fork(branches, "end" if self.on_failure == "end" else "keep")
        labelled = list(zip(labels, results, strict=True))
        outputs = {label: one.value for label, one in labelled if one.error is None and not one.ended}
        failed = [(label, one.error) for label, one in labelled if one.error is not None]
        if failed and (self.on_failure != "keep" or not outputs):
            raise branch_failure("concurrent", labelled, outputs)
        for label, error in failed:
            assert error is not None
            await frame.at(label).note("branch.failed", branch=label, **error_data(error))
        return outputs if self.merge is None else await frame.evaluate(self.merge)
