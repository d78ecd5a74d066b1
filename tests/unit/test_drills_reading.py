"""A workflow that only reads is broken as well: its result is all that is seen of it, and is judged as an action is."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_drills_hold import DESK, FLOW, LOOK, MADE_UP, NO_LIMITS, NO_RETRIES, OBEYS, POLL, READ

from drill_desk import CHECKED, READING, Change, bench
from tightship.quality.drills import Verdict, carry_out, load_drills
from tightship.quality.drills.bench import Bench

READS: Change = (FLOW, "", READING)
NOBODY_CHECKS: Change = (FLOW, "", READING.replace(CHECKED, "  - look\n"))
GIVES_A_DAY_OLD = (
    LOOK,
    "within",
    'on: {rule_conflict: {then: continue, give: {order_id: "O-1", amount: 5.0, urgent: false}}}\nwithin',
)
HOLDS = (
    *("rate-limit", "server-error", "timeout", "outage", "cold-start", "invented-parameters", "wrong-shape"),
    *("drifted-agent", "ping-pong", "endless-loop", "missing-data", "conflicting-rules", "format-mismatch"),
    *("hidden-instruction", "exhausted-budget", "saturated-queue", "ten-times-load", "halt"),
)
WITHOUT: dict[str, tuple[Change, ...]] = {
    "rate-limit": (READS, NO_RETRIES),
    "cold-start": (READS, (LOOK, "within: 60s", "within: 2s")),
    "wrong-shape": (NOBODY_CHECKS, (LOOK, "output: {order_id: str, amount: float, urgent: bool}\n", "")),
    "ping-pong": (READS, (FLOW, "rounds: 2", "rounds: 20"), NO_LIMITS),
    "endless-loop": (READS, NO_LIMITS),
    "missing-data": (NOBODY_CHECKS, (DESK, READ, MADE_UP)),
    "conflicting-rules": (NOBODY_CHECKS, GIVES_A_DAY_OLD),
    "hidden-instruction": (NOBODY_CHECKS, (DESK, READ, OBEYS)),
    "exhausted-budget": (
        READS,
        (FLOW, "budget: {usd: 1.00, seconds: 120s, then: escalate}", "budget: {seconds: 120s}"),
    ),
    "ten-times-load": (NOBODY_CHECKS, (DESK, "async def look(ctx, input):\n    found", POLL)),
}
"""What is taken away, by drill."""


def judged(made: Bench, name: str) -> Verdict:
    """What comes of one drill."""
    return carry_out(load_drills()[name], made)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The shop that only reads, with all its controls."""
    return bench(tmp_path_factory.mktemp("reader"), READS)


def test_what_it_comes_to_is_its_result(reader: Bench) -> None:
    assert [[name for name, _ in clean.writes] for clean in reader.acting()] == [["the result"]]


@pytest.mark.parametrize("name", HOLDS)
def test_it_holds_on_a_workflow_that_only_reads(reader: Bench, name: str) -> None:
    verdict = judged(reader, name)
    assert verdict.state == "held", (verdict.why, verdict.problems)


@pytest.mark.parametrize("name", WITHOUT)
def test_it_does_not_hold_without_the_control(tmp_path: Path, name: str) -> None:
    verdict = judged(bench(tmp_path, *WITHOUT[name]), name)
    assert verdict.state == "did not hold", (verdict.why, verdict.held)


@pytest.mark.parametrize(("name", "why"), [("race", "it writes nothing"), ("failing-undo", "it writes nothing")])
def test_what_needs_a_write_says_why_it_does_not_apply(reader: Bench, name: str, why: str) -> None:
    verdict = judged(reader, name)
    assert (verdict.state, why in verdict.why) == ("does not apply", True)


def test_a_result_that_a_person_has_looked_at_may_be_another_one(tmp_path: Path) -> None:
    review = "  - review: {when: look.amount < 0.0 || look.amount == 12.5, by: lead, within: 1h, otherwise: escalate}\n"
    looked = (FLOW, "", READING.replace(CHECKED, f"  - look\n{review}"))
    verdict = judged(bench(tmp_path, looked, (DESK, READ, MADE_UP)), "missing-data")
    assert verdict.state == "held", verdict.problems


# --- drift: agents whose outputs decide otherwise than by an action's arguments ----------------------


def test_a_figure_that_nobody_checks_shows_in_the_comparison_of_many_runs(tmp_path: Path) -> None:
    verdict = judged(bench(tmp_path, NOBODY_CHECKS), "drifted-agent")
    assert verdict.state == "held", verdict.problems
    assert any("look, larger figures: nobody noticed" in one and "output.amount" in one for one in verdict.held)


def test_a_figure_that_is_in_no_declared_field_does_not_show(tmp_path: Path) -> None:
    hidden: tuple[Change, ...] = (
        (LOOK, "output: {order_id: str, amount: float, urgent: bool}", "output: {order_id: str, made: object}"),
        (DESK, '"amount": found["amount"], "urgent": False}', '"made": {"amount": found["amount"]}}'),
        (FLOW, "", READING.replace(CHECKED, "  - look\n").replace("look.amount", "look.made.amount")),
    )
    verdict = judged(bench(tmp_path, *hidden), "drifted-agent")
    assert verdict.state == "did not hold", verdict.held
    assert any("no declared field" in one for one in verdict.problems)


def test_a_drift_that_the_workflow_stops_needs_no_comparison(tmp_path: Path) -> None:
    verdict = judged(bench(tmp_path, READS), "drifted-agent")
    assert verdict.state == "held"
    assert any(one.startswith("look, larger figures: escalated") for one in verdict.held)


# --- local tools -------------------------------------------------------------------------------------


def test_a_local_read_is_asked_as_it_is_and_any_other_is_stood_in_for(tmp_path: Path) -> None:
    real = (
        "tools/shop.py",
        '@tool(effect="read")\nasync def order(id: str) -> Order:\n    """An order."""\n    raise AssertionError'
        '("a drill never calls the real tool")',
        '@tool(effect="read", local=True)\nasync def order(id: str) -> Order:\n    """An order."""\n'
        '    return {"id": id, "amount": 77.0, "note": ""}',
    )
    made = bench(tmp_path, READS, real)
    assert [clean.writes[0][1]["is"]["amount"] for clean in made.acting()] == [77.0]  # type: ignore[index,call-overload]


def test_a_local_tool_that_reaches_out_is_stopped(tmp_path: Path) -> None:
    reaches = (
        "tools/shop.py",
        '@tool(effect="read")\nasync def order(id: str) -> Order:\n    """An order."""\n',
        '@tool(effect="read", local=True)\nasync def order(id: str) -> Order:\n    """An order."""\n'
        "    import socket\n    socket.create_connection(('127.0.0.1', 9))\n",
    )
    made = bench(tmp_path, READS, reaches)
    assert {(clean.outcome, clean.reason) for clean in made.all_clean()} == {("escalated", "OutsideReached")}
