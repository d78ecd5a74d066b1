"""The demo and the template, as a new user meets them."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import answer, cli, event, process, serving, until, wrong
from docs_runner import free_port

DEMO = ("demo", "--concurrency", "2")
"""Few at once: on a busy machine sixteen agents side by side do not all end within the 30 s that the template gives them."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A folder in which the demo has run: the folder, its JSON, and the text of the demo that is gone on with there."""
    folder = tmp_path_factory.mktemp("new")
    done = cli(folder, *DEMO, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    text = cli(folder, *DEMO, "--keep")
    assert text.returncode == 0, text.stdout + text.stderr
    return folder, json.loads(done.stdout), text.stdout


def test_every_outcome_of_the_demo_is_the_expected_one(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, told, text = demo
    assert told["agreed"] == told["compared"] >= 60
    states = told["summary"]["states"]
    assert states["completed"] > 0
    assert states["escalated"] > 0
    assert states["waiting"] > 0
    assert set(states) <= {"completed", "escalated", "waiting"}
    assert told["summary"]["cost"] > 0
    assert f"{told['compared']} of {told['compared']} outcomes are as expected" in text
    for name in ("completed", "escalated", "failed", "cost", "p50", "p95", "budget"):
        assert name in text


def test_the_company_of_the_demo_has_ended(demo: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, _ = demo
    config = (folder / "demo" / "tightship.yaml").read_text()
    [port] = set(re.findall(r"127\.0\.0\.1:(\d+)", config))
    listening = {int(line.split()[1].rpartition(":")[2], 16) for line in _listening()}
    assert int(port) not in listening or not _serves(folder)


def test_every_command_that_the_demo_prints_works_from_that_shell(demo: tuple[Path, dict[str, Any], str]) -> None:
    folder, _, text = demo
    steps = [line.split("   ")[0].strip() for line in text.partition("Next:")[2].splitlines() if line.strip()]
    commands = [step.partition("tightship ")[2].split() for step in steps]
    commands = [args for args in commands if args[0] != "company" and args[:2] != ["runs", "resume"]]
    assert {args[0] for args in commands} == {"inbox", "runs", "costs", "audit"}
    for args in commands:
        done = cli(folder, *args)
        assert done.returncode == 0, (args, done.stderr)
        assert done.stdout.strip()


def test_a_difference_is_reported_and_makes_the_demo_fail(demo: tuple[Path, dict[str, Any], str]) -> None:
    folder, told, _ = demo
    path = folder / "demo" / "tickets.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["expected"]["outcome"] = "escalated"
    lines[1]["expected"]["refund"]["amount"] += 1
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = cli(folder, *DEMO, "--keep", "--json")
    assert done.returncode == 1
    again = json.loads(done.stdout)
    assert again["agreed"] == told["compared"] - 2
    wrong_ones = [one for one in again["verdicts"] if not one["agrees"]]
    assert [one["reference"] for one in wrong_ones] == [lines[0]["id"], lines[1]["id"]]
    assert [one["run"] for one in again["verdicts"]] == [one["run"] for one in told["verdicts"]]


def test_after_kill_9_the_demo_goes_on_and_comes_to_the_same_end(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    _, undisturbed, _ = demo
    with process(tmp_path, *DEMO) as killed:
        until(lambda: _runs(tmp_path / "demo", "support") >= 30, "the team at work")
        killed.kill()
        killed.wait()
    until(lambda: not _serves(tmp_path), "the end of the company, which ends with the demo")
    done = cli(tmp_path, *DEMO, "--keep", "--json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    again = json.loads(done.stdout)
    assert again["agreed"] == undisturbed["compared"]
    assert again["summary"]["states"] == undisturbed["summary"]["states"]
    assert _business(tmp_path / "demo") == _business(demo[0] / "demo")
    assert answer(tmp_path / "demo", "audit", "verify")["ok"]


def _runs(workspace: Path, workflow: str) -> int:
    """How many runs of a workflow there are."""
    with contextlib.suppress(sqlite3.OperationalError):  # there is no store yet
        db = sqlite3.connect(f"file:{workspace / '.tightship' / 'ledger.db'}?mode=ro", uri=True)
        with contextlib.closing(db):
            return int(db.execute("SELECT count(*) FROM runs WHERE workflow = ?", (workflow,)).fetchone()[0])
    return 0


PAIR = ("T-4077", "T-4078")
"""Two tickets about one refund that are worked on at once: either may come first, and the other one says so."""


def _business(workspace: Path) -> list[tuple[Any, ...]]:
    """Refunds and replies as the company has them."""
    db = sqlite3.connect(f"file:{workspace / 'company.db'}?mode=ro", uri=True)
    try:
        refunds = db.execute("SELECT order_id, amount, status FROM refunds ORDER BY order_id, amount").fetchall()
        messages = db.execute("SELECT ticket_id, kind, body FROM messages ORDER BY 1, 2, 3").fetchall()
        return [*refunds, *[(ticket, kind, "" if ticket in PAIR else body) for ticket, kind, body in messages]]
    finally:
        db.close()


def test_a_folder_that_no_demo_has_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("mine")
    assert wrong(tmp_path, "demo")["error"] == "WorkspaceError"
    assert (tmp_path / "demo" / "mine.txt").read_text() == "mine"


def test_from_init_to_an_approved_refund(tmp_path: Path) -> None:
    assert answer(tmp_path, "init", "desk")["template"] == "support"
    assert wrong(tmp_path, "init", "desk")["message"] == "desk is not empty"
    assert wrong(tmp_path, "init", "other", "--template", "supprt")["fix"] == "did you mean 'support'?"
    desk = tmp_path / "desk"
    assert answer(desk, "runs", "list") == []
    _other_port(desk)
    with process(desk, "company", "serve") as company:
        assert company.stdout is not None
        ready = json.loads(company.stdout.readline())
        assert ready["pid"] == company.pid
        assert "token" not in ready
        assert (desk / ".secrets" / "COMPANY_TOKEN").stat().st_mode & 0o777 == 0o600
        checked = cli(desk, "check", "--json")
        assert checked.returncode == 0, checked.stdout
        assert json.loads(checked.stdout)["contracts_unread"] == []
        tickets = (desk / "tickets.jsonl").read_text().splitlines()
        wanted = next(line for line in tickets if '"above_limit"' in line)
        (desk / "one.jsonl").write_text(f"{wanted}\n")
        assert answer(desk, "run", "intake", "--input", "one.jsonl")["summary"]["states"] == {"completed": 1}
        assert answer(desk, "run", "support", "--input", "one.jsonl")["summary"]["states"] == {"waiting": 1}
        [item] = answer(desk, "inbox", "list")
        shown = answer(desk, "inbox", "show", item["item"])
        assert shown["decisions"] == ["approve", "reject", "edit"]
        assert wrong(desk, "inbox", "approve", item["item"], "--by", "mallory")["error"] == "BoundaryError"
        with serving(desk) as server:
            answer(desk, "inbox", "approve", item["item"], "--by", "lead@example.com")
            assert event(server, "run", run=item["run"])["state"] == "completed"
        forked = answer(desk, "runs", "fork", item["run"], "--from", "respond")
        assert not forked["live"]
    assert [row["live"] for row in answer(desk, "runs", "list", "--workflow", "support")] == [0, 1]


def test_calibration_prints_held_out_figures(tmp_path: Path) -> None:
    answer(tmp_path, "init", "desk")
    told = answer(tmp_path / "desk", "agents", "calibration", "triage")
    topic = told["labels"]["topic"]["held-out folds"]
    assert topic["examples"] > 500
    assert 0.8 < topic["accuracy"] <= 1
    assert 0 <= topic["ece"] < 0.1
    assert "is an output of quality" in cli(tmp_path / "desk", "agents", "calibration", "quality").stderr


def _other_port(desk: Path) -> None:
    """A port of this test's own."""
    port = free_port()
    path = desk / "tightship.yaml"
    path.write_text(path.read_text().replace(":8765", f":{port}"))


def _listening() -> list[str]:
    """Lines of /proc/net/tcp that are listening sockets."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[3] == "0A"]


def _serves(folder: Path) -> bool:
    """Whether a company process was started from this folder."""
    for found in Path("/proc").glob("[0-9]*"):
        try:
            words = (found / "cmdline").read_bytes().split(b"\0")
            if b"company" in words and (found / "cwd").resolve() == folder.resolve():
                return True
        except OSError:
            continue
    return False
