"""Checkpoints (C2SP tlog-checkpoint): which log, how many entries, which root hash, in a signed note.

A log must never sign two checkpoints of which one does not continue the other; `check_consistency` shows
whether two are of one history. A checkpoint that only its own log signed does not rule out that other people
were shown another history: a witness's cosignature does.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.keys import Signer, Verifier, decode_base64
from tightship.ledger.merkle.note import Note, open_note, sign_note
from tightship.ledger.merkle.tree import EMPTY_ROOT, HASH_SIZE, MAX_SIZE, verify_consistency


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its origin, its size in entries, its root hash, and extension lines (better none)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """The note text. Raises LedgerError when the fields cannot stand in a checkpoint."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode("ascii"), *self.extensions)
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise LedgerError("a checkpoint has a size from 0 and a root hash of 32 bytes")
        if (self.size == 0) != (self.root == EMPTY_ROOT):
            raise LedgerError("the empty log, and it alone, has the root hash of the empty tree")
        if not all(lines) or any("\n" in line for line in lines):
            raise LedgerError("the lines of a checkpoint are not empty")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose signatures were verified, with the opened note."""

    checkpoint: Checkpoint
    note: Note


def sign_checkpoint(checkpoint: Checkpoint, *signers: Signer) -> str:
    """The signed note of a checkpoint. The first key is the log's and bears the origin as its name.

    Raises LedgerError when it does not: foreign verifiers look for the log's key by that name.
    """
    if not signers or signers[0].name != checkpoint.origin:
        raise LedgerError(f"the log {checkpoint.origin!r} signs with a key of that name")
    return sign_note(checkpoint.text(), *signers)


def parse_checkpoint(
    note: str | bytes,
    keys: Sequence[Verifier],
    *,
    origin: str | None = None,
    witnesses: Sequence[Verifier] = (),
    quorum: int = 0,
) -> SignedCheckpoint:
    """Open a checkpoint: check its signatures, its origin and its form.

    Parameters: `keys`, the log's own keys, one of which must have signed (several while a key is being replaced);
    `origin`, the log it must be of, by default the first key's name; `witnesses`, further keys that are known,
    and `quorum`, how many of them must have signed. Raises TamperError when anything does not hold.
    """
    if not keys:
        raise LedgerError("a checkpoint cannot be verified without a key of its log")
    opened = open_note(note, [*keys, *witnesses])
    if not any(opened.signed_by(key) for key in keys):
        raise TamperError("the checkpoint is not signed by its log")
    seen = len({(w.name, w.key_id) for w in witnesses if opened.signed_by(w)})
    if seen < quorum:
        raise TamperError(f"the checkpoint bears {seen} cosignatures of known witnesses, {quorum} are needed")
    checkpoint = parse_checkpoint_text(opened.text)
    expected = keys[0].name if origin is None else origin
    if checkpoint.origin != expected:
        raise TamperError(f"the checkpoint is of the log {checkpoint.origin[:120]!r}, not of {expected!r}")
    return SignedCheckpoint(checkpoint, opened)


def parse_checkpoint_text(text: str) -> Checkpoint:
    """The checkpoint in a note's text, whose signatures the caller has verified (TamperError when malformed)."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise TamperError("a checkpoint has at least three lines and no empty ones")
    origin, size_text, root_text, *extensions = lines
    root = decode_base64(root_text)
    if root is None or len(root) != HASH_SIZE:
        raise TamperError("the third line of a checkpoint is the base64 of a root hash")
    size = parse_number(size_text)
    if size is None or size > MAX_SIZE:
        raise TamperError("the second line of a checkpoint is the number of entries")
    if (size == 0) != (root == EMPTY_ROOT):
        raise TamperError("the empty log, and it alone, has the root hash of the empty tree")
    return Checkpoint(origin, size, root, tuple(extensions))


def check_consistency(old: Checkpoint, new: Checkpoint, path: Sequence[bytes]) -> None:
    """Check that the log at `new` only appended to what it was at `old`.

    Parameter `path`: the consistency proof between the two sizes. Raises TamperError when the checkpoints are of
    two logs, the log became shorter, or the history before `old` was changed.
    """
    if old.origin != new.origin:
        raise TamperError(f"checkpoints of two logs, {old.origin!r} and {new.origin!r}, cannot be compared")
    if new.size < old.size:
        raise TamperError(f"the log has been cut back from {old.size} to {new.size} entries")
    verify_consistency(old.size, old.root, new.size, new.root, path)


def parse_number(text: str) -> int | None:
    """The number of an ASCII decimal without leading zeroes, of at most 19 digits, or None."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (text[0] == "0" and text != "0"):
        return None
    return int(text)
