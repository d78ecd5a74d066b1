"""Opening a store: folders, keys, database."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tightship.core.errors import StoreMissing, StoreReadOnly
from tightship.core.world import Disk, FolderDisk, MemoryDisk, World
from tightship.ledger._sql import corrupt
from tightship.ledger.backend import Store
from tightship.ledger.keyring import FileKeyStore, Keyring
from tightship.ledger.master_key import MASTER_VARIABLE, load_master
from tightship.ledger.sqlite import SqliteBackend

LEDGER = "ledger.db"
KEYS = "keys/keys.db"


def check_reachable(folder: Path) -> None:
    """Whether this user may see what lies in the store's folders.

    Raises:
        StoreReadOnly: they are somebody else's.
    """
    for one in (folder / LEDGER, folder / KEYS):
        try:
            one.exists()
        except PermissionError:
            raise StoreReadOnly(
                "this user may not look into the store, whose keys are its owner's alone",
                where=str(one.parent),
                fix=f"run the command as {_owner(folder)}, for example with `sudo -u`",
            ) from None


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except (OSError, KeyError):
        return "the owner of the folder"


def make_folders(folder: Path, create: bool) -> None:
    """The store's folders.

    Raises:
        StoreMissing: they are not there and may not be made. StoreReadOnly: they cannot be made, or looked into.
    """
    check_reachable(folder)
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


@dataclass(frozen=True, slots=True)
class Parts:
    """What a ledger is put together from, and how far its logs reach. `path` is the store's folder, where it is one."""

    backend: Store
    keyring: Keyring
    disk: Disk
    path: Path | None
    heads: dict[str, tuple[int, int]]


def is_server(where: Path | str) -> bool:
    """Whether a store is on a database server."""
    return isinstance(where, str) and where.startswith(("postgresql://", "postgres://"))


def open_store(
    where: Path | str, world: World, create: bool, folder: Path | None, keys: str | None, name: str | None
) -> Parts:
    """The store in a folder or at a URL; as `Ledger.open` has it. It blocks."""
    if isinstance(where, str) and is_server(where):
        backend, keyring = open_server(where, world, create, folder or Path(".tightship"), keys or where, name)
        disk, path = MemoryDisk(), None
    else:
        path = Path(where)
        make_folders(path, create)
        backend, keyring = open_files(path, world, create)
        disk = FolderDisk(path / "payloads")
    try:
        return Parts(backend, keyring, disk, path, backend.heads())
    except BaseException:
        backend.close()
        keyring.close()
        raise


def open_server(
    url: str, world: World, create: bool, folder: Path, keys: str, name: str | None
) -> tuple[Store, Keyring]:
    """The store in a database. Keys first: there is never a ledger without the keystore that it was sealed with.

    Args:
        url: of the ledger. keys: of its keystore, which may be another database.
        world: its clock is the server's from here on.
        folder: where the master key's file is when the environment does not have it.
        name: the workspace's name, which must be that of the store.
    """
    from tightship.ledger._pg import Address
    from tightship.ledger.pg_keys import PostgresKeyStore
    from tightship.ledger.postgres import PostgresBackend
    from tightship.ledger.server_clock import ServerClock

    address, beside = Address.of(url), Address.of(keys)
    store = PostgresKeyStore(beside, create)
    try:
        new = not store.page("", 1)
        if new and create and not os.environ.get(MASTER_VARIABLE):
            make_key_folder(folder)
        master = _shared_master(folder / "keys" / "master.key", create=new and create)
        world.clock = clock = ServerClock.over(world.clock)  # whatever this process decides by time follows the store's
        return PostgresBackend(address, master, name, create, clock), Keyring(store, master, world)
    except BaseException:
        store.close()
        raise


def _shared_master(path: Path, create: bool) -> bytes:
    """The master key of a store that many machines share; as `load_master`."""
    try:
        return load_master(path, create)
    except StoreMissing as error:
        raise StoreMissing(
            error.message,
            where=error.where,
            fix=f"copy it from a machine or a backup that has it, or set {MASTER_VARIABLE};"
            " a workspace that never used this store needs a schema of its own: ?schema=NAME in the store's URL",
        ) from None


def make_key_folder(folder: Path) -> None:
    """The folder of the master key's file.

    Raises:
        StoreReadOnly: it cannot be made.
    """
    try:
        (folder / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreReadOnly(
            f"the folder of the master key cannot be made: {error.strerror}",
            where=str(folder / "keys"),
            fix=f"make the folder writable, or set {MASTER_VARIABLE}",
        ) from error


def check_heads(backend: Store) -> None:
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
                    backend.where,
                )
