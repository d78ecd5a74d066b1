"""What a run did and when, as a tree, as a row, as it comes; and the same as spans."""

from __future__ import annotations

from typing import Any

import pytest
from entry_samples import START, Log, support_run, undone_run

from tightship.core import kinds
from tightship.core.errors import UnknownName
from tightship.insight import conventions as names
from tightship.insight import entry_line, row_line, show, span_id, spans, timeline, trace_id
from tightship.insight._reading import duration, short
from tightship.ledger import Draft, Guards, Ledger


def labels(steps: Any) -> list[Any]:
    return [
        (step.label, step.state, labels(step.children)) if step.children else (step.label, step.state) for step in steps
    ]


def test_the_steps_of_a_run_are_a_tree_by_key_without_its_plumbing() -> None:
    found = timeline(support_run()[0].entries)
    assert labels(found.steps) == [
        ("triage", "done", [("kb.search", "done")]),
        ("account", "done", [("crm.get", "done")]),
        ("knowledge", "done", [("kb.search", "done")]),
        ("respond", "done", [("cheap", "done"), ("mail.send", "refused")]),
        ("review by support_lead", "done"),
        ("helpdesk.reply", "done"),
    ]
    account = found.steps[1]
    assert (account.cost.usd, account.children[0].attempts, account.children[0].note) == (3_000_000, 2, "2 attempts")
    assert found.steps[4].note == "approve by nora"


def test_the_summary_has_times_and_totals() -> None:
    summary = timeline(support_run()[0].entries).summary
    assert (summary["state"], summary["outcome"], summary["owners"]) == ("ended", "completed", 1)
    assert (summary["usd_nano"], summary["tokens"], summary["calls"]) == (8_000_000, 1000, 5)
    assert summary["seconds"] == 623.0
    assert summary["worked_seconds"] == 4.0


def test_exceptions_budget_and_people_are_told_apart() -> None:
    found = timeline(support_run()[0].entries)
    assert [event.text for event in found.exceptions] == [
        "mail.send refused: NotDeclared",
        "checkpoint.failed: reason no citation, attempt 0",
    ]
    assert [event.text for event in found.budget] == [
        "run has spent $0.0080 of $0.0100",
        "budget of run extended by $0.0100 by nora",
    ]
    assert [event.text for event in found.people] == [
        "review asked of support_lead: respond: to be reviewed",
        "approve by nora: fits",
    ]


def test_what_patterns_note_is_no_exception() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w")
    log.add(kinds.NOTE, "pair/1/note:maker_checker.round/1", type="maker_checker.round", round=1, passed=True)
    found = timeline(log.entries)
    assert [event.text for event in found.notes] == ["maker_checker.round: round 1, passed true"]
    assert found.exceptions == ()


def test_a_cancelled_run_shows_what_was_undone_and_what_remains() -> None:
    log, values = undone_run()
    found = timeline(log.entries, values)
    assert [str(event).split("  ", 1)[1] for event in found.undone] == ["step1/orders.place/1: orders.cancel done"]
    assert found.residual == (
        "mail.send (step2/mail.send/1): no compensation is declared for it",
        "ledger.book (step3/ledger.book/1): nobody knows whether it was done",
    )
    assert {step.label: step.state for step in found.steps}["stock.take"] == "stopped"
    assert found.summary["message"] == "customer called"


def test_a_run_under_way_shows_what_it_waits_for() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w")
    body = {"name": "cheap", "cls": "model", "agent": "a", "args": "x"}
    log.add(kinds.ADMITTED, "both/a/a/1/model/1", **body)
    log.add(kinds.SETTLED, "both/b/b/1/tool/1", name="crm.get", cls="read", agent="b", args="y", out="o", ms=1)
    log.add(kinds.OPENED, "review/ask/1", item="i-1", type="review", role="lead", title="t", package="p")
    log.add(kinds.PARKED, waiting=["i-1"])
    found = timeline(log.entries)
    assert labels(found.steps) == [
        ("both", "open", [("cheap", "open"), ("crm.get", "done")]),
        ("review by lead", "waiting"),
    ]
    assert (found.summary["state"], found.steps[0].ended) == ("parked", 0.0)


def test_a_finished_step_is_done_whatever_failed_inside() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w")
    log.add(kinds.TURN, "pair/maker/1", agent="maker", hash="h", error={"error": "AgentHung"}, detail="d", ms=1)
    log.add(kinds.TURN, "pair/maker/1~20", agent="maker", hash="h", out="o", ms=1)
    log.add(kinds.NODE, "pair", out="o")
    (pair,) = timeline(log.entries).steps
    assert (pair.label, pair.state) == ("pair", "done")
    assert [(step.label, step.state, step.note) for step in pair.children] == [
        ("maker", "failed", "AgentHung"),
        ("maker", "done", ""),
    ]


