"""Signed notes (C2SP signed-note, the format of Go's sumdb/note): text, an empty line, and signature lines.

```
any text that ends in a newline

— example.com/log base64(key id || signature)
```
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from tightship.core.errors import LedgerError, TamperError
from tightship.ledger.merkle.keys import Signer, Verifier, decode_base64, is_valid_name

MAX_NOTE_BYTES = 256 * 1024
MAX_SIGNATURES = 100

_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_MARK = "— "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the key's name and id, and what the key signed."""

    name: str
    key_id: int
    data: bytes

    def __str__(self) -> str:
        return f"{_MARK}{self.name} {b64encode(self.key_id.to_bytes(4, 'big') + self.data).decode('ascii')}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """An opened note: its text, the signatures of known keys (all valid), and those of unknown keys (unchecked)."""

    text: str
    signatures: tuple[Signature, ...]
    unverified: tuple[Signature, ...]

    def signed_by(self, verifier: Verifier) -> bool:
        """Whether this key's valid signature is on the note."""
        return any((s.name, s.key_id) == (verifier.name, verifier.key_id) for s in self.signatures)


def sign_note(text: str, *signers: Signer) -> str:
    """The note of a text with the signatures of one or more keys.

    Raises LedgerError when the text does not end in a newline, holds control characters, or nobody signs.
    """
    if not signers:
        raise LedgerError("a note needs a signature")
    _check_text(text)
    return f"{text}\n" + _sign_lines(text, signers)


def add_signatures(note: str, *signers: Signer) -> str:
    """The same note with further signatures at its end, as a witness adds its own.

    The signatures already there are kept byte for byte and are not verified here. Raises TamperError when it is
    no note, LedgerError when one of these keys has signed it already.
    """
    text, present = _parse(note)
    taken = {(signature.name, signature.key_id) for signature in present}
    for signer in signers:
        if (signer.name, signer.key_id) in taken:
            raise LedgerError(f"{signer.name} has signed this note already")
    return note + _sign_lines(text, signers)


def open_note(note: str | bytes, verifiers: Iterable[Verifier]) -> Note:
    """Parse a note and check every signature that a known key is said to have made.

    Parameters: `note`, the whole text, at most `MAX_NOTE_BYTES`; `verifiers`, the keys that are trusted.
    Raises TamperError when it is malformed, when any signature of a known key is wrong, or when no known key
    signed it. Signatures of unknown keys are ignored, as the specification demands.
    """
    text, present = _parse(note)
    known: dict[tuple[str, int], Verifier] = {}
    for verifier in verifiers:
        other = known.setdefault((verifier.name, verifier.key_id), verifier)
        if other.vkey != verifier.vkey:
            raise LedgerError(f"two trusted keys share the name and id of {verifier.name}")
    verified: dict[tuple[str, int], Signature] = {}
    unverified: list[Signature] = []
    for signature in present:
        key = (signature.name, signature.key_id)
        verifier = known.get(key)
        if verifier is None:
            unverified.append(signature)
            continue
        if not verifier.verify(text.encode(), signature.data):
            raise TamperError(f"the signature of {signature.name} does not fit the note's text")
        verified.setdefault(key, signature)
    if not verified:
        names = ", ".join(sorted({name for name, _ in known})) or "none"
        raise TamperError(f"the note bears no signature of a trusted key (trusted: {names})")
    return Note(text, tuple(verified.values()), tuple(unverified))


def _parse(note: str | bytes) -> tuple[str, list[Signature]]:
    try:
        data = note.encode() if isinstance(note, str) else note
        whole = data.decode()
    except UnicodeError:
        raise TamperError("the note is not UTF-8 text") from None
    if len(data) > MAX_NOTE_BYTES:
        raise TamperError(f"a note has at most {MAX_NOTE_BYTES} bytes, this one has {len(data)}")
    if _CONTROL.search(data):
        raise TamperError("the note holds control characters")
    text, empty_line, tail = whole.rpartition("\n\n")
    if not empty_line or not tail.endswith("\n"):
        raise TamperError("the note does not end in signature lines after an empty line")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise TamperError(f"a note has at most {MAX_SIGNATURES} signatures, this one has {len(lines)}")
    return f"{text}\n", [_parse_signature(line) for line in lines]


def _parse_signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    data = decode_base64(encoded)
    if not line.startswith(_MARK) or not is_valid_name(name) or data is None or len(data) < 5:
        raise TamperError(f"{line[:80]!r} is not a signature line")
    return Signature(name, int.from_bytes(data[:4], "big"), data[4:])


def _check_text(text: str) -> None:
    try:
        data = text.encode()
    except UnicodeError:
        raise LedgerError("the text of a note must be valid Unicode") from None
    if not text.endswith("\n") or _CONTROL.search(data) or len(data) > MAX_NOTE_BYTES // 2:
        raise LedgerError("the text of a note ends in a newline, has no control characters and is not too long")


def _sign_lines(text: str, signers: Iterable[Signer]) -> str:
    lines = [str(Signature(signer.name, signer.key_id, signer.sign(text.encode()))) for signer in signers]
    return "".join(lines)
