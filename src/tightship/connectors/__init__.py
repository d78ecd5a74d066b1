"""Outside systems as tools: OpenAPI contracts, plain Python functions, and a scripted double for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tightship.connectors.openapi import OpenApiConnector as OpenApiConnector
    from tightship.connectors.openapi import open_connector as open_connector
    from tightship.connectors.python import PythonTool as PythonTool
    from tightship.connectors.python import load_tools as load_tools
    from tightship.connectors.python import tool as tool
    from tightship.connectors.secrets import default_secrets as default_secrets
    from tightship.connectors.settings import ConnectorSettings as ConnectorSettings
    from tightship.connectors.settings import connector_settings as connector_settings

_WHERE = {
    "OpenApiConnector": "openapi",
    "open_connector": "openapi",
    "PythonTool": "python",
    "load_tools": "python",
    "tool": "python",
    "default_secrets": "secrets",
    "ConnectorSettings": "settings",
    "connector_settings": "settings",
}
__all__ = [
    "ConnectorSettings",
    "OpenApiConnector",
    "PythonTool",
    "connector_settings",
    "default_secrets",
    "load_tools",
    "open_connector",
    "tool",
]


def __getattr__(name: str) -> Any:
    """Each export is imported when it is first asked for: HTTP and schemas cost start-up time."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
