"""The tree's hashes as tiles of 256 (C2SP tlog-tiles, height 8), and the entries as bundles.

Tile `index` of level `l` holds the hashes of the subtrees of 256**l leaves from `index * 256` on. A tile that is
not full is a prefix of the full one, so a store keeps one value per tile, the widest so far, and every earlier
tree can be read from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.tree import (
    HASH_SIZE,
    MAX_SIZE,
    consistency_proof,
    fold,
    inclusion_proof,
    perfect_parts,
    perfect_root,
    root_at,
)

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_SIZE
ENTRIES = -1
"""The level under which a `Tile` names an entry bundle."""
MAX_ENTRY_BYTES = 0xFFFF
"""Longest entry: a bundle gives lengths in 16 bits."""

_MAX_LEVEL = 63
_CACHED_TILES = 64
_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


class TileSource(Protocol):
    """Reads tiles."""

    def get(self, level: int, index: int) -> bytes | None:
        """The tile's hashes, concatenated, as many as there are so far; None when there are none."""
        ...


class TileStore(TileSource, Protocol):
    """Keeps tiles."""

    def put(self, level: int, index: int, data: bytes) -> None:
        """Store a tile, in place of what stood there."""
        ...


class MemoryTiles:
    """A tile store in memory."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes | None:
        """The tile's hashes, or None."""
        return self.tiles.get((level, index))

    def put(self, level: int, index: int, data: bytes) -> None:
        """Store a tile."""
        self.tiles[level, index] = data


@dataclass(frozen=True, slots=True)
class Tile:
    """The name of a tile: its level (`ENTRIES` for an entry bundle), its index there, and how many hashes it has."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Its path in a tlog-tiles log, for example `tile/0/x001/234.p/7`."""
        number = self.index
        parts = [f"{number % 1000:03d}"]
        while number >= 1000:
            number //= 1000
            parts.append(f"x{number % 1000:03d}")
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(parts))}{partial}"


