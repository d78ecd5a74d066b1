"""Real processes that are killed and frozen: forked from this one, on a store and a practice company on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from tightship.core import kinds
from tightship.core.errors import TightshipError
from tightship.core.ports import Json, Reply, Request
from tightship.core.world import World
from tightship.ledger import Entry, Ledger
from tightship.quality.drills.judge import came_of, canonical, difference, short
from tightship.quality.drills.outside import Ask, Tap
from tightship.quality.drills.registry import Report, drill
from tightship.quality.drills.scene import Scene
from tightship.runtime.workspace import projections

if TYPE_CHECKING:
    from tightship.quality.drills.bench import Bench, Case
    from tightship.runtime.result import Run

SECONDS: Final = 30.0
"""How long a process may take before it counts as hanging."""
LIMIT: Final = 1.0
"""Seconds until a call counts as unanswered: shorter than real ones, since these drills take real time."""
FROZEN: Final = 1.5
"""Seconds that a process is frozen: longer than LIMIT, so that what it was about to send has become too old."""
APPENDS: Final = 4
"""Appends after which a process is killed, spread over the run."""
WRITES: Final = 2
"""Writes around which it is killed: before they are sent, and after they were answered."""
READS: Final = 2
"""Reads in which it is killed, so that an agent is in the middle of its turn: the last ones, which have most before
them."""


LOOKS: Final = 100
"""How often a frozen process may be let go on to the end of a transaction."""
_WHAT: Final = {"at": "append", "in": "read"}


@dataclass(slots=True)
class Blow:
    """A signal, and where it hits: `at` the n-th append, `in` the n-th read, `before` or `after` the n-th write."""

    side: str = ""
    number: int = 0
    signal: int = getattr(signal, "SIGKILL", 9)
    appends: list[str] = field(default_factory=list[str])
    reads: list[str] = field(default_factory=list[str])
    writes: list[str] = field(default_factory=list[str])
    armed: bool = False

    def __str__(self) -> str:
        return f"{self.side} {_WHAT.get(self.side, 'write')} {self.number}"

    def strike(self, side: str, number: int) -> None:
        """Hit, if this is the place."""
        if self.armed and (self.side, self.number) == (side, number):
            self.armed = False  # once: a process that was frozen comes past here again
            os.kill(os.getpid(), self.signal)

    def heard(self, entries: list[Entry], foreign: bool) -> None:
        """Something was appended."""
        for entry in entries:
            if self.armed:
                self.appends.append(f"#{entry.n} {entry.kind} {entry.key}".rstrip())
                self.strike("at", len(self.appends))

    async def trouble(self, tap: Tap, request: Request, ask: Ask) -> Reply:
        """A call passes."""
        if not self.armed:
            return await ask()
        if tap.spec.effect != "write":
            self.reads.append(tap.spec.name)
            number, reply = len(self.reads), await ask()
            self.strike("in", number)
            return reply
        self.writes.append(tap.spec.name)
        number = len(self.writes)
        self.strike("before", number)
        reply = await ask()
        self.strike("after", number)
        return reply


@dataclass(slots=True)
class Worker:
    """A process as one of two workers of the scratch store (runtime.worker.Membership).

    Its lease ends when the other one takes over, which a file tells it: nothing depends on how busy the machine is.
    """

    id: str
    taken: Path

    def lease_left(self) -> float:
        """Seconds for which nobody may take what it owns; 0 when they have run out."""
        return 0.0 if self.taken.exists() else SECONDS

    async def close(self) -> None:
        """Nothing is kept."""


async def _life(bench: Bench, folder: Path, case: Case, blow: Blow, worker: Worker | None = None) -> None:
    """One process: run the case, or go on with it, and write down what came of it."""
    world = World()
    ledger = await Ledger.open(folder / "store", world, projections(), True)
    ledger.alone = worker is None
    scene = await Scene.open(
        bench, world, ledger, trouble=blow.trouble, database=folder / "company.db", limit=LIMIT, member=worker
    )
    told: dict[str, Json]
    try:
        await scene.prepare(case)
        ledger.listen(blow.heard)
        blow.armed = True
        run = await scene.run(case)
        told = {"outcome": run.outcome or run.state, "reason": run.reason, "result": await _result(scene, run)}
        told["entries"] = [f"#{e.n} {e.kind} {e.key}".rstrip() for e in run.entries]
    except TightshipError as error:
        told = {"outcome": "refused", "reason": f"{error.code}: {error.message}", "result": [], "entries": []}
    told |= {"state": scene.outside.state(), "appends": blow.appends, "reads": blow.reads, "writes": blow.writes}
    blow.armed = False
    (folder / (f"{worker.id}.json" if worker is not None else "report.json")).write_bytes(orjson.dumps(told))
    await scene.close()
    await ledger.close()


async def _result(scene: Scene, run: Run) -> list[Json]:
    """What a workflow that only reads has come to."""
    return [] if scene.acts else [one.write[1] for one in await came_of(scene, run)]


async def _after(bench: Bench, folder: Path) -> None:
    """Once both workers are done: the outside as it stands, and what the ledger holds twice."""
    world = World()
    ledger = await Ledger.open(folder / "store", world, projections(), True)
    settled = [one for one in await ledger.entries(0, 1_000_000) if one.kind == kinds.SETTLED]
    times = Counter((one.run, one.key, str(one.body.get("name"))) for one in settled if not one.body.get("again"))
    scene = await Scene.open(bench, world, ledger, database=folder / "company.db", limit=LIMIT)
    told = {"state": scene.outside.state(), "twice": [name for (_, _, name), count in times.items() if count > 1]}
    (folder / "after.json").write_bytes(orjson.dumps(told))
    await scene.close()
    await ledger.close()


def _fork(bench: Bench, work: Callable[[], Coroutine[Any, Any, None]], log: Path) -> int:
    """A real process of its own, with everything loaded; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a process with threads is forked: none of them is used by the child
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with bench.seal():
            asyncio.run(work())
        code = 0
    except BaseException:
        log.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _wait(pid: int, frozen: bool = False) -> int:
    """Wait for a process: how it ended (exit code, or minus the signal). A frozen one is woken again, a hanging one
    is killed."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG | (os.WUNTRACED if frozen else 0))
        if found and os.WIFSTOPPED(status):
            time.sleep(FROZEN)
            os.kill(pid, signal.SIGCONT)
        elif found:
            return os.waitstatus_to_exitcode(status)
        else:
            time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGALRM


def _lives(bench: Bench, folder: Path, case: Case, blows: list[Blow]) -> dict[str, Json]:
    """One process after the other on one store, each hit where its blow says; what the last one found."""
    log = folder / "log"
    folder.mkdir(parents=True, exist_ok=True)
    for blow in blows:
        pid = _fork(bench, lambda blow=blow: _life(bench, folder, case, blow), log)
        code = _wait(pid, blow.signal == signal.SIGSTOP)
        if code == -signal.SIGALRM:
            return _nothing("hangs", "")
        if code == 1:
            return _nothing("broke", _said(log))
    return orjson.loads((folder / "report.json").read_bytes())


def _taken_over(bench: Bench, folder: Path, case: Case, blow: Blow) -> dict[str, Json]:
    """A worker is frozen, another one goes on with its run to the end, and the frozen one wakes: what came of it."""
    log, taken = folder / "log", folder / "taken"
    folder.mkdir(parents=True, exist_ok=True)
    first = _fork(bench, lambda: _life(bench, folder, case, blow, Worker("first", taken)), log)
    try:
        if not _stopped(first):
            return _nothing("broke", "the first worker was done before it could be frozen")
        _unlock(first, folder / "store" / "ledger.db")
        taken.touch()
        second = _fork(bench, lambda: _life(bench, folder, case, Blow(), Worker("second", folder / "never")), log)
        ended = _wait(second)
        os.kill(first, signal.SIGCONT)
        woken = _wait(first)
    except BaseException:
        os.kill(first, signal.SIGKILL)
        raise
    if ended or woken:
        return _nothing("hangs" if -signal.SIGALRM in (ended, woken) else "broke", _said(log))
    _wait(_fork(bench, lambda: _after(bench, folder), log))
    return {**orjson.loads((folder / "second.json").read_bytes()), **orjson.loads((folder / "after.json").read_bytes())}


def _stopped(pid: int) -> bool:
    """Wait until a process stands still; false when it has ended in place of that."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found:
            return os.WIFSTOPPED(status)
        time.sleep(0.01)
    return False


