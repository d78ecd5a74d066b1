"""The shared context through the door: versions, ages, refreshes, access, conflicts, replay."""

from __future__ import annotations

from typing import Any

import pytest
from engine_desk import Desk, simulate, tool

from tightship.core import kinds
from tightship.core.errors import (
    ConflictingWrite,
    DataMissing,
    InvalidArguments,
    NotDeclared,
    StaleContext,
    Unavailable,
)
from tightship.core.ports import Reply, Usage
from tightship.runtime.simulation import Simulation

CONFIG = """
context:
  stock/*:
    writers: [a, b, operator]
    type: int
    max_age: 10s
    source: {tool: erp.stock, with: {sku: "parts[0]"}, value: result.count, as_of: result.at}
  plan:
    writers: [a, b]
    type: {text: str}
    max_bytes: 100
  ranked: {writers: [a, b], conflict: {priority: [a, b]}}
  asked: {writers: [a, b], conflict: {person: operator}, type: int}
  secret: {writers: [b], readers: [b]}
  private: {writers: [a], scope: run}
  feed: {feeds: [erp], max_age: 1s}
  limit: {writers: [operator], type: int}
"""


def desk(sim: Simulation, *tools: Any) -> Desk:
    return Desk(sim, tools, CONFIG)


def erp(sim: Simulation, *, behind: float = 0.0, seconds: float = 0.0) -> Any:
    counts = iter(range(100, 1000))

    def answer(_: Any) -> Reply:
        return Reply({"count": next(counts), "at": sim.clock.now() - behind})

    return tool("erp.stock", answer)


def test_a_write_has_a_version_a_writer_and_an_age_and_a_reader_gets_them() -> None:
    async def story(sim: Simulation) -> Any:
        d = desk(sim, erp(sim))

        async def a(ctx: Any, given: Any) -> Any:
            done = await ctx.write("plan", {"text": "buy"}, sources=[7, "doc"])
            value = await ctx.read("plan")
            assert (value.version, value.value, value.writer, value.run) == (
                done.version,
                {"text": "buy"},
                "a",
                ctx.run,
            )
            assert value.sources == (7, "doc") and value.as_of is None and value.age == 0.0
            return {"version": done.version}

        d.agent("a", a)
        d.workflow("a")
        run = await d.run()
        assert run.outcome == "completed", run.package
        [written] = await d.entries(kinds.CONTEXT)
        assert written.n == run.output["version"]
        value = await d.ws.context.get("plan")
        assert value.version == written.n and value.value == {"text": "buy"}

    simulate(story)


def one_agent(story: Any, *, erp_behind: float | None = 0.0) -> None:
    """Run one agent `a` whose code is the story; every failure in it is the test's."""

    async def outer(sim: Simulation) -> None:
        d = desk(sim, *([] if erp_behind is None else [erp(sim, behind=erp_behind)]))
        failed: list[BaseException] = []

        async def a(ctx: Any, given: Any) -> Any:
            try:
                await story(ctx, d, sim)
            except BaseException as error:
                failed.append(error)
                raise
            return {}

        d.agent("a", a)
        d.workflow("a")
        run = await d.run()
        if failed:
            raise failed[0]
        assert run.outcome == "completed", run.package

    simulate(outer)


def test_a_stale_read_goes_to_the_source_and_a_young_one_does_not() -> None:
    async def story(ctx: Any, d: Desk, sim: Simulation) -> None:
        first = await ctx.read("stock/widget")
        assert (first.value, first.writer) == (100, "erp.stock")
        await sim.clock.sleep(5.0)
        assert (await ctx.read("stock/widget")).value == 100
        assert (await ctx.read("stock/widget", max_age="4s")).value == 101
        await sim.clock.sleep(11.0)
        assert (await ctx.read("stock/widget")).value == 102

    one_agent(story)


def test_a_fresh_write_of_old_data_is_old() -> None:
    async def story(ctx: Any, d: Desk, sim: Simulation) -> None:
        await ctx.write("stock/widget", 7, as_of=sim.clock.now() - 60)
        assert (await ctx.read("stock/widget", max_age=61)).age == 60
        assert (await ctx.read("stock/widget")).value == 100  # from the source

    one_agent(story)


