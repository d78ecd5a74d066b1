"""The ledger as the rest of the house uses it: append, read, open payloads."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tightship.core import kinds
from tightship.core.errors import LedgerError, PayloadErased, PayloadTooLarge, StoreMissing, StoreReadOnly, TamperError
from tightship.core.ports import Projection
from tightship.core.world import Disk, FolderDisk, MemoryDisk, World
from tightship.ledger.entries import Draft, Entry, Guards, SealedPayload, Unit, decode, encode_tail
from tightship.ledger.keyring import FileKeyStore, Keyring, KeyStore, derive, load_master
from tightship.ledger.memory import MemoryBackend
from tightship.ledger.projections import Folder, RunsProjection
from tightship.ledger.sqlite import SqliteBackend, projection_columns
from tightship.ledger.store import Committer, Condition, Deltas
from tightship.ledger.vault import PUBLIC, Vault, encode
from tightship.ledger.writer import LoopWriter, ThreadWriter, Writer

DEFAULT_LOG = "default"
FILE_FROM = 256 * 1024
"""Sealed payloads above this many bytes go to files."""
MAX_ENTRY = 65_000
"""Bytes of an entry: a tlog-tiles bundle takes 65,535."""
Listener = Callable[[list[Entry], bool], None]
_T = TypeVar("_T")


class Ledger:
    """One workspace's log. Open it with `Ledger.open` or `Ledger.in_memory`."""

    def __init__(
        self,
        backend: SqliteBackend | MemoryBackend,
        keyring: Keyring,
        disk: Disk,
        world: World,
        projections: Iterable[Projection],
        threaded: bool,
    ) -> None:
        self.backend = backend
        self.world = world
        self.vault = Vault(keyring)
        self.disk = disk
        self.folder = Folder([RunsProjection(), *projections])
        self._committer = Committer(backend, self.folder, world.clock, keyring.flush)
        self._listeners: list[Listener] = []
        self._threaded = threaded
        self._pool = ThreadPoolExecutor(1, "ledger-reader") if threaded else None
        make_writer = ThreadWriter if threaded else LoopWriter
        self._writer: Writer = make_writer(self._commit, self._deliver)
        self._definitions: set[str] = set()

    # --- opening ---------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        folder: Path,
        world: World | None = None,
        projections: Iterable[Projection] = (),
        create: bool = True,
    ) -> Ledger:
        """The ledger in a folder.

        Raises:
            StoreMissing: there is no store and `create` is false.
            StoreReadOnly, StoreFull, StoreCorrupt, StoreVersionError: as the disk answers.
        """
        world = world or World()
        await asyncio.to_thread(_make_folders, folder, create)
        backend, keyring = await asyncio.to_thread(_open_files, folder, world, create)
        return cls(backend, keyring, FolderDisk(folder / "payloads"), world, projections, threaded=True)

    @classmethod
    def in_memory(
        cls,
        world: World | None = None,
        projections: Iterable[Projection] = (),
        state: MemoryState | None = None,
    ) -> Ledger:
        """The in-memory twin, committing inside the event loop. `state` survives a simulated crash."""
        world = world or World()
        state = state or MemoryState()
        keyring = Keyring(state.keys, b"in-memory twin: not a secret key", world)
        return cls(state.backend, keyring, state.disk, world, projections, threaded=False)

    async def close(self) -> None:
        """Commit what waits and close the files."""
        await self._writer.close()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self.backend.close()
            self.vault.keyring.close()

    # --- appending -------------------------------------------------------------------------------

    def append(
        self, *drafts: Draft, guards: Guards | None = None, log: str = DEFAULT_LOG
    ) -> asyncio.Future[list[Entry]]:
        """Append drafts together, durably. The future gives the entries once they are on the disk.

        Raises (through the future):
            StaleOwner: the run was taken over. GuardRefused: a guard did not hold. StoreError: the disk.
        """
        tails = tuple(encode_tail(draft, self.world.chance.token(12).hex()) for draft in drafts)
        if any(len(tail) > MAX_ENTRY for tail in tails):
            raise PayloadTooLarge(f"an entry of more than {MAX_ENTRY:,} bytes", fix="put large values into payloads")
        return self._writer.submit(Unit(log, drafts, guards, tails))

    def job(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run something on the writer, between two batches."""
        return self._writer.job(work)

    def _commit(self, units: list[Unit]) -> list[Entry]:
        self._write_files(units)
        return self._committer.commit(units)

    def _write_files(self, units: list[Unit]) -> None:
        """Large payloads are on the disk before the entry that names them."""
        for unit in units:
            for draft in unit.drafts:
                if any(len(payload.data) > FILE_FROM for payload in draft.payloads):
                    draft.payloads = tuple(self._to_file(payload) for payload in draft.payloads)

    def _to_file(self, payload: SealedPayload) -> SealedPayload:
        if len(payload.data) <= FILE_FROM:
            return payload
        try:
            self.disk.write(payload.address, payload.data)
        except OSError as error:
            raise StoreReadOnly(f"a large payload could not be written: {error.strerror}", where="payloads/") from error
        return payload._replace(data=b"")

    # --- others' entries -------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of entries once they are durable (entries, whether another process wrote them).

        Returns: a function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _deliver(self, entries: list[Entry], foreign: bool) -> None:
        for listener in tuple(self._listeners):
            listener(entries, foreign)

    async def poll(self) -> None:
        """Look whether another process has appended; listeners are told of what it was."""
        if await self.off_loop(self.backend.moved):
            await self._writer.submit(Unit(DEFAULT_LOG, ()))

    # --- values ----------------------------------------------------------------------------------

    def seal(self, scope: str, value: Any) -> SealedPayload:
        """A value ready to go with a draft.

        Raises:
            PayloadTooLarge: over the limit. TypeError: no JSON.
        """
        return self.vault.seal(scope, encode(value))

    def define(self, value: Any) -> tuple[str, tuple[SealedPayload, ...]]:
        """A public definition (workflow, prompt, schema): its address, and the payload unless it is stored already."""
        payload = self.vault.seal(PUBLIC, encode(value))
        if payload.address in self._definitions:
            return payload.address, ()
        return payload.address, (payload,)

    def define_once(self, address: str, value: Callable[[], Any]) -> tuple[SealedPayload, ...]:
        """The payload of a public definition, unless `defined` says that it is stored; `value` is then not called.

        Raises:
            LedgerError: the value has another address.
        """
        if address in self._definitions:
            return ()
        payload = self.vault.seal(PUBLIC, encode(value()))
        if payload.address != address:
            raise LedgerError(f"the definition {address} has the address {payload.address}")
        return (payload,)

    def defined(self, address: str) -> None:
        """Remember that this definition is stored."""
        self._definitions.add(address)

    def mac(self, tenant: str, purpose: str, data: bytes) -> str:
        """A keyed hash for claims and caches (hex): nobody without the tenant's key can test a guess."""
        key = derive(self.vault.keyring.key(f"tenant:{tenant}", create=True), purpose.encode())
        return hmac.digest(key, data, "sha256")[:20].hex()

    async def value(self, address: str) -> Any:
        """Open a payload.

        Raises:
            PayloadErased: its key was destroyed. TamperError: it was changed. StoreMissing: there is none.
        """
        return (await self.values([address]))[address]

    async def values(self, addresses: Sequence[str], erased: Any = ...) -> dict[str, Any]:
        """Open several payloads; `erased`, when given, stands for those whose key was destroyed."""
        sealed = await self.off_loop(self.sealed, list(dict.fromkeys(addresses)))
        opened: dict[str, Any] = {}
        for address in addresses:
            try:
                opened[address] = self.unseal(address, sealed)
            except PayloadErased:
                if erased is ...:
                    raise
                opened[address] = erased
        return opened

    async def read_sealed(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address, to be opened with `unseal`; what is not stored is left out."""
        return await self.off_loop(self.sealed, list(dict.fromkeys(addresses)))

    def sealed(self, addresses: Sequence[str]) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address, files included."""
        found = self.backend.payloads(addresses)
        for address, (scope, data) in found.items():
            if data is None:
                found[address] = (scope, self.disk.read(address))
        return found

    def unseal(self, address: str, sealed: dict[str, tuple[str, bytes | None]]) -> Any:
        """Open one of the payloads that `sealed` has read."""
        row = sealed.get(address)
        if row is None or row[1] is None:
            raise StoreMissing(f"payload {address} is not in the store", fix="restore the store from your backup")
        data = self.vault.open(address, row[0], row[1])
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            raise TamperError(f"payload {address} is no JSON") from None

    # --- reading ---------------------------------------------------------------------------------

    async def select(
        self,
        table: str,
        where: Sequence[Condition] = (),
        order: Sequence[tuple[str, str]] = (),
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of a projection: conditions (column, operator, value) with = != < <= > >= in."""
        return await self.off_loop(self.backend.select, table, where, order, limit)

    async def run_entries(self, run: str) -> list[Entry]:
        """All entries of a run, in order."""
        return await self.off_loop(self.backend.entries_of, [run])

    async def runs_entries(self, runs: Sequence[str]) -> dict[str, list[Entry]]:
        """The entries of many runs, by run."""
        grouped: dict[str, list[Entry]] = {run: [] for run in runs}
        for entry in await self.off_loop(self.backend.entries_of, list(runs)):
            grouped[entry.run].append(entry)
        return grouped

    async def entries(self, after: int = 0, limit: int = 1000, log: str = DEFAULT_LOG) -> list[Entry]:
        """Entries after a position."""
        rows = await self.off_loop(self.backend.entries, log, after, limit)
        return [decode(log, n, data) for n, _, data in rows]

    async def head(self, log: str = DEFAULT_LOG) -> int:
        """The last position of a log."""
        heads = await self.off_loop(self.backend.heads)
        return heads.get(log, (0, 0))[1]

    async def rebuild(self) -> dict[str, int]:
        """Throw the projections away and fold them from the log again; returns rows by table."""
        deltas = await self.off_loop(self.fold_all)
        await self.job(functools.partial(self.backend.replace_projections, deltas, self.folder.tables))
        return {table: len(deltas.get(table, {})) for table in self.folder.tables}

    def fold_all(self) -> Deltas:
        """The projections as the log gives them."""
        deltas: Deltas = {}
        for log in self.backend.heads():
            after = 0
            while rows := self.backend.entries(log, after, 2000):
                for n, _, data in rows:
                    self.folder.fold(decode(log, n, data), deltas)
                after = rows[-1][0]
        return deltas

    # --- erasure ---------------------------------------------------------------------------------

    async def erase(self, tenant: str, subject: str, by: str) -> str:
        """Destroy a data subject's key: all that was sealed with it is unreadable now. Returns the key's name."""
        name = self.vault.keyring.subject(tenant, subject)
        await self.append(Draft("", kinds.ERASED, name, {"subject": name, "by": by}))
        await self.off_loop(self.vault.keyring.destroy, name)
        self.vault.forget(name)
        return name

    async def reapply_erasures(self) -> int:
        """Destroy again what the log says was erased (a keystore restored from a backup has the keys again)."""
        count = 0
        for log in await self.off_loop(self.backend.heads):
            rows = await self.off_loop(self.backend.entries_of, [""])
            for entry in rows:
                if entry.log == log and entry.kind == kinds.ERASED:
                    await self.off_loop(self.vault.keyring.destroy, entry.body["subject"])
                    self.vault.forget(entry.body["subject"])
                    count += 1
        return count

    async def off_loop(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run something that reads on the reader's thread (in the loop for the in-memory twin)."""
        if self._pool is None:
            return function(*args)
        return await asyncio.get_running_loop().run_in_executor(self._pool, functools.partial(function, *args))


class MemoryState:
    """What survives a simulated crash of a process: the store, the keystore and the disk."""

    def __init__(self) -> None:
        self.backend = MemoryBackend(projection_columns())
        self.keys = KeyStore()
        self.disk = MemoryDisk()


def _make_folders(folder: Path, create: bool) -> None:
    if not folder.exists() and not create:
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


def _open_files(folder: Path, world: World, create: bool) -> tuple[SqliteBackend, Keyring]:
    backend = SqliteBackend(folder / "ledger.db", create)
    try:
        master = load_master(folder / "keys" / "master.key")
        return backend, Keyring(FileKeyStore(folder / "keys" / "keys.db"), master, world)
    except BaseException:
        backend.close()
        raise
