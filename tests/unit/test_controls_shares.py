"""One rate for all workers: what they send together never exceeds it, whatever becomes of them (virtual time)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.controls import Ask, MemoryShares, Rate, Rates
from tightship.controls.shares import LIFE
from tightship.core.errors import RateLimited
from tightship.runtime.simulation import Simulation, simulate

SLACK = 1e-3


class Freezing:
    """A worker's clock: some of its sleeps take seconds longer than they were asked to, as in a frozen process."""

    def __init__(self, clock: Any, chance: random.Random, share: float) -> None:
        self._clock, self._chance, self._share = clock, chance, share
        self.now, self.monotonic = clock.now, clock.monotonic

    async def sleep(self, seconds: float) -> None:
        """Sleep, or oversleep."""
        late = self._chance.uniform(0.1, 3.0) if self._chance.random() < self._share else 0.0
        await self._clock.sleep(seconds + late)


class Slow(MemoryShares):
    """A store whose answers take their time."""

    def __init__(self, clock: Any, chance: random.Random) -> None:
        super().__init__(clock)
        self._sleep, self._chance = clock.sleep, chance

    async def book(self, ask: Ask) -> Any:
        """Ask it there, and wait for the answer on its way back."""
        booking = await super().book(ask)
        await self._sleep(self._chance.uniform(0.0, 0.01))
        return booking


def within_rate(sent: Sequence[tuple[float, int]], rate: Rate) -> None:
    """In every window at most the burst and what the rate has given meanwhile."""
    per_second, per_minute = rate.requests_per_second, rate.tokens_per_minute
    sent = sorted(sent)
    for first in range(len(sent)):
        tokens = 0
        for last in range(first, len(sent)):
            span = sent[last][0] - sent[first][0]
            tokens += sent[last][1]
            if per_second is not None:
                most = max(rate.at_once, 1 + per_second * LIFE)
                assert last - first + 1 <= most + per_second * span + SLACK, (sent[first], sent[last])
            if per_minute is not None:
                assert tokens <= per_minute + per_minute / 60 * span + SLACK, (sent[first], sent[last])


async def work(
    sim: Simulation, shares: MemoryShares, rate: Rate, seed: int, frozen: float, sent: list[tuple[float, int]]
) -> None:
    """Six workers that join one after the other; each is greedy, two of them are killed."""
    alive = 0

    async def ask(rates: Rates, tokens: int) -> None:
        try:
            await rates.acquire("llm", tokens, within=20.0)
        except RateLimited:
            return
        sent.append((sim.clock.monotonic(), tokens))

    async def worker(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        rates = Rates(Freezing(sim.clock, chance, frozen), {"llm": rate}, shares, lambda: alive)
        tasks: list[asyncio.Task[None]] = []
        for _ in range(40):
            await sim.clock.sleep(chance.expovariate(8.0))
            tasks += [asyncio.ensure_future(ask(rates, chance.randint(1, 90))) for _ in range(chance.randint(1, 4))]
        await asyncio.gather(*tasks)

    waiting: list[asyncio.Task[None]] = []
    for number in range(6):
        process = sim.loop.process(f"worker {number}")
        alive += 1
        task = process.start(worker(number))
        if number in (1, 3):
            asyncio.get_running_loop().call_later(2.5 * number, process.kill)
        else:
            waiting.append(task)
        await sim.clock.sleep(0.7)
    await asyncio.gather(*waiting)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate=st.builds(
        Rate,
        requests_per_second=st.sampled_from([None, 0.5, 3.0, 20.0]),
        tokens_per_minute=st.sampled_from([None, 600.0, 20_000.0]),
    ),
    frozen=st.sampled_from([0.0, 0.3]),
)
def test_all_workers_together_never_exceed_the_rate_while_some_join_freeze_and_die(
    seed: int, rate: Rate, frozen: float
) -> None:
    if rate == Rate():
        return
    sent: list[tuple[float, int]] = []

    async def story(sim: Simulation) -> None:
        await work(sim, Slow(sim.clock, sim.random("store")), rate, seed, frozen, sent)

    simulate(story, seed, shuffle=True)
    assert sent
    within_rate(sent, rate)


