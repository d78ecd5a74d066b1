"""The door: the one function through which anything reaches the outside. It reads in the order in which it guards.

count -> replay -> halted? -> arguments -> policy -> labels -> privacy -> deadline -> cache -> rate limit and breaker
-> admit -> perform -> restore, label, validate -> settle
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from tightship.controls.budgets import Amount, Reservation
from tightship.core import kinds
from tightship.core.errors import (
    BoundaryError,
    DuplicateClaim,
    GuardRefused,
    LimitReached,
    OutcomeUnknown,
    TightshipError,
    TimedOut,
    Unavailable,
    WorkException,
)
from tightship.core.ports import Json, Reply, Request
from tightship.core.signals import Halted, OverBudget, Signal
from tightship.effects.arguments import check_arguments, check_result
from tightship.effects.call import Call
from tightship.effects.journal import Body
from tightship.effects.session import Session
from tightship.effects.settle import Ticket
from tightship.ledger import Guards


class Door:
    """The door of one run."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    async def perform(self, call: Call) -> Json:
        """Let one call through, or refuse it; either is in the ledger when this returns or raises.

        Raises:
            WorkException: the outside failed; BoundaryError: outside the declared role; LimitReached: too many calls;
            Signal: halted, denied, over budget; NondeterminismError: a replay asked for something else.
        """
        session = self._session
        if not session.live:
            call.claim = None
        session.limits.count_call(call.key)
        passage = _Passage(session, call)
        if call.cls == "read":
            session.limits.count_repeat(call.key, call.agent, call.tool.spec.name, passage.args)
        recorded = session.journal.effects.get(call.key)
        if recorded is not None:
            return await passage.replay(recorded)
        opened = session.journal.admitted.get(call.key)
        if opened is not None:
            return await passage.recover(*opened)
        try:
            policies = passage.permit()
        except (BoundaryError, LimitReached) as error:
            await passage.settle_error(error, refused=True)
            raise
        except Signal as signal:
            await passage.settle_refusal(signal)
            raise
        passage.policies = policies
        if call.cls == "read" and not call.fresh and call.tool.spec.cache_seconds > 0:
            return await passage.through_cache()
        return await passage.go()


