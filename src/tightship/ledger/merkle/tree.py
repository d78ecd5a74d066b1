"""Hashes and proofs of the Merkle tree of RFC 6962, section 2.1, and RFC 9162, section 2.1.

Sizes count leaves, indexes start at 0, and every hash is 32 bytes of SHA-256. A proof is a list of hashes from
the leaf's side up to the root's side. The functions that verify trust none of their arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Protocol

from tightship.core.errors import LedgerError, TamperError

HASH_SIZE = 32
MAX_SIZE = (1 << 63) - 1
"""Most leaves of a tree: foreign verifiers count them in a signed 64-bit integer."""
MAX_PATH = 64
"""Longest proof that a tree of `MAX_SIZE` leaves can need."""
EMPTY_ROOT = sha256(b"").digest()

_CHUNK_HEIGHT = 8
_CHUNK = 1 << _CHUNK_HEIGHT


class Nodes(Protocol):
    """Reads the hashes of perfect subtrees of a tree."""

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        ...

    def node(self, height: int, index: int) -> bytes:
        """The hash over the leaves from `index << height` up to, not including, `(index + 1) << height`."""
        ...


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry: SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """The leaf hashes of several entries, in order."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes (ValueError for any other number)."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


def fold(edges: Sequence[bytes]) -> bytes:
    """The root over adjacent perfect subtrees, largest (leftmost) first; of none, the root of the empty tree."""
    if not edges:
        return EMPTY_ROOT
    root = edges[-1]
    for edge in reversed(edges[:-1]):
        root = node_hash(edge, root)
    return root


