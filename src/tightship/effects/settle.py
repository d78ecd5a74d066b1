"""What a call leaves in the ledger: its outcome, its failure or its refusal; and how a replay reads that again."""

from __future__ import annotations

import orjson

from tightship.controls.budgets import Alert, Amount, Reservation
from tightship.controls.limits import REPEATED
from tightship.core import kinds
from tightship.core.errors import (
    FormatMismatch,
    NondeterminismError,
    OutcomeUnknown,
    PayloadTooLarge,
    StaleOwner,
    StoreError,
    TightshipError,
    Unavailable,
)
from tightship.core.ports import FREE, Json, Reply, Usage
from tightship.core.signals import OverBudget, Signal
from tightship.effects.call import Call
from tightship.effects.journal import Body
from tightship.effects.outcomes import describe, describe_signal, restore, restore_signal
from tightship.effects.session import Session
from tightship.ledger import SealedPayload


class Ticket:
    """One call with its sealed arguments, and the pen for its outcome."""

    __slots__ = (
        "admits",
        "args",
        "asked_at",
        "attempt",
        "begun",
        "call",
        "cut",
        "data",
        "doubtful",
        "not_after",
        "payload",
        "policies",
        "session",
        "until",
    )

    def __init__(self, session: Session, call: Call) -> None:
        self.session = session
        self.call = call
        self.payload, self.data = session.journal.seal(call.args)
        self.args = self.payload.address
        self.policies: tuple[str, ...] = ()
        self.attempt = 1
        self.begun = self.cut = False
        """Whether anything of it was admitted; whether whoever waited for it was cut off."""
        self.admits = call.costs
        """Whether it is recorded before it is made: also a free read of a family, whose requests the store counts."""
        self.doubtful = False
        """Whether an earlier attempt may have been done."""
        self.asked_at = 0.0
        """When the tool was asked last, in the loop's time (s)."""
        self.not_after = 0.0
        """Store time (s) until which what was sent may arrive."""
        self.until = 0.0
        """Until when it waits for what others have set aside, in monotonic time (s)."""

    def talk(self) -> Body:
        """How the call continues a conversation, as its entry says it."""
        call = self.call
        body: Body = {"said": [message.address for message in call.said]} if call.said else {}
        if call.after:
            body["after"] = call.after
        if call.replied:
            body["replied"] = True
        return body

    def admit_body(self, not_after: float) -> Body:
        """What an admit says of the call."""
        call = self.call
        body: Body = {
            "name": call.tool.spec.name,
            "cls": call.cls,
            "agent": call.agent,
            "args": self.args,
            "not_after": round(not_after, 3),
            **self.talk(),
        }
        if call.line:
            body["line"] = call.line
        if call.task != f"agent:{call.agent}":
            body["task"] = call.task
        if call.ceiling.usd or call.ceiling.tokens:
            body["reserve"] = {"usd": call.ceiling.usd, "tokens": call.ceiling.tokens}
        body |= self.session.counted()
        if self.attempt > 1:
            body["attempt"] = self.attempt
        if call.claim:
            body["claim"] = call.claim
        if call.undo is not None:
            body["undo"] = {"tool": call.undo.tool, "args": dict(call.undo.args)}
        if call.undoes:
            body["undoes"] = call.undoes
        if call.expect:
            body["based"] = [list(one[:3]) for one in call.expect]
            body["gate"] = [list(one[:3]) for one in call.expect if one.alone]
        return body

    # --- replay ----------------------------------------------------------------------------------

    async def replay(self, body: Body) -> Json:
        """The recorded outcome of this key."""
        journal = self.session.journal
        self.check_same(body)
        if "refused" in body:
            raise restore_signal(body["refused"])
        if "error" in body:
            raise restore(body["error"], await journal.value(body["detail"]))
        value = await journal.value(body["out"])
        if body["cls"] == "read":
            self.session.loops.news(body["out"], self.call.line)
        return value

    def check_same(self, body: Body) -> None:
        """What was recorded under this key is this very call.

        Raises:
            NondeterminismError: it is another one.
        """
        call = self.call
        if body["name"] != call.tool.spec.name or body["args"] != self.args or _talk(body) != self.talk():
            raise NondeterminismError(
                f"{call.key} was {body['name']} when this run was recorded and is {call.tool.spec.name} now, "
                "or its arguments differ",
                where=f"run {self.session.facts.id}",
                fix="an agent read the clock, chance or a global: take them from ctx; "
                "if the agent's code changed, resume with --accept-code or fork the run",
            )

    # --- settle ----------------------------------------------------------------------------------

    async def settle_reply(
        self, reply: Reply, ms: float, reservation: Reservation | None, cached: bool = False
    ) -> Json:
        """Label, restore tokens, charge, and record the outcome; what comes back is what a replay will give."""
        session, call = self.session, self.call
        value = session.shared.governance.inbound(call, reply.value)
        try:
            payload, data = session.journal.seal(value)
        except (PayloadTooLarge, TypeError) as error:
            kind = OutcomeUnknown if call.cls in ("write", "undo") else FormatMismatch
            mismatch = kind(f"{call.tool.spec.name} returned what cannot be kept: {error}")
            if reservation is not None:
                reservation.settle(Amount(reply.usage.usd, reply.usage.tokens, 1))
            await self.settle_error(mismatch, usage=reply.usage, reservation=reservation)
            raise mismatch from None
        body = self._outcome_body(reply, ms, payload.address)
        if call.cls == "write" and session.live and session.journal.reads:
            body |= await raced(session)
        if cached:
            body["cached"] = True
        if reservation is not None:
            over = reservation.settle(Amount(reply.usage.usd, reply.usage.tokens, 0 if cached else 1))
            if over:  # the other side has taken more than it said it would: charged, and never hidden
                body["overrun"] = {unit: figure for unit, figure in over.as_dict().items() if figure}
        if call.cls in REPEATED and not call.settling:
            lost = None if reservation is None else reservation.lost
            body |= session.counted(call.key)
            await self.session.journal.go_ahead(kinds.SETTLED, call.key, body, self._with_arguments((payload,)), lost)
        else:
            await self._append(body, (payload,), reservation)
        if call.cls == "read":
            session.loops.news(payload.address, call.line)
            for limits in session.counters(call.agent):
                limits.answered(call.key, payload.address)
        if call.ceiling.usd or call.ceiling.tokens:
            for alert in session.chain(call.task).alerts():
                await self._alert(alert)
        return orjson.loads(data)

    def _outcome_body(self, reply: Reply, ms: float, out: str) -> Body:
        call = self.call
        body = self._settle_body(reply.usage, ms)
        body["out"] = out
        label = self.session.shared.governance.label(call, reply)
        if label.integrity:
            body["trust"] = int(label.integrity)
        if reply.meta:
            body["meta"] = dict(reply.meta)
        if call.claim:
            body["claim"] = call.claim
        if call.releases:
            body["releases"] = call.releases
        return body

    async def _alert(self, alert: Alert) -> None:
        """Say early that an envelope runs dry."""
        journal = self.session.journal
        key = f"budget/{alert.scope}/{alert.period}/{alert.unit}/{alert.limit}"
        if key not in journal.notes:
            await journal.record(kinds.NOTE, key, {"type": "budget.alert", **alert.as_dict()})

    async def settle_error(
        self,
        error: TightshipError,
        *,
        refused: bool = False,
        again: bool = False,
        charged: Amount | None = None,
        usage: Usage = FREE,
        reservation: Reservation | None = None,
    ) -> None:
        """Record a failure under the key; `again` when another attempt follows."""
        head, detail = describe(error)
        payload, _ = self.session.journal.seal(detail)
        body = self._settle_body(usage, 0)
        body |= {"error": head, "detail": payload.address}
        if charged is not None:
            body |= {name: amount for name, amount in (("usd", charged.usd), ("tokens_in", charged.tokens)) if amount}
        if refused:
            body["denied"] = True
        if again:
            body["again"] = True
            body.pop("gate", None)
            if self.doubtful:
                body["doubtful"] = True
        elif self.call.claim and self._begun():
            body["claim"] = self.call.claim
        if isinstance(error, Unavailable) and not again:
            for limits in self.session.counters(self.call.agent):
                limits.unanswered(self.call.key)
        await self._append(body, (payload,), reservation)

    async def settle_refusal(self, signal: Signal) -> None:
        """Record a refusal; one that a person may lift leaves the key open."""
        if isinstance(signal, OverBudget) and self.session.asks_on_budget:
            return
        body = self._settle_body(FREE, 0)
        body["refused"] = describe_signal(signal)
        if self.call.claim and self._begun():
            body["claim"] = self.call.claim
        await self._append(body, ())

    def _begun(self) -> bool:
        """Whether an attempt was admitted, so that the claim is this effect's."""
        journal = self.session.journal
        return self.call.key in journal.admitted or self.call.key in journal.again

    def _settle_body(self, usage: Usage, ms: float) -> Body:
        call = self.call
        body: Body = {
            "name": call.tool.spec.name,
            "cls": call.cls,
            "agent": call.agent,
            "workflow": self.session.facts.workflow,
            "ms": round(ms, 2),
        }
        if call.key not in self.session.journal.admitted:
            body |= {"args": self.args, **self.talk()}
            if call.line:
                body["line"] = call.line
        if usage.usd:
            body["usd"] = usage.usd
        if usage.tokens:
            body |= {"tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
            if usage.cached_in:
                body["cached_in"] = usage.cached_in
        if gate := self.session.journal.gate_of(call.key):
            body["gate"] = [one[:2] for one in gate]
        elif call.undoes and (gate := self.session.journal.effects.get(call.undoes, {}).get("gate")):
            body["moved"] = gate
        if self.policies and self.policies != ("declared",):
            body["policy"] = list(self.policies)
        if self.attempt > 1:
            body["attempt"] = self.attempt
        return body

    async def _append(
        self, body: Body, payloads: tuple[SealedPayload, ...], reservation: Reservation | None = None
    ) -> None:
        body |= self.session.counted(self.call.key)  # at once before it is appended: a first child may begin any time
        try:
            await self.session.journal.record(kinds.SETTLED, self.call.key, body, self._with_arguments(payloads))
        except (StoreError, StaleOwner):
            if reservation is not None:
                reservation.lost()
            raise

    def _with_arguments(self, payloads: tuple[SealedPayload, ...]) -> tuple[SealedPayload, ...]:
        """With those of a free read, whose arguments come with the settle."""
        if self.call.key in self.session.journal.admitted:
            return payloads
        return (self.payload, *self.call.said, *payloads)


async def raced(session: Session) -> Body:
    """What a decision had read of the shared context, and somebody else has changed before its action settled."""
    shared = session.shared.context
    if shared is None:
        return {}
    known = {(read.scope, read.key): read.version for reads in session.journal.reads.values() for read in reads}
    heads = await shared.heads.read(list(known))
    found = [list(place) for place, version in known.items() if heads[place].version > version]
    return {"raced": found} if found else {}


def _talk(body: Body) -> Body:
    return {name: body[name] for name in ("said", "after", "replied") if name in body}
