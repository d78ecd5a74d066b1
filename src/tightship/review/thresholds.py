"""Confidence thresholds per class of decision, the outcomes that people's decisions leave, and how calibrated they are.

A confidence is calibrated when, of all cases with confidence p, a share of p turns out right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import InputRejected
from tightship.core.ports import Delta, EntryView, Json
from tightship.effects.frame import Learning
from tightship.review.inbox import moment
from tightship.review.learning import safe_threshold

DEFAULT_THRESHOLD: Final = 0.8
"""What counts until a class of decisions has learned its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one decision turned out.

    Attributes:
        decision_class: which decisions it belongs to (`workflow/step`).
        confidence: what the declared source said, in [0, 1].
        correct: whether the proposed result was right.
        source: where the confidence came from (`classifier`, `agreement`, `logprob`, `checker`).
        run, key: where.
        by: the person who judged it.
        at: store time (s).
    """

    decision_class: str
    confidence: float
    correct: bool
    source: str = ""
    run: str = ""
    key: str = ""
    by: str = ""
    at: float = 0.0

    def as_dict(self) -> dict[str, Json]:
        """All fields by name, as they are recorded."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """The outcome that `as_dict` wrote.

        Raises:
            InputRejected: a field is missing or of another type, or the confidence is outside [0, 1].
        """
        confidence, correct = data.get("confidence"), data.get("correct")
        if not isinstance(confidence, int | float) or not 0 <= confidence <= 1 or not isinstance(correct, bool):
            raise InputRejected("an outcome has a confidence between 0 and 1 and says whether it was correct")
        texts = {name: str(data.get(name) or "") for name in ("decision_class", "source", "run", "key", "by")}
        return cls(confidence=float(confidence), correct=correct, at=float(data.get("at") or 0.0), **texts)


def outcome_of(decision: str, confidence: float, *, decision_class: str, **where: Any) -> Outcome | None:
    """What a person's decision says about the proposed result: approved is right, edited or rejected is wrong.

    Args:
        decision: as closed; what expired or was withdrawn says nothing and gives None.
        confidence: of the proposed result.
        decision_class: which decisions it belongs to.
        where: source, run, key, by and at of the outcome.
    """
    if decision not in ("approve", "edit", "reject"):
        return None
    return Outcome(decision_class, confidence, decision == "approve", **where)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a class of decisions stands: one row of the `thresholds` table.

    Attributes:
        decision_class: `workflow/step`.
        state: what happened last (`learned`, `drift`, `frozen`, `thawed`, `reset`); empty before anything has.
        threshold: the learned one, None while it learns.
        frozen: the one that a person has fixed, None without.
        version: the position of the entry that set it; 0 before anything has.
        since: the moment (store time, us) from which on cases count.
        cases, wrong: the evidence: drawn cases from the threshold upwards, and how many were wrong.
        error, confidence: what is promised of the learned threshold; a confidence of 0: in the mean.
        by, reason, at: who or what set it, why, and when (store time, s).
    """

    decision_class: str
    state: str = ""
    threshold: float | None = None
    frozen: float | None = None
    version: int = 0
    since: int = 0
    cases: int = 0
    wrong: int = 0
    error: float = 0.0
    confidence: float = 0.0
    by: str = ""
    reason: str = ""
    at: float = 0.0

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Standing:
        """The standing of a table's row."""
        fields: dict[str, Any] = {name: None if row[name] < 0 else float(row[name]) for name in ("threshold", "frozen")}
        fields |= {name: row[name] for name in ("state", "version", "since", "cases", "wrong", "reason", "at")}
        fields |= {name: float(row[name]) for name in ("error", "confidence")}
        return cls(row["class"], by=row["by_whom"], **fields)

    def learned(self, learning: Learning) -> float | None:
        """The learned threshold, where it was certified for what is declared now, or for more."""
        enough = self.error <= learning.error and self.confidence >= learning.promised
        return self.threshold if enough else None

    def in_force(self, learning: Learning, default: float) -> tuple[float, str]:
        """The threshold that counts, and why: `frozen`, `learned` or `learning`.

        Args:
            learning: as declared. default: the workflow's or workspace's threshold.
        """
        if self.frozen is not None:
            return self.frozen, "frozen"
        learned = self.learned(learning)
        return (safe_threshold(learning, default), "learning") if learned is None else (learned, "learned")

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class ThresholdsProjection:
    """The `thresholds` table: one row a class of decisions."""

    table = "thresholds"
    key_columns: Sequence[str] = ("class",)
    kinds = frozenset({kinds.THRESHOLD})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Set the class's threshold, or begin anew."""
        body, state = entry.body, str(entry.body["state"])
        fields: dict[str, Any] = {"state": state, "version": entry.n, "at": entry.at, "by_whom": str(body["by"])}
        fields["reason"] = str(body.get("reason") or "")
        if state == "frozen":
            fields["frozen"] = float(body["threshold"])
        elif state == "thawed":
            fields["frozen"] = -1.0
        else:
            fields |= {"cases": int(body.get("cases") or 0), "wrong": int(body.get("wrong") or 0)}
            fields |= {name: float(body.get(name) or 0.0) for name in ("error", "confidence")}
            fields["threshold"] = float(body["threshold"]) if state == "learned" else -1.0
            if state != "learned":
                fields |= {"since": moment(entry), "frozen": -1.0}
        yield Delta((str(body["class"]),), set=fields)


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases whose confidence lies in [low, high): how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence can be believed.

    Attributes:
        count: cases. accuracy: share that was right. confidence: mean confidence.
        ece: expected calibration error, the mean distance of confidence and accuracy over the bins, weighted by
            cases (Naeini, Cooper and Hauskrecht, AAAI 2015).
        mce: the largest such distance.
        brier: mean squared error of the confidence (Brier, Monthly Weather Review 78, 1950).
        bins: the bins that hold cases, the lowest first.
    """

    count: int
    accuracy: float
    confidence: float
    ece: float
    mce: float
    brier: float
    bins: tuple[Bin, ...]

    def as_dict(self) -> dict[str, Json]:
        """All figures, with the bins as a list."""
        figures = {name: getattr(self, name) for name in self.__slots__ if name != "bins"}
        return figures | {"bins": [one.as_dict() for one in self.bins]}


def calibration(pairs: Iterable[tuple[float, bool]], bins: int = 10) -> Calibration | None:
    """The calibration of confidences against what turned out.

    Args:
        pairs: confidence in [0, 1], and whether the result was right.
        bins: how many equally wide bins; the last one holds 1.0 too.

    Returns:
        None when there are no pairs: nothing can be said.

    Raises:
        ValueError: a confidence lies outside [0, 1], or there is no bin.
    """
    cases = list(pairs)
    if bins < 1:
        raise ValueError("calibration needs at least one bin")
    if not cases:
        return None
    sorted_in: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, correct in cases:
        if not 0 <= confidence <= 1:
            raise ValueError(f"a confidence lies between 0 and 1, not {confidence}")
        sorted_in[min(int(confidence * bins), bins - 1)].append((confidence, correct))
    found = tuple(
        Bin(
            at / bins,
            (at + 1) / bins,
            len(held),
            sum(confidence for confidence, _ in held) / len(held),
            sum(correct for _, correct in held) / len(held),
        )
        for at, held in enumerate(sorted_in)
        if held
    )
    gaps = [(abs(one.confidence - one.accuracy), one.count) for one in found]
    count = len(cases)
    return Calibration(
        count=count,
        accuracy=sum(correct for _, correct in cases) / count,
        confidence=sum(confidence for confidence, _ in cases) / count,
        ece=sum(gap * weight for gap, weight in gaps) / count,
        mce=max(gap for gap, _ in gaps),
        brier=sum((confidence - correct) ** 2 for confidence, correct in cases) / count,
        bins=found,
    )
