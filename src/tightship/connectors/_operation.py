"""One operation of a contract, compiled: what its arguments become, what its answers look like, what it promises."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from tightship.connectors import _swagger2
from tightship.connectors._document import Document
from tightship.connectors._schema import Schemas
from tightship.connectors.settings import Overlay
from tightship.core.errors import LoadError

Place = Literal["path", "query", "header", "cookie"]
FORM = "application/x-www-form-urlencoded"
_MERGEABLE = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "description", "title", "example", "examples",
        "default", "deprecated", "nullable", "xml", "externalDocs", "minProperties", "maxProperties", "$schema",
        "$comment",
    }
)  # fmt: skip
_EXTENSIONS = {
    "x-effect": "effect",
    "x-idempotent": "idempotency",
    "x-idempotency-header": "idempotency_header",
    "x-lookup": "lookup",
    "x-undo": "undo",
    "x-price": "price",
    "x-timeout": "timeout",
    "x-cache-seconds": "cache_seconds",
    "x-requests-per-second": "requests_per_second",
}
_REFERENCES = ("client_ref", "client_reference")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter outside the body, and how its value is written (OpenAPI 3.1, "Style Values")."""

    wire: str
    argument: str
    place: Place
    required: bool
    schema: Mapping[str, Any] | bool
    style: str = "form"
    explode: bool = True
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """The request body. `fields` maps arguments to its fields; without them it is the argument `body` as a whole."""

    media: str
    required: bool
    schema: Mapping[str, Any] | bool
    fields: Mapping[str, str] | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation before its references are gathered.

    Attributes:
        overlay: what contract and workspace say of it together.
        key_header: the header that carries the idempotency key, or None.
        reference: the body field that carries our own reference, or None.
        responses: media type and schema by status (`200`, `2XX`, `default`); schema None when none is declared.
    """

    id: str
    path: str
    method: str
    description: str
    overlay: Overlay
    parameters: tuple[Parameter, ...]
    body: Body | None
    key_header: str | None
    reference: str | None
    responses: Mapping[str, tuple[str, Any]] = field(default_factory=dict[str, tuple[str, Any]])

    @property
    def reads(self) -> bool:
        """It changes nothing outside."""
        return self.overlay.effect == "read"

    def argument_of(self, place: str, wire: str) -> str | None:
        """The argument that becomes this parameter (header names in any case)."""
        for parameter in self.parameters:
            same = parameter.wire == wire or (place == "header" and parameter.wire.lower() == wire.lower())
            if parameter.place == place and same:
                return parameter.argument
        return None

    def answer_schema(self) -> Any:
        """The schema of the first successful answer, or None."""
        for status in sorted(self.responses):
            if status.startswith("2"):
                return self.responses[status][1]
        return None


def compile_operation(document: Document, path: str, method: str, name: str, known: Overlay) -> Operation:
    """Read one operation of the document.

    Args:
        document: the contract.
        path: its path template.
        method: in lower case.
        name: operationId, for messages.
        known: what the workspace says of it; it wins over the contract.

    Raises:
        LoadError: the operation cannot be called as it is described; the message says why.
    """
    item = document.follow(document.paths[path])
    raw: Mapping[str, Any] = item[method]
    here = f"{document.source}: {method.upper()} {path}"
    listed = _parameters(document, item, raw, here)
    body_raw = document.follow(raw.get("requestBody"))
    answers: Mapping[Any, Any] = raw.get("responses") or {}
    if document.version == "2.0":
        consumes = raw.get("consumes") or document.raw.get("consumes") or []
        listed, body_raw = _swagger2.parameters_and_body(listed, consumes)
        followed = {status: document.follow(answer) for status, answer in answers.items()}
        answers = _swagger2.responses(followed, raw.get("produces") or document.raw.get("produces") or [])
    overlay = known.over(_contract_says(raw, method, here))
    parameters, key_header, etag = _compile_parameters(listed, overlay, method, here)
    overlay = _settled(overlay, key_header, etag, method)
    if overlay.idempotency == "key" and key_header is None:
        key_header = overlay.idempotency_header or "Idempotency-Key"
    if overlay.idempotency == "etag" and etag is None:
        etag = "if_match"
        parameters.append(Parameter("If-Match", etag, "header", False, {"type": "string"}))
    if overlay.idempotency == "etag" and method not in ("put", "delete"):
        # Without its condition a PATCH or POST is not safe to send twice, whatever the contract leaves open.
        parameters = [replace(part, required=True) if part.argument == etag else part for part in parameters]
    taken = {parameter.argument for parameter in parameters}
    body = _body(document, body_raw, taken, here)
    return Operation(
        id=name,
        path=path,
        method=method,
        description=overlay.description or str(raw.get("summary") or raw.get("description") or "").strip()[:2000],
        overlay=overlay,
        parameters=tuple(parameters),
        body=body,
        key_header=key_header if overlay.idempotency == "key" else None,
        reference=_reference(overlay, body),
        responses=_responses(document, answers),
    )


def _parameters(
    document: Document, item: Mapping[str, Any], raw: Mapping[str, Any], here: str
) -> list[Mapping[str, Any]]:
    """The path's and the operation's parameters; the operation's win (same name and place)."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for node in [*(item.get("parameters") or []), *(raw.get("parameters") or [])]:
        parameter = document.follow(node)
        if not isinstance(parameter, Mapping) or not parameter.get("name") or not parameter.get("in"):
            raise LoadError("a parameter without name or place", file=here)
        found[parameter["in"], parameter["name"]] = parameter
    return list(found.values())


