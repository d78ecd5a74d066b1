"""The documents: shelves of passages that can be searched and cited. A file of `documents/` is a shelf."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tightship.agents.offline import BM25Index, Passage, exact_facts, read_passages
from tightship.agents.offline.text import sentences, terms

EVERYWHERE: Final = "*"
"""The name for all shelves that a question may use."""
INTERNAL: Final = "internal"
_MONTH: Final = re.compile(r"\d{4}-\d{2}\Z")
_SLOW: Final = re.compile(r"^answers after: (\d+) s$", re.MULTILINE)
_FIGURE: Final = re.compile(r"[\d.-]+\Z")
_ASKS: Final = frozenset(terms("how many much long does do say which what say give tell"))


@cache
def passages(folder: Path) -> Mapping[str, Passage]:
    """Every passage of the documents by its id."""
    return {passage.id: passage for passage in read_passages(folder)}


@cache
def index(folder: Path, shelves: tuple[str, ...]) -> BM25Index:
    """The passages of some shelves, indexed at first use. Internal ones are not among them."""
    files = {f"{shelf}.md" for shelf in shelves}
    found = [one for one in passages(folder).values() if one.source in files and INTERNAL not in one.tags]
    return BM25Index(found)


@cache
def exists(folder: Path, shelf: str) -> bool:
    """Whether there is such a shelf."""
    return (folder / f"{shelf}.md").is_file()


@cache
def seconds(folder: Path, shelf: str) -> int:
    """How long a search of this shelf takes (s)."""
    slow = _SLOW.search((folder / f"{shelf}.md").read_text("utf-8"))
    return int(slow[1]) if slow else 0


def month(passage: Passage) -> str:
    """When it was last reviewed, as `2026-03`; empty where it does not say."""
    return next((tag for tag in passage.tags if _MONTH.match(tag)), "")


def share(part: str, text: str) -> float:
    """How much of what is asked for a text holds, 0 to 1."""
    asked = set(terms(part)) - _ASKS
    return len(asked & set(terms(text))) / len(asked) if asked else 0.0


def figures(text: str) -> list[str]:
    """The numbers and dates of a text; identifiers such as HT-40 are none."""
    return sorted(fact for fact in exact_facts(text) if _FIGURE.match(fact))


def best_sentence(part: str, found: Sequence[Passage]) -> tuple[str, Passage] | None:
    """The sentence that holds most of what is asked for, of the passages in this order."""
    pairs = [(sentence, passage) for passage in found for sentence in sentences(passage.text)]
    return max(pairs, key=lambda pair: share(part, pair[0]), default=None)
