"""Odd or huge values as small JSON: an escalation must never fail because of its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

TEXT_LIMIT: Final = 4_000
"""Characters of one text."""
_ITEMS = 200
_DEPTH = 12
_VALUES = 20_000
"""Values in all: a structure that contains itself has no end."""
_INT64 = 1 << 63


def plain(value: Any, text_limit: int = TEXT_LIMIT) -> Any:
    """The value as bounded JSON.

    Args:
        value: anything; what is no JSON becomes text.
        text_limit: characters of one text; what is cut is said.
    """
    return _Plain(text_limit).of(value, 0)


class _Plain:
    __slots__ = ("_left", "_text_limit")

    def __init__(self, text_limit: int) -> None:
        self._text_limit = text_limit
        self._left = _VALUES

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if -_INT64 <= value < _INT64 else str(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if depth >= _DEPTH or self._left <= 0:
                return "…"
            return self._mapping(value, depth) if isinstance(value, Mapping) else self._list(list(value), depth)
        try:
            return self._text(str(value))
        except Exception:
            return f"<{type(value).__name__}>"

    def _text(self, text: str) -> str:
        # Lone surrogates (from bytes that were decoded badly) are no Unicode and cannot be stored.
        text = text.encode("utf-8", "replace").decode()
        more = len(text) - self._text_limit
        return text if more <= 0 else f"{text[: self._text_limit]}… ({more} characters more)"

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for number, (name, inner) in enumerate(value.items()):
            if number >= _ITEMS or self._left <= 0:
                kept["…"] = f"{len(value) - number} more"
                break
            kept[self._text(str(name))] = self.of(inner, depth + 1)
        return kept

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        kept: list[Any] = []
        for number, inner in enumerate(value):
            if number >= _ITEMS or self._left <= 0:
                kept.append(f"… {len(value) - number} more")
                break
            kept.append(self.of(inner, depth + 1))
        return kept
