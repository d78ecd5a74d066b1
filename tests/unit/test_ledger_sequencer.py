"""The sequencer: every entry comes under a signed checkpoint, beside the appends; nothing tampered is ever signed."""

from __future__ import annotations

import asyncio
import logging
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from entry_samples import VirtualClock

from ledger_desk import KINDS, Store, note
from store_desk import ledger_of_store, store_of
from tightship.core.errors import LedgerError, StoreFull, StoreMissing, TamperError
from tightship.ledger import Draft, Ledger
from tightship.ledger.bundles import WIDTH
from tightship.ledger.merkle.checkpoint import check_consistency, parse_checkpoint
from tightship.ledger.merkle.keys import parse_vkey
from tightship.ledger.merkle.tiles import TileTree
from tightship.ledger.merkle.tree import leaf_hashes, tree_root
from tightship.ledger.sequencer import CHUNK, PUBLIC_KEYS, BackendTiles, Sequencer, cover, origin_of

store = store_of(*KINDS)
ledger = ledger_of_store()


async def add(ledger: Ledger, count: int, log: str = "default") -> None:
    await asyncio.gather(*(ledger.append(note(n=n), log=log) for n in range(count)))


def checkpoint(ledger: Ledger, log_id: int = 1) -> Any:
    last = ledger.backend.checkpoint(log_id)
    assert last is not None
    return parse_checkpoint(last[1], [parse_vkey(vkey) for vkey in published(ledger)]).checkpoint


def published(ledger: Ledger) -> list[str]:
    if ledger.path is None:
        from tightship.ledger.sequencer import signer_of, stated_origin

        last = ledger.backend.checkpoint(1)
        assert last is not None
        return [signer_of(ledger, stated_origin(last[1])).vkey]
    return (ledger.path / PUBLIC_KEYS).read_text().splitlines()


async def test_the_checkpoint_signs_the_root_of_exactly_the_entries(ledger: Ledger) -> None:
    await add(ledger, 700)
    sequencer = Sequencer(ledger, "my-desk")
    assert await sequencer.run_once() == {"default": 700}
    head = checkpoint(ledger)
    assert (head.origin, head.size) == ("my-desk/default", 700)
    entries = await ledger.entries(limit=10_000)
    assert head.root == tree_root(leaf_hashes(entry.data for entry in entries))


async def test_each_checkpoint_continues_the_one_before(ledger: Ledger) -> None:
    sequencer, heads = Sequencer(ledger), []
    for count in (1, 254, 1, 1, 300, 0):
        await add(ledger, count)
        await sequencer.run_once()
        heads.append(checkpoint(ledger))
    assert [head.size for head in heads] == [1, 255, 256, 257, 557, 557]
    for old, new in pairwise(heads):
        path = TileTree(BackendTiles(ledger.backend, 1), new.size).prove_consistency(old.size)
        check_consistency(old, new, path)


async def test_it_goes_on_where_another_process_has_stopped(store: Store) -> None:
    first = await store.open()
    await add(first, 300)
    await Sequencer(first, "desk").run_once()
    await first.close()
    again = await store.open()
    await add(again, 300)
    assert await Sequencer(again, "another name").run_once() == {"default": 600}
    assert checkpoint(again).origin == "desk/default", "a log keeps the origin it began with"


