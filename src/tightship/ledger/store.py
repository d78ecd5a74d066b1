"""The one store algorithm: how a batch of units becomes entries. SQLite, memory and Postgres differ only in `Backend`.

Under the head's lock: read what the units' conditions need, judge each unit, give positions to those that stand,
fold the projections, write everything, commit. A unit that is refused leaves nothing; the others are not touched by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tightship.core import kinds
from tightship.core.errors import GuardRefused, LedgerError, StaleOwner, TightshipError
from tightship.core.ports import Delta
from tightship.core.world import Clock
from tightship.ledger.entries import Entry, Expected, Guards, SealedPayload, Unit, encode_head
from tightship.ledger.projections import Deltas, Folder, merge

Condition = tuple[str, str, Any]
_KNOWN_RUNS = 20_000
"""Runs whose heads are kept in memory; beyond, all are forgotten and read again as they are needed."""


_FOLLOWED = frozenset({kinds.STARTED, kinds.CLAIMED, kinds.SIGNAL, kinds.ENDED, kinds.PARKED, kinds.HALT, kinds.UNHALT})
"""Kinds that change what guards look at."""


@dataclass(slots=True)
class Batch:
    """What one transaction writes."""

    rows: list[tuple[int, int, str, bytes, str]] = field(default_factory=list[tuple[int, int, str, bytes, str]])
    """log id, position, run, data, log"""
    payloads: dict[str, SealedPayload] = field(default_factory=dict[str, SealedPayload])
    deltas: Deltas = field(default_factory=dict[str, dict[tuple[object, ...], Delta]])
    heads: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """log -> (log id, its new last position)"""


class Backend(Protocol):
    """A store's primitive operations. `begin` to `commit` run on the writer alone; reading may run beside it."""

    def begin(self) -> dict[str, tuple[int, int]]:
        """Lock the heads; log name -> (log id, head)."""
        ...

    def write(self, batch: Batch, tables: dict[str, tuple[str, ...]]) -> None:
        """Write a batch inside the transaction; `tables` names the key columns of each projection.

        Raises:
            LedgerError: a value does not fit its column. StoreError: the disk.
        """
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

    def heads(self) -> dict[str, tuple[int, int]]:
        """Log name -> (log id, head), read outside of any transaction."""
        ...


@dataclass(slots=True)
class RunHead:
    """What guards need to know of a run. A run that has had signals but no start does not exist yet."""

    epoch: int
    ended: bool
    last_signal: int
    exists: bool = True


