"""HMAC-SHA256 (RFC 2104) of short texts without giving up the interpreter lock.

`hmac.digest` gives it up for every value, however short, and the event loop then waits until the writer's thread lets
it go on, which takes longer than the hash.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

BLOCK_BYTES: Final = 64
"""Bytes of a block of SHA-256."""
INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
"""Tables for `bytes.translate`, which mix the key into either half."""


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """The HMAC of some bytes."""
    block = (key if len(key) <= BLOCK_BYTES else sha256(key).digest()).ljust(BLOCK_BYTES, b"\0")
    return sha256(block.translate(OUTER) + sha256(block.translate(INNER) + data).digest()).digest()
