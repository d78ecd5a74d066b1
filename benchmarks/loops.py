"""How well loops are found in logs of agents: `python -m benchmarks.loops LOGS [--json] [--fit FILE]`.

LOGS is a folder of JSON files. Each holds `history`, a list of `{"role", "content"}`, in which an orchestrator judges
now and then whether the work is in a loop: a message with a JSON object that has `is_in_loop: {"answer": true}` (the
progress ledger of Magentic-One). These judgements are the labels: silver ones, made by a model and not by people. A
label stands for the last message before it. The detector sees no aside at all (`NAME (…)`), so neither the labels nor
the words in which they are given, nor that a plan was made anew.

Printed are precision, recall and F1 of the shipped model on these files; of the model fitted to all files but one and
tried on that one, over all files (leave one file out), with its threshold taken from the same other files; of what
costs nothing: always saying loop, and exact repeats; and of the near repeats by which runs are stopped. Intervals are
bootstrapped over files, since the labels of one file depend on one another. `--fit` writes the model that is fitted to
all of them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tightship.controls.loop_signs import ANEW, SIGNS, Logistic, SignReader
from tightship.controls.loop_verdicts import LoopModel, LoopWatch, shipped_model
from tightship.controls.near_repeats import WINDOW, Gist, NearLimits, gist
from tightship.controls.transcript import Said, transcript

RIDGE: Final = 1.0
"""Penalty on the squared coefficients of standardised signs."""
_DRAWS: Final = 2000


@dataclass(frozen=True, slots=True)
class Log:
    """One file: what the detector sees, the labels as (position in it, loop), and positions that begin an attempt."""

    name: str
    messages: tuple[Said, ...]
    labels: tuple[tuple[int, bool], ...]
    anew: frozenset[int]

    @property
    def taught(self) -> tuple[tuple[int, bool], ...]:
        """The labels that a model can learn from: of several at one position the first.

        The second is given after a plan was made anew, of which the detector sees nothing yet.
        """
        first: dict[int, bool] = {}
        for position, loop in self.labels:
            first.setdefault(position, loop)
        return tuple(first.items())


def read_logs(folder: Path) -> list[Log]:
    """The logs of a folder that hold labels."""
    return [log for path in sorted(folder.glob("*.json")) if (log := _read(path)).labels]


def _read(path: Path) -> Log:
    history = json.loads(path.read_text(encoding="utf-8"))["history"]
    visible: list[Said] = []
    labels: list[tuple[int, bool]] = []
    anew: set[int] = set()
    planned = False
    for message in transcript(history):
        if message.aside:
            loop = _label(message.text)
            if loop is not None and visible:
                labels.append((len(visible) - 1, loop))
            planned = planned or (len(visible) > 1 and _plans(message.text))
            continue
        if planned and not message.addressee:
            anew.add(len(visible))
            planned = False
        visible.append(message)
    return Log(path.name, tuple(visible), tuple(labels), frozenset(anew))


def _label(text: str) -> bool | None:
    if '"is_in_loop"' not in text:
        return None
    try:
        return bool(json.loads(text[text.index("{") : text.rindex("}") + 1])["is_in_loop"]["answer"])
    except (ValueError, KeyError, TypeError):
        return None


def _plans(text: str) -> bool:
    return text.startswith(("New plan", "Stalled"))


# --- fitting ------------------------------------------------------------------------------------------


def fit_logistic(names: Sequence[str], rows: Sequence[Sequence[float]], truth: Sequence[bool]) -> Logistic:
    """Logistic regression with a ridge penalty on standardised values, by Newton's method."""
    count = len(rows)
    means = [sum(column) / count for column in zip(*rows, strict=True)]
    scales = [
        math.sqrt(sum((value - mean) ** 2 for value in column) / count) or 1.0
        for column, mean in zip(zip(*rows, strict=True), means, strict=True)
    ]
    standard = [
        [1.0, *((value - mean) / scale for value, mean, scale in zip(row, means, scales, strict=True))] for row in rows
    ]
    size = len(names) + 1
    weights = [0.0] * size
    for _ in range(25):
        gradient = [RIDGE * weight if at else 0.0 for at, weight in enumerate(weights)]
        hessian = [[RIDGE * (at == to and at > 0) for to in range(size)] for at in range(size)]
        for row, loop in zip(standard, truth, strict=True):
            chance = 1 / (1 + math.exp(-sum(w * value for w, value in zip(weights, row, strict=True))))
            for at, value in enumerate(row):
                gradient[at] += (chance - loop) * value
                for to, other in enumerate(row):
                    hessian[at][to] += chance * (1 - chance) * value * other
        weights = [weight - step for weight, step in zip(weights, _solve(hessian, gradient), strict=True)]
    slopes = {name: weights[at + 1] / scales[at] for at, name in enumerate(names)}
    return Logistic(weights[0] - sum(slopes[name] * mean for name, mean in zip(names, means, strict=True)), slopes)


