"""Hundreds of simulated days: crashes at any commit and any call, lost answers, full disks, people, kill switches."""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .run import Result, run_seed
from .seeds import FAILED_ONCE, SHARED_FAILED_ONCE

SEEDS = 160
SHARED_SEEDS = 100


def play(seeds: range | tuple[int, ...], workers: int = 1) -> list[Result]:
    """Play seeds on all cores."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        return pool.map(functools.partial(run_seed, workers=workers), seeds, chunksize=8)


def told(results: list[Result]) -> str:
    """The failures, with how to see each."""
    failed = [result for result in results if not result.ok]
    return "\n".join(f"{one.error}\n  python -m tests.simulation --seed {one.seed} --trace" for one in failed)


@pytest.mark.slow
def test_whatever_goes_wrong_every_run_ends_once_and_every_write_is_done_once() -> None:
    results = play(range(SEEDS))
    assert not told(results), told(results)
    happened = sum((result.happened for result in results), Counter[str]())
    # A simulation in which nothing goes wrong proves nothing: all of this has to have happened in it.
    expected = ["crashes", "completed", "escalated", "failed", "cancelled", "run.parked", "run.claimed", "undone"]
    expected += ["unknown", "found by look-up", "refused claims", "residual reports", "budget.extended", "from cache"]
    expected += ["halts", "take", "do", "edit", "undo", "give", "board moves"]
    missing = [name for name in expected if not happened[name]]
    assert not missing, f"no seed has exercised {missing}"
    assert happened["crashes"] > SEEDS / 2


@pytest.mark.slow
def test_several_workers_of_one_store_hold_the_same_promises() -> None:
    results = play(range(SHARED_SEEDS), workers=3)
    failed = [result for result in results if not result.ok]
    assert not failed, "\n".join(f"{one.error}\n  --seed {one.seed} --workers 3 --trace" for one in failed)
    happened = sum((result.happened for result in results), Counter[str]())
    missing = [name for name in ("crashes", "cut off", "completed", "undone", "unknown", "halts") if not happened[name]]
    assert not missing, f"no seed has exercised {missing}"


@pytest.mark.slow
def test_seeds_that_once_failed_hold() -> None:
    results = [*play(FAILED_ONCE), *play(SHARED_FAILED_ONCE, workers=3)]
    assert not told(results), told(results)


@pytest.mark.parametrize("seed", [10, 11])
def test_one_seed_is_one_story_in_every_process(seed: int) -> None:
    code = f"from tests.simulation.run import run_seed; print(run_seed({seed}).digest)"
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(digests) == 1
    assert digests != {"\n"}
