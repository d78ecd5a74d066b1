"""The documents: shelves of passages that can be searched and opened. A file of `documents/` is a shelf, but for
the registry, which is asked by itself.

Every search and every look into a passage goes through these tools, so it is bounded, recorded and drilled as any
other reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from typing_extensions import TypedDict

from tightship import tool
from tightship.agents.offline import BM25Index, Passage, read_passages

INTERNAL: Final = "internal"
FOLDER: Final = Path(__file__).parents[1] / "documents"
_MONTH: Final = re.compile(r"\d{4}-\d{2}\Z")


class Found(TypedDict):
    """Ids of passages, best first, and the shelves that could not be reached."""

    passages: list[str]
    missing: list[str]


class Text(TypedDict):
    """A passage. `month`: when it was last reviewed, as `2026-03`; empty where it does not say."""

    id: str
    month: str
    text: str


@tool(effect="read", local=True, timeout=30)
async def search(shelves: list[str], text: str, limit: int = 3) -> Found:
    """Full-text search (BM25) on shelves of the house. Internal passages are not found."""
    there = tuple(shelf for shelf in shelves if (FOLDER / f"{shelf}.md").is_file())
    hits = _index(there).search(text, limit=limit) if there else []
    return {"passages": [hit.passage.id for hit in hits], "missing": [one for one in shelves if one not in there]}


@tool(effect="read", local=True, timeout=30)
async def get(ids: list[str]) -> list[Text]:
    """Passages by their ids, as far as there are any that may be cited."""
    known = [_passages()[id] for id in ids if id in _passages()]
    return [{"id": one.id, "month": _month(one), "text": one.text} for one in known if INTERNAL not in one.tags]


@cache
def _passages() -> Mapping[str, Passage]:
    return {passage.id: passage for passage in read_passages(FOLDER)}


@cache
def _index(shelves: tuple[str, ...]) -> BM25Index:
    """The passages of some shelves, indexed at first use."""
    files = {f"{shelf}.md" for shelf in shelves}
    return BM25Index([one for one in _passages().values() if one.source in files and INTERNAL not in one.tags])


def _month(passage: Passage) -> str:
    return next((tag for tag in passage.tags if _MONTH.match(tag)), "")
