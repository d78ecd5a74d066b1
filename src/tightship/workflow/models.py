"""What `agents/*.yaml` and `workflows/*.yaml` hold. `tightship.yaml` stands in `config.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from tightship.core.money import NANO, show_usd
from tightship.core.ports import Json
from tightship.workflow.conditions import Expression, Values
from tightship.workflow.conduct import AuditSpec, BreakerSpec, DriftSpec, GroundedSpec, HistorySpec, ResetSpec
from tightship.workflow.context_patterns import KeyPattern
from tightship.workflow.slots import check_cron, check_timezone
from tightship.workflow.source import plain
from tightship.workflow.spec import Fields, Spec, Text, Texts, ToolName, listed
from tightship.workflow.steps import Children
from tightship.workflow.tree import Behaviours, Step, UndoRetry, describe_behaviour, patterns, settle
from tightship.workflow.types import object_schema, shape_of
from tightship.workflow.units import Duration, Name, Usd, WorkflowName, show_duration


class Budget(Spec):
    """What a run, an agent's turn or a period may cost; None is no limit of its own.

    `usd` is nano-dollars here and US dollars in files. `then` is what happens when it is used up; None is what the
    workflow says for an agent's, and `ask` for a workflow's.
    """

    usd: Usd | None = None
    tokens: int | None = Field(default=None, ge=0)
    seconds: Duration | None = None
    calls: int | None = Field(default=None, ge=0)
    then: Literal["ask", "escalate", "fail"] | None = None

    @property
    def empty(self) -> bool:
        """Whether it limits nothing."""
        return self.usd is None and self.tokens is None and self.seconds is None and self.calls is None

    def describe(self) -> str:
        """`$0.30, 60000 tokens, 2m, 40 calls, then escalate`."""
        parts = list[str]()
        if self.usd is not None:
            parts.append(show_usd(self.usd) if self.usd % 10_000_000 else f"${self.usd / NANO:,.2f}")
        if self.tokens is not None:
            parts.append(f"{self.tokens} tokens")
        if self.seconds is not None:
            parts.append(show_duration(self.seconds))
        if self.calls is not None:
            parts.append(f"{self.calls} calls")
        return f"{', '.join(parts)}, then {self.then or 'ask'}" if parts else "none"


class Limits(Spec):
    """Bounds of a run that no agent can reset (F1). Reaching one ends the run by its `unforeseen` behaviour."""

    turns: int = Field(default=60, ge=1, le=100_000, description="agent turns in a run")
    calls: int = Field(default=200, ge=1, le=1_000_000, description="tool and model calls in a run")
    requests: int = Field(
        default=1000,
        ge=1,
        le=10_000_000,
        description="attempts at tools and models for one user's request: the run and all runs below it, retries too",
    )
    retries: int = Field(default=20, ge=0, le=10_000, description="retries in a run, over all layers together")
    repeats: int = Field(
        default=3, ge=1, le=1000, description="identical calls (same tool, same arguments) of one agent"
    )
    similar: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="turns, calls or rounds of an agent that are nearly the same in other words, nothing new between",
    )
    similarity: float = Field(
        default=0.7, ge=0.5, le=1.0, description="share of words in common from which on texts are nearly the same"
    )
    handoffs: int = Field(default=8, ge=0, le=1000, description="handoffs of one task")
    messages: int = Field(default=500, ge=0, le=100_000, description="messages between peers for one user's request")
    depth: int = Field(default=5, ge=1, le=20, description="workflows started by workflows")
    branches: int = Field(default=32, ge=1, le=1000, description="branches side by side in one step")
    restarts: int = Field(
        default=5,
        ge=3,  # each suspect is driven alone once, at least
        le=1000,
        description="starts of a run in a row over which its process ended with nothing recorded; then it is escalated",
    )
    output_bytes: int = Field(default=4_000_000, ge=1000, le=100_000_000, description="size of one output")
    stall: Duration = Field(
        default=900.0,
        ge=1,
        description="time with no entry and nothing in flight after which a running run is escalated as stalled",
    )


class LimitOverrides(Spec):
    """What a workflow sets differently from the workspace's limits; None leaves it as it is there."""

    turns: int | None = Field(default=None, ge=1, le=100_000)
    calls: int | None = Field(default=None, ge=1, le=1_000_000)
    requests: int | None = Field(default=None, ge=1, le=10_000_000)
    retries: int | None = Field(default=None, ge=0, le=10_000)
    repeats: int | None = Field(default=None, ge=1, le=1000)
    similar: int | None = Field(default=None, ge=1, le=1000)
    similarity: float | None = Field(default=None, ge=0.5, le=1.0)
    handoffs: int | None = Field(default=None, ge=0, le=1000)
    messages: int | None = Field(default=None, ge=0, le=100_000)
    depth: int | None = Field(default=None, ge=1, le=20)
    branches: int | None = Field(default=None, ge=1, le=1000)
    restarts: int | None = Field(default=None, ge=3, le=1000)
    output_bytes: int | None = Field(default=None, ge=1000, le=100_000_000)
    stall: Duration | None = Field(default=None, ge=1)

    def over(self, base: Limits) -> Limits:
        """The limits that count, given the workspace's."""
        own = {name: value for name, value in self if value is not None}
        return base.model_copy(update=own)


