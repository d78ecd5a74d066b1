"""What messages show of a run that goes round in circles: causal signs, each from the messages up to then.

A run is read in rounds and attempts. A round is an instruction (a message with an addressee) and what is answered; in a
log without addressees each message is a round. An attempt begins with the task, and anew where the agents begin again
from their start: what was tried before no longer says that this attempt circles. A new beginning is told by an aside
that states the task again (a new plan), or guessed from an agent whose reply opens as its very first one did.

Signs add up over rounds with a fading memory, since one step without anything new is no loop, and several are.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tightship.controls.transcript import Said, likeness, words

SIGNS: Final = ("known", "reopened", "unanswered", "uptake", "invention")
"""What is weighed; the fields of `Signs`."""
ANEW: Final = ("rounds", "as_at_first", "same_instruction")
"""By what a new beginning is guessed."""

_FADE: Final = 0.7
_VOCABULARY: Final = 100_000
"""Words that are remembered: about four times what the longest public logs of agents hold."""
_KEPT: Final = 2_000
"""Openings that are remembered."""
_OPENING: Final = 200
_COMMONPLACE: Final = 0.75
"""In this share of a speaker's messages a word is a form of theirs and says neither that something is new nor old."""
_RESTATED: Final = 0.8
_SAME_SUBJECT: Final = 0.15
_MOST_INVENTED: Final = 0.3
_FIRST_QUOTED = re.compile(r"'[^']*'")


class Memory:
    """A set that forgets what came in longest ago when it is full."""

    __slots__ = ("_kept", "_limit")

    def __init__(self, limit: int) -> None:
        self._kept: dict[str, None] = {}
        self._limit = limit

    def __contains__(self, one: str) -> bool:
        return one in self._kept

    def add(self, one: str) -> None:
        """Take in; what is in it already stays where it was."""
        if one not in self._kept:
            if len(self._kept) >= self._limit:
                del self._kept[next(iter(self._kept))]
            self._kept[one] = None


@dataclass(slots=True)
class Signs:
    """The signs at one position.

    Attributes:
        known: share of a reply's words that the run knew already. reopened: replies that open as an earlier one did.
        unanswered: instructions that nobody answered. uptake: share of an instruction's words that are new and come
            from the reply before it: work goes on from what was found. invention: share of its words that nobody has
            said before, numbers aside, where it asks what one of the last instructions has asked.
        rounds: rounds of this attempt.
    """

    known: float = 0.0
    reopened: float = 0.0
    unanswered: float = 0.0
    uptake: float = 0.0
    invention: float = 0.0
    rounds: float = 0.0

    def vector(self) -> tuple[float, ...]:
        """The weighed signs, in the order of `SIGNS`."""
        return self.known, self.reopened, self.unanswered, self.uptake, self.invention

    def fade(self, share: float) -> None:
        """Keep this share of all."""
        self.known *= share
        self.reopened *= share
        self.unanswered *= share
        self.uptake *= share
        self.invention *= share
        self.rounds *= share


@dataclass(slots=True)
class _Speaker:
    first: frozenset[str]
    messages: int = 0
    uses: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, slots=True)
class Logistic:
    """A logistic model: named coefficients and an intercept."""

    intercept: float
    weights: Mapping[str, float]

    def probability(self, values: Mapping[str, float]) -> float:
        """Between 0 and 1."""
        score = self.intercept + sum(weight * values[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))


