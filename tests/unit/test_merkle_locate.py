"""Whatever is changed in a log, the change is found, and it is said where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.ledger.merkle.locate import Damage, locate_damage
from tightship.ledger.merkle.tiles import MemoryTiles, integrate
from tightship.ledger.merkle.tree import EMPTY_ROOT, leaf_hash, leaf_hashes

SIZE = 66_100
LEAVES = leaf_hashes(b"%d" % number for number in range(SIZE))
GOOD = MemoryTiles()
HEAD = integrate(GOOD, 0, LEAVES)
HEAD.write(GOOD)
OTHER = leaf_hash(b"another entry")


def copy() -> MemoryTiles:
    tiles = MemoryTiles()
    tiles.tiles = dict(GOOD.tiles)
    return tiles


def with_flip(tiles: MemoryTiles, level: int, index: int, byte: int) -> None:
    data = bytearray(tiles.tiles[level, index])
    data[byte % len(data)] ^= 1
    tiles.put(level, index, bytes(data))


def locate(tiles: MemoryTiles, leaves: list[bytes] = LEAVES) -> list[Damage]:
    return locate_damage(tiles, SIZE, HEAD.root, leaves)


def test_an_untouched_log_has_no_damage() -> None:
    assert locate(GOOD) == []
    assert locate(GOOD, [*LEAVES, OTHER]) == [], "entries appended since do not matter"
    assert locate_damage(MemoryTiles(), 0, EMPTY_ROOT, []) == []


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(sorted(GOOD.tiles)), st.integers(0, 8191))
def test_a_flipped_byte_of_a_tile_is_located_to_the_hash(tile: tuple[int, int], byte: int) -> None:
    tiles = copy()
    with_flip(tiles, *tile, byte)
    at = byte % len(GOOD.tiles[tile]) // 32
    assert locate(tiles) == [Damage("tile", tile[1] * 256 + at, tile[0])]


@settings(deadline=None, max_examples=12)
@given(st.sets(st.integers(0, SIZE - 1), min_size=1, max_size=5))
def test_changed_entries_are_located(indexes: set[int]) -> None:
    leaves = list(LEAVES)
    for index in indexes:
        leaves[index] = OTHER
    assert locate(GOOD, leaves) == [Damage("entry", index) for index in sorted(indexes)]


def test_removed_entries_and_missing_tiles_are_located() -> None:
    assert locate(GOOD, LEAVES[:4000]) == [Damage("missing", 4000)]
    tiles = copy()
    del tiles.tiles[1, 1]
    assert [(found.kind, found.level) for found in locate(tiles)] == [("tile", 1)] * 2
    tiles.put(1, 1, GOOD.tiles[1, 1] + b"\0")
    assert locate(tiles) == [Damage("tile", 257, 1)]


def test_an_entry_and_a_tile_changed_together_do_not_hide_each_other() -> None:
    tiles, leaves = copy(), list(LEAVES)
    leaves[1000] = OTHER
    with_flip(tiles, 1, 0, 5)
    assert locate(tiles, leaves) == [Damage("either", 1000)]


def test_a_history_rewritten_with_all_its_hashes_still_does_not_fit_the_signed_root() -> None:
    leaves = [OTHER, *LEAVES[1:]]
    tiles = MemoryTiles()
    integrate(tiles, 0, leaves).write(tiles)
    assert locate(tiles, leaves) == [Damage("root", 0)]


def test_a_log_damaged_everywhere_gives_a_bounded_answer() -> None:
    assert len(locate(GOOD, [OTHER] * SIZE)) == 1000


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Damage("entry", 17), "entry 17 is not what was signed"),
        (Damage("tile", 257, 1), "tile/1, tile 1, hash 1"),
        (Damage("either", 3), "entry 3 and its stored hash differ"),
        (Damage("missing", 3), "entries from 3 on"),
        (Damage("root", 0), "do not lead to the signed root"),
    ],
)
def test_damage_is_told_in_words(damage: Damage, words: str) -> None:
    assert words in str(damage)
