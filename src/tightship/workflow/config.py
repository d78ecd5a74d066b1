"""What `tightship.yaml` holds: the store, outside systems, model tiers, budgets, roles, limits and settings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from tightship.core.ports import Json
from tightship.workflow.conduct import LeakSpec
from tightship.workflow.context_feeds import FeedSpec
from tightship.workflow.context_keys import ContextKey, KeyPattern
from tightship.workflow.models import AgentSpec, Budget, Limits, Spec, Text, ToolName
from tightship.workflow.notify import Notify
from tightship.workflow.safeguards import BreakersSpec, DomainCheck
from tightship.workflow.units import Duration, Name, Usd, WorkflowName, usd_text

SecretName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=128)]
"""The name of a secret, never its value."""


class SecretRef(Spec):
    """Where a secret comes from: `{secret: NAME}`."""

    secret: SecretName


class BasicAuth(Spec):
    """User name and password (RFC 7617); `secret` names the password."""

    username: Text
    secret: SecretName


class KeyAuth(Spec):
    """An API key in a header or in the query."""

    header: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] | None = None
    query: Text | None = None
    secret: SecretName

    @model_validator(mode="after")
    def _one_place(self) -> KeyAuth:
        if (self.header is None) == (self.query is None):
            raise ValueError("an API key goes into a header or into the query; name one of them")
        return self


class OAuth2(Spec):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4); `secret` names the client's secret."""

    token_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1000)]
    client_id: Text
    secret: SecretName
    scope: Text | None = None
    audience: Text | None = None
    client_auth: Literal["basic", "body"] = "basic"


class Auth(Spec):
    """How a connector signs in: exactly one of these. `auth: none` says that the system has no sign-in."""

    bearer: SecretRef | None = None
    basic: BasicAuth | None = None
    api_key: KeyAuth | None = None
    oauth2: OAuth2 | None = None
    none: bool = False

    @model_validator(mode="before")
    @classmethod
    def _no_sign_in(cls, value: Any) -> Any:
        return {"none": True} if isinstance(value, str) and value == "none" else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Auth:
        given = [name for name in ("bearer", "basic", "api_key", "oauth2") if getattr(self, name) is not None]
        if len(given) + self.none != 1:
            raise ValueError("auth is exactly one of bearer, basic, api_key, oauth2 and none; keep one of them")
        return self


class Overlay(Spec):
    """What is known about one operation beyond its contract; every field that is given replaces the contract's."""

    effect: Literal["read", "write"] | None = None
    idempotency: Literal["key", "etag", "none"] | None = None
    idempotency_header: Text | None = None
    lookup: Mapping[str, Any] | None = None
    undo: Mapping[str, Any] | None = None
    price: Mapping[str, Any] | float | str | None = None
    timeout: Duration | None = None
    cache_seconds: Duration | None = None
    requests_per_second: float | None = Field(default=None, gt=0)
    hedge: Duration | None = None
    description: Text | None = None


