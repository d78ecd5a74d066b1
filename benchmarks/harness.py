"""What every side shares: how load is kept up, how time is read, how a process is killed, how a result is printed.

Standard library only, and nothing of Tightship: the peers' environment imports this module too. A side is a module
that maps measurement names (figures.py) to functions and hands them to `main`; see README.md, "Adding a side".
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from benchmarks.workload import LANES, SIZES, Size

PATIENCE_S = 600.0
"""How long one child process may take before it is killed and counted as failed."""

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Job:
    """What a measurement is given: an empty folder on the measured disk, and how much to measure."""

    store: Path
    size: Size

    def folder(self, name: str) -> Path:
        """A new folder inside the store folder, for one variant of the measured system."""
        path = self.store / name
        path.mkdir(parents=True)
        return path


@dataclass(slots=True)
class Outcome:
    """What a measurement hands back: values by figure name (figures.py), and what a reader should know with them.

    `others` are named further values of the same figure, shown below the table: {figure: {name: value}}; `notes` say in
    words how a value came about, by figure name: which variant it is, or that it is extrapolated.
    """

    figures: dict[str, float]
    others: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    detail: dict[str, object] = field(default_factory=dict)


Measurement = Callable[[Job], Outcome]


class Report(TypedDict):
    """The JSON line that a side prints: its outcome, who it is, and the versions of what it measured."""

    side: str
    measurement: str
    figures: dict[str, float]
    others: dict[str, dict[str, float]]
    notes: dict[str, str]
    detail: dict[str, object]
    versions: dict[str, str]


def report(side: str, measurement: str, outcome: Outcome, versions: Mapping[str, str]) -> Report:
    """An outcome as the line that is printed, with the versions of Python and SQLite added."""
    return Report(
        side=side,
        measurement=measurement,
        figures=outcome.figures,
        others=outcome.others,
        notes=outcome.notes,
        detail=outcome.detail,
        versions={**versions, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
    )


class Load:
    """Keeps a number of runs in flight and counts what falls into a window after the warm-up.

    The measured code calls `tick` once in every effect. Because a durable engine starts step k+1 only after step k is
    stored, the rate of ticks in a long window is the rate of durable steps, read without a hook into any engine.
    """

    def __init__(self, size: Size, lanes: int = LANES) -> None:
        self._lanes = lanes
        self._warm_up_s = size.warm_up_s
        self._seconds = size.seconds
        self._opens = self._closes = 0.0
        self._effects: list[float] = []
        self._runs: list[float] = []

    def tick(self) -> None:
        """One effect is being performed. Safe from any thread (a list append is atomic)."""
        self._effects.append(time.perf_counter())

    def _start(self) -> None:
        self._effects.clear()
        self._runs.clear()
        self._opens = time.perf_counter() + self._warm_up_s
        self._closes = self._opens + self._seconds

    async def drive(self, run: Callable[[str], Awaitable[object]]) -> None:
        """Await `run(id)` again and again in every lane (asyncio tasks) until the window closes."""
        import asyncio

        async def lane(number: int) -> None:
            turn = 0
            while time.perf_counter() < self._closes:
                await run(f"{number}-{turn}")
                self._runs.append(time.perf_counter())
                turn += 1

        self._start()
        await asyncio.gather(*(lane(number) for number in range(self._lanes)))

    def drive_threads(self, run: Callable[[str], object]) -> None:
        """Call `run(id)` again and again in every lane (threads) until the window closes.

        Raises: the first exception of any lane.
        """
        failures: list[BaseException] = []

        def lane(number: int) -> None:
            turn = 0
            try:
                while time.perf_counter() < self._closes and not failures:
                    run(f"{number}-{turn}")
                    self._runs.append(time.perf_counter())
                    turn += 1
            except BaseException as error:
                failures.append(error)

        self._start()
        threads = [threading.Thread(target=lane, args=(number,)) for number in range(self._lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    @property
    def effects_per_s(self) -> float:
        """Ticks in the window, per second."""
        return self._rate(self._effects)

    @property
    def runs_per_s(self) -> float:
        """Runs that ended in the window, per second."""
        return self._rate(self._runs)

    def _rate(self, stamps: Sequence[float]) -> float:
        return sum(self._opens <= stamp < self._closes for stamp in stamps) / self._seconds


class Alone:
    """Times effects one after another: wall clock and CPU of the whole process from one `tick` to the next.

    Gaps between runs are left out: call `cut` where a run starts.
    """

    def __init__(self) -> None:
        self._wall: list[float] = []
        self._cpu = 0.0
        self._last: tuple[float, float] | None = None

    def cut(self) -> None:
        """The next tick starts a new row of gaps."""
        self._last = None

    def tick(self) -> None:
        """One effect is being performed."""
        now = (time.perf_counter(), time.process_time())
        if self._last is not None:
            self._wall.append(now[0] - self._last[0])
            self._cpu += now[1] - self._last[1]
        self._last = now

    @property
    def p50_ms(self) -> float:
        """Median wall time of one effect, in milliseconds."""
        return statistics.median(self._wall) * 1e3

    @property
    def cpu_ms(self) -> float:
        """Mean CPU time (all threads of the process) of one effect, in milliseconds."""
        return self._cpu / len(self._wall) * 1e3


class Flight:
    """The runs of the resume measurement, seen from inside their agents.

    Before the kill every run stops inside the held agent (`held` calls `hold`); after it, `passed` notes that a run has
    gone past that agent, which a durable engine does only once the agent's outcome is stored.
    """

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._inside: list[float] = []
        self._passed: list[float] = []
        self.started = time.perf_counter()

    def hold(self) -> None:
        """A run is inside the held agent. When the last one is, the parent is told and kills this process."""
        self._inside.append(time.perf_counter())
        if len(self._inside) == self._runs:
            print(f"{_IN_FLIGHT} {self._runs}", flush=True)

    def executor_starts(self) -> None:
        """The clock of the resume phase starts: imports are done, the store is not open yet."""
        self.started = time.perf_counter()

    def passed(self) -> None:
        """A run starts the agent after the held one."""
        self._passed.append(time.perf_counter())

    def report(self) -> dict[str, float]:
        """Seconds until all had passed the held agent and until now (all done), and how many passed it."""
        return {
            "resumed": len(self._passed),
            "resumed_s": max(self._passed, default=float("inf")) - self.started,
            "done_s": time.perf_counter() - self.started,
        }


_IN_FLIGHT = "IN FLIGHT"


def crash(module: str, job: Job, *arguments: str) -> None:
    """Start `python -m module crash …` and kill it (SIGKILL) once it reports that every run is in flight.

    The child's own standard error is passed through. Raises RuntimeError when it ends or stalls before that.
    """
    with subprocess.Popen(
        _child(module, "crash", job, *arguments), stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        stall = threading.Timer(PATIENCE_S, child.kill)
        stall.start()
        try:
            assert child.stdout is not None
            in_flight = any(line.startswith(_IN_FLIGHT) for line in child.stdout)
            if in_flight:
                # Let writers that trail behind the last arrival (checkpoints of the step before) come to rest.
                time.sleep(0.3)
                child.send_signal(signal.SIGKILL)
        finally:
            stall.cancel()
            child.kill()
    if not in_flight:
        raise RuntimeError(f"{module} ended before all runs were in flight (exit code {child.returncode})")


def resume(module: str, job: Job, *arguments: str) -> dict[str, float]:
    """Start `python -m module resumed …` on the store that the crash left, and return its `Flight.report`."""
    done = subprocess.run(
        _child(module, "resumed", job, *arguments),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=True,
    )
    return json.loads(last_line(done.stdout))


def _child(module: str, phase: str, job: Job, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, phase, "--store", str(job.store), "--size", job.size.name, *arguments]


def last_line(text: str) -> str:
    """The last line that is a JSON object; what libraries print before it is none of ours.

    Raises ValueError when there is none.
    """
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return line
    raise ValueError("no result was printed")


def folder_bytes(path: Path) -> int:
    """Bytes of all files under a folder: data, write-ahead logs, indexes, keys, whatever the system keeps."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def durability(connection: sqlite3.Connection) -> dict[str, str]:
    """What SQLite really runs with: journal mode and synchronous level, read back from the connection."""
    levels = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    level = connection.execute("PRAGMA synchronous").fetchone()[0]
    return {"journal_mode": str(journal), "synchronous": levels[int(level)]}


def main(
    side: str,
    measurements: Mapping[str, Measurement],
    *,
    versions: Mapping[str, str],
    phases: Mapping[str, Callable[[Job, list[str]], None]] | None = None,
) -> None:
    """The command line of a side: `python -m MODULE MEASUREMENT --store DIR --size quick|full`.

    Prints one JSON line, a `Report`. `phases` are the child processes of the resume measurement (`crash`, `resumed`),
    which print what they print.
    """
    phases = phases or {}
    parser = argparse.ArgumentParser(prog=side)
    parser.add_argument("measurement", choices=[*measurements, *phases])
    parser.add_argument("--store", type=Path, required=True, help="an empty folder on the disk to measure")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    options, rest = parser.parse_known_args()
    job = Job(options.store, SIZES[options.size])
    if options.measurement in phases:
        phases[options.measurement](job, rest)
        return
    job.store.mkdir(parents=True, exist_ok=True)
    outcome = measurements[options.measurement](job)
    print(json.dumps(report(side, options.measurement, outcome, versions)), flush=True)
