"""How a class of decisions learns its threshold from people's decisions, under a stated bound on errors.

**What is promised.** `guarantee: always`: with probability `confidence`, at every moment until the next drift or
reset, of the cases that the learned threshold in force releases a share of at most `error` is wrong. `guarantee: mean`:
that share is at most `error` in the mean over the cases that may have been drawn; it lets more pass, and in about half
of all classes the true share lies somewhat above the bound.

**How.** Each case of the class is drawn for a person with the same probability, whatever its confidence is: `sample`
while the class learns, then less and less down to `audit`. Drawn cases are a fair sample of all cases, which the cases
below a threshold are not; only they count.

`Certifier`: for each candidate threshold the evidence that the cases from it upwards keep the bound
(`evidence.log_evidence`) may be looked at after every decision. Candidates are tested from a start downwards, each only
after the one above it (fixed-sequence testing as in A. Angelopoulos, S. Bates, E. Candès, M. Jordan and L. Lei, "Learn
then test", Annals of Applied Statistics 19, 2025); the permitted probability of a mistake is split between the starts.
A threshold that breaks the bound can then be certified only when the first such one of a start's sequence is, so
testing many costs nothing.

`MeanBound`: at fixed numbers of drawn cases the threshold is the lowest from which upwards every candidate has wrong
cases of at most `error` of its own, one more counted as wrong (A. Angelopoulos, S. Bates, A. Fisch, L. Lei and
T. Schuster, "Conformal risk control", ICLR 2024, with its way to make a loss monotone that is not: for such a loss the
bound is reached as cases grow, and is not exact for few).

**What it rests on.** Cases of the class are exchangeable between two drifts. A person's decision is the truth: approved
is right, edited or rejected is wrong, and so is a drawn case that nobody decided in time. Drawn cases count in the
order in which they were drawn, so that easy ones that are decided sooner weigh no more; a case that was withdrawn with
its run is left out. Errors among released cases are seen by the audit alone, so `audit` is never 0.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tightship.core.ports import Json
from tightship.effects.frame import Learning
from tightship.review.evidence import Alarm, log_evidence

CANDIDATES: Final = tuple(step / 100 for step in range(100))
"""Thresholds that may be learned."""
EXPLORED: Final = 50
"""A class that has learned draws so many cases in the time in which their number doubles: often first, then seldom."""
_HIGH, _LOW = 99, 70
FIRST_LOOK: Final = 100
"""Drawn cases at which a bound in the mean is looked at first."""
NEXT_LOOK: Final = 1.1
"""By which factor there are more of them at each further look."""


def starts(error: float) -> dict[int, float]:
    """Where sequences of candidates start (hundredths), with the share of the permitted mistakes that each may use.

    From `1 - error` upwards a calibrated confidence keeps the bound; a higher start serves a source that is too sure of
    itself, a lower one a source that never is.
    """
    usual = max(_LOW + 1, min(_HIGH - 1, round(100 * (1 - error))))
    return {_HIGH: 0.2, usual: 0.6, _LOW: 0.2}


def draw_share(learning: Learning, learns: bool, drawn: int) -> float:
    """The probability with which the next case is drawn, whatever its confidence is.

    Args:
        learning: as declared. learns: no threshold is certified. drawn: cases that were drawn and decided since
            the last drift: while they are few, further ones still teach much.
    """
    if learns:
        return learning.sample
    return min(1.0, max(learning.audit, min(learning.sample, EXPLORED / max(1, drawn))))


def safe_threshold(learning: Learning, default: float) -> float:
    """What counts until a threshold is certified: a calibrated confidence from there on is wrong as seldom as allowed.

    Args:
        learning: as declared. default: the workflow's or workspace's threshold.
    """
    return max(default, round(1 - learning.error, 6))


class Certifier:
    """Which thresholds are certified by the drawn cases so far.

    Args:
        error: the bound on the share of released cases that are wrong.
        confidence: the probability with which it holds.
    """

    def __init__(self, error: float, confidence: float) -> None:
        self.error = error
        self._starts = starts(error)
        self._enough = {start: -math.log((1 - confidence) * share) for start, share in self._starts.items()}
        self._fewest: dict[int, list[int]] = {start: [] for start in self._starts}
        self._cases = [0] * len(CANDIDATES)
        self._wrong = [0] * len(CANDIDATES)
        self._passed = {start: [False] * len(CANDIDATES) for start in self._starts}
        self._lowest = 1.0
        """The lowest confidence of a right case: a threshold lies no lower, where nothing was ever seen."""
        self.cases = 0

    def see(self, confidence: float, correct: bool) -> None:
        """Take a drawn case into account.

        Args:
            confidence: in [0, 1]. correct: what the person's decision says.
        """
        self.cases += 1
        if correct:
            self._lowest = min(self._lowest, confidence)
        for number, threshold in enumerate(CANDIDATES):
            if threshold > confidence:
                break
            self._cases[number] += 1
            self._wrong[number] += not correct
            if correct:  # an error takes evidence away
                for start, passed in self._passed.items():
                    if number <= start and not passed[number]:
                        passed[number] = self._cases[number] >= self._needed(start, self._wrong[number])

    def _needed(self, start: int, wrong: int) -> int:
        """The fewest cases that are enough with so many wrong ones: a further right case only adds to the evidence."""
        fewest = self._fewest[start]
        while len(fewest) <= wrong:
            cases = max(fewest[-1] if fewest else 1, len(fewest))
            while log_evidence(cases, len(fewest), self.error) < self._enough[start]:
                cases += 1
            fewest.append(cases)
        return fewest[wrong]

    @property
    def threshold(self) -> float | None:
        """The lowest certified threshold, or None."""
        found: list[int] = []
        for start, passed in self._passed.items():
            at = start
            while at >= 0 and passed[at]:
                at -= 1
            if at < start:
                found.append(max(at + 1, min(start, int(self._lowest * 100))))
        return CANDIDATES[min(found)] if found else None

    def counts(self, threshold: float) -> tuple[int, int]:
        """Of the drawn cases from a candidate upwards: how many, and how many of them were wrong."""
        number = min(range(len(CANDIDATES)), key=lambda one: abs(CANDIDATES[one] - threshold))
        return self._cases[number], self._wrong[number]


class MeanBound:
    """The threshold that keeps a bound in the mean, as of the last look at the drawn cases.

    Args:
        error: the bound on the share of released cases that are wrong.
    """

    def __init__(self, error: float) -> None:
        self._error = error
        self._told = [0] * len(CANDIDATES)
        self._wrong = [0] * len(CANDIDATES)
        """Drawn cases, and wrong ones, by the highest candidate that releases them."""
        self._next = FIRST_LOOK
        self._lowest = 1.0
        self._looked: tuple[float, int, int] | None = None
        self.cases = 0

    def see(self, confidence: float, correct: bool) -> None:
        """Take a drawn case into account.

        Args:
            confidence: in [0, 1]. correct: what the person's decision says.
        """
        self.cases += 1
        number = bisect_right(CANDIDATES, confidence) - 1
        self._told[number] += 1
        if correct:
            self._lowest = min(self._lowest, confidence)
        else:
            self._wrong[number] += 1
        if self.cases >= self._next:
            self._next = math.ceil(self.cases * NEXT_LOOK)
            self._looked = self._look()

    def _look(self) -> tuple[float, int, int] | None:
        """The lowest candidate from which upwards all keep the bound, with its cases; the top has too few."""
        found: tuple[float, int, int] | None = None
        cases = wrong = 0
        for number in range(len(CANDIDATES) - 1, -1, -1):
            if found is not None and number < int(self._lowest * 100):
                break  # nothing was ever seen there
            cases, wrong = cases + self._told[number], wrong + self._wrong[number]
            if wrong + 1 - self._error <= self._error * cases:
                found = (CANDIDATES[number], cases, wrong)
            elif found is not None or cases * self._error > 3 * (1 - self._error):
                break
        return found

    @property
    def threshold(self) -> float | None:
        """The threshold, or None where nothing keeps the bound."""
        return None if self._looked is None else self._looked[0]

    def counts(self, threshold: float) -> tuple[int, int]:
        """Of the drawn cases from the threshold upwards, at the last look: how many, and how many were wrong."""
        return (0, 0) if self._looked is None or self._looked[0] != threshold else self._looked[1:]


@dataclass(frozen=True, slots=True)
class Case:
    """A drawn case that was decided. `held`: the learned threshold it was held against; None while there was none."""

    confidence: float
    correct: bool
    held: float | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What follows from the cases: another threshold, or none any more (`drift`).

    Attributes:
        state: `learned` or `drift`.
        threshold: the certified one; None on a drift.
        cases, wrong: the evidence: drawn cases from the threshold upwards, and how many were wrong.
    """

    state: str
    threshold: float | None
    cases: int
    wrong: int

    def as_dict(self) -> dict[str, Json]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Learner:
    """One class of decisions between two drifts: certifies thresholds, and watches the one in force."""

    def __init__(self, learning: Learning) -> None:
        self._in_the_mean = learning.guarantee == "mean"
        self._certifier = (
            MeanBound(learning.error) if self._in_the_mean else Certifier(learning.error, learning.confidence)
        )
        self._alarm = Alarm(learning.error)

    @property
    def cases(self) -> int:
        """Drawn cases so far."""
        return self._certifier.cases

    def see(self, cases: Iterable[Case]) -> None:
        """Take cases into account, in the order in which they were drawn."""
        for case in cases:
            self._certifier.see(case.confidence, case.correct)
            if case.held is not None and case.confidence >= case.held and not self._alarm.raised:
                self._alarm.see(case.correct)

    def lesson(self, in_force: float | None) -> Lesson | None:
        """What follows from the cases, or None when all stays as it is.

        Args:
            in_force: the learned threshold that counts now, or None while there is none.
        """
        if self._alarm.raised:
            return Lesson("drift", None, self._alarm.cases, self._alarm.wrong)
        found = self._certifier.threshold
        if found == in_force or (in_force is not None and not self._in_the_mean and (found or 1.0) >= in_force):
            return None
        if found is None:  # what was seen since speaks against every threshold
            return Lesson("drift", None, self._alarm.cases, self._alarm.wrong)
        return Lesson("learned", found, *self._certifier.counts(found))
