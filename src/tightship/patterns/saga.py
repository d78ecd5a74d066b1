"""Actions that stand or fall together (P10): when one fails for good, the others are undone in reverse order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from tightship.core.errors import BoundaryError, LimitReached, RunFailed, WorkException
from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.patterns._shared import error_data
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.source import plain
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step, TimedStep, UndoRetry, patterns

NOTHING_TO_UNDO = declare(
    "TS630",
    "warning",
    "A saga holds nothing that could be undone",
    why="It only undoes actions and child workflows; around anything else it does nothing.",
    fix="Put the actions that stand or fall together into it, or write the steps directly.",
)
GIVES_NOTHING = declare(
    "TS631",
    "warning",
    "A saga that goes on says nothing of its failure",
    why="The steps after it cannot tell whether its actions stand.",
    fix="Add `give`, for example `give: {done: false}`, and look at it in a `when`.",
)


@patterns.register("saga")
class Saga(TimedStep):
    """`saga: {steps: […], then: escalate|fail|continue, give: …, undo_retry: {times: 2, after: 1s}}`.

    When a step fails and no behaviour on the way has made it good, or its time is over (`within`), what was done in the
    saga is undone: actions in reverse order of settling, child workflows' too. What cannot be undone goes to the inbox.
    Then the failure goes on to whatever stands around (`escalate`: an outer saga, a behaviour, a person), ends the run
    (`fail`), or the run goes on with `give` as the saga's output (`continue`).
    """

    short = "steps"
    record = True

    steps: Block
    then: Literal["escalate", "fail", "continue"] = "escalate"
    give: Annotated[Any, BeforeValidator(plain)] = None
    undo_retry: UndoRetry = UndoRetry()

    def __init__(self, *steps: Any, **fields: Any) -> None:
        """Steps as arguments, or as `steps=[…]`."""
        super().__init__(**({"steps": list(steps)} if steps else {}), **fields)

    @property
    def result(self) -> str | None:
        """The name of its last output."""
        return self.name or self.steps.result

    @property
    def sure(self) -> bool:
        """With `continue`, a failed saga binds nothing inside."""
        return self.then != "continue"

    def children(self) -> Iterator[Step]:
        """What stands or falls together."""
        yield self.steps

    def labels(self) -> Iterator[str]:
        """The part of its steps."""
        yield "steps"

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """The schema of the last output, where nothing stands in for it."""
        return self.steps.gives(context) if self.then != "continue" else None

    def describe(self) -> str:
        """In words."""
        ends = {
            "escalate": "the failure goes on",
            "fail": "the run fails",
            "continue": f"it goes on with `{self.give}`",
        }
        return f"all or nothing: when a step fails, what was done is undone in reverse order, and {ends[self.then]}"

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        inside = list(self.steps.walk())
        if not any(one.pattern in ("action", "workflow") for one in inside) and not any(
            agent.tools for agent in context.agents_below(self.steps)
        ):
            yield NOTHING_TO_UNDO.found(
                "no action, no child workflow and no agent with tools stands in it", context.mark()
            )
        if self.then == "continue" and self.give is None:
            yield GIVES_NOTHING.found("`then: continue` without `give`", context.mark("then"))

    async def execute(self, frame: Frame) -> Json:
        """Do it, or take it back."""
        error = await frame.all_or_nothing(self.undo_retry)
        if error is None:
            before = dict(frame.scope.names)
            try:
                return await self._forward(frame)
            except (WorkException, BoundaryError, LimitReached) as failed:
                error = failed
            frame.scope.names.clear()  # a replay does not walk through it again, and binds nothing either
            frame.scope.names.update(before)
        residual = await frame.take_back(error, self.undo_retry)
        await frame.note("saga.undone", step=self.part, residual=len(residual), **error_data(error))
        if not isinstance(error, WorkException):
            raise error  # what went beyond its bounds is nobody's to go on from
        if self.then == "continue":
            return self.give
        if self.then == "fail":
            raise RunFailed(f"{self.part}: {error.message}; what was done in it was undone")
        raise error

    async def _forward(self, frame: Frame) -> Json:
        if self.deadline is None:
            return await frame.step(self.steps)
        return await frame.bounded(self.deadline, self.part, lambda: frame.step(self.steps))