def perfect_parts(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the perfect subtrees, largest first, that these adjacent hashes fall into."""
    parts: list[bytes] = []
    start = 0
    for height in reversed(range(len(hashes).bit_length())):
        if len(hashes) >> height & 1:
            parts.append(perfect_root(hashes[start : start + (1 << height)]))
            start += 1 << height
    return parts


class CompactRange:
    """The right edge of a tree, all that is needed to append to it and to know its root: O(log n) hashes.

    Parameters: `size`, the leaves so far, and `edges`, the hashes of the perfect subtrees they fall into,
    largest first, as many as `size` has one bits. Raises TamperError when the two do not fit.
    """

    __slots__ = ("_edges", "_size")

    def __init__(self, size: int = 0, edges: Iterable[bytes] = ()) -> None:
        self._size = size
        self._edges = list(edges)
        if not 0 <= size <= MAX_SIZE or len(self._edges) != size.bit_count():
            raise TamperError(f"{len(self._edges)} edge hashes do not make a tree of {size} entries")
        _check_hashes(self._edges)

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    @property
    def edges(self) -> tuple[bytes, ...]:
        """Hashes of the perfect subtrees, largest first."""
        return tuple(self._edges)

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        _check_hashes((leaf,))
        self._push(leaf, 0)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Append many leaf hashes; the same as appending each, and faster."""
        _check_hashes(leaves)
        position, end = 0, len(leaves)
        while position < end:
            if self._size % _CHUNK == 0 and end - position >= _CHUNK:
                self._push(perfect_root(leaves[position : position + _CHUNK]), _CHUNK_HEIGHT)
                position += _CHUNK
            else:
                self._push(leaves[position], 0)
                position += 1

    def root(self) -> bytes:
        """The root hash of all leaves so far."""
        return fold(self._edges)

    def _push(self, node: bytes, height: int) -> None:
        full = self._size >> height
        while full & 1:
            node = node_hash(self._edges.pop(), node)
            full >>= 1
        self._edges.append(node)
        self._size += 1 << height


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The root hash of a tree of these leaf hashes."""
    whole = CompactRange()
    whole.extend(leaves)
    return whole.root()


def root_at(nodes: Nodes, size: int) -> bytes:
    """The root that the tree had when it held `size` leaves (LedgerError when it never did)."""
    _check_within(size, nodes.size)
    return _range_root(nodes, 0, size)


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """The audit path of leaf `index` in the tree of the first `size` leaves (RFC 9162, section 2.1.3.1).

    Raises LedgerError when there is no such leaf or no such tree.
    """
    _check_within(size, nodes.size)
    if not 0 <= index < size:
        raise LedgerError(f"there is no entry {index} in a log of {size} entries (they count from 0)")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _left_width(end - start)
        if index < middle:
            path.append(_range_root(nodes, middle, end))
            end = middle
        else:
            path.append(_range_root(nodes, start, middle))
            start = middle
    path.reverse()
    return path


def consistency_proof(nodes: Nodes, old_size: int, size: int) -> list[bytes]:
    """The proof that the tree of `size` leaves only appended to the one of `old_size` (RFC 9162, section 2.1.4.1).

    It is empty when the sizes are equal or the old tree was empty. Raises LedgerError when there are no such trees.
    """
    _check_within(size, nodes.size)
    _check_within(old_size, size)
    path: list[bytes] = []
    start, end = 0, size
    while 0 < old_size < end:
        middle = start + _left_width(end - start)
        if old_size <= middle:
            path.append(_range_root(nodes, middle, end))
            end = middle
        else:
            path.append(_range_root(nodes, start, middle))
            start = middle
    if start:
        path.append(_range_root(nodes, start, end))
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash stands at `index` in the tree of `size` leaves with this root.

    RFC 9162, section 2.1.3.2. Raises TamperError when the proof does not hold or is malformed. As with every
    RFC 6962 verifier, `size` is bound only as far as it shapes the path: take it from a signed checkpoint.
    """
    _check_path(path)
    _check_hashes((leaf, root))
    if not 0 <= index < size <= MAX_SIZE:
        raise TamperError(f"an inclusion proof cannot be about entry {index} of {size}")
    node, last, computed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise TamperError("the inclusion proof has too many hashes for its tree")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            skip = _trailing_zeros(node)
            node >>= skip
            last >>= skip
        else:
            computed = node_hash(computed, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise TamperError("the inclusion proof has too few hashes for its tree")
    if computed != root:
        raise TamperError(f"the inclusion proof of entry {index} does not lead to the tree's root hash")


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree of `size` leaves begins with exactly the tree of `old_size` leaves.

    RFC 9162, section 2.1.4.2. Raises TamperError when the proof does not hold or is malformed.
    """
    _check_path(path)
    _check_hashes((old_root, root))
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise TamperError(f"a log of {size} entries cannot continue one of {old_size}")
    if old_size in (0, size):
        if path:
            raise TamperError("the consistency proof should be empty for these sizes")
        if old_root != (EMPTY_ROOT if old_size == 0 else root) or (size == 0 and root != EMPTY_ROOT):
            raise TamperError(f"there are two different root hashes for the tree of {old_size} entries")
        return
    # The verifier holds the old root already, so a proof from a perfect old tree leaves it out.
    hashes = [old_root, *path] if old_size.bit_count() == 1 else list(path)
    if not hashes or not path:
        raise TamperError("the consistency proof is empty")
    skip = _trailing_ones(old_size - 1)
    node, last = (old_size - 1) >> skip, (size - 1) >> skip
    old_computed = computed = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise TamperError("the consistency proof has too many hashes for its trees")
        if node & 1 or node == last:
            old_computed, computed = node_hash(sibling, old_computed), node_hash(sibling, computed)
            skip = _trailing_zeros(node)
            node >>= skip
            last >>= skip
        else:
            computed = node_hash(computed, sibling)
        node >>= 1
        last >>= 1
    if last != 0:
        raise TamperError("the consistency proof has too few hashes for its trees")
    if old_computed != old_root or computed != root:
        raise TamperError(f"the log of {size} entries does not begin with the log of {old_size} entries")


def _range_root(nodes: Nodes, start: int, end: int) -> bytes:
    """The root over leaves `start` to `end`, a subtree of the tree, so that `start` is aligned."""
    edges: list[bytes] = []
    while start < end:
        height = (end - start).bit_length() - 1
        edges.append(nodes.node(height, start >> height))
        start += 1 << height
    return fold(edges)


def _left_width(width: int) -> int:
    """The largest power of two smaller than `width`: how many leaves lie under the left child."""
    return 1 << ((width - 1).bit_length() - 1)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1 if number else 0


def _trailing_ones(number: int) -> int:
    return _trailing_zeros(number + 1)


def _check_within(size: int, limit: int) -> None:
    if not 0 <= size <= limit:
        raise LedgerError(f"a tree of {size} entries is not part of a log of {limit} entries")


def _check_path(path: Sequence[bytes]) -> None:
    if len(path) > MAX_PATH:
        raise TamperError(f"a proof has at most {MAX_PATH} hashes, this one has {len(path)}")
    _check_hashes(path)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if set(map(len, hashes)) - {HASH_SIZE}:
        raise TamperError(f"a hash has {HASH_SIZE} bytes")
