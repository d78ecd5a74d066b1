"""One HTTP exchange that always knows whether the request may have reached the other side."""

from __future__ import annotations

import asyncio
import ipaddress
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from tightship.connectors._arguments import Outgoing
from tightship.core.errors import LoadError, NotDeclared
from tightship.core.world import World

_CONNECT_SECONDS = 5.0
# Below the 5 s after which common servers close idle connections: a write must not meet a closing one.
_KEEPALIVE_SECONDS = 3.0
_REDIRECTS = 3
_USER_AGENT = "tightship"


class NotSent(Exception):
    """Nothing reached the other side. `late`: the deadline had passed; `timed_out`: connecting took too long."""

    def __init__(self, reason: str, *, late: bool = False, timed_out: bool = False) -> None:
        self.reason, self.late, self.timed_out = reason, late, timed_out
        super().__init__(reason)


class Lost(Exception):
    """The request was sent, or may have been, and its answer is not (wholly) here.

    `status` is known when the answer broke off in its body; `too_large` when it exceeds the limit.
    """

    def __init__(
        self, reason: str, *, timed_out: bool = False, status: int | None = None, too_large: bool = False
    ) -> None:
        self.reason, self.timed_out, self.status, self.too_large = reason, timed_out, status, too_large
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media(self) -> str:
        """The media type without parameters, in lower case."""
        return self.headers.get("content-type", "").split(";")[0].strip().lower()


def authority(url: str) -> str:
    """Host of a URL, with its port where it is not the scheme's own: the unit in which hosts are declared."""
    parsed = httpx2.URL(url)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return host if parsed.port is None else f"{host}:{parsed.port}"


def check_base_url(url: str, where: str, *, insecure_http: bool = False, simulated: bool = False) -> str:
    """The base URL without its final slash.

    Raises:
        LoadError: no absolute http(s) URL, with a password in it, or unencrypted to another machine.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise LoadError(f"base_url is no URL: {error}", file=where) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise LoadError(
            f"base_url {url!r} is no absolute http(s) URL", file=where, fix="give base_url of the connector"
        )
    if parsed.userinfo:
        raise LoadError("base_url holds a password", file=where, fix="use auth: {basic: {username, secret}}")
    if not (insecure_http or simulated):
        check_encrypted(url, "base_url", where)
    return url.rstrip("/")


def check_encrypted(url: str, what: str, where: str) -> None:
    """Whether secrets may be sent to a URL: over https, or to this machine.

    Raises:
        LoadError: they would go over the network in clear. `what` names the setting, `where` its file.
    """
    parsed = httpx2.URL(url)
    if parsed.scheme == "http" and not _is_this_machine(parsed.host):
        raise LoadError(f"{what} {url!r} is not encrypted", file=where, fix="use https, or state insecure_http: true")


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Shared(httpx2.AsyncBaseTransport):
    """A transport of the world: closing one connector must not close it for the others."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._inner.handle_async_request(request)


