"""The OpenAPI document as the one truth about operations: routes, checks and idempotency are read from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs
import orjson

from tightship.company._call import Json, Refusal

_METHODS = ("get", "put", "post", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One path, query or header parameter with the check of its value."""

    name: str
    place: str
    required: bool
    kind: str | None
    check: jsonschema_rs.Draft202012Validator


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document.

    `effect` is `read` or `write`, `idempotent` is `key`, `etag`, `none` or (for reads) empty, `price_usd` the price
    of an answered call or None.
    """

    id: str
    method: str
    path: str
    parameters: tuple[Parameter, ...]
    body: jsonschema_rs.Draft202012Validator | None
    body_required: bool
    effect: str
    idempotent: str
    price_usd: str | None


class Contract:
    """The parsed document.

    Parameters: `text` is the JSON text. `operations` maps operationId to Operation.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.document: Json = orjson.loads(text)
        self.operations = {operation.id: operation for operation in self._operations()}

    def resolve(self, node: Json) -> Json:
        """The object that a local `$ref` points at, or the node itself."""
        while "$ref" in node:
            target: Json = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        return node

    def validator(self, schema: Json) -> jsonschema_rs.Draft202012Validator:
        """Compile a schema of the document; its references stay references."""
        with_components = {"allOf": [schema], "components": self.document["components"]}
        return jsonschema_rs.Draft202012Validator(with_components, validate_formats=True)

    def _operations(self) -> Iterator[Operation]:
        for path, item in self.document["paths"].items():
            for method in _METHODS:
                if method in item:
                    yield self._operation(path, method, item[method], item.get("parameters", []))

    def _operation(self, path: str, method: str, node: Json, shared: list[Json]) -> Operation:
        body = self.resolve(node.get("requestBody", {}))
        schema = body["content"]["application/json"]["schema"] if body else None
        return Operation(
            id=node["operationId"],
            method=method.upper(),
            path=path,
            parameters=tuple(self._parameter(parameter) for parameter in [*shared, *node.get("parameters", [])]),
            body=None if schema is None else self.validator(schema),
            body_required=bool(body.get("required", False)),
            effect=node["x-effect"],
            idempotent=node.get("x-idempotent", ""),
            price_usd=node.get("x-price", {}).get("usd"),
        )

    def _parameter(self, node: Json) -> Parameter:
        node = self.resolve(node)
        schema = node["schema"]
        return Parameter(
            name=node["name"],
            place=node["in"],
            required=node.get("required", False),
            kind=self.resolve(schema).get("type"),
            check=self.validator(schema),
        )


@cache
def contract() -> Contract:
    """The contract of the sample company, read once per process."""
    return Contract(resources.files("tightship.company").joinpath("openapi.json").read_bytes())


def read_parameters(
    operation: Operation, path: Mapping[str, str], query: list[tuple[str, str]]
) -> dict[str, str | int | bool]:
    """Check and convert the path and query parameters of a request.

    Raises: Refusal 422 for an unknown, repeated, missing or malformed parameter.
    """
    given: dict[str, str] = dict(path)
    for name, text in query:
        if name in given:
            raise Refusal(422, "invalid", f"The parameter {name} is given twice.")
        given[name] = text
    values: dict[str, str | int | bool] = {}
    for parameter in operation.parameters:
        if parameter.place == "header":
            continue
        text = given.pop(parameter.name, None)
        if text is None:
            if parameter.required:
                raise Refusal(422, "invalid", f"The parameter {parameter.name} is missing.")
            continue
        values[parameter.name] = _checked(parameter, _convert(parameter.kind, text))
    if given:
        raise Refusal(422, "invalid", f"There is no parameter {sorted(given)[0][:100]!r}.")
    return values


def read_header(operation: Operation, name: str, text: str | None) -> str | None:
    """The value of a header that the operation declares; None where it is not declared or not sent."""
    for parameter in operation.parameters:
        if parameter.place == "header" and parameter.name == name and text is not None:
            _checked(parameter, text)
            return text
    return None


def read_body(operation: Operation, body: object) -> Json:
    """Check a parsed JSON body. Raises: Refusal 422 naming the place."""
    if operation.body is None:
        raise Refusal(422, "invalid", f"{operation.id} takes no body.")
    error = next(operation.body.iter_errors(body), None)
    if error is not None or not isinstance(body, dict):
        place = "/".join(str(step) for step in error.instance_path) if error else ""
        message = error.message if error else "not an object"
        raise Refusal(422, "invalid", f"The body is wrong at /{place}: {message[:300]}")
    return body


def _convert(kind: str | None, text: str) -> str | int | bool:
    if kind == "integer" and text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _checked(parameter: Parameter, value: Any) -> Any:
    error = next(parameter.check.iter_errors(value), None)
    if error is not None:
        raise Refusal(422, "invalid", f"The parameter {parameter.name} is wrong: {error.message[:300]}")
    return value