def _solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Gaussian elimination with partial pivoting."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for at in range(size):
        best = max(range(at, size), key=lambda row: abs(rows[row][at]))
        rows[at], rows[best] = rows[best], rows[at]
        for below in range(at + 1, size):
            share = rows[below][at] / rows[at][at]
            rows[below] = [value - share * above for value, above in zip(rows[below], rows[at], strict=True)]
    found = [0.0] * size
    for at in reversed(range(size)):
        known = sum(rows[at][to] * found[to] for to in range(at + 1, size))
        found[at] = (rows[at][size] - known) / rows[at][at]
    return found


def fit(logs: Sequence[Log]) -> LoopModel:
    """The model of these logs.

    Its threshold is half of the F1 that it reaches: where that is best for calibrated scores (Z. Lipton, C. Elkan, B.
    Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure", 2014).
    """
    guesses = [one for log in logs for one in _guesses(log)]
    anew = fit_logistic(ANEW, [row for row, _ in guesses], [begun for _, begun in guesses])
    taught = [(vector, loop) for log in logs for vector, loop in _signs(log, anew)]
    loop = fit_logistic(SIGNS, [vector for vector, _ in taught], [loop for _, loop in taught])
    model = LoopModel(anew, loop, 0.5)
    pairs = [pair for log in logs for pair in scored(log, model)]
    best = max(figures([(score >= cut, loop) for score, loop in pairs])[2] for cut, _ in pairs)
    return LoopModel(anew, loop, best / 2)


def _guesses(log: Log) -> Iterator[tuple[list[float], bool]]:
    reader = SignReader()
    for position, message in enumerate(log.messages):
        reader.read(message, anew=position in log.anew)
        if reader.guess is not None:
            yield [reader.guess[name] for name in ANEW], position in log.anew


def _signs(log: Log, anew: Logistic) -> Iterator[tuple[tuple[float, ...], bool]]:
    reader = SignReader(anew)
    seen = [reader.read(message).vector() for message in log.messages]
    return ((seen[position], loop) for position, loop in log.taught)


# --- measuring ----------------------------------------------------------------------------------------

Pair = tuple[bool, bool]
"""What was said, and what was true."""


def figures(pairs: Sequence[Pair]) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    hits = sum(said and true for said, true in pairs)
    called, loops = sum(said for said, _ in pairs), sum(true for _, true in pairs)
    return hits / max(1, called), hits / max(1, loops), 2 * hits / max(1, called + loops)


def scored(log: Log, model: LoopModel) -> list[tuple[float, bool]]:
    """Score and truth at each label of a log."""
    watch = LoopWatch(model)
    scores = [watch.judge(message).score for message in log.messages]
    return [(scores[position], loop) for position, loop in log.labels]


def judged(log: Log, model: LoopModel) -> list[Pair]:
    """What the model says, and what is true, at each label of a log."""
    return [(score >= model.threshold, loop) for score, loop in scored(log, model)]


def exact(log: Log) -> list[Pair]:
    """The floor: a message counts as a loop when its speaker has said exactly that before."""
    seen: set[tuple[str, str, str]] = set()
    again: list[bool] = []
    for message in log.messages:
        what = (message.speaker, message.addressee, message.text)
        again.append(what in seen)
        seen.add(what)
    return [(again[position], loop) for position, loop in log.labels]


def near(log: Log, limits: NearLimits | None = None) -> list[Pair]:
    """The rule by which runs are stopped, as far as a log shows what it looks at (controls.near_repeats).

    A message counts when its speaker has said nearly the same to the same addressee as often as it may; a reply that
    is not nearly like one of its speaker's latest is news, and all begin anew.
    """
    limits = limits or NearLimits()
    said: dict[tuple[str, str], deque[Gist]] = {}
    found: list[bool] = []
    for message in log.messages:
        mine, whose = gist(message.text), (message.speaker, message.addressee)
        earlier = said.get(whose, ())
        alike = sum(mine.likeness(one) >= limits.similarity for one in earlier)
        found.append(alike >= limits.similar)
        if not message.addressee and not alike:
            said.clear()
        said.setdefault(whose, deque(maxlen=WINDOW)).append(mine)
    return [(found[position], loop) for position, loop in log.labels]


