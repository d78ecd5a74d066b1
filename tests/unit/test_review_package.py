"""One package for everything that reaches a person: plain words, bounded, and nothing of the case in its title."""

from __future__ import annotations

import inspect
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightship.core import errors, signals
from tightship.core.errors import InputRejected, TightshipError, WorkException
from tightship.core.signals import Signal
from tightship.review import Option, Package, Situation, for_residual, from_exception

AT = Situation(
    run="r-1",
    workflow="support",
    key="respond/2",
    agent="respond",
    tried=["asked orders.get twice"],
    partial={"triage": {"topic": "refund"}},
    deadline=1_767_225_600.0,
)
CASES = [
    *(cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, TightshipError)),
    *(cls for _, cls in inspect.getmembers(signals, inspect.isclass) if issubclass(cls, Signal)),
    ZeroDivisionError,
]


@pytest.mark.parametrize("cls", CASES, ids=lambda cls: cls.__name__)
def test_whatever_is_raised_becomes_a_package_that_a_person_can_act_on(cls: type[BaseException]) -> None:
    package = from_exception(cls("customer Ada Example, order O-2001"), AT)
    assert package.what_happened.endswith("customer Ada Example, order O-2001")
    assert package.needed
    assert len(package.options) >= 2
    assert "Ada" not in package.title and "O-2001" not in package.title
    assert package.title.startswith("respond: ")
    assert package.evidence["error"] == cls.__name__
    assert (package.run, package.workflow, package.key, package.agent) == ("r-1", "support", "respond/2", "respond")
    assert (package.tried, package.partial, package.deadline) == (
        ("asked orders.get twice",),
        {"triage": {"topic": "refund"}},
        1_767_225_600.0,
    )


@pytest.mark.parametrize(
    ("error", "kind", "number"),
    [
        (errors.TimedOut(), "unavailable", "E1"),
        (errors.DataMissing(), "data_missing", "E2"),
        (errors.RuleConflict(), "rule_conflict", "E3"),
        (errors.OutOfScope(), "out_of_scope", "E4"),
        (errors.LowConfidence(), "low_confidence", "E5"),
        (errors.FormatMismatch(), "format_mismatch", "E6"),
        (errors.AgentRaised(), "unforeseen", "E7"),
        (errors.DuplicateClaim(), "duplicate", "E7"),
        (errors.LimitReached(), "limit", "E7"),
        (errors.NotDeclared(), "boundary", "E7"),
        (signals.OverBudget(), "budget", ""),
        (signals.Halted(), "halted", ""),
    ],
)
def test_each_kind_has_its_number(error: BaseException, kind: str, number: str) -> None:
    package = from_exception(error)
    assert (package.kind, package.number) == (kind, number)


@pytest.mark.parametrize("cls", [cls for cls in CASES if issubclass(cls, WorkException)], ids=lambda cls: cls.__name__)
def test_the_package_s_kind_is_the_word_that_a_workflow_uses(cls: type[WorkException]) -> None:
    assert from_exception(cls()).kind == cls.kind


def test_what_the_agent_says_goes_before_the_general_words() -> None:
    error = errors.RuleConflict(
        "Rule 4 grants a refund, rule 9 forbids it.",
        needed="Say which rule counts for damaged goods.",
        options=[
            {"id": "r4", "label": "Refund", "confidence": 0.6},
            {"value": "r9"},
            {"label": "Ask", "confidence": 7},
        ],
        evidence={"rules": [{"id": "R4", "text": "damaged goods are refunded"}, "R9: nothing after 30 days"]},
        fix="name the rule that goes first",
    )
    package = from_exception(error, AT)
    assert package.needed == "Say which rule counts for damaged goods."
    assert package.options == (
        Option(id="r4", label="Refund", confidence=0.6),
        Option(id="r9", label="r9"),
        Option(id="3", label="Ask"),
    )
    assert package.rules == ("R4: damaged goods are refunded", "R9: nothing after 30 days")
    assert package.evidence["fix"] == "name the rule that goes first"


def test_a_budget_package_names_envelope_and_unit() -> None:
    signal = signals.OverBudget("the budget of run cannot cover this", scope="run", unit="usd")
    assert from_exception(signal).evidence == {"scope": "run", "unit": "usd", "error": "OverBudget"}


def test_a_residual_report_lists_what_remains() -> None:
    effects = [{"name": "mail.send", "key": "a/1", "why": "a mail cannot be unsent"}]
    package = for_residual(AT, effects)
    assert package.title == "support: 1 effect could not be undone"
    assert package.evidence == {"effects": effects}
    assert for_residual(AT, effects * 2).title == "support: 2 effects could not be undone"


