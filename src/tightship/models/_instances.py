"""Values that fit a JSON Schema (2020-12), made from a seed: the same schema and seed give the same value."""

from __future__ import annotations

import base64
import datetime as dt
import math
import random
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema_rs

from tightship.core.errors import WrongShape
from tightship.core.ports import Json
from tightship.models._patterns import Impossible, from_pattern

_TRIES = 60
_DEEP = 6
_TOO_DEEP = 40
_MAX_ITEMS = 3
_WORDS = ("rehearsal", "sample", "placeholder", "practice", "example", "draft", "trial", "mock")
_EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_COMBINATIONS = ("allOf", "anyOf", "oneOf", "if", "$ref")


def instance(schema: Mapping[str, Any] | bool, seed: str) -> Json:
    """A value that the schema accepts.

    Args:
        schema: JSON Schema; references must point into itself (`#/$defs/…`).
        seed: decides every choice.

    Raises:
        WrongShape: no value was found: the schema accepts nothing, or is beyond this generator.
    """
    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema if isinstance(schema, bool) else dict(schema), offline=True
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise WrongShape(f"the schema is none: {' '.join(str(error).split())[:200]}") from None
    for attempt in range(_TRIES):
        maker = _Maker(schema, random.Random(f"{seed}/{attempt}"), simple=attempt >= _TRIES // 2)
        try:
            value = maker.value(schema, 0)
        except (Impossible, RecursionError):
            continue
        if validator.is_valid(value):
            return value
    raise WrongShape("no value that fits this schema was found", fix="give the agent a simpler output, or an example")


class _Maker:
    def __init__(self, root: Mapping[str, Any] | bool, rng: random.Random, *, simple: bool) -> None:
        self._root = root
        self._rng = rng
        self._simple = simple

    def value(self, schema: Any, depth: int) -> Json:
        """A value for a schema that need not be right: the caller checks the whole."""
        if schema is False or depth > _TOO_DEEP:
            raise Impossible
        if not isinstance(schema, Mapping) or not schema:
            return self._words(1, 40)
        if any(key in schema for key in _COMBINATIONS):
            schema = self._flat(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._rng.choice(list(schema["enum"])) if schema["enum"] else self._never()
        return self._typed(self._type(schema), schema, depth)

    def _never(self) -> Json:
        raise Impossible

    def _flat(self, schema: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
        """References, combinations and conditions folded into one plain schema, choices made by the seed."""
        for _ in range(_TOO_DEEP):
            if not any(key in schema for key in _COMBINATIONS):
                return schema
            made = {key: part for key, part in schema.items() if key not in (*_COMBINATIONS, "then", "else")}
            parts: list[Any] = list(schema.get("allOf", ()))
            if "$ref" in schema:
                parts.append(self._at(schema["$ref"]))
            for key in ("anyOf", "oneOf"):
                if schema.get(key):
                    parts.append(self._choice(schema[key], depth))
            if "if" in schema:
                branch = ("then", True) if self._rng.random() < 0.5 else ("else", False)
                parts += [schema["if"]] if branch[1] else []
                parts.append(schema.get(branch[0], True))
            for part in parts:
                made = _merged(made, part)
            schema = made
        raise Impossible

    def _choice(self, options: Sequence[Any], depth: int) -> Any:
        """One of several; deep down the smallest, which ends recursion."""
        if depth > _DEEP or self._simple:
            return min(options, key=lambda option: len(str(option)) + (1000 if "$ref" in str(option) else 0))
        return self._rng.choice(list(options))

    def _at(self, ref: str) -> Any:
        node: Any = self._root
        for part in ref.removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                raise Impossible
        return node

    def _type(self, schema: Mapping[str, Any]) -> str:
        stated = schema.get("type")
        if isinstance(stated, list):
            named = [kind for kind in stated if kind != "null"]
            return self._rng.choice(named) if named and self._rng.random() < 0.8 else str(self._rng.choice(stated))
        if isinstance(stated, str):
            return stated
        for kind, keys in _TYPICAL.items():
            if not keys.isdisjoint(schema):
                return kind
        return "string"

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int) -> Json:
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        return self._rng.random() < 0.5 if kind == "boolean" else None

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Json]:
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = list(schema.get("required", ()))
        names = list(required)
        for name, part in properties.items():
            wanted = depth < _DEEP and not self._simple and self._rng.random() < 0.7
            if name not in names and part is not False and wanted:
                names.append(name)
        for name in list(names):
            names += [more for more in schema.get("dependentRequired", {}).get(name, ()) if more not in names]
        least = int(schema.get("minProperties", 0))
        names += [name for name in properties if name not in names][: max(least - len(names), 0)]
        if "maxProperties" in schema:
            names = names[: max(int(schema["maxProperties"]), len(required))]
        made = {name: self.value(self._property(schema, name), depth + 1) for name in names}
        self._fill(schema, made, least, depth)
        return made

    def _fill(self, schema: Mapping[str, Any], made: dict[str, Json], least: int, depth: int) -> None:
        """Fields that the schema does not name, as many as it asks for (one for a bare map)."""
        more = schema.get("additionalProperties", True)
        if not made and not schema.get("properties") and isinstance(more, Mapping) and depth < _DEEP:
            least = max(least, 1)
        patterns = list(schema.get("patternProperties", {}))
        for n in range(10 * least):
            if len(made) >= least:
                return
            if patterns:
                name = from_pattern(patterns[0], self._rng)
            elif isinstance(schema.get("propertyNames"), Mapping):
                name = str(self.value({"type": "string", **schema["propertyNames"]}, depth + 1))
            else:
                name = f"field_{n + 1}"
            made[name] = self.value(self._property(schema, name), depth + 1)

    def _property(self, schema: Mapping[str, Any], name: str) -> Any:
        properties = schema.get("properties", {})
        if name in properties:
            return properties[name]
        for pattern, part in schema.get("patternProperties", {}).items():
            if re.search(pattern, name):
                return part
        return schema.get("additionalProperties", True)

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Json]:
        prefix: Sequence[Any] = schema.get("prefixItems", ())
        least = max(int(schema.get("minItems", 0)), int(schema.get("minContains", 1)) if "contains" in schema else 0)
        most = int(schema.get("maxItems", max(least, len(prefix), _MAX_ITEMS)))
        if schema.get("items") is False:
            most = min(most, len(prefix))
        wished = 0 if depth > _DEEP or self._simple else self._rng.randint(min(1, most), min(_MAX_ITEMS, most) or 0)
        size = max(least, min(max(wished, len(prefix) if not self._simple else 0), most))
        made: list[Json] = []
        for _ in range(size * (10 if schema.get("uniqueItems") else 1)):
            if len(made) == size:
                break
            at = len(made)
            part = prefix[at] if at < len(prefix) else schema.get("items", True)
            if "contains" in schema and at < int(schema.get("minContains", 1)):
                part = _merged(dict(part) if isinstance(part, Mapping) else {}, schema["contains"])
            value = self.value(part, depth + 1)
            if not schema.get("uniqueItems") or value not in made:
                made.append(value)
        return made

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> int | float:
        low = max(
            (float(schema[key]) for key in ("minimum", "exclusiveMinimum") if isinstance(schema.get(key), int | float)),
            default=-math.inf,
        )
        high = min(
            (float(schema[key]) for key in ("maximum", "exclusiveMaximum") if isinstance(schema.get(key), int | float)),
            default=math.inf,
        )
        if low == -math.inf:
            low = 0.0 if high >= 0 else high - 100
        if high == math.inf:
            high = low + 100
        step = schema.get("multipleOf") or (1 if whole else None)
        if step is not None:
            first, last = math.ceil(low / step), math.floor(high / step)
            first += first * step == schema.get("exclusiveMinimum")
            last -= last * step == schema.get("exclusiveMaximum")
            if first > last:
                raise Impossible
            value = self._rng.randint(first, last) * step
            return int(value) if whole else value
        high = min(high, low + 100)  # small amounts look like amounts
        value = round(low + (high - low) * self._rng.uniform(0.05, 0.95), 2)
        return value if low < value < high else (low + high) / 2

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 10_000))
        if least > most:
            raise Impossible
        make = _FORMATS.get(str(schema.get("format")))
        if make is not None:
            text = make(self._rng)
            if "pattern" not in schema or re.search(str(schema["pattern"]), text):
                return text
        if "pattern" in schema:
            return from_pattern(str(schema["pattern"]), self._rng, least, most)
        return self._words(max(least, 1 if most else 0), min(most, max(least, 40)))

    def _words(self, least: int, most: int) -> str:
        """Words that say of themselves that they mean nothing."""
        text = " ".join(self._rng.choices(_WORDS, k=self._rng.randint(2, 5)))
        while len(text) < least:
            text += " " + self._rng.choice(_WORDS)
        text = text[:most].rstrip()
        return text + "." * (least - len(text))


