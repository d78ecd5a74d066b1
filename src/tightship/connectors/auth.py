"""Signing in: bearer token, API key, basic, OAuth 2.0 client credentials. Secrets are fetched for each call."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import orjson

from tightship.connectors._arguments import Outgoing
from tightship.connectors._http import Answer, HttpClient, Lost, NotSent, authority
from tightship.connectors.settings import ApiKeySettings, AuthSettings, BasicSettings, OAuth2Settings
from tightship.core.errors import LoadError, Unavailable
from tightship.core.ports import Secrets
from tightship.core.world import World

_MARGIN_SECONDS = 30.0
_TOKEN_TIMEOUT = 15.0
_DEFAULT_LIFETIME = 300.0


class Auth(Protocol):
    """A way to sign a request."""

    hosts: frozenset[str]

    async def sign(self, outgoing: Outgoing, http: HttpClient, not_after: float) -> frozenset[str]:
        """Add what proves who we are; returns the secret values used, so that messages can be scrubbed of them.

        Raises:
            UnknownName: the secret is not there.
            Unavailable: the sign-in service does not answer or refuses; nothing was sent to the system itself.
        """
        ...

    def refused(self) -> bool:
        """The system answered 401: forget what was cached. Whether another try makes sense."""
        ...


class NoAuth:
    """Nothing to sign in with."""

    hosts: frozenset[str] = frozenset()

    async def sign(self, outgoing: Outgoing, http: HttpClient, not_after: float) -> frozenset[str]:
        """Nothing to do."""
        return frozenset()

    def refused(self) -> bool:
        """Another try would be refused again."""
        return False


class _Static(NoAuth):
    def __init__(self, secret: str, secrets: Secrets) -> None:
        self._name = secret
        self._secrets = secrets

    def _secret(self) -> str:
        value = self._secrets.get(self._name)
        if not value.isascii() or any(letter < " " for letter in value):
            raise LoadError(f"the secret {self._name!r} holds a character that no header may hold")
        return value


class BearerAuth(_Static):
    """`Authorization: Bearer …` (RFC 6750)."""

    async def sign(self, outgoing: Outgoing, http: HttpClient, not_after: float) -> frozenset[str]:
        """Add the token."""
        value = self._secret()
        outgoing.headers["Authorization"] = f"Bearer {value}"
        return frozenset({value})


class ApiKeyAuth(_Static):
    """A key in a header or in the query."""

    def __init__(self, settings: ApiKeySettings, secrets: Secrets) -> None:
        super().__init__(settings.secret, secrets)
        self._settings = settings

    async def sign(self, outgoing: Outgoing, http: HttpClient, not_after: float) -> frozenset[str]:
        """Add the key."""
        value = self._secret()
        if self._settings.header is not None:
            outgoing.headers[self._settings.header] = value
        elif self._settings.query is not None:
            glue = "&" if "?" in outgoing.url else "?"
            outgoing.url += f"{glue}{quote(self._settings.query, safe='')}={quote(value, safe='')}"
        return frozenset({value, quote(value, safe="")})


class BasicAuth(_Static):
    """`Authorization: Basic …` (RFC 7617)."""

    def __init__(self, settings: BasicSettings, secrets: Secrets) -> None:
        super().__init__(settings.secret, secrets)
        self._username = settings.username

    async def sign(self, outgoing: Outgoing, http: HttpClient, not_after: float) -> frozenset[str]:
        """Add user name and password."""
        value = self._secrets.get(self._name)
        coded = base64.b64encode(f"{self._username}:{value}".encode()).decode()
        outgoing.headers["Authorization"] = f"Basic {coded}"
        return frozenset({value, coded})


@dataclass(slots=True)
class _Token:
    value: str
    until: float


class OAuth2Auth(NoAuth):
    """Client credentials (RFC 6749, section 4.4): the token is fetched once for all, and again after a refusal."""

    def __init__(self, settings: OAuth2Settings, secrets: Secrets, world: World) -> None:
        self._settings = settings
        self._secrets = secrets
        self._world = world
        self._token: _Token | None = None
        self._lock = asyncio.Lock()
        self.hosts = frozenset({authority(settings.token_url)})

    async def sign(self, outgoing: Outgoing, http: HttpClient, not_after: float) -> frozenset[str]:
        """Add the access token, fetching one when there is none or it is about to end."""
        async with self._lock:
            if self._token is None or self._token.until <= self._world.clock.now():
                self._token = await self._fetch(http, not_after)
            value = self._token.value
        outgoing.headers["Authorization"] = f"Bearer {value}"
        return frozenset({value})

    def refused(self) -> bool:
        """Fetch a new token and try once more."""
        self._token = None
        return True

    async def _fetch(self, http: HttpClient, not_after: float) -> _Token:
        settings = self._settings
        secret = self._secrets.get(settings.secret)
        fields = {"grant_type": "client_credentials"}
        if settings.scope:
            fields["scope"] = settings.scope
        if settings.audience:
            fields["audience"] = settings.audience
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if settings.client_auth == "basic":
            # RFC 6749, section 2.3.1: both parts form-encoded before they are joined.
            pair = f"{quote(settings.client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            fields |= {"client_id": settings.client_id, "client_secret": secret}
        content = "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items()).encode()
        asked = self._world.clock.now()
        try:
            answer = await http.send(
                Outgoing("POST", settings.token_url, headers, content), timeout=_TOKEN_TIMEOUT, not_after=not_after
            )
        except (NotSent, Lost) as error:
            raise Unavailable(f"the sign-in service does not answer: {error.reason}") from None
        return _token(answer, asked)


def _token(answer: Answer, asked: float) -> _Token:
    fix = "check token_url, client_id and the secret"
    if answer.status != 200:
        raise Unavailable(f"the sign-in service answered {answer.status}", fix=fix)
    try:
        body = orjson.loads(answer.body)
        value = body["access_token"]
        lifetime = float(body.get("expires_in", _DEFAULT_LIFETIME))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Unavailable("the sign-in service answered without an access token", fix=fix) from None
    if not isinstance(value, str) or not value.isascii() or any(letter <= " " for letter in value):
        raise Unavailable("the sign-in service answered with a token that no header may hold", fix=fix)
    return _Token(value, asked + max(lifetime - _MARGIN_SECONDS, lifetime / 2))


def auth_of(settings: AuthSettings | None, secrets: Secrets, world: World) -> Auth:
    """The way to sign in that these settings describe; nothing when there are none."""
    if settings is None:
        return NoAuth()
    if settings.bearer is not None:
        return BearerAuth(settings.bearer.secret, secrets)
    if settings.api_key is not None:
        return ApiKeyAuth(settings.api_key, secrets)
    if settings.basic is not None:
        return BasicAuth(settings.basic, secrets)
    if settings.oauth2 is not None:
        return OAuth2Auth(settings.oauth2, secrets, world)
    raise LoadError("auth names no way to sign in", fix="give one of bearer, api_key, basic, oauth2")