def test_a_source_that_is_itself_behind_is_no_refresh() -> None:
    async def story(ctx: Any, d: Desk, sim: Simulation) -> None:
        with pytest.raises(StaleContext, match="stock/widget is 30 s old"):
            await ctx.read("stock/widget")

    one_agent(story, erp_behind=30.0)


def test_many_readers_share_one_refresh() -> None:
    async def story(sim: Simulation) -> Any:
        source = erp(sim)
        d = desk(sim, source)

        async def a(ctx: Any, given: Any) -> Any:
            found = await ctx.parallel(*[lambda c: c.read("stock/widget") for _ in range(8)])
            return {"values": sorted({one.value for one in found})}

        d.agent("a", a)
        d.workflow("a")
        run = await d.run()
        assert run.output == {"values": [100]} and len(source.calls) == 1

    simulate(story)


def test_what_is_not_allowed_is_refused_counted_and_changes_nothing() -> None:
    async def story(ctx: Any, d: Desk, sim: Simulation) -> None:
        refusals: list[tuple[Any, Any, str]] = [
            (lambda: ctx.write("secret", 1), NotDeclared, "a may not write secret"),
            (lambda: ctx.read("secret"), NotDeclared, "a may not read secret"),
            (lambda: ctx.write("feed", 1), NotDeclared, "a may not write feed"),
            (lambda: ctx.read("stok/widget"), NotDeclared, "no key 'stok/widget'"),
            (lambda: ctx.read("stock//x"), InvalidArguments, "is no key"),
            (lambda: ctx.write("plan", {"text": 7}), InvalidArguments, "expected string"),
            (lambda: ctx.write("plan", {"text": "x" * 200}), InvalidArguments, "more than its 100"),
            (lambda: ctx.write("stock/a", 1, as_of=sim.clock.now() + 300), InvalidArguments, "in the future"),
            (lambda: ctx.compare_and_set("plan", {"text": "x"}, expect=3), InvalidArguments, "never had the version 3"),
            (lambda: ctx.read("plan"), DataMissing, "nothing was written"),
        ]
        for call, error, said in refusals:
            with pytest.raises(error, match=said):
                await call()
        assert not await ctx.read("plan", required=False)
        assert await d.entries(kinds.CONTEXT) == []
        counted = {one.key: one.refusals for one in await d.ws.context.stats()}
        assert counted["secret"] == 2 and counted["feed"] == 1 and counted["plan"] == 3

    one_agent(story)


def test_a_snapshot_stands_at_one_position() -> None:
    async def story(ctx: Any, d: Desk, sim: Simulation) -> None:
        await ctx.write("plan", {"text": "one"})
        done = await ctx.write("ranked", 5)
        shot = await ctx.snapshot(["plan", "ranked", "private"])
        assert shot.position == done.version
        assert (shot["plan"].value, shot["ranked"].value, bool(shot["private"])) == ({"text": "one"}, 5, False)

    one_agent(story)


def two_writers(key: str, mine: Any, theirs: Any, *, by: str = "a", config: str = "") -> tuple[Any, Any, Any]:
    """Agents a and b read the key's first value; the other one writes, then `by`. (end or error, value, conflicts)"""

    async def story(sim: Simulation) -> Any:
        d = Desk(sim, [erp(sim)], config or CONFIG)
        other = "b" if by == "a" else "a"
        told: list[Any] = []

        async def first(ctx: Any, given: Any) -> Any:
            await ctx.write(key, 1)
            return {}

        async def second(ctx: Any, given: Any) -> Any:
            return {}

        async def racing(ctx: Any, given: Any) -> Any:
            value = await ctx.read(key)
            await sim.clock.sleep(1.0 if ctx.agent == other else 2.0)
            try:
                told.append((ctx.agent, (await ctx.write(key, mine if ctx.agent == by else theirs)).end, value.version))
            except ConflictingWrite as error:
                told.append((ctx.agent, error, value.version))
            return {}

        d.agent("a", lambda c, g: first(c, g) if g.get("case") == "start" else racing(c, g), input={"case": "str?"})
        d.agent("b", racing)
        d.workflow("a", name="start")
        d.workflow({"concurrent": ["a", "b"]}, name="race")
        assert (await d.run("start", "start")).outcome == "completed"
        await d.run("race", "race")
        ends = {agent: end for agent, end, _ in told}
        assert ends[other] == "written"
        return ends[by], (await d.ws.context.get(key)).value, [one.body for one in await d.entries(kinds.CONFLICT)]

    return simulate(story)