def parse_tile_path(path: str) -> Tile:
    """The tile that a path names (TamperError when it names none, or not in the one canonical way)."""
    match = _PATH.fullmatch(path)
    if match:
        level, index, width = match.groups()
        tile = Tile(
            ENTRIES if level == "entries" else int(level),
            int(index.replace("x", "").replace("/", "")),
            int(width) if width else TILE_WIDTH,
        )
        if tile.level <= _MAX_LEVEL and 0 < tile.width <= TILE_WIDTH and tile.path == path:
            return tile
    raise TamperError(f"{path[:120]!r} is not the path of a tile")


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of a tree of `size` leaves, lowest level first."""
    level = 0
    while size:
        yield from _tiles_of_level(level, size)
        size >>= TILE_HEIGHT
        level += 1


def bundles_of(size: int) -> Iterator[Tile]:
    """Every entry bundle of a log of `size` entries."""
    return _tiles_of_level(ENTRIES, size)


def _tiles_of_level(level: int, hashes: int) -> Iterator[Tile]:
    full, width = divmod(hashes, TILE_WIDTH)
    for index in range(full):
        yield Tile(level, index)
    if width:
        yield Tile(level, full, width)


def read_tile(tiles: TileSource, tile: Tile) -> bytes:
    """The bytes of a tile at exactly its width (TamperError when the source has fewer)."""
    data = tiles.get(tile.level, tile.index)
    if data is None:
        raise TamperError(f"hash tile {tile.path} is missing", fix=_REBUILD)
    if len(data) < tile.width * HASH_SIZE or len(data) > TILE_BYTES:
        raise TamperError(f"hash tile {tile.path} has {len(data)} bytes, not its {tile.width} hashes", fix=_REBUILD)
    return data[: tile.width * HASH_SIZE]


_REBUILD = "rebuild the tiles from the entries and compare them with the signed checkpoint"


def split_hashes(data: bytes) -> list[bytes]:
    """The single hashes of a tile."""
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


class TileTree:
    """A tree of `size` leaves read from tiles: the `Nodes` that proofs are made from.

    It checks no hash. Reads of it raise TamperError when a tile is missing or too short.
    """

    def __init__(self, tiles: TileSource, size: int) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise LedgerError(f"a log cannot have {size} entries")
        self._tiles = tiles
        self._size = size
        self._cache: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    def node(self, height: int, index: int) -> bytes:
        """The hash of a perfect subtree (see `Nodes`)."""
        if height < 0 or index < 0 or (index + 1) << height > self._size:
            raise LedgerError(f"a tree of {self._size} entries has no node {index} at height {height}")
        level, above = divmod(height, TILE_HEIGHT)
        tile, first = divmod(index << above, TILE_WIDTH)
        data = self._read(level, tile)
        hashes = split_hashes(data[first * HASH_SIZE : (first + (1 << above)) * HASH_SIZE])
        return perfect_root(hashes)

    def tile(self, tile: Tile) -> bytes:
        """A tile's bytes, checked against the hash of it one level up.

        Partial tiles have none there: they are all part of what `root` hashes. Raises TamperError when it does
        not fit.
        """
        data = read_tile(self._tiles, tile)
        if tile.width == TILE_WIDTH:
            above = self.node(TILE_HEIGHT * (tile.level + 1), tile.index)
            if perfect_root(split_hashes(data)) != above:
                raise TamperError(f"hash tile {tile.path} does not fit the hash of it one level up", fix=_REBUILD)
        return data

    def leaf(self, index: int) -> bytes:
        """The leaf hash of one entry."""
        return self.node(0, index)

    def root(self) -> bytes:
        """The tree's root hash."""
        return root_at(self, self._size)

    def prove_inclusion(self, index: int) -> list[bytes]:
        """The inclusion proof of one entry in this tree."""
        return inclusion_proof(self, index, self._size)

    def prove_consistency(self, old_size: int) -> list[bytes]:
        """The proof that this tree continues the one of `old_size` leaves."""
        return consistency_proof(self, old_size, self._size)

    def _read(self, level: int, index: int) -> bytes:
        data = self._cache.get((level, index))
        if data is None:
            width = min(TILE_WIDTH, (self._size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH)
            data = read_tile(self._tiles, Tile(level, index, width))
            if len(self._cache) >= _CACHED_TILES:
                self._cache.clear()
            self._cache[level, index] = data
        return data


@dataclass(frozen=True, slots=True)
class Integration:
    """What appending a batch of leaves changes: the new size and root, and the tiles to store with them."""

    size: int
    root: bytes
    tiles: dict[tuple[int, int], bytes]

    def write(self, store: TileStore) -> None:
        """Put the changed tiles into the store, inside whatever transaction the caller holds."""
        for (level, index), data in self.tiles.items():
            store.put(level, index, data)


def integrate(tiles: TileSource, size: int, leaves: Sequence[bytes], *, root: bytes | None = None) -> Integration:
    """Append leaf hashes to a tree of `size` leaves whose tiles are given; nothing is written.

    Parameters: `leaves`, hashes of 32 bytes; `root`, the root last signed, if any: the stored right edge must
    still lead to it, so that no changed hash is ever built upon and signed. Raises TamperError when it does not,
    or when a tile of the right edge is missing.
    """
    if set(map(len, leaves)) - {HASH_SIZE}:
        raise LedgerError(f"a leaf hash has {HASH_SIZE} bytes")
    if not 0 <= size <= MAX_SIZE - len(leaves):
        raise LedgerError(f"a log of {size} entries cannot take {len(leaves)} more")
    if root is not None and TileTree(tiles, size).root() != root:
        raise TamperError(f"the stored tiles do not lead to the root signed for {size} entries", fix=_REBUILD)
    changed: dict[tuple[int, int], bytes] = {}
    edges: list[bytes] = []
    new, before, level = leaves, size, 0
    while new or before:
        index, width = divmod(before, TILE_WIDTH)
        head = read_tile(tiles, Tile(level, index, width)) if width else b""
        data = head + b"".join(new)
        parents: list[bytes] = []
        for offset in range(0, len(data), TILE_BYTES):
            tile = data[offset : offset + TILE_BYTES]
            if new:
                changed[level, index] = tile
            if len(tile) == TILE_BYTES:
                parents.append(perfect_root(split_hashes(tile)))
            index += 1
        edges[:0] = perfect_parts(split_hashes(data[len(data) // TILE_BYTES * TILE_BYTES :]))
        new, before, level = parents, before >> TILE_HEIGHT, level + 1
    return Integration(size + len(leaves), fold(edges), changed)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Up to 256 entries as one tlog-tiles entry bundle: each with its length in two bytes before it.

    Raises LedgerError when an entry is longer than `MAX_ENTRY_BYTES` or there are too many.
    """
    if len(entries) > TILE_WIDTH:
        raise LedgerError(f"an entry bundle has at most {TILE_WIDTH} entries, not {len(entries)}")
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise LedgerError(f"an entry of the log has at most {MAX_ENTRY_BYTES} bytes, not {len(entry)}")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle (TamperError when it is cut short or holds more than 256)."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + 2
        end = start + int.from_bytes(data[at:start], "big")
        if end > len(data) or len(entries) == TILE_WIDTH:
            raise TamperError(f"the entry bundle is malformed after entry {len(entries)}")
        entries.append(data[start:end])
        at = end
    return entries
