"""Bad input, broken files and bad disks: each gets a clear error with place and fix, and loses nothing."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import FILES, answer, cli, command, environment, lines, make, outside, wrong

PAY = FILES["workflows/pay.yaml"]
ONE = json.dumps({"order": "O-1", "amount": 10.0})


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    return make(tmp_path / "shop")


# --- files of the workspace ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "given", "where", "said"),
    [
        ("  - judge\n", "  - judge: [\n", "workflows/pay.yaml:", "no YAML"),
        ("  - judge\n", "  - jugde\n", "workflows/pay.yaml:8", "jugde"),
        ("  - judge\n", "  - workflow: pay\n", "workflows/pay.yaml:8", "pay -> pay"),
        ("amount: float", "amount: flaot", "workflows/pay.yaml:4", "flaot"),
        ("owner: shop\n", "", "workflows/pay.yaml:1", "owner"),
    ],
)
def test_a_broken_workflow_is_named_with_file_and_line_and_nothing_is_started(
    desk: Path, wanted: str, given: str, where: str, said: str
) -> None:
    assert wanted in PAY
    make(desk, workflows__pay=PAY.replace(wanted, given))
    told = wrong(desk, "run", "pay", "--data", ONE)
    assert told["where"].startswith(where)
    assert said in told["message"]
    assert told["fix"]
    assert not (desk / ".tightship").exists()


def test_check_lists_every_finding_with_id_severity_place_and_fix_and_exits_with_1_on_errors(desk: Path) -> None:
    assert cli(desk, "check").returncode == 0
    make(desk, workflows__pay=PAY.replace("judge.amount > 100.0", "judge.amuont > 100.0").replace("owner: shop\n", ""))
    done = cli(desk, "check", "--json")
    assert done.returncode == 1
    found = [one for one in json.loads(done.stdout)["findings"] if one["severity"] == "error"]
    assert all(one["rule"].startswith("TS") and one["file"] and one["line"] and one["fix"] for one in found)
    assert any("owner" in one["message"] for one in found)
    make(desk, workflows__pay=PAY.replace("judge.amount > 100.0", "judge.amuont > 100.0"))
    text = cli(desk, "check")
    assert text.returncode == 1
    assert "workflows/pay.yaml:9" in text.stdout
    assert "amuont" in text.stdout


def test_a_broken_workflow_keeps_nobody_from_looking_deciding_and_stopping(desk: Path) -> None:
    cli(desk, "run", "pay", "--data", json.dumps({"order": "O-1", "amount": 500.0}))
    make(desk, workflows__pay="steps: [\n")
    [row] = answer(desk, "runs", "list")
    assert row["state"] == "parked"
    [item] = answer(desk, "inbox", "list")
    assert answer(desk, "halt", "workflow:pay", "--yes")["runs"] == {"parked": 1}
    assert answer(desk, "inbox", "reject", item["item"], "--by", "ann")["decision"] == "reject"
    assert answer(desk, "runs", "cancel", row["id"])["cancelling"]


def test_a_broken_tightship_yaml_stops_every_command_since_it_says_where_the_store_is(desk: Path) -> None:
    answer(desk, "run", "pay", "--data", ONE)
    (desk / "tightship.yaml").write_text("name: shop\nstroe: sqlite:elsewhere\n")
    for args in (["runs", "list"], ["halt", "all", "--yes"], ["run", "pay", "--data", ONE]):
        told = wrong(desk, *args)
        assert told["where"].startswith("tightship.yaml:2")
    assert not (desk / "elsewhere").exists()


def test_looking_where_nothing_was_run_says_so_and_makes_nothing(desk: Path, tmp_path: Path) -> None:
    for args in (["runs", "list"], ["inbox", "list"], ["costs"], ["halt", "all", "--yes"], ["runs", "show", "r-1"]):
        told = wrong(desk, *args)
        assert told["error"] == "StoreMissing"
        assert "nothing has been run" in told["message"]
    assert not (desk / ".tightship").exists()
    assert wrong(tmp_path, "runs", "list")["error"] == "WorkspaceMissing"


# --- lines --------------------------------------------------------------------------------------------

BAD = [
    {"id": 1, "order": "O-1", "amount": 1.0},
    {"id": 2, "order": "O-2", "amount": "much"},
    "{no json",
    [1],
    {"id": 1, "order": "O-5", "amount": 5.0},
    {"id": 6, "order": "O-6", "amount": 6.0, "colour": "red"},
    {"id": 7, "order": "O-7", "amount": 7.0},
]


def test_one_line_that_does_not_fit_stops_the_batch_before_anything_is_started(desk: Path) -> None:
    done = cli(desk, "run", "pay", "--input", lines(desk, BAD))
    assert done.returncode == 1
    for place in ("orders.jsonl:2: ", "orders.jsonl:3: ", "orders.jsonl:4: ", "orders.jsonl:5: ", "orders.jsonl:6: "):
        assert place in done.stderr
    assert "nothing was started" in done.stderr
    assert "Traceback" not in done.stderr
    assert outside(desk) == []
    assert cli(desk, "runs", "list").returncode == 1


def test_keep_going_skips_lines_that_do_not_fit_and_does_the_others(desk: Path) -> None:
    done = cli(desk, "run", "pay", "--input", lines(desk, BAD), "--keep-going", "--json")
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert [problem["where"] for problem in told["problems"]] == [f"orders.jsonl:{n}" for n in (2, 3, 4, 5, 6)]
    assert [(run["line"], run["state"]) for run in told["runs"]] == [(1, "completed"), (7, "completed")]
    assert sorted(outside(desk)) == ["pay O-1", "pay O-7"]


def test_the_same_file_again_does_nothing_twice_and_a_changed_line_is_noticed(desk: Path) -> None:
    good = [{"id": n, "order": f"O-{n}", "amount": 1.0} for n in range(5)]
    first = answer(desk, "run", "pay", "--input", lines(desk, good), "--batch", "monday")
    again = answer(desk, "run", "pay", "--input", lines(desk, good), "--batch", "monday")
    assert [run["run"] for run in first["runs"]] == [run["run"] for run in again["runs"]]
    assert len(outside(desk)) == 5
    good[2]["amount"] = 2.0
    done = cli(desk, "run", "pay", "--input", lines(desk, good), "--batch", "monday")
    assert done.returncode == 1
    assert "orders.jsonl:3: it was run before as" in done.stderr
    assert len(outside(desk)) == 5


# --- agents -------------------------------------------------------------------------------------------

AGENTS = {
    "WrongShape format_mismatch": "return {'amount': 'x', 'note': 3}",
    "AgentRaised": "raise ValueError('no')",
    "AgentHung": "import asyncio, time; await asyncio.to_thread(time.sleep, 600)",
    "data_missing": "from tightship import DataMissing; raise DataMissing('it is not there')",
    "ForkedEffect": "import asyncio; await asyncio.create_task(ctx.tool('desk.look', {'order': 'O-1'}))",
    "format_mismatch WrongShape": "return {'amount': 1.0, 'note': 'x' * 50_000_000}",
    "NotDeclared": "await ctx.tool('desk.pay', {'order': 'O-1', 'amount': 1.0})",
}


@pytest.mark.parametrize(("reason", "body"), list(AGENTS.items()))
def test_an_agent_that_misbehaves_is_escalated_with_its_place_and_the_command_ends(
    desk: Path, reason: str, body: str
) -> None:
    code = f"async def judge(ctx, input):\n    {body}\n"
    within = "1s" if reason == "AgentHung" else "5m"  # a busy machine hangs no agent
    make(desk, **{"agents__shop.py": code, "agents__judge": FILES["agents/judge.yaml"] + f"within: {within}\n"})
    done = cli(desk, "run", "pay", "--data", ONE, "--json")
    assert done.returncode == 3
    [run] = json.loads(done.stdout)["runs"]
    assert run["state"] == "escalated"
    assert run["reason"] in reason.split()
    shown = answer(desk, "runs", "show", run["run"])
    assert "judge" in shown["package"]["what_happened"] or reason == "data_missing"
    assert outside(desk) == []


# --- disks --------------------------------------------------------------------------------------------


def bounded(size: int) -> Callable[[], None]:
    """A process whose files may not grow beyond so many bytes: a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def unprivileged() -> None:
    """Even root has to mind the modes of files from here on (prctl(2): PR_CAPBSET_DROP of the two CAP_DAC_*)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)


def limited(folder: Path, before: Callable[[], None], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
        preexec_fn=before,
        check=False,
    )


def test_a_full_disk_ends_the_batch_clearly_and_resume_continues(desk: Path) -> None:
    good = [{"id": n, "order": f"O-{n}", "amount": 1.0} for n in range(400)]
    name = lines(desk, good)
    full = limited(desk, bounded(700_000), "run", "pay", "--input", name, "--json")
    assert full.returncode == 1, full.stdout
    assert "Traceback" not in full.stderr
    told = json.loads(full.stdout)
    assert told["error"]["error"] == "StoreFull", told["error"]
    assert len(told["runs"]) < 400
    resumed = cli(desk, "runs", "resume", "--all", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert answer(desk, "run", "pay", "--input", name)["summary"]["states"] == {"completed": 400}
    assert sorted(outside(desk)) == sorted(f"pay O-{n}" for n in range(400))


def test_a_read_only_store_says_so(desk: Path) -> None:
    answer(desk, "run", "pay", "--data", ONE)
    store = desk / ".tightship"
    modes = {path: path.stat().st_mode for path in [*store.rglob("*"), store]}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        done = limited(
            desk, unprivileged, "run", "pay", "--data", json.dumps({"order": "O-2", "amount": 1.0}), "--json"
        )
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.returncode == 1
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["error"] == "StoreReadOnly"
    assert ".tightship" in told["where"]
    assert told["fix"]
    assert outside(desk) == ["pay O-1"]
    assert answer(desk, "runs", "list")


def test_a_store_that_may_only_be_read_can_be_looked_at_and_not_a_byte_of_it_changes(desk: Path) -> None:
    run = answer(desk, "run", "pay", "--data", ONE)["runs"][0]["run"]
    store = desk / ".tightship"
    modes = {path: path.stat().st_mode for path in [*store.rglob("*"), store]}
    looks = [("runs", "list"), ("runs", "show", run), ("runs", "why", run), ("costs",), ("costs", "--run", run)]
    looks += [("inbox", "list"), ("halt", "--list"), ("audit", "verify")]
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    try:
        done = {look: limited(desk, unprivileged, *look, "--json") for look in looks}
        halted = limited(desk, unprivileged, "halt", "all", "--yes", "--json")
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert json.loads(done["audit", "verify"].stdout)["findings"] == []
    assert {look: (one.returncode, one.stderr) for look, one in done.items()} == {look: (0, "") for look in looks}
    assert json.loads(done["runs", "list"].stdout)[0]["id"] == run
    assert json.loads(halted.stderr.splitlines()[-1])["error"] == "StoreReadOnly"
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_written_gets_no_half_workspace(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    try:
        done = limited(tmp_path, unprivileged, "init", str(locked / "desk"), "--json")
    finally:
        locked.chmod(0o755)
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"] == "WorkspaceError"
    assert os.listdir(locked) == []
