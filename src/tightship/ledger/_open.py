"""Opening a store's files: folders, keys, database."""

from __future__ import annotations

import os
from pathlib import Path

from tightship.core.errors import StoreMissing, StoreReadOnly
from tightship.core.world import World
from tightship.ledger._sql import corrupt
from tightship.ledger.keyring import FileKeyStore, Keyring, load_master
from tightship.ledger.memory import MemoryBackend
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
    if unwritable(folder):
        return
    try:
        (folder / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "payloads").mkdir(exist_ok=True)
    except OSError as error:
        raise StoreReadOnly(
            f"the store's folder cannot be made: {error.strerror}",
            where=str(folder),
            fix="make the folder writable, or choose another in tightship.yaml",
        ) from error


def unwritable(folder: Path) -> bool:
    """Whether a store is there that may only be read: a read-only mount, a backup, somebody else's folder."""
    files = (folder / LEDGER, folder / KEYS)
    effective = os.access in os.supports_effective_ids
    return all(one.exists() for one in files) and not all(
        os.access(one, os.W_OK, effective_ids=effective) for one in (*files, *(one.parent for one in files))
    )


def open_files(
    folder: Path, world: World, create: bool, read_only: bool | None = None
) -> tuple[SqliteBackend, Keyring]:
    """Keys first: there is never a ledger without the keystore that it was sealed with.

    A store that cannot be written is opened to be read: no byte of its folder changes, and every write is refused
    with StoreReadOnly. `read_only` asks for that, whatever the folder allows.
    """
    read_only = unwritable(folder) if read_only is None else read_only
    ledger, keys = folder / LEDGER, folder / KEYS
    if ledger.exists() and not keys.exists():
        raise StoreMissing(
            "the keystore is not there, and only its keys open what is in the ledger",
            where=str(keys),
            fix="restore it from your backup",
        )
    master = load_master(folder / "keys" / "master.key", create=not read_only and not keys.exists())
    store = FileKeyStore(keys, read_only)
    try:
        gone = not ledger.exists() or not ledger.stat().st_size
        if gone and store.page("", 1):
            raise StoreMissing(
                "the ledger's database is gone; the keystore has keys of what was in it",
                where=str(ledger),
                fix="restore it from your backup",
            )
        return SqliteBackend(ledger, create and not read_only, read_only), Keyring(store, master, world)
    except BaseException:
        store.close()
        raise


def check_heads(backend: SqliteBackend | MemoryBackend) -> None:
    """Whether each log reaches as far as it says, and as far as its last checkpoint was signed.

    A look-up or two per log: what is missing further down is for `audit verify` to find. A log that was cut short would
    give new entries the positions of signed ones, and no proof of either would hold again.

    Raises:
        StoreCorrupt: entries at the end of a log are gone.
    """
    signed = {log_id: backend.checkpoint(log_id) for log_id, _ in backend.heads().values()}  # first: heads only grow
    for log, (log_id, head) in backend.heads().items():
        checkpoint = signed.get(log_id)
        size = 0 if checkpoint is None else checkpoint[0]
        for at in sorted({size, head} - {0}, reverse=True):
            rows = [] if at > head else backend.entries(log, at - 1, 1)
            if not rows or rows[0][0] != at:
                what = f"the last checkpoint was signed over {size:,} entries" if at == size else f"it has {head:,}"
                raise corrupt(
                    f"entry {at:,} of log {log!r} is not there, and {what}: nothing is appended to it",
                    backend.path if isinstance(backend, SqliteBackend) else "memory",
                )
