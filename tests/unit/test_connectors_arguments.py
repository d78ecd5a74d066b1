"""What goes into a call comes out of it on the other side, whatever its characters."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tightship.connectors.openapi import OpenApiConnector
from tightship.core.errors import InvalidArguments
from tightship.core.ports import Request
from tightship.core.world import World


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The call as a server sees it, taken apart by the standard library."""
    asked = HttpRequest(scope, receive)
    path = asked.scope["raw_path"].decode().split("/")
    raw = await asked.body()
    form = asked.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    answer = JSONResponse(
        {
            "path": [unquote(part) for part in path[2:]],
            "query": parse_qsl(asked.scope["query_string"].decode(), keep_blank_values=True),
            "raw_query": asked.scope["query_string"].decode(),
            "headers": dict(asked.headers),
            "body": parse_qsl(raw.decode(), keep_blank_values=True) if form else (orjson.loads(raw) if raw else None),
        }
    )
    await answer(scope, receive, send)


def _parameter(name: str, place: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {}, **more}


CONTRACT = {
    "openapi": "3.1.0",
    "paths": {
        "/echo/{one}/{two}": {
            "post": {
                "operationId": "echo",
                "parameters": [
                    _parameter("one", "path"),
                    _parameter("two", "path"),
                    _parameter("q", "query"),
                    _parameter("many", "query"),
                    _parameter("comma", "query", explode=False),
                    _parameter("pipe", "query", style="pipeDelimited", explode=False),
                    _parameter("deep", "query", style="deepObject"),
                    _parameter("spread", "query"),
                    {"name": "json", "in": "query", "content": {"application/json": {"schema": {}}}},
                    _parameter("X-Note", "header"),
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {name: {} for name in ("text", "n", "list", "deeper")},
                            }
                        }
                    },
                },
                "responses": {},
            },
        },
        "/echo/form": {
            "post": {
                "operationId": "form",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/x-www-form-urlencoded": {
                            "schema": {"type": "object", "properties": {"a": {}, "b": {}, "many": {"type": "array"}}}
                        }
                    },
                },
                "responses": {},
            }
        },
    },
}


@pytest.fixture(scope="module")
def connector() -> OpenApiConnector:
    world = World(transport=httpx2.ASGITransport(app=_echo))
    return OpenApiConnector("echo", CONTRACT, "http://echo.test", None, world)


async def call(connector: OpenApiConnector, name: str, args: dict[str, Any]) -> Any:
    return (await connector.tool(f"echo.{name}").perform(Request(args, "k", "r", "a", 9e12))).value


# Surrogates have no UTF-8; a lone dot or nothing would be another path, which is refused.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
segments = texts.filter(lambda text: text not in ("", ".", ".."))
headers = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(lambda text: text.strip(" "))
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    one=segments,
    two=segments,
    q=texts,
    many=st.lists(texts, max_size=4),
    comma=st.lists(texts, min_size=1, max_size=4),
    deep=st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), texts, max_size=3),
    as_json=values.filter(lambda value: value is not None),
    note=headers,
    fields=st.fixed_dictionaries(
        {}, optional={"text": texts, "n": numbers, "list": st.lists(values, max_size=3), "deeper": values}
    ),
)
async def test_arguments_arrive_as_they_were_given(
    connector: OpenApiConnector,
    one: str,
    two: str,
    q: str,
    many: list[str],
    comma: list[str],
    deep: dict[str, str],
    as_json: Any,
    note: str,
    fields: dict[str, Any],
) -> None:
    args = {"one": one, "two": two, "q": q, "many": many, "comma": comma, "deep": deep, "json": as_json, "x_note": note}
    seen = await call(connector, "echo", {**args, **fields})
    assert seen["path"] == [one, two]
    query = [tuple(pair) for pair in seen["query"]]
    assert [value for name, value in query if name == "q"] == [q]
    assert [value for name, value in query if name == "many"] == many
    assert {name[5:-1]: value for name, value in query if name.startswith("deep[")} == deep
    assert orjson.loads(next(value for name, value in query if name == "json")) == as_json
    raw = next(part for part in seen["raw_query"].split("&") if part.startswith("comma="))
    assert [unquote(part) for part in raw.removeprefix("comma=").split(",")] == comma
    assert seen["headers"]["x-note"] == note
    assert seen["body"] == fields


@settings(max_examples=50, deadline=None)
@given(a=texts, b=st.booleans(), many=st.lists(texts, max_size=3))
async def test_a_form_arrives_as_it_was_given(connector: OpenApiConnector, a: str, b: bool, many: list[str]) -> None:
    seen = await call(connector, "form", {"a": a, "b": b, "many": many})
    assert seen["body"] == [["a", a], ["b", "true" if b else "false"], *[["many", part] for part in many]]


async def test_styles_are_written_as_the_specification_says(connector: OpenApiConnector) -> None:
    seen = await call(
        connector,
        "echo",
        {"one": 3, "two": True, "pipe": ["a", "b c"], "spread": {"x": 1, "y": None}, "q": 2.5},
    )
    assert seen["path"] == ["3", "true"]
    assert seen["raw_query"] == "q=2.5&pipe=a%7Cb%20c&x=1&y=null"
    assert seen["body"] == {}


@pytest.mark.parametrize(
    "args",
    [
        {"one": "a"},
        {"one": "a", "two": ""},
        {"one": "a", "two": "."},
        {"one": "a", "two": ".."},
        {"one": "a", "two": [[1]]},
        {"one": "a", "two": "b", "x_note": "a\r\nInjected: yes"},
        {"one": "a", "two": "b", "x_note": "ü"},
        {"one": "a", "two": "b", "q": [{"deep": 1}]},
        {"one": "a", "two": "b", "text": object()},
        {"one": "a", "two": "b", "other": 1},
    ],
    ids=lambda args: str(args).partition(" at 0x")[0],  # the same in every process
)
async def test_arguments_that_cannot_be_sent_are_refused(connector: OpenApiConnector, args: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        await call(connector, "echo", args)


async def test_a_key_is_stable_for_its_effect_and_differs_between_effects() -> None:
    from tightship.connectors._arguments import token_of

    def token(run: str, key: str, attempt: int = 1) -> str:
        return token_of(Request({}, key, run, "a", 0.0, attempt))

    assert token("r", "a/1") == token("r", "a/1", attempt=3)
    assert len({token(run, key) for run in ("r", "r1", "r1a") for key in ("a", "1a", "a/1", "1/a/1")}) == 12
    assert token("r", "k").isascii() and len(token("r", "k")) <= 64
