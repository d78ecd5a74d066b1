"""A decision point: one of several ways, by condition or by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, model_validator

from tightship.core.errors import OutOfScope
from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.workflow.conditions import Condition, Expression
from tightship.workflow.names import schema_at
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.spec import KEYWORD_FIELDS
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step, patterns

ALWAYS = declare(
    "TS540",
    "warning",
    "A decision is always the same",
    why="The condition looks at nothing that the run produces, so one of the ways is never taken.",
    fix="Let it look at an output, or delete the way that is never taken.",
)
UNKNOWN_CASE = declare(
    "TS541",
    "error",
    "A case can never be the value",
    why="The value's declared type does not allow it: these steps would never run.",
    fix="Use one of the declared values.",
)
MISSING_CASES = declare(
    "TS542",
    "warning",
    "A value has no case and there is no `else`",
    why="A run with that value is escalated as out of scope.",
    fix="Add the case, or an `else`.",
)


class Case(BaseModel):
    """One way of several: its condition and its steps."""

    model_config = KEYWORD_FIELDS

    if_: Condition
    then: Block


@patterns.register("when")
class When(Step):
    """A decision, in one of three forms:

    - `when: {if: CONDITION, then: [steps], else: [steps]}`
    - `when: {cases: [{if: CONDITION, then: [steps]}, …], else: [steps]}`: the first that holds
    - `when: {switch: EXPRESSION, is: {VALUE: [steps], …}, else: [steps]}`: by value

    A switch without a matching case and without `else` is out of scope (E4). The output is that of the way taken, or
    null when none is.
    """

    order = "choice"

    if_: Condition | None = None
    then: Block | None = None
    cases: tuple[Case, ...] = ()
    switch: Expression | None = None
    is_: Mapping[str, Block] = {}
    else_: Block | None = None

    @model_validator(mode="after")
    def _one_form(self) -> When:
        forms = [self.if_ is not None, bool(self.cases), self.switch is not None]
        if sum(forms) != 1:
            raise ValueError("a decision has exactly one of `if`, `cases` and `switch`; keep one")
        if (self.if_ is None) != (self.then is None):
            raise ValueError("`if` and `then` belong together; write both")
        if (self.switch is None) == bool(self.is_):
            raise ValueError("`switch` and `is` belong together; write both")
        return self

    def ways(self) -> list[tuple[str, Step]]:
        """Every way, with its label in the key."""
        found = list[tuple[str, Step]]()
        if self.then is not None:
            found.append(("then", self.then))
        found += [(f"case-{number}", case.then) for number, case in enumerate(self.cases, 1)]
        found += [(f"is-{value}", step) for value, step in self.is_.items()]
        if self.else_ is not None:
            found.append(("else", self.else_))
        return found

    def children(self) -> Iterator[Step]:
        """The first step of every way."""
        return (step for _, step in self.ways())

    def labels(self) -> Iterator[str]:
        """The ways."""
        return (label for label, _ in self.ways())

    @property
    def sure(self) -> bool:
        """Without `else` it may be that nothing runs; a switch without a match ends the run."""
        return self.else_ is not None or self.switch is not None

    @property
    def result(self) -> str | None:
        """Its own name, or what all ways call their output."""
        names = {step.result for step in self.children()}
        return self.name or (names.pop() if len(names) == 1 and self.else_ is not None else None)

    def describe(self) -> str:
        """In words."""
        if self.if_ is not None:
            return f"decision: `{self.if_.source}`" + ("" if self.else_ is not None else "; otherwise nothing")
        if self.switch is not None:
            return f"decision by `{self.switch.source}`: {', '.join(self.is_)}"
        return "decision: " + "; ".join(f"`{case.if_.source}`" for case in self.cases)

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        for condition in [self.if_, *(case.if_ for case in self.cases), self.switch]:
            if condition is not None and not condition.names and not condition.ambient:
                yield ALWAYS.found(f"{condition.source!r} is always the same", condition.mark or context.mark())
        if self.switch is None or len(self.switch.refs) != 1 or not self.switch.refs[0].exact:
            return
        root, *path = self.switch.refs[0].path
        schema, _ = schema_at(context.check.schema(context.place, root), tuple(path))
        if schema is None or "enum" not in schema:
            return
        allowed = [_case_text(value) for value in schema["enum"] if value is not None]
        for value in self.is_:
            if value not in allowed:
                said = f"{self.switch.source} is one of {', '.join(allowed)}, never {value!r}"
                yield UNKNOWN_CASE.found(said, context.mark("is", value))
        left = [value for value in allowed if value not in self.is_]
        if left and self.else_ is None:
            yield MISSING_CASES.found(f"no case for {', '.join(left)}", context.mark("is"))

    async def execute(self, frame: Frame) -> Json:
        """Take one way."""
        way = await self._choose(frame)
        return None if way is None else await frame.step(way)

    async def _choose(self, frame: Frame) -> Step | None:
        if self.if_ is not None:
            return self.then if await frame.evaluate(self.if_) else self.else_
        for number, case in enumerate(self.cases, 1):
            if await frame.at(f"if-{number}").evaluate(case.if_):
                return case.then
        if self.switch is None:
            return self.else_
        value = _case_text(await frame.evaluate(self.switch))
        if value in self.is_:
            return self.is_[value]
        if self.else_ is None:
            raise OutOfScope(
                f"{self.switch.source} is {value!r}, for which no case is declared",
                evidence={"value": value, "cases": list[Json](self.is_)},
            )
        return self.else_


def _case_text(value: Any) -> str:
    """A value as a case's key is written in YAML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
