"""Integrates entries into the Merkle tree, signs checkpoints, and packs what is no longer hot, beside the appends.

Entries are read off the event loop, at most `CHUNK` of them are integrated at a time, and only the writing of their
tiles and their checkpoint passes the writer, as a job between two batches. Whoever executes runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import math
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tightship.core.errors import LedgerError, StoreError, StoreMissing, TamperError
from tightship.ledger.backend import Store
from tightship.ledger.entries import Entry, decode
from tightship.ledger.ledger import Ledger
from tightship.ledger.locks import EXECUTOR_LOCK, ExecutorLock
from tightship.ledger.merkle.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    parse_checkpoint_text,
    sign_checkpoint,
)
from tightship.ledger.merkle.keys import NoteSigner, Verifier
from tightship.ledger.merkle.tiles import integrate
from tightship.ledger.merkle.tree import EMPTY_ROOT, leaf_hashes
from tightship.ledger.public_keys import PUBLIC_KEYS

CHUNK: Final = 2000
"""Entries that one job integrates, so that no commit waits long."""
EVERY: Final = 1.0
"""Seconds between two looks."""
HOT: Final = 4096
"""The latest entries, which are not packed while the log is open."""
BUSY: Final = 2000
"""Entries between two looks from which packing waits for a quieter time."""
BACKLOG: Final = 500_000
"""Entries not packed from which it no longer waits."""
CLOSING: Final = 2.0
"""Seconds that packing may take when the store is closed."""
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class _Head:
    """Where a log's tree stands: who signs for it, and the last checkpoint."""

    signer: NoteSigner
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class _Step:
    """What one job writes."""

    head: _Head
    note: str
    tiles: dict[tuple[int, int], bytes]


class BackendTiles:
    """One log's tiles as they lie in the store."""

    def __init__(self, backend: Store, log_id: int) -> None:
        self._backend = backend
        self._log_id = log_id

    def get(self, level: int, index: int) -> bytes | None:
        """The tile's hashes, or None."""
        return self._backend.tile(self._log_id, level, index)


