"""The door: the one function through which anything reaches the outside. It reads in the order in which it guards.

replay -> count -> halted? -> arguments -> policy -> labels -> privacy -> deadline -> cache -> rate limit and breaker
-> admit -> perform -> restore, label, validate -> settle
"""

from __future__ import annotations

import asyncio
import functools

from tightship.controls.budgets import Amount, Reservation
from tightship.controls.halts import stopped
from tightship.controls.limits import REPEATED
from tightship.core import kinds
from tightship.core.errors import (
    BoundaryError,
    ContextChanged,
    DuplicateClaim,
    FormatMismatch,
    GuardRefused,
    LimitReached,
    OutcomeUnknown,
    PayloadErased,
    TightshipError,
    TimedOut,
    Unavailable,
    WorkException,
)
from tightship.core.ports import Json, Reply
from tightship.core.signals import Signal
from tightship.effects.arguments import check_arguments, check_result
from tightship.effects.board import LOOK, MOVE, BoardPassage
from tightship.effects.call import Call
from tightship.effects.domains import check_domains
from tightship.effects.flight import Flight, Work
from tightship.effects.hedging import hedged
from tightship.effects.journal import Body
from tightship.effects.near import refuse_near_call
from tightship.effects.paying import NotLetIn, Paying, SpentElsewhere
from tightship.effects.session import Session
from tightship.effects.shared import SharedPassage
from tightship.ledger import Guards
from tightship.workflow.safeguards import DomainCheck


