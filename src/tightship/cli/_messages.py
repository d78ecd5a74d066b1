"""A file of messages: a JSON list, an object that holds one, or one message a line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import orjson

from tightship.core import exact
from tightship.core.errors import InputRejected

_UNDER: Final = ("messages", "history")
_FIX: Final = 'give a JSON list of {"role": "NAME", "content": "TEXT"}, or one such object a line'


def read_messages(file: Path) -> list[Any]:
    """The messages of a file; what each has to hold is judged by whoever reads them.

    Raises:
        InputRejected: it cannot be read, or holds no messages; the error says where.
    """
    data = _bytes(file)
    try:
        document = exact.loads(data)
    except orjson.JSONDecodeError as error:
        if data.count(b"\n") < 1 or not data.lstrip().startswith(b"{"):
            raise InputRejected(f"this is no JSON: {error}", where=_place(file, error), fix=_FIX) from None
        return _lines(file, data)
    if isinstance(document, dict):
        if "role" in document:
            return [document]
        document = next((document[name] for name in _UNDER if name in document), None)
    if not isinstance(document, list) or not document:
        raise InputRejected("there are no messages in it", where=str(file), fix=_FIX)
    return document


def read_json(file: Path) -> Any:
    """A JSON document.

    Raises:
        InputRejected: it cannot be read, or is none.
    """
    try:
        return exact.loads(_bytes(file))
    except orjson.JSONDecodeError as error:
        raise InputRejected(f"this is no JSON: {error}", where=_place(file, error)) from None


def _lines(file: Path, data: bytes) -> list[Any]:
    found: list[Any] = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(exact.loads(line))
        except orjson.JSONDecodeError as error:
            raise InputRejected(f"this line is no JSON: {error}", where=f"{file}:{number}", fix=_FIX) from None
    return found


def _bytes(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InputRejected(f"{file} cannot be read: {error.strerror or error}") from None


def _place(file: Path, error: orjson.JSONDecodeError) -> str:
    return f"{file}:{error.lineno}:{error.colno}"
