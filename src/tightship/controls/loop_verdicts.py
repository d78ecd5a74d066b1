"""Whether a run goes round in circles, message by message, from what its agents say (F1).

Two ways lead to a verdict, and the stronger one counts:

- A cycle: the same messages in the same order three times over, of any length. Messages count as the same when they
  say the same but for times and random ids, or nearly the same with the same numbers; a number that has changed is
  something new. One message is a repeat, two by two speakers are ping-pong.
- Signs that nothing moves although the words differ (`loop_signs`), weighed by a logistic model that was fitted to logs
  (`loop_model.json`, which says to which; `benchmarks/loops.py` fits it to others).

Every verdict rests on the messages up to its own: the verdicts of a log are those that were to be had while it ran.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from tightship.controls.loop_signs import ANEW, SIGNS, Logistic, SignReader
from tightship.controls.transcript import Said, likeness, said, transcript, words
from tightship.core.errors import InputRejected

Kind = Literal["", "repeat", "ping_pong", "cycle", "stuck"]

TIMES: Final = 3
"""How often the same has to come, one after the other, to be a cycle."""
WINDOW: Final = 192
"""Messages in which cycles are looked for: the longest one has a third of them."""
_COMPARED: Final = 64
"""Earlier messages of a speaker that a new one is compared with, word by word."""
_ALIKE: Final = 0.9
_PASSING = re.compile(
    r"\d{4}-\d\d-\d\d[t ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:z|[+-]\d\d:?\d\d)?"  # a time stamp
    r"|\b\d{1,2}:\d\d:\d\d(?:\.\d+)?\b"
    r"|\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"
    r"|\b(?=[0-9a-f]*\d)[0-9a-f]{16,}\b",  # a hash or a random id
)


@dataclass(frozen=True, slots=True)
class LoopVerdict:
    """What can be said at one message.

    Attributes:
        position: the message, from 0. looping: whether the run goes round in circles. score: how sure that is, 0 to 1.
        kind: `repeat`, `ping_pong` or `cycle` of the same messages, `stuck` where only signs say so, else empty.
        period: messages of one round of the circle, 0 for `stuck`. reason: why, in words.
    """

    position: int
    looping: bool
    score: float
    kind: Kind = ""
    period: int = 0
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "position": self.position,
            "looping": self.looping,
            "score": round(self.score, 4),
            "kind": self.kind,
            "period": self.period,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class LoopModel:
    """What signs weigh.

    Attributes:
        anew: whether a reply begins a new attempt. loop: whether the run goes round in circles.
        threshold: from which score on a run counts as looping.
    """

    anew: Logistic
    loop: Logistic
    threshold: float

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> LoopModel:
        """From JSON as `benchmarks/loops.py --fit` writes it.

        Raises:
            InputRejected: it is none.
        """
        try:
            anew, loop = (
                Logistic(float(part["intercept"]), {str(name): float(one) for name, one in part["weights"].items()})
                for part in (document["anew"], document["loop"])
            )
            if not (set(anew.weights) <= set(ANEW) and set(loop.weights) <= set(SIGNS)):
                raise ValueError("it weighs signs that there are not")
            return cls(anew, loop, float(document["threshold"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fix = "make it with `python -m benchmarks.loops LOGS --fit FILE`"
            raise InputRejected(f"this is no model for loops: {type(error).__name__} {error}", fix=fix) from None


@cache
def shipped_model() -> LoopModel:
    """The model that ships with Tightship."""
    return LoopModel.read(json.loads(Path(__file__).with_name("loop_model.json").read_text(encoding="utf-8")))


_Circle = tuple[Kind, int, float, str]
_NONE: Final[_Circle] = ("", 0, 0.0, "")


class LoopWatch:
    """Judges messages as they come, in bounded memory.

    Args:
        model: what signs weigh; None for the one that ships.
        threshold: from which score on a run counts as looping; None for the model's.
    """

    def __init__(self, model: LoopModel | None = None, threshold: float | None = None) -> None:
        self._model = model or shipped_model()
        self._threshold = self._model.threshold if threshold is None else threshold
        self._signs = SignReader(self._model.anew)
        self._cycles = _Cycles()
        self._circle = _NONE
        self._position = -1

    def read(self, message: Mapping[str, Any]) -> LoopVerdict:
        """Judge the next message.

        Raises:
            InputRejected: it has no role or no text.
        """
        return self.judge(said(message))

    def judge(self, message: Said) -> LoopVerdict:
        """Judge the next message."""
        self._position += 1
        signs = self._signs.read(message)
        if not message.aside and message.text.strip():
            self._circle = self._cycles.read(message)
        elif not signs.rounds:
            self._circle = _NONE  # a plan was made anew
        values: dict[str, float] = dict(zip(SIGNS, signs.vector(), strict=True))
        score = self._model.loop.probability(values) if self._position else 0.0
        kind, period, sure, reason = self._circle
        if kind:
            score = max(sure, score)
            return LoopVerdict(self._position, score >= self._threshold, score, kind, period, reason)
        if score < self._threshold:
            return LoopVerdict(self._position, False, score)
        return LoopVerdict(self._position, True, score, "stuck", 0, self._why(values))

    def _why(self, values: Mapping[str, float]) -> str:
        """The two signs that weigh most."""
        weights = self._model.loop.weights
        weighty = sorted(((weights[name] * values[name], name) for name in weights), reverse=True)
        return "; ".join(_WORDS[name] for share, name in weighty[:2] if share > 0)


_WORDS: Final[Mapping[str, str]] = {
    "known": "replies bring little that the run did not know",
    "reopened": "replies begin as earlier ones did",
    "unanswered": "instructions were not answered",
    "uptake": "instructions take up what was found",
    "invention": "instructions ask the same in other words",
}


def detect_loops(
    messages: Sequence[Mapping[str, Any]], *, model: LoopModel | None = None, threshold: float | None = None
) -> list[LoopVerdict]:
    """Say for each message whether the run goes round in circles there, from the messages up to it.

    Args:
        messages: `{"role", "content"}` in their order; the first one is the task. `A (-> B)` as a role is an
            instruction of A to B; `A (…)` an aside, of which nothing counts but that it states the task anew.
        model: what signs weigh; None for the one that ships.
        threshold: from which score on a run counts as looping, 0 to 1; None for the model's.

    Returns: one verdict for each message.

    Raises:
        InputRejected: a message has no role or no text.
    """
    watch = LoopWatch(model, threshold)
    return [watch.judge(message) for message in transcript(messages)]


# --- cycles -------------------------------------------------------------------------------------------

_State = tuple[str, str, int]


class _Cycles:
    """The states of the last messages, and under which periods they repeat.

    A state is a speaker, an addressee, and what is said; a period can only be the distance to an earlier message of the
    same state, so a message costs what its state came before within the window.
    """

    def __init__(self) -> None:
        self._at = 0
        self._recent: deque[_State] = deque(maxlen=WINDOW)
        self._runs: dict[int, int] = {}
        self._texts: dict[str, deque[tuple[int, str, frozenset[str]]]] = {}
        self._next = 0

    def read(self, message: Said) -> _Circle:
        """Take in a message; the shortest cycle that it closes: its kind, period, score and words."""
        state = (message.speaker, message.addressee, self._same_text(message))
        size = len(self._recent)
        self._runs = {
            size - back: self._runs.get(size - back, 0) + 1 for back, one in enumerate(self._recent) if one == state
        }
        self._recent.append(state)
        for period in sorted(self._runs):
            times = (self._runs[period] + period) // period
            if times >= TIMES:
                return self._found(period, times)
        return _NONE

    def _found(self, period: int, times: int) -> _Circle:
        speakers = [speaker for speaker, _, _ in list(self._recent)[-period:]]
        circle = " -> ".join(speakers)
        score = 1 - 0.5**times
        if period == 1:
            return "repeat", 1, score, f"{circle} says the same {times} times in a row"
        if period == 2 and len(set(speakers)) == 2:
            return (
                "ping_pong",
                2,
                score,
                f"{speakers[0]} and {speakers[1]} say the same to each other {times} times over",
            )
        return "cycle", period, score, f"the same {period} messages come {times} times over: {circle}"

    def _same_text(self, message: Said) -> int:
        """The number of what is said: that of an earlier message of the speaker that says as good as the same."""
        text = " ".join(_PASSING.sub("#", message.text.lower()).split())
        earlier = self._texts.setdefault(message.speaker, deque(maxlen=_COMPARED))
        if len(self._texts) > WINDOW:
            del self._texts[next(iter(self._texts))]
        distinct = frozenset(words(text))
        for number, before, its in reversed(earlier):
            if before == text or (likeness(distinct, its) >= _ALIKE and _numbers(distinct) == _numbers(its)):
                return number
        self._next += 1
        earlier.append((self._next, text, distinct))
        return self._next


def _numbers(distinct: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in distinct if any(sign.isdigit() for sign in word))