async def test_no_job_on_the_writer_takes_more_than_a_chunk(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await add(ledger, 5000)
    steps: list[tuple[int, int]] = []
    put = ledger.backend.put_tree

    def counted(log_id: int, before: int, size: int, note: str, tiles: Any) -> None:
        steps.append((before, size))
        put(log_id, before, size, note, tiles)

    monkeypatch.setattr(ledger.backend, "put_tree", counted)
    await Sequencer(ledger).run_once()
    assert steps == [(0, CHUNK), (CHUNK, 2 * CHUNK), (2 * CHUNK, 5000)]


async def test_every_log_has_an_origin_and_a_key_of_its_own(ledger: Ledger) -> None:
    for log in ("default", "acme & sons", "+", "x" * 400):
        await add(ledger, 3, log)
    covered = await Sequencer(ledger, "Our Desk").run_once()
    assert set(covered.values()) == {3}
    notes = [ledger.backend.checkpoint(log_id) for log_id in range(1, 5)]
    origins = [note[1].split("\n")[0] for note in notes if note]
    assert origins[:3] == ["Our%20Desk/default", "Our%20Desk/acme%20%26%20sons", "Our%20Desk/%2B"]
    assert len(set(origins)) == 4


def test_long_names_stay_apart() -> None:
    assert origin_of("d", "x" * 400) != origin_of("d", "x" * 400 + "y")
    assert len(origin_of("d" * 500, "x")) <= 200


async def test_the_public_key_stands_beside_the_store(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, 1)
    await add(ledger, 1, "b")
    await Sequencer(ledger).run_once()
    lines = (tmp_path / "store" / PUBLIC_KEYS).read_text().splitlines()
    assert [parse_vkey(line).name for line in lines] == ["tightship/b", "tightship/default"]
    assert ledger.backend.public_keys() == {"tightship/b": lines[0], "tightship/default": lines[1]}
    await store.close()


async def test_nothing_is_signed_over_a_changed_entry(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, 10)
    sequencer = Sequencer(ledger)
    await sequencer.run_once()
    await add(ledger, 10)

    def change() -> None:
        ledger.backend._db.execute("UPDATE entries SET data = replace(data, '\"n\":4', '\"n\":5') WHERE id & 255 = 15")  # type: ignore[union-attr]

    await ledger.job(change)
    with pytest.raises(TamperError, match="entry 15"):
        await sequencer.run_once()
    assert checkpoint(ledger).size == 10
    await store.close()


async def test_nothing_is_signed_on_top_of_a_changed_hash(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, 10)
    await Sequencer(ledger).run_once()
    await add(ledger, 10)

    def change() -> None:
        ledger.backend._db.execute("UPDATE tiles SET data = zeroblob(length(data))")  # type: ignore[union-attr]

    await ledger.job(change)
    with pytest.raises(TamperError, match="do not lead to the root"):
        await Sequencer(ledger).run_once()
    assert checkpoint(ledger).size == 10
    await store.close()


async def test_a_log_whose_key_is_lost_is_not_signed_with_a_new_one(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, 10)
    await Sequencer(ledger).run_once()
    await store.close()
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "store" / "keys" / "keys.db")) as db, db:
        db.execute("DELETE FROM keys WHERE name LIKE 'log:%'")
    ledger = await store.open()
    await add(ledger, 10)
    with pytest.raises(StoreMissing, match="signs the log"):
        await Sequencer(ledger).run_once()
    await store.close()


async def test_two_sequencers_never_sign_two_histories(ledger: Ledger) -> None:
    ours, theirs = Sequencer(ledger), Sequencer(ledger)
    await add(ledger, 10)
    await ours.run_once()
    await theirs.run_once()
    await add(ledger, 10)
    await ours.run_once()
    with pytest.raises(LedgerError, match="nothing was written"):
        await theirs.run_once()
    await theirs.run_once()
    assert checkpoint(ledger).size == 20


async def test_it_runs_by_itself_until_it_is_closed() -> None:
    from tightship.core.world import World

    clock = VirtualClock()
    ledger = Ledger.in_memory(World(clock=clock))
    sequencer = Sequencer.start(ledger)
    await add(ledger, 10)
    await clock.advance(1.1)
    assert checkpoint(ledger).size == 10
    await clock.advance(10)
    await add(ledger, 10)
    await sequencer.close()
    assert checkpoint(ledger).size == 20


