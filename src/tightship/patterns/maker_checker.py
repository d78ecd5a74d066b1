"""One agent makes, a different identity checks, in bounded rounds with a declared end (P5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from tightship.core.errors import ChecksExhausted, FormatMismatch, RunFailed
from tightship.core.ports import Json
from tightship.effects.frame import Frame, Question
from tightship.patterns._shared import DECISIONS, feedback, package
from tightship.workflow.conditions import Condition
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import Name

SAME_IDENTITY = declare(
    "TS530",
    "error",
    "The maker checks its own work",
    why="An agent that judges what it made approves its own mistakes; the check means nothing.",
    fix="Let another agent check: other code, another tier, or a person.",
)
NO_VERDICT = declare(
    "TS531",
    "error",
    "The checker declares no verdict",
    why="Without `ok` (or `approved`) and `objections` nobody knows whether it passed, nor what to mend.",
    fix="Declare `output: {ok: bool, objections: list[str]}` on the checker, or give `accept`.",
)
MANY_ROUNDS = declare(
    "TS532",
    "warning",
    "Many rounds of maker and checker",
    why="Two agents that do not agree in three rounds seldom do later; each round costs two turns.",
    fix="Set rounds to 2 or 3 and let a person end the disagreement.",
)
NO_REVIEWER = declare(
    "TS533",
    "error",
    "Nobody is named to review when the rounds run out",
    why="`then: accept_with_review` puts the draft before a person, and no role is named for that.",
    fix="Name the role in `by`.",
)


@patterns.register("maker_checker")
class MakerChecker(Step):
    """`maker_checker: {maker: AGENT, checker: AGENT, rounds: 2, then: escalate|accept_with_review|fail, by: ROLE}`.

    Each round the maker makes and the checker judges with `ok` or `approved` (true/false) and `objections`; objections
    go to the maker's next turn. `accept` is another condition for approval. When the rounds run out, `then` counts.
    The output is the maker's. Maker and checker may be any step.
    """

    maker: Block
    checker: Block
    rounds: int = Field(default=2, ge=1, le=20)
    accept: Condition | None = None
    then: Literal["escalate", "accept_with_review", "fail"] = "escalate"
    by: Name | None = None

    @property
    def result(self) -> str | None:
        """The maker's output."""
        return self.name or self.maker.result

    def once(self) -> Iterator[tuple[str, Step]]:
        """Nothing: all of it may run again."""
        return iter(())

    def children(self) -> Iterator[Step]:
        """Maker, then checker."""
        yield self.maker
        yield self.checker

    def roles(self) -> Iterator[str]:
        """Who reviews when the rounds run out."""
        if self.by is not None:
            yield self.by

    def gives(self, context: Any) -> Mapping[str, Any] | None:
        """The maker's output."""
        return self.maker.gives(context)

    def uses_after(self) -> frozenset[str]:
        """The acceptance looks at what both bound."""
        return frozenset({"accept"})

    def describe(self) -> str:
        """In words."""
        ends = {"escalate": "escalate", "accept_with_review": f"review by {self.by}", "fail": "fail"}
        return (
            f"{self.maker.part} makes, {self.checker.part} checks, at most {self.rounds} rounds; "
            f"without agreement: {ends[self.then]}"
        )

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        makers = {spec.agent for spec in context.agents_below(self.maker)}
        checkers = context.agents_below(self.checker)
        for spec in checkers:
            twin = next(
                (name for name in sorted(makers) if _identity(context, name) == _identity(context, spec.agent)), None
            )
            if twin is not None:
                said = f"{spec.agent!r} checks what {twin!r} made, and both are the same"
                yield SAME_IDENTITY.found(said, context.mark("checker"))
        schema = self.checker.gives(context.check)
        if self.accept is None and schema is not None:
            fields = schema.get("properties", {})
            missing = [word for word, ok in _verdict_fields(fields) if not ok]
            if missing:
                said = f"the output of {self.checker.part!r} has no {' and no '.join(missing)}"
                yield NO_VERDICT.found(said, context.mark("checker"))
        if self.rounds > 4:
            yield MANY_ROUNDS.found(f"{self.rounds} rounds cost up to {2 * self.rounds} turns", context.mark("rounds"))
        if self.then == "accept_with_review" and self.by is None:
            yield NO_REVIEWER.found("accept_with_review without a role", context.mark("then"))

    async def execute(self, frame: Frame) -> Json:
        """Make and check until it passes."""
        objections, history, made = list[str](), list[str](), None
        for number in range(1, self.rounds + 1):
            inner = frame.at(str(number))
            with feedback(inner, objections):
                made = await inner.step(self.maker)
            inner.keep_apart(self.checker.part, frame.makers(made))
            verdict = await inner.step(self.checker)
            passed = await self._passed(inner, verdict)
            found = _objections(verdict)
            said: dict[str, Json] = {"round": number, "passed": passed, "objections": list[Json](found)}
            if not passed and number < self.rounds:
                said["again"] = True
            await inner.note("maker_checker.round", **said)
            if passed:
                return made
            objections = found or ["the checker did not approve and gave no reason"]
            history += [f"round {number}: {one}" for one in objections]
        return await self._exhausted(frame, made, objections, history)

    async def _passed(self, frame: Frame, verdict: Json) -> bool:
        if self.accept is not None:
            return bool(await frame.evaluate(self.accept))
        if isinstance(verdict, Mapping):
            for word in ("ok", "approved"):
                if isinstance(verdict.get(word), bool):
                    return bool(verdict[word])
        raise FormatMismatch(
            f"the checker {self.checker.part!r} says neither ok nor approved",
            needed="an output {ok: bool, objections: […]}",
        )

    async def _exhausted(self, frame: Frame, made: Json, objections: list[str], history: list[str]) -> Json:
        what = f"{self.maker.part} and {self.checker.part} did not agree in {self.rounds} rounds"
        if self.then == "fail":
            raise RunFailed(f"{what}: {'; '.join(objections)}")
        evidence: dict[str, Json] = {"draft": made, "objections": list[Json](objections)}
        if self.then == "escalate" or self.by is None:
            raise ChecksExhausted(
                f"{what}: {'; '.join(objections)}",
                needed="a decision on the last draft",
                options=DECISIONS,
                evidence={**evidence, "tried": list[Json](history)},
            )
        asked = package(
            frame,
            "unforeseen",
            "A draft that the checker did not approve",
            what,
            needed="approve the draft, edit it, or reject it",
            options=DECISIONS,
            evidence=evidence,
            tried=history,
            agent=self.maker.result,
        )
        makers = frame.makers(made)
        answer = await frame.ask(Question("review", str(asked["title"]), self.by, asked, made_by=makers))
        if answer.decision == "approve":
            return made
        if answer.decision in ("edit", "answer"):
            if self.maker.result is not None:
                frame.bind(self.maker.result, answer.value)
            return answer.value
        said = f"{what}, and {answer.by or 'nobody in time'} did not release it"
        raise ChecksExhausted(f"{said}: {answer.reason}" if answer.reason else said, evidence=evidence)


def _objections(verdict: Json) -> list[str]:
    found = verdict.get("objections") if isinstance(verdict, Mapping) else None
    if isinstance(found, str):
        return [found] if found else []
    return [one if isinstance(one, str) else str(one) for one in found] if isinstance(found, list | tuple) else []


def _verdict_fields(fields: Mapping[str, Any]) -> list[tuple[str, bool]]:
    verdict = any(fields.get(word, {}).get("type") == "boolean" for word in ("ok", "approved"))
    return [("ok: bool", verdict), ("objections", "objections" in fields)]


def _identity(context: StepCheck, name: str) -> tuple[str, ...]:
    """What makes an agent another one: its code, or its person, or its model with its instructions."""
    spec = context.check.agent(name)
    if spec is None:
        return ("unknown", name)
    if spec.kind == "model":
        return ("model", str(spec.model), str(spec.instructions))
    return (spec.kind, str(spec.python or spec.human))
