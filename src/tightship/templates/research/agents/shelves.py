"""What is looked for in passages: how much of a question a sentence holds, and its figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tightship.agents.offline import exact_facts
from tightship.agents.offline.text import sentences, terms

EVERYWHERE: Final = "*"
"""The name for all shelves that a question may use."""
REGISTRY: Final = "registry"
"""The shelf outside the house, which is asked by itself."""
_FIGURE: Final = re.compile(r"[\d.-]+\Z")
_ASKS: Final = frozenset(terms("how many much long does do say which what say give tell"))


def share(part: str, text: str) -> float:
    """How much of what is asked for a text holds, 0 to 1."""
    asked = set(terms(part)) - _ASKS
    return len(asked & set(terms(text))) / len(asked) if asked else 0.0


def figures(text: str) -> list[str]:
    """The numbers and dates of a text; identifiers such as HT-40 are none."""
    return sorted(fact for fact in exact_facts(text) if _FIGURE.match(fact))


def best_sentence(part: str, found: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """The sentence that holds most of what is asked for, of passages in this order, and its passage's id."""
    pairs = [(sentence, str(passage["id"])) for passage in found for sentence in sentences(passage["text"])]
    return max(pairs, key=lambda pair: share(part, pair[0]), default=None)
