"""The inbox: a reading of the log, and decisions that only the right person takes, once, in the right form."""

from __future__ import annotations

from typing import Any

import pytest
from entry_samples import START, Log

from tightship.core import kinds
from tightship.core.errors import BoundaryError, GuardRefused, InputRejected, UnknownName
from tightship.review import (
    Decision,
    InboxItem,
    InboxProjection,
    allowed_decisions,
    check_decision,
    closing_body,
    require_item,
)

ROLES = {"support_lead": ["nora", "Omar"], "anyone": ["*"], "empty": []}


def table(log: Log) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for entry in log.entries:
        for delta in InboxProjection().fold(entry):
            rows.setdefault(delta.key[0], {"item": delta.key[0]}).update(delta.set)
    return rows


def item(type: str = "review", role: str = "support_lead", **closed: Any) -> InboxItem:
    log = Log()
    log.add(kinds.OPENED, "review", item="i-1", type=type, package="a1", role=role, due=START + 60, title="t")
    if closed:
        log.add(kinds.CLOSED, "review", item="i-1", **closed)
    return InboxItem.from_row(table(log)["i-1"])


def test_an_item_is_open_until_it_is_closed() -> None:
    opened = item()
    assert (opened.run, opened.log, opened.package, opened.opened_at) == ("r-1", "default", "a1", START + 1)
    assert opened.open and not opened.overdue(START + 59) and opened.overdue(START + 60)
    closed = item(decision="edit", by="nora", value="a2", detail="a3")
    assert not closed.open and not closed.overdue(START + 1e9)
    assert (closed.decision, closed.decided_by, closed.value, closed.detail) == ("edit", "nora", "a2", "a3")
    assert closed.as_dict()["closed_at"] == START + 2


def test_an_item_without_a_deadline_is_never_overdue() -> None:
    log = Log()
    log.add(kinds.OPENED, "q", item="i-2", type="question", package="a", title="t")
    assert not InboxItem.from_row(table(log)["i-2"]).overdue(START + 1e9)


def test_a_decision_that_fits_passes_and_becomes_the_closing_entry() -> None:
    decision = Decision("edit", " nora ", {"amount": 20}, "half was used")
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    check_decision(decision, item(), roles=ROLES, made_by=["omar"], schema=schema)
    assert closing_body("i-1", decision, "a9", "a8") == {
        "item": "i-1",
        "decision": "edit",
        "by": "nora",
        "value": "a9",
        "detail": "a8",
    }
    assert closing_body("i-1", Decision("approve", "nora")) == {"item": "i-1", "decision": "approve", "by": "nora"}


@pytest.mark.parametrize("by", ["NORA", "omar", "Omar "])
def test_names_are_compared_as_people_write_them(by: str) -> None:
    check_decision(Decision("approve", by), item(), roles=ROLES)


def test_an_item_that_does_not_exist_is_said_to() -> None:
    with pytest.raises(UnknownName, match="no inbox item 'i-9'"):
        require_item(None, "i-9")
    assert require_item({"item": "i-1", "state": "open"}, "i-1").open


def test_a_second_decision_learns_who_decided_and_when() -> None:
    with pytest.raises(
        GuardRefused, match="i-1 was decided already: approve by nora at 2026-01-01 00:00:02 UTC"
    ) as refused:
        check_decision(Decision("reject", "omar"), item(decision="approve", by="nora"), roles=ROLES)
    assert (refused.value.reason, refused.value.holder) == ("decided", "nora")


@pytest.mark.parametrize("end", ["expired", "withdrawn"])
def test_an_item_that_ended_without_a_person_says_so(end: str) -> None:
    with pytest.raises(GuardRefused, match=f"it was {end} at"):
        check_decision(Decision("approve", "nora"), item(decision=end), roles=ROLES)


@pytest.mark.parametrize(
    ("type", "decision"),
    [("review", "answer"), ("question", "edit"), ("escalation", "edit"), ("residual", "reject"), ("odd", "approve")],
)
def test_each_type_takes_its_own_decisions(type: str, decision: Any) -> None:
    with pytest.raises(InputRejected, match=f"does not take '{decision}'") as refused:
        check_decision(Decision(decision, "nora", 1), item(type), roles=ROLES)
    assert "use one of: " in (refused.value.fix or "")
    assert decision not in allowed_decisions(type)


@pytest.mark.parametrize(
    ("by", "role", "message"),
    [
        ("eve", "support_lead", "eve does not hold the role support_lead"),
        ("nora", "unknown_role", "nobody holds the role unknown_role"),
        ("nora", "empty", "nobody holds the role empty"),
    ],
)
def test_who_lacks_the_role_may_not_decide(by: str, role: str, message: str) -> None:
    with pytest.raises(BoundaryError, match=message):
        check_decision(Decision("approve", by), item(role=role), roles=ROLES)


def test_a_role_for_anybody_and_an_item_for_everybody() -> None:
    check_decision(Decision("approve", "eve"), item(role="anyone"), roles=ROLES)
    check_decision(Decision("approve", "eve"), item(role=""), roles={})


@pytest.mark.parametrize("role", ["support_lead", ""])
def test_nobody_decides_on_what_they_made(role: str) -> None:
    with pytest.raises(BoundaryError, match="nora made what i-1 is about"):
        check_decision(Decision("approve", "nora"), item(role=role), roles=ROLES, made_by=["NORA"])


@pytest.mark.parametrize("by", ["", "  "])
def test_a_decision_has_a_person(by: str) -> None:
    with pytest.raises(InputRejected, match="needs the name of the person"):
        check_decision(Decision("approve", by), item(), roles=ROLES)


@pytest.mark.parametrize(("type", "decision"), [("review", "edit"), ("question", "answer")])
def test_an_edit_or_an_answer_has_a_value(type: str, decision: Any) -> None:
    with pytest.raises(InputRejected, match="is missing"):
        check_decision(Decision(decision, "nora"), item(type), roles=ROLES)


def test_a_value_that_does_not_fit_is_named_with_its_path() -> None:
    schema = {
        "type": "object",
        "properties": {"refund": {"type": "object", "properties": {"amount": {"type": "number"}}}},
        "required": ["text"],
    }
    decision = Decision("edit", "nora", {"refund": {"amount": "ten"}})
    with pytest.raises(InputRejected, match=r"refund\.amount: .*number|text") as refused:
        check_decision(decision, item(), roles=ROLES, schema=schema)
    assert "and 1 more" in (refused.value.fix or "")
    check_decision(Decision("approve", "nora"), item(), roles=ROLES, schema=schema)
