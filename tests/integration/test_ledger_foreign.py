"""What a real store proves and exports is accepted by software that we did not write: Go's sumdb and pymerkle."""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import pymerkle
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_foreign_verifiers import Go, go

from ledger_desk import Store, fill, note
from tightship.ledger import Ledger
from tightship.ledger.audit import export, prove
from tightship.ledger.sequencer import PUBLIC_KEYS, Sequencer

__all__ = ["go"]


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    """Several checkpoints, packed bundles, two logs."""
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    sequencer = Sequencer(ledger, "practice desk")
    await fill(ledger)
    await sequencer.run_once()
    await asyncio.gather(*(ledger.append(note(n=n)) for n in range(400)))
    await sequencer.close()
    yield ledger
    await store.close()


def vkeys(ledger: Ledger) -> dict[str, str]:
    assert ledger.path is not None
    lines = (ledger.path / PUBLIC_KEYS).read_text().splitlines()
    return {line.partition("+")[0]: line for line in lines}


async def test_go_accepts_the_proofs_of_a_store_by_its_published_key(ledger: Ledger, go: Go) -> None:
    vkey = vkeys(ledger)["practice%20desk/default"]
    last = await ledger.head()
    for n in (1, 2, 255, 256, 257, last - 1, last):
        text = await prove(ledger, n)
        answer = go.ask("bundle", bundle=text, vkey=vkey)
        assert answer["ok"], answer
        assert json.loads(answer["text"])["n"] == n
        assert not go.accepts("bundle", bundle=text.replace(f"index {n - 1}\n", f"index {n}\n"), vkey=vkey)
        assert not go.accepts("bundle", bundle=text, vkey=vkeys(ledger)["practice%20desk/acme%20%26%20sons"])


async def test_go_reads_an_exported_store_and_refuses_a_changed_one(ledger: Ledger, go: Go, tmp_path: Path) -> None:
    report = await export(ledger, tmp_path / "out")
    for log, name in (("default", "default"), ("acme & sons", "acme%20%26%20sons")):
        folder = tmp_path / "out" / name
        vkey = (tmp_path / "out" / f"{name}.vkey").read_text().strip()
        assert go.ask("folder", folder=str(folder), vkey=vkey) == {"ok": True, "text": str(report.logs[log])}
    path = tmp_path / "out" / "default" / "tile" / "entries" / "000"
    bundle = bytearray(path.read_bytes())
    bundle[400] ^= 1
    path.write_bytes(bundle)
    vkey = (tmp_path / "out" / "default.vkey").read_text().strip()
    assert not go.accepts("folder", folder=str(tmp_path / "out" / "default"), vkey=vkey)


async def test_pymerkle_gives_the_same_root(ledger: Ledger) -> None:
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for entry in await ledger.entries(limit=100_000):
        tree.append_entry(entry.data)
    last = ledger.backend.checkpoint(
        next(log for name, (log, _) in ledger.backend.heads().items() if name == "default")
    )
    assert last is not None
    _, size, root, *_ = last[1].split("\n")
    assert (int(size), b64decode(root)) == (tree.get_size(), tree.get_root())
