"""Drift (F6): how an agent, or a workflow, behaves now against a baseline.

One run is one observation: turns of the same run depend on each other, and a test that took them for independent would
raise false alarms. Each feature is tested by permutation, the p-values are adjusted by Holm's rule, and what is told as
drift is also large enough to matter. So a check of what has not
changed raises an alarm in at most `level` of all cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from tightship.controls.limits import HANDOFF
from tightship.core import kinds
from tightship.core.ports import EntryView, Json
from tightship.ledger import Ledger
from tightship.runtime.output_features import of_output
from tightship.runtime.readings import ERASED, Effect, Turn, effects, turn_key, turns
from tightship.runtime.samples import (
    Test,
    change_point,
    compare_categories,
    compare_numbers,
    exact_categories,
    exact_numbers,
    holm,
    permutations_for,
)

LEVEL: Final = 0.01
"""The chance of a false alarm of one check, over all features together."""
EFFECT: Final = 0.1
"""Smaller differences are not told: with many runs every difference is certain, and most do not matter."""
FEWEST: Final = 30
"""Observations on either side, below which nothing is said."""
MOST: Final = 500
"""Observations on either side that are looked at, the latest ones."""
_EVIDENCE: Final = 5
_BATCH: Final = 100

Value = str | float


@dataclass(frozen=True, slots=True)
class Observation:
    """How one run behaved: texts are categories, numbers are numbers."""

    run: str
    at: float
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Change:
    """A feature that is not what it was.

    Attributes:
        feature: which. p: adjusted for the number of features. effect: 0 to 1.
        was, now: the shares of the categories that changed most, or the medians.
        since: store time (s) from which on. runs: some of the runs that show it, the first ones.
    """

    feature: str
    p: float
    effect: float
    was: str
    now: str
    since: float
    runs: tuple[str, ...]

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {
            "feature": self.feature,
            "p": self.p,
            "effect": self.effect,
            "was": self.was,
            "now": self.now,
            "since": self.since,
            "runs": list(self.runs),
        }


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What a check found.

    Attributes:
        subject: `agent:NAME` or `workflow:NAME`. baseline, recent: observations on either side.
        features: how many were tested. changes: those that drifted, the most certain first.
        missing: why nothing can be said; empty when something can.
    """

    subject: str
    baseline: int
    recent: int
    features: int = 0
    changes: tuple[Change, ...] = ()
    missing: str = ""

    def as_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {
            "subject": self.subject,
            "baseline": self.baseline,
            "recent": self.recent,
            "features": self.features,
            "drifted": [one.as_dict() for one in self.changes],
            "missing": self.missing,
        }


def compare(
    subject: str,
    baseline: Sequence[Observation],
    recent: Sequence[Observation],
    *,
    level: float = LEVEL,
    effect: float = EFFECT,
    fewest: int = FEWEST,
    exact: bool = False,
) -> DriftReport:
    """Whether the recent observations behave as the baseline did.

    Args:
        level: the most that the chance of a false alarm may be. effect: the least difference that is told.
        fewest: observations needed on either side, of each feature.
        exact: compute p in place of drawing permutations, of which a very small level would need too many.
    """
    if min(len(baseline), len(recent)) < fewest:
        missing = f"{len(baseline)} runs in the baseline and {len(recent)} since; {fewest} of each are needed"
        return DriftReport(subject, len(baseline), len(recent), missing=missing)
    names = sorted({name for one in (*baseline, *recent) for name in one.values})
    sides = {name: (_column(baseline, name), _column(recent, name)) for name in names}
    tested = {name: pair for name, pair in sides.items() if min(len(side) for side in pair) >= fewest}
    draws = 0 if exact else permutations_for(len(tested), level)
    results = {name: _test(*pair, draws, f"{subject}/{name}") for name, pair in tested.items()}
    adjusted = holm({name: result.p for name, result in results.items()})
    drifted = [name for name, p in adjusted.items() if p <= level and results[name].effect >= effect]
    found = [_change(name, adjusted[name], results[name].effect, baseline, recent) for name in drifted]
    changes = tuple(sorted(found, key=lambda one: (one.p, -one.effect, one.feature)))
    return DriftReport(subject, len(baseline), len(recent), len(tested), changes)


