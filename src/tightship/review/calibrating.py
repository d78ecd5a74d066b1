"""From a raw confidence to one that can be believed: a map that is fitted on recorded outcomes and has stood a check.

Platt scaling (J. Platt, "Probabilistic outputs for support vector machines", 1999) on the logit of the raw confidence,
with his smoothed targets: two parameters, so that a hundred outcomes are enough where isotonic regression needs a
thousand (A. Niculescu-Mizil and R. Caruana, "Predicting good probabilities with supervised learning", ICML 2005). The
check is made on outcomes that the map was not fitted on: neither Cox's nor Spiegelhalter's test may reject it
(D. Spiegelhalter, "Probabilistic prediction in patient management and clinical trials", Statistics in Medicine 5,
1986), and its squared error must be below that of always saying the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from tightship.core.errors import LoadError

FEWEST: Final = 50
"""Outcomes below which nothing can be said."""
MOST: Final = 2000
"""The latest outcomes that count."""
_FOLDS: Final = 5
_REJECTED: Final = 2.576
"""Standard deviations beyond which calibration is rejected (1 %)."""
_EDGE: Final = 1e-4
Outcomes = Sequence[tuple[float, bool]]


@dataclass(frozen=True, slots=True)
class Scaling:
    """The map from a raw confidence to a calibrated one: a logistic curve over its logit."""

    slope: float
    offset: float

    def __call__(self, raw: float) -> float:
        """The calibrated confidence of a raw one in [0, 1]."""
        return _sigmoid(self.slope * _logit(raw) + self.offset)


@dataclass(frozen=True, slots=True)
class Fitted:
    """What recorded outcomes give.

    Attributes:
        scaling: the map; None where the outcomes do not support one.
        outcomes: how many there are.
        why: why there is no map; empty when there is one.
    """

    scaling: Scaling | None
    outcomes: int
    why: str = ""


def fit_scaling(outcomes: Outcomes) -> Fitted:
    """The map that recorded outcomes support, if they support one.

    Args:
        outcomes: raw confidences in [0, 1], and whether the result was right; the latest last.
    """
    kept = list(outcomes)[-MOST:]
    count, right = len(kept), sum(correct for _, correct in kept)
    if count < FEWEST:
        return Fitted(None, count, f"there are {count} outcomes, and {FEWEST} are the fewest that say anything")
    if right in (0, count):
        return Fitted(
            None, count, f"all {count} outcomes are {'right' if right else 'wrong'}, so none can be told apart"
        )
    held_out: list[tuple[float, bool]] = []
    for fold in range(_FOLDS):
        scaling = _fit([one for place, one in enumerate(kept) if place % _FOLDS != fold])
        held_out += [(scaling(raw), correct) for raw, correct in kept[fold::_FOLDS]]
    scaling = _fit(kept)
    mean = right / count
    error = sum((said - correct) ** 2 for said, correct in held_out) / count
    if scaling.slope <= 0 or error >= mean * (1 - mean):
        return Fitted(None, count, "the confidence says no more than the mean: it does not tell right from wrong")
    z = max(spiegelhalter(held_out), in_the_large(held_out), key=abs)
    if abs(z) > _REJECTED:
        return Fitted(None, count, f"held-out outcomes reject the calibration (z = {z:.1f})")
    return Fitted(scaling, count)


def spiegelhalter(pairs: Outcomes) -> float:
    """Spiegelhalter's statistic of calibration, normal with mean 0 and variance 1 where confidences are calibrated."""
    top = sum((correct - said) * (1 - 2 * said) for said, correct in pairs)
    variance = sum((1 - 2 * said) ** 2 * said * (1 - said) for said, _ in pairs)
    return top / math.sqrt(variance) if variance > 0 else 0.0


def in_the_large(pairs: Outcomes) -> float:
    """Whether as many were right as was said, in standard deviations (D. Cox, Biometrika 45, 1958): Spiegelhalter's
    statistic sees confidences that are too far apart or too close together, not ones that are all too high."""
    variance = sum(said * (1 - said) for said, _ in pairs)
    return sum(correct - said for said, correct in pairs) / math.sqrt(variance) if variance > 0 else 0.0


def read_outcomes(path: Path) -> list[tuple[float, bool]]:
    """Recorded outcomes: one JSON object a line, `{"confidence": 0.83, "correct": true}`; other fields may stand there.

    Raises:
        LoadError: the file cannot be read, or a line is no outcome.
    """
    fix = 'write one object a line: {"confidence": 0.83, "correct": true}'
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise LoadError(f"the outcomes cannot be read: {error.strerror}", file=str(path)) from None
    found: list[tuple[float, bool]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: Any = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise LoadError("this line is not JSON", file=str(path), line=number, fix=fix) from None
        raw, correct = (row.get("confidence"), row.get("correct")) if isinstance(row, dict) else (None, None)
        if (
            isinstance(raw, bool)
            or not isinstance(raw, int | float)
            or not 0 <= raw <= 1
            or not isinstance(correct, bool)
        ):
            raise LoadError("this line is not a recorded outcome", file=str(path), line=number, fix=fix)
        found.append((float(raw), correct))
    return found


def _fit(outcomes: Outcomes) -> Scaling:
    """Newton's method on the logarithmic loss, as in H.-T. Lin, C.-J. Lin and R. Weng, Machine Learning 68, 2007."""
    right = sum(correct for _, correct in outcomes)
    wrong = len(outcomes) - right
    high, low = (right + 1) / (right + 2), 1 / (wrong + 2)
    points = [(_logit(raw), high if correct else low) for raw, correct in outcomes]
    slope, offset = 0.0, math.log((right + 1) / (wrong + 1))
    best = _loss(points, slope, offset)
    for _ in range(50):
        g_slope = g_offset = 0.0
        h_slope = h_offset = 1e-9
        h_both = 0.0
        for x, target in points:
            said = _sigmoid(slope * x + offset)
            gap, weight = said - target, said * (1 - said)
            g_slope, g_offset = g_slope + gap * x, g_offset + gap
            h_slope, h_offset, h_both = h_slope + weight * x * x, h_offset + weight, h_both + weight * x
        if abs(g_slope) < 1e-6 and abs(g_offset) < 1e-6:
            break
        determinant = h_slope * h_offset - h_both * h_both
        d_slope = -(h_offset * g_slope - h_both * g_offset) / determinant
        d_offset = -(h_slope * g_offset - h_both * g_slope) / determinant
        step = 1.0
        while step > 1e-9:
            loss = _loss(points, slope + step * d_slope, offset + step * d_offset)
            if loss < best:
                slope, offset, best = slope + step * d_slope, offset + step * d_offset, loss
                break
            step /= 2
        else:
            break
    return Scaling(slope, offset)


def _loss(points: Sequence[tuple[float, float]], slope: float, offset: float) -> float:
    total = 0.0
    for x, target in points:
        score = slope * x + offset
        total += max(score, 0.0) - target * score + math.log1p(math.exp(-abs(score)))
    return total


def _logit(share: float) -> float:
    share = min(max(share, _EDGE), 1 - _EDGE)
    return math.log(share / (1 - share))


def _sigmoid(score: float) -> float:
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    grown = math.exp(score)
    return grown / (1 + grown)
