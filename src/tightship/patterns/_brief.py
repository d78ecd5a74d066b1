"""What has to be known before control passes from one agent to another, and how much of it arrives (F4, O2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tightship.core.ports import Json
from tightship.workflow.types import object_schema, shape_of

OPEN: Final = "open_questions"
"""The field whose items are meant to go: a question that was answered is no fact that was lost."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How many facts of the brief before are still in this one, of how many."""

    kept: int
    facts: int


class Brief:
    """A declared brief.

    Args:
        fields: names to types; nothing else may stand in it.
        keep: the fields that may be added to, and never changed or left out again, on the whole way.
    """

    def __init__(self, fields: Mapping[str, Any], keep: tuple[str, ...]) -> None:
        self._shape = shape_of(object_schema(fields))
        self._keep = keep

    def problems(self, given: Json, before: Mapping[str, Json]) -> list[str]:
        """What is wrong with a brief, given the one before it; empty when it may pass."""
        misfits = [f"brief.{misfit}" for misfit in self._shape.misfits(given)]
        if misfits or not isinstance(given, Mapping):
            return misfits
        lost = [name for name in self._keep if not _holds(before.get(name), given.get(name))]
        return [f"brief.{name}: what the brief before says has to be kept: {before[name]!r}"[:500] for name in lost]


def retention(before: Mapping[str, Json], given: Mapping[str, Json]) -> Retention:
    """How much of a brief has arrived in the next: each field is a fact, and so is each item of a list."""
    facts = _named_facts(before)
    kept = sum(any(_same(one, other) for other in _facts(given.get(name))) for name, one in facts)
    return Retention(kept, len(facts))


class Known:
    """All facts that the briefs of a chain have held so far, and how many of them a brief still holds."""

    def __init__(self) -> None:
        self._facts = list[tuple[str, Json]]()

    def still(self, given: Mapping[str, Json]) -> Retention:
        """How many of the facts known so far stand in this brief, of how many; then it adds its own."""
        found = _named_facts(given)
        kept = sum(_among(fact, found) for fact in self._facts)
        held = Retention(kept, len(self._facts))
        for fact in found:
            if not _among(fact, self._facts):
                self._facts.append(fact)
        return held


def _named_facts(brief: Mapping[str, Json]) -> list[tuple[str, Json]]:
    return [(name, one) for name, value in brief.items() if name != OPEN for one in _facts(value)]


def _among(fact: tuple[str, Json], facts: list[tuple[str, Json]]) -> bool:
    return any(name == fact[0] and _same(one, fact[1]) for name, one in facts)


def _facts(value: Json) -> list[Json]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _holds(before: Json, now: Json) -> bool:
    """Whether everything that was said is still said; a list may have grown."""
    return all(any(_same(one, other) for other in _facts(now)) for one in _facts(before))


def _same(one: Json, other: Json) -> bool:
    """Whether two facts are the same: 1 and true are not, and blanks and case of a text make no difference."""
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.casefold().split()) == " ".join(other.casefold().split())
    return type(one) is type(other) and one == other
