"""Whether a text says only what its sources say.

Without a language model nobody can judge meaning in full; what is checked here is exact and one-sided: numbers, dates,
amounts and identifiers of a claim must stand in its sources, most of its words must stand together in one of them, and
it must deny where the nearest sentence there denies, and only there. A claim that passes can still mislead; a claim
that fails has said something that its sources do not say.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from tightship.agents.offline.text import STOP_WORDS, normalise, sentences, stem, words

_CITATION: Final = re.compile(
    r"\s*\[([A-Za-z]{1,12}-[A-Za-z0-9_-]{1,40}(?:\s*[,;]\s*[A-Za-z]{1,12}-[A-Za-z0-9_-]{1,40})*)\]"
)
_DATE: Final = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_IDENTIFIER: Final = re.compile(r"\b[A-Za-z]{1,4}-\d[\w-]*", re.ASCII)
_NUMBER: Final = re.compile(r"(?<![\w-])\d+(?:[ ,]\d{3})*(?:\.\d+)?")
_COUNTED: Final = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBER_WORDS: Final = {word: str(value) for value, word in enumerate(_COUNTED.split())} | {
    "fourteen": "14",
    "fifteen": "15",
    "twenty": "20",
    "thirty": "30",
    "sixty": "60",
}
_NEGATIONS: Final = frozenset({"no", "not", "never", "none", "cannot", "cant", "without", "nor", "neither"})
_AUXILIARIES: Final = frozenset(
    {"is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "could", "would"}
)
_FILLERS: Final = STOP_WORDS | {"also", "please", "kindly", "now", "still", "very", "here", "therefore", "however"}


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence that states something, without its citations, and the ids that it cites."""

    text: str
    citations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the sources say to a claim.

    Attributes:
        claim: the claim.
        supported: whether it is covered.
        source: the id of the source that covers it best, None when there is none.
        overlap: the share of its words that this source has, 0 to 1.
        missing: what it says that its sources do not: exact facts first, then words.
        reason: why it is not supported, empty when it is.
    """

    claim: Claim
    supported: bool
    source: str | None = None
    overlap: float = 0.0
    missing: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Content:
    words: frozenset[str]
    exact: frozenset[str]
    negated: bool
    parts: tuple[tuple[frozenset[str], bool], ...] = ()
    """The words of each sentence, and whether it denies something."""


def split_claims(text: str, *, courtesies: Collection[str] = ()) -> list[Claim]:
    """The sentences of a text as claims.

    Args:
        text: the text; a citation such as `[KB-12]` or `[KB-12, ORDER-O-2001]` belongs to the sentence before it.
        courtesies: phrases that claim nothing (greeting, thanks, closing), compared without case and citations.
            Whatever else is there is a claim: what is not known to be harmless has to be supported.
    """
    harmless = {_plain(phrase) for phrase in courtesies}
    found: list[Claim] = []
    for sentence in sentences(_tuck_in(text)):
        cited = tuple(
            part.strip() for group in _CITATION.findall(sentence) for part in re.split(r"[,;]", group) if part.strip()
        )
        bare = _CITATION.sub("", sentence).strip()
        if _plain(bare) and (cited or _plain(bare) not in harmless):
            found.append(Claim(bare, tuple(dict.fromkeys(cited))))
    return found


def verify(claim: Claim, sources: Mapping[str, str], *, overlap: float = 0.6) -> Verdict:
    """Whether the sources that a claim cites support it.

    Args:
        claim: what is claimed. Without a citation it is not supported.
        sources: the text of every source that may be cited, by id.
        overlap: how much of the claim's words one passage must have, 0 to 1.
    """
    if not claim.citations:
        return Verdict(claim, False, reason="it cites no source")
    unknown = [name for name in claim.citations if name not in sources]
    if unknown:
        return Verdict(claim, False, missing=tuple(unknown), reason=f"there is no source {', '.join(unknown)}")
    said = _content(claim.text)
    contents = {name: _content(sources[name]) for name in claim.citations}
    known = frozenset[str]().union(*(content.exact for content in contents.values()))
    invented = tuple(sorted(said.exact - known))
    best = max(contents, key=lambda name: (_share(said.words, contents[name]), name))
    share = _share(said.words, contents[best])
    if invented:
        return Verdict(claim, False, best, share, invented, f"its sources do not say {', '.join(invented)}")
    if share < overlap:
        missing = tuple(sorted(said.words - contents[best].words))
        return Verdict(claim, False, best, share, missing, f"only {share:.0%} of its words stand in {best}")
    if said.negated not in _polarities(said.words, contents.values()):
        turned = "denies what its source does not deny" if said.negated else "leaves out that its source denies it"
        return Verdict(claim, False, best, share, (), f"it {turned} ({best})")
    return Verdict(claim, True, best, share)


def verify_all(
    text: str, sources: Mapping[str, str], *, courtesies: Collection[str] = (), overlap: float = 0.6
) -> list[Verdict]:
    """`split_claims` and `verify` in one."""
    return [verify(claim, sources, overlap=overlap) for claim in split_claims(text, courtesies=courtesies)]


def exact_facts(text: str) -> frozenset[str]:
    """The numbers, dates and identifiers of a text, in one spelling (`39.90` and `39.9` are one number)."""
    rest = _CITATION.sub(" ", normalise(text))
    found: set[str] = set()
    for pattern in (_DATE, _IDENTIFIER):
        found.update(match.group() for match in pattern.finditer(rest))
        rest = pattern.sub(" ", rest)
    for match in _NUMBER.finditer(rest):
        number = float(match.group().replace(",", "").replace(" ", ""))
        found.add(f"{number:.10g}")
    found.update(_NUMBER_WORDS[word] for word in words(rest) if word in _NUMBER_WORDS and word != "one")
    return frozenset(found)


def _content(text: str) -> _Content:
    parts = tuple((_stems(sentence), _denies(sentence)) for sentence in sentences(text))
    return _Content(_stems(text), exact_facts(text), _denies(text), parts)


def _denies(text: str) -> bool:
    return any(word in _NEGATIONS or (word.endswith("nt") and word[:-2] in _AUXILIARIES) for word in words(text))


def _stems(text: str) -> frozenset[str]:
    bare = _CITATION.sub(" ", text)
    return frozenset(
        stem(word)
        for word in words(bare)
        if word not in _FILLERS and word not in _NUMBER_WORDS and not any(letter.isdigit() for letter in word)
    )


def _share(said: frozenset[str], source: _Content) -> float:
    """How much of what is said one sentence of the source, or two that follow each other, has."""
    if not said:
        return 1.0
    parts = [part for part, _ in source.parts]
    windows = [first | second for first, second in zip(parts, (*parts[1:], frozenset[str]()), strict=False)]
    return max((len(said & window) / len(said) for window in windows), default=0.0)


def _polarities(said: frozenset[str], sources: Iterable[_Content]) -> set[bool]:
    """Whether the sentences that are nearest to what is said deny something."""
    shares = [(len(said & part), denies) for source in sources for part, denies in source.parts]
    nearest = max((share for share, _ in shares), default=0)
    return {denies for share, denies in shares if share == nearest}


def _tuck_in(text: str) -> str:
    """Put a citation that follows a full stop before it, so that it stays with its sentence."""
    return re.sub(r"([.!?])((?:\s*\[[A-Za-z]{1,12}-[^\]\n]{1,120}\])+)", r"\2\1", text)


def _plain(text: str) -> str:
    return " ".join(words(text))
