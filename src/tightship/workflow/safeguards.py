"""What `tightship.yaml` declares of breakers (F11) and of the domains of arguments (F7)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, model_validator

from tightship.core.errors import LoadError
from tightship.core.ports import Json
from tightship.workflow.conditions import Condition
from tightship.workflow.models import BreakerSpec, Spec, ToolName
from tightship.workflow.spec import KEYWORD_FIELDS
from tightship.workflow.units import Duration, Name, WorkflowName

NAMES: Final = ("value", "args", "found", "input")
"""What a condition of a domain knows: the value, all arguments, what was looked up by argument, the run's input."""


class BreakersSpec(Spec):
    """Breakers, by what they stand before."""

    systems: BreakerSpec = BreakerSpec()
    providers: Mapping[str, BreakerSpec] = {}
    tools: Mapping[ToolName, BreakerSpec] = {}
    agents: Mapping[Name, BreakerSpec] = {}
    workflows: Mapping[WorkflowName, BreakerSpec] = {}

    def by_key(self) -> Iterator[tuple[str, BreakerSpec]]:
        """Those that are declared, by the key under which calls are counted."""
        yield from self.providers.items()
        for kind, declared in (("tool", self.tools), ("agent", self.agents), ("workflow", self.workflows)):
            yield from ((f"{kind}:{name}", one) for name, one in declared.items())


class DomainCheck(BaseModel):
    """What an argument's value has to be: something that exists, one of a set, or what a condition says."""

    model_config = KEYWORD_FIELDS

    exists: ToolName | None = None
    as_: Name | None = None
    one_of: Sequence[Json] | None = None
    that: Condition | None = None
    cache: Duration = 60.0

    @model_validator(mode="before")
    @classmethod
    def _at_least_one(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not {"exists", "one_of", "that"} & set(data):
            raise ValueError("say what the value has to be: `exists: TOOL`, `one_of: [...]` or `that: CONDITION`")
        return data

    @model_validator(mode="after")
    def _is_a_condition(self) -> DomainCheck:
        if self.that is None:
            return self
        try:
            self.that.compile()
        except LoadError as error:
            raise ValueError(error.message) from None
        strange = sorted((self.that.names | set(self.that.ambient)) - set(NAMES))
        if strange:
            raise ValueError(f"the condition uses {', '.join(strange)}; a domain knows {', '.join(NAMES)}")
        return self

    def argument(self, own: str) -> str:
        """What the looking-up tool calls the value."""
        return self.as_ or own


Domains = Mapping[ToolName, Mapping[Name, DomainCheck]]
"""By tool and argument."""

__all__ = ["NAMES", "BreakerSpec", "BreakersSpec", "DomainCheck", "Domains"]
