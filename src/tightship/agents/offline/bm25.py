"""Full-text retrieval over a folder of passages.

The ranking function is BM25 as given by Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
Beyond", Foundations and Trends in Information Retrieval 3(4), 2009, section 3.4; the heading is a second field whose
term frequencies are weighted before saturation (BM25F, section 3.6).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tightship.agents.offline.concepts import Concepts
from tightship.agents.offline.text import terms
from tightship.core.errors import LoadError

_HEADING: Final = re.compile(r"^##\s+(?P<id>[A-Z]{2,8}-\d{1,5})\s+(?P<title>.+?)\s*(?:\{(?P<tags>[^}]*)\})?\s*$")
_MAX_FILE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of knowledge that can be cited.

    Attributes:
        id: what a citation names, such as `KB-12`.
        heading: its title.
        text: its body, plain text or Markdown.
        tags: what kind of passage it is (topics, `internal`, …).
        source: the file it was read from.
    """

    id: str
    heading: str
    text: str
    tags: frozenset[str] = field(default_factory=frozenset[str])
    source: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found, its score (0 and up, comparable within one query only) and the query terms it contains."""

    passage: Passage
    score: float
    matched: tuple[str, ...]


class BM25Index:
    """An index in memory; it is built once and does not change.

    Args:
        passages: what to search; ids are unique.
        k1: how fast repeated terms saturate (0 and up).
        b: how much long passages are discounted (0 to 1).
        heading_weight: how many times a heading's term counts against a term of the body.
        concepts: groups of words that mean much the same; a passage is then also found by another word of a group.
        concept_weight: how much of a term a group counts.

    Raises:
        ValueError: two passages have the same id, or a parameter is out of range.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        k1: float = 1.2,
        b: float = 0.75,
        heading_weight: float = 3.0,
        concepts: Concepts | None = None,
        concept_weight: float = 0.5,
    ) -> None:
        if min(k1, heading_weight, concept_weight) < 0 or not 0 <= b <= 1:
            raise ValueError("k1 and the weights are 0 or more, b is between 0 and 1")
        self.passages: Mapping[str, Passage] = {passage.id: passage for passage in passages}
        if len(self.passages) != len(passages):
            raise ValueError("two passages have the same id")
        self._k1 = k1
        self._concepts, self._concept_weight = concepts, concept_weight
        self._postings: dict[str, list[tuple[str, float]]] = {}
        frequencies = {passage.id: self._frequencies(passage, heading_weight) for passage in passages}
        lengths = {key: sum(counts.values()) for key, counts in frequencies.items()}
        average = (sum(lengths.values()) / len(lengths)) if lengths else 1.0
        for key, counts in frequencies.items():
            norm = 1 - b + b * lengths[key] / (average or 1.0)
            for term, count in counts.items():
                self._postings.setdefault(term, []).append((key, count / norm))

    def __len__(self) -> int:
        return len(self.passages)

    def idf(self, term: str) -> float:
        """The weight of a term by how few passages contain it: log(1 + (N - n + 0.5) / (n + 0.5)), never negative."""
        n = len(self._postings.get(term, ()))
        return math.log(1 + (len(self.passages) - n + 0.5) / (n + 0.5))

    def search(self, query: str, limit: int = 5, *, without: Iterable[str] = ()) -> list[Hit]:
        """The passages that fit a query best, best first; ties go by id.

        Args:
            query: any text; repeated words count once.
            limit: the most hits to return.
            without: passages with one of these tags are left out.
        """
        barred = frozenset(without)
        scores: dict[str, float] = {}
        matched: dict[str, list[str]] = {}
        for term, share in self._terms(query):
            weight = self.idf(term) * share
            for key, frequency in self._postings.get(term, ()):
                scores[key] = scores.get(key, 0.0) + weight * frequency * (self._k1 + 1) / (self._k1 + frequency)
                if not term.startswith("@"):
                    matched.setdefault(key, []).append(term)
        ranked = sorted(
            (key for key in scores if not barred & self.passages[key].tags), key=lambda key: (-scores[key], key)
        )
        return [Hit(self.passages[key], scores[key], tuple(matched.get(key, ()))) for key in ranked[: max(limit, 0)]]

    def _terms(self, text: str) -> list[tuple[str, float]]:
        """The distinct terms of a text with their shares: 1 for words, `concept_weight` for `@group` terms."""
        found = dict.fromkeys(terms(text), 1.0)
        if self._concepts is not None:
            found |= dict.fromkeys((f"@{name}" for name in self._concepts.find(text)), self._concept_weight)
        return [(term, share) for term, share in found.items() if share > 0]

    def _frequencies(self, passage: Passage, heading_weight: float) -> dict[str, float]:
        weighted: dict[str, float] = {}
        for text, weight in ((passage.text, 1.0), (passage.heading, heading_weight)):
            counts = Counter(terms(text))
            if self._concepts is not None:
                counts.update(f"@{name}" for name in self._concepts.find(text))
            for term, count in counts.items():
                weighted[term] = weighted.get(term, 0.0) + weight * count
        return {term: count for term, count in weighted.items() if count > 0}


def read_passages(folder: Path) -> list[Passage]:
    """The passages of every `*.md` file of a folder, by file name.

    A passage starts with a heading such as `## KB-12 Damaged parcels {delivery_problem, refund}`: id, title and, in
    braces, tags. What stands before a file's first passage is not read.

    Raises:
        LoadError: a heading has no id, an id stands twice, a passage is empty, or there is no passage at all.
    """
    found: dict[str, Passage] = {}
    for path in sorted(folder.glob("*.md")):
        if path.stat().st_size > _MAX_FILE:
            raise LoadError("the file is too large for a knowledge file", file=str(path), fix="split it up")
        for line, passage in _passages_of(path):
            if passage.id in found:
                raise LoadError(
                    f"the passage {passage.id} stands in {found[passage.id].source} too",
                    file=str(path),
                    line=line,
                    fix="give each passage its own id",
                )
            found[passage.id] = passage
    if not found:
        raise LoadError(
            "there are no passages here", file=str(folder), fix="add a *.md file with '## KB-1 Title' headings"
        )
    return list(found.values())


def _passages_of(path: Path) -> list[tuple[int, Passage]]:
    sections: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("## "):
            sections.append((number, line, []))
        elif sections:
            sections[-1][2].append(line)
    return [(number, _passage(path, number, heading, body)) for number, heading, body in sections]


def _passage(path: Path, number: int, heading: str, body: list[str]) -> Passage:
    match = _HEADING.match(heading)
    text = "\n".join(body).strip()
    if match is None:
        raise LoadError("a passage needs an id", file=str(path), line=number, fix="write '## KB-12 Title {tag, tag}'")
    if not text:
        raise LoadError("the passage is empty", file=str(path), line=number, fix="write its text below the heading")
    tags = frozenset(tag.strip() for tag in (match["tags"] or "").split(",") if tag.strip())
    return Passage(match["id"], match["title"], text, tags, path.name)
