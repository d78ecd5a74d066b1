"""Identifiers: sortable by time where they are made, derived by hash where they must come out the same again."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from tightship.core.world import World

_CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789abcdefghjkmnpqrstvwxyz")

CONDUCT: Final = "conduct"
"""Stands in place of a run's id in entries about how agents behave: they are about many runs, and of none."""
BREAKERS: Final = "breakers"
"""The same in entries about breakers, which all workers of a shared store heed."""


def encode(raw: bytes) -> str:
    """Lower-case Crockford base 32 without padding; it keeps the order of equally long byte strings."""
    return base64.b32encode(raw).decode().rstrip("=").translate(_CROCKFORD)


def new_id(prefix: str, world: World) -> str:
    """`PREFIX-` and 80 bits: 45 of milliseconds since the epoch, then chance. Later ids sort later."""
    stamp = int(world.clock.now() * 1000)
    raw = (stamp << 32).to_bytes(10, "big")
    noise = int.from_bytes(world.chance.token(4), "big")
    return f"{prefix}-{encode((int.from_bytes(raw, 'big') | noise).to_bytes(10, 'big'))}"


def derived_id(prefix: str, *parts: str) -> str:
    """An id that is the same whenever its parts are the same (a child run, an inbox item, a span)."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return f"{prefix}-{encode(digest[:10])}"
