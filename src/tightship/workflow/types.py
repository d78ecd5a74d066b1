"""Field types as people write them -> JSON Schema (draft 2020-12), and validation with messages that help.

| written | means |
|---|---|
| `str` `int` `float` `bool` | that scalar (`float` takes whole numbers too) |
| `object` `list` `any` | an object or a list of anything; anything |
| `list[str]` | a list of that type, to any depth |
| `"str?"` or the key `name?` | the field may be missing or null |
| `["low", "high"]` | one of these values |
| `{city: str}` | an object with exactly these fields |
| `[{sku: str}]` | a list of such objects |

Objects with declared fields are closed: what is not declared is refused.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tightship.core.errors import InputRejected, LoadError, TightshipError, WrongShape
from tightship.core.ports import Json
from tightship.workflow.source import did_you_mean

_SCALARS: Final[Mapping[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {"type": "object"},
    "list": {"type": "array"},
    "any": {},
}
_WORDS: Final = {
    "string": "str",
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "dict": "object",
}
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_UNSELECTABLE: Final = frozenset({"true", "false", "null", "in"})
MAX_TYPE_DEPTH: Final = 16
MAX_ENUM: Final = 500
MAX_PROBLEMS: Final = 20
_SHOWN: Final = 80


def type_schema(spec: Any, depth: int = 0) -> tuple[dict[str, Any], bool]:
    """The JSON Schema of one field's type, and whether the field may be missing.

    Raises:
        ValueError: it is no type; the message says what is allowed.
    """
    if depth > MAX_TYPE_DEPTH:
        raise ValueError(f"types nest at most {MAX_TYPE_DEPTH} levels deep")
    if isinstance(spec, str):
        return _worded(spec.strip(), depth)
    if isinstance(spec, Mapping):
        return object_schema(spec, depth + 1), False
    if isinstance(spec, Sequence):
        return _listed(spec, depth), False
    raise ValueError(f"{spec!r} is no type; write str, int, float, bool, object, list, list[str], or [a, b]")


def _worded(text: str, depth: int) -> tuple[dict[str, Any], bool]:
    if text.endswith("?"):
        inner, _ = _worded(text[:-1].rstrip(), depth)
        return nullable(inner), True
    if text.startswith("list[") and text.endswith("]"):
        inner, optional = _worded_inner(text[5:-1].strip(), depth)
        return {"type": "array", "items": nullable(inner) if optional else inner}, False
    if text in _SCALARS:
        return dict(_SCALARS[text]), False
    if text.lower() in _WORDS:
        raise ValueError(f"{text!r} is no type here; write {_WORDS[text.lower()]!r}")
    raise ValueError(f"{text!r} is no type; {did_you_mean(text, _SCALARS)}")


def _worded_inner(text: str, depth: int) -> tuple[dict[str, Any], bool]:
    if depth > MAX_TYPE_DEPTH:
        raise ValueError(f"types nest at most {MAX_TYPE_DEPTH} levels deep")
    return _worded(text, depth + 1)


def _listed(spec: Sequence[Any], depth: int) -> dict[str, Any]:
    if len(spec) == 1 and isinstance(spec[0], Mapping):
        return {"type": "array", "items": object_schema(spec[0], depth + 1)}
    if not spec or len(spec) > MAX_ENUM:
        raise ValueError(f"a list of allowed values has between 1 and {MAX_ENUM} of them")
    if not all(isinstance(value, str | int | float | bool) for value in spec):
        raise ValueError("allowed values are text, numbers or true/false")
    values = [str(value) if isinstance(value, str) else value for value in spec]
    if len({(type(value) is bool, value) for value in values}) != len(values):
        raise ValueError("an allowed value stands there twice")
    return {"enum": values}


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, or null."""
    kind = schema.get("type")
    if isinstance(kind, str):
        return {**schema, "type": [kind, "null"]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return dict(schema)


def object_schema(fields: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """The closed JSON Schema of an object with these fields.

    Raises:
        ValueError: a field's name or type is not allowed; the message names the field.
    """
    properties, required = dict[str, Any](), list[str]()
    for written, spec in fields.items():
        name = str(written).removesuffix("?")
        if not _FIELD.match(name) or name in _UNSELECTABLE or len(name) > 64:
            raise ValueError(f"{written!r} is no name for a field; use letters, digits and '_'")
        if name in properties:
            raise ValueError(f"the field {name!r} stands there twice")
        try:
            schema, optional = type_schema(spec, depth)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if written != name:
            schema, optional = nullable(schema), True
        properties[name] = schema
        if not optional:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Misfit:
    """One place where a value does not fit: its path (`passages[2].score`), what was expected, what was got."""

    path: str
    expected: str
    got: str

    def __str__(self) -> str:
        where = self.path or "the value"
        return f"{where}: expected {self.expected}, got {self.got}" if self.got else f"{where}: {self.expected}"


class Shape:
    """A compiled JSON Schema. References to other documents are never fetched, patterns run with a step limit."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Compile.

        Raises:
            ValueError: it is no JSON Schema, or refers to another document.
        """
        import jsonschema_rs

        self.schema = schema
        try:
            self._validator: Any = jsonschema_rs.validator_for(
                dict(schema),
                retriever=_refuse,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000),
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise ValueError(f"this is no usable JSON Schema: {str(error).splitlines()[0]}") from None

    def fits(self, value: Json) -> bool:
        """Whether the value fits; false also for what is not JSON."""
        try:
            return bool(self._validator.is_valid(value))
        except (ValueError, TypeError, OverflowError):
            return False

    def misfits(self, value: Json) -> list[Misfit]:
        """Every place (at most 20) where it does not fit."""
        if self.fits(value):
            return []
        try:
            return [misfit for _, misfit in zip(range(MAX_PROBLEMS), self._explain(value), strict=False)]
        except (ValueError, TypeError, OverflowError) as error:
            return [Misfit("", "JSON (text, numbers, true/false, null, lists, objects)", str(error))]

    def _explain(self, value: Json) -> Iterator[Misfit]:
        for error in self._validator.iter_errors(value):
            yield from _misfits(error)

    def require(self, value: Json, what: str, error: type[TightshipError] = WrongShape) -> Json:
        """The value, if it fits.

        Args:
            value: what to judge.
            what: what it is called in the message, for example `the output of triage`.
            error: the exception class to raise.

        Raises:
            TightshipError: of that class; the message lists every misfit.
        """
        found = self.misfits(value)
        if not found:
            return value
        listed = "; ".join(str(misfit) for misfit in found)
        raise error(f"{what} does not fit: {listed}", fix="correct these fields, or the declared types")


def _refuse(uri: str) -> Any:
    raise ValueError(f"the schema refers to another document ({uri}), which is not fetched")


def _misfits(error: Any) -> Iterator[Misfit]:
    path, kind = path_text(error.instance_path), type(error.kind).__name__.rpartition(".")[2]
    if kind == "Required":
        name = str(error.kind.property)
        yield Misfit(path_text([*error.instance_path, name]), "this required field is missing", "")
    elif kind == "AdditionalProperties":
        for name in error.kind.unexpected:
            yield Misfit(path_text([*error.instance_path, name]), "this field is not declared", "")
    elif kind == "Type":
        allowed = error.kind.types
        names = [str(name) for name in allowed] if isinstance(allowed, list | tuple) else [str(allowed)]
        yield Misfit(path, " or ".join(names), describe(error.instance))
    elif kind == "Enum":
        options = error.kind.options
        yield Misfit(path, f"one of {_short(options)}", describe(error.instance))
    else:
        yield Misfit(path, _clip(str(error.message)), describe(error.instance))


def path_text(parts: Sequence[str | int]) -> str:
    """`a.b[2].c` of a path."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def describe(value: Json) -> str:
    """A short text for a value: its JSON, clipped, with its type when it is compound."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, list(value)[:6])) or 'no fields'}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return _clip(orjson.dumps(value).decode())
    except TypeError:
        return _clip(repr(value))


def _clip(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


@functools.lru_cache(maxsize=2048)
def _compiled(canonical: bytes) -> Shape:
    return Shape(orjson.loads(canonical))


def shape_of(schema: Mapping[str, Any]) -> Shape:
    """The compiled shape of a JSON Schema, cached by its canonical text.

    Raises:
        ValueError: it is no usable JSON Schema.
    """
    return _compiled(orjson.dumps(dict(schema), option=orjson.OPT_SORT_KEYS))


def fields_shape(fields: Mapping[str, Any]) -> Shape:
    """The shape of an object with these declared fields.

    Raises:
        LoadError: a field's type is not allowed.
    """
    try:
        return shape_of(object_schema(fields))
    except ValueError as error:
        raise LoadError(str(error), fix="see the list of types in the documentation of workflows") from None


def check_input(fields: Mapping[str, Any], value: Json, workflow: str) -> dict[str, Json]:
    """A workflow's input, if it fits its declared fields.

    Raises:
        InputRejected: it does not; every misfit is listed.
    """
    found: dict[str, Json] = fields_shape(fields).require(value, f"the input of {workflow}", InputRejected)
    return found
