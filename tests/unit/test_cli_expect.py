"""What a line expects against what its run did: every kind of difference is found."""

from __future__ import annotations

from typing import Any

import pytest

from tightship.cli._expect import Comparison, Verdict
from tightship.cli._work import Record
from tightship.core import kinds
from tightship.ledger import Draft, Entry, Ledger

PAID = {"order_id": "O-1", "amount": 39.9}


async def entries(ledger: Ledger, writes: list[tuple[str, dict[str, Any]]], undone: bool = False) -> list[Entry]:
    """What a run with these writes leaves in a ledger."""
    run, scope = "r-1", ledger.vault.new_scope("r-1")
    drafts = [Draft(run, kinds.STARTED, "", {"workflow": "w", "scope": scope, "owner": "me"}, 1)]
    await ledger.append(*drafts)
    for number, (name, args) in enumerate(writes):
        key, sealed = f"{name}/{number}", ledger.seal(scope, args)
        body = {"name": name, "cls": "write", "agent": "workflow", "args": sealed.address, "not_after": 0}
        await ledger.append(Draft(run, kinds.ADMITTED, key, body, 1, (sealed,)))
        settled = {"name": name, "cls": "write", "agent": "workflow", "out": sealed.address}
        await ledger.append(Draft(run, kinds.SETTLED, key, settled, 1))
        if undone:
            body = {"name": "undo", "cls": "undo", "agent": "workflow", "args": sealed.address, "undoes": key}
            await ledger.append(Draft(run, kinds.ADMITTED, f"undo/{key}", body, 1))
            settled = {"name": "undo", "cls": "undo", "agent": "workflow", "out": sealed.address}
            await ledger.append(Draft(run, kinds.SETTLED, f"undo/{key}", settled, 1))
    return await ledger.run_entries(run)


async def judge(
    expected: dict[str, Any],
    state: str = "completed",
    reason: str = "",
    writes: list[tuple[str, dict[str, Any]]] | None = None,
    undone: bool = False,
) -> Verdict:
    ledger = Ledger.in_memory()
    comparison = Comparison()
    waiting = ("i-1",) if state == "waiting" else ()
    record = Record(1, "demo/T-1", "r-1", state, reason, waiting=waiting, output={"ok": True, "of": {"a": 1, "b": 2}})
    comparison.add(record, expected, await entries(ledger, writes or [], undone))
    [verdict] = await comparison.verdicts(ledger)
    return verdict


REPLY = ("helpdesk.reply", {"body": "We refund 39.90."})
REFUND = ("refunds.create", {**PAID, "reason": "returned"})
FULL = {"outcome": "completed", "action": ["refunds.create", "helpdesk.reply"], "refund": PAID, "absent": ["4111"]}


@pytest.mark.parametrize(
    ("expected", "run"),
    [
        ({"outcome": "completed", "action": []}, {}),
        (FULL, {"writes": [REFUND, REPLY]}),
        ({"outcome": "review", "action": ["helpdesk.reply"]}, {"state": "waiting"}),
        ({"outcome": "escalated", "reason_kind": "data_missing"}, {"state": "escalated", "reason": "data_missing"}),
        ({"outcome": "cancelled"}, {"state": "cancelled", "writes": [REFUND], "undone": True}),
        ({"undone": ["refunds.create"]}, {"state": "escalated", "writes": [REFUND], "undone": True}),
        ({"outcome": "escalated", "action": ["refunds.create"]}, {"state": "escalated", "writes": [REFUND]}),
        ({"output": {"ok": True, "of": {"a": 1}}}, {}),
    ],
)
async def test_what_is_as_expected_agrees(expected: dict[str, Any], run: dict[str, Any]) -> None:
    verdict = await judge(expected, **run)
    assert verdict.differences == []
    assert verdict.as_dict()["agrees"]


@pytest.mark.parametrize(
    ("expected", "run", "said"),
    [
        ({"outcome": "completed"}, {"state": "escalated", "reason": "data_missing"}, "got escalated: data_missing"),
        ({"outcome": "review"}, {"state": "completed"}, "expected review"),
        (
            {"outcome": "escalated", "reason_kind": "rule_conflict"},
            {"state": "escalated", "reason": "x"},
            "rule_conflict",
        ),
        (FULL, {"writes": [REPLY]}, "expected refunds.create, helpdesk.reply, got helpdesk.reply"),
        (FULL, {"writes": [("refunds.create", PAID | {"amount": 40.0}), REPLY]}, "no action has the refund"),
        (FULL, {"writes": [REFUND, ("helpdesk.reply", {"lines": ["card 4111 1111"]})]}, "it says '4111'"),
        ({"outcome": "review"}, {"state": "waiting", "writes": [REFUND]}, "expected that nothing was done"),
        ({"outcome": "escalated"}, {"state": "escalated", "writes": [REFUND]}, "expected that nothing was done"),
        ({"outcome": "completed", "action": ["refunds.create"]}, {"writes": [REFUND], "undone": True}, "got none"),
        ({"undone": ["refunds.create"]}, {"state": "escalated"}, "expected refunds.create to be undone, got nothing"),
        ({"undone": []}, {"writes": [REFUND], "undone": True}, "expected nothing to be undone, got refunds.create"),
        ({"outcome": "escalated", "action": []}, {"state": "escalated", "writes": [REFUND]}, "got refunds.create"),
        ({"output": {"of": {"a": 2}}}, {}, "expected the output"),
        ({"output": {"none": None}}, {}, "expected the output"),
    ],
)
async def test_every_difference_is_found(expected: dict[str, Any], run: dict[str, Any], said: str) -> None:
    verdict = await judge(expected, **run)
    assert any(said in difference for difference in verdict.differences), verdict.differences
    assert not verdict.as_dict()["agrees"]


@pytest.mark.parametrize(("acting", "agree"), [((True, False), True), ((True, True), False), ((False, False), False)])
async def test_of_a_pair_exactly_one_run_acts(acting: tuple[bool, bool], agree: bool) -> None:
    comparison = Comparison()
    ledger = Ledger.in_memory()
    whole = await entries(ledger, [REFUND])
    for line, acts in enumerate(acting, 1):
        expected = {"outcome": "completed", "refund": PAID, "pair": "O-1"}
        comparison.add(Record(line, f"demo/T-{line}", f"r-{line}", "completed"), expected, whole if acts else [])
    verdicts = await comparison.verdicts(ledger)
    assert [not verdict.differences for verdict in verdicts] == [agree, agree]


async def test_lines_that_expect_nothing_are_left_out() -> None:
    comparison = Comparison()
    comparison.add(Record(1, "demo/1", "r-1", "completed"), None, ())
    assert await comparison.verdicts(Ledger.in_memory()) == []
