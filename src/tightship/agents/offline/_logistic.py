"""Multinomial logistic regression on sparse vectors, in plain Python, always with the same result.

Stochastic gradient descent with a decaying step; few epochs stand in for a penalty (early stopping: Bishop, "Pattern
Recognition and Machine Learning", 2006, section 5.5.2).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tightship.agents.offline.calibration import softmax

Vector = Sequence[tuple[int, float]]
"""Index and value of every component that is not zero."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One row per component, one column per class."""

    rows: list[list[float]]
    bias: list[float]

    def scores(self, vector: Vector) -> list[float]:
        """The unnormalised log probability of each class."""
        total = self.bias
        for index, value in vector:
            total = [score + value * weight for score, weight in zip(total, self.rows[index], strict=True)]
        return list(total)


def fit(
    vectors: Sequence[Vector],
    truth: Sequence[int],
    *,
    components: int,
    classes: int,
    epochs: int = 4,
    step: float = 2.0,
    seed: int = 0,
) -> Weights:
    """Learn weights from vectors and the index of the class of each."""
    weights = Weights([[0.0] * classes for _ in range(components)], [0.0] * classes)
    rows, bias = weights.rows, weights.bias
    order = list(range(len(vectors)))
    chance = random.Random(seed)
    for epoch in range(epochs):
        chance.shuffle(order)
        rate = step / (1 + 0.3 * epoch)
        for position in order:
            vector = vectors[position]
            gradient = [-rate * share for share in softmax(weights.scores(vector))]
            gradient[truth[position]] += rate
            for index, value in vector:
                rows[index] = [weight + value * change for weight, change in zip(rows[index], gradient, strict=True)]
            bias[:] = [weight + 0.1 * change for weight, change in zip(bias, gradient, strict=True)]
    return weights
