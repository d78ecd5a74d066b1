"""Contracts of every shape become tools: versions, references, names, overlays, bounds, and clear refusals."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import httpx2
import jsonschema_rs
import orjson
import pytest

from tightship.connectors._document import Document
from tightship.connectors.openapi import OpenApiConnector, open_connector
from tightship.connectors.secrets import EnvironmentSecrets
from tightship.connectors.settings import ConnectorLimits, ConnectorSettings, Overlay, connector_settings
from tightship.core.errors import LoadError, UnknownName
from tightship.core.ports import Request, UndoSpec
from tightship.core.world import World

BASE = "https://api.test"


def contract(paths: dict[str, Any], schemas: dict[str, Any] | None = None, version: str = "3.1.0") -> dict[str, Any]:
    return {"openapi": version, "info": {}, "paths": paths, "components": {"schemas": schemas or {}}}


def connector(paths: dict[str, Any], schemas: dict[str, Any] | None = None, **more: Any) -> OpenApiConnector:
    version = more.pop("version", "3.1.0")
    return OpenApiConnector("shop", contract(paths, schemas, version), BASE, **more)


def operation(**fields: Any) -> dict[str, Any]:
    return {"operationId": "op", "responses": {"200": {"description": "ok"}}, **fields}


def body(schema: dict[str, Any], *, required: bool = True, media: str = "application/json") -> dict[str, Any]:
    return {"required": required, "content": {media: {"schema": schema}}}


def answer(schema: dict[str, Any]) -> dict[str, Any]:
    return {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}


def accepts(schema: Any, value: Any) -> bool:
    return jsonschema_rs.Draft202012Validator(dict(schema), offline=True).is_valid(value)


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


# --- Swagger 2.0, YAML ---------------------------------------------------------------------------------------------

SWAGGER = """
swagger: "2.0"
host: old.test
basePath: /v1
schemes: [http, https]
consumes: [application/json]
produces: [application/json]
definitions:
  Pet:
    type: object
    required: [name]
    properties: {name: {type: string}, born: {type: string, x-nullable: true, example: 2020-01-01}}
paths:
  /pets/{id}:
    parameters:
      - {name: id, in: path, required: true, type: integer}
    get:
      operationId: readPet
      parameters: [{name: tags, in: query, type: array, items: {type: string}, collectionFormat: multi}]
      responses: {200: {description: ok, schema: {$ref: "#/definitions/Pet"}}}
    post:
      operationId: writePet
      parameters: [{name: pet, in: body, required: true, schema: {$ref: "#/definitions/Pet"}}]
      responses: {201: {description: ok}}
  /form:
    post:
      operationId: form
      consumes: [application/x-www-form-urlencoded]
      parameters: [{name: field, in: formData, required: true, type: string, maxLength: 3}]
      responses: {default: {description: ok}}
