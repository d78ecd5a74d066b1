"""A person decides before the run goes on (P8, E5): by confidence, by stakes, or always."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from tightship.core.errors import DataMissing, FormatMismatch, LowConfidence, RunFailed, Unforeseen, WorkException
from tightship.core.ports import Json
from tightship.effects.frame import Answer, Frame, Question
from tightship.patterns._shared import DECISIONS, package, source_before
from tightship.workflow.conditions import Condition, Expression
from tightship.workflow.models import Text
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.tree import Step, patterns
from tightship.workflow.units import Duration, Name, show_duration

NO_DEADLINE = declare(
    "TS560",
    "error",
    "A review has no deadline",
    why="A run would wait for a person for ever; nobody would notice.",
    fix="Add `within`, for example `within: 4h`.",
)
NO_OTHERWISE = declare(
    "TS561",
    "warning",
    "A review does not say what counts when nobody decides in time",
    why="Escalating is the default; say so, or reject, so that reviewers know.",
    fix="Add `otherwise: escalate`, `reject` or `fail`.",
)
NOTHING_REVIEWED = declare(
    "TS562",
    "error",
    "A review has nothing to show or to edit",
    why="Without an output before it, the person would decide about nothing.",
    fix="Put it behind the step it is about, or name that step in `of`.",
)
NEVER_OR_ALWAYS = declare(
    "TS563",
    "warning",
    "A review's condition is always the same",
    why="It looks at nothing that the run produces.",
    fix="Let it look at a confidence or an amount, or delete `when` to review every run.",
)
LONGER_THAN_LIFE = declare(
    "TS564",
    "advice",
    "A review waits longer than a week",
    why="What was decided on may no longer be true when the answer comes.",
    fix="Shorten `within`, or check freshness again behind the review.",
)


@patterns.register("review")
class Review(Step):
    """`review: {when: CONDITION, by: ROLE, within: 4h, otherwise: escalate|reject|fail, of: STEP, show: […]}`.

    Without `when` every run is reviewed; a condition that cannot be evaluated sends the run to the person too. The
    person approves, edits (the edited value replaces the output named in `of`, by default the nearest before), or
    rejects (`on_reject: escalate|fail`). `show` lists expressions that the person sees besides.
    """

    hands_on = False
    written: ClassVar[Mapping[str, str]] = {"deadline": "within"}

    when: Condition | None = None
    by: Name
    deadline: Duration | None = None
    """What `within` says: the person's time. The step itself has no other limit, so an answer is never cut off."""
    otherwise: Literal["escalate", "reject", "fail"] | None = None
    on_reject: Literal["escalate", "fail"] = "escalate"
    of: Name | None = None
    show: tuple[Expression, ...] = ()
    title: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _within_is_the_deadline(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("within") is not None:
            rest = {name: value for name, value in data.items() if name != "within"}
            return {**rest, "deadline": data["within"]}
        return data

    @property
    def subject(self) -> str | None:
        """The output that is reviewed."""
        return self.of or source_before(self)

    def roles(self) -> Iterator[str]:
        """Who decides."""
        yield self.by

    def describe(self) -> str:
        """In words."""
        about = f" of **{self.subject}**" if self.subject else ""
        cond = f" when `{self.when.source}`" if self.when is not None else " of every run"
        time = f" within {show_duration(self.deadline)}" if self.deadline is not None else ""
        return f"review{about} by **{self.by}**{cond}{time}; otherwise {self.otherwise or 'escalate'}"

    def conduct(self) -> list[str]:
        """What happens when the person rejects or does not answer."""
        lines = [f"{kind}: {behaviour.then}" for kind, behaviour in self.on.items()]
        return [*lines, f"rejected: {self.on_reject}", f"nobody in time: {self.otherwise or 'escalate'}"]

    def findings(self, context: StepCheck) -> Iterable[Finding]:
        """What may be wrong with it."""
        if self.deadline is None:
            yield NO_DEADLINE.found(f"the review by {self.by!r} has no deadline", context.mark())
        elif self.deadline > 7 * 86400:
            yield LONGER_THAN_LIFE.found(f"it waits {show_duration(self.deadline)}", context.mark("within"))
        if self.otherwise is None:
            yield NO_OTHERWISE.found(f"the review by {self.by!r} has no `otherwise`", context.mark())
        if self.subject is None or self.subject not in context.place.visible:
            said = f"{self.subject!r} is not bound here" if self.subject else "there is no output before it"
            yield NOTHING_REVIEWED.found(said, context.mark("of"))
        if self.when is not None and not self.when.names and not self.when.ambient:
            yield NEVER_OR_ALWAYS.found(f"{self.when.source!r} is always the same", context.mark("when"))

    async def execute(self, frame: Frame) -> Json:
        """Ask, unless the condition says that nobody needs to look."""
        why = "every run is reviewed"
        if self.when is not None:
            try:
                if not await frame.evaluate(self.when):
                    return None
                why = f"{self.when.source!r} holds"
            except (DataMissing, FormatMismatch) as error:
                why = f"the condition could not be evaluated ({error.message}), so a person decides"
        answer = await frame.ask(await self._question(frame, why))
        return self._settle(frame, answer)

    async def _question(self, frame: Frame, why: str) -> Question:
        names, subject = frame.scope.names, self.subject
        evidence = dict[str, Json]()
        if subject is not None and subject in names:
            evidence[subject] = names[subject]
        if self.when is not None:
            evidence.update(self.when.values(names))
        for number, expression in enumerate(self.show, 1):
            try:
                evidence[str(expression.source)] = await frame.at(f"show-{number}").evaluate(expression)
            except WorkException as error:
                evidence[str(expression.source)] = f"not available: {error.message}"
        unsure = self.when is not None and "threshold" in self.when.ambient
        title = self.title or f"Review {subject or frame.run.workflow} of {frame.run.workflow}"
        asked = package(
            frame,
            LowConfidence.kind if unsure else "review",
            title,
            why,
            needed=f"approve, edit or reject {subject or 'this run'}",
            options=DECISIONS,
            evidence=evidence,
            agent=subject,
        )
        return Question("review", title, self.by, asked, within=self.deadline, otherwise=self.otherwise or "escalate")

    def _settle(self, frame: Frame, answer: Answer) -> Json:
        decided: dict[str, Json] = {"decision": answer.decision, "by": answer.by, "reason": answer.reason}
        if answer.decision in ("edit", "answer"):
            if self.subject is not None:
                frame.bind(self.subject, answer.value)
            return decided
        if answer.decision == "approve":
            return decided
        rule = self.on_reject
        said = f"{answer.by or 'the reviewer'} rejected it" + (f": {answer.reason}" if answer.reason else "")
        if answer.decision == "expired":
            late = show_duration(self.deadline) if self.deadline is not None else "its time"
            said = f"nobody of {self.by} decided within {late}"
            rule = self.on_reject if self.otherwise == "reject" else self.otherwise or "escalate"
        if rule == "fail":
            raise RunFailed(said)
        frame.escalate(_escalation(said, decided))


def _escalation(said: str, decided: dict[str, Any]) -> WorkException:
    return Unforeseen(said, needed="a person takes the case over", evidence={"review": decided})
