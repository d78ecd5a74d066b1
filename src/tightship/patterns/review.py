"""A person decides before the run goes on (P8, E5): by confidence, by stakes, or always."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from tightship.core.errors import (
    DataMissing,
    FormatMismatch,
    LoadError,
    LowConfidence,
    RunFailed,
    Unforeseen,
    WorkException,
)
from tightship.core.ports import Json
from tightship.effects.frame import Answer, Frame, Governed, Learning, Question
from tightship.patterns._shared import DECISIONS, package, source_before
from tightship.review.calibrating import fit_scaling, read_outcomes
from tightship.workflow.conditions import Condition, Expression
from tightship.workflow.models import Spec, Text
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.tree import TimedStep, patterns
from tightship.workflow.units import Duration, Name, show_duration

LOWEST: Final = 0.0
HIGHEST: Final = 2.0
"""Thresholds beyond every confidence: what holds at the lowest is no matter of confidence, what does not hold at the
highest is never reviewed."""
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


LEARNS_FROM_NOTHING = declare(
    "TS565",
    "error",
    "A threshold that learns has no one confidence to learn from",
    why="What people decide says something about one confidence only; without it nothing would ever be released.",
    fix="Let `when` hold one comparison of a declared, calibrated confidence with `threshold`.",
)
LATE_REMINDER = declare(
    "TS566",
    "warning",
    "A reminder comes before anything could have been done",
    why="It would come together with the request itself.",
    fix="Let `remind` be shorter than `within`.",
)

UNSUPPORTED = declare(
    "TS567",
    "warning",
    "Recorded outcomes do not support a confidence, so it releases nothing",
    why="A map from the raw number to how often it is right was not found, or did not stand its check.",
    fix='Record more outcomes ({"confidence": 0.83, "correct": true} a line), or take another source.',
)


class Learn(Spec):
    """`learn:` of a review: its threshold learns from people's decisions, under a bound on errors.

    At most a share of `error` of the released cases is wrong: at every moment with a probability of `confidence`, or
    (`guarantee: mean`) in the mean. Once it has learned, a share of `audit` of all cases goes to a person at random;
    while it learns, a share of `sample`.
    """

    error: float = Field(gt=0.0, le=0.5)
    audit: float = Field(default=0.05, gt=0.0, le=1.0)
    confidence: float = Field(default=0.95, ge=0.5, lt=1.0)
    sample: float = Field(default=1.0, gt=0.0, le=1.0)
    guarantee: Literal["always", "mean"] = "always"

    @model_validator(mode="after")
    def _one_promise(self) -> Self:
        if self.guarantee == "mean" and "confidence" in self.model_fields_set:
            raise ValueError("`guarantee: mean` has no `confidence`: delete one of them")
        return self


@patterns.register("review")
class Review(TimedStep):
    """`review: {when: CONDITION, by: ROLE, within: 4h, otherwise: escalate|reject|fail, of: STEP, show: […]}`.

    Without `when` every run is reviewed; a condition that cannot be evaluated sends the run to the person too. The
    person approves, edits (the edited value replaces the output named in `of`, by default the nearest before), or
    rejects (`on_reject: escalate|fail`). `show` lists expressions that the person sees besides. `learn` lets the
    threshold learn from what people decide; whatever else the condition says is never touched by that.
    """

    hands_on = False

    when: Condition | None = None
    by: Name
    otherwise: Literal["escalate", "reject", "fail"] | None = None
    on_reject: Literal["escalate", "fail"] = "escalate"
    of: Name | None = None
    show: tuple[Expression, ...] = ()
    title: Text | None = None
    learn: Learn | None = None
    remind: Duration | None = None

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
        yield from self._learning_findings(context)
        yield from self._unsupported(context)
        if self.when is not None and not self.when.names and not self.when.ambient:
            yield NEVER_OR_ALWAYS.found(f"{self.when.source!r} is always the same", context.mark("when"))

    def _learning_findings(self, context: StepCheck) -> Iterable[Finding]:
        if self.remind is not None and self.deadline is not None and self.remind >= self.deadline:
            yield LATE_REMINDER.found(f"it reminds {show_duration(self.remind)} before the end", context.mark("remind"))
        if self.learn is None:
            return
        found = {
            ref.path for ref in (self.when.refs if self.when is not None else ()) if self._states(context, ref.path)
        }
        if self.when is None or "threshold" not in self.when.ambient or len(found) != 1:
            said = "no confidence is" if not found else f"{len(found)} confidences are"
            yield LEARNS_FROM_NOTHING.found(f"{said} compared with `threshold`", context.mark("learn"))

    def _unsupported(self, context: StepCheck) -> Iterable[Finding]:
        """Confidences whose recorded outcomes are no ground to release anything."""
        refs = self.when.refs if self.when is not None and "threshold" in self.when.ambient else ()
        for path in sorted({ref.path for ref in refs if self._states(context, ref.path)}):
            bound = context.place.visible[path[0]]
            spec = None if bound.step is None else context.check.agent(next(iter(bound.step.agents()), ""))
            stated = None if spec is None else spec.confidence
            if stated is None or stated.source == "classifier" or stated.calibrated_on is None:
                continue
            try:
                why = fit_scaling(read_outcomes(context.check.files.root / stated.calibrated_on)).why
            except LoadError as error:
                why = str(error)
            if why:
                yield UNSUPPORTED.found(f"{'.'.join(path)}: {why}", context.mark("when"))

    def _states(self, context: StepCheck, path: tuple[str, ...]) -> bool:
        """Whether a path is a calibrated confidence of an agent."""
        bound = context.place.visible.get(path[0]) if len(path) == 2 else None
        if bound is None or bound.step is None or bound.step.pattern != "agent":
            return False
        spec = context.check.agent(next(iter(bound.step.agents()), ""))
        stated = None if spec is None else spec.confidence
        return stated is not None and stated.field == path[1] and stated.calibrated_on is not None

    async def execute(self, frame: Frame) -> Json:
        """Ask, unless the condition says that nobody needs to look."""
        learning = self.learning(self.decision_class(frame.run.workflow))
        why, governed = await self._why(frame, learning)
        if not why:
            return None
        teaches = governed.teaches(learning.decision_class) if governed and learning else None
        answer = await frame.ask(replace(await self._question(frame, why), teaches=teaches))
        if teaches is not None and learning is not None:
            await frame.learn(learning)
        return self._settle(frame, answer)

    def decision_class(self, workflow: str) -> str:
        """The class of decisions that its threshold belongs to."""
        return f"{workflow}/{self.name or self.subject or self.part}"

    def learning(self, decision_class: str) -> Learning | None:
        """How its threshold learns, if it does."""
        return None if self.learn is None else Learning(decision_class, **self.learn.model_dump())

    async def _why(self, frame: Frame, learning: Learning | None) -> tuple[str, Governed | None]:
        """Why a person decides, empty when nobody needs to; and the threshold, where it is that which says so."""
        if self.when is None:
            return "every run is reviewed", None
        try:
            given = await frame.given(self.when)
            bare = given.get("uncalibrated")
            if isinstance(bare, list):
                said = f"{', '.join(map(str, bare))} is not calibrated, so it releases nothing"
                return (f"{said}: {self.when.source!r} holds" if self._holds(frame, given) else ""), None
            if learning is not None:
                return await self._learned(frame, self.when, learning, given)
            return (f"{self.when.source!r} holds" if self._holds(frame, given) else ""), None
        except (DataMissing, FormatMismatch) as error:
            return f"the condition could not be evaluated ({error.message}), so a person decides", None

    async def _learned(
        self, frame: Frame, when: Condition, learning: Learning, given: Mapping[str, Json]
    ) -> tuple[str, Governed | None]:
        """The same under a learned threshold. What holds at the lowest threshold is no matter of confidence: stakes."""
        if self._holds(frame, {**given, "threshold": LOWEST}):
            return f"{when.source!r} holds, whatever the confidence is", None
        if not self._holds(frame, {**given, "threshold": HIGHEST}):
            return "", None
        governed = await frame.govern(when, learning)
        if governed is None:
            return "no calibrated confidence between 0 and 1 is there, so nothing is released", None
        if self._holds(frame, {**given, "threshold": governed.threshold}):
            return f"{when.source!r} holds: the threshold is {governed.threshold:g} ({governed.state})", governed
        if governed.drawn:
            return "this case was drawn at random, whatever its confidence is: its decision checks the others", governed
        return "", governed

    def _holds(self, frame: Frame, given: Mapping[str, Json]) -> bool:
        return self.when is not None and self.when.evaluate(frame.scope.names, given)

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
        return Question(
            "review",
            title,
            self.by,
            asked,
            within=self.deadline,
            otherwise=self.otherwise or "escalate",
            remind=self.remind,
            made_by=() if subject is None else frame.makers(names.get(subject)),
        )

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
