"""Tightship's side of the benchmark runs, and yields every figure that it is asked for (how much is not looked at)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.figures import FIGURES
from benchmarks.harness import ROOT, last_line


@pytest.mark.parametrize("measurement", ["concurrent", "alone", "team", "conversation", "line_budget", "resume"])
def test_a_measurement_yields_its_figures(measurement: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.ours", measurement, "--store", str(tmp_path / "s"), "--size", "quick"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    figures = json.loads(last_line(done.stdout))["figures"]
    physical = {"group_commit", "commit_alone", "fsync_alone", "asyncio_runs"}
    asked = {one.name for one in FIGURES if one.measurement == measurement and not one.name.startswith(tuple(physical))}
    assert asked == set(figures)
    # Of a rate over the second that `quick` measures nothing is left where other processes have taken it.
    assert all(value >= 0 if "_per_s_" in name else value > 0 for name, value in figures.items())
