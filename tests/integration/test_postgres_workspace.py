"""A workspace whose store is a Postgres URL: the same commands, the same files, from any number of processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import postgres_desk
from cli_desk import FILES, answer, cli, event, interrupt, make, outside, serving, wrong
from tightship.cli import main
from tightship.runtime import crew
from tightship.runtime.scaling import Policy

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
        closed = answer(desk, "inbox", "approve", item["item"], "--by", "ann", "--reason", "it is due")
        assert (closed["executor"], closed["workers"]) == (None, 1), "whoever decides hears that somebody goes on"
        assert event(server, "run", run=item["run"])["state"] == "completed"
        assert interrupt(server)[0] == 0
    assert outside(desk) == ["pay O-2", "pay O-1"]
    assert answer(desk, "audit", "verify")["ok"]
    assert not (desk / ".tightship" / "ledger.db").exists()


def test_whoever_may_only_select_looks_at_everything_and_changes_nothing(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = answer(desk, "run", "pay", "--data", pay("O-1", 500.0))["runs"][0]["run"]
    url = os.environ["SHOP_STORE"]
    schema = url.rpartition("schema=")[2]
    with postgres_desk.server().connect() as db:
        db.execute("CREATE ROLE auditor LOGIN")
        for name in (schema, f"{schema}_keys"):
            db.execute(f"GRANT USAGE ON SCHEMA {name} TO auditor".encode())
            db.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO auditor".encode())
    commands = [("runs", "list"), ("runs", "show", run), ("runs", "why", run), ("runs", "steps", run), ("costs",)]
    commands += [("audit", "verify"), ("metrics",), ("inbox", "list"), ("context", "list"), ("context", "stats")]
    try:
        before = answer(desk, "runs", "list")
        monkeypatch.setenv("SHOP_STORE", url.replace("postgres:@", "auditor@"))
        for command in commands:
            answer(desk, *command)
        assert answer(desk, "runs", "list") == before
        for command in (("runs", "cancel", run, "--by", "ann"), ("run", "pay", "--data", pay("O-2"))):
            refused = wrong(desk, *command)
            assert refused["error"] == "StoreReadOnly" and "may not do that" in refused["message"], refused
    finally:
        with postgres_desk.server().connect() as db:
            db.execute("DROP OWNED BY auditor")
            db.execute("DROP ROLE auditor")
    assert not outside(desk)


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


def test_the_commands_that_stop_and_take_over_know_whether_workers_live(desk: Path) -> None:
    run = answer(desk, "run", "pay", "--data", pay("O-1", 500.0))["runs"][0]["run"]

    def said(*command: str) -> str:
        done = cli(desk, *command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said("runs", "take", run, "--by", "ann")
    assert "no process executes here" in said("runs", "give", run, "--by", "ann")
    with serving(desk) as server:
        event(server, "run", run=run)
        said("runs", "take", run, "--by", "ann")
        assert "the one worker: it goes on" in said("runs", "give", run, "--by", "ann")
        assert "the one worker stops it now" in said("halt", f"run:{run}", "--yes", "--by", "ann")
        interrupt(server)


def test_workers_are_added_before_those_that_there_are_have_no_room(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(desk, "run", "pay", "--data", pay("O-1"), "--detach")
    given: list[Policy] = []

    async def supervise(*_: object, policy: Policy, **__: object) -> None:
        given.append(policy)

    monkeypatch.setattr(crew, "supervise", supervise)
    for options in ((), ("-c", "10"), ("-c", "1")):
        assert main(["worker", "--min", "1", "--max", "4", *options, "-w", str(desk)]) == 0, capsys.readouterr().err
    assert [policy.runs for policy in given] == [32, 5, 1], (
        "half of what each may drive at once, as docs/scale.md has it"
    )


def test_a_store_may_leave_the_server_to_the_environment(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everything in `deploy/` does: `store: postgresql:///`, and PGHOST, PGUSER, PGDATABASE beside it."""
    url = urlsplit(postgres_desk.new_store())
    schema, host = (parse_qs(url.query)[name][0] for name in ("schema", "host"))
    for name, value in (("PGHOST", host), ("PGUSER", "postgres"), ("PGDATABASE", "postgres")):
        monkeypatch.setenv(name, value)
    (desk / "tightship.yaml").write_text(CONFIG + f"store: postgresql:///?schema={schema}\n")
    answer(desk, "run", "pay", "--data", pay("O-1"), "--detach")
    with serving(desk) as server:
        assert event(server, "run")["state"] == "completed"
        interrupt(server)
    assert outside(desk) == ["pay O-1"]


def test_a_store_that_is_named_wrongly_is_refused_in_words_of_ours(desk: Path) -> None:
    (desk / "tightship.yaml").write_text(CONFIG)
    answer(desk, "run", "pay", "--data", pay("O-1"), "--detach")
    for target, said in (
        ("mysql://shop:hunter2@db/shop", "no store of the kind 'mysql'"),
        ("sqlite:", "does not begin with a kind of store"),
        ("host=db port=1 password=hunter2 options=a:b", "does not begin with a kind of store"),
        ("postgresql://shop:hunter2@db/shop?sslmde=require", "no option 'sslmde'"),
        ("postgresql://shop:hun?ter2=x@db/shop", "cannot be read"),
    ):
        error = wrong(desk, "store", "copy", "sqlite:.tightship", target)
        assert said in error["message"]
        assert error["error"] in ("StoreMissing", "StoreError")
        assert not any(part in json.dumps(error) for part in ("hun", "ter2")), "a password may stand in any of it"


def test_what_is_wrong_with_the_url_is_said_without_the_password(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_STORE", "postgresql://shop:hunter2@127.0.0.1:1/shop")
    error = wrong(desk, "runs", "list")
    assert (error["error"], error["where"]) == ("StoreLost", "postgresql://127.0.0.1/shop")
    monkeypatch.delenv("SHOP_STORE")
    missing = wrong(desk, "runs", "list")
    assert "SHOP_STORE" in missing["message"]
    assert "hunter2" not in json.dumps([error, missing])
