"""What a call is paid from: set aside before it is made, in all of its envelopes or in none."""

from __future__ import annotations

import asyncio
import contextlib

from tightship.controls.budgets import Amount, Reservation
from tightship.core.errors import BoundaryError, TightshipError, WorkException
from tightship.core.signals import OverBudget, Signal
from tightship.effects.pacing import Pacing

LONGEST_WAIT = 60.0
"""Seconds that a call waits for what others have set aside of an envelope."""


class Paying(Pacing):
    """A call that is paid for."""

    __slots__ = ()

    async def reserve(self, amount: Amount) -> Reservation:
        """Set the cost aside; what takes back or finds out is paid whatever the envelopes hold.

        An envelope that is short only of what calls in flight have set aside is waited for: most of them cost less.
        """
        chain = self.session.chain(self.call.task)
        clock = self.session.shared.world.clock
        while True:
            try:
                return chain.reserve(amount)
            except OverBudget:
                if not self.bound:
                    chain.charge(amount)
                    return Reservation((), amount)
                short = chain.shortage(amount)
                if short is None or await short.envelope.supply(amount):
                    continue
                short = chain.shortage(amount)
                if short is None:
                    continue
                self.until = self.until or clock.monotonic() + LONGEST_WAIT
                left = self.until - clock.monotonic()
                if not short.passing or left <= 0:
                    raise NotLetIn(short.signal()) from None
                with contextlib.suppress(TimeoutError), self.session.shared.standing.waits(self.session.facts.id):
                    async with asyncio.timeout(left):
                        await short.envelope.settled()

    def cost_of(self, error: WorkException | BoundaryError, reservation: Reservation) -> Amount:
        """What a failed attempt has cost: what the other side states; nothing where it got nothing or turned it away;
        else all that was reserved, since it may have been paid all the same (retries are charged)."""
        held = reservation.amount
        evidence = getattr(error, "evidence", {})
        stated = evidence.get("usd_nano")
        if isinstance(stated, int):
            return Amount(stated, held.tokens, 1)
        turned_away = self.call.cls == "model" and isinstance(error, BoundaryError)
        if turned_away or evidence.get("sent") is False or evidence.get("done") is False:
            return Amount(0, 0, 1)
        return Amount(held.usd, held.tokens, 1)


class SpentElsewhere(Exception):
    """What was left of a run's envelope here was spent by other processes meanwhile."""


class NotLetIn(Exception):
    """A call was not let in."""

    def __init__(self, why: TightshipError | Signal) -> None:
        self.why = why
        super().__init__(str(why))
