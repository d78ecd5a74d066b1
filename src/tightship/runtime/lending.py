"""What this worker borrows of the envelopes that all workers share, and gives back when others need it (C6).

A loan is an entry, judged under the ledger's lock against the limit: whatever happens to the workers, what is lent of a
tenant's or workflow's envelope never exceeds it. Chunks shrink as the limit comes near, and whoever comes short asks:
an entry that lends nothing, upon which the others return what they have spare.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from tightship.controls.budgets import UNITS, Amount, Limit
from tightship.controls.leases import EXTENSION, ChunkPlanner, Lease
from tightship.core import kinds
from tightship.core.errors import GuardRefused, StaleOwner, TightshipError
from tightship.core.signals import OverBudget
from tightship.ledger import Draft, Entry, Guards, Ledger

PATIENCE = 1.0
"""Seconds that a worker waits for what others give back before a call is refused."""
_TRIES = 5


class Lender:
    """The loans of one worker.

    Args:
        ledger: where they are recorded.
        owner: this worker's id; empty from when it is lost until it has let go of all runs and is another one.
    """

    def __init__(self, ledger: Ledger, owner: Callable[[], str]) -> None:
        self._ledger = ledger
        self._owner = owner
        self._locks: dict[Lease, asyncio.Lock] = {}
        self._returned = asyncio.Event()
        self._returning: set[asyncio.Task[None]] = set()
        self._unlisten = ledger.listen(self._heard)

    def lease(self, scope: str, total: Limit, period: str) -> Lease:
        """What this worker holds of an envelope: nothing yet."""
        lease = Lease(scope, total, period=period, borrow=self._borrow)
        self._locks[lease] = asyncio.Lock()
        return lease

    async def close(self) -> None:
        """Give everything back that was not spent."""
        self._unlisten()
        for task in tuple(self._returning):
            await task
        for lease in self._locks:
            with contextlib.suppress(TightshipError):  # then it counts as spent
                await self._give_back(lease)

    # --- borrowing -------------------------------------------------------------------------------

    async def _borrow(self, lease: Lease, amount: Amount) -> bool:
        """One loan for all who come short at the same time."""
        before = lease.limit
        async with self._locks[lease]:
            if lease.limit != before and not lease.missing(amount):
                return True
            asked = False
            end = self._ledger.world.clock.monotonic() + PATIENCE
            for _ in range(_TRIES):
                period = lease.period
                self._returned.clear()
                try:
                    return await self._lend(lease, amount)
                except OverBudget:
                    if period != lease.period:
                        continue
                    if not asked:
                        asked = True
                        await self._record(lease, Amount())
                    if not await self._return_of_others(end):
                        return False
                except GuardRefused:  # another worker was first
                    continue
            return False

    async def _lend(self, lease: Lease, amount: Amount) -> bool:
        """Record a loan and take it in.

        Raises:
            OverBudget: not so much is left. GuardRefused: another worker has borrowed meanwhile.
            StaleOwner: this process was lost, and is no worker again yet.
        """
        period = lease.period
        owner = self._owner()
        if not owner:
            raise StaleOwner("this worker was not heard for too long: it borrows nothing under the id that was lost")
        lent, total = await self._lent(lease, period)
        debt = lease.debt()
        if debt:  # calls were dearer than reserved: that is spent, whatever the limit says
            await self._record(lease, debt, owner=owner)
            lease.grant(debt)
            lent += debt
        need = lease.missing(amount)
        if not need:
            return True
        workers = len(await self._ledger.living())
        planner = ChunkPlanner(lease.scope, total, workers=workers, period=period)
        chunk = planner.plan(need, lent)
        limits = tuple((lease.scope, period, unit, limit) for unit in UNITS if (limit := total.of(unit)) is not None)
        await self._record(lease, chunk, Guards(lends=limits, loan=(owner, lease.scope, period)), owner)
        if lease.period != period or owner != self._owner():
            return True  # midnight has passed meanwhile, or this worker is another one: that loan stays unspent
        lease.grant(chunk)
        lease.warn(planner.alerts(lent, lent + chunk))
        return True

    async def _lent(self, lease: Lease, period: str) -> tuple[Amount, Limit]:
        """What is lent to all workers, and the limit with its extensions.

        What was spent before anything was lent (one process held the envelope whole) counts as lent.
        """
        rows = await self._ledger.select("envelopes", [("scope", "=", lease.scope)])
        sums = {row["period"]: Amount(row["usd"], row["tokens"], row["calls"]) for row in rows}
        total = lease.total.plus(sums.get(period + EXTENSION, Amount()))
        if period in sums:
            return sums[period], total
        spent = await self._spent(lease.scope, period)
        if spent:
            await self._record(lease, spent, owner="")  # nobody holds it
        return spent, total

    async def _spent(self, scope: str, period: str) -> Amount:
        kind, _, name = scope.partition(":")
        column = "log" if kind == "tenant" else "workflow"
        spent = Amount()
        for row in await self._ledger.select("spend", [(column, "=", name), ("day", ">=", period)]):
            if row["day"].startswith(period):
                spent += Amount(row["usd"], row["tokens_in"] + row["tokens_out"], row["calls"])
        return spent

    async def _record(
        self, lease: Lease, chunk: Amount, guards: Guards | None = None, owner: str | None = None
    ) -> None:
        owner = self._owner() if owner is None else owner
        body = {"scope": lease.scope, "period": lease.period, "owner": owner, **chunk.as_dict()}
        await self._ledger.append(Draft("", kinds.ENVELOPE, lease.scope, body), guards=guards)

    async def _return_of_others(self, end: float) -> bool:
        left = end - self._ledger.world.clock.monotonic()
        if left <= 0 or len(await self._ledger.living()) < 2:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._returned.wait()
        return self._returned.is_set()

    # --- giving back -----------------------------------------------------------------------------

    def _heard(self, entries: Iterable[Entry], foreign: bool) -> None:
        for entry in entries:
            if entry.kind not in (kinds.ENVELOPE, kinds.EXTENDED) or entry.run:
                continue
            amount = _amount(entry.body)
            if entry.kind == kinds.EXTENDED or min(amount.usd, amount.tokens, amount.calls) < 0:
                self._returned.set()
            elif foreign and not amount and not entry.body.get("reconciled"):
                self._answer(str(entry.body["scope"]), str(entry.body.get("period") or ""))

    def _answer(self, scope: str, period: str) -> None:
        """Another worker comes short."""
        for lease in self._locks:
            if lease.scope == scope and lease.period == period:
                task = asyncio.ensure_future(self._give_back(lease))
                self._returning.add(task)
                task.add_done_callback(self._returning.discard)

    async def _give_back(self, lease: Lease) -> None:
        owner = self._owner()
        back = lease.give_back()  # first: a crash in between leaves money unspent, never spent twice
        if back and owner:
            with contextlib.suppress(GuardRefused):  # this worker was taken for lost, and others gave it back for it
                await self._record(lease, -back, Guards(loan=(owner, lease.scope, lease.period)), owner)

    def forfeit(self) -> None:
        """Spend nothing more of what was borrowed: this worker was lost, and others reconcile its loans."""
        for lease in self._locks:
            lease.give_back()


def _amount(body: dict[str, object]) -> Amount:
    return Amount(*(int(str(body.get(unit) or 0)) for unit in UNITS))
