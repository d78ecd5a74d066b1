"""Histories of concurrent clients of the shared context are serializable, says a checker that knows nothing of it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_desk import Desk, Served, simulate

from serializability import Transaction, cycle, edges
from tightship.core.errors import ConflictingWrite
from tightship.core.ports import Request, ToolSpec
from tightship.runtime.simulation import Simulation

KEYS = ("x", "y")


# --- the checker itself -----------------------------------------------------------------------------


def test_a_serial_history_has_no_cycle() -> None:
    first = Transaction("a", {"x": 0}, {"x": 1})
    assert cycle([first, Transaction("b", {"x": 1, "y": 0}, {"y": 2}), Transaction("c", {"x": 1, "y": 2})]) == []


@pytest.mark.parametrize(
    "history",
    [
        # a lost update: both read the beginning, both write
        [Transaction("a", {"x": 0}, {"x": 1}), Transaction("b", {"x": 0}, {"x": 2})],
        # write skew: each reads both, each writes the other one
        [Transaction("a", {"x": 0, "y": 0}, {"x": 1}), Transaction("b", {"x": 0, "y": 0}, {"y": 2})],
        # a torn read: x of before, y of after one transaction that wrote both
        [Transaction("a", {}, {"x": 1, "y": 1}), Transaction("b", {"x": 0, "y": 1})],
        # long fork: two readers see two writes in opposite orders
        [
            Transaction("a", {}, {"x": 1}),
            Transaction("b", {}, {"y": 1}),
            Transaction("c", {"x": 1, "y": 0}),
            Transaction("d", {"x": 0, "y": 1}),
        ],
    ],
    ids=["lost update", "write skew", "torn read", "long fork"],
)
def test_a_planted_violation_is_found(history: list[Transaction]) -> None:
    found = cycle(history)
    assert found and found[0].before == found[-1].after
    assert all(one.after == two.before for one, two in zip(found, found[1:], strict=False))


def test_a_read_of_what_nobody_wrote_is_found() -> None:
    with pytest.raises(ValueError, match="nobody wrote"):
        edges([Transaction("a", {"x": 7})])


# --- snapshots, and compare and set -----------------------------------------------------------------


def clients(seed: int) -> tuple[list[Transaction], int]:
    """Some agents read snapshots of all keys, others change one key by compare and set, several times each."""

    async def story(sim: Simulation) -> tuple[list[Transaction], int]:
        keys = "".join(f"  {key}: {{writers: [work], type: int}}\n" for key in KEYS)
        d = Desk(sim, [], f"context:\n{keys}")
        chance = sim.random("clients")
        history: list[Transaction] = []
        lost = 0

        async def work(ctx: Any, given: Any) -> Any:
            nonlocal lost
            for number in range(4):
                name = f"{given['case']}.{number}"
                await sim.clock.sleep(chance.choice((0.0, 0.001, 0.01)))
                if chance.random() < 0.4:
                    shot = await ctx.snapshot(KEYS)
                    history.append(Transaction(name, {key: shot[key].version for key in KEYS}))
                    continue
                key = chance.choice(KEYS)
                value = await ctx.read(key, required=False)
                await sim.clock.sleep(chance.choice((0.0, 0.001)))
                try:
                    done = await ctx.compare_and_set(key, (value.value or 0) + 1, expect=value.version)
                except ConflictingWrite:
                    lost += 1
                    continue
                history.append(Transaction(name, {key: value.version}, {key: done.version}))
            return {}

        d.agent("work", work)
        d.workflow("work")
        for run in await asyncio.gather(*(d.begin(case=str(number)) for number in range(5))):
            assert run.outcome == "completed", run.package
        for key in KEYS:  # no increment is lost
            writes = sum(1 for one in history if key in one.writes)
            assert ((await d.ws.context.get(key)).value or 0) == writes
        return history, lost

    return simulate(story, seed, shuffle=True)


@given(st.integers(0, 10**9))
@settings(max_examples=25, deadline=None)
def test_snapshots_and_compare_and_set_are_serializable(seed: int) -> None:
    history, _ = clients(seed)
    assert cycle(history) == []


def test_the_clients_do_get_into_each_others_way() -> None:
    assert sum(clients(seed)[1] for seed in range(5)) > 0


# --- gated actions ----------------------------------------------------------------------------------


class Lists:
    """An outside system that keeps lists: reading takes 40 ms, appending 60 ms, at their middle it happens."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.lists: dict[str, list[str]] = {key: [] for key in KEYS}
        schema = {"type": "object"}
        self.read = Served(ToolSpec("lists.read", input_schema=schema), self._read)
        spec = ToolSpec("lists.append", effect="write", input_schema=schema, idempotency="key", timeout=2.0)
        self.append = Served(spec, self._append)

    async def _read(self, request: Request) -> Any:
        await self.sim.clock.sleep(0.02)
        found = {"items": list(self.lists[request.args["key"]]), "at": self.sim.clock.now()}
        await self.sim.clock.sleep(0.02)
        return found

    async def _append(self, request: Request) -> Any:
        await self.sim.clock.sleep(0.03)
        if request.args["item"] not in self.lists[request.args["key"]]:
            self.lists[request.args["key"]].append(request.args["item"])
        await self.sim.clock.sleep(0.03)
        return {}


