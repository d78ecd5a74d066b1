"""Rate limits and breakers on the world's clock: order of arrival, bounded waiting, patience when asked for it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from entry_samples import VirtualClock
from hypothesis import given
from hypothesis import strategies as st

from tightship.controls import BreakerRule, Breakers, Rate, Rates
from tightship.core.errors import RateLimited, Unavailable


def at_times(clock: VirtualClock, rates: Rates, name: str, calls: int, tokens: int = 0) -> tuple[list, list]:
    """Start calls; a list of (number, time) that fills as they are let through, and their tasks."""
    passed: list[tuple[int, float]] = []

    async def call(number: int) -> None:
        await rates.acquire(name, tokens)
        passed.append((number, clock.time - 1000.0))

    return passed, [asyncio.ensure_future(call(number)) for number in range(calls)]


async def test_requests_go_out_at_the_rate_in_order_of_arrival_after_the_burst() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=2)})
    passed, tasks = at_times(clock, rates, "desk", 6)
    await clock.advance(10)
    await asyncio.gather(*tasks)
    assert [number for number, _ in passed] == [0, 1, 2, 3, 4, 5]
    assert [time for _, time in passed] == pytest.approx([0, 0, 0.5, 1, 1.5, 2], abs=1e-4)


async def test_tokens_per_minute_hold_and_are_corrected_by_what_was_used() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"cheap": Rate(tokens_per_minute=600)})
    await rates.acquire("cheap", 600)
    assert not rates.try_acquire("cheap", 10)
    rates.correct("cheap", -590)  # it used 10 only
    assert rates.try_acquire("cheap", 590)
    rates.correct("cheap", 60)  # that one used 60 more
    passed, tasks = at_times(clock, rates, "cheap", 1, tokens=10)
    await clock.advance(30)
    await asyncio.gather(*tasks)
    assert passed[0][1] == pytest.approx(7.0, abs=1e-4)


async def test_a_request_larger_than_a_minute_s_tokens_waits_for_a_full_bucket_and_is_paid_off_after() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"cheap": Rate(tokens_per_minute=60)})
    await rates.acquire("cheap", 120)
    passed, tasks = at_times(clock, rates, "cheap", 1, tokens=1)
    await clock.advance(100)
    await asyncio.gather(*tasks)
    assert passed[0][1] == pytest.approx(61.0, abs=1e-4)


async def test_nobody_passes_those_who_wait() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=1)})
    passed, tasks = at_times(clock, rates, "desk", 2)
    await clock.settle()
    assert rates.waiting("desk") == 1
    clock.time += 5  # time for the next is there, but the one that waits has not woken yet
    assert not rates.try_acquire("desk")
    await clock.advance(1)
    await asyncio.gather(*tasks)
    assert len(passed) == 2


async def test_retry_after_holds_back_the_waiting_too_and_goes_on_without_a_burst() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=1, burst=3)})
    rates.pause("desk", 20)
    passed, tasks = at_times(clock, rates, "desk", 3)
    await clock.advance(5)
    rates.pause("desk", 30)  # until 35: a longer pause counts
    rates.pause("desk", 1)  # a shorter one does not
    await clock.advance(60)
    await asyncio.gather(*tasks)
    gaps = [later - earlier for (_, earlier), (_, later) in pairwise(passed)]
    assert passed[0][1] == pytest.approx(35, abs=1e-4)
    assert gaps == pytest.approx([1, 1], abs=1e-4)


async def test_a_pause_works_for_a_name_without_a_declared_rate() -> None:
    clock = VirtualClock()
    rates = Rates(clock)
    assert rates.try_acquire("desk")
    await rates.acquire("desk")
    rates.pause("desk", 4)
    assert not rates.try_acquire("desk")
    rates.limit("desk", Rate(requests_per_second=1))
    with pytest.raises(RateLimited) as refused:
        await rates.acquire("desk", within=1)
    assert refused.value.retry_after == pytest.approx(4)


async def test_the_queue_is_bounded_and_its_refusal_says_when_to_come_again() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=1, waiting=2)})
    _, tasks = at_times(clock, rates, "desk", 3)
    await clock.settle()
    with pytest.raises(RateLimited, match="2 calls of desk wait already") as refused:
        await rates.acquire("desk")
    assert refused.value.retry_after == pytest.approx(3, abs=1e-3)
    await clock.advance(10)
    await asyncio.gather(*tasks)


async def test_who_cannot_be_served_in_time_is_refused_at_once() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=0.1)})
    assert rates.try_acquire("desk")
    with pytest.raises(RateLimited) as refused:
        await rates.acquire("desk", within=5)
    assert refused.value.retry_after == pytest.approx(10)
    waiting = asyncio.ensure_future(rates.acquire("desk", within=12))
    await clock.settle()
    rates.pause("desk", 60)
    await clock.advance(20)
    with pytest.raises(RateLimited):
        await waiting


async def test_who_gives_up_makes_room_and_takes_nothing() -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=1)})
    passed, tasks = at_times(clock, rates, "desk", 3)
    await clock.settle()
    tasks[1].cancel()
    await clock.advance(5)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, _ in passed] == [0, 2]
    assert passed[1][1] == pytest.approx(1, abs=1e-4)
    assert rates.waiting("desk") == 0


def test_a_rate_has_to_be_above_zero() -> None:
    with pytest.raises(ValueError, match="tokens_per_minute has to be above 0"):
        Rate(tokens_per_minute=0)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), max_size=60))
def test_no_second_sees_more_than_burst_and_rate_allow(calls: list[tuple[float, int]]) -> None:
    clock = VirtualClock()
    rates = Rates(clock, {"desk": Rate(requests_per_second=2, burst=3, tokens_per_minute=300)})
    passed: list[tuple[float, int]] = []
    for pause, tokens in calls:
        clock.time += pause
        if rates.try_acquire("desk", tokens):
            passed.append((clock.time, tokens))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span = passed[last][0] - passed[first][0]
            window = passed[first : last + 1]
            assert len(window) <= 3 + 2 * span + 1e-3
            assert sum(tokens for _, tokens in window) <= 300 + 5 * span + 1e-3


RULE = BreakerRule(window=10, minimum=4, error_rate=0.5, slow_after=2, slow_rate=0.75, cooldown=5, longest=15, probes=2)


def feed(breakers: Breakers, outcomes: str) -> list[str]:
    """`.` good, `x` failed, `s` slow; the state changes."""
    changes = [breakers.record("desk", o != "x", 3.0 if o == "s" else 0.1) for o in outcomes]
    return [change for change in changes if change]


def test_a_breaker_opens_on_errors_and_says_for_how_long() -> None:
    clock = VirtualClock()
    breakers = Breakers(clock, RULE)
    assert feed(breakers, "xx.") == []
    assert feed(breakers, "x") == ["open"]
    clock.time += 2
    with pytest.raises(Unavailable, match="desk is not asked at the moment: 3 of the last 4 calls failed") as refused:
        breakers.check("desk")
    assert refused.value.retry_after == pytest.approx(3)
    breakers.check("mail")
    assert breakers.as_dict() == {"desk": {"state": "open", "why": "3 of the last 4 calls failed"}}


def test_what_another_worker_has_found_out_is_heeded_for_what_is_left_of_its_time_and_probed_after() -> None:
    clock = VirtualClock()
    breakers = Breakers(clock, RULE)
    breakers.hear("desk", "open", left=-1.0, seconds=5.0, why="old")
    assert breakers.state("desk") == "closed"
    breakers.hear("desk", "open", left=3.0, seconds=5.0, why="2 of the last 4 calls failed")
    with pytest.raises(Unavailable, match="another worker has found out that 2 of the last 4") as refused:
        breakers.check("desk")
    assert refused.value.retry_after == pytest.approx(3) == breakers.open_for("desk")
    breakers.hear("desk", "open", left=1.0, seconds=5.0, why="the same")
    assert breakers.open_for("desk") == 3, "what is known to last longer stays"
    breakers.hear("desk", "open", left=1e9, seconds=1e9, why="whatever")
    assert breakers.open_for("desk") == RULE.longest, "nobody closes it here for longer than is declared"
    breakers.hear("desk", "closed", left=0.0)
    breakers.check("desk")
    assert breakers.state("desk") == "half-open", "that it answers others is a reason to probe"
    assert breakers.record("desk", False) == "open" and breakers.open_for("desk") == RULE.longest
    breakers.hear("desk", "closed", left=0.0)
    for _ in range(RULE.probes):
        breakers.check("desk")
    assert [breakers.record("desk", True) for _ in range(RULE.probes)] == [None, "closed"]


def test_a_breaker_opens_on_slow_answers() -> None:
    breakers = Breakers(VirtualClock(), RULE)
    assert feed(breakers, "sss") == []
    assert feed(breakers, "s") == ["open"]
    assert "took 2 s or more" in breakers.as_dict()["desk"]["why"]


def test_old_failures_are_forgotten() -> None:
    clock = VirtualClock()
    breakers = Breakers(clock, RULE)
    feed(breakers, "xxx")
    clock.time += 11
    assert feed(breakers, "x..") == []
    assert feed(breakers, "x") == ["open"]


def test_good_probes_close_it_and_a_failed_probe_opens_it_for_twice_as_long() -> None:
    clock = VirtualClock()
    breakers = Breakers(clock, RULE)
    feed(breakers, "xxxx")
    for cooldown in (5, 10, 15, 15):
        clock.time += cooldown - 0.1
        with pytest.raises(Unavailable):
            breakers.check("desk")
        clock.time += 0.2
        breakers.check("desk")
        assert breakers.state("desk") == "half-open"
        assert feed(breakers, "x") == ["open"]
    clock.time += 15.1
    breakers.check("desk")
    breakers.check("desk")
    with pytest.raises(Unavailable):  # two probes are out
        breakers.check("desk")
    assert feed(breakers, "..") == ["closed"]
    breakers.check("desk")
    feed(breakers, "xxxx")
    clock.time += 5.1  # and the next opening is short again
    breakers.check("desk")


def test_a_probe_that_never_reports_does_not_block_for_ever() -> None:
    clock = VirtualClock()
    breakers = Breakers(clock, RULE)
    feed(breakers, "xxxx")
    clock.time += 5.1
    breakers.check("desk")
    breakers.check("desk")
    breakers.abandon("desk")
    breakers.check("desk")
    with pytest.raises(Unavailable) as refused:
        breakers.check("desk")
    clock.time += refused.value.retry_after or 0
    breakers.check("desk")


def test_answers_of_calls_from_before_it_opened_change_nothing() -> None:
    breakers = Breakers(VirtualClock(), RULE)
    feed(breakers, "xxxx")
    assert feed(breakers, "....") == []
    assert breakers.state("desk") == "open"


@given(st.lists(st.tuples(st.floats(0, 4), st.sampled_from(".xs")), max_size=80))
def test_a_breaker_opens_only_with_the_evidence_in_its_window(calls: list[tuple[float, str]]) -> None:
    clock = VirtualClock()
    breakers = Breakers(clock, RULE)
    history: list[tuple[float, str]] = []
    for pause, outcome in calls:
        clock.time += pause
        history.append((clock.time, outcome))
        if feed(breakers, outcome) == ["open"]:
            recent = [o for at, o in history if at > clock.time - RULE.window]
            assert len(recent) >= RULE.minimum
            assert "x" in recent or "s" in recent
            return
