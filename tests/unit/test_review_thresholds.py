"""A learned threshold counts for what it was certified for; calibration says how far a confidence can be believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core.errors import InputRejected
from tightship.effects.frame import Learning
from tightship.review import Outcome, Standing, calibration, outcome_of


def test_what_is_certified_for_less_does_not_count_for_more() -> None:
    standing = Standing("support/respond", "learned", 0.65, error=0.1, confidence=0.95)
    assert standing.in_force(Learning("support/respond", 0.1), 0.8) == (0.65, "learned")
    assert standing.in_force(Learning("support/respond", 0.2, 0.9), 0.8) == (0.65, "learned")
    assert standing.in_force(Learning("support/respond", 0.05), 0.8) == (0.95, "learning")
    assert standing.in_force(Learning("support/respond", 0.1, 0.99), 0.8) == (0.9, "learning")
    assert standing.in_force(Learning("support/respond", 0.1, guarantee="mean"), 0.8) == (0.65, "learned")
    in_the_mean = replace(standing, confidence=0.0)
    assert in_the_mean.in_force(Learning("support/respond", 0.1, guarantee="mean"), 0.8) == (0.65, "learned")
    assert in_the_mean.in_force(Learning("support/respond", 0.1), 0.8) == (0.9, "learning")
    assert replace(standing, frozen=0.9).in_force(Learning("support/respond", 0.05), 0.8) == (0.9, "frozen")


@pytest.mark.parametrize(
    ("decision", "correct"),
    [("approve", True), ("edit", False), ("reject", False), ("expired", None), ("withdrawn", None), ("answer", None)],
)
def test_people_s_decisions_say_what_was_right(decision: str, correct: bool | None) -> None:
    outcome = outcome_of(decision, 0.7, decision_class="support/respond", run="r-1", by="nora", at=5.0)
    assert (None if outcome is None else outcome.correct) == correct
    if outcome is not None:
        assert Outcome.from_dict(outcome.as_dict()) == outcome


@pytest.mark.parametrize(
    "data", [{}, {"confidence": 1.1, "correct": True}, {"confidence": 0.5, "correct": 1}, {"confidence": "high"}]
)
def test_an_outcome_that_says_nothing_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InputRejected):
        Outcome.from_dict(data)


def test_figures_of_a_known_example() -> None:
    pairs = [(0.95, True), (0.95, True), (0.95, False), (0.95, False), (0.55, True), (0.55, False), (1.0, True)]
    found = calibration(pairs)
    assert found is not None
    assert [(one.low, one.count, one.accuracy) for one in found.bins] == [(0.5, 2, 0.5), (0.9, 5, 0.6)]
    assert found.ece == pytest.approx((2 * 0.05 + 5 * 0.36) / 7)
    assert found.mce == pytest.approx(0.36)
    assert found.accuracy == pytest.approx(4 / 7)
    assert found.brier == pytest.approx((2 * 0.0025 + 2 * 0.9025 + 0.2025 + 0.3025) / 7)
    assert found.as_dict()["bins"][0]["count"] == 2


def test_nothing_can_be_said_without_cases_and_nonsense_is_refused() -> None:
    assert calibration([]) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibration([(1.5, True)])
    with pytest.raises(ValueError, match="at least one bin"):
        calibration([(0.5, True)], bins=0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 20))
def test_figures_stay_within_their_meaning(pairs: list[tuple[float, bool]], bins: int) -> None:
    found = calibration(pairs, bins)
    assert found is not None
    assert sum(one.count for one in found.bins) == found.count == len(pairs)
    assert 0 <= found.ece <= found.mce + 1e-9 <= 1 + 2e-9
    assert abs(found.accuracy - found.confidence) <= found.ece + 1e-9
    for one in found.bins:
        assert one.low - 1e-9 <= one.confidence <= one.high + 1e-9


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_source_that_is_right_as_often_as_it_says_has_no_error(right: int, wrong: int) -> None:
    confidence = right / (right + wrong)
    found = calibration([(confidence, True)] * right + [(confidence, False)] * wrong)
    assert found is not None
    assert found.ece == pytest.approx(0, abs=1e-9)