def test_the_first_writer_wins_and_the_second_is_told_who() -> None:
    end, value, conflicts = two_writers("stock/a", 20, 10)
    assert isinstance(end, ConflictingWrite) and "b has written stock/a" in end.message
    assert end.evidence["winner"] == "b" and value == 10
    assert [(one["end"], one["rule"], one["by"], one["other"]) for one in conflicts] == [("refused", "first", "a", "b")]


def test_priority_lets_the_stronger_writer_override_and_the_weaker_lose() -> None:
    assert two_writers("ranked", 20, 10)[:2] == ("overrode", 20)
    end, value, [conflict] = two_writers("ranked", 20, 10, by="b")
    assert isinstance(end, ConflictingWrite) and value == 10 and conflict["end"] == "refused"


def test_merge_calls_a_pure_function_of_base_and_both_values() -> None:
    config = CONFIG.replace("ranked: {writers: [a, b], conflict: {priority: [a, b]}}", "ranked: {writers: [a, b]}")

    async def story(sim: Simulation) -> Any:
        d = Desk(sim, [], config + "  sum: {writers: [a, b], type: int, conflict: {merge: 'rules:add'}}\n")
        (d.folder / "agents").mkdir()
        (d.folder / "agents" / "rules.py").write_text(
            "def add(base, theirs, ours):\n    return theirs + ours - (base or 0)\n"
        )
        d.open()

        async def a(ctx: Any, given: Any) -> Any:
            value = await ctx.read("sum", required=False)
            await sim.clock.sleep(1.0)
            done = await ctx.write("sum", (value.value or 0) + 10)
            return {"end": done.end, "stands": (await ctx.read("sum")).value}

        async def b(ctx: Any, given: Any) -> Any:
            value = await ctx.read("sum", required=False)
            await ctx.write("sum", (value.value or 0) + 5)
            return {}

        d.agent("a", a)
        d.agent("b", b)
        d.workflow({"concurrent": ["a", "b"]})
        run = await d.run()
        assert run.output["a"] == {"end": "merged", "stands": 15}

    simulate(story)


@pytest.mark.parametrize(("decision", "value", "stands"), [("approve", None, 20), ("reject", None, 10), ("edit", 7, 7)])
def test_a_person_gets_both_values_and_the_decision_is_written(decision: str, value: Any, stands: int) -> None:
    async def story(sim: Simulation) -> Any:
        d = desk(sim)

        async def a(ctx: Any, given: Any) -> Any:
            await ctx.read("asked", required=False)
            await sim.clock.sleep(1.0)
            done = await ctx.write("asked", 20)
            return {"end": done.end, "stands": (await ctx.read("asked")).value, "item": done.item}

        async def b(ctx: Any, given: Any) -> Any:
            await ctx.read("asked", required=False)
            await ctx.write("asked", 10)
            return {}

        d.agent("a", a)
        d.agent("b", b)
        d.workflow({"concurrent": ["a", "b"]})
        run = await d.run()
        assert run.outcome == "completed"
        assert (run.output["a"]["end"], run.output["a"]["stands"]) == ("asked", 10)
        operator = await d.operator()
        found, package = await operator.item(run.output["a"]["item"])
        assert found.open and package["evidence"] == {"before": None, "b": 10, "a": 20}
        await d.answer(decision, value)
        assert (await d.ws.context.get("asked")).value == stands

    simulate(story)


