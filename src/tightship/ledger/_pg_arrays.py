"""Columns of many rows as arrays in the server's own binary form, made here in a few calls.

psycopg dumps an array one element at a time in Python; that was half of what a commit cost this process.

Source: PostgreSQL, src/backend/utils/adt/arrayfuncs.c, array_recv: dimensions, flags, element type; length and lower
bound of the dimension; then each element with its length.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Final

from tightship.core.errors import LedgerError

_HEAD: Final = struct.Struct("!iiIii")
_LENGTH: Final = struct.Struct("!i")


class Array(bytes):
    """An array as the server takes it; which kind, the subclass says."""

    array_oid: ClassVar[int]

    @classmethod
    @abstractmethod
    def of(cls, values: Sequence[Any]) -> Array:
        """The array of these values.

        Raises:
            LedgerError: one is none that the server can keep.
        """


class Texts(Array):
    """text[]"""

    array_oid = 1009

    @classmethod
    def of(cls, values: Sequence[str]) -> Texts:
        """The array of these texts."""
        try:
            return cls(_joined(25, [value.encode() for value in values]))
        except UnicodeError as error:
            raise _refused(error) from None

    @classmethod
    def encoded(cls, values: Sequence[bytes]) -> Texts:
        """The array of texts that are encoded already, as UTF-8."""
        return cls(_joined(25, values))


class Blobs(Array):
    """bytea[]"""

    array_oid = 1001

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Blobs:
        """The array of these bytes."""
        return cls(_joined(17, values))


class Integers(Array):
    """bigint[]"""

    array_oid = 1016

    @classmethod
    def of(cls, values: Sequence[int]) -> Integers:
        """The array of these whole numbers."""
        return cls(_packed(20, "q", values))


class Floats(Array):
    """double precision[]"""

    array_oid = 1022

    @classmethod
    def of(cls, values: Sequence[float]) -> Floats:
        """The array of these numbers."""
        return cls(_packed(701, "d", values))


ARRAYS: Final[dict[type, type[Array]]] = {str: Texts, int: Integers, float: Floats, bytes: Blobs}
"""By the type of a column's values."""


def _refused(error: Exception) -> LedgerError:
    return LedgerError(f"a value cannot be stored: {type(error).__name__}")


def _joined(element: int, values: Sequence[bytes]) -> bytes:
    if not values:
        return _EMPTY.pack(0, 0, element)
    parts = [_HEAD.pack(1, 0, element, len(values), 1)]
    for value in values:
        parts.append(_LENGTH.pack(len(value)))
        parts.append(value)
    return b"".join(parts)


_EMPTY: Final = struct.Struct("!iiI")


def _packed(element: int, form: str, values: Sequence[float]) -> bytes:
    if not values:
        return _EMPTY.pack(0, 0, element)
    cells = [cell for value in values for cell in (8, value)]
    try:
        body = struct.pack("!" + f"i{form}" * len(values), *cells)
    except struct.error as error:
        raise _refused(error) from None
    return _HEAD.pack(1, 0, element, len(values), 1) + body


@cache
def dumpers() -> list[tuple[type[Array], type[Any]]]:
    """How psycopg hands each kind on: as it is."""
    from psycopg.adapt import Dumper
    from psycopg.pq import Format

    def dumper_of(kind: type[Array]) -> type[Dumper]:
        class ArrayDumper(Dumper):
            format = Format.BINARY
            oid = kind.array_oid

            def dump(self, obj: Array) -> Array:
                """The bytes that it is."""
                return obj

        return ArrayDumper

    return [(kind, dumper_of(kind)) for kind in ARRAYS.values()]
