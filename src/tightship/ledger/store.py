"""The one store algorithm: how a batch of units becomes entries. SQLite, memory and Postgres differ only in `Backend`.

Under the head's lock: read what the units' conditions need, judge each unit, give positions to those that stand,
fold the projections, write everything, commit. A unit that is refused leaves nothing; the others are not touched by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tightship.core import kinds
from tightship.core.errors import GuardRefused, LedgerError, StaleOwner, TightshipError
from tightship.core.ports import Delta
from tightship.core.world import Clock
from tightship.ledger.backend import HALTED, NOTHING, Asked, Backend, Batch
from tightship.ledger.claiming import Claiming
from tightship.ledger.entries import Count, Draft, Entry, Expected, Guards, Unit, encode_head, encode_tail
from tightship.ledger.projections import Deltas, Folder, merge

_KNOWN_RUNS = 20_000
"""Runs whose heads are kept in memory; beyond, all are forgotten and read again as they are needed."""


_FOLLOWED = frozenset({kinds.STARTED, kinds.CLAIMED, kinds.SIGNAL, kinds.ENDED, kinds.PARKED, kinds.HALT, kinds.UNHALT})
"""Kinds that change what guards look at."""


@dataclass(slots=True)
class RunHead:
    """What guards need to know of a run. A run that has had signals but no start does not exist yet."""

    epoch: int
    ended: bool
    last_signal: int
    exists: bool = True


@dataclass(frozen=True, slots=True)
class _Facts:
    """What was read for one batch: who holds its business keys (run and effect), which of its items are open, and the
    rows of its shared values and of its runs' counters."""

    claims: dict[str, tuple[str, str]]
    open: set[str]
    context: dict[tuple[str, str], dict[str, Any]]
    counters: dict[str, dict[str, Any]]


