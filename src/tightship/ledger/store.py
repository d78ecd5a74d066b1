"""The one store algorithm: how a batch of units becomes entries. SQLite, memory and Postgres differ only in `Backend`.

Under the head's lock: read what the units' conditions need, judge each unit, give positions to those that stand,
fold the projections, write everything, commit. A unit that is refused leaves nothing; the others are not touched by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tightship.core import kinds
from tightship.core.errors import GuardRefused, StaleOwner
from tightship.core.ports import Delta
from tightship.core.world import Clock
from tightship.ledger.entries import Entry, Guards, SealedPayload, Unit, encode_head
from tightship.ledger.projections import Folder

Condition = tuple[str, str, Any]
Deltas = dict[str, dict[tuple[object, ...], Delta]]


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    rows: list[tuple[int, int, str, bytes]] = field(default_factory=list[tuple[int, int, str, bytes]])
    """log id, position, run, data"""
    payloads: dict[str, SealedPayload] = field(default_factory=dict[str, SealedPayload])
    deltas: Deltas = field(default_factory=dict[str, dict[tuple[object, ...], Delta]])
    heads: dict[str, int] = field(default_factory=dict[str, int])


class Backend(Protocol):
    """A store's primitive operations. `begin` to `commit` run on the writer alone; reading may run beside it."""

    def begin(self) -> dict[str, tuple[int, int]]:
        """Lock the heads; log name -> (log id, head)."""
        ...

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Write a batch inside the transaction; `tables` names the key columns of each projection."""
        ...

    def commit(self) -> None:
        """Make it durable."""
        ...

    def rollback(self) -> None:
        """Leave no trace of it."""
        ...

    def look(self, table: str, where: Sequence[Condition]) -> list[dict[str, Any]]:
        """Rows of a projection, read inside the transaction."""
        ...

    def tail(self, log: str, log_id: int, after: int, upto: int) -> list[Entry]:
        """Entries read inside the transaction."""
        ...


@dataclass(slots=True)
class RunHead:
    """What guards need to know of a run."""

    epoch: int
    ended: bool
    last_signal: int


class Committer:
    """Judges and commits batches; keeps what it knows of runs and halts as long as nobody else appended."""

    def __init__(self, backend: Backend, folder: Folder, clock: Clock, before: Callable[[], None]) -> None:
        self._backend = backend
        self._folder = folder
        self._clock = clock
        self._before = before
        self._heads: dict[str, tuple[int, int]] = {}
        self._runs: dict[str, RunHead | None] = {}
        self._halted: set[str] | None = None
        self._last_at = 0
        self._closing: set[str] = set()
        """Inbox items that this batch closes."""

    def commit(self, units: Sequence[Unit]) -> list[Entry]:
        """Commit a batch: each unit gets its entries or its refusal. Returns entries that others have appended.

        Raises:
            StoreError: nothing of the batch was written.
        """
        self._before()
        foreign: list[Entry] = []
        try:
            heads = self._backend.begin()
            foreign = self._notice_others(heads)
            claims = self._read_facts(units)
            batch = Batch()
            self._closing.clear()
            for unit in units:
                unit.refusal = self._judge(unit, claims)
                if unit.refusal is None:
                    self._take(unit, heads, batch, claims)
            if batch.rows:
                self._backend.write(batch, self._folder.tables)
            self._backend.commit()
        except BaseException:
            self._backend.rollback()
            self._heads.clear()
            self._forget()
            for unit in units:
                unit.entries = []
            raise
        self._heads = heads
        return foreign

    def _forget(self) -> None:
        self._runs.clear()
        self._halted = None

    def _notice_others(self, heads: dict[str, tuple[int, int]]) -> list[Entry]:
        """Another process (a command beside `serve`) has appended: what we know may be old."""
        if heads == self._heads:
            return []
        foreign: list[Entry] = []
        if self._heads:
            for log, (log_id, head) in heads.items():
                known = self._heads.get(log, (log_id, 0))[1]
                if head > known:
                    foreign.extend(self._backend.tail(log, log_id, known, head))
        self._forget()
        return foreign

    def _read_facts(self, units: Sequence[Unit]) -> dict[str, tuple[str, str]]:
        wanted: set[str] = set()
        claimed: set[str] = set()
        for unit in units:
            for draft in unit.drafts:
                if draft.run and draft.run not in self._runs:
                    wanted.add(draft.run)
            if unit.guards is not None and unit.guards.claim:
                claimed.add(unit.guards.claim)
        if wanted:
            found = {
                row["id"]: RunHead(row["epoch"], row["state"] == "ended", row["last_signal"])
                for row in self._backend.look("runs", [("id", "in", sorted(wanted))])
            }
            for run in wanted:
                self._runs[run] = found.get(run)
        if self._halted is None:
            self._halted = {row["scope"] for row in self._backend.look("halts", [("state", "=", "on")])}
        if not claimed:
            return {}
        rows = self._backend.look("claims", [("key", "in", sorted(claimed))])
        return {row["key"]: (row["run"], row["effect"]) for row in rows if row["state"] != "released"}

    def _judge(self, unit: Unit, claims: dict[str, tuple[str, str]]) -> Exception | None:
        for draft in unit.drafts:
            head = self._runs.get(draft.run)
            if not draft.epoch or draft.kind in (kinds.STARTED, kinds.CLAIMED):
                continue
            if head is None or head.ended or head.epoch != draft.epoch:
                return StaleOwner(f"run {draft.run} is no longer owned at epoch {draft.epoch}")
        return None if unit.guards is None else self._guard(unit, unit.guards, claims)

    def _guard(self, unit: Unit, guards: Guards, claims: dict[str, tuple[str, str]]) -> Exception | None:
        draft = unit.drafts[0]
        head = self._runs.get(draft.run)
        if guards.fresh and head is not None:
            return GuardRefused(f"run {draft.run} exists already", reason="exists", holder=draft.run)
        if guards.takeover is not None and (head is None or head.ended or head.epoch != guards.takeover):
            return StaleOwner(f"run {draft.run} was taken by another owner")
        if guards.seen is not None and head is not None and head.last_signal > guards.seen:
            return GuardRefused(f"run {draft.run} has an unread signal", reason="signal")
        if guards.open_item is not None:
            rows = self._backend.look("inbox", [("item", "=", guards.open_item)])
            if not rows or rows[0]["state"] != "open" or guards.open_item in self._closing:
                return GuardRefused(f"inbox item {guards.open_item} is not open", reason="decided")
            self._closing.add(guards.open_item)
        if guards.scopes:
            halted = (self._halted or set()).intersection(guards.scopes)
            if halted:
                return GuardRefused("halted", reason="halted", holder=min(halted))
        if guards.claim:
            holder = claims.get(guards.claim)
            if holder is not None and holder != (draft.run, draft.key):
                return GuardRefused("the business key is held", reason="claim", holder=holder[0])
        return None

    def _take(
        self, unit: Unit, heads: dict[str, tuple[int, int]], batch: Batch, claims: dict[str, tuple[str, str]]
    ) -> None:
        log_id, n = heads.get(unit.log) or (len(heads) + 1, 0)
        # store time never goes back along the log, whatever the machine's clock does
        self._last_at = micros = max(self._last_at, int(self._clock.now() * 1_000_000))
        entries: list[Entry] = []
        for draft, tail in zip(unit.drafts, unit.tails, strict=True):
            n += 1
            data = encode_head(n, micros) + tail
            entry = Entry(
                n, micros / 1_000_000, unit.log, draft.run, draft.kind, draft.key, draft.epoch, draft.body, data
            )
            entries.append(entry)
            batch.rows.append((log_id, n, draft.run, data))
            for payload in draft.payloads:
                batch.payloads[payload.address] = payload
            self._folder.fold(entry, batch.deltas)
            self._follow(entry)
        if unit.guards is not None and unit.guards.claim:
            claims[unit.guards.claim] = (unit.drafts[0].run, unit.drafts[0].key)
        unit.entries = entries
        heads[unit.log] = (log_id, n)
        batch.heads[unit.log] = n

    def _follow(self, entry: Entry) -> None:
        """Keep what guards need in step with what is appended."""
        kind = entry.kind
        if kind in (kinds.STARTED, kinds.CLAIMED):
            known = self._runs.get(entry.run)
            self._runs[entry.run] = RunHead(entry.epoch, False, known.last_signal if known else 0)
        elif kind == kinds.SIGNAL:
            known = self._runs.get(entry.run)
            if known is not None:
                known.last_signal = entry.n
        elif kind in (kinds.ENDED, kinds.PARKED):
            self._runs.pop(entry.run, None)  # memory stays flat; read again when it is needed
        elif kind == kinds.HALT and self._halted is not None:
            self._halted.add(entry.body["scope"])
        elif kind == kinds.UNHALT and self._halted is not None:
            self._halted.discard(entry.body["scope"])


def rebuild(entries: Iterable[Entry], folder: Folder) -> Deltas:
    """The projections as the log alone gives them."""
    deltas: Deltas = {}
    for entry in entries:
        folder.fold(entry, deltas)
    return deltas
