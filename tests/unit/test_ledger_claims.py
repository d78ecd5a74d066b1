"""Claiming due runs: in an append's own transaction, fairly, each run by one owner, the same on every store."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import KINDS, Store, note, started
from store_desk import ledger_of_store, store_of
from tightship.core import kinds
from tightship.core.errors import StaleOwner
from tightship.ledger import Draft, Guards, Ledger
from tightship.ledger.claiming import Bounds, Claiming, due_rows
from tightship.ledger.presence import Presence

store = store_of(*KINDS)
ledger = ledger_of_store()


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


# --- bounds ------------------------------------------------------------------------------------------

open_rows = st.lists(
    st.fixed_dictionaries(
        {
            "tenant": st.sampled_from("abc"),
            "workflow": st.sampled_from(["quick", "slow"]),
            "state": st.sampled_from(["queued", "queued", "parked", "running"]),
            "owner": st.sampled_from(["w-living", "w-dead"]),
            "priority": st.integers(0, 2),
            "started_at": st.floats(0, 500),
            "parent": st.sampled_from(["", "", "", "r-above"]),
        }
    ),
    max_size=30,
).map(lambda rows: [{"id": f"r-{n:02}", "build": "b1", "live": 1, "wake_at": 0.0, **row} for n, row in enumerate(rows)])
bound = st.none() | st.integers(1, 5)
some_bounds = st.builds(
    Bounds,
    total=bound,
    tenant=bound,
    tenants=st.dictionaries(st.sampled_from("ab"), bound),
    workflows=st.dictionaries(st.just("slow"), st.integers(1, 5)),
)


def worked_on(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["state"] == "running" and row["owner"] == "w-living" and not row["parent"]]


def has_room(bounds: Bounds, row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether one more run may be worked on, said without the code under test."""
    there = worked_on(rows)
    limits = [
        (bounds.total, len(there)),
        (bounds.tenants.get(row["tenant"], bounds.tenant), sum(one["tenant"] == row["tenant"] for one in there)),
        (bounds.workflows.get(row["workflow"]), sum(one["workflow"] == row["workflow"] for one in there)),
    ]
    return bool(row["parent"]) or all(most is None or count < most for most, count in limits)


@given(open_rows, some_bounds, st.integers(1, 6))
def test_claims_fill_the_bounds_and_never_exceed_them_and_leave_nobody_out_who_has_room(
    rows: list[dict[str, Any]], bounds: Bounds, limit: int
) -> None:
    """Claim after claim, until one gives nothing: then nothing due has room, whoever stood before it."""
    while True:
        waiting = [row for row in rows if not (row["state"] == "running" and row["owner"] == "w-living")]
        able = [row for row in waiting if has_room(bounds, row, rows)]
        found = due_rows(rows, Claiming("w-living", "b1", limit, True, (), bounds), {"w-living"}, 1.0)
        assert bool(found) == bool(able), "the first that has room is always taken"
        if not found:
            break
        for taken in found:
            [row] = [row for row in rows if row["id"] == taken["id"]]
            assert has_room(bounds, row, rows)
            row |= {"state": "running", "owner": "w-living"}


@given(open_rows, some_bounds)
def test_among_those_that_have_room_the_order_is_that_without_bounds(
    rows: list[dict[str, Any]], bounds: Bounds
) -> None:
    able = [
        row for row in rows if (row["state"] == "running" and row["owner"] == "w-living") or has_room(bounds, row, rows)
    ]
    free = due_rows(able, Claiming("w-living", "b1", 100, True, ()), {"w-living"}, 1.0)
    found = due_rows(rows, Claiming("w-living", "b1", 100, True, (), bounds), {"w-living"}, 1.0)
    names = [row["id"] for row in free]
    places = [names.index(row["id"]) for row in found]
    assert places == sorted(places)