class ConnectorSpec(Spec):
    """An outside system, known by its contract."""

    openapi: Text
    """A file of the workspace, or a URL."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1000)] | None = None
    auth: Auth | None = None
    operations: Mapping[str, Overlay] = {}
    timeout: Duration = Field(default=30.0, description="seconds until a call counts as unanswered")
    limits: Mapping[str, int] = {}
    insecure_http: bool = False
    """Allows `http:` to another machine."""
    proxy: Text | None = None

    def to_data(self) -> dict[str, Json]:
        """The settings as JSON, without what was left out, as the connectors read them."""
        data = self.model_dump(mode="json", exclude_none=True)
        data["operations"] = {
            name: one.model_dump(mode="json", exclude_unset=True) for name, one in self.operations.items()
        }
        auth: dict[str, Json] = data.pop("auth", None) or {}
        if not auth.pop("none", False) and auth:
            data["auth"] = auth
        return data


class Price(Spec):
    """What a tier costs per million tokens, with source and date (C7)."""

    input: Usd
    output: Usd
    cached_input: Usd | None = None
    source: Text | None = None
    as_of: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None

    @model_validator(mode="after")
    def _a_date(self) -> Price:
        if self.as_of is not None:
            try:
                dt.date.fromisoformat(self.as_of)
            except ValueError:
                raise ValueError(f"as_of {self.as_of!r} is no date; write YYYY-MM-DD") from None
        return self

    def settings(self) -> dict[str, Json]:
        """The price as the models package reads it: USD per million tokens."""
        made: dict[str, Json] = {"input": usd_text(self.input), "output": usd_text(self.output)}
        if self.cached_input is not None:
            made["cached_input"] = usd_text(self.cached_input)
        return made | {"source": self.source or "tightship.yaml", "date": self.as_of or "1970-01-01"}


def _free(value: Any) -> Any:
    """`price: free` states that calls cost nothing (a model of one's own)."""
    if value == "free":
        return {"input": 0, "output": 0, "source": "stated as free", "as_of": "1970-01-01"}
    return value


class TierSpec(Spec):
    """A model tier: agents name the tier, never the model."""

    model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*:.+$", max_length=200)]
    """`provider:model`."""
    next: Name | None = None
    """The tier that takes over when this one cannot."""
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1000)] | None = None
    secret: SecretName | None = None
    price: Annotated[Price | None, BeforeValidator(_free)] = None
    max_tokens: int = Field(default=4096, ge=1, le=1_000_000)
    thinking: int = Field(default=0, ge=0, le=1_000_000, description="thinking tokens per call")
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    timeout: Duration = 60.0
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="what the provider allows, of all workers together"
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="tokens in and out that the provider allows, of all workers together"
    )
    cache_prompt: bool = False
    """Asks the provider to cache the stable part of prompts."""
    undated: bool = False
    """States that the provider offers no dated version of this model."""

    def settings(self) -> dict[str, Json]:
        """The tier as the models package reads it (models.tiers.TierSettings)."""
        made: dict[str, Json] = {
            "model": self.model,
            "next": self.next,
            "base_url": self.base_url,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "timeout": self.timeout,
            "cache_prompt": self.cache_prompt,
        }
        if self.thinking:
            made["thinking_budget"] = self.thinking
        if self.secret is not None:
            made["api_key"] = {"secret": self.secret}
        if self.price is not None:
            made["price"] = self.price.settings()
        return made


RUNNING: Final = 1000
"""Runs that a process works on at once where no bound is declared."""


class Share(Spec):
    """How much of what is taken in one tenant may have; None for no bound of its own."""

    queued: int | None = Field(default=None, ge=1, le=1_000_000, description="its runs that may wait")
    running: int | None = Field(default=None, ge=1, le=100_000, description="its runs that are worked on at once")


class Bulkhead(Spec):
    """How many runs of one workflow all workers work on, so that it cannot take every place."""

    running: int | None = Field(default=None, ge=1, le=100_000, description="its runs that are worked on at once")


class Admission(Spec):
    """How much work is taken in before starts are refused as `Overloaded` (F13)."""

    queued: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="runs that may wait; a start of priority p is refused from (20 - p)/20 of it on",
    )
    running: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="runs that are worked on at once, by all workers together; by default 1000 in each process",
    )
    tenant: Share = Share()
    tenants: Mapping[str, Share] = {}
    workflows: Mapping[WorkflowName, Bulkhead] = {}

    @property
    def in_process(self) -> int:
        """How many one process works on at most."""
        return RUNNING if self.running is None else self.running

    def tenant_share(self, tenant: str) -> Share:
        """What holds for a tenant."""
        return self.tenants.get(tenant, self.tenant)

    def workflow_share(self, workflow: str) -> Bulkhead:
        """What holds for a workflow."""
        return self.workflows.get(workflow, Bulkhead())


class Periods(Spec):
    """Budgets per day and month."""

    day: Budget | None = None
    month: Budget | None = None


class Budgets(Spec):
    """Envelopes above the run: for every tenant, for single tenants, for single workflows."""

    tenant: Periods = Periods()
    tenants: Mapping[str, Periods] = {}
    workflows: Mapping[WorkflowName, Periods] = {}


