"""Evidence about an error rate that may be looked at after every case: betting against a bound.

A sequence of cases is right or wrong. The evidence is the capital of a gambler who bets against a hypothesis about the
error rate at fair odds: while the hypothesis holds, the capital grows beyond a factor c with a probability of at most
1/c, over all time and however often one looks (J. Ville, "Etude critique de la notion de collectif", 1939). Bets on
bounded means: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86,
2024. For right and wrong the capital is a mixture of likelihood ratios, so it depends on two counts alone.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

_LOWER: Final = ((0.0, 0.1), (0.35, 0.2), (0.6, 0.4), (0.8, 0.3))
"""Error rates that are bet on, as shares of the bound, each with its share of the gambler's capital."""
_HIGHER: Final = (1.5, 2.0, 4.0, 8.0)
"""The same, when the bet is that the bound is passed."""
_MOST: Final = 0.95


def log_evidence(cases: int, wrong: int, bound: float) -> float:
    """The logarithm of the evidence that the error rate lies below a bound.

    Args:
        cases: how many were judged. wrong: how many of them were wrong.
        bound: an error rate in (0, 1).

    Raises:
        ValueError: a count or the bound is none.
    """
    if not 0 <= wrong <= cases or not 0 < bound < 1:
        raise ValueError(f"{wrong} wrong of {cases} cases at a bound of {bound} is no evidence")
    right = cases - wrong
    odds = _odds(bound)
    terms = [put + right * won + (wrong * lost if wrong else 0.0) for put, won, lost in (odds[1:] if wrong else odds)]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


@lru_cache(maxsize=256)
def _odds(bound: float) -> tuple[tuple[float, float, float], ...]:
    """What is put on each bet, and what it gains on a right case and loses on a wrong one, as logarithms; the first
    ends on a wrong one."""
    rates = [(put, share * bound) for share, put in _LOWER]
    return tuple(
        (math.log(put), math.log((1 - rate) / (1 - bound)), math.log(rate / bound) if rate else -math.inf)
        for put, rate in rates
    )


class Alarm:
    """Notices when an error rate has passed a bound, at whatever case that begins.

    A Shiryaev-Roberts e-detector (J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for
    sequential change detection", New England Journal of Statistics in Data Science 2, 2024): while the error rate
    stays within the bound, the mean number of cases to a false alarm is at least `patience`.

    Args:
        bound: the error rate that must not be passed, in (0, 1).
        patience: cases.
    """

    __slots__ = ("_levels", "_odds", "cases", "patience", "wrong")

    def __init__(self, bound: float, patience: float = 1000.0) -> None:
        rates = sorted({min(share * bound, max(_MOST, (1 + bound) / 2)) for share in _HIGHER})
        self._odds = [((1 - rate) / (1 - bound), rate / bound) for rate in rates]
        self._levels = [0.0] * len(rates)
        self.patience = patience
        self.cases = 0
        self.wrong = 0

    @property
    def level(self) -> float:
        """The evidence that the bound was passed."""
        return sum(self._levels) / len(self._levels)

    @property
    def raised(self) -> bool:
        """Whether it is enough."""
        return self.level >= self.patience

    def see(self, correct: bool) -> bool:
        """Take a judged case into account. Returns whether the alarm is raised."""
        self.cases += 1
        self.wrong += not correct
        self._levels = [
            min((level + 1) * odds[not correct], 1e300) for level, odds in zip(self._levels, self._odds, strict=True)
        ]
        return self.raised
