"""Pydantic's errors as LoadErrors that say where, what and how to mend it."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from tightship.core.errors import LoadError
from tightship.workflow.source import Mark, MarkedDict, did_you_mean, find_mark

_NAMED = re.compile(r"'([^']+)' |(\w+): ")
_PLAIN: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("is missing", "add it"),
    "string_type": ("must be text", "put it in quotes if it is text"),
    "int_type": ("must be a whole number", "write a whole number"),
    "int_parsing": ("must be a whole number", "write a whole number"),
    "int_from_float": ("must be a whole number", "write a whole number"),
    "float_type": ("must be a number", "write a number"),
    "float_parsing": ("must be a number", "write a number"),
    "bool_type": ("must be true or false", "write true or false"),
    "bool_parsing": ("must be true or false", "write true or false"),
    "dict_type": ("must be a mapping", "write `name: value` pairs below it"),
    "mapping_type": ("must be a mapping", "write `name: value` pairs below it"),
    "model_type": ("must be a mapping", "write `name: value` pairs below it"),
    "model_attributes_type": ("must be a mapping", "write `name: value` pairs below it"),
    "list_type": ("must be a list", "write a list: [a, b], or lines that begin with '-'"),
    "tuple_type": ("must be a list", "write a list: [a, b], or lines that begin with '-'"),
    "frozen_set_type": ("must be a list", "write a list: [a, b], or lines that begin with '-'"),
}


def load_errors(
    error: ValidationError,
    raw: Any,
    model: type[BaseModel],
    what: str,
    file: str | None,
    written: Mapping[str, str] = MappingProxyType({}),
) -> list[LoadError]:
    """One LoadError per problem.

    Args:
        error: what pydantic found.
        raw: the marked mapping that was validated.
        model: the model it was validated against, for "did you mean".
        what: what is being read, for example `the agent triage`.
        file: the file's name when `raw` carries no marks.
        written: fields that stand in files under another name.
    """
    found = list[LoadError]()
    for problem in error.errors(include_url=False):
        first, *rest = problem["loc"] or ("",)
        location = (written.get(str(first), first), *rest) if problem["loc"] else ()
        found.append(_load_error({**problem, "loc": location}, raw, model, what, file))
    return found


def _load_error(problem: Mapping[str, Any], raw: Any, model: type[BaseModel], what: str, file: str | None) -> LoadError:
    location: Sequence[str | int] = problem["loc"]
    kind, path = str(problem["type"]), ".".join(str(part) for part in location)
    unknown = kind == "extra_forbidden"
    mark = _key_mark(raw, location, str(problem["msg"])) or find_mark(raw, location, key=unknown or kind == "missing")
    if unknown:
        known = field_words(model_at(model, location[:-1]))
        message, fix = f"{what} has no field {path!r}", did_you_mean(str(location[-1]), known)
    elif kind in _PLAIN:
        said, fix = _PLAIN[kind]
        message = f"{path or 'the content'} of {what} {said}"
    else:
        message, fix = _formless(model, location, path, what) if kind == "string_pattern_mismatch" else ("", "")
        if not fix:
            message, fix = _other(kind, problem, path, what)
    if mark is not None:
        return mark.error(message, fix=fix)
    return LoadError(message, file=file, line=1 if file else None, column=1 if file else None, fix=fix)


def _key_mark(raw: Any, location: Sequence[str | int], said: str) -> Mark | None:
    """The place of the key that a message begins with (`'x' is no …`, `x: …`), when it stands at the location."""
    found = _NAMED.match(said.removeprefix("Value error, "))
    value = raw
    for part in location:
        value = value.get(str(part)) if isinstance(value, MarkedDict) else None
    if found is None or not isinstance(value, MarkedDict):
        return None
    name = found.group(1) or found.group(2)
    return value.keys_at.get(name) or value.keys_at.get(f"{name}?")


def _formless(model: type[BaseModel], location: Sequence[str | int], path: str, what: str) -> tuple[str, str]:
    """For a text of another form than its field's: the field's own examples, where it has some.

    The text itself may be a URL with a password, and is not repeated.
    """
    holder = model_at(model, location[:-1])
    field = None if holder is None else holder.model_fields.get(str(location[-1]))
    examples = [] if field is None else field.examples or []
    return f"{path} of {what} has not the form that it must have", " or ".join(f"write `{one}`" for one in examples)


def _other(kind: str, problem: Mapping[str, Any], path: str, what: str) -> tuple[str, str]:
    said = str(problem["msg"]).removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    if kind == "literal_error":
        return f"{path} of {what} is not one of {problem['ctx']['expected']}", _near_literal(problem)
    message, _, fix = said.partition("; ")
    return f"{path} of {what}: {message}" if path else f"{what}: {message}", fix or "correct the value"


def _near_literal(problem: Mapping[str, Any]) -> str:
    allowed = [word.strip(" '") for word in str(problem["ctx"]["expected"]).replace(" or ", ",").split(",")]
    return did_you_mean(str(problem.get("input")), allowed)


def field_words(model: type[BaseModel] | None) -> list[str]:
    """The names of a model's fields as they are written."""
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that stands at a path below another, through lists, mappings and options."""
    found: Any = model
    for part in location:
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = next((f for n, f in found.model_fields.items() if part in (n, f.alias)), None)
            found = _inner(field.annotation) if field is not None else None
        else:
            found = _inner(_item(found))
        if found is None:
            return None
    found = _inner(found)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _inner(annotation: Any) -> Any:
    """The annotation without Annotated and None."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _inner(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return next((_inner(one) for one in typing.get_args(annotation) if one is not type(None)), None)
    return annotation


def _item(annotation: Any) -> Any:
    """What a list or mapping holds."""
    arguments = typing.get_args(annotation)
    return arguments[-1] if arguments and arguments[-1] is not Ellipsis else (arguments[0] if arguments else None)
