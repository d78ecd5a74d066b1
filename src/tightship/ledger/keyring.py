"""Keys in a file of their own: each is wrapped by the master key, and destroying one erases what it sealed.

Names: `tenant:T`, a run's id, `subject:…` (a hash, never the person's own identifier), `log:…` (signing seeds).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tightship.core.errors import (
    LedgerError,
    PayloadErased,
    StoreMissing,
    StoreVersionError,
    TamperError,
)
from tightship.core.world import World
from tightship.ledger._hmac import hmac_sha256
from tightship.ledger._schema import check_structure, statements
from tightship.ledger._sql import connect, connect_read_only, corrupt, read_version, script, translate_errors

SUBJECT = "subject:"
"""What the names of data subjects' keys begin with."""
KEY_BYTES = 32
KEYS_MIGRATION = "keys_0001"
KEYS_VERSION = 1


class WrappedKey(NamedTuple):
    """A row of the keystore. `wrapped` is empty once the key was destroyed; `created` is store time (s)."""

    name: str
    wrapped: bytes
    created: float


class KeyStore:
    """Where wrapped keys lie: in memory, the twin for tests and simulation."""

    def __init__(self) -> None:
        self._rows: dict[str, WrappedKey] = {}

    def get(self, name: str) -> WrappedKey | None:
        """The row of a key; None when there never was one."""
        return self._rows.get(name)

    def get_many(self, names: Sequence[str]) -> list[WrappedKey]:
        """The rows of several keys; those that there never were are left out."""
        return [row for row in map(self.get, names) if row is not None]

    def put(self, rows: Sequence[WrappedKey]) -> list[str]:
        """Store durably before returning. Returns the names that another process has stored before: its key stands."""
        return [row.name for row in rows if self._rows.setdefault(row.name, row) != row]

    def destroy(self, name: str) -> None:
        """Overwrite the key for good."""
        self._rows[name] = WrappedKey(name, b"", 0.0)

    def page(self, after: str, limit: int) -> list[WrappedKey]:
        """Rows in order of their names."""
        return [self._rows[name] for name in sorted(name for name in self._rows if name > after)[:limit]]

    def check(self) -> list[str]:
        """What is wrong with the store's structure."""
        return []

    def closing(self) -> None:
        """It is about to be closed: whatever waits for a server gives up within some seconds."""

    def close(self) -> None:
        """Nothing to close."""


class FileKeyStore(KeyStore):
    """Wrapped keys in an SQLite file with secure delete and no write-ahead log that would keep old pages.

    Raises:
        StoreReadOnly, StoreFull, StoreCorrupt: as the disk answers. StoreVersionError: a newer version wrote it.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        super().__init__()
        self.path = path
        self._lock = threading.Lock()
        self._looking = threading.Lock()  # a look-up waits for no flush: it has a connection of its own
        with translate_errors(path):
            if not path.exists() and not read_only:
                with contextlib.suppress(OSError):
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._db = connect_read_only(path, "DELETE") if read_only else connect(path, journal="DELETE")
            try:
                if not read_only:
                    self._db.execute("PRAGMA secure_delete=ON")
                self._migrate()
                self._reader = connect_read_only(path, "DELETE") if read_only else connect(path, journal="DELETE")
            except BaseException:
                self._db.close()
                raise

    def _migrate(self) -> None:
        version, tables = self._version()
        if not version and not tables:
            self._db.execute("BEGIN IMMEDIATE")
            version, tables = self._version()
            if not version and not tables:
                for statement in statements(script(KEYS_MIGRATION)):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={KEYS_VERSION}")
            self._db.execute("COMMIT")
        elif version > KEYS_VERSION:
            raise StoreVersionError(
                f"the keystore has schema {version}, this version knows {KEYS_VERSION}",
                where=str(self.path),
                fix="install the newer tightship that wrote it; if none did, restore the keystore from your backup",
            )
        elif version != KEYS_VERSION:
            raise corrupt(
                f"the file's header says schema {version}, but there are {tables} tables in it",
                self.path,
            )

    def _version(self) -> tuple[int, int]:
        return read_version(self._db)

    def get(self, name: str) -> WrappedKey | None:
        """The row of a key."""
        with self._looking, translate_errors(self.path):
            row = self._reader.execute("SELECT name, wrapped, created FROM keys WHERE name = ?", (name,)).fetchone()
        return None if row is None else _checked_row(row, self.path)

    def put(self, rows: Sequence[WrappedKey]) -> list[str]:
        """One fsync'd transaction."""
        taken: list[str] = []
        with self._lock, translate_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for row in rows:
                    added = self._db.execute(
                        "INSERT INTO keys (name, wrapped, created) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
                        row,
                    )
                    if not added.rowcount:
                        taken.append(row.name)
                stored = {
                    name: self._db.execute("SELECT wrapped FROM keys WHERE name = ?", (name,)).fetchone()[0]
                    for name in taken
                }
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
        return [row.name for row in rows if row.name in stored and stored[row.name] != row.wrapped]

    def destroy(self, name: str) -> None:
        """Overwrite in place; the old bytes are zeroed by secure delete."""
        with self._lock, translate_errors(self.path):
            self._db.execute(
                "INSERT INTO keys (name, wrapped, created) VALUES (?, x'', 0)"
                " ON CONFLICT (name) DO UPDATE SET wrapped = x'', created = 0",
                (name,),
            )

    def page(self, after: str, limit: int) -> list[WrappedKey]:
        """Rows in order of their names."""
        with self._lock, translate_errors(self.path):
            rows = self._db.execute(
                "SELECT name, wrapped, created FROM keys WHERE name > ? ORDER BY name LIMIT ?",
                (after, limit),
            ).fetchall()
        return [_checked_row(row, self.path) for row in rows]

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file's structure, and how its schema differs from ours."""
        with self._lock, contextlib.closing(empty_keystore()) as fresh:
            return check_structure(self._db, fresh, KEYS_VERSION)

    def close(self) -> None:
        """Close the file."""
        with self._looking:
            self._reader.close()
        with self._lock:
            self._db.close()


