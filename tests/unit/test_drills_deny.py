"""A drill reaches nothing outside, changes nothing of the workspace, and says what came of it to people and machines."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import orjson
import pytest

from drill_desk import UNCHECKED, NoCompany, bench, write_shop
from tightship.cli import main
from tightship.core.errors import OutsideReached, UnknownName, WorkspaceError
from tightship.ledger import Ledger
from tightship.quality.drills import carry_out, drill_workspace, load_drills
from tightship.quality.drills.bench import scratch_copy
from tightship.quality.drills.junit import junit
from tightship.quality.drills.registry import Verdict
from tightship.quality.drills.scene import Scene, play
from tightship.quality.drills.seal import sealed


def test_while_it_is_sealed_a_process_reaches_nothing(tmp_path: Path) -> None:
    elsewhere = Path("/never-written")
    with sealed(tmp_path):
        (tmp_path / "fine").write_text("here")
        with socket.socket() as one, pytest.raises(OutsideReached):
            one.connect(("127.0.0.1", 9))
        with pytest.raises(OutsideReached):
            socket.getaddrinfo("example.com", 80)
        with pytest.raises(OutsideReached):
            subprocess.run(["true"], check=False)
        with pytest.raises(OutsideReached):
            os.system("true")
        with pytest.raises(OutsideReached):
            elsewhere.write_text("there")
        with pytest.raises(OutsideReached):
            os.remove(elsewhere)
    subprocess.run(["true"], check=True)
    assert not elsewhere.exists()


def test_an_agent_that_goes_past_its_tools_is_stopped_and_told(tmp_path: Path) -> None:
    reach = (
        "agents/desk.py",
        "async def look(ctx, input):\n",
        "async def look(ctx, input):\n    import socket\n    socket.create_connection(('127.0.0.1', 9))\n",
    )
    shop = bench(tmp_path, reach)
    clean = shop.lively(1)[0]
    assert clean.outcome == "escalated"
    assert clean.reason == "OutsideReached"


def test_tools_of_the_workspace_are_never_called(tmp_path: Path) -> None:
    shop = bench(tmp_path)
    assert [clean.outcome for clean in shop.lively()] == ["completed"]
    assert not (shop.folder / "tools").exists()


def test_a_scratch_copy_has_no_store_and_no_secrets(tmp_path: Path) -> None:
    source = write_shop(tmp_path / "shop")
    for name in (".secrets", ".env", "company.db"):
        (source / name).write_text("secret")
    (source / ".tightship").mkdir()
    (source / ".tightship" / "ledger.db").write_text("real")
    copy = scratch_copy(source, tmp_path / "copy")
    assert sorted(path.name for path in copy.iterdir()) == [
        "agents",
        "cases.jsonl",
        "tightship.yaml",
        "tools",
        "workflows",
    ]


def test_a_contract_that_would_have_to_be_fetched_is_refused(tmp_path: Path) -> None:
    connector = "name: shop\nconnectors: {crm: {openapi: 'https://crm.example/openapi.json'}}\n"
    changes = (
        ("tightship.yaml", "name: shop\n", connector),
        ("agents/look.yaml", "tools: [shop.order]", "tools: [shop.order, crm.find]"),
    )
    with pytest.raises(WorkspaceError, match="fetches no contract"):
        bench(tmp_path, *changes)


def test_a_day_passes_without_looking_for_what_nobody_else_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, looked = bench(tmp_path), list[int]()
    real = Ledger.poll

    async def poll(self: Ledger) -> None:
        looked.append(1)
        await real(self)

    monkeypatch.setattr(Ledger, "poll", poll)

    async def story(scene: Scene) -> str:
        run = await scene.run(shop.cases[0])
        await scene.world.clock.sleep(86_400)
        return run.outcome

    assert play(shop, story) == "completed"
    assert len(looked) < 10


def test_cases_are_made_where_there_is_no_file(tmp_path: Path) -> None:
    shop = bench(tmp_path, ("cases.jsonl", '{"id": "O-1"}\n{"id": "O-2"}\n', ""))
    assert len(shop.cases) == 3
    assert all(set(case.input) == {"id"} for case in shop.cases)


def test_a_drill_that_breaks_has_not_held(tmp_path: Path) -> None:
    shop = bench(tmp_path)
    before = load_drills()["race"]

    def breaks(*_: object) -> None:
        raise UnknownName("the drill itself went wrong")

    verdict = carry_out(type(before)("race", before.broken, before.fix, breaks, before.applies), shop)
    assert verdict.state == "did not hold"
    assert "went wrong" in verdict.problems[0]


def test_a_drill_that_has_looked_at_nothing_has_not_held(tmp_path: Path) -> None:
    before = load_drills()["race"]
    verdict = carry_out(type(before)("race", "", "", lambda *_: None, before.applies), bench(tmp_path))
    assert verdict.state == "does not apply"


def test_a_drill_of_another_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="rase"):
        list(drill_workspace(write_shop(tmp_path), practice=NoCompany, only=["rase"]))


# --- what is told -----------------------------------------------------------------------------------


def test_the_workspace_is_as_it_was(tmp_path: Path) -> None:
    source = write_shop(tmp_path)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert [one.state for one in drill_workspace(source, practice=NoCompany, only=["race"])] == ["held"]
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_the_command_exits_with_one_when_something_did_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, report = write_shop(tmp_path / "shop", *UNCHECKED), tmp_path / "drill.xml"
    only = ["--only", "race", "--only", "drifted-agent", "--only", "slow-stream"]
    assert main(["drill", "refund", "-w", str(source), "--json", "--junit", str(report), *only]) == 1
    told = orjson.loads(capsys.readouterr().out)
    assert told["counts"] == {"held": 1, "did not hold": 1, "does not apply": 1}
    drifted = next(one for one in told["drills"] if one["drill"] == "drifted-agent")
    assert drifted["fix"] and drifted["evidence"][0].startswith("#")
    suite = ElementTree.fromstring(report.read_bytes())[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert main(["drill", "refund", "-w", str(source), "--only", "race"]) == 0
    assert "1 held, 0 did not" in capsys.readouterr().out


def test_all_drills_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "--list", "--json"]) == 0
    assert [one["drill"] for one in orjson.loads(capsys.readouterr().out)] == list(load_drills())


def test_a_report_holds_no_character_that_xml_refuses() -> None:
    verdict = Verdict("flow", "race", "b", "did not hold", [], ["a\x00b\x1b[31m\ufffe"], [], "fix")
    ElementTree.fromstring(junit([verdict]))
