"""Keys of the shared context and patterns of them, as text."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

_PART = r"[A-Za-z0-9_.@:-]{1,64}"
_PATTERN = re.compile(rf"(?:{_PART}|\*)(?:/(?:{_PART}|\*))*\Z")
_KEY = re.compile(rf"{_PART}(?:/{_PART})*\Z")
MAX_KEY: Final = 200


def check_key(key: Any) -> str:
    """A key: parts of letters, digits and `_.@:-`, divided by `/`.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(key, str) or len(key) > MAX_KEY or not _KEY.match(key):
        raise ValueError(f"{key!r} is no key; write parts of letters, digits and _.@:- with / between, as stock/widget")
    return key


def check_pattern(key: Any) -> str:
    """A key in which a part may be `*`, which stands for any one part.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(key, str) or len(key) > MAX_KEY or not _PATTERN.match(key):
        raise ValueError(f"{key!r} is no key and no pattern of keys; write for example stock/widget or stock/*")
    return str(key)


def matches(pattern: str, key: str) -> tuple[str, ...] | None:
    """What the stars of a pattern stand for in a key, or None when the key is another."""
    parts, given = pattern.split("/"), key.split("/")
    if len(parts) != len(given):
        return None
    if any(part not in ("*", one) for part, one in zip(parts, given, strict=True)):
        return None
    return tuple(one for part, one in zip(parts, given, strict=True) if part == "*")


KeyPattern = Annotated[str, BeforeValidator(check_pattern)]
"""A key, or a pattern such as `stock/*`."""