class Committer:
    """Judges and commits batches; keeps what it knows of runs and halts as long as nobody else appended."""

    def __init__(self, backend: Backend, folder: Folder, clock: Clock) -> None:
        self._backend = backend
        self._folder = folder
        self._clock = clock
        # What others append from now on is foreign, also before the first batch of our own.
        self._heads = backend.heads()
        self._runs: dict[str, RunHead] = {}
        self._gone: list[str] = []
        self._halted: set[str] | None = None
        self._last_at: int | None = None

    def commit(self, units: Sequence[Unit]) -> list[Entry]:
        """Commit a batch: each unit gets its entries or its refusal. Returns entries that others have appended.

        Raises:
            StoreError: nothing of the batch was written.
        """
        try:
            return self._commit(units)
        except LedgerError:
            if len(units) == 1:
                raise
        # A value of one unit fits no column. Each on its own: only that one is refused.
        foreign: list[Entry] = []
        for unit in units:
            unit.refusal = None
            try:
                foreign += self._commit([unit])
            except TightshipError as error:
                unit.refusal = error
        return foreign

    def forget(self) -> None:
        """Read everything again at the next batch."""
        self._runs.clear()
        self._halted = None

    def _commit(self, units: Sequence[Unit]) -> list[Entry]:
        try:
            heads = self._backend.begin()
            foreign = self._notice_others(heads)
            if self._last_at is None:
                self._last_at = self._latest(heads)
            claims = self._read_facts(units)
            batch = Batch()
            for unit in units:
                unit.refusal = self._judge(unit, claims, batch.deltas) or self._take(unit, heads, batch)
            if batch.rows:
                self._backend.write(batch, self._folder.tables)
            self._backend.commit()
        except BaseException:
            # `_heads` stays: what others appended is told with the next batch that succeeds.
            self._backend.rollback()
            self._gone.clear()
            self.forget()
            for unit in units:
                unit.entries = []
            raise
        self._heads = heads
        for run in self._gone:  # memory stays flat; read again when it is needed
            self._runs.pop(run, None)
        self._gone.clear()
        return foreign

    def _latest(self, heads: dict[str, tuple[int, int]]) -> int:
        """Store time of the last entry of any log, microseconds."""
        latest = 0
        for log, (log_id, head) in heads.items():
            for entry in self._backend.tail(log, log_id, head - 1, head):
                latest = max(latest, round(entry.at * 1_000_000))
        return latest

    def _notice_others(self, heads: dict[str, tuple[int, int]]) -> list[Entry]:
        """Another process (a command beside `serve`) has appended: what we know may be old."""
        if heads == self._heads:
            return []
        foreign: list[Entry] = []
        for log, (log_id, head) in heads.items():
            known = self._heads.get(log, (log_id, 0))[1]
            if head > known:
                foreign.extend(self._backend.tail(log, log_id, known, head))
        if self._last_at is not None:
            self._last_at = max([self._last_at, *(round(entry.at * 1_000_000) for entry in foreign)])
        self.forget()
        return foreign

    def _read_facts(self, units: Sequence[Unit]) -> dict[str, tuple[str, str]]:
        """Bring what is known of runs and halts up to what the units need; returns who holds their claims."""
        if len(self._runs) > _KNOWN_RUNS:
            self._runs.clear()
        wanted: set[str] = set()
        claimed: set[str] = set()
        for unit in units:
            for draft in unit.drafts:
                if draft.run and draft.run not in self._runs:
                    wanted.add(draft.run)
            if unit.guards is not None and unit.guards.claim:
                claimed.add(unit.guards.claim)
        if wanted:
            for run in wanted:
                self._runs[run] = RunHead(0, False, 0, exists=False)
            for row in self._backend.look("runs", [("id", "in", sorted(wanted))]):
                state = row["state"]
                self._runs[row["id"]] = RunHead(row["epoch"], state == "ended", row["last_signal"], state != "")
        if self._halted is None:
            self._halted = {row["scope"] for row in self._backend.look("halts", [("state", "=", "on")])}
        if not claimed:
            return {}
        rows = self._backend.look("claims", [("key", "in", sorted(claimed))])
        return {row["key"]: (row["run"], row["effect"]) for row in rows if row["state"] != "released"}

    def _judge(self, unit: Unit, claims: dict[str, tuple[str, str]], deltas: Deltas) -> Exception | None:
        started: dict[str, int] | None = None
        for draft in unit.drafts:
            if draft.kind in (kinds.STARTED, kinds.CLAIMED):
                started = started or {}
                started[draft.run] = draft.epoch
                continue
            if not draft.epoch:
                continue
            if started is not None and started.get(draft.run) == draft.epoch:
                continue
            head = self._runs.get(draft.run)
            if head is None or not head.exists or head.ended or head.epoch != draft.epoch:
                return StaleOwner(f"run {draft.run} is no longer owned at epoch {draft.epoch}")
        return None if unit.guards is None else self._guard(unit, unit.guards, claims, deltas)

    def _guard(
        self, unit: Unit, guards: Guards, claims: dict[str, tuple[str, str]], deltas: Deltas
    ) -> Exception | None:
        draft = unit.drafts[0]
        head = self._runs.get(draft.run)
        exists = head is not None and head.exists
        if guards.fresh and exists:
            return GuardRefused(f"run {draft.run} exists already", reason="exists", holder=draft.run)
        if guards.takeover is not None and (head is None or not exists or head.ended or head.epoch != guards.takeover):
            return StaleOwner(f"run {draft.run} was taken by another owner")
        if guards.seen is not None and head is not None and head.last_signal > guards.seen:
            return GuardRefused(f"run {draft.run} has an unread signal", reason="signal")
        if guards.open_item is not None and not self._is_open(guards.open_item, deltas):
            return GuardRefused(f"inbox item {guards.open_item} is not open", reason="decided")
        if guards.scopes:
            halted = (self._halted or set()).intersection(guards.scopes)
            if halted:
                return GuardRefused("halted", reason="halted", holder=min(halted))
        for expected in guards.context:
            moved = self._moved(expected, deltas)
            if moved is not None:
                return GuardRefused(f"{expected.key} {moved}", reason="context", holder=expected.key)
        if guards.claim:
            holder = _holder(guards.claim, claims, deltas)
            if holder is not None and holder != (draft.run, draft.key):
                return GuardRefused("the business key is held", reason="claim", holder=holder[0])
        return None

    def _is_open(self, item: str, deltas: Deltas) -> bool:
        """Whether an inbox item is open, the changes of this batch included."""
        delta = deltas.get("inbox", {}).get((item,))
        if delta is not None and "state" in delta.set:
            return delta.set["state"] == "open"
        return any(row["state"] == "open" for row in self._backend.look("inbox", [("item", "=", item)]))

    def _moved(self, expected: Expected, deltas: Deltas) -> str | None:
        """Why a value of the shared context no longer stands, the changes of this batch included; None when it does."""
        scope, key, version, until, alone = expected
        rows = self._backend.look("context", [("scope", "=", scope), ("key", "=", key)])
        row: dict[str, Any] = {name: 0 for name in ("version", "busy", "used", "since", "as_of", "used_at")}
        row |= rows[0] if rows else {}
        delta = deltas.get("context", {}).get((scope, key))
        if delta is not None:
            row.update(delta.set)
            row["busy"] += delta.add.get("busy", 0)
        if row["version"] != version:
            return f"was written at position {row['version']}, not {version}"
        if until and max((self._last_at or 0) / 1_000_000, self._clock.now()) > until:
            return "has become too old"
        if alone and row["busy"]:
            return "is being acted on"
        if alone and not current(row):
            return "was acted on since it was read"
        return None

    def _take(self, unit: Unit, heads: dict[str, tuple[int, int]], batch: Batch) -> Exception | None:
        """Give the unit its positions. Nothing of it is kept when one of its entries cannot be folded."""
        if not unit.drafts:
            return None
        log_id, n = heads.get(unit.log) or (len(heads) + 1, 0)
        # store time goes forward with every unit, whatever the machine's clock does: it orders the entries of all logs
        self._last_at = micros = max((self._last_at or 0) + 1, int(self._clock.now() * 1_000_000))
        entries: list[Entry] = []
        changes: list[tuple[str, Delta]] = []
        for draft, tail in zip(unit.drafts, unit.tails, strict=True):
            n += 1
            data = encode_head(n, micros) + tail
            entry = Entry(
                n,
                micros / 1_000_000,
                unit.log,
                draft.run,
                draft.kind,
                draft.key,
                draft.epoch,
                draft.body,
                data,
            )
            entries.append(entry)
            try:
                self._folder.changes(entry, changes)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                return LedgerError(f"the body of a {draft.kind} entry is not what its kind has: {error!r}")
        merge(changes, batch.deltas)
        for draft, entry in zip(unit.drafts, entries, strict=True):
            batch.rows.append((log_id, entry.n, draft.run, entry.data, unit.log))
            for payload in draft.payloads:
                batch.payloads[payload.address] = payload
            if draft.kind in _FOLLOWED:
                self._follow(entry)
        unit.entries = entries
        batch.heads[unit.log] = heads[unit.log] = (log_id, n)
        return None

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
            known = self._runs.get(entry.run)
            if known is not None:
                known.ended = kind == kinds.ENDED
            self._gone.append(entry.run)
        elif kind == kinds.HALT and self._halted is not None:
            self._halted.add(entry.body["scope"])
        elif kind == kinds.UNHALT and self._halted is not None:
            self._halted.discard(entry.body["scope"])


def current(row: Mapping[str, Any]) -> bool:
    """Whether an outside value was read after the last gated action on it had settled.

    A value that was pushed has no position of its reading (`since` is 0): its source's time counts.
    """
    return row["since"] >= row["used"] or (row["since"] == 0 and row["as_of"] > row["used_at"])


def _holder(claim: str, claims: dict[str, tuple[str, str]], deltas: Deltas) -> tuple[str, str] | None:
    """Who holds a claim, the changes of this batch included: run and effect."""
    held = claims.get(claim)
    delta = deltas.get("claims", {}).get((claim,))
    if delta is None:
        return held
    if delta.set.get("state") == "released":
        return None
    return (delta.set["run"], delta.set["effect"]) if "run" in delta.set else held
