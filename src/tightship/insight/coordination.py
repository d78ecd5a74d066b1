"""How well agents work together (O2), and what share of a run is coordination (O5): readings of ledger and definition.

Coordination is what whoever did the work alone would not need:

- turns and calls below a step that its pattern says coordinates (`Step.coordinates`: planners, checkers, judges,
  whoever puts results together);
- turns that only hand over: between getting the work and passing it on, nothing but models was asked. Where the
  receiver is a workflow of its own, that is all of its run.

Everything else is work, actions of the workflow included. A run is read together with the runs below it. The time is
that of turns, and of calls outside of turns; waiting for people is neither.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.core import kinds
from tightship.core.errors import WorkspaceError
from tightship.core.money import show_usd, to_usd
from tightship.core.ports import EntryView, Json
from tightship.insight._reading import Effect, duration, effects, turn_of, turns
from tightship.insight.boundaries import Refusals, listed, refusals
from tightship.ledger import Ledger
from tightship.workflow.definition import from_definition
from tightship.workflow.tree import Step

UNITS: Final = ("turns", "tokens", "usd", "ms")
_MARKS: Final = re.compile(r"[~+!].*")
_STRETCH: Final = re.compile(r"(?P<stretch>(?P<step>.*/)(?P<number>\d+))/note:handoff(?:\.returned|\.refused)?/\d+\Z")
_RETURNED: Final = ("handoff.returned", "handoff.refused")
_UNKNOWN: Final = Step()
_BATCH: Final = 100
"""Families of runs that are read together."""


@dataclass(slots=True)
class Effort:
    """Turns, calls, money (nano-dollars), tokens (in and out) and time (ms)."""

    turns: int = 0
    calls: int = 0
    usd: int = 0
    tokens: int = 0
    ms: float = 0.0

    def add(self, other: Effort) -> None:
        """Take another one in."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Json]:
        """All figures; money in dollars, time in seconds."""
        return {
            "turns": self.turns,
            "calls": self.calls,
            "usd": to_usd(self.usd),
            "tokens": self.tokens,
            "seconds": round(self.ms / 1000, 3),
        }


@dataclass(slots=True)
class Pair:
    """How the work passes from one agent to another.

    Attributes:
        source, target: the agents.
        handoffs: how often it passed. returned: how often the brief came back to the sender.
        facts, kept: what the briefs before held, and how much of it the sender's briefs still held.
        misroutes: how often the receiver passed it on or back without having done anything.
        rework: what was done again in the receiver's hands.
    """

    source: str
    target: str
    handoffs: int = 0
    returned: int = 0
    facts: int = 0
    kept: int = 0
    misroutes: int = 0
    rework: int = 0

    @property
    def retention(self) -> float | None:
        """The share of facts that arrived, or None where there were none."""
        return self.kept / self.facts if self.facts else None

    def as_dict(self) -> dict[str, Json]:
        """All figures."""
        return {name: getattr(self, name) for name in self.__slots__} | {"retention": self.retention}