def _unlock(pid: int, store: Path) -> None:
    """Let a frozen process finish a transaction in which it was hit: on a store that is a file nobody else could write.

    A server ends the transaction of a client that stands still; what follows is the same.
    """
    for _ in range(LOOKS):
        with contextlib.closing(sqlite3.connect(store, timeout=0.0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                pass
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.005)
        os.kill(pid, signal.SIGSTOP)


def _said(log: Path) -> str:
    """The last line of what a process has left."""
    return log.read_text().strip().splitlines()[-1] if log.exists() else "no word"


def _nothing(outcome: str, reason: str) -> dict[str, Json]:
    """What is told of a process that told nothing."""
    nothing = {name: [] for name in ("result", "entries", "appends", "reads", "writes", "twice")}
    return {"outcome": outcome, "reason": reason, "state": {}, **nothing}


def no_fork(bench: Bench) -> str:
    """Why drills with real processes do not apply."""
    return "" if hasattr(os, "fork") and hasattr(signal, "SIGSTOP") else "this system cannot fork processes"


def _compare(report: Report, got: dict[str, Json], clean: dict[str, Json], what: str) -> None:
    same = (got["outcome"], got["reason"]) == (clean["outcome"], clean["reason"])
    report.hold(
        same,
        f"{what}: it ended as undisturbed",
        f"{what}: it ended as {got['outcome']}{': ' * bool(got['reason'])}{got['reason']}, undisturbed as "
        f"{clean['outcome']}",
    )
    if got["state"] or same:
        other = difference(got["state"], clean["state"])
        if canonical(got["result"]) != canonical(clean["result"]):
            other = other or f"the result differs: {short(got['result'])}"
        report.hold(not other, f"{what}: what came of it is as undisturbed", f"{what}: {other}")


def _blows(clean: dict[str, Json], which: int) -> list[Blow]:
    """Where to hit: sampled appends, and around the first writes."""
    count = len(clean["appends"])
    numbers = sorted({max(1, round(count * at / (APPENDS + 1))) for at in range(1, APPENDS + 1)})
    found = [Blow("at", number, which) for number in numbers] if count else []
    reads = len(clean["reads"])
    found += [Blow("in", number, which) for number in range(max(1, reads - READS + 1), reads + 1)]
    for number in range(1, min(len(clean["writes"]), WRITES) + 1):
        found += [Blow("before", number, which), Blow("after", number, which)]
    return found


@drill(
    "kill",
    broken="the process is killed (SIGKILL) after sampled appends, in reads and around writes; another goes on",
    fix="do everything that is not a pure function of the input through `ctx` (tools, ctx.now, ctx.random)",
    applies=no_fork,
)
def kill(bench: Bench, report: Report) -> None:
    """kill -9, and a new process on what the disk holds: the same end, the same outside."""
    case = bench.lively(1)[0].case
    with tempfile.TemporaryDirectory(prefix="tightship-kill-", dir=bench.folder.parent) as place:
        base = Path(place)
        clean = _lives(bench, base / "clean", case, [Blow()])
        for at, blow in enumerate(_blows(clean, signal.SIGKILL)):
            got = _lives(bench, base / str(at), case, [blow, Blow()])
            where = f"{clean['appends'][blow.number - 1]}" if blow.side == "at" else str(blow)
            _compare(report, got, clean, f"killed {'after ' * (blow.side == 'at')}{where}")
            shutil.rmtree(base / str(at), ignore_errors=True)
        report.evidence += clean["appends"][:4]


@drill(
    "frozen-worker",
    broken="a worker is frozen (SIGSTOP) around writes, in reads and after appends, and wakes: after longer than a "
    "call may take, and after another worker has taken its run over",
    fix="leave room in `budget.seconds` and `within:`; use tools with an idempotency key, or that can be looked up and "
    "refuse to send after `not_after`",
    applies=no_fork,
)
def frozen(bench: Bench, report: Report) -> None:
    """A frozen process that wakes does nothing late and nothing twice.

    Nobody takes over first, as on a store that is a file: there one process executes, and holds its lock also while it
    is frozen. Then two workers share the scratch store, as on a database: the second one goes on with the run once the
    first one's lease has ended, and is done with it before the first one wakes and goes on where it was.
    """
    case = bench.lively(1)[0].case
    with tempfile.TemporaryDirectory(prefix="tightship-stop-", dir=bench.folder.parent) as place:
        base = Path(place)
        clean = _lives(bench, base / "clean", case, [Blow()])
        blows = _blows(clean, signal.SIGSTOP)
        late = [*blows[:1], *[one for one in blows if one.side == "before"]]
        for at, blow in enumerate(late):
            got = _lives(bench, base / f"late-{at}", case, [blow])
            _compare(report, got, clean, f"frozen {blow}")
        around = [one for one in blows if one.side in ("before", "after")] or [one for one in blows if one.side == "in"]
        for at, blow in enumerate([*blows[:1], *around]):
            fresh = Blow(blow.side, blow.number, blow.signal)
            got, what = _taken_over(bench, base / f"taken-{at}", case, fresh), f"frozen {blow}, and taken over"
            _compare(report, got, clean, what)
            report.hold(not got["twice"], f"{what}: nothing was settled twice", f"{what}: twice: {got['twice']}")
        report.evidence += clean["appends"][:4]