class Door:
    """The door of one run."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def perform(self, call: Call) -> Json:
        """Let one call through, or refuse it.

        A refusal or failure is in the ledger when this raises. An outcome may still be on its way when this returns; it
        is there before anything else leaves the run (see `Journal.go_ahead`).

        Raises:
            WorkException: the outside failed; BoundaryError: outside the declared role; LimitReached: too many calls;
            Signal: halted, denied, over budget; NondeterminismError: a replay asked for something else.
        """
        session = self._session
        if not session.live:
            call.claim, call.expect = None, ()
        passage = _Passage(session, call)
        if passage.bound:
            call.deadline = session.until(call.key, call.deadline)
            if call.cls == "read" and call.tool.spec.hedge and call.ceiling.usd + call.ceiling.tokens:
                call.ceiling = Amount(2 * call.ceiling.usd, 2 * call.ceiling.tokens)  # it may be asked twice
        flying = session.flights.get(call.key)
        if flying is not None:  # its turn was cut off and is taken again: the effect goes on all the time
            return await passage.join(flying)
        if session.journal.ahead:
            await session.journal.landed(kinds.SETTLED, call.key)
        if call.cls == "context":
            kind = BoardPassage if call.tool in (LOOK, MOVE) else SharedPassage
            return await kind(session, call, self.perform).go()
        recorded = session.journal.effects.get(call.key)
        if recorded is not None:
            return await passage.replay(recorded)
        opened = session.journal.admitted.get(call.key)
        if opened is not None:
            passage.begun = True
            return await passage.shielded(lambda: passage.recover(opened[0]))
        if not passage.take_up():
            await passage.count()
        try:
            passage.policies = passage.permit()
            await self._check_domains(passage)
        except (BoundaryError, LimitReached, WorkException, Signal) as refusal:
            passage.begun = True
            return await passage.shielded(functools.partial(passage.refuse, refusal))
        if call.cls == "read" and not call.fresh and max(call.tool.spec.cache_seconds, call.cache) > 0:
            return await passage.through_cache()
        return await passage.go()

    async def _check_domains(self, passage: _Passage) -> None:
        """Arguments that have a declared domain lie in it; what they name is looked up by calls of their own.

        Raises:
            InventedArgument: one does not. What the look-up raises.
        """
        session, call = self._session, passage.call
        domains = session.shared.domains.get(call.tool.spec.name)
        if not domains or not session.live or not passage.bound:
            return

        async def look_up(name: str, check: DomainCheck, value: Json) -> Json:
            tool = session.tools[check.exists or ""]
            price, declared = tool.spec.price, call.declared | {tool.spec.name}
            ceiling = Amount(price.usd, price.tokens)
            key, args = f"{call.key}/domain/{name}", {check.argument(name): value}
            asked = Call(key, tool, "read", call.agent, args, declared, call.task, ceiling=ceiling, line=call.line)
            asked.deadline, asked.cache = call.deadline, check.cache
            return await self.perform(asked)

        await check_domains(call, domains, session.facts.input, look_up)

    async def close(self, call: Call) -> None:
        """Settle what a run has begun and will not finish: find out what became of it, and begin nothing anew.

        A call that is `kept` stays open where it was not done: the run tries it again when it goes on.

        Raises:
            TightshipError, Signal: it was not done, or nobody can tell; that is recorded.
        """
        passage = _Passage(self._session, call)
        opened = self._session.journal.admitted.get(call.key)
        passage.begun = True
        if opened is not None:
            await passage.shielded(lambda: passage.recover(opened[0]))
            return
        passage.take_up()
        await passage.refuse(Unavailable("the run was stopped before this was tried again"))


class _Passage(Paying):
    """One call on its way through the door."""

    __slots__ = ()

    # --- what lets it in -------------------------------------------------------------------------

    async def count(self) -> None:
        """Calls, identical ones, and ones that ask nearly the same in other words.

        Raises:
            LimitReached: one too many.
        """
        call = self.call
        for limits in self.session.counters(call.agent):
            if self.bound:
                limits.count_call(call.key)
            if call.cls in REPEATED and not call.settling:
                # in each branch and item anew: five items may read the same price list
                limits.count_repeat(call.key, call.agent, call.tool.spec.name, self.args + call.line)
        if call.cls in REPEATED and not call.settling:
            await refuse_near_call(self.session, call, self.args)

    def permit(self) -> tuple[str, ...]:
        """Halts, arguments, policy, labels, privacy, deadline. Returns the ids of the policies that allowed it."""
        session, call = self.session, self.call
        if self.bound:
            session.shared.halts.check(session.scopes(call.agent))
        check_arguments(session.shared.validators, call)
        governance = session.shared.governance
        policies = governance.authorise(call)
        governance.flow(call)
        if self.bound:
            session.watch.check()
            if call.deadline is not None and session.shared.world.clock.now() > call.deadline:
                raise LimitReached(f"the deadline of {call.agent} has passed before {call.tool.spec.name} could begin")
        return policies

    def take_up(self) -> bool:
        """Go on after the attempts that the ledger knows of; false when there are none."""
        last = self.session.journal.again.get(self.call.key)
        if last is None:
            return False
        self.check_same(last)
        self.attempt = int(last.get("attempt", 1)) + 1
        self.doubtful = bool(last.get("doubtful"))
        return True

    async def through_cache(self) -> Json:
        """Answer from the cache, or be the one of many equal callers that asks."""
        session, call = self.session, self.call
        spec, ledger = call.tool.spec, session.journal.ledger
        key = ledger.mac(session.facts.tenant, "cache", spec.name.encode() + b"\x00" + self.data)
        try:
            async with session.shared.cache.flight(key) as flight:
                if flight.hit is None:
                    value = await self.go()
                    await session.journal.landed(kinds.SETTLED, call.key)
                    address = session.journal.effects[call.key]["out"]
                    flight.fill(address, size=len(address), ttl=max(spec.cache_seconds, call.cache))
                    return value
        except (WorkException, BoundaryError) as error:
            if call.key not in session.journal.effects:  # the one who asked for all of us has failed
                await self.settle_error(error, refused=True)
            raise
        try:
            value = await ledger.value(flight.hit)
        except PayloadErased:
            session.shared.cache.discard(key)
            return await self.go()
        return await self.settle_reply(Reply(value), 0, None, cached=True)

    async def go(self) -> Json:
        """Let it in and perform it: free reads wait and settle; what costs or writes is a task of the door."""
        session = self.session
        self.admits = self.call.costs or not session.alone
        if self.admits:
            return await self.shielded(self._attempts)
        session.reading.add(self.call.key)
        try:
            return await self._attempts()
        finally:
            session.reading.discard(self.call.key)

    async def shielded(self, work: Work) -> Json:
        """Whoever waits may be cut off, a write in flight never is; what was not admitted yet is not begun any more."""
        key, flights = self.call.key, self.session.flights
        flight = flights.begin(key, self.args, work)
        try:
            return await flight.landing()
        except asyncio.CancelledError:
            self.cut = True
            if not self.begun:
                flights.abandon(key, flight)
            raise

    async def join(self, flight: Flight) -> Json:
        """Wait for the same effect, which is under way already."""
        if flight.args != self.args:
            await self.replay({"name": self.call.tool.spec.name, "args": flight.args})
        return await flight.landing()

    async def _attempts(self) -> Json:
        while True:
            if self.cut and not self.doubtful:
                return await self.cut_off()
            try:
                reservation, not_after = await self._admit()
            except NotLetIn as refused:
                return await self.refuse(refused.why)
            try:
                reply, ms = await self._perform(not_after)
            except OutcomeUnknown as error:
                if self.call.cls in ("read", "model"):
                    await self._fail(Unavailable(error.message, evidence=error.evidence), reservation)
                    continue
                found = await self.resolve(not_after, error, reservation)
                if found is not None:
                    return found
            except (WorkException, BoundaryError) as error:
                found = await self._fail(error, reservation)
                if found is not None:
                    return found
            except BaseException:
                # Cut off (a free read), or the run was taken over: nothing was settled.
                self.abandon()
                if reservation.open:
                    reservation.release()
                raise
            else:
                return await self.settle_reply(reply, ms, reservation)

    # --- admit -----------------------------------------------------------------------------------

    async def _admit(self) -> tuple[Reservation, float]:
        """Let it in; anew where what was left here turns out to be spent by other processes.

        Raises:
            NotLetIn: with what stands in the way.
        """
        while True:
            try:
                return await self._enter()
            except SpentElsewhere:
                if self.cut and not self.doubtful:
                    raise NotLetIn(Unavailable("the run was stopped before this was tried again")) from None

    async def _enter(self) -> tuple[Reservation, float]:
        """Wait for the rate limit and the breaker holding nothing; then reserve and, if it costs or writes, admit.

        Raises:
            NotLetIn, SpentElsewhere.
        """
        call = self.call
        try:
            await self.count_request()
            await self.hold_back()
            self.check_deadline()
        except (Unavailable, LimitReached) as error:
            raise NotLetIn(error) from None
        try:
            reservation = await self.reserve(Amount(call.ceiling.usd, call.ceiling.tokens, 1))
            not_after = self.not_after_now()
            if self.admits:
                await self._record_admit(reservation, not_after)
        except BaseException:
            self.abandon()
            self.not_sent()
            raise
        self.until = 0.0
        return reservation, not_after

    async def _record_admit(self, reservation: Reservation, not_after: float) -> None:
        session, call = self.session, self.call
        self.not_after, begun = not_after, self.begun
        self.begun = True
        body = self.admit_body(not_after)
        scopes = session.scopes(call.agent) if self.bound else ()
        counts = session.counts(reservation.amount) if self.bound else ()
        expect = call.expect if self.attempt == 1 else ()
        guards = Guards(claim=call.claim, scopes=scopes, context=expect, counts=counts)
        payloads = (self.payload, *call.said)
        try:
            await session.journal.record(kinds.ADMITTED, call.key, body, payloads, guards)
        except GuardRefused as refused:
            reservation.release()
            if refused.reason == "counted":  # other processes have spent too: with what they have, it is asked anew
                self.begun = begun
                short = next(envelope for run, envelope, _ in session.line if run == refused.holder)
                short.counted = True  # the store knows of more than this process does
                await short.refresh()
                raise SpentElsewhere from None
            raise NotLetIn(self._what_refused(refused)) from None
        except BaseException:
            reservation.release()
            raise

    def _what_refused(self, refused: GuardRefused) -> ContextChanged | DuplicateClaim | Signal:
        if refused.reason == "context":
            return ContextChanged(refused.message, evidence={"key": refused.holder})
        if refused.reason == "claim":
            return DuplicateClaim(
                f"run {refused.holder} already does, or did, this piece of work",
                needed="decide whether this is the same request twice",
                evidence={"run": refused.holder, "tool": self.call.tool.spec.name},
            )
        return stopped(refused.holder, f"{refused.holder} is halted")

    # --- perform ---------------------------------------------------------------------------------

    async def _perform(self, not_after: float) -> tuple[Reply, float]:
        session, call = self.session, self.call
        clock, spec = session.shared.world.clock, call.tool.spec
        args = session.shared.governance.outbound(call)
        session.check_lease()  # directly before sending
        if self.attempt == 1:
            session.shared.retries.request(self.service)
        request = self.request(not_after, args)
        began = clock.monotonic()
        try:
            async with asyncio.timeout(self.asks(max(0.0, min(spec.timeout, not_after - clock.now())))):
                hedge = call.cls == "read" and spec.hedge > 0
                reply = await (hedged(call.tool, request, self.may_hedge) if hedge else call.tool.perform(request))
            self._check_shape(reply)
        except TimeoutError:
            await self.answered(False)
            raise self._unanswered(f"{spec.name} did not answer within {clock.monotonic() - began:g} s") from None
        except Unavailable as error:
            await self.turned_away(error)
            raise
        except OutcomeUnknown:
            await self.answered(False)
            raise
        except TightshipError:
            await self.answered(True)
            raise
        except asyncio.CancelledError:
            here = asyncio.current_task()
            if here is not None and here.cancelling():
                raise
            await self.answered(False)
            raise self._unanswered(f"{spec.name} raised CancelledError") from None
        except (Exception, SystemExit, GeneratorExit) as error:  # a tool must not end the process
            await self.answered(False)
            raise self._unanswered(f"{spec.name} raised {type(error).__name__}: {error}") from error
        took = clock.monotonic() - began
        self.used(reply.usage.tokens)
        await self.answered(True, took, reply.usage.usd)
        return reply, took * 1000

    def _check_shape(self, reply: Reply) -> None:
        """The outcome fits the contract. A write of which the result cannot be read was done all the same."""
        try:
            check_result(self.session.shared.validators, self.call, reply.value)
        except FormatMismatch as error:
            if self.call.cls in ("write", "undo"):
                raise OutcomeUnknown(error.message, needed=error.needed, evidence=error.evidence) from None
            raise

    def _unanswered(self, message: str) -> WorkException:
        if self.call.cls in ("write", "undo"):
            return OutcomeUnknown(message)
        return TimedOut(message)

    # --- what went wrong -------------------------------------------------------------------------

    async def _fail(self, error: WorkException | BoundaryError, reservation: Reservation) -> Json | None:
        """Record a failed attempt. None: it is to be tried again. A value: an earlier attempt had been done.

        Raises:
            the error, when it stands.
        """
        retry = self.session.shared.retry
        again = isinstance(error, Unavailable) and self.attempt < retry.attempts
        again = again and (getattr(error, "retry_after", None) or 0.0) <= retry.patience
        again = again and (not self.bound or self.session.shared.retries.spend(self.service)) and self.count_retry()
        if not again:
            found = await self.conclude(error, reservation)
            if found is not None:
                return found
        charged = self.cost_of(error, reservation)
        reservation.settle(charged)
        await self.settle_error(error, again=again, charged=charged, reservation=reservation)
        if not again:
            raise error
        await self.back_off(error)
        return None

    async def recover(self, admitted: Body) -> Json:
        """An admit that a crash has left open. The envelopes have charged it in full already."""
        call = self.call
        self.check_same(admitted)
        self.admits = True
        self.attempt = int(admitted.get("attempt", 1))
        self.not_after = float(admitted["not_after"])
        if call.cls in ("write", "undo"):
            error = self.unknown("the process ended while it was under way")
            found = await self.resolve(self.not_after, error, None)
            if found is not None:
                return found
        else:
            reserve = admitted.get("reserve", {})
            charged = Amount(reserve.get("usd", 0), reserve.get("tokens", 0), 1)
            lost = Unavailable("the process ended before the answer came")
            again = (not call.settling or call.kept) and self.may_retry()
            await self.settle_error(lost, again=again, charged=charged)
            if not again:
                raise lost
            self.attempt += 1
        if call.kept and not self.doubtful:
            return None  # it is known now that it was not done
        try:
            self.policies = self.permit()
        except (BoundaryError, LimitReached, Signal) as refusal:
            return await self.refuse(refusal)
        return await self._attempts()