def _contract_says(raw: Mapping[str, Any], method: str, here: str) -> Overlay:
    stated = {name: raw[extension] for extension, name in _EXTENSIONS.items() if extension in raw}
    stated.setdefault("effect", "read" if method in ("get", "head", "options", "trace") else "write")
    try:
        return Overlay.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise LoadError(
            f"a vendor extension is wrong: {place}: {first['msg']}",
            file=here,
            fix="correct the contract, or state it under `operations` of the connector",
        ) from None


def _compile_parameters(
    listed: Sequence[Mapping[str, Any]], overlay: Overlay, method: str, here: str
) -> tuple[list[Parameter], str | None, str | None]:
    """The parameters that are arguments, the header of the idempotency key, the argument that is If-Match."""
    made: list[Parameter] = []
    key_header = etag = None
    wanted = (overlay.idempotency_header or "Idempotency-Key").lower()
    taken: set[str] = set()
    for raw in sorted(listed, key=lambda parameter: parameter["in"] != "path"):
        place, wire = raw["in"], str(raw["name"])
        if place not in ("path", "query", "header", "cookie"):
            raise LoadError(f"the parameter {wire!r} stands in {place!r}", file=here)
        if place == "header" and wire.lower() in ("accept", "content-type", "authorization"):
            continue
        if place == "header" and wire.lower() == wanted and wanted != "if-match":
            key_header = wire
            continue
        parameter = _parameter(raw, place, wire, taken)
        taken.add(parameter.argument)
        if place == "header" and wire.lower() == "if-match":
            etag = parameter.argument
        made.append(parameter)
    return made, key_header, etag


def _parameter(raw: Mapping[str, Any], place: Place, wire: str, taken: set[str]) -> Parameter:
    argument = re.sub(r"[^a-z0-9]+", "_", wire.lower()).strip("_") if place in ("header", "cookie") else wire
    if argument in taken or not argument:
        argument = f"{place}_{argument}"
    content = raw.get("content")
    as_json = isinstance(content, Mapping) and bool(content)
    schema = next(iter(content.values())).get("schema") if as_json and content else raw.get("schema")
    style = str(raw.get("style") or ("form" if place in ("query", "cookie") else "simple"))
    node: Mapping[str, Any] | bool = schema if isinstance(schema, Mapping | bool) else {}
    if raw.get("description") and isinstance(node, Mapping) and "description" not in node and "$ref" not in node:
        node = {**node, "description": raw["description"]}
    explode = raw.get("explode")
    return Parameter(
        wire=wire,
        argument=argument,
        place=place,
        required=place == "path" or bool(raw.get("required")),
        schema=node,
        style=style,
        explode=style == "form" if explode is None else bool(explode),
        as_json=as_json,
    )


def _settled(overlay: Overlay, key_header: str | None, etag: str | None, method: str) -> Overlay:
    """The overlay with its idempotency decided where nobody stated it.

    Only a conditional PUT or DELETE is assumed to be safe to send twice; a declared key header alone promises nothing
    that could be relied on, but it is sent where the contract states `key`.
    """
    if overlay.idempotency is not None:
        return overlay
    conditional = etag is not None and method in ("put", "delete")
    return overlay.model_copy(update={"idempotency": "etag" if conditional else "none"})


