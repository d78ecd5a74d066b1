"""Counters of a run and those below it: no two processes together let more through than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ledger_desk import KINDS, Store, begin
from tightship.controls.counters import CountersProjection
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
