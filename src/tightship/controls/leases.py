"""Shared envelopes (tenant, workflow): a worker borrows durable chunks and spends them without asking again.

What is lent is recorded in the ledger (`envelope.lent`), summed by the `envelopes` projection and never exceeds the
limit, so the envelope holds whatever happens to the workers; what a lost worker had borrowed counts as spent until
it is reconciled. The functions here are pure: the caller appends the entries.

Order matters: record a loan before `grant`, call `give_back` before recording the return. A crash in between then
leaves money unspent, never spent twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from tightship.controls.budgets import ALERT_AT, UNITS, Alert, Amount, Envelope, Limit, Shortage, Unit
from tightship.core import kinds
from tightship.core.ports import Delta, EntryView

_SHARE = 8
"""A chunk is this part of what is left, per worker: borrowing gets finer by itself as the limit comes near."""
_SCARCE = 20
"""Below this part of the limit nothing is lent in advance, and holders return what they do not need."""
_NEVER = 1 << 62


class Lease(Envelope):
    """What this worker holds of a shared envelope: its limit is what was lent.

    Args:
        scope: `tenant:NAME` or `workflow:NAME`.
        total: the shared envelope's limit; units without a limit are not borrowed.
        period: the period's key.
        borrow: gets hold of more when a reserve comes short; whether it did.
    """

    __slots__ = ("_due", "borrow", "total")

    def __init__(
        self,
        scope: str,
        total: Limit,
        *,
        period: str = "",
        borrow: Callable[[Lease, Amount], Awaitable[bool]] | None = None,
    ) -> None:
        super().__init__(scope, _nothing_of(total), period=period)
        self.total = total
        self.borrow = borrow
        self._due: list[Alert] = []

    async def supply(self, amount: Amount) -> bool:
        """Borrow what is missing for an amount; whether there is more now."""
        return self.borrow is not None and await self.borrow(self, amount)

    def renew(self, period: str, limit: Limit) -> None:
        """Begin another period: nothing of it was lent yet."""
        self.total = limit
        super().renew(period, _nothing_of(limit))

    def warn(self, alerts: Iterable[Alert]) -> None:
        """Have whoever asks next told that the sum of what is lent has passed a mark."""
        self._due.extend(alerts)

    def alerts(self) -> list[Alert]:
        """Alerts about what is lent to all workers together."""
        due, self._due = self._due, []
        return due

    def _alarming(self) -> bool:
        return bool(self._due)

    def missing(self, amount: Amount) -> Amount:
        """What has to be borrowed before the amount can be reserved, per unit; zero when it can be."""
        return Amount(*(self._missing(unit, getattr(amount, unit)) for unit in UNITS))

    def grant(self, chunk: Amount) -> None:
        """A loan was recorded: it may be spent."""
        self.extend(chunk)

    def debt(self) -> Amount:
        """What calls have cost beyond all that was lent (dearer than reserved); it is to be recorded as lent too."""
        return self.overrun

    def spare(self) -> Amount:
        """What is neither spent nor reserved."""
        return Amount(*(self.left(unit) or 0 for unit in UNITS))

    def give_back(self, keep: Amount | None = None) -> Amount:
        """Stop spending what is spare and return it.

        Args:
            keep: what to hold on to, per unit.

        Returns:
            The amount to record as returned (positive figures; the entry holds them negated).
        """
        kept = keep or Amount()
        back = Amount(*(max(0, getattr(self.spare(), unit) - getattr(kept, unit)) for unit in UNITS))
        self.extend(-back)
        return back

    def _set_marks(self) -> None:
        # What was lent is no budget: a worker that has used up its chunk borrows the next. See ChunkPlanner.alerts.
        self._mark_usd = self._mark_tokens = self._mark_calls = _NEVER

    def _missing(self, unit: Unit, asked: int) -> int:
        left = self.left(unit)
        return 0 if left is None or not asked else max(0, asked - left)


def _nothing_of(total: Limit) -> Limit:
    return Limit(*(None if total.of(unit) is None else 0 for unit in UNITS))


class ChunkPlanner:
    """How much to borrow at a time: guided self-scheduling, so that chunks shrink with what is left.

    Polychronopoulos and Kuck, "Guided self-scheduling", IEEE Transactions on Computers C-36 (1987).

    Args:
        scope: whose envelope it is, for refusals.
        total: the shared envelope's limit.
        workers: how many workers borrow from it.
        period: the period's key, for refusals.
    """

    __slots__ = ("period", "scope", "total", "workers")

    def __init__(self, scope: str, total: Limit, *, workers: int = 1, period: str = "") -> None:
        self.scope, self.total, self.workers, self.period = scope, total, max(1, workers), period

    def plan(self, need: Amount, lent: Amount) -> Amount:
        """The chunk to borrow.

        Args:
            need: what is missing, per unit (`Lease.missing`); units with zero are not borrowed.
            lent: what is lent to all workers together, per unit (the `envelopes` row).

        Returns:
            At least `need`, at most what is left of the limit; exactly `need` when little is left.

        Raises:
            OverBudget: what is left of a unit does not cover the need.
        """
        return Amount(*(self._chunk(unit, getattr(need, unit), lent) for unit in UNITS))

    def scarce(self, lent: Amount) -> bool:
        """Whether so little is left that holders should give back what they have spare."""
        for unit in UNITS:
            limit = self.total.of(unit)
            if limit is not None and (limit - getattr(lent, unit)) * _SCARCE < limit:
                return True
        return False

    def alerts(self, before: Amount, after: Amount) -> list[Alert]:
        """Alerts that are due because a loan has taken the sum of what is lent over 80 % of a limit.

        Args:
            before: what was lent before the loan, per unit.
            after: what is lent with it.
        """
        due: list[Alert] = []
        for unit in UNITS:
            limit = self.total.of(unit)
            if limit and getattr(before, unit) < limit * ALERT_AT <= getattr(after, unit):
                due.append(Alert(self.scope, self.period, unit, getattr(after, unit), limit))
        return due

    def _chunk(self, unit: Unit, need: int, lent: Amount) -> int:
        limit = self.total.of(unit)
        if limit is None or need <= 0:
            return 0
        left = limit - getattr(lent, unit)
        if need > left:
            raise Shortage(Envelope(self.scope, self.total, period=self.period), unit, need, left).signal()
        if left * _SCARCE < limit:
            return need
        return max(need, left // (_SHARE * self.workers))


class EnvelopesProjection:
    """The `envelopes` table: what is lent of each shared envelope and period, over all workers.

    An extension of a shared envelope (`budget.extended` with a `period`) is summed in a row of its own, under the
    period `PERIOD+extended`, so that the limit in force can be read beside what is lent.
    """

    table = "envelopes"
    key_columns: Sequence[str] = ("scope", "period")
    kinds = frozenset({kinds.ENVELOPE, kinds.EXTENDED})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Add the figures of a loan, a return or an extension."""
        body = entry.body
        period = str(body.get("period") or "")
        if entry.kind == kinds.EXTENDED:
            if not period:
                return
            period += EXTENSION
        yield Delta((str(body["scope"]), period), add={unit: int(body.get(unit) or 0) for unit in UNITS})


class LoansProjection:
    """The `loans` table: what each worker holds of each shared envelope and period, and whether that was reconciled."""

    table = "loans"
    key_columns: Sequence[str] = ("owner", "scope", "period")
    kinds = frozenset({kinds.ENVELOPE})

    def fold(self, entry: EntryView) -> Iterable[Delta]:
        """Add a loan or a return to what its worker holds."""
        body = entry.body
        key = (str(body.get("owner") or ""), str(body["scope"]), str(body.get("period") or ""))
        closed = {"closed": 1} if body.get("reconciled") else {}
        yield Delta(key, set=closed, add={unit: int(body.get(unit) or 0) for unit in UNITS})


EXTENSION = "+extended"
"""What follows the period's key in the row that sums a shared envelope's extensions."""
