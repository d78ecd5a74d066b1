"""A write whose answer was lost: repeated where that is safe, looked up where possible, else said to be unknown.

While it is in doubt whether an attempt was done, no later failure or refusal may stand as "not done": it is looked up
first, and where that cannot tell, the outcome is recorded as unknown.
"""

from __future__ import annotations

import asyncio

from tightship.controls.budgets import Amount, Reservation
from tightship.core.errors import (
    BoundaryError,
    LimitReached,
    OutcomeUnknown,
    TightshipError,
    Unavailable,
    WorkException,
    WriteFailed,
)
from tightship.core.ports import Json, Reply, Request
from tightship.core.signals import OverBudget, Signal, Taken
from tightship.effects.settle import Ticket

NEEDED = "find out in that system whether it was done"


class Undecided(Exception):
    """A look-up cannot tell whether a write was done."""


class Doubt(Ticket):
    """A call of which an attempt may have been done without our knowing."""

    __slots__ = ()

    @property
    def bound(self) -> bool:
        """Whether the run's limits and envelopes hold for it: not where it takes back or finds out what was done."""
        return self.call.cls != "undo" and not self.call.settling

    def request(self, not_after: float, args: Json = None) -> Request:
        """The call as the tool sees it; its key is the same for every attempt."""
        session, call = self.session, self.call
        return Request(
            call.args if args is None else args,
            f"{session.facts.id}/{call.key}",
            session.facts.id,
            call.agent,
            not_after,
            self.attempt,
        )

    def unknown(self, why: str) -> OutcomeUnknown:
        """That nobody can tell, for a person."""
        return OutcomeUnknown(
            f"whether {self.call.tool.spec.name} was done is not known: {why}",
            needed=NEEDED,
            evidence={"tool": self.call.tool.spec.name, "arguments": dict(self.call.args)},
        )

    # --- a lost answer -----------------------------------------------------------------------------

    async def resolve(self, not_after: float, error: WorkException, reservation: Reservation | None) -> Json | None:
        """The outcome, or None when it is to be sent again.

        Args:
            not_after: store time (s) until which the lost attempt may still arrive.
            error: what is known of it.
            reservation: what it was paid from; None after a crash, which has charged it in full.

        Raises:
            OutcomeUnknown: nobody can tell. Unavailable: it was not done, and there is no further attempt.
        """
        spec, call = self.call.tool.spec, self.call
        self.doubtful = True
        repeatable = spec.idempotency in ("key", "etag")
        failure: TightshipError = error
        again = repeatable and not (call.settling and spec.can_lookup) and self.may_retry()
        if not again and spec.can_lookup:
            try:
                reply = await self.look_up(not_after)
            except Undecided as undecided:
                failure = self.unknown(str(undecided))
            else:
                if reply is not None:
                    return await self.settle_reply(reply, 0, reservation)
                self.doubtful = False
                failure = Unavailable(f"{spec.name} was not done: its answer was lost, and looking it up finds nothing")
                again = (not call.settling or call.kept) and self.may_retry()
        charged = Amount(call.ceiling.usd, call.ceiling.tokens, 1)
        if reservation is not None:
            reservation.settle(charged)
        await self.settle_error(failure, again=again, charged=charged, reservation=reservation)
        if not again:
            raise failure
        await self.back_off(error)
        return None

    async def back_off(self, error: BaseException) -> None:
        """Wait before the next attempt."""
        shared = self.session.shared
        wait = shared.retry.delay(self.attempt, shared.world.chance.uniform(), getattr(error, "retry_after", None))
        self.attempt += 1
        await shared.world.clock.sleep(wait)

    def may_retry(self) -> bool:
        """Whether there is another attempt at a write whose answer was lost: two more than at what was not done."""
        if self.attempt >= self.session.shared.retry.attempts + 2:
            return False
        return self.count_retry()

    def count_retry(self) -> bool:
        """Count one more attempt against the run's limit; false when there is none left."""
        try:
            self.session.limits.count_retry(self.call.key, self.attempt + 1)
        except LimitReached:
            return not self.bound
        return True

    async def look_up(self, not_after: float) -> Reply | None:
        """Ask the sink whether it was done; `no` counts only once nothing can be on its way any more.

        Raises:
            Undecided: it cannot tell, or does not answer.
        """
        clock, retry, tool = self.session.shared.world.clock, self.session.shared.retry, self.call.tool
        request = self.request(not_after)
        failures = 0
        while True:
            late = clock.now() > not_after
            try:
                async with asyncio.timeout(tool.spec.timeout):
                    found = await tool.lookup(request)
            except (Unavailable, TimeoutError) as error:
                failures += 1
                if failures > retry.attempts:
                    raise Undecided(f"looking it up failed {failures} times ({error})") from error
                await clock.sleep(retry.delay(failures, 0.5, getattr(error, "retry_after", None)))
                continue
            except (WorkException, BoundaryError) as error:
                raise Undecided(error.message) from error
            except Exception as error:
                raise Undecided(f"looking it up raised {type(error).__name__}: {error}") from error
            if found is not None or late:
                return found
            await clock.sleep(max(0.001, not_after - clock.now() + 0.001))

    # --- the end of a doubtful call ----------------------------------------------------------------

    async def conclude(self, failure: TightshipError | Signal, reservation: Reservation | None = None) -> Json | None:
        """A later attempt failed for good or was refused, while an earlier one may have been done: find out.

        Returns the outcome when it was done; None when it was not, so that the failure stands.

        Raises:
            OutcomeUnknown: nobody can tell (and the failure is not to be passed on in its place).
        """
        spec = self.call.tool.spec
        if not self.doubtful:
            return None
        if spec.idempotency == "key" and isinstance(failure, (WriteFailed, BoundaryError)):
            return None  # had the earlier attempt been done, its answer would have come again
        why = str(failure) or type(failure).__name__
        if spec.can_lookup:
            try:
                reply = await self.look_up(self.not_after or self.session.shared.world.clock.now() + spec.timeout)
            except Undecided as undecided:
                why = f"{why}; {undecided}"
            else:
                if reply is None:
                    self.doubtful = False
                    return None
                if reservation is None:
                    self._charge_call()
                return await self.settle_reply(reply, 0, reservation)
        unknown = self.unknown(why)
        if reservation is None:
            self._charge_call()
        elif reservation.open:
            reservation.settle(reservation.amount)
        await self.settle_error(unknown, reservation=reservation)
        if isinstance(failure, Signal):
            raise failure
        raise unknown

    def _charge_call(self) -> None:
        """What is settled counts as a call, in the ledger and so here."""
        self.session.chain(self.call.task).charge(Amount(0, 0, 1))

    async def cut_off(self) -> Json:
        """What is not tried again now: a run that goes on later tries it then."""
        if self.session.keeps:
            raise asyncio.CancelledError
        return await self.refuse(Unavailable("the run was stopped before this was tried again"))

    async def refuse(self, refusal: TightshipError | Signal) -> Json:
        """Record a refusal; what an earlier attempt may have done is found out first.

        Returns the outcome when it was done after all.

        Raises:
            the refusal, or OutcomeUnknown.
        """
        if isinstance(refusal, Taken) or (isinstance(refusal, OverBudget) and self.session.asks_on_budget):
            raise refusal  # a person may lift it, so the key stays open
        found = await self.conclude(refusal)
        if found is not None:
            return found
        if isinstance(refusal, Signal):
            await self.settle_refusal(refusal)
        else:
            await self.settle_error(refusal, refused=True)
        raise refusal
