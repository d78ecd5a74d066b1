"""Costs are readings: the table and the run's entries give the same sums, by whatever they are grouped."""

from __future__ import annotations

from typing import Any

import pytest
from entry_samples import START, Entry, Log, support_run, undone_run
from hypothesis import given
from hypothesis import strategies as st

from tightship.controls import SpendProjection
from tightship.core import kinds
from tightship.core.errors import InputRejected
from tightship.insight import Cost, budget_forecast, cost_report, report, run_costs
from tightship.ledger import Draft, Ledger

CENT = 10_000_000
DAY = 86_400.0


def table(entries: list[Entry]) -> list[dict[str, Any]]:
    projection = SpendProjection()
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        if entry.kind in projection.kinds:
            for delta in projection.fold(entry):
                row = rows.setdefault(delta.key, dict(zip(projection.key_columns, delta.key, strict=True)))
                for column, number in delta.add.items():
                    assert isinstance(number, int)
                    row[column] = row.get(column, 0) + number
    return list(rows.values())


def by(what: str, rows: list[dict[str, Any]]) -> dict[str, Cost]:
    return {line.group[what]: line.cost for line in report(rows, [what]).lines}


def test_the_table_counts_calls_hits_errors_and_refusals_apart() -> None:
    agents = by("agent", table(support_run()[0].entries))
    assert agents["triage"] == Cost(calls=1, ms=12)
    assert agents["knowledge"] == Cost(hits=1)
    assert agents["account"] == Cost(calls=2, usd=3_000_000, ms=31, errors=1)
    assert agents["respond"] == Cost(
        calls=1, usd=5_000_000, tokens_in=900, tokens_out=100, cached_in=400, ms=800, refusals=1
    )
    assert agents["workflow"] == Cost(calls=1, ms=40)


def test_costs_are_grouped_by_whatever_is_asked_the_dearest_first() -> None:
    rows = table(support_run()[0].entries)
    assert [line.group["agent"] for line in report(rows, ["agent"]).lines][:2] == ["respond", "account"]
    assert set(by("workflow", rows)) == {"support"}
    assert set(by("tenant", rows)) == {"default"}
    assert by("tier", rows)["cheap"].usd == 5_000_000
    assert by("month", rows)["2026-01"] == report(rows).total
    pairs = report(rows, ["agent", "name"])
    assert pairs.lines[0].group == {"agent": "respond", "name": "cheap"}
    assert pairs.as_dict()["total"]["usd"] == pytest.approx(0.008)
    assert report(rows, []).lines[0].cost == pairs.total


def test_days_come_in_order_and_turn_at_midnight_utc() -> None:
    log = Log()
    log.add(kinds.SETTLED, "a", wait=DAY - 0.5, name="t", cls="read", agent="a", usd=1)
    log.add(kinds.SETTLED, "b", wait=0.5, name="t", cls="read", agent="a", usd=5)
    assert [(line.group["day"], line.cost.usd) for line in report(table(log.entries), ["day"]).lines] == [
        ("2026-01-01", 1),
        ("2026-01-02", 5),
    ]


def test_an_unknown_group_or_day_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputRejected, match="cannot be grouped by 'colour'") as refused:
        report([], ["colour"])
    assert "workflow" in (refused.value.fix or "")


def test_a_run_s_costs_lie_in_its_turns() -> None:
    costs = run_costs("r-1", support_run()[0].entries)
    turns = {turn.key: (turn.agent, turn.cost.usd, turn.cost.calls) for turn in costs.turns}
    assert turns == {
        "triage/triage/1": ("triage", 0, 1),
        "knowledge/knowledge/1": ("knowledge", 0, 0),
        "account/account/1": ("account", 3_000_000, 2),
        "respond/respond/1": ("respond", 5_000_000, 1),
    }
    assert costs.total.usd == sum(turn.cost.usd for turn in costs.turns)
    assert costs.names["crm.get"].errors == 1
    assert costs.in_flight == 0
    assert costs.as_dict()["total"]["usd_nano"] == 8_000_000


def test_repeated_calls_are_named_with_what_they_cost() -> None:
    (repeated,) = run_costs("r-1", support_run()[0].entries).repeated
    assert str(repeated) == ("triage, knowledge asked kb.search for the same 2 times, 1 of them answered from cache")
    log = Log()
    for number in range(3):
        log.add(kinds.SETTLED, f"a/a/{number}/tool/1", name="crm.get", cls="read", agent="a", args="x", usd=CENT)
    log.add(kinds.SETTLED, "a/a/0/tool/2", name="crm.get", cls="read", agent="a", args="y", usd=CENT)
    log.add(kinds.SETTLED, "a/a/0/tool/3", name="crm.get", cls="read", agent="a", args="x", denied=True)
    (repeated,) = run_costs("r-1", log.entries).repeated
    assert (len(repeated.keys), repeated.avoidable, repeated.as_dict()["avoidable_usd"]) == (3, 2 * CENT, 0.02)
    assert str(repeated) == "a asked crm.get for the same 3 times, $0.0200 avoidable"


