"""Which names mean something at which step: the scope of a workflow, worked out without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tightship.workflow.models import WorkflowSpec
from tightship.workflow.tree import Step


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound name: the step that binds it (None for `input` and loop variables), and whether it surely did."""

    step: Step | None
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """A step where it stands.

    Attributes:
        workflow: the workflow.
        step: the step.
        above: the steps around it, outermost first.
        visible: the names that it can use when it begins.
        after: those, and what its children bound: what it can use when they are done.
        siblings: names that only branches beside it bind.
    """

    workflow: WorkflowSpec
    step: Step
    above: tuple[Step, ...]
    visible: Mapping[str, Bound]
    after: Mapping[str, Bound]
    siblings: frozenset[str] = field(default_factory=frozenset[str])

    def seen_by(self, expression_field: str) -> Mapping[str, Bound]:
        """The names that the expression in that field of the step can use."""
        return self.after if expression_field in self.step.uses_after() else self.visible


@dataclass(frozen=True, slots=True)
class Names:
    """All places of a workflow in order, and what is bound at its end."""

    places: tuple[Place, ...]
    final: Mapping[str, Bound]

    def binders(self) -> dict[str, list[Step]]:
        """For each name, the steps that bind it."""
        found = dict[str, list[Step]]()
        for place in self.places:
            for name in place.step.binds():
                found.setdefault(name, []).append(place.step)
        return found


def names_of(workflow: WorkflowSpec) -> Names:
    """Work out the scope of a workflow."""
    places = list[Place]()
    visible: dict[str, Bound] = {"input": Bound(None)}
    bound = _visit(workflow, workflow.root, visible, (), frozenset(), places)
    inside = [place for place in places if place.step is not workflow.root]
    return Names(tuple(inside), {**visible, **bound})


def _visit(
    workflow: WorkflowSpec,
    step: Step,
    visible: Mapping[str, Bound],
    above: tuple[Step, ...],
    siblings: frozenset[str],
    places: list[Place],
) -> dict[str, Bound]:
    """Add the places of a step and its children; returns what it binds."""
    at = len(places)
    inner = {**visible, **{name: Bound(None) for name in step.introduces()}}
    children = list(step.children())
    bound = dict[str, Bound]()
    for child in children:
        beside = siblings
        if step.order == "parallel":
            beside = siblings | frozenset(name for other in children if other is not child for name in all_names(other))
        sees = {**inner, **bound} if step.order == "sequence" else inner
        got = _visit(workflow, child, sees, (*above, step), beside, places)
        bound.update(_weaker(got, bound) if step.order == "choice" else got)
    if step.order == "choice":
        bound = {name: Bound(one.step, one.sure and _in_all(name, children)) for name, one in bound.items()}
    if not step.sure or any(behaviour.then == "continue" for behaviour in step.on.values()):
        bound = {name: Bound(one.step, False) for name, one in bound.items()}
    places.insert(at, Place(workflow, step, above, visible, {**inner, **bound}, siblings - set(visible)))
    kept = {} if step.isolated else {n: one for n, one in bound.items() if n not in set(step.introduces())}
    return {**kept, **{name: Bound(step) for name in step.binds()}}


def _weaker(got: Mapping[str, Bound], bound: Mapping[str, Bound]) -> dict[str, Bound]:
    return {name: Bound(one.step, one.sure and (name not in bound or bound[name].sure)) for name, one in got.items()}


def _in_all(name: str, children: list[Step]) -> bool:
    return all(name in set(all_names(child)) for child in children)


def all_names(step: Step) -> Iterator[str]:
    """Every name that the step or something below it binds for what comes after it."""
    yield from step.binds()
    if not step.isolated:
        for child in step.children():
            yield from all_names(child)


def schema_at(schema: Mapping[str, Any] | None, path: tuple[str, ...]) -> tuple[Mapping[str, Any] | None, str | None]:
    """The schema of a path below another schema, and the first field that is certainly not there.

    A None schema means that nothing is known.
    """
    at = _resolved(schema, schema)
    for part in path:
        if at is None:
            return None, None
        if "properties" in at:
            properties: Mapping[str, Any] = at["properties"]
            if part in properties:
                at = _resolved(properties[part], schema)
                continue
            return None, part if at.get("additionalProperties") is False else None
        kinds = at.get("type")
        scalar = {"string", "integer", "number", "boolean", "array", "null"}
        listed = {kinds} if isinstance(kinds, str) else set(kinds or ())
        if listed and listed <= scalar:
            return None, part
        return None, None
    return at, None


def _resolved(schema: Mapping[str, Any] | None, root: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The schema that a chain of references to the root's own definitions leads to; None when it leads elsewhere."""
    for _ in range(20):
        if schema is None or "$ref" not in schema:
            return schema
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        schema = (root or {}).get("$defs", {}).get(name)
    return None
