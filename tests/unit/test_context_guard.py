"""The guard of an append that rests on values of the shared context, judged under the head's lock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from engine_desk import Desk, simulate

import postgres_desk
from tightship.core import kinds
from tightship.core.errors import DataMissing, GuardRefused
from tightship.core.world import World
from tightship.ledger import Draft, Expected, Guards, Ledger
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import projections

SCOPE = "tenant:default"


def written(key: str = "k", **more: Any) -> Draft:
    return Draft("", kinds.CONTEXT, "", {"scope": SCOPE, "key": key, "value": "ab", "writer": "w", **more})


async def opened(store: str, folder: Path) -> Ledger:
    if store == "memory":
        return Ledger.in_memory(World(), projections())
    where = postgres_desk.new_store() if store == "postgres" else folder / "store"
    return await Ledger.open(where, World(), projections(), folder=folder / "store")


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"])
def test_of_two_writes_on_one_version_in_one_batch_the_first_stands(store: str, tmp_path: Path) -> None:
    async def story() -> None:
        ledger = await opened(store, tmp_path)
        [first] = await ledger.append(written(), guards=Guards(context=(Expected(SCOPE, "k", 0),)))
        guards = Guards(context=(Expected(SCOPE, "k", first.n),))
        both = [ledger.append(written(), guards=guards) for _ in range(2)]  # one tick: one batch
        second, refusal = await asyncio.gather(*both, return_exceptions=True)
        assert not isinstance(second, BaseException)
        assert isinstance(refusal, GuardRefused) and (refusal.reason, refusal.holder) == ("context", "k")
        [row] = await ledger.select("context")
        assert (row["version"], row["writes"]) == (second[0].n, 2)
        await ledger.close()

    asyncio.run(story())


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"])
def test_a_lease_is_taken_over_only_once_it_has_run_out_by_the_time_of_the_store(store: str, tmp_path: Path) -> None:
    async def story() -> None:
        ledger = await opened(store, tmp_path)
        [held] = await ledger.append(written(key="held", ttl=600.0))
        [lapsed] = await ledger.append(written(key="lapsed", ttl=1e-6))
        with pytest.raises(GuardRefused, match="has not run out"):
            await ledger.append(
                written(key="held"), guards=Guards(context=(Expected(SCOPE, "held", held.n, over=True),))
            )
        over = Guards(context=(Expected(SCOPE, "lapsed", lapsed.n, over=True),))
        assert await ledger.append(written(key="lapsed"), guards=over)
        await ledger.close()

    asyncio.run(story())


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"])
def test_a_gated_action_holds_what_it_rests_on_until_it_was_read_again(store: str, tmp_path: Path) -> None:
    async def story() -> None:
        ledger = await opened(store, tmp_path)

        async def stands(version: int, **more: Any) -> bool:
            guards = Guards(context=(Expected(SCOPE, "k", version, **more),))
            try:
                await ledger.append(Draft("", kinds.NOTE, "", {"type": "tried"}), guards=guards)
            except GuardRefused:
                return False
            return True

        [value] = await ledger.append(written(since=1))
        assert await stands(value.n, alone=True) and not await stands(value.n + 1)
        assert not await stands(value.n, until=World().clock.now() - 1)
        gate = [[SCOPE, "k", value.n]]
        await ledger.append(Draft("", kinds.ADMITTED, "e", {"name": "t", "cls": "write", "agent": "a", "gate": gate}))
        assert not await stands(value.n, alone=True) and await stands(value.n)
        body = {"name": "t", "cls": "write", "agent": "a", "workflow": "w", "gate": [[SCOPE, "k"]]}
        [settled] = await ledger.append(Draft("", kinds.SETTLED, "e", body))
        assert not await stands(value.n, alone=True)
        [late] = await ledger.append(written(since=settled.n - 1))  # it was asked for before the action settled
        assert not await stands(late.n, alone=True)
        [new] = await ledger.append(written(since=settled.n))
        assert await stands(new.n, alone=True)
        await ledger.close()

    asyncio.run(story())


def test_a_value_is_erased_with_the_data_subject_of_the_run_that_wrote_it() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], "context:\n  note: {writers: [a]}\n")
        told: list[Any] = []

        async def a(ctx: Any, given: Any) -> Any:
            if given["case"] == "anna":
                await ctx.write("note", "Anna is away")
            else:
                with pytest.raises(DataMissing):
                    await ctx.read("note")
                told.append(True)
            return {}

        d.agent("a", a, input={"case": "str"})
        d.workflow("a", subjects=["input.case"])
        await d.run(case="anna")
        assert (await d.ws.context.get("note")).value == "Anna is away"
        await d.ledger.erase("default", "anna", "ann")
        assert not await d.ws.context.get("note")
        assert (await d.run(case="bert")).outcome == "completed" and told == [True]

    simulate(story)
