"""The check of one log: its entries, their hashes, the tiles over them and the checkpoints over those."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import StoreError, TamperError, TightshipError
from tightship.ledger._reading import LogReader, Read, run_of
from tightship.ledger.archive_folder import Archives
from tightship.ledger.backend import Moment
from tightship.ledger.entries import Entry, decode
from tightship.ledger.findings import AuditReport
from tightship.ledger.ledger import Ledger
from tightship.ledger.merkle.checkpoint import Checkpoint, parse_checkpoint
from tightship.ledger.merkle.keys import Verifier
from tightship.ledger.merkle.locate import locate_damage
from tightship.ledger.merkle.tiles import HASH_SIZE, TILE_WIDTH, tiles_of
from tightship.ledger.merkle.tree import CompactRange, leaf_hash
from tightship.ledger.references import addresses_in, addresses_of
from tightship.ledger.scratch import Scratch
from tightship.ledger.sequencer import signer_of, stated_origin

_UNREADABLE: Final = bytes(HASH_SIZE)
"""Stands for the leaf of an entry that cannot be read, so that those behind it keep their places."""
_MAX_GAP: Final = 100_000
Step = Callable[[int], None]


@dataclass(slots=True)
class Left:
    """What of a log has left: up to where, what stays there, and the archives to look into, if any."""

    upto: int = 0
    stay: frozenset[int] = frozenset()
    archives: Archives | None = None
    _from: int = 0
    _some: list[bytes] = field(default_factory=list[bytes])

    def entries(self, log: str, index: int) -> bytes | None:
        """The entry at an index, which counts from 0, as an archive has it; a bundle is read at a time."""
        if self.archives is None:
            return None
        if not self._from <= index < self._from + len(self._some):
            self._from, self._some = index, self.archives.entries(log, index, TILE_WIDTH)
        return self._some[index - self._from] if self._some else None


class LogCheck:
    """Reads a log once, from its first entry to its last, and compares everything that hangs on it."""

    def __init__(
        self,
        ledger: Ledger,
        snapshot: Moment,
        scratch: Scratch,
        report: AuditReport,
        log_id: int,
        name: str,
        head: int,
        unnamed: set[str],
        left: Left,
    ) -> None:
        """`unnamed`: addresses of payloads; those that an entry names are taken out. `left`: what has left."""
        self._ledger = ledger
        self._snapshot = snapshot
        self._scratch = scratch
        self._report = report
        self._log_id, self._name, self._head = log_id, name, head
        self._unnamed = unnamed
        self._left = left
        self._tiles = _SnapshotTiles(snapshot, log_id)
        self._reader = LogReader(snapshot, log_id, name, self._add)
        self._n = 0
        self._micros = 0
        self._bad: set[int] = set()
        self._other_root: int | None = None
        self._keys: dict[str, Verifier] = {}
        self._range = CompactRange()
        self._checkpoints: Iterator[tuple[int, Checkpoint]] = iter(())
        self._next: tuple[int, Checkpoint] | None = None

    def run(self, step: Step) -> None:
        """All checks of the log."""
        last = self._last_checkpoint()
        self._checkpoints = self._each_checkpoint()
        self._next = next(self._checkpoints, None)
        leaves = self._leaves(step)
        if last is not None:
            try:
                for damage in locate_damage(self._tiles, last.size, last.root, leaves):
                    if damage.kind in ("entry", "either") and damage.index + 1 in self._bad:
                        continue  # its checksum has told already
                    at = f"log {self._name!r}"
                    if damage.kind == "tile":
                        at = f"tiles, row ({self._log_id}, {damage.level}, {damage.index // TILE_WIDTH})"
                    elif damage.kind != "root":
                        at = f"log {self._name!r}, entry {damage.index + 1}"
                    self._add(at, f"{_counted_from_one(str(damage), damage.index)}")
            except TightshipError as error:
                self._add(f"tiles of log {self._name!r}", error.message)
        for _ in leaves:
            pass
        self._finish(last)

    def _finish(self, last: Checkpoint | None) -> None:
        if self._other_root is not None:
            message = "the entries up to it do not have the root that was signed"
            self._add(self._note(self._other_root), message)
        while self._next is not None:
            self._add(self._note(self._next[0]), f"is over entries that are not there ({self._n} are)")
            self._next = next(self._checkpoints, None)
        if self._head != self._n:
            self._add(f"logs, row {self._log_id}, column head", f"says {self._head}, there are {self._n} entries")
        self._report.logs[self._name] = self._n
        self._report.covered[self._name] = 0 if last is None else min(last.size, self._n)
        self._tile_shapes(0 if last is None else last.size)

    # --- checkpoints -------------------------------------------------------------------------------

    def _last_checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint that is truly signed (`_each_checkpoint` reports the others)."""
        for size, note in self._snapshot.checkpoints(self._log_id, latest_first=True):
            checkpoint = self._open(size, note)
            if not isinstance(checkpoint, str):
                return checkpoint
        return None

    def _each_checkpoint(self) -> Iterator[tuple[int, Checkpoint]]:
        for size, note in self._snapshot.checkpoints(self._log_id):
            self._report.checkpoints += 1
            checkpoint = self._open(size, note)
            if isinstance(checkpoint, str):
                self._add(self._note(size), checkpoint)
            else:
                yield size, checkpoint

    def _open(self, size: Any, note: Any) -> Checkpoint | str:
        """A checkpoint whose signature holds, or what is wrong with it."""
        if not isinstance(size, int) or not isinstance(note, str):
            return "is no checkpoint"
        try:
            origin = stated_origin(note)
            if origin not in self._keys:
                self._keys[origin] = signer_of(self._ledger, origin).verifier
            checkpoint = parse_checkpoint(note, [self._keys[origin]]).checkpoint
        except TightshipError as error:
            return error.message
        if checkpoint.size != size:
            return f"is over {checkpoint.size} entries, its row says {size}"
        return checkpoint

    def _compare_roots(self) -> None:
        """Every checkpoint states the root that the entries up to it give: so each continues the one before."""
        while self._next is not None and self._next[0] <= self._n:
            size, checkpoint = self._next
            if size == self._n and self._other_root is None and self._range.root() != checkpoint.root:
                self._other_root = size  # all that follow differ as well
            self._next = next(self._checkpoints, None)

    def _tile_shapes(self, size: int) -> None:
        """Exactly the tiles of a tree of that size are there, each as wide as it should be."""
        expected = {(tile.level, tile.index): tile.width * HASH_SIZE for tile in tiles_of(size)}
        for level, position, length in self._snapshot.tile_sizes(self._log_id):
            self._report.tiles += 1
            wanted = expected.pop((level, position), None)
            if wanted != length:
                place = f"tiles, row ({self._log_id}, {level!r}, {position!r})"
                should = "no such tile belongs to the tree" if wanted is None else f"it should have {wanted} bytes"
                self._add(place, f"has {length} bytes; {should}")
        for level, position in expected:
            self._add(f"tiles, row ({self._log_id}, {level}, {position})", "is missing")

    # --- entries -----------------------------------------------------------------------------------

    def _leaves(self, step: Step) -> Iterator[bytes]:
        """The leaf hashes of all entries in order; each entry is checked on the way."""
        pages = self._reader.pages()
        while (page := self._page(pages)) is not None:
            if page[0].bundle is not None:
                self._scratch.put_bundle_runs(page[0].bundle, {run for run in map(run_of, page) if run is not None})
            sound: list[Entry] = []
            for read in page:
                for leaf in self._gone(read.n):
                    yield self._grow(leaf)
                missing = read.n - self._n - 1
                if not self._in_order(read.n, missing):
                    continue
                for _ in range(missing):
                    yield self._grow(_UNREADABLE)
                entry = self._entry(read)
                if entry is not None:
                    sound.append(entry)
                else:
                    self._bad.add(read.n)
                if self._unnamed and read.data is not None:
                    self._unnamed.difference_update(addresses_in(read.data))
                yield self._grow(_UNREADABLE if read.data is None else leaf_hash(read.data))
            self._report.entries += len(page)
            self._check_addresses([one for one in sound if one.n > self._left.upto or one.n in self._left.stay])
            step(len(page))
        for leaf in self._gone(self._left.upto + 1):
            yield self._grow(leaf)

    def _gone(self, before: int) -> Iterator[bytes]:
        """The leaf hashes of the entries before a position that have left: of what an archive has, or of the tiles."""
        while self._n + 1 < before and self._n < self._left.upto:
            index, at = divmod(self._n, TILE_WIDTH)
            if self._n + 1 in self._left.stay:
                self._add(self._place(self._n + 1), f"entry {self._n + 1} of log {self._name!r} is missing; it stays")
            found = self._left.entries(self._name, self._n)
            if found is not None:
                self._report.archives += 1
                yield leaf_hash(found)
                continue
            self._report.archived += 1
            hashes = self._tiles.get(0, index) or b""
            yield hashes[at * HASH_SIZE : (at + 1) * HASH_SIZE].ljust(HASH_SIZE, b"\0")

    def _page(self, pages: Iterator[list[Read]]) -> list[Read] | None:
        try:
            return next(pages, None)
        except StoreError as error:
            self._add(self._place(self._n + 1), f"the entries from {self._n + 1} on cannot be read: {error.message}")
            return None

    def _in_order(self, n: int, missing: int) -> bool:
        """Whether an entry stands where it can be counted; entries before it that are missing are reported."""
        if missing > 0:
            upto = f" to {n - 1}" if missing > 1 else ""
            self._add(self._place(self._n + 1), f"entry {self._n + 1}{upto} of log {self._name!r} is missing")
        elif missing < 0:
            self._add(self._place(n), f"entry {n} of log {self._name!r} stands twice, or behind its place")
        return 0 <= missing <= _MAX_GAP

    def _grow(self, leaf: bytes) -> bytes:
        self._n += 1
        self._range.append(leaf)
        self._compare_roots()
        return leaf

    def _entry(self, read: Read) -> Entry | None:
        """What was read as the entry that it should be, or None: why not is reported."""
        if read.data is None or read.damaged:
            return None
        try:
            entry = decode(self._name, read.n, read.data)
        except TamperError as error:
            self._add(read.place, error.message)
            return None
        if read.run is not None and entry.run != read.run:
            self._add(f"{read.place}, column run", f"holds {ascii(read.run)[:80]}, the entry is of run {entry.run!r}")
        micros = round(entry.at * 1_000_000)
        if micros < self._micros:
            self._add(read.place, f"store time goes back, from {self._micros} to {micros} microseconds")
        self._micros = max(self._micros, micros)
        return entry

    def _check_addresses(self, entries: list[Entry]) -> None:
        # pages of tables are looked for where the last archive's entry names them; earlier ones are gone
        own = (entry for entry in reversed(entries) if not (entry.kind == kinds.SNAPSHOT and "table" in entry.body))
        named = {address: entry.n for entry in own for address in addresses_of(entry)}
        for address in sorted(named.keys() - self._snapshot.stored(list(named))):
            self._add(self._place(named[address]), f"names payload {address}, which is not there")

    # --- where -------------------------------------------------------------------------------------

    def _place(self, n: int) -> str:
        return f"log {self._name!r}, entry {n}"

    def _note(self, size: Any) -> str:
        return f"checkpoints, row ({self._log_id}, {size!r})"

    def _add(self, place: str, message: str) -> None:
        self._report.add(self._snapshot.name, place, message)


class _SnapshotTiles:
    """A log's tiles in a snapshot."""

    def __init__(self, snapshot: Moment, log_id: int) -> None:
        self._snapshot = snapshot
        self._log_id = log_id
        self._last: tuple[int, int, bytes | None] = (-1, -1, None)

    def get(self, level: int, index: int) -> bytes | None:
        """The tile's hashes; one that is no blob counts as missing. The one that was read last is kept."""
        if self._last[:2] != (level, index):
            data = self._snapshot.tile(self._log_id, level, index)
            self._last = (level, index, data if isinstance(data, bytes) else None)
        return self._last[2]


def _counted_from_one(text: str, index: int) -> str:
    """Entries count from 1 in the ledger and from 0 in the tree."""
    for words in ("entry", "entries from"):
        text = text.replace(f"{words} {index} ", f"{words} {index + 1} ")
    return text
