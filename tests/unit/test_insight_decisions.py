"""For every decision: trigger, data with versions, rules, action, reason, who answers, and whether it lay within."""

from __future__ import annotations

from typing import Any

import pytest
from entry_samples import Log, support_run, undone_run

from tightship.core import kinds
from tightship.core.errors import UnknownName
from tightship.insight import Decision, RunDecisions, explain, needed, why
from tightship.insight._decision import Datum
from tightship.ledger import Draft, Guards, Ledger


@pytest.fixture
def support() -> RunDecisions:
    log, values = support_run()
    return explain(log.entries, values)


def find(found: RunDecisions, kind: str, key: str = "") -> Decision:
    return next(one for one in found.decisions if one.kind == kind and (not key or one.key == key))


def test_a_turn_was_triggered_by_the_latest_of_what_it_was_given(support: RunDecisions) -> None:
    triage, knowledge = find(support, "turn", "triage/triage/1"), find(support, "turn", "knowledge/knowledge/1")
    assert str(triage.trigger) == "the run's input (n 1)"
    assert str(knowledge.trigger) == "the output of triage/triage/1 (n 3)"
    respond = find(support, "turn", "respond/respond/1")
    assert (respond.trigger.n, respond.trigger.certain) == (10, True)


def test_the_data_considered_has_addresses_and_versions(support: RunDecisions) -> None:
    account = find(support, "turn", "account/account/1")
    assert [(one.name, one.address, one.n, one.source, one.as_of) for one in account.data] == [
        ("customer_id", "a-input", 1, "input", ""),
        ("crm.get", "a-account", 8, "read", "2026-01-01"),
    ]
    respond = find(support, "turn", "respond/respond/1")
    assert [str(one) for one in respond.data] == [
        "ticket (input, n 1)",
        "triage (triage/triage/1, n 3)",
        "account (account/account/1, n 10)",
        "style (given by the workflow)",
    ]


def test_rules_reason_and_owner_of_a_turn(support: RunDecisions) -> None:
    triage = find(support, "turn", "triage/triage/1")
    assert [str(rule) for rule in triage.rules] == [
        "role: declared tools and hosts only (allowed)",
        "confidence: 0.91",
    ]
    assert (triage.reason, triage.accountable) == ("mentions an order", "team-triage")
    respond = find(support, "turn", "respond/respond/1")
    assert [str(rule) for rule in respond.rules] == ["policy: models-eu"]
    assert respond.accountable == "customer-care"  # it has no owner of its own


def test_a_refusal_is_a_decision_and_puts_the_turn_outside_its_boundaries(support: RunDecisions) -> None:
    refusal = find(support, "refusal")
    assert refusal.action == "refused mail.send to respond"
    assert refusal.reason == "NotDeclared: respond did not declare mail.send"
    assert str(refusal.trigger) == "respond, in its turn respond/respond/1 (n 13)"
    assert not refusal.within
    respond = find(support, "turn", "respond/respond/1")
    assert respond.outside == ["asked for mail.send: NotDeclared, refused"]
    assert find(support, "turn", "triage/triage/1").within


def test_a_review_names_person_threshold_and_confidence(support: RunDecisions) -> None:
    review = find(support, "review")
    assert (review.actor, review.action, review.reason, review.accountable) == ("nora", "approve", "fits", "nora")
    assert [str(rule) for rule in review.rules] == [
        "role: support_lead (has to decide)",
        "condition: 'triage.confidence < threshold' holds",
        "threshold: threshold = 0.8",
    ]
    assert [(one.name, one.address, one.n) for one in review.data] == [
        ("package", "a-package", 19),
        ("triage.confidence = 0.7", "a-package", 19),
    ]


def test_the_reviewer_answers_for_the_action_that_was_released(support: RunDecisions) -> None:
    action = find(support, "action")
    assert (action.accountable, action.reason) == ("nora", "released by nora")
    assert str(action.trigger) == "the decision of nora (n 21), which came before it"
    assert [rule.kind for rule in action.rules] == ["role", "claim", "undo"]
    assert [(one.name, one.address, one.n) for one in action.data] == [
        ("arguments", "a-reply", 23),
        ("result", "a-sent", 24),
    ]


