"""What held-out texts say about a classifier; `python -m tightship.agents.offline FILE` prints it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tightship.agents.offline.calibration import Bin, brier, expected_calibration_error, reliability, wilson


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One label: how many held-out texts bear it, and precision, recall and F1 on them (0 to 1)."""

    label: str
    count: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Report:
    """Figures on held-out folds.

    Attributes:
        examples: how many texts were judged.
        folds: in how many folds.
        accuracy: the share that was right, with its 95 % interval (Wilson) in `interval`.
        macro_f1: the mean F1 of the labels.
        ece: expected calibration error over ten bins of equal width, 0 to 1.
        brier: multi-class Brier score, 0 to 2.
        classes: the figures of each label.
        bins: confidence against accuracy.
        confusions: (true label, given label, how often), most frequent first.
    """

    examples: int
    folds: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    ece: float
    brier: float
    classes: tuple[ClassFigures, ...]
    bins: tuple[Bin, ...]
    confusions: tuple[tuple[str, str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return asdict(self)

    def render(self) -> str:
        """The report as lines of plain text."""
        low, high = self.interval
        lines = [
            f"held out {self.examples} texts in {self.folds} folds",
            f"accuracy  {self.accuracy:.3f}  (95 % interval {low:.3f} to {high:.3f})",
            f"macro F1  {self.macro_f1:.3f}",
            f"ECE       {self.ece:.3f}",
            f"Brier     {self.brier:.3f}",
            "",
            f"{'label':<20} {'texts':>6} {'prec.':>6} {'recall':>6} {'F1':>6}",
        ]
        lines += [f"{c.label:<20} {c.count:>6} {c.precision:>6.2f} {c.recall:>6.2f} {c.f1:>6.2f}" for c in self.classes]
        lines += ["", f"{'confidence':<12} {'texts':>6} {'stated':>7} {'right':>6}"]
        lines += [
            f"{b.low:.1f} to {b.high:.1f}   {b.count:>6} {b.confidence:>7.2f} {b.accuracy:>6.2f}" for b in self.bins
        ]
        if self.confusions:
            lines += ["", "most frequent confusions (true, given)"]
            lines += [f"{count:>4}  {true} -> {given}" for true, given, count in self.confusions[:8]]
        return "\n".join(lines)


def measure(
    labels: Sequence[str], truth: Sequence[int], probabilities: Sequence[Sequence[float]], folds: int = 0
) -> Report:
    """The figures of predictions against the truth.

    Args:
        labels: the labels in the order of the probabilities.
        truth: the index of the true label of each text.
        probabilities: for each text the probability of each label.
        folds: in how many folds the texts were held out; 0 for a separate set.
    """
    given = [max(range(len(row)), key=row.__getitem__) for row in probabilities]
    right = [a == b for a, b in zip(given, truth, strict=True)]
    pairs = Counter(zip(truth, given, strict=True))
    classes = tuple(_figures(labels, pairs, index) for index in range(len(labels)))
    bins = tuple(reliability([row[index] for row, index in zip(probabilities, given, strict=True)], right))
    wrong = sorted(((a, b, n) for (a, b), n in pairs.items() if a != b), key=lambda row: (-row[2], row[0], row[1]))
    present = [figures for figures in classes if figures.count]
    return Report(
        examples=len(truth),
        folds=folds,
        accuracy=sum(right) / max(len(right), 1),
        interval=wilson(sum(right), len(right)),
        macro_f1=sum(figures.f1 for figures in present) / max(len(present), 1),
        ece=expected_calibration_error(bins),
        brier=brier(probabilities, truth),
        classes=classes,
        bins=bins,
        confusions=tuple((labels[a], labels[b], n) for a, b, n in wrong),
    )


def _figures(labels: Sequence[str], pairs: Counter[tuple[int, int]], index: int) -> ClassFigures:
    hits = pairs[(index, index)]
    truly = sum(count for (true, _), count in pairs.items() if true == index)
    given = sum(count for (_, other), count in pairs.items() if other == index)
    precision, recall = hits / max(given, 1), hits / max(truly, 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return ClassFigures(labels[index], truly, precision, recall, f1)
