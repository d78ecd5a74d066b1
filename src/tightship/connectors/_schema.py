"""OpenAPI schemas as JSON Schema 2020-12 that keeps its references: each definition is converted once and shared.

OpenAPI 3.1 is JSON Schema already; 3.0 and 2.0 differ in `nullable`, boolean exclusive bounds and ignored siblings
of `$ref` (OpenAPI Specification 3.0.3, "Schema Object").
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from tightship.connectors._document import Document
from tightship.core.errors import LoadError

Variant = Literal["request", "response"]

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLES = frozenset(
    {
        "items",
        "additionalProperties",
        "not",
        "if",
        "then",
        "else",
        "contains",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
        "additionalItems",
        "contentSchema",
    }
)
_DROPPED = frozenset(
    {"discriminator", "xml", "externalDocs", "example", "examples", "nullable", "readOnly", "writeOnly"}
)
_KEPT_EXTENSIONS = frozenset({"x-personal-data"})
_TEXTS = frozenset({"description", "title", "$comment"})
_COMBINED = frozenset({"$ref", "allOf", "anyOf", "oneOf", "not"})
_MAX_NESTING = 100
_MAX_TEXT = 2000


class Definition(NamedTuple):
    """A converted schema and the pointers it refers to."""

    schema: Any
    refs: frozenset[str]


class Schemas:
    """Converts the schemas of one document, for what is sent or for what is received.

    What is received may lack write-only fields; what is sent has no read-only ones.
    """

    def __init__(self, document: Document, variant: Variant, max_definitions: int) -> None:
        self._document = document
        self._variant: Variant = variant
        self._max_definitions = max_definitions
        self._old = document.version != "3.1"

    def convert(self, node: Any) -> Definition:
        """A schema with its references renamed to `#/$defs/…`.

        Raises:
            LoadError: nested deeper than any sensible schema.
        """
        refs: set[str] = set()
        return Definition(self._schema(node, refs, 0), frozenset(refs))

    def whole(self, node: Any) -> dict[str, Any]:
        """A schema that stands alone: with all that it refers to under `$defs`, cycles included."""
        made = self.convert(node)
        schema: dict[str, Any] = dict(made.schema) if isinstance(made.schema, Mapping) else {"allOf": [made.schema]}
        definitions = self.definitions(made.refs)
        if definitions:
            own = schema.get("$defs")
            schema["$defs"] = {**own, **definitions} if isinstance(own, Mapping) else definitions
        return schema

    def definitions(self, refs: frozenset[str] | set[str]) -> dict[str, Any]:
        """Everything reachable from these pointers, nearest first; what lies beyond the limit is not constrained."""
        found: dict[str, Any] = {}
        queue = deque(sorted(refs))
        seen = set(queue)
        while queue:
            pointer = queue.popleft()
            if len(found) >= self._max_definitions:
                found[name_of(pointer)] = {"$comment": "not followed: beyond the connector's limit of definitions"}
                continue
            made = self._definition(pointer)
            found[name_of(pointer)] = made.schema
            fresh = sorted(made.refs - seen)
            seen.update(fresh)
            queue.extend(fresh)
        return found

    def _definition(self, pointer: str) -> Definition:
        key = (self._variant, pointer)
        made = self._document.converted.get(key)
        if made is None:
            made = self._document.converted[key] = self.convert(self._document.at(pointer))
        return made

    def _schema(self, node: Any, refs: set[str], depth: int) -> Any:
        if isinstance(node, bool):
            return node
        if not isinstance(node, Mapping):
            return {}
        if depth > _MAX_NESTING:
            raise LoadError(f"a schema is nested deeper than {_MAX_NESTING} levels", file=self._document.source)
        ref = node.get("$ref")
        if isinstance(ref, str):
            refs.add(ref)
            named = {"$ref": f"#/$defs/{name_of(ref)}"}
            if self._old:
                return named
            node = {key: value for key, value in node.items() if key != "$ref"}
            return {**named, **self._keywords(node, refs, depth)}
        made = self._keywords(node, refs, depth)
        return self._as_2020(node, made) if self._old else made

    def _keywords(self, node: Mapping[Any, Any], refs: set[str], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.items():
            key = str(key)
            if key in _DROPPED or (key.startswith("x-") and key not in _KEPT_EXTENSIONS):
                continue
            if key in _MAPS and isinstance(value, Mapping):
                made[key] = {str(name): self._schema(part, refs, depth + 1) for name, part in value.items()}
            elif key in _LISTS and isinstance(value, list):
                made[key] = [self._schema(part, refs, depth + 1) for part in value]
            elif key in _SINGLES and isinstance(value, Mapping | bool):
                made[key] = self._schema(value, refs, depth + 1)
            elif key in _TEXTS and isinstance(value, str):
                made[key] = value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
            else:
                made[key] = plain(value, self._document.source)
        self._directions(node, made)
        return made

    def _directions(self, node: Mapping[Any, Any], made: dict[str, Any]) -> None:
        """Leave out what this direction does not carry (`readOnly`, `writeOnly`)."""
        properties = node.get("properties")
        if not isinstance(properties, Mapping):
            return
        mark = "readOnly" if self._variant == "request" else "writeOnly"
        hidden = {str(name) for name, part in properties.items() if self._marked(part, mark)}
        if not hidden:
            return
        required = [name for name in made.get("required", []) if name not in hidden]
        made["required"] = required
        if not required:
            del made["required"]
        if self._variant == "request":
            made["properties"] = {name: part for name, part in made["properties"].items() if name not in hidden}

    def _marked(self, node: Any, mark: str) -> bool:
        if not isinstance(node, Mapping):
            return False
        return bool(node.get(mark)) or ("$ref" in node and bool(self._document.follow(node).get(mark)))

    def _as_2020(self, node: Mapping[Any, Any], made: dict[str, Any]) -> Any:
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)
        if made.get("type") == "file":
            made["type"] = "string"
        if not (node.get("nullable") or node.get("x-nullable")):
            return made
        if isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
        return {"anyOf": [made, {"type": "null"}]} if not _COMBINED.isdisjoint(made) else made


def plain(value: Any, source: str = "openapi", depth: int = 0) -> Any:
    """A YAML value as JSON: dates become text, keys are strings.

    Raises:
        LoadError: nested deeper than any sensible schema.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if depth > _MAX_NESTING:
        raise LoadError(f"a value is nested deeper than {_MAX_NESTING} levels", file=source)
    if isinstance(value, Mapping):
        return {str(key): plain(part, source, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part, source, depth + 1) for part in value]
    return str(value)


def name_of(pointer: str) -> str:
    """The name under `$defs` of a reference: `#/components/schemas/Order` is `Order`, others keep their path.

    A name with characters that a pointer would have to escape is spelled with its code points, so two never meet.
    """
    for prefix in ("#/components/schemas/", "#/definitions/"):
        if pointer.startswith(prefix) and "/" not in pointer[len(prefix) :]:
            return _spell(unquote(pointer[len(prefix) :]))
    return "ref:" + _spell(unquote(pointer.removeprefix("#/")))


def _spell(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", lambda found: f":{ord(found[0]):x}:", name)
