"""The envelopes that all runs of a process share: a tenant's and a workflow's, per day and per month."""

from __future__ import annotations

from tightship.controls.budgets import Amount, Envelope, EnvelopeTree, Limit
from tightship.controls.leases import EXTENSION
from tightship.controls.periods import Period, period_bounds, period_key
from tightship.core.world import Clock
from tightship.effects.journal import Journal
from tightship.ledger import Ledger
from tightship.runtime.lending import Lender
from tightship.runtime.purse import limit_of
from tightship.workflow.config import Budgets, Periods
from tightship.workflow.models import Budget

PERIODS: tuple[Period, ...] = ("day", "month")


class SharedEnvelopes:
    """Made from `budgets:` in tightship.yaml, charged with what the ledger says was spent in the period.

    Where one process executes, it holds these whole; where many workers do, each borrows from them (`lender`). A day
    or month that begins renews them in their place, so that runs which are under way pay from the new one.
    """

    def __init__(self, budgets: Budgets, clock: Clock, lender: Lender | None = None) -> None:
        self._budgets = budgets
        self._clock = clock
        self._lender = lender
        self._envelopes: dict[tuple[str, Period], tuple[Envelope, Budget]] = {}
        self._until = 0.0
        """Store time (s) until which the envelopes are those of the day."""
        self._spent: dict[tuple[str, str], Amount] = {}
        self._granted: dict[tuple[str, str], Amount] = {}

    async def load(self, ledger: Ledger) -> None:
        """Take in what was spent this month; what is borrowed says so by itself."""
        if self._lender is not None:
            return
        day = period_key("day", self._clock.now())
        rows = await ledger.select("spend", [("day", ">=", day[:7] + "-01")])
        for row in rows:
            amount = Amount(row["usd"], row["tokens_in"] + row["tokens_out"], row["calls"])
            for scope in (f"tenant:{row['log']}", f"workflow:{row['workflow']}"):
                for period in {day[:7], row["day"]}:
                    self._spend(scope, period, amount)
        if self._budgets != Budgets():
            await self._load_open(ledger)
        for row in await ledger.select("envelopes"):
            period, extension, _ = str(row["period"]).partition(EXTENSION)
            if extension:
                self._granted[row["scope"], period] = Amount(row["usd"], row["tokens"], row["calls"])

    async def _load_open(self, ledger: Ledger) -> None:
        """What a process has admitted and left open counts as spent: it may have been."""
        day = period_key("day", self._clock.now())
        rows = await ledger.select("runs", [("state", "=", "running")])
        for row in rows:
            journal = Journal(ledger, row["id"], 0, row["log"], "")
            journal.load(await ledger.run_entries(row["id"]), {})
            for body, _ in journal.admitted.values():
                reserve = body.get("reserve") or {}
                amount = Amount(int(reserve.get("usd", 0)), int(reserve.get("tokens", 0)), 1)
                for scope in (f"tenant:{row['tenant']}", f"workflow:{row['workflow']}"):
                    for period in (day[:7], day):
                        self._spend(scope, period, amount)

    def _spend(self, scope: str, period: str, amount: Amount) -> None:
        self._spent[scope, period] = self._spent.get((scope, period), Amount()) + amount

    def of(self, tenant: str) -> EnvelopeTree:
        """The tenant's envelopes of today and this month, and below them the workflows'."""
        self._renew()
        tree = EnvelopeTree(self._renew)
        parent: str | None = None
        scope = f"tenant:{tenant}"
        for envelope in self._for(scope, self._budgets.tenants.get(tenant, self._budgets.tenant)):
            tree.add(envelope)
            parent = scope
        for workflow, periods in self._budgets.workflows.items():
            for envelope in self._for(f"workflow:{workflow}", periods):
                tree.add(envelope, parent)
        return tree

    def _for(self, scope: str, periods: Periods) -> list[Envelope]:
        found: list[Envelope] = []
        for period in PERIODS:
            budget: Budget | None = getattr(periods, period)
            if budget is None or budget.empty:
                continue
            known = self._envelopes.get((scope, period))
            if known is None:
                key = period_key(period, self._clock.now())
                known = self._envelopes[scope, period] = self._begin(scope, key, budget), budget
            found.append(known[0])
        return found

    def _begin(self, scope: str, key: str, budget: Budget) -> Envelope:
        if self._lender is not None:
            return self._lender.lease(scope, limit_of(budget), key)
        return Envelope(scope, self._limit(scope, key, budget), period=key, spent=self._spent.get((scope, key)))

    def _limit(self, scope: str, key: str, budget: Budget) -> Limit:
        return limit_of(budget).plus(self._granted.get((scope, key), Amount()))

    def _renew(self) -> None:
        """Begin another day or month when it has come."""
        now = self._clock.now()
        if now < self._until:
            return
        self._until = period_bounds("day", now)[1]
        for (scope, period), (envelope, budget) in self._envelopes.items():
            key = period_key(period, now)
            if key != envelope.period:
                envelope.renew(key, self._limit(scope, key, budget))
