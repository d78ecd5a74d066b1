"""Operations of every shape become tools: names, arguments, schemas, references, bounds, and clear refusals."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import orjson
import pytest
from openapi_samples import BASE, accepts, answer, body, connector, contract, operation

from tightship.connectors.openapi import OpenApiConnector
from tightship.connectors.settings import ConnectorLimits
from tightship.core.errors import LoadError, UnknownName

# --- names ---------------------------------------------------------------------------------------------------------


def test_names_come_from_the_operation_id_or_from_the_path() -> None:
    made = connector(
        {
            "/a": {"get": operation(operationId="orders.get"), "post": operation(operationId="makeOrder")},
            "/tickets/{id}/replies": {
                "get": {"responses": {}},
                "delete": {"responses": {}, "operationId": "makeOrder"},
            },
        }
    )
    assert made.tools() == [
        "orders.get",
        "shop.makeOrder",
        "shop.get_tickets_id_replies",
        "shop.delete_tickets_id_replies",
    ]
    assert made.named("makeOrder") == "shop.makeOrder"
    with pytest.raises(UnknownName):
        made.tool("orders.nothing")


def test_effects_default_to_what_the_method_means() -> None:
    path = {method: operation(operationId=method) for method in ("get", "head", "post", "put", "patch", "delete")}
    made = connector({"/a": path})
    effects = {method: made.spec(f"shop.{method}").effect for method in path}
    assert effects == {
        "get": "read",
        "head": "read",
        "post": "write",
        "put": "write",
        "patch": "write",
        "delete": "write",
    }


def test_only_a_conditional_put_or_delete_is_taken_for_safe_to_repeat() -> None:
    match = {"name": "If-Match", "in": "header", "schema": {"type": "string"}}
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}
    made = connector(
        {
            "/a": {
                "put": operation(operationId="put", parameters=[match]),
                "delete": operation(operationId="delete", parameters=[match]),
                "patch": operation(operationId="patch", parameters=[match]),
                "post": operation(operationId="post", parameters=[key]),
            }
        }
    )
    found = {name: made.spec(f"shop.{name}").idempotency for name in ("put", "delete", "patch", "post")}
    assert found == {"put": "etag", "delete": "etag", "patch": "none", "post": "none"}


def test_a_conditional_patch_needs_its_condition() -> None:
    made = connector({"/a": {"patch": operation(**{"x-idempotent": "etag"}), "put": operation(operationId="put")}})
    assert made.spec("shop.op").idempotency == "etag"
    assert made.spec("shop.op").input_schema["required"] == ["if_match"]
    assert made.spec("shop.put").input_schema["properties"] == {}


# --- arguments -----------------------------------------------------------------------------------------------------


def test_arguments_of_all_places_are_one_flat_closed_object() -> None:
    made = connector(
        {
            "/shops/{id}": {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
                    {"name": "X-Tenant", "in": "header", "schema": {"type": "string"}},
                ],
                "post": operation(
                    parameters=[
                        {"name": "id", "in": "query", "description": "another", "schema": {"type": "string"}},
                        {"name": "X-Tenant", "in": "header", "required": True, "schema": {"enum": ["a"]}},
                    ],
                    requestBody=body(
                        {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer"}}}
                    ),
                ),
            }
        }
    )
    schema = made.spec("shop.op").input_schema
    assert set(schema["properties"]) == {"id", "query_id", "x_tenant", "size"}
    assert set(schema["required"]) == {"id", "x_tenant", "size"}
    assert accepts(schema, {"id": 1, "x_tenant": "a", "size": 2})
    assert not accepts(schema, {"id": 1, "x_tenant": "a", "size": 2, "invented": True})
    assert not accepts(schema, {"id": 1, "x_tenant": "b", "size": 2})
    assert schema["properties"]["query_id"]["description"] == "another"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"id": {"type": "string"}}},  # collides with the path
        {"type": "array", "items": {"type": "string"}},
        {"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]},
        {"type": "object", "additionalProperties": {"type": "string"}},
    ],
)
def test_a_body_that_cannot_be_merged_is_one_argument(schema: dict[str, Any]) -> None:
    path = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    made = connector({"/a/{id}": {"post": operation(parameters=[path], requestBody=body(schema))}})
    assert set(made.spec("shop.op").input_schema["properties"]) == {"id", "body"}
    assert made.spec("shop.op").input_schema["required"] == ["id", "body"]


def test_an_optional_body_asks_for_its_fields_only_when_one_is_given() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    made = connector({"/a": {"post": operation(requestBody=body(schema, required=False))}})
    flat = made.spec("shop.op").input_schema
    assert accepts(flat, {})
    assert accepts(flat, {"a": "x"})
    assert not accepts(flat, {"b": "x"})


def test_an_open_body_stays_open_only_where_the_contract_says_so() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}}
    flat = connector({"/a": {"post": operation(requestBody=body(schema))}}).spec("shop.op").input_schema
    assert accepts(flat, {"a": "x", "more": 3})
    assert not accepts(flat, {"a": "x", "more": "text"})


def test_a_body_of_a_kind_that_is_not_sent_is_refused_when_it_is_asked_for() -> None:
    made = connector({"/a": {"post": operation(requestBody=body({}, media="multipart/form-data"))}})
    assert made.tools() == ["shop.op"]
    with pytest.raises(LoadError, match="multipart/form-data"):
        made.tool("shop.op")


# --- schemas -------------------------------------------------------------------------------------------------------

TREE = {
    "Node": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/components/schemas/Node"}},
        },
    }
}


def test_references_are_kept_and_circles_are_fine() -> None:
    ref = {"$ref": "#/components/schemas/Node"}
    made = connector({"/a": {"post": operation(requestBody=body(ref), responses=answer(ref))}}, TREE)
    spec = made.spec("shop.op")
    assert list(spec.input_schema["$defs"]) == ["Node"]
    assert spec.input_schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert accepts(spec.input_schema, {"name": "a", "children": [{"name": "b", "children": []}]})
    assert not accepts(spec.input_schema, {"name": "a", "children": [{"children": []}]})
    assert spec.output_schema is not None
    assert not accepts(spec.output_schema, {"name": "a", "children": [{"name": 3}]})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "nullable": True}, [None, "a"], [3]),
        ({"enum": ["a"], "type": "string", "nullable": True}, [None, "a"], ["b"]),
        ({"allOf": [{"$ref": "#/components/schemas/Node"}], "nullable": True}, [None, {"name": "a"}], [{}, 3]),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": True}, [1.5], [1]),
        ({"type": "number", "maximum": 1, "exclusiveMaximum": False}, [1], [1.5]),
        ({"$ref": "#/components/schemas/Node", "required": ["never"]}, [{"name": "a"}], [{}]),
    ],
)
def test_openapi_3_0_schemas_mean_what_they_meant(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    made = connector({"/a": {"get": operation(responses=answer(schema))}}, TREE, version="3.0.3")
    found = made.spec("shop.op").output_schema
    assert all(accepts(found, value) for value in good)
    assert not any(accepts(found, value) for value in bad)


def test_fields_that_a_direction_does_not_carry_are_left_out() -> None:
    schema = {
        "type": "object",
        "required": ["id", "secret", "name"],
        "properties": {
            "id": {"type": "string", "readOnly": True},
            "secret": {"type": "string", "writeOnly": True},
            "name": {"type": "string"},
        },
    }
    made = connector({"/a": {"post": operation(requestBody=body(schema), responses=answer(schema))}})
    spec = made.spec("shop.op")
    assert set(spec.input_schema["properties"]) == {"secret", "name"}
    assert accepts(spec.input_schema, {"secret": "s", "name": "n"})
    assert accepts(spec.output_schema, {"id": "1", "name": "n"})
    assert not accepts(spec.output_schema, {"name": "n"})


def test_names_of_definitions_never_meet() -> None:
    schemas = {"a/b": {"type": "string"}, "a:b": {"type": "integer"}, "a b": {"type": "boolean"}}
    refs = {"x": "#/components/schemas/a~1b", "y": "#/components/schemas/a:b", "z": "#/components/schemas/a%20b"}
    schema = {"type": "object", "properties": {name: {"$ref": ref} for name, ref in refs.items()}}
    found = connector({"/a": {"get": operation(responses=answer(schema))}}, schemas).spec("shop.op").output_schema
    assert accepts(found, {"x": "text", "y": 3, "z": True})
    assert not accepts(found, {"x": 3}) and not accepts(found, {"y": "text"}) and not accepts(found, {"z": 3})


def test_references_into_other_places_of_the_document_are_followed() -> None:
    paths = {
        "/a": {"get": operation(responses=answer({"type": "object", "properties": {"k": {"type": "integer"}}}))},
        "/b": {
            "get": operation(
                operationId="other",
                responses=answer(
                    {"$ref": "#/paths/~1a/get/responses/200/content/application~1json/schema/properties/k"}
                ),
            )
        },
    }
    found = connector(paths).spec("shop.other").output_schema
    assert accepts(found, 3) and not accepts(found, "3")


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("other.yaml#/Thing", "leaves the document"),
        ("https://elsewhere.test/schema.json", "leaves the document"),
        ("#/components/schemas/Nothing", "points at nothing"),
        ("#/components/schemas/Loop", "chain"),
    ],
)
def test_references_that_lead_nowhere_are_named(ref: str, says: str) -> None:
    schemas = {"Loop": {"$ref": "#/components/schemas/Loop"}}
    made = connector({"/a": {"post": operation(requestBody={"$ref": ref})}}, schemas)
    with pytest.raises(LoadError, match=says):
        made.tool("shop.op")


def test_definitions_beyond_the_limit_constrain_nothing() -> None:
    chain = {
        f"N{n}": {"type": "object", "properties": {"next": {"$ref": f"#/components/schemas/N{n + 1}"}}}
        for n in range(50)
    }
    chain["N50"] = {"type": "integer"}
    paths = {"/a": {"get": operation(responses=answer({"$ref": "#/components/schemas/N0"}))}}
    cut = connector(paths, chain, limits=ConnectorLimits(definitions=3)).spec("shop.op").output_schema
    assert accepts(cut, {"next": {"next": {"next": "anything"}}})
    assert not accepts(cut, {"next": {"next": 3}})
    whole = connector(paths, chain).spec("shop.op").output_schema
    assert not accepts(whole, {"next": {"next": {"next": "anything"}}})


def test_a_schema_that_is_none_is_named() -> None:
    made = connector(
        {"/a": {"post": operation(requestBody=body({"type": "object", "properties": {"a": {"type": "txt"}}}))}}
    )
    with pytest.raises(LoadError, match=r"shop\.op"):
        made.tool("shop.op")


@pytest.mark.parametrize(
    "broken",
    [
        {"parameters": [3]},
        {"parameters": {"a": 1}},
        {"parameters": [{"name": "a", "in": "somewhere"}]},
        {"parameters": [{"name": "a"}]},
        {"requestBody": {"content": {"application/json": [1]}}},
        {"requestBody": {"content": ["application/json"]}},
        {"responses": ["200"]},
        {"responses": {"200": {"content": 3}}},
    ],
    ids=str,
)
def test_an_operation_that_is_not_openapi_is_refused_alone(broken: dict[str, Any]) -> None:
    made = connector({"/a": {"post": {**operation(), **broken}, "get": operation(operationId="fine")}})
    with pytest.raises(LoadError):
        made.tool("shop.op")
    assert made.spec("shop.fine").effect == "read"


# --- size ------------------------------------------------------------------------------------------------------------


def test_five_thousand_operations_are_compiled_only_as_they_are_asked_for() -> None:
    schemas = {
        f"S{n}": {
            "type": "object",
            "properties": {"next": {"$ref": f"#/components/schemas/S{(n + 1) % 5000}"}, "n": {"type": "integer"}},
        }
        for n in range(5000)
    }
    paths = {
        f"/things{n}/{{id}}": {
            "post": {
                "operationId": f"thing{n}",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "requestBody": body({"$ref": f"#/components/schemas/S{n}"}),
                "responses": answer({"$ref": f"#/components/schemas/S{n}"}),
            }
        }
        for n in range(5000)
    }
    data = orjson.dumps(contract(paths, schemas))
    limits = ConnectorLimits(definitions=20, compiled=16)
    gc.collect()
    tracemalloc.start()
    made = OpenApiConnector("big", data, BASE, limits=limits)
    assert len(made.tools()) == 5000
    parsed = tracemalloc.get_traced_memory()[0]
    assert len(made.document.converted) == 0
    for n in range(400):
        made.tool(f"big.thing{n}")
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(made._compiled) == 16
    # One document, its 5,000 schemas converted at most once for each direction: never a copy for each operation.
    assert len(made.document.converted) <= 2 * (400 + 20)
    assert after - parsed < parsed / 2
