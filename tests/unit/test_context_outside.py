"""The shared context from outside of runs: what sources push, what people set, and following changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_desk import PERSON, Desk, simulate

from tightship.core import kinds
from tightship.core.errors import ConflictingWrite, InvalidArguments, LoadError, NotDeclared, UnknownName
from tightship.runtime.simulation import Simulation
from tightship.runtime.workspace import Workspace

CONFIG = """
context:
  rate/*: {feeds: [bank], type: float, max_age: 10s, skew: 30s}
  plan: {writers: [operator], type: str, ttl: 60s}
  step: {writers: [operator], scope: workflow}
"""


def test_a_declared_source_pushes_and_nobody_else() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        context, now = d.ws.context, sim.clock.now()
        version = await context.push("rate/eur", 1.1, source="bank", as_of=now - 2)
        value = await context.get("rate/eur")
        assert (value.value, value.version, value.writer, value.age) == (1.1, version, "bank", 2.0)
        for call, error, said in [
            (lambda: context.push("rate/eur", 2.0, source="mallory", as_of=now), NotDeclared, "may not push"),
            (lambda: context.push("rate/eur", "high", source="bank", as_of=now), InvalidArguments, "does not fit"),
            (lambda: context.push("rate/eur", 1.0, source="bank", as_of=now + 300), InvalidArguments, "in the future"),
            (lambda: context.push("rate", 1.0, source="bank", as_of=now), UnknownName, "no key 'rate'"),
            (lambda: context.set("rate/eur", 1.0, by=PERSON), NotDeclared, "holds no role"),
            (lambda: context.get("step"), InvalidArguments, "belongs to one workflow"),
        ]:
            with pytest.raises(error, match=said):
                await call()
        [stats] = await context.stats("rate/eur")
        assert (stats.version, stats.writes, stats.refusals) == (version, 1, 2)

    simulate(story)


def test_what_is_pushed_out_of_order_changes_nothing_and_is_kept() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        now = sim.clock.now()
        newest = await d.ws.context.push("rate/eur", 1.2, source="bank", as_of=now)
        assert await d.ws.context.push("rate/eur", 1.1, source="bank", as_of=now - 5) == newest
        assert (await d.ws.context.get("rate/eur")).value == 1.2
        [conflict] = await d.entries(kinds.CONFLICT)
        assert conflict.body["rule"] == "as_of" and await d.ledger.value(conflict.body["value"]) == 1.1

    simulate(story)


def test_a_person_sets_what_stands_at_the_version_they_saw_and_it_runs_out() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        context = d.ws.context
        first = await context.set("plan", "a", by=PERSON, expect=0)
        with pytest.raises(ConflictingWrite, match=f"stands at version {first}"):
            await context.set("plan", "b", by=PERSON, expect=0)
        await context.set("plan", "b", by=PERSON, expect=first)
        assert (await context.get("plan")).value == "b"
        await sim.clock.sleep(61.0)
        assert not await context.get("plan")
        version = await context.set("step", 1, by=PERSON, workflow="flow")
        listed = {(scope, one.key): one.version for scope, one in await context.list()}
        assert listed["workflow:default/flow", "step"] == version

    simulate(story)


def test_who_watches_is_told_of_each_change_and_of_no_other_key() -> None:
    async def story(sim: Simulation) -> list[Any]:
        d = Desk(sim, [], CONFIG)
        told: list[Any] = []

        async def watch() -> None:
            async for value in d.ws.context.watch("rate/*"):
                told.append((value.key, value.value))
                if len(told) == 2:
                    return

        watching = d.process.start(watch())
        await sim.clock.sleep(0.1)
        await d.ws.context.push("rate/eur", 1.1, source="bank", as_of=sim.clock.now())
        await d.ws.context.set("plan", "a", by=PERSON)
        await sim.clock.sleep(0.1)
        await d.ws.context.push("rate/chf", 0.9, source="bank", as_of=sim.clock.now())
        await watching
        return told

    assert simulate(story) == [("rate/eur", 1.1), ("rate/chf", 0.9)]


def test_a_follower_that_heard_nothing_for_250_ms_reads_through() -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], CONFIG)
        context = d.ws.context
        await context.push("rate/eur", 1.1, source="bank", as_of=sim.clock.now())
        follower = await context.follow("rate/*")
        async with follower.following():
            await sim.clock.sleep(0.1)
            assert (await follower.get("rate/eur")).value == 1.1
            assert (follower.read_through, follower.stale) == (1, False)
            assert (await follower.get("rate/eur")).value == 1.1
            assert follower.read_through == 1  # from its copy
        await context.push("rate/eur", 1.3, source="bank", as_of=sim.clock.now())  # its feed is cut: it hears nothing
        await sim.clock.sleep(0.3)
        assert follower.stale
        assert (await follower.get("rate/eur")).value == 1.3
        assert follower.read_through == 2

    simulate(story)


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("plan: {type: str}", "nobody may write this key"),
        ("plan: {writers: [operator], type: strng}", "is no type"),
        ("plan: {writers: [operator], conflict: {priority: [a], person: operator}}", "exactly one of"),
        ("plan: {writers: [operator], stale: refresh}", "needs a source"),
        ("'plan//x': {writers: [operator]}", "is no key"),
        ("plan: {writers: [operator], max_age: soon}", "is no duration"),
    ],
)
def test_a_wrong_declaration_is_an_error_of_loading_with_its_place(tmp_path: Any, key: str, says: str) -> None:
    (tmp_path / "tightship.yaml").write_text(f"name: desk\nroles: {{operator: [ann]}}\ncontext:\n  {key}\n")
    with pytest.raises(LoadError, match=says) as found:
        Workspace.open(tmp_path)
    assert (found.value.file, found.value.line) == ("tightship.yaml", 4)
    assert found.value.column and found.value.fix


def test_two_processes_follow_each_other(tmp_path: Any) -> None:
    """Over one SQLite store: what the one sets, the other is told of."""
    (tmp_path / "tightship.yaml").write_text(f"name: desk\nroles: {{operator: [ann]}}\n{CONFIG}")

    async def story() -> list[Any]:
        async with Workspace.open(tmp_path) as one, Workspace.open(tmp_path) as other:
            await one.context.set("plan", "a", by="ann")
            follower = await other.context.follow("plan")
            async with follower.following():
                changes = follower.changes()
                waiting = asyncio.ensure_future(anext(changes))
                await one.context.set("plan", "b", by="ann")
                value = await asyncio.wait_for(waiting, 300)
                await changes.aclose()
                return [value.value, (await follower.get("plan")).value]

    assert asyncio.run(story()) == ["b", "b"]
