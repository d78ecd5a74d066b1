"""Carrying out a batch: so many lines at once, stopping in good order, and a record of each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tightship.core import kinds
from tightship.core.errors import LedgerError, Overloaded, StoreError, TightshipError
from tightship.core.ids import derived_id
from tightship.core.signals import Signal
from tightship.runtime.result import Run

if TYPE_CHECKING:
    from tightship.cli._batch import Line
    from tightship.cli._shell import Shell
    from tightship.runtime.workspace import Workspace


_TOGETHER = 64
"""Lines that are looked up at once."""


@dataclass(slots=True)
class Record:
    """How one line stands.

    Attributes:
        state: the run's outcome once it has ended, else `waiting` (for a person or a time), `stopped` (it is resumed
            later) or `error` (it could not be started or continued).
        budget: alerts, questions and extensions of budgets. waiting: open inbox items.
    """

    line: int
    reference: str
    run: str
    state: str
    reason: str = ""
    usd: int = 0
    tokens: int = 0
    calls: int = 0
    seconds: float = 0.0
    budget: int = 0
    waiting: tuple[str, ...] = ()
    output: Any = None
    error: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields by name; money in USD."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("usd", "error")}
        fields["cost"] = self.usd / 1e9
        return fields if self.error is None else fields | {"error": self.error}


def record(line: Line, run: Run, outputs: bool = True) -> Record:
    """The record of a run as it stands; without its output where nobody will ask for it."""
    return Record(
        line=line.number,
        reference=line.reference,
        run=run.id,
        state=run.outcome or ("waiting" if run.state == "parked" else "stopped"),
        reason=run.reason,
        usd=run.usd,
        tokens=run.tokens,
        calls=run.calls,
        seconds=run.seconds,
        budget=sum(map(_about_budget, run.entries)),
        waiting=run.waiting,
        output=run.output if outputs else None,
    )


def _about_budget(entry: Any) -> bool:
    if entry.kind == kinds.NOTE:
        return str(entry.body.get("type", "")).startswith("budget")
    return entry.kind == kinds.EXTENDED or (entry.kind == kinds.OPENED and entry.body.get("type") == "budget")


@dataclass(slots=True)
class Work:
    """A batch under way.

    Attributes:
        workspace, workflow: what is run. lines: the inputs. concurrency: runs at once.
        keep_going: go on after a run that could not be started. linked: an earlier run that these follow.
        by: who starts them. tenant: whose they are. priority: 0 goes first, 9 last; the workflow's own by default.
        outputs: keep what each run gives.
        patient: wait where too much is taken in already (a file); else that is an error (one input).
        watch: called with each record and the run behind it (None when it could not be started).
        fatal: the error that ended it early; a later call continues.
    """

    workspace: Workspace
    workflow: str
    lines: Iterator[Line]
    concurrency: int
    keep_going: bool = False
    linked: str = ""
    by: str = ""
    tenant: str = "default"
    priority: int | None = None
    outputs: bool = False
    patient: bool = False
    watch: Callable[[Line, Record, Run | None], None] = lambda line, record, run: None
    records: list[Record] = field(default_factory=list[Record])
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    fatal: TightshipError | Signal | None = None
    seconds: float = 0.0
    _ahead: deque[Line] = field(default_factory=deque["Line"])
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Carry it out until the lines are used up, `stop` is set, or something ends it."""
        began = time.monotonic()
        workers = [asyncio.ensure_future(self._worker()) for _ in range(self.concurrency)]
        stopping = asyncio.ensure_future(self._put_down())
        try:
            await asyncio.gather(*workers)
        finally:
            stopping.cancel()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, stopping, return_exceptions=True)
        self.seconds = time.monotonic() - began
        self.records.sort(key=lambda one: one.line)

    async def _put_down(self) -> None:
        await self.stop.wait()
        await self.workspace.put_down()

    async def _next(self) -> Line | None:
        """The next line that is to be run. Lines whose runs have ended before are read together, and done with."""
        async with self._reading:
            while not self._ahead and not self.stop.is_set():
                lines = list(itertools.islice(self.lines, _TOGETHER))
                if not lines:
                    return None
                self._ahead.extend(await self._without_ended(lines))
            return self._ahead.popleft() if self._ahead else None

    async def _without_ended(self, lines: list[Line]) -> list[Line]:
        ids = [derived_id("r", self.tenant, self.workflow, line.reference) for line in lines]
        ledger = await self.workspace.ledger()
        rows = await ledger.select("runs", [("id", "in", ids), ("state", "=", "ended")])
        ended = {run.id: run for run in await Run.many(ledger, rows)}
        for id_, line in zip(ids, lines, strict=True):
            if id_ in ended:
                self._done(line, record(line, ended[id_], self.outputs), ended[id_])
        return [line for id_, line in zip(ids, lines, strict=True) if id_ not in ended]

    async def _worker(self) -> None:
        while not self.stop.is_set():
            try:
                line = await self._next()
            except (StoreError, LedgerError) as error:
                self.fatal = self.fatal or error
                self.stop.set()
                return
            if line is None:
                return
            try:
                run = await self.workspace.run(
                    self.workflow,
                    line.input,
                    reference=line.reference,
                    tenant=self.tenant,
                    priority=self.priority,
                    linked=self.linked,
                    by=self.by,
                )
            except (StoreError, LedgerError, Signal) as error:
                self.fatal = self.fatal or error
                self.stop.set()
            except Overloaded as error:
                await self._come_again(line, error)
            except TightshipError as error:
                self._failed(line, error)
            else:
                self._done(line, record(line, run, self.outputs), run)

    async def _come_again(self, line: Line, error: Overloaded) -> None:
        """The line is run later: a file of inputs waits as long as it takes, and adds nothing to what waits already."""
        if not self.patient:
            self._failed(line, error)
            return
        self._ahead.appendleft(line)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), error.retry_after)

    def _done(self, line: Line, done: Record, run: Run | None) -> None:
        self.records.append(done)
        self.watch(line, done, run)

    def _failed(self, line: Line, error: TightshipError) -> None:
        """This line alone could not be carried out: no contract, no such tool, other code, input too large."""
        self._done(line, Record(line.number, line.reference, "", "error", error.code, error=error.as_dict()), None)
        if not self.keep_going:
            self.fatal = self.fatal or error
            self.stop.set()