def test_the_next_word_of_a_conversation_is_no_repeat() -> None:
    log = Log()
    body = {"name": "cheap", "cls": "model", "agent": "a"}
    for number, said in enumerate((["m1"], ["m2"], ["m2"]), 1):
        log.add(kinds.ADMITTED, f"a/a/1/model/{number}", **body, args="x", said=said, after="a/a/1/model/0")
        log.add(kinds.SETTLED, f"a/a/1/model/{number}", **body, usd=CENT, out="o")
    (repeated,) = run_costs("r-1", log.entries).repeated
    assert repeated.keys == ("a/a/1/model/2", "a/a/1/model/3")


def test_retries_of_one_call_are_no_repeats() -> None:
    log = Log()
    for again in (True, False):
        log.add(kinds.SETTLED, "a/a/1/tool/1", name="t", cls="read", agent="a", args="x", again=again)
    assert run_costs("r-1", log.entries).repeated == ()


def test_what_is_in_flight_is_shown_with_its_reservation() -> None:
    log = Log()
    log.add(kinds.ADMITTED, "a/a/1/model/1", name="cheap", cls="model", agent="a", reserve={"usd": CENT, "tokens": 5})
    costs = run_costs("r-1", log.entries)
    assert (costs.in_flight, costs.total, costs.turns[0].key) == (CENT, Cost(), "a/a/1")


bodies = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["crm.get", "cheap"]),
        "cls": st.sampled_from(["read", "model", "write"]),
        "agent": st.sampled_from(["a", "b"]),
        "ms": st.integers(0, 500),
        "args": st.sampled_from(["x", "y"]),
    },
    optional={
        "usd": st.integers(0, CENT),
        "tokens_in": st.integers(0, 100),
        "cached": st.just(True),
        "refused": st.just({"signal": "Denied"}),
        "denied": st.just(True),
        "error": st.just({"error": "Unavailable"}),
        "again": st.just(True),
    },
)


def possible(body: dict[str, Any]) -> bool:
    refused = "refused" in body or "denied" in body
    if refused or "cached" in body:
        return (
            not (body.keys() & {"usd", "tokens_in", "again"}) and not (refused and "cached" in body) and not body["ms"]
        )
    return "again" not in body or "error" in body


@given(st.lists(st.tuples(st.sampled_from(["a/a/1/tool/1", "a/a/1/tool/2", "b/t/1"]), bodies.filter(possible))))
def test_table_and_run_always_agree(settles: list[tuple[str, dict[str, Any]]]) -> None:
    log = Log()
    final: set[str] = set()
    for key, body in settles:
        if key not in final and not (body.get("cached") and "error" in body):
            log.add(kinds.SETTLED, key, **body)
            if not body.get("again"):
                final.add(key)
    total, costs = report(table(log.entries)).total, run_costs("r-1", log.entries)
    assert costs.total == total
    assert sum(costs.agents.values(), Cost()) == sum(costs.names.values(), Cost()) == total


def test_the_forecast_counts_from_the_first_day_of_use() -> None:
    now = START + 10 * DAY
    rows = [{"day": "2026-01-08", "usd": 2 * CENT, "calls": 3}, {"day": "2026-01-10", "usd": 4 * CENT, "calls": 3}]
    rows.append({"day": "2025-12-31", "usd": 900 * CENT, "calls": 9})
    found = budget_forecast(rows, 50 * CENT, period="month", now=now)
    assert (found.spent, found.alert) == (6 * CENT, False)
    assert found.burn == pytest.approx(6 * CENT / (3 * DAY))
    assert found.at_end == pytest.approx(6 * CENT + 21 * 2 * CENT, abs=2)
    assert budget_forecast(rows, 5, period="month", now=now, unit="calls").exhausted_at == now
    assert budget_forecast([], 5, period="day", now=now).burn == 0


async def test_the_report_reads_the_store() -> None:
    ledger = Ledger.in_memory(projections=[SpendProjection()])
    samples = support_run()[0].entries + undone_run()[0].entries
    await ledger.append(*(Draft("", entry.kind, entry.key, dict(entry.body)) for entry in samples))
    found = await cost_report(ledger, ["workflow"])
    assert [(line.group["workflow"], line.cost.calls) for line in found.lines] == [("support", 5), ("order", 4)]
    assert (await cost_report(ledger, workflow="order")).total.calls == 4
    assert (await cost_report(ledger, until="2020-01-01")).lines == ()
    assert (await cost_report(ledger, tenant="nobody")).total == Cost()
    with pytest.raises(InputRejected, match="is no day"):
        await cost_report(ledger, since="yesterday")
