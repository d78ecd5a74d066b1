"""Endless loops, found while they happen: repeated states, cycles of any length, ping-pong handoffs (F1).

A state is an agent with the hash of its input. As long as nothing new was learned, a state that comes again is a
turn that can only go the same way again. New information is a read result, an answer or a message that was not
known before: it starts the count anew. A model's own words are no new information.

What runs side by side is not a loop, so each branch is a line of its own: the sequence is that of the key path.
Within a line the order is the same in every replay, so a replay finds what the first run found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tightship.core import kinds
from tightship.core.errors import LoopFound
from tightship.core.ports import EntryView

State = tuple[str, str]
ROUND: Final = "*"
"""Ends the line of one round of a step: exact repetition counts in it alone, near repetition over all rounds."""
_FIX = "give the agents new information or a different step here; the limits are repeats, cycles and bounces"


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """When repetition counts as a loop.

    Attributes:
        repeats: the same state this many times without new information.
        cycles: the same sequence of two or more states this many times over, one after the other.
        bounces: handoffs in a row that only go back and forth between two agents (A-B-A-B-A is four).
    """

    repeats: int = 4
    cycles: int = 3
    bounces: int = 4


class _Line:
    """The sequence of turns of one branch since something new was learned."""

    __slots__ = ("bounces", "known", "last", "runs", "seen", "states")

    def __init__(self) -> None:
        self.states: list[State] = []
        self.seen: dict[State, list[int]] = {}
        self.runs: dict[int, int] = {}
        self.known: set[str] = set()
        self.last: tuple[str, str] | None = None
        self.bounces = 0

    def learn(self, value: str) -> None:
        if value in self.known:
            return
        self.known.add(value)
        self.states.clear()
        self.seen.clear()
        self.runs.clear()
        self.last, self.bounces = None, 0


class LoopDetector:
    """Watches the turns and handoffs of one run.

    The cost of a turn is bounded by `repeats`, not by the length of the run: a period under which the sequence
    repeats can only be the distance to an earlier visit of the same state, and there are fewer of those than the limit.
    """

    __slots__ = ("_keys", "_lines", "limits")

    def __init__(self, limits: LoopLimits | None = None) -> None:
        self.limits = limits or LoopLimits()
        self._lines: dict[str, _Line] = {}
        self._keys: set[str] = set()

    def turn(self, key: str, agent: str, digest: str, line: str = "") -> None:
        """An agent is about to take a turn.

        Args:
            key: the turn's key; a key that was seen before is a replay and counts nothing.
            agent: its name.
            digest: the hash of all that it is given.
            line: the key path of the branch it runs in, empty outside of branches.

        Raises:
            LoopFound: the run goes round in a circle; the message names the circle.
        """
        found = self._observe(key, (agent, digest), line)
        if found is not None:
            raise LoopFound(found, fix=_FIX)

    def handoff(self, key: str, source: str, target: str, line: str = "") -> None:
        """Control is about to pass from one agent to another.

        Raises:
            LoopFound: two agents only pass it back and forth.
        """
        bounces = self._bounce(key, source, target, line)
        if bounces >= self.limits.bounces:
            raise LoopFound(
                f"{source} and {target} hand the work back and forth ({bounces} times in a row) "
                "and nothing new was learned",
                fix=_FIX,
            )

    def news(self, value: str, line: str = "") -> None:
        """Something was read or received; call it for replayed reads as well, what is known changes nothing.

        Args:
            value: the payload's address: equal content has an equal address.
            line: where; the branches above it learn it too.
        """
        self._line(line).learn(value)
        while line:
            line = line.rpartition("/")[0]
            for one in (line, f"{line}{ROUND}"):
                at = self._lines.get(one)
                if at is not None:
                    at.learn(value)

    def restore(self, entries: Iterable[EntryView], line_of: Callable[[str], str] = lambda key: "") -> None:
        """Take in a run's recorded turns and handoffs, without raising; before a resumed run goes on.

        Args:
            entries: the run's entries in ledger order.
            line_of: the line that a key belongs to.
        """
        entries = list(entries)
        # A turn is recorded when it ends, but stands in the sequence where it began: before what it read.
        turns = {entry.key: entry for entry in entries if entry.kind == kinds.TURN}
        for entry in entries:
            if entry.kind == kinds.NOTE and entry.body.get("type") == "handoff":
                body = entry.body
                self._bounce(entry.key, str(body.get("source", "")), str(body.get("target", "")), line_of(entry.key))
            turn = next((turns[key] for key in _paths(entry.key) if key in turns), None)
            if turn is None:
                continue
            body = turn.body
            self._observe(turn.key, (str(body.get("agent", "")), str(body.get("hash", ""))), line_of(turn.key))
            if entry.kind == kinds.SETTLED and entry.body.get("cls") == "read" and entry.body.get("out"):
                self.news(str(entry.body["out"]), line_of(turn.key))

    def _line(self, line: str) -> _Line:
        at = self._lines.get(line)
        if at is None:
            at = self._lines[line] = _Line()
        return at

    def _bounce(self, key: str, source: str, target: str, line: str) -> int:
        """Take in a handoff; how many in a row only went back and forth, 0 for a replay."""
        if key in self._keys:
            return 0
        self._keys.add(key)
        at = self._line(line)
        at.bounces = at.bounces + 1 if at.last == (target, source) else 1
        at.last = (source, target)
        return at.bounces

    def _observe(self, key: str, state: State, line: str) -> str | None:
        """Take in a turn; what is wrong with it, or None."""
        if key in self._keys:
            return None
        self._keys.add(key)
        at = self._line(line)
        here = len(at.states)
        at.states.append(state)
        earlier = at.seen.setdefault(state, [])
        # runs[p]: for how many turns in a row, up to here, the turn p before was the same.
        at.runs = {here - before: at.runs.get(here - before, 0) + 1 for before in earlier}
        earlier.append(here)
        limits = self.limits
        for period in sorted(at.runs):
            times = (at.runs[period] + period) // period
            if period > 1 and times >= limits.cycles:
                circle = " -> ".join(agent for agent, _ in at.states[-period:])
                return (
                    f"the run goes round in a circle: {circle} -> {at.states[-period][0]}, "
                    f"{times} times over with the same inputs, and nothing new was learned"
                )
        if len(earlier) >= limits.repeats:
            return (
                f"{state[0]} was given the same input {len(earlier)} times (hash {state[1][:12]}) "
                "and nothing new was learned in between"
            )
        return None


def _paths(key: str) -> Iterator[str]:
    """The key and every path above it, the longest first."""
    while key:
        yield key
        key = key.rpartition("/")[0]
