"""The registry of approvals: an archive outside the house, which answers slowly. Here it is a file of `documents/`."""

from __future__ import annotations

import asyncio
import re
from functools import cache
from pathlib import Path
from typing import Final

from tightship import tool
from tightship.agents.offline import BM25Index, read_passages

FILE: Final = Path(__file__).parents[1] / "documents" / "registry.md"
_SLOW: Final = re.compile(r"^answers after: (\d+) s$", re.MULTILINE)


@tool(effect="read", local=True, timeout=60)
async def search(text: str, limit: int = 3) -> list[str]:
    """The ids of its passages that fit a text, best first."""
    slow = _SLOW.search(await asyncio.to_thread(FILE.read_text, "utf-8"))
    await asyncio.sleep(int(slow[1]) if slow else 0)
    return [hit.passage.id for hit in _index().search(text, limit=limit)]


@cache
def _index() -> BM25Index:
    return BM25Index([one for one in read_passages(FILE.parent) if one.source == FILE.name])
