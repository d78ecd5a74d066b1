"""From the samples of all sides to the records of results/latest.json, and from the records to the printed table.

`python -m benchmarks.table [FILE]` prints the table of a result file again.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from benchmarks.figures import FIGURES, Figure

LATEST = Path(__file__).resolve().parent / "results" / "latest.json"
PEERS = ("langgraph", "dbos")


class Record(TypedDict):
    """One figure of a result file.

    ours, peers, physical: medians over the rounds, in `unit`; None where a side has no such figure or failed.
    target: the bound in `unit` (computed from the peer where `target_rule` names one); met: whether ours reaches it.
    also: further variants of a side by name. notes: how a side's value came about. samples: every round's value.
    """

    figure: str
    unit: str
    ours: float | None
    peers: dict[str, float | None]
    target: float | None
    target_rule: str | None
    met: bool | None
    higher_is_better: bool
    physical: float | None
    also: dict[str, float]
    notes: dict[str, str]
    samples: dict[str, list[float]]


@dataclass(slots=True)
class Samples:
    """Everything that the sides reported, round after round."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    also: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(
        self,
        side: str,
        figures: Mapping[str, float],
        others: Mapping[str, Mapping[str, float]],
        notes: Mapping[str, str],
    ) -> None:
        """Take in one process's outcome."""
        for figure, value in figures.items():
            self.values.setdefault((figure, side), []).append(value)
        for figure, named in others.items():
            for name, value in named.items():
                self.also.setdefault(figure, {}).setdefault(name, []).append(value)
        for figure, note in notes.items():
            self.notes.setdefault(figure, {})[side] = note

    def median(self, figure: str, side: str) -> float | None:
        """Median over the rounds; None when the side never reported the figure."""
        values = self.values.get((figure, side))
        return _rounded(statistics.median(values)) if values else None


def merge(samples: Samples, figures: Iterable[Figure] = FIGURES) -> list[Record]:
    """One record per figure, in the order of the figures."""
    return [_record(figure, samples) for figure in figures]


def _record(figure: Figure, samples: Samples) -> Record:
    ours = samples.median(figure.name, "ours")
    peers = {peer: samples.median(figure.name, peer) for peer in PEERS}
    target = figure.target.value(peers) if figure.target else None
    met = None
    if ours is not None and target is not None:
        met = ours >= target if figure.higher_is_better else ours <= target
    return Record(
        figure=figure.name,
        unit=figure.unit,
        ours=ours,
        peers=peers,
        target=None if target is None else _rounded(target),
        target_rule=figure.target.rule if figure.target else None,
        met=met,
        higher_is_better=figure.higher_is_better,
        physical=samples.median(figure.name, "physical"),
        also={name: _rounded(statistics.median(v)) for name, v in samples.also.get(figure.name, {}).items()},
        notes=samples.notes.get(figure.name, {}),
        samples={
            side: [_rounded(value) for value in values]
            for (name, side), values in samples.values.items()
            if name == figure.name
        },
    )


def _rounded(value: float) -> float:
    """Four significant digits: what repeats of a measurement do not contradict, and more."""
    return float(f"{value:.4g}")


def render(records: Sequence[Record]) -> str:
    """The table as plain text. `(3.1x)` beside a peer: ours is so many times better; below 1, so much worse."""
    head = ["figure", "unit", "ours", "target", "met", *PEERS, "physical limit"]
    rows = [head, *(_row(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(_cell(text, widths[at], at) for at, text in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    lines += ["", "(2.0x): ours is twice as good as that one; below 1, worse. Medians over the rounds."]
    for record in records:
        lines += [f"  {record['figure']}: {name}: {_number(value)}" for name, value in record["also"].items()]
        lines += [f"  {record['figure']}: {side}: {note}" for side, note in record["notes"].items()]
    return "\n".join(lines)


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 2 else text.rjust(width)


def _row(record: Record) -> list[str]:
    target = "" if record["target"] is None else _number(record["target"])
    if record["target"] is None and record["target_rule"]:
        target = str(record["target_rule"])
    met = {True: "yes", False: "NO", None: ""}[record["met"]]
    beside = [*(record["peers"].get(peer) for peer in PEERS), record["physical"]]
    return [
        record["figure"],
        record["unit"],
        _number(record["ours"]),
        target,
        met,
        *(_with_ratio(record, value) for value in beside),
    ]


def _with_ratio(record: Record, value: float | None) -> str:
    ours = record["ours"]
    if not value or not ours:
        return _number(value)
    better = ours / value if record["higher_is_better"] else value / ours
    return f"{_number(value)} ({better:.2g}x)" if better < 10 else f"{_number(value)} ({better:,.0f}x)"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """Print the table of a result file (default: results/latest.json)."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else LATEST
    print(render(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
