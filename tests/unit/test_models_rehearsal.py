"""Rehearsals: an answer of whatever shape is declared, the same each time, at no cost, saying what it is."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightship.connectors.rehearsal import RehearsalTool
from tightship.core.errors import WrongShape
from tightship.core.ports import FREE, Request, ToolSpec, Usage
from tightship.models import Conversation, Message, ModelRequest, RehearsalModel, rehearsed
from tightship.models._patterns import from_pattern

TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "required": ["name", "children"],
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
        }
    },
    "$ref": "#/$defs/Node",
}


def accepted(schema: Any, value: Any) -> bool:
    validator = jsonschema_rs.Draft202012Validator(schema, offline=True, validate_formats=True)
    return validator.is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"const": {"a": [1]}},
        {"enum": ["low", "high", None]},
        {"type": ["string", "null"]},
        {"type": "integer", "minimum": 3, "exclusiveMaximum": 4},
        {"type": "integer", "exclusiveMinimum": 3, "maximum": 4},
        {"type": "integer", "minimum": 10, "multipleOf": 7, "maximum": 15},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001},
        {"type": "number", "minimum": 1e9},
        {"type": "number", "maximum": -5},
        {"type": "string", "minLength": 200, "maxLength": 201},
        {"type": "string", "maxLength": 0},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}(x|y)?$"},
        {"type": "string", "pattern": "^(?!0)\\d+$"},
        {"type": "string", "pattern": "[^a-z]{5}", "minLength": 12},
        *({"type": "string", "format": name} for name in ("date-time", "date", "time", "email", "uuid", "uri")),
        *({"type": "string", "format": name} for name in ("ipv4", "ipv6", "hostname", "duration", "regex")),
        {"type": "array", "items": {"type": "boolean"}, "minItems": 5},
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 4}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": False},
        {"type": "array", "contains": {"const": "x"}, "items": {"type": "string"}},
        {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "string"}, "b": {}},
            "additionalProperties": False,
        },
        {"type": "object", "required": ["a"]},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "minProperties": 2, "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}},
        {
            "type": "object",
            "minProperties": 3,
            "patternProperties": {"^x[0-9]$": {"type": "integer"}},
            "additionalProperties": False,
        },
        {"type": "object", "required": ["a"], "dependentRequired": {"a": ["b"]}},
        {
            "allOf": [
                {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
                {"properties": {"a": {"minimum": 5}}},
            ]
        },
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"oneOf": [{"type": "integer", "multipleOf": 3}, {"type": "integer", "multipleOf": 5}], "minimum": 1},
        {"type": "integer", "not": {"multipleOf": 2}},
        {
            "type": "object",
            "required": ["kind", "size"],
            "properties": {"kind": {"enum": ["big", "small"]}, "size": {"type": "integer"}},
            "if": {"properties": {"kind": {"const": "big"}}},
            "then": {"properties": {"size": {"minimum": 100}}},
            "else": {"properties": {"size": {"maximum": 10}}},
        },
        TREE,
        {
            "$defs": {
                "L": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/L"}, "minItems": 1}]}
            },
            "$ref": "#/$defs/L",
        },
    ],
    ids=str,
)
def test_every_declared_shape_gets_an_answer(schema: Any) -> None:
    for seed in ("a", "b", "c"):
        value = rehearsed(schema, seed)
        assert accepted(schema, value), value
        assert rehearsed(schema, seed) == value


leaf = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-9, 9),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, span: {"type": "number", "minimum": low, "maximum": low + span},
        st.integers(-9, 9),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        st.integers(0, 60),
        st.integers(0, 9),
    ),
    st.builds(lambda options: {"enum": options}, st.lists(st.integers() | st.text(max_size=3), min_size=1, max_size=3)),
    st.sampled_from([{"type": "string", "format": name} for name in ("date", "email", "uuid", "date-time")]),
)


def _object(properties: dict[str, Any], closed: bool, needed: int) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties, "required": sorted(properties)[:needed]}
    return {**made, "additionalProperties": False} if closed else made


schemas = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.builds(
            _object,
            st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=4),
            st.booleans(),
            st.integers(0, 4),
        ),
        st.builds(lambda item, low: {"type": "array", "items": item, "minItems": low}, inner, st.integers(0, 3)),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$defs": {"D": part}, "allOf": [{"$ref": "#/$defs/D"}]}, leaf),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(schemas.filter(lambda schema: '"$defs"' not in str(schema).replace("'", '"')[10:]), st.text(max_size=5))
def test_any_schema_of_these_kinds_gets_an_answer(schema: dict[str, Any], seed: str) -> None:
    assert accepted(schema, rehearsed(schema, seed))


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"not": {}},
        {"type": "string", "minLength": 3, "maxLength": 2},
    ],
    ids=str,
)
def test_a_shape_that_nothing_fits_says_so(schema: Any) -> None:
    with pytest.raises(WrongShape, match="no value"):
        rehearsed(schema, "a")


@pytest.mark.parametrize(
    "schema", [{"type": "nonsense"}, {"$ref": "#/$defs/Gone"}, {"$ref": "https://elsewhere.test/s"}]
)
def test_a_schema_that_is_none_says_so(schema: Any) -> None:
    with pytest.raises(WrongShape):
        rehearsed(schema, "a")


def test_an_endless_shape_ends() -> None:
    endless = {
        "$defs": {"N": {"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/$defs/N"}}}},
        "$ref": "#/$defs/N",
    }
    with pytest.raises(WrongShape):
        rehearsed(endless, "a")


@settings(max_examples=100)
@given(st.from_regex(r"\A(\[[a-f]{1,3}\]|x|\(ab\|c\)|\\d|[a-z])(\{[1-3]\}|\+|\*|\?)?\Z"), st.randoms())
def test_a_text_made_from_a_pattern_matches_it(pattern: str, rng: Any) -> None:
    import re

    assert re.search(pattern, from_pattern(pattern, rng))


def ask(agent: str, text: str, schema: Any = None) -> ModelRequest:
    return ModelRequest(Conversation.of([Message.user(text)]), "cheap", output_schema=schema, agent=agent)


async def test_the_same_agent_and_input_get_the_same_answer_and_others_another() -> None:
    schema = {
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 10**9}},
    }
    model = RehearsalModel()
    seen = [
        (await model.request(ask(agent, text, schema))).output["n"]
        for agent, text in (("triage", "a"), ("triage", "a"), ("quality", "a"), ("triage", "b"))
    ]
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    assert (await RehearsalModel(2).request(ask("triage", "a", schema))).output["n"] != seen[0]


async def test_a_rehearsal_says_of_itself_that_it_is_one() -> None:
    heard: list[str] = []
    reply = await RehearsalModel().request(ask("triage", "a"), heard.append)
    assert (reply.model, reply.usage, reply.finish_reason) == ("rehearsal", FREE, "stop")
    assert "rehearsal" in reply.text and heard == [reply.text]
    assert reply.meta["rehearsal"] is True


async def test_a_rehearsed_tool_answers_in_its_shape_and_touches_nothing() -> None:
    spec = ToolSpec(
        "refunds.create",
        effect="write",
        price=Usage(usd=5),
        hosts=frozenset({"a.test"}),
        output_schema={
            "type": "object",
            "required": ["id"],
            "properties": {"id": {"type": "string", "pattern": "^R-[0-9]+$"}},
        },
    )
    tool = RehearsalTool(spec)
    assert (tool.spec.price, tool.spec.hosts, tool.spec.name) == (FREE, frozenset(), "refunds.create")
    asked = Request({"amount": 3}, "k", "r", "a", 0.0)
    reply = await tool.perform(asked)
    assert reply.value["id"].startswith("R-") and reply.usage == FREE and reply.meta["rehearsal"] is True
    assert await tool.lookup(asked) == reply
    assert (await RehearsalTool(ToolSpec("a.b")).perform(asked)).value is None
