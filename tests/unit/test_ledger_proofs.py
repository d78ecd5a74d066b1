"""Proofs and exports of a ledger: what others check without the store."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger_desk import NOON, Store, fill, note
from store_desk import covered_ledger, rewrite, store_of
from tightship.core.errors import LedgerError, StoreReadOnly, TamperError, UnknownName
from tightship.ledger import Ledger
from tightship.ledger.audit import export, prove
from tightship.ledger.bundles import WIDTH
from tightship.ledger.merkle.checkpoint import parse_checkpoint
from tightship.ledger.merkle.export import FolderLog
from tightship.ledger.merkle.keys import parse_vkey
from tightship.ledger.merkle.proof import verify_bundle
from tightship.ledger.merkle.tree import leaf_hash, tree_root
from tightship.ledger.sequencer import Sequencer, signer_of

store = store_of("sqlite")
ledger = covered_ledger()


# --- proofs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_a_proof_stands_without_the_store(kind: str, tmp_path: Path) -> None:
    store = Store(kind, tmp_path)
    ledger = await store.open()
    await asyncio.gather(*(ledger.append(note(n=n)) for n in range(WIDTH + 20)))
    await Sequencer(ledger).close()
    last = ledger.backend.checkpoint(1)
    assert last is not None
    vkey = signer_of(ledger, "tightship/default").vkey
    for n in (1, 2, WIDTH, WIDTH + 1, WIDTH + 20):
        text = await prove(ledger, n)
        proven = verify_bundle(text, vkey)
        assert (proven.index, proven.checkpoint.size) == (n - 1, WIDTH + 20)
        assert json.loads(proven.entry)["body"]["n"] == n - 1
        with pytest.raises(TamperError):
            verify_bundle(text.replace(f"index {n - 1}", f"index {n}"), vkey)
    await store.close()


async def test_what_cannot_be_proven_says_why(ledger: Ledger) -> None:
    for n in (0, -1, 533, 10**9):
        with pytest.raises(UnknownName, match="its entries are 1 to 532"):
            await prove(ledger, n)
    with pytest.raises(UnknownName, match="there are: default"):
        await prove(ledger, 1, "nothing")
    await ledger.append(note())
    with pytest.raises(LedgerError, match="no checkpoint covers entry 533 yet"):
        await prove(ledger, 533)
    await rewrite(ledger, 520, lambda data: data.replace('"n":519', '"n":999'))
    with pytest.raises(TamperError):
        await prove(ledger, 520)


# --- exports -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_an_export_is_what_others_read_and_holds_no_values(kind: str, tmp_path: Path) -> None:
    store = Store(kind, tmp_path)
    ledger = await store.open()
    await fill(ledger)
    steps: list[tuple[str, int, int]] = []
    report = await export(ledger, tmp_path / "out", lambda *step: steps.append(step))
    assert report.uncovered == 0
    assert report.logs == {"default": await ledger.head(), "acme & sons": await ledger.head("acme & sons")}
    assert steps[-1] == ("entries", sum(report.logs.values()), sum(report.logs.values()))
    for log, name in (("default", "default"), ("acme & sons", "acme%20%26%20sons")):
        folder = FolderLog(tmp_path / "out" / name)
        vkey = (tmp_path / "out" / f"{name}.vkey").read_text().strip()
        head = parse_checkpoint(folder.note, [parse_vkey(vkey)]).checkpoint
        entries = list(folder.entries())
        assert head.root == tree_root([leaf_hash(entry) for entry in entries])
        lines = [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        assert lines == [entry.as_dict() for entry in await ledger.entries(limit=10_000, log=log)]
        assert all(set(line) == {"n", "at", "log", "run", "kind", "key", "epoch", "body"} for line in lines)
    assert report.as_dict()["values"] == 0
    await store.close()


async def test_a_plain_export_holds_the_values_and_names_what_was_erased(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await fill(ledger)
    report = await export(ledger, tmp_path / "out", plain=True)
    lines = [json.loads(line) for line in (tmp_path / "out" / "default.jsonl").read_text().splitlines()]
    [first] = [line for line in lines if line["run"] == "r-001" and line["kind"] == "run.started"]
    assert first["values"][first["body"]["input"]]["ticket"] == "where is order 1?"
    [gone] = [line for line in lines if line["run"] == "r-003" and line["kind"] == "run.started"]
    assert gone["erased"] == [gone["body"]["input"]]
    assert gone["body"]["input"] not in gone["values"]
    assert report.erased > 0
    assert report.values > 100
    await store.close()


async def test_an_export_is_brought_up_to_date(ledger: Ledger, tmp_path: Path) -> None:
    await export(ledger, tmp_path / "out")
    await ledger.append(note())
    report = await export(ledger, tmp_path / "out", integrate=False)
    assert (report.logs, report.uncovered) == ({"default": 532}, 1)
    report = await export(ledger, tmp_path / "out")
    assert (report.logs, report.uncovered) == ({"default": 533}, 0)
    assert len((tmp_path / "out" / "default.jsonl").read_text().splitlines()) == 533


async def test_an_export_never_writes_what_does_not_fit(ledger: Ledger, tmp_path: Path) -> None:
    await rewrite(ledger, 520, lambda data: data.replace('"n":519', '"n":999'))
    with pytest.raises(TamperError):
        await export(ledger, tmp_path / "out")
    assert not (tmp_path / "out" / "default" / "checkpoint").exists()


async def test_an_export_to_where_nothing_can_be_written_says_so(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreReadOnly, match="cannot be written"):
        await export(ledger, tmp_path / "file" / "out")
    assert NOON
