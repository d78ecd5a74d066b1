"""What keeps conduct as declared: bounded histories, grounds, audits, breakers, checks for drift and leaks, resets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tightship.workflow.spec import Spec
from tightship.workflow.units import Duration, Name, Usd, WorkflowName


class HistorySpec(Spec):
    """How long a model agent's conversation may grow within a turn, and what is always in it (F4).

    `keep` names facts: inputs, or fields of what its tools gave (dotted paths).
    """

    tokens: int = Field(ge=500, le=10_000_000)
    keep: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=200)], ...] = ()
    compact: Literal["drop", "summarise"] = "drop"


class GroundedSpec(Spec):
    """What an agent claims has to stand in what it cites (F10).

    `claims` is the field of its output that holds them: a list of objects with `claim` and `source`. `sources` says
    what may be cited: `tools`, `context`, and inputs by name (`input.ticket`). `overlap` is the share of a claim's
    words that one passage of the source has to have. `fewest` is how many claims there have to be.
    """

    claims: Name
    sources: tuple[Annotated[str, Field(pattern=r"^(tools|context|input\.[A-Za-z_][A-Za-z0-9_-]*)$")], ...] = (
        "tools",
        "context",
    )
    overlap: float = Field(default=0.6, gt=0.0, le=1.0)
    fewest: int = Field(default=0, ge=0, le=1000)


def _grounds(value: Any) -> Any:
    """The bare word is the field; where a step declares it, an answer without any claim is no grounded one."""
    fields = {"claims": str(value)} if isinstance(value, str) else value
    return {"fewest": 1, **fields} if isinstance(fields, Mapping) else fields


Grounds = Annotated[GroundedSpec, BeforeValidator(_grounds)]
"""How a step says that answers have to be grounded."""


class AuditSpec(Spec):
    """Outputs of finished runs are looked at by somebody else (F6).

    `by` is the workflow that looks at one output; it is given `agent`, `run`, `given` and `output`, and its own output
    says in `ok` what came of it. `every` is how often, `sample` how many outputs each time.
    """

    by: WorkflowName
    every: Duration = Field(default=86_400.0, ge=60)
    sample: int = Field(default=20, ge=1, le=1000)


class BreakerSpec(Spec):
    """When a breaker opens, and for how long; what is left out is as usual."""

    window: Duration = 30.0
    minimum: int = Field(default=10, ge=1, le=100_000)
    error_rate: float = Field(default=0.5, gt=0.0, le=1.0)
    slow_after: Duration | None = None
    slow_rate: float = Field(default=0.8, gt=0.0, le=1.0)
    spend: Usd | None = None
    cooldown: Duration = 10.0
    longest: Duration = 300.0
    probes: int = Field(default=2, ge=1, le=100)

    @model_validator(mode="after")
    def _in_order(self) -> BreakerSpec:
        if self.longest < self.cooldown:
            raise ValueError("longest is shorter than cooldown; a breaker stays open for cooldown at least")
        return self


class DriftSpec(Spec):
    """Later runs are compared with a baseline, again and again (F6).

    `level` is the chance of a false alarm in a whole year of checks, over all features. `role` gets what is found.
    `baseline` is how many runs are the baseline where nobody has recorded one; without it somebody has to.
    """

    role: Name
    every: Duration = Field(default=86_400.0, ge=60, le=31_536_000)
    level: float = Field(default=0.05, gt=0.0, le=0.5)
    effect: float = Field(default=0.1, ge=0.0, le=1.0)
    fewest: int = Field(default=30, ge=8, le=500)
    latest: int = Field(default=200, ge=8, le=500)
    baseline: int | None = Field(default=None, ge=8, le=500)
    then: Literal["tell", "halt"] = "tell"

    @model_validator(mode="after")
    def _enough_to_say_something(self) -> DriftSpec:
        few = min(self.latest, self.baseline or self.fewest)
        if few < self.fewest:
            raise ValueError(f"{few} runs are compared, and {self.fewest} are needed; raise it, or lower `fewest`")
        return self


class LeakSpec(Spec):
    """Canaries of one run are looked for in others, again and again (F6).

    `role` gets what is found. A check reads what was recorded since the one before, at most as old as `window`, and at
    most `entries` of it.
    """

    role: Name
    every: Duration = Field(default=86_400.0, ge=60, le=31_536_000)
    window: Duration = Field(default=604_800.0, ge=60, le=31_536_000)
    entries: int = Field(default=100_000, ge=1000, le=10_000_000)

    @model_validator(mode="after")
    def _leaves_nothing_out(self) -> LeakSpec:
        if self.window < self.every:
            raise ValueError("window is shorter than every; what is recorded between two checks would not be read")
        return self


class ResetSpec(Spec):
    """A Python agent begins anew: whatever its code has kept in a process is dropped, by time or after turns (F6)."""

    every: Duration | None = Field(default=None, ge=1)
    turns: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _says_when(self) -> ResetSpec:
        if self.every is None and self.turns is None:
            raise ValueError("say when it begins anew: `every`, `turns`, or both")
        return self