def test_checkpoints_budgets_and_the_end_are_decisions_too(support: RunDecisions) -> None:
    assert find(support, "checkpoint").reason == "no citation"
    assert find(support, "grant").action == "granted $0.0100"
    assert find(support, "grant").accountable == "nora"
    assert find(support, "outcome").action == "completed"
    assert [one.n for one in support.decisions] == sorted(one.n for one in support.decisions)


def test_a_stopped_run_says_who_stopped_it_and_what_remains() -> None:
    log, values = undone_run()
    found = explain(log.entries, values)
    stop = find(found, "stop")
    assert (stop.actor, stop.action, stop.reason) == ("omar", "asked to cancel the run", "customer called")
    assert find(found, "undo").action == "orders.cancel of step1/orders.place/1: done"
    unknown = find(found, "action", "step3/ledger.book/1")
    assert unknown.action == "ledger.book: sent; nobody knows whether it was done"
    assert unknown.reason == "OutcomeUnknown: the connection dropped"
    outcome = find(found, "outcome")
    assert outcome.outside == ["mail.send could not be undone: no compensation is declared for it"]
    assert outcome.reason == "cancelled: customer called"


def test_what_runs_beside_it_triggers_and_releases_nothing() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", definition="d", input="i")
    for branch, person in (("1", "nora"), ("2", "omar")):
        opened = {"item": f"i-{branch}", "type": "review", "role": "lead", "title": "t", "package": "p"}
        log.add(kinds.OPENED, f"each/{branch}/review/ask/1", **opened)
        log.add(kinds.CLOSED, item=f"i-{branch}", decision="approve", by=person)
    read = {"name": "kb.search", "cls": "read", "agent": "look", "args": "q", "out": "o"}
    log.entries.insert(1, Log().add(kinds.SETTLED, "each/3/look/look/1/tool/1", **read))
    for branch in ("1", "2", "3"):
        body = {"name": "desk.reply", "cls": "write", "agent": "workflow", "args": "a", "out": "o"}
        log.add(kinds.SETTLED, f"each/{branch}/reply/desk.reply/1", **body)
    actions = [one for one in explain(log.entries, {}).decisions if one.kind == "action"]
    assert [one.accountable for one in actions] == ["nora", "omar", ""]
    assert [one.trigger.what for one in actions] == ["the decision of nora", "the decision of omar", "the run's start"]


def test_a_review_of_one_item_does_not_release_the_next_and_one_inside_a_condition_does() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", definition="d", input="i")
    opened = {"type": "review", "role": "lead", "title": "t", "package": "p"}
    log.add(kinds.OPENED, "each/1/review/ask/1", item="i-1", **opened)
    log.add(kinds.CLOSED, item="i-1", decision="approve", by="nora")
    body = {"name": "desk.reply", "cls": "write", "agent": "workflow", "args": "a", "out": "o"}
    log.add(kinds.SETTLED, "each/2/reply/desk.reply/1", **body)
    log.add(kinds.OPENED, "when/then/review/ask/1", item="i-2", **opened)
    log.add(kinds.CLOSED, item="i-2", decision="edit", by="omar")
    log.add(kinds.SETTLED, "reply/desk.reply/1", **body)
    log.add(kinds.OPENED, "last/ask/1", item="i-3", **opened)
    log.add(kinds.CLOSED, item="i-3", decision="reject", by="nora")
    log.add(kinds.SETTLED, "more/desk.reply/1", **body)
    actions = [one for one in explain(log.entries, {}).decisions if one.kind == "action"]
    assert [one.accountable for one in actions] == ["", "omar", ""]
    assert actions[0].trigger.what == "the decision of nora"


def test_what_came_while_a_turn_was_under_way_is_not_what_it_was_given() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", definition="d", input="i")
    log.add(kinds.TURN, "stock/stock/1", agent="stock", hash="h", out="old", ms=1)
    log.add(kinds.SETTLED, "buy/buy/1/tool/1", name="kb.search", cls="read", agent="buy", args="q", out="o", ms=1)
    log.add(kinds.TURN, "again/stock/1", agent="stock", hash="h", out="new", ms=1)
    log.add(kinds.TURN, "buy/buy/1", agent="buy", hash="given", out="b", ms=1)
    turn = find(explain(log.entries, {"given": {"stock": {"left": 3}}}), "turn", "buy/buy/1")
    assert (turn.data[0].address, turn.data[0].n, turn.trigger.n) == ("old", 2, 2)