class HttpClient:
    """The one client of a connector: bounded connections, declared hosts only, no cookies, no foreign redirects."""

    def __init__(
        self, world: World, hosts: frozenset[str], *, connections: int, response_bytes: int, proxy: str | None = None
    ) -> None:
        self._world = world
        self.hosts = hosts
        self._connections = connections
        self._response_bytes = response_bytes
        self._proxy = proxy
        self._client: httpx2.AsyncClient | None = None

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:
            limits = httpx2.Limits(
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            )
            shared = self._world.transport
            self._client = httpx2.AsyncClient(
                transport=None if shared is None else _Shared(shared), limits=limits, trust_env=False, proxy=self._proxy
            )
        return self._client

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def send(self, outgoing: Outgoing, *, timeout: float, not_after: float, follow: bool = False) -> Answer:
        """The answer to one request.

        Args:
            outgoing: what to send.
            timeout: seconds for all of it.
            not_after: store time (s) after which sending must not begin.
            follow: follow redirects that stay at the same origin (reads only).

        Raises:
            NotSent: nothing reached the other side.
            Lost: the answer is not here.
            NotDeclared: the URL's host is not one of the declared.
        """
        answer = await self._exchange(outgoing, timeout, not_after)
        for _ in range(_REDIRECTS if follow else 0):
            target = self._same_origin(outgoing.url, answer)
            if target is None:
                break
            outgoing = Outgoing(outgoing.method, target, outgoing.headers)
            answer = await self._exchange(outgoing, timeout, not_after)
        return answer

    def _same_origin(self, url: str, answer: Answer) -> str | None:
        location = answer.headers.get("location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            return None
        here = httpx2.URL(url)
        try:
            there = here.join(location)
        except httpx2.InvalidURL:
            return None
        same = (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port)
        return str(there) if same and not there.userinfo else None

    async def _exchange(self, outgoing: Outgoing, timeout: float, not_after: float) -> Answer:
        host = authority(outgoing.url)
        if host not in self.hosts:
            raise NotDeclared(f"{host} is not one of the connector's hosts")
        left = not_after - self._world.clock.now()
        if left <= 0:
            raise NotSent("its deadline had passed before it was sent", late=True)
        flight = _Flight(self._world, not_after)
        waits = {"connect": min(_CONNECT_SECONDS, timeout, left), "pool": min(timeout, left)}
        request = httpx2.Request(
            outgoing.method,
            outgoing.url,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "gzip", **outgoing.headers},
            content=outgoing.content,
            extensions={"timeout": {**waits, "read": timeout, "write": timeout}, "trace": flight.trace},
        )
        try:
            async with asyncio.timeout(timeout):
                return await self._transfer(request, flight)
        except (NotSent, Lost):
            raise
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotSent(_reason(error), timed_out=True) from None
        except (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            raise NotSent(_reason(error)) from None
        except (httpx2.TimeoutException, TimeoutError):
            raise flight.failed(f"no answer within {timeout:g} s", timed_out=True) from None
        except Exception as error:
            # Whatever else breaks an exchange, a request that may have left counts as sent.
            raise flight.failed(_reason(error)) from error

    async def _transfer(self, request: httpx2.Request, flight: _Flight) -> Answer:
        client = self._open()
        if self._world.transport is not None:
            flight.sent = True  # a transport of the world does not report its progress
        response = await client.send(request, stream=True, follow_redirects=False)
        flight.status = response.status_code
        try:
            body = await self._read(response)
        finally:
            await response.aclose()
            client.cookies.clear()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)

    async def _read(self, response: httpx2.Response) -> bytes:
        limit = self._response_bytes
        too_large = Lost(f"the answer is larger than {limit} bytes", status=response.status_code, too_large=True)
        stated = response.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > limit:
            raise too_large
        if response.is_stream_consumed:  # a transport that builds whole answers, as those of tests do
            if len(response.content) > limit:
                raise too_large
            return response.content
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
        body = b"".join(chunks)
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding in ("gzip", "x-gzip"):
            body = _gunzip(body, limit, too_large)
        elif coding not in ("", "identity"):
            raise Lost(f"the answer is coded as {coding!r}, which was not asked for", status=response.status_code)
        return body


class _Flight:
    """What is known of a request on its way."""

    def __init__(self, world: World, not_after: float) -> None:
        self._clock = world.clock
        self._not_after = not_after
        self.sent = False
        self.status: int | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by the transport at each stage; the deadline is judged at the last moment before the first byte."""
        if event.endswith("send_request_headers.started"):
            if self._clock.now() >= self._not_after:
                raise NotSent("its deadline passed while connecting", late=True)
            self.sent = True

    def failed(self, reason: str, *, timed_out: bool = False) -> NotSent | Lost:
        """The failure as what it means."""
        if self.sent:
            return Lost(reason, timed_out=timed_out, status=self.status)
        return NotSent(reason, timed_out=timed_out)


def _gunzip(data: bytes, limit: int, too_large: Lost) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        plain = reader.decompress(data, limit + 1)
    except zlib.error as error:
        raise Lost(f"the answer is no gzip: {error}", status=too_large.status) from None
    if len(plain) > limit:
        raise too_large
    if not reader.eof:
        raise Lost("the compressed answer is cut off", status=too_large.status)
    return plain


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