async def test_a_tenant_has_no_more_at_work_than_it_may_whoever_claims(ledger: Ledger, living: str) -> None:
    for number in range(4):
        await queue(ledger, f"a-{number}", tenant="a")
        await queue(ledger, f"b-{number}", tenant="b")
    bounds = Bounds(tenants={"a": 2})
    assert await claimed(ledger, 5, living, bounds=bounds) == ["a-0", "b-0", "a-1", "b-1"]
    assert await claimed(ledger, 5, living, bounds=bounds) == ["b-2", "b-3"]
    await ledger.append(Draft("a-0", kinds.ENDED, "", {"outcome": "completed"}, 2))
    assert await claimed(ledger, 5, living, bounds=bounds) == ["a-2"], "its place is free again"
    await ledger.append(Draft("a-1", kinds.PARKED, "", {"wake_at": 9e9, "seen": 0}, 2))
    assert await claimed(ledger, 5, living, bounds=bounds) == ["a-3"], "a parked run has none"
    await ledger.append(Draft("a-1", kinds.SIGNAL, "", {"type": "wake"}))
    assert await claimed(ledger, 5, living, bounds=bounds) == []
    await ledger.append(Draft("a-3", kinds.ENDED, "", {"outcome": "completed"}, 2))
    assert await claimed(ledger, 5, living, bounds=bounds) == ["a-1"]


async def test_what_a_full_workflow_holds_back_is_in_nobodys_way(ledger: Ledger, living: str) -> None:
    for number in range(6):
        await queue(ledger, f"slow-{number}", workflow="slow")
    await queue(ledger, "quick", workflow="quick")
    bounds = Bounds(workflows={"slow": 1})
    assert await claimed(ledger, 3, living, bounds=bounds) == ["slow-0"]
    assert await claimed(ledger, 3, living, bounds=bounds) == ["quick"]
    assert await claimed(ledger, 3, living, bounds=bounds) == []


async def test_a_run_below_another_one_is_taken_up_though_its_parent_has_the_last_place(
    ledger: Ledger, living: str
) -> None:
    await queue(ledger, "r-above", owner=living)
    await queue(ledger, "r-below", owner="w-dead", parent="r-above")
    await queue(ledger, "r-other")
    assert await claimed(ledger, owner=living, bounds=Bounds(total=1)) == ["r-below"]
    assert await claimed(ledger, owner=living, bounds=Bounds(total=1)) == []


async def test_a_run_that_its_worker_cannot_move_takes_no_place_from_that_worker(ledger: Ledger, living: str) -> None:
    await queue(ledger, "r-1", owner=living)
    await queue(ledger, "r-2")
    assert await claimed(ledger, owner=living, bounds=Bounds(total=1)) == []
    assert await claimed(ledger, owner="w-other", bounds=Bounds(total=1), idle=["r-1"]) == []
    assert await claimed(ledger, owner=living, bounds=Bounds(total=1), idle=["r-1"]) == ["r-2"]


async def test_claims_of_one_batch_know_of_each_other(store: Store, living: str) -> None:
    first, second = await store.open(), await store.open()
    if store.kind != "postgres":
        for one in (first, second):
            one.backend.alive.add(living)  # type: ignore[attr-defined]
    for number in range(12):
        await queue(first, f"r-{number:02d}", tenant="ab"[number % 2])
    bounds = Bounds(tenant=2)
    parts = await asyncio.gather(*(claimed(one, 2, living, bounds=bounds) for one in (first, second) for _ in range(4)))
    assert sorted(run for part in parts for run in part) == ["r-00", "r-01", "r-02", "r-03"]


@pytest.mark.parametrize("seed", range(4))
async def test_every_store_keeps_bounds_in_the_same_way(ledger: Ledger, living: str, seed: int) -> None:
    dice = random.Random(seed)
    for number in range(40):
        run, owner = f"r-{number}", dice.choice(["", "", living, "w-dead"])
        body = {"tenant": dice.choice("abc"), "priority": dice.randrange(3), "workflow": dice.choice(["slow", "quick"])}
        body["parent"] = dice.choice(["", "r-above"]) if owner else ""
        await queue(ledger, run, owner=owner, live=dice.random() < 0.9, **body)
        if dice.random() < 0.3:
            wake_at = dice.choice([1.0, 9e9])
            await ledger.append(Draft(run, kinds.PARKED, "", {"wake_at": wake_at, "seen": 0}, 1))
    bounds = Bounds(total=15, tenant=dice.randrange(3, 6), tenants={"a": 8}, workflows={"slow": 6})
    for _ in range(4):
        claiming = Claiming(living, "b1", 6, True, (), bounds)
        expected = due_rows(await ledger.select("runs"), claiming, {living}, 2e9)
        assert await claimed(ledger, 6, living, bounds=bounds) == [row["id"] for row in expected]