@asynccontextmanager
async def stoppable(shell: Shell, stop: asyncio.Event, quiet: bool = False) -> AsyncGenerator[None]:
    """SIGINT and SIGTERM set `stop`; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def asked() -> None:
        stop.set()
        release()
        if not quiet:
            shell.note("stopping: writes under way are settled; Ctrl-C again ends at once")

    def release() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: nobody sends us signals
            loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        release()


def summary(records: list[Record], seconds: float, skipped: int = 0) -> Mapping[str, Any]:
    """The figures of a batch: counts by state, reasons, cost in USD, time in seconds, budget events."""
    counts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for one in records:
        counts[one.state] = counts.get(one.state, 0) + 1
        if one.reason:
            reasons[one.reason] = reasons.get(one.reason, 0) + 1
    times = sorted(one.seconds for one in records if one.state in kinds.OUTCOMES)
    return {
        "runs": len(records),
        "skipped": skipped,
        "states": counts,
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        "cost": sum(one.usd for one in records) / 1e9,
        "tokens": sum(one.tokens for one in records),
        "calls": sum(one.calls for one in records),
        "p50_seconds": percentile(times, 0.50),
        "p95_seconds": percentile(times, 0.95),
        "budget_events": sum(one.budget for one in records),
        "wall_seconds": round(seconds, 3),
    }


def percentile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank percentile of ordered values, or None without any."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1))]
