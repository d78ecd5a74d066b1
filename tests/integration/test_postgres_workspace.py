"""A workspace whose store is a Postgres URL: the same commands, the same files, from any number of processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import postgres_desk
from cli_desk import FILES, answer, event, interrupt, make, outside, serving, wrong

CONFIG = FILES["tightship.yaml"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_STORE", postgres_desk.new_store())
    return make(tmp_path / "shop", tightship=CONFIG + "store: ${SHOP_STORE}\n")


def pay(order: str, amount: float = 10.0) -> str:
    return json.dumps({"order": order, "amount": amount})


def test_a_decision_of_another_process_moves_a_run_on_and_many_processes_execute(desk: Path) -> None:
    assert "nothing has been run" in wrong(desk, "runs", "list")["message"]
    parked = answer(desk, "run", "pay", "--data", pay("O-1", 500.0))
    assert parked["summary"]["states"] == {"waiting": 1}
    [item] = answer(desk, "inbox", "list")
    with serving(desk) as server:
        beside = answer(desk, "run", "pay", "--data", pay("O-2"))
        assert beside["summary"]["states"] == {"completed": 1}
        answer(desk, "inbox", "approve", item["item"], "--by", "ann", "--reason", "it is due")
        assert event(server, "run", run=item["run"])["state"] == "completed"
        assert interrupt(server)[0] == 0
    assert outside(desk) == ["pay O-2", "pay O-1"]
    assert answer(desk, "audit", "verify")["ok"]
    assert not (desk / ".tightship" / "ledger.db").exists()


def test_a_folder_is_copied_into_the_database_and_work_goes_on_there(desk: Path) -> None:
    (desk / "tightship.yaml").write_text(CONFIG)
    answer(desk, "run", "pay", "--data", pay("O-1", 500.0))
    before = answer(desk, "runs", "list")
    copied = answer(desk, "store", "copy", "sqlite:.tightship", "${SHOP_STORE}")
    assert copied["checked"] == sum(copied["logs"].values()) > 0
    assert "not empty" in wrong(desk, "store", "copy", "sqlite:.tightship", "${SHOP_STORE}")["message"]
    (desk / "tightship.yaml").write_text(CONFIG + "store: ${SHOP_STORE}\n")
    assert answer(desk, "runs", "list") == before
    [item] = answer(desk, "inbox", "list")
    answer(desk, "inbox", "approve", item["item"], "--by", "ann")
    answer(desk, "runs", "resume", "--all")
    assert outside(desk) == ["pay O-1"]
    assert answer(desk, "audit", "verify")["ok"]


def test_what_is_wrong_with_the_url_is_said_without_the_password(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_STORE", "postgresql://shop:hunter2@127.0.0.1:1/shop")
    error = wrong(desk, "runs", "list")
    assert (error["error"], error["where"]) == ("StoreLost", "postgresql://127.0.0.1/shop")
    monkeypatch.delenv("SHOP_STORE")
    missing = wrong(desk, "runs", "list")
    assert "SHOP_STORE" in missing["message"]
    assert "hunter2" not in json.dumps([error, missing])
