"""What of an agent's output is compared for drift: its declared fields, those inside lists and objects among them.

One run is one observation, so what a list holds becomes a few figures of the whole list. Which they are follows from
the declared shape and never from what runs have given, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from tightship.core.ports import Json

MOST_INSIDE: Final = 24
"""Places inside lists and objects that are compared, the first as declared: each makes all others less certain."""
DEEPEST: Final = 4
"""How far inside a place may lie."""
_FIGURES: Final = frozenset({"number", "integer", "boolean"})
ITEM: Final = "[]"
"""Stands in a path for every item of a list."""


def of_output(output: Mapping[str, Json], schema: Mapping[str, Any] | None) -> dict[str, str | float]:
    """The features of one output, by name.

    Allowed values and yes or no are categories, numbers are numbers, and of texts, lists and objects the length counts.
    Of the items of a list it is the mean and the largest of their numbers, and which of the allowed values occur.

    Args:
        output: what the agent gave. schema: JSON Schema of its output: fields that it does not declare are left out.
            Without it all fields are taken, and nothing inside them.
    """
    seen: dict[str, str | float] = {}
    properties: Mapping[str, Any] = {} if schema is None else schema.get("properties", {})
    for name, value in output.items():
        said = properties.get(name)
        if schema is None or said is not None:
            seen |= _of_value(f"output.{name}", value, said or {})
    for path, said in _inside(properties):
        found = list(_at(output, path))
        if found:
            seen |= _of_values(f"output.{'.'.join(path)}".replace(f".{ITEM}", ITEM), found, said, ITEM in path)
    return seen


def _of_value(name: str, value: Json, said: Mapping[str, Any]) -> dict[str, str | float]:
    if value is None or isinstance(value, bool) or "enum" in said:
        return {name: str(value)}
    if isinstance(value, int | float):
        return {name: float(value)}
    return {f"length of {name}": float(len(value))} if isinstance(value, str | list | dict) else {}


def _of_values(name: str, found: Sequence[Json], said: Mapping[str, Any], listed: bool) -> dict[str, str | float]:
    """What stands at one place: a single value, or those of all items."""
    if not listed:
        return _of_value(name, found[0], said)
    numbers = [float(one) for one in found if isinstance(one, int | float) and not isinstance(one, bool)]
    if numbers and "enum" not in said:
        return {f"mean of {name}": fmean(numbers), f"largest of {name}": max(numbers)}
    kinds = {str(one) for one in found if one is None or isinstance(one, bool) or "enum" in said}
    return {name: " + ".join(sorted(kinds))} if kinds else {}


def _inside(properties: Mapping[str, Any]) -> list[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """The declared places below the fields of an output that hold figures or allowed values, with their schemas."""
    found: list[tuple[tuple[str, ...], Mapping[str, Any]]] = []
    for name, said in properties.items():
        found += [(path, one) for path, one in _leaves((name,), said) if len(path) > 1]
    return found[:MOST_INSIDE]


def _leaves(path: tuple[str, ...], said: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if len([part for part in path if part != ITEM]) > DEEPEST:
        return
    if isinstance(said.get("items"), Mapping):
        yield from _leaves((*path, ITEM), said["items"])
    elif said.get("properties"):
        for name, one in said["properties"].items():
            yield from _leaves((*path, name), one)
    elif "enum" in said or not _FIGURES.isdisjoint(_types(said)):
        yield path, said


def _types(said: Mapping[str, Any]) -> list[str]:
    type_: Any = said.get("type")
    return [type_] if isinstance(type_, str) else list(type_ or ())


def _at(value: Json, path: Sequence[str]) -> Iterator[Json]:
    """The values at a path; one that leads nowhere has none."""
    if not path:
        yield value
    elif path[0] == ITEM:
        for one in value if isinstance(value, list) else ():
            yield from _at(one, path[1:])
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _at(value[path[0]], path[1:])
