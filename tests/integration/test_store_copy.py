"""A store is copied whole between a folder and a database, or not at all, and the copy is what was written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres_desk
from ledger_desk import fill, note, projections
from tightship.core.errors import ExecutorBusy, StoreError
from tightship.ledger import Ledger
from tightship.ledger import copying as copies
from tightship.ledger._schema import schema
from tightship.ledger.audit import verify
from tightship.ledger.copying import copy_store
from tightship.ledger.locks import executor_lock
from tightship.ledger.presence import Presence

Place = Path | str


@pytest.fixture
async def source(tmp_path: Path) -> Path:
    """A folder with something of everything: packed entries, files, several logs, erased keys, checkpoints."""
    path = tmp_path / "desk" / ".tightship"
    ledger = await Ledger.open(path, None, projections())
    await fill(ledger, runs=40)
    for _ in range(3):
        await ledger.append(*(note(n=n) for n in range(100)))
    assert (await verify(ledger)).ok
    await ledger.close()
    return path


async def copy(source: Place, target: Place, folder: Path) -> copies.CopyReport:
    return await copy_store(source, target, folder, "desk", projections(), lambda stage, done, total: None)


async def rows_of(place: Place, folder: Path) -> dict[str, Any]:
    """Everything that a store holds, as it lies there; payloads with their bytes, wherever these are."""
    ledger = await Ledger.open(place, None, projections(), create=False, folder=folder)
    moment = ledger.backend.snapshot()
    try:
        found: dict[str, Any] = {
            table: list(moment.projection(table)) for table in schema() if table not in ("payloads", "entries")
        }
        found["entries"] = [row for log in moment.log_ids() for page in moment.entries(log) for row in page]
        found["payloads"] = [
            (address, scope, data or ledger.disk.read(address.hex()), crc)
            for page in moment.payloads()
            for _, address, scope, data, crc in page
        ]
        found["keys"] = ledger.vault.keyring.store.page("", 10_000)
        found["public"] = ledger.backend.public_keys()
        return found
    finally:
        moment.close()
        await ledger.close()


async def test_there_and_back_again_is_byte_for_byte_the_same(source: Path, tmp_path: Path) -> None:
    url, back = postgres_desk.new_store(), tmp_path / "back"
    first = await copy(source, url, source)
    second = await copy(url, back, source)
    assert first == second
    original = await rows_of(source, source)
    assert any(original["bundles"])
    assert await rows_of(url, source) == original
    assert await rows_of(back, back) == original
    assert [path.name for path in tmp_path.glob("*copying")] == []
    ledger = await Ledger.open(url, None, projections(), folder=source)
    [entry] = await ledger.append(note(n=1))
    assert entry.n == first.logs["default"] + 1
    assert (await verify(ledger)).ok
    await ledger.close()


async def test_a_target_that_is_not_empty_is_left_as_it_is(source: Path, tmp_path: Path) -> None:
    url = postgres_desk.new_store()
    other = await Ledger.open(url, None, projections(), folder=source, name="desk")
    await other.append(note(n=1))
    with pytest.raises(StoreError, match="not empty"):
        await copy(source, url, source)
    assert await other.head() == 1
    await other.close()
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match="nothing is written over"):
        await copy(source, tmp_path / "there", source)
    assert list((tmp_path / "there").iterdir()) == []


async def test_a_source_on_which_somebody_executes_is_not_copied(source: Path, tmp_path: Path) -> None:
    lock = executor_lock(source, source)
    lock.acquire()
    with pytest.raises(ExecutorBusy):
        await copy(source, tmp_path / "copy", source)
    lock.release()
    url = postgres_desk.new_store()
    await copy(source, url, source)
    worker = await Presence.start(url, "b1")
    with pytest.raises(StoreError, match="1 workers execute"):
        await copy(url, tmp_path / "copy", source)
    await worker.close()
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
async def test_a_copy_that_is_cut_off_leaves_nothing_and_can_be_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    target = postgres_desk.new_store() if kind == "postgres" else tmp_path / "copy"
    payloads = copies._payloads

    def broken(*args: Any) -> Any:
        for at, row in enumerate(payloads(*args)):
            if at == 20:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(copies, "_payloads", broken)
    with pytest.raises(StoreError, match="interrupted"):
        await copy(source, target, source)
    if isinstance(target, Path):
        assert not target.exists()
    else:
        ledger = await Ledger.open(target, None, projections(), folder=source)
        assert await ledger.entries() == []
        await ledger.close()
    monkeypatch.setattr(copies, "_payloads", payloads)
    await copy(source, target, source)
    assert (await rows_of(target, source))["entries"] == (await rows_of(source, source))["entries"]


async def test_a_damaged_source_is_not_copied(source: Path, tmp_path: Path) -> None:
    large = max((path for path in (source / "payloads").glob("*/*")), key=lambda path: path.stat().st_size)
    large.write_bytes(os.urandom(large.stat().st_size))
    with pytest.raises(StoreError, match="does not verify"):
        await copy(source, tmp_path / "copy", source)
    assert not (tmp_path / "copy").exists()
