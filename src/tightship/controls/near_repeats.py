"""Near repeats, found while they happen: an agent that says or asks nearly the same again, in other words (F1).

What an agent says is a state: a turn is what it was given and what it gave, a call its tool and arguments, a round of
a pattern what was begun in it and what came of it (a plan and its results, messages heard and messages said). Two
states are nearly the same when all short values, all numbers and the structure are equal, and their longer texts have
most of their words in common (P. Jaccard, 1901). Turns and calls that are exactly the same do not count here:
`LoopDetector` and `RunLimits.count_repeat` bound them. Rounds that are do, since their ids make each of their turns
another one.

Only what was said since anything new came in is looked at: a read result that was not known, a write that was done,
something new in the shared context, a person's answer. Each branch and item is a line of its own; the rounds of a step
are one. Kept are addresses of what the ledger holds, and no text: a text is opened only once enough was said for a
verdict, so a run in which things move pays for a list of a few addresses, and a run that is taken over has the same
lists from its entries.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tightship.controls.limits import REPEATED
from tightship.controls.loops import ROUND
from tightship.controls.transcript import LONGEST, likeness, words
from tightship.core import kinds
from tightship.core.errors import Unavailable
from tightship.core.ports import WORKFLOW, Json

ROUND_NOTE: Final = "round"
"""The type of the note that says what a round of a pattern was."""
WINDOW: Final = 16
"""States of one agent that a new one is compared with, the youngest."""
_ROUND: Final = "round "
_TEXT: Final = 3
"""Words from which on a value is a text; a shorter one is a name, an id or a choice, and has to be equal."""
_SHORT: Final = 200
"""Characters of a value that are looked at for that."""
_MARKS: Final = ".,;:!?()[]\"'"
_INSIDE: Final = re.compile(r"(?<=[\w,]\s)[^\W\d_]\w*")
"""Words that do not begin a sentence."""
_ADDRESS: Final = re.compile(r"\S*[@\d]\S*")
"""Numbers, ids and addresses of mail in a text."""
_TALK: Final = frozenset({"/inbox/*/text", "/messages/*/text"})
"""Where the words of messages stand in a round of peers."""
_COUNT: Final = re.compile(r"(?<!\S)#?(\d{1,9})(?=[.,;:!?)]*(?:\s|$))")
"""A whole number that stands alone."""
_STEP: Final = 2
"""By so much a number may go up from round to round and be a mere count: of one's own messages, or of both sides'."""


@dataclass(frozen=True, slots=True)
class NearLimits:
    """When saying nearly the same counts as a loop.

    Attributes:
        similar: how many states that are nearly the same an agent may have had since anything new came in; the next
            one is refused.
        similarity: the share of words in common from which on two texts are nearly the same, above 0 to 1.
    """

    similar: int = 3
    similarity: float = 0.7


@dataclass(frozen=True, slots=True)
class Gist:
    """What two values are compared by.

    Attributes:
        exact: what has to be equal: short values and numbers, each with its place. words: those of longer texts.
        counts: the largest whole number in the words of messages, by place; not among what has to be equal.
    """

    exact: frozenset[tuple[str, Json]]
    words: frozenset[str]
    counts: tuple[tuple[str, int], ...] = ()

    def likeness(self, other: Gist) -> float:
        """0 when something differs that has to be equal, else the share of words in common, 0 to 1."""
        if self.exact != other.exact:
            return 0.0
        return likeness(self.words, other.words) if self.words or other.words else 1.0


def gist(value: Json, names: bool = False, talk: bool = False) -> Gist:
    """The gist of a value; of its texts, the first `LONGEST` characters are looked at.

    Args:
        value: any JSON.
        names: words with a capital letter inside a sentence count like numbers: what is asked with another name is
            something else.
        talk: it is of a round: whole numbers in the words of messages are told apart from the rest (`counts_on`).
    """
    exact: set[tuple[str, Json]] = set()
    found: set[str] = set()
    left = LONGEST
    counts: dict[str, int] = {}
    for place, one in _leaves(value, ""):
        if talk and place in _TALK and isinstance(one, str):
            numbers = [int(found) for found in _COUNT.findall(one[:LONGEST])]
            if numbers:
                counts[place] = max(*numbers, counts.get(place, 0))
                one = _COUNT.sub("#", one[:LONGEST])
        if not isinstance(one, str) or len(one[:_SHORT].split()) < _TEXT:
            exact.add((place, " ".join(one.casefold().split()) if isinstance(one, str) else one))
            continue
        text = one[:left]
        exact.add((place, "a text"))
        exact.update((place, word.casefold().strip(_MARKS)) for word in _ADDRESS.findall(text))
        if names:
            exact.update((place, word.casefold()) for word in _INSIDE.findall(text) if word[0].isupper())
        found.update(words(text))
        left -= len(text)
    return Gist(frozenset(exact), frozenset(found), tuple(sorted(counts.items())))


def counts_on(rounds: Sequence[Sequence[Gist]]) -> bool:
    """Whether the numbers in the words of these rounds, the oldest first, only count on: "no idea 1", "no idea 2". Any
    other number is something new."""
    steps = [(dict(one.counts), dict(its.counts)) for a, b in pairwise(rounds) for one, its in zip(a, b, strict=True)]
    return all(
        before.keys() == after.keys() and all(0 <= after[place] - before[place] <= _STEP for place in after)
        for before, after in steps
    )


def _leaves(value: Json, place: str) -> Iterator[tuple[str, str | float | bool | None]]:
    """What stands in a value, with its place. A list is one place: said in two points or in three, it is the same."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _leaves(one, f"{place}/{name}")
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one, f"{place}/*")
    else:
        yield place, value


