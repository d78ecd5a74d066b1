"""How many cases people have to see when a threshold learns: `python -m benchmarks.thresholds DIRECTORY [--json]`.

DIRECTORY holds a `train.csv` with the columns `text` and `category`, such as Banking77 (Casanueva et al., 2020, CC BY
4.0). A classifier learns from a part of it; from the rest a stream of cases is drawn with replacement, each with a
confidence, and the known category stands for the person's decision. Over many streams: how often the learned threshold
ever breaks its bound, how many cases reach a person, and how many released ones are wrong; beside fixed thresholds that
were chosen on as many decided cases as the learning one drew. Then the same where the stream changes halfway:
categories that the classifier has never seen, mistyped texts, and categories whose cases are decided otherwise from
then on.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tightship.agents.offline import Example, TextClassifier
from tightship.effects.frame import Learning
from tightship.review.learning import CANDIDATES, Case, Learner, draw_share, safe_threshold

ERROR: Final = 0.05
CONFIDENCE: Final = 0.95
AUDIT: Final = 0.05
PER_CATEGORY: Final = 30
"""Texts of each category that the classifier learns from."""
UNSEEN: Final = 15
"""Categories that come up only after the change."""
DEFAULT: Final = 0.8

Judged = tuple[float, bool]
"""A case as the classifier sees it: its confidence, and whether it is right."""


@dataclass(frozen=True, slots=True)
class Played:
    """One stream under one policy: cases that reached a person, released and wrong ones; whether the true
    share of wrong ones among released cases ever passed the bound; cases after the change until the safe threshold was
    back (-1: never, or no change)."""

    seen: int
    released: int
    wrong: int
    broke: bool
    drawn: int = 0
    noticed: int = -1


@dataclass(frozen=True, slots=True)
class Row:
    """A policy over all streams: means, and the share of streams in which the bound was broken."""

    stream: str
    policy: str
    cases: int
    seen: float
    released_wrong: float
    broken: float
    noticed: float | None = None


def true_risk(cases: Sequence[Judged]) -> Callable[[float], float]:
    """The share of wrong cases from a threshold upwards."""
    kept = {one: [right for said, right in cases if said >= one] for one in (*CANDIDATES, DEFAULT)}
    shares = {one: 1 - sum(right) / len(right) if right else 0.0 for one, right in kept.items()}
    return lambda threshold: shares[min(shares, key=lambda one: abs(one - threshold))]


def learn(
    before: Sequence[Judged],
    after: Sequence[Judged],
    chance: random.Random,
    risk: Callable[[float], float],
    guarantee: str = "always",
) -> Played:
    """The product's own learning over a stream; `after` follows `before`, and is drawn otherwise."""
    learning = Learning("benchmark/category", ERROR, CONFIDENCE, AUDIT, guarantee=guarantee)
    learner, held, safe = Learner(learning), None, safe_threshold(learning, DEFAULT)
    seen = released = wrong = drawn = 0
    noticed, broke = -1, False
    for number, (said, right) in enumerate([*before, *after]):
        threshold = safe if held is None else held
        chosen = chance.random() < draw_share(learning, held is None, learner.cases)
        if chosen or said < threshold:
            seen += 1
        else:
            released, wrong = released + 1, wrong + (not right)
        if not chosen:
            continue
        drawn += 1
        learner.see([Case(said, right, held)])
        lesson = learner.lesson(held)
        if lesson is not None and lesson.state == "drift":
            learner, held = Learner(learning), None
            if number >= len(before) and noticed < 0:
                noticed = number - len(before)
        elif lesson is not None:
            held = lesson.threshold
            broke = broke or (number < len(before) and held is not None and risk(held) > ERROR)
    return Played(seen, released, wrong, broke, drawn, noticed)


def fixed(stream: Sequence[Judged], decided: int, threshold: float, risk: Callable[[float], float]) -> Played:
    """A threshold that was fixed after so many decided cases, all of which people saw."""
    rest = stream[decided:]
    released = [right for said, right in rest if said >= threshold]
    seen = decided + len(rest) - len(released)
    return Played(seen, len(released), released.count(False), threshold < 1 and risk(threshold) > ERROR)


def lowest(decided: Sequence[Judged]) -> float:
    """The lowest threshold from which on the decided cases keep the bound: what one would choose by looking."""
    found = 1.01
    for one in reversed(CANDIDATES):
        kept = [right for said, right in decided if said >= one]
        if kept and kept.count(False) <= ERROR * len(kept):
            found = one
    return found


def certified(decided: Sequence[Judged]) -> float:
    """The lowest threshold that one exact binomial test certifies, looked at once, by fixed-sequence testing."""
    found = 1.01
    for one in reversed(CANDIDATES):
        kept = [right for said, right in decided if said >= one]
        if _binomial(len(kept), kept.count(False)) > 1 - CONFIDENCE:
            if len(kept) > 60:  # fewer can certify nothing: the sequence starts where something can
                break
            continue
        found = one
    return found


def _binomial(cases: int, wrong: int) -> float:
    """The probability of no more wrong cases than these when the error rate is the bound."""
    terms = [math.lgamma(cases + 1) - math.lgamma(k + 1) - math.lgamma(cases - k + 1) for k in range(wrong + 1)]
    logs = [t + k * math.log(ERROR) + (cases - k) * math.log(1 - ERROR) for k, t in enumerate(terms)]
    return min(1.0, sum(math.exp(one) for one in logs))


