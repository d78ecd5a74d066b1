"""Every command on a small workspace, in this process: what it prints, what it takes, what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import cli, lines, make, outside
from tightship.cli import main

Capture = pytest.CaptureFixture[str]


class Line:
    """The command line in a folder."""

    def __init__(self, folder: Path, capsys: Capture) -> None:
        self.folder = folder
        self._capsys = capsys

    def text(self, *args: str, code: int = 0) -> str:
        """What a command prints; its exit code has to be this one."""
        self._capsys.readouterr()
        got = main(list(args))
        told = self._capsys.readouterr()
        assert got == code, (args, told.out, told.err)
        return told.out + told.err

    def json(self, *args: str, code: int = 0) -> Any:
        """The JSON that a command prints."""
        self._capsys.readouterr()
        got = main([*args, "--json"])
        told = self._capsys.readouterr()
        assert got == code, (args, told.out, told.err)
        return json.loads(told.out or told.err)

    def pay(self, order: str, amount: float, *more: str, code: int = 0) -> dict[str, Any]:
        """Run the workflow `pay` on one order; the record of its run."""
        told = self.json("run", "pay", "--data", json.dumps({"order": order, "amount": amount}), *more, code=code)
        record: dict[str, Any] = told["runs"][0]
        return record


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Line:
    monkeypatch.chdir(make(tmp_path / "shop"))
    return Line(tmp_path / "shop", capsys)


# --- run ----------------------------------------------------------------------------------------------


def test_one_run_prints_its_output_and_cost_and_the_same_data_is_the_same_run(line: Line) -> None:
    data = json.dumps({"order": "O-1", "amount": 10.0})
    text = line.text("run", "pay", "--data", data)
    assert "completed" in text
    assert '"paid O-1"' in text
    assert "$0.0100" in text
    assert "tightship audit verify" in text
    assert "1 of 1 were run before" in line.text("run", "pay", "--data", data)
    assert outside(line.folder) == ["pay O-1"]
    again = line.text("run", "pay", "--data", data, "--new", code=3)
    assert "escalated: duplicate" in again
    assert outside(line.folder) == ["pay O-1"]


def test_runs_belong_to_the_tenant_that_is_named_and_its_bounds_hold_for_them(line: Line) -> None:
    text = (line.folder / "tightship.yaml").read_text()
    (line.folder / "tightship.yaml").write_text(text + "admission: {tenants: {acme: {queued: 1}}}\n")
    assert line.pay("O-1", 10.0, "--tenant", "acme")["state"] == "completed"
    order = json.dumps({"order": "O-2", "amount": 10.0})
    mine = line.json("run", "pay", "--data", order, "--tenant", "acme", "--priority", "0", "--detach")["queued"][0]
    more = json.dumps({"order": "O-3", "amount": 10.0})
    refused = line.json("run", "pay", "--data", more, "--tenant", "acme", "--detach", code=5)
    assert "tenant acme" in refused["message"]
    theirs = line.json("run", "pay", "--data", order, "--detach")["queued"][0]
    assert mine["run"] != theirs["run"], "the same words of two tenants are two pieces of work"
    again = line.json("run", "pay", "--data", order, "--tenant", "acme", "--detach")["queued"][0]
    assert again["run"] == mine["run"]
    halted = line.json("halt", "tenant:acme", "--dry-run")
    assert [run["run"] for run in halted["runs"]] == [mine["run"]]
    for name in ("", " acme", "a\nb", "x" * 201):
        line.text("run", "pay", "--data", order, "--tenant", name, code=2)
    line.text("run", "pay", "--data", order, "--priority", "10", code=2)


def test_exit_codes_tell_what_became_of_the_runs(line: Line) -> None:
    assert line.pay("O-1", 10.0)["state"] == "completed"
    assert line.pay("O-2", 500.0)["state"] == "waiting"
    assert line.pay("O-3", -1.0, code=3)["reason"] == "data_missing"
    line.text("run", "nothing", "--data", "{}", code=1)
    line.text("run", "pay", "--data", "{", code=1)
    line.text("run", "pay", "--data", "{}", "--batch", "b", "--new", code=2)


def test_lines_from_stdin(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Stdin:
        buffer = io.BytesIO(b'{"order": "O-1", "amount": 1}\n{"order": "O-2", "amount": 2}\n')

    monkeypatch.setattr("sys.stdin", Stdin())
    assert line.json("run", "pay", "--input", "-")["summary"]["states"] == {"completed": 2}
    assert sorted(outside(line.folder)) == ["pay O-1", "pay O-2"]


def test_a_rehearsal_says_so_on_every_line_touches_nothing_and_stays_apart(line: Line) -> None:
    name = lines(line.folder, [{"order": f"O-{n}", "amount": 1.0} for n in range(3)])
    main(["run", "pay", "--input", name, "--rehearse"])
    told = line._capsys.readouterr()
    for printed in (told.out + told.err).splitlines():
        assert printed.startswith("[rehearsal] ")
    assert outside(line.folder) == []
    rows = line.json("runs", "list")
    assert {row["live"] for row in rows} == {0}
    assert {row["cost"] for row in rows} == {0.0}
    assert line.json("runs", "resume", "--all")["runs"] == []
    assert line.json("run", "pay", "--input", name)["summary"]["states"] == {"completed": 3}
    assert len(outside(line.folder)) == 3


# --- runs ---------------------------------------------------------------------------------------------


def test_runs_are_listed_the_latest_first_and_by_state(line: Line) -> None:
    first, second = line.pay("O-1", 1.0), line.pay("O-2", 500.0)
    assert [row["id"] for row in line.json("runs", "list")] == [second["run"], first["run"]]
    assert [row["id"] for row in line.json("runs", "list", "--state", "completed")] == [first["run"]]
    assert [row["id"] for row in line.json("runs", "list", "--state", "parked")] == [second["run"]]
    assert line.json("runs", "list", "--workflow", "other") == []
    acme = line.pay("O-3", 1.0, "--tenant", "acme")
    assert [row["id"] for row in line.json("runs", "list", "--tenant", "acme")] == [acme["run"]]
    assert [row["id"] for row in line.json("runs", "list", "--tenant", "default")] == [second["run"], first["run"]]
    assert line.json("runs", "list", "--tenant", "acme", "--state", "parked") == []
    assert "there are no such runs" in line.text("runs", "list", "--tenant", "nobody")
    assert "the latest 1" in line.text("runs", "list", "--limit", "1")
    assert "there are no such runs" in line.text("runs", "list", "--state", "failed")


def test_a_run_is_shown_step_by_step_and_explained(line: Line) -> None:
    run = line.pay("O-1", 10.0)["run"]
    shown = line.text("runs", "show", run, "--values")
    for word in ("judge", "desk.pay", "completed", "O-1", "$0.0100"):
        assert word in shown
    told = line.json("runs", "show", run)
    assert told["input"] == {"order": "O-1", "amount": 10.0}
    assert told["output"] == "paid O-1"
    assert told["summary"]["outcome"] == "completed"
    why = line.json("runs", "why", run)
    assert [one["kind"] for one in why["decisions"]][-1] == "outcome"
    below = line.json("runs", "why", run, "--key", "judge")["decisions"]
    assert {one["key"].split("/")[0] for one in below} == {"judge"}
    for command in ("show", "why", "watch", "cancel"):
        assert line.json("runs", command, "r-none", code=1)["error"] == "UnknownName"


def test_an_escalated_run_shows_its_package(line: Line) -> None:
    run = line.pay("O-1", -1.0, code=3)["run"]
    shown = line.text("runs", "show", run)
    assert "the amount is not known" in shown
    assert "tightship inbox show" in shown


def test_watching_a_run_that_has_ended_prints_it_and_ends(line: Line) -> None:
    run = line.pay("O-1", 1.0)["run"]
    watched = line.text("runs", "watch", run)
    assert "pay started" in watched
    assert "completed" in watched.splitlines()[-1]


def test_a_cancelled_run_ends_when_somebody_executes(line: Line) -> None:
    run = line.pay("O-1", 500.0)["run"]
    assert f"tightship runs resume {run}" in line.text("runs", "cancel", run, "--by", "ann", "--reason", "no")
    told = line.json("runs", "resume", "--all", code=3)
    assert told["runs"] == [{"run": run, "state": "cancelled", "reason": "cancelled"}]
    assert line.json("runs", "cancel", run, code=1)["error"] == "InputRejected"
    assert line.json("inbox", "list") == []


def test_resume_needs_runs_or_all(line: Line) -> None:
    line.text("runs", "resume", code=2)
    line.text("runs", "resume", "r-1", "--all", code=2)


def test_a_fork_rehearses_writes_and_says_so(line: Line) -> None:
    run = line.pay("O-1", 1.0)["run"]
    text = line.text("runs", "fork", run, "--from", "action")
    assert all(printed.startswith("[writes rehearsed] ") for printed in text.splitlines())
    told = line.json("runs", "fork", run)
    assert (told["forked"], told["live"], told["result"]["outcome"]) == (run, False, "completed")
    assert outside(line.folder) == ["pay O-1"]


# --- inbox --------------------------------------------------------------------------------------------


def parked(line: Line, order: str = "O-1") -> str:
    run = line.pay(order, 500.0)["run"]
    [item] = [one["item"] for one in line.json("inbox", "list") if one["run"] == run]
    return str(item)


def test_an_item_shows_the_case_and_the_commands_that_decide_it(line: Line) -> None:
    item = parked(line)
    shown = line.text("inbox", "show", item)
    assert "500" in shown
    for decision in ("approve", "reject", "edit"):
        assert f"tightship inbox {decision} {item}" in shown
    assert "--by ann" in shown
    assert "waits" not in line.text("inbox", "list", "--role", "lead")
    unknown = line.json("inbox", "list", "--role", "leed", code=1)
    assert (unknown["error"], unknown["fix"]) == ("UnknownName", "did you mean 'lead'?")


def test_decisions_need_the_role_and_a_fitting_value(line: Line) -> None:
    item = parked(line)
    assert line.json("inbox", "approve", item, "--by", "eve", code=1)["error"] == "BoundaryError"
    assert line.json("inbox", "answer", item, "--by", "ann", "--value", "1", code=1)["error"] == "InputRejected"
    assert line.json("inbox", "edit", item, "--by", "ann", code=1)["error"] == "InputRejected"
    assert line.json("inbox", "edit", item, "--by", "ann", "--value", "{", code=1)["where"] == "--value"
    assert line.json("inbox", "approve", "i-none", "--by", "ann", code=1)["error"] == "UnknownName"
    assert [one["item"] for one in line.json("inbox", "list")] == [item]


def test_an_edited_value_is_what_is_paid(line: Line) -> None:
    item = parked(line)
    edited = json.dumps({"amount": 80.0, "note": "agreed"})
    assert "edit by ann" in line.text("inbox", "edit", item, "--by", "ann", "--value", edited)
    line.text("runs", "resume", "--all")
    assert (line.folder / "outside.txt").read_text().strip().endswith(" O-1 80.0")
    closed = line.json("inbox", "list", "--all")
    assert [(one["decision"], one["by"]) for one in closed] == [("edit", "ann")]
    assert "closed: edit by ann" in line.text("inbox", "show", item)


def test_a_rejected_item_ends_as_declared(line: Line) -> None:
    line.text("inbox", "reject", parked(line), "--by", "ben", "--reason", "too much")
    assert line.json("runs", "resume", "--all", code=3)["runs"][0]["state"] == "escalated"
    assert outside(line.folder) == []


# --- costs, halts, agents -----------------------------------------------------------------------------


def test_costs_are_grouped_and_of_one_run(line: Line) -> None:
    run = line.pay("O-1", 1.0)["run"]
    line.pay("O-2", 1.0)
    assert line.json("costs")["total"]["usd"] == 0.02
    assert {row["name"] for row in line.json("costs", "--by", "tool")["lines"]} == {"desk.pay", "desk.look"}
    assert {row["agent"] for row in line.json("costs", "--by", "agent", "--by", "day")["lines"]} == {
        "judge",
        "workflow",
    }
    assert "$0.0200" in line.text("costs", "--by", "day")
    assert line.json("costs", "--run", run)["total"]["usd"] == 0.01
    assert "in all $0.0100" in line.text("costs", "--run", run)
    assert line.json("costs", "--since", "soon", code=1)["error"] == "InputRejected"
    assert "nothing has been spent" in line.text("costs", "--workflow", "other")


def test_coordination_is_told_by_workflow_and_of_one_run(line: Line) -> None:
    run = line.pay("O-1", 1.0)["run"]
    line.pay("O-2", 1.0)
    [told] = line.json("coordination")
    assert (told["workflow"], told["runs"], told["coordination"]["turns"]) == ("pay", 2, 0)
    assert told["work"]["usd"] == 0.02
    [one] = line.json("coordination", "--run", run)
    assert one["work"]["usd"] == 0.01 and one["share"]["usd"] == 0.0
    assert "0%" in line.text("coordination", "--workflow", "pay")
    assert "nothing has been run yet" in line.text("coordination", "--workflow", "other")
    assert line.json("coordination", "--run", "r-none", code=1)["error"] == "UnknownName"
    line.text("coordination", "--run", run, "--workflow", "pay", code=2)
    shown = line.text("runs", "show", run)
    assert "coordination: 0 of" in shown


def test_a_halt_shows_what_it_stops_and_asks(line: Line) -> None:
    line.pay("O-1", 500.0)
    line.text("halt", "workflow:pay", code=2)
    line.text("halt", code=2)
    assert "nothing is halted" in line.text("halt", "--list")
    text = line.text("halt", "workflow:pay", "--yes", "--by", "ann", "--reason", "an alarm")
    assert "workflow:pay covers 1 parked" in text
    assert "an alarm" in line.text("halt", "--list")
    for scope in ("workflow:pya", "agent:nobody", "run:r-none", "everything"):
        line.text("halt", scope, "--yes", code=1)
    assert line.json("unhalt", "workflow:pay") == {"scope": "workflow:pay", "lifted": True}
    assert line.json("unhalt", "workflow:pay", code=1)["lifted"] is False


def test_agents_are_listed_with_what_they_may_touch(line: Line) -> None:
    told = {one["agent"]: one for one in line.json("agents", "list")}
    assert told["judge"]["tools"] == ["desk.look"]
    assert told["judge"]["used in"] == ["pay"]
    assert told["judge"]["owner"] == "shop"
    assert "shop:judge" in line.text("agents", "list")
    assert line.json("agents", "calibration", "judge", code=1)["error"] == "InputRejected"
    assert line.json("agents", "calibration", "jugde", code=1)["fix"] == "did you mean 'judge'?"


def test_a_blueprint_is_printed_or_written(line: Line, tmp_path: Path) -> None:
    text = line.text("blueprint", "pay")
    assert text.startswith("# pay\n")
    line.text("blueprint", "pay", "--out", str(tmp_path / "pay.md"))
    assert (tmp_path / "pay.md").read_text() == text
    assert line.json("blueprint", "pya", code=1)["fix"] == "did you mean 'pay'?"


def test_a_workspace_elsewhere_is_named_in_the_commands_that_are_printed(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = line.text("run", "pay", "-w", "shop", "--data", json.dumps({"order": "O-1", "amount": 500.0}))
    printed = [one.strip() for one in text.splitlines() if one.strip().startswith("tightship ")]
    assert printed
    assert all(" -w shop" in one for one in printed)


def test_what_remains_outside_is_shown_with_its_arguments(line: Line) -> None:
    (line.folder / "workflows" / "pay.yaml").write_text(_NO_UNDO)
    run = line.pay("O-1", -1.0, code=3)["run"]
    item = line.json("inbox", "list")[0]["item"]
    for shown in (line.text("inbox", "show", item), line.text("runs", "show", run)):
        assert "desk.pay" in shown
        assert "order: O-1" in shown
    evidence = line.json("inbox", "show", item)["package"]["evidence"]
    assert evidence["effects that remain"][0]["args"] == {"order": "O-1", "amount": -1.0}
    assert "--json" in line.text("inbox", "show", item)


_NO_UNDO = """\
workflow: pay
owner: shop
purpose: pay, and look only then
input: {order: str, amount: float}
budget: {usd: 0.50, seconds: 120, then: escalate}
escalate_to: lead
steps:
  - action: desk.pay
    with: {order: input.order, amount: input.amount}
    claim: '"pay:" + input.order'
    undo: none
  - judge