class _Passage(Ticket):
    """One call on its way through the door."""

    __slots__ = ()

    # --- what lets it in -------------------------------------------------------------------------

    def permit(self) -> tuple[str, ...]:
        """Halts, arguments, policy, labels, privacy, deadline. Returns the ids of the policies that allowed it."""
        session, call = self.session, self.call
        if call.cls != "undo":
            session.shared.halts.check(session.scopes(call.agent))
        check_arguments(session.shared.validators, call)
        governance = session.shared.governance
        policies = governance.authorise(call)
        governance.flow(call)
        session.watch.check()
        if call.deadline is not None and session.shared.world.clock.now() > call.deadline:
            raise LimitReached(f"the deadline of {call.agent} has passed before {call.tool.spec.name} could begin")
        return policies

    @property
    def service(self) -> str:
        """What a breaker opens for: the host that is talked to, or the tool itself."""
        spec = self.call.tool.spec
        return next(iter(spec.hosts)) if len(spec.hosts) == 1 else spec.name

    async def through_cache(self) -> Json:
        """Answer from the cache, or be the one of many equal callers that asks."""
        session, call = self.session, self.call
        spec, ledger = call.tool.spec, session.journal.ledger
        key = ledger.mac(session.facts.tenant, "cache", spec.name.encode() + b"\x00" + self.data)
        async with session.shared.cache.flight(key) as flight:
            if flight.hit is None:
                value = await self.go()
                address = session.journal.effects[call.key]["out"]
                flight.fill(address, size=len(address), ttl=spec.cache_seconds)
                return value
        return await self.settle_reply(Reply(await ledger.value(flight.hit)), 0, None, cached=True)

    async def go(self) -> Json:
        """Perform it: free reads wait and settle; what costs or writes is a task of the door."""
        if not self.call.costs:
            return await self._attempts()
        # Shielded: whoever waits may be cut off, a write in flight never is.
        task = asyncio.ensure_future(self._attempts())
        inflight = self.session.inflight
        inflight.add(task)
        task.add_done_callback(inflight.discard)
        return await asyncio.shield(task)

    async def _attempts(self) -> Json:
        while True:
            reservation, not_after = await self._admit()
            try:
                reply, ms = await self._perform(not_after)
            except OutcomeUnknown as error:
                if self.call.cls in ("read", "model"):
                    await self._fail(Unavailable(error.message, evidence=error.evidence), reservation)
                    continue
                found = await self._resolve(not_after, error, reservation)
                if found is not None:
                    return found
            except Unavailable as error:
                await self._fail(error, reservation)
            except (WorkException, BoundaryError) as error:
                await self._fail(error, reservation, final=True)
            except BaseException:
                # Cut off (a free read), or the run was taken over: nothing was settled.
                self.session.shared.breakers.abandon(self.service)
                if reservation.open:
                    reservation.release()
                raise
            else:
                return await self.settle_reply(reply, ms, reservation)

    # --- admit -----------------------------------------------------------------------------------

    async def _admit(self) -> tuple[Reservation, float]:
        """Wait for the rate limit and the breaker holding nothing; then reserve and, if it costs or writes, admit."""
        session, call = self.session, self.call
        shared, name = session.shared, call.tool.spec.name
        if not shared.rates.try_acquire(name, call.ceiling.tokens):
            await shared.rates.acquire(name, call.ceiling.tokens, within=session.watch.left)
        try:
            shared.breakers.check(self.service)
        except Unavailable as error:
            await self.settle_error(error, refused=True)
            raise
        chain = session.envelopes.chain(session.purse(call.task))
        ceiling = call.ceiling
        try:
            reservation = chain.reserve(Amount(ceiling.usd, ceiling.tokens, 1))
        except OverBudget as signal:
            await self.settle_refusal(signal)
            raise
        not_after = shared.world.clock.now() + call.tool.spec.timeout
        if not call.costs:
            return reservation, not_after
        body = self._admit_body(not_after)
        guards = Guards(
            claim=call.claim, scopes=() if call.cls == "undo" or call.settling else session.scopes(call.agent)
        )
        payloads = (self.payload, *call.said)
        try:
            for entry in await session.journal.append(kinds.ADMITTED, call.key, body, payloads, guards):
                session.journal.index(entry)
        except GuardRefused as refused:
            reservation.release()
            await self._refuse_admit(refused)
        except BaseException:
            reservation.release()
            raise
        return reservation, not_after

    def _admit_body(self, not_after: float) -> Body:
        call = self.call
        body: Body = {
            "name": call.tool.spec.name,
            "cls": call.cls,
            "agent": call.agent,
            "args": self.args,
            "not_after": round(not_after, 3),
            **self.talk(),
        }
        if call.task != f"agent:{call.agent}":
            body["task"] = call.task
        if call.ceiling.usd or call.ceiling.tokens:
            body["reserve"] = {"usd": call.ceiling.usd, "tokens": call.ceiling.tokens}
        if self.attempt > 1:
            body["attempt"] = self.attempt
        if call.claim:
            body["claim"] = call.claim
        if call.undo is not None:
            body["undo"] = {"tool": call.undo.tool, "args": dict(call.undo.args)}
        if call.undoes:
            body["undoes"] = call.undoes
        return body

    async def _refuse_admit(self, refused: GuardRefused) -> NoReturn:
        if refused.reason == "claim":
            error = DuplicateClaim(
                f"run {refused.holder} already does, or did, this piece of work",
                needed="decide whether this is the same request twice",
                evidence={"run": refused.holder, "tool": self.call.tool.spec.name},
            )
            await self.settle_error(error, refused=True)
            raise error
        signal = Halted(f"{refused.holder} is halted", scope=refused.holder)
        await self.settle_refusal(signal)
        raise signal

    # --- perform ---------------------------------------------------------------------------------

    async def _perform(self, not_after: float) -> tuple[Reply, float]:
        session, call = self.session, self.call
        clock, spec = session.shared.world.clock, call.tool.spec
        args = session.shared.governance.outbound(call)
        session.check_lease()  # directly before sending
        request = self.request(not_after, args)
        began = clock.monotonic()
        try:
            async with asyncio.timeout(spec.timeout):
                reply = await call.tool.perform(request)
            check_result(session.shared.validators, call, reply.value)
        except TimeoutError:
            await self._answered(False)
            raise self._unanswered(f"{spec.name} did not answer within {spec.timeout:g} s") from None
        except Unavailable as error:
            await self._answered(False)
            if error.retry_after is not None:
                session.shared.rates.pause(spec.name, error.retry_after)
            raise
        except OutcomeUnknown:
            await self._answered(False)
            raise
        except TightshipError:
            await self._answered(True)
            raise
        except Exception as error:
            await self._answered(False)
            raise self._unanswered(f"{spec.name} raised {type(error).__name__}: {error}") from error
        took = clock.monotonic() - began
        await self._answered(True, took)
        return reply, took * 1000

    async def _answered(self, ok: bool, seconds: float = 0.0) -> None:
        """Tell the breaker how it went; a breaker that opens or closes is worth an entry."""
        name = self.service
        changed = self.session.shared.breakers.record(name, ok, seconds)
        if changed is not None:
            note = {"type": "breaker", "name": name, "state": changed}
            await self.session.journal.record(kinds.NOTE, f"{self.call.key}/breaker/{self.attempt}", note)

    def request(self, not_after: float, args: Any = None) -> Request:
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

    def _unanswered(self, message: str) -> WorkException:
        if self.call.cls in ("write", "undo"):
            return OutcomeUnknown(message)
        return TimedOut(message)

    # --- what went wrong -------------------------------------------------------------------------

    async def _fail(self, error: TightshipError, reservation: Reservation, final: bool = False) -> None:
        """Record a failed attempt; return when it is to be tried again, else raise."""
        session = self.session
        shared = session.shared
        again = not final and isinstance(error, Unavailable) and self.attempt < shared.retry.attempts
        if again:
            try:
                session.limits.count_retry(self.call.key, self.attempt + 1)
            except LimitReached:
                again = False
        # An attempt that failed may have been paid all the same: retries are charged.
        charged = reservation.amount if self.call.ceiling.usd else Amount(0, 0, 1)
        reservation.settle(charged)
        await self.settle_error(error, again=again, charged=charged)
        if not again:
            raise error
        wait = shared.retry.delay(self.attempt, shared.world.chance.uniform(), getattr(error, "retry_after", None))
        self.attempt += 1
        await shared.world.clock.sleep(wait)

    async def _resolve(self, not_after: float, error: WorkException, reservation: Reservation | None) -> Json | None:
        """A write whose answer was lost: repeat it where that is safe, else find out, else say that nobody knows.

        Returns the outcome, or None when it is to be sent again.
        """
        spec = self.call.tool.spec
        charged = Amount(self.call.ceiling.usd, self.call.ceiling.tokens, 1)
        if spec.idempotency in ("key", "etag"):
            retry = self._may_retry()
        elif spec.can_lookup:
            reply = await self._look_up(not_after)
            if reply is not None:
                return await self.settle_reply(reply, 0, reservation)
            retry = self._may_retry()
        else:
            retry = False
        if reservation is not None:
            reservation.settle(charged)
        await self.settle_error(error, again=retry, charged=charged)
        if not retry:
            raise error
        self.attempt += 1
        return None

    def _may_retry(self) -> bool:
        if self.attempt >= self.session.shared.retry.attempts + 2:
            return False
        try:
            self.session.limits.count_retry(self.call.key, self.attempt + 1)
        except LimitReached:
            return False
        return True

    async def _look_up(self, not_after: float) -> Reply | None:
        """Ask the sink whether it was done; `no` counts only once nothing can be on its way any more."""
        clock, retry = self.session.shared.world.clock, self.session.shared.retry
        request = self.request(not_after)
        failures = 0
        while True:
            late = clock.now() > not_after
            try:
                found = await self.call.tool.lookup(request)
            except Unavailable as error:
                failures += 1
                if failures > retry.attempts:
                    raise await self._unknown(error) from error
                await clock.sleep(retry.delay(failures, 0.5, error.retry_after))
                continue
            if found is not None or late:
                return found
            await clock.sleep(max(0.001, not_after - clock.now() + 0.001))

    async def _unknown(self, cause: WorkException) -> OutcomeUnknown:
        error = OutcomeUnknown(
            f"{self.call.tool.spec.name} was sent and its answer lost, and it cannot be looked up: {cause.message}",
            needed="find out in that system whether it was done",
            evidence={"tool": self.call.tool.spec.name, "arguments": dict(self.call.args)},
        )
        await self.settle_error(error)
        return error

    async def recover(self, admitted: Body, at: float) -> Json:
        """An admit that a crash has left open. The envelopes have charged it in full already."""
        call = self.call
        if admitted["name"] != call.tool.spec.name or admitted["args"] != self.args:
            await self.replay(admitted)
        self.attempt = admitted.get("attempt", 1)
        error = OutcomeUnknown(
            f"the process ended while {call.tool.spec.name} was under way, "
            "and the system cannot tell whether it was done",
            needed="find out in that system whether it was done",
            evidence={"tool": call.tool.spec.name, "arguments": dict(call.args)},
        )
        if call.cls in ("write", "undo"):
            found = await self._resolve(admitted["not_after"], error, None)
            if found is not None:
                return found
        else:
            reserve = admitted.get("reserve", {})
            charged = Amount(reserve.get("usd", 0), reserve.get("tokens", 0), 1)
            await self.settle_error(
                Unavailable("the process ended before the answer came"), again=True, charged=charged
            )
            self.attempt += 1
        return await self.go()
