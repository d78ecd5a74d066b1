"""How a feed of the shared context is declared: who pushes by which way, and what of an event becomes which value."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field, model_validator

from tightship.workflow.conditions import Condition, Expression
from tightship.workflow.models import Spec, Text
from tightship.workflow.units import Duration, WorkflowName, secret_variable, variable

NAMES: Final = frozenset({"event", "at", "id"})
"""What the expressions of a feed know: the event, the time and the name that its sender gave the delivery."""


class WebhookFeed(Spec):
    """Signed requests to `POST /context/FEED` (Standard Webhooks 1.0)."""

    secret: Annotated[str, BeforeValidator(secret_variable)]
    window: Duration = Field(default=300.0, gt=0, le=3600)
    max_bytes: int = Field(default=262_144, ge=1, le=16_000_000)

    @property
    def secret_name(self) -> str:
        """The secret's name."""
        return variable(self.secret)


class PostgresFeed(Spec):
    """The changes of a table, noted by a trigger in the transaction that makes them."""

    url: Annotated[str, Field(pattern=r"^(postgres(ql)?://.+|\$\{[A-Za-z_][A-Za-z0-9_]*\})$", max_length=1000)]
    table: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,57}\.[a-z_][a-z0-9_]{0,57}$")]

    @property
    def schema_name(self) -> str:
        """The table's schema, in which its changes are noted."""
        return self.table.partition(".")[0]


class BrokerFeed(Spec):
    """Messages of a broker: a stream of Redis, or of NATS JetStream."""

    url: Annotated[
        str, Field(pattern=r"^((redis|rediss|nats|tls)://.+|\$\{[A-Za-z_][A-Za-z0-9_]*\})$", max_length=1000)
    ]
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/{}-]{1,200}$")]
    subject: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.*>$-]{1,200}$")] | None = None
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")] = "tightship"
    max_bytes: int = Field(default=262_144, ge=1, le=16_000_000)


class FeedSpec(Spec):
    """An outside system that pushes: by exactly one way, its events as values of keys that name it in `feeds`."""

    webhook: WebhookFeed | None = None
    postgres: PostgresFeed | None = None
    broker: BrokerFeed | None = None
    key: Expression
    value: Expression
    as_of: Expression
    id: Expression | None = None
    when: Condition | None = None
    tenant: Text = "default"
    workflow: WorkflowName | None = None

    @model_validator(mode="after")
    def _one_way(self) -> FeedSpec:
        if [self.webhook, self.postgres, self.broker].count(None) != 2:
            raise ValueError("a feed comes by exactly one of webhook, postgres and broker; keep one of them")
        return self

    @property
    def max_bytes(self) -> int | None:
        """Bytes that a delivery may have before it is read; None for a table's changes, which its owner bounds."""
        way = self.webhook or self.broker
        return None if way is None else way.max_bytes

    def expressions(self) -> dict[str, Expression]:
        """Those that are declared, by field."""
        named = {"key": self.key, "value": self.value, "as_of": self.as_of, "id": self.id, "when": self.when}
        return {name: one for name, one in named.items() if one is not None}
