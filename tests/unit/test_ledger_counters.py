"""Counters of a run and those below it: no two processes together let more through than is allowed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger_desk import KINDS, Store, begin
from tightship.controls.budgets import Amount
from tightship.controls.counters import CountersProjection, uncounted
from tightship.controls.limits import HANDOFF, PEER_TURN
from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.ledger import Count, Draft, Entry, Guards, Ledger
from tightship.ledger.audit import rebuild, verify


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(request.param, tmp_path)
    yield store
    await store.close()


async def passes(ledger: Ledger, run: str, key: str, *counts: Count) -> bool:
    """Whether a handoff of a run is let through."""
    body = {"type": HANDOFF, "above": [count.run for count in counts if count.run != run]}
    return await _let(ledger, Draft(run, kinds.NOTE, key, body, 1), counts)


async def sends(ledger: Ledger, run: str, key: str, messages: int, most: int) -> bool:
    """Whether so many messages of a run are let through."""
    body = {"type": PEER_TURN, "messages": messages}
    return await _let(ledger, Draft(run, kinds.NOTE, key, body, 1), (Count(run, "messages", messages, most),))


async def _let(ledger: Ledger, draft: Draft, counts: tuple[Count, ...]) -> bool:
    try:
        await ledger.append(draft, guards=Guards(counts=counts))
    except GuardRefused as refused:
        assert refused.reason == "counted"
        return False
    return True


async def counted(ledger: Ledger) -> dict[str, Any]:
    return {row["run"]: (row["handoffs"], row["messages"]) for row in await ledger.select("counters")}


async def test_processes_that_ask_at_once_get_exactly_as_many_as_are_allowed(store: Store) -> None:
    one, two = await store.open(), await store.open()
    await begin(one, "r-1")
    await begin(two, "r-2", parent="r-1")
    above = Count("r-1", "handoffs", 1, 7)
    asked = [passes(one, "r-1", f"a/{n}", above) for n in range(9)]
    asked += [passes(two, "r-2", f"a/{n}", Count("r-2", "handoffs", 1, 90), above) for n in range(9)]
    assert sum(await asyncio.gather(*asked)) == 7
    found = await counted(one)
    assert found["r-1"] == (7, 0)
    assert found.get("r-2", (0, 0))[0] <= 7
    assert not await passes(two, "r-1", "b", above)
    await rebuild(one)
    assert await counted(one) == found, "the log alone says what was counted"
    assert (await verify(one)).ok


class Spender:
    """A process that sets aside and settles what its run spends, for itself and for the run above it."""

    def __init__(self, ledger: Ledger, run: str, *above: str) -> None:
        self.ledger, self.run, self.above = ledger, run, list(above)
        self.spent = 0

    async def spend(self, key: str, most: int, cost: int, limit: int) -> bool:
        """Set the most that it may cost aside, wait for others, and settle; whether there was room for it."""
        counts = tuple(Count(run, "usd", most, limit) for run in ("r-1", self.run))
        body: dict[str, Any] = {"name": "shop", "cls": "read", "agent": "a", "args": "", "not_after": 0}
        body |= {"reserve": {"usd": most, "tokens": 0}, "above": self.above}
        if not await _let(self.ledger, Draft(self.run, kinds.ADMITTED, key, body, 1), counts):
            return False
        held = {"held": body["reserve"], "above": self.above, "usd": cost}
        settled = {"name": "shop", "cls": "read", "agent": "a", "workflow": "w", "ms": 0, "out": "", **held}
        await self.ledger.append(Draft(self.run, kinds.SETTLED, key, settled, 1))
        self.spent += cost
        return True


async def family(ledger: Ledger, run: str) -> tuple[int, int, int]:
    """What a run and those below it have spent and set aside, what of that is set aside, and their requests."""
    rows = await ledger.select("counters", [("run", "=", run)])
    return (rows[0]["usd"], rows[0]["usd_held"], rows[0]["requests"]) if rows else (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_processes_that_reserve_and_settle_at_once_never_exceed_a_budget_and_lose_none_of_it(
    store: Store, seed: int
) -> None:
    one, two = await store.open(), await store.open()
    await begin(one, "r-1")
    await begin(two, "r-2", parent="r-1")
    chance, limit = random.Random(seed), 100
    spenders = [Spender(one, "r-1"), Spender(two, "r-2", "r-1")]

    async def buy(spender: Spender, name: str) -> None:
        for number in range(8):
            most = chance.randint(1, 20)
            await spender.spend(f"{name}/{number}", most, chance.randint(0, most), limit)
            used, held, _ = await family(spender.ledger, "r-1")
            assert 0 <= held <= used <= limit

    await asyncio.gather(*(buy(one, f"t{n}") for n in range(4) for one in spenders))
    spent = sum(spender.spent for spender in spenders)
    assert (await family(one, "r-1"))[:2] == (spent, 0)
    assert (await family(one, "r-2"))[:2] == (spenders[1].spent, 0)
    assert await spenders[0].spend("last", limit - spent, 0, limit), "what was set aside and not needed is there again"
    assert not await spenders[0].spend("more", limit - spent + 1, 0, limit)
    await one.append(Draft("r-1", kinds.EXTENDED, "b", {"scope": "run", "by": "ann", "usd": 1}))
    assert await spenders[1].spend("added", limit - spent + 1, 1, limit), "what was added is there for both"
    assert await two.append() == [], "nothing is appended, behind all that was"
    found = await one.select("counters")
    await rebuild(one)
    assert await one.select("counters") == found, "the log alone says what was spent"


def effect(n: int, kind: str, key: str, **body: Any) -> Entry:
    return Entry(n, 0.0, "default", "r-1", kind, key, 1, body)


def test_what_a_run_has_spent_on_its_own_is_what_no_entry_has_counted() -> None:
    """Also where a crash has come between: whatever names the runs above it was counted, and its rule is the same."""
    reserve = {"usd": 5, "tokens": 2}
    alone = [
        effect(1, kinds.ADMITTED, "a", reserve=reserve),
        effect(2, kinds.SETTLED, "a", usd=3),
        effect(3, kinds.ADMITTED, "b", reserve=reserve),
        effect(4, kinds.SETTLED, "free"),
        effect(5, kinds.SETTLED, "hit", cached=True),
    ]
    assert uncounted(alone) == (Amount(8, 2, 3), Amount(5, 2, 1))
    settled = effect(6, kinds.SETTLED, "b", usd=1, above=[], held=reserve)
    assert uncounted([*alone, settled]) == uncounted(alone)
    [delta] = CountersProjection().fold(settled)
    assert delta.key == ("r-1",) and (delta.add["usd"], delta.add["usd_held"], delta.add["requests"]) == (-4, -5, 0)
    began = effect(6, kinds.ADMITTED, "c", reserve=reserve, above=[])
    again = effect(7, kinds.SETTLED, "c", usd=1)
    assert uncounted([*alone, began, again]) == (Amount(4, 0, 3), Amount(0, 0, 0))


async def test_messages_go_out_together_or_not_at_all(store: Store) -> None:
    one, two = await store.open(), await store.open()
    await begin(one, "r-1")
    assert await sends(one, "r-1", "a", 3, 5)
    assert not await sends(two, "r-1", "b", 3, 5)
    assert await sends(two, "r-1", "c", 2, 5)
    assert await counted(two) == {"r-1": (0, 5)}


def test_what_a_fork_is_told_of_counts_for_it_and_what_a_run_hears_of_its_child_was_counted_already() -> None:
    told = {"type": "child", "handoffs": ["h-1", "h-2"], "messages": {"r-2": 3}}

    def fold(body: dict[str, Any]) -> list[Any]:
        return list(CountersProjection().fold(Entry(1, 0.0, "default", "r-1", kinds.SIGNAL, "", 0, body)))

    assert fold(told) == []
    [delta] = fold({**told, "copied": 4})
    assert (delta.key, delta.add) == (("r-1",), {"handoffs": 2, "messages": 3})