class Committer:
    """Judges and commits batches; keeps what it knows of runs and halts as long as nobody else appended."""

    def __init__(self, backend: Backend, folder: Folder, clock: Clock, heads: dict[str, tuple[int, int]]) -> None:
        self._backend = backend
        self._folder = folder
        self._clock = clock
        # What others append from there on is foreign, also before the first batch of our own.
        self._heads = dict(heads)
        self._runs: dict[str, RunHead] = {}
        self._gone: list[str] = []
        self._halted: set[str] | None = None
        self._last_at: int | None = None
        self._now: float | None = None

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
                unit.refuse(error)
        return foreign

    def forget(self) -> None:
        """Read everything again at the next batch."""
        self._runs.clear()
        self._halted = None

    def _commit(self, units: Sequence[Unit]) -> list[Entry]:
        try:
            if self._backend.shared or len(self._runs) > _KNOWN_RUNS:
                self.forget()
            opening = self._backend.begin(self._asked(units) if self._backend.shared else NOTHING)
            heads = opening.heads
            foreign = self._notice_others(heads)
            self._now = opening.now
            if opening.last is not None:
                self._last_at = opening.last
            elif self._last_at is None:
                self._last_at = self._latest(heads)
            facts = self._read_facts(self._asked(units))
            batch = Batch()
            for unit in units:
                if unit.claiming is not None:
                    self._claim(unit, unit.claiming, heads, batch)
                else:
                    unit.refuse(self._judge(unit, facts, batch.deltas) or self._take(unit, heads, batch))
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
        if heads == self._heads or self._backend.shared:
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

    def _asked(self, units: Sequence[Unit]) -> Asked:
        """What the units' guards look at and is not known yet."""
        runs: set[str] = set()
        claims: set[str] = set()
        items: set[str] = set()
        context: set[tuple[str, str]] = set()
        counters: set[str] = set()
        for unit in units:
            for draft in unit.drafts:
                if draft.run and draft.run not in self._runs:
                    runs.add(draft.run)
            if unit.guards is not None:
                if unit.guards.claim:
                    claims.add(unit.guards.claim)
                if unit.guards.open_item is not None:
                    items.add(unit.guards.open_item)
                context.update((one.scope, one.key) for one in unit.guards.context)
                counters.update(one.run for one in unit.guards.counts)
        return Asked(
            tuple(sorted(runs)),
            tuple(sorted(claims)),
            tuple(sorted(items)),
            tuple(sorted(context)),
            tuple(sorted(counters)),
        )

    def _read_facts(self, asked: Asked) -> _Facts:
        """Bring what is known of runs and halts up to what the units need, and read who holds what they ask for."""
        looks = [look for look in asked.looks() if look is not HALTED or self._halted is None]
        rows = {table: self._backend.look(table, where) for table, where in looks}
        for run in asked.runs:
            self._runs[run] = RunHead(0, False, 0, exists=False)
        for row in rows.get("runs", ()):
            state = row["state"]
            self._runs[row["id"]] = RunHead(row["epoch"], state == "ended", row["last_signal"], state != "")
        if "halts" in rows:
            self._halted = {row["scope"] for row in rows["halts"]}
        claims = {
            row["key"]: (row["run"], row["effect"]) for row in rows.get("claims", ()) if row["state"] != "released"
        }
        items = {row["item"] for row in rows.get("inbox", ()) if row["state"] == "open"}
        context = {(row["scope"], row["key"]): row for row in rows.get("context", ())}
        return _Facts(claims, items, context, {row["run"]: row for row in rows.get("counters", ())})

    def _judge(self, unit: Unit, facts: _Facts, deltas: Deltas) -> Exception | None:
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
        if unit.line is not None and unit.line.broken is not None:
            return unit.line.broken
        return None if unit.guards is None else self._guard(unit, unit.guards, facts, deltas)

    def _guard(self, unit: Unit, guards: Guards, facts: _Facts, deltas: Deltas) -> Exception | None:
        draft = unit.drafts[0]
        head = self._runs.get(draft.run)
        exists = head is not None and head.exists
        if guards.fresh and exists:
            return GuardRefused(f"run {draft.run} exists already", reason="exists", holder=draft.run)
        if guards.takeover is not None and (head is None or not exists or head.ended or head.epoch != guards.takeover):
            return StaleOwner(f"run {draft.run} was taken by another owner")
        if guards.seen is not None and head is not None and head.last_signal > guards.seen:
            return GuardRefused(f"run {draft.run} has an unread signal", reason="signal")
        if guards.open_item is not None and not _is_open(guards.open_item, facts, deltas):
            return GuardRefused(f"inbox item {guards.open_item} is not open", reason="decided")
        if (refused := self._stands(unit, guards, facts, deltas)) is not None:
            return refused
        if guards.scopes:
            halted = (self._halted or set()).intersection(guards.scopes)
            if halted:
                return GuardRefused("halted", reason="halted", holder=min(halted))
        for expected in guards.context:
            moved = self._moved(expected, facts, deltas)
            if moved is not None:
                return GuardRefused(f"{expected.key} {moved}", reason="context", holder=expected.key)
        if guards.claim:
            holder = _holder(guards.claim, facts.claims, deltas)
            if holder is not None and holder != (draft.run, draft.key):
                return GuardRefused("the business key is held", reason="claim", holder=holder[0])
        return None

    def _stands(self, unit: Unit, guards: Guards, facts: _Facts, deltas: Deltas) -> GuardRefused | None:
        """Why what all workers keep together (loans, counters, schedules, deliveries) has no room for it any more."""
        for count in guards.counts:
            if _counted(count, facts.counters, deltas) + count.more > count.most:
                return GuardRefused(f"no {count.counter} are left", reason="counted", holder=count.run)
        if guards.lends and not self._is_left(unit.drafts[0].body, guards.lends, deltas):
            return GuardRefused("so much is not left to lend", reason="lent")
        if guards.loan is not None and self._is_closed(guards.loan, deltas):
            return GuardRefused("what was lent was reconciled", reason="reconciled", holder=guards.loan[0])
        if guards.kept is not None and self._upto(guards.kept[:2], deltas) != guards.kept[2]:
            return GuardRefused("the schedule was kept by another", reason="kept", holder=guards.kept[1])
        if guards.delivers is not None and self._attempts(guards.delivers[:3], deltas) != guards.delivers[3]:
            return GuardRefused("another worker is at this delivery", reason="delivers", holder=guards.delivers[0])
        return None

    def _is_left(self, loan: dict[str, Any], limits: Sequence[tuple[str, str, str, int]], deltas: Deltas) -> bool:
        """Whether what is lent stays within its limits with this loan, the changes of this batch included."""
        scope, period = limits[0][:2]
        rows = self._backend.look("envelopes", [("scope", "=", scope), ("period", "=", period)])
        pending = deltas.get("envelopes", {}).get((scope, period))
        for _, _, unit, limit in limits:
            lent = sum(row[unit] for row in rows) + (0 if pending is None else pending.add.get(unit, 0))
            more = int(loan.get(unit) or 0)
            if more > 0 and lent + more > limit:
                return False
        return True

    def _is_closed(self, loan: tuple[str, str, str], deltas: Deltas) -> bool:
        """Whether a loan was reconciled, by this batch or before."""
        pending = deltas.get("loans", {}).get(loan)
        if pending is not None and pending.set.get("closed"):
            return True
        where = list(zip(("owner", "scope", "period"), ("=", "=", "="), loan, strict=True))
        return any(row["closed"] for row in self._backend.look("loans", where))

    def _upto(self, schedule: tuple[str, str], deltas: Deltas) -> float:
        """How far a schedule was kept, the changes of this batch included."""
        pending = deltas.get("schedules", {}).get(schedule)
        if pending is not None:
            return float(pending.set["upto"])
        log, workflow = schedule
        rows = self._backend.look("schedules", [("log", "=", log), ("workflow", "=", workflow)])
        return rows[0]["upto"] if rows else 0.0

    def _attempts(self, delivery: tuple[str, str, str], deltas: Deltas) -> int | None:
        """How many attempts of a delivery were begun, the changes of this batch included; None once it is finished."""
        where = list(zip(("target", "item", "event"), ("=", "=", "="), delivery, strict=True))
        row = next(iter(self._backend.look("deliveries", where)), {"attempts": 0, "state": "sending"})
        pending = deltas.get("deliveries", {}).get(delivery)
        changes = {} if pending is None else pending.set
        open_ = changes.get("state", row["state"]) in ("sending", "failed")
        return int(changes.get("attempts", row["attempts"])) if open_ else None

    def _claim(self, unit: Unit, claiming: Claiming, heads: dict[str, tuple[int, int]], batch: Batch) -> None:
        """Append a takeover of each run that is due; what this batch has changed already waits for another."""
        changed = batch.deltas.get("runs", {})
        now = self._now or self._clock.now()
        begun = self._begun(changed) if claiming.bounds else ()
        wanted = replace(claiming, limit=claiming.limit + len(changed), begun=begun)
        rows = [row for row in self._backend.due(wanted, now) if (row["id"],) not in changed]
        claiming.rows.clear()
        entries: list[Entry] = []
        for row, nonce in zip(rows, claiming.nonces, strict=False):
            epoch = row["epoch"] + 1
            draft = Draft(row["id"], kinds.CLAIMED, "", {"owner": claiming.owner, "build": claiming.build}, epoch)
            self._runs[draft.run] = RunHead(row["epoch"], False, row["last_signal"])
            part = Unit(row["log"], (draft,), None, (encode_tail(draft, nonce),))
            if self._take(part, heads, batch) is None:
                entries += part.entries
                taken = {"state": "running", "epoch": epoch, "owner": claiming.owner}
                claiming.rows.append({**row, **taken})
        unit.entries = entries

    def _begun(self, changed: Mapping[Any, Delta]) -> tuple[tuple[str, str, int], ...]:
        """Runs that this batch has given an owner, which their rows do not say yet: tenant, workflow, and one each."""
        given = {key[0]: delta.set for key, delta in changed.items() if delta.set.get("state") == "running"}
        known = (
            self._backend.look("runs", [("id", "in", tuple(sorted(given))), ("state", "!=", "ended")]) if given else []
        )
        rows = [{"parent": "", **row, **given.pop(row["id"])} for row in known]
        return tuple((row["tenant"], row["workflow"], 1) for row in [*rows, *given.values()] if not row.get("parent"))

    def _moved(self, expected: Expected, facts: _Facts, deltas: Deltas) -> str | None:
        """Why a value of the shared context no longer stands, the changes of this batch included; None when it does."""
        scope, key, version, until, alone, over = expected
        row: dict[str, Any] = {name: 0 for name in ("version", "busy", "used", "since", "as_of", "used_at", "ends")}
        row |= facts.context.get((scope, key), {})
        delta = deltas.get("context", {}).get((scope, key))
        if delta is not None:
            row.update(delta.set)
            row["busy"] += delta.add.get("busy", 0)
        if row["version"] != version:
            return f"was written at position {row['version']}, not {version}"
        if until and max((self._last_at or 0) / 1_000_000, self._clock.now()) > until:
            return "has become too old"
        if over and max((self._last_at or 0) / 1_000_000, self._now or self._clock.now()) < row["ends"]:
            return "has not run out"
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
        self._last_at = micros = max((self._last_at or 0) + 1, int((self._now or self._clock.now()) * 1_000_000))
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
            batch.rows.append((log_id, entry.n, draft.run, entry.data, unit.log, draft.kind))
            for payload in draft.payloads:
                batch.payloads[payload.address] = payload
            if draft.kind in _FOLLOWED:
                self._follow(entry)
        unit.entries = entries
        batch.heads[unit.log] = heads[unit.log] = (log_id, n)
        batch.last = micros
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
            if self._halted is not None and entry.body.get("type") in ("take", "give"):
                scope = f"taken:{entry.run}"  # as the projection of halts has it
                (self._halted.add if entry.body["type"] == "take" else self._halted.discard)(scope)
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


def _counted(count: Count, counters: Mapping[str, Mapping[str, Any]], deltas: Deltas) -> int:
    """What a counter has come to, the changes of this batch included, less what people have added to its limit."""
    row, delta = counters.get(count.run, {}), deltas.get("counters", {}).get((count.run,))
    added: Mapping[str, int] = delta.add if delta else {}
    more = f"{count.counter}_more"
    counted = row.get(count.counter, 0) + added.get(count.counter, 0)
    return counted - row.get(more, 0) - added.get(more, 0)


def _is_open(item: str, facts: _Facts, deltas: Deltas) -> bool:
    """Whether an inbox item is open, the changes of this batch included."""
    delta = deltas.get("inbox", {}).get((item,))
    if delta is not None and "state" in delta.set:
        return delta.set["state"] == "open"
    return item in facts.open
