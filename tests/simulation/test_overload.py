"""Ten and fifty times the users: the provider is asked at its rate, nobody starves, what is too much is said at once."""

from __future__ import annotations

import pytest
from benchmarks.overload import CALLS, QUEUED, WORKERS, fair_shares, measure


@pytest.mark.parametrize("load", [1.0, 10.0, pytest.param(50.0, marks=pytest.mark.slow)])
def test_however_many_come_the_provider_serves_at_its_limit_and_is_asked_no_more_than_once_a_call(load: float) -> None:
    found = measure(load, seed=7)
    assert found.goodput >= 0.85
    assert found.per_run == CALLS, "ten times the users are at most ten times the requests"
    assert (found.turned_away, found.retries, found.failed) == (0, 0.0, 0)
    assert found.peak <= 2.0, "in a second at most the burst and a second's worth, over all workers"
    assert found.queue <= QUEUED
    assert found.fairness >= 0.8, "every tenant gets four fifths of its max-min fair share, or more"
    assert found.completed + found.refused == found.arrived
    assert found.retry_after > 0 or not found.refused


def test_a_provider_that_has_to_turn_away_is_not_stormed_and_still_works() -> None:
    found = measure(10.0, declared=3.0, seed=7)
    asked = found.per_run * found.completed
    assert found.turned_away > 0
    assert found.retries * asked <= WORKERS * 30 + 0.1 * asked
    assert found.turned_away <= 0.5 * asked
    assert found.goodput >= 0.6
    assert found.fairness >= 0.7


def test_the_same_seed_gives_the_same_figures() -> None:
    assert measure(3.0, declared=3.0, seed=3) == measure(3.0, declared=3.0, seed=3)


def test_max_min_fair_shares_leave_what_the_modest_do_not_need_to_the_others() -> None:
    shares = fair_shares({"a": 1.0, "b": 4.0, "c": 20.0}, 12.0)
    assert shares == pytest.approx({"a": 1.0, "b": 4.0, "c": 7.0})
    assert fair_shares({"a": 9.0, "b": 9.0}, 12.0) == {"a": 6.0, "b": 6.0}