class SignReader:
    """Reads messages one by one.

    Args:
        anew: guesses from `ANEW` whether a reply begins a new attempt; None: only what is told counts.
    """

    def __init__(self, anew: Logistic | None = None) -> None:
        self.signs = Signs()
        self.guess: dict[str, float] | None = None
        """By what a new beginning was guessed at the latest reply; None after any other message."""
        self._anew = anew
        self._task: frozenset[str] | None = None
        self._known = Memory(_VOCABULARY)
        self._instructed = Memory(_VOCABULARY)
        self._openings = Memory(_KEPT)
        self._speakers: dict[str, _Speaker] = {}
        self._instruction: frozenset[str] = frozenset()
        self._asked: deque[frozenset[str]] = deque(maxlen=4)
        self._same = 0.0
        self._reply: frozenset[str] = frozenset()
        self._waiting = False
        self._last_known = 0.0

    def read(self, message: Said, anew: bool | None = None) -> Signs:
        """Take in a message. `anew` says whether it begins an attempt, where that is known. Returns: the signs."""
        self.guess = None
        if message.aside:
            if self._restates(message.text):
                self.signs.fade(0.0)
            return self.signs
        if not message.text.strip():
            return self.signs
        said = words(message.text)
        distinct = frozenset(said)
        if self._task is None:
            self._task = distinct
        elif message.addressee:
            self._instruct(distinct)
        else:
            self._answer(message, distinct, anew)
        for word in said:
            self._known.add(word)
        return self.signs

    def _restates(self, text: str) -> bool:
        """Whether an aside states the task again, with more: a plan that was made anew."""
        if not self._task:
            return False
        distinct = set(words(text))
        return len(distinct) > len(self._task) and len(self._task & distinct) >= _RESTATED * len(self._task)

    def _instruct(self, said: frozenset[str]) -> None:
        signs = self.signs
        task = self._task or frozenset()
        signs.rounds += 1
        signs.unanswered += self._waiting
        fresh = [word for word in said if word not in self._instructed and word not in task]
        taken = sum(word in self._reply for word in fresh)
        size = max(1, len(said))
        signs.uptake = _FADE * signs.uptake + taken / size
        self._same = likeness(said, self._instruction)
        signs.invention = _FADE * signs.invention + self._invented(said) / size
        self._instruction = said
        self._waiting = True
        for word in said:
            self._instructed.add(word)

    def _invented(self, said: frozenset[str]) -> float:
        """How many words come from nowhere, of an instruction that asks what one of the last has asked."""
        task = self._task or frozenset()
        again = any(likeness(said, before) >= _SAME_SUBJECT for before in self._asked)
        self._asked.append(said)
        if not again:
            return 0.0
        new = sum(not (word in self._known or word in task or any(sign.isdigit() for sign in word)) for word in said)
        return min(float(new), _MOST_INVENTED * len(said))

    def _answer(self, message: Said, said: frozenset[str], anew: bool | None) -> None:
        signs = self.signs
        opening = message.text.lstrip().partition("\n")[0][:_OPENING].lower()
        form = frozenset(words(_FIRST_QUOTED.sub("x", opening, count=1)))
        if not self._waiting:
            signs.rounds += 1
        self._begin_again(message.speaker, form, anew)
        speaker = self._speakers.setdefault(message.speaker, _Speaker(form))
        known = self._known_share(said, speaker)
        # Without instructions a call and its answer are two messages: what brought news is no standstill, nor is what
        # comes after it, though it be the same call again.
        stale = known if self._waiting else min(known, self._last_known)
        signs.known = _FADE * signs.known + stale
        signs.reopened = _FADE * signs.reopened + (opening in self._openings and (self._waiting or stale >= 0.5))
        self._last_known = known
        self._openings.add(opening)
        speaker.messages += 1
        if len(speaker.uses) < _VOCABULARY:
            speaker.uses.update(said)
        self._reply = said
        self._waiting = False

    def _known_share(self, said: frozenset[str], speaker: _Speaker) -> float:
        often = _COMMONPLACE * speaker.messages
        if speaker.messages >= 2:
            said = frozenset(word for word in said if word not in self._known or speaker.uses[word] <= often)
        if not said:
            return 1.0
        return sum(word in self._known for word in said) / len(said)

    def _begin_again(self, speaker: str, form: frozenset[str], anew: bool | None) -> None:
        """An agent whose reply opens as its very first one did may stand at the start again."""
        before = self._speakers.get(speaker)
        if before is None:
            return
        self.guess = {
            "rounds": min(self.signs.rounds, 8.0),
            "as_at_first": likeness(form, before.first),
            "same_instruction": self._same,
        }
        share = float(anew) if anew is not None else self._anew.probability(self.guess) if self._anew else 0.0
        self.signs.fade(1 - share)
        self.signs.rounds += share