@dataclass(slots=True)
class Coordination:
    """What some runs, with the runs below them, were like.

    Attributes:
        runs: how many. coordination, work: what they took.
        pairs: the handoffs, by source and target.
        chains: finished ways of the work through at least two handoffs: all facts that were ever given on them, and
            those that stood in the last brief.
        refused: what lay outside of roles, by agent and kind.
    """

    runs: int = 0
    coordination: Effort = field(default_factory=Effort)
    work: Effort = field(default_factory=Effort)
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict[tuple[str, str], Pair])
    chains: list[int] = field(default_factory=lambda: [0, 0])
    refused: Refusals = field(default_factory=Refusals)

    def share(self, unit: str) -> float | None:
        """Coordination's share of `turns`, `tokens`, `usd` or `ms`; None where there is nothing of it."""
        part, rest = getattr(self.coordination, unit), getattr(self.work, unit)
        return part / (part + rest) if part + rest else None

    def pair(self, source: str, target: str) -> Pair:
        """The pair, made where it is new."""
        return self.pairs.setdefault((source, target), Pair(source, target))

    def add(self, other: Coordination) -> None:
        """Take another one in."""
        self.runs += other.runs
        self.coordination.add(other.coordination)
        self.work.add(other.work)
        for key, pair in other.pairs.items():
            own = self.pair(*key)
            for name in ("handoffs", "returned", "facts", "kept", "misroutes", "rework"):
                setattr(own, name, getattr(own, name) + getattr(pair, name))
        self.chains = [mine + theirs for mine, theirs in zip(self.chains, other.chains, strict=True)]
        self.refused.update(other.refused)

    def as_dict(self) -> dict[str, Json]:
        """All figures as JSON."""
        return {
            "runs": self.runs,
            "share": {"seconds" if unit == "ms" else unit: self.share(unit) for unit in UNITS},
            "coordination": self.coordination.as_dict(),
            "work": self.work.as_dict(),
            "handoffs": [self.pairs[key].as_dict() for key in sorted(self.pairs)],
            "chains": {"facts": self.chains[0], "kept": self.chains[1]},
            "refused": listed(self.refused),
        }

    def __str__(self) -> str:
        """One line."""
        part, rest = self.coordination, self.work
        shares = [
            f"{part.turns} of {part.turns + rest.turns} turns",
            f"{part.tokens:,} of {part.tokens + rest.tokens:,} tokens" if part.tokens + rest.tokens else "",
            f"{show_usd(part.usd)} of {show_usd(part.usd + rest.usd)}" if part.usd + rest.usd else "",
            f"{duration(part.ms / 1000)} of {duration((part.ms + rest.ms) / 1000)}",
        ]
        return ", ".join(share for share in shares if share)


# --- one family of runs -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Stretch:
    """From getting the work to passing it on, as one agent (or the workflow in its place) has it in hand."""

    key: str
    passed: EntryView | None = None
    returned: list[EntryView] = field(default_factory=list["EntryView"])
    worked: bool = False
    rework: int = 0

    @property
    def only_passes(self) -> bool:
        """Whether nothing but a handoff, or the attempt at one, has come of it."""
        ended = self.passed is not None or any(one.body["type"] == "handoff.refused" for one in self.returned)
        return ended and not self.worked


class _RunReading:
    """One run of a family."""

    def __init__(self, entries: Sequence[EntryView], root: Step) -> None:
        self.entries = entries
        self.id = entries[0].run
        self.parent = str(entries[0].body.get("parent") or "")
        self.at = str(entries[0].body.get("key") or "")
        self.root = root
        self.effects = effects(entries)
        self.stretches = dict(self._stretches())

    @property
    def worked(self) -> bool:
        """Whether this run itself did anything but ask models."""
        return any(_does(effect) for effect in self.effects.values())

    @property
    def rework(self) -> int:
        """Notes after which work was done again."""
        return sum(_again(entry) for entry in self.entries)

    def _stretches(self) -> Iterator[tuple[str, _Stretch]]:
        """The stretches of its handoff steps by key, the innermost first."""
        found = dict[str, _Stretch]()
        for entry in self.entries:
            match = _STRETCH.match(entry.key) if entry.kind == kinds.NOTE else None
            if match is None:
                continue
            one = found.setdefault(match["stretch"], _Stretch(match["stretch"]))
            if entry.body["type"] in _RETURNED:
                one.returned.append(entry)
            else:
                one.passed = entry
                following = f"{match['step']}{int(match['number']) + 1}"
                found.setdefault(following, _Stretch(following))
        for key in sorted(found, key=len, reverse=True):
            one = found[key]
            one.worked = any(_does(effect) and _below(effect.key, key) for effect in self.effects.values())
            one.rework = sum(_again(entry) and _below(entry.key, key) for entry in self.entries)
            yield key, one

    def stretches_of(self, key: str) -> Iterator[_Stretch]:
        """The stretches that a key belongs to."""
        return (one for path, one in self.stretches.items() if _below(key, path))


