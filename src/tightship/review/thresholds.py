"""Confidence thresholds per class of decision, as the log gives them: learned, frozen by a person, or reset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightship.core import kinds
from tightship.core.ports import Delta, EntryView, Json
from tightship.effects.frame import Learning
from tightship.review.inbox import moment
from tightship.review.learning import safe_threshold


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
