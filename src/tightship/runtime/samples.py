"""Whether two samples come from one distribution: permutation tests, their effect sizes, and where a change began.

Sources: P. Good, "Permutation Tests" (2000); R. Fisher, "The Logic of Inductive Inference" (1935), the exact test; J.
Besag and P. Clifford, "Sequential Monte Carlo p-values" (1991); S. Holm, "A simple sequentially rejective multiple test
procedure" (1979); A. Pettitt, "A non-parametric approach to the change-point problem" (1979).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ENOUGH_EXCEEDED: Final = 20
"""A permutation test ends once so many permutations were as extreme as the sample: p is known well enough then."""
FEWEST_PERMUTATIONS: Final = 999
DECILES: Final = 10

Statistic = Callable[[Sequence[int]], float]
"""The statistic of a choice: which of the pooled values (by index) are taken for the first sample."""


@dataclass(frozen=True, slots=True)
class Test:
    """The result of one test: the p-value, and how large the difference is (0 to 1)."""

    p: float
    effect: float


def compare_categories(first: Sequence[str], second: Sequence[str], permutations: int, seed: str) -> Test:
    """Pearson's chi-square of two samples of categories; p by permutation, so it is exact however few there are.

    The effect is the total variation distance: the share of cases that would have to change.
    """
    pooled, size = [*first, *second], len(first)
    counts = Counter(pooled)
    if len(counts) < 2:
        return Test(1.0, 0.0)
    total = len(pooled)
    expected = {name: count * size / total for name, count in counts.items()}
    spread = {name: count * size * (total - size) / total**2 for name, count in counts.items()}

    def statistic(chosen: Sequence[int]) -> float:
        seen = Counter(pooled[index] for index in chosen)
        return sum((seen[name] - expected[name]) ** 2 / spread[name] for name in counts)

    ours, theirs = Counter(first), Counter(second)
    distance = sum(abs(ours[name] / len(first) - theirs[name] / len(second)) for name in counts) / 2
    return Test(_p_value(statistic, size, total, permutations, seed), distance)


def compare_numbers(first: Sequence[float], second: Sequence[float], permutations: int, seed: str) -> Test:
    """The two-sample statistic of Kolmogorov and Smirnov; p by permutation, so ties do no harm.

    The effect is the statistic itself: the largest difference between the two distribution functions.
    """
    pooled, size = [*first, *second], len(first)
    total = len(pooled)
    order = sorted(range(total), key=pooled.__getitem__)
    if pooled[order[0]] == pooled[order[-1]]:
        return Test(1.0, 0.0)
    ends = [at for at in range(total) if at + 1 == total or pooled[order[at]] != pooled[order[at + 1]]]
    rank = [0] * total
    for place, index in enumerate(order):
        rank[index] = place

    def statistic(chosen: Sequence[int]) -> float:
        marks = bytearray(total)
        for index in chosen:
            marks[rank[index]] = 1
        largest, ours, begin = 0.0, 0, 0
        for end in ends:
            ours += sum(marks[begin : end + 1])
            begin = end + 1
            largest = max(largest, abs(ours / size - (begin - ours) / (total - size)))
        return largest

    return Test(_p_value(statistic, size, total, permutations, seed), statistic(range(size)))


def _p_value(statistic: Statistic, size: int, total: int, permutations: int, seed: str) -> float:
    """The share of permutations that are as extreme: valid at any level, also where the test ends early."""
    observed, chance = statistic(range(size)) - 1e-9, random.Random(seed)
    exceeded = 0
    for drawn in range(1, permutations + 1):
        exceeded += statistic(chance.sample(range(total), size)) >= observed
        if exceeded == ENOUGH_EXCEEDED:
            return exceeded / drawn
    return (exceeded + 1) / (permutations + 1)


def exact_categories(first: Sequence[str], second: Sequence[str]) -> Test:
    """Fisher's exact test of each category against all others, corrected for their number (Bonferroni).

    Its p is computed, not drawn, so it can be as small as a level that many checks share asks for. The effect is that
    of `compare_categories`.
    """
    ours, theirs = Counter(first), Counter(second)
    counts = ours + theirs
    if len(counts) < 2:
        return Test(1.0, 0.0)
    size, total = len(first), len(first) + len(second)
    tests = [_tails(ours[name], counts[name], size, total) for name in counts]
    distance = sum(abs(ours[name] / size - theirs[name] / (total - size)) for name in counts) / 2
    return Test(min(1.0, min(tests) * (1 if len(counts) == 2 else len(counts))), distance)


def exact_numbers(first: Sequence[float], second: Sequence[float]) -> Test:
    """Fisher's exact test of how many lie below each decile of all values, corrected for their number (Bonferroni).

    As `exact_categories`; the effect is the largest difference between the distribution functions at a decile.
    """
    pooled = sorted([*first, *second])
    size, total = len(first), len(pooled)
    cuts = {pooled[total * part // DECILES] for part in range(1, DECILES)} | {pooled[0]}
    cuts.discard(pooled[-1])
    if not cuts:
        return Test(1.0, 0.0)
    below = {cut: sum(one <= cut for one in first) for cut in cuts}
    both = {cut: sum(one <= cut for one in pooled) for cut in cuts}
    tests = [_tails(below[cut], both[cut], size, total) for cut in cuts]
    effect = max(abs(below[cut] / size - (both[cut] - below[cut]) / (total - size)) for cut in cuts)
    return Test(min(1.0, min(tests) * len(cuts)), effect)


def _tails(seen: int, marked: int, size: int, total: int) -> float:
    """Twice the smaller tail of the hypergeometric distribution: of `total`, `marked` are of one kind, `size` drawn."""
    ways = math.comb(total, size)
    low = range(max(0, size - (total - marked)), seen + 1)
    high = range(seen, min(marked, size) + 1)
    return min(
        1.0,
        2.0
        * min(
            sum(math.comb(marked, n) * math.comb(total - marked, size - n) for n in side) / ways for side in (low, high)
        ),
    )


def permutations_for(tests: int, level: float) -> int:
    """How many permutations it takes to be able to reject one of so many hypotheses at a level."""
    return max(FEWEST_PERMUTATIONS, math.ceil(2 * tests / level))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values adjusted for their number: any false alarm is as rare as the level, however they depend."""
    adjusted: dict[str, float] = {}
    running = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = running
    return adjusted


def change_point(values: Sequence[float], earliest: int) -> int:
    """The index at which the values most likely began to be others (the largest deviation of the rank sums).

    Args:
        earliest: the change is looked for from there on.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[order[end]] != values[order[begin]]:
            for place in range(begin, end):
                ranks[order[place]] = (begin + end - 1) / 2
            begin = end
    mean, deviation, best, found = (len(values) - 1) / 2, 0.0, -1.0, earliest
    for index in range(len(values) - 1):
        deviation += ranks[index] - mean
        if index + 1 >= earliest and abs(deviation) > best:
            best, found = abs(deviation), index + 1
    return found