"""


async def test_a_run_is_shown_on_one_short_line_in_python(line: Line) -> None:
    from tightship import Workspace

    async with Workspace.open(line.folder) as workspace:
        run = await workspace.run("pay", {"order": "O-1", "amount": 500.0})
    assert repr(run) == f"<Run {run.id} of pay, parked, $0.0000, 1 calls>"


def test_what_an_agent_prints_is_not_in_the_json(line: Line, capsys: Capture) -> None:
    code = line.folder / "agents" / "shop.py"
    code.write_text(code.read_text().replace("    seen =", "    print('HELLO')\n    seen ="))
    data = json.dumps({"order": "O-1", "amount": 1.0})
    capsys.readouterr()
    assert main(["run", "pay", "--data", data, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["summary"]["states"] == {"completed": 1}
    assert told.err == "HELLO\n"


def test_code_that_ends_the_process_is_named_with_its_line(tmp_path: Path) -> None:
    folder = make(tmp_path / "shop")
    code = folder / "agents" / "shop.py"
    code.write_text(code.read_text().replace("    seen =", "    raise KeyboardInterrupt\n    seen ="))
    done = cli(folder, "run", "pay", "--data", '{"order": "O-1", "amount": 1.0}')
    assert done.returncode == 1, done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert "agents/shop.py:9" in done.stderr


def test_an_item_is_listed_with_what_its_case_is_called(line: Line) -> None:
    name = lines(line.folder, [{"id": "T-77", "order": "O-1", "amount": 500.0}])
    line.text("run", "pay", "--input", name, "--batch", "may")
    assert "may/T-77" in line.text("inbox", "list")
    assert line.json("inbox", "list")[0]["reference"] == "may/T-77"


def test_what_is_offered_on_an_escalation_is_what_can_follow(line: Line) -> None:
    run = line.pay("O-1", -1.0, code=3)["run"]
    item = line.json("inbox", "list")[0]["item"]
    shown = line.text("inbox", "show", item)
    assert "retry:" not in shown
    assert "which closes it" in shown
    line.text("inbox", "answer", item, "--by", "ann", "--value", '{"amount": 2.0}')
    line.text("runs", "resume", "--all")
    assert {row["outcome"] for row in line.json("runs", "list") if row["id"] != run} == {"completed"}


def test_lines_that_a_halt_has_kept_from_beginning_are_told(line: Line) -> None:
    line.pay("O-0", 1.0)
    line.text("halt", "workflow:pay", "--yes")
    name = lines(line.folder, [{"order": f"O-{n}", "amount": 1.0} for n in range(1, 4)])
    told = line.text("run", "pay", "--input", name, "-c", "1", code=1)
    assert "3 of 3 lines were not begun; the same command does them as well" in told
    assert "completed  0" not in told
    told = line.text("run", "pay", "--input", name, "--new", code=1)
    assert "in place of --new" in told


@pytest.mark.parametrize("args", [("audit", "verify"), ("runs", "list")])
def test_a_database_that_is_gone_is_not_taken_for_one_that_never_was(line: Line, args: tuple[str, ...]) -> None:
    assert "nothing has been run" in line.json(*args, code=1)["message"]
    line.pay("O-1", 1.0)
    (line.folder / ".tightship" / "ledger.db").unlink()
    told = line.json(*args, code=1)
    assert told["message"].startswith("the ledger's database is gone")
    assert "ledger.db" in told["where"]


def test_a_damaged_master_key_is_one_cause(line: Line) -> None:
    for number in range(3):
        line.pay(f"O-{number}", 1.0)
    key = line.folder / ".tightship" / "keys" / "master.key"
    damaged = bytearray(key.read_bytes())
    damaged[5] ^= 1
    key.write_bytes(damaged)
    told = line.text("audit", "verify", code=1).splitlines()
    assert told[0].startswith("keys/master.key: master key: no key opens with it")
    assert "more places follow from it" in told[1]
    assert not any("does not open" in one for one in told)
    assert line.json("audit", "verify", code=1)["findings"][0]["place"] == "master key"


def test_what_cannot_be_read_at_all_does_not_send_to_the_command_that_was_called(line: Line) -> None:
    line.pay("O-1", 1.0)
    path = line.folder / ".tightship" / "ledger.db"
    for one in path.parent.glob("ledger.db-*"):
        one.unlink()
    path.write_bytes(b"no database" * 1000)
    told = line.json("audit", "verify", code=1)
    assert "audit verify" not in told["fix"]
    assert "backup" in told["fix"]


def test_a_fork_suggests_steps_and_says_what_it_waits_for(line: Line) -> None:
    run = line.pay("O-1", 500.0)["run"]
    fix = line.json("runs", "fork", run, "--from", "nosuch", code=1)["fix"]
    assert "judge" in fix
    assert not {"ask", "given", "tool", "1"} & set(fix.replace(",", " ").split())
    assert "waits for a person: tightship inbox show i-" in line.text("runs", "fork", run)
    assert "[judge/judge/1]" in line.text("runs", "show", run, "--keys")