@dataclass(slots=True)
class Said:
    """One state.

    Attributes:
        kind, key: its entry. given: the address by which exactly the same is recognised.
        gave: the address of what a turn or a round gave; empty for a call.
        gists: what it is compared by, once that was worked out.
    """

    kind: str
    key: str
    given: str
    gave: str = ""
    gists: tuple[Gist, ...] = ()


class NearRepeats:
    """What the agents of one run have said since anything new came in.

    Args:
        limits: when that counts as a loop. own: the limits of agents that declare their own.
    """

    __slots__ = ("_asked", "_known", "_lines", "_moved", "limits", "own")

    def __init__(self, limits: NearLimits | None = None, own: Mapping[str, NearLimits] | None = None) -> None:
        self.limits = limits or NearLimits()
        self.own = own or {}
        self._lines: dict[str, dict[str, deque[Said]]] = {}
        self._known: dict[str, set[str]] = {}
        self._asked: dict[str, tuple[str, str]] = {}
        self._moved: set[str] = set()

    def limits_of(self, agent: str) -> NearLimits:
        """What holds for an agent."""
        return self.own.get(agent, self.limits)

    def earlier(self, agent: str, subject: str, line: str = "") -> Sequence[Said]:
        """What the next state is to be compared with; nothing while there is not enough of it for a verdict."""
        said = self._lines.get(_course(line), {}).get(subject, ())
        return () if len(said) < self.limits_of(agent).similar else tuple(said)

    def observe(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        """An entry of the run, its own or a person's, in the order of the ledger; whether it is new or read again."""
        if kind == kinds.TURN and body.get("out"):
            line = str(body.get("line", ""))
            self._say(of_turn(body["agent"], key), Said(kind, key, body["hash"], body["out"]), line)
        elif kind == kinds.ADMITTED:
            self._asked[key] = (str(body.get("args", "")), str(body.get("line", "")))
        elif kind == kinds.SETTLED:
            self._settled(key, body)
        elif kind == kinds.CONTEXT and "since" not in body:  # a refresh brings what a read says
            self._moved |= {key, key.rpartition("/")[0]}
        elif kind == kinds.NOTE and body["type"] == ROUND_NOTE:
            said = Said(kind, key, str(body["args"]), str(body["out"]))
            self._say(of_round(str(body["agent"])), said, str(body["line"]))
        elif kind == kinds.SIGNAL and body.get("type") == "child" and body.get("outcome") != "completed":
            self._clear_turns()  # why a child did not complete is what came of the round
        elif kind == kinds.SIGNAL or (kind == kinds.CLOSED and body.get("by")):
            self._lines.clear()  # a person has answered or done something, or a child has ended

    def _settled(self, key: str, body: Mapping[str, Any]) -> None:
        args, line = self._asked.pop(key, ("", ""))
        if body.get("again"):
            self._asked[key] = (args or str(body.get("args", "")), line or str(body.get("line", "")))
            return
        args, line = args or str(body.get("args", "")), line or str(body.get("line", ""))
        done, cls = bool(body.get("out")), body.get("cls")
        subject = of_call(str(body.get("agent", "")), str(body.get("name", "")), key)
        for one in body.get("context", ()):
            self._learn(f"{one.get('scope')} {one.get('key')} {one.get('version')}", line)
        if done and cls == "read":
            self._learn(str(body["out"]), line)
        elif done and (cls == "write" or key in self._moved):
            self._forget(line, subject)
        self._moved.discard(key)
        if cls in REPEATED and args and body.get("agent") != WORKFLOW and _answered(body):
            self._say(subject, Said(kinds.SETTLED, key, args), line)

    def _say(self, subject: str, one: Said, line: str) -> None:
        """After what was learned by it."""
        at = self._lines.setdefault(_course(line), {})
        if subject not in at:
            at[subject] = deque(maxlen=WINDOW)
        at[subject].append(one)

    def _clear_turns(self) -> None:
        """All that was said before is past, but for the rounds of patterns."""
        for said in self._lines.values():
            for subject in [one for one in said if not one.startswith(_ROUND)]:
                del said[subject]

    def _learn(self, value: str, line: str) -> None:
        """Something was read; what is known there already changes nothing."""
        for one in _upward(line):
            known = self._known.setdefault(one, set())
            if value not in known:
                known.add(value)
                self._lines.pop(one, None)

    def _forget(self, line: str, subject: str) -> None:
        """A write was done: all that was said before is past, but for the calls of this very kind by this agent."""
        for one in _upward(line):
            said = self._lines.get(one)
            if said:
                self._lines[one] = {subject: said[subject]} if subject in said else {}


def _answered(body: Mapping[str, Any]) -> bool:
    """Whether a call came to an end, with an answer or without being let out; one that got no answer is a retry."""
    unanswered = (body.get("error") or {}).get("kind") == Unavailable.kind
    return not unanswered


def _course(line: str) -> str:
    """The line, or that of all rounds of a step."""
    return line.rpartition("/")[0] if line.endswith(ROUND) else line


def _upward(line: str) -> Iterator[str]:
    """The line and those that it was opened in."""
    line = _course(line)
    yield line
    while line:
        line = line.rpartition("/")[0]
        yield line


def of_turn(agent: str, key: str) -> str:
    """The subject of an agent's turns; a declared retry of a step is one of its own."""
    return f"turn {agent} {_tries(key.rpartition('/')[2])}"


def of_call(agent: str, tool: str, key: str) -> str:
    """The subject of an agent's calls of a tool; those of a declared retry are one of their own."""
    return f"call {agent} {tool} {_tries(key)}"


def of_round(agent: str) -> str:
    """The subject of the rounds that an agent decides on, in the line of their step."""
    return f"{_ROUND}{agent}"


def _tries(key: str) -> str:
    return "" if "~" not in key else "/".join(part.partition("~")[2] for part in key.split("/"))
