"""How a run ends: in exactly one of completed, escalated, failed, cancelled; undone before, reported with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from tightship.core import kinds
from tightship.core.errors import GuardRefused, LimitReached, RunFailed, Stalled, TightshipError, WorkException
from tightship.core.ids import derived_id
from tightship.core.ports import Json
from tightship.core.signals import Cancelled, Halted, OverBudget, Signal
from tightship.ledger import Draft, Guards, SealedPayload
from tightship.review.package import Package, for_residual, from_exception
from tightship.runtime.account import account, finished_values
from tightship.runtime.board import give_back
from tightship.runtime.children import child_signal, ended_child
from tightship.runtime.result import ended_run
from tightship.runtime.saga import RESIDUAL, unreported
from tightship.runtime.undo import Undo

if TYPE_CHECKING:
    from tightship.runtime.run import RunTask


INTERRUPTED = "run/interrupted"
"""The key of the decision why a run turned around."""
TAKEN = "taken"
"""What comes of a run that a person takes over before its end is written."""


class Escalate(TightshipError):
    """The run is to end as escalated, whatever the surrounding behaviours say."""

    def __init__(self, exception: WorkException | LimitReached) -> None:
        self.exception = exception
        super().__init__(exception.message)


class Ending:
    """Brings one run to its end."""

    def __init__(self, task: RunTask) -> None:
        self._task = task
        self._undo = Undo(task)
        self._known: BaseException | None = None
        """What had interrupted the run when it began to end."""
        self._flying: set[str] = set()
        """Keys of what had not settled when the run was stopped."""

    async def finish(self, cause: Any) -> str:
        """Undo where it is due, then append the single `ended`; returns the outcome."""
        task = self._task
        self._known = task.interruption
        self._flying = {key for key, _ in task.journal.unfinished()}
        # An end goes to the disk behind what the run has gone on from, in the same transaction if it can. A child's end
        # tells its parent at which positions it has acted, so those have to be known.
        waits = isinstance(cause, BaseException) or bool(task.program.parent)
        await (task.session.drain() if waits else task.session.flights.drain())
        if task.erased:
            await task.session.drain()
            cause = task.forget()
        if not isinstance(cause, BaseException):
            await self._tidy()
            outcome = await self._complete(cause.output)
            if outcome is not None:
                return outcome
            await task.session.drain()
            if task.interruption is None:
                return TAKEN  # a person has taken the run over before its end could be written
            cause = task.interruption  # a cancel or halt came first
        if isinstance(cause, Escalate):
            cause = cause.exception
        if isinstance(cause, Exception) and not isinstance(cause, TightshipError):
            raise cause
        cause = await self._turn_around(cause)
        if cause is None:
            return TAKEN
        await self._tidy()
        if task.program.undoes(cause):
            await self._undo.run()
        return await self._close(cause)

    async def _turn_around(self, cause: BaseException) -> BaseException | None:
        """Record why the run turns around: what stands earliest in the log; None when a person has taken it before."""
        task = self._task
        while True:
            if INTERRUPTED not in task.journal.decided and not isinstance(cause, Cancelled | Halted | Stalled):
                if task.interruption is not self._known:  # it came while what was in flight settled
                    cause = await task.worded(task.interruption)
                elif task.taken and not task.erased:
                    return None
            if isinstance(cause, Halted | Stalled):  # it may never have been walked through here
                task.know(await finished_values(task))
            if await task.remember(cause):
                return cause

    async def _tidy(self) -> None:
        """What was begun and cut off: children end, what became of effects is found out, what peers hold is free."""
        if any(True for _ in self._task.program.spec.children()):
            await self._stop_children()
        await self._undo.settle_open()
        await give_back(self._task)

    async def _complete(self, output: Json) -> str | None:
        """Write that it completed; None when an unread signal turns it around first."""
        journal = self._task.journal
        payload, data = journal.seal(output)
        body: dict[str, Any] = {"outcome": "completed", "output": payload.address}
        payloads, drafts = [payload], list[Draft]()
        self._undo.residual = unreported(self._task, self._undo.residual)
        if self._undo.residual:
            detail, _ = journal.seal({"message": "completed", "residual": list(self._undo.residual)})
            body |= {"residual": len(self._undo.residual), "detail": detail.address}
            payloads.append(detail)
            drafts += self._residual_item(self._undo.residual)
        while self._task.interruption is None and not self._task.taken:
            if await self._append(body, tuple(payloads), (*drafts, *self._withdrawals())):
                self._task.ended = ended_run(self._task.session.facts, journal.entries, body, orjson.loads(data), None)
                return "completed"
        return None

    async def _close(self, cause: BaseException) -> str:
        if self._task.erased:  # perhaps only while it was undone
            cause = self._task.forget()
            self._undo.forget()
        outcome = self._outcome(cause)
        reason = reason_of(cause)
        body: dict[str, Any] = {"outcome": outcome, "reason": reason}
        if self._undo.residual:
            body["residual"] = len(self._undo.residual)
        drafts: list[Draft] = []
        payloads: list[SealedPayload] = []
        if outcome == "escalated":
            package = await self._escalation(cause)
            sealed, _ = self._task.journal.seal(package.to_json())
            body["package"] = sealed.address
            payloads.append(sealed)
            drafts += self._item("escalation", package, sealed)
        elif remains := unreported(self._task, self._undo.residual):
            drafts += self._residual_item(remains)
        detail, _ = self._task.journal.seal(self._why(cause))
        body["detail"] = detail.address
        payloads.append(detail)
        while not await self._append(body, tuple(payloads), (*drafts, *self._withdrawals())):
            continue
        return outcome

    def _outcome(self, cause: BaseException) -> str:
        if isinstance(cause, Cancelled):
            return "cancelled"
        if isinstance(cause, RunFailed):
            return "failed"
        if isinstance(cause, OverBudget) and self._task.program.then(cause.scope) == "fail":
            return "failed"
        return "escalated"

    def _why(self, cause: BaseException) -> dict[str, Json]:
        text = cause.reason if isinstance(cause, Signal) else str(cause)
        return {"message": text, "undone": list(self._undo.undone), "residual": list(self._undo.residual)}

    async def _escalation(self, cause: BaseException) -> Package:
        """What a person needs who takes the work over."""
        task = self._task
        package = from_exception(cause, task.program.ending_context(task))
        told = await account(task, self._undo, self._flying, cause)
        return package.model_copy(update={"evidence": {**package.evidence, **told}}) if told else package

    def _residual_item(self, residual: Sequence[dict[str, Json]]) -> list[Draft]:
        task = self._task
        package = for_residual(task.program.ending_context(task), residual)
        report, _ = task.journal.seal(package.to_json())
        return self._item("residual", package, report)

    def _item(self, what: str, package: Package, sealed: SealedPayload) -> list[Draft]:
        """The inbox item by which the work goes to a person; none in a rehearsal, which leaves people alone."""
        task = self._task
        if task.program.rehearsed:
            return []
        opened = {
            "item": derived_id("i", task.session.facts.id, what),
            "type": what,
            "role": task.program.escalation_role,
            "title": task.program.titled(package.title),
            "package": sealed.address,
        }
        return [Draft(task.session.facts.id, kinds.OPENED, what, opened, task.journal.epoch, (sealed,))]

    def _withdrawals(self) -> list[Draft]:
        """Open questions of a run that ends need no answer any more."""
        task = self._task
        return [
            Draft(
                task.session.facts.id,
                kinds.CLOSED,
                "",
                {"item": item, "decision": "withdrawn", "by": "", "reason": "the run has ended"},
                task.journal.epoch,
            )
            for item, opened in task.journal.opened.items()
            if item not in task.journal.closed and opened["type"] != RESIDUAL  # that is about the world, not the run
        ]

    async def _append(
        self, body: dict[str, Any], payloads: tuple[SealedPayload, ...], before: tuple[Draft, ...]
    ) -> bool:
        """Write the end; false when a signal has come first and was taken in."""
        task = self._task
        journal, facts = task.journal, task.session.facts
        body |= {**self._totals(), "seen": task.seen}
        drafts = [*before, Draft(facts.id, kinds.ENDED, "", body, journal.epoch, payloads)]
        if task.taken:
            over = {"type": "give", "by": "", "reason": "the run has ended"}
            drafts.append(Draft(facts.id, kinds.SIGNAL, "", over))
        if task.program.parent:
            at = str(journal.entries[0].body.get("key", ""))
            drafts.append(child_signal(task.program.parent, facts.id, at, body, await self._actions()))
        try:
            guards = Guards(seen=task.seen)
            entries = await journal.ledger.append(*drafts, guards=guards, log=journal.log, line=journal.line)
        except GuardRefused:
            await task.read_mail()
            return False
        await journal.drain()  # what lay before it has come with it
        journal.index(entries[len(before)])
        return True

    async def _actions(self) -> SealedPayload | None:
        """What a parent may have to take back, this run's children's included."""
        names = ("n", "name", "undo", "args", "out", "claim", "reported")
        done = await self._undo.actions()
        told = [{"key": key, **{n: body[n] for n in names if n in body}} for key, body in done]
        remains = {str(one["key"]) for one in self._undo.residual}
        fresh = {str(one["key"]) for one in unreported(self._task, told)} - remains
        for one in told:
            if one["key"] not in fresh:  # people have it in this run's name: it is nobody else's to undo
                one["reported"] = True
        return self._task.journal.seal(told)[0] if told else None

    def _totals(self) -> dict[str, Any]:
        journal = self._task.journal
        totals = {"usd": 0, "tokens_in": 0, "tokens_out": 0}
        for body in journal.costs():
            for name in totals:
                totals[name] += int(body.get(name) or 0)
        totals["calls"] = sum(kinds.went_out(body) for body in journal.costs())
        handoffs = self._task.session.handoffs
        passed: dict[str, Any] = {}
        if handoffs and handoffs[0].counted:
            passed["handoffs"] = sorted(handoffs[0].counted)
        if (messages := self._task.session.messages) and messages[0].sent:
            passed["messages"] = dict(sorted(messages[0].sent.items()))
        return {**totals, **passed, "seconds": round(self._task.session.watch.used, 3)}

    async def _stop_children(self) -> None:
        """Children that still run are cancelled and waited for, so that their undo comes before ours."""
        task = self._task
        for child in await task.engine.open_children(task.session.facts.id):
            if ended_child(task.journal.signals, child) is None:
                await task.engine.cancel_child(child, task)


def reason_of(cause: BaseException) -> str:
    """The stable name of why a run ended: an exception's kind, or a signal's name."""
    if isinstance(cause, WorkException):
        return cause.kind if cause.kind != "unforeseen" else cause.code
    if isinstance(cause, TightshipError):
        return cause.code
    names = {Halted: "halted", Cancelled: "cancelled", OverBudget: "over_budget"}
    for known, name in names.items():
        if isinstance(cause, known):
            return name
    return type(cause).__name__
