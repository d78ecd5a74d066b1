"""A raw confidence is mapped to one that can be believed, where recorded outcomes support that."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.agents.offline.calibration import expected_calibration_error, reliability
from tightship.core.errors import LoadError
from tightship.review.calibrating import FEWEST, fit_scaling, in_the_large, read_outcomes, spiegelhalter


def outcomes(count: int, seed: int = 0, power: float = 1.0) -> list[tuple[float, bool]]:
    """Confidences that are right with their own value to a power."""
    chance = random.Random(seed)
    return [(said, chance.random() < said**power) for said in (chance.random() for _ in range(count))]


def calibration_error(pairs: list[tuple[float, bool]]) -> float:
    return expected_calibration_error(reliability([said for said, _ in pairs], [right for _, right in pairs]))


def test_an_overconfident_source_is_brought_down_to_what_it_is_worth() -> None:
    fitted = fit_scaling(outcomes(1000, power=3.0))
    assert fitted.scaling is not None and fitted.outcomes == 1000
    fresh = outcomes(4000, seed=1, power=3.0)
    assert calibration_error(fresh) > 0.2
    assert calibration_error([(fitted.scaling(said), right) for said, right in fresh]) < 0.05


@given(st.integers(0, 20))
@settings(max_examples=10, deadline=None)
def test_the_order_of_cases_stays(seed: int) -> None:
    scaling = fit_scaling(outcomes(300, seed)).scaling
    if scaling is not None:
        mapped = [scaling(step / 100) for step in range(101)]
        assert mapped == sorted(mapped) and mapped[0] > 0 and mapped[-1] < 1


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (outcomes(FEWEST - 1), "the fewest"),
        ([(0.9, True)] * 100, "all 100 outcomes are right"),
        ([(0.9, False)] * 100, "all 100 outcomes are wrong"),
        ([(said, number % 2 == 0) for number, (said, _) in enumerate(outcomes(400))], "no more than the mean"),
        ([(said, not right) for said, right in outcomes(400)], "no more than the mean"),
    ],
)
def test_outcomes_that_support_nothing_give_no_map(told: list[tuple[float, bool]], why: str) -> None:
    fitted = fit_scaling(told)
    assert fitted.scaling is None
    assert why in fitted.why


def test_the_two_checks_see_what_is_not_calibrated_and_let_pass_what_is() -> None:
    good = outcomes(2000)
    assert max(abs(spiegelhalter(good)), abs(in_the_large(good))) < 2.6
    assert abs(in_the_large(outcomes(2000, power=2.0))) > 5  # all too high
    apart = [(0.98 if said > 0.5 else 0.02, right) for said, right in good]
    assert abs(spiegelhalter(apart)) > 5  # too far apart


def test_outcomes_are_read_with_the_line_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    path.write_text('{"confidence": 0.8, "correct": true, "run": "r-1"}\n\n{"confidence": 1, "correct": false}\n')
    assert read_outcomes(path) == [(0.8, True), (1.0, False)]
    for line in ('{"confidence": 1.2, "correct": true}', '{"confidence": true, "correct": true}', "x", "[]"):
        path.write_text('{"confidence": 0.8, "correct": true}\n' + line + "\n")
        with pytest.raises(LoadError) as raised:
            read_outcomes(path)
        assert raised.value.line == 2
    with pytest.raises(LoadError):
        read_outcomes(tmp_path / "nowhere.jsonl")
