"""What learning a threshold promises, as arithmetic: evidence that may be looked at always, and alarms that are rare."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.effects.frame import Learning
from tightship.review.evidence import Alarm, log_evidence
from tightship.review.learning import (
    CANDIDATES,
    FIRST_LOOK,
    Case,
    Certifier,
    Learner,
    MeanBound,
    draw_share,
    safe_threshold,
    starts,
)

BOUNDS = st.floats(0.01, 0.5)


@given(BOUNDS, st.integers(0, 300), st.data())
def test_evidence_is_a_fair_bet_at_the_bound(bound: float, cases: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, cases))
    now = math.exp(log_evidence(cases, wrong, bound))
    after_wrong = math.exp(log_evidence(cases + 1, wrong + 1, bound))
    after_right = math.exp(log_evidence(cases + 1, wrong, bound))
    assert bound * after_wrong + (1 - bound) * after_right == pytest.approx(now, rel=1e-9)
    assert after_wrong <= now <= after_right  # so above the bound it is a losing bet


@given(BOUNDS, st.floats(0, 1), st.sampled_from([4.0, 20.0, 80.0]))
@settings(max_examples=10, deadline=None)
def test_above_the_bound_it_ever_passes_a_limit_as_seldom_as_promised(bound: float, above: float, limit: float) -> None:
    rate, ever = bound + above * (1 - bound), 0.0
    alive = {0: 1.0}  # the exact distribution of wrong cases among paths that have never passed the limit
    for cases in range(1, 90):
        following: dict[int, float] = {}
        for wrong, share in alive.items():
            for more, chance in ((0, 1 - rate), (1, rate)):
                if log_evidence(cases, wrong + more, bound) >= math.log(limit):
                    ever += share * chance
                else:
                    following[wrong + more] = following.get(wrong + more, 0.0) + share * chance
        alive = following
    assert ever <= 1 / limit + 1e-9


@pytest.mark.parametrize(("cases", "wrong", "bound"), [(3, 4, 0.1), (3, -1, 0.1), (3, 1, 0.0), (3, 1, 1.0)])
def test_counts_that_cannot_be_are_refused(cases: int, wrong: int, bound: float) -> None:
    with pytest.raises(ValueError, match="no evidence"):
        log_evidence(cases, wrong, bound)


@given(BOUNDS, st.lists(st.booleans(), max_size=60))
def test_an_alarm_is_a_fair_bet_too(bound: float, told: list[bool]) -> None:
    right, wrong, now = Alarm(bound), Alarm(bound), Alarm(bound)
    for alarm in (right, wrong, now):
        for one in told:
            alarm.see(one)
    right.see(True)
    wrong.see(False)
    # Shiryaev-Roberts: the mean grows by one a case at the bound, so a false alarm takes `patience` cases in the mean
    assert bound * wrong.level + (1 - bound) * right.level == pytest.approx(now.level + 1, rel=1e-9)


def test_an_alarm_is_raised_soon_after_errors_begin() -> None:
    alarm, chance = Alarm(0.05), random.Random(1)
    for _ in range(500):
        alarm.see(chance.random() >= 0.02)
    assert not alarm.raised
    until = next(number for number in range(1, 500) if alarm.see(chance.random() >= 0.4))
    assert until < 40


cases_ = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=400)


@given(cases_)
def test_a_certified_threshold_has_an_unbroken_sequence_above_it(told: list[tuple[float, bool]]) -> None:
    certifier = Certifier(0.2, 0.9)
    for confidence, correct in told:
        certifier.see(confidence, correct)
    found = certifier.threshold
    if found is not None:
        at = CANDIDATES.index(found)
        start = min(one for one in starts(0.2) if one >= at)
        for number in range(at, start + 1):
            cases, wrong = certifier.counts(CANDIDATES[number])
            assert cases == sum(confidence >= CANDIDATES[number] for confidence, _ in told)
            assert wrong == sum(confidence >= CANDIDATES[number] and not right for confidence, right in told)


@given(cases_, st.tuples(st.floats(0, 1), st.just(False)))
def test_an_error_never_certifies_anything(told: list[tuple[float, bool]], error: tuple[float, bool]) -> None:
    certifier = Certifier(0.2, 0.9)
    for one in told:
        certifier.see(*one)
    before = certifier.threshold
    certifier.see(*error)
    assert certifier.threshold == before


def test_without_evidence_nothing_is_certified_and_with_enough_the_threshold_falls() -> None:
    certifier, chance = Certifier(0.1, 0.95), random.Random(3)
    assert certifier.threshold is None
    seen: list[float] = []
    for _ in range(3000):
        confidence = chance.random()
        certifier.see(confidence, chance.random() < confidence**0.25)
        if certifier.threshold is not None:
            seen.append(certifier.threshold)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.6  # calibrated as it is, from 0.47 on one of ten is wrong


@pytest.mark.parametrize(("error", "fewest"), [(0.05, 106), (0.1, 52), (0.2, 24)])
def test_the_fewest_right_cases_that_teach_anything(error: float, fewest: int) -> None:
    certifier = Certifier(error, 0.95)
    for _ in range(fewest - 1):
        certifier.see(0.975, True)
    assert certifier.threshold is None
    certifier.see(0.975, True)
    assert certifier.threshold == min(0.97, 1 - error)  # from the start, and not where nothing was ever seen


def released_wrong(threshold: float) -> float:
    """The true share of wrong cases from a threshold upwards, for uniform confidences that are right with their value."""
    return (1 - threshold) / 2


def test_a_threshold_that_breaks_the_bound_is_learned_as_seldom_as_promised() -> None:
    broken = 0
    for seed in range(100):
        certifier, chance = Certifier(0.1, 0.9), random.Random(seed)
        for _ in range(400):
            confidence = chance.random()
            certifier.see(confidence, chance.random() < confidence)
        found = certifier.threshold
        broken += found is not None and released_wrong(found) > 0.1
    assert broken <= 10  # a tenth is promised


def learned_in_the_mean(seed: int, cases: int = 1500) -> float | None:
    bound, chance = MeanBound(0.1), random.Random(seed)
    for _ in range(cases):
        confidence = chance.random()
        bound.see(confidence, chance.random() < confidence)
    return bound.threshold


def test_in_the_mean_the_released_share_of_errors_is_the_bound_and_more_is_released() -> None:
    found = [one for one in map(learned_in_the_mean, range(200)) if one is not None]
    assert len(found) > 190
    risks = [released_wrong(one) for one in found]
    assert sum(risks) / len(risks) <= 0.1
    assert sum(found) / len(found) < 0.84  # from 0.8 on one of ten is wrong
    assert any(risk > 0.1 for risk in risks)  # which is why it is not the promise of every class


@given(cases_)
def test_in_the_mean_every_threshold_above_keeps_the_bound_too(told: list[tuple[float, bool]]) -> None:
    bound = MeanBound(0.2)
    for case in told:
        bound.see(*case)
        if bound.cases == FIRST_LOOK:
            break
    found = bound.threshold
    if found is None:
        return
    seen = told[:FIRST_LOOK]
    kept = [right for confidence, right in seen if confidence >= found]
    assert bound.counts(found) == (len(kept), kept.count(False))
    assert kept.count(False) + 0.8 <= 0.2 * len(kept) + 1e-9


def test_a_bound_in_the_mean_is_looked_at_at_fixed_numbers_of_cases() -> None:
    learner, learning = Learner(IN_THE_MEAN), IN_THE_MEAN
    learner.see([Case(0.9, True)] * (FIRST_LOOK - 1))
    assert learner.lesson(None) is None
    learner.see([Case(0.9, True)])
    lesson = learner.lesson(None)
    assert lesson is not None and lesson.threshold == 0.9 and (lesson.cases, lesson.wrong) == (FIRST_LOOK, 0)
    learner.see([Case(0.9, False)] * 9)
    assert learner.lesson(0.9) is None  # and not in between
    learner.see([Case(0.9, False)] * 2)
    lesson = learner.lesson(0.9)
    assert lesson is not None and (lesson.state, lesson.threshold) == ("drift", None)
    assert learning.promised == 0.0


def test_a_threshold_in_the_mean_rises_when_errors_come() -> None:
    learner = Learner(IN_THE_MEAN)
    learner.see([Case(0.7, True), Case(0.9, True)] * (FIRST_LOOK // 2))
    lesson = learner.lesson(None)
    assert lesson is not None and lesson.threshold == 0.7
    learner.see([Case(0.7, False), Case(0.9, True)] * FIRST_LOOK)
    risen = learner.lesson(lesson.threshold)
    assert risen is not None and risen.state == "learned" and risen.threshold is not None and risen.threshold > 0.7


IN_THE_MEAN = Learning("sample/triage", error=0.1, guarantee="mean")
LEARNING = Learning("sample/triage", error=0.1)


def test_a_class_learns_then_drifts() -> None:
    learner = Learner(LEARNING)
    learner.see([Case(0.99, True)] * 100)
    learned = learner.lesson(None)
    assert learned is not None and learned.state == "learned" and learned.threshold is not None
    assert (learned.cases, learned.wrong) == (100, 0)
    assert learner.lesson(learned.threshold) is None
    learner.see([Case(0.99, False, learned.threshold)] * 10)
    drift = learner.lesson(learned.threshold)
    assert drift is not None and (drift.state, drift.threshold) == ("drift", None)


def test_errors_below_the_threshold_are_no_drift() -> None:
    learner = Learner(LEARNING)
    learner.see([Case(0.99, True)] * 100)
    learner.see([Case(0.3, False, 0.95)] * 50)
    lesson = learner.lesson(None)
    assert lesson is not None and lesson.state == "learned"


@given(st.floats(0.001, 0.5))
def test_the_starts_share_what_is_permitted(error: float) -> None:
    assert sum(starts(error).values()) == pytest.approx(1.0)
    assert len(starts(error)) == 3


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 10_000), st.booleans())
def test_audits_never_end(audit: float, sample: float, drawn: int, learns: bool) -> None:
    learning = Learning("a/b", 0.1, audit=audit, sample=sample)
    share = draw_share(learning, learns, drawn)
    assert share == sample if learns else audit <= share <= 1
    assert draw_share(learning, False, drawn + 1) <= draw_share(learning, False, drawn)


@given(st.floats(0.01, 0.5), st.floats(0, 1))
def test_until_it_has_learned_a_calibrated_confidence_keeps_the_bound(error: float, default: float) -> None:
    found = safe_threshold(Learning("a/b", error=error), default)
    assert found >= default and 1 - found <= error + 1e-6
