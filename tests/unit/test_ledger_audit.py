"""The audit: what somebody has changed with care is found too."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import Store, fill, flip, note
from store_desk import BASE, covered_ledger, one, rewrite, sql, store_of
from tightship.ledger import Draft, Ledger
from tightship.ledger.audit import AuditReport, verify
from tightship.ledger.bundles import WIDTH, bundle_crc, pack, unpack
from tightship.ledger.entries import entry_crc, log_crc, payload_crc
from tightship.ledger.findings import MAX_FINDINGS
from tightship.ledger.merkle.checkpoint import Checkpoint, sign_checkpoint
from tightship.ledger.merkle.tree import leaf_hash, tree_root
from tightship.ledger.sequencer import PUBLIC_KEYS, Sequencer, signer_of

store = store_of("sqlite")
ledger = covered_ledger()


def said(report: AuditReport) -> list[str]:
    return [str(found) for found in report.findings]


# --- reports -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_a_whole_store_is_found_whole_and_everything_was_counted(kind: str, tmp_path: Path) -> None:
    store = Store(kind, tmp_path)
    ledger = await store.open()
    await fill(ledger)
    entries = await ledger.head() + await ledger.head("acme & sons")
    first = await verify(ledger)
    assert first.ok, said(first)
    assert (first.entries, first.uncovered, first.integrated) == (entries, entries, True)
    second = await verify(ledger)
    assert second.ok, said(second)
    assert (second.uncovered, second.integrated, second.checkpoints) == (0, False, 2)
    assert (
        second.logs
        == second.covered
        == {"default": await ledger.head(), "acme & sons": await ledger.head("acme & sons")}
    )
    assert second.files == 1
    assert second.erased > 0
    assert second.keys > 24
    assert second.rows > 24
    assert json.loads(json.dumps(second.as_dict()))["ok"] is True
    await store.close()


async def test_an_empty_store_is_whole(store: Store) -> None:
    report = await verify(await store.open())
    assert (report.ok, report.entries, report.integrated) == (True, 0, False)


async def test_progress_tells_what_is_done(ledger: Ledger) -> None:
    steps: list[tuple[str, int, int]] = []
    await verify(ledger, lambda *step: steps.append(step))
    assert ("entries", 2 * WIDTH + 20, 2 * WIDTH + 20) in steps
    assert {stage for stage, _, _ in steps} >= {"structure", "entries", "payloads", "projections", "keys"}
    assert all(done <= total for _, done, total in steps if total)


async def test_it_checks_one_moment_while_others_go_on_appending(store: Store) -> None:
    ours, theirs = await store.open(), await store.open()
    sequencer = Sequencer(theirs)
    stop = asyncio.Event()

    async def busy() -> None:
        n = 0
        while not stop.is_set():
            await theirs.append(Draft(f"r-{n}", "run.started", "", {"workflow": "w"}, 1))
            n += 1
            if n % 100 == 0:
                await sequencer.close()

    task = asyncio.ensure_future(busy())
    for _ in range(12):
        report = await verify(ours, integrate=False)
        assert report.ok, said(report)
    stop.set()
    await task


async def test_findings_are_bounded_and_counted(ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.append(note(n=n)) for n in range(1200)))
    await sql(ledger, "UPDATE entries SET run = 'x'")
    report = await verify(ledger)
    assert len(report.findings) == MAX_FINDINGS
    assert report.found >= 1220


# --- entries, bundles, tiles, checkpoints ----------------------------------------------------------------


async def test_a_forged_entry_is_found_by_the_tree(ledger: Ledger) -> None:
    await rewrite(ledger, 520, lambda data: data.replace('"n":519', '"n":999'))
    report = await verify(ledger)
    assert said(report) == [
        "ledger.db: log 'default', entry 520: entry 520 is not what was signed",
        f"ledger.db: checkpoints, row (1, {2 * WIDTH + 20}): the entries up to it do not have the root that was signed",
    ]


async def test_a_forged_entry_in_a_bundle_is_found_by_the_tree(ledger: Ledger) -> None:
    first = BASE | 1
    entries = unpack(first, one(ledger, "SELECT data FROM bundles WHERE id = ?", first)[0])
    entries[9] = entries[9].replace(b'"n":9}', b'"n":7}')
    data = pack(entries)
    crc = bundle_crc(log_crc("default"), first, data)
    await sql(ledger, "UPDATE bundles SET data = ?, crc = ? WHERE id = ?", data, crc, first)
    assert said(await verify(ledger))[0] == "ledger.db: log 'default', entry 10: entry 10 is not what was signed"


async def test_a_bundle_that_says_the_same_in_other_bytes_is_found(ledger: Ledger) -> None:
    import zlib

    first = BASE | 1
    [data] = one(ledger, "SELECT data FROM bundles WHERE id = ?", first)
    plain = zlib.decompress(data, wbits=-15)
    await sql(ledger, "UPDATE bundles SET data = ? WHERE id = ?", zlib.compress(plain, 1, wbits=-15), first)
    assert said(await verify(ledger)) == [
        f"ledger.db: bundles, row {first}: the bundle of entries 1 to 256 is not what was written: "
        "its checksum does not hold"
    ]


async def test_a_bundle_that_is_gone_is_found(ledger: Ledger) -> None:
    await sql(ledger, "DELETE FROM bundles WHERE id = ?", BASE | 257)
    assert "ledger.db: log 'default', entry 257: entry 257 to 512 of log 'default' is missing" in said(
        await verify(ledger)
    )


async def test_entries_that_are_gone_are_found(ledger: Ledger) -> None:
    await sql(ledger, "DELETE FROM entries WHERE id IN (?, ?, ?)", BASE | 515, BASE | 516, BASE | 532)
    lines = said(await verify(ledger))
    assert "ledger.db: log 'default', entry 515: entry 515 to 516 of log 'default' is missing" in lines
    assert "ledger.db: logs, row 1, column head: says 532, there are 531 entries" in lines


async def test_an_entry_that_stands_twice_is_found(ledger: Ledger) -> None:
    [data] = one(ledger, "SELECT data FROM entries WHERE id = ?", BASE | 520)
    await sql(ledger, "INSERT INTO entries VALUES (?, 'r', ?, 1)", BASE | 77, data)
    assert any("entry 77 of log 'default' stands twice" in line for line in said(await verify(ledger)))


async def test_an_entry_of_no_log_is_found(ledger: Ledger) -> None:
    await sql(ledger, "INSERT INTO entries VALUES (?, 'r', '{}', 1)", 7 << 40 | 3)
    await sql(ledger, "INSERT INTO tiles VALUES (9, 0, 0, x'00')")
    lines = said(await verify(ledger))
    assert "ledger.db: entries of log 7: there is no log of that id" in lines
    assert "ledger.db: tiles, log 9: there is no log of that id" in lines


async def test_a_run_column_that_is_not_the_entrys_is_found(ledger: Ledger) -> None:
    [data] = one(ledger, "SELECT data FROM entries WHERE id = ?", BASE | 520)
    crc = entry_crc(log_crc("default"), b"r-other", data.encode())
    await sql(ledger, "UPDATE entries SET run = 'r-other', crc = ? WHERE id = ?", crc, BASE | 520)
    assert said(await verify(ledger)) == [
        f"ledger.db: entries, row {BASE | 520}, column run: holds 'r-other', the entry is of run 'r-4'"
    ]


async def test_store_time_that_goes_back_is_found(ledger: Ledger) -> None:
    await rewrite(ledger, 520, lambda data: data.replace('"at":17', '"at":16'))
    assert any("store time goes back" in line for line in said(await verify(ledger)))


async def test_a_renamed_log_is_found(ledger: Ledger) -> None:
    await sql(ledger, "UPDATE logs SET name = 'defaulu'")
    assert not (await verify(ledger)).ok


async def test_a_changed_hash_is_located_to_its_tile(ledger: Ledger) -> None:
    await sql(
        ledger,
        "UPDATE tiles SET data = CAST(zeroblob(32) || substr(data, 33) AS BLOB) WHERE level = 0 AND position = 1",
    )
    assert said(await verify(ledger)) == [
        "ledger.db: tiles, row (1, 0, 1): a stored hash is not what was signed (tile/0, tile 1, hash 0); "
        "the entries below it are"
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("DELETE FROM tiles WHERE level = 1", "tiles, row (1, 1, 0): is missing"),
        ("INSERT INTO tiles VALUES (1, 0, 7, zeroblob(32))", "no such tile belongs to the tree"),
        ("UPDATE tiles SET data = CAST(data || zeroblob(32) AS BLOB) WHERE position = 2", "it should have 640 bytes"),
        ("UPDATE tiles SET data = 'text' WHERE position = 2", "has None bytes"),
    ],
)
async def test_exactly_the_tiles_of_the_tree_are_there(ledger: Ledger, change: str, says: str) -> None:
    await sql(ledger, change)
    assert any(says in line for line in said(await verify(ledger)))


async def test_a_second_history_is_found_however_well_it_is_signed(ledger: Ledger) -> None:
    signer = signer_of(ledger, "tightship/default")
    leaves = [leaf_hash(b"another history %d" % n) for n in range(300)]
    forged = sign_checkpoint(Checkpoint(signer.name, 300, tree_root(leaves)), signer)
    await sql(ledger, "INSERT INTO checkpoints VALUES (1, 300, ?)", forged)
    assert said(await verify(ledger)) == [
        "ledger.db: checkpoints, row (1, 300): the entries up to it do not have the root that was signed"
    ]


async def test_a_log_that_was_cut_back_is_found_by_its_checkpoint(ledger: Ledger) -> None:
    await sql(ledger, "DELETE FROM entries WHERE id > ?", BASE | 525)
    await sql(ledger, "UPDATE logs SET head = 525")
    lines = said(await verify(ledger))
    assert "ledger.db: log 'default', entry 526: entries from 526 on were signed and are gone" in lines
    assert f"ledger.db: checkpoints, row (1, {2 * WIDTH + 20}): is over entries that are not there (525 are)" in lines


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE checkpoints SET note = replace(note, char(10), '')", "checkpoints, row (1, 532)"),
        ("UPDATE checkpoints SET note = 'x'", "checkpoints, row (1, 532)"),
        ("UPDATE checkpoints SET note = x'00'", "is no checkpoint"),
        ("UPDATE checkpoints SET size = 531", "is over 532 entries, its row says 531"),
        ("UPDATE checkpoints SET note = replace(note, 'tightship/default', 'tightship/b')", "does not hold the key"),
    ],
)
async def test_a_changed_checkpoint_is_found(ledger: Ledger, change: str, says: str) -> None:
    await sql(ledger, change)
    assert any(says in line for line in said(await verify(ledger)))


async def test_which_runs_a_bundle_holds_is_compared(ledger: Ledger) -> None:
    await sql(ledger, "DELETE FROM bundle_runs WHERE run = 'r-3' AND bundle = ?", BASE | 1)
    await sql(ledger, "INSERT INTO bundle_runs VALUES ('r-7', ?)", BASE | 257)
    assert said(await verify(ledger)) == [
        f"ledger.db: bundle_runs, row ['r-3', {BASE | 1}]: is missing",
        f"ledger.db: bundle_runs, row ['r-7', {BASE | 257}]: is not in the log",
    ]


# --- payloads ----------------------------------------------------------------------------------------


async def keep(ledger: Ledger, scope: str, value: Any) -> str:
    payload = ledger.seal(scope, value)
    draft = note(out=payload.address)
    draft.payloads = (payload,)
    await ledger.append(draft)
    return payload.address


async def test_a_forged_payload_does_not_open(ledger: Ledger) -> None:
    scope = ledger.vault.new_scope("r-1")
    address = await keep(ledger, scope, {"amount": 10})
    other = ledger.vault.seal(ledger.vault.new_scope("r-2"), b'{"amount":99}')
    assert other.data is not None
    crc = payload_crc(bytes.fromhex(address), scope, other.data)
    await sql(ledger, "UPDATE payloads SET data = ?, crc = ?", other.data, crc)
    assert said(await verify(ledger)) == [
        f"ledger.db: payloads, row 1: payload {address} was changed: its seal does not open"
    ]


async def test_a_flip_in_what_was_erased_is_found_without_its_key(ledger: Ledger) -> None:
    scope = ledger.vault.scope([ledger.vault.keyring.subject("default", "ann")])
    address = await keep(ledger, scope, {"amount": 10})
    await ledger.erase("default", "ann", "dpo")
    report = await verify(ledger)
    assert (report.ok, report.erased) == (True, 1)
    await sql(ledger, "UPDATE payloads SET data = CAST(substr(data, 1, 3) || x'00' || substr(data, 5) AS BLOB)")
    assert said(await verify(ledger)) == [
        f"ledger.db: payloads, row 1: payload {address} is not what was written: its checksum does not hold"
    ]


async def test_an_address_that_an_entry_names_and_nobody_stored_is_found(ledger: Ledger) -> None:
    missing = "ab" * 32
    await ledger.append(note(out=missing))
    await ledger.append(Draft("", "signal", "", {"type": "answer", "value": missing}))
    await ledger.append(Draft("", "signal", "", {"type": "child", "actions": [{"args": missing}]}))
    assert said(await verify(ledger)) == [
        f"ledger.db: log 'default', entry 533: names payload {missing}, which is not there"
    ]


async def test_a_payload_without_its_key_is_found(store: Store, ledger: Ledger) -> None:
    address = await keep(ledger, ledger.vault.new_scope("r-1"), {"amount": 10})
    await store.close()
    with closing(sqlite3.connect(store.folder / "store/keys/keys.db")) as db, db:
        db.execute("DELETE FROM keys WHERE name = 'r-1'")
    report = await verify(await store.open())
    assert said(report) == ["ledger.db: payloads, row 1: the keystore holds no key 'r-1'"]
    assert address


# --- keys --------------------------------------------------------------------------------------------


async def keys(store: Store, statement: str, *values: Any) -> AuditReport:
    await store.close()
    with closing(sqlite3.connect(store.folder / "store/keys/keys.db")) as db, db:
        db.execute(statement, values)
    return await verify(await store.open())


async def test_a_key_that_was_destroyed_without_a_word_is_found(store: Store, ledger: Ledger) -> None:
    ledger.vault.keyring.key("tenant:a", create=True)
    await ledger.append(note())
    report = await keys(store, "UPDATE keys SET wrapped = x'', created = 0 WHERE name = 'tenant:a'")
    assert said(report) == ["keys/keys.db: keys, row 'tenant:a': was destroyed, and the log says nothing of it"]


async def test_an_erasure_that_was_not_carried_out_is_found(ledger: Ledger) -> None:
    name = ledger.vault.keyring.subject("default", "ann")
    await ledger.append(Draft("", "erased", name, {"subject": name, "by": "dpo"}))
    [line] = said(await verify(ledger))
    assert f"keys, row '{name}': the log says that it was destroyed, and it was not" in line
    await ledger.reapply_erasures()
    assert (await verify(ledger)).ok


@pytest.mark.parametrize("change", ["created = created + 1", "wrapped = zeroblob(60)", "name = name || 'x'"])
async def test_a_changed_row_of_the_keystore_is_found(store: Store, ledger: Ledger, change: str) -> None:
    ledger.vault.keyring.key("tenant:a", create=True)
    await ledger.append(note())
    report = await keys(store, f"UPDATE keys SET {change} WHERE name = 'tenant:a'")
    assert any("does not open" in line for line in said(report))


async def test_another_stores_master_key_is_named_as_what_it_is(store: Store, ledger: Ledger) -> None:
    await store.close()
    flip(store.folder / "store/keys/master.key", 5, 0x10)
    lines = said(await verify(await store.open()))
    assert "keys/master.key: master key: no key opens with it: it is damaged, or another store's" in lines


async def test_the_published_key_is_the_one_that_signs(store: Store, ledger: Ledger) -> None:
    path = store.folder / "store" / PUBLIC_KEYS
    text = path.read_text()
    path.write_text(text.replace("tightship/default+", "tightship/other+"))
    assert any("tightship/other" in line for line in said(await verify(ledger)))
    path.write_text(text + "\n\n")
    assert said(await verify(ledger)) == [f"{PUBLIC_KEYS}: file: is not written as we write it"]
    path.write_text(text)
    assert (await verify(ledger)).ok


# --- the file ------------------------------------------------------------------------------------------


async def test_a_changed_schema_is_found(ledger: Ledger) -> None:
    await sql(ledger, "DROP INDEX entries_run")
    await sql(ledger, "CREATE TRIGGER forge AFTER INSERT ON entries BEGIN UPDATE runs SET usd = 0; END")
    assert said(await verify(ledger)) == [
        "ledger.db: structure: the trigger forge is not what it was made as",
        "ledger.db: structure: the index entries_run is missing",
    ]


async def test_a_damaged_store_is_not_put_under_a_checkpoint(ledger: Ledger) -> None:
    await ledger.append(note())
    await sql(ledger, "UPDATE runs SET state = 'x'")
    await sql(ledger, "INSERT INTO runs (id) VALUES ('r-9')")
    report = await verify(ledger)
    assert (report.ok, report.uncovered, report.integrated) == (False, 1, False)
    assert (await verify(ledger)).uncovered == 1


async def test_a_log_that_was_set_aside_is_reported_until_it_is_removed(store: Store, ledger: Ledger) -> None:
    aside = store.folder / "store" / "ledger.db-wal.cut-1"
    aside.write_bytes(b"x")
    [line] = said(await verify(ledger))
    assert line.startswith("ledger.db-wal.cut-1: write-ahead log: an earlier process left this log")
    aside.unlink()
    assert (await verify(ledger)).ok
