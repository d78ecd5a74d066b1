"""An OpenAPI document as it is: parsed once, shared by its hash, resolved by pointer on demand, never inlined."""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from tightship.connectors.settings import ConnectorLimits
from tightship.core.errors import LoadError

_MAX_NODES = 20_000_000
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

_shared: weakref.WeakValueDictionary[str, Document] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


class Document:
    """A parsed contract.

    Attributes:
        raw: the document.
        hash: SHA-256 of its bytes, hex.
        version: `2.0`, `3.0` or `3.1`.
        source: where it came from, for messages.
    """

    def __init__(self, raw: Mapping[str, Any], digest: str, source: str, ref_depth: int = 50) -> None:
        self.raw = raw
        self.hash = digest
        self.source = source
        self.version = _version(raw, source)
        self.converted: dict[tuple[str, str], Any] = {}
        self._ref_depth = ref_depth
        paths = raw.get("paths", {})
        if not isinstance(paths, Mapping):
            raise LoadError("`paths` is no mapping", file=source)
        self.paths: Mapping[str, Any] = paths

    @classmethod
    def parse(cls, data: bytes, source: str = "openapi", limits: ConnectorLimits | None = None) -> Document:
        """The document of these bytes, JSON or YAML; the same object for the same bytes while anybody holds it.

        Raises:
            LoadError: too large, not JSON or YAML, or not OpenAPI.
        """
        limits = limits or ConnectorLimits()
        if len(data) > limits.document_bytes:
            raise LoadError(
                f"the contract has {len(data)} bytes, the limit is {limits.document_bytes}",
                file=source,
                fix="raise limits.document_bytes of the connector",
            )
        digest = hashlib.sha256(data).hexdigest()
        with _shared_lock:
            found = _shared.get(digest)
        if found is not None:
            return found
        made = cls(_parse(data, source), digest, source, limits.ref_depth)
        with _shared_lock:
            return _shared.setdefault(digest, made)

    @classmethod
    def of(
        cls, document: Mapping[str, Any] | bytes | str, source: str, limits: ConnectorLimits | None = None
    ) -> Document:
        """The document of a mapping, or of JSON or YAML text."""
        if isinstance(document, str):
            return cls.parse(document.encode(), source, limits)
        if isinstance(document, bytes):
            return cls.parse(document, source, limits)
        try:
            data = orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)
        except TypeError as error:
            raise LoadError(f"the contract is no JSON: {error}", file=source) from None
        return cls.parse(data, source, limits)

    def at(self, pointer: str) -> Any:
        """What a reference `#/…` points at (RFC 6901 in a URI fragment).

        Raises:
            LoadError: the reference leaves the document or points at nothing.
        """
        if pointer == "#":
            return self.raw
        if not pointer.startswith("#/"):
            raise LoadError(
                f"the reference {pointer!r} leaves the document",
                file=self.source,
                fix="bundle the contract into one document; nothing is fetched while it is read",
            )
        node: Any = self.raw
        for part in pointer[2:].split("/"):
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            else:
                raise LoadError(f"the reference {pointer!r} points at nothing", file=self.source)
        return node

    def follow(self, node: Any) -> Any:
        """The node itself, or what its chain of references ends at.

        Raises:
            LoadError: the chain is longer than the limit or a circle.
        """
        for _ in range(self._ref_depth):
            if not (isinstance(node, Mapping) and isinstance(node.get("$ref"), str)):
                return node
            node = self.at(node["$ref"])
        raise LoadError(f"a chain of more than {self._ref_depth} references", file=self.source)

    def properties(self, node: Any) -> dict[str, Any]:
        """The properties that an object of this schema may have, through references and combinations."""
        return self._properties(node, 0, set())

    def _properties(self, node: Any, depth: int, seen: set[int]) -> dict[str, Any]:
        """Each schema is read once: one that refers to itself twice would be read 2^depth times."""
        node = self.follow(node)
        if not isinstance(node, Mapping) or depth > self._ref_depth or id(node) in seen:
            return {}
        seen.add(id(node))
        found = dict(node.get("properties") or {})
        for combination in ("allOf", "anyOf", "oneOf"):
            for part in node.get(combination) or []:
                found = {**self._properties(part, depth + 1, seen), **found}
        return found

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Path, method and operation of everything that can be called, in the document's order."""
        for path, item in self.paths.items():
            item = self.follow(item)
            if not isinstance(item, Mapping):
                continue
            for method in METHODS:
                operation = item.get(method)
                if isinstance(operation, Mapping):
                    yield path, method, operation


def _version(raw: Mapping[str, Any], source: str) -> str:
    stated = str(raw.get("openapi") or raw.get("swagger") or "")
    for known in ("3.1", "3.0", "2.0"):
        if stated == known or stated.startswith(known + "."):
            return known
    raise LoadError(
        f"OpenAPI version {stated!r} is not read"
        if stated
        else "no `openapi` or `swagger` version: this is no OpenAPI",
        file=source,
        fix="give an OpenAPI 3.1, 3.0 or Swagger 2.0 document",
    )


def _parse(data: bytes, source: str) -> Mapping[str, Any]:
    text = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] in (b"{", b"["):
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise LoadError(f"not JSON: {error.msg}", file=source, line=error.lineno, column=error.colno) from None
    else:
        raw = _parse_yaml(data, source)
    if not isinstance(raw, Mapping):
        raise LoadError("this is no OpenAPI document: its top is no mapping", file=source)
    return raw


def _parse_yaml(data: bytes, source: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        raw = yaml.load(data)
        _check_size(raw, {}, source)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise LoadError(f"not YAML: {error.problem}", file=source, line=line, column=column) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise LoadError(f"not YAML: {error}", file=source) from None
    return raw


def _check_size(node: Any, known: dict[int, int], source: str) -> int:
    """How large a value is once its YAML aliases are written out, each shared part counted at every use.

    Raises:
        LoadError: more than `_MAX_NODES`, or an alias that contains itself.
    """
    if not isinstance(node, dict | list):
        return 1
    size = known.get(id(node))
    if size is None:
        known[id(node)] = _MAX_NODES + 1  # met again before it is counted: it contains itself
        parts = node.values() if isinstance(node, dict) else node
        size = known[id(node)] = 1 + sum(_check_size(part, known, source) for part in parts)
    if size > _MAX_NODES:
        raise LoadError(
            f"its YAML aliases stand for more than {_MAX_NODES:,} values, or for themselves",
            file=source,
            fix="write the contract without YAML aliases",
        )
    return size
