"""Keys in a file of their own: each is wrapped by the master key, and destroying one erases what it sealed.

Names: `tenant:T`, a run's id, `subject:…` (a hash, never the person's own identifier), `log:…` (signing seeds).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import sqlite3
import threading
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tightship.core.errors import PayloadErased, StoreError, StoreMissing, TamperError
from tightship.core.world import World
from tightship.ledger._sql import connect, script, translate_errors

MASTER_VARIABLE = "TIGHTSHIP_MASTER_KEY"
KEY_BYTES = 32


def load_master(path: Path) -> bytes:
    """The master key: from the environment variable (base 64, 32 bytes) or from its file, made on first use.

    Raises:
        StoreError: the key has a wrong length, or the file can be read by others.
    """
    given = os.environ.get(MASTER_VARIABLE)
    if given:
        try:
            key = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise StoreError(f"{MASTER_VARIABLE} is not 32 bytes in base 64", fix="openssl rand -base64 32")
        return key
    if path.exists():
        if path.stat().st_mode & 0o077:
            raise StoreError(f"the master key {path} can be read by others", fix=f"chmod 600 {path}")
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise StoreError(f"the master key {path} is damaged", fix="restore it from your backup")
        return key
    return _create_master(path)


def _create_master(path: Path) -> bytes:
    key = os.urandom(KEY_BYTES)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, key)
        os.fsync(handle)
    finally:
        os.close(handle)
    return key


class KeyStore:
    """Where wrapped keys lie: in memory, the twin for tests and simulation."""

    def __init__(self) -> None:
        self._rows: dict[str, bytes] = {}

    def get(self, name: str) -> bytes | None:
        """The wrapped key; empty bytes when it was destroyed; None when there never was one."""
        return self._rows.get(name)

    def put(self, rows: list[tuple[str, bytes, float]]) -> None:
        """Store durably before returning."""
        for name, wrapped, _ in rows:
            self._rows.setdefault(name, wrapped)

    def destroy(self, name: str, at: float) -> None:
        """Overwrite the key for good."""
        self._rows[name] = b""

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._rows)

    def close(self) -> None:
        """Nothing to close."""


class FileKeyStore(KeyStore):
    """Wrapped keys in an SQLite file with secure delete and no write-ahead log that would keep old pages."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._lock = threading.Lock()
        with translate_errors(path):
            self._db = connect(path, journal="DELETE")
            self._db.execute("PRAGMA secure_delete=ON")
            if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                with contextlib.suppress(sqlite3.OperationalError):  # another process was first
                    self._db.executescript(script("keys_0001"))
        self._path = path

    def get(self, name: str) -> bytes | None:
        """The wrapped key."""
        with self._lock, translate_errors(self._path):
            row = self._db.execute("SELECT wrapped FROM keys WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, rows: list[tuple[str, bytes, float]]) -> None:
        """One fsync'd transaction."""
        with self._lock, translate_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO keys (name, wrapped, created) VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")

    def destroy(self, name: str, at: float) -> None:
        """Overwrite in place; the old bytes are zeroed by secure delete."""
        with self._lock, translate_errors(self._path):
            self._db.execute(
                "INSERT INTO keys (name, wrapped, created) VALUES (?, x'', ?)"
                " ON CONFLICT (name) DO UPDATE SET wrapped = x''",
                (name, at),
            )

    def names(self) -> list[str]:
        """All names, sorted."""
        with self._lock, translate_errors(self._path):
            return [row[0] for row in self._db.execute("SELECT name FROM keys ORDER BY name")]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


class Keyring:
    """Keys by name, unwrapped in memory; new ones become durable with `flush`, before anything sealed with them."""

    _CACHE = 4096

    def __init__(self, store: KeyStore, master: bytes, world: World) -> None:
        self._store = store
        self._wrap = AESGCM(master)
        self._world = world
        self._keys: dict[str, bytes] = {}
        self._pending: list[tuple[str, bytes, float]] = []

    def key(self, name: str, create: bool = False) -> bytes:
        """The 32-byte key of that name.

        Raises:
            PayloadErased: it was destroyed.
            TamperError: the keystore's row was changed.
            StoreMissing: there is no such key and none may be created.
        """
        known = self._keys.get(name)
        if known is not None:
            return known
        wrapped = self._store.get(name)
        if wrapped is None:
            if not create:
                raise StoreMissing(f"the keystore holds no key {name!r}", fix="restore the keystore from your backup")
            return self._create(name)
        if not wrapped:
            raise PayloadErased(f"the key {name!r} was destroyed on request")
        try:
            key = self._wrap.decrypt(wrapped[:12], wrapped[12:], name.encode())
        except (InvalidTag, ValueError):
            raise TamperError(f"the key {name!r} does not open with this master key, or its row was changed") from None
        self._remember(name, key)
        return key

    def create(self, name: str) -> bytes:
        """A new key for a name that is new by its making (a fresh run's id): no look-up."""
        return self._keys.get(name) or self._create(name)

    def _create(self, name: str) -> bytes:
        key = self._world.chance.token(KEY_BYTES)
        nonce = self._world.chance.token(12)
        self._pending.append((name, nonce + self._wrap.encrypt(nonce, key, name.encode()), self._world.clock.now()))
        self._remember(name, key)
        return key

    def _remember(self, name: str, key: bytes) -> None:
        if len(self._keys) >= self._CACHE:
            durable = set(self._keys) - {row[0] for row in self._pending}
            for old in list(durable)[: self._CACHE // 2]:
                del self._keys[old]
        self._keys[name] = key

    def flush(self) -> None:
        """Make new keys durable. Called by the writer before each batch."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            self._store.put(pending)
        except BaseException:
            self._pending = pending + self._pending
            raise

    def destroy(self, name: str) -> None:
        """Destroy a key: whatever was sealed with it can never be read again."""
        self.flush()
        self._store.destroy(name, self._world.clock.now())
        self._keys.pop(name, None)

    def subject(self, tenant: str, subject: str) -> str:
        """The key name of a data subject: an HMAC, so that the keystore does not list people."""
        digest = hmac.digest(self.key(f"tenant:{tenant}", create=True), b"subject\x00" + subject.encode(), "sha256")
        return f"subject:{digest[:12].hex()}"

    def verify(self) -> list[str]:
        """Names of keys that do not open: changed rows."""
        bad: list[str] = []
        for name in self._store.names():
            self._keys.pop(name, None)
            try:
                self.key(name)
            except PayloadErased:
                continue
            except TamperError:
                bad.append(name)
        return bad

    def close(self) -> None:
        """Close the keystore."""
        self._store.close()


def combine(keys: list[bytes]) -> bytes:
    """One key from several (extract step of RFC 5869 in sequence): losing any one loses it."""
    combined = keys[0]
    for key in keys[1:]:
        combined = hmac.digest(combined, key, "sha256")
    return combined


def derive(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose (expand step of RFC 5869, one block)."""
    return hmac.digest(key, purpose + b"\x01", "sha256")


def plain_address(data: bytes) -> str:
    """The address of a public definition: its plain hash."""
    return hashlib.sha256(data).hexdigest()