def told_apart(
    agent: str, before: Sequence[Json], after: Sequence[Json], schema: Mapping[str, Any] | None
) -> list[str]:
    """The fields by which a check would tell that an agent's outputs are no longer what they were.

    Args:
        before, after: outputs of as many runs. schema: JSON Schema of the output: which of its fields are compared.
    """
    sides = [
        [
            Observation(f"{name}-{at}", float(at), of_output(one, schema) if isinstance(one, Mapping) else {})
            for at, one in enumerate(outputs)
        ]
        for name, outputs in (("before", before), ("after", after))
    ]
    return [one.feature for one in compare(f"agent:{agent}", *sides).changes]


def _column(observations: Iterable[Observation], name: str) -> list[Value]:
    return [one.values[name] for one in observations if name in one.values]


def _test(first: Sequence[Value], second: Sequence[Value], permutations: int, seed: str) -> Test:
    ours = [one for one in first if not isinstance(one, str)]
    theirs = [one for one in second if not isinstance(one, str)]
    if len(ours) == len(first) and len(theirs) == len(second):
        return compare_numbers(ours, theirs, permutations, seed) if permutations else exact_numbers(ours, theirs)
    texts, others = [str(one) for one in first], [str(one) for one in second]
    return compare_categories(texts, others, permutations, seed) if permutations else exact_categories(texts, others)


def _change(
    name: str, p: float, effect: float, baseline: Sequence[Observation], recent: Sequence[Observation]
) -> Change:
    before = [one for one in baseline if name in one.values]
    after = [one for one in recent if name in one.values]
    old, new = ([one.values[name] for one in side] for side in (before, after))
    if any(isinstance(one, str) for one in (*old, *new)):
        shares = [Counter(str(one) for one in side) for side in (old, new)]
        moved = {one: shares[1][one] / len(new) - shares[0][one] / len(old) for one in shares[0] | shares[1]}
        grown = max(sorted(moved), key=lambda one: moved[one])
        scores = [float(str(one.values[name]) == grown) for one in (*before, *after)]
        most = sorted(moved, key=lambda one: (-abs(moved[one]), one))[:3]
        was, now = (", ".join(f"{one} {share[one] / sum(share.values()):.0%}" for one in most) for share in shares)
        shows = [one for one in after if str(one.values[name]) == grown]
    else:
        scores = [float(one.values[name]) for one in (*before, *after)]
        middles = [median([float(one) for one in side]) for side in (old, new)]
        was, now = (f"{middle:g}" for middle in middles)
        up = middles[1] >= middles[0]
        shows = [one for one in after if (float(one.values[name]) > middles[0]) == up]
    since = after[min(change_point(scores, len(before)) - len(before), len(after) - 1)].at
    runs = [one.run for one in shows if one.at >= since]
    return Change(name, p, effect, was, now, since, tuple(runs[:_EVIDENCE]))


# --- observations from the ledger -----------------------------------------------------------------------


async def latest(
    ledger: Ledger, subject: str, runs: Sequence[str], most: int = MOST, schema: Mapping[str, Any] | None = None
) -> list[Observation]:
    """The last observations of these runs, given in the order in which they ended; no more are read than it takes."""
    found: list[Observation] = []
    for end in range(len(runs), 0, -_BATCH):
        found = [*await observe(ledger, subject, runs[max(0, end - _BATCH) : end], schema), *found]
        if len(found) >= most:
            break
    return found[-most:]


