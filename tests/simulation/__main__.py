"""`python -m tests.simulation --seeds 2000` plays seeds and checks what must hold; `--seed N --trace` shows one."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import time
from collections import Counter

from .run import Result, run_seed

MOST = 20
"""Failures after which it stops."""


def main() -> int:
    """Play the seeds that are asked for; the exit code is 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--trace", action="store_true", help="print what happened, and the ledger")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--workers", type=int, default=1, help="processes that execute at the same time")
    given = parser.parse_args()
    if given.seed is not None:
        return _one(given.seed, given.trace, given.workers)
    return _many(range(given.start, given.start + given.seeds), given.jobs, given.workers)


def _one(seed: int, trace: bool, workers: int) -> int:
    result = run_seed(seed, trace, workers)
    for line in (*result.told, *result.ledger):
        print(line.rstrip())
    print(f"seed {seed}: {result.error or 'everything held'} ({result.seconds:.2f} s, ledger {result.digest})")
    return not result.ok


def _many(seeds: range, jobs: int, workers: int) -> int:
    began, done, happened = time.monotonic(), 0, Counter[str]()
    failed: list[Result] = []
    seconds = 0.0
    with multiprocessing.Pool(jobs) as pool:
        for result in pool.imap_unordered(functools.partial(run_seed, workers=workers), seeds, chunksize=8):
            done += 1
            seconds += result.seconds
            happened += result.happened
            if not result.ok:
                failed.append(result)
                print(f"\nseed {result.seed} failed: {result.error[:400]}")
                print(f"  reproduce: python -m tests.simulation --seed {result.seed} --workers {workers} --trace")
                if len(failed) >= MOST:
                    print(f"\nstopped after {MOST} failures")
                    pool.terminate()
                    break
            if sys.stderr.isatty() and done % 10 == 0:
                print(f"\r{done}/{len(seeds)} seeds, {len(failed)} failed", end="", file=sys.stderr)
    took = time.monotonic() - began
    print(f"\n{done} seeds, {len(failed)} failed, {took:.1f} s ({seconds / max(done, 1):.3f} s a seed)")
    print("exercised: " + ", ".join(f"{name} {count}" for name, count in sorted(happened.items())))
    if failed:
        print("failed: " + " ".join(str(result.seed) for result in failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
