"""The local dispatcher: drives what is due in this process. A port: many machines get another one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tightship.core.errors import LedgerError, RunError, StaleOwner, StoreError, TightshipError
from tightship.runtime.admission import Gatekeeper
from tightship.runtime.engine import Ended, Engine
from tightship.runtime.fairness import fair_order
from tightship.runtime.reviewers import ReviewWatch
from tightship.runtime.sweep import HaltSweep, StallWatch
from tightship.runtime.takeover import set_apart
from tightship.runtime.watchdog import Watchdog
from tightship.workflow.config import Overload

if TYPE_CHECKING:
    from tightship.ledger.sequencer import Sequencer
    from tightship.runtime.upkeep import Upkeep

POLL = 0.05
"""Seconds between two looks for what other processes have appended."""
SWEEP = 0.25
"""Seconds between two looks for runs whose time has come."""
BATCH = 256
"""Runs taken over together."""


Row = Mapping[str, Any]
"""A run's row."""


class Dispatcher(Protocol):
    """Finds due runs and has them driven."""

    async def resume(self, rows: Sequence[Row], accept_code: bool = False) -> list[Ended]:
        """Drive these runs until each parks or ends."""
        ...

    async def serve(self, stop: asyncio.Event, concurrency: int) -> None:
        """Drive whatever becomes due until told to stop."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class LocalDispatcher:
    """Runs as tasks of this event loop."""

    def __init__(self, engine: Engine, name: str = "tightship") -> None:
        self._engine = engine
        self._name = name
        self._ledger = engine.ledger
        self._clock = engine.shared.world.clock
        self._standing = engine.shared.standing
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []
        self._driving: set[asyncio.Task[Ended]] = set()
        self._suspect = asyncio.Lock()
        """Held by the suspect whose turn it is until it is driven."""
        self._suspects = 0
        """How many are driven."""
        self._aside: list[str] = []
        """Suspects that are here: each is driven alone, once nothing else moves."""
        self._sequencer: Sequencer | None = None
        self._watchdog: Watchdog | None = None
        self._halts = HaltSweep(engine)
        self._stalls = StallWatch(engine)
        self.overload: Mapping[str, Overload] = {}
        """What is done when too much waits for a role, by role."""
        engine.stalls = self._stalls.wanted
        self.workers = 1
        """How many processes execute on this store, as far as is known."""
        self.upkeep: Upkeep | None = None
        """What is done beside the runs while this process serves."""
        self.gate: Gatekeeper | None = None
        """What bounds how many runs of a tenant or workflow are worked on here."""
        self._said = ""
        self.refused: dict[str, Ended] = {}
        """Runs that this process cannot move, and why; they stay as their ledgers say."""
        engine.due = self._wake

    async def start(self, sequence: bool = True) -> None:
        """Begin to listen to other processes, and to integrate the log into its Merkle tree."""
        if not self._ledger.alone:
            self._tasks.append(asyncio.ensure_future(self._poll()))
        self._tasks.append(asyncio.ensure_future(self._stalls.watch()))
        self._tasks.append(asyncio.ensure_future(ReviewWatch(self._engine, self.overload).watch()))
        if sequence:
            self._watchdog = Watchdog()
            from tightship.ledger.sequencer import Sequencer

            self._sequencer = sequencer = Sequencer(self._ledger, self._name)
            self._tasks.append(asyncio.ensure_future(sequencer.run()))

    async def close(self) -> None:
        """Stop driving; what was under way is resumed later. The last checkpoint covers all entries."""
        await self._engine.put_down()
        if self._watchdog is not None:
            self._watchdog.close()
        for task in [*self._driving, *self._tasks]:
            task.cancel()
        for task in [*self._driving, *self._tasks]:
            with contextlib.suppress(asyncio.CancelledError, TightshipError):
                await task
        if self._sequencer is not None:
            await self._sequencer.close()

    def _wake(self, run: str) -> None:
        if run:
            self.refused.pop(run, None)  # a cancelled run, say, may be moved by any code
        else:
            self.refused.clear()
        self._woken.set()

    async def _poll(self) -> None:
        while True:
            await self._clock.sleep(POLL)
            with contextlib.suppress(StoreError, LedgerError):  # the next append of a run says so where it matters
                await self._ledger.poll()

    # --- what is due -----------------------------------------------------------------------------

    async def due(self, limit: int | None = None) -> list[Row]:
        """Runs that nobody drives: left by a process that is gone, queued, or parked until now.

        A rehearsal sees rehearsals only, and nothing else sees those. In fair order: see `fairness`.
        """
        now = self._clock.now()
        live = ("live", "=", int(self._engine.live))
        open_ = await self._ledger.select(  # the first condition is what is indexed
            "runs", [("state", "!=", "ended"), ("state", "in", ["queued", "running"]), live]
        )
        left = await self.nobodys(open_)
        parked = await self._ledger.select(
            "runs", [("state", "!=", "ended"), ("state", "=", "parked"), ("wake_at", "<=", now), live]
        )
        tasks = [task for run in self._engine.running() if (task := self._engine.task(run)) is not None]
        ready = fair_order([*left, *parked], Counter(task.session.facts.tenant for task in tasks))
        known = {row["id"] for row in parked}
        return [*ready, *(row for row in await self.stopped() if row["id"] not in known)][:limit]

    async def stopped(self) -> list[Row]:
        """Parked runs that nothing would move: a halt covers them, or they stand still."""
        return list({row["id"]: row for row in [*await self._halts.rows(), *await self._stalls.rows()]}.values())

    async def is_free(self, row: Row) -> bool:
        """Whether a run has something to do and nobody but this process may be doing it."""
        if row["state"] == "parked":
            return row["wake_at"] <= self._clock.now()
        return row["state"] in ("running", "queued")

    async def nobodys(self, rows: Sequence[Row]) -> list[Row]:
        """Those that nobody drives: this process is the only one that executes."""
        return [row for row in rows if not self._engine.has(row["id"])]

    async def resume(self, rows: Sequence[Row], accept_code: bool = False) -> list[Ended]:
        """Take these runs over and drive each until it parks or ends; suspects alone, after all others."""
        sound, suspects = await set_apart(self._ledger, rows)
        ended, jobs = await self._take_up(sound, accept_code)
        jobs += [self._hold(asyncio.ensure_future(self.alone(row, accept_code))) for row in suspects]
        return [*ended, *[await job for job in jobs]]

    async def alone(self, row: Row, accept_code: bool = False) -> Ended:
        """Drive a suspect once nothing else moves, so that nobody pays if it ends the process.

        What only waits for what another run has begun does not move: it may be this one's.
        """
        before = self._engine.put_downs
        self._standing.kept_back.add(row["id"])
        try:
            async with self._suspect:
                while self._moves():
                    await self._clock.sleep(POLL)
                if row["id"] in self._aside:
                    self._aside.remove(row["id"])
                if self._engine.put_downs != before:
                    return Ended(row["id"], "stopped")
                refused, jobs = await self._take_up([row], accept_code)
        finally:  # also where whoever waits for it is cut off before its turn
            self._standing.kept_back.discard(row["id"])
        if refused:
            return refused[0]
        self._suspects += 1
        try:
            return await jobs[0]
        finally:
            self._suspects -= 1

    @property
    def _one_alone(self) -> bool:
        """Whether a suspect is driven, or about to be: nothing else begins meanwhile, unless it stands still itself."""
        return self._suspect.locked() or (self._suspects > 0 and self._moves())

    def _moves(self) -> bool:
        """Whether a run here does something of its own."""
        return any(run not in self._aside and run not in self._standing for run in self._engine.running())

    async def _take_up(self, rows: Sequence[Row], accept_code: bool) -> tuple[list[Ended], list[asyncio.Task[Ended]]]:
        """Take these runs over and begin to drive them: who was refused, and the others' tasks."""
        ended: list[Ended] = []
        jobs: list[asyncio.Task[Ended]] = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            refused = await self._engine.take_over(part, accept_code)
            ended.extend(refused)
            names = {one.run for one in refused}
            jobs.extend(self._spawn(row["id"]) for row in part if row["id"] not in names)
        return ended, jobs

    def _spawn(self, run: str) -> asyncio.Task[Ended]:
        return self._hold(asyncio.ensure_future(_named(self._engine, run)))

    def _hold(self, job: asyncio.Task[Ended]) -> asyncio.Task[Ended]:
        self._driving.add(job)
        job.add_done_callback(self._driving.discard)
        return job

    async def serve(self, stop: asyncio.Event, concurrency: int) -> None:
        """Sweep for due runs, at once when a signal comes, else every quarter of a second."""
        upkeep = self.upkeep
        try:
            if upkeep is not None:
                await upkeep.start(self._woken.set, self._stalls, self._sequencer)
            await self._serve(stop, concurrency)
        finally:
            if upkeep is not None:
                await upkeep.close()

    async def _serve(self, stop: asyncio.Event, concurrency: int) -> None:
        while not stop.is_set():
            self._woken.clear()
            free = concurrency - len(self._driving)
            if free > 0:
                try:
                    await self._sweep(free)
                    self._said = ""
                except StoreError as error:  # a full disk may have room again
                    self._say(error)
            await self._rest(stop)

    def _say(self, error: StoreError) -> None:
        """Why nothing is taken up, once for as long as it stays so."""
        if type(error).__name__ != self._said:
            self._said = type(error).__name__
            logging.getLogger(__name__).error("nothing is taken up until the store can be written: %s", error)

    async def _sweep(self, free: int) -> None:
        if self._one_alone:
            return
        due = [row for row in await self.due() if row["id"] not in self.refused]
        sound, suspects = await set_apart(self._ledger, due)
        self._standing.kept_back = {row["id"] for row in suspects}
        if suspects and not sound and not self._moves():
            self._hold(asyncio.ensure_future(self.alone(suspects[0]))).add_done_callback(self._note)
            return
        rows = self._admitted(sound, free)
        try:
            refused = {one.run: one for one in await self._engine.take_over(rows)}
        except BaseException:
            for row in rows:
                self._leave(row)
            raise
        for row in rows:
            one = refused.get(row["id"])
            if one is None:
                job = self._spawn(row["id"])
                job.add_done_callback(self._note)
                job.add_done_callback(functools.partial(self._leave, row))
            else:
                self._leave(row)
                self._refuse(one)

    def _admitted(self, rows: Sequence[Row], free: int) -> list[Row]:
        """The first that may be worked on now; what the process works on for its own callers counts."""
        found: list[Row] = []
        for row in rows:
            if len(found) == free:
                break
            if self.gate is None or row["parent"] or self.gate.free(row["tenant"], row["workflow"]):
                if self.gate is not None:
                    self.gate.begin(row["tenant"], row["workflow"])
                found.append(row)
        return found

    def _leave(self, row: Row, job: object = None) -> None:
        if self.gate is not None:
            self.gate.end(row["tenant"], row["workflow"])

    def _note(self, job: asyncio.Task[Ended]) -> None:
        if not job.cancelled() and job.exception() is None:
            self._refuse(job.result())

    def _refuse(self, ended: Ended) -> None:
        """Leave a run alone that cannot be moved here; what time heals (the disk, a race) is tried again."""
        if ended.error is not None and not isinstance(ended.error, (StoreError, StaleOwner)):
            self.refused[ended.run] = ended

    async def _rest(self, stop: asyncio.Event) -> None:
        rest: list[asyncio.Task[Any]] = [
            asyncio.ensure_future(waiting) for waiting in (stop.wait(), self._woken.wait(), self._clock.sleep(SWEEP))
        ]
        await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _named(engine: Engine, run: str) -> Ended:
    """Drive, and give an error of the store its run's name."""
    try:
        return await engine.drive(run)
    except (StoreError, LedgerError) as error:
        return Ended(run, "stopped", error)
    except Exception as error:  # one run's defect stops neither the others nor the sweep
        return Ended(run, "stopped", RunError(f"{type(error).__name__}: {error}", where=f"run {run}"))
