"""Texts that a regular expression matches, written from the standard library's own parse of it."""

from __future__ import annotations

import random
import re
from importlib import import_module
from typing import Any

# CPython's parser of patterns: `re` itself is built on it. Its modules have no public name.
_sre: Any = import_module("re._constants")
_parser: Any = import_module("re._parser")
_MAX_REPEAT = 8


class Impossible(Exception):
    """This way of making a value leads nowhere."""


def from_pattern(pattern: str, rng: random.Random, least: int = 0, most: int = 10_000) -> str:
    """A text that a regular expression matches; repeats are drawn between what pattern and lengths allow."""
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError):
        raise Impossible from None
    for stretch in (0, 1, 2, 4, 8, 16, 64):
        text = _written(parsed, rng, stretch)
        if len(text) < least and not pattern.endswith("$"):
            text += "x" * (least - len(text))
        if least <= len(text) <= most and re.search(pattern, text):
            return text
    raise Impossible


def _written(parsed: Any, rng: random.Random, stretch: int) -> str:
    return "".join(_token(kind, value, rng, stretch) for kind, value in parsed)


def _token(kind: Any, value: Any, rng: random.Random, stretch: int) -> str:
    if kind is _sre.LITERAL:
        return chr(value)
    if kind is _sre.ANY:
        return rng.choice("abcdefghij")
    if kind is _sre.IN:
        return _member(value, rng)
    if kind is _sre.NOT_LITERAL:
        return "a" if value != ord("a") else "b"
    if kind in (_sre.MAX_REPEAT, _sre.MIN_REPEAT, _sre.POSSESSIVE_REPEAT):
        low, high, inner = value
        count = min(low + rng.randint(0, _MAX_REPEAT if stretch == 0 else stretch), int(high))
        return "".join(_written(inner, rng, stretch) for _ in range(count))
    if kind is _sre.SUBPATTERN:
        return _written(value[3], rng, stretch)
    if kind is _sre.ATOMIC_GROUP:
        return _written(value, rng, stretch)
    if kind is _sre.BRANCH:
        return _written(rng.choice(value[1]), rng, stretch)
    if kind in (_sre.AT, _sre.ASSERT_NOT):
        return ""
    if kind is _sre.ASSERT:
        return ""
    raise Impossible


_CLASSES = {
    _sre.CATEGORY_DIGIT: "0123456789",
    _sre.CATEGORY_WORD: "abcdefghijklmnopqrstuvwxyz0123456789_",
    _sre.CATEGORY_SPACE: " ",
    _sre.CATEGORY_NOT_DIGIT: "abcdefghij",
    _sre.CATEGORY_NOT_WORD: "-.,",
    _sre.CATEGORY_NOT_SPACE: "abcdefghij",
}
_PRINTABLE = [chr(code) for code in range(33, 127)]


def _member(options: Any, rng: random.Random) -> str:
    allowed: list[str] = []
    negated = False
    for kind, value in options:
        if kind is _sre.NEGATE:
            negated = True
        elif kind is _sre.LITERAL:
            allowed.append(chr(value))
        elif kind is _sre.RANGE:
            low, high = value
            allowed += [chr(code) for code in range(low, min(high, low + 200) + 1)]
        elif kind is _sre.CATEGORY:
            allowed += list(_CLASSES[value])
    if negated:
        allowed = [letter for letter in _PRINTABLE if letter not in allowed]
    if not allowed:
        raise Impossible
    return rng.choice(allowed)
