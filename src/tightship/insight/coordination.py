"""How well agents work together (O2), and what share of a run is coordination (O5): readings of ledger and definition.

Coordination is what whoever did the work alone would not need:

- turns and calls below a step that its pattern says coordinates (`Step.coordinates`: planners, checkers, judges,
  whoever puts results together);
- turns that only hand over: between getting the work and passing it on, nothing but models was asked. Where the
  receiver is a workflow of its own, that is all of its run;
- turns in which a peer only claims, releases and sends messages: no result is given, and nothing but models was asked;
  and looking at the board and moving on it.

Everything else is work, actions of the workflow included. A run is read together with the runs below it. The time is
that of turns, and of calls outside of turns; waiting for people is neither.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tightship.controls.limits import PEER_TURN
from tightship.core import kinds
from tightship.core.errors import WorkspaceError
from tightship.core.money import show_usd
from tightship.core.ports import EntryView, Json
from tightship.effects.board import LOOK, MOVE
from tightship.insight._efforts import Effort, Pair, Shares
from tightship.insight._reading import Effect, duration, effects, turn_of, turns
from tightship.insight.boundaries import Refusals, listed, refusals
from tightship.ledger import Ledger
from tightship.workflow.definition import from_definition
from tightship.workflow.tree import Step

_MARKS: Final = re.compile(r"[~+!].*")
_STRETCH: Final = re.compile(r"(?P<stretch>(?P<step>.*/)(?P<number>\d+))/note:handoff(?:\.returned|\.refused)?/\d+\Z")
_RETURNED: Final = ("handoff.returned", "handoff.refused")
_PEER_NOTE: Final = f"/note:{PEER_TURN}/"
_BOARD: Final = frozenset({LOOK.spec.name, MOVE.spec.name})
_TRANSPARENT: Final = frozenset({"sequence", "when"})
_UNKNOWN: Final = Step()
_BATCH: Final = 100
"""Families of runs that are read together."""


@dataclass(slots=True)
class Coordination(Shares):
    """What some runs, with the runs below them, were like.

    Attributes:
        runs: how many. coordination, work: what they took. patterns: the same by the innermost pattern around it.
        pairs: the handoffs, by source and target.
        chains: finished ways of the work through at least two handoffs: all facts that were ever given on them, and
            those that stood in the last brief.
        refused: what lay outside of roles, by agent and kind.
    """

    runs: int = 0
    patterns: dict[str, Shares] = field(default_factory=dict[str, Shares])
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict[tuple[str, str], Pair])
    chains: list[int] = field(default_factory=lambda: [0, 0])
    refused: Refusals = field(default_factory=Refusals)

    def pair(self, source: str, target: str) -> Pair:
        """The pair, made where it is new."""
        return self.pairs.setdefault((source, target), Pair(source, target))

    def add(self, other: Coordination) -> None:
        """Take another one in."""
        self.runs += other.runs
        self.take(other)
        for name, shares in other.patterns.items():
            self.patterns.setdefault(name, Shares()).take(shares)
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
            **self.shares(),
            "patterns": {name: one.shares() for name, one in sorted(self.patterns.items())},
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
    """From getting the work to passing it on, as one agent (or the workflow in its place) has it in hand; or a peer's
    turn, of which `gave` says how many results it gave."""

    key: str
    gave: int | None = None
    passed: EntryView | None = None
    returned: list[EntryView] = field(default_factory=list["EntryView"])
    worked: bool = False
    rework: int = 0

    @property
    def only_passes(self) -> bool:
        """Whether nothing but a handoff, or the attempt at one, has come of it; of a peer's turn, but talk."""
        if self.gave is not None:
            return not self.gave and not self.worked
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
        """The stretches of its handoff steps, and its peers' turns, by key, the innermost first."""
        found = dict[str, _Stretch]()
        for entry in self.entries:
            if entry.kind == kinds.NOTE and entry.body["type"] == PEER_TURN:
                key = entry.key.partition(_PEER_NOTE)[0]
                found[key] = _Stretch(key, int(entry.body["results"]))
                continue
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
        _measure(made, runs, one)
        _take_handoffs(made, one)
        made.refused.update(refusals(one.entries))
    return made


def _placed(runs: Mapping[str, _RunReading], run: str, key: str) -> tuple[bool, str]:
    """Whether what stands under a key of a run is coordination, or the run as a whole is; and the pattern around it."""
    at, own = runs.get(run), ""
    while at is not None:
        aside, pattern = place(at.root, key)
        own = own or pattern
        if aside or any(stretch.only_passes for stretch in at.stretches_of(key)):
            return True, pattern
        key, at = at.at, runs.get(at.parent)
    return False, own


