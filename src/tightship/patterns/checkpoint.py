"""A validation checkpoint between stages (P1): bad output never passes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from tightship.core.errors import CheckpointFailed, DataMissing, FormatMismatch, RunFailed
from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.patterns._shared import feedback, takes_turns
from tightship.workflow.conditions import Condition
from tightship.workflow.models import Text
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import Name

NOTHING_TO_REDO = declare(
    "TS510",
    "warning",
    "A checkpoint that redoes has nothing to redo",
    why="Without a step of an agent before it in the same sequence, a failed checkpoint can only escalate.",
    fix="Put it behind the step it checks, or write `otherwise: escalate`.",
)
CANNOT_FAIL = declare(
    "TS511",
    "error",
    "A checkpoint cannot fail",
    why="Its condition looks at nothing that the run produces, so it lets everything pass.",
    fix='Let the condition look at an output, for example `triage.topic != ""`.',
)
REDO_REPEATS = declare(
    "TS512",
    "error",
    "Redoing would repeat an action or a review",
    why="The steps from the one that is redone to the checkpoint run again; a write would be made twice.",
    fix="Put the checkpoint before the action, or name a later step in `redo`.",
)
UNKNOWN_REDO = declare(
    "TS513",
    "error",
    "A checkpoint redoes a step that is not before it",
    why="Only steps earlier in the same sequence can be done again.",
    fix="Name a step that stands before the checkpoint in the same list.",
)


@patterns.register("checkpoint")
class Checkpoint(Step):
    """`checkpoint: CONDITION` or `checkpoint: {that: CONDITION, otherwise: redo|escalate|fail, redo: STEP, times: 1}`.

    When the condition does not hold (or cannot be evaluated), `otherwise` counts: `redo` does the steps from `redo` (by
    default the nearest one with an agent) up to here again, with the reason as feedback, `times` times, then escalates.
    """

    short = "that"
    hands_on = False

    that: Condition
    otherwise: Literal["redo", "escalate", "fail"] = "redo"
    redo: Name | None = None
    times: int = Field(default=1, ge=1, le=10)
    reason: Text | None = None
    """What a person or an agent is told when it fails; by default the condition itself."""

    def __init__(self, that: Any = None, /, **fields: Any) -> None:
        """The condition first, or as `that=`."""
        super().__init__(**({} if that is None else {"that": that}), **fields)

    def again(self) -> tuple[Step, ...]:
        """The steps that are done again: from the target up to the checkpoint."""
        for index in range(len(self.before) - 1, -1, -1):
            step = self.before[index]
            found = takes_turns(step) if self.redo is None else self.redo in (step.name, step.part)
            if found:
                return self.before[index:]
        return ()

    def describe(self) -> str:
        """In words."""
        target = self.again()[:1]
        then = (
            f"redo {target[0].part} ({self.times}x), then escalate"
            if self.otherwise == "redo" and target
            else "escalate"
        )
        return f"validation: `{self.that.source}`; otherwise {'fail' if self.otherwise == 'fail' else then}"

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        if not self.that.names and not self.that.ambient:
            yield CANNOT_FAIL.found(f"the condition {self.that.source!r} is always the same", context.mark("that"))
        if self.redo is not None and not self.again():
            yield UNKNOWN_REDO.found(f"no earlier step is called {self.redo!r}", context.mark("redo"))
        elif self.otherwise == "redo":
            yield from self._redo_findings(context)

    def _redo_findings(self, context: StepCheck) -> Iterable[Finding]:
        again = self.again()
        if not again:
            yield NOTHING_TO_REDO.found("there is no step of an agent before this checkpoint", context.mark())
        repeated = [
            one.part for step in again for one in step.walk() if one.pattern in ("action", "review", "workflow")
        ]
        if repeated:
            said = f"redoing from {again[0].part!r} would repeat {', '.join(repeated)}"
            yield REDO_REPEATS.found(said, context.mark())

    async def execute(self, frame: Frame) -> Json:
        """Let pass, redo, escalate or fail."""
        reason = await self._why_not(frame)
        if reason is None:
            return None
        reasons, again = [reason], self.again() if self.otherwise == "redo" else ()
        await frame.note("checkpoint.failed", reason=reason, attempt=0, **_again(bool(again)))
        if self.otherwise == "fail":
            raise RunFailed(f"a checkpoint failed: {reason}", where=self._place())
        for attempt in range(1, self.times + 1 if again else 1):
            inner = frame.at(f"redo-{attempt}")
            with feedback(inner, reasons):
                for step in again:
                    await inner.step(step)
            found = await self._why_not(inner)
            if found is None:
                return None
            await inner.note("checkpoint.failed", reason=found, attempt=attempt, **_again(attempt < self.times))
            reasons.append(found)
        tried = f" after {len(reasons) - 1} redo" if len(reasons) > 1 else ""
        raise CheckpointFailed(
            f"a checkpoint failed{tried}: {reasons[-1]}",
            needed=self.reason or f"an output for which {self.that.source!r} holds",
            evidence={
                "condition": str(self.that.source),
                "values": self.that.values(frame.scope.names),
                "tried": reasons,
            },
            where=self._place(),
        )

    async def _why_not(self, frame: Frame) -> str | None:
        """None when the condition holds, else why the output does not pass."""
        try:
            holds = await frame.evaluate(self.that)
        except (DataMissing, FormatMismatch) as error:
            return error.message
        return None if holds else self.reason or f"{self.that.source!r} does not hold"

    def _place(self) -> str | None:
        return None if self.mark is None else str(self.mark)


def _again(more: bool) -> dict[str, Json]:
    """Says that a redo follows, which counts as a retry."""
    return {"again": True} if more else {}
