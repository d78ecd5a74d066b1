"""`tightship drift`: a baseline, a change of code, and what is told of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from test_cli_commands import Line

from cli_desk import FILES, lines, make

Capture = pytest.CaptureFixture[str]
WITH_AUDIT = FILES["agents/judge.yaml"] + "audit: {by: second-look, sample: 3}\n"
LOOK = """\
workflow: second-look
owner: quality
purpose: look at what the judge said
input: {agent: str, run: str, given: object, output: object}
budget: {seconds: 60, then: escalate}
escalate_to: lead
steps: [look]
"""
LOOKER = """\
agent: look
owner: quality
purpose: compare amounts
python: looker:look
input: {given: object, output: object}
output: {ok: bool}
"""
LOOK_CODE = 'async def look(ctx, input):\n    return {"ok": input["given"]["amount"] == input["output"]["amount"]}\n'


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Line:
    more = {"workflows__second_look": LOOK, "agents__look": LOOKER, "agents__looker.py": LOOK_CODE}
    monkeypatch.chdir(make(tmp_path / "shop", agents__judge=WITH_AUDIT, **more))
    return Line(tmp_path / "shop", capsys)


def batch(line: Line, first: int, count: int) -> None:
    orders = [{"order": f"O-{number}", "amount": 10.0 + number % 7} for number in range(first, first + count)]
    line.json("run", "pay", "--input", lines(line.folder, orders, f"orders-{first}.jsonl"))


def test_a_change_of_behaviour_is_told_with_its_evidence_and_ends_with_1(line: Line) -> None:
    batch(line, 100, 16)
    assert "name an agent" in line.text("drift", "baseline", code=2)
    assert line.json("drift", "baseline", "judge", "--by", "ann")["by"] == "ann"
    assert "are needed" in line.text("drift", "check", "--fewest", "8")
    batch(line, 116, 16)
    same = line.json("drift", "check", "--fewest", "8")
    assert [one["drifted"] for one in same["checks"]] == [[]] and same["checks"][0]["recent"] == 16
    line.json("drift", "baseline", "judge", "--by", "ann")
    code = line.folder / "agents" / "shop.py"
    code.write_text(code.read_text().replace('"note": seen}', '"note": seen + " and everything is in order"}'))
    batch(line, 132, 16)
    [found] = line.json("drift", "check", "agent:judge", "--fewest", "8", code=1)["checks"]
    assert [one["feature"] for one in found["drifted"]] == ["length of output.note"]
    assert found["drifted"][0]["runs"]
    told = line.text("drift", "check", "--fewest", "8", code=1)
    assert "1 drifted" in told and "length of output.note" in told
    assert 'tightship_drifted_features{subject="agent:judge"} 1' in line.text("metrics")
    assert "no baseline of 'agent:nobody'" in line.text("drift", "check", "agent:nobody", code=1)


def test_canaries_models_facts_and_audits(line: Line) -> None:
    line.pay("O-1", 10.0)
    canary = line.text("drift", "canary").strip()
    run = line.pay(f"O-{canary}", 20.0)
    report = line.json("drift", "leaks")
    assert report["leaks"] == [] and list(report["canaries"].values()) == [run["run"]]
    assert "no model has answered" in line.text("drift", "models")
    kept = {one["agent"]: one["kept"] for one in line.json("drift", "facts", run["run"])}
    assert kept == {"judge": ["amount", "order"]}
    assert "nothing was audited" in line.text("drift", "audit")
    begun = line.json("drift", "audit", "judge", "--by", "ann")["runs"]
    assert len(begun) == 2
    line.json("runs", "resume", "--all")
    assert line.json("drift", "audit") == {"judge": {"ok": 2}}
    assert 'tightship_audited_outputs{agent="judge",result="ok"} 2' in line.text("metrics")
    assert json.loads(json.dumps(report))["runs"] == 2
