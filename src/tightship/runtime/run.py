"""One run in the hands of this process: forward through the tree, or undo, or end. Only here is a run moved.

A run goes one way: forward, then undo when it was interrupted or failed, then ended. What people, timers, children
and the kill switch want comes as entries of the mailbox and is taken in here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tightship.core import kinds
from tightship.core.errors import (
    BuildMismatch,
    GuardRefused,
    LedgerError,
    PayloadErased,
    Stalled,
    StoreError,
    TightshipError,
    TimedOut,
    Unforeseen,
    WorkException,
)
from tightship.core.ports import Json
from tightship.core.signals import Cancelled, Halted, Signal, Taken
from tightship.effects.frame import UNBOUND, Scope
from tightship.effects.outcomes import describe, describe_signal, restore, restore_signal
from tightship.effects.session import Session
from tightship.ledger import Entry, Guards, SealedPayload
from tightship.ledger.vault import names_of
from tightship.runtime.bounded import by_then
from tightship.runtime.ending import INTERRUPTED, TAKEN, Ending
from tightship.runtime.handover import hand_over
from tightship.runtime.node import NodeFrame
from tightship.runtime.result import Run
from tightship.runtime.takeover import RESTARTS, erased_case, idle_claims, late_case, note_put_down, restarts_case

if TYPE_CHECKING:
    from tightship.runtime.engine import Engine
    from tightship.runtime.program import Program

PARKED = "parked"
PUT_DOWN = "stopped"
OUTPUT = "run/output"
"""Where the run's output is worked out: nothing is recorded under it, so it sees every edit."""


@dataclass(slots=True)
class Waiting:
    """A leaf that waits: for an inbox item, a timer or a child. `until` is store time (s), 0 for no limit."""

    what: str
    future: asyncio.Future[None]
    until: float = 0.0
    here: bool = False
    """What it waits for happens in this process: no reason to park."""