def family(found: Mapping[str, tuple[Sequence[EntryView], Step]]) -> Coordination:
    """The reading of one run and the runs below it.

    Args:
        found: entries, and the steps of the pinned definition, by run; each run after its parent.
    """
    runs = {run: _RunReading(entries, root) for run, (entries, root) in found.items()}
    for one in reversed(runs.values()):
        above, at, worked, rework = runs.get(one.parent), one.at, one.worked, one.rework
        while above is not None:
            for stretch in above.stretches_of(at):
                stretch.worked |= worked
                stretch.rework += rework
            above, at = runs.get(above.parent), above.at
    made = Coordination(runs=1)
    for one in runs.values():
        whole = _is_coordination(runs, one.parent, one.at)
        _measure(made, runs, one, whole)
        _take_handoffs(made, one)
        made.refused.update(refusals(one.entries))
    return made


def _is_coordination(runs: Mapping[str, _RunReading], run: str, key: str) -> bool:
    """Whether what stands under a key of a run is coordination, or the run as a whole is."""
    at = runs.get(run)
    while at is not None:
        if any(stretch.only_passes for stretch in at.stretches_of(key)) or coordinates(at.root, key):
            return True
        key, at = at.at, runs.get(at.parent)
    return False


def coordinates(root: Step, key: str) -> bool:
    """Whether a key lies below a step that its pattern says coordinates.

    Args:
        root: the steps of the run's definition. key: a key of the run.
    """
    step, is_name = root, False
    for part in key.split("/"):
        if is_name:  # what a plan has called a task is no step, whatever it is called
            is_name = False
            continue
        name = _MARKS.sub("", part)
        child = next((one for one in step.children() if one.part == name), None)
        if child is None:
            is_name = name in step.named
        elif any(child is one for one in step.coordinates()):
            return True
        else:
            step = child
    return False


def _measure(made: Coordination, runs: Mapping[str, _RunReading], one: _RunReading, whole: bool) -> None:
    """Turns and calls of a run, on the side where they belong."""
    sides = dict[str, Effort]()

    def side(key: str) -> Effort:
        if key not in sides:
            aside = whole or _is_coordination(runs, one.id, key)
            sides[key] = made.coordination if aside else made.work
        return sides[key]

    known = turns(one.entries)
    for entry in one.entries:
        if entry.kind == kinds.TURN and not entry.body.get("denied"):
            at = side(entry.key)
            at.turns += 1
            at.ms += float(entry.body.get("ms") or 0.0)
    for effect in one.effects.values():
        turn = turn_of(effect.key, known)
        at = side(effect.key if turn is None else turn.key)
        at.add(Effort(0, effect.calls, effect.usd, effect.tokens, effect.ms if turn is None else 0.0))


def _take_handoffs(made: Coordination, one: _RunReading) -> None:
    """The handoffs of a run, by pair."""
    last = dict[str, tuple[int, EntryView]]()
    for key, stretch in one.stretches.items():
        for note in stretch.returned:
            made.pair(str(note.body["source"]), str(note.body.get("target") or "(undeclared)")).returned += 1
        if stretch.passed is None:
            continue
        body = stretch.passed.body
        pair = made.pair(str(body["source"]), str(body["target"]))
        step, _, number = key.rpartition("/")
        following = one.stretches[f"{step}/{int(number) + 1}"]
        pair.handoffs += 1
        pair.facts += int(body.get("facts") or 0)
        pair.kept += int(body.get("kept") or 0)
        pair.misroutes += following.passed is not None and not following.worked
        pair.rework += following.rework
        if int(number) > last.get(step, (1, None))[0]:
            last[step] = int(number), stretch.passed
    for _, note in last.values():
        made.chains[0] += int(note.body.get("known") or 0)
        made.chains[1] += int(note.body.get("still") or 0)


def _does(effect: Effect) -> bool:
    """Whether it has done or found out anything: whatever went through and is no model."""
    return effect.cls != "model" and effect.state == "done"


def _again(entry: EntryView) -> bool:
    """A note after which work is done again; a brief that came back is told apart."""
    return bool(entry.kind == kinds.NOTE and entry.body.get("again") and entry.body.get("type") not in _RETURNED)


