"""Many workers, one budget: what they borrow never exceeds it, and nobody is refused while another holds what is spare."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.controls.budgets import Amount, Chain, EnvelopeTree, Limit
from tightship.controls.leases import Lease
from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.core.signals import OverBudget
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger.ledger import MemoryState
from tightship.runtime.lending import Lender
from tightship.runtime.purse import extend
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import projections

SCOPE, DAY = "tenant:default", "2026-01-01"


@contextlib.asynccontextmanager
async def workers(sim: Simulation, count: int) -> AsyncGenerator[list[tuple[Ledger, Lender]]]:
    """So many workers on one store, each told of the others' entries every 10 ms."""
    state = MemoryState()
    ledgers = [Ledger.in_memory(sim.world(), projections(), state) for _ in range(count)]
    state.backend.alive.update(f"w{n}" for n in range(count))
    made = [(ledger, Lender(ledger, lambda n=n: f"w{n}")) for n, ledger in enumerate(ledgers)]

    async def poll(ledger: Ledger) -> None:
        while True:
            await sim.clock.sleep(0.01)
            await ledger.poll()

    tasks = [asyncio.ensure_future(poll(ledger)) for ledger in ledgers]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def lent(ledger: Ledger) -> Amount:
    rows = await ledger.select("envelopes", [("scope", "=", SCOPE), ("period", "=", DAY)])
    return Amount(*(sum(row[unit] for row in rows) for unit in ("usd", "tokens", "calls")))


async def pay(lease: Lease, usd: int) -> bool:
    """Reserve as the door does, then spend it all."""
    chain = Chain([lease])
    while True:
        try:
            chain.reserve(Amount(usd=usd)).settle(Amount(usd=usd))
            return True
        except OverBudget:
            if not await lease.supply(Amount(usd=usd)):
                return False


def test_a_worker_borrows_a_chunk_and_pays_many_calls_from_it() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 2) as made:
            ledger, lender = made[0]
            lease = lender.lease(SCOPE, Limit(usd=1600), DAY)
            assert await pay(lease, 1)
            assert (await lent(ledger)).usd == 100  # an eighth of what is left, for each of two workers
            for _ in range(99):
                assert await pay(lease, 1)
            assert (await lent(ledger)).usd == 100

    simulate(story)


def test_the_last_cent_is_lent_to_whoever_asks_though_another_worker_held_it() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 2) as made:
            first, second = (lender.lease(SCOPE, Limit(usd=1000), DAY) for _, lender in made)
            assert await pay(first, 1)
            assert first.spare().usd > 0
            paid = 1
            while await pay(second, 7):
                paid += 7
            assert 1000 - paid < 7
            assert (await lent(made[0][0])).usd <= 1000

    simulate(story)


def test_what_a_worker_has_spare_is_given_back_when_it_leaves_in_good_order() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 1) as made:
            ledger, lender = made[0]
            lease = lender.lease(SCOPE, Limit(usd=1000), DAY)
            assert await pay(lease, 30)
            await lender.close()
            assert (await lent(ledger)).usd == 30

    simulate(story)


def test_what_a_lost_worker_had_borrowed_counts_as_spent() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 2) as made:
            lost, other = made[0][1].lease(SCOPE, Limit(usd=1000), DAY), made[1][1].lease(SCOPE, Limit(usd=1000), DAY)
            assert await pay(lost, 1)
            gone = lost.spare().usd + 1
            made[0][1]._unlisten()  # it hears nothing any more
            spent = 0
            while await pay(other, 1):
                spent += 1
            assert spent == 1000 - gone

    simulate(story)


def test_what_a_person_grants_is_there_once_for_all_workers() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 2) as made:
            leases = [lender.lease(SCOPE, Limit(usd=4), DAY) for _, lender in made]
            spent = [one for one in range(4) if await pay(leases[0], 1)]
            assert (len(spent), await pay(leases[0], 1)) == (4, False)
            tree = EnvelopeTree()
            tree.add(leases[0])
            granted = {"scope": SCOPE, "period": DAY, "usd": 2, "by": "ann"}
            await made[0][0].append(Draft("r-1", kinds.EXTENDED, "a/budget/1", granted))
            extend(tree, granted)  # what the worker does whose run has asked
            assert [await pay(lease, 1) for lease in (*leases, *leases)] == [True, True, False, False]
            assert (await lent(made[1][0])).usd == 6

    simulate(story)


def test_a_call_that_was_dearer_than_reserved_is_recorded_as_lent_too() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 1) as made:
            ledger, lender = made[0]
            lease = lender.lease(SCOPE, Limit(usd=100), DAY)
            await lease.supply(Amount(usd=10))
            Chain([lease]).reserve(Amount(usd=10)).settle(Amount(usd=60))
            assert not await pay(lease, 41)
            assert (await lent(ledger)).usd >= 60
            assert await pay(lease, 40)

    simulate(story)


def test_what_was_spent_before_anything_was_lent_counts() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 1) as made:
            ledger, lender = made[0]
            scope = ledger.vault.new_scope("r-1")
            await ledger.append(Draft("r-1", kinds.STARTED, "", {"workflow": "w", "owner": "x", "scope": scope}, 1))
            out = ledger.seal(scope, {})
            body = {"name": "t", "cls": "read", "agent": "a", "workflow": "w", "out": out.address, "usd": 90, "ms": 1}
            await ledger.append(Draft("r-1", kinds.SETTLED, "k", body, 1, (out,)))
            lease = lender.lease(SCOPE, Limit(usd=100), DAY)
            assert not await pay(lease, 11)
            assert await pay(lease, 10)

    simulate(story)


def test_a_loan_beyond_the_limit_is_refused_under_the_lock_of_the_log() -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, 2) as made:
            ledger = made[0][0]
            loan = {"scope": SCOPE, "period": DAY, "owner": "w0", "usd": 60, "tokens": 0, "calls": 0}
            guards = Guards(lends=((SCOPE, DAY, "usd", 100),))
            both = [ledger.append(Draft("", kinds.ENVELOPE, SCOPE, loan), guards=guards) for _ in range(2)]
            await both[0]
            with pytest.raises(GuardRefused, match="left to lend"):
                await both[1]
            assert (await lent(ledger)).usd == 60

    simulate(story)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 4),
    limit=st.integers(1, 3000),
    prices=st.lists(st.integers(1, 400), min_size=1, max_size=40),
)
def test_together_workers_never_spend_more_than_the_limit_nor_leave_what_fits(
    seed: int, count: int, limit: int, prices: list[int]
) -> None:
    async def story(sim: Simulation) -> None:
        async with workers(sim, count) as made:
            leases = [lender.lease(SCOPE, Limit(usd=limit), DAY) for _, lender in made]
            jobs = [pay(leases[n % count], price) for n, price in enumerate(prices)]
            paid = await asyncio.gather(*jobs)
            spent = sum(price for price, done in zip(prices, paid, strict=True) if done)
            assert spent <= limit
            assert (await lent(made[0][0])).usd <= limit
            if sum(prices) <= limit:
                assert all(paid)

    simulate(story, seed, shuffle=True)
