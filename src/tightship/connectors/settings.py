"""What `tightship.yaml` says about a connector: where its contract lies, how to sign in, what the contract lacks."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tightship.core.errors import LoadError
from tightship.core.money import to_nano
from tightship.core.ports import Usage


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _price(value: Any) -> Any:
    """A bare amount means USD per call."""
    return {"usd": value} if isinstance(value, str | int | float | Decimal) else value


class PriceSettings(_Strict):
    """The highest cost of one call.

    Attributes:
        usd: US dollars.
        tokens_in: tokens in, for a tool that runs a model of its own.
        tokens_out: tokens out.
    """

    usd: Decimal = Field(default=Decimal(0), ge=0)
    tokens_in: int = Field(default=0, ge=0)
    tokens_out: int = Field(default=0, ge=0)

    def usage(self) -> Usage:
        """The same as the ledger counts it."""
        return Usage(to_nano(self.usd), self.tokens_in, self.tokens_out)


Price = Annotated[PriceSettings, BeforeValidator(_price)]


class LookupSettings(_Strict):
    """How to ask whether a write was done (`x-lookup`).

    Attributes:
        operation: operationId of a read.
        by: the field by which the write is found.
        with_: the read's arguments: OpenAPI runtime expressions (`$request.body#/client_ref`) or constants.
        reference: the write's body field that carries our own reference; without it `client_ref` and
            `client_reference` are known as such.
        items: name of the list in the answer; a plain list needs no name.
    """

    operation: str
    by: str | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    reference: str | None = None
    items: str = "items"


class UndoSettings(_Strict):
    """How a write is compensated (`x-undo`): an operationId and its arguments as runtime expressions or constants."""

    operation: str
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")


class Overlay(_Strict):
    """What is known about one operation beyond its contract; every field given replaces the contract's.

    Attributes:
        effect: `read` changes nothing outside.
        idempotency: whether a repeated call is one call: by `key`, by `etag`, or `none`.
        idempotency_header: the header that carries the key.
        lookup: how to ask whether a write was done.
        undo: how to compensate it.
        price: the highest cost of one call, in USD or as a mapping.
        timeout: seconds until a call counts as unanswered.
        cache_seconds: how long a read may be answered from cache.
        requests_per_second: the rate that the other side allows.
        hedge: seconds after which a read that was not answered is asked a second time.
        description: what the tool does, for people and models.
    """

    effect: Literal["read", "write"] | None = None
    idempotency: Literal["key", "etag", "none"] | None = None
    idempotency_header: str | None = None
    lookup: LookupSettings | None = None
    undo: UndoSettings | None = None
    price: Price | None = None
    timeout: float | None = Field(default=None, gt=0, le=3600)
    cache_seconds: float | None = Field(default=None, ge=0)
    requests_per_second: float | None = Field(default=None, gt=0)
    hedge: float | None = Field(default=None, gt=0, le=3600)
    description: str | None = None

    def over(self, below: Overlay) -> Overlay:
        """These fields, and those of `below` where none was given here."""
        return below.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class ConnectorLimits(_Strict):
    """Bounds that hold whatever the other side sends.

    Attributes:
        document_bytes: the largest contract that is read.
        response_bytes: the largest answer, after decompression.
        connections: connections at once.
        definitions: the most schema definitions that one operation carries; what lies beyond is not checked here.
        ref_depth: the longest chain of references to references.
        compiled: the most operations kept compiled.
    """

    document_bytes: int = Field(default=64_000_000, gt=0)
    response_bytes: int = Field(default=5_000_000, gt=0)
    connections: int = Field(default=32, gt=0, le=1000)
    definitions: int = Field(default=1000, gt=0)
    ref_depth: int = Field(default=50, gt=0)
    compiled: int = Field(default=512, gt=0)


class SecretRef(_Strict):
    """The name of a secret; its value never stands in a file of the workspace."""

    secret: str


class ApiKeySettings(SecretRef):
    """An API key in a header or in the query."""

    header: str | None = None
    query: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> ApiKeySettings:
        if (self.header is None) == (self.query is None):
            raise ValueError("give either header or query")
        return self


class BasicSettings(SecretRef):
    """User name and password (RFC 7617); `secret` names the password."""

    username: str


class OAuth2Settings(SecretRef):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4); `secret` names the client's secret."""

    token_url: str
    client_id: str
    scope: str | None = None
    audience: str | None = None
    client_auth: Literal["basic", "body"] = "basic"


class AuthSettings(_Strict):
    """How to sign in: at most one of these."""

    bearer: SecretRef | None = None
    api_key: ApiKeySettings | None = None
    basic: BasicSettings | None = None
    oauth2: OAuth2Settings | None = None

    @model_validator(mode="after")
    def _one_way(self) -> AuthSettings:
        if sum(way is not None for way in (self.bearer, self.api_key, self.basic, self.oauth2)) != 1:
            raise ValueError("give exactly one of bearer, api_key, basic, oauth2")
        return self


class ConnectorSettings(_Strict):
    """A connector of `tightship.yaml`.

    Attributes:
        openapi: the contract: a file of the workspace or a URL.
        base_url: where the system answers; the contract's first server when left out.
        auth: how to sign in.
        operations: what is known beyond the contract, by operationId or tool name.
        timeout: seconds until a call counts as unanswered.
        limits: bounds on what is read.
        insecure_http: allow `http:` to a host that is not this machine.
        proxy: URL of an outgoing proxy; the environment's proxies are not used.
    """

    openapi: str
    base_url: str | None = None
    auth: AuthSettings | None = None
    operations: dict[str, Overlay] = Field(default_factory=dict)
    timeout: float = Field(default=30.0, gt=0, le=3600)
    limits: ConnectorLimits = ConnectorLimits()
    insecure_http: bool = False
    proxy: str | None = None


def connector_settings(name: str, raw: Any, *, file: str | None = None) -> ConnectorSettings:
    """The settings of the connector `name`.

    Raises:
        LoadError: a field is unknown, missing or has a wrong value; the message names it.
    """
    try:
        return ConnectorSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in ("connectors", name, *first["loc"]))
        raise LoadError(f"{place}: {first['msg']}", file=file, fix="correct this field in tightship.yaml") from None
