"""How a disagreement ends (P9, F3): answers with their authors and reasons go in, one answer or the declared end comes
out. Every pattern in which several say something about one question settles it here.

`tally` is a pure function of the answers, so a replay settles alike; only a judge is asked through the frame.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tightship.controls.claims import folded
from tightship.core.errors import NoConsensus, RunFailed, WorkException
from tightship.core.ports import Json
from tightship.effects.frame import Frame
from tightship.patterns._shared import error_data
from tightship.workflow.readiness import Finding, StepCheck, declare
from tightship.workflow.source import did_you_mean
from tightship.workflow.steps import Block
from tightship.workflow.tree import Step

INCOMPLETE = declare(
    "TS534",
    "error",
    "A rule for disagreements lacks what it counts by",
    why="Without weights, a quorum, an order or a judge the rule can decide nothing when it is needed.",
    fix="Give the field that the rule needs, or take `majority`.",
)
STRANGER = declare(
    "TS535",
    "error",
    "A rule for disagreements names somebody who gives no answer",
    why="The weight or the priority would never count; most often it is a misspelt name.",
    fix="Use the names of those who answer.",
)
IMPOSSIBLE = declare(
    "TS536",
    "error",
    "The quorum can never be reached",
    why="There are fewer who answer than have to agree, so every case ends as a disagreement.",
    fix="Lower `quorum`, or let more answer.",
)
AMBIGUOUS = declare(
    "TS537",
    "warning",
    "Two answers can both be decided on",
    why="A quorum of half or less may be reached twice, or by a minority; a single weight above half decides alone.",
    fix="Set `quorum` to more than half, or weigh so that no single voice decides.",
)
OWN_JUDGE = declare(
    "TS538",
    "error",
    "The judge is one of those who disagree",
    why="Who has answered already judges for its own answer.",
    fix="Let another agent or a person judge.",
)

Rule = Literal["majority", "weighted", "unanimity", "quorum", "priority", "judge"]
Otherwise = Literal["escalate", "fail", "priority", "judge"]

ANSWERS: Final = "answers"
"""The name under which a judge finds what it is to judge."""


class Settle(BaseModel):
    """`settle: {rule: majority, otherwise: escalate}`; the bare word means the rule.

    - `majority`: more than half of all who are entitled, absent ones included
    - `weighted`: more than half of all weight
    - `unanimity`: all who are entitled, alike
    - `quorum`: at least `quorum` of them, alike
    - `priority`: the answer of the first in `order` who answered
    - `judge`: what all who answered agree on; when they differ, one of their answers, chosen by `judge`
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    rule: Rule = "majority"
    weights: Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    quorum: int | None = Field(default=None, ge=1)
    order: tuple[str, ...] = ()
    judge: Block | None = None
    blind_judge: bool = False
    otherwise: Otherwise = "escalate"

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, value: Any) -> Any:
        return {"rule": str(value)} if isinstance(value, str) else value

    def steps(self) -> Iterator[Step]:
        """The judge, for the `children` of the step that settles."""
        if self.judge is not None:
            yield self.judge

    def describe(self) -> str:
        """In words."""
        words = {
            "majority": "a majority decides",
            "weighted": "more than half of the weight decides",
            "unanimity": "all have to agree",
            "quorum": f"{self.quorum} alike decide",
            "priority": f"the first who answers decides: {', '.join(self.order)}",
            "judge": f"when they differ, {self._judge} decides",
        }[self.rule]
        ends = {
            "escalate": "escalate",
            "fail": "fail",
            "priority": f"the first who answered of {', '.join(self.order)}",
            "judge": f"{self._judge} decides",
        }[self.otherwise]
        return f"{words}; otherwise {ends}"

    @property
    def _judge(self) -> str:
        return "nobody" if self.judge is None else f"**{self.judge.part}**"


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one of those who are entitled says. `absent` is why there is no answer; with it there is none."""

    by: str
    value: Json = None
    reason: str = ""
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """One answer, who gave it, and what that counts for (voters, or weight with the rule `weighted`)."""

    answer: Json
    by: tuple[str, ...]
    counts: float


@dataclass(frozen=True, slots=True)
class Settlement:
    """How it ended.

    Attributes:
        decided: whether one answer counts.
        value: that answer.
        for_: who gave it.
        against: who gave another one.
        absent: who gave none, and why.
        why: in words.
        tally: every answer, the one with the most first.
        reasons: what each said for its answer, where it said anything.
        by: the rule that decided, or the one that did not come to an end.
    """

    decided: bool
    value: Json
    for_: tuple[str, ...]
    against: tuple[str, ...]
    absent: Mapping[str, str]
    why: str
    tally: tuple[Count, ...]
    reasons: Mapping[str, str]
    by: Rule

    def to_json(self) -> dict[str, Json]:
        """As outputs and entries hold it."""
        return {
            "decided": self.decided,
            "value": self.value,
            "for": list(self.for_),
            "against": list(self.against),
            "absent": dict(self.absent),
            "why": self.why,
            "tally": [{"answer": one.answer, "by": list(one.by), "counts": one.counts} for one in self.tally],
            "reasons": dict(self.reasons),
            "rule": self.by,
        }


def alike(value: Json) -> str:
    """A text that is the same for answers that mean the same: canonical JSON, with texts folded (form, case, blanks)
    and whole numbers written as such."""
    return json.dumps(_folded(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _folded(value: Json) -> Json:
    if isinstance(value, str):
        return folded(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _folded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_folded(inner) for inner in value]
    return value


def tally(ballots: Sequence[Ballot], settle: Settle, entitled: Sequence[str]) -> Settlement:
    """Count by the rule alone. The order of the ballots makes no difference.

    Args:
        ballots: what was said. Who is entitled and has no ballot is absent.
        settle: the rule.
        entitled: all whose answer counts, each once.

    Raises:
        ValueError: somebody answers twice, or is not entitled.
    """
    by = {one.by: one for one in ballots}
    if len(by) != len(ballots):
        raise ValueError("somebody answers twice")
    if strange := sorted(set(by) - set(entitled)):
        raise ValueError(f"not entitled: {', '.join(strange)}")
    said = [by[name] for name in entitled if name in by and not by[name].absent]
    absent = {name: by[name].absent if name in by else "gave no answer" for name in entitled}
    absent = {name: why for name, why in absent.items() if name not in {one.by for one in said}}
    counts = _counts(said, settle)
    chosen, why = _choose(counts, settle, entitled, settle.rule)
    reasons = {one.by: one.reason for one in said if one.reason}
    return _settled(Settlement(False, None, (), (), absent, why, counts, reasons, settle.rule), chosen, why)


def _counts(said: Sequence[Ballot], settle: Settle) -> tuple[Count, ...]:
    groups = dict[str, list[Ballot]]()
    for one in said:
        groups.setdefault(alike(one.value), []).append(one)
    found = list[tuple[str, Count]]()
    for key, group in groups.items():
        names = tuple(one.by for one in group)
        counts = _weight(names, settle) if settle.rule == "weighted" else len(names)
        found.append((key, Count(_spelling(group), names, counts)))
    return tuple(count for _, count in sorted(found, key=lambda one: (-one[1].counts, one[0])))


def _spelling(group: Sequence[Ballot]) -> Json:
    """How a shared answer is written: as most write it, and among equals the first in the order of JSON."""
    written = [json.dumps(one.value, sort_keys=True, ensure_ascii=False) for one in group]
    most = min(written, key=lambda text: (-written.count(text), text))
    return group[written.index(most)].value


def _weight(names: Iterable[str], settle: Settle) -> float:
    """The weight of several, in the decimals that were written: 0.1 and 0.2 are as much as 0.3."""
    return float(sum(Decimal(repr(settle.weights.get(name, 1.0))) for name in names))


def _choose(counts: Sequence[Count], settle: Settle, entitled: Sequence[str], rule: Rule) -> tuple[Count | None, str]:
    """The answer that counts by a rule, and why; or None, and why not."""
    if not counts:
        return None, "nobody answered"
    if rule == "priority":
        return _first(counts, settle.order)
    first = counts[0]
    if rule == "judge":
        if len(counts) == 1:
            return first, f"all {len(first.by)} who answered say the same"
        return None, f"{len(counts)} different answers"
    if rule == "unanimity":
        if len(first.by) == len(entitled):
            return first, f"all {len(entitled)} say the same"
        missing = len(entitled) - sum(len(one.by) for one in counts)
        return None, f"{len(counts)} different answers, {missing} absent" if missing else f"{len(counts)} answers"
    if rule == "quorum":
        quorum = settle.quorum or len(entitled)
        reached = [one for one in counts if len(one.by) >= quorum]
        if len(reached) == 1:
            return reached[0], f"{len(reached[0].by)} of {len(entitled)} say the same, and {quorum} are enough"
        if reached:
            return None, f"{len(reached)} answers have {quorum} voices each"
        return None, f"at most {max(len(one.by) for one in counts)} say the same, and {quorum} are needed"
    whole = _weight(entitled, settle) if rule == "weighted" else len(entitled)
    unit = " of the weight" if rule == "weighted" else ""
    if first.counts * 2 > whole:
        return first, f"{first.counts:g} of {whole:g}{unit} say the same, which is more than half"
    return None, f"no answer has more than half{unit}: at most {first.counts:g} of {whole:g}"


def _first(counts: Sequence[Count], order: Sequence[str]) -> tuple[Count | None, str]:
    for name in order:
        for one in counts:
            if name in one.by:
                return one, f"{name} is the first in the order of priority who answered"
    return None, f"none of {', '.join(order) or 'an empty order'} answered"


def _settled(found: Settlement, chosen: Count | None, why: str, by: Rule | None = None) -> Settlement:
    if chosen is None:
        return replace(found, why=why)
    against = tuple(name for one in found.tally if one is not chosen for name in one.by)
    return replace(
        found, decided=True, value=chosen.answer, for_=chosen.by, against=against, why=why, by=by or found.by
    )


async def settle(
    frame: Frame, ballots: Sequence[Ballot], rule: Settle, entitled: Sequence[str] | None = None, need: int = 0
) -> Settlement:
    """Settle by the rule, or by what counts otherwise, and note how it ended, dissent included.

    Args:
        frame: where; a step that settles several times gives each a sub-path of its own (`frame.at`).
        ballots: what was said.
        rule: how it is settled.
        entitled: all whose answer counts; by default the authors of the ballots.
        need: how many have to answer at all. With fewer it escalates, or fails where the rule says so.

    Raises:
        NoConsensus: it was not settled; the evidence holds every answer, its author and its reason.
        RunFailed: as above, with `otherwise: fail`.
    """
    found = tally(ballots, rule, [one.by for one in ballots] if entitled is None else entitled)
    failure: WorkException | None = None
    answered = sum(len(one.by) for one in found.tally)
    if answered < need:
        found = replace(
            found, decided=False, value=None, for_=(), against=(), why=f"{answered} answered, {need} have to"
        )
    elif not found.decided and found.tally:
        if "judge" in (rule.rule, rule.otherwise) and rule.judge is not None:
            found, failure = await _judged(frame, found, rule, ballots)
        if not found.decided and rule.otherwise == "priority":
            chosen, why = _first(found.tally, rule.order)
            found = _settled(found, chosen, f"{found.why}; {why}", "priority")
    await frame.note("settled", **found.to_json())
    if found.decided:
        return found
    if rule.otherwise == "fail":
        raise RunFailed(f"no agreement: {found.why}")
    raise _escalation(found, ballots, failure)


async def _judged(
    frame: Frame, found: Settlement, rule: Settle, ballots: Sequence[Ballot]
) -> tuple[Settlement, WorkException | None]:
    """What the judge chooses among the answers. One that fails, or chooses what nobody said, has not decided."""
    assert rule.judge is not None
    with _shown(frame, _for_judge(found, rule.blind_judge, ballots)):
        try:
            verdict = await frame.at("judge").step(rule.judge)
        except WorkException as error:
            return replace(found, why=f"{found.why}; the judge failed: {error.message}"), error
    judged = verdict.get("answer") if isinstance(verdict, Mapping) and "answer" in verdict else verdict
    chosen = next((one for one in found.tally if alike(one.answer) == alike(judged)), None)
    if chosen is None:
        return replace(found, why=f"{found.why}; the judge chose what nobody had said: {_short(judged)}"), None
    reason = verdict.get("reason") if isinstance(verdict, Mapping) else None
    why = f"{found.why}; the judge decided" + (f": {reason}" if isinstance(reason, str) and reason else "")
    return _settled(found, chosen, why, "judge"), None


def _for_judge(found: Settlement, blind: bool, ballots: Sequence[Ballot]) -> list[dict[str, Json]]:
    """The answers as a judge sees them. Blind to names, nothing of their order tells who said what either."""
    reasons = {one.by: one.reason for one in ballots}
    if not blind:
        return [
            {"answer": one.answer, "by": list(one.by), "reasons": [reasons[name] for name in one.by if reasons[name]]}
            for one in found.tally
        ]
    ordered = sorted(found.tally, key=lambda one: alike(one.answer))
    return [
        {"answer": one.answer, "reasons": sorted(reasons[name] for name in one.by if reasons[name])} for one in ordered
    ]


@contextlib.contextmanager
def _shown(frame: Frame, answers: list[dict[str, Json]]) -> Generator[None]:
    """Within it, agents find the answers under their name."""
    names = frame.scope.names
    before = {ANSWERS: names[ANSWERS]} if ANSWERS in names else {}
    frame.bind(ANSWERS, answers)
    try:
        yield
    finally:
        names.pop(ANSWERS, None)
        names.update(before)


def _escalation(found: Settlement, ballots: Sequence[Ballot], failure: WorkException | None) -> NoConsensus:
    answers: list[Json] = [
        {"by": one.by, "answer": one.value, "reason": one.reason} for one in ballots if not one.absent
    ]
    evidence: dict[str, Json] = {"answers": answers, "absent": dict(found.absent), "rule": found.by}
    if failure is not None:
        evidence["judge"] = error_data(failure)
    options = [
        {"id": f"answer-{number}", "label": f"{_short(one.answer)} ({', '.join(one.by)})"}
        for number, one in enumerate(found.tally, 1)
    ]
    return NoConsensus(
        f"no agreement: {found.why}", needed="a decision between the answers", options=options, evidence=evidence
    )


def settle_findings(
    rule: Settle, authors: Sequence[str], steps: Sequence[Step], context: StepCheck, field: str = "settle"
) -> Iterator[Finding]:
    """What may be wrong with a rule where it stands.

    Args:
        authors: the names of those who answer; empty when only the run knows them (a plan's workers, peers).
        steps: the steps that answer.
        context: the step that settles.
        field: the rule's field there.
    """
    ways = (rule.rule, rule.otherwise)
    lacks = [
        ("weights", rule.rule == "weighted" and not rule.weights),
        ("quorum", rule.rule == "quorum" and rule.quorum is None),
        ("order", "priority" in ways and not rule.order),
        ("judge", "judge" in ways and rule.judge is None),
    ]
    for name, missing in lacks:
        if missing:
            yield INCOMPLETE.found(f"there is no `{name}`", context.mark(field), fix=f"Give `{name}`.")
    if rule.rule == rule.otherwise:
        said = f"`{rule.rule}` is to end what `{rule.rule}` did not"
        yield INCOMPLETE.found(said, context.mark(field, "otherwise"), fix="Use `otherwise: escalate` or `fail`.")
    if authors:
        yield from _author_findings(rule, authors, context, field)
    if rule.judge is not None:
        voters = {spec.agent for step in steps for spec in context.agents_below(step)}
        for spec in context.agents_below(rule.judge):
            if spec.agent in voters:
                yield OWN_JUDGE.found(f"{spec.agent!r} answers and judges", context.mark(field, "judge"))


def _author_findings(rule: Settle, authors: Sequence[str], context: StepCheck, field: str) -> Iterator[Finding]:
    for name, given in (("weights", tuple(rule.weights)), ("order", rule.order)):
        for one in given:
            if one not in authors:
                fix = did_you_mean(one, authors)
                yield STRANGER.found(f"{one!r} gives no answer", context.mark(field, name), fix=fix)
    if rule.rule == "weighted" and rule.weights:
        left = [one for one in authors if one not in rule.weights]
        if left:
            said = f"{', '.join(left)} {'has' if len(left) == 1 else 'have'} no weight"
            yield INCOMPLETE.found(said, context.mark(field, "weights"))
        heaviest = max(authors, key=lambda one: rule.weights.get(one, 1.0))
        if len(authors) > 1 and 2 * rule.weights.get(heaviest, 1.0) > _weight(authors, rule):
            yield AMBIGUOUS.found(f"{heaviest!r} decides alone", context.mark(field, "weights"))
    if rule.rule == "quorum" and rule.quorum is not None:
        if rule.quorum > len(authors):
            said = f"{len(authors)} answer, and {rule.quorum} have to agree"
            yield IMPOSSIBLE.found(said, context.mark(field, "quorum"))
        elif 2 * rule.quorum <= len(authors):
            said = f"{rule.quorum} of {len(authors)} are not more than half"
            yield AMBIGUOUS.found(said, context.mark(field, "quorum"))


def _short(value: Json) -> str:
    """A value on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:79]}…"
