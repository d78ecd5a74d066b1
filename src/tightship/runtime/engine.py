"""The runs of one process: started, taken over, driven, told what others have written about them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tightship.controls.budgets import EnvelopeTree
from tightship.controls.halts import Halt, scopes_of
from tightship.core import kinds
from tightship.core.errors import (
    BuildMismatch,
    InputRejected,
    LimitReached,
    PayloadErased,
    StaleOwner,
    TightshipError,
)
from tightship.core.ports import Json
from tightship.core.signals import Halted
from tightship.effects.frame import RunFacts
from tightship.effects.journal import Journal
from tightship.effects.session import Shared
from tightship.ledger import Draft, Entry, Guards, Ledger
from tightship.models.versions import Versions
from tightship.runtime.arrivals import Arrivals
from tightship.runtime.families import Bounds, Families
from tightship.runtime.fork import dry
from tightship.runtime.governing import ThresholdDesk
from tightship.runtime.program import AGENT, Program
from tightship.runtime.purse import bounds_of
from tightship.runtime.resets import Resets
from tightship.runtime.run import PARKED, PUT_DOWN, RunTask
from tightship.runtime.sessions import Sessions
from tightship.runtime.start import Ended, Start
from tightship.runtime.starting import Starter
from tightship.runtime.sweep import Stall
from tightship.runtime.takeover import accepted, is_cancelled, is_fork, note_put_down

MAILBOX = frozenset({kinds.SIGNAL, kinds.CLOSED, kinds.EXTENDED})
LOAD_TOGETHER = 64
"""Runs whose entries are read in one query when many are resumed."""


@dataclass(slots=True)
class Driven:
    """A run that this process drives."""

    task: RunTask
    job: asyncio.Task[Ended] | None = None
    """Moves it; whoever else wants it moved waits for the same."""
    wanted: int = 0
    """How many wait for it to be moved."""

    @property
    def moving(self) -> bool:
        """Whether somebody moves it."""
        return self.job is not None


class Engine:
    """Drives runs. It owns no thread and no timer: a dispatcher tells it which runs are due."""

    def __init__(
        self,
        ledger: Ledger,
        shared: Shared,
        program: Callable[[str], Program],
        pinned: Callable[[str, Json], Program | None],
        envelopes: Callable[[str], EnvelopeTree],
        build: str,
        lease: Callable[[], None] | None = None,
    ) -> None:
        self.ledger = ledger
        self.shared = shared
        shared.versions = Versions(ledger)
        # no two processes have the same, though their hosts and ids may be (a container's is 1 after every restart)
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{shared.world.chance.token(4).hex()}"
        """What the ledger calls this process: its worker id, where there are many."""
        self.build = build
        self.live = True
        """False for a rehearsal: then rehearsals are taken over, and real runs are not."""
        self.due: Callable[[str], None] = lambda run: None
        """Called when a run that is not here has something to do; with no name, when any may have."""
        self._starter = Starter(ledger, shared.world, program, build)
        self._pinned = pinned
        self._families = Families(ledger, self._bounds)
        self._sessions = Sessions(shared, envelopes, self._families, lease)
        self._runs: dict[str, Driven] = {}
        self._arrivals = Arrivals()
        self.dropped = set[str]()
        """Runs that this process owns and has let go of unmoved: the store did not answer, whoever waited has gone."""
        self.missed = set[str]()
        """Runs that were halted in the very moment in which they parked."""
        self.stalls: dict[str, Stall] = {}
        """Parked runs that stand still for ever: they are ended when they are moved."""
        self._addresses: dict[tuple[str, str], str] = {}
        """Where the definition of each version of a workflow lies."""
        self.thresholds = ThresholdDesk(ledger)
        self.resets = Resets()
        self._leaving = False
        self.put_downs = 0
        """How often this process was told to stop driving."""
        self._left = asyncio.Event()
        ledger.listen(self._heard)

    # --- what happens elsewhere ------------------------------------------------------------------

    def _heard(self, entries: list[Entry], foreign: bool) -> None:
        for entry in entries:
            kind = entry.kind
            if kind in (kinds.HALT, kinds.UNHALT):
                self._halted(entry)
                continue
            if kind == kinds.ERASED:
                for driven in list(self._runs.values()):
                    driven.task.erase(entry.body["subject"])
                continue
            if kind == kinds.SIGNAL:
                self.shared.halts.apply(entry)  # that a person takes or gives a run
            if kind in MAILBOX and not entry.epoch:
                driven = self._runs.get(entry.run)
                if driven is not None:
                    driven.task.take(entry)
                    continue
                self._arrivals.note_mail(entry.run)
                if kind == kinds.SIGNAL:
                    self.due(entry.run)
            elif kind == kinds.STARTED and not entry.body.get("owner"):
                self.due(entry.run)

    def _halted(self, entry: Entry) -> None:
        self.shared.halts.apply(entry)
        if entry.kind == kinds.UNHALT:
            return
        scope, reason = entry.body["scope"], entry.body.get("reason", "")
        for driven in list(self._runs.values()):
            session = driven.task.session
            names = [name for name in driven.task.program.definition.agents if scope == f"agent:{name}"]
            if scope in session.scopes("") or names:
                driven.task.interrupt(Halted(reason or f"{scope} is halted", scope=scope))
        self.due("")

    # --- starting --------------------------------------------------------------------------------

    async def start(self, start: Start) -> str:
        """Record a new run under this owner; it is driven by `drive`.

        Raises:
            InputRejected: the input does not fit. Halted: its scope is halted. GuardRefused: the id exists already.
        """
        beginning = await self._starter.prepare(start, self.owner)
        run, program = beginning.facts.id, beginning.program
        await self._arrivals.wait(run)
        with self._arrivals.expect((run,)):
            await beginning.record()
            self._families.begin(run, start.parent, bounds_of(program))
            session = self._sessions.new(beginning.facts, beginning.journal, program)
            # nobody could write to an id before it was made, and what was written since is heard
            unread = bool(start.id) or self._arrivals.has_mail(run)
            self._runs[run] = Driven(RunTask(self, program, session, unread))
        return run

    # --- taking over -----------------------------------------------------------------------------

    async def take_over(self, rows: Sequence[Mapping[str, Any]], accept_code: bool = False) -> list[Ended]:
        """Claim runs that nobody drives and load what their ledgers hold; runs that are here already stay as they are.

        Returns: those that could not be taken.

        Raises:
            StoreError: the disk.
        """
        refused: list[Ended] = []
        taken: list[str] = []
        try:
            for start in range(0, len(rows), LOAD_TOGETHER):
                part = rows[start : start + LOAD_TOGETHER]
                for row in part:
                    await self._arrivals.wait(row["id"])
                fresh = [row for row in part if not self.has(row["id"])]
                taken.extend(row["id"] for row in fresh)
                await self._take_part(fresh, refused, accept_code)
        except BaseException:
            for run in taken:  # nobody will move them: they stay as their ledger says
                driven = self._runs.get(run)
                if driven is not None and not driven.moving:
                    self._forget(run)
            raise
        return refused

    async def take_in(self, rows: Sequence[Mapping[str, Any]]) -> list[Ended]:
        """Load runs that were claimed for this process already (`Ledger.claim`).

        Returns: those that could not be loaded.
        """
        refused: list[Ended] = []
        for start in range(0, len(rows), LOAD_TOGETHER):
            part = rows[start : start + LOAD_TOGETHER]
            while (leaving := next(filter(None, map(self._in_the_way, part)), None)) is not None:
                await leaving
            fresh = [row for row in part if not self._has_since(row)]
            with self._arrivals.expect(row["id"] for row in fresh):
                for row in fresh:
                    self._forget(row["id"])
                await self._load(fresh, refused)
        return refused

    def let_go(self, runs: Iterable[str]) -> None:
        """Runs that were claimed for this process and could not all be loaded: they are taken up again later."""
        for run in runs:
            driven = self._runs.get(run)
            if driven is None or not driven.moving:
                if driven is not None:
                    self._forget(run)
                self.dropped.add(run)

    def _has_since(self, row: Mapping[str, Any]) -> bool:
        """Whether a caller of this process has taken the run over since it was claimed."""
        driven = self._runs.get(row["id"])
        return driven is not None and driven.task.journal.epoch >= row["epoch"]

    def _in_the_way(self, row: Mapping[str, Any]) -> Awaitable[Any] | None:
        """What has to end before a claimed run can be loaded: its coming by another way, or what was here of it before,
        such as a run that has just been parked."""
        run = row["id"]
        if run in self._arrivals:
            return self._arrivals.wait(run)
        driven = self._runs.get(run)
        if driven is None or driven.job is None or self._has_since(row):
            return None
        return asyncio.wait({driven.job})

    async def _take_part(self, part: Sequence[Mapping[str, Any]], refused: list[Ended], accept_code: bool) -> None:
        with self._arrivals.expect(row["id"] for row in part):
            taken = await asyncio.gather(*(self._claim(row, accept_code) for row in part), return_exceptions=True)
            for error in taken:
                if isinstance(error, BaseException):
                    raise error
            refused.extend(ended for ended in taken if isinstance(ended, Ended))
            mine = [{**row, "epoch": row["epoch"] + 1} for row, ended in zip(part, taken, strict=True) if ended is None]
            await self._load(mine, refused)

    async def _claim(self, row: Mapping[str, Any], accept_code: bool) -> Ended | None:
        run = row["id"]
        if bool(row["live"]) != self.live and not (self.live and await is_fork(self.ledger, run)):
            what = "was a rehearsal" if self.live else "is real, and this is a rehearsal"
            error = InputRejected(f"run {run} {what}", fix="see --rehearse of `runs resume`")
            return Ended(run, "refused", error)
        if row["build"] != self.build and not accept_code and not await self._may_take(row):
            error = BuildMismatch(
                f"run {run} was started by build {row['build']}, here is build {self.build}",
                fix="resume it with the code that started it, or accept this code: `runs resume --accept-code`",
            )
            return Ended(run, "refused", error)
        draft = Draft(run, kinds.CLAIMED, "", {"owner": self.owner, "build": self.build}, row["epoch"] + 1)
        try:
            await self.ledger.append(draft, guards=Guards(takeover=row["epoch"]), log=row["log"])
        except StaleOwner as error:
            return Ended(run, "refused", error)
        return None

    async def _may_take(self, row: Mapping[str, Any]) -> bool:
        """Whether a run of other code may be taken over by this code unasked."""
        if await self.halt_of(row) is not None:  # it ends by recorded calls of tools
            return True
        return await accepted(self.ledger, row["parent"], self.build) or await is_cancelled(self.ledger, row["id"])

    async def halt_of(self, row: Mapping[str, Any]) -> Halt | None:
        """The halt that ends a run when it is moved; None also while a person has it in hand."""
        halts = self.shared.halts
        scopes = scopes_of(tenant=row["tenant"], workflow=row["workflow"], run=row["id"])
        if not halts.halted() or halts.find(scopes[-1:]) is not None:
            return None
        found = halts.covering(scopes)
        if found is None and any(halt.scope.startswith(AGENT) for halt in halts.halted()):
            found = halts.covering((), (await self._program_of(row)).definition.agents)
        return found

    async def _program_of(self, row: Mapping[str, Any]) -> Program:
        """What a run is pinned to; runs of one version share it."""
        key = row["workflow"], row["version"]
        if key not in self._addresses:
            self._addresses[key] = (await self.ledger.run_entries(row["id"]))[0].body["definition"]
        return await self._pinned_program(self._addresses[key])

    async def _load(self, rows: Sequence[Mapping[str, Any]], refused: list[Ended]) -> None:
        if not rows:
            return
        tenants = {f"tenant:{row['tenant']}" for row in rows}
        entries = await self.ledger.runs_entries([row["id"] for row in rows])
        journals = {row["id"]: Journal(self.ledger, row["id"], row["epoch"], row["log"], "") for row in rows}
        needed = [address for run, journal in journals.items() for address in journal.needed(entries[run])]
        scopes = {entries[run][0].body["scope"] for run in journals}
        sealed = await self.ledger.read_sealed(needed, scopes | tenants)  # with all their keys
        await self.ledger.own_keys(*tenants)
        parents = await self._families.parents(list(journals))
        for row in rows:
            run = row["id"]
            try:
                await self._revive(row, journals[run], entries[run], sealed, run not in parents)
            except TightshipError as error:
                await note_put_down(journals[run])
                refused.append(Ended(run, "refused", error))

    async def _revive(
        self,
        row: Mapping[str, Any],
        journal: Journal,
        entries: list[Entry],
        sealed: dict[str, tuple[str, bytes | None]],
        childless: bool = False,
    ) -> None:
        body = entries[0].body
        journal.scope = body["scope"]
        journal.load(entries, sealed)
        try:
            given = await journal.value(body["input"])
            handed = tuple(await journal.value(body["handed"])) if "handed" in body else ()
        except PayloadErased:  # it cannot go on; what its end says is sealed under a key of its own
            given, handed = {}, ()
            journal.scope = self.ledger.vault.scope((f"{row['id']}.erased",))
        program = await self._pinned_program(body["definition"])
        if not row["live"]:
            program = dry(program)
        if row["parent"]:
            program = program.for_parent(row["parent"])
        facts = RunFacts(row["id"], row["workflow"], row["tenant"], given, handed)
        await self._families.join(row["id"], row["parent"], entries, childless)
        task = RunTask(self, program, self._sessions.revived(facts, journal, program, entries))
        task.erased = journal.scope != body["scope"]
        self._runs[row["id"]] = Driven(task)

    async def _pinned_program(self, address: str) -> Program:
        program = self._pinned(address, None) or self._pinned(address, await self.ledger.value(address))
        assert program is not None
        return program

    async def _bounds(self, started: Entry) -> Bounds:
        """What a run and those below it may do, by its first entry."""
        return bounds_of(await self._pinned_program(started.body["definition"]))

    def _forget(self, run: str) -> None:
        if self._runs.pop(run, None) is not None:
            self._families.leave(run)

    # --- driving ---------------------------------------------------------------------------------

    def has(self, run: str) -> bool:
        """Whether this process has the run, or is about to."""
        return run in self._runs or run in self._arrivals

    def running(self) -> list[str]:
        """The runs that this process drives."""
        return list(self._runs)

    def task(self, run: str) -> RunTask | None:
        """The run, if it is here."""
        driven = self._runs.get(run)
        return None if driven is None else driven.task

    async def drive(self, run: str) -> Ended:
        """Move a run that is here until it parks or ends; with others that want the same, once for all.

        Whoever waits here may be cut off: the run is put down then, unless somebody else still wants it moved.

        Raises:
            StoreError, LedgerError: the run stays as its ledger says, to be resumed.
        """
        driven = self._runs.get(run)
        if driven is None:  # whoever else moved it was done first
            rows = await self.ledger.select("runs", [("id", "=", run)])
            return Ended(run, rows[0]["outcome"] or rows[0]["state"])
        self._spawn(run)
        job = driven.job
        assert job is not None
        driven.wanted += 1
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if driven.wanted == 1 and not job.done():  # nobody else waits: what was begun settles, the rest stays
                driven.task.put_down()
                await asyncio.wait({job})
            raise
        finally:
            driven.wanted -= 1

    async def _move(self, run: str, driven: Driven) -> Ended:
        if self._leaving:
            driven.task.put_down()
        try:
            state = await driven.task.drive()
            if state == PARKED and driven.task.interruption is not None:
                self.missed.add(run)
            if state == PUT_DOWN and not self._leaving:
                self.dropped.add(run)
            return Ended(run, state, result=driven.task.ended)
        except (StaleOwner, BuildMismatch) as error:
            self.dropped.add(run)
            return Ended(run, "refused", error)
        except BaseException:
            self.dropped.add(run)
            raise
        finally:
            self._forget(run)
            self._left.set()
            parent = self._runs.get(driven.task.program.parent)
            if parent is not None:
                parent.task.let_go(run)

    async def put_down(self) -> None:
        """Stop driving: admitted effects settle, and every run stays as its ledger says, to be resumed."""
        self._leaving = True
        self.put_downs += 1
        while moving := [driven for driven in self._runs.values() if driven.moving]:
            self._left.clear()
            for driven in moving:
                driven.task.put_down()
            await self._left.wait()
        self._leaving = False

    # --- children --------------------------------------------------------------------------------

    async def start_child(
        self, parent: RunTask, child: str, workflow: str, give: Mapping[str, Json], key: str, handed: Sequence[str] = ()
    ) -> None:
        """Start a child run and drive it beside its parent; `handed` is what holds where it is started."""
        facts = parent.session.facts
        live = parent.program.live
        depth = int(parent.journal.entries[0].body.get("depth", 0)) + 1
        if depth > parent.program.limits.depth:
            raise LimitReached(
                f"{workflow} would be workflow {depth} below the first, and {parent.program.limits.depth} are allowed",
                fix="flatten the workflows, or raise limits.depth",
            )
        start = Start(
            workflow,
            give,
            tenant=facts.tenant,
            id=child,
            parent=facts.id,
            key=key,
            live=live,
            depth=depth,
            handed=handed,
        )
        start.until = parent.session.until(key)
        start.below(parent.journal.entries[0].body, parent.session.before)
        try:
            await self.start(start)
        except InputRejected as error:
            raise InputRejected(error.message, where=f"{facts.workflow}: {key}", fix=error.fix) from None
        self._spawn(child)

    async def adopt(self, child: str) -> None:
        """A child that exists already: take it over when nobody drives it."""
        await self._adopt(child, ["running", "queued"])

    async def _adopt(self, child: str, states: list[str], accept_code: bool = False) -> None:
        while child not in self._runs:
            rows = await self.ledger.select("runs", [("id", "=", child), ("state", "in", states)])
            if not rows:
                return
            for ended in await self.take_over(rows, accept_code):
                if ended.error is not None and not isinstance(ended.error, StaleOwner):
                    raise ended.error
        self._spawn(child)

    def _spawn(self, run: str) -> None:
        driven = self._runs[run]
        if driven.job is None:
            driven.job = asyncio.ensure_future(self._move(run, driven))
            driven.job.add_done_callback(_retrieve)

    async def open_children(self, parent: str) -> list[str]:
        """Children that have not ended."""
        rows = await self.ledger.select("runs", [("parent", "=", parent), ("state", "!=", "ended")])
        return [row["id"] for row in rows]

    async def cancel_child(self, child: str, parent: RunTask) -> None:
        """Cancel a child and wait until it has told of its end."""
        from tightship.runtime.children import ended_child

        body = {"type": "cancel", "by": parent.session.facts.id, "reason": "its parent run has stopped"}
        await self.ledger.append(Draft(child, kinds.SIGNAL, "", body), log=parent.journal.log)
        while ended_child(parent.journal.signals, child) is None:
            await self._adopt(child, ["running", "queued", "parked"], accept_code=True)
            driven = self._runs.get(child)
            if driven is not None and driven.job is not None:
                await asyncio.shield(driven.job)
            await parent.read_mail()


def _retrieve(job: asyncio.Task[Ended]) -> None:
    if not job.cancelled():
        job.exception()
