"""How far stated probabilities can be believed: fitting and measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def softmax(scores: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Scores as probabilities; a temperature above 1 makes them less sure."""
    top = max(scores)
    weights = [math.exp((score - top) / temperature) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def log_loss(scores: Sequence[Sequence[float]], truth: Sequence[int], temperature: float = 1.0) -> float:
    """The mean negative log probability (nats) of the true class."""
    total = 0.0
    for row, index in zip(scores, truth, strict=True):
        total -= math.log(max(softmax(row, temperature)[index], 1e-12))
    return total / max(len(truth), 1)


def fit_temperature(scores: Sequence[Sequence[float]], truth: Sequence[int]) -> float:
    """The temperature that makes held-out scores most probable.

    Temperature scaling of Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017: one
    parameter, found here by golden-section search on its logarithm between 1/20 and 20. The order of the classes stays.
    """
    low, high = math.log(0.05), math.log(20.0)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = log_loss(scores, truth, math.exp(left)), log_loss(scores, truth, math.exp(right))
    while high - low > 1e-3:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = log_loss(scores, truth, math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = log_loss(scores, truth, math.exp(right))
    return math.exp((low + high) / 2)


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions whose confidence lay in [low, high): how many, their mean confidence, the share that was right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[Bin]:
    """Confidence against accuracy in bins of equal width; empty bins are left out."""
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for confidence, correct in zip(confidences, right, strict=True):
        members[min(int(confidence * bins), bins - 1)].append((confidence, correct))
    return [
        Bin(
            index / bins,
            (index + 1) / bins,
            len(rows),
            sum(confidence for confidence, _ in rows) / len(rows),
            sum(correct for _, correct in rows) / len(rows),
        )
        for index, rows in enumerate(members)
        if rows
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean gap between confidence and accuracy, weighted by bin (Naeini, Cooper and Hauskrecht, AAAI 2015)."""
    total = sum(row.count for row in bins)
    return sum(row.count * abs(row.confidence - row.accuracy) for row in bins) / max(total, 1)


def brier(probabilities: Sequence[Sequence[float]], truth: Sequence[int]) -> float:
    """The mean squared distance to the true class, 0 (sure and right) to 2 (sure and wrong).

    The multi-class score of Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78(1), 1950.
    """
    total = 0.0
    for row, index in zip(probabilities, truth, strict=True):
        total += sum((value - (position == index)) ** 2 for position, value in enumerate(row))
    return total / max(len(truth), 1)


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (E. B. Wilson, JASA 22, 1927); 95 % by default."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)
