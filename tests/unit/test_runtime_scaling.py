"""The number of workers follows the load: up quickly, down slowly, within its bounds, unmoved by noise."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core.errors import InputRejected
from tightship.runtime.scaling import SYNC, Bounds, Load, Past, Policy, desired, propose

POLICY = Policy(runs=10, patience=5.0)
LOADS = st.builds(Load, st.integers(0, 5000), st.integers(0, 5000), st.floats(0, 10_000))
BOUNDS = st.integers(0, 8).flatmap(lambda least: st.builds(Bounds, st.just(least), st.integers(max(1, least), 64)))


def follow(loads: Iterable[Load], bounds: Bounds, current: int = 1, every: float = 5.0) -> list[int]:
    """The number of workers after each of the loads, one every few seconds; they start at once."""
    now, past, found = 0.0, Past(), list[int]()
    for load in loads:
        current, past = desired(now, current, load, bounds, past, POLICY)
        found.append(current)
        now += every
    return found


@given(st.lists(LOADS, max_size=60), BOUNDS, st.integers(0, 100))
def test_the_number_is_never_outside_its_bounds(loads: list[Load], bounds: Bounds, current: int) -> None:
    assert all(bounds.least <= one <= bounds.most for one in follow(loads, bounds, current))


@given(LOADS, LOADS, st.integers(0, 64), st.lists(LOADS, max_size=20))
def test_more_load_never_asks_for_fewer_workers(one: Load, other: Load, current: int, before: list[Load]) -> None:
    low = Load(min(one.due, other.due), min(one.running, other.running), min(one.oldest, other.oldest))
    high = Load(max(one.due, other.due), max(one.running, other.running), max(one.oldest, other.oldest))
    assert propose(current, low, POLICY) <= propose(current, high, POLICY)
    bounds, now, past = Bounds(0, 64), 0.0, Past()
    for load in before:
        current, past = desired(now, current, load, bounds, past, POLICY)
        now += 5
    assert desired(now, current, low, bounds, past, POLICY)[0] <= desired(now, current, high, bounds, past, POLICY)[0]


@given(LOADS, BOUNDS, st.integers(0, 64))
def test_under_a_constant_load_the_number_goes_one_way_and_stays(load: Load, bounds: Bounds, current: int) -> None:
    still = Load(load.due, load.running)  # nobody waits longer and longer
    found = follow([still] * 300, bounds, bounds.hold(current))
    assert found in (sorted(found), sorted(found, reverse=True))
    assert len(set(found[-60:])) == 1


@given(st.integers(1, 16), st.lists(st.floats(0.91, 1.09), min_size=1, max_size=200))
def test_noise_within_the_tolerance_moves_nothing(workers: int, noise: list[float]) -> None:
    loads = [Load(0, round(workers * POLICY.runs * 10 * one) // 10) for one in noise]
    assert set(follow(loads, Bounds(1, 16), workers)) == {workers}


@given(st.lists(st.integers(0, 160), min_size=2, max_size=12))
def test_a_load_that_swings_faster_than_the_window_does_not_make_the_number_swing(swing: list[int]) -> None:
    loads = [Load(0, one) for one in swing] * 20
    found = follow(loads[:200], Bounds(1, 16), every=5.0)
    settled = found[int(300 / 5) :]
    assert len(set(settled)) <= 1


def test_it_grows_from_one_to_sixteen_in_less_than_a_minute() -> None:
    found = follow([Load(due=500, running=10, oldest=1.0)] * 10, Bounds(1, 16))
    assert found[0] == 5
    assert 16 in found
    assert found.index(16) * 5 <= 60


def test_runs_that_wait_too_long_ask_for_workers_although_there_are_few_of_them() -> None:
    assert propose(2, Load(due=6, running=4, oldest=1.0), POLICY) == 1
    assert propose(2, Load(due=6, running=4, oldest=20.0), POLICY) == 8


def test_a_run_that_nobody_can_take_does_not_start_every_worker_there_may_be() -> None:
    found = follow([Load(due=1, running=0, oldest=float(at * 5)) for at in range(1, 200)], Bounds(1, 16))
    assert max(found) == 1


def test_it_shrinks_only_after_five_quiet_minutes_and_then_a_quarter_at_a_time() -> None:
    found = follow([Load()] * 120, Bounds(1, 16), current=16)
    quiet = found.index(12)
    assert found[:quiet] == [16] * quiet
    assert quiet * 5 >= POLICY.window
    steps = [one for one in found[quiet:] if one > 1]
    assert steps[: int(SYNC / 5)] == [12] * int(SYNC / 5)
    assert found[-1] == 1


def test_a_single_peak_within_the_window_keeps_the_workers() -> None:
    quiet, peak = [Load()] * 50, [Load(0, 160)]
    assert set(follow([*quiet, *peak, *quiet], Bounds(1, 16), current=16)) == {16}


def test_nothing_to_do_needs_nobody_where_that_is_allowed() -> None:
    assert follow([Load()] * 150, Bounds(0, 4), current=2)[-1] == 0
    assert follow([Load(due=1)], Bounds(0, 4), current=0) == [1]


@pytest.mark.parametrize(("least", "most"), [(2, 1), (-1, 3), (0, 0)])
def test_bounds_that_are_none_are_refused(least: int, most: int) -> None:
    with pytest.raises(InputRejected, match="is no range"):
        Bounds(least, most)