async def test_a_disk_that_refuses_is_tried_again_and_tampering_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tightship.core.world import World

    clock = VirtualClock()
    ledger = Ledger.in_memory(World(clock=clock))
    trouble: list[Exception] = [StoreFull("the disk is full"), TamperError("entry 3 was changed")]
    put = ledger.backend.put_tree

    def refusing(*args: Any) -> None:
        if trouble:
            raise trouble.pop(0)
        put(*args)

    monkeypatch.setattr(ledger.backend, "put_tree", refusing)
    sequencer = Sequencer.start(ledger)
    await add(ledger, 10)
    with caplog.at_level(logging.ERROR):
        await clock.advance(1.1)
        assert isinstance(sequencer.error, StoreFull)
        await clock.advance(1.1)
        assert isinstance(sequencer.error, TamperError)
        await clock.advance(5)
    assert [record.args[0].message for record in caplog.records] == ["the disk is full", "entry 3 was changed"]  # type: ignore[union-attr,index]
    assert ledger.backend.checkpoint(1) is None, "it was not tried again behind anybody's back"
    await add(ledger, 1)
    await clock.advance(1.1)
    assert checkpoint(ledger).size == 11
    assert sequencer.error is None
    await sequencer.close()


async def test_cover_leaves_it_to_the_process_that_executes(tmp_path: Path) -> None:
    from tightship.ledger.locks import ExecutorLock

    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, 10)
    lock = ExecutorLock(tmp_path / "store" / "executor.lock")
    lock.acquire()
    assert not await cover(ledger)
    assert ledger.backend.checkpoint(1) is None
    lock.release()
    assert await cover(ledger)
    assert checkpoint(ledger).size == 10
    lock.acquire()
    lock.release()
    await store.close()


# --- bundles -------------------------------------------------------------------------------------------


def rows(ledger: Ledger, table: str) -> int:
    return ledger.backend._read(f"SELECT count(*) FROM {table}")[0][0]  # type: ignore[union-attr]


async def test_what_is_covered_and_no_longer_hot_is_packed_and_reads_the_same(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    for number in range(3 * WIDTH + 10):
        ledger.append(note(f"r-{number % 7}", n=number, text="the same words again " * 5))
    await add(ledger, 300, "another log")
    before = await ledger.entries(limit=10_000)
    of_runs = await ledger.runs_entries([f"r-{n}" for n in range(7)])
    sequencer = Sequencer(ledger)
    await sequencer.run_once()
    assert await sequencer.pack(WIDTH) == 2 * WIDTH
    assert (rows(ledger, "bundles"), rows(ledger, "entries")) == (2, WIDTH + 10 + 300)
    await sequencer.close()
    assert (rows(ledger, "bundles"), rows(ledger, "entries")) == (4, 10 + 300 - WIDTH)
    for opened in (ledger, await store.open()):
        assert await opened.entries(limit=10_000) == before
        assert await opened.runs_entries([f"r-{n}" for n in range(7)]) == of_runs
        for after in (0, 1, 255, 256, 257, 511, 512, 700, 767, 768, 777):
            for limit in (1, 2, 256, 300):
                assert await opened.entries(after, limit) == before[after : after + limit]
    await store.close()


async def test_entries_that_no_checkpoint_covers_are_not_packed(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, WIDTH)
    sequencer = Sequencer(ledger)
    await sequencer.run_once()
    await add(ledger, 3 * WIDTH)
    assert await sequencer.pack(0) == WIDTH
    assert await sequencer.pack(0) == 0
    await store.close()


async def test_a_damaged_entry_is_not_packed(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ledger = await store.open()
    await add(ledger, 2 * WIDTH)
    sequencer = Sequencer(ledger)
    await sequencer.run_once()

    def change() -> None:
        ledger.backend._db.execute("UPDATE entries SET run = 'r-9' WHERE id & 1023 = 300")  # type: ignore[union-attr]

    await ledger.job(change)
    with pytest.raises(TamperError, match="entry 300"):
        await sequencer.pack(0)
    assert (rows(ledger, "bundles"), rows(ledger, "entries")) == (0, 2 * WIDTH)
    await store.close()


async def test_others_hear_of_entries_also_when_they_were_packed_meanwhile(tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    ours, theirs = await store.open(), await store.open()
    heard: list[int] = []
    ours.listen(lambda entries, foreign: heard.extend(entry.n for entry in entries))
    await add(theirs, 2 * WIDTH + 5)
    await Sequencer(theirs).close()
    await ours.append(Draft("", "note", "", {}))
    assert heard == list(range(1, 2 * WIDTH + 7))
    await store.close()
