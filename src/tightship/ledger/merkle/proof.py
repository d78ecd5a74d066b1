"""One entry with the proof that it is in the log, as text that can be checked offline (C2SP tlog-proof v1).

```
c2sp.org/tlog-proof@v1
extra base64(the entry)
index 73894
base64(hash)          one line per hash, from the leaf's sibling up

example.com/log       the signed checkpoint, word for word
109482
base64(root hash)

— example.com/log base64(signature)
```

The entry stands in the `extra` line, which the format leaves to the application and does not authenticate; the
inclusion proof does, because the entry's hash is what it starts from.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.checkpoint import Checkpoint, parse_checkpoint, parse_number
from tightship.ledger.merkle.keys import Verifier, decode_base64, parse_vkey
from tightship.ledger.merkle.note import MAX_NOTE_BYTES
from tightship.ledger.merkle.tiles import MAX_ENTRY_BYTES, TileSource, TileTree
from tightship.ledger.merkle.tree import HASH_SIZE, MAX_PATH, MAX_SIZE, leaf_hash, verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
MAX_BUNDLE_BYTES = MAX_NOTE_BYTES + 2 * MAX_ENTRY_BYTES + 64 * MAX_PATH


@dataclass(frozen=True, slots=True)
class ProofBundle:
    """A parsed proof, nothing of it verified yet: the entry if it came along, its index, path and checkpoint."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    entry: bytes | None = None

    def text(self) -> str:
        """The bundle as tlog-proof text."""
        lines = [HEADER]
        if self.entry:
            lines.append(f"extra {_b64(self.entry)}")
        lines.append(f"index {self.index}")
        lines += [_b64(step) for step in self.path]
        return "\n".join(lines) + "\n\n" + self.checkpoint


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry that was shown to stand at `index` of the log under this signed checkpoint."""

    entry: bytes
    index: int
    checkpoint: Checkpoint


def build_bundle(tiles: TileSource, index: int, entry: bytes, checkpoint: str, *keys: Verifier) -> str:
    """The proof text of one entry under a signed checkpoint, verified before it is handed out.

    Parameters: `entry`, the exact bytes whose hash is the leaf; `keys`, the log's own keys. Raises LedgerError
    when there is no such entry under this checkpoint, TamperError when what is stored does not prove it.
    """
    if len(entry) > MAX_ENTRY_BYTES:
        raise LedgerError(f"an entry of the log has at most {MAX_ENTRY_BYTES} bytes, not {len(entry)}")
    head = parse_checkpoint(checkpoint, keys).checkpoint
    path = TileTree(tiles, head.size).prove_inclusion(index)
    verify_inclusion(leaf_hash(entry), index, head.size, path, head.root)
    return ProofBundle(index, tuple(path), checkpoint, entry).text()


def verify_bundle(
    bundle: str | bytes,
    *vkeys: str,
    entry: bytes | None = None,
    origin: str | None = None,
    witnesses: Sequence[str] = (),
    quorum: int = 0,
) -> ProvenEntry:
    """Check a proof text against the log's public key; no log, store or network is needed.

    Parameters: `vkeys`, the text form of the log's keys; `entry`, the entry's bytes when they are known: the
    bundle must then be about them; `origin`, `witnesses` (text form of their keys) and `quorum` as in
    `parse_checkpoint`. Raises TamperError when anything does not hold, LedgerError when a key is malformed.
    """
    proof = parse_bundle(bundle)
    if entry is None:
        entry = proof.entry
    if entry is None:
        raise TamperError("the proof does not carry its entry", fix="give the entry's bytes beside it")
    if proof.entry is not None and proof.entry != entry:
        raise TamperError("the proof is about another entry")
    head = parse_checkpoint(
        proof.checkpoint,
        [parse_vkey(vkey) for vkey in vkeys],
        origin=origin,
        witnesses=[parse_vkey(vkey) for vkey in witnesses],
        quorum=quorum,
    ).checkpoint
    verify_inclusion(leaf_hash(entry), proof.index, head.size, proof.path, head.root)
    return ProvenEntry(entry, proof.index, head)


def parse_bundle(bundle: str | bytes) -> ProofBundle:
    """Read a proof text without verifying it (TamperError when malformed or longer than `MAX_BUNDLE_BYTES`)."""
    if len(bundle) > MAX_BUNDLE_BYTES:
        raise TamperError(f"a proof has at most {MAX_BUNDLE_BYTES} bytes")
    try:
        text = bundle.decode() if isinstance(bundle, bytes) else bundle
    except UnicodeError:
        raise TamperError("the proof is not UTF-8 text") from None
    head, empty_line, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != HEADER or not empty_line:
        raise TamperError(f"a proof begins with the line {HEADER} and ends in a checkpoint after an empty line")
    entry = None
    if lines and lines[0].startswith("extra "):
        entry = decode_base64(lines.pop(0).removeprefix("extra "))
        if not entry:
            raise TamperError("the extra line of the proof is not base64")
    name, _, number = lines.pop(0).partition(" ") if lines else ("", "", "")
    index = parse_number(number) if name == "index" else None
    if index is None or index >= MAX_SIZE:
        raise TamperError("the proof has no index line")
    if len(lines) > MAX_PATH:
        raise TamperError(f"a proof has at most {MAX_PATH} hashes, this one has {len(lines)}")
    return ProofBundle(index, tuple(_parse_hash(line) for line in lines), checkpoint, entry)


def _parse_hash(line: str) -> bytes:
    data = decode_base64(line)
    if data is None or len(data) != HASH_SIZE:
        raise TamperError(f"{line[:60]!r} is not the base64 of a hash")
    return data


def _b64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
