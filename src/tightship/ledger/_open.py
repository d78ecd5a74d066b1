"""Opening a store's files: folders, keys, database."""

from __future__ import annotations

from pathlib import Path

from tightship.core.errors import StoreMissing, StoreReadOnly
from tightship.core.world import World
from tightship.ledger.keyring import FileKeyStore, Keyring, load_master
from tightship.ledger.sqlite import SqliteBackend

LEDGER = "ledger.db"
KEYS = "keys/keys.db"


def make_folders(folder: Path, create: bool) -> None:
    """The store's folders.

    Raises:
        StoreMissing: they are not there and may not be made. StoreReadOnly: they cannot be made.
    """
    if not create and not (folder / LEDGER).exists() and not (folder / KEYS).exists():
        raise StoreMissing(where=str(folder), fix="run `tightship init`, or correct store.url in tightship.yaml")
    try:
        (folder / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "payloads").mkdir(exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(
            f"the store's folder cannot be made: {error.strerror}",
            where=str(folder),
            fix="make the folder writable, or choose another in tightship.yaml",
        ) from error


def open_files(folder: Path, world: World, create: bool) -> tuple[SqliteBackend, Keyring]:
    """Keys first: there is never a ledger without the keystore that it was sealed with."""
    ledger, keys = folder / LEDGER, folder / KEYS
    if ledger.exists() and not keys.exists():
        raise StoreMissing(
            "the keystore is not there, and only its keys open what is in the ledger",
            where=str(keys),
            fix="restore it from your backup",
        )
    master = load_master(folder / "keys" / "master.key", create=not keys.exists())
    store = FileKeyStore(keys)
    try:
        gone = not ledger.exists() or not ledger.stat().st_size
        if gone and store.page("", 1):
            raise StoreMissing(
                "the ledger's database is gone; the keystore has keys of what was in it",
                where=str(ledger),
                fix="restore it from your backup",
            )
        return SqliteBackend(ledger, create), Keyring(store, master, world)
    except BaseException:
        store.close()
        raise