class Sequencer:
    """Keeps the logs' trees up with their entries.

    Args:
        ledger: whose logs.
        name: what a new log's origin begins with (the workspace's name); a log keeps the origin it began with.
        every: seconds of the ledger's clock between two looks.
        chunk: entries per job.
    """

    def __init__(self, ledger: Ledger, name: str = "tightship", *, every: float = EVERY, chunk: int = CHUNK) -> None:
        self._ledger = ledger
        self._name = name
        self._every = every
        self._chunk = chunk
        self._known: dict[str, _Head] = {}
        self._published: set[str] = set()
        self._packed = 0
        self._turn = asyncio.Lock()
        self._fresh = True
        self._task: asyncio.Task[None] | None = None
        self._unlisten = ledger.listen(self._heard)
        self.error: Exception | None = None
        """Why the last look did not succeed; None when it did."""

    def _heard(self, entries: list[Entry], foreign: bool) -> None:
        self._fresh = True

    # --- running ---------------------------------------------------------------------------------

    @classmethod
    def start(cls, ledger: Ledger, name: str = "tightship") -> Sequencer:
        """A sequencer that runs as a task until `close`."""
        sequencer = cls(ledger, name)
        sequencer._task = asyncio.ensure_future(sequencer.run())
        return sequencer

    async def close(self) -> None:
        """End the task, cover everything with a checkpoint, pack all that is full, as far as a short time allows."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._unlisten()
        backend = self._ledger.backend
        if await self._ledger.off_loop(backend.sequences):
            await self.run_once()
            await self.pack(HOT if backend.shared else 0, CLOSING)

    async def run(self) -> None:
        """Integrate what is new, again and again, until cancelled.

        A disk that refuses is tried again. A log that was tampered with is never signed: that is kept in `error`
        and logged, and the appends go on, uncovered, until `audit verify` and somebody have looked.
        """
        while True:
            await self._ledger.world.clock.sleep(self._every)
            backend = self._ledger.backend
            if not self._fresh and not backend.shared:
                continue
            self._fresh = False
            try:
                if not await self._ledger.off_loop(backend.sequences):
                    self._known.clear()  # another process goes on from where it finds the tree
                    continue
                before = sum(head.size for head in self._known.values())
                now = sum((await self.run_once()).values())
                if now - before < BUSY or now - self._packed > BACKLOG:
                    await self.pack(HOT)
            except StoreError as error:
                self._fresh = True
                self._report(error)
            except LedgerError as error:
                self._report(error)

    async def catch_up(self) -> None:
        """Integrate what nobody has: where another process holds the lock it is at work already."""
        if await self._ledger.off_loop(self._ledger.backend.sequences):
            await self.run_once()

    def _report(self, error: Exception) -> None:
        if str(error) != str(self.error):
            logging.getLogger(__name__).error("entries could not be put under a checkpoint: %s", error)
        self.error = error

    async def run_once(self) -> dict[str, int]:
        """Integrate all entries that there are now; returns how many each log's checkpoint covers.

        Raises:
            TamperError: entries, tiles or checkpoint are not what was written; nothing more was signed.
            StoreError: the disk.
        """
        async with self._turn:
            covered: dict[str, int] = {}
            for log, (log_id, end) in (await self._ledger.off_loop(self._ledger.backend.heads)).items():
                covered[log] = await self._cover(log, log_id, end)
            self.error = None
            return covered

    async def pack(self, hot: int, seconds: float = math.inf) -> int:
        """Pack full bundles of covered entries; returns how many entries were packed.

        Args:
            hot: how many of the latest entries stay as they are.
            seconds: about how long it may take; the rest is packed another time.

        Raises:
            TamperError: an entry is damaged; it and those behind it stay as they are. StoreError: the disk.
        """
        ledger, moved = self._ledger, 0
        clock = ledger.world.clock
        end = clock.monotonic() + seconds
        for log, head in list(self._known.items()):
            while (
                head.size > hot
                and clock.monotonic() < end
                and (some := await ledger.job(functools.partial(ledger.backend.compact, log, head.size - hot)))
            ):
                moved += some
        self._packed += moved
        if moved:
            await ledger.job(ledger.backend.trim)
        return moved

    async def _cover(self, log: str, log_id: int, end: int) -> int:
        ledger = self._ledger
        head = self._known.get(log)
        if head is None:
            await ledger.job(_nothing)  # behind a step of ours that was cut off while it was on its way to the disk
            head = await ledger.off_loop(self._recall, log, log_id)
        if head is None:
            origin = origin_of(self._name, log)
            head = _Head(await ledger.off_loop(signer_of, ledger, origin, True), 0, EMPTY_ROOT)
        try:
            while head.size < end:
                step = await ledger.off_loop(self._plan, log, log_id, head)
                await ledger.job(functools.partial(self._store, log_id, head.size, step))
                head = step.head
        except BaseException:
            self._known.pop(log, None)
            raise
        self._known[log] = head
        return head.size

    # --- one step --------------------------------------------------------------------------------

    def _recall(self, log: str, log_id: int) -> _Head | None:
        """Where the tree stands by its last checkpoint, whose signature is checked; None before the first."""
        last = self._ledger.backend.checkpoint(log_id)
        if last is None:
            return None
        signer = signer_of(self._ledger, stated_origin(last[1]))
        head = parse_checkpoint(last[1], [signer.verifier]).checkpoint
        if head.size != last[0]:
            raise TamperError(f"the last checkpoint of log {log!r} says {head.size} entries, its row says {last[0]}")
        return _Head(signer, head.size, head.root)

    def _plan(self, log: str, log_id: int, head: _Head) -> _Step:
        """Read the next entries, integrate them, sign."""
        backend = self._ledger.backend
        rows = backend.entries(log, head.size, self._chunk)
        for at, (n, data) in enumerate(rows, start=head.size + 1):
            if n != at:
                raise TamperError(f"entry {at} of log {log!r} is missing", fix="run `tightship audit verify`")
            decode(log, n, data)
        leaves = leaf_hashes(data for _, data in rows)
        grown = integrate(BackendTiles(backend, log_id), head.size, leaves, root=head.root)
        note = sign_checkpoint(Checkpoint(head.signer.name, grown.size, grown.root), head.signer)
        return _Step(_Head(head.signer, grown.size, grown.root), note, grown.tiles)

    def _store(self, log_id: int, before: int, step: _Step) -> None:
        """The writer's part. The key is durable before anything that it has signed."""
        signer = step.head.signer
        if key_name(signer.name) in self._ledger.vault.keyring.flush():
            raise StoreError("another process has made this log's key at the same moment", fix="try again")
        if signer.name not in self._published:
            self._ledger.backend.publish(signer.name, signer.vkey)
            self._published.add(signer.name)
        self._ledger.backend.put_tree(log_id, before, step.head.size, step.note, step.tiles)