def a_talk(rounds: int) -> Log:
    """Two peers that look and move so often; one of their turns in the middle fails."""
    log = Log()
    log.add(kinds.STARTED, workflow="w")
    for number in range(1, rounds + 1):
        for name in ("prose", "manuals"):
            at = f"share/{name}/{number}"
            log.add(kinds.SETTLED, f"{at}/context/look/1", name="context.look", cls="read", args="x", out="o", ms=1)
            if number == rounds // 2:
                log.add(
                    kinds.TURN, f"{at}/{name}/1", agent=name, hash="h", ms=1, error={"error": "AgentHung"}, detail="d"
                )
            else:
                log.add(kinds.TURN, f"{at}/{name}/1", agent=name, hash="h", ms=1, out="o")
            log.add(kinds.SETTLED, f"{at}/context/move/1", name="context.move", cls="read", args="x", out="o", ms=1)
    return log


def test_of_hundreds_of_turns_the_first_and_the_last_are_shown_and_the_rest_is_counted() -> None:
    found = timeline(a_talk(300).entries)
    lines = found.render().partition("exceptions:")[0].splitlines()
    assert len(lines) < 80
    counted = [line.partition("… ")[2] for line in lines if "…" in line]
    assert counted == [
        f"in between (--keys shows all): 1 x {name} failed, 294 x context.look ok, 294 x context.move ok, 293 x {name} ok"
        for name in ("prose", "manuals")
    ]
    assert len([line for line in found.render(keys=True).splitlines() if "[share/" in line]) == 2400 + 2
    assert len(list(found.steps[0].walk())) == 2400 + 3


def test_what_is_not_too_long_is_shown_whole() -> None:
    assert "in between" not in timeline(a_talk(8).entries).render()


@pytest.mark.parametrize("make", [support_run, undone_run])
def test_every_effect_and_turn_is_in_the_tree_and_its_cost_counted_once(make: Any) -> None:
    log, values = make()
    found = timeline(log.entries, values)
    keys = {node.key for step in found.steps for node in step.walk()}
    for entry in log.entries:
        if entry.kind in (kinds.SETTLED, kinds.ADMITTED, kinds.TURN, kinds.OPENED):
            assert entry.key in keys
    assert sum(step.cost.usd for step in found.steps) == found.costs.total.usd
    assert found.as_dict()["steps"][0]["cost"]["calls"] == found.steps[0].cost.calls
    text = found.render()
    for step in found.steps:
        assert step.label in text


def test_a_row_of_the_list() -> None:
    row = {"id": "r-1", "workflow": "support", "state": "ended", "outcome": "completed", "started_at": START}
    row |= {"ended_at": START + 90, "usd": 12_000_000, "tokens_in": 1000, "tokens_out": 5, "calls": 3, "live": 1}
    line = row_line(row, START + 1000)
    assert (line["state"], line["took"], line["cost"], line["tokens"]) == (
        "completed",
        "1 min 30 s",
        "$0.0120",
        "1,005",
    )
    assert line["started"] == "2026-01-01 00:00:00"
    running = row_line({"id": "r-2", "state": "running", "started_at": START, "live": 0}, START + 5)
    assert (running["state"], running["took"]) == ("running (rehearsed)", "5.0 s")


@pytest.mark.parametrize("make", [support_run, undone_run])
def test_every_entry_has_a_line_of_its_own(make: Any) -> None:
    lines = [entry_line(entry) for entry in make()[0].entries]
    assert all("\n" not in line and line.startswith("00:") for line in lines)
    assert len(set(lines)) == len(lines)


def test_lines_say_what_happened() -> None:
    log, _ = support_run()
    lines = [entry_line(entry).split("  ", 2)[2] for entry in log.entries]
    assert lines[1] == "triage/triage/1/tool/1  kb.search  done  12 ms"
    assert lines[4] == "account/account/1/tool/1  crm.get failed, tried again: TimedOut"
    assert lines[-1] == "completed  $0.0080"
    for kind in (getattr(kinds, name) for name in vars(kinds) if name.isupper()):
        if isinstance(kind, str):
            assert entry_line(Log().add(kind))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "42 ms"), (3.14, "3.1 s"), (310, "5 min 10 s"), (12_000, "3 h 20 min"), (190_000, "2 d 4 h")],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_long_values_are_cut() -> None:
    assert short({"text": "a\n b"}) == '{"text":"a\\n b"}'
    assert len(short("x" * 1000)) == 160


def test_spans_have_stable_ids_and_the_run_as_root() -> None:
    log, _ = support_run()
    found = spans(log.entries)
    root, inner = found[0], found[1:]
    assert (root["name"], root["parent_id"], root["trace_id"]) == ("invoke_workflow support", "", trace_id("r-1"))
    assert root["attributes"][names.OUTCOME] == "completed"
    assert spans(log.entries) == found
    ids = [span["span_id"] for span in found]
    assert len(set(ids)) == len(ids)
    assert all(span["parent_id"] in ids for span in inner)
    assert all(span["trace_id"] == root["trace_id"] for span in inner)
    assert all(span["end_ns"] >= span["start_ns"] > 0 for span in found)