def test_after_a_kill_reads_and_writes_come_back_as_they_were_and_nothing_is_written_twice() -> None:
    async def story(sim: Simulation) -> Any:
        source = erp(sim)
        d = desk(sim, source)
        seen: list[Any] = []

        async def a(ctx: Any, given: Any) -> Any:
            value = await ctx.read("stock/widget")
            done = await ctx.write("plan", {"text": f"order {value.value}"})
            moved = await ctx.compare_and_set("plan", {"text": "moved"}, expect=done.version)
            shot = await ctx.snapshot(["plan", "stock/widget"])
            seen.append((value, done, moved, dict(shot)))
            if len(seen) == 1:
                await sim.clock.sleep(30.0)
            return {}

        d.agent("a", a)
        d.workflow("a")
        d.begin()
        await sim.clock.sleep(1.0)
        d.kill()
        await d.resume()
        assert (await d.only()).outcome == "completed"
        assert seen[0] == seen[1] and len(source.calls) == 1
        assert [entry.body["key"] for entry in await d.entries(kinds.CONTEXT)] == ["stock/widget", "plan", "plan"]

    simulate(story)


def test_the_tables_are_the_same_when_they_are_rebuilt() -> None:
    async def story(sim: Simulation) -> None:
        d = desk(sim, erp(sim))

        async def a(ctx: Any, given: Any) -> Any:
            await ctx.read("stock/widget")
            await ctx.write("plan", {"text": "x"})
            await ctx.read("plan")
            return {}

        d.agent("a", a)
        d.workflow("a")
        await d.run()
        before = [await d.ledger.select(table) for table in ("context", "context_ages")]
        assert [row["reads"] for row in before[0]] == [1, 1]
        await d.ledger.rebuild()
        assert before == [await d.ledger.select(table) for table in ("context", "context_ages")]

    simulate(story)


def test_a_condition_reads_a_key_through_the_door_and_a_replay_sees_the_same() -> None:
    async def story(sim: Simulation) -> None:
        d = desk(sim)
        seen: list[Any] = []

        async def a(ctx: Any, given: Any) -> Any:
            seen.append(given)
            await sim.clock.sleep(5.0)
            return {}

        d.agent("a", a)
        d.workflow({"when": {"if": "context.limit > 10", "then": ["a"]}}, output={"limit": "context.limit"})
        await d.ws.context.set("limit", 50, by="ann")
        d.begin()
        await sim.clock.sleep(1.0)
        await d.ws.context.set("limit", 5, by="ann")
        d.kill()
        await d.resume()
        run = await d.only()
        assert (run.outcome, run.output, len(seen)) == ("completed", {"limit": 5}, 2)
        reads = [body["context"][0]["version"] for body in await d.settles() if body["cls"] == "context"]
        assert len(reads) == 2 and reads[0] < reads[1]

    simulate(story)


def test_a_refresh_is_paid_and_refused_like_any_call_of_its_tool() -> None:
    async def story(sim: Simulation) -> None:
        source = tool("erp.stock", {"count": 5, "at": sim.clock.now()}, price=Usage(usd=3_000_000))
        d = desk(sim, source)

        async def a(ctx: Any, given: Any) -> Any:
            return {"value": (await ctx.read("stock/widget")).value}

        d.agent("a", a)
        d.workflow("a")
        d.workflow("a", name="poor", budget={"usd": 0.001, "then": "escalate"})
        run = await d.run()
        assert (run.output, run.usd, run.calls) == ({"value": 5}, 3_000_000, 1)
        await sim.clock.sleep(60.0)
        poor = await d.run("poor")
        assert (poor.outcome, poor.reason, len(source.calls)) == ("escalated", "over_budget", 1)

    simulate(story)


def test_a_read_whose_source_fails_raises_what_the_source_raised() -> None:
    async def story(sim: Simulation) -> None:
        d = desk(sim, tool("erp.stock", Unavailable("the ERP is down")))

        async def a(ctx: Any, given: Any) -> Any:
            await ctx.read("stock/widget")

        d.agent("a", a, on={"unavailable": {"then": "continue", "give": {"value": None}}})
        d.workflow("a")
        run = await d.run()
        assert (run.outcome, run.output) == ("completed", {"value": None})

    simulate(story)
