"""Steps one after the other (P1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.workflow.steps import Children
from tightship.workflow.tree import Step, patterns


@patterns.register("sequence")
class Sequence(Step):
    """`sequence: [a, b, …]`: each step sees what those before it bound.

    Its output is that of the last step that has one to hand on (not a checkpoint's or a review's).
    """

    short = "steps"

    steps: Children

    def __init__(self, *steps: Any, **fields: Any) -> None:
        """Steps as arguments, or as `steps=[…]`."""
        super().__init__(**({"steps": list(steps)} if steps else {}), **fields)

    @property
    def result(self) -> str | None:
        """The name of its last output."""
        return self.name or next((one.result for one in reversed(self.steps) if one.hands_on), None)

    def children(self) -> Iterator[Step]:
        """The steps."""
        return iter(self.steps)

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """The schema of the last output."""
        return next((one.gives(context) for one in reversed(self.steps) if one.hands_on), None)

    def describe(self) -> str:
        """In words."""
        return "one step" if len(self.steps) == 1 else f"{len(self.steps)} steps, one after the other"

    async def execute(self, frame: Frame) -> Json:
        """Run them in order."""
        output: Json = None
        for step in self.steps:
            found = await frame.step(step)
            if step.hands_on:
                output = found
        return output
