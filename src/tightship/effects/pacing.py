"""How a call is held back: rate limit, throttle and breaker, in this order, holding nothing; and what they are told."""

from __future__ import annotations

from tightship.core import kinds
from tightship.core.errors import LimitReached, TimedOut, Unavailable
from tightship.effects.doubt import Doubt

PATIENCE = 5
"""How often what takes back or finds out waits for a breaker."""


class Pacing(Doubt):
    """A call that waits for its turn at a service."""

    __slots__ = ()

    @property
    def service(self) -> str:
        """What a breaker opens for: the host that is talked to, or the tool itself."""
        spec = self.call.tool.spec
        return next(iter(spec.hosts)) if len(spec.hosts) == 1 else spec.name

    async def count_request(self) -> None:
        """One more attempt at something outside, of this run and of those above it.

        Raises:
            LimitReached: that is one too many for the user's request.
        """
        if not self.bound:
            return
        for run, envelope, most in self.session.line:
            made = envelope.spent.calls + envelope.reserved.calls
            if made >= most and await envelope.refresh():
                made = envelope.spent.calls + envelope.reserved.calls
            if made >= most:
                raise LimitReached(
                    f"run {run} and the runs below it have made {made} requests, which is their limit",
                    fix="find out what asks so often with `tightship runs show`; raise limits.requests only if the "
                    "work needs it",
                )

    async def hold_back(self) -> None:
        """Wait until the call may go to its service.

        Raises:
            Unavailable: it would wait too long, or the service is better left alone.
        """
        shared, call = self.session.shared, self.call
        name, tokens = call.tool.spec.name, call.ceiling.tokens
        if not shared.rates.try_acquire(name, tokens):
            within = self.session.watch.left if self.bound else None
            await shared.rates.acquire(name, tokens, within=within)
        try:
            refusing = shared.throttle.refusing(self.service) if self.bound else 0.0
            if refusing and shared.world.chance.uniform() < refusing:
                raise shared.throttle.refuse(self.service)
            self._check_breakers()
        except Unavailable as error:
            if self.bound:
                self.not_sent()
                raise
            await self._wait_for_breaker(error)

    async def _wait_for_breaker(self, error: Unavailable) -> None:
        """What takes back or finds out has the patience to wait for a breaker that is open; nothing else has.

        Raises:
            Unavailable: the error that was given, or the last one.
        """
        shared = self.session.shared
        for _ in range(PATIENCE - 1):
            await shared.world.clock.sleep((error.retry_after or 0.0) + 0.01)
            try:
                self._check_breakers()
                return
            except Unavailable as again:
                error = again
        raise error

    @property
    def breakers(self) -> tuple[str, ...]:
        """The breakers that it passes; what takes back or finds out heeds those of systems alone."""
        call, shared = self.call, self.session.shared
        if not self.bound:
            return (self.service,)
        return shared.breakers.keys(self.service, call.tool.spec.name, call.agent, self.session.facts.workflow)

    def _check_breakers(self) -> None:
        """Whether all of them let it pass.

        Raises:
            Unavailable: one does not.
        """
        breakers, passed = self.session.shared.breakers, list[str]()
        try:
            for key in self.breakers:
                breakers.check(key)
                passed.append(key)
        except Unavailable:
            for key in passed:
                breakers.abandon(key)
            raise

    def abandon(self) -> None:
        """The call was not made, or says nothing about what it belongs to."""
        for key in self.breakers:
            self.session.shared.breakers.abandon(key)

    def not_after_now(self) -> float:
        """Store time (s) until which an attempt that is begun now may take: the tool's time, and not beyond what stands
        around it has left. A write that is under way has its own time: it settles, whoever has stopped waiting."""
        call = self.call
        end = self.session.shared.world.clock.now() + call.tool.spec.timeout
        return end if call.deadline is None or call.cls == "write" else min(end, call.deadline)

    def check_deadline(self) -> None:
        """Waiting for the rate or for another attempt may have taken all the time there was.

        Raises:
            TimedOut: it has; nothing is sent.
        """
        call = self.call
        if call.deadline is None or self.doubtful or self.session.shared.world.clock.now() < call.deadline:
            return
        self.abandon()
        self.not_sent()
        raise TimedOut(f"{call.tool.spec.name} was not asked in the time that was left", evidence={"sent": False})

    def may_hedge(self) -> bool:
        """Whether a read that is late may be asked a second time: as a retry, within the rate, and not in vain."""
        shared, name = self.session.shared, self.call.tool.spec.name
        return shared.retries.spend(self.service) and shared.rates.try_acquire(name, 0)

    # --- what they are told ------------------------------------------------------------------------

    def not_sent(self) -> None:
        """The tokens that the rate limit has set aside were not used."""
        if self.call.ceiling.tokens:
            self.session.shared.rates.correct(self.call.tool.spec.name, -self.call.ceiling.tokens)

    def used(self, tokens: int) -> None:
        """What the call has really used, against what the rate limit has set aside."""
        if self.call.ceiling.tokens:
            self.session.shared.rates.correct(self.call.tool.spec.name, tokens - self.call.ceiling.tokens)

    def asks(self, seconds: float) -> float:
        """The tool is asked now, and has so long; those seconds."""
        self.asked_at = self.session.shared.pulse.begin(seconds)
        return seconds

    @property
    def unheard(self) -> bool:
        """Whether this process stood still meanwhile: that there was no answer, or a late one, says nothing."""
        return self.session.shared.pulse.stood_still(self.asked_at)

    async def answered(self, ok: bool, seconds: float = 0.0, usd: int = 0) -> None:
        """Tell the breakers how a call went: whether there was an answer at all, after how long, and its cost."""
        shared = self.session.shared
        if self.unheard:
            if not ok:
                self.abandon()
                return
            seconds = 0.0
        if ok:
            shared.throttle.record(self.service, True)
        for key in self.breakers:
            changed = shared.breakers.record(key, ok, seconds, usd)
            if changed is None:
                continue
            note = {"type": "breaker", "name": key, "state": changed}  # it opens or closes: that is worth an entry
            if why := shared.breakers.why(key):
                note["why"] = why
            part = "breaker" if key == self.service else f"breaker/{key}"
            await self.session.journal.record(kinds.NOTE, f"{self.call.key}/{part}/{self.attempt}", note)
            if shared.spread is not None:
                await shared.spread(key)

    async def turned_away(self, error: Unavailable) -> None:
        """The service did not take the call; what it says of waiting holds for everybody."""
        shared = self.session.shared
        if not isinstance(error, TimedOut):
            if not self.unheard:
                shared.throttle.record(self.service, False)
            if error.evidence.get("sent") is False:
                self.not_sent()
        await self.answered(False)
        if error.retry_after is not None:
            shared.rates.pause(self.call.tool.spec.name, error.retry_after)
