"""The ledger as the rest of the house uses it: append, read, open payloads."""

from __future__ import annotations

import asyncio
import functools
import hmac
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tightship.core import kinds
from tightship.core.errors import (
    LedgerError,
    PayloadErased,
    StoreError,
    StoreMissing,
    TamperError,
)
from tightship.core.ports import Projection
from tightship.core.world import Disk, World
from tightship.ledger import folded
from tightship.ledger._intake import prepare
from tightship.ledger._open import check_heads, open_store
from tightship.ledger.archive_folder import Archives
from tightship.ledger.backend import Condition, Store
from tightship.ledger.claiming import FREE, Bounds, Claiming
from tightship.ledger.entries import (
    Draft,
    Entry,
    Guards,
    Line,
    SealedPayload,
    Unit,
    decode,
    encode_tail,
)
from tightship.ledger.hearing import Hearing, Listener
from tightship.ledger.keyring import Keyring, derive
from tightship.ledger.memory import MemoryState
from tightship.ledger.projections import ArchivesProjection, ErasuresProjection, Folder, RunsProjection
from tightship.ledger.reader import Reader
from tightship.ledger.scratch import Scratch, in_order
from tightship.ledger.store import Committer
from tightship.ledger.vault import PUBLIC, Vault, encode, names_of
from tightship.ledger.writer import LoopWriter, ThreadWriter, Writer

DEFAULT_LOG = "default"
PAGE = 1000
"""Entries that a long reading takes at a time."""
_T = TypeVar("_T")