async def flood(sim: Simulation, rates: Sequence[Rates], calls: Sequence[int], seconds: float) -> list[int]:
    """So many calls at once on each worker; how many of each have gone out after those seconds."""
    passed = [0] * len(rates)

    async def call(number: int) -> None:
        await rates[number].acquire("llm", 10)
        passed[number] += 1

    tasks = [asyncio.ensure_future(call(number)) for number, many in enumerate(calls) for _ in range(many)]
    await sim.clock.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return passed


def workers(sim: Simulation, shares: MemoryShares, rate: Rate, count: int) -> list[Rates]:
    return [Rates(sim.clock, {"llm": rate}, shares, lambda: count) for _ in range(count)]


def test_the_share_of_idle_workers_is_not_lost_and_the_store_is_asked_far_less_than_once_a_request() -> None:
    async def story(sim: Simulation) -> Any:
        shares = MemoryShares(sim.clock)
        rates = workers(sim, shares, Rate(requests_per_second=100), 4)
        return await flood(sim, rates, [900, 0, 0, 0], 5.0), shares.asked

    passed, asked = simulate(story)
    assert passed[0] == pytest.approx(575, abs=8)  # 100 a second and the burst of one second, less what may come late
    assert asked < passed[0] / 3


def test_a_greedy_worker_leaves_the_others_their_part() -> None:
    async def story(sim: Simulation) -> Any:
        rates = workers(sim, MemoryShares(sim.clock), Rate(requests_per_second=60, burst=1), 3)
        return await flood(sim, rates, [900, 100, 100], 5.0)

    passed = simulate(story)
    assert sum(passed) == pytest.approx(300, abs=15)
    assert min(passed) >= 90


def test_without_the_store_each_worker_keeps_to_its_share_and_tells_of_it_afterwards() -> None:
    rate = Rate(requests_per_second=10, burst=1)

    async def story(sim: Simulation) -> Any:
        shares = MemoryShares(sim.clock)
        rates = workers(sim, shares, rate, 2)
        shares.fails = True
        alone = await flood(sim, rates, [100, 100], 4.0)
        shares.fails = False
        return alone, await flood(sim, rates, [100, 100], 4.0)

    alone, together = simulate(story)
    assert all(15 <= one <= 20 for one in alone)
    assert sum(alone) + sum(together) <= 1 + 10 * 8 + 3, (
        "what was sent without the store was charged when it answered again"
    )


def test_retry_after_is_heard_by_all_workers_that_ask() -> None:
    async def story(sim: Simulation) -> Any:
        first, second = workers(sim, MemoryShares(sim.clock), Rate(requests_per_second=10), 2)
        first.pause("llm", 5.0)
        await asyncio.sleep(0)
        began = sim.clock.monotonic()
        await second.acquire("llm")
        waited = sim.clock.monotonic() - began
        with pytest.raises(RateLimited) as refused:
            first.pause("llm", 30.0)
            await asyncio.sleep(0)
            await second.acquire("llm", within=2.0)
        return waited, refused.value.retry_after

    waited, after = simulate(story)
    assert waited == pytest.approx(5.0, abs=0.01)
    assert after == pytest.approx(30.0, abs=0.2)


def test_a_request_that_cannot_wait_books_nothing() -> None:
    async def story(sim: Simulation) -> Any:
        shares = MemoryShares(sim.clock)
        (rates,) = workers(sim, shares, Rate(tokens_per_minute=600), 1)
        await rates.acquire("llm", 597)
        for _ in range(50):
            with pytest.raises(RateLimited):
                await rates.acquire("llm", 300, within=1.0)
        began = sim.clock.monotonic()
        await rates.acquire("llm", 100)
        return sim.clock.monotonic() - began

    assert simulate(story) == pytest.approx(10.0, abs=0.1)


def test_tokens_that_were_not_used_are_there_for_the_others() -> None:
    async def story(sim: Simulation) -> Any:
        first, second = workers(sim, MemoryShares(sim.clock), Rate(tokens_per_minute=600), 2)
        await first.acquire("llm", 590)
        first.correct("llm", -580)
        await asyncio.sleep(0)
        began = sim.clock.monotonic()
        await second.acquire("llm", 580)
        return sim.clock.monotonic() - began

    assert simulate(story) == pytest.approx(0.0, abs=0.5)
