"""JSON values as people read them: one name a line, texts with their line breaks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

_STEP: Final = 2


def readable(name: str, value: Any, width: int, indent: int = 0) -> Iterator[str]:
    """The lines of a named value, whole.

    Args:
        name: what stands before it. value: JSON.
        width: cells of a line, at which texts are wrapped. indent: cells before it.
    """
    lead = " " * indent
    if isinstance(value, Mapping) and value:
        yield f"{lead}{name}:"
        for inner, part in value.items():
            yield from readable(str(inner), part, width, indent + _STEP)
    elif isinstance(value, list | tuple) and value:
        texts = ", ".join(_scalar(one) for one in value)
        flat = not any(isinstance(one, Mapping | list | tuple) or "\n" in str(one) for one in value)
        if flat and len(lead) + len(name) + 2 + len(texts) <= width:
            yield f"{lead}{name}: {texts}"
            return
        yield f"{lead}{name}:"
        for number, one in enumerate(value, 1):
            yield from readable(str(number), one, width, indent + _STEP)
    else:
        yield from _text(name, _scalar(value), width, lead)


def _text(name: str, text: str, width: int, lead: str) -> Iterator[str]:
    if "\n" not in text and len(lead) + len(name) + 2 + len(text) <= width:
        yield f"{lead}{name}: {text}"
        return
    yield f"{lead}{name}:"
    inner = lead + " " * _STEP
    for line in text.strip("\n").split("\n"):
        wrapped = textwrap.wrap(line, max(20, width - len(inner)), break_long_words=False, break_on_hyphens=False)
        yield from ((inner + part) for part in wrapped)
        if not wrapped:
            yield ""


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == "" or (isinstance(value, Mapping | list | tuple) and not value):
        return "(none)"
    return str(value)


def short(value: Any, limit: int) -> str:
    """A value on one line as JSON, cut where it is long."""
    import orjson

    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"