def test_effects_are_children_of_their_turn_and_named_by_the_conventions() -> None:
    found = {span["attributes"][names.KEY]: span for span in spans(support_run()[0].entries)}
    model = found["respond/respond/1/model/1"]
    assert model["name"] == "chat cheap"
    assert model["parent_id"] == span_id("r-1", "respond/respond/1")
    for name, value in (
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "cheap"),
        ("gen_ai.response.model", "practice-model-1"),
        ("gen_ai.usage.input_tokens", 900),
        ("gen_ai.usage.cache_read.input_tokens", 400),
        ("gen_ai.response.finish_reasons", ["stop"]),
        ("tightship.cost_usd", 0.005),
    ):
        assert model["attributes"][name] == value
    tool = found["account/account/1/tool/1"]
    assert (tool["name"], tool["kind"], tool["attributes"][names.ATTEMPTS]) == ("execute_tool crm.get", "client", 2)
    refused = found["respond/respond/1/tool/2"]
    assert (refused["status"], refused["attributes"][names.REFUSED]) == ("error", "NotDeclared")
    wait = found["review/ask/1"]
    assert (wait["name"], wait["attributes"][names.DECIDED_BY]) == ("wait_for_person review", "nora")
    assert wait["end_ns"] - wait["start_ns"] == 601_000_000_000


def test_what_is_under_way_has_no_end_and_the_turn_is_known_before_it_ended() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w", parent="r-0", key="child:w/1")
    log.add(kinds.ADMITTED, "a/a/1/model/1", name="cheap", cls="model", agent="a", args="x")
    log.add(kinds.NOTE, "a/a/1!/note:exception/1", type="exception", kind="unavailable", error="TimedOut")
    root, turn, model = spans(log.entries)
    assert [span["end_ns"] for span in (root, turn, model)] == [0, 0, 0]
    assert [span["status"] for span in (root, turn, model)] == ["unset", "unset", "unset"]
    assert turn["name"] == "invoke_agent a"
    assert model["parent_id"] == turn["span_id"]
    assert turn["events"][0]["attributes"] == {"tightship.kind": "unavailable", "tightship.error": "TimedOut"}
    assert root["links"] == [{"trace_id": trace_id("r-0"), "span_id": span_id("r-0", "")}]


def test_entries_that_are_no_run_give_no_spans_and_no_timeline() -> None:
    assert spans([]) == []
    with pytest.raises(UnknownName):
        timeline([])


async def test_the_timeline_reads_the_store() -> None:
    ledger = Ledger.in_memory()
    detail = ledger.seal(ledger.vault.new_scope("r-9"), {"message": "nobody answered", "residual": []})
    ended = {"outcome": "escalated", "reason": "expired", "detail": detail.address}
    await ledger.append(Draft("r-9", kinds.STARTED, "", {"workflow": "w"}, 1), guards=Guards(fresh=True))
    await ledger.append(Draft("r-9", kinds.ENDED, "", ended, 1, (detail,)))
    found = await show(ledger, "r-9")
    assert "escalated: expired: nobody answered" in found.render()
    with pytest.raises(UnknownName):
        await show(ledger, "r-0")


def test_a_note_says_what_it_has_sealed_where_it_was_opened_and_no_address_anywhere() -> None:
    log, address = Log(), "6050" * 16
    log.add(kinds.STARTED, workflow="w")
    log.add(kinds.NOTE, "checkpoint/note:checkpoint.failed/1", type="checkpoint.failed", attempt=1, detail=address)
    log.add(kinds.ENDED, outcome="completed")
    told = timeline(log.entries, {address: {"reason": "the amount is no number"}})
    assert [one.text for one in told.exceptions] == ["checkpoint.failed: attempt 1, reason the amount is no number"]
    erased = timeline(log.entries, {address: "(erased)"})
    assert [one.text for one in erased.exceptions] == ["checkpoint.failed: attempt 1, said (erased)"]
    assert address not in entry_line(log.entries[1])


def test_many_calls_that_read_alike_are_one_line_unless_their_keys_are_asked_for() -> None:
    log = Log()
    log.add(kinds.STARTED, workflow="w")
    for number in range(1, 202):
        log.add(kinds.SETTLED, f"a/a/1/tool/{number}", name="crm.get", cls="read", agent="a", args="y", out="o", ms=1)
    log.add(kinds.SETTLED, "a/a/1/tool/202", name="crm.put", cls="write", agent="a", args="y", out="o", ms=1)
    found = timeline(log.entries)
    text = found.render()
    assert len(text.splitlines()) < 70
    assert "201 x crm.get  ok" in text and "crm.put  ok" in text
    assert "crm.get  ok  1 ms  [a/a/1/tool/17]" in found.render(keys=True)
