"""Payloads: sealed once, addressed by content, unreadable and incomparable without their scope's key.

address = time || SHA-256(salt || plaintext)[:28], salt = HMAC(scope key, plaintext): equal values of one scope share a
row, and nobody without the key can test a guess. The time (4 bytes, seconds) is when the youngest of the scope's keys
was made: what is written at about the same time lies together in the index of addresses, so that a commit touches a few
of its pages and not one for each value. Sealing is AES-256-GCM under a key derived from all of the scope's keys; the
nonce is taken from the address's hash, which differs whenever the plaintext does.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tightship.core.errors import PayloadTooLarge, TamperError
from tightship.ledger._hmac import BLOCK_BYTES, INNER, OUTER
from tightship.ledger.entries import SealedPayload
from tightship.ledger.keyring import Key, Keyring, combine, derive, erased_key, plain_address

PUBLIC = ""
COMPRESS_FROM = 192
"""Bytes from which compression is tried."""
MAX_BYTES = 16 * 1024 * 1024
"""The largest value that is taken, in bytes of JSON."""
_HASH_DIGITS = 56
_NONCE_BYTES = 12
_RAW, _ZLIB = b"\x00", b"\x01"


class ScopeKeys:
    """The derived keys of one scope."""

    __slots__ = ("_inner", "_outer", "_time", "aead", "scope")

    def __init__(self, scope: str, keys: Sequence[Key]) -> None:
        self.scope = scope
        key = combine([key.secret for key in keys])
        self._time = f"{int(max(key.created for key in keys)) & 0xFFFFFFFF:08x}"
        self.aead = AESGCM(derive(key, b"seal"))
        # The two halves of HMAC-SHA256 with their key hashed in, which is done once and not for every value.
        salt = derive(key, b"salt").ljust(BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(salt.translate(INNER))
        self._outer = hashlib.sha256(salt.translate(OUTER))

    def address(self, data: bytes) -> str:
        """The address that these bytes have in this scope."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return self._time + hashlib.sha256(outer.digest() + data).hexdigest()[:_HASH_DIGITS]


