"""Two samples of one distribution are taken for different ones as rarely as is said, and others are told apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.runtime.drift import Observation, compare
from tightship.runtime.samples import change_point, compare_categories, compare_numbers, holm

NUMBERS = st.lists(st.floats(-100, 100, allow_nan=False).map(lambda one: round(one, 1)), min_size=8, max_size=25)


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS)
def test_a_comparison_is_a_probability_and_a_share_and_does_not_depend_on_scale(
    first: list[float], second: list[float]
) -> None:
    test = compare_numbers(first, second, 199, "s")
    assert 0 < test.p <= 1 and 0 <= test.effect <= 1
    assert compare_numbers([10 * one for one in first], [10 * one for one in second], 199, "s") == test
    assert compare_numbers(first, first, 199, "s").effect == 0
    words = compare_categories([str(one) for one in first], [str(one) for one in second], 199, "s")
    assert 0 < words.p <= 1 and 0 <= words.effect <= 1 + 1e-9


def test_the_statistic_is_that_of_kolmogorov_and_smirnov() -> None:
    assert compare_numbers([1, 2, 3, 4], [3, 4, 5, 6], 99, "s").effect == pytest.approx(0.5)
    assert compare_numbers([1, 1, 2, 2], [2, 2, 3, 3], 99, "s").effect == pytest.approx(0.5)  # ties count at once
    assert compare_categories(["a"] * 8 + ["b"] * 2, ["a"] * 5 + ["b"] * 5, 99, "s").effect == pytest.approx(0.3)


def test_p_is_that_of_all_permutations() -> None:
    """Of the 70 ways to take 4 of 8, two are as extreme as 4 low and 4 high ones."""
    found = [compare_numbers([1, 2, 3, 4], [5, 6, 7, 8], 9999, str(seed)).p for seed in range(30)]
    assert sum(found) / len(found) == pytest.approx(2 / 70, rel=0.15)


@given(st.dictionaries(st.text(max_size=3), st.floats(0.0001, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_the_order(values: dict[str, float]) -> None:
    adjusted = holm(values)
    assert all(values[name] <= adjusted[name] <= 1 for name in values)
    order = sorted(values, key=lambda name: (values[name], name))
    assert [adjusted[name] for name in order] == sorted(adjusted.values())
    assert adjusted[order[0]] == min(1.0, len(values) * values[order[0]])


@given(st.integers(5, 40), st.integers(5, 40))
def test_a_change_is_found_where_it_began(before: int, after: int) -> None:
    assert change_point([1.0] * before + [9.0] * after, 0) == before


def one_run(chance: random.Random, number: int, drift: float = 0.0) -> Observation:
    topic = chance.choices(["order", "refund", "other"], [6 - 4 * drift, 3 + 4 * drift, 1])[0]
    values = {
        "output.topic": topic,
        "output.amount": chance.lognormvariate(3 + drift, 0.5),
        "length of output.text": float(chance.randint(40, 200)),
        "tokens in": float(chance.randint(300, 900)),
        "calls": float(chance.choice([1, 1, 1, 2])),
        "repairs": float(chance.random() < 0.05),
        "ends": "answers" if chance.random() < 0.97 else "DataMissing",
        "tools": "orders.get",
    }
    return Observation(f"r-{number}", float(number), values)


def check(seed: int, drift: float, level: float) -> list[str]:
    chance = random.Random(seed)
    base = [one_run(chance, number) for number in range(40)]
    recent = [one_run(chance, 40 + number, drift if number >= 10 else 0.0) for number in range(40)]
    return [one.feature for one in compare("agent:a", base, recent, level=level, effect=0.0).changes]


def test_false_alarms_are_as_rare_as_is_said() -> None:
    """60 checks of what has not changed at a level of 10 %: the chance of more than 15 alarms is below 1 in 1000."""
    assert sum(bool(check(seed, 0.0, 0.1)) for seed in range(60)) <= 15


def test_what_has_changed_is_told_with_since_when_and_the_runs_that_show_it() -> None:
    assert all({"output.topic", "output.amount"} & set(check(seed, 1.0, 0.01)) for seed in range(4))
    chance = random.Random(3)
    base = [one_run(chance, number) for number in range(60)]
    recent = [one_run(chance, 60 + number, 1.0 if number >= 20 else 0.0) for number in range(60)]
    report = compare("agent:a", base, recent)
    changes = {one.feature: one for one in report.changes}
    amount = changes["output.amount"]
    assert 72 <= amount.since <= 88 and amount.p <= 0.01 and amount.effect >= 0.1
    assert amount.runs and all(int(run[2:]) >= amount.since for run in amount.runs)
    assert compare("agent:a", base, recent) == report  # chance is drawn from the names: the same check, the same result


def test_too_few_runs_say_nothing() -> None:
    chance = random.Random(1)
    few = [one_run(chance, number) for number in range(10)]
    assert "30 of each are needed" in compare("agent:a", few, few).missing
