"""Swagger 2.0 operations in the shape of OpenAPI 3: only where they differ, one operation at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_SCHEMA_KEYS = frozenset(
    {
        "type", "format", "items", "default", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
        "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "enum", "multipleOf",
        "x-nullable",
    }
)  # fmt: skip
_COLLECTIONS = {
    "csv": ("form", False),
    "ssv": ("spaceDelimited", False),
    "pipes": ("pipeDelimited", False),
    "multi": ("form", True),
}
_FORM = "application/x-www-form-urlencoded"


def parameters_and_body(
    parameters: Sequence[Mapping[str, Any]], consumes: Sequence[str]
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any] | None]:
    """The parameters with a `schema` each, and the request body that `body` and `formData` parameters stand for."""
    rest: list[Mapping[str, Any]] = []
    fields: dict[str, Any] = {}
    required: list[str] = []
    body: Mapping[str, Any] | None = None
    for parameter in parameters:
        place = parameter.get("in")
        if place == "body":
            media = next((kind for kind in consumes if "json" in kind), "application/json")
            body = {
                "required": bool(parameter.get("required")),
                "content": {media: {"schema": parameter.get("schema")}},
            }
        elif place == "formData":
            fields[str(parameter.get("name"))] = _schema(parameter)
            if parameter.get("required"):
                required.append(str(parameter.get("name")))
        else:
            rest.append(_parameter(parameter))
    if body is None and fields:
        media = "multipart/form-data" if any(part.get("type") == "file" for part in fields.values()) else _FORM
        schema = {"type": "object", "properties": fields, **({"required": required} if required else {})}
        body = {"required": bool(required), "content": {media: {"schema": schema}}}
    return rest, body


def responses(raw: Mapping[Any, Any], produces: Sequence[str]) -> dict[str, Any]:
    """Responses with their schema under `content`."""
    media = next((kind for kind in produces if "json" in kind), produces[0] if produces else "application/json")
    made: dict[str, Any] = {}
    for status, response in raw.items():
        if isinstance(response, Mapping) and "schema" in response:
            response = {**response, "content": {media: {"schema": response["schema"]}}}
        made[str(status)] = response
    return made


def server(raw: Mapping[str, Any]) -> str | None:
    """The base URL that the document states, or None."""
    host = raw.get("host")
    if not host:
        return None
    schemes = raw.get("schemes") or ["https"]
    scheme = "https" if "https" in schemes else schemes[0]
    return f"{scheme}://{host}{raw.get('basePath') or ''}"


def _schema(parameter: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in parameter.items() if key in _SCHEMA_KEYS}
    if "description" in parameter:
        made["description"] = parameter["description"]
    return made


def _parameter(parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    style, explode = _COLLECTIONS.get(str(parameter.get("collectionFormat") or "csv"), ("form", False))
    made: dict[str, Any] = {
        key: parameter[key] for key in ("name", "in", "description", "required") if key in parameter
    }
    made["schema"] = _schema(parameter)
    if parameter.get("in") == "query":
        made.update(style=style, explode=explode)
    return made