def test_rounds_of_maker_and_checker_are_told() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", definition="d", input="i")
    fields = {"type": "maker_checker.round", "round": 1}
    log.add(kinds.NOTE, "pair/1/note:maker_checker.round/1", **fields, passed=False, objections=["no source", "rude"])
    log.add(kinds.NOTE, "pair/2/note:maker_checker.round/1", **{**fields, "round": 2}, passed=True, objections=[])
    assert [(one.action, one.reason) for one in explain(log.entries, {}).decisions] == [
        ("round 1: the checker did not let it pass", "no source; rude"),
        ("round 2: the checker let it pass", ""),
    ]


def test_a_tool_that_was_used_without_being_declared_is_outside() -> None:
    log, values = support_run()
    values["a-def"]["agents"]["triage"]["tools"] = []
    turn = find(explain(log.entries, values), "turn", "triage/triage/1")
    assert turn.outside == ["used kb.search, which it does not declare"]


def test_a_waiting_review_and_a_failed_turn() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", definition="d", input="i")
    log.add(kinds.TURN, "a/a/1", agent="a", hash="h", error={"error": "DataMissing"}, detail="x", ms=1)
    log.add(
        kinds.OPENED, "review/ask/1", item="i-1", type="review", role="lead", title="a: to be reviewed", package="p"
    )
    found = explain(log.entries, {"x": {"message": "no order number"}})
    assert (find(found, "turn").action, find(found, "turn").reason) == ("failed", "DataMissing: no order number")
    waiting = find(found, "review")
    assert (waiting.actor, waiting.action) == ("lead", "still waits for a person")
    assert str(waiting.trigger) == "the turn of a (n 2), which came before it"
    assert found.outcome == ""


def test_an_agent_s_clock_is_no_decision_and_a_lost_race_is() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", definition="d", input="i")
    log.add(kinds.DECIDED, "a/a/1/now/1", value=17.0)
    log.add(kinds.DECIDED, "check/given/1", value={"threshold": 0.8})
    log.add(kinds.DECIDED, "both/fork/1", value={"walked": ["a"]})
    log.add(kinds.DECIDED, "slow/within", value=True)
    assert [one.action for one in explain(log.entries, {}).decisions] == [
        "a condition was evaluated",
        "a branch failed first; these had ended: a",
        "the step's time was over before it ended",
    ]


def test_values_that_were_erased_are_named_by_their_address() -> None:
    log, _ = support_run()
    everything = dict.fromkeys(needed(log.entries), "(erased)")
    found = explain(log.entries, everything)
    turn = find(found, "turn", "triage/triage/1")
    assert (turn.data[0].address, turn.data[0].source) == ("a-triage-in", "erased")
    assert found.render()


@pytest.mark.parametrize("make", [support_run, undone_run])
def test_every_decision_of_a_run_without_any_value_is_still_told(make: Any) -> None:
    log, values = make()
    bare, full = explain(log.entries, {}), explain(log.entries, values)
    assert [(one.n, one.kind) for one in bare.decisions] == [(one.n, one.kind) for one in full.decisions]
    assert len(full.as_dict()["decisions"]) == len(full.decisions)
    text = full.render()
    for decision in full.decisions:
        assert f"n {decision.n}" in text and decision.action in text


def test_entries_that_are_no_run_are_refused() -> None:
    with pytest.raises(UnknownName):
        explain([], {})


async def test_the_view_reads_the_store() -> None:
    ledger = Ledger.in_memory()
    scope = ledger.vault.new_scope("r-9")
    given = ledger.seal(scope, {"ticket": "where is it"})
    started = Draft("r-9", kinds.STARTED, "", {"workflow": "w", "input": given.address}, 1, (given,))
    await ledger.append(started, guards=Guards(fresh=True))
    body = {"agent": "a", "hash": given.address, "out": given.address, "ms": 1}
    await ledger.append(Draft("r-9", kinds.TURN, "a/a/1", body, 1))
    (turn,) = (await why(ledger, "r-9")).decisions
    assert (turn.data[0].name, turn.trigger.what) == ("ticket", "the run's input")
    with pytest.raises(UnknownName, match="no run 'r-0'"):
        await why(ledger, "r-0")


def test_what_was_true_when_is_a_date() -> None:
    assert str(Datum("orders.get", n=3, source="read", as_of="1795182451.42")) == (
        "orders.get (read, n 3, as of 2026-11-20 13:47:31 UTC)"
    )
    assert "as of yesterday" in str(Datum("orders.get", as_of="yesterday"))
