"""What lost workers had borrowed and not spent is given back; no envelope is exceeded by it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from itertools import count as counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.controls.budgets import Amount, Chain, Limit
from tightship.controls.leases import Lease
from tightship.core import kinds
from tightship.core.errors import StaleOwner
from tightship.core.signals import OverBudget
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger.ledger import MemoryState
from tightship.runtime.lending import Lender
from tightship.runtime.reconcile import Lost, Reconciler
from tightship.runtime.simulation import Simulation, simulate
from tightship.runtime.workspace import projections

SCOPE, DAY = "tenant:default", "2026-01-01"
LIMIT = 1000


class Crew:
    """Workers of one store: each pays calls of its one run, as the door does; any may be lost at any moment."""

    def __init__(self, sim: Simulation, limit: int = LIMIT) -> None:
        self.sim, self.limit = sim, limit
        self.state = MemoryState()
        self.lost: list[Lost] = []
        self.paid = 0
        """What all calls that were sent have really cost."""
        self.names = counter()
        self.keys = counter()
        self.ledgers: dict[str, Ledger] = {}
        self.leases: dict[str, Lease] = {}
        self.lenders: dict[str, Lender] = {}
        self.epochs: dict[str, int] = {}

    async def hire(self) -> str:
        name = f"w{next(self.names)}"
        ledger = Ledger.in_memory(self.sim.world(), projections(), self.state)
        self.state.backend.alive.add(name)
        self.ledgers[name] = ledger
        self.lenders[name] = Lender(ledger, lambda: name)
        self.leases[name] = self.lenders[name].lease(SCOPE, Limit(usd=self.limit), DAY)
        body = {"workflow": "w", "owner": name, "tenant": "default"}
        await ledger.append(Draft(f"r-{name}", kinds.STARTED, "", body, 1), guards=Guards(fresh=True))
        self.epochs[name] = 1
        return name

    async def pay(self, name: str, reserve: int, cost: int | None) -> bool:
        """Admit and send a call; it costs `cost`, or, where the worker is lost meanwhile (None), anything reserved."""
        lease, ledger = self.leases[name], self.ledgers[name]
        chain = Chain([lease])
        while True:
            try:
                held = chain.reserve(Amount(usd=reserve))
                break
            except OverBudget:
                if not await lease.supply(Amount(usd=reserve)):
                    return False
        run, key, epoch = f"r-{name}", f"k{next(self.keys)}", self.epochs[name]
        await ledger.append(
            Draft(run, kinds.ADMITTED, key, {"name": "t", "cls": "read", "reserve": {"usd": reserve}}, epoch)
        )
        self.paid += reserve if cost is None else cost
        if cost is not None:
            body = {"name": "t", "cls": "read", "agent": "a", "workflow": "w", "usd": cost, "ms": 1}
            await ledger.append(Draft(run, kinds.SETTLED, key, body, epoch))
            held.settle(Amount(usd=cost))
        return True

    async def lose(self, name: str) -> None:
        """It is gone for good, and its lease is over; nothing is heard of it any more."""
        self.lenders.pop(name)._unlisten()
        self.state.backend.alive.discard(name)
        self.lost.append(Lost(name, 0.0))

    async def take_over(self, name: str) -> None:
        """Another worker takes its run."""
        ledger = self.ledgers[name]
        body = {"owner": "another", "build": ""}
        await ledger.append(Draft(f"r-{name}", kinds.CLAIMED, "", body, self.epochs[name] + 1))

    async def reconcile(self, by: str) -> None:
        async def gone() -> list[Lost]:
            return self.lost

        await Reconciler(self.ledgers[by], gone).look()

    async def lent(self, by: str) -> int:
        rows = await self.ledgers[by].select("envelopes", [("scope", "=", SCOPE), ("period", "=", DAY)])
        return sum(row["usd"] for row in rows)


@contextlib.asynccontextmanager
async def crew(sim: Simulation) -> AsyncGenerator[Crew]:
    made = Crew(sim)

    async def poll() -> None:
        while True:
            await sim.clock.sleep(0.01)
            for ledger in list(made.ledgers.values()):
                await ledger.poll()

    task = asyncio.ensure_future(poll())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_a_lost_worker_had_left_is_lent_again_once_its_run_has_another_owner() -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            lost, other = await made.hire(), await made.hire()
            assert await made.pay(lost, 30, 10)  # settled for less than was reserved
            assert await made.pay(lost, 25, None)  # nobody knows what became of it
            await made.lose(lost)
            before = await made.lent(other)
            await made.reconcile(other)
            assert await made.lent(other) == before, "its run is its own still"
            await made.take_over(lost)
            await made.reconcile(other)
            assert await made.lent(other) == 10 + 25
            spent = 0
            while await made.pay(other, 1, 1):
                spent += 1
            assert spent == LIMIT - 35

    simulate(story)


def test_it_is_given_back_once_whoever_reconciles_and_however_often() -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            lost, *others = [await made.hire() for _ in range(4)]
            assert await made.pay(lost, 10, 10)
            await made.lose(lost)
            await made.take_over(lost)
            await asyncio.gather(*(made.reconcile(name) for name in [*others, *others]))
            await made.reconcile(others[0])
            assert await made.lent(others[0]) == 10

    simulate(story, shuffle=True)


def test_a_return_that_arrives_after_the_worker_was_reconciled_is_not_taken_twice() -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            lost, other = await made.hire(), await made.hire()
            assert await made.pay(lost, 10, 10)
            lender = made.lenders[lost]
            await made.lose(lost)
            await made.take_over(lost)
            await made.reconcile(other)
            await lender.close()  # it thaws, and returns what it believes to have
            assert await made.lent(other) == 10

    simulate(story)


def test_a_worker_that_goes_on_under_another_id_spends_nothing_of_what_it_had_borrowed() -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            worker = await made.hire()
            assert await made.pay(worker, 10, 10)
            lease = made.leases[worker]
            assert lease.spare().usd > 0
            made.lenders[worker].forfeit()
            assert lease.spare().usd == 0

    simulate(story)


def test_a_worker_that_was_lost_neither_returns_nor_borrows_until_it_is_another_one() -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            lost, other = await made.hire(), await made.hire()
            seen = {"id": lost}
            lender = Lender(made.ledgers[lost], lambda: seen["id"])
            lease = lender.lease(SCOPE, Limit(usd=LIMIT), DAY)
            assert await lease.supply(Amount(usd=100))
            held = Chain([lease]).reserve(Amount(usd=100))
            await made.lose(lost)
            seen["id"] = ""
            with pytest.raises(StaleOwner):
                await lease.supply(Amount(usd=500))
            await made.take_over(lost)
            held.settle(Amount())  # what was under way cost nothing after all
            before = await made.lent(other)
            await lender.close()
            assert await made.lent(other) == before, "that is for others to give back"
            await made.reconcile(other)
            assert await made.lent(other) == 0

    simulate(story)


def test_what_was_spent_before_anything_was_lent_is_nobodys_and_is_not_given_back() -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            lost, other = await made.hire(), await made.hire()
            ledger = made.ledgers[lost]
            body = {"name": "t", "cls": "read", "agent": "a", "workflow": "w", "usd": 400, "ms": 1}
            await ledger.append(Draft("r-old", kinds.STARTED, "", {"workflow": "w", "owner": "one process"}, 1))
            await ledger.append(Draft("r-old", kinds.SETTLED, "k", body, 1))
            assert await made.pay(lost, 10, 10)
            await made.lose(lost)
            await made.take_over(lost)
            await made.reconcile(other)
            assert await made.lent(other) == 410

    simulate(story)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pay", "pay", "pay", "break", "lose", "claim", "reconcile", "hire"]),
        st.integers(0, 5),
        st.integers(1, 120),
        st.integers(0, 120),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 999))
def test_no_envelope_is_exceeded_whatever_is_lost_and_whenever_it_is_reconciled(
    steps: list[tuple[str, int, int, int]], seed: int
) -> None:
    async def story(sim: Simulation) -> None:
        async with crew(sim) as made:
            working, unclaimed = [await made.hire(), await made.hire()], list[str]()
            for what, which, reserve, cost in steps:
                name = working[which % len(working)]
                if what == "pay":
                    await made.pay(name, reserve, min(cost, reserve))
                elif what == "hire":
                    working.append(await made.hire())
                elif what in ("break", "lose") and len(working) > 1:
                    if what == "break":  # it is lost with a call under way
                        await made.pay(name, reserve, None)
                    working.remove(name)
                    await made.lose(name)
                    unclaimed.append(name)
                elif what == "claim" and unclaimed:
                    await made.take_over(unclaimed.pop(which % len(unclaimed)))
                elif what == "reconcile":
                    await asyncio.gather(*(made.reconcile(by) for by in working))
                assert made.paid <= LIMIT
                assert await made.lent(working[0]) <= LIMIT

    simulate(story, seed, shuffle=True)
