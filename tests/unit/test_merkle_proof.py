"""A proof bundle convinces whoever holds the log's public key, and no changed one does."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.checkpoint import Checkpoint, sign_checkpoint
from tightship.ledger.merkle.keys import CosignatureSigner, NoteSigner
from tightship.ledger.merkle.note import add_signatures
from tightship.ledger.merkle.proof import (
    MAX_BUNDLE_BYTES,
    ProofBundle,
    build_bundle,
    parse_bundle,
    verify_bundle,
)
from tightship.ledger.merkle.tiles import MAX_ENTRY_BYTES, MemoryTiles, TileTree, integrate
from tightship.ledger.merkle.tree import leaf_hashes, tree_root

LOG = NoteSigner("example.com/log", b"\1" * 32)
WITNESS = CosignatureSigner("witness.example/w1", b"\2" * 32, now=lambda: 1_700_000_000)
ENTRIES = [f"entry {number}".encode() for number in range(300)]
TILES = MemoryTiles()
integrate(TILES, 0, leaf_hashes(ENTRIES)).write(TILES)


def checkpoint(size: int = 300) -> str:
    return sign_checkpoint(Checkpoint(LOG.name, size, TileTree(TILES, size).root()), LOG)


BUNDLE = build_bundle(TILES, 123, ENTRIES[123], checkpoint(), LOG.verifier)


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_every_entry_can_be_proven_under_every_checkpoint(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    bundle = build_bundle(TILES, index, ENTRIES[index], checkpoint(size), LOG.verifier)
    proven = verify_bundle(bundle, LOG.vkey)
    assert (proven.entry, proven.index, proven.checkpoint.size) == (ENTRIES[index], index, size)
    assert parse_bundle(bundle).text() == bundle
    assert verify_bundle(bundle.encode(), LOG.vkey, entry=ENTRIES[index]) == proven


def test_the_text_is_the_format_of_the_specification() -> None:
    bundle = build_bundle(TILES, 2, ENTRIES[2], checkpoint(3), LOG.verifier)
    sibling = b64encode(tree_root(leaf_hashes(ENTRIES[:2]))).decode()
    assert bundle == f"c2sp.org/tlog-proof@v1\nextra ZW50cnkgMg==\nindex 2\n{sibling}\n\n{checkpoint(3)}"


@settings(deadline=None, max_examples=400)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_byte_of_a_bundle_can_be_changed(at: int, change: int) -> None:
    data = bytearray(BUNDLE.encode())
    data[at % len(data)] ^= change
    with pytest.raises(TamperError):
        verify_bundle(bytes(data), LOG.vkey)


@settings(deadline=None)
@given(st.data())
def test_no_line_of_a_bundle_can_be_dropped_doubled_or_moved(data: st.DataObject) -> None:
    lines = BUNDLE.splitlines(keepends=True)
    # Not the last line: the same key signing the same text twice says nothing new.
    at = data.draw(st.integers(0, len(lines) - 2))
    dropped = lines[:at] + lines[at + 1 :]
    doubled = [*lines[: at + 1], *lines[at:]]
    swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
    for wrong in (dropped, doubled, swapped, lines[:-1]):
        with pytest.raises(TamperError):
            verify_bundle("".join(wrong), LOG.vkey)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_parsing_survives_any_input(data: bytes | str) -> None:
    for bundle in (data, f"c2sp.org/tlog-proof@v1\nindex 0\n{data!s}\n\n{checkpoint()}"):
        with pytest.raises(TamperError):
            verify_bundle(bundle, LOG.vkey)


@pytest.mark.parametrize(
    "bundle",
    [
        "c2sp.org/tlog-proof@v2\nindex 0\n\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\n\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\nextra \nindex 0\n\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\nindex 00\n\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\nindex -1\n\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\nindex 9223372036854775807\n\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\nindex 0\n" + ("A" * 43 + "=\n") * 65 + "\n" + checkpoint(),
        "c2sp.org/tlog-proof@v1\nindex 0\n" + "A" * MAX_BUNDLE_BYTES,
        BUNDLE.replace("\n", "\r\n"),
        b"c2sp.org/tlog-proof@v1\n\xff",
    ],
)
def test_malformed_bundles_are_refused(bundle: str | bytes) -> None:
    with pytest.raises(TamperError):
        parse_bundle(bundle)


def test_the_entry_may_stay_outside_the_bundle() -> None:
    parsed = parse_bundle(BUNDLE)
    bare = ProofBundle(parsed.index, parsed.path, parsed.checkpoint).text()
    assert "extra" not in bare
    assert verify_bundle(bare, LOG.vkey, entry=ENTRIES[123]).index == 123
    with pytest.raises(TamperError, match="does not carry its entry"):
        verify_bundle(bare, LOG.vkey)
    for bundle in (bare, BUNDLE):
        with pytest.raises(TamperError):
            verify_bundle(bundle, LOG.vkey, entry=ENTRIES[124])


def test_another_logs_key_or_origin_does_not_verify_it() -> None:
    stranger = NoteSigner("example.com/log", b"\7" * 32)
    with pytest.raises(TamperError):
        verify_bundle(BUNDLE, stranger.vkey)
    with pytest.raises(TamperError):
        verify_bundle(BUNDLE, LOG.vkey, origin="example.com/other")
    with pytest.raises(LedgerError):
        verify_bundle(BUNDLE)


def test_witnesses_can_be_demanded() -> None:
    witnessed = build_bundle(TILES, 5, ENTRIES[5], add_signatures(checkpoint(), WITNESS), LOG.verifier)
    vkey = WITNESS.verifier.vkey
    assert verify_bundle(witnessed, LOG.vkey, witnesses=[vkey], quorum=1).index == 5
    with pytest.raises(TamperError):
        verify_bundle(BUNDLE, LOG.vkey, witnesses=[vkey], quorum=1)


def test_no_bundle_is_built_that_would_not_verify() -> None:
    with pytest.raises(TamperError):
        build_bundle(TILES, 5, ENTRIES[6], checkpoint(), LOG.verifier)
    with pytest.raises(LedgerError, match="no entry 200"):
        build_bundle(TILES, 200, ENTRIES[200], checkpoint(150), LOG.verifier)
    with pytest.raises(LedgerError, match="at most 65535"):
        build_bundle(TILES, 5, b"e" * (MAX_ENTRY_BYTES + 1), checkpoint(), LOG.verifier)
    broken = MemoryTiles()
    broken.tiles = {**TILES.tiles, (0, 0): b"\0" + TILES.tiles[0, 0][1:]}
    with pytest.raises(TamperError):
        build_bundle(broken, 5, ENTRIES[5], checkpoint(), LOG.verifier)


def test_the_longest_entry_fits_into_a_bundle() -> None:
    entry = b"e" * MAX_ENTRY_BYTES
    tiles = MemoryTiles()
    head = integrate(tiles, 0, leaf_hashes([entry]))
    head.write(tiles)
    note = sign_checkpoint(Checkpoint(LOG.name, 1, head.root), LOG)
    assert verify_bundle(build_bundle(tiles, 0, entry, note, LOG.verifier), LOG.vkey).entry == entry