def encode(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no white space.

    Raises:
        PayloadTooLarge: more than MAX_BYTES.
        TypeError: the value is no JSON.
    """
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(
            f"a value of {len(data):,} bytes is over the limit of {MAX_BYTES:,}",
            fix="return a reference (a file, an id) in place of the data itself",
        )
    return data


class Vault:
    """Seals and opens values."""

    _CACHE = 2048

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self._scopes: dict[str, ScopeKeys] = {}
        self._tombstones = 0

    def scope(self, names: Iterable[str]) -> str:
        """The scope of these key names; it is sealed with all of them."""
        return "+".join(sorted(name.replace("%", "%25").replace("+", "%2B") for name in names))

    def new_scope(self, name: str) -> str:
        """A scope of one key that is new by its making."""
        scope = self.scope((name,))
        self._keys_of(scope, [self.keyring.create(name)])
        return scope

    def subjects(self, tenant: str, subjects: Iterable[str]) -> list[str]:
        """The names of data subjects' keys. They may be looked up: call it off the event loop."""
        return [self.keyring.subject(tenant, subject) for subject in sorted(subjects)]

    def scope_of_run(self, run: str, tenant: str, subjects: Iterable[str], new: bool) -> str:
        """The scope of a run's own key and those of its data subjects; a `new` run's key is not looked up.

        Other keys may be, and a look-up may wait until another key is on the disk: call it off the event loop.
        """
        if new:
            self.keyring.create(run)
        names = self.subjects(tenant, subjects)
        scope = self.scope([run, f"tenant:{tenant}", *names] if names else [run])
        self.keys(scope)
        return scope

    def keys(self, scope: str, create: bool = True) -> ScopeKeys:
        """The scope's derived keys; those that are new are made, but never to open something.

        Raises:
            PayloadErased: one of its keys was destroyed. StoreMissing: there is no such key.
        """
        if self._tombstones != len(self.keyring.erased):
            self._drop_erased()
        known = self._scopes.get(scope)
        if known is not None:
            return known
        return self._keys_of(scope, [self.keyring.look_up(name, create) for name in names_of(scope)])

    def _keys_of(self, scope: str, parts: Sequence[Key]) -> ScopeKeys:
        if len(self._scopes) >= self._CACHE:
            for old in list(self._scopes)[: self._CACHE // 2]:
                self._scopes.pop(old, None)
        keys = self._scopes[scope] = ScopeKeys(scope, parts)
        erased = self.keyring.erased
        if erased and (gone := erased.intersection(names_of(scope))):  # while it was derived
            self._scopes.pop(scope, None)
            raise erased_key(min(gone))
        return keys

    def _drop_erased(self) -> None:
        """Drop what was derived from keys that were erased since the last look."""
        erased = self.keyring.erased
        self._tombstones = len(erased)
        for scope in list(self._scopes):
            if not erased.isdisjoint(names_of(scope)):
                self._scopes.pop(scope, None)

    def forget(self, name: str) -> None:
        """Drop what was derived from a key: it was destroyed, or another process's key stands in its place."""
        for scope in list(self._scopes):
            if name in names_of(scope):
                self._scopes.pop(scope, None)

    def address(self, scope: str, data: bytes) -> str:
        """The address that these bytes have in this scope."""
        if not scope:
            return plain_address(data)
        return self.keys(scope).address(data)

    def lost(self, scope: str) -> ScopeKeys:
        """Keys that nobody keeps, for what still comes of a scope that was erased: it can be stored, and never read."""
        return ScopeKeys(scope, [self.keyring.stray()])

    def seal(self, scope: str, data: bytes, address: str | None = None, keys: ScopeKeys | None = None) -> SealedPayload:
        """Ready to be stored. `data` is what `encode` gave; `address` and `keys` when they are known already."""
        packed = _pack(data)
        if not scope:
            return SealedPayload(address or plain_address(data), PUBLIC, packed)
        keys = keys or self.keys(scope)
        if address is None:
            address = keys.address(data)
        raw = bytes.fromhex(address)
        return SealedPayload(address, scope, keys.aead.encrypt(raw[-_NONCE_BYTES:], packed, raw))

    def open(self, address: str, scope: str, sealed: bytes) -> bytes:
        """The plaintext; its address is checked.

        Raises:
            PayloadErased: a key of the scope was destroyed. StoreMissing: the keystore has lost one.
            TamperError: the sealed bytes are not what was stored under this address.
        """
        packed = sealed
        if scope:
            raw = bytes.fromhex(address)
            try:
                packed = self.keys(scope, create=False).aead.decrypt(raw[-_NONCE_BYTES:], sealed, raw)
            except (InvalidTag, ValueError):
                raise TamperError(f"payload {address} was changed: its seal does not open") from None
        data = _unpack(address, packed)
        if self.address(scope, data) != address:
            raise TamperError(f"payload {address} was changed: it has another address")
        return data


def names_of(scope: str) -> list[str]:
    """The names of the keys that a scope is made of."""
    names = scope.split("+")
    return [name.replace("%2B", "+").replace("%25", "%") for name in names] if "%" in scope else names


def _pack(data: bytes) -> bytes:
    if len(data) >= COMPRESS_FROM:
        small = zlib.compress(data, 1, wbits=-15)
        if len(small) < len(data):
            return _ZLIB + small
    return _RAW + data


def _unpack(address: str, packed: bytes) -> bytes:
    if packed[:1] == _RAW:
        return packed[1:]
    try:
        expand = zlib.decompressobj(wbits=-15)
        data = expand.decompress(packed[1:], MAX_BYTES + 1)
    except zlib.error:
        raise TamperError(f"payload {address} was changed: it does not decompress") from None
    if len(data) > MAX_BYTES or not expand.eof:
        raise TamperError(f"payload {address} was changed: it does not decompress to its size")
    return data