_TYPICAL = {
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "patternProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "string": frozenset({"pattern", "minLength", "maxLength", "format"}),
}


def _merged(first: Mapping[str, Any], second: Any) -> dict[str, Any]:
    """Both schemas at once, as far as plain keywords allow; the whole value is validated in the end."""
    if second is False:
        raise Impossible
    made = dict(first)
    for key, value in second.items() if isinstance(second, Mapping) else ():
        if key not in made:
            made[key] = value
        elif key in ("properties", "patternProperties", "$defs", "dependentRequired"):
            made[key] = {**made[key], **{name: _both(made[key].get(name), part) for name, part in value.items()}}
        elif key == "required":
            made[key] = list(dict.fromkeys([*made[key], *value]))
        elif key in ("allOf",):
            made[key] = [*made[key], *value]
        elif key in ("anyOf", "oneOf"):
            made["allOf"] = [*made.get("allOf", ()), {key: value}]
        elif key == "enum":
            made[key] = [option for option in made[key] if option in value]
        elif key == "type":
            made[key] = _types(made[key], value)
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            made[key] = max(made[key], value)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            made[key] = min(made[key], value)
        else:
            made[key] = _both(made[key], value) if key == "items" else value
    return made


def _both(first: Any, second: Any) -> Any:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {"allOf": [first, second]}
    return second if first in (None, True) else first


