"""The Merkle tree computes RFC 6962 hashes, and its proofs hold exactly for what they claim."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.tiles import MemoryTiles, TileTree, integrate
from tightship.ledger.merkle.tree import (
    EMPTY_ROOT,
    MAX_SIZE,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    node_hash,
    root_at,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

# The eight entries and the nine roots that the test suites of Certificate Transparency logs share.
VECTOR_ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
VECTOR_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

LARGEST = 70


def entries(count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(count)]


def textbook_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + textbook_root(leaves[:split]) + textbook_root(leaves[split:])).digest()


def tree_of(count: int) -> TileTree:
    tiles = MemoryTiles()
    integrate(tiles, 0, leaf_hashes(entries(count))).write(tiles)
    return TileTree(tiles, count)


def flipped(data: bytes, bit: int) -> bytes:
    at, shift = divmod(bit % (8 * len(data)), 8)
    return data[:at] + bytes([data[at] ^ 1 << shift]) + data[at + 1 :]


TREE = tree_of(LARGEST)
ROOTS = [textbook_root(leaf_hashes(entries(size))) for size in range(LARGEST + 1)]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_shared_test_vectors(size: int) -> None:
    assert tree_root(leaf_hashes(VECTOR_ENTRIES[:size])).hex() == VECTOR_ROOTS[size]


def test_the_shared_vector_of_an_inclusion_proof() -> None:
    tiles = MemoryTiles()
    head = integrate(tiles, 0, leaf_hashes(VECTOR_ENTRIES))
    head.write(tiles)
    assert [step.hex() for step in TileTree(tiles, 8).prove_inclusion(0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


def test_leaf_and_node_hashes_have_different_prefixes() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(b"a") == sha256(b"\x00a").digest()
    assert node_hash(left, right) == sha256(b"\x01" + left + right).digest()
    assert leaf_hash(left + right) != node_hash(left, right)


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=8), st.integers(0, 3))
def test_a_compact_range_gives_the_same_root_however_it_was_fed(batches: list[int], singles: int) -> None:
    leaves = leaf_hashes(entries(sum(batches) + singles))
    grown = CompactRange()
    for batch in batches:
        grown.extend(leaves[grown.size : grown.size + batch])
        grown = CompactRange(grown.size, grown.edges)
    for leaf in leaves[grown.size :]:
        grown.append(leaf)
    assert grown.size == len(leaves)
    assert len(grown.edges) == len(leaves).bit_count()
    assert grown.root() == textbook_root(leaves) == tree_root(leaves)


@pytest.mark.parametrize(
    ("size", "edges"), [(1, []), (0, [EMPTY_ROOT]), (-1, []), (2, [b"short"]), (1 << 63, [EMPTY_ROOT])]
)
def test_a_compact_range_refuses_edges_that_do_not_fit(size: int, edges: list[bytes]) -> None:
    with pytest.raises(TamperError):
        CompactRange(size, edges)


def test_every_entry_of_every_small_tree_is_proven() -> None:
    for size in range(1, LARGEST + 1):
        assert root_at(TREE, size) == ROOTS[size]
        for index in range(size):
            path = inclusion_proof(TREE, index, size)
            verify_inclusion(TREE.leaf(index), index, size, path, ROOTS[size])


def test_every_pair_of_small_trees_is_consistent_and_no_other_history_is() -> None:
    other = leaf_hash(b"another history")
    for size in range(LARGEST + 1):
        for old in range(size + 1):
            path = consistency_proof(TREE, old, size)
            verify_consistency(old, ROOTS[old], size, ROOTS[size], path)
            with pytest.raises(TamperError):
                verify_consistency(old, other, size, ROOTS[size], path)
            if old:  # every log continues the empty one
                with pytest.raises(TamperError):
                    verify_consistency(old, ROOTS[old], size, other, path)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_tampered_inclusion_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LARGEST))
    index = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 255))
    leaf, path, root = TREE.leaf(index), inclusion_proof(TREE, index, size), ROOTS[size]
    wrong_index = data.draw(st.integers(0, size).filter(lambda other: other != index))
    tampered = [
        (flipped(leaf, bit), index, path, root),
        (leaf, index, path, flipped(root, bit)),
        (leaf, wrong_index, path, root),
        (leaf, index, [*path, leaf], root),
    ]
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        tampered += [
            (leaf, index, [*path[:at], flipped(path[at], bit), *path[at + 1 :]], root),
            (leaf, index, path[:at] + path[at + 1 :], root),
            (leaf, index, [*path[:at], path[at][:-1], *path[at + 1 :]], root),
        ]
    for wrong_leaf, wrong_at, wrong_path, wrong_root in tampered:
        with pytest.raises(TamperError):
            verify_inclusion(wrong_leaf, wrong_at, size, wrong_path, wrong_root)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_tampered_consistency_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, LARGEST))
    old = data.draw(st.integers(1, size - 1))
    bit = data.draw(st.integers(0, 255))
    path = consistency_proof(TREE, old, size)
    at = data.draw(st.integers(0, len(path) - 1))
    for wrong in (
        [*path[:at], flipped(path[at], bit), *path[at + 1 :]],
        path[:at] + path[at + 1 :],
        [*path, path[at]],
        [path[0], *path],
        [],
    ):
        with pytest.raises(TamperError):
            verify_consistency(old, ROOTS[old], size, ROOTS[size], wrong)


@given(
    st.binary(max_size=33),
    st.integers(-2, MAX_SIZE + 2),
    st.integers(-2, MAX_SIZE + 2),
    st.lists(st.binary(min_size=31, max_size=33), max_size=70),
    st.binary(min_size=31, max_size=33),
)
def test_verification_raises_nothing_but_tampering(
    leaf: bytes, index: int, size: int, path: list[bytes], root: bytes
) -> None:
    with suppress(TamperError):
        verify_inclusion(leaf, index, size, path, root)
    with suppress(TamperError):
        verify_consistency(index, leaf, size, root, path)


def test_the_empty_log_has_one_root_only() -> None:
    verify_consistency(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])
    for old_root, size, root in ((ROOTS[1], 0, ROOTS[1]), (EMPTY_ROOT, 0, ROOTS[1]), (ROOTS[1], 1, ROOTS[1])):
        with pytest.raises(TamperError):
            verify_consistency(0, old_root, size, root, [])


def test_proofs_longer_than_any_tree_needs_are_refused_before_hashing() -> None:
    with pytest.raises(TamperError, match="at most 64"):
        verify_inclusion(EMPTY_ROOT, 0, MAX_SIZE, [EMPTY_ROOT] * 65, EMPTY_ROOT)


def test_asking_for_what_is_not_in_the_tree_is_an_error() -> None:
    for index, size in ((5, 5), (-1, 5), (0, LARGEST + 1), (0, 0)):
        with pytest.raises(LedgerError):
            inclusion_proof(TREE, index, size)
    for old, size in ((6, 5), (-1, 5), (0, LARGEST + 1)):
        with pytest.raises(LedgerError):
            consistency_proof(TREE, old, size)
    with pytest.raises(LedgerError):
        TREE.node(3, LARGEST // 8)
