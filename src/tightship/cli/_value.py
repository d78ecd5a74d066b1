"""Values on the command line: JSON, or plain text."""

from __future__ import annotations

from typing import Any

import orjson

from tightship.core import exact
from tightship.core.errors import InputRejected


def parse_value(text: str | None, where: str = "--value") -> Any:
    """JSON; what is no JSON is text, so that a sentence needs no quotes within quotes.

    Raises:
        InputRejected: it looks like a JSON object or list and is none, or has a number that cannot be kept.
    """
    if text is None:
        return None
    try:
        return exact.loads(text)
    except exact.NumberTooLong as error:
        raise InputRejected(error.msg, where=where) from None
    except orjson.JSONDecodeError as error:
        if text.lstrip().startswith(("{", "[", '"')):
            raise InputRejected(
                f"it is no JSON: {error.msg} (column {error.colno})", where=where, fix="correct it"
            ) from None
        return text