def _store(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


class Store(Spec):
    """Where the ledger lies: `sqlite:FOLDER` (below the workspace) or `postgresql://…`, with `${NAME}`s."""

    url: Annotated[
        str,
        Field(
            pattern=r"^(sqlite:.+|postgres(ql)?://.+|memory:|\$\{[A-Za-z_][A-Za-z0-9_]*\})$",
            max_length=1000,
            examples=["sqlite:FOLDER", "postgresql://USER@HOST/DATABASE?schema=NAME", "${NAME}"],
        ),
    ] = "sqlite:.tightship"
    keys: Annotated[
        str | None,
        Field(
            pattern=r"^(postgres(ql)?://.+|\$\{[A-Za-z_][A-Za-z0-9_]*\})$",
            max_length=1000,
            examples=["postgresql://USER@HOST/DATABASE", "${NAME}"],
        ),
    ] = None
    """With Postgres: the keystore's own database."""


class Settings(Spec):
    """Everything else that can be set, with its default."""

    threshold: float = Field(
        default=0.8, ge=0.0, le=1.0, description="confidence below which a person decides, until it has learned"
    )
    agent_seconds: Duration = Field(default=120.0, description="time limit of an agent's turn that declares none")
    input_bytes: int = Field(default=1_000_000, ge=1000, description="size of a run's input")


Person = Annotated[str, Field(min_length=1, max_length=200)]


def _people(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Overload(Spec):
    """When too much waits for a role, and what is done then; nothing is ever approved for that.

    `then`: `escalate` closes reviews beyond the bound as not decided in time, so that their `otherwise` counts;
    `reassign:ROLE` hands the items to another role; `hold` lets them wait, and only says so.
    """

    open: int | None = Field(default=None, ge=1)
    age: Duration | None = None
    then: Annotated[str, Field(pattern=r"^(escalate|hold|reassign:[a-z][a-z0-9_-]*)$")] = "hold"

    @model_validator(mode="after")
    def _says_when(self) -> Overload:
        if self.open is None and self.age is None:
            raise ValueError("say when it is too much: `open`, `age`, or both")
        return self

    @property
    def to(self) -> str | None:
        """The role that takes over."""
        return self.then.partition(":")[2] or None


class WorkspaceConfig(Spec):
    """The content of `tightship.yaml`."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    store: Annotated[Store, BeforeValidator(_store)] = Store()
    connectors: Mapping[Name, ConnectorSpec] = {}
    tiers: Mapping[Name, TierSpec] = {}
    budgets: Budgets = Budgets()
    admission: Admission = Admission()
    roles: Mapping[Name, Annotated[tuple[Person, ...], BeforeValidator(_people)]] = {}
    overload: Mapping[Name, Overload] = {}
    notify: Mapping[Name, Notify] = {}
    context: Mapping[KeyPattern, ContextKey] = {}
    feeds: Mapping[Name, FeedSpec] = {}
    limits: Limits = Limits()
    breakers: BreakersSpec = BreakersSpec()
    domains: Mapping[ToolName, Mapping[Name, DomainCheck]] = {}
    leaks: LeakSpec | None = None
    settings: Settings = Settings()

    @model_validator(mode="after")
    def _overload_names_roles(self) -> WorkspaceConfig:
        for role, rule in self.overload.items():
            unknown = next((one for one in (role, rule.to) if one is not None and one not in self.roles), None)
            if unknown is not None:
                raise ValueError(f"overload: there is no role {unknown!r}; name its people in `roles`")
            way = [role]
            while (to := self.overload[way[-1]].to if way[-1] in self.overload else None) is not None:
                way.append(to)
                if to in way[:-1]:
                    said = f"overload: items would go round in a circle ({' -> '.join(way)})"
                    raise ValueError(f"{said}; let the last role `hold` or `escalate`")
        return self

    @model_validator(mode="after")
    def _notify_names_roles(self) -> WorkspaceConfig:
        for target, notify in self.notify.items():
            unknown = next((role for role in notify.roles if role not in self.roles), None)
            if unknown is not None:
                raise ValueError(f"notify: {target!r} names {unknown!r}, which is no role; name its people in `roles`")
        return self

    def tier_chain(self, name: str) -> list[str]:
        """The tier and those that take over from it, in order; ends at the first that is unknown or repeated."""
        chain, at = list[str](), name
        while at in self.tiers and at not in chain:
            chain.append(at)
            following = self.tiers[at].next
            if following is None:
                break
            at = following
        return chain

    def tiers_of(self, agent: AgentSpec) -> dict[str, TierSpec]:
        """The tiers that an agent may ask: its own and those that take over from it; any, where it is Python."""
        if agent.model is not None:
            return {name: self.tiers[name] for name in self.tier_chain(agent.model)}
        return dict(self.tiers) if agent.python is not None else {}
