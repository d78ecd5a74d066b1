"""One run in the hands of this process: forward through the tree, or undo, or end. Only here is a run moved.

A run goes one way: forward, then undo when it was interrupted or failed, then ended. What people, timers, children
and the kill switch want comes as entries of the mailbox and is taken in here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tightship.core import kinds
from tightship.core.errors import (
    BuildMismatch,
    GuardRefused,
    LedgerError,
    PayloadErased,
    StoreError,
    TightshipError,
    TimedOut,
    Unforeseen,
    WorkException,
)
from tightship.core.ports import Json
from tightship.core.signals import Cancelled, Halted, Signal
from tightship.effects.frame import Scope
from tightship.effects.outcomes import describe, describe_signal, restore, restore_signal
from tightship.effects.session import Session
from tightship.ledger import Entry, Guards
from tightship.runtime.ending import Ending
from tightship.runtime.node import NodeFrame
from tightship.runtime.result import Run
from tightship.runtime.takeover import RESTARTS, idle_claims, note_put_down, restarts_case

if TYPE_CHECKING:
    from tightship.runtime.engine import Engine
    from tightship.runtime.program import Program

PARKED = "parked"
PUT_DOWN = "stopped"
INTERRUPTED = "run/interrupted"


@dataclass(slots=True)
class Waiting:
    """A leaf that waits: for an inbox item, a timer or a child. `until` is store time (s), 0 for no limit."""

    what: str
    future: asyncio.Future[None]
    until: float = 0.0
    here: bool = False
    """What it waits for happens in this process: no reason to park."""


class RunTask:
    """A run while this process owns it."""

    def __init__(self, engine: Engine, program: Program, session: Session) -> None:
        self.engine = engine
        self.program = program
        self.session = session
        self.journal = session.journal
        self.waiting: dict[str, Waiting] = {}
        self.deadlines: dict[str, float] = {}
        """Store time (s) by which steps that are under way have to end, by key."""
        self.seen = 0
        self.ended: Run | None = None
        self._names: dict[str, Json] = {"input": dict(session.facts.input)}
        self._tried: list[str] = []
        self._busy = 0
        self._parking = False
        self._held: list[Entry] = []
        self._rung: list[Waiting] = []
        self._read = self.journal.entries[-1].n if self.journal.entries else 0
        """The position up to which the mailbox was read."""
        self.erased = False
        """Whether what the run works on was erased: then it ends, and what cannot be undone goes to a person."""
        self.restarts = 0
        """How often its process ended before with nothing recorded; from `limits.restarts` on it only ends."""
        self._interruption: Signal | None = None
        self._leaving = False
        self._changed = asyncio.Event()

    # --- driving ---------------------------------------------------------------------------------

    async def drive(self) -> str:
        """Move the run until it is parked or has ended; returns `parked`, `stopped` (put down) or the outcome.

        Raises:
            StaleOwner: another owner has it. StoreError: the disk; the run stays as its ledger says.
        """
        self.session.watch.start()
        await self.read_mail()  # what came while it was loaded
        for entry in self.journal.signals:
            self._note_signal(entry)
        try:
            cause = await self._recall() or self._hopeless() or self._too_late()
            if cause is None:
                cause = await self._forward()
                if cause in (PARKED, PUT_DOWN):
                    if cause == PUT_DOWN:
                        await note_put_down(self.journal)
                    return cause
                cause = await self._worded(cause)
            return await Ending(self).finish(cause)
        except (LedgerError, StoreError, BuildMismatch):
            await note_put_down(self.journal)
            raise
        finally:
            self.session.watch.stop()

    def _hopeless(self) -> Unforeseen | None:
        """Why a run is ended without going forward: its process ended over it, again and again."""
        self.restarts = max(0, idle_claims(self.journal.entries) - 1)  # this owner's own claim is the last of them
        if self._interruption is not None or self.restarts < self.program.limits.restarts:
            return None
        return restarts_case(self.journal, self.restarts)

    def _too_late(self) -> TimedOut | None:
        """Why a run that has done nothing yet is not begun: it waited longer than it was to."""
        within, entries = self.program.spec.begin_within, self.journal.entries
        if within is None or self._interruption is not None:
            return None
        if any(entry.kind not in (kinds.STARTED, kinds.CLAIMED, kinds.SIGNAL) for entry in entries):
            return None
        waited = self.session.shared.world.clock.now() - entries[0].at
        if waited <= within:
            return None
        return TimedOut(
            f"this run was to begin within {within:g} s and has waited {waited:.0f} s: nothing of it was done",
            needed="say whether it is still wanted; if so, start it again",
            fix="add workers, or raise `begin_within`",
        )

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
            self.restarts = self.program.limits.restarts
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

    async def _worded(self, cause: Any) -> Any:
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

    async def remember(self, cause: BaseException) -> None:
        """Record why the run turns around, so that after a crash it does not go forward again."""
        if INTERRUPTED in self.journal.decided:
            return
        where = {"partial": self.partial(), "tried": self.tried()}
        if isinstance(cause, Signal):
            said, _ = self.journal.seal({"reason": cause.reason, **where})
            told = {**describe_signal(cause), "reason": "", "detail": said.address}
            await self.journal.record(kinds.DECIDED, INTERRUPTED, {"value": told}, (said,))
            return
        error = cause if isinstance(cause, TightshipError) else TightshipError(f"{type(cause).__name__}: {cause}")
        head, detail = describe(error)
        payload, _ = self.journal.seal({**detail, **where})
        value = {"error": head, "detail": payload.address}
        await self.journal.record(kinds.DECIDED, INTERRUPTED, {"value": value}, (payload,))

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
                if self._leaving and not main.done():
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
        output: Json = None
        for step in self.program.steps:
            found = await frame.step(step)
            if step.hands_on:
                output = found
        return await self.program.output(frame, output)

    def partial(self) -> dict[str, Json]:
        """What finished steps have given so far."""
        return {name: value for name, value in self._names.items() if name not in ("input", "feedback")}

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
        self._parking = True
        due = [waiting.until for waiting in self.waiting.values() if waiting.until] + list(self.deadlines.values())
        body = {
            "wake_at": min(due) if due else 0.0,
            "waiting": sorted(self.waiting),
            "seen": self.seen,
            "seconds": round(self.session.watch.used - self.journal.seconds, 3),
        }
        if not due:
            body["wake_at"] = NEVER
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
            self.release(body["child"])

    def interrupt(self, signal: Signal) -> None:
        """Stop going forward. The first interruption stands."""
        if self._interruption is None:
            self._interruption = signal
            self._changed.set()

    def put_down(self) -> None:
        """Stop driving it: what was admitted settles, and it stays as its ledger says, to be resumed."""
        self._leaving = True
        self._changed.set()

    @property
    def interruption(self) -> Signal | None:
        """What has stopped the run, if anything has."""
        return self._interruption


def erased_case() -> Unforeseen:
    """Why a run ends whose data subject was erased."""
    cause = Unforeseen(
        "a data subject of this run was erased, and with it all that the run knew",
        needed="look at what remains outside",
    )
    cause.kind = "erased"
    return cause


NEVER = 4_102_444_800.0
"""A wake-up that never comes (the year 2100): the run waits for people only."""


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
