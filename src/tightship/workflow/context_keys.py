"""How a key of the shared context is declared: its writers, what it holds, how old it may be, what ends conflicts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tightship.workflow.conditions import Expression
from tightship.workflow.context_patterns import KeyPattern, check_key, check_pattern, matches
from tightship.workflow.models import Spec, ToolName
from tightship.workflow.source import plain
from tightship.workflow.types import type_schema
from tightship.workflow.units import Duration, Name


class SourceSpec(Spec):
    """The tool that a value is read from again.

    Expressions of `with` know `key` (the whole key) and `parts` (what its stars stand for); `value` and `as_of` know
    `result`, what the tool has answered.
    """

    tool: ToolName
    with_: Mapping[str, Expression] = Field(default={}, alias="with")
    value: Expression | None = None
    as_of: Expression | None = None


class ConflictRule(Spec):
    """What ends a conflict of two writes: exactly one of these."""

    first: bool = False
    priority: tuple[Name, ...] = ()
    merge: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    person: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare_word(cls, value: Any) -> Any:
        return {"first": True} if isinstance(value, str) and value == "first" else value

    @model_validator(mode="after")
    def _exactly_one(self) -> ConflictRule:
        if [self.first, bool(self.priority), bool(self.merge), bool(self.person)].count(True) != 1:
            raise ValueError("a conflict ends by exactly one of first, priority, merge and person; keep one of them")
        return self

    @property
    def name(self) -> str:
        """`first`, `priority`, `merge` or `person`."""
        return "priority" if self.priority else "merge" if self.merge else "person" if self.person else "first"


def _type(value: Any) -> Any:
    type_schema(value)
    return plain(value)


class ContextKey(Spec):
    """A key of the shared context, or a pattern of keys."""

    scope: Literal["run", "workflow", "tenant"] = "tenant"
    writers: tuple[Name, ...] = ()
    readers: tuple[Name, ...] | None = None
    feeds: tuple[Name, ...] = ()
    type: Annotated[Any, BeforeValidator(_type)] = "any"
    max_age: Duration | None = None
    ttl: Duration | None = None
    source: SourceSpec | None = None
    conflict: ConflictRule = ConflictRule(first=True)
    stale: Literal["refresh", "refuse"] | None = None
    skew: Duration = 60.0
    max_bytes: int = Field(default=64_000, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _somebody_writes(self) -> ContextKey:
        if not (self.writers or self.feeds or self.source is not None):
            raise ValueError(
                "writers: nobody may write this key; name agents or roles in `writers`, outside systems in `feeds`, "
                "or a tool in `source`"
            )
        if self.stale == "refresh" and self.source is None:
            raise ValueError("stale: refresh needs a source; name its tool in `source`, or write stale: refuse")
        return self

    @property
    def outside(self) -> bool:
        """Whether its values are readings of something outside, which an action there changes."""
        return self.source is not None or bool(self.feeds)

    @property
    def refreshes(self) -> bool:
        """Whether a stale read goes to the source."""
        return self.source is not None and self.stale != "refuse"

    @cached_property
    def value_schema(self) -> Mapping[str, Any]:
        """JSON Schema of its values."""
        return type_schema(self.type)[0]


__all__ = ["ConflictRule", "ContextKey", "KeyPattern", "SourceSpec", "check_key", "check_pattern", "matches"]