def _body(document: Document, raw: Any, taken: set[str], here: str) -> Body | None:
    if not isinstance(raw, Mapping):
        return None
    content: Mapping[str, Any] = raw.get("content") or {}
    media = _media(list(content))
    if content and media is None:
        raise LoadError(
            f"its body is {', '.join(content)}; JSON, forms and text are sent",
            file=here,
            fix="write a Python tool for this operation",
        )
    if media is None:
        return None
    schema = document.follow(content[media] or {}).get("schema")
    required = bool(raw.get("required"))
    node: Mapping[str, Any] | bool = schema if isinstance(schema, Mapping | bool) else {}
    flat = document.follow(node)
    if isinstance(flat, Mapping) and (_is_json(media) or media == FORM) and _mergeable(flat, taken):
        fields = {str(name): str(name) for name in flat.get("properties") or {}}
        return Body(media, required, flat, fields, _is_open(flat))
    return Body(media, required, node)


def _mergeable(schema: Mapping[str, Any], taken: set[str]) -> bool:
    properties = schema.get("properties")
    if not properties:
        # An object that may hold nothing needs no argument.
        return schema.get("type") == "object" and schema.get("additionalProperties") is False
    if not isinstance(properties, Mapping):
        return False
    if any(str(key) not in _MERGEABLE and not str(key).startswith("x-") for key in schema):
        return False
    if schema.get("type", "object") != "object" or schema.get("nullable"):
        return False
    return taken.isdisjoint(str(name) for name in properties)


def _is_open(schema: Mapping[str, Any]) -> bool:
    """Whether the contract says on purpose that other fields may be sent; silence is no."""
    more = schema.get("additionalProperties")
    return more is True or (isinstance(more, Mapping))


def _media(offered: Sequence[str]) -> str | None:
    """The media type to send: JSON first, then a form, then text."""
    ranked = [
        next((kind for kind in offered if _is_json(kind)), None),
        next((kind for kind in offered if kind.split(";")[0].strip() == FORM), None),
        next((kind for kind in offered if kind.startswith("text/")), None),
    ]
    return next((kind for kind in ranked if kind is not None), None)


def _is_json(media: str) -> bool:
    kind = media.split(";", maxsplit=1)[0].strip().lower()
    return kind in ("application/json", "*/*", "application/*") or kind.endswith("+json")


def _reference(overlay: Overlay, body: Body | None) -> str | None:
    """The optional body field that carries our own reference, if the lookup finds the write by it."""
    if overlay.lookup is None or body is None or body.fields is None or not isinstance(body.schema, Mapping):
        return None
    stated = overlay.lookup.reference
    for name in (stated,) if stated else _REFERENCES:
        used = any(value == f"$request.body#/{name}" for value in overlay.lookup.with_.values())
        if used and name in body.fields.values():
            return name
    return None


def _responses(document: Document, answers: Mapping[Any, Any]) -> dict[str, tuple[str, Any]]:
    made: dict[str, tuple[str, Any]] = {}
    for status, answer in answers.items():
        answer = document.follow(answer)
        if not isinstance(answer, Mapping):
            continue
        content: Mapping[str, Any] = answer.get("content") or {}
        media = next((kind for kind in content if _is_json(kind)), next(iter(content), ""))
        body = document.follow(content.get(media) or {})
        made[str(status).upper() if str(status) != "default" else "default"] = (media, body.get("schema"))
    return made


def input_schema(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    """One flat object of all arguments, closed unless the contract opens its body on purpose."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in operation.parameters:
        properties[parameter.argument] = parameter.schema
        if parameter.required:
            required.append(parameter.argument)
    rules: dict[str, Any] = {}
    closed: Any = False
    body = operation.body
    if body is not None and body.fields is None:
        properties["body"] = body.schema
        if body.required:
            required.append("body")
    elif body is not None and isinstance(body.schema, Mapping):
        listed = body.schema.get("properties") or {}
        shown = {name: part for name, part in listed.items() if name != operation.reference}
        properties.update(shown)
        needed = [name for name in body.schema.get("required") or [] if name in shown]
        if body.required:
            required += needed
        elif needed:
            rules["dependentRequired"] = {name: needed for name in shown}
        if body.open:
            closed = body.schema["additionalProperties"]
        if body.required and body.schema.get("minProperties") == 1 and not needed:
            rules["anyOf"] = [{"required": [name]} for name in shown]
    made = {"type": "object", "properties": properties, "additionalProperties": closed}
    converted = schemas.whole({**made, "required": required} if required else made)
    return {**converted, **rules}
