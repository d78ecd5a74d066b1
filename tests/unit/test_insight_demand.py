"""What there is to do is what the rows say; as text it is what Prometheus reads."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import NOON, Store
from tightship import Agent, Workflow, Workspace
from tightship.core import kinds
from tightship.insight import Cost, Demand, WorkflowDemand, demand, exposition, load
from tightship.insight.demand import open_runs
from tightship.insight.exposition import METRICS
from tightship.ledger import Draft, Ledger
from tightship.ledger._schema import empty_database, select_sql
from tightship.ledger.claiming import Bounds
from tightship.runtime.scaling import Load


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(request.param, tmp_path)
    yield store
    await store.close()


async def add(ledger: Ledger, run: str, kind: str, log: str = "default", /, **body: Any) -> None:
    await ledger.append(Draft(run, kind, "", body, 1 if run else 0), log=log)


async def start(ledger: Ledger, run: str, workflow: str = "pay", log: str = "default", **body: Any) -> None:
    await add(ledger, run, kinds.STARTED, log, workflow=workflow, **body)


async def some(store: Store) -> Ledger:
    """Five open runs of two tenants, one that has ended, one rehearsal."""
    ledger = await store.open()
    await start(ledger, "queued")
    store.clock.time = NOON + 10
    await start(ledger, "driven", owner="w-1", build="b-1")
    await start(ledger, "left", owner="w-2", build="b-2")
    await start(ledger, "asleep", workflow="ask", log="acme", owner="w-1")
    await add(ledger, "asleep", kinds.PARKED, "acme", wake_at=NOON + 1000)
    await start(ledger, "awake", log="acme", owner="w-1", build="b-1")
    await add(ledger, "awake", kinds.PARKED, "acme", wake_at=NOON + 15)
    await start(ledger, "done", owner="w-1")
    await add(ledger, "done", kinds.ENDED, outcome="completed")
    await start(ledger, "rehearsal", live=False)
    store.clock.time = NOON + 30
    return ledger


async def test_the_demand_is_counted_by_tenant_and_workflow(store: Store) -> None:
    found = await demand(await some(store))
    by = {(one.tenant, one.workflow): one for one in found.workflows}
    assert sorted(by) == [("acme", "ask"), ("acme", "pay"), ("default", "pay")]
    ours = by["default", "pay"]
    assert (ours.due, ours.running, ours.parked, round(ours.oldest)) == (1, 2, 0, 30)
    assert (by["acme", "ask"].due, by["acme", "ask"].parked) == (0, 1)
    assert (by["acme", "pay"].due, round(by["acme", "pay"].oldest)) == (1, 15)
    assert (found.load.due, found.load.running, round(found.load.oldest)) == (2, 2, 30)


async def test_a_run_of_a_worker_that_is_gone_is_due(store: Store) -> None:
    found = await demand(await some(store), living={"w-1"})
    assert (found.load.due, found.load.running) == (3, 1)


async def test_a_run_that_a_signal_has_woken_has_waited_since_then(store: Store) -> None:
    ledger = await some(store)
    for at, run in ((40.0, "asleep"), (50.0, "late")):
        store.clock.time = NOON + at
        if run == "late":
            await start(ledger, run, workflow="ask", log="acme", owner="w-1")
            await add(ledger, run, kinds.PARKED, "acme", wake_at=NOON + 1000)
        await add(ledger, run, kinds.SIGNAL, "acme", signal="answer")
    store.clock.time = NOON + 60
    ask = next(one for one in (await demand(ledger)).workflows if one.workflow == "ask")
    assert (ask.due, round(ask.oldest)) == (2, 20)


async def test_the_load_is_that_of_the_demand(store: Store) -> None:
    ledger = await some(store)
    found = await load(ledger)
    assert (found.due, found.running) == (2, 2)
    assert found.oldest == pytest.approx((await demand(ledger)).load.oldest, abs=0.1)


async def test_runs_of_other_code_are_no_load_for_this_one(store: Store) -> None:
    found = await load(await some(store), build="b-2")
    assert (found.due, found.running, round(found.oldest)) == (1, 1, 30)


async def test_runs_that_wait_for_a_place_are_due_and_no_load(store: Store) -> None:
    """No worker more would take them up: what is at its bound is `acme`, and `bulk` in all tenants."""
    ledger = await store.open()
    await start(ledger, "at-work", log="acme", tenant="acme", owner="w-1", build="b-1")
    for number in range(3):
        await start(ledger, f"held-{number}", log="acme", tenant="acme")
    store.clock.time = NOON + 20
    await start(ledger, "below", log="acme", tenant="acme", parent="at-work", owner="w-1", build="b-2")
    await add(ledger, "below", kinds.PARKED, "acme", wake_at=NOON + 20)
    for number in range(3):
        await start(ledger, f"bulk-{number}", workflow="bulk", tenant="default")
    store.clock.time = NOON + 30
    bounds = Bounds(tenants={"acme": 1}, workflows={"bulk": 2})
    found = await load(ledger, {"w-1"}, bounds=bounds)
    assert (found.due, found.running, round(found.oldest)) == (3, 1, 10)
    assert (await load(ledger, {"w-1"}, "b-2", bounds=bounds)).due == 3, "a place is taken by whatever code"
    assert (await load(ledger, set(), bounds=bounds)).due == 4, "the place of who is gone is free"

    all_of_it = await demand(ledger, {"w-1"}, bounds=bounds)
    assert (all_of_it.load.due, all_of_it.load.running, round(all_of_it.load.oldest)) == (3, 1, 10)
    told = samples(exposition(all_of_it))
    due = [told[f"tightship_runs_{name}", "acme", "pay", ""] for name in ("due", "claimable")]
    waited = [round(told[f"tightship_oldest_{name}_seconds", "acme", "pay", ""]) for name in ("due", "claimable")]
    assert (due, waited) == ([4, 1], [30, 10])


async def test_a_reading_of_the_load_is_bounded(store: Store) -> None:
    ledger = await store.open()
    for number in range(5):
        await start(ledger, f"r-{number}")
    assert (await load(ledger, limit=3)).due == 3


async def test_what_waits_for_people_what_is_halted_and_what_today_has_cost(store: Store) -> None:
    ledger = await some(store)
    await add(ledger, "asleep", kinds.OPENED, "acme", item="i-1", type="review", title="t")
    await add(ledger, "asleep", kinds.OPENED, "acme", item="i-2", type="review", title="t")
    await add(ledger, "asleep", kinds.CLOSED, "acme", item="i-2", decision="approve", by="ann")
    for scope in ("agent:judge", "run:driven"):
        await add(ledger, "", kinds.HALT, scope=scope, by="ann", reason="")
    await add(ledger, "", kinds.UNHALT, scope="run:driven", by="ann")
    spent = {"workflow": "pay", "agent": "a", "name": "t", "cls": "model", "ms": 250.0}
    await add(ledger, "driven", kinds.SETTLED, usd=9_000_000_000, **spent)
    store.clock.time = NOON + 86_400
    await add(ledger, "driven", kinds.SETTLED, usd=2_500_000_000, tokens_in=30, tokens_out=4, **spent)
    found = await demand(ledger)
    assert {(one.tenant, one.workflow): one.waiting for one in found.workflows if one.waiting} == {("acme", "ask"): 1}
    assert found.halted == ("agent:judge",)
    assert found.usd_today == 2_500_000_000
    assert found.as_dict()["usd_today"] == 2.5
    text = exposition(found)
    assert samples(text)["tightship_cost_dollars_total", "default", "pay", ""] == 2.5
    assert samples(text)["tightship_call_seconds_total", "default", "pay", ""] == 0.25
    assert samples(text)["tightship_tokens_total", "default", "pay", "output"] == 4
    assert 'tightship_halted_scopes{kind="agent"} 1\n' in text


async def test_an_empty_store_asks_for_nothing(store: Store) -> None:
    ledger = await store.open()
    assert await load(ledger) == Load()
    assert (await demand(ledger)).workflows == ()


@pytest.mark.parametrize("more", [(), [("wake_at", "<=", NOON)]])
def test_runs_that_have_ended_are_not_looked_at(more: Any) -> None:
    sql, values = select_sql("runs", open_runs("parked", more), [], None)
    with contextlib.closing(empty_database()) as db:
        steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert steps[0].startswith("SEARCH runs USING INDEX runs_open (state=?"), steps


# --- as text ------------------------------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, str, str, str], float]:
    return {
        (
            sample.name,
            sample.labels.get("tenant", ""),
            sample.labels.get("workflow", ""),
            sample.labels.get("direction", ""),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"), max_size=12)
COUNTS = st.integers(0, 10**15)
FIGURES = st.builds(
    WorkflowDemand,
    WORDS,
    WORDS,
    due=COUNTS,
    running=COUNTS,
    parked=COUNTS,
    code_gone=COUNTS,
    oldest=st.floats(0, 1e9),
    waiting=COUNTS,
    looping=COUNTS,
    today=st.builds(Cost, *[COUNTS] * 9),
)


@given(st.lists(FIGURES, max_size=4, unique_by=lambda one: (one.tenant, one.workflow)))
def test_prometheus_reads_back_every_figure_whatever_the_names_are(figures: list[WorkflowDemand]) -> None:
    read = samples(exposition(Demand(NOON, tuple(figures))))
    for one in figures:
        assert read["tightship_runs_due", one.tenant, one.workflow, ""] == one.due
        assert read["tightship_calls_total", one.tenant, one.workflow, ""] == one.today.calls
        assert math.isclose(read["tightship_oldest_due_seconds", one.tenant, one.workflow, ""], one.oldest)
        assert read["tightship_tokens_total", one.tenant, one.workflow, "input"] == one.today.tokens_in


def test_every_metric_is_named_by_the_conventions_and_explained() -> None:
    families = {family.name: family for family in text_string_to_metric_families(exposition(Demand(NOON)))}
    assert len(families) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("tightship_")
        assert metric.name.endswith("_total") == (metric.type == "counter")
        family = families[metric.name.removesuffix("_total")]
        assert family.type == metric.type
        assert family.documentation == metric.help


async def test_how_old_shared_values_are_read_is_told_by_the_first_part_of_their_keys(tmp_path: Path) -> None:
    config = "name: desk\nroles: {lead: [ann]}\ncontext: {stock/*: {writers: [lead], type: int}}\n"
    (tmp_path / "tightship.yaml").write_text(config)

    async def look(ctx: Any, given: dict[str, Any]) -> dict[str, Any]:
        return {"found": [(await ctx.read(f"stock/{one}")).value for one in ("a", "b")]}

    async with Workspace.open(tmp_path) as ws:
        ws.add(
            Agent("look", owner="o", purpose="p", python="x:y", output={"found": "list[int]"}),
            Workflow("w", owner="o", purpose="p", input={}, steps=["look"]),
            functions={"look": look},
        )
        for key in ("stock/a", "stock/b"):
            await ws.context.set(key, 1, by="ann")
        await ws.run("w", {})
        found = await demand(await ws.ledger())
    [figures] = found.context
    assert (figures.family, figures.counts["reads"], figures.counts["writes"], sum(figures.ages.values())) == (
        "stock",
        2,
        2,
        2,
    )
    text = exposition(found)
    assert 'tightship_context_reads_total{keys="stock"} 2' in text
    assert 'tightship_context_age_seconds{keys="stock",quantile="0.99"}' in text
    assert found.as_dict()["context"][0]["reads"] == 2