class Ledger:
    """One workspace's log. Open it with `Ledger.open` or `Ledger.in_memory`."""

    def __init__(
        self,
        backend: Store,
        keyring: Keyring,
        disk: Disk,
        world: World,
        projections: Iterable[Projection],
        threaded: bool,
        path: Path | None = None,
        heads: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        heads = backend.heads() if heads is None else heads
        self.path = path
        """The store's folder; None where it is not one."""
        self.backend = backend
        self.world = world
        self.vault = Vault(keyring)
        self.disk = disk
        self.folder = Folder([RunsProjection(), ErasuresProjection(), ArchivesProjection(), *projections])
        self._committer = Committer(backend, self.folder, world.clock, heads)
        self.hearing = Hearing(self.vault, world.clock)
        self._reader = Reader() if threaded else None
        make_writer = ThreadWriter if threaded else LoopWriter
        self._writer: Writer = make_writer(self._commit, self.hearing.deliver)
        self._definitions: set[str] = set()
        self._closed = self._whole = False
        self.followed = {log: head for log, (_, head) in heads.items()}
        """How far others' entries of a shared store were looked for."""
        self.alone = False
        """Whether nobody else appends, so that nothing has to be looked for; set before a workspace executes on it."""

    @property
    def in_threads(self) -> bool:
        """Whether reading is done off the event loop; in memory it is not, so that a simulation stays deterministic."""
        return self._reader is not None

    # --- opening ---------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        where: Path | str,
        world: World | None = None,
        projections: Iterable[Projection] = (),
        create: bool = True,
        *,
        folder: Path | None = None,
        keys: str | None = None,
        name: str | None = None,
    ) -> Ledger:
        """The ledger in a folder, or in a schema of a Postgres database (`postgresql://…?schema=NAME`).

        Args:
            where: the folder or the URL.
            world: time, chance and network; the machine's own by default. With a URL its clock goes as the server's
                from here on.
            projections: those of the workspace, beside those that each ledger has.
            create: make the store where there is none.
            folder: with a URL, the folder whose `keys/master.key` is the master key; `.tightship` by default.
            keys: with a URL, the keystore's own; that of the ledger by default.
            name: with a URL, the workspace's name: a store of another one is refused.

        Raises:
            StoreMissing: there is no store and `create` is false.
            StoreReadOnly, StoreFull, StoreCorrupt, StoreVersionError, StoreLost, StoreError: as disk or server answer.
        """
        world = world or World()
        parts = await asyncio.to_thread(open_store, where, world, create, folder, keys, name)
        ledger = cls(parts.backend, parts.keyring, parts.disk, world, projections, True, parts.path, parts.heads)
        if parts.backend.outdated:  # what later versions keep in the tables stands in the log all along
            try:
                await ledger.rebuild()
            except BaseException:
                await ledger.close()
                raise
        return ledger

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
        """Commit what waits and close the files; whoever waits for a store that does not answer is told."""
        if self._closed:
            return
        self._closed = True
        self.backend.closing()
        self.vault.keyring.store.closing()
        await self._writer.close()
        if self._reader is not None and await self._reader.close():
            await asyncio.to_thread(self.backend.close)
            self.vault.keyring.close()

    # --- appending -------------------------------------------------------------------------------

    def append(
        self, *drafts: Draft, guards: Guards | None = None, log: str = DEFAULT_LOG, line: Line | None = None
    ) -> asyncio.Future[list[Entry]]:
        """Append drafts together, durably. The future gives the entries once they are on the disk.

        With a `line`, nothing is appended behind what could not be written before.

        Raises (through the future):
            StaleOwner: the run was taken over. GuardRefused: a guard did not hold. StoreError: the disk.
        """
        token = self.world.chance.token
        tails = tuple([encode_tail(draft, token(12).hex()) for draft in drafts])
        return self._writer.submit(Unit(log, drafts, guards, tails, line=line))

    async def claim(
        self, owner: str, build: str, limit: int, live: bool = True, bounds: Bounds = FREE, idle: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """Take over runs that are due, each with a `run.claimed` entry of the next epoch; returns their rows.

        Due, and in which order, is said in `claiming`. Runs of another build are left alone.

        Args:
            owner: the worker's id. build: its code. limit: how many at most. live: real runs, or rehearsals.
            bounds: how many all owners together may work on. idle: runs that this owner has and does not work on.

        Raises:
            StoreError: the disk, or the server.
        """
        token = self.world.chance.token
        nonces = tuple(token(12).hex() for _ in range(limit))
        claiming = Claiming(owner, build, limit, live, nonces, bounds, tuple(sorted(idle)))
        if await self.off_loop(self.backend.is_anything_due, claiming):
            await self._writer.submit(Unit(DEFAULT_LOG, (), claiming=claiming))
        return claiming.rows

    async def living(self) -> set[str]:
        """The ids of the workers that live; none where one process executes."""
        return await self.off_loop(self.backend.living)

    def check_whole(self) -> None:
        """Before the first append: no log has lost its end. It blocks.

        Raises:
            StoreCorrupt: one has; it can still be read.
        """
        check_heads(self.backend)
        self._whole = True

    def job(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run something on the writer, between two batches."""
        return self._writer.job(work)

    async def own_keys(self, *names: str) -> None:
        """Make keys that other processes may be making too, and wait until it is settled whose stand.

        Raises:
            PayloadErased: one was destroyed. StoreError: the disk.
        """
        keyring = self.vault.keyring
        new = [name for name in names if not keyring.stands(name)]
        if new:
            await self.off_loop(keyring.look_up_all, new)
            await self.job(self._flush_keys)
            await self.off_loop(keyring.look_up_all, new)

    def _flush_keys(self) -> None:
        for name in self.vault.keyring.flush():
            self.vault.forget(name)

    def _commit(self, units: list[Unit]) -> list[Entry]:
        self._flush_keys()
        if not self._whole and any(unit.drafts or unit.claiming for unit in units):
            self.check_whole()
        sound = [unit for unit in units if prepare(self, unit)]
        return self._committer.commit(sound)

    # --- others' entries -------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of entries once they are durable (entries, whether another process wrote them).

        Returns: a function that ends it.
        """
        return self.hearing.listen(listener)

    def tell(self, entries: list[Entry]) -> None:
        """Tell the listeners of others' entries."""
        if entries:
            self.hearing.deliver(entries, True)

    async def poll(self) -> None:
        """Look whether another process has appended; listeners are told of what it was.

        While a follower tells of it, there is nothing to do.
        """
        if self.hearing.follower is not None:
            return
        asked = self.world.clock.monotonic()
        if self.backend.shared:
            self.tell(await self.off_loop(self.backend.foreign, self.followed, None))
        elif await self.off_loop(self.backend.moved):
            await self._writer.submit(Unit(DEFAULT_LOG, ()))
        self.hearing.caught_up(asked)

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
        """Open several payloads; `erased`, when given, stands for those whose key was destroyed or that have left."""
        sealed = await self.read_sealed(addresses)
        opened: dict[str, Any] = {}
        for address in addresses:
            try:
                opened[address] = self.unseal(address, sealed)
            except PayloadErased:
                if erased is ...:
                    raise
                opened[address] = erased
            except StoreMissing:
                if erased is not ... and await self.select("archives", limit=1):
                    opened[address] = erased
                    continue
                await self.off_loop(folded.check_value, self, address)
                raise
        return opened

    async def read_sealed(
        self, addresses: Sequence[str], scopes: Iterable[str] = ()
    ) -> dict[str, tuple[str, bytes | None]]:
        """Scope and sealed bytes by address, to be opened with `unseal`; what is not stored is left out.

        Args:
            addresses: of the payloads. scopes: further ones that will be sealed in; their keys come along.
        """
        return await self.off_loop(self._sealed_with_keys, list(dict.fromkeys(addresses)), scopes)

    def _sealed_with_keys(self, addresses: Sequence[str], scopes: Iterable[str]) -> dict[str, tuple[str, bytes | None]]:
        """A look-up of a key may wait for the disk or the server: not for that does the event loop wait."""
        found = self.sealed(addresses)
        wanted = {*scopes, *(one[0] for one in found.values())}
        self.vault.keyring.warm({name for scope in wanted for name in names_of(scope) if name})
        return found

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
            raise StoreMissing(
                f"payload {address} is not in the store",
                fix="restore the store from your backup",
            )
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
        """All entries of a run, in order.

        Raises:
            Archived: they have left the store.
        """
        entries = await self.off_loop(self.backend.entries_of, [run])
        if not entries or entries[0].kind != kinds.STARTED:
            await self.off_loop(folded.check_here, self, run, entries)
        return entries

    async def runs_entries(self, runs: Sequence[str]) -> dict[str, list[Entry]]:
        """The entries of many runs, by run."""
        grouped: dict[str, list[Entry]] = {run: [] for run in runs}
        for entry in await self.off_loop(self.backend.entries_of, list(runs)):
            grouped[entry.run].append(entry)
        return grouped

    async def entries(self, after: int = 0, limit: int = 1000, log: str = DEFAULT_LOG) -> list[Entry]:
        """Entries after a position."""
        rows = await self.off_loop(self.backend.entries, log, after, limit)
        return [decode(log, n, data) for n, data in rows]

    async def head(self, log: str = DEFAULT_LOG) -> int:
        """The last position of a log."""
        heads = await self.off_loop(self.backend.heads)
        return heads.get(log, (0, 0))[1]

    async def rebuild(
        self, progress: Callable[[int], None] | None = None, archives: Archives | None = None
    ) -> dict[str, int]:
        """Throw the projections away and fold them from the log again.

        Where entries have left, it starts from how the tables stood then, or from the first entry with `archives`.

        Appends go on meanwhile: most is folded beside them, and only the rest and the exchange of the rows hold
        the writer up.

        Args:
            progress: told how many entries are folded, from another thread.

        Returns: rows by table.
        """
        scratch = Scratch(self.folder)
        try:
            await self.off_loop(folded.fold, self, scratch, progress, archives)
            return await self.job(functools.partial(self._exchange, scratch))
        finally:
            scratch.close()

    def pages(self, log: str, after: int = 0, upto: int | None = None) -> Iterator[list[Entry]]:
        """The entries of a log up to a position, a page at a time; blocks, so call it from a thread.

        Raises:
            TamperError: an entry is not what was written.
        """
        while rows := self.backend.entries(log, after, PAGE if upto is None else min(PAGE, upto - after)):
            yield [decode(log, n, data) for n, data in rows]
            after = rows[-1][0]

    def _exchange(self, scratch: Scratch) -> dict[str, int]:
        backend = self.backend
        try:
            heads = backend.begin().heads
            rest = [
                iter([backend.tail(log, log_id, scratch.positions.get(log, 0), head)])
                for log, (log_id, head) in heads.items()
            ]
            for page in in_order(rest):
                scratch.fold(page)
            tables = list(self.folder.tables)
            backend.exchange_projections(tables, scratch.rows)
            backend.commit()
        except BaseException:
            backend.rollback()
            raise
        self._committer.forget()
        return {table: scratch.count(table) for table in tables}

    # --- erasure ---------------------------------------------------------------------------------

    async def erase(self, tenant: str, subject: str, by: str) -> str:
        """Destroy a data subject's key: every payload sealed with it is unreadable from now on.

        Returns: the key's name.
        """
        name = self.vault.keyring.subject(tenant, subject)
        await self.append(Draft("", kinds.ERASED, name, {"subject": name, "by": by}))
        await self._destroy(name)
        return name

    async def reapply_erasures(self) -> int:
        """Destroy again what the log says was erased (a keystore restored from a backup has the keys again).

        Returns: how many subjects were erased so far.
        """
        rows = await self.select("erasures")
        for row in rows:
            await self._destroy(row["subject"])
        return len(rows)

    async def _destroy(self, name: str) -> None:
        await self.off_loop(self.vault.keyring.destroy, name)
        self.vault.forget(name)

    async def off_loop(self, function: Callable[..., _T], *args: Any) -> _T:
        """Run something that reads on the reader's thread (in memory: here and now).

        Raises:
            StoreError: the ledger is closed; and whatever the function raises.
        """
        if self._reader is None:
            return function(*args)
        if self._closed:
            raise StoreError("the ledger is closed", fix="open it again")
        return await self._reader.read(functools.partial(function, *args))
