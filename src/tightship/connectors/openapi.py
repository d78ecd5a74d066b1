"""OpenAPI contracts as tools: compiled one operation at a time when it is first asked for, references kept."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs

from tightship.connectors import _swagger2
from tightship.connectors._arguments import Outgoing, body_of, build, token_of
from tightship.connectors._document import Document
from tightship.connectors._expressions import Absent, carries_token, evaluate, to_cel
from tightship.connectors._http import Answer, HttpClient, Lost, NotSent, authority, check_base_url, check_encrypted
from tightship.connectors._operation import Operation, compile_operation, input_schema
from tightship.connectors._outcome import Judge
from tightship.connectors._schema import Schemas
from tightship.connectors.auth import Auth, NoAuth, auth_of
from tightship.connectors.settings import ConnectorLimits, ConnectorSettings, LookupSettings, Overlay
from tightship.core.errors import DataMissing, LoadError, OutcomeUnknown, UnknownName
from tightship.core.ports import FREE, Json, Reply, Request, Secrets, ToolSpec, UndoSpec
from tightship.core.world import World

WARM_SECONDS = 5.0
"""How long opening a connection ahead may take."""


class OpenApiConnector:
    """A system that describes itself by OpenAPI 3.1, 3.0 or Swagger 2.0.

    Args:
        name: the connector's name; it prefixes operations whose id has no dot.
        document: the contract, as a mapping or as JSON or YAML text.
        base_url: where the system answers; the contract's first server when None.
        auth: how to sign in.
        world: clock and transport.
        limits: bounds on what is read.
        overlays: what is known of operations beyond the contract, by operationId or tool name.
        timeout: seconds until a call counts as unanswered, where nothing else is stated.
        insecure_http: allow `http:` to another machine.
        proxy: URL of an outgoing proxy.

    Raises:
        LoadError: the contract or the URL cannot be used.
    """

    def __init__(
        self,
        name: str,
        document: Mapping[str, Any] | bytes | str | Document,
        base_url: str | None = None,
        auth: Auth | None = None,
        world: World | None = None,
        limits: ConnectorLimits | None = None,
        *,
        overlays: Mapping[str, Overlay] | None = None,
        timeout: float = 30.0,
        insecure_http: bool = False,
        proxy: str | None = None,
    ) -> None:
        self.name = name
        self.world = world or World()
        self.limits = limits or ConnectorLimits()
        self.document = document if isinstance(document, Document) else Document.of(document, name, self.limits)
        self.auth: Auth = auth or NoAuth()
        self.timeout = timeout
        self.base_url = check_base_url(
            base_url or _server(self.document),
            self.document.source,
            insecure_http=insecure_http,
            simulated=self.world.transport is not None,
        )
        self.hosts = frozenset({authority(self.base_url)}) | self.auth.hosts
        self.http = HttpClient(
            self.world,
            self.hosts,
            connections=self.limits.connections,
            response_bytes=self.limits.response_bytes,
            proxy=proxy,
        )
        self._overlays = dict(overlays or {})
        self._index, self._by_id = self._names()
        self._check_overlays()
        self._compiled: OrderedDict[str, OpenApiTool] = OrderedDict()
        self._requests = Schemas(self.document, "request", self.limits.definitions)
        self._responses = Schemas(self.document, "response", self.limits.definitions)

    @property
    def hash(self) -> str:
        """SHA-256 of the contract, hex."""
        return self.document.hash

    def tools(self) -> list[str]:
        """The names of all operations, in the contract's order; nothing is compiled for it."""
        return list(self._index)

    def tool(self, name: str) -> OpenApiTool:
        """The operation as a tool, compiled at first use.

        Raises:
            UnknownName: the contract has no such operation.
            LoadError: it cannot be called as it is described.
        """
        found = self._compiled.get(name)
        if found is not None:
            self._compiled.move_to_end(name)
            return found
        operation = self._operation(name)
        made = self._compiled[name] = OpenApiTool(self, operation, self._spec(name, operation))
        if len(self._compiled) > self.limits.compiled:
            self._compiled.popitem(last=False)
        return made

    def spec(self, name: str) -> ToolSpec:
        """The tool's contract."""
        return self.tool(name).spec

    def named(self, operation_id: str) -> str:
        """The tool of an operationId (or the name itself when it is one).

        Raises:
            UnknownName: there is none.
        """
        if operation_id in self._by_id:
            return self._by_id[operation_id]
        if operation_id in self._index:
            return operation_id
        raise UnknownName(f"the contract of {self.name} has no operation {operation_id!r}")

    async def warm(self) -> None:
        """Open a connection ahead, TLS and all. Whether the system answers shows when it is needed."""
        ping = Outgoing("HEAD", self.base_url, {})
        with contextlib.suppress(NotSent, Lost):
            await self.http.send(ping, timeout=WARM_SECONDS, not_after=self.world.clock.now() + WARM_SECONDS)

    async def aclose(self) -> None:
        """Close all connections."""
        await self.http.aclose()

    def _names(self) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
        index: dict[str, tuple[str, str]] = {}
        by_id: dict[str, str] = {}
        for path, method, raw in self.document.operations():
            stated = str(raw.get("operationId") or "")
            name = stated if "." in stated else f"{self.name}.{stated}" if stated else ""
            if not name or name in index:
                name = f"{self.name}." + _slug(f"{method} {path}")
            while name in index:
                name += "_"
            index[name] = (path, method)
            if stated:
                by_id.setdefault(stated, name)
        return index, by_id

    def _check_overlays(self) -> None:
        for key in self._overlays:
            if key not in self._by_id and key not in self._index:
                raise LoadError(
                    f"`operations` names {key!r}, which the contract does not have",
                    file=self.document.source,
                    fix=f"use an operationId of the contract: {', '.join(list(self._by_id)[:5])}, …",
                )

    def _operation(self, name: str) -> Operation:
        if name not in self._index:
            raise UnknownName(f"the contract of {self.name} has no operation {name!r}")
        path, method = self._index[name]
        stated = next((key for key, tool in self._by_id.items() if tool == name and key in self._overlays), name)
        known = self._overlays.get(name) or self._overlays.get(stated) or Overlay()
        try:
            return compile_operation(self.document, path, method, name, known)
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise LoadError(
                f"{method.upper()} {path} is not described as OpenAPI describes operations: {error}",
                file=self.document.source,
                fix="correct the contract, or keep a corrected copy",
            ) from error

    def _spec(self, name: str, operation: Operation) -> ToolSpec:
        overlay = operation.overlay
        answer = operation.answer_schema()
        schema = input_schema(operation, self._requests)
        _compile(schema, name)
        return ToolSpec(
            name=name,
            effect="read" if operation.reads else "write",
            description=operation.description,
            input_schema=schema,
            output_schema=None if answer is None else self._responses.whole(answer),
            idempotency=overlay.idempotency or "none" if not operation.reads else "none",
            price=overlay.price.usage() if overlay.price else FREE,
            can_lookup=self._can_lookup(operation),
            undo=self._undo(operation),
            timeout=overlay.timeout or self.timeout,
            cache_seconds=overlay.cache_seconds or 0.0,
            hosts=self.hosts,
            requests_per_second=overlay.requests_per_second,
            hedge=(overlay.hedge or 0.0) if overlay.effect == "read" else 0.0,
        )

    def _undo(self, operation: Operation) -> UndoSpec | None:
        undo = operation.overlay.undo
        if undo is None:
            return None
        where = f"{self.document.source}: undo of {operation.id}"
        try:
            tool = self.named(undo.operation)
        except UnknownName as error:
            raise LoadError(error.message, file=where, fix="name an operation of this contract") from None
        return UndoSpec(tool, {name: to_cel(operation, value, where) for name, value in undo.with_.items()})

    def _can_lookup(self, operation: Operation) -> bool:
        lookup = operation.overlay.lookup
        if lookup is None or operation.reads:
            return False
        where = f"{self.document.source}: lookup of {operation.id}"
        try:
            target = self._operation(self.named(lookup.operation))
        except UnknownName as error:
            raise LoadError(error.message, file=where, fix="name a read of this contract") from None
        if not target.reads:
            raise LoadError(f"the lookup {lookup.operation!r} is no read", file=where)
        if any(carries_token(operation, value) for value in lookup.with_.values()):
            return True
        # Comparing fields says something only of the record that the write itself replaces or patches.
        if operation.body is None or target.path != operation.path or operation.method not in ("put", "patch"):
            return False
        shown = self.document.properties(target.answer_schema())
        return any(name in shown for name in operation.body.fields or {} if name != operation.reference)

    def validator(self, operation: Operation, status: int) -> jsonschema_rs.Validator | None:
        """The check of a successful answer, or None where the contract declares no JSON for it."""
        answers = operation.responses
        declared = next((key for key in sorted(answers) if key.startswith("2")), "default")
        found = next((answers[key] for key in (str(status), "2XX", declared) if key in answers), None)
        if found is None or found[1] is None:
            return None
        return _compile(self._responses.whole(found[1]), operation.id)


