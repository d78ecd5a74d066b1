"""The company over HTTP: authentication, bounds, faults, and one route per operation of the OpenAPI document."""

from __future__ import annotations

import asyncio
import hmac
import http
import math
import secrets
from collections.abc import Awaitable, Callable

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tightship.company._call import Answer, Call, Json, Refusal
from tightship.company._company import Company
from tightship.company._contract import Operation, contract, read_body, read_header, read_parameters
from tightship.company._faults import ConnectionDropped, Fault, Faults, faults_from_json

MAX_BODY = 64 * 1024
DROP = "tightship.drop"  # scope key under which a server offers to drop the connection
_PUBLIC = ("/openapi.json", "/healthz")
_JSON = "application/json"
_PROBLEM = "application/problem+json"
Endpoint = Callable[[Request], Awaitable[Response]]


class _Guard:
    """Lets nothing through without the bearer token, known path or not; only `_PUBLIC` is open (RFC 6750)."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PUBLIC or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        refusal = Refusal(401, "unauthorized", "Send the token as Authorization: Bearer TOKEN.")
        response = _problem(refusal)
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def build_app(company: Company, faults: Faults, token: str | None = None) -> Starlette:
    """The service as an ASGI application without tasks, threads or clock of its own.

    Parameters: `token` is the bearer token (None: a random one); it is kept as `app.state.token`.
    """
    token = token or secrets.token_urlsafe(24)
    operations = contract().operations
    routes = [
        Route(operation.path, _endpoint(company, faults, operation), methods=[operation.method])
        for operation in operations.values()
    ]
    app = Starlette(
        routes=[*routes, *_control_routes(company, faults)],
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={Refusal: _on_refusal, HTTPException: _on_http_exception},
    )
    app.state.token = token
    return app


def _endpoint(company: Company, faults: Faults, operation: Operation) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        hit = faults.draw(operation.id)
        if hit.delay:
            await asyncio.sleep(hit.delay)
        if hit.fault is not None:
            return await _suffer(company, operation, request, hit.fault)
        return _respond(company.perform(operation.id, await _read_call(request, operation)))

    return endpoint


async def _suffer(company: Company, operation: Operation, request: Request, fault: Fault) -> Response:
    """Carry out one fault; the kinds that come after the operation perform it whole first."""
    match fault.kind:
        case "rate_limit":
            response = _problem(Refusal(429, "rate_limited", "Too many requests; wait and try again."))
            response.headers["Retry-After"] = str(math.ceil(fault.seconds))
            return response
        case "error":
            return _problem(Refusal(500, "internal_error", "The company's system failed."))
        case "timeout":
            return await _hang(request)
        case "drop_before":
            return await _drop(request)
        case _:
            done = await _try_perform(company, operation, request)
    match fault.kind:
        case "error_after":
            return _problem(Refusal(500, "internal_error", "The company's system failed."))
        case "timeout_after":
            return await _hang(request)
        case "drop_after":
            return await _drop(request)
        case _:
            cut = bytes(done.body)[: len(done.body) // 2]
            return Response(cut, done.status_code, media_type=_JSON)


async def _try_perform(company: Company, operation: Operation, request: Request) -> Response:
    try:
        return _respond(company.perform(operation.id, await _read_call(request, operation)))
    except Refusal as refusal:
        return _problem(refusal)


async def _hang(request: Request) -> Response:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response(status_code=503)  # nobody is left to read it


async def _drop(request: Request) -> Response:
    """Drop the real connection where the server offers that, else raise ConnectionDropped."""
    abort = request.scope.get(DROP)
    if abort is None:
        raise ConnectionDropped
    abort()
    return await _hang(request)


async def _read_call(request: Request, operation: Operation) -> Call:
    params = read_parameters(operation, request.path_params, request.query_params.multi_items())
    raw = await _read(request)
    body: Json = {}
    if raw:
        body = read_body(operation, _parse(request, raw))
    elif operation.body_required:
        raise Refusal(422, "invalid", "The body is missing.")
    headers = request.headers
    return Call(
        params,
        body,
        key=read_header(operation, "Idempotency-Key", headers.get("idempotency-key")),
        if_match=read_header(operation, "If-Match", headers.get("if-match")),
    )


async def _read(request: Request) -> bytes:
    """The body, never more than MAX_BODY of it, whatever its length is said to be. Raises: Refusal 413."""
    too_large = Refusal(413, "too_large", f"A body may have at most {MAX_BODY} bytes.")
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise too_large
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MAX_BODY:
            raise too_large
    return bytes(received)


def _parse(request: Request, raw: bytes) -> object:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON:
        raise Refusal(415, "unsupported_media_type", f"Send the body as {_JSON}.")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refusal(422, "invalid", f"The body is not JSON: {error.msg[:200]}.") from error


def _respond(answer: Answer) -> Response:
    response = _json(answer.body, answer.status)
    if answer.etag is not None:
        response.headers["ETag"] = answer.etag
    if answer.cost_usd is not None:
        response.headers["X-Cost-USD"] = answer.cost_usd
    if answer.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _json(body: object, status: int = 200, media_type: str = _JSON) -> Response:
    return Response(orjson.dumps(body), status, media_type=media_type)


def _problem(refusal: Refusal) -> Response:
    body = {
        "type": f"urn:tightship:company:{refusal.code}",
        "title": http.HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
    }
    return _json(body, refusal.status, _PROBLEM)


async def _on_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _problem(error)


async def _on_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _problem(Refusal(error.status_code, "no_such_route", error.detail))
    response.headers.update(error.headers or {})
    return response


def _control_routes(company: Company, faults: Faults) -> list[Route]:
    """Routes for tests and drills; they are no operations of the business and suffer no faults."""

    async def openapi(_: Request) -> Response:
        return Response(contract().text, media_type=_JSON)

    async def healthz(_: Request) -> Response:
        return _json({"ok": True})

    async def ledger(_: Request) -> Response:
        return _json({"items": company.ledger()})

    async def state(_: Request) -> Response:
        return _json({"digest": company.digest(), "state": company.state()})

    async def get_faults(_: Request) -> Response:
        return _json(faults.view())

    async def put_faults(request: Request) -> Response:
        body = _parse(request, await _read(request))
        faults.set(faults_from_json(body, contract().operations))
        return _json(faults.view())

    async def delete_faults(_: Request) -> Response:
        faults.clear()
        return _json(faults.view())

    return [
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        Route("/_ledger", ledger, methods=["GET"]),
        Route("/_state", state, methods=["GET"]),
        Route("/_faults", get_faults, methods=["GET"]),
        Route("/_faults", put_faults, methods=["PUT"]),
        Route("/_faults", delete_faults, methods=["DELETE"]),
    ]
