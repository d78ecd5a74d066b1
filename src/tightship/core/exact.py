"""JSON from outside, read so that no number changes.

A whole number beyond 64 bits is JSON (RFC 8259, section 6, leaves its range to the reader), and orjson reads it as the
nearest float: an account number or a nonce would be another one from there on. It is refused in place of that.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 64) - 1
_LONG: Final = re.compile(rb"[0-9]{19}")
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?', re.DOTALL)
_DIGITS: Final = len(str(_MOST)) + 1


class NumberTooLong(orjson.JSONDecodeError):
    """A whole number in a JSON text does not fit into 64 bits; `msg` names it."""


def loads(data: bytes | str) -> Any:
    """The value of a JSON text.

    Args:
        data: UTF-8, or text.

    Raises:
        orjson.JSONDecodeError: it is none. NumberTooLong, which is one: a whole number in it would not be kept exactly.
    """
    value = orjson.loads(data)
    raw = data.encode() if isinstance(data, str) else data
    if _LONG.search(raw) is not None:
        for token in _TOKEN.finditer(raw):
            text = token[0]
            if text[:1] != b'"' and token[1] is None and token[2] is None and not _fits(text):
                shown = text.decode()
                shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
                raise NumberTooLong(
                    f"the whole number {shown} does not fit into 64 bits and would not be kept exactly:"
                    " write it as a text, in quotes",
                    raw.decode(),
                    len(raw[: token.start()].decode()),
                )
    return value


def _fits(digits: bytes) -> bool:
    return len(digits) <= _DIGITS and _LEAST <= int(digits) <= _MOST
