"""What may leave for an archive, and what stays: decided over one snapshot of the store. Everything here blocks.

Entries leave by whole bundles from the beginning of each log, as far as they are older than the stated time. Of these,
entries stay, as rows of `kept`, that somebody may still need: those of runs that have not ended, of runs above, below,
linked to or forked from such a one, of runs with an open item or with entries on this side of the boundary; what
stands in no run (halts, budgets, schedules, thresholds, baselines, erasures, …); runs that a baseline is made of; and
values of the shared context that stand, or that a run which stays may have read. A run leaves whole or not at all.
Of values, those leave that are sealed with the key of a run that has left and that nothing else names.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import StoreError, TamperError
from tightship.ledger import folded
from tightship.ledger._reading import LogReader
from tightship.ledger._schema import schema
from tightship.ledger.archive_folder import Value
from tightship.ledger.backend import Moment
from tightship.ledger.bundles import WIDTH
from tightship.ledger.entries import POSITION_MASK, Entry, payload_crc
from tightship.ledger.findings import Progress
from tightship.ledger.ledger import Ledger
from tightship.ledger.references import addresses_in
from tightship.ledger.scratch import Scratch, in_order, same_row
from tightship.ledger.vault import names_of

_ADDRESS: Final = re.compile("[0-9a-f]{64}")
_FIX: Final = "`tightship audit verify` says what is damaged; nothing was archived"


@dataclass(slots=True)
class Plan:
    """What leaves, and how the tables stood.

    Attributes:
        upto: by log, how far it was read. first, last: by log, the positions whose bundles leave; last is one less than
            first where none does. stay: by log, positions up to there that stay.
        entries: how many leave. runs: how many runs leave. waiting: runs that would be old enough and stay.
        values: how many values leave.
    """

    previous: folded.Folded | None
    upto: dict[str, int] = field(default_factory=dict[str, int])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    first: dict[str, int] = field(default_factory=dict[str, int])
    last: dict[str, int] = field(default_factory=dict[str, int])
    stay: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    gone: set[str] = field(default_factory=set[str])
    entries: int = 0
    runs: int = 0
    waiting: int = 0
    values: int = 0

    @property
    def logs(self) -> list[str]:
        """The logs that bundles leave from."""
        return [log for log in self.upto if self.last[log] >= self.first[log]]


class Planner:
    """Reads a store once to see who needs what, and once more to see what that names.

    Attributes:
        scratch: the tables as the log gives them.
    """

    def __init__(self, ledger: Ledger, moment: Moment, before: float, progress: Progress) -> None:
        self._ledger, self._moment, self._before, self._progress = ledger, moment, before, progress
        self.scratch = Scratch(ledger.folder)
        self.plan = Plan(folded.latest(ledger))
        self._spans: dict[str, tuple[str, int, int]] = {}
        self._above: list[tuple[str, str]] = []
        self._young: dict[str, int] = {}
        self._baselines: dict[str, list[str]] = {}
        self._context: dict[tuple[str, str, str], list[int]] = {}
        self._named = sqlite3.connect("", isolation_level=None)
        self._named.execute("PRAGMA journal_mode=OFF")
        self._named.execute("CREATE TABLE named (address TEXT PRIMARY KEY) WITHOUT ROWID")

    def close(self) -> None:
        """Throw away what was put aside."""
        self.scratch.close()
        self._named.close()

    def make(self) -> Plan:
        """The plan.

        Raises:
            TamperError, StoreError: the store is not what was written.
        """
        plan, previous = self.plan, self.plan.previous
        for log_id, log, head in self._moment.logs():
            plan.upto[log], plan.ids[log] = head, log_id
            plan.first[log] = 1 + (previous.archived.get(log, 0) if previous else 0)
        if previous is not None:
            folded.begin(self._ledger, previous, self.scratch)
        for page in in_order([self._entries(log) for log in plan.upto]):
            self._read(page)
        self._compare()
        for log in plan.upto:
            plan.last[log] = self._boundary(log)
        staying = self._staying()
        for log in plan.upto:
            self._split(log, staying)
        self._name_rows()
        plan.values = sum(1 for _ in self.values())
        return plan

    def values(self) -> Iterator[Value]:
        """The values that leave, as they lie in the store."""
        for page in self._moment.payloads():
            for _, raw, scope, data, crc in page:
                if not scope or self.plan.gone.isdisjoint(names_of(scope)) or self._is_named(raw.hex()):
                    continue
                sealed = self._ledger.disk.read(raw.hex()) if data is None else bytes(data)
                if sealed is None or payload_crc(raw, scope, sealed) != crc:
                    raise TamperError(f"payload {raw.hex()} is not what was written", fix=_FIX)
                yield bytes(raw), scope, sealed, crc

    # --- reading ---------------------------------------------------------------------------------

    def _entries(self, log: str) -> Iterator[list[Entry]]:
        def damaged(place: str, message: str) -> None:
            raise TamperError(f"{place}: {message}", fix=_FIX)

        return LogReader(self._moment, self.plan.ids[log], log, damaged).entries()

    def _read(self, page: list[Entry]) -> None:
        """Who has entries where, who belongs together, and the tables."""
        upto = self.plan.previous.upto if self.plan.previous else {}
        fresh = [entry for entry in page if entry.n > upto.get(entry.log, 0)]
        self.scratch.fold(fresh)
        for entry in page:
            body = entry.body
            if entry.run:
                known = self._spans.get(entry.run)
                self._spans[entry.run] = (entry.log, known[1] if known else entry.n, entry.n)
            if entry.at >= self._before:
                self._young.setdefault(entry.log, entry.n)
            if entry.kind == kinds.STARTED:
                self._above += ((entry.run, other) for other in runs_behind(entry))
            elif entry.kind == kinds.BASELINE:
                self._baselines[body["subject"]] = list(body["runs"])
            elif entry.kind == kinds.CONTEXT:
                self._context.setdefault((entry.log, body["scope"], body["key"]), []).append(entry.n)
        self._progress("entries", sum(self.scratch.positions.values()), sum(self.plan.upto.values()))

    def _compare(self) -> None:
        """The store's tables are what the log gives: a snapshot of others would be believed from then on."""
        for table in self._ledger.folder.tables:
            theirs = self._moment.projection(table)
            for ours in self.scratch.rows(table):
                other = next(theirs, None)
                if other is None or same_row(ours, other) is not None:
                    raise StoreError(f"the table {table} is not what the log gives", where=self._moment.name, fix=_FIX)
            if next(theirs, None) is not None:
                raise StoreError(f"the table {table} is not what the log gives", where=self._moment.name, fix=_FIX)

    def _boundary(self, log: str) -> int:
        """Up to where bundles may leave: packed, older than the time, and never the entries of the last checkpoint."""
        checkpoint = self._ledger.backend.checkpoint(self.plan.ids[log])
        rows = next(self._moment.entries(self.plan.ids[log]), None)
        packed = (rows[0][0] & POSITION_MASK) - 1 if rows else self.plan.upto[log]
        size = checkpoint[0] if checkpoint else 0
        end = min(packed, min(size, self.plan.upto[log]) - 1, self._young.get(log, packed + 1) - 1)
        return max(end - end % WIDTH, self.plan.first[log] - 1)

    # --- who needs what --------------------------------------------------------------------------

    def _rows(self, table: str) -> Iterator[dict[str, Any]]:
        columns = list(schema()[table].defaults)
        return (dict(zip(columns, row, strict=True)) for row in self.scratch.rows(table))

    def _staying(self) -> set[str]:
        """The runs that stay whole; what stands in no run is not among them."""
        plan, ended = self.plan, set[str]()
        staying = {run for runs in self._baselines.values() for run in runs}
        items: dict[str, str] = {}
        if "inbox" in self._ledger.folder.tables:
            items = {row["item"]: row["run"] for row in self._rows("inbox")}
            staying |= {row["run"] for row in self._rows("inbox") if row["state"] == "open"}
        if "deliveries" in self._ledger.folder.tables:
            staying |= {items.get(row["item"], "") for row in self._rows("deliveries") if row["state"] != "delivered"}
        for row in self._rows("runs"):
            if row["parent"]:
                self._above.append((row["id"], row["parent"]))
            if row["state"] == "ended" and row["ended_at"] < self._before:
                ended.add(row["id"])
            else:
                staying.add(row["id"])
        for run, (log, first, last) in self._spans.items():
            if run in ended and (last > plan.last[log] or first < plan.first[log]):
                staying.add(run)
        staying = _together(staying, self._above)
        plan.gone = ended - staying
        plan.runs = sum(1 for run in plan.gone if run in self._spans)
        plan.waiting = sum(
            1 for run, (log, first, _) in self._spans.items() if run in staying and first <= plan.last[log]
        )
        return staying

    def _split(self, log: str, staying: set[str]) -> None:
        """Which positions stay, and what everything that stays names."""
        plan, last = self.plan, self.plan.last[log]
        needed = self._values_in_use(log, staying)
        stay = plan.stay[log] = []
        for page in self._entries(log):
            for entry in page:
                if entry.n <= last and entry.n >= plan.first[log] and entry.run in plan.gone and entry.n not in needed:
                    plan.entries += 1
                    continue
                if entry.n <= last:
                    stay.append(entry.n)
                self._name(addresses_in(entry.data))

    def _values_in_use(self, log: str, staying: set[str]) -> set[int]:
        """Writes of the shared context that stand, or stood when the first run that stays began."""
        spans = (self._spans[run] for run in staying if run in self._spans)
        begun = min((first for of, first, _ in spans if of == log), default=None)
        needed: set[int] = set()
        for (of, _, _), versions in self._context.items():
            if of == log:
                ends = [*versions[1:], None]
                needed |= {n for n, end in zip(versions, ends, strict=True) if end is None or (begun and end > begun)}
        return needed

    def _name_rows(self) -> None:
        """Values that the tables name stay; but the rows of runs that have left say where these were."""
        for table in self._ledger.folder.tables:
            columns = list(schema()[table].defaults)
            for row in self.scratch.rows(table):
                if table == "runs" and row[columns.index("id")] in self.plan.gone:
                    continue
                for value in row:
                    if isinstance(value, str) and len(value) >= 64:
                        self._name(_ADDRESS.findall(value))

    def _name(self, addresses: Iterable[str]) -> None:
        self._named.executemany("INSERT OR IGNORE INTO named VALUES (?)", ((one,) for one in addresses))

    def _is_named(self, address: str) -> bool:
        return self._named.execute("SELECT 1 FROM named WHERE address = ?", (address,)).fetchone() is not None


def runs_behind(entry: Entry) -> list[str]:
    """The runs that the entry says somebody goes on from: those above a new run, or that a baseline is made of."""
    body = entry.body
    if entry.kind == kinds.BASELINE:
        return list(body["runs"])
    if entry.kind != kinds.STARTED:
        return []
    named = (body.get("parent"), body.get("linked"), (body.get("forked") or {}).get("run"))
    return [str(run) for run in named if run]


def _together(staying: set[str], pairs: Iterable[tuple[str, str]]) -> set[str]:
    """These runs, and all that belong to one of them by any number of steps."""
    beside: dict[str, set[str]] = {}
    for one, other in pairs:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    found, ahead = set(staying), list(staying)
    while ahead:
        for other in beside.get(ahead.pop(), ()):
            if other not in found:
                found.add(other)
                ahead.append(other)
    return found
