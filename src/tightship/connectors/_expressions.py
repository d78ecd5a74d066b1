"""OpenAPI runtime expressions (OpenAPI 3.1, "Runtime Expressions"): evaluated for lookups, turned into CEL for undo."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tightship.connectors._operation import Operation
from tightship.core.errors import LoadError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Words that CEL reserves (CEL language definition, "Syntax"); as a field they need brackets.
_RESERVED = frozenset(
    {
        "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop",
        "namespace", "null", "package", "return", "true", "var", "void", "while",
    }
)  # fmt: skip


class Absent(Exception):
    """The expression points at something that this call does not have."""


def is_expression(value: Any) -> bool:
    """Whether a value is a runtime expression; anything else is a constant."""
    return isinstance(value, str) and value.startswith("$")


def carries_token(operation: Operation, value: Any) -> bool:
    """Whether an expression stands for the idempotency token of the call."""
    if not is_expression(value):
        return False
    if operation.reference is not None and value == f"$request.body#/{operation.reference}":
        return True
    header = operation.key_header
    return header is not None and value.lower() == f"$request.header.{header}".lower()


def evaluate(operation: Operation, value: Any, args: Mapping[str, Any], body: Any, token: str) -> Any:
    """What a `with` entry of a lookup stands for in this call.

    Raises:
        Absent: the call does not have what it points at.
    """
    if not is_expression(value):
        return value
    if carries_token(operation, value):
        return token
    source, _, rest = value.removeprefix("$request.").partition(".")
    if value.startswith("$request.body"):
        return _point(body, value.removeprefix("$request.body").removeprefix("#"))
    argument = operation.argument_of(source, rest) if value.startswith("$request.") else None
    if argument is None or argument not in args:
        raise Absent(value)
    return args[argument]


def to_cel(operation: Operation, value: Any, where: str) -> str:
    """The CEL expression over `args` and `result` that a `with` entry of an undo stands for.

    Raises:
        LoadError: it points at something that is neither an argument nor in the answer's body.
    """
    if not is_expression(value):
        return json.dumps(value, ensure_ascii=False)
    if value == "$response.body":
        return "result"
    if value.startswith("$response.body#"):
        return "result" + _members(value.removeprefix("$response.body#"))
    if value.startswith("$request.body#"):
        pointer = value.removeprefix("$request.body#")
        first = pointer.lstrip("/").split("/")[0]
        body = operation.body
        if body is not None and body.fields is None:
            return "args.body" + _members(pointer)
        if body is not None and (body.open or first in (body.fields or {})) and first != operation.reference:
            return "args" + _members(pointer)
    elif value.startswith("$request."):
        place, _, wire = value.removeprefix("$request.").partition(".")
        argument = operation.argument_of(place, wire)
        if argument is not None:
            return "args" + _member(argument)
    raise LoadError(
        f"the expression {value!r} points at no argument of {operation.id} and at nothing in its answer's body",
        file=where,
        fix="use $request.path.NAME, $request.query.NAME, $request.body#/FIELD, $response.body#/FIELD or a constant",
    )


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _point(value: Any, pointer: str) -> Any:
    for part in _parts(pointer):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise Absent(pointer)
    return value


def _member(name: str) -> str:
    if name.isdigit():
        return f"[{name}]"
    if _NAME.match(name) and name not in _RESERVED:
        return f".{name}"
    return f"[{json.dumps(name)}]"


def _members(pointer: str) -> str:
    return "".join(_member(part) for part in _parts(pointer))
