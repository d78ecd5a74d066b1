"""How probable an answer was, from the log-probabilities of its tokens as a provider gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final

SETTING: Final = "openai_logprobs"
"""How the library is told to ask for them; it is passed over by providers that have none."""
_SPACE: Final = " \t\r\n"
_DECODER: Final = JSONDecoder()


def token_probability(tokens: Sequence[Mapping[str, Any]], text: str, field: str = "") -> tuple[float, int] | None:
    """The probability of an answer, or of one field of it.

    Of a whole answer it is the geometric mean over its tokens, since the product would only say how long it is. Of a
    field it is the product over the tokens of the field's value: the probability that the model gives this value where
    it stands (chain rule).

    Args:
        tokens: `{token, logprob}` in order, with `bytes` (UTF-8) where a token is no text of its own.
        text: the answer. field: a field of the JSON object that the answer is; empty for all of it.

    Returns: the probability, 0 to 1, and of how many tokens; None where there are none, or they do not hold the field.
    """
    logs = [_log(one) for one in tokens]
    if not field:
        return (math.exp(sum(logs) / len(logs)), len(logs)) if logs else None
    place = _place(text, field)
    pieces = [_bytes(one) for one in tokens]
    if place is None or b"".join(pieces) != text.encode():
        return None
    begin, end = (len(text[:at].encode()) for at in place)
    found, at = list[float](), 0
    for piece, log in zip(pieces, logs, strict=True):
        if at < end and at + len(piece) > begin:
            found.append(log)
        at += len(piece)
    return (math.exp(sum(found)), len(found)) if found else None


def _log(token: Mapping[str, Any]) -> float:
    """Never above 0; what is no number counts as impossible."""
    value = token.get("logprob")
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return -math.inf
    return min(0.0, float(value))


def _bytes(token: Mapping[str, Any]) -> bytes:
    raw = token.get("bytes")
    return bytes(raw) if isinstance(raw, list) else str(token.get("token", "")).encode()


def _place(text: str, field: str) -> tuple[int, int] | None:
    """From where to where the value of a field stands, without the quotes of a text."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        return None
    try:
        at = _skip(text, at + 1)
        while text[at : at + 1] == '"':
            name, at = _DECODER.raw_decode(text, at)
            begin = _skip(text, _skip(text, at) + 1)  # behind the colon
            value, end = _DECODER.raw_decode(text, begin)
            if name == field:
                return (begin + 1, end - 1) if isinstance(value, str) and value else (begin, end)
            at = _skip(text, _skip(text, end) + 1)  # behind the comma
    except JSONDecodeError:
        return None
    return None


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
