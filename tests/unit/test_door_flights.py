"""Effects under way: whoever waits may be cut off, the effect goes on; one that was given up leaves nothing to wait for."""

from __future__ import annotations

import asyncio

import pytest

from tightship.effects.flight import Flights


async def test_whoever_is_cut_off_leaves_the_effect_and_the_others_alone() -> None:
    flights, go = Flights(), asyncio.Event()

    async def work() -> str:
        await go.wait()
        return "done"

    flight = flights.begin("a/tool/1", "args", work)
    first, second = flight.landing(), flight.landing()
    await asyncio.sleep(0)
    first.cancel()
    go.set()
    assert await second == "done"
    await flights.drain()
    assert flights.get("a/tool/1") is None


async def test_an_error_reaches_all_who_wait() -> None:
    async def work() -> str:
        raise ValueError("no")

    flights = Flights()
    flight = flights.begin("a/tool/1", "args", work)
    for landing in (flight.landing(), flight.landing()):
        with pytest.raises(ValueError, match="no"):
            await landing


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_one_that_is_given_up_is_over_whenever_that_happens(steps: int) -> None:
    flights, forever = Flights(), asyncio.Event()

    async def work() -> str:
        await forever.wait()
        return "never"

    flight = flights.begin("a/tool/1", "args", work)
    landing = flight.landing()
    for _ in range(steps):
        await asyncio.sleep(0)
    flights.abandon("a/tool/1", flight)
    assert flights.get("a/tool/1") is None, "a new one may begin at once"
    async with asyncio.timeout(300):
        await flights.drain()
    with pytest.raises(asyncio.CancelledError):
        await landing
