"""Where a log was changed: compares entries, stored tiles and the signed root with one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Literal

from tightship.core.errors import TamperError
from tightship.ledger.merkle.tiles import (
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TileSource,
    TileTree,
    split_hashes,
    tiles_of,
)
from tightship.ledger.merkle.tree import HASH_SIZE, fold, perfect_parts, perfect_root

_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Damage:
    """One place where the log is not what was signed.

    | kind | meaning | index |
    |---|---|---|
    | entry | the entry was changed after it was signed | the entry |
    | tile | a stored hash was changed; the entries below it are as signed | the hash within its level |
    | either | the entry and its stored hash differ, and the signed root bears out neither | the entry |
    | missing | entries that were signed are no longer there | the first of them |
    | root | entries and tiles agree, but not with the signed root: both were rewritten | 0 |
    """

    kind: Literal["entry", "tile", "either", "missing", "root"]
    index: int
    level: int = 0

    def __str__(self) -> str:
        tile = f"tile/{self.level}, tile {self.index // TILE_WIDTH}, hash {self.index % TILE_WIDTH}"
        return {
            "entry": f"entry {self.index} is not what was signed",
            "tile": f"a stored hash is not what was signed ({tile}); the entries below it are",
            "either": f"entry {self.index} and its stored hash differ, and neither leads to the signed root",
            "missing": f"entries from {self.index} on were signed and are gone",
            "root": "entries and tiles agree with one another but do not lead to the signed root",
        }[self.kind]


def locate_damage(tiles: TileSource, size: int, root: bytes, leaves: Iterable[bytes]) -> list[Damage]:
    """Compare a log with its signed head and say where it was changed; an empty list says that nothing was.

    Parameters: `size` and `root` of a verified checkpoint; `leaves`, the leaf hashes of the entries as they are
    stored now, in order (what follows the first `size` is not read). Time and hashing are linear, memory is 1/256
    of the leaf hashes. At most 1,000 places are returned.
    """
    count, computed, differences = _compare(tiles, size, leaves)
    if count < size:
        return [Damage("missing", count)]
    if computed == root:
        return [Damage("tile", index, level) for level, index in differences]
    entries = [index for level, index in differences if level == 0]
    if _lead_to(tiles, size, root):
        return [Damage("entry", index) for index in entries]
    return [Damage("either", index) for index in entries] or [Damage("root", 0)]


def _compare(tiles: TileSource, size: int, leaves: Iterable[bytes]) -> tuple[int, bytes, list[tuple[int, int]]]:
    """How many leaves there are, the root they give, and (level, index) of each stored hash that differs."""
    differences: list[tuple[int, int]] = []
    edges: list[bytes] = []
    level, count = 0, 0
    hashes = islice(iter(leaves), size)
    while level == 0 or size >> (TILE_HEIGHT * level):
        parents: list[bytes] = []
        partial: list[bytes] = []
        for number, chunk in enumerate(_chunks(hashes)):
            count += len(chunk) if level == 0 else 0
            differences += _differences(tiles, level, number, chunk, room=_SHOWN - len(differences))
            if len(chunk) == TILE_WIDTH:
                parents.append(perfect_root(chunk))
            else:
                partial = chunk
        edges[:0] = perfect_parts(partial)
        hashes, level = iter(parents), level + 1
    return count, fold(edges), differences


def _differences(tiles: TileSource, level: int, number: int, chunk: list[bytes], *, room: int) -> list[tuple[int, int]]:
    stored = tiles.get(level, number) or b""
    if len(stored) % HASH_SIZE or len(stored) > TILE_BYTES:
        return [(level, number * TILE_WIDTH + len(chunk) - 1)][:room]
    if stored[: HASH_SIZE * len(chunk)] == b"".join(chunk):
        return []
    pairs = zip_longest(chunk, split_hashes(stored)[: len(chunk)])
    return [(level, number * TILE_WIDTH + at) for at, (ours, theirs) in enumerate(pairs) if ours != theirs][:room]


def _lead_to(tiles: TileSource, size: int, root: bytes) -> bool:
    """Whether the stored tiles, every one of them, lead to the root."""
    tree = TileTree(tiles, size)
    try:
        for tile in tiles_of(size):
            tree.tile(tile)
        return tree.root() == root
    except TamperError:
        return False


def _chunks(hashes: Iterator[bytes]) -> Iterator[list[bytes]]:
    while chunk := list(islice(hashes, TILE_WIDTH)):
        yield chunk
