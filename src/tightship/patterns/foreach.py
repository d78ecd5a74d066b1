"""The same steps for every item of a list, bounded in number and width."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import Field

from tightship.core.errors import FormatMismatch, LimitReached, WorkException
from tightship.core.ports import Json
from tightship.effects.frame import Branch, BranchResult, Frame
from tightship.patterns._shared import branch_failure, error_data
from tightship.workflow.conditions import Expression
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import Name

MAX_ITEMS: Final = 10_000

NO_MAX = declare(
    "TS550",
    "warning",
    "A loop states no maximum",
    why="The list comes from data: its length decides what the run costs. Without `max`, 100 counts.",
    fix="State `max`: the most items that are normal here.",
)
OVER_TURNS = declare(
    "TS551",
    "warning",
    "A loop may need more turns than the run has",
    why="At its maximum the loop alone reaches the limit of turns, and the run ends half done.",
    fix="Lower `max`, or raise limits.turns.",
)
LOOPED_WRITE = declare(
    "TS552",
    "error",
    "An action in a loop has no claim of its own per item",
    why="The same list item twice, or a run started twice, would write twice.",
    fix="Give the action a `claim` that names the item, for example `'\"refund:\" + item.id'`.",
)
TOO_WIDE = declare(
    "TS553",
    "error",
    "A loop is wider than the limit of branches",
    why="The run would end at its limit.",
    fix="Lower `concurrency`, or raise limits.branches.",
)


@patterns.register("foreach")
class Foreach(Step):
    """`foreach: {in: LIST, as: item, steps: […], max: 100, concurrency: 1, on_failure: end|escalate|keep}`.

    `in` is an expression that gives a list; inside, `as` names the item and `index` its place from 0. `concurrency`
    items run side by side. The output is the list of the steps' outputs; with `keep`, null for items that failed.
    """

    isolated = True
    record = True

    in_: Expression
    as_: Name = "item"
    steps: Block
    max: int | None = Field(default=None, ge=1, le=MAX_ITEMS)
    concurrency: int = Field(default=1, ge=1, le=1000)
    on_failure: Literal["end", "escalate", "keep"] = "end"

    def once(self) -> Iterator[tuple[str, Step]]:
        """Nothing: all of it may run again."""
        return iter(())

    def children(self) -> Iterator[Step]:
        """What is done for each item."""
        yield self.steps

    def labels(self) -> Iterator[str]:
        """The part of what is done for each item."""
        yield "each"

    def introduces(self) -> Iterator[str]:
        """The item and its index."""
        yield self.as_
        yield "index"

    @property
    def limit(self) -> int:
        """The most items that are taken."""
        return 100 if self.max is None else self.max

    def describe(self) -> str:
        """In words."""
        width = f", {self.concurrency} at a time" if self.concurrency > 1 else ""
        return f"for each {self.as_} in `{self.in_.source}` (at most {self.limit}{width})"

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        if self.max is None:
            yield NO_MAX.found(f"the loop over {self.in_.source!r} states no max", context.mark("in"))
        limits = context.workflow.limits.over(context.check.files.config.limits)
        turns = self.limit * sum(1 for one in self.steps.walk() if one.pattern == "agent")
        if turns > limits.turns:
            yield OVER_TURNS.found(f"up to {turns} turns, and the run has {limits.turns}", context.mark("max"))
        if self.concurrency > limits.branches:
            said = f"{self.concurrency} side by side, and the limit is {limits.branches}"
            yield TOO_WIDE.found(said, context.mark("concurrency"))
        for step in self.steps.walk():
            if step.pattern == "action" and not self._claimed(step):
                tool = next(iter(step.tools()), "")
                yield LOOPED_WRITE.found(f"{tool} is called for every {self.as_}", step.mark or context.mark())

    def _claimed(self, action: Step) -> bool:
        claims = [found for name, found in action.expressions() if name == "claim"]
        return any({self.as_, "index"} & set(claim.names) for claim in claims)

    async def execute(self, frame: Frame) -> Json:
        """Each item in turn, or several side by side."""
        items = await frame.evaluate(self.in_)
        if not isinstance(items, list | tuple):
            raise FormatMismatch(f"{self.in_.source!r} is no list but {type(items).__name__}")
        if len(items) > self.limit:
            raise LimitReached(f"{self.in_.source!r} has {len(items)} items, and the loop takes at most {self.limit}")
        outer = {name: frame.scope.names[name] for name in (self.as_, "index") if name in frame.scope.names}
        found = await (self._one_by_one(frame, items) if self.concurrency == 1 else self._side_by_side(frame, items))
        for name in (self.as_, "index"):
            if name in outer:
                frame.bind(name, outer[name])
            else:
                frame.scope.names.pop(name, None)
        return found

    async def _one_by_one(self, frame: Frame, items: Iterable[Json]) -> list[Json]:
        results = list[tuple[str, BranchResult]]()
        for index, item in enumerate(items):
            part, inner = str(index), frame.at(str(index))
            try:
                results.append((part, BranchResult(part, await self._work(index, item)(inner))))
            except WorkException as error:
                results.append((part, BranchResult(part, error=error)))
                if self.on_failure == "end":
                    break
        return await self._outputs(frame, results)

    async def _side_by_side(self, frame: Frame, items: list[Json] | tuple[Json, ...]) -> list[Json]:
        results = list[tuple[str, BranchResult]]()
        for start in range(0, len(items), self.concurrency):
            wave = list(enumerate(items))[start : start + self.concurrency]
            branches = [Branch(str(index), self._work(index, item)) for index, item in wave]
            found = await frame.fork(branches, "end" if self.on_failure == "end" else "keep")
            results += [(one.part, one) for one in found]
            if self.on_failure == "end" and any(one.error is not None for one in found):
                break
        return await self._outputs(frame, results)

    def _work(self, index: int, item: Json) -> Callable[[Frame], Awaitable[Json]]:
        async def work(frame: Frame) -> Json:
            frame.bind(self.as_, item)
            frame.bind("index", index)
            return await frame.step(self.steps)

        return work

    async def _outputs(self, frame: Frame, results: list[tuple[str, BranchResult]]) -> list[Json]:
        failed = [(part, one.error) for part, one in results if one.error is not None]
        done: Mapping[str, Any] = {part: one.value for part, one in results if one.error is None and not one.ended}
        if failed and (self.on_failure != "keep" or not done):
            raise branch_failure(f"foreach {self.as_}", results, done)
        for part, error in failed:
            assert error is not None
            await frame.at(part).note("branch.failed", branch=part, **error_data(error))
        return [one.value if one.error is None else None for _, one in results]