async def observe(
    ledger: Ledger, subject: str, runs: Sequence[str], schema: Mapping[str, Any] | None = None
) -> list[Observation]:
    """How these runs behaved, in the order in which they ended; those in which an agent had no turn are left out.

    Args:
        subject: `agent:NAME` or `workflow:NAME`.
        schema: JSON Schema of the agent's output: which of its fields are compared.
    """
    kind, _, name = subject.partition(":")
    found: list[Observation] = []
    for start in range(0, len(runs), _BATCH):
        grouped = await ledger.runs_entries(runs[start : start + _BATCH])
        views = {run: _View(entries) for run, entries in grouped.items() if entries}
        wanted = [address for view in views.values() for address in view.outputs(name)] if kind == "agent" else []
        values = await ledger.values(list(dict.fromkeys(wanted)), ERASED)
        for run, view in views.items():
            seen = view.of_agent(name, values, schema) if kind == "agent" else view.of_run()
            if seen is not None:
                found.append(Observation(run, view.at, seen))
    return sorted(found, key=lambda one: (one.at, one.run))


@dataclass(slots=True)
class _View:
    """One run's entries as features."""

    entries: Sequence[EntryView]
    turns: dict[str, Turn] = field(init=False)
    effects: list[Effect] = field(init=False)

    def __post_init__(self) -> None:
        self.turns = turns(self.entries)
        self.effects = list(effects(self.entries).values())

    @property
    def at(self) -> float:
        return self.entries[-1].at

    def outputs(self, agent: str) -> list[str]:
        """The address of the last output."""
        last = self._last(agent)
        return [last.out] if last is not None and last.out else []

    def _last(self, agent: str) -> Turn | None:
        return next((turn for turn in reversed(self.turns.values()) if turn.agent == agent), None)

    def of_agent(
        self, agent: str, values: Mapping[str, Json], schema: Mapping[str, Any] | None
    ) -> dict[str, Value] | None:
        """Its last output, and what it did in all its turns."""
        last = self._last(agent)
        if last is None:
            return None
        own = [turn for turn in self.turns.values() if turn.agent == agent]
        keys = {turn.key for turn in own}
        seen = self._of([one for one in self.effects if one.agent == agent and turn_key(one.key) in keys])
        seen["ends"] = str((last.error or {}).get("error", "answers"))
        seen["repairs"] = float(sum("~" in turn.key.rpartition("/")[2] for turn in own))
        seen["turns"] = float(len(own))
        output = values.get(last.out)
        if isinstance(output, Mapping):
            seen |= of_output(output, schema)
        return seen

    def of_run(self) -> dict[str, Value]:
        """How it ended, and what all its agents did together."""
        seen = self._of(self.effects)
        ended = next((one for one in reversed(self.entries) if one.kind == kinds.ENDED), None)
        seen["ends"] = "open" if ended is None else str(ended.body.get("outcome"))
        seen["turns"] = float(len(self.turns))
        seen["repairs"] = float(sum("~" in key.rpartition("/")[2] for key in self.turns))
        notes = Counter(str(one.body.get("type")) for one in self.entries if one.kind == kinds.NOTE)
        seen["handoffs"] = float(notes[HANDOFF])
        seen["failed checkpoints"] = float(notes["checkpoint.failed"])
        seen["questions to people"] = float(sum(one.kind == kinds.OPENED for one in self.entries))
        return seen

    @staticmethod
    def _of(effects: Sequence[Effect]) -> dict[str, Value]:
        seen: dict[str, Value] = {
            "calls": float(sum(one.calls for one in effects)),
            "call failures": float(sum(one.failures for one in effects)),
            "refusals": float(sum(one.refusals for one in effects)),
            "tokens in": float(sum(one.tokens_in for one in effects)),
            "tokens out": float(sum(one.tokens_out for one in effects)),
            "tools": " + ".join(sorted({one.name for one in effects if one.cls in ("read", "write")})) or "none",
        }
        models = sorted({str(one.meta["model"]) for one in effects if one.cls == "model" and one.meta.get("model")})
        if models:
            seen["model"] = " + ".join(models)
        return seen
