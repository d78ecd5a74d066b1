"""How much work is taken in (F13): who is worked on at once, who waits, and who is refused with a time to come again.

Bounded queues, the lowest priorities refused first (Beyer et al. (ed.), "Site Reliability Engineering" (2016), chapter
21, "Criticality"), and when the queue is full the tenant that fills most of it makes room for one that fills less
(longest queue drop: Suter et al., "Design considerations for supporting TCP with per-flow queueing", INFOCOM 1998).
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tightship.core import kinds
from tightship.core.errors import Overloaded
from tightship.core.world import Clock
from tightship.ledger import Entry, Ledger
from tightship.ledger.claiming import Bounds, rank
from tightship.workflow.config import Admission

_RECENT = 60.0
"""Seconds over which it is measured how fast work goes out."""
_FIRST_GUESS = 5.0
"""Seconds after which to come again, where nothing has gone out yet."""
_LONGEST = 300.0


@dataclass(slots=True, eq=False)
class _Waiter:
    """A start that waits for its turn."""

    tenant: str
    workflow: str
    rank: float
    turn: asyncio.Future[None]


def bounds_of(declared: Admission) -> Bounds:
    """How many runs may be worked on at once, as `admission:` says."""
    return Bounds(
        declared.running,
        declared.tenant.running,
        {name: share.running for name, share in declared.tenants.items()},
        {name: share.running for name, share in declared.workflows.items() if share.running is not None},
    )


class Gatekeeper:
    """Takes starts in, has them wait, or refuses them; for the runs of one process.

    Args:
        declared: what `admission:` says.
        clock: the world's clock.
    """

    def __init__(self, declared: Admission, clock: Clock) -> None:
        self._declared = declared
        self.bounds = bounds_of(declared)
        """What holds for all workers together, where several share a store."""
        self._clock = clock
        self._total = 0
        self._tenants: Counter[str] = Counter()
        self._workflows: Counter[str] = Counter()
        """How many are worked on here: in all, by tenant, by workflow."""
        self._queues: dict[str, list[_Waiter]] = {}
        """Those that wait here, by tenant, in order of rank."""
        self._stored: dict[str, str] = {}
        """Runs that the ledger holds for whoever takes them up, and their tenants."""
        self._stored_of: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._turns = itertools.count()
        self._gone: deque[float] = deque(maxlen=1000)

    # --- what the ledger holds -------------------------------------------------------------------

    async def follow(self, ledger: Ledger) -> None:
        """Know from here on how many runs are queued in the ledger."""
        ledger.listen(self._heard)
        await self.count(ledger)

    async def count(self, ledger: Ledger) -> None:
        """Look how many runs are queued in the ledger: what other workers take up is not told."""
        rows = await ledger.select("runs", [("state", "!=", "ended"), ("state", "=", "queued")])
        self._stored.clear()
        self._stored_of.clear()
        for row in rows:
            if not row["parent"]:
                self._store(row["id"], row["tenant"])

    def _heard(self, entries: Iterable[Entry], foreign: bool) -> None:
        for entry in entries:
            if entry.kind == kinds.STARTED and not entry.body.get("owner") and not entry.body.get("parent"):
                self._store(entry.run, str(entry.body.get("tenant", "")))
            elif entry.kind in (kinds.CLAIMED, kinds.ENDED) and entry.run in self._stored:
                self._stored_of[self._stored.pop(entry.run)] -= 1
                self._gone.append(self._clock.monotonic())

    def _store(self, run: str, tenant: str) -> None:
        if run not in self._stored:
            self._stored[run] = tenant
            self._stored_of[tenant] += 1

    # --- taking in -------------------------------------------------------------------------------

    def check_queue(self, tenant: str, priority: int) -> None:
        """Whether one more may be queued.

        Raises:
            Overloaded: the queue is full for a start of this tenant or priority.
        """
        most = self._declared.tenant_share(tenant).queued
        if most is not None and self.waiting(tenant) >= most:
            raise self._overloaded(f"{self.waiting(tenant)} runs of tenant {tenant} wait already, which is its limit")
        bound = math.ceil(self._declared.queued * (20 - priority) / 20)
        if self.waiting() >= bound and not (self.waiting() >= self._declared.queued and self._make_room(tenant)):
            raise self._overloaded(f"{self.waiting()} runs wait already, which is the limit for priority {priority}")

    @asynccontextmanager
    async def place(self, tenant: str, workflow: str, priority: int) -> AsyncGenerator[None]:
        """A place among those that are worked on; waited for, in fair order, where all are taken.

        Raises:
            Overloaded: too many wait. Nothing was written.
        """
        if self.free(tenant, workflow) and not self._queues:
            self.begin(tenant, workflow)
        else:
            self.check_queue(tenant, priority)
            await self._wait(tenant, workflow, priority)
        try:
            yield
        finally:
            self.end(tenant, workflow)

    def free(self, tenant: str, workflow: str) -> bool:
        """Whether another run of this tenant and workflow may be worked on now."""
        declared = self._declared
        of_tenant, of_workflow = declared.tenant_share(tenant).running, declared.workflow_share(workflow).running
        return (
            self._total < declared.in_process
            and (of_tenant is None or self._tenants[tenant] < of_tenant)
            and (of_workflow is None or self._workflows[workflow] < of_workflow)
        )

    def begin(self, tenant: str, workflow: str) -> None:
        """One more is worked on."""
        self._total += 1
        self._tenants[tenant] += 1
        self._workflows[workflow] += 1

    def end(self, tenant: str, workflow: str) -> None:
        """One is not worked on any more: whoever is next begins."""
        self._total -= 1
        self._tenants[tenant] -= 1
        self._workflows[workflow] -= 1
        self._gone.append(self._clock.monotonic())
        self._give_places()

    def waiting(self, tenant: str | None = None) -> int:
        """How many wait, here and in the ledger: of a tenant, or of all."""
        if tenant is not None:
            return len(self._queues.get(tenant, ())) + self._stored_of[tenant]
        return sum(map(len, self._queues.values())) + len(self._stored)

    async def _wait(self, tenant: str, workflow: str, priority: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        waiter = _Waiter(tenant, workflow, rank(priority, self._clock.monotonic()), turn)
        bisect.insort(self._queues.setdefault(tenant, []), waiter, key=lambda one: one.rank)
        self._give_places()
        try:
            await turn
        except asyncio.CancelledError:
            if waiter in self._queues.get(tenant, ()):
                self._forget(waiter)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:  # it was given a place meanwhile
                self.end(tenant, workflow)
            raise

    def _give_places(self) -> None:
        """Give free places to those that wait."""
        while self._queues and self._total < self._declared.in_process:
            able = (filter(self._may_go, queue) for queue in self._queues.values())
            heads = (one for queue in able for one in itertools.islice(queue, 1))
            best = min(heads, key=self._order, default=None)
            if best is None:
                return
            self._forget(best)
            self._served[best.tenant] = next(self._turns)
            self.begin(best.tenant, best.workflow)
            best.turn.set_result(None)

    def _order(self, waiter: _Waiter) -> tuple[int, int, float]:
        """Tenants with the fewest at work first, of those the one that was served longest ago, and then by rank."""
        return self._tenants[waiter.tenant], self._served.get(waiter.tenant, -1), waiter.rank

    def _may_go(self, waiter: _Waiter) -> bool:
        return self.free(waiter.tenant, waiter.workflow)

    def _make_room(self, tenant: str) -> bool:
        """Refuse the last in rank of the tenant that fills most of the queue, if that fills more than this one does."""
        longest = max(self._queues, key=lambda name: len(self._queues[name]), default=tenant)
        if longest == tenant or len(self._queues[longest]) <= self.waiting(tenant) + 1:
            return False
        last = self._queues[longest][-1]
        self._forget(last)
        last.turn.set_exception(self._overloaded(f"tenant {longest} fills most of the queue, and another one came"))
        return True

    def _forget(self, waiter: _Waiter) -> None:
        queue = self._queues[waiter.tenant]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.tenant]

    def _overloaded(self, why: str) -> Overloaded:
        """A refusal with the time in which what waits will have gone out, as fast as it went lately."""
        now = self._clock.monotonic()
        gone = [at for at in self._gone if at > now - _RECENT]
        pace = len(gone) / max(1.0, now - gone[0]) if gone else 0.0
        after = min(_LONGEST, max(1.0, self.waiting() / pace)) if pace else _FIRST_GUESS
        return Overloaded(why, retry_after=after)
