"""Tiles hold exactly the hashes of the tree, however the entries came in, and bundles hold the entries."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    MemoryTiles,
    Tile,
    TileTree,
    bundles_of,
    decode_bundle,
    encode_bundle,
    integrate,
    parse_tile_path,
    read_tile,
    tiles_of,
)
from tightship.ledger.merkle.tree import (
    EMPTY_ROOT,
    leaf_hashes,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

MANY = leaf_hashes(b"%d" % number for number in range(66_500))


def filled(size: int) -> MemoryTiles:
    tiles = MemoryTiles()
    integrate(tiles, 0, MANY[:size]).write(tiles)
    return tiles


WHOLE = filled(len(MANY))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0, 1, 2, 7, 100, 255, 256, 257, 511, 513, 1024]), max_size=12))
def test_batches_make_the_same_tiles_and_root_as_all_at_once(batches: list[int]) -> None:
    tiles, size, root = MemoryTiles(), 0, EMPTY_ROOT
    for batch in batches:
        result = integrate(tiles, size, MANY[size : size + batch], root=root)
        result.write(tiles)
        size, root = result.size, result.root
        assert size == 0 or root == tree_root(MANY[:size])
    assert size == sum(batches)
    assert tiles.tiles == filled(size).tiles


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_535, 65_536, 65_537, 66_500])
def test_every_tile_is_the_hashes_the_specification_says(size: int) -> None:
    tiles = filled(size)
    for tile in tiles_of(size):
        span = 256**tile.level
        first = tile.index * 256
        expected = [tree_root(MANY[(first + at) * span : (first + at + 1) * span]) for at in range(tile.width)]
        assert read_tile(tiles, tile) == b"".join(expected)
        assert read_tile(WHOLE, tile) == b"".join(expected), "a partial tile is a prefix of the later one"
        assert TileTree(tiles, size).tile(tile) == b"".join(expected)
    assert TileTree(WHOLE, size).root() == tree_root(MANY[:size])


def test_the_tiles_of_the_size_in_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert [sum(tile.level == level for tile in tiles) for level in range(4)] == [274, 2, 1, 0]
    assert [tile for tile in tiles if tile.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == list(bundles_of(0)) == []
    assert list(bundles_of(300)) == [Tile(ENTRIES, 0), Tile(ENTRIES, 1, 44)]


def test_proofs_from_tiles_hold_in_large_trees() -> None:
    chance = random.Random(6962)
    for _ in range(200):
        size = chance.randint(2, len(MANY))
        old, index = chance.randint(1, size), chance.randrange(size)
        tree = TileTree(WHOLE, size)
        verify_inclusion(MANY[index], index, size, tree.prove_inclusion(index), tree.root())
        old_root = TileTree(WHOLE, old).root()
        verify_consistency(old, old_root, size, tree.root(), tree.prove_consistency(old))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(0, 1_234, 7), "tile/0/x001/234.p/7"),
        (Tile(ENTRIES, 0, 255), "tile/entries/000.p/255"),
        (Tile(63, 999), "tile/63/999"),
        (Tile(2, 1000, 1), "tile/2/x001/000.p/1"),
    ],
)
def test_paths_are_those_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_tile_path(path) == tile


@given(st.integers(-1, 63), st.integers(0, 10**18), st.integers(1, 256))
def test_every_path_reads_back(level: int, index: int, width: int) -> None:
    assert parse_tile_path(Tile(level, index, width).path) == Tile(level, index, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/1",
        "tile/00/001",
        "tile/64/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/07",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/entries/../001",
        "tile/0/001\n",
        "/tile/0/001",
        "tile/0/" + "x001/" * 50 + "001",
        "tile/0/٠٠١",
    ],
)
def test_paths_that_are_not_canonical_are_refused(path: str) -> None:
    with pytest.raises(TamperError):
        parse_tile_path(path)


def test_nothing_is_built_upon_a_right_edge_that_was_changed() -> None:
    tiles = filled(700)
    root = TileTree(tiles, 700).root()
    for level, index in [(0, 2), (1, 0)]:
        stored = tiles.tiles[level, index]
        tiles.put(level, index, b"\0" + stored[1:])
        with pytest.raises(TamperError, match="do not lead to the root"):
            integrate(tiles, 700, MANY[700:701], root=root)
        tiles.put(level, index, stored)
    integrate(tiles, 700, MANY[700:701], root=root)


def test_missing_and_short_tiles_are_named() -> None:
    tiles = filled(700)
    del tiles.tiles[0, 2]
    with pytest.raises(TamperError, match=r"tile/0/002\.p/188 is missing"):
        integrate(tiles, 700, MANY[:1])
    tiles.put(0, 2, b"\0" * 32 * 187)
    with pytest.raises(TamperError, match=r"tile/0/002\.p/188 has 5984 bytes"):
        TileTree(tiles, 700).root()
    with pytest.raises(TamperError, match="does not fit the hash"):
        tiles.put(0, 1, b"\0" * 8192)
        TileTree(tiles, 700).tile(Tile(0, 1))


def test_leaves_that_are_no_hashes_are_refused() -> None:
    with pytest.raises(LedgerError):
        integrate(MemoryTiles(), 0, [b"\0" * 31, b"\0" * 33])
    with pytest.raises(LedgerError):
        integrate(MemoryTiles(), -1, MANY[:1])
    with pytest.raises(LedgerError):
        integrate(MemoryTiles(), (1 << 63) - 1, MANY[:1])


@given(st.lists(st.binary(max_size=400), max_size=256))
def test_bundles_read_back(entries: list[bytes]) -> None:
    data = encode_bundle(entries)
    assert decode_bundle(data) == entries
    assert len(data) == sum(2 + len(entry) for entry in entries)


def test_the_longest_entry_fits_and_a_longer_one_does_not() -> None:
    longest = b"e" * MAX_ENTRY_BYTES
    assert decode_bundle(encode_bundle([longest])) == [longest]
    with pytest.raises(LedgerError, match="at most 65535 bytes"):
        encode_bundle([longest + b"e"])
    with pytest.raises(LedgerError, match="at most 256 entries"):
        encode_bundle([b""] * 257)


@pytest.mark.parametrize("data", [b"\0", b"\0\5four", b"\0\1a\0", b"\0\0" * 257])
def test_malformed_bundles_are_refused(data: bytes) -> None:
    with pytest.raises(TamperError):
        decode_bundle(data)
