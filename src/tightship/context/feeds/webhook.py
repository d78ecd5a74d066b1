"""Signed webhooks, as Standard Webhooks 1.0 has them: https://github.com/standard-webhooks/standard-webhooks

The signature is HMAC-SHA256 over `ID.TIMESTAMP.BODY` in base 64, in the header `webhook-signature` as `v1,…`; several
may stand there, divided by blanks, while a sender changes its secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from tightship.context.feeds.port import MAX_ID, Delivery

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
MIN_SECRET: Final = 24
"""Bytes that a secret has at least, as the standard says."""
_SIGNATURES: Final = 8
_PREFIX: Final = "whsec_"


def secret_bytes(secret: str) -> bytes:
    """The key of a secret: base 64 behind `whsec_`, else its own bytes.

    Raises:
        ValueError: it is no base 64, or shorter than 24 bytes.
    """
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("what stands behind whsec_ is no base 64") from None
    else:
        key = secret.encode()
    if len(key) < MIN_SECRET:
        raise ValueError(f"it has {len(key)} bytes, and fewer than {MIN_SECRET} can be guessed")
    return key


def sign(key: bytes, id: str, at: int, body: bytes) -> dict[str, str]:
    """The three headers of a delivery.

    Args:
        key: as `secret_bytes` gives it. id: the delivery's name. at: when it is sent (s since 1970).
    """
    return {ID: id, TIMESTAMP: str(at), SIGNATURE: f"v1,{_mac(key, id, str(at), body)}"}


def verified(key: bytes, headers: Mapping[str, str], body: bytes, now: float, window: float) -> Delivery | None:
    """The delivery, if whoever has the secret has sent it within the window; None otherwise.

    Args:
        headers: by lower-case name. now: s since 1970. window: seconds that its time may lie off.
    """
    id, stamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not (0 < len(id) <= MAX_ID and id.isascii() and id.isprintable()):
        return None
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 11) or abs(now - int(stamp)) > window:
        return None
    right = _mac(key, id, stamp, body).encode()
    for given in headers.get(SIGNATURE, "").split(" ")[:_SIGNATURES]:
        version, _, value = given.partition(",")
        if version == "v1" and hmac.compare_digest(value.encode(), right):
            return Delivery(id, float(stamp), body)
    return None


def _mac(key: bytes, id: str, stamp: str, body: bytes) -> str:
    digest = hmac.digest(key, f"{id}.{stamp}.".encode() + body, hashlib.sha256)
    return base64.b64encode(digest).decode()