class OpenApiTool:
    """One operation of a connector (core.ports.Tool)."""

    def __init__(self, connector: OpenApiConnector, operation: Operation, spec: ToolSpec) -> None:
        self._connector = connector
        self._operation = operation
        self._spec = spec
        self._validators: dict[int, jsonschema_rs.Validator | None] = {}
        self._judge = Judge(spec.name, operation.reads, spec.price, self._validator, connector.world.clock.now)

    @property
    def spec(self) -> ToolSpec:
        """The contract."""
        return self._spec

    def _validator(self, status: int) -> jsonschema_rs.Validator | None:
        if status not in self._validators:
            self._validators[status] = self._connector.validator(self._operation, status)
        return self._validators[status]

    async def perform(self, request: Request) -> Reply:
        """One attempt. Only a refused sign-in (401) is repeated, once, with a fresh token where there is such a thing.

        Raises:
            InvalidArguments: an argument cannot be sent, or the system refused the call as malformed (400, 422).
            Unavailable: not done, or a read without answer; RateLimited and TimedOut are its kinds.
            OutcomeUnknown: a write that may or may not have been done.
            WriteFailed: the system refused the write.
            DataMissing: the system has no such data.
            FormatMismatch: a read's answer has another shape than the contract declares.
        """
        connector = self._connector
        asked = connector.world.clock.now()
        answer, secrets = await self._send(request)
        if answer.status == 401 and connector.auth.refused():
            answer, secrets = await self._send(request)
        return self._judge.judge(answer, asked, secrets)

    async def _send(self, request: Request) -> tuple[Answer, frozenset[str]]:
        connector = self._connector
        outgoing = build(self._operation, connector.base_url, request.args, token_of(request))
        secrets = await connector.auth.sign(outgoing, connector.http, request.not_after)
        try:
            answer = await connector.http.send(
                outgoing,
                timeout=self._spec.timeout,
                not_after=request.not_after,
                follow=self._operation.reads,
            )
        except NotSent as error:
            self._judge.not_sent(error)
        except Lost as error:
            self._judge.lost(error)
        return answer, secrets

    async def lookup(self, request: Request) -> Reply | None:
        """Whether the write was done: its reply as the lookup shows it, or None when it was not.

        Raises:
            OutcomeUnknown: the contract's lookup cannot tell.
            WorkException: the lookup itself failed.
        """
        settings = self._operation.overlay.lookup
        if settings is None or not self._spec.can_lookup:
            raise OutcomeUnknown(f"{self._spec.name} cannot be looked up")
        token = token_of(request)
        body = body_of(self._operation, request.args, token)
        try:
            args = {
                name: evaluate(self._operation, value, request.args, body, token)
                for name, value in settings.with_.items()
            }
        except Absent as error:
            raise OutcomeUnknown(f"{self._spec.name} cannot be looked up: the call has no {error}") from None
        tool = self._connector.tool(self._connector.named(settings.operation))
        # Asking is a read with a deadline of its own: the write's has passed when this is asked.
        not_after = self._connector.world.clock.now() + tool.spec.timeout
        question = replace(request, args=args, key=f"{request.key}/lookup", not_after=not_after)
        try:
            reply = await tool.perform(question)
        except DataMissing:
            return None
        return self._found(settings, reply, body, token)

    def _found(self, settings: LookupSettings, reply: Reply, body: Json, token: str) -> Reply | None:
        found = Reply(reply.value, reply.usage, {**reply.meta, "looked_up": True})
        value = reply.value
        if any(carries_token(self._operation, part) for part in settings.with_.values()):
            items = value.get(settings.items, value) if isinstance(value, Mapping) else value
            if not isinstance(items, list):
                return found  # a record found by our own reference
            by = settings.by or self._operation.reference
            match = next((item for item in items if isinstance(item, Mapping) and item.get(by, token) == token), None)
            return None if match is None else replace(found, value=match)
        sent = body if isinstance(body, Mapping) and isinstance(value, Mapping) else {}
        told = {name: part for name, part in sent.items() if name in value and name != self._operation.reference}
        if not told:
            raise OutcomeUnknown(f"the lookup of {self._spec.name} does not tell whether it was done")
        return found if all(value[name] == part for name, part in told.items()) else None


