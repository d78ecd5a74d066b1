"""Claiming due runs: in an append's own transaction, fairly, each run by one owner, the same on every store."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import KINDS, Store, note, started
from tightship.core import kinds
from tightship.core.errors import StaleOwner
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger.claiming import Claiming, due_rows
from tightship.ledger.presence import Presence


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(request.param, tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def ledger(store: Store) -> Ledger:
    return await store.open()


@pytest.fixture
async def living(store: Store, ledger: Ledger) -> AsyncIterator[str]:
    """The id of a worker that lives."""
    if store.kind != "postgres":
        ledger.backend.alive.add("w-living")  # type: ignore[attr-defined]
        yield "w-living"
        return
    presence = await Presence.start(str(store.where), "b1")
    yield presence.id
    await presence.close()


async def queue(ledger: Ledger, run: str, **body: Any) -> None:
    """A run that waits for an owner."""
    await ledger.append(started(run, **{"owner": "", "build": "b1", **body}), guards=Guards(fresh=True))


async def claimed(ledger: Ledger, limit: int = 100, owner: str = "w-1", **more: Any) -> list[str]:
    return [row["id"] for row in await ledger.claim(owner, "b1", limit, **more)]


async def test_what_is_queued_is_claimed_and_recorded_once(ledger: Ledger) -> None:
    await queue(ledger, "r-1")
    [row] = await ledger.claim("w-1", "b1", 10)
    assert (row["id"], row["state"], row["owner"], row["epoch"]) == ("r-1", "running", "w-1", 2)
    assert await ledger.select("runs") == [row]
    entry = (await ledger.run_entries("r-1"))[-1]
    assert (entry.kind, entry.epoch, entry.body) == (kinds.CLAIMED, 2, {"owner": "w-1", "build": "b1"})
    with pytest.raises(StaleOwner):
        await ledger.append(note("r-1", epoch=1))
    await ledger.append(note("r-1", epoch=2))


async def test_who_lives_keeps_its_runs_and_who_is_dead_loses_them(ledger: Ledger, living: str) -> None:
    for run, owner in (("r-1", living), ("r-2", "w-dead"), ("r-3", living)):
        await queue(ledger, run, owner=owner)
    assert await claimed(ledger, owner=living) == ["r-2"]
    assert await claimed(ledger, owner=living) == []


async def test_a_parked_run_is_due_when_its_time_has_come_or_it_was_told_something(ledger: Ledger, living: str) -> None:
    for run, wake_at in (("r-1", 1.0), ("r-2", 9e9), ("r-3", 9e9)):
        await queue(ledger, run, owner=living)
        await ledger.append(Draft(run, kinds.PARKED, "", {"wake_at": wake_at, "seen": 0}, 1))
    await ledger.append(Draft("r-3", kinds.SIGNAL, "", {"type": "wake"}))
    assert await claimed(ledger, owner=living) == ["r-1", "r-3"]


async def test_ended_runs_other_builds_and_rehearsals_are_left_alone(ledger: Ledger) -> None:
    await queue(ledger, "r-1", build="b0")
    await queue(ledger, "r-2", live=False)
    await queue(ledger, "r-3")
    await ledger.append(Draft("r-3", kinds.ENDED, "", {"outcome": "completed"}, 1))
    await ledger.append(Draft("r-4", kinds.SIGNAL, "", {"type": "wake"}))  # no run yet
    assert await claimed(ledger) == []
    assert await claimed(ledger, live=False) == ["r-2"]


async def test_tenants_take_turns_then_priority_then_age_decides(ledger: Ledger, living: str) -> None:
    for number in range(4):
        await queue(ledger, f"a-{number}", tenant="a", priority=int(number != 3))
    await queue(ledger, "b-0", tenant="b")
    await queue(ledger, "b-1", tenant="b")
    await queue(ledger, "c-0", tenant="c", owner=living)
    await queue(ledger, "c-1", tenant="c")
    assert await claimed(ledger, 3, owner=living) == ["a-3", "b-0", "b-1"]
    assert await claimed(ledger, 3, owner=living) == ["c-1", "a-0", "a-1"]
    assert await claimed(ledger, 3, owner=living) == ["a-2"]


async def test_of_many_who_claim_at_once_each_run_gets_one(store: Store, living: str) -> None:
    first, second = await store.open(), await store.open()
    if store.kind != "postgres":
        for one in (first, second):
            one.backend.alive.add(living)  # type: ignore[attr-defined]
    for number in range(12):
        await queue(first, f"r-{number:02d}")
    parts = await asyncio.gather(*(claimed(one, 2, living) for one in (first, second) for _ in range(4)))
    runs = [run for part in parts for run in part]
    assert sorted(runs) == [f"r-{number:02d}" for number in range(12)]


async def test_a_run_that_this_batch_has_just_taken_is_not_claimed_again(ledger: Ledger, living: str) -> None:
    await queue(ledger, "r-1")
    taken = ledger.append(
        Draft("r-1", kinds.CLAIMED, "", {"owner": living, "build": "b1"}, 2), guards=Guards(takeover=1)
    )
    assert await claimed(ledger, owner=living) == []
    await taken


@pytest.mark.parametrize("seed", range(4))
async def test_every_store_claims_the_same_runs_in_the_same_order(ledger: Ledger, living: str, seed: int) -> None:
    dice = random.Random(seed)
    for number in range(40):
        run, owner = f"r-{number}", dice.choice(["", "", living, "w-dead"])
        body = {"tenant": dice.choice("abc"), "priority": dice.randrange(3), "build": dice.choice(["b1", "b1", "b2"])}
        await queue(ledger, run, owner=owner, live=dice.random() < 0.9, **body)
        if dice.random() < 0.3:
            wake_at = dice.choice([1.0, 9e9])
            await ledger.append(Draft(run, kinds.PARKED, "", {"wake_at": wake_at, "seen": 0}, 1))
    claiming = Claiming(living, "b1", 25, True, ())
    expected = due_rows(await ledger.select("runs"), claiming, {living}, 2e9)
    assert len(expected) > 10
    assert await claimed(ledger, 25, living) == [row["id"] for row in expected]
