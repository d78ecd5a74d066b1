"""Operations of the shared context on their way through the door: read, snapshot, write, compare and set.

They are counted, halted, permitted and replayed like any other call. A read that is too old goes to the key's source
first, once for all who want it; a write is appended together with its settle, guarded by the version it is based on.
"""

from __future__ import annotations

from typing import Final

from tightship.context import Collision, Declared, Head, Resolution, resolve
from tightship.context.conflicts import refused
from tightship.context.heads import Place
from tightship.core import kinds
from tightship.core.errors import (
    BoundaryError,
    ConflictingWrite,
    GuardRefused,
    InvalidArguments,
    LimitReached,
    NotDeclared,
    UnknownName,
    WorkException,
)
from tightship.core.ids import derived_id
from tightship.core.ports import FREE, Json
from tightship.core.signals import Signal
from tightship.effects._shared_reads import READ, SNAPSHOT, WRITE, SharedReads, local_call
from tightship.effects.journal import Body
from tightship.effects.outcomes import describe
from tightship.ledger import Draft, Expected, Guards, SealedPayload

ROUNDS: Final = 20
"""How often a write is tried while others move the head under it."""


class SharedPassage(SharedReads):
    """One operation of the shared context on its way through the door."""

    __slots__ = ()

    async def go(self) -> Json:
        """Perform it, or replay it.

        Raises:
            DataMissing, StaleContext: there is no value, or none young enough. ConflictingWrite: the write lost.
            NotDeclared, InvalidArguments: refused. WorkException: the source failed.
        """
        session, call = self.session, self.call
        recorded = session.journal.effects.get(call.key)
        if recorded is not None:
            session.journal.saw(call.key, call.agent, recorded.get("context", ()))
            return self._outcome(await self.replay(recorded))
        try:
            for limits in session.counters(call.agent):
                limits.count_call(call.key)
            session.shared.halts.check(session.scopes(call.agent))
            session.watch.check()
            if call.tool is WRITE:
                return self._outcome(await self._write())
            return await self.read_all()
        except UnknownName as error:
            refusal = NotDeclared(error.message, fix=error.fix)
            self._read = []
        except (BoundaryError, LimitReached, Signal) as error:
            refusal = error
            self._read = [{"scope": one["scope"], "key": one["key"], "refused": True} for one in self._read]
        except WorkException as error:
            if call.key not in session.journal.effects:
                await self.settle_error(error)
            raise
        return await self.refuse(refusal)

    def _outcome(self, value: Json) -> Json:
        """With the version that was written: the position is known only once the entry stands."""
        if self.call.tool is not WRITE:
            return value
        return {**value, "version": self.session.journal.written.get(self.call.key, value.get("version", 0))}

    # --- writing ---------------------------------------------------------------------------------

    async def _write(self) -> Json:
        """Append the value and the settle together, on the version it is based on; else as the key's rule says."""
        call, args = self.call, self.call.args
        declared, place = self.locate(args["key"])
        declared.check_writer(call.agent)
        declared.check_value(args["value"])
        declared.check_as_of(args.get("as_of"), self.now)
        self._read = []
        base = args["expect"] if "expect" in args else self._based_on(place)
        for _ in range(ROUNDS):
            head = (await self.shared.heads.read([place]))[place]
            if base is None or head.version == base:
                done = await self._try(declared, head, args["value"], (), head.version)
            else:
                done = await self._collide(declared, head, base)
            if done is not None:
                return done
        raise ConflictingWrite(f"{place[1]} is written so often that no write of {call.agent} finds its turn")

    def _based_on(self, place: Place) -> int | None:
        """The version that this write goes on from: as its turn, agent or run has read it. None: blind."""
        journal, call = self.session.journal, self.call
        seen = [(key, one) for key, reads in journal.reads.items() for one in reads if (one.scope, one.key) == place]
        for wanted in (
            [one for key, one in seen if call.turn and key.startswith(f"{call.turn}/")],
            [one for _, one in seen if one.agent == call.agent],
            [one for _, one in seen],
        ):
            if wanted:
                return wanted[-1].version
        return None

    async def _collide(self, declared: Declared, head: Head, base: int) -> Json | None:
        """Another write has come in between: the declared rule ends it. None: the head has moved once more.

        Raises:
            ConflictingWrite: this write lost. InvalidArguments: the expected version never existed.
        """
        call, heads, rule = self.call, self.shared.heads, declared.spec.conflict
        place = (head.scope, head.key)
        try:
            before = await heads.at(place, base, self.session.journal.log)
        except KeyError:
            self._read = [{"scope": place[0], "key": place[1]}]
            raise InvalidArguments(
                f"{head.key} never had the version {base}; it stands at {head.version}",
                fix="expect a version that ctx.read gave",
            ) from None
        theirs = (await heads.values([head], self.now))[0].value
        collision = Collision(head.key, before, theirs, call.args["value"], head.writer, call.agent)
        merge = None if rule.merge is None else self.shared.merge(rule.merge)
        ending = Resolution("refused") if "expect" in call.args else resolve(rule, collision, merge)
        payload = self._seal(call.args["value"])
        conflict: Body = {
            "scope": place[0],
            "key": place[1],
            "rule": "expect" if "expect" in call.args else rule.name,
            "by": call.agent,
            "base": base,
            "version": head.version,
            "other": head.writer,
            "value": payload.address,
            "end": ending.end,
        }
        if ending.end == "refused":
            return await self._lose(collision, head, conflict, payload, base)
        if ending.end == "asked":
            return await self._ask(declared, collision, head, conflict, payload)
        declared.check_value(ending.value)
        return await self._try(declared, head, ending.value, (self._note(conflict, payload),), base)

    def _seal(self, value: Json) -> SealedPayload:
        return self.shared.heads.seal(self.session.facts.tenant, value, self.session.journal.scope)

    def _note(self, body: Body, *payloads: SealedPayload) -> Draft:
        journal = self.session.journal
        return Draft(journal.run, kinds.CONFLICT, self.call.key, body, journal.epoch, payloads)

    async def _try(
        self, declared: Declared, head: Head, value: Json, before: tuple[Draft, ...], base: int
    ) -> Json | None:
        """Append it on this head; None when the head has moved."""
        journal, args = self.session.journal, self.call.args
        if not self.session.live:
            return await self._settle_write({"end": "rehearsed", "version": head.version}, (), None)
        written = self.shared.heads.draft(
            declared,
            head.scope,
            self._seal(value),
            self.call.agent,
            run=journal.run,
            key=self.call.key,
            epoch=journal.epoch,
            as_of=args.get("as_of"),
            sources=args.get("sources", ()),
            base=base,
        )
        end = before[0].body["end"] if before else "written"
        try:
            return await self._settle_write({"end": end}, (*before, written), head)
        except GuardRefused as moved:
            if moved.reason != "context":
                raise
            return None

    async def _settle_write(self, outcome: Body, drafts: tuple[Draft, ...], head: Head | None) -> Json:
        journal = self.session.journal
        payload, _ = journal.seal(outcome)
        body = self._settle_body(FREE, 0)
        body["out"] = payload.address
        if outcome["end"] == "rehearsed":
            body["meta"] = {"rehearsal": True}
        settled = Draft(journal.run, kinds.SETTLED, self.call.key, body, journal.epoch, (self.payload, payload))
        guards = None if head is None else Guards(context=(Expected(head.scope, head.key, head.version),))
        await journal.record_all(*drafts, settled, guards=guards)
        return outcome

    async def _lose(
        self, collision: Collision, head: Head, conflict: Body, payload: SealedPayload, base: int
    ) -> Json | None:
        """The first one stands; what was to be written is kept in the entry of the conflict.

        Raises:
            ConflictingWrite: always, unless the head has moved once more.
        """
        journal, error = self.session.journal, refused(collision, head.version, base)
        told, detail = describe(error)
        sealed, _ = journal.seal(detail)
        body = self._settle_body(FREE, 0) | {"error": told, "detail": sealed.address}
        settled = Draft(journal.run, kinds.SETTLED, self.call.key, body, journal.epoch, (self.payload, sealed))
        guards = Guards(context=(Expected(head.scope, head.key, head.version),))
        try:
            await journal.record_all(self._note(conflict, payload), settled, guards=guards)
        except GuardRefused as moved:
            if moved.reason != "context":
                raise
            return None
        raise error

    async def _ask(
        self, declared: Declared, collision: Collision, head: Head, conflict: Body, payload: SealedPayload
    ) -> Json | None:
        """Both values go to a person. What stands stays until then, and the run goes on."""
        journal, call = self.session.journal, self.call
        item = derived_id("i", journal.run, f"{call.key}/conflict")
        asked, _ = journal.seal(_package(declared, collision, head, self))
        opened: Body = {
            "item": item,
            "type": "review",
            "role": declared.spec.conflict.person or "",
            "title": f"two values of {head.key}"[:300],
            "package": asked.address,
            "detached": True,
        }
        question = Draft(journal.run, kinds.OPENED, f"{call.key}/conflict", opened, journal.epoch, (asked,))
        try:
            drafts = (self._note({**conflict, "item": item}, payload), question)
            return await self._settle_write({"end": "asked", "item": item, "version": head.version}, drafts, head)
        except GuardRefused as moved:
            if moved.reason != "context":
                raise
            return None


def _package(declared: Declared, collision: Collision, head: Head, at: SharedPassage) -> Body:
    """The escalation package of a conflict, in the form that the inbox knows (review.Package)."""
    facts = at.session.facts
    return {
        "kind": "rule_conflict",
        "title": f"two values of {head.key}",
        "what_happened": f"{collision.by} and {collision.other} have both changed {head.key}, each from the same value "
        f"as before. What {collision.other} wrote stands.",
        "needed": "say which one counts, or give another",
        "options": [
            {"id": "approve", "label": f"what {collision.by} wrote"},
            {"id": "reject", "label": f"what {collision.other} wrote: it stands"},
            {"id": "edit", "label": "another value"},
        ],
        "evidence": {"before": collision.base, collision.other: collision.theirs, collision.by: collision.ours},
        "run": facts.id,
        "workflow": facts.workflow,
        "key": at.call.key,
        "agent": collision.by,
        "schema": dict(declared.spec.value_schema),
        "context": {"scope": head.scope, "key": head.key, "tenant": facts.tenant, "value": collision.ours},
    }


__all__ = ["READ", "SNAPSHOT", "WRITE", "SharedPassage", "local_call"]
