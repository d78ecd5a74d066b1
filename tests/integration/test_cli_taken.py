"""A person takes a run over from a second terminal, while a process executes, after it was killed, and without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import PATIENCE, answer, cli, event, make, outside, process, serving, until, wrong


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    return make(tmp_path / "shop")


def pay(order: str, amount: float = 10.0) -> str:
    return json.dumps({"order": order, "amount": amount})


def only(desk: Path) -> dict[str, Any]:
    [row] = answer(desk, "runs", "list")
    return row


def states(desk: Path, run: str) -> dict[str, str]:
    return {step["key"]: step["state"] for step in answer(desk, "runs", "steps", run)["steps"]}


def test_a_run_is_taken_from_a_second_terminal_while_another_process_executes_it(desk: Path) -> None:
    with process(desk, "run", "pay-and-wait", "--data", pay("O-1"), "--json") as runner:
        until(lambda: _recorded(desk, "effect.settled%desk.pay"), "the payment")
        run = only(desk)["id"]
        assert answer(desk, "runs", "take", run, "--by", "ann")["executor"] == runner.pid
        out, _ = runner.communicate(timeout=PATIENCE)
    assert json.loads(out)["summary"]["states"] == {"waiting": 1}
    assert states(desk, run) == {"action": "done", "wait": "open"}
    assert wrong(desk, "runs", "do", run, "wait", "--output", '{"done": true}', "--by", "ben")["error"] == "NotTaken"
    shape = wrong(desk, "runs", "do", run, "wait", "--output", '{"done": 7}', "--by", "ann")
    assert shape["error"] == "InputRejected"
    answer(desk, "runs", "do", run, "wait", "--output", '{"done": true}', "--by", "ann", "--reason", "I waited")
    answer(desk, "runs", "give", run, "--by", "ann")
    resumed = answer(desk, "runs", "resume", run)
    assert resumed["states"] == {"completed": 1}
    assert outside(desk) == ["pay O-1"]
    shown = cli(desk, "runs", "show", run).stdout
    assert "taken over by ann" in shown and "done by hand by ann" in shown
    assert "did wait by hand" in cli(desk, "runs", "why", run).stdout


def test_serve_lets_a_run_rest_in_a_persons_hands_also_after_kill_9_and_goes_on_when_it_is_given_back(
    desk: Path,
) -> None:
    cli(desk, "run", "pay", "--data", pay("O-1", 500.0))
    run = only(desk)["id"]
    with serving(desk) as server:
        answer(desk, "runs", "take", run, "--by", "ann")
        answer(desk, "runs", "edit", run, 'judge={"amount": 50.0, "note": "agreed by phone"}', "--by", "ann")
        server.kill()
    assert answer(desk, "inbox", "list") == []
    with serving(desk) as server:
        assert answer(desk, "runs", "steps", run)["held"] == "ann"
        assert only(desk)["state"] == "parked"
        answer(desk, "runs", "give", run, "--by", "ann")
        assert event(server, "run", run=run)["state"] == "completed"
    assert "pay" in (desk / "outside.txt").read_text() and " 50.0" in (desk / "outside.txt").read_text()


def test_what_a_killed_process_left_open_settles_before_a_person_acts(desk: Path) -> None:
    with process(desk, "run", "pay", "--data", pay("held-1")) as runner:
        until(lambda: _recorded(desk, "effect.admitted"), "a payment under way")
        runner.kill()
        runner.wait()
    run = only(desk)["id"]
    answer(desk, "runs", "take", run, "--by", "ann")
    early = wrong(desk, "runs", "do", run, "action", "--output", '"paid"', "--by", "ann")
    assert early["error"] == "ActRefused" and "resume" in early["fix"]
    assert answer(desk, "runs", "resume", run)["states"] == {"parked": 1}
    assert states(desk, run)["action"] == "done"
    assert outside(desk) == ["pay held-1"]
    answer(desk, "runs", "undo", run, "action", "--by", "ann")
    answer(desk, "runs", "resume", run)
    assert states(desk, run)["action"] == "undone"
    assert outside(desk) == ["pay held-1", "unpay held-1"]
    answer(desk, "runs", "do", run, "action", "--output", '"paid in cash"', "--by", "ann")
    answer(desk, "runs", "give", run, "--by", "ann")
    assert answer(desk, "runs", "resume", run)["states"] == {"completed": 1}
    assert outside(desk) == ["pay held-1", "unpay held-1"]


def test_only_the_role_takes_and_a_taken_run_can_be_cancelled(desk: Path) -> None:
    cli(desk, "run", "pay", "--data", pay("O-1", 500.0))
    run = only(desk)["id"]
    assert wrong(desk, "runs", "take", run, "--by", "mallory")["error"] == "BoundaryError"
    answer(desk, "runs", "take", run, "--by", "ann")
    answer(desk, "runs", "take", run, "--by", "ben")  # passed on
    assert answer(desk, "runs", "steps", run)["held"] == "ben"
    answer(desk, "runs", "cancel", run, "--by", "ann")
    cli(desk, "runs", "resume", run)
    assert only(desk)["outcome"] == "cancelled"
    assert wrong(desk, "runs", "give", run, "--by", "ben")["error"] == "InputRejected"


def test_a_dry_run_of_a_halt_says_what_it_would_stop_and_stops_nothing(desk: Path) -> None:
    cli(desk, "run", "pay", "--data", pay("O-1", 500.0))
    with process(desk, "run", "pay-and-wait", "--data", pay("O-2"), "--json"):
        until(lambda: _recorded(desk, "effect.settled%desk.pay"), "the payment")
        told = answer(desk, "halt", "all", "--dry-run")
        assert answer(desk, "halt", "--list") == []
    assert told["by_workflow"] == {"pay": {"parked": 1}, "pay-and-wait": {"running": 1}}
    assert [(one["action"], one["tool"]) for one in told["undone"]] == [("desk.pay", "desk.unpay")]
    assert [item["type"] for item in told["items"]] == ["review"]
    assert told["people"] == [{"role": "lead", "people": "ann, ben", "runs": 2}]
    text = cli(desk, "halt", "workflow:pay", "--dry-run").stdout
    assert "workflow:pay covers 1 parked" in text and "nothing was halted" in text


def test_a_halt_reaches_a_parked_run_in_serve_and_hands_it_over_with_its_context(desk: Path) -> None:
    cli(desk, "run", "pay", "--data", pay("O-1", 500.0))
    run = only(desk)["id"]
    with serving(desk) as server:
        answer(desk, "halt", "agent:judge", "--by", "ann", "--reason", "it is wrong today", "--yes")
        assert event(server, "run", run=run)["state"] == "escalated"
    [item] = answer(desk, "inbox", "list")
    assert item["type"] == "escalation"
    package = answer(desk, "inbox", "show", item["item"])["package"]
    assert package["evidence"]["input"] == {"order": "O-1", "amount": 500.0}
    assert package["partial"]["judge"] == {"amount": 500.0, "note": "seen O-1"}


def test_a_run_that_nobody_moves_is_listed_as_standing_still(tmp_path: Path) -> None:
    desk = make(
        tmp_path / "shop",
        **{"tightship.yaml": "name: shop\nroles: {lead: [ann, ben]}\nlimits: {stall: 1s}\n"},
    )
    cli(desk, "run", "pay", "--data", pay("O-0"))
    assert answer(desk, "runs", "stalled") == []
    with process(desk, "run", "pay-and-wait", "--data", pay("O-1")) as runner:
        until(lambda: "pay O-1" in outside(desk), "the payment")
        runner.kill()
        runner.wait()
    [stall] = until(lambda: answer(desk, "runs", "stalled"), "the stalled run")
    assert stall["state"] == "running" and "nothing was recorded after action" in stall["waits_for"]


def _recorded(desk: Path, what: str) -> bool:
    """Whether the store's file has an entry like this."""
    import sqlite3

    path = desk / ".tightship" / "ledger.db"
    if not path.exists():
        return False
    db = sqlite3.connect(path)
    try:
        return bool(db.execute("SELECT 1 FROM entries WHERE data LIKE ?", (f"%{what}%",)).fetchone())
    except sqlite3.OperationalError:
        return False
    finally:
        db.close()
