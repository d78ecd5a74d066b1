"""Which payloads an entry names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from tightship.core import kinds
from tightship.core.ports import EntryView

FIELDS: Final = frozenset({"definition", "input", "args", "out", "output", "detail", "package"})
"""Fields of a body that hold the address of a stored payload. (`hash` of a turn is one that is not stored.)"""
_ADDRESS = re.compile("[0-9a-f]{64}")
_QUOTED = re.compile('"([0-9a-f]{64})"')


def addresses_of(entry: EntryView) -> Iterator[str]:
    """The addresses of all payloads that the entry names."""
    body = entry.body
    yield from _named(body)
    value = body.get("value")
    if entry.kind in (kinds.SIGNAL, kinds.CLOSED):
        if _is_address(value):
            yield value
        if _is_address(body.get("actions")):
            yield body["actions"]
    elif entry.kind == kinds.DECIDED and isinstance(value, Mapping) and ("error" in value or "signal" in value):
        yield from _named(value)


def addresses_in(data: bytes) -> list[str]:
    """Everything in an entry's bytes that may be the address of a payload, whatever field it stands in."""
    return _QUOTED.findall(data.decode("latin-1"))


def _named(fields: Mapping[str, Any]) -> Iterator[str]:
    for name, value in fields.items():
        if name in FIELDS and _is_address(value):
            yield value


def _is_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None