class AgentLimits(Spec):
    """Bounds of one agent within a run; None leaves it to the run's."""

    turns: int | None = Field(default=None, ge=1)
    calls: int | None = Field(default=None, ge=1)
    repeats: int | None = Field(default=None, ge=1)
    similar: int | None = Field(default=None, ge=1)
    output_bytes: int | None = Field(default=None, ge=1000)


class Confidence(Spec):
    """Where an agent's confidence comes from; never a model's bare word.

    `calibrated_on` names the recorded outcomes (a file of the workspace) on which it was calibrated; without them it
    releases nothing. `of` is the field of the output that is decided: with `agreement` the one on which the answers
    have to agree, with `logprob` the one whose tokens count (without it, all do). `samples` belongs to `agreement`: how
    often the agent is asked.
    """

    source: Literal["classifier", "agreement", "logprob", "checker"]
    field: Name = "confidence"
    calibrated_on: Text | None = None
    of: Name | None = None
    samples: int = Field(default=5, ge=2, le=20)

    @model_validator(mode="after")
    def _agrees_on_something(self) -> Confidence:
        if self.source == "agreement" and self.of is None:
            raise ValueError("agreement needs `of`: the field on which samples have to agree")
        if self.of is not None and self.source not in ("agreement", "logprob"):
            raise ValueError(f"`of` belongs to agreement and logprob, and not to {self.source}; delete it")
        if self.of == self.field:
            raise ValueError(f"`of` is the field that is decided, and {self.field!r} holds the confidence in it")
        return self