"""


def test_swagger_2_in_yaml() -> None:
    made = OpenApiConnector("pets", SWAGGER)
    assert made.base_url == "https://old.test/v1"
    read = made.spec("pets.readPet")
    assert accepts(read.input_schema, {"id": 3, "tags": ["a", "b"]})
    assert accepts(read.output_schema, {"name": "Rex", "born": None})
    assert not accepts(read.output_schema, {"born": None})
    assert accepts(made.spec("pets.writePet").input_schema, {"id": 3, "name": "Rex"})
    assert not accepts(made.spec("pets.form").input_schema, {"field": "long"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("a: [1\nb: 2", "not YAML"),
        ("- a", "no mapping"),
        ("openapi: 2.5.0\npaths: {}", r"2\.5\.0"),
        ("paths: {}", "no OpenAPI"),
        ("openapi: 3.1.0\npaths: []", "paths"),
        ("openapi: 3.1.0\nx: &a [*a]\npaths: {}", "aliases"),
        (
            "openapi: 3.1.0\na0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
            + "paths: {}",
            "aliases",
        ),
        ("{" * 5000, "not JSON"),
    ],
    ids=range(9),
)
def test_documents_that_are_none_say_why(text: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        OpenApiConnector("broken", text, BASE)


def test_a_document_beyond_the_limit_is_not_parsed() -> None:
    with pytest.raises(LoadError, match="limit"):
        OpenApiConnector("big", b" " * 2000, BASE, limits=ConnectorLimits(document_bytes=1000))


def test_one_document_is_parsed_once() -> None:
    first, second = Document.parse(SWAGGER.encode()), Document.parse(SWAGGER.encode())
    assert first is second


# --- servers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://a.test", "http"),
        ("/relative", "absolute"),
        ("https://user:pass@a.test", "password"),
        ("http://a.test", "not encrypted"),
        ("https://a.test/?q=1", "absolute"),
    ],
)
def test_base_urls_that_cannot_be_used(url: str, says: str) -> None:
    with pytest.raises(LoadError, match=says):
        OpenApiConnector("shop", contract({}), url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:9", "https://a.test/v2/"])
def test_base_urls_that_can_be_used(url: str) -> None:
    assert OpenApiConnector("shop", contract({}), url).base_url == url.rstrip("/")


def test_plain_http_to_another_machine_has_to_be_stated() -> None:
    assert OpenApiConnector("shop", contract({}), "http://a.test", insecure_http=True).hosts == {"a.test"}


def test_the_contracts_server_is_used_where_nothing_else_is_stated() -> None:
    stated = {
        **contract({}),
        "servers": [{"url": "https://{region}.test/v1", "variables": {"region": {"default": "eu"}}}],
    }
    assert OpenApiConnector("shop", stated).base_url == "https://eu.test/v1"
    with pytest.raises(LoadError, match="base_url"):
        OpenApiConnector("shop", contract({}))


async def test_a_contract_is_fetched_from_its_url_with_the_worlds_transport() -> None:
    def handler(asked: httpx2.Request) -> httpx2.Response:
        if asked.url.path != "/openapi.json":
            return httpx2.Response(404)
        return httpx2.Response(200, json=contract({"/a": {"get": operation()}}))

    world = World(transport=httpx2.MockTransport(handler))
    settings = ConnectorSettings(openapi="http://company.test:8080/openapi.json")
    from pathlib import Path

    made = await open_connector("shop", settings, Path(), world, EnvironmentSecrets(environment={}))
    assert (made.base_url, made.tools()) == ("http://company.test:8080", ["shop.op"])
    missing = ConnectorSettings(openapi="http://company.test/other.json")
    with pytest.raises(LoadError, match="404"):
        await open_connector("shop", missing, Path(), world, EnvironmentSecrets(environment={}))
    with pytest.raises(LoadError, match=r"none\.json"):
        await open_connector("shop", ConnectorSettings(openapi="none.json"), Path(), world, EnvironmentSecrets())


# --- overlays and vendor extensions ----------------------------------------------------------------------------------


def test_an_overlay_for_nothing_is_refused() -> None:
    with pytest.raises(LoadError, match="orders"):
        connector({"/a": {"get": operation()}}, overlays={"orders": Overlay()})


@pytest.mark.parametrize(
    ("extension", "says"),
    [
        ({"x-effect": "sometimes"}, "effect"),
        ({"x-price": {"usd": -1}}, "usd"),
        ({"x-undo": {"operation": "nothing"}}, "nothing"),
        ({"x-undo": {"operation": "read", "with": {"id": "$response.header.ETag"}}}, "ETag"),
        ({"x-undo": {"operation": "read", "with": {"id": "$request.query.gone"}}}, "gone"),
        ({"x-lookup": {"operation": "op"}}, "no read"),
        ({"x-lookup": {"operation": "nothing"}}, "nothing"),
    ],
)
def test_vendor_extensions_that_are_wrong_are_named(extension: dict[str, Any], says: str) -> None:
    paths = {"/a": {"post": operation(**extension), "get": operation(operationId="read")}}
    made = connector(paths)
    with pytest.raises(LoadError, match=says):
        made.tool("shop.op")


def test_runtime_expressions_become_cel() -> None:
    with_ = {
        "a": "$request.path.id",
        "b": "$request.body#/size",
        "c": "$response.body#/items/0/in",
        "d": "$response.body",
        "e": "fixed",
        "f": 3,
        "g": "$request.header.x-tenant",
    }
    paths = {
        "/a/{id}": {
            "post": operation(
                parameters=[
                    {"name": "id", "in": "path", "required": True, "schema": {}},
                    {"name": "X-Tenant", "in": "header", "schema": {}},
                ],
                requestBody=body({"type": "object", "properties": {"size": {}}}),
                **{"x-undo": {"operation": "read", "with": with_}},
            ),
            "get": operation(operationId="read"),
        }
    }
    assert connector(paths).spec("shop.op").undo == UndoSpec(
        "shop.read",
        {
            "a": "args.id",
            "b": "args.size",
            "c": 'result.items[0]["in"]',
            "d": "result",
            "e": '"fixed"',
            "f": "3",
            "g": "args.x_tenant",
        },
    )


async def test_a_reference_field_of_another_name_is_stated_by_an_overlay() -> None:
    sent: list[Any] = []

    def handler(asked: httpx2.Request) -> httpx2.Response:
        if asked.method == "POST":
            sent.append(orjson.loads(asked.content))
            return httpx2.Response(200, json={})
        found = [entry for entry in sent if entry["externalId"] == asked.url.params["externalId"]]
        return httpx2.Response(200, json={"results": found})

    paths = {
        "/a": {
            "post": operation(
                requestBody=body({"type": "object", "properties": {"externalId": {"type": "string"}, "n": {}}})
            ),
            "get": operation(operationId="list", parameters=[{"name": "externalId", "in": "query", "schema": {}}]),
        }
    }
    overlay = Overlay.model_validate(
        {
            "lookup": {
                "operation": "list",
                "by": "externalId",
                "reference": "externalId",
                "items": "results",
                "with": {"externalId": "$request.body#/externalId"},
            }
        }
    )
    made = connector(paths, overlays={"op": overlay}, world=World(transport=httpx2.MockTransport(handler)))
    tool = made.tool("shop.op")
    assert "externalId" not in tool.spec.input_schema["properties"]
    request = Request({"n": 1}, "k", "r", "a", 9e12)
    assert await tool.lookup(request) is None
    await tool.perform(request)
    found = await tool.lookup(request)
    assert found is not None and found.value["n"] == 1
    await made.aclose()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"openapi": "a.json", "colour": "red"}, r"connectors\.shop\.colour"),
        ({}, r"connectors\.shop\.openapi"),
        ({"openapi": "a.json", "auth": {}}, "exactly one"),
        ({"openapi": "a.json", "auth": {"bearer": {"token": "abc"}}}, "bearer"),
        ({"openapi": "a.json", "operations": {"op": {"price": "free"}}}, "price"),
    ],
)
def test_settings_that_are_wrong_name_the_field(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(LoadError, match=says):
        connector_settings("shop", raw, file="tightship.yaml")


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
