"""Words and sentences: the one tokeniser that search, classification and claim checking share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:[-.,'’][^\W_]+)*")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[^\Wa-z_])|\n{2,}|\n(?=\s*[-*•]\s)")
_ABBREVIATION: Final = re.compile(r"\b(?:e\.g|i\.e|no|nr|mr|mrs|ms|dr|approx|incl)\.$", re.IGNORECASE)

_STOP: Final = """
a an and are as at be been being but by can could did do does for from had has have he her hers him his i if in into is
it its just me my of on or our ours she so some such than that the their them then there these they this those to too up
us was we were what when which who will with would you your yours am im ive id
"""
STOP_WORDS: Final = frozenset(_STOP.split())
"""Words that carry no subject. Negations, question words and modals of duty stay: they tell requests apart."""

MAX_CHARACTERS: Final = 100_000
"""Longer text is cut here: every step below is linear in the text, and this bounds it."""


def normalise(text: str) -> str:
    """Text in NFKC, lower case (Unicode case folding), with straight quotes, cut at `MAX_CHARACTERS`."""
    return unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).casefold().replace("’", "'")


def words(text: str) -> list[str]:
    """The words of a text in order: normalised, numbers, dates and identifiers (`o-2001`, `39.90`) kept whole."""
    return [
        match.group().replace("n't", "nt").replace("'s", "").replace("'", "")
        for match in _WORD.finditer(normalise(text))
    ]


def stem(word: str) -> str:
    """A word without its plural ending.

    The S-stemmer of Harman, "How effective is suffixing?", JASIS 42(1), 1991: three rules, first match wins. Words
    with digits are left as they are.
    """
    if len(word) < 4 or not word.isalpha():
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word


def terms(text: str, *, stop_words: Iterable[str] = STOP_WORDS) -> list[str]:
    """The stemmed words of a text in order, without `stop_words`."""
    stop = stop_words if isinstance(stop_words, frozenset) else frozenset(stop_words)
    return [stem(word) for word in words(text) if word not in stop]


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, trimmed; list items and paragraphs end a sentence too."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(text[:MAX_CHARACTERS]):
        piece = piece.strip()
        if not piece:
            continue
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        else:
            found.append(piece)
    return found