def mistype(text: str, chance: random.Random) -> str:
    """A text with every fifth letter lost or doubled, as hasty people type."""
    typed = (letter if chance.random() > 0.2 else chance.choice(("", letter * 2)) for letter in text)
    return "".join(typed)


def changed(cases: Sequence[Judged], examples: Sequence[Example], categories: set[str]) -> list[Judged]:
    """The cases where those of some categories are decided otherwise than before: what was right is wrong."""
    return [(said, right and one.label not in categories) for (said, right), one in zip(cases, examples, strict=True)]


def judged(classifier: TextClassifier, examples: Sequence[Example]) -> list[Judged]:
    """Each example as the classifier sees it."""
    found: list[Judged] = []
    for example in examples:
        said = classifier.predict(example.text)
        found.append((said.confidence, said.label == example.label))
    return found


def read(folder: Path) -> dict[str, list[str]]:
    """The texts of each category, each text once."""
    found: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["text"] not in seen:
                seen.add(row["text"])
                found[row["category"]].append(row["text"])
    return found


def streams(folder: Path) -> dict[str, tuple[list[Judged], list[Judged]]]:
    """The streams by name: the cases before a change, and those after it."""
    chance = random.Random(0)
    texts = read(folder)
    training: list[Example] = []
    rest: list[Example] = []
    for category, found in sorted(texts.items()):
        chance.shuffle(found)
        training += [Example(text, category) for text in found[:PER_CATEGORY]]
        rest += [Example(text, category) for text in found[PER_CATEGORY:]]
    known = set(sorted(texts)[UNSEEN:])
    whole = TextClassifier.train(training)
    part = TextClassifier.train([one for one in training if one.label in known])
    chance.shuffle(rest)
    half = len(rest) // 2
    first, second = rest[:half], rest[half:]
    all_ = judged(whole, rest)
    return {
        "same": (all_, []),
        "unseen categories": (judged(part, [one for one in first if one.label in known]), judged(part, second)),
        "mistyped": (
            all_[:half],
            judged(whole, [Example(mistype(one.text, chance), one.label) for one in second]),
        ),
        "changed rules": (all_[:half], changed(all_[half:], second, set(texts) - known)),
    }


def play(name: str, before: list[Judged], after: list[Judged], seeds: int, cases: int) -> list[Row]:
    """Every policy over many streams of a kind; whether the bound is broken is judged before the change."""
    risk = true_risk(before)
    played: dict[str, list[Played]] = defaultdict(list)
    for seed in range(seeds):
        chance = random.Random(seed)
        later = cases // 2 if after else 0
        first, second = chance.choices(before, k=cases - later), chance.choices(after, k=later) if later else []
        stream = [*first, *second]
        found = learn(first, second, chance, risk)
        played["learned"].append(found)
        played["learned, in the mean"].append(learn(first, second, chance, risk, "mean"))
        budget = min(found.drawn, len(first))
        played["fixed by looking"].append(fixed(stream, budget, lowest(stream[:budget]), risk))
        played["fixed by one exact test"].append(fixed(stream, budget, certified(stream[:budget]), risk))
        played[f"fixed at {DEFAULT}"].append(fixed(stream, 0, DEFAULT, risk))
        played[f"fixed at {1 - ERROR:g}"].append(fixed(stream, 0, 1 - ERROR, risk))
    return [_row(name, policy, cases, found) for policy, found in played.items()]


def _row(name: str, policy: str, cases: int, found: Sequence[Played]) -> Row:
    released, wrong = sum(one.released for one in found), sum(one.wrong for one in found)
    noticed = [one.noticed for one in found if one.noticed >= 0]
    return Row(
        name,
        policy,
        cases,
        sum(one.seen for one in found) / len(found),
        wrong / released if released else 0.0,
        sum(one.broke for one in found) / len(found),
        sorted(noticed)[len(noticed) // 2] if noticed else None,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    head = f"{'stream':<19}{'policy':<25}{'cases':>7}{'seen by people':>16}"
    lines = [f"{head}{'wrong of released':>19}{'bound broken':>14}{'noticed after':>15}"]
    for one in rows:
        noticed = "" if one.noticed is None else f"{one.noticed:g} cases"
        lines.append(
            f"{one.stream:<19}{one.policy:<25}{one.cases:>7}{one.seen:>9.0f}{one.seen / one.cases:>7.0%}"
            f"{one.released_wrong:>19.1%}{one.broken:>14.1%}{noticed:>15}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thresholds", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seeds", type=int, default=40, help="streams of each kind (40)")
    parser.add_argument("--cases", type=int, default=20_000, help="cases of each stream (20000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    if not (given.directory / "train.csv").is_file():
        print(f"there is no train.csv in {given.directory}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name, (before, after) in streams(given.directory).items():
        rows += play(name, before, after, given.seeds, given.cases)
    promised = f"at most {ERROR:.0%} of released cases wrong, with {CONFIDENCE:.0%} confidence, audit {AUDIT:.0%}"
    print(
        json.dumps([asdict(one) for one in rows])
        if given.json
        else f"{promised}; {given.seeds} streams\n\n{table(rows)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