def area(pairs: Sequence[tuple[float, bool]]) -> float:
    """The area under the ROC curve: how often a loop has the higher score; ties count half."""
    loops = [score for score, loop in pairs if loop]
    others = [score for score, loop in pairs if not loop]
    wins = sum((one > other) + 0.5 * (one == other) for one in loops for other in others)
    return wins / max(1, len(loops) * len(others))


def precision_at(pairs: Sequence[tuple[float, bool]], recall: float) -> float:
    """The precision at the threshold from which on this share of the loops is found."""
    cut = sorted((score for score, loop in pairs if loop), reverse=True)
    least = cut[max(0, math.ceil(recall * len(cut)) - 1)]
    return figures([(score >= least, loop) for score, loop in pairs])[0]


def interval(files: Sequence[Sequence[Pair]]) -> tuple[float, float]:
    """The 95 % interval of F1, bootstrapped over files (seed 0)."""
    chance = random.Random(0)
    drawn = sorted(
        figures([pair for one in chance.choices(files, k=len(files)) for pair in one])[2] for _ in range(_DRAWS)
    )
    return drawn[int(0.025 * _DRAWS)], drawn[int(0.975 * _DRAWS)]


def _line(files: Sequence[Sequence[Pair]]) -> dict[str, Any]:
    precision, recall, f1 = figures([pair for one in files for pair in one])
    low, high = interval(files)
    return {
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(f1, 3),
        "f1_95": [round(low, 3), round(high, 3)],
    }


def measure(logs: Sequence[Log], say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """All figures on these logs."""
    models = []
    for left_out in logs:
        say(f"fitting without {left_out.name}")
        models.append(fit([log for log in logs if log is not left_out]))
    scores = [pair for log, model in zip(logs, models, strict=True) for pair in scored(log, model)]
    began = time.perf_counter()
    shipped = [judged(log, shipped_model()) for log in logs]
    took = time.perf_counter() - began
    return {
        "files": len(logs),
        "labels": len(scores),
        "loops": sum(loop for _, loop in scores),
        "always": _line([[(True, loop) for _, loop in log.labels] for log in logs]),
        "exact_repeats": _line([exact(log) for log in logs]),
        "near_repeats": _line([near(log) for log in logs]),
        "shipped_model": _line(shipped),
        "left_out": _line([judged(log, model) for log, model in zip(logs, models, strict=True)])
        | {"auc": round(area(scores), 3), "precision_at_recall_0.35": round(precision_at(scores, 0.35), 3)},
        "ms_per_message": round(1000 * took / sum(len(log.messages) for log in logs), 3),
    }


def document(model: LoopModel, logs: Sequence[Log], found: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The model as JSON, with the record of how it was made."""

    def part(one: Logistic) -> dict[str, Any]:
        return {
            "intercept": round(one.intercept, 4),
            "weights": {name: round(value, 4) for name, value in one.weights.items()},
        }

    record = {"made_by": "python -m benchmarks.loops LOGS --fit FILE", "source": source}
    record |= {name: found[name] for name in ("files", "labels", "loops", "left_out")}
    threshold = round(model.threshold, 3)
    return {"anew": part(model.anew), "loop": part(model.loop), "threshold": threshold, "record": record}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("logs", type=Path, help="a folder of logs as JSON")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="write the model that is fitted to these logs")
    parser.add_argument("--source", default="", help="where the logs come from; stands in the model's record")
    given = parser.parse_args(arguments)
    logs = read_logs(given.logs)
    if len(logs) < 2:
        print(f"{given.logs} holds fewer than two logs with labels", file=sys.stderr)
        return 1
    found = measure(logs, say=lambda line: print(line, file=sys.stderr))
    if given.fit is not None:
        made = document(fit(logs), logs, found, given.source)
        given.fit.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{found['files']} files, {found['labels']} labels, {found['loops']} of them loops")
    for name in ("always", "exact_repeats", "near_repeats", "shipped_model", "left_out"):
        one = found[name]
        low, high = one["f1_95"]
        print(
            f"{name:14} precision {one['precision']:.2f}  recall {one['recall']:.2f}  "
            f"F1 {one['f1']:.2f} ({low:.2f} to {high:.2f})"
        )
    print(f"left_out       AUC {found['left_out']['auc']:.2f}", end="  ")
    print(f"precision at recall 0.35: {found['left_out']['precision_at_recall_0.35']:.2f}")
    print(f"{found['ms_per_message']} ms per message")
    return 0


if __name__ == "__main__":
    sys.exit(main())
