"""The work that every side does, so that it is equal: sizes, what a step returns, the text of a conversation.

Standard library only, and nothing of Tightship: the peers' environment imports this module too.
"""

from __future__ import annotations

import bisect
import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LANES = 32
"""Runs in flight at once in the concurrent measurements."""

EFFECTS_PER_RUN = 20
"""Steps of one run where steps are counted; many, so that the start and the end of a run weigh little."""

TEAM = ("triage", "knowledge", "account", "respond", "quality")
"""The five agents (steps, nodes) of the workflow whose runs are counted, one after another."""

HELD_AGENT = 2
"""Index in TEAM of the agent inside which every run is when its process is killed."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    warm_up_s, seconds: a throughput window opens after the warm-up and lasts this long.
    alone_effects: effects timed one after another with nothing else in flight.
    turns: turns of the one conversation. resume_runs: runs in flight when the process is killed.
    """

    name: str
    warm_up_s: float
    seconds: float
    alone_effects: int
    turns: int
    resume_runs: int


SIZES = {
    "full": Size("full", warm_up_s=1.0, seconds=4.0, alone_effects=600, turns=1000, resume_runs=1000),
    "quick": Size("quick", warm_up_s=0.3, seconds=1.0, alone_effects=100, turns=100, resume_runs=100),
}

_serial = itertools.count()


def answer() -> dict[str, object]:
    """What one step returns: a small dict of about 100 bytes, never the same twice in a process.

    Different every time so that a store which keeps equal payloads once gains nothing by it.
    """
    number = next(_serial)
    return {"number": number, "text": _ANSWERS[number % len(_ANSWERS)]}


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange of the conversation: what the user says and what the agent replies."""

    user: str
    reply: str

    @property
    def size(self) -> int:
        """Bytes of both texts in UTF-8."""
        return len(self.user.encode()) + len(self.reply.encode())


def turns(count: int, *, seed: int = 7) -> Iterator[Turn]:
    """The first `count` turns of the one conversation; the same for every side and every machine.

    A turn has about 70 words from the user and 240 in reply: 2 KB of text that occurs nowhere else.
    """
    source = _Writer(seed)
    for _ in range(count):
        yield Turn(user=source.passage(70), reply=source.passage(240))


def compressibility(count: int = 1000) -> dict[str, float]:
    """How far zlib (level 6) shrinks the conversation: compressed over plain bytes.

    `alone`: each text by itself; `together`: all of it as one stream.
    """
    texts = [text.encode() for turn in turns(count) for text in (turn.user, turn.reply)]
    plain = sum(map(len, texts))
    return {
        "alone": round(sum(len(zlib.compress(text, 6)) for text in texts) / plain, 3),
        "together": round(len(zlib.compress(b"\n".join(texts), 6)) / plain, 3),
    }


# Two paragraphs: common words in falling order of use, and stems that take endings. Words are drawn independently with
# Zipf-Mandelbrot weights: such text lacks the phrases of real prose, so it shrinks no further than English does and
# flatters no store that compresses.
_COMMON, _STEMS = (
    paragraph.split() for paragraph in Path(__file__).with_name("words.txt").read_text("ascii").split("\n\n")
)
_ENDINGS = ("", "s", "ed", "ing", "er", "able", "ment", "less", "ly", "ful", "ness", "al")


class _Writer:
    """Writes English-like sentences from a seed: common words, inflected stems, order numbers, amounts, dates."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        inflected = [stem + ending for stem in _STEMS for ending in _ENDINGS]
        # Sorted by a seeded shuffle: which inflections are frequent must not follow the alphabet of the list.
        random.Random(11).shuffle(inflected)
        self._words = list(dict.fromkeys(_COMMON + inflected))
        self._weights = list(itertools.accumulate(1.0 / (rank + 2.7) for rank in range(len(self._words))))

    def passage(self, words: int) -> str:
        """About `words` words in sentences of 6 to 18."""
        sentences: list[str] = []
        left = words
        while left > 0:
            length = min(left, self._random.randint(6, 18))
            left -= length
            text = " ".join(self._word() for _ in range(length))
            sentences.append(text[0].upper() + text[1:] + self._random.choice("....?!"))
        return " ".join(sentences)

    def _word(self) -> str:
        draw = self._random.random()
        if draw < 0.02:
            return f"A-{self._random.randrange(10**6):06d}"
        if draw < 0.04:
            return f"{self._random.randrange(1, 900)}.{self._random.randrange(100):02d}"
        place = bisect.bisect(self._weights, self._random.random() * self._weights[-1])
        word = self._words[min(place, len(self._words) - 1)]
        return word + "," if draw > 0.95 else word


_answer_writer = _Writer(3)
_ANSWERS = [_answer_writer.passage(11)[:64].ljust(64, ".") for _ in range(64)]
