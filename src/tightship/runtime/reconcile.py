"""What lost workers had borrowed of the shared envelopes and not spent is given back (C6).

A worker that is lost may spend nothing more once its lease has run out, by its own clock as by the store's: it asks for
its lease directly before it sends, and what it sends it has admitted in the ledger before. So from then on the ledger
holds all that its loans can have paid for. Once its runs have other owners nothing is added, and what it was lent
less what it has spent, calls of unknown outcome in full, goes back to the envelope: once, under the log's lock.

Calls (the unit) stay spent: a free read goes out without an entry before it, so the ledger cannot show how many there
were.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.controls.budgets import Amount
from tightship.controls.periods import period_key
from tightship.controls.rebuild import reserved_by, spent_by
from tightship.core import kinds
from tightship.core.errors import GuardRefused
from tightship.ledger import Draft, Entry, Guards, Ledger

MARGIN: Final = 300.0
"""Seconds around a period whose calls count into it as well: a worker knows its day by its own clock."""
PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker that may spend nothing any more, and since when it can have owned runs (store time, s)."""

    id: str
    since: float


Gone = Callable[[], Awaitable[Sequence[Lost]]]


@dataclass(slots=True)
class _Spent:
    """What one worker has spent, by scope and period; more rather than less."""

    worker: Lost
    owned: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """Runs, and the epochs under which they were the worker's."""
    admitted: dict[tuple[str, str], Entry] = field(default_factory=dict[tuple[str, str], Entry])
    by_run: list[tuple[str, Amount, frozenset[str]]] = field(default_factory=list[tuple[str, Amount, frozenset[str]]])
    """Run, amount, periods."""

    def take(self, entry: Entry) -> None:
        """Take in the next entry of a log."""
        if entry.kind in (kinds.STARTED, kinds.CLAIMED):
            if entry.body.get("owner") == self.worker.id:
                self.owned.setdefault(entry.run, set()).add(entry.epoch)
        elif entry.epoch in self.owned.get(entry.run, ()):
            at = (entry.run, entry.key)
            if entry.kind == kinds.ADMITTED:
                self._open(self.admitted.pop(at, None))
                self.admitted[at] = entry
            elif entry.kind == kinds.SETTLED:
                before = self.admitted.pop(at, entry)
                self.by_run.append((entry.run, spent_by(entry), periods_of(before.at, entry.at)))

    def finish(self) -> None:
        """What was never settled was spent in full."""
        for entry in self.admitted.values():
            self._open(entry)
        self.admitted.clear()

    def _open(self, entry: Entry | None) -> None:
        if entry is not None:
            self.by_run.append((entry.run, reserved_by(entry), periods_of(entry.at)))

    def of(self, scope: str, period: str, runs: Mapping[str, Mapping[str, Any]]) -> Amount:
        """The sum for an envelope."""
        spent = Amount()
        for run, amount, periods in self.by_run:
            row = runs.get(run)
            if period in periods and (
                row is None or scope in (f"tenant:{row['tenant']}", f"workflow:{row['workflow']}")
            ):
                spent += amount
        return spent


def open_loans(worker: str, now: float) -> list[tuple[str, str, Any]]:
    """What to select of `loans`: what a worker holds of today's and this month's envelopes and was not reconciled."""
    current = [period_key("day", now), period_key("month", now)]
    return [("owner", "=", worker), ("period", "in", current), ("closed", "=", 0)]


def periods_of(*moments: float) -> frozenset[str]:
    """The days and months that these moments (s) may have counted into."""
    around = [at + shift for at in moments for shift in (-MARGIN, 0.0, MARGIN)]
    return frozenset(period_key(period, at) for at in around for period in ("day", "month"))


class Reconciler:
    """Gives back what lost workers had left.

    Args:
        ledger: where loans and calls are recorded.
        gone: the workers that may spend nothing any more.
    """

    def __init__(self, ledger: Ledger, gone: Gone) -> None:
        self._ledger = ledger
        self._gone = gone

    async def look(self) -> None:
        """Reconcile every lost worker whose runs all have other owners."""
        now = self._ledger.world.clock.now()
        for worker in await self._gone():
            held = await self._ledger.select("loans", open_loans(worker.id, now))
            if held and not await self._ledger.select("runs", [("state", "=", "running"), ("owner", "=", worker.id)]):
                await self._reconcile(worker, held)

    async def _reconcile(self, worker: Lost, loans: Sequence[Mapping[str, Any]]) -> None:
        spent = _Spent(worker)
        async for entries in self._since(worker.since, {row["scope"] for row in loans}):
            for entry in entries:
                spent.take(entry)
        spent.finish()
        runs = await self._rows(sorted({run for run, _, _ in spent.by_run}))
        for loan in loans:
            scope, period = loan["scope"], loan["period"]
            left = Amount(loan["usd"], loan["tokens"]) + -spent.of(scope, period, runs)
            back = Amount(max(left.usd, 0), max(left.tokens, 0))
            body = {"scope": scope, "period": period, "owner": worker.id, **(-back).as_dict(), "reconciled": True}
            with contextlib.suppress(GuardRefused):  # another worker has done so
                guards = Guards(loan=(worker.id, scope, period))
                await self._ledger.append(Draft("", kinds.ENVELOPE, scope, body), guards=guards)

    async def _since(self, since: float, scopes: set[str]) -> AsyncIterator[list[Entry]]:
        """The entries from a moment on, of all logs that these scopes' runs may be in; a page at a time."""
        tenants = {scope.removeprefix("tenant:") for scope in scopes}
        every = any(not scope.startswith("tenant:") for scope in scopes)
        heads = await self._ledger.off_loop(self._ledger.backend.heads)
        for log, (_, head) in heads.items():
            if not every and log not in tenants:
                continue
            after = await self._position(log, since, head)
            while page := await self._ledger.entries(after, PAGE, log):
                yield page
                after = page[-1].n

    async def _position(self, log: str, since: float, head: int) -> int:
        """The last position before a moment: store time goes forward with the positions, so half of them is left out
        with each look. Earlier entries that are read too do no harm."""
        low = 0
        while head - low > PAGE:
            middle = (low + head) // 2
            found = await self._ledger.entries(middle, 1, log)
            if found and found[0].at < since - MARGIN:
                low = middle
            else:
                head = middle
        return low

    async def _rows(self, runs: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(runs), 500):
            rows = await self._ledger.select("runs", [("id", "in", runs[start : start + 500])])
            found |= {row["id"]: row for row in rows}
        return found