def _nothing() -> None:
    """A job that only waits for its turn."""


async def cover(ledger: Ledger, name: str = "tightship") -> bool:
    """Integrate what no checkpoint covers yet, unless another process executes, whose task it is.

    Returns: whether it was done.
    """
    sequencer = Sequencer(ledger, name)
    lock = None if ledger.path is None else ExecutorLock(ledger.path / EXECUTOR_LOCK)
    try:
        if lock is not None:
            await asyncio.to_thread(lock.acquire)
        if not await ledger.off_loop(ledger.backend.sequences):
            return False
        await sequencer.close()
    except StoreError:
        return False
    finally:
        if lock is not None:
            lock.release()
    return True


# --- keys ----------------------------------------------------------------------------------------------


def origin_of(name: str, log: str) -> str:
    """The origin of a log: `NAME/LOG`, percent-encoded, since the name of a key holds no blanks and plus signs."""
    origin = f"{quote(name, safe='')}/{quote(log, safe='')}"
    if len(origin) <= _MAX_NAME:
        return origin
    return f"{origin[: _MAX_NAME - 17]}-{hashlib.sha256(origin.encode()).hexdigest()[:16]}"


def stated_origin(note: str) -> str:
    """The origin that a checkpoint states; whether its signature is that origin's, the caller checks.

    Raises:
        TamperError: it is no checkpoint.
    """
    text, _, _ = note.rpartition("\n\n")
    return parse_checkpoint_text(text + "\n").origin


def key_name(origin: str) -> str:
    """The name under which the keystore holds a log's signing seed."""
    return f"log:{origin}"


def signer_of(ledger: Ledger, origin: str, create: bool = False) -> NoteSigner:
    """The key that signs a log's checkpoints. Blocks; call it off the loop.

    Raises:
        TamperError: it is not the key that was published, or its row was changed.
        StoreMissing: there is none and none may be made.
    """
    published = ledger.backend.public_keys().get(origin)
    try:
        seed = ledger.vault.keyring.key(key_name(origin), create=create and published is None)
    except StoreMissing:
        raise StoreMissing(
            f"the keystore does not hold the key that signs the log {origin}",
            fix="restore the keystore from your backup",
        ) from None
    signer = NoteSigner(origin, seed)
    if published is not None and published != signer.vkey:
        raise TamperError(
            f"the log {origin} was signed with another key than the keystore has",
            where=PUBLIC_KEYS,
            fix="restore the keystore from your backup",
        )
    return signer


def keys_of(ledger: Ledger) -> dict[str, Verifier]:
    """By log, the key that its checkpoints are signed with. It blocks."""
    keys: dict[str, Verifier] = {}
    for log, (log_id, _) in ledger.backend.heads().items():
        last = ledger.backend.checkpoint(log_id)
        if last is not None:
            keys[log] = signer_of(ledger, stated_origin(last[1])).verifier
    return keys