def _below(key: str, path: str) -> bool:
    return key.startswith(f"{path}/")


# --- the store ----------------------------------------------------------------------------------------


async def coordination_of(ledger: Ledger, run: str) -> Coordination:
    """The reading of a run with the runs below it."""
    return (await coordination_of_many(ledger, [run]))[run]


async def coordination_of_many(ledger: Ledger, wanted: Sequence[str]) -> dict[str, Coordination]:
    """The readings of several runs, each with the runs below it."""
    found = dict[str, Coordination]()
    for start in range(0, len(wanted), _BATCH):
        found |= await _batch(ledger, wanted[start : start + _BATCH])
    return found


async def _batch(ledger: Ledger, wanted: Sequence[str]) -> dict[str, Coordination]:
    entries = dict[str, Sequence[EntryView]]()
    heads = {run: run for run in wanted}
    level: Sequence[str] = wanted
    while level:
        entries |= {run: found for run, found in (await ledger.runs_entries(list(level))).items() if found}
        rows = await ledger.select("runs", [("parent", "in", list(level))])
        heads |= {row["id"]: heads[row["parent"]] for row in rows if row["id"] not in heads}
        level = [row["id"] for row in rows if row["id"] not in entries]
    roots = await _roots(ledger, entries.values())
    families = dict[str, dict[str, tuple[Sequence[EntryView], Step]]]()
    for run, found in entries.items():
        body = found[0].body
        families.setdefault(heads[run], {})[run] = found, roots.get(str(body.get("definition")), _UNKNOWN)
    return {run: family(found) for run, found in families.items()}


async def _roots(ledger: Ledger, runs: Iterable[Sequence[EntryView]]) -> dict[str, Step]:
    """The steps of the definitions that the runs are bound to, by address.

    One that this version cannot read has none: its turns are work, but for those that only hand over.
    """
    found = dict.fromkeys(str(entries[0].body.get("definition") or "") for entries in runs)
    values = await ledger.values([address for address in found if address])
    roots = dict[str, Step]()
    for address, definition in values.items():
        with contextlib.suppress(WorkspaceError, ValueError):
            roots[address] = from_definition(definition).workflow.root
    return roots


async def coordination_report(
    ledger: Ledger, *, workflow: str = "", limit: int = 10_000
) -> dict[tuple[str, str], Coordination]:
    """The figures by tenant and workflow of whole requests: of runs that no other run has started, ended or not.

    Args:
        workflow: only this one's runs, also those that other runs have started.
        limit: the latest so many runs.
    """
    where = [("workflow", "=", workflow)] if workflow else [("parent", "=", "")]
    rows = await ledger.select("runs", [*where, ("live", "=", 1)], [("started_at", "desc")], limit)
    return _summed(rows, await coordination_of_many(ledger, [row["id"] for row in rows]))


def _summed(
    rows: Sequence[Mapping[str, Any]], found: Mapping[str, Coordination]
) -> dict[tuple[str, str], Coordination]:
    sums = dict[tuple[str, str], Coordination]()
    for row in rows:
        if row["id"] in found:
            sums.setdefault((row["log"], row["workflow"]), Coordination()).add(found[row["id"]])
    return dict(sorted(sums.items()))


class Lately:
    """The figures of the latest requests that have begun today and ended, each of which is read once.

    Args:
        limit: so many requests at most.
    """

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._read: dict[str, Coordination] = {}

    async def read(self, ledger: Ledger, since: float) -> dict[tuple[str, str], Coordination]:
        """By tenant and workflow.

        Args:
            since: store time (s) from which on a request may have begun.
        """
        where = [("started_at", ">=", since), ("state", "=", "ended"), ("parent", "=", ""), ("live", "=", 1)]
        rows = await ledger.select("runs", where, [("started_at", "desc")], self._limit)
        wanted = [row["id"] for row in rows]
        known = {run: self._read[run] for run in wanted if run in self._read}
        self._read = known | await coordination_of_many(ledger, [run for run in wanted if run not in known])
        return _summed(rows, self._read)
