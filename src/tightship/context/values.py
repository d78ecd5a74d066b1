"""A value of the shared context as a reader gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from tightship.core.errors import FormatMismatch
from tightship.core.ports import Json


@dataclass(frozen=True, slots=True)
class Value:
    """A value with where it comes from.

    Attributes:
        key: its key. value: what was written; None when nothing was.
        version: the position of the write in the ledger, 0 when there is none.
        at: store time (s) of the write. as_of: the source's time (s), for outside data.
        writer: the agent, role or source that wrote it; run: the run in which it did.
        sources: versions and addresses that it was made from. labels: of information flow; none yet.
        age: seconds at the moment of reading, by `as_of` where there is one.
        ttl: seconds from its write for which it holds, or None.
    """

    key: str
    value: Json
    version: int
    at: float
    as_of: float | None
    writer: str
    run: str
    age: float
    ttl: float | None = None
    sources: tuple[str | int, ...] = ()
    labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is a value."""
        return self.version > 0

    @property
    def born(self) -> float:
        """The time (s) from which its age counts: a fresh write of old data is old."""
        return self.at if self.as_of is None else self.as_of

    def to_json(self) -> dict[str, Json]:
        """All fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Value:
        """The value that `to_json` wrote."""
        fields: dict[str, Any] = {**data, "sources": tuple(data["sources"]), "labels": tuple(data["labels"])}
        return cls(**fields)


def seconds_of(value: Json, of: str) -> float:
    """A source's as-of time: seconds since 1970, or a date and time of RFC 3339.

    Args:
        of: whose it is, for the error.

    Raises:
        FormatMismatch: it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise FormatMismatch(
            f"the as-of time {value!r} of {of} is no time with a zone",
            needed="seconds since 1970, or 2026-01-31T12:00:00Z",
        )
    return found.timestamp()
