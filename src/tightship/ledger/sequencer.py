"""The sequencer: brings appended entries into the Merkle tree, signs checkpoints, and packs what is no longer hot.

It reads off the loop and writes in small jobs on the writer, so that commits are not held up. Whoever executes runs it.
"""

from __future__ import annotations

import functools

from tightship.core.errors import StoreError, TightshipError
from tightship.ledger.ledger import DEFAULT_LOG, Ledger
from tightship.ledger.merkle.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from tightship.ledger.merkle.keys import NoteSigner
from tightship.ledger.merkle.tiles import integrate
from tightship.ledger.merkle.tree import EMPTY_ROOT, leaf_hashes

INTERVAL = 1.0
"""Seconds between two looks."""
CHUNK = 2048
"""Entries integrated, and committed, at a time."""
HOT = 4096
"""The latest entries, which are not packed while the log is open."""
BUSY = 2000
"""Entries in an interval from which packing waits for a quieter time."""
BACKLOG = 500_000
"""Entries not packed from which it no longer waits."""


def origin_of(log: str) -> str:
    """The origin line of a log's checkpoints."""
    return f"tightship/{log}"


def signer_of(ledger: Ledger, log: str = DEFAULT_LOG) -> NoteSigner:
    """The log's signing key; its seed lies in the keystore."""
    origin = origin_of(log)
    return NoteSigner(origin, ledger.vault.keyring.key(f"log:{origin}", create=True))


class StoreTiles:
    """The tiles of one log in a ledger's store (merkle.tiles.TileStore); `put` collects what is written together."""

    def __init__(self, ledger: Ledger, log_id: int) -> None:
        self._backend = ledger.backend
        self._log_id = log_id
        self.changed: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes | None:
        """The widest version of a tile."""
        return self.changed.get((level, index)) or self._backend.tile(self._log_id, level, index)

    def put(self, level: int, index: int, data: bytes) -> None:
        """Keep a tile until it is written."""
        self.changed[level, index] = data


class Sequencer:
    """Integrates one ledger's logs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._covered = self._packed = 0

    async def run(self) -> None:
        """Integrate what has come, again and again, until cancelled."""
        while True:
            await self._ledger.world.clock.sleep(INTERVAL)
            try:
                if await self.run_once() < BUSY or self._packed + BACKLOG < self._covered:
                    await self.pack(HOT)
            except StoreError:
                continue  # the disk refuses; the next append of a run says so where it matters

    async def run_once(self) -> int:
        """Integrate everything that is in the log now; returns how many entries that were.

        Raises:
            TamperError: the tree's right edge is not what the last checkpoint signed.
        """
        count = 0
        for log in list(await self._ledger.off_loop(self._ledger.backend.heads)):
            while added := await self._step(log):
                count += added
        return count

    async def close(self) -> None:
        """Cover everything with a checkpoint, and pack all that is full."""
        await self.run_once()
        await self.pack(0)

    async def pack(self, hot: int) -> int:
        """Pack full bundles of covered entries, all but the latest `hot`; returns how many entries were packed."""
        count = 0
        backend = self._ledger.backend
        for log_id, _ in (await self._ledger.off_loop(backend.heads)).values():
            last = await self._ledger.off_loop(backend.checkpoint, log_id)
            covered = (last[0] if last is not None else 0) - hot
            while covered > 0 and (
                moved := await self._ledger.job(functools.partial(backend.compact, log_id, covered))
            ):
                count += moved
        self._packed += count
        if count:
            await self._ledger.job(backend.trim)
        return count

    async def _step(self, log: str) -> int:
        ledger = self._ledger
        signer = signer_of(ledger, log)
        prepared = await ledger.off_loop(functools.partial(self._prepare, log, signer))
        if prepared is None:
            return 0
        log_id, tiles, size, note, added = prepared

        def write() -> None:
            ledger.vault.keyring.flush()  # a signature never comes before its key
            ledger.backend.put_tree(log_id, tiles, size, note)

        await ledger.job(write)
        self._covered += added
        return added

    def _prepare(self, log: str, signer: NoteSigner) -> tuple[int, dict[tuple[int, int], bytes], int, str, int] | None:
        backend = self._ledger.backend
        log_id, head = backend.heads()[log]
        size, root = 0, EMPTY_ROOT
        last = backend.checkpoint(log_id)
        if last is not None:
            signed = parse_checkpoint(last[1], [signer.verifier], origin=origin_of(log))
            size, root = signed.checkpoint.size, signed.checkpoint.root
        if size >= head:
            return None
        rows = backend.entries(log, size, CHUNK)
        if not rows:
            raise TightshipError(f"log {log!r} has its head at {head} and no entry after {size}")
        tiles = StoreTiles(self._ledger, log_id)
        done = integrate(tiles, size, leaf_hashes(data for _, _, data in rows), root=root if size else None)
        done.write(tiles)
        note = sign_checkpoint(Checkpoint(origin_of(log), done.size, done.root), signer)
        return log_id, tiles.changed, done.size, note, len(rows)
