"""The shared rates on a real PostgreSQL: the statement does what the simulation's twin does, also for many at once."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from postgres_desk import server
from tightship.controls import Ask, MemoryShares, Rate, Rates, StoredShares
from tightship.core.errors import StoreError
from tightship.core.world import World
from tightship.ledger.pg_rates import PgRates, _text

FUTURE = 4e9
"""A moment (s) that no test lives to see: before it no time passes for a level, so that figures are exact."""


@pytest.fixture(scope="module")
def conninfo() -> str:
    return server().uri


async def opened(conninfo: str) -> PgRates:
    rates = PgRates(conninfo, "public")
    await (await rates._connected()).execute(_text("0003_rates"))
    return rates


async def state(rates: PgRates, name: str) -> tuple[float, float, float]:
    found = await (await rates._connected()).execute(
        "SELECT requests, tokens, at FROM rate_levels WHERE name = %s", [name]
    )
    row = await found.fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("seed", range(4))
async def test_the_statement_and_its_twin_come_to_the_same_levels(conninfo: str, seed: int) -> None:
    rates, chance = await opened(conninfo), random.Random(seed)
    twin = MemoryShares(World().clock)
    rate = Rate([7.0, None, 0.5, 40.0][seed], [600.0, 9000.0, None, 60.0][seed])
    name = f"twin {seed}"
    for shares in (StoredShares(rates), twin):
        await shares.book(Ask(name, rate))
    await (await rates._connected()).execute("UPDATE rate_levels SET at = %s WHERE name = %s", [FUTURE, name])
    twin._levels[name].at = FUTURE
    for _ in range(60):
        ask = Ask(
            name,
            rate,
            requests=chance.choice([0, 1, 1, 2]),
            tokens=chance.randint(0, 300),
            within=chance.choice([1.0, 1e12]),
            owed_requests=chance.choice([0.0, 1.0]),
            owed_tokens=chance.choice([0.0, -100.0, 30.0]),
            pause=chance.choice([0.0, 0.0, 5.0]),
        )
        here, there = await twin.book(ask), await StoredShares(rates).book(ask)
        assert here.booked == there.booked
        level = twin._levels[name]
        assert await state(rates, name) == pytest.approx((level.requests, level.tokens, level.at), abs=1e-5)
    await rates.close()


async def test_workers_that_book_at_the_same_time_are_put_in_order(conninfo: str) -> None:
    stores = [await opened(conninfo) for _ in range(4)]
    rate = Rate(requests_per_second=50, burst=1)
    await StoredShares(stores[0]).book(Ask("many", rate, requests=1))
    began = (await state(stores[0], "many"))[2]

    async def book(store: PgRates) -> None:
        for _ in range(25):
            assert (await StoredShares(store).book(Ask("many", rate, requests=1))).booked

    await asyncio.gather(*map(book, stores))
    assert (await state(stores[0], "many"))[2] - began >= 100 / 50 - 1e-3, "none was given a moment of another"
    for store in stores:
        await store.close()


async def test_a_store_that_is_gone_is_an_error_without_its_password_and_the_worker_goes_on_alone() -> None:
    rates = PgRates("postgresql://ann:secret@127.0.0.1:1/none")
    with pytest.raises(StoreError) as refused:
        await StoredShares(rates).book(Ask("gone", Rate(requests_per_second=1)))
    assert "secret" not in str(refused.value)
    gate = Rates(World().clock, {"gone": Rate(requests_per_second=1000)}, StoredShares(rates))
    await gate.acquire("gone")