def empty_keystore() -> sqlite3.Connection:
    """A keystore in memory with nothing in it."""
    db = sqlite3.connect(":memory:")
    db.executescript(script(KEYS_MIGRATION))
    return db


def _checked_row(row: tuple[object, ...], path: Path) -> WrappedKey:
    name, wrapped, created = row
    if not (isinstance(name, str) and isinstance(wrapped, bytes) and isinstance(created, float)):
        raise TamperError(f"the row of the key {str(name)[:80]!r} was changed", where=str(path))
    return WrappedKey(name, wrapped, created)


class Key(NamedTuple):
    """A key in memory: its 32 bytes, and when it was made (store time, seconds)."""

    secret: bytes
    created: float


class Keyring:
    """Keys by name, unwrapped in memory; new ones become durable with `flush`, before anything sealed with them.

    The event loop makes keys, the writer's thread makes them durable, the reader's destroys: a lock guards each step.
    """

    _CACHE = 32_768
    """Unwrapped keys that are remembered, about 200 bytes each: those are never looked up again."""

    def __init__(self, store: KeyStore, master: bytes, world: World, erased: set[str] | None = None) -> None:
        self.store = store
        self.erased: set[str] = set() if erased is None else erased
        """Tombstones: names whose key was erased. None of them is used again by this process, whatever a look-up that
        began before the erasure brings."""
        self._master = master
        self._wrap = AESGCM(master)
        self._world = world
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._pending: dict[str, WrappedKey] = {}
        self.conflicts: set[str] = set()
        """Names that two processes made at once, and this one's key is not the one that stands."""
        self._untold: list[str] = []

    def reader(self) -> Keyring:
        """A keyring over the same keys with a memory of its own: a long reading does not push out what runs need."""
        return Keyring(self.store, self._master, self._world, self.erased)

    def key(self, name: str, create: bool = False) -> bytes:
        """The 32-byte key of that name.

        Raises:
            PayloadErased: it was destroyed.
            TamperError: the keystore's row was changed.
            StoreMissing: there is no such key and none may be created.
        """
        return self.look_up(name, create).secret

    def look_up(self, name: str, create: bool = False) -> Key:
        """The key of that name, and when it was made.

        Raises:
            as `key`.
        """
        if name in self.erased:
            raise erased_key(name)
        known = self._keys.get(name)
        if known is not None:
            return known
        row = self.store.get(name)
        if row is None:
            if not create:
                raise StoreMissing(
                    f"the keystore holds no key {name!r}",
                    fix="restore the keystore from your backup",
                )
            return self._create(name)
        key = Key(self.unwrap(row), row.created)
        with self._lock:
            self._remember(name, key)
        return key

    def look_up_all(self, names: Iterable[str]) -> None:
        """Have these keys in memory; those that are new are made.

        Raises:
            as `key`.
        """
        wanted = list(names)
        self.warm(wanted)
        for name in wanted:
            self.look_up(name, create=True)

    def has(self, name: str) -> bool:
        """Whether the key is in memory."""
        return name in self._keys

    def stands(self, name: str) -> bool:
        """Whether the key is in memory and on the disk, so that every process has the same."""
        return name in self._keys and name not in self._pending

    def warm(self, names: Iterable[str]) -> None:
        """Bring keys into memory at once, on a thread that may wait for the disk; those that do not open are left out.

        Raises:
            StoreError: disk or server. Whoever needs the keys next would ask again, and wait on the event loop.
        """
        missing = [name for name in names if name not in self._keys]
        for row in self.store.get_many(missing) if missing else ():
            with contextlib.suppress(LedgerError):
                key = Key(self.unwrap(row), row.created)
                with self._lock:
                    if row.name not in self._keys:
                        self._remember(row.name, key)

    def unwrap(self, row: WrappedKey) -> bytes:
        """The key in a row of the keystore.

        Raises:
            PayloadErased: it was destroyed. TamperError: the row was changed, or another master key has wrapped it.
        """
        if not row.wrapped:
            raise erased_key(row.name)
        try:
            return self._wrap.decrypt(row.wrapped[:12], row.wrapped[12:], _bound(row.name, row.created))
        except (InvalidTag, ValueError):
            raise TamperError(
                f"the key {row.name!r} does not open: its row was changed, or it was made under another master key",
                fix="restore the keystore, or the master key that belongs to it, from your backup",
            ) from None

    def create(self, name: str) -> Key:
        """A new key for a name that is new by its making (a fresh run's id): no look-up."""
        return self._keys.get(name) or self._create(name)

    def stray(self) -> Key:
        """A key that is kept nowhere."""
        return Key(self._world.chance.token(KEY_BYTES), self._world.clock.now())

    def _create(self, name: str) -> Key:
        key = Key(self._world.chance.token(KEY_BYTES), self._world.clock.now())
        nonce = self._world.chance.token(12)
        wrapped = nonce + self._wrap.encrypt(nonce, key.secret, _bound(name, key.created))
        with self._lock:
            known = self._keys.get(name)
            if known is not None:
                return known
            self._remember(name, key)
            self._pending[name] = WrappedKey(name, wrapped, key.created)
        return key

    def _remember(self, name: str, key: Key) -> None:
        """Keep an unwrapped key; the oldest durable ones make room. A key that is not durable yet is never dropped.

        Raises:
            PayloadErased: it was erased while it was looked up.
        """
        if name in self.erased:
            raise erased_key(name)
        if len(self._keys) - len(self._pending) >= self._CACHE:
            durable = (old for old in self._keys if old not in self._pending)
            for old in list(islice(durable, self._CACHE // 2)):
                del self._keys[old]
        self._keys[name] = key

    def flush(self) -> list[str]:
        """Make new keys durable; the writer does so before each batch.

        Returns:
            Names that another process has made at the same moment: its keys stand, ours are forgotten, and what was
            sealed with ours must not be stored (see `conflicts`). A name is given once, however many attempts it
            took, and whoever has stored it.
        """
        self._store()
        if not self._untold:
            return []
        with self._lock:
            told, self._untold = self._untold, []
        return told

    def _store(self) -> None:
        """Put what is pending on the disk; conflicts wait for the next `flush`."""
        if not self._pending:
            return
        with self._lock:
            rows = list(self._pending.values())
        taken = self.store.put(rows)
        with self._lock:
            for row in rows:
                self._pending.pop(row.name, None)
            for name in taken:
                self._keys.pop(name, None)
                self.conflicts.add(name)
                if name not in self._untold:
                    self._untold.append(name)

    def destroy(self, name: str) -> None:
        """Destroy a key: whatever was sealed with it can never be read again."""
        self._store()
        self.forget(name)
        self.store.destroy(name)

    def forget(self, name: str) -> None:
        """A key was erased, perhaps by another process: it is dropped from memory, and never used again here."""
        with self._lock:
            self.erased.add(name)
            if name not in self._pending:
                self._keys.pop(name, None)

    def subject(self, tenant: str, subject: str) -> str:
        """The key name of a data subject: an HMAC, so that the keystore does not list people.

        Whoever comes back after an erasure gets a new key: what was erased stays so, what is new can be kept.
        """
        digest = hmac.digest(
            self.key(f"tenant:{tenant}", create=True),
            b"subject\x00" + subject.encode(),
            "sha256",
        )
        first = name = f"{SUBJECT}{digest[:12].hex()}"
        generation = 1
        while self._is_gone(name):
            generation += 1
            name = f"{first}.{generation}"
        return name

    def _is_gone(self, name: str) -> bool:
        if name in self.erased:
            return True
        return name not in self._keys and (row := self.store.get(name)) is not None and not row.wrapped

    def close(self) -> None:
        """Close the keystore."""
        self.store.close()


def erased_key(name: str) -> PayloadErased:
    """The error for a key that was erased."""
    return PayloadErased(f"the key {name!r} was destroyed on request")


def _bound(name: str, created: float) -> bytes:
    """What a wrapped key is bound to: its row's other columns."""
    return name.encode() + b"\x00" + struct.pack(">d", created)


def combine(keys: list[bytes]) -> bytes:
    """One key from several (extract step of RFC 5869 in sequence): losing any one loses it."""
    combined = keys[0]
    for key in keys[1:]:
        combined = hmac.digest(combined, key, "sha256")
    return combined


def derive(key: bytes, purpose: bytes) -> bytes:
    """A key for one purpose (expand step of RFC 5869, one block)."""
    return hmac_sha256(key, purpose + b"\x01")


def plain_address(data: bytes) -> str:
    """The address of a public definition: its plain hash."""
    return hashlib.sha256(data).hexdigest()
