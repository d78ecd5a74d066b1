"""`audit` on real stores: what was changed is found and located; proofs and exports stand without the store."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli_desk import answer, cli, lines, make, process, serving, until, wrong


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    made = make(tmp_path / "shop")
    orders = [{"id": n, "order": f"O-{n}", "amount": 1.0 if n % 5 else 500.0} for n in range(20)]
    answer(made, "run", "pay", "--input", lines(made, orders))
    return made


def store(desk: Path) -> Path:
    """The ledger's file, with everything in it."""
    path = desk / ".tightship" / "ledger.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return path


def test_a_sound_store_verifies(desk: Path) -> None:
    report = answer(desk, "audit", "verify")
    assert report["ok"]
    assert report["entries"] > 100
    assert report["uncovered"] == 0
    assert "the store is what was written" in cli(desk, "audit", "verify").stdout


def places(path: Path) -> list[tuple[str, int, int]]:
    """Where values of each table lie in the file: table, first byte, length."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    columns = {"entries": "data", "payloads": "data", "checkpoints": "note", "tiles": "data", "runs": "id"}
    whole, found = path.read_bytes(), list[tuple[str, int, int]]()
    for table, column in columns.items():
        for (value,) in db.execute(f"SELECT {column} FROM {table} ORDER BY random() LIMIT 3"):
            data = value.encode() if isinstance(value, str) else value
            at = whole.find(data)
            if data and at >= 0:  # a value that goes on in another page is not found whole
                found.append((table, at, len(data)))
    db.close()
    return found


def test_a_flipped_byte_is_found_and_located_wherever_it_is(desk: Path) -> None:
    path = store(desk)
    sound = path.read_bytes()
    chance = random.Random()
    chosen = places(path)
    assert {table for table, _, _ in chosen} >= {"entries", "payloads", "checkpoints", "runs"}
    for table, start, length in chance.sample(chosen, 8):
        at = start + chance.randrange(length)
        damaged = bytearray(sound)
        damaged[at] ^= 1 << chance.randrange(7)
        path.write_bytes(damaged)
        done = cli(desk, "audit", "verify", "--json")
        assert "Traceback" not in done.stderr
        assert done.returncode == 1, f"{table}: byte {at} of {len(sound)}"
        if done.stdout:
            [finding, *_] = json.loads(done.stdout)["findings"]
            assert finding["file"]
            assert finding["place"]
        else:
            assert json.loads(done.stderr)["where"]
    path.write_bytes(sound)
    assert answer(desk, "audit", "verify")["ok"]


def test_a_changed_entry_is_named_by_its_position(desk: Path) -> None:
    db = sqlite3.connect(desk / ".tightship" / "ledger.db")
    (row, data), *_ = db.execute("SELECT id, data FROM entries WHERE data LIKE '%run.ended%' LIMIT 1").fetchall()
    db.execute("UPDATE entries SET data = ? WHERE id = ?", (data.replace("completed", "escalated"), row))
    db.commit()
    db.close()
    done = cli(desk, "audit", "verify")
    assert done.returncode == 1
    n = json.loads(data)["n"]
    assert f"{n}" in done.stdout
    assert "not what was written" in done.stdout


def test_a_store_whose_last_entry_is_gone_is_not_worked_on(desk: Path) -> None:
    db = sqlite3.connect(desk / ".tightship" / "ledger.db")
    db.execute("DELETE FROM entries WHERE id = (SELECT max(id) FROM entries)")
    db.commit()
    db.close()
    for args in (("run", "pay", "--data", '{"order": "O-99", "amount": 1.0}'), ("runs", "resume", "--all"), ("serve",)):
        told = wrong(desk, *args)
        assert told["error"] == "StoreCorrupt"
        assert "audit verify" in told["fix"]
    done = cli(desk, "audit", "verify")
    assert (done.returncode, "not what was written" in done.stdout) == (1, True)


def test_verify_works_beside_a_process_that_executes(desk: Path) -> None:
    with serving(desk), process(desk, "runs", "watch", "--json"):
        [item, *_] = answer(desk, "inbox", "list")
        answer(desk, "inbox", "approve", item["item"], "--by", "ann")
        done = until(lambda: answer(desk, "runs", "show", item["run"])["summary"]["outcome"], "the end of the run")
        assert done == "completed"
        assert answer(desk, "audit", "verify")["ok"]


def test_a_proof_and_an_export_are_files_of_their_own(desk: Path, tmp_path: Path) -> None:
    proof = answer(desk, "audit", "prove", "3", "--out", str(tmp_path / "proof"))["proof"]
    assert (tmp_path / "proof").read_text() == proof
    assert proof.startswith("c2sp.org/tlog-proof@v1\n")
    told = wrong(desk, "audit", "prove", "999999")
    assert told["error"] == "UnknownName"
    report = answer(desk, "audit", "export", str(tmp_path / "out"))
    written = (tmp_path / "out" / "default.jsonl").read_text().splitlines()
    assert len(written) == report["logs"]["default"]
    assert json.loads(written[2])["n"] == 3
    assert "O-1" not in (tmp_path / "out" / "default.jsonl").read_text()
    assert answer(desk, "audit", "export", str(tmp_path / "open"), "--plain")["values"] > 0
    assert "O-1" in (tmp_path / "open" / "default.jsonl").read_text()


def test_rebuild_gives_the_same_tables(desk: Path) -> None:
    before = answer(desk, "runs", "list"), answer(desk, "inbox", "list"), answer(desk, "costs", "--by", "agent")
    rows = answer(desk, "audit", "rebuild")["tables"]
    assert rows["runs"] == 20
    assert (
        answer(desk, "runs", "list"),
        answer(desk, "inbox", "list"),
        answer(desk, "costs", "--by", "agent"),
    ) == before
