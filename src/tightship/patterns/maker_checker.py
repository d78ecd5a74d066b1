"""One agent makes, a different identity checks, in bounded rounds with a declared end (P5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from tightship.core.errors import ChecksExhausted, FormatMismatch, RunFailed
from tightship.core.ports import Json
from tightship.effects.frame import Frame, Question
from tightship.patterns._settle import ANSWERS, Ballot, Settle, settle, settle_findings
from tightship.patterns._shared import DECISIONS, feedback, identity, package
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
    """`maker_checker: {maker: AGENT, checker: AGENT, rounds: 2, then: END, by: ROLE, settle: RULE}`.

    Each round the maker makes and the checker judges with `ok` or `approved` (true/false) and `objections`; objections
    go to the maker's next turn. `accept` is another condition for approval. When the rounds run out, `then` counts:
    `escalate`, `accept_with_review` by a role, `fail`, or `settle`: the maker says true to its last draft, the checker
    false, and the rule ends it (a judge finds both outputs under their names). The output is the maker's. Maker and
    checker may be any step.
    """

    maker: Block
    checker: Block
    rounds: int = Field(default=2, ge=1, le=20)
    accept: Condition | None = None
    then: Literal["escalate", "accept_with_review", "fail", "settle"] = "escalate"
    by: Name | None = None
    settle: Settle | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_rule_is_the_end(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("settle") is not None and data.get("then") is None:
            return {**data, "then": "settle"}
        return data

    @model_validator(mode="after")
    def _one_end(self) -> MakerChecker:
        if (self.then == "settle") != (self.settle is not None):
            raise ValueError("`then: settle` and `settle` belong together; write both, or `settle` alone")
        return self

    @property
    def result(self) -> str | None:
        """The maker's output."""
        return self.name or self.maker.result

    def once(self) -> Iterator[tuple[str, Step]]:
        """Nothing: all of it may run again."""
        return iter(())

    def children(self) -> Iterator[Step]:
        """Maker, then checker, then the judge."""
        yield self.maker
        yield self.checker
        if self.settle is not None:
            yield from self.settle.steps()

    def coordinates(self) -> Iterator[Step]:
        """The checker, which makes nothing, and the judge."""
        yield self.checker
        if self.settle is not None:
            yield from self.settle.steps()

    def introduces(self) -> Iterator[str]:
        """The answers for the judge."""
        if self.settle is not None:
            yield ANSWERS

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
        if self.settle is not None:
            ends["settle"] = self.settle.describe()
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
                (name for name in sorted(makers) if identity(context, name) == identity(context, spec.agent)), None
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
        if self.settle is not None:
            yield from settle_findings(self.settle, self._authors, (self.maker, self.checker), context)

    async def execute(self, frame: Frame) -> Json:
        """Make and check until it passes."""
        objections, history, made = list[str](), list[str](), None
        for number in range(1, self.rounds + 1):
            inner = frame.round(number)
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
        if self.settle is not None:
            return await self._settled(frame, self.settle, made, objections, evidence)
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

    @property
    def _authors(self) -> tuple[str, str]:
        return self.maker.part, self.checker.part

    async def _settled(
        self, frame: Frame, rule: Settle, made: Json, objections: list[str], evidence: dict[str, Json]
    ) -> Json:
        maker, checker = self._authors
        ballots = (Ballot(maker, True), Ballot(checker, False, "; ".join(objections)))
        found = await settle(frame, ballots, rule)
        if found.value is True:
            return made
        said = f"the last draft of {maker} was not accepted: {found.why}"
        raise ChecksExhausted(said, needed="a decision on the last draft", options=DECISIONS, evidence=evidence)


def _objections(verdict: Json) -> list[str]:
    found = verdict.get("objections") if isinstance(verdict, Mapping) else None
    if isinstance(found, str):
        return [found] if found else []
    return [one if isinstance(one, str) else str(one) for one in found] if isinstance(found, list | tuple) else []


def _verdict_fields(fields: Mapping[str, Any]) -> list[tuple[str, bool]]:
    verdict = any(fields.get(word, {}).get("type") == "boolean" for word in ("ok", "approved"))
    return [("ok: bool", verdict), ("objections", "objections" in fields)]