class RunTask:
    """A run while this process owns it. `unread`: mail may have come that this process was not told of."""

    def __init__(self, engine: Engine, program: Program, session: Session, unread: bool = True) -> None:
        self.engine = engine
        self.program = program
        self.session = session
        self.journal = session.journal
        self.waiting: dict[str, Waiting] = {}
        self.deadlines = session.deadlines
        self.seen, self._unread = 0, unread
        self.ended: Run | None = None
        self._names: dict[str, Json] = session.facts.names
        self._tried: list[str] = []
        self._busy, self._parking = 0, False
        self._held: list[Entry] = []
        self._rung: list[Waiting] = []
        self._read = self.journal.entries[-1].n if self.journal.entries else 0
        """The position up to which the mailbox was read."""
        self.erased = False
        """Whether what the run works on was erased: then it ends, and what cannot be undone goes to a person."""
        self.restarts = 0
        """How often its process ended before with nothing recorded; from `limits.restarts` on it only ends, and what
        was under way is given up, an undo included."""
        self.asks_nothing = False
        """Whether what was under way when it was escalated for that is given up, and not asked about."""
        self.began = 0.0
        """Store time (s) since when it is driven here."""
        self.taken = ""
        """The person who has the run in hand: then nothing of it goes forward here."""
        self._interruption: Signal | Stalled | None = None
        self._leaving = False
        self._changed = asyncio.Event()

    # --- driving ---------------------------------------------------------------------------------

    async def drive(self) -> str:
        """Move the run until it is parked or has ended; returns `parked`, `stopped` (put down) or the outcome.

        Raises:
            StaleOwner: another owner has it. StoreError: the disk; the run stays as its ledger says.
        """
        self.session.watch.start()
        self.began = self.session.shared.world.clock.now()
        if self._unread:
            await self.read_mail()  # what came while it was loaded
        for entry in self.journal.signals:
            self._note_signal(entry)
        self.restarts = max(0, idle_claims(self.journal.entries) - 1)  # this owner's own claim is the last of them
        try:
            cause = await self._recall() or self._hopeless() or self._stopped() or self._too_late()
            while True:
                cause = await self._go() if cause is None else cause
                if isinstance(cause, str):
                    if cause == PUT_DOWN:
                        await note_put_down(self.journal)
                    return cause
                outcome = await Ending(self).finish(await self.worded(cause))
                if outcome != TAKEN:
                    return outcome
                cause = await hand_over(self)
        except (LedgerError, StoreError, BuildMismatch):
            await note_put_down(self.journal)
            raise
        finally:
            self.session.watch.stop()

    async def _go(self) -> Any:
        """Go forward, unless and until a person takes the run over; then it is laid into their hands."""
        cause = TAKEN if self.taken else await self._forward()
        return await hand_over(self) if cause == TAKEN else cause

    def _stopped(self) -> Signal | Stalled | None:
        """Why a run is ended without going forward: it was stopped, or a halt covers it; a person may have it still."""
        if self._interruption is None and not self.taken:
            session = self.session
            halt = session.shared.halts.covering(session.scopes(""), self.program.definition.agents)
            if halt is not None:
                self.interrupt(Halted(halt.reason or f"{halt.scope} is halted", scope=halt.scope))
        stall = self.engine.stalls.pop(self.session.facts.id, None)
        if stall is not None and not self.taken:
            self.interrupt(stall.cause())
        return self._interruption

    def _hopeless(self) -> Unforeseen | None:
        """Why a run is ended without going forward: its process ended over it, again and again."""
        if self._interruption is not None or self.restarts < self.program.limits.restarts:
            return None
        return restarts_case(self.journal, self.restarts)

    def _too_late(self) -> TimedOut | None:
        """Why a run that has done nothing yet is not begun: it waited longer than it was to."""
        within = None if self._interruption is not None else self.program.spec.begin_within
        return late_case(self.journal, within, self.session.shared.world.clock.now())

    async def _recall(self) -> Any:
        """An interruption that was recorded before a crash: the run does not go forward again."""
        if self.erased:
            return erased_case()
        recorded = self.journal.decided.get(INTERRUPTED)
        if recorded is None:
            return None
        await self._regain(recorded)
        if "signal" in recorded:
            return restore_signal(recorded | {"reason": await self.said(recorded)})
        cause = restore(recorded["error"], await self.journal.value(recorded["detail"]))
        if isinstance(cause, WorkException) and cause.kind == RESTARTS:
            self.asks_nothing = True
        return cause

    async def _regain(self, recorded: Mapping[str, Any]) -> None:
        """What was finished and tried before the interruption, which nobody walks through again."""
        try:
            told = await self.journal.value(recorded["detail"]) if recorded.get("detail") else {}
        except PayloadErased:
            return
        self._names |= told.get("partial", {})
        for line in told.get("tried", ()):
            self.add_tried(line)

    async def worded(self, cause: Any) -> Any:
        """A cancel with what its person said: signals come at any moment, and opening a value takes one."""
        if not isinstance(cause, Cancelled):
            return cause
        body = next((entry.body for entry in self.journal.signals if entry.body["type"] == "cancel"), {})
        return Cancelled(await self.said(body) or cause.reason)

    async def said(self, body: Mapping[str, Any]) -> str:
        """What a person said with a decision or a signal, or the engine's own words; empty once it was erased."""
        if not body.get("detail"):
            return str(body.get("reason") or "")
        try:
            told = await self.journal.value(body["detail"])
        except PayloadErased:
            return ""
        return str(told.get("reason") or "") if isinstance(told, dict) else ""

    async def remember(self, cause: BaseException) -> bool:
        """Record why the run turns around, so that after a crash it does not go forward again.

        False when a signal has come first, which is taken in: the earlier position wins.
        """
        if INTERRUPTED in self.journal.decided:
            return True
        where = {"partial": self.partial(), "tried": self.tried()}
        if isinstance(cause, Signal):
            said, _ = self.journal.seal({"reason": cause.reason, **where})
            told = {**describe_signal(cause), "reason": "", "detail": said.address}
            return await self._turn_around(told, said)
        error = cause if isinstance(cause, TightshipError) else TightshipError(f"{type(cause).__name__}: {cause}")
        head, detail = describe(error)
        payload, _ = self.journal.seal({**detail, **where})
        return await self._turn_around({"error": head, "detail": payload.address}, payload)

    async def _turn_around(self, value: dict[str, Json], payload: SealedPayload) -> bool:
        guards = Guards(seen=self.seen)
        try:
            await self.journal.record(kinds.DECIDED, INTERRUPTED, {"value": value}, (payload,), guards)
        except GuardRefused:
            await self.read_mail()
            return False
        return True

    async def _forward(self) -> Any:
        """Interpret the tree: the output in a `Done`, the error or signal that stopped it, PARKED or PUT_DOWN."""
        self._busy = 1
        main = asyncio.ensure_future(self._interpret())
        main.add_done_callback(lambda _: self._changed.set())
        try:
            while not main.done():
                await self._changed.wait()
                self._changed.clear()
                if self._interruption is not None and not main.done():
                    await stop(main)
                    return self._interruption
                if self.taken and not main.done():
                    self.session.keeps = True
                    await stop(main)
                    return TAKEN
                if self._leaving and not main.done():
                    self.session.keeps = True
                    await stop(main)
                    await self.session.drain()
                    return PUT_DOWN
                if self._idle() and not main.done() and await self._park():
                    await stop(main)
                    return PARKED
        except BaseException:
            await stop(main)
            raise
        finally:
            for waiting in self.waiting.values():
                waiting.future.cancel()
            self.waiting.clear()
        if self._interruption is not None:
            return self._interruption
        if self.taken or isinstance(main.exception(), Taken):  # what it came to is come to again when it goes on
            self.session.keeps = True
            return TAKEN
        return self._outcome(main)

    def _outcome(self, main: asyncio.Task[Json]) -> Any:
        error = main.exception()
        if error is None:
            return Done(main.result())
        if isinstance(error, (LedgerError, StoreError, BuildMismatch)):
            raise error  # it stays as it is, to be resumed
        if isinstance(error, (TightshipError, Signal)):
            return error
        if isinstance(error, Exception):  # nobody foresaw it: a person looks at it, the run does not hang
            return Unforeseen(f"{type(error).__name__}: {error}", needed="look at it, and report it as a defect")
        raise error  # a defect of ours: the run stays open, nothing is lost

    async def _interpret(self) -> Json:
        frame = NodeFrame(self, "", Scope(self._names))
        until = self.journal.entries[0].body.get("until")
        if until is None:
            return await self._walk(frame)
        return await by_then(frame, until, lambda: self._walk(frame))

    async def _walk(self, frame: NodeFrame) -> Json:
        output: Json = None
        for step in self.program.steps:
            found = await frame.step(step)
            if step.hands_on:
                output = found
        await frame.see_edits(OUTPUT)
        return await self.program.output(frame, output)

    def partial(self) -> dict[str, Json]:
        """What finished steps have given so far."""
        return {name: value for name, value in self._names.items() if name not in UNBOUND}

    def know(self, values: Mapping[str, Json]) -> None:
        """Take in what finished steps have given, of a run that is not walked through."""
        self._names = {**values, **self._names}

    def tried(self) -> list[str]:
        """What was tried before, one line each."""
        return list(self._tried)

    def add_tried(self, line: str) -> None:
        """Remember an attempt for the package."""
        if line not in self._tried:
            self._tried.append(line)

    # --- waiting ---------------------------------------------------------------------------------

    def fork(self, branches: int) -> None:
        """The waiting parent becomes so many busy branches."""
        self._busy += branches - 1

    def branch_ended(self, last: bool) -> None:
        """A branch has ended; the last one hands its place back to the parent."""
        if not last:
            self._busy -= 1
            self._check_idle()

    async def wait(self, what: str, until: float = 0.0, here: bool = False) -> None:
        """Wait until `release(what)`, or until that store time. The run may park meanwhile."""
        waiting = Waiting(what, asyncio.get_running_loop().create_future(), until, here)
        self.waiting[what] = waiting
        self._busy -= 1
        self._check_idle()
        timer = None
        if until:
            timer = asyncio.ensure_future(self._ring(waiting))
        try:
            await waiting.future
        finally:
            self._busy += 1
            self.waiting.pop(what, None)
            if timer is not None:
                timer.cancel()

    async def _ring(self, waiting: Waiting) -> None:
        clock = self.session.shared.world.clock
        await clock.sleep(max(0.0, waiting.until - clock.now()))
        if self._parking:  # nothing of the run moves while it is put down; it is due at once then
            self._rung.append(waiting)
        elif not waiting.future.done():
            waiting.future.set_result(None)

    def release(self, what: str) -> None:
        """What somebody waits for has happened."""
        waiting = self.waiting.get(what)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(None)

    def let_go(self, what: str) -> None:
        """What somebody waits for does not go on in this process for now."""
        waiting = self.waiting.get(what)
        if waiting is not None:
            waiting.here = False
            self._check_idle()

    def _idle(self) -> bool:
        return (
            self._busy == 0
            and bool(self.waiting)
            and not any(waiting.future.done() or waiting.here for waiting in self.waiting.values())
        )

    def _check_idle(self) -> None:
        if self._idle():
            self._changed.set()

    # --- parking ---------------------------------------------------------------------------------

    async def _park(self) -> bool:
        """Put the run down; false when something has happened meanwhile."""
        await self.session.drain()
        if not self._idle():
            return False
        self._parking = True  # nothing of it moves from here on
        due = [waiting.until for waiting in self.waiting.values() if waiting.until] + list(self.deadlines.values())
        body = {
            "wake_at": min(due) if due else 0.0,
            "waiting": sorted(self.waiting),
            "seen": self.seen,
            "seconds": round(self.session.watch.used - self.journal.seconds, 3),
        }
        if not due:
            body["wake_at"] = kinds.NEVER
        return await self.put_away(body)

    async def put_away(self, body: dict[str, Any]) -> bool:
        """Append that it is parked; false when something has come first, which is taken in."""
        self._parking = True
        try:
            await self.journal.append(kinds.PARKED, "", body, guards=Guards(seen=self.seen))
        except GuardRefused:
            self._parking = False
            held, self._held = self._held, []
            for entry in held:
                self.take(entry)
            rung, self._rung = self._rung, []
            for waiting in rung:
                self.release(waiting.what)
            await self.read_mail()
            self._check_idle()
            return False
        return True

    # --- mailbox ---------------------------------------------------------------------------------

    def take(self, entry: Entry) -> None:
        """An entry that somebody else appended about this run."""
        if self._parking:
            self._held.append(entry)
            return
        if entry.n <= self._read:
            return
        self._read = entry.n
        self.journal.index(entry)
        if entry.kind == kinds.SIGNAL:
            self._note_signal(entry)
        elif entry.kind == kinds.CLOSED:
            self.release(entry.body["item"])

    async def read_mail(self) -> None:
        """Take in what has come and was not told: it came while the run was being loaded, or from another process."""
        for entry in await self.journal.ledger.run_entries(self.session.facts.id):
            if entry.n > self._read and entry.kind in (kinds.SIGNAL, kinds.CLOSED) and not entry.epoch:
                self.take(entry)

    def _note_signal(self, entry: Entry) -> None:
        self.seen = max(self.seen, entry.n)
        body = entry.body
        if body["type"] == "cancel":
            self.interrupt(Cancelled(f"cancelled by {body.get('by') or 'somebody'}"))
        elif body["type"] == "halt":
            self.interrupt(Halted(body.get("reason", ""), scope=body.get("scope", "")))
        elif body["type"] == "child":
            self.session.hear_child(body)
            self.release(body["child"])
        elif body["type"] in ("take", "give"):
            self.taken = (body.get("by") or "somebody") if body["type"] == "take" else ""
            self._changed.set()

    def interrupt(self, signal: Signal | Stalled) -> None:
        """Stop going forward. The first interruption stands."""
        if self._interruption is None:
            self._interruption = signal
            self._changed.set()

    def put_down(self) -> None:
        """Stop driving it: what was admitted settles, and it stays as its ledger says, to be resumed."""
        self._leaving = True
        self._changed.set()

    # --- erasure ---------------------------------------------------------------------------------

    def erase(self, subject: str) -> None:
        """A key is being destroyed; where it is one of this run's, the run goes no further."""
        if not self.erased and subject in names_of(self.journal.scope):
            self.erased = True
            self.journal.lose()
            self.interrupt(Cancelled("a data subject of this run was erased"))

    def forget(self) -> Unforeseen:
        """Let go of all that the run knew, once nothing of it is under way: what its end says has a key of its own.

        Returns: why it ends.
        """
        facts = self.session.facts
        self.journal.rescope(self.journal.ledger.vault.scope((f"{facts.id}.erased",)))
        self.session.facts = replace(facts, input={})
        self._names, self._tried = {"input": {}}, []
        return erased_case()

    @property
    def interruption(self) -> Signal | Stalled | None:
        """What has stopped the run, if anything has."""
        return self._interruption


@dataclass(frozen=True, slots=True)
class Done:
    """The run went through; its output."""

    output: Json


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end, whatever it is."""
    task.cancel()
    with contextlib.suppress(BaseException):
        await asyncio.wait({task})
    if task.done() and not task.cancelled():
        task.exception()


Listener = Callable[[Entry], None]
