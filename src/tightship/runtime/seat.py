"""What lets a process execute: the executor's lock where one does, membership where many workers share the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tightship.controls.shares import Shares, StoredShares
from tightship.ledger import Ledger
from tightship.ledger.locks import Lock, executor_lock
from tightship.runtime.lending import Lender
from tightship.runtime.place import Place
from tightship.runtime.worker import Membership

if TYPE_CHECKING:
    from tightship.ledger.pg_rates import PgRates


class Seat:
    """This process as one that executes; nothing is taken before `take`.

    Args:
        member: given where the ledger is: this process as a worker of it.

    Attributes:
        member: as what it is known to the other workers; None where it executes alone.
        lender: what it has borrowed of the budgets that all share. shares: the rates that all share.
    """

    def __init__(self, member: Membership | None = None) -> None:
        self.member = member
        self.lender: Lender | None = None
        self.shares: Shares | None = None
        self._lock: Lock | None = None
        self._name = ""
        """The id under which this process owns its runs, which may lag behind the member's."""
        self._rates: PgRates | None = None

    async def take(self, place: Place, build: str, lost: Callable[[str], Awaitable[None]]) -> None:
        """Take the lock of a folder, or become one of a database's workers.

        Args:
            place: the store. build: the code that it executes.
            lost: called with the id under which it was not heard for too long.

        Raises:
            ExecutorBusy: another process executes. StoreError: the store does not answer.
        """
        if place.url is None:
            lock = executor_lock(place.where, place.folder)
            await asyncio.to_thread(lock.acquire)
            self._lock = lock
            return
        from tightship.ledger._pg import Address
        from tightship.ledger.pg_rates import PgRates
        from tightship.ledger.presence import Presence

        self.member = await Presence.start(place.url, build, lost)
        address = Address.of(place.url)
        self._rates = PgRates(address.conninfo, address.schema)
        self.shares = StoredShares(self._rates)

    def borrow(self, ledger: Ledger) -> Lender | None:
        """Where budgets are borrowed from; None where this process holds them whole."""
        member = self.member
        if member is not None and self.lender is None:
            self._name = member.id
            self.lender = Lender(ledger, lambda: member.id if member.id == self._name else "")
        return self.lender

    def go_on_as(self, name: str) -> None:
        """Go on under another id, with nothing of what was borrowed under the one that was lost."""
        if name != self._name and self.lender is not None:
            self.lender.forfeit()
        self._name = name

    async def give_back(self) -> None:
        """Return what was borrowed, while the ledger is open."""
        lender, self.lender = self.lender, None
        if lender is not None:
            await lender.close()

    async def release(self) -> None:
        """Let others execute."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        member, self.member = self.member, None
        if member is not None:
            await member.close()
        rates, self._rates = self._rates, None
        if rates is not None:
            await rates.close()
