"""An exported log is a complete static tlog-tiles folder, and an export never passes on what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from tightship.ledger.merkle.export import FolderLog, export_log
from tightship.ledger.merkle.keys import NoteSigner
from tightship.ledger.merkle.locate import Damage, locate_damage
from tightship.ledger.merkle.tiles import MemoryTiles, TileTree, bundles_of, integrate, tiles_of
from tightship.ledger.merkle.tree import leaf_hashes

LOG = NoteSigner("example.com/log", b"\1" * 32)
ENTRIES = [f"entry {number}".encode() for number in range(70_000)]


def tiles_for(entries: list[bytes]) -> MemoryTiles:
    tiles = MemoryTiles()
    integrate(tiles, 0, leaf_hashes(entries)).write(tiles)
    return tiles


TILES = tiles_for(ENTRIES)


def export(
    folder: Path, size: int, tiles: MemoryTiles = TILES, entries: list[bytes] = ENTRIES, log: NoteSigner = LOG
) -> list[int]:
    note = sign_checkpoint(Checkpoint(log.name, size, TileTree(tiles, size).root()), log)
    done: list[int] = []
    export_log(
        folder,
        checkpoint=note,
        keys=[log.verifier],
        tiles=tiles,
        entries=lambda start, count: entries[start : start + count],
        progress=done.append,
    )
    return done


def test_the_folder_holds_the_checkpoint_every_tile_and_every_bundle(tmp_path: Path) -> None:
    done = export(tmp_path / "log", 70_000)
    written = {path.relative_to(tmp_path / "log").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    expected = {tile.path for tile in (*tiles_of(70_000), *bundles_of(70_000))}
    assert written == expected | {"checkpoint"}
    assert {"tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"} < written
    assert done[-1] == 70_000
    assert done == sorted(done)


@pytest.mark.parametrize("size", [0, 1, 256, 700])
def test_an_exported_log_reads_back_whole(tmp_path: Path, size: int) -> None:
    export(tmp_path, size)
    log = FolderLog(tmp_path)
    head = parse_checkpoint(log.note, [LOG.verifier]).checkpoint
    assert list(log.entries()) == ENTRIES[:size]
    assert TileTree(log, log.size).root() == head.root
    assert locate_damage(log, head.size, head.root, leaf_hashes(log.entries())) == []


def test_a_byte_changed_in_the_folder_is_found(tmp_path: Path) -> None:
    export(tmp_path, 700)
    path = tmp_path / "tile/entries/001"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    log = FolderLog(tmp_path)
    head = parse_checkpoint(log.note, [LOG.verifier]).checkpoint
    assert locate_damage(log, head.size, head.root, leaf_hashes(log.entries())) == [Damage("entry", 511)]


def test_a_later_export_continues_an_earlier_one(tmp_path: Path) -> None:
    export(tmp_path, 300)
    export(tmp_path, 700)
    assert list(FolderLog(tmp_path).entries()) == ENTRIES[:700]
    assert (tmp_path / "tile/0/001.p/44").exists(), "tiles of an exported checkpoint stay"
    with pytest.raises(LedgerError, match="newer export"):
        export(tmp_path, 300)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LedgerError, match="not empty"):
        export(tmp_path, 300)
    export(tmp_path / "log", 300)
    with pytest.raises(LedgerError, match="another log"):
        export(tmp_path / "log", 700, log=NoteSigner("example.com/other", b"\2" * 32))
    assert list(FolderLog(tmp_path / "log").entries()) == ENTRIES[:300]


def test_a_history_rewritten_since_the_last_export_is_not_exported(tmp_path: Path) -> None:
    export(tmp_path, 300)
    rewritten = [b"rewritten", *ENTRIES[1:700]]
    with pytest.raises(TamperError, match="does not continue what was exported"):
        export(tmp_path, 700, tiles_for(rewritten), rewritten)


@pytest.mark.parametrize("tile", [(0, 0), (0, 2), (1, 0)])
def test_a_log_with_a_changed_tile_is_not_exported(tmp_path: Path, tile: tuple[int, int]) -> None:
    tiles = tiles_for(ENTRIES[:700])
    note = sign_checkpoint(Checkpoint(LOG.name, 700, TileTree(tiles, 700).root()), LOG)
    tiles.put(*tile, b"\0" + tiles.tiles[tile][1:])
    with pytest.raises(TamperError):
        export_log(
            tmp_path,
            checkpoint=note,
            keys=[LOG.verifier],
            tiles=tiles,
            entries=lambda start, n: ENTRIES[start : start + n],
        )
    assert not (tmp_path / "checkpoint").exists()


def test_a_log_with_a_changed_or_missing_entry_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(TamperError, match="do not have the hashes that were signed"):
        export(tmp_path, 700, entries=[*ENTRIES[:600], b"changed", *ENTRIES[601:]])
    with pytest.raises(TamperError, match="99 entries were found"):
        export(tmp_path, 700, entries=ENTRIES[:611])
    assert not (tmp_path / "checkpoint").exists()
    export(tmp_path, 700)


@pytest.mark.parametrize("data", [b"", b"no checkpoint", b"\xff\n\n", b"a" * 300_000])
def test_a_malformed_folder_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(LedgerError, match="no exported log"):
        FolderLog(tmp_path)
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(TamperError):
        FolderLog(tmp_path)


def test_missing_and_short_bundles_are_named(tmp_path: Path) -> None:
    export(tmp_path, 700)
    (tmp_path / "tile/entries/001").write_bytes(b"\0\1a")
    with pytest.raises(TamperError, match="tile/entries/001 is missing or too short"):
        list(FolderLog(tmp_path).entries())
    (tmp_path / "tile/entries/001").unlink()
    with pytest.raises(TamperError, match="tile/entries/001 is missing or too short"):
        list(FolderLog(tmp_path).entries())