async def open_connector(
    name: str, settings: ConnectorSettings, folder: Path, world: World, secrets: Secrets
) -> OpenApiConnector:
    """The connector that `tightship.yaml` describes.

    Args:
        name: its name there.
        settings: its settings.
        folder: the workspace, from which a file of the contract is read.
        world: clock and transport.
        secrets: where its secrets are.

    Raises:
        LoadError: the contract is not there, too large, or cannot be used.
    """
    oauth2 = None if settings.auth is None else settings.auth.oauth2
    if oauth2 is not None and not settings.insecure_http and world.transport is None:
        check_encrypted(oauth2.token_url, f"token_url of {name}", "tightship.yaml")
    if re.match(r"https?://", settings.openapi):
        data, base = await _fetch(settings, world), settings.base_url or _origin(settings.openapi)
    else:
        data, base = await asyncio.to_thread(_read, folder / settings.openapi, settings.limits), settings.base_url
    document = await asyncio.to_thread(Document.parse, data, settings.openapi, settings.limits)
    if settings.base_url is None:
        base = _server(document, base)
    return OpenApiConnector(
        name,
        document,
        base,
        auth_of(settings.auth, secrets, world),
        world,
        settings.limits,
        overlays=settings.operations,
        timeout=settings.timeout,
        insecure_http=settings.insecure_http,
        proxy=settings.proxy,
    )