@pytest.mark.parametrize("package", [from_exception(errors.DataMissing("no order"), AT), for_residual(AT, [])])
def test_a_package_survives_the_ledger(package: Package) -> None:
    stored = orjson.dumps(package.to_json())
    assert Package.from_json(stored) == package
    assert Package.from_json(orjson.loads(stored) | {"field_of_a_later_version": 1}) == package


def test_what_is_not_known_may_be_null() -> None:
    data = from_exception(errors.DataMissing("no order")).to_json() | {"agent": None, "needed": None, "deadline": None}
    package = Package.from_json(data)
    assert (package.agent, package.needed) == ("", "")
    assert "Needed" not in package.render()


@pytest.mark.parametrize("data", ["", "[]", "{}", {"kind": "review", "title": 1, "what_happened": ""}])
def test_what_is_no_package_is_refused(data: Any) -> None:
    with pytest.raises(InputRejected, match="no escalation package"):
        Package.from_json(data)


def test_the_text_holds_all_that_is_needed() -> None:
    error = errors.LowConfidence("0.55 for refund", options=[{"id": "refund", "label": "Refund", "confidence": 0.55}])
    text = from_exception(error, AT).render()
    for part in ("Tried so far:\n  - asked orders.get twice", "refund: Refund (55%)", 'triage: {"topic":"refund"}'):
        assert part in text
    assert "Until 2026-01-01 00:00 UTC" in text
    assert text.endswith("support · run r-1 · respond/2")


def test_what_is_reviewed_is_shown_whole_and_with_its_line_breaks() -> None:
    reply = "Hello Lars,\n\n" + "A refund was started. " * 40 + "\n\nKind regards"
    drafted = {"reply": reply, "refund": {"amount": 129.0, "due": True}, "citations": ["KB-1", "KB-2"], "holds": []}
    package = Package(
        kind="review",
        title="Review respond",
        what_happened="every run is reviewed",
        evidence={"respond": drafted},
        partial={"respond": drafted, "account": {"name": "x" * 400}},
    )
    text = package.render(width=80)
    assert all(len(line) <= 80 for line in text.splitlines() if "account" not in line)
    assert " ".join(text.split()).count(" ".join(reply.split())) == 1
    assert "\n      Hello Lars,\n\n" in text
    assert "\n    refund:\n      amount: 129.0\n      due: true\n    citations: KB-1, KB-2\n    holds: (none)" in text
    assert "  respond: as above" in text
    assert "x" * 400 not in text
    assert "x" * 400 in package.render(width=80, full=True)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


endless: dict[str, Any] = {}
endless |= {str(number): endless for number in range(5)}
ODD = [endless, [endless] * 500, Unprintable(), {1: {2: object()}}, float("nan"), 1 << 70, "\ud800", b"\xff", {3, 4}]


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_odd_evidence_never_breaks_an_escalation(value: Any) -> None:
    package = from_exception(errors.Unforeseen("odd", evidence={"value": value}), Situation(partial={"step": value}))
    assert Package.from_json(orjson.dumps(package.to_json())).kind == "unforeseen"


def test_long_evidence_is_cut_and_says_so() -> None:
    package = from_exception(errors.Unforeseen("x" * 10_000, evidence={"text": "y" * 5000, "rows": list(range(300))}))
    assert package.evidence["text"].endswith("… (1000 characters more)")
    assert package.evidence["rows"][-1] == "… 100 more"
    assert len(package.what_happened) < 5000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(json_values)
def test_any_evidence_can_be_stored(value: Any) -> None:
    package = from_exception(errors.DataMissing("gone", evidence={"value": value}))
    assert Package.from_json(orjson.dumps(package.to_json())) == package


def test_a_run_that_has_ended_is_not_tried_again_and_a_question_is() -> None:
    error = errors.Unavailable("no answer")
    assert [one.id for one in from_exception(error, AT).options] == ["retry", "by_hand", "stop"]
    assert [one.id for one in from_exception(error, Situation(run="r-1")).options] == ["again", "by_hand", "stop"]


def test_a_failed_branch_reads_as_what_made_it_fail() -> None:
    failed = errors.BranchFailed("the branch 'account' failed: no such order")
    failed.kind = "data_missing"
    package = from_exception(failed, AT)
    assert (package.kind, package.number) == ("data_missing", "E2")
    assert package.title.endswith(": data is missing")
    assert from_exception(errors.BranchFailed("boom"), AT).title.endswith("parallel steps failed")
