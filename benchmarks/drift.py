"""How often a check for drift raises a false alarm, and how often it finds a change of a given size.

    python -m benchmarks.drift --checks 1000

Each check compares a baseline of synthetic runs with as many later ones: categories, skewed numbers, lengths, rare
events and features that depend on each other. For false alarms nothing has changed; else the share of one category has
grown by so many points. It is seeded, so the same call gives the same figures.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator

from tightship.runtime.drift import Observation, compare

RUNS = (30, 100, 300)
LEVELS = (0.01, 0.05)
SHIFTS = (0.1, 0.2, 0.3)
DAILY = (100, 200, 500)


def observations(chance: random.Random, count: int, shift: float = 0.0) -> Iterator[Observation]:
    """Runs of an agent of whose cases `shift` more are refunds."""
    for number in range(count):
        size = chance.lognormvariate(0, 0.6)
        topic = chance.choices(["order", "refund", "other"], [0.6 - shift, 0.3 + shift, 0.1])[0]
        yield Observation(
            f"r-{number}",
            float(number),
            {
                "output.topic": topic,
                "output.amount": round(40 * size, 2),
                "length of output.text": float(int(120 * size) + chance.randint(0, 30)),
                "tokens in": float(int(900 * size) + chance.randint(0, 200)),
                "tokens out": float(int(120 * size)),
                "calls": float(chance.choice([1, 1, 1, 2, 3])),
                "repairs": float(chance.random() < 0.03),
                "refusals": float(chance.random() < 0.01),
                "ends": "answers" if chance.random() < 0.97 else "DataMissing",
                "tools": "orders.get" if topic == "order" else "orders.get + refunds.list",
            },
        )


def alarms(checks: int, runs: int, level: float, shift: float, effect: float, exact: bool = False) -> float:
    """The share of checks that tell of a drift."""
    told = 0
    for seed in range(checks):
        chance = random.Random(f"{runs}/{level}/{shift}/{seed}")
        base, recent = list(observations(chance, runs)), list(observations(chance, runs, shift))
        told += bool(compare(f"agent:{seed}", base, recent, level=level, effect=effect, exact=exact).changes)
    return told / checks


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=1000)
    checks = parser.parse_args().checks
    print(f"false alarms in {checks} checks, no least effect (95 % of such figures lie within what is in brackets)")
    for level in LEVELS:
        spread = 1.96 * math.sqrt(level * (1 - level) / checks)
        for runs in RUNS:
            print(
                f"  level {level:.0%} (±{spread:.1%}), {runs} runs a side: {alarms(checks, runs, level, 0.0, 0.0):.1%}"
            )
    few = max(1, checks // 5)
    print(f"changes found in {few} checks, level 1 %, least effect 0.1")
    for shift in SHIFTS:
        for runs in RUNS:
            print(f"  {shift:.0%} of the cases, {runs} runs a side: {alarms(few, runs, 0.01, shift, 0.1):.0%}")
    print(f"changes found in {few} of the checks that are made every day and share 5 % a year, least effect 0.1")
    for shift in (*SHIFTS, 0.4):
        for runs in DAILY:
            found = alarms(few, runs, 0.05 / 365, shift, 0.1, exact=True)
            print(f"  {shift:.0%} of the cases, {runs} runs a side: {found:.0%}")


if __name__ == "__main__":
    main()
