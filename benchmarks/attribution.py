"""How well a failure is attributed: `python -m benchmarks.attribution LOGS [--json]`.

LOGS is a folder of JSON files with `history` (as for `benchmarks/loops.py`), `mistake_agent` and `mistake_step` (the
position in `history`), as people named them. Beside the ranking stand the constants: always the agent, and always the
step, that is named most often in all other files. The p-value is that of a permutation test: how often the ranking
would be right as often, were its answers dealt out to the files at random.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tightship.insight.attribution import attribute

_DRAWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Case:
    """One file: what people named, and what the ranking puts first, or the steps that it puts first."""

    agent: str
    step: str
    ranked_agent: str
    ranked_steps: tuple[str, ...]


def read_cases(folder: Path) -> list[Case]:
    """The files of a folder that name a mistake."""
    found: list[Case] = []
    for path in sorted(folder.glob("*.json")):
        log = json.loads(path.read_text(encoding="utf-8"))
        if "mistake_agent" not in log:
            continue
        ranking = attribute(log["history"])
        agent = ranking.agents[0].name if ranking.agents else ""
        steps = tuple(one.name for one in ranking.steps)
        found.append(Case(log["mistake_agent"], str(log["mistake_step"]), agent, steps))
    return found


def constant(values: Sequence[str], first: int = 1) -> list[bool]:
    """Whether one of the commonest values of all others is right, for each."""
    right: list[bool] = []
    for at, value in enumerate(values):
        others = Counter(values[:at]) + Counter(values[at + 1 :])
        right.append(any(common == value for common, _ in others.most_common(first)))
    return right


def _permuted(truth: Sequence[str], said: Sequence[str]) -> float:
    """The share of random deals of the answers that are right at least as often (seed 0)."""
    chance = random.Random(0)
    reached = sum(one == other for one, other in zip(truth, said, strict=True))
    dealt = list(said)
    hits = 0
    for _ in range(_DRAWS):
        chance.shuffle(dealt)
        hits += sum(one == other for one, other in zip(truth, dealt, strict=True)) >= reached
    return (hits + 1) / (_DRAWS + 1)


def interval(right: Sequence[bool]) -> list[float]:
    """The 95 % interval of a share (E. B. Wilson, 1927)."""
    count, share, z = len(right), sum(right) / len(right), 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return [round(middle - half, 3), round(middle + half, 3)]


def _line(right: Sequence[bool]) -> dict[str, Any]:
    return {"right": round(sum(right) / len(right), 3), "right_95": interval(right)}


def measure(cases: Sequence[Case]) -> dict[str, Any]:
    """All figures on these files."""
    agents, steps = [one.agent for one in cases], [one.step for one in cases]
    ranked = [one.ranked_agent for one in cases]
    first = [one.ranked_steps[0] if one.ranked_steps else "" for one in cases]
    five = [one.step in one.ranked_steps[:5] for one in cases]
    return {
        "files": len(cases),
        "agent": _line([one == other for one, other in zip(agents, ranked, strict=True)])
        | {"p": round(_permuted(agents, ranked), 4)},
        "agent_constant": _line(constant(agents)),
        "step": _line([one == other for one, other in zip(steps, first, strict=True)])
        | {"p": round(_permuted(steps, first), 4)},
        "step_in_first_five": _line(five),
        "step_constant": _line(constant(steps)),
        "five_constant_steps": _line(constant(steps, 5)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("logs", type=Path, help="a folder of logs as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    cases = read_cases(given.logs)
    if len(cases) < 2:
        print(f"{given.logs} holds fewer than two logs that name a mistake", file=sys.stderr)
        return 1
    found = measure(cases)
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{found.pop('files')} files")
    for name, one in found.items():
        low, high = one["right_95"]
        more = f"  p {one['p']}" if "p" in one else ""
        print(f"{name:19} right in {one['right']:.2f} ({low:.2f} to {high:.2f}){more}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
