"""Keys that sign notes: Ed25519 note keys (C2SP signed-note) and witness keys (C2SP tlog-cosignature).

A key has a name, best a URL without scheme, and an id, the first four bytes of
SHA-256(name || newline || signature type || public key). Both public and private keys have a text form:
`name+id+base64(type || public key)` and `PRIVATE+KEY+name+id+base64(type || seed)`, as Go's sumdb/note reads them.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import ClassVar, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tightship.core.errors import LedgerError

NOTE_ED25519 = 0x01
COSIGNATURE_ED25519 = 0x04

_KEY_BYTES = 32
_MAX_NAME_BYTES = 255
_MAX_KEY_TEXT = 512
_MAX_TIMESTAMP = (1 << 63) - 1
_PRIVATE = "PRIVATE+KEY+"
_NAME = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")
_ID = re.compile("[0-9a-f]{8}")


class Verifier(Protocol):
    """Checks signatures of one key."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    @property
    def key_id(self) -> int:
        """The key's id, 32 bits."""
        ...

    @property
    def vkey(self) -> str:
        """The key's text form."""
        ...

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature of this text is valid."""
        ...


class Signer(Protocol):
    """Signs with one key."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    @property
    def key_id(self) -> int:
        """The key's id, 32 bits."""
        ...

    def sign(self, text: bytes) -> bytes:
        """The signature of a note's text."""
        ...


class _PublicKey:
    """A public key's name, id and text form, by its signature type."""

    kind: ClassVar[int]

    def __init__(self, name: str, public_key: bytes) -> None:
        self.name = _checked_name(name)
        self.key_id = _key_id(name, self.kind, public_key)
        self.public_key = public_key
        self._key = Ed25519PublicKey.from_public_bytes(public_key)

    @property
    def vkey(self) -> str:
        """The key's text form."""
        return _vkey(self.name, self.kind, self.public_key)


class NoteVerifier(_PublicKey):
    """The public half of an Ed25519 note key."""

    kind = NOTE_ED25519

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether this is the key's Ed25519 signature of the text."""
        return _verifies(self._key, text, signature)


class NoteSigner:
    """An Ed25519 note key: what the log signs its checkpoints with.

    Parameters: `name`, without spaces and plus signs, and `seed`, the 32 secret bytes of RFC 8032.
    """

    def __init__(self, name: str, seed: bytes) -> None:
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = NoteVerifier(name, self._key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """The key's name."""
        return self.verifier.name

    @property
    def key_id(self) -> int:
        """The key's id."""
        return self.verifier.key_id

    @property
    def vkey(self) -> str:
        """The text form of the public key."""
        return self.verifier.vkey

    def skey(self) -> str:
        """The text form of the private key. Keep it secret."""
        return f"{_PRIVATE}{self.name}+{self.key_id:08x}+{_b64(bytes([NOTE_ED25519]) + self._seed)}"

    def sign(self, text: bytes) -> bytes:
        """The Ed25519 signature of the text (64 bytes)."""
        return self._key.sign(text)


class CosignatureVerifier(_PublicKey):
    """The public half of a witness's key, for cosignatures of checkpoints with a time."""

    kind = COSIGNATURE_ED25519

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature is the witness's, for the time that it states."""
        if len(signature) != 8 + 64 or self.timestamp(signature) > _MAX_TIMESTAMP:
            return False
        return _verifies(self._key, _cosigned(text, self.timestamp(signature)), signature[8:])

    @staticmethod
    def timestamp(signature: bytes) -> int:
        """When a verified cosignature says it was made, in seconds since 1970 UTC."""
        return int.from_bytes(signature[:8], "big")


class CosignatureSigner:
    """A witness's key. `now` gives the time in seconds since 1970 UTC; `seed` is the 32 secret bytes."""

    def __init__(self, name: str, seed: bytes, now: Callable[[], int]) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._now = now
        self.verifier = CosignatureVerifier(name, self._key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """The witness's name."""
        return self.verifier.name

    @property
    def key_id(self) -> int:
        """The key's id."""
        return self.verifier.key_id

    def sign(self, text: bytes) -> bytes:
        """The time (8 bytes) and the Ed25519 signature over time and text (64 bytes)."""
        time = self._now()
        return time.to_bytes(8, "big") + self._key.sign(_cosigned(text, time))


def generate_signer(name: str) -> NoteSigner:
    """A new note key from the operating system's randomness."""
    return NoteSigner(name, Ed25519PrivateKey.generate().private_bytes_raw())


def parse_vkey(vkey: str) -> NoteVerifier | CosignatureVerifier:
    """The verifier that a public key's text names (LedgerError when malformed or of an unknown type)."""
    if vkey.startswith(_PRIVATE):
        raise LedgerError("this is a private key; a public one belongs here")
    name, key_id, kind, key = _parse_key(vkey)
    if kind == NOTE_ED25519:
        verifier = NoteVerifier(name, key)
    elif kind == COSIGNATURE_ED25519:
        verifier = CosignatureVerifier(name, key)
    else:
        raise LedgerError(f"the key {name!r} has the unknown signature type {kind}")
    if verifier.key_id != key_id:
        raise LedgerError(f"the key {name!r} does not match its own id; was it copied in full?")
    return verifier


def parse_skey(skey: str) -> NoteSigner:
    """The signer of a private key's text (LedgerError when malformed; the message never repeats the key)."""
    if not skey.startswith(_PRIVATE):
        raise LedgerError("this is not a private note key")
    name, key_id, kind, key = _parse_key(skey.removeprefix(_PRIVATE))
    if kind != NOTE_ED25519:
        raise LedgerError(f"the private key {name!r} has the unknown signature type {kind}")
    signer = NoteSigner(name, key)
    if signer.key_id != key_id:
        raise LedgerError(f"the private key {name!r} does not match its own id")
    return signer


def is_valid_name(name: str) -> bool:
    """Whether a key may have this name: not empty, no white space, no control characters, no plus sign."""
    return _NAME.fullmatch(name) is not None and len(name.encode()) <= _MAX_NAME_BYTES


def decode_base64(text: str) -> bytes | None:
    """The bytes of RFC 4648 base64 in its one canonical form, or None: no two texts decode to the same bytes."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _b64(data) == text else None


def _parse_key(text: str) -> tuple[str, int, int, bytes]:
    name, _, rest = text.partition("+")
    id_text, _, key_text = rest.partition("+")
    key = decode_base64(key_text) if len(text) <= _MAX_KEY_TEXT else None
    if key is None or len(key) != 1 + _KEY_BYTES or not is_valid_name(name):
        raise LedgerError("a key has the form name+id+base64; this text has not")
    if not _ID.fullmatch(id_text):
        raise LedgerError(f"the id of the key {name!r} is not eight hexadecimal digits")
    return name, int(id_text, 16), key[0], key[1:]


def _checked_name(name: str) -> str:
    if not is_valid_name(name):
        raise LedgerError(f"{name!r} cannot name a key: no white space, no plus sign, 1 to {_MAX_NAME_BYTES} bytes")
    return name


def _key_id(name: str, kind: int, public_key: bytes) -> int:
    return int.from_bytes(sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4], "big")


def _vkey(name: str, kind: int, public_key: bytes) -> str:
    return f"{name}+{_key_id(name, kind, public_key):08x}+{_b64(bytes([kind]) + public_key)}"


def _verifies(key: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _cosigned(text: bytes, time: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % time + text


def _b64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