def _read(path: Path, limits: ConnectorLimits) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.document_bytes + 1)
    except OSError as error:
        raise LoadError(
            f"the contract cannot be read: {error.strerror}", file=str(path), fix="correct `openapi` of the connector"
        ) from None


async def _fetch(settings: ConnectorSettings, world: World) -> bytes:
    from tightship.connectors._arguments import Outgoing

    url = settings.openapi
    check_base_url(url.split("?")[0], url, insecure_http=settings.insecure_http, simulated=world.transport is not None)
    http = HttpClient(
        world,
        frozenset({authority(url)}),
        connections=1,
        response_bytes=settings.limits.document_bytes,
        proxy=settings.proxy,
    )
    try:
        answer = await http.send(
            Outgoing("GET", url, {"Accept": "application/json, application/yaml, */*;q=0.1"}),
            timeout=settings.timeout,
            not_after=world.clock.now() + settings.timeout,
            follow=True,
        )
    except (NotSent, Lost) as error:
        raise LoadError(
            f"the contract cannot be fetched: {error.reason}",
            file=url,
            fix="start the system, or keep a copy as a file",
        ) from None
    finally:
        await http.aclose()
    if answer.status != 200:
        raise LoadError(f"the contract cannot be fetched: the answer is {answer.status}", file=url)
    return answer.body


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _server(document: Document, origin: str | None = None) -> str:
    """The first server that the contract states, made absolute by `origin` where it is a path.

    Raises:
        LoadError: it states none that can be used.
    """
    fix = "give base_url of the connector"
    if document.version == "2.0":
        stated = _swagger2.server(document.raw) or origin
        if stated is None:
            raise LoadError("the contract names no host", file=document.source, fix=fix)
        return stated
    servers = document.raw.get("servers") or [{"url": "/"}]
    server = servers[0] if isinstance(servers, list) and isinstance(servers[0], Mapping) else {}
    url = str(server.get("url") or "/")
    variables = server.get("variables")
    for name, variable in variables.items() if isinstance(variables, Mapping) else ():
        default = variable.get("default", "") if isinstance(variable, Mapping) else ""
        url = url.replace("{" + str(name) + "}", str(default))
    if url.startswith("/") and origin is not None:
        url = origin + url
    if not re.match(r"https?://", url) or "{" in url:
        raise LoadError(f"the contract's server {url!r} is no absolute URL", file=document.source, fix=fix)
    return url


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _compile(schema: Mapping[str, Any], where: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.Draft202012Validator(dict(schema), offline=True, mask="the value")
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        text = " ".join(str(error).split())[:300]
        raise LoadError(
            f"a schema of {where} is not valid: {text}", fix="correct the contract's schema, or keep a corrected copy"
        ) from None