class AgentSpec(Spec):
    """An agent: who answers for it, what it takes and gives, what it may touch.

    Exactly one of `python` (`module:function` in agents/), `model` (a tier) and `human` (a role) says what it is.
    """

    agent: Name
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    purpose: Annotated[str, Field(min_length=1, max_length=1000)]
    python: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    model: Name | None = None
    human: Name | None = None
    instructions: Annotated[str, Field(max_length=100_000)] | None = None
    input: Fields = Field(default={})
    output: Fields = Field(default={})
    tools: tuple[ToolName, ...] = ()
    reads: tuple[KeyPattern, ...] = ()
    writes: tuple[KeyPattern, ...] = ()
    confidence: Confidence | None = None
    history: HistorySpec | None = None
    grounded: GroundedSpec | None = None
    reset: ResetSpec | None = None
    audit: AuditSpec | None = Field(default=None, exclude=True)
    """No part of the definition that a run is bound to: it says who looks at what runs gave."""
    breaker: BreakerSpec | None = Field(default=None, exclude=True)
    """No part of it either: it is in force as it stands today."""
    drift: DriftSpec | None = Field(default=None, exclude=True)
    """No part of it either."""
    on: Behaviours = Field(default={})
    budget: Budget = Budget()
    limits: AgentLimits = AgentLimits()
    within: Duration | None = None
    retries: int = Field(
        default=1, ge=0, le=10, description="repairs of an output that does not fit, before FormatMismatch"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> AgentSpec:
        given = [name for name in ("python", "model", "human") if getattr(self, name) is not None]
        if len(given) != 1:
            said = "none" if not given else " and ".join(given)
            raise ValueError(
                f"an agent is exactly one of python, model and human, and here is {said}; keep one of them"
            )
        if patterns.find(self.agent) is not None:
            raise ValueError(f"{self.agent!r} is the word for a pattern; give the agent another name")
        return self

    @field_validator("tools")
    @classmethod
    def _tools_once(cls, tools: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((name for name in tools if tools.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the tool {twice!r} is listed twice; delete one of them")
        return tools

    @property
    def kind(self) -> Literal["python", "model", "human"]:
        """What it is."""
        return "python" if self.python is not None else "model" if self.model is not None else "human"

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of its inputs."""
        return object_schema(self.input)

    @cached_property
    def output_schema(self) -> dict[str, Any] | None:
        """JSON Schema of its output; None when it declares none."""
        return object_schema(self.output) if self.output else None

    def check_output(self, value: Json) -> Json:
        """The value, if it fits the declared output.

        Raises:
            WrongShape: it does not; every misfit is listed.
        """
        if self.output_schema is None:
            return value
        return shape_of(self.output_schema).require(value, f"the output of {self.agent}")

    def conduct(self) -> list[str]:
        """What happens on exceptions, in plain words."""
        return [f"{kind}: {describe_behaviour(behaviour)}" for kind, behaviour in self.on.items()]


class Schedule(Spec):
    """When a workflow starts by itself, and with what.

    The times of `cron` are those of `timezone`. A time that a change of clocks skips is a slot when the clocks have
    gone forward, and one that comes twice is two slots.
    """

    cron: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_cron)]
    timezone: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(check_timezone)] = "UTC"
    input: Annotated[Mapping[str, Any], BeforeValidator(plain)] = {}
    tenant: Annotated[str, Field(min_length=1, max_length=200)] = "default"


class Need(Spec):
    """What the work of a workflow is like, as far as it matters to how agents should work together (P11).

    What is not said gives no advice.
    """

    order: Literal["fixed", "free"] | None = None
    independent: bool = False
    complexity: Literal["low", "high"] | None = None
    sovereignty: bool = False
    regulated: bool = False
    volume: Literal["low", "high"] | None = None


class WorkflowSpec(Spec):
    """A workflow: its whole map (W1), its bounds, and its steps."""

    workflow: WorkflowName
    owner: Annotated[str, Field(min_length=1, max_length=200)]
    purpose: Annotated[str, Field(min_length=1, max_length=1000)]
    input: Fields = Field(default={})
    output: Values | None = None
    budget: Budget = Budget()
    limits: LimitOverrides = LimitOverrides()
    on: Behaviours = Field(default={})
    constraints: Texts = ()
    four_eyes: bool = False
    undo_on_failure: bool = True
    undo_retry: UndoRetry = UndoRetry()
    subjects: Annotated[tuple[Expression, ...], BeforeValidator(listed)] = ()
    priority: int = Field(default=5, ge=0, le=9, description="0 runs first, 9 last")
    begin_within: Duration | None = None
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    schedule: Schedule | None = Field(default=None, exclude=True)
    """No part of the definition that a run is bound to: it says when runs start, not what they do."""
    breaker: BreakerSpec | None = Field(default=None, exclude=True)
    """Nor is this: it is in force as it stands today."""
    need: Need = Field(default=Need(), exclude=True)
    """No part of it either: `check` reads it, no run does."""
    drift: DriftSpec | None = Field(default=None, exclude=True)
    """No part of it either: many runs are looked at."""
    steps: Children

    trigger: Text | None = None
    systems: Texts = ()
    data: Mapping[str, Text] | Text | None = None
    compliance: Texts = ()
    escalate_to: Name | None = None
    escalation: Text | None = None
    completion: Text | None = None

    _root: Step | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _settle(self) -> WorkflowSpec:
        self._root = patterns.get("sequence").model_validate({"steps": self.steps})
        settle(self._root)
        return self

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.workflow

    @property
    def root(self) -> Step:
        """The steps as one sequence: what a run interprets."""
        assert self._root is not None
        return self._root

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of its input."""
        return object_schema(self.input)

    def walk(self) -> Iterator[Step]:
        """Every step, parents before children."""
        for step in self.steps:
            yield from step.walk()

    def agents(self) -> list[str]:
        """The agents that its tree names, each once, in order."""
        found = [name for step in self.walk() for name in step.agents()]
        return list(dict.fromkeys([*found, *_used(self.on)]))

    def tools(self) -> list[str]:
        """The tools that its actions name, each once, in order."""
        return list(dict.fromkeys(name for step in self.walk() for name in step.tools()))

    def children(self) -> list[str]:
        """The workflows that it starts, each once, in order."""
        return list(dict.fromkeys(name for step in self.walk() for name in step.workflows()))

    def roles(self) -> list[str]:
        """The roles that it and its steps name, each once."""
        own = [] if self.escalate_to is None else [self.escalate_to]
        return list(dict.fromkeys([*own, *(name for step in self.walk() for name in step.roles())]))

    def escalation_role(self, roles: Collection[str]) -> str | None:
        """The role that gets its escalations: `escalate_to`, else the first that a step names, else the only one."""
        named = self.roles()
        return named[0] if named else next(iter(roles)) if len(roles) == 1 else None

    def expressions(self) -> Iterator[tuple[str, Expression | Values]]:
        """Its own expressions (not its steps'), by field."""
        if self.output is not None:
            yield "output", self.output
        for expression in self.subjects:
            yield "subjects", expression


def _used(behaviours: Mapping[str, Any]) -> Sequence[str]:
    return [behaviour.use for behaviour in behaviours.values() if behaviour.use is not None]