def _types(first: Any, second: Any) -> Any:
    one = first if isinstance(first, list) else [first]
    two = second if isinstance(second, list) else [second]
    common = [kind for kind in one if kind in two or (kind == "integer" and "number" in two)]
    common += [kind for kind in two if kind == "integer" and "number" in one and kind not in common]
    if not common:
        raise Impossible
    return common[0] if len(common) == 1 else common


def _moment(rng: random.Random) -> dt.datetime:
    return _EPOCH + dt.timedelta(seconds=rng.randrange(365 * 86_400))


_FORMATS: dict[str, Callable[[random.Random], str]] = {
    "date-time": lambda rng: _moment(rng).isoformat().replace("+00:00", "Z"),
    "date": lambda rng: _moment(rng).date().isoformat(),
    "time": lambda rng: _moment(rng).time().isoformat() + "Z",
    "duration": lambda rng: f"PT{rng.randint(1, 90)}M",
    "email": lambda rng: f"rehearsal{rng.randint(1, 999)}@example.com",
    "idn-email": lambda rng: f"rehearsal{rng.randint(1, 999)}@example.com",
    "hostname": lambda rng: f"rehearsal{rng.randint(1, 999)}.example.com",
    "uri": lambda rng: f"https://example.com/rehearsal/{rng.randint(1, 999)}",
    "uri-reference": lambda rng: f"/rehearsal/{rng.randint(1, 999)}",
    "url": lambda rng: f"https://example.com/rehearsal/{rng.randint(1, 999)}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "ipv4": lambda rng: f"192.0.2.{rng.randint(1, 254)}",
    "ipv6": lambda rng: f"2001:db8::{rng.randint(1, 9999):x}",
    "byte": lambda rng: base64.b64encode(rng.randbytes(6)).decode(),
    "json-pointer": lambda rng: f"/rehearsal/{rng.randint(0, 9)}",
    "regex": lambda rng: f"^rehearsal{rng.randint(0, 9)}$",
}
