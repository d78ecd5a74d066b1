"""Arguments as an HTTP request: parameter styles (OpenAPI 3.1, "Style Values"; RFC 6570), bodies, headers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from tightship.connectors._operation import FORM, Body, Operation, Parameter
from tightship.core.errors import InvalidArguments
from tightship.core.ports import Request

_MAX_URL = 60_000
"""Characters; the client takes 65,536 with what signing in adds."""
_DELIMITERS = {"form": ",", "simple": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}


@dataclass(slots=True)
class Outgoing:
    """A request that is ready to be signed and sent. `url` is absolute and percent-encoded."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None


def token_of(request: Request) -> str:
    """The idempotency token of an effect: the same for every attempt, another for every other effect."""
    digest = hashlib.sha256(f"{request.run}\x1f{request.key}".encode()).hexdigest()
    return f"ts-{digest[:32]}"


def body_of(operation: Operation, args: Mapping[str, Any], token: str) -> Any:
    """The request body of these arguments as JSON, or None when none is sent."""
    body = operation.body
    if body is None:
        return None
    if body.fields is None:
        return args.get("body", {} if body.required else None)
    made = {wire: args[name] for name, wire in body.fields.items() if name in args}
    if body.open:
        outside = {parameter.argument for parameter in operation.parameters}
        made |= {name: value for name, value in args.items() if name not in outside and name not in body.fields}
    if operation.reference is not None:
        made[operation.reference] = token
    return made if made or body.required else None


def build(operation: Operation, base_url: str, args: Mapping[str, Any], token: str) -> Outgoing:
    """The HTTP request of a call.

    Args:
        operation: what is called.
        base_url: without a slash at its end.
        args: the call's arguments.
        token: the idempotency token, sent where the operation honours one.

    Raises:
        InvalidArguments: an argument is missing, unknown, or cannot be written where it belongs.
    """
    _check_names(operation, args)
    path, query, headers, cookies = operation.path, [], {"Accept": "application/json, */*;q=0.1"}, []
    for parameter in operation.parameters:
        value = args.get(parameter.argument)
        if value is None:
            if parameter.place == "path":
                raise InvalidArguments(f"{operation.id} needs {parameter.argument!r}")
            continue
        if parameter.place == "path":
            path = path.replace("{" + parameter.wire + "}", _path_text(parameter, value))
        elif parameter.place == "query":
            query += _query(parameter, value)
        elif parameter.place == "header":
            headers[parameter.wire] = _header_text(parameter, value)
        else:
            cookies.append(f"{quote(parameter.wire, safe='')}={_joined(parameter, value)}")
    if cookies:
        headers["Cookie"] = "; ".join(cookies)
    if operation.key_header is not None:
        headers[operation.key_header] = token
    url = base_url + path + ("?" + "&".join(query) if query else "")
    if len(url) > _MAX_URL:
        raise InvalidArguments(f"{operation.id}: the arguments make a URL of {len(url):,} characters")
    outgoing = Outgoing(operation.method.upper(), url, headers)
    body = body_of(operation, args, token)
    if body is not None and operation.body is not None:
        outgoing.content = _encode(operation.body, body)
        headers["Content-Type"] = operation.body.media
    return outgoing


def _check_names(operation: Operation, args: Mapping[str, Any]) -> None:
    known = {parameter.argument for parameter in operation.parameters}
    body = operation.body
    if body is not None:
        if body.open:
            return
        known |= {"body"} if body.fields is None else set(body.fields) - {operation.reference}
    unknown = sorted(set(args) - known)
    if unknown:
        raise InvalidArguments(f"{operation.id} has no argument {', '.join(map(repr, unknown))}")


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float) or value is None:
        return orjson.dumps(value).decode()
    raise InvalidArguments("a list or object stands where one value belongs")


def _quoted(value: Any) -> str:
    return quote(_scalar(value), safe="")


def _joined(parameter: Parameter, value: Any) -> str:
    """A value in one piece of text, its parts percent-encoded and joined by the style's delimiter."""
    if parameter.as_json:
        return quote(orjson.dumps(value).decode(), safe="")
    delimiter = _DELIMITERS.get(parameter.style, ",")
    if isinstance(value, Mapping):
        glue = "=" if parameter.explode and parameter.place != "query" else delimiter
        return delimiter.join(f"{_quoted(name)}{glue}{_quoted(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return delimiter.join(_quoted(part) for part in value)
    return _quoted(value)


def _path_text(parameter: Parameter, value: Any) -> str:
    text = _joined(parameter, value)
    if text in ("", ".", "..", "%2E", "%2E%2E"):
        raise InvalidArguments(f"{parameter.argument!r} is {text!r}, which would change the path")
    if parameter.style == "label":
        return "." + text
    if parameter.style == "matrix":
        return f";{quote(parameter.wire, safe='')}={text}"
    return text


def _query(parameter: Parameter, value: Any) -> list[str]:
    name = quote(parameter.wire, safe="")
    if parameter.as_json:
        return [f"{name}={_joined(parameter, value)}"]
    if isinstance(value, Mapping):
        if parameter.style == "deepObject":
            return [f"{name}%5B{_quoted(key)}%5D={_quoted(part)}" for key, part in value.items()]
        if parameter.explode:
            return [f"{_quoted(key)}={_quoted(part)}" for key, part in value.items()]
    if isinstance(value, list | tuple) and parameter.explode:
        return [f"{name}={_quoted(part)}" for part in value]
    return [f"{name}={_joined(parameter, value)}"]


def _header_text(parameter: Parameter, value: Any) -> str:
    """A header's value: visible ASCII and blanks only (RFC 9110, section 5.5), so nothing can start a new header."""
    if isinstance(value, list | tuple):
        text = ",".join(_scalar(part) for part in value)
    elif isinstance(value, Mapping):
        text = ",".join(f"{name}{'=' if parameter.explode else ','}{_scalar(part)}" for name, part in value.items())
    else:
        text = _scalar(value)
    if not text.isascii() or any(letter < " " or letter == "\x7f" for letter in text):
        raise InvalidArguments(f"{parameter.argument!r} holds a character that no header may hold")
    return text.strip(" ")


def _encode(body: Body, value: Any) -> bytes:
    if body.media.split(";")[0].strip() == FORM:
        if not isinstance(value, Mapping):
            raise InvalidArguments("a form needs an object of fields")
        pairs: list[str] = []
        for name, part in value.items():
            many = part if isinstance(part, list) else [part]
            pairs += [f"{quote(str(name), safe='')}={_quoted(one)}" for one in many if one is not None]
        return "&".join(pairs).encode()
    if body.media.startswith("text/"):
        return _scalar(value).encode()
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise InvalidArguments(f"the body is no JSON: {error}") from None
