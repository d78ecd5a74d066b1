"""Documents, servers, vendor extensions and settings: what is read of a contract, and what is refused and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from openapi_samples import BASE, accepts, body, connector, contract, operation

from tightship.connectors._document import Document
from tightship.connectors.openapi import OpenApiConnector, open_connector
from tightship.connectors.secrets import EnvironmentSecrets
from tightship.connectors.settings import ConnectorLimits, ConnectorSettings, Overlay, connector_settings
from tightship.core.errors import LoadError
from tightship.core.ports import Request, UndoSpec
from tightship.core.world import World

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

    made = await open_connector("shop", settings, Path(), world, EnvironmentSecrets(environment={}))
    assert (made.base_url, made.tools()) == ("http://company.test:8080", ["shop.op"])
    missing = ConnectorSettings(openapi="http://company.test/other.json")
    with pytest.raises(LoadError, match="404"):
        await open_connector("shop", missing, Path(), world, EnvironmentSecrets(environment={}))
    with pytest.raises(LoadError, match=r"none\.json"):
        await open_connector("shop", ConnectorSettings(openapi="none.json"), Path(), world, EnvironmentSecrets())


async def test_the_secret_of_a_sign_in_is_sent_to_no_other_machine_in_clear(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_bytes(orjson.dumps(contract({"/a": {"get": operation()}})))

    async def opened(token_url: str, **more: Any) -> OpenApiConnector:
        auth = {"oauth2": {"token_url": token_url, "client_id": "desk", "secret": "KEY"}}
        stated = {"openapi": "shop.json", "base_url": "https://shop.test", "auth": auth, **more}
        settings = ConnectorSettings.model_validate(stated)
        return await open_connector("shop", settings, tmp_path, World(), EnvironmentSecrets(environment={}))

    with pytest.raises(LoadError, match=r"token_url of shop .*is not encrypted") as caught:
        await opened("http://id.test/token")
    assert "https" in (caught.value.fix or "")
    await opened("http://127.0.0.1:9000/token")
    await opened("http://id.test/token", insecure_http=True)


def test_a_schema_that_refers_to_itself_in_all_its_parts_is_read_once() -> None:
    here = {"$ref": "#/components/schemas/A"}
    document = Document.of(
        {
            "openapi": "3.1.0",
            "paths": {},
            "components": {"schemas": {"A": {"allOf": [here, here], "properties": {"name": {"type": "string"}}}}},
        },
        "shop",
    )
    assert document.properties(here) == {"name": {"type": "string"}}


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
