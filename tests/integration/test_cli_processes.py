"""Several processes on one workspace: one executes, others look, decide, cancel, halt; and any may be ended."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import PATIENCE, answer, cli, event, interrupt, lines, make, outside, process, serving, until


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    return make(tmp_path / "shop")


def pay(order: str, amount: float = 10.0) -> str:
    return json.dumps({"order": order, "amount": amount})


def running(desk: Path, workflow: str) -> str | None:
    """The id of a run of the workflow that is under way."""
    done = cli(desk, "runs", "list", "--workflow", workflow, "--state", "running", "--json")
    rows = json.loads(done.stdout) if done.returncode == 0 else []
    return rows[0]["id"] if rows else None


def test_a_decision_from_a_second_process_moves_the_parked_run_on_in_serve(desk: Path) -> None:
    with serving(desk) as server:
        busy = cli(desk, "run", "pay", "--data", pay("O-1", 500.0), "--json")
        assert busy.returncode == 4
        assert str(server.pid) in json.loads(busy.stderr)["message"]
        assert interrupt(server)[0] == 0
    parked = answer(desk, "run", "pay", "--data", pay("O-1", 500.0))
    assert parked["summary"]["states"] == {"waiting": 1}
    [item] = answer(desk, "inbox", "list")
    with serving(desk) as server:
        closed = answer(desk, "inbox", "approve", item["item"], "--by", "ann", "--reason", "it is due")
        assert (closed["decision"], closed["by"], closed["executor"]) == ("approve", "ann", server.pid)
        assert event(server, "run", run=item["run"])["state"] == "completed"
    assert outside(desk) == ["pay O-1"]


def test_the_second_of_two_decisions_is_told_of_the_first(desk: Path) -> None:
    cli(desk, "run", "pay", "--data", pay("O-1", 500.0))
    [item] = answer(desk, "inbox", "list")
    answer(desk, "inbox", "reject", item["item"], "--by", "ann")
    late = cli(desk, "inbox", "approve", item["item"], "--by", "ben", "--json")
    assert late.returncode == 1
    assert "ann" in json.loads(late.stderr)["message"]
    assert cli(desk, "runs", "resume", "--all").returncode == 3
    assert outside(desk) == []


def test_cancel_from_a_second_process_undoes_what_was_done(desk: Path) -> None:
    with process(desk, "run", "pay-and-wait", "--data", pay("O-1"), "--json") as runner:
        until(lambda: outside(desk), "the payment")
        run = until(lambda: running(desk, "pay-and-wait"), "the run")
        told = answer(desk, "runs", "cancel", run, "--by", "ann", "--reason", "the wrong order")
        assert told["executor"] == runner.pid
        out, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 3
    assert json.loads(out)["summary"]["states"] == {"cancelled": 1}
    assert outside(desk) == ["pay O-1", "unpay O-1"]


def test_halt_from_a_second_process_stops_undoes_and_hands_over(desk: Path) -> None:
    with process(desk, "run", "pay-and-wait", "--data", pay("O-1"), "--json") as runner:
        until(lambda: outside(desk), "the payment")
        told = answer(desk, "halt", "workflow:pay-and-wait", "--by", "ann", "--reason", "an alarm", "--yes")
        assert told["runs"] == {"running": 1}
        out, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 3
    assert json.loads(out)["runs"][0]["reason"] == "halted"
    assert outside(desk) == ["pay O-1", "unpay O-1"]
    assert [item["type"] for item in answer(desk, "inbox", "list")] == ["escalation"]
    [halt] = answer(desk, "halt", "--list")
    assert (halt["scope"], halt["by_whom"], halt["reason"]) == ("workflow:pay-and-wait", "ann", "an alarm")


def test_nothing_starts_in_a_halted_scope_until_it_is_lifted(desk: Path) -> None:
    answer(desk, "run", "pay", "--data", pay("O-1"))
    answer(desk, "halt", "all", "--yes")
    refused = cli(desk, "run", "pay", "--data", pay("O-2"), "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"] == "Halted"
    assert "unhalt all" in json.loads(refused.stderr)["fix"]
    answer(desk, "unhalt", "all")
    assert answer(desk, "run", "pay", "--data", pay("O-2"))["summary"]["states"] == {"completed": 1}
    assert outside(desk) == ["pay O-1", "pay O-2"]


def test_watch_in_a_second_process_follows_a_run_to_its_end(desk: Path) -> None:
    cli(desk, "run", "pay", "--data", pay("O-1", 500.0))
    [item] = answer(desk, "inbox", "list")
    with process(desk, "runs", "watch", item["run"], "--json") as watcher, serving(desk):
        answer(desk, "inbox", "approve", item["item"], "--by", "ann")
        out, _ = watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode == 0
    seen = [json.loads(line) for line in out.splitlines()]
    assert [entry["n"] for entry in seen] == sorted({entry["n"] for entry in seen})
    kinds = [entry["kind"] for entry in seen]
    assert kinds[0] == "run.started"
    assert kinds[-1] == "run.ended"
    assert {"inbox.opened", "inbox.closed", "effect.settled"} <= set(kinds)


def test_ctrl_c_lets_a_write_under_way_settle_and_resume_does_the_rest(desk: Path) -> None:
    orders = [{"id": n, "order": f"held-{n}", "amount": 1.0} for n in range(6)]
    with process(desk, "run", "pay", "--input", lines(desk, orders), "--concurrency", "2", "--json") as runner:
        started = "SELECT count(*) FROM entries WHERE data LIKE '%effect.admitted%'"
        until(lambda: _count(desk, started) >= 2, "two payments under way")
        code, out, _ = interrupt(runner)
    assert code == 130
    document = json.loads(out)
    assert len(document["runs"]) < len(orders)
    assert len(outside(desk)) >= 2
    settled = "SELECT count(*) FROM entries WHERE data LIKE '%effect.settled%desk.pay%'"
    assert _count(desk, started) == _count(desk, settled)
    cli(desk, "runs", "resume", "--all")
    again = answer(desk, "run", "pay", "--input", "orders.jsonl")
    assert again["summary"]["states"] == {"completed": 6}
    assert sorted(outside(desk)) == [f"pay held-{n}" for n in range(6)]


def test_sigterm_ends_serve_in_good_order(desk: Path) -> None:
    with serving(desk) as server:
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=PATIENCE)
        assert server.returncode == 0
        assert json.loads(out.splitlines()[-1]) == {"event": "stopped"}
    assert cli(desk, "runs", "list").returncode == 0


def test_after_kill_9_resume_continues_and_pays_nothing_twice(desk: Path) -> None:
    orders = [{"id": n, "order": f"O-{n}" if n % 3 else f"slow-{n}", "amount": 1.0} for n in range(12)]
    with process(desk, "run", "pay", "--input", lines(desk, orders), "--concurrency", "6") as runner:
        until(lambda: len(outside(desk)) >= 3, "some payments")
        runner.kill()
        runner.wait()
    (desk / "agents" / "shop.py").write_text((desk / "agents" / "shop.py").read_text().replace("sleep(30)", "sleep(0)"))
    with serving(desk) as server:
        assert event(server, "other_code")["runs"]
    refused = cli(desk, "runs", "resume", "--all", "--json")
    assert refused.returncode == 1
    assert "BuildMismatch" in refused.stdout
    resumed = cli(desk, "runs", "resume", "--all", "--accept-code", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["states"]["completed"] >= 1
    again = answer(desk, "run", "pay", "--input", "orders.jsonl")
    assert again["summary"]["states"] == {"completed": 12}
    assert sorted(outside(desk)) == sorted(f"pay {order['order']}" for order in orders)


def _count(desk: Path, query: str) -> int:
    """A number read from the store's file."""
    import sqlite3

    path = desk / ".tightship" / "ledger.db"
    if not path.exists():
        return 0
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(db.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        db.close()
