"""Small OpenAPI documents for tests of the connector, and the connector on them."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from tightship.connectors.openapi import OpenApiConnector

BASE = "https://api.test"


def contract(paths: dict[str, Any], schemas: dict[str, Any] | None = None, version: str = "3.1.0") -> dict[str, Any]:
    """A document with these paths and schemas."""
    return {"openapi": version, "info": {}, "paths": paths, "components": {"schemas": schemas or {}}}


def connector(paths: dict[str, Any], schemas: dict[str, Any] | None = None, **more: Any) -> OpenApiConnector:
    """A connector on such a document."""
    version = more.pop("version", "3.1.0")
    return OpenApiConnector("shop", contract(paths, schemas, version), BASE, **more)


def operation(**fields: Any) -> dict[str, Any]:
    """An operation that answers 200."""
    return {"operationId": "op", "responses": {"200": {"description": "ok"}}, **fields}


def body(schema: dict[str, Any], *, required: bool = True, media: str = "application/json") -> dict[str, Any]:
    """A request body of this schema."""
    return {"required": required, "content": {media: {"schema": schema}}}


def answer(schema: dict[str, Any]) -> dict[str, Any]:
    """Responses: 200 with this schema."""
    return {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}


def accepts(schema: Any, value: Any) -> bool:
    """Whether a compiled schema takes a value."""
    return jsonschema_rs.Draft202012Validator(dict(schema), offline=True).is_valid(value)
