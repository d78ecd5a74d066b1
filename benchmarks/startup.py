"""How long a program takes to start: the imports, and `--help` of the command line; each in processes of its own."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import ROOT, Outcome

TIMES = 7
"""Processes per command after one that warms the file cache; the median counts."""


@dataclass(frozen=True, slots=True)
class Starts:
    """What is started. first: the import a program begins with; ready: all that a first run needs; None: has none."""

    first: str | None
    ready: str | None
    help: tuple[str, ...] | None


def measure(python: Path, starts: Starts) -> Outcome:
    """Median seconds of each; imports are timed inside the process, `--help` from outside with the interpreter's start.

    Raises subprocess.CalledProcessError when a command fails.
    """
    figures: dict[str, float] = {}
    for figure, statement in (("import_s", starts.first), ("import_ready_s", starts.ready)):
        if statement:
            figures[figure] = _median_import_s(python, statement)
    if starts.help:
        figures["help_s"] = _median_command_s(starts.help)
    return Outcome(figures, detail={"import": starts.first, "ready": starts.ready, "help": starts.help})


def _median_import_s(python: Path, statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    # -P: what happens to lie in the current folder is not imported by mistake.
    spent = [float(_run([str(python), "-P", "-c", code])) for _ in range(TIMES + 1)]
    return statistics.median(spent[1:])


def _median_command_s(command: Sequence[str]) -> float:
    spent: list[float] = []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        _run(command)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