def coordinates(root: Step, key: str) -> bool:
    """Whether a key lies below a step that its pattern says coordinates.

    Args:
        root: the steps of the run's definition. key: a key of the run.
    """
    return place(root, key)[0]


def place(root: Step, key: str) -> tuple[bool, str]:
    """Whether a key lies below a step that its pattern says coordinates; and the innermost pattern around it.

    Steps one after the other, and steps that only choose, are transparent: what no other pattern is around stands in
    `sequence`.

    Args:
        root: the steps of the run's definition. key: a key of the run.
    """
    step, is_name, pattern = root, False, "sequence"
    for part in key.split("/"):
        if is_name:  # what a plan has called a task is no step, whatever it is called
            is_name = False
            continue
        name = _MARKS.sub("", part)
        child = next((one for one in step.children() if one.part == name), None)
        if child is None:
            is_name = name in step.named
        elif any(child is one for one in step.coordinates()):
            return True, step.pattern
        else:
            step = child
            if step.pattern not in _TRANSPARENT and any(True for _ in step.children()):
                pattern = step.pattern
    return False, pattern


def _measure(made: Coordination, runs: Mapping[str, _RunReading], one: _RunReading) -> None:
    """Turns and calls of a run, on the side where they belong."""
    places = dict[str, tuple[bool, str]]()

    def count(key: str, effort: Effort, aside: bool = False) -> None:
        if key not in places:
            places[key] = _placed(runs, one.id, key)
        apart, pattern = places[key]
        for shares in (made, made.patterns.setdefault(pattern, Shares())):
            (shares.coordination if apart or aside else shares.work).add(effort)

    known = turns(one.entries)
    for entry in one.entries:
        if entry.kind == kinds.TURN and not entry.body.get("denied"):
            count(entry.key, Effort(turns=1, ms=float(entry.body.get("ms") or 0.0)))
    for effect in one.effects.values():
        turn = turn_of(effect.key, known)
        effort = Effort(0, effect.calls, effect.usd, effect.tokens, effect.ms if turn is None else 0.0)
        count(effect.key if turn is None else turn.key, effort, effect.name in _BOARD)


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
    """Whether it has done or found out anything: whatever went through and is no model, and no look at a board."""
    return effect.cls != "model" and effect.state == "done" and effect.name not in _BOARD


def _again(entry: EntryView) -> bool:
    """A note after which work is done again; a brief that came back is told apart."""
    return bool(entry.kind == kinds.NOTE and entry.body.get("again") and entry.body.get("type") not in _RETURNED)


def _below(key: str, path: str) -> bool:
    return key.startswith(f"{path}/")


# --- the store ----------------------------------------------------------------------------------------


async def coordination_of(ledger: Ledger, run: str) -> Coordination:
    """The reading of a run with the runs below it.

    Raises:
        Archived: its entries have left the store.
    """
    await ledger.run_entries(run)
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


async def coordination_by_run(
    ledger: Ledger, *, workflow: str = "", limit: int = 1000
) -> list[tuple[Mapping[str, Any], Coordination]]:
    """The same of each request by itself, with its row of the `runs` table, the latest first."""
    where = [("workflow", "=", workflow)] if workflow else [("parent", "=", "")]
    rows = await ledger.select("runs", [*where, ("live", "=", 1)], [("started_at", "desc")], limit)
    found = await coordination_of_many(ledger, [row["id"] for row in rows])
    return [(row, found[row["id"]]) for row in rows if row["id"] in found]


async def coordination_left_out(ledger: Ledger, *, workflow: str = "", limit: int = 10_000) -> int:
    """Of so many requests, those that the figures leave out: their entries have left the store for an archive."""
    last = await ledger.select("archives", (), [("n", "desc")], 1)
    if not last:
        return 0
    where = [("workflow", "=", workflow)] if workflow else [("parent", "=", "")]
    rows = await ledger.select("runs", [*where, ("live", "=", 1)], [("started_at", "desc")], limit)
    old = [row["id"] for row in rows if row["state"] == "ended" and row["ended_at"] < last[0]["before"]]
    left = 0
    for start in range(0, len(old), _BATCH):
        found = await ledger.runs_entries(old[start : start + _BATCH])
        left += sum(1 for entries in found.values() if not entries)
    return left


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
