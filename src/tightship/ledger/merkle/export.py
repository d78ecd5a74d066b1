"""The log as a static folder of C2SP tlog-tiles, which foreign software reads as it is or from any web server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.checkpoint import Checkpoint, parse_checkpoint, parse_checkpoint_text
from tightship.ledger.merkle.keys import Verifier
from tightship.ledger.merkle.note import MAX_NOTE_BYTES
from tightship.ledger.merkle.tiles import (
    MAX_ENTRY_BYTES,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    TileSource,
    TileTree,
    bundles_of,
    decode_bundle,
    encode_bundle,
    read_tile,
    tiles_of,
)
from tightship.ledger.merkle.tree import leaf_hashes, root_at

CHECKPOINT = "checkpoint"
_MAX_BUNDLE = TILE_WIDTH * (2 + MAX_ENTRY_BYTES)

EntryReader = Callable[[int, int], Sequence[bytes]]
"""Given a start index and a count, the entries from there."""


def export_log(
    folder: Path,
    *,
    checkpoint: str,
    keys: Sequence[Verifier],
    tiles: TileSource,
    entries: EntryReader,
    progress: Callable[[int], None] | None = None,
) -> Checkpoint:
    """Write checkpoint, tiles and entry bundles of a log into a folder; everything is verified on its way out.

    Parameters: `folder`, new, or an earlier export of the same log, which is brought up to date; `checkpoint`,
    the signed note to export; `keys`, the log's own keys; `entries`, reads entries; `progress`, called with the
    number of entries done so far. The checkpoint is written last, so a reader never finds one whose tiles are not
    there. It blocks: call it from a thread. Returns the checkpoint.

    Raises TamperError when tiles, entries and checkpoint do not fit together, LedgerError when the folder holds
    another log, and OSError when it cannot be written.
    """
    head = parse_checkpoint(checkpoint, keys).checkpoint
    tree = TileTree(tiles, head.size)
    if tree.root() != head.root:
        raise TamperError("the stored tiles do not lead to the signed root; nothing was exported")
    _check_folder(folder, head, tree)
    for tile in tiles_of(head.size):
        _write(folder / tile.path, tree.tile(tile))
    for bundle in bundles_of(head.size):
        start = bundle.index * TILE_WIDTH
        found = list(entries(start, bundle.width))
        _check_bundle(read_tile(tiles, replace(bundle, level=0)), bundle, found)
        _write(folder / bundle.path, encode_bundle(found))
        if progress is not None:
            progress(start + bundle.width)
    _write(folder / CHECKPOINT, checkpoint.encode())
    return head


class FolderLog:
    """A static log folder: a `TileSource`, its checkpoint and its entries. Nothing it returns is verified.

    Raises LedgerError when there is no checkpoint in the folder, TamperError when it is malformed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        data = _read(folder / CHECKPOINT, MAX_NOTE_BYTES)
        if data is None:
            raise LedgerError(f"{folder} holds no exported log: there is no checkpoint in it")
        self.note = data
        """The signed checkpoint, to be opened with `parse_checkpoint`."""
        text, _, _ = data.rpartition(b"\n\n")
        try:
            self.unverified = parse_checkpoint_text(text.decode() + "\n")
        except UnicodeError:
            raise TamperError("the checkpoint is not UTF-8 text") from None

    @property
    def size(self) -> int:
        """How many entries the folder's checkpoint speaks of."""
        return self.unverified.size

    def get(self, level: int, index: int) -> bytes | None:
        """The tile as the checkpoint's size says it should be, full or partial."""
        width = min(TILE_WIDTH, (self.size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH)
        return self._get(Tile(level, index, width), TILE_BYTES)

    def entries(self) -> Iterable[bytes]:
        """All entries in order (TamperError when a bundle is missing or malformed)."""
        for bundle in bundles_of(self.size):
            data = self._get(bundle, _MAX_BUNDLE)
            found = None if data is None else decode_bundle(data)
            if found is None or len(found) < bundle.width:
                raise TamperError(f"the entry bundle {bundle.path} is missing or too short")
            yield from found[: bundle.width]

    def _get(self, tile: Tile, limit: int) -> bytes | None:
        if tile.width <= 0:
            return None
        data = _read(self._folder / tile.path, limit)
        # A log may drop a partial tile once the full one is there.
        return data if data is not None else _read(self._folder / replace(tile, width=TILE_WIDTH).path, limit)


def _check_folder(folder: Path, head: Checkpoint, tree: TileTree) -> None:
    if not (folder / CHECKPOINT).exists():
        # Tiles without a checkpoint are an export that was interrupted.
        if folder.exists() and {path.name for path in folder.iterdir()} - {"tile", f"{CHECKPOINT}.new"}:
            raise LedgerError(f"{folder} is not empty and holds no exported log", fix="choose a new folder")
        return
    old = FolderLog(folder).unverified
    if old.origin != head.origin:
        raise LedgerError(f"{folder} holds the export of another log, {old.origin!r}", fix="choose a new folder")
    if old.size > head.size:
        raise LedgerError(f"{folder} holds a newer export, of {old.size} entries", fix="choose a new folder")
    if root_at(tree, old.size) != old.root:
        raise TamperError(f"the log does not continue what was exported to {folder} before")


def _check_bundle(hashes: bytes, bundle: Tile, entries: Sequence[bytes]) -> None:
    if len(entries) != bundle.width:
        raise TamperError(f"{len(entries)} entries were found for {bundle.path}, not {bundle.width}")
    if b"".join(leaf_hashes(entries)) != hashes:
        raise TamperError(f"the entries of {bundle.path} do not have the hashes that were signed")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(data)
    os.replace(draft, path)


def _read(path: Path, limit: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(data) > limit:
        raise TamperError(f"{path} is longer than such a file can be")
    return data