def acting(seed: int, gated: bool, kill: float = 0.0) -> list[Transaction]:
    """Runs read both lists, think, and append to one of them; a list's length is its version."""

    async def story(sim: Simulation) -> list[Transaction]:
        lists = Lists(sim)
        config = (
            "context:\n  list/*: {max_age: 20s, source: {tool: lists.read, with: {key: 'parts[0]'}, "
            "value: result.items, as_of: result.at}}\n"
        )
        d = Desk(sim, [lists.read, lists.append], config)
        chance = sim.random("clients")
        choices = {
            str(number): (chance.choice(KEYS), chance.uniform(0, 1.0), chance.uniform(0, 0.3)) for number in range(6)
        }

        async def decide(ctx: Any, given: Any) -> Any:
            key, _, thinks = choices[given["case"]]
            shot = await ctx.snapshot([f"list/{one}" for one in KEYS])
            await sim.clock.sleep(thinks)
            return {"key": key, "item": given["case"], "saw": {one: len(shot[f"list/{one}"].value) for one in KEYS}}

        d.agent("decide", decide)
        action: dict[str, Any] = {"tool": "lists.append", "undo": "none"}
        action["with"] = {"key": "decide.key", "item": "decide.item"}
        if gated:
            action["gate"] = {"agents": ["decide"], "on": ["list/*"], "rounds": 20}
        d.workflow(
            "decide", {"action": action}, output={"saw": "decide.saw", "key": "decide.key", "item": "decide.item"}
        )

        async def one(case: str) -> None:
            await sim.clock.sleep(choices[case][1])
            await d.run(case=case, reference=case)

        tasks = [asyncio.ensure_future(one(case)) for case in choices]
        if kill:
            await sim.clock.sleep(kill)
            for task in tasks:
                task.cancel()
            d.kill()
            await d.resume()
            for case in choices:
                await d.run(case=case, reference=case)
        else:
            await asyncio.gather(*tasks)
        rows = await d.ledger.select("runs")
        runs = [await d.ws.result(row["id"]) for row in rows]
        assert {run.outcome for run in runs} == {"completed"}, [run.package for run in runs]
        history: list[Transaction] = []
        for run in runs:
            saw, key, item = (run.output[name] for name in ("saw", "key", "item"))
            history.append(Transaction(item, saw, {key: lists.lists[key].index(item) + 1}))
        assert len(history) == len(choices)
        return history

    return simulate(story, seed, shuffle=True)


@given(st.integers(0, 10**9))
@settings(max_examples=15, deadline=None)
def test_gated_actions_are_serializable(seed: int) -> None:
    assert cycle(acting(seed, gated=True)) == []


@given(st.integers(0, 10**9), st.floats(0.05, 1.5))
@settings(max_examples=15, deadline=None)
def test_gated_actions_are_serializable_over_a_kill(seed: int, kill: float) -> None:
    assert cycle(acting(seed, gated=True, kill=kill)) == []


def test_without_the_gate_the_checker_finds_cycles() -> None:
    assert all(cycle(acting(seed, gated=False)) for seed in range(3))


@given(st.integers(0, 10**9))
@settings(max_examples=15, deadline=None)
def test_no_increment_is_lost_where_writes_are_merged(seed: int) -> None:
    async def story(sim: Simulation) -> None:
        d = Desk(sim, [], "context:\n  sum: {writers: [work], type: int, conflict: {merge: 'rules:add'}}\n")
        (d.folder / "agents").mkdir()
        rule = "def add(base, theirs, ours):\n    return theirs + ours - (base or 0)\n"
        (d.folder / "agents" / "rules.py").write_text(rule)
        d.open()
        chance = sim.random("clients")
        added = 0

        async def work(ctx: Any, given: Any) -> Any:
            nonlocal added
            for _ in range(3):
                value, more = await ctx.read("sum", required=False), chance.randint(1, 9)
                await sim.clock.sleep(chance.choice((0.0, 0.001, 0.01)))
                await ctx.write("sum", (value.value or 0) + more)
                added += more
            return {}

        d.agent("work", work)
        d.workflow("work")
        await asyncio.gather(*(d.begin(case=str(number)) for number in range(4)))
        assert (await d.ws.context.get("sum")).value == added

    simulate(story, seed, shuffle=True)
